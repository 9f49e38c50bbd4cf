"""Pictures: the pixels are the images that were put in, and every figure says what it shows."""

import math
import subprocess
import sys
from statistics import NormalDist

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from scratchgen import models, plots, runs, train, use_backend
from scratchgen.errors import UserError
from scratchgen.mosaic import mosaic
from scratchgen.random import Stream

SMALL = {"dae": {"hidden": 12}, "vae": {"hidden": 12, "latent": 2},
         "gan": {"latent": 3, "generator": [12], "discriminator": [12]}}
NAMES = {"dae": ["curves", "triptych", "filters", "samples", "embedding"],
         "vae": ["curves", "reconstructions", "samples", "manifold", "embedding"],
         "gan": ["curves", "samples"]}


@pytest.fixture(scope="module", autouse=True)
def numpy_backend():
    with use_backend("numpy"):           # nothing to compile
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Kind → folder of a run of one epoch on 20 images."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, sizes in SMALL.items():
        train.train({"run": {"model": kind, "backend": "numpy"}, "data": {"limit": 20},
                     "train": {"epochs": 1}, "model": sizes}, folder / kind)
    return {kind: folder / kind for kind in SMALL}


def made(kind, image_shape=(5, 7, 3), **sizes):
    """A model that was never trained."""
    return models.MODELS[kind](models.MODELS[kind].Config(**{**SMALL[kind], **sizes}), image_shape)


def held_out(n, image_shape=(5, 7, 3)):
    return plots.HeldOut(Stream(1, "x").uniform((n, *image_shape)), np.arange(n) % 4)


def pixels(figure):
    """What the figure's mosaic shows, uint8."""
    return figure.axes[0].images[0].get_array()


def decoded(path):
    """The PNG's pixels, uint8 (rows, columns, 3)."""
    return np.rint(imread(path)[..., :3] * 255).astype(np.uint8)


def lines(figure):
    """Label without the number → values, over all axes."""
    return {line.get_label().split(":")[0]: list(line.get_ydata())
            for axes in figure.axes for line in axes.get_lines()}


# --- mosaics and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_holds_the_images(tmp_path, channels):
    images = np.random.default_rng(0).uniform(-0.2, 1.2, (7, 4, 5, channels))
    shown = decoded(plots.save_grid(images, tmp_path / "new" / "grid.png", columns=3))
    k = 840 // 17
    assert shown.shape == (14 * k, 17 * k, 3)                 # 3 rows of 4, 3 columns of 5, gaps 1
    assert np.array_equal(shown, shown[::k, ::k].repeat(k, axis=0).repeat(k, axis=1))
    page, expected = shown[::k, ::k], np.full((14, 17, 3), 255)
    for i, image in enumerate(images):
        top, left = i // 3 * 5, i % 3 * 6
        expected[top:top + 4, left:left + 5] = np.rint(np.clip(image, 0, 1) * 255)
    assert np.array_equal(page, expected)


def test_grid_is_about_square_unless_told():
    images = np.zeros((7, 4, 4, 1))
    assert mosaic(images, gap=0).shape == (12, 12, 3)
    assert mosaic(images, columns=99, gap=0).shape == (4, 28, 3)
    assert mosaic(images[:1]).shape == (4, 4, 3)


@pytest.mark.parametrize("images, says", [
    (np.full((2, 4, 4, 1), np.nan), "2 of 2 images hold NaN"),
    (np.array([0.0, np.inf]).reshape(2, 1, 1, 1), "1 of 2 images hold NaN or infinity"),
    (np.zeros((4, 4)), "expected \\(N, H, W, C\\)"),
    (np.zeros((2, 4, 4, 2)), "C = 1 \\(grey\\) or 3"),
    (np.zeros((0, 4, 4, 1)), "none of them 0"),
    (np.zeros((2, 4, 4, 1), np.uint8), "divide uint8 images by 255"),
])
def test_what_cannot_be_drawn_is_refused(tmp_path, images, says):
    with pytest.raises(UserError, match=says):
        plots.save_grid(images, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(tmp_path):
    images = np.zeros((1, 4, 4, 1))
    with pytest.raises(UserError, match="ends in .png"):
        plots.save_grid(images, tmp_path / "grid.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        plots.save_grid(images, tmp_path / "file" / "grid.png")
    with pytest.raises(UserError, match="columns is 0"):
        plots.save_grid(images, tmp_path / "grid.png", columns=0)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
def test_run_is_drawn_twice_alike(trained, kind):
    before = dict(matplotlib.rcParams)
    paths = plots.draw_run(trained[kind])
    assert paths == [trained[kind] / "pictures" / f"{name}.png" for name in NAMES[kind]]
    for path in paths:
        shown = decoded(path)
        assert 200 < shown.shape[0] < 1500 and 500 < shown.shape[1] < 2500
        assert (shown[0] == 255).all() and shown.std() > 5    # a white page with something on it
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in plots.draw_run(trained[kind])] == first
    assert dict(matplotlib.rcParams) == before


def test_run_without_a_finished_epoch_has_no_curves(trained, tmp_path):
    run = runs.Run(tmp_path)
    for name in ("config.toml", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((trained["gan"] / name).read_bytes())
    assert plots.draw_run(tmp_path) == [run.pictures / "samples.png"]


def test_overview_is_wide(trained, tmp_path):
    shown = decoded(plots.overview(list(trained.values()), tmp_path / "overview.png"))
    assert shown.shape[1] > 2 * shown.shape[0]
    one = decoded(plots.overview([trained["gan"]], tmp_path / "one.png"))
    assert one.shape[0] == shown.shape[0] and one.shape[1] < shown.shape[1]
    with pytest.raises(UserError, match="at least one run"):
        plots.overview([], tmp_path / "none.png")


@pytest.mark.parametrize("kind", SMALL)
def test_unknown_run_is_refused(tmp_path, kind):
    with pytest.raises(UserError, match="no run in"):
        plots.draw_run(tmp_path / kind)


def test_importing_draws_in_no_matplotlib():
    code = ("import sys, scratchgen.plots\n"
            "assert 'matplotlib' not in sys.modules and 'numba' not in sys.modules\n"
            "import numpy; scratchgen.plots.mosaic(numpy.zeros((1, 2, 2, 1)))\n"
            "assert 'matplotlib' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pyplot_is_never_loaded(trained):
    code = ("import sys, scratchgen.plots\n"
            f"scratchgen.plots.draw_run({str(trained['gan'])!r})\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True)


# --- figures of any model -------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 3, 9])
@pytest.mark.parametrize("kind, sizes", [
    ("dae", {}), ("dae", {"tied": True, "hidden": 1, "corruption": "gaussian", "loss": "mse"}),
    ("vae", {}), ("vae", {"latent": 1}), ("vae", {"latent": 6}), ("gan", {})])
def test_every_picture_takes_odd_shapes_and_few_images(kind, sizes, images):
    model, test = made(kind, **sizes), held_out(images)
    figures = {name: draw(model, test) for name, draw in plots.PICTURES[kind].items()}
    for name, figure in figures.items():
        if figure is None:
            assert name == "manifold" and sizes["latent"] != 2
            continue
        figure.canvas.draw()
        axes = figure.axes[0]
        assert axes.get_title(loc="left").startswith(model.kind.upper())
        assert len(axes.images) + len(axes.collections) > 0


def test_images_of_each_class_come_in_the_order_of_the_classes():
    x = np.arange(6, dtype=float).reshape(6, 1, 1, 1)
    test = plots.HeldOut(x, np.array([7, 2, 2, 7, 2, 0]))
    assert test.of_each_class().ravel().tolist() == [5, 1, 0]
    assert test.of_each_class(each=2).ravel().tolist() == [5, 1, 2, 0, 3]
    assert test.of_each_class(classes=2).ravel().tolist() == [5, 1]


def test_triptych_shows_clean_corrupted_and_reconstruction():
    model, test = made("dae", level=0.5), held_out(8)
    figure = plots.triptych(model, test)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [name.split()[0] for name in names] == ["clean", "corrupted", "reconstruction"]
    assert "masking 0.5" in names[1]
    shown = pixels(figure)
    k = round(840 / 31)                                       # 4 columns of 7 pixels, gaps 1
    tiles = shown[::k, ::k].reshape(17, 31, 3)
    x = test.of_each_class()
    for i in range(4):
        clean, noisy, again = (tiles[row * 6:row * 6 + 5, i * 8:i * 8 + 7] for row in range(3))
        assert np.array_equal(clean, np.rint(x[i] * 255))
        kept = noisy == clean
        assert 0 < kept.mean() < 1 and (noisy[~kept] == 0).all()
        exact = model.reconstruct(np.where(kept, x[i], 0)[None].astype(np.float32))
        assert np.abs(again - exact[0] * 255).max() < 0.51


def test_filters_have_a_grey_scale_of_their_own():
    model = made("dae", (1, 2, 1), hidden=3)
    model.encoder.w.data[...] = np.array([[4, 0, -0.01], [-2, 0, 0.005]])
    tiles = pixels(plots.filters(model, None))
    k = round(840 / 5)                                        # 2 columns of 2 pixels, gap 1
    tiles = tiles[::k, ::k, 0]
    assert tiles[0].tolist() == [255, 64, 255, 128, 128]
    assert tiles[2, :2].tolist() == [0, 191]


def test_dae_samples_say_that_they_are_meant_to_look_bad():
    title = plots.samples(made("dae"), None).axes[0].get_title(loc="left")
    assert "never learned which codes are images" in title


def test_manifold_runs_rightwards_and_upwards():
    model = made("vae", (1, 1, 3))
    model.decode = lambda z: NORMAL(np.concatenate([z, 0 * z[:, :1]], axis=1)).reshape(-1, 1, 1, 3)
    figure = plots.manifold(model, None, side=20)
    k = 840 // 20
    tiles = pixels(figure)[::k, ::k] / 255
    steps = (np.arange(20) + 0.5) / 20                        # equal steps of probability
    assert np.allclose(tiles[..., 0], steps[None, :], atol=0.003)
    assert np.allclose(tiles[..., 1], steps[::-1, None], atol=0.003)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[0] == "−2.0" and names[-1] == "2.0"
    assert axes.get_xticks()[0] == 0.5 / 20


NORMAL = np.vectorize(NormalDist().cdf)


# --- curves ---------------------------------------------------------------------------------------

TERMS = {"dae": ["loss"], "vae": ["loss", "reconstruction", "kl"],
         "gan": ["loss", "g_loss", "d_real", "d_fake"]}


def history_of(kind, epochs=3):
    return [{"epoch": e + 1,
             **{f"train_{term}": 0.1 * e + i for i, term in enumerate(TERMS[kind])},
             **{f"test_{term}": 0.1 * e + i + 0.5 for i, term in enumerate(TERMS[kind])}}
            for e in range(epochs)]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("kind", TERMS)
def test_curves_show_every_term_of_both_sets(kind, epochs):
    history = history_of(kind, epochs)
    figure = plots.curves(made(kind), history)
    drawn = [tuple(line.get_ydata()) for axes in figure.axes for line in axes.get_lines()]
    for term in TERMS[kind]:
        for part in ("train", "test"):
            assert tuple(line[f"{part}_{term}"] for line in history) in drawn
    assert figure.axes[0].get_ylabel() == "nats per image"
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert all(axes.get_legend() for axes in figure.axes)


@pytest.mark.parametrize("loss, g_level", [("non-saturating", math.log(2)),
                                           ("minimax", -math.log(2))])
def test_gan_curves_name_the_equilibrium(loss, g_level):
    figure = plots.curves(made("gan", loss=loss), history_of("gan"))
    levels = [[line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]
              for axes in figure.axes]
    assert levels == [[math.log(4), g_level], [0.5]]
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["D: ln 4", "G: ln 2" if g_level > 0 else "G: −ln 2"], ["1/2"]]
    assert {"D loss train", "G loss test", "D(x) train", "D(G(z)) test"} <= set(lines(figure))


def test_curves_name_what_is_minimised():
    dae, vae = made("dae", loss="mse"), made("vae", beta=4.0)
    axes = plots.curves(dae, history_of("dae")).axes[0]
    assert axes.get_ylabel() == "squared error per image"
    title = plots.curves(vae, history_of("vae")).axes[0].get_title(loc="left")
    assert title == "VAE: loss = reconstruction + 4 KL"


# --- embedding ------------------------------------------------------------------------------------


def test_embedding_of_a_vae_shows_classes_and_the_prior():
    model, test = made("vae"), held_out(9)
    axes = plots.embedding(model, test).axes[0]
    assert np.allclose(axes.collections[0].get_offsets(), model.encode(test.x))
    colours = axes.collections[0].get_facecolors()
    assert (colours[0] == colours[4]).all() and (colours[0] != colours[1]).any()
    assert [patch.get_radius() for patch in axes.patches] == [1, 2, 3]
    assert {"1σ", "2σ", "3σ", "0", "1", "2", "3"} == {text.get_text() for text in axes.texts}
    legend, = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2", "3"]
    assert plots.embedding(made("dae"), test).axes[0].patches[:] == []


def test_principal_components_keep_the_geometry():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [3, 1]
    plane -= plane.mean(axis=0)
    directions = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    points, names = plots.in_the_plane(plane @ directions.T, None)
    assert np.allclose(np.linalg.norm(points, axis=1), np.linalg.norm(plane, axis=1))
    covariance = np.cov(points.T, bias=True)
    assert abs(covariance[0, 1]) < 1e-12 < covariance[1, 1] < covariance[0, 0]
    share = covariance[0, 0] / covariance.trace()
    assert names[0] == f"principal component 1: {share:.0%} of variance"
