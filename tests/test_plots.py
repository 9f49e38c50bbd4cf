"""Pictures: the pixels are the images that were put in, and every figure says what it shows."""

import io
import math
import subprocess
import sys
from statistics import NormalDist

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from scratchgen import data, models, plots, train, use_backend
from scratchgen.engine.random import Stream
from scratchgen.errors import UserError
from scratchgen.plots import catalogue, film, latent, points
from scratchgen.plots import frames as kept_frames
from scratchgen.plots.mosaic import mosaic
from scratchgen.train import runs

SMALL = {"dae": {"hidden": 12}, "vae": {"hidden": 12, "latent": 2},
         "gan": {"latent": 3, "generator": [12], "discriminator": [12]}}
NAMES = {"dae": ["curve-loss", "triptych", "samples", "film", "embedding", "interpolation",
                 "filters"],
         "vae": ["curve-loss", "curve-reconstruction", "curve-kl", "reconstructions", "samples",
                 "film", "embedding", "manifold", "interpolation", "kl", "filters"],
         "gan": ["curve-loss", "curve-answers", "samples", "film", "filters"]}


@pytest.fixture(scope="module", autouse=True)
def numpy_backend():
    with use_backend("numpy"):           # nothing to compile
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Kind → folder of a run of two epochs on 20 images."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, sizes in SMALL.items():
        train.train({"run": {"model": kind, "backend": "numpy"}, "data": {"limit": 20},
                     "train": {"epochs": 2}, "model": sizes}, folder / kind,
                    on_epoch=plots.keep_samples)
    return {kind: folder / kind for kind in SMALL}


def made(kind, image_shape=(5, 7, 3), **sizes):
    """A model that was never trained."""
    return models.MODELS[kind](models.MODELS[kind].Config(**{**SMALL[kind], **sizes}), image_shape)


def held_out(n, image_shape=(5, 7, 3)):
    return plots.HeldOut(Stream(1, "x").uniform((n, *image_shape)), np.arange(n) % 4)


def drawn(name, model, test=None, history=(), density=None):
    """The picture of that name in the catalogue; a figure, or None."""
    picture, = (p for p in plots.PICTURES if p.name == name)
    return plots.Subject(model, test, list(history), density).draw(picture.draw)


def curve(model, history, name="loss"):
    """The figure of the panel of that name."""
    panel, = (p for p in plots.panels_of(model, history) if p.name == name)
    return plots.curves(panel, history)


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
    (np.full((2, 4, 4, 1), np.nan), "2 of 2 images contain NaN"),
    (np.array([0.0, np.inf]).reshape(2, 1, 1, 1), "1 of 2 images contain NaN or infinity"),
    (np.zeros((4, 4)), "expected \\(N, H, W, C\\)"),
    (np.zeros((2, 4, 4, 2)), "C = 1 \\(grey\\) or 3"),
    (np.zeros((0, 4, 4, 1)), "no size 0"),
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
    with pytest.raises(UserError, match="cannot create the folder"):
        plots.save_grid(images, tmp_path / "file" / "grid.png")
    with pytest.raises(UserError, match="columns is 0"):
        plots.save_grid(images, tmp_path / "grid.png", columns=0)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
def test_run_is_drawn_twice_alike(trained, kind):
    before = dict(matplotlib.rcParams)
    paths = plots.draw_run(trained[kind])
    assert [path.stem for path in paths] == NAMES[kind]
    for path in paths:
        assert path.parent == trained[kind] / "pictures"
        if path.suffix == ".gif":
            continue
        shown = decoded(path)
        assert 200 < shown.shape[0] < 2000 and 500 < shown.shape[1] < 2500
        assert (shown[0] == 255).all() and shown.std() > 5    # a white page with something on it
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in plots.draw_run(trained[kind])] == first
    assert dict(matplotlib.rcParams) == before


def test_run_without_a_finished_epoch_has_no_curves(trained, tmp_path):
    for name in ("config.toml", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((trained["gan"] / name).read_bytes())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "film.gif").write_bytes(b"of a run that was here before")
    assert [path.name for path in plots.draw_run(tmp_path)] == ["samples.png", "filters.png"]
    assert not (tmp_path / "pictures" / "film.gif").exists()


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


WITHOUT = {  # what a model does not have: everything else must be drawn
    "dae": {"reconstructions", "game", "plane", "field", "film", "manifold", "traversals", "kl",
            "confusion"},
    "vae": {"triptych", "game", "plane", "field", "film", "confusion"},
    "gan": {"triptych", "reconstructions", "game", "plane", "field", "film", "embedding",
            "manifold", "interpolation", "traversals", "kl", "confusion"}}


@pytest.mark.parametrize("images", [1, 9])
@pytest.mark.parametrize("kind, sizes", [
    ("dae", {}), ("dae", {"tied": True, "hidden": 1, "corruption": "gaussian", "loss": "mse"}),
    ("vae", {}), ("vae", {"latent": 1}), ("vae", {"latent": 6}), ("gan", {}),
    ("dae", {"arch": "conv"}), ("vae", {"arch": "conv"}), ("gan", {"arch": "conv", "channels": 4})])
def test_every_picture_takes_odd_shapes_and_few_images(kind, sizes, images):
    shape = (8, 12, 3) if sizes.get("arch") == "conv" else (5, 7, 3)
    model, test = made(kind, shape, **sizes), held_out(images, shape)
    model.eval()
    missing = set(WITHOUT[kind])
    if kind == "vae":
        missing |= {"traversals"} if model.config.latent <= 2 else set()
        missing |= {"manifold"} if model.config.latent != 2 else set()
    if images == 1:
        missing.add("interpolation")
    for picture in plots.PICTURES:
        figure = drawn(picture.name, model, test)
        assert (figure is None) == (picture.name in missing), picture.name
        if figure is not None:
            figure.canvas.draw()
            title = figure.axes[0].get_title(loc="left") + "".join(
                text.get_text() for text in figure.texts)
            assert model.kind.upper() in title
            axes = figure.axes[0]
            assert len(axes.images) + len(axes.collections) + len(axes.patches) > 0


def test_images_of_each_class_come_in_the_order_of_the_classes():
    x = np.arange(6, dtype=float).reshape(6, 1, 1, 1)
    test = plots.HeldOut(x, np.array([7, 2, 2, 7, 2, 0]))
    assert test.of_each_class().ravel().tolist() == [5, 1, 0]
    assert test.of_each_class(each=2).ravel().tolist() == [5, 1, 2, 0, 3]
    assert test.of_each_class(classes=2).ravel().tolist() == [5, 1]
    without = plots.HeldOut(x, np.zeros(6, int))
    assert without.of_each_class(classes=4).ravel().tolist() == [0, 1, 2, 3]


def test_triptych_shows_clean_corrupted_and_reconstruction():
    model, test = made("dae", level=0.5), held_out(8)
    figure = drawn("triptych", model, test)
    names = [axes.get_title(loc="left") for axes in figure.axes]
    assert [name.split()[0] for name in names] == ["clean", "corrupted", "reconstruction"]
    assert "masking 0.5" in names[1]
    k = round(840 / 31)                                       # 4 columns of 7 pixels, gaps 1
    rows = [axes.images[0].get_array()[::k, ::k] for axes in figure.axes]
    x = test.of_each_class()
    for i in range(4):
        clean, noisy, again = (row[:, i * 8:i * 8 + 7] for row in rows)
        assert np.array_equal(clean, np.rint(x[i] * 255))
        kept = noisy == clean
        assert 0 < kept.mean() < 1 and (noisy[~kept] == 0).all()
        exact = model.reconstruct(np.where(kept, x[i], 0)[None].astype(np.float32))
        assert np.abs(again - exact[0] * 255).max() < 0.51


def test_an_autoencoder_that_may_copy_is_not_said_to_repair():
    model = made("dae", level=0.0)
    texts = [text.get_text() for axes in drawn("triptych", model, held_out(8)).axes
             for text in (*axes.texts, axes.title, axes._left_title)]
    assert "not corrupted" in texts and not any("masking" in text for text in texts)
    assert "nothing is corrupted" in plots.panels_of(model, history_of("dae"))[0].caption
    triptych, = (picture for picture in catalogue.PICTURES if picture.name == "triptych")
    assert "copying it would" in triptych.caption_for("dae", "copy")
    assert "fills in" in triptych.caption_for("dae", "conv")


def test_filters_have_a_grey_scale_of_their_own():
    model = made("dae", (1, 2, 1), hidden=3)
    model.encoder.w.data[...] = np.array([[4, 0, -0.01], [-2, 0, 0.005]])
    tiles = pixels(drawn("filters", model))
    k = round(840 / 5)                                        # 2 columns of 2 pixels, gap 1
    tiles = tiles[::k, ::k, 0]
    assert tiles[0].tolist() == [255, 64, 255, 128, 128]
    assert tiles[2, :2].tolist() == [0, 191]


def test_dae_samples_say_that_they_are_meant_to_look_bad():
    title = drawn("samples", made("dae")).axes[0].get_title(loc="left")
    assert "decoded from random codes" in title


def test_manifold_runs_rightwards_and_upwards():
    model = made("vae", (1, 1, 3))
    model.decode = lambda z: NORMAL(np.concatenate([z, 0 * z[:, :1]], axis=1)).reshape(-1, 1, 1, 3)
    figure = drawn("manifold", model)
    k = 840 // 15
    tiles = pixels(figure)[::k, ::k] / 255
    steps = (np.arange(15) + 0.5) / 15                        # equal steps of probability
    assert np.allclose(tiles[..., 0], steps[None, :], atol=0.003)
    assert np.allclose(tiles[..., 1], steps[::-1, None], atol=0.003)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[0] == "−1.8" and names[-1] == "1.8"
    assert axes.get_xticks()[0] == 0.5 / 15


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
    model, history = made(kind), history_of(kind, epochs)
    figures = [plots.curves(panel, history) for panel in plots.panels_of(model, history)]
    values = [tuple(line.get_ydata()) for figure in figures for line in figure.axes[0].get_lines()]
    for term in TERMS[kind]:
        for part in ("train", "test"):
            assert tuple(line[f"{part}_{term}"] for line in history) in values
    for figure in figures:
        axes, = figure.axes
        assert axes.get_xlabel() == "epoch" and axes.get_legend()
    assert figures[0].axes[0].get_ylabel() == "nats per image"


@pytest.mark.parametrize("loss, g_level", [("non-saturating", math.log(2)),
                                           ("minimax", -math.log(2))])
def test_gan_curves_name_the_equilibrium(loss, g_level):
    model = made("gan", loss=loss)
    figures = [curve(model, history_of("gan"), name) for name in ("loss", "answers")]
    levels = [[line.get_ydata()[0] for line in figure.axes[0].get_lines()
               if line.get_linestyle() == ":"] for figure in figures]
    assert levels == [[math.log(4), g_level], [0.5]]
    texts = [[text.get_text() for text in figure.axes[0].texts] for figure in figures]
    assert texts == [["ln 4", "ln 2" if g_level > 0 else "−ln 2"], ["1/2"]]
    assert {"D train", "G test"} <= set(lines(figures[0]))
    assert {"D(x) train", "D(G(z)) test"} <= set(lines(figures[1]))


def test_no_word_is_cut_off_at_the_edge():
    """Of a run whose ticks got wider after the first layout, which pushed the label out."""
    names = ("train_loss", "train_g_loss", "test_loss", "test_g_loss")
    history = [{"epoch": e, **dict(zip(names, values, strict=True))} for e, values in enumerate((
                    (0.246, 3.574, 0.582, 1.256),
                    (0.471, 2.625, 0.887, 1.167),
                    (0.557, 2.021, 1.226, 1.997),
                    (0.589, 1.856, 0.846, 1.499)), start=1)]
    figure = curve(made("gan"), history)
    figure.savefig(io.BytesIO(), dpi=figure.dpi)
    axes, = figure.axes
    for text in (axes.yaxis.label, axes.xaxis.label, *axes.texts, *axes.get_legend().get_texts()):
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width and extent.y0 >= 0


@pytest.mark.parametrize("loss", ["least-squares", "wasserstein"])
def test_scores_are_not_called_probabilities(loss):
    axes = curve(made("gan", loss=loss), history_of("gan"), "answers").axes[0]
    assert axes.get_ylabel() == "mean output" and not axes.texts


def test_curves_name_what_is_minimised():
    dae, vae = made("dae", loss="mse"), made("vae", beta=4.0)
    axes = curve(dae, history_of("dae")).axes[0]
    assert axes.get_ylabel() == "squared error per image"
    title = curve(vae, history_of("vae")).axes[0].get_title(loc="left")
    assert title == "VAE: loss = reconstruction + 4 KL"


@pytest.mark.parametrize("config, title, said", [
    ({}, "VAE: loss = −ELBO", "the sum of the next two curves"),
    ({"beta": 4.0}, "VAE: loss = reconstruction + 4 KL", "Not a bound"),
    ({"warmup": 7}, "VAE: loss = −ELBO (test)", "increases to 1 over 7 epochs"),
    ({"free_bits": 0.5}, "VAE: loss = −ELBO (test)", "counts as at least 0.5 nats"),
    ({"objective": "iwae", "samples": 5}, "VAE: loss = −IWAE bound, K = 5", "tighter"),
    ({"objective": "iwae", "samples": 5, "beta": 2.0}, "VAE: loss, with 2 KL", "Not a bound"),
])
def test_only_a_bound_is_called_a_bound(config, title, said):
    panel = plots.panels_of(made("vae", **config), history_of("vae"))[0]
    assert panel.title == title and said in panel.caption
    assert ("Not a bound" in panel.caption) == ("beta" in config)


def test_a_critic_is_not_said_to_answer_one_half():
    panels = {loss: plots.panels_of(made("gan", loss=loss), history_of("gan"))
              for loss in ("non-saturating", "wasserstein")}
    losses, outputs = ({loss: panels[loss][i].caption for loss in panels} for i in (0, 1))
    assert "one half" in outputs["non-saturating"] and "one half" not in outputs["wasserstein"]
    assert "separates" in losses["non-saturating"] and "separates" not in losses["wasserstein"]


@pytest.mark.parametrize("term, said", [("error", "incorrectly"), ("accuracy", "correctly")])
def test_the_caption_of_an_error_or_accuracy(term, said):
    kind = models.MODELS["sdae"]
    model = kind(kind.Config(layers=[4], levels=[0.1]), (5, 7, 3))
    history = [{"epoch": 1, f"train_{term}": 0.1, f"test_{term}": 0.2}]
    caption, = (panel.caption for panel in plots.panels_of(model, history))
    assert f"classified {said}." in caption and "lowest validation error" in caption


def test_terms_nobody_announced_get_a_curve_too():
    history = [{"epoch": e, "train_loss": 1.0, "test_loss": 1.0, "test_new_term": float(e),
                "extra": {"active_units": e, "constant": 3, "layer": e, "list": [1, 2],
                          "word": "x"}} for e in (1, 2)]
    history[0]["extra"]["kl_per_dimension"] = [0.5, 0.1]
    panels = {panel.name: panel for panel in plots.panels_of(made("vae"), history)}
    assert list(panels) == ["loss", "new_term", "active_units"]
    assert lines(plots.curves(panels["new_term"], history)) == {"test": [1.0, 2.0]}
    assert list(lines(plots.curves(panels["active_units"], history)).values()) == [[1.0, 2.0]]


def test_units_follow_the_items_and_the_term():
    model = made("vae", (2,), decoder="learned-variance", warmup=3)
    history = [{**line, "extra": {"std": 0.1 + line["epoch"], "kl_weight": line["epoch"] / 3}}
               for line in history_of("vae")]
    units = {panel.name: panel.unit for panel in plots.panels_of(model, history)}
    assert units["loss"] == units["kl"] == "nats per point"
    assert (units["std"], units["kl_weight"]) == ("units of the data", "factor")
    bars = drawn("kl", model, held_out(4, (2,)), history)
    assert bars.axes[0].get_ylabel() == "nats per point"


def test_layers_of_a_stack_have_curves_of_their_own():
    history = [{"epoch": e, "train_loss": 10.0 * e, "test_loss": 11.0 * e, "valid_loss": 12.0 * e,
                "extra": {"phase": "pre-training", "layer": e}} for e in (1, 2)]
    history.append({"epoch": 3, "train_loss": 1.0, "test_loss": 2.0, "valid_loss": 1.5,
                    "train_error": 0.5, "test_error": 0.6, "valid_error": 0.7,
                    "extra": {"phase": "fine-tuning", "best_epoch": 3}})
    model = models.MODELS["sdae"](models.MODELS["sdae"].Config(layers=[5, 4], levels=[0.1, 0.1]),
                                  (5, 7, 3))
    panels = {panel.name: panel for panel in plots.panels_of(model, history)}
    assert list(panels) == ["layers", "loss", "error"]
    shown = lines(plots.curves(panels["layers"], history))
    assert set(shown) == {f"layer {k} {part}" for k in (1, 2) for part in ("train", "test")}
    second = shown["layer 2 train"]
    assert second[1] == 20 and np.isnan([second[0], second[2]]).all()
    assert set(lines(plots.curves(panels["error"], history))) == {"train", "test", "validation"}


# --- embedding ------------------------------------------------------------------------------------


def test_embedding_of_a_vae_shows_classes_and_the_prior():
    model, test = made("vae"), held_out(9)
    axes = drawn("embedding", model, test).axes[0]
    assert np.allclose(axes.collections[0].get_offsets(), model.encode(test.x))
    colours = axes.collections[0].get_facecolors()
    assert (colours[0] == colours[4]).all() and (colours[0] != colours[1]).any()
    assert [patch.get_radius() for patch in axes.patches] == [1, 2, 3]
    assert {"1σ", "2σ", "3σ", "0", "1", "2", "3"} == {text.get_text() for text in axes.texts}
    legend, = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2", "3"]
    assert drawn("embedding", made("dae"), test).axes[0].patches[:] == []


def test_the_name_of_a_small_cluster_does_not_cover_it():
    codes = np.repeat([[0.0, 0.0], [9.0, 0.0]], 50, axis=0)
    codes[50:] += Stream(1, "x").normal((50, 2))
    model, test = made("vae"), plots.HeldOut(np.zeros((100, 5, 7, 3)), np.repeat([0, 1], 50))
    model.encode = lambda x: codes[:len(x)] if len(x) == 100 else None
    names = {text.get_text(): text for text in drawn("embedding", model, test).axes[0].texts}
    assert names["0"].xyann[1] > 0 and names["1"].xyann == (0, 0)
    assert names["0"].xy == (0, 0)                      # the median, above which it stands


def test_principal_components_keep_the_geometry():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [3, 1]
    plane -= plane.mean(axis=0)
    directions = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    points, names = latent.project_to_2d(plane @ directions.T, None)
    assert np.allclose(np.linalg.norm(points, axis=1), np.linalg.norm(plane, axis=1))
    covariance = np.cov(points.T, bias=True)
    assert abs(covariance[0, 1]) < 1e-12 < covariance[1, 1] < covariance[0, 0]
    share = covariance[0, 0] / covariance.trace()
    assert names[0] == f"principal component 1: {share:.0%} of variance"


# --- between and along codes ----------------------------------------------------------------------


def test_spherical_keeps_the_length_and_the_ends():
    a, b = np.array([3.0, 0, 0]), np.array([0, 1.8, 2.4])
    path = np.stack([latent.spherical(a, b, t) for t in np.linspace(0, 1, 5)])
    assert np.allclose(path[[0, -1]], [a, b])
    assert np.allclose(np.linalg.norm(path, axis=1), 3)
    angles = np.arccos(np.sum(path[1:] * path[:-1], axis=1) / 9)
    assert np.allclose(angles, np.pi / 8)
    assert np.allclose(latent.spherical(a, -a, 0.5), 0)       # no single great circle: a line
    assert np.allclose(latent.spherical(a, 2 * a, 0.5), 1.5 * a)
    assert np.isfinite(latent.spherical(0 * a, 0 * a, 0.5)).all()


def test_distances_to_data_are_those_of_the_nearest_image():
    x = np.array([[0.0, 0], [3, 4]]).reshape(2, 1, 2, 1)
    images = np.array([[0.0, 1], [3, 4]]).reshape(2, 1, 2, 1)
    assert latent.nearest(images, x) == pytest.approx(0.5)


def test_interpolations_begin_and_end_with_test_images():
    model, test = made("vae"), held_out(4)
    figure = drawn("interpolation", model, test)
    k = round(840 / 79)                                       # 10 columns of 7 pixels, gaps 1
    row = figure.axes[0].images[0].get_array()[::k, ::k]
    assert np.array_equal(row[:, :7], np.rint(test.x[0] * 255))
    assert np.array_equal(row[:, -7:], np.rint(test.x[1] * 255))
    again = model.decode(model.encode(test.x[:1]))[0]
    assert np.abs(row[:, 8:15] - again * 255).max() < 0.51


def test_kl_bars_are_those_of_the_last_epoch_and_active_ones_stand_out():
    model, test = made("vae", latent=3), held_out(9)
    model.encode = lambda x: np.arange(3.0) * np.arange(len(x))[:, None]      # the first is idle
    history = [{"epoch": 1, "extra": {"kl_per_dimension": [0.1, 2.0, 1.0]}}]
    axes = drawn("kl", model, test, history).axes[0]
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}
    assert heights == {1: 2.0, 2: 1.0, 3: 0.1}
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["active: 2", "not active: 1"]


def test_traversals_start_with_the_most_active_latent():
    model = made("vae", latent=3)
    model.encode = lambda x: np.array([1.0, 3.0, 2.0]) * np.arange(len(x))[:, None]
    axes = drawn("traversals", model, held_out(5)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$z_{2}$", "$z_{3}$",
                                                                       "$z_{1}$"]


def test_filters_by_corruption_are_rows_by_level():
    models_ = [made("dae", level=level) for level in (0.5, 0.0)]
    figure = plots.filters_by_corruption(models_)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["masking 0", "masking 0.5"]
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    assert np.array_equal(first, second)                      # untrained, of one seed
    with pytest.raises(UserError, match="of one size"):
        plots.filters_by_corruption([models_[0], made("dae", (4, 4, 1))])


# --- films ----------------------------------------------------------------------------------------


def test_film_has_a_page_for_each_epoch(trained):
    from PIL import Image

    frames = kept_frames.frames_of(runs.open_run(trained["vae"]))
    assert [frame.epoch for frame in frames] == [1, 2]
    model = train.load(trained["vae"])
    assert np.array_equal(frames[1].samples, np.rint(model.sample(kept_frames.IMAGES) * 255))
    plots.draw_run(trained["vae"])
    with Image.open(trained["vae"] / "pictures" / "film.gif") as shown:
        assert shown.n_frames == 2 and shown.info["loop"] == 0


def test_film_leaves_out_what_is_torn_or_not_reached(trained, tmp_path):
    epochs = tmp_path / "pictures" / "epochs"
    epochs.mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"epoch": {e}}}\n' for e in (1, 2, 3)))
    whole = next((trained["vae"] / "pictures" / "epochs").glob("*.npz")).read_bytes()
    for name, content in (("0001", whole), ("0002", whole[:50]), ("0003", whole), ("0004", whole),
                          ("hello", b"")):
        (epochs / f"{name}.npz").write_bytes(content)
    assert [frame.epoch for frame in kept_frames.frames_of(runs.Run(tmp_path))] == [1, 3]


def test_few_of_many_epochs_are_kept():
    kept = [epoch for epoch in range(1, 10_001) if kept_frames.keeps(epoch)]
    assert kept[:60] == list(range(1, 61)) and len(kept) < 400
    assert max(b - a for a, b in zip(kept[:-1], kept[1:], strict=True)) <= 10_000 / 30


def test_classifiers_have_no_film(tmp_path):
    kind = models.MODELS["classifier"]
    plots.keep_samples(runs.Run(tmp_path), kind(kind.Config(layers=[5], code=4), (5, 7, 3)), 1)
    assert not list(tmp_path.iterdir())


# --- points ---------------------------------------------------------------------------------------


def on_a_line(density=None, **generator):
    """A GAN on the line and its data's density; its generator is z ↦ scale z + shift."""
    model = models.MODELS["gan"](models.MODELS["gan"].Config(latent=1, generator=[3],
                                                             discriminator=[3]), (1,))
    if generator:
        model.decode = lambda z: np.asarray(z) * generator["scale"] + generator["shift"]
    return model, density or data.mixture1d()


def test_generated_density_on_a_line_is_exact():
    model, density = on_a_line(data.gaussian(0.5, 2.0), scale=-2.0, shift=0.5)
    reached, edges, p_g = points.generated_density(model, density)
    x = (edges[1:] + edges[:-1]) / 2
    assert np.allclose(p_g, np.exp(density.log_density(x)), atol=0.002)
    assert np.sum(p_g * np.diff(edges)) == pytest.approx(1, abs=0.001)
    assert reached[points.ARROWS // 2] == pytest.approx(0.5) and (np.diff(reached) < 0).all()


def test_generated_density_of_a_fold_has_all_its_mass():
    model, density = on_a_line(scale=0.0, shift=0.3)          # everything at one place
    _, edges, p_g = points.generated_density(model, density)
    assert np.sum(p_g * np.diff(edges)) == pytest.approx(1)
    assert edges[p_g.argmax()] <= 0.3 <= edges[p_g.argmax() + 1]


def test_the_game_shows_data_generator_and_both_answers():
    model, density = on_a_line(data.gaussian(0.5, 2.0), scale=2.0, shift=0.5)
    figure = drawn("game", model, held_out(1, (1,)), density=density)
    figure.canvas.draw()
    shown = lines(figure)
    assert {"$p_{data}$, exact", "$p_g$", "$D$"} <= set(shown)
    best = shown["$D^* = p_{data} / (p_{data} + p_g)$"]
    assert np.allclose(best, 0.5, atol=0.02)                  # the generator is perfect
    assert len(figure.axes[1].texts) == points.ARROWS         # the map z → x
    assert "JSD(data, generated) = 0.000" in figure.axes[0].get_title(loc="left")


def test_the_number_on_the_game_is_the_divergence():
    edges = np.linspace(-12, 14, 3001)
    x = (edges[1:] + edges[:-1])[:, None] / 2
    p, q = data.gaussian(0.0, 1.0), data.gaussian(2.0, 1.0)
    found = points.jensen_shannon(np.exp(p.log_density(x)), np.exp(q.log_density(x)), edges)
    assert abs(found - data.jensen_shannon(p, q)) < 1e-5
    model, density = on_a_line(data.gaussian(0.5, 2.0), scale=2.0, shift=40.0)
    title = drawn("game", model, held_out(1, (1,)), density=density).axes[0].get_title(loc="left")
    assert 0.3 < float(title.split(" = ")[1].split(",")[0]) < 0.7          # far apart


def test_pictures_of_points_in_the_plane():
    density = data.ring()
    test = plots.HeldOut(density.sample(50, Stream(0, "x")).astype(np.float32), np.arange(50) % 8)
    for kind, sizes in (("dae", {"loss": "mse", "output": "linear", "corruption": "gaussian"}),
                        ("vae", {"decoder": "gaussian"}), ("gan", {})):
        model = made(kind, (2,), **sizes)
        model.eval()
        there = {p.name for p in plots.PICTURES if drawn(p.name, model, test, density=density)}
        assert there == {"plane", *{"dae": ["field", "embedding"], "vae": ["embedding", "kl"],
                                    "gan": []}[kind]}
    model.sample = lambda n: density.sample(n, Stream(1, "y"))
    title = drawn("plane", model, test, density=density).axes[0].get_title(loc="left")
    assert "8 of 8 modes captured" in title and "99% of samples within 3 std" in title


def test_film_of_points_has_pages_of_one_size():
    density = data.mixture1d()
    frames = [kept_frames.Frame(e, density.sample(100, Stream(e, "x"))) for e in (1, 2)]
    pages = film.film(on_a_line()[0], density, frames)
    assert len(pages) == 2 and pages[0].shape == pages[1].shape and pages[0].dtype == np.uint8
    assert film.film(on_a_line()[0], density, frames[:1]) is None


# --- classifiers, and the catalogue ---------------------------------------------------------------


def test_confusion_counts_answers_by_class():
    kind = models.MODELS["classifier"]
    model, test = kind(kind.Config(layers=[5], code=4), (5, 7, 3)), held_out(8)
    model.predict = lambda x: np.zeros(len(x), np.int64)
    axes = drawn("confusion", model, test).axes[0]
    counts = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert counts == {(k, 0): "2" for k in range(4)}
    assert "error 75.0%" in axes.get_title(loc="left")


def test_confusion_of_labels_by_rotation_is_of_turned_images():
    kind = models.MODELS["classifier"]
    model = kind(kind.Config(layers=[5], code=4, labels="rotation"), (6, 6, 1))
    test, seen = held_out(40, (6, 6, 1)), []

    def predict(x):                                     # by the brightest corner: four turns of one
        seen.append(x)
        return np.argmax([x[:, 0, 0, 0], x[:, 5, 0, 0], x[:, 5, 5, 0], x[:, 0, 5, 0]], axis=0)

    test.x[:], test.x[:, 0, 0] = 0, 1
    model.predict = predict
    axes = drawn("confusion", model, test).axes[0]
    counts = {text.get_position()[::-1]: int(text.get_text()) for text in axes.texts}
    assert set(counts) == {(k, k) for k in range(4)} and sum(counts.values()) == 40
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0°", "90°", "180°", "270°"]
    assert axes.get_ylabel() == "true rotation" and "error 0.0%" in axes.get_title(loc="left")
    assert not np.array_equal(np.concatenate(seen), test.x)


def test_the_caption_of_the_filters_of_a_convolution():
    filters, = (picture for picture in catalogue.PICTURES if picture.name == "filters")
    assert filters.caption_for("dae", "conv") == filters.caption_for("gan", "conv")
    assert "convolution" in filters.caption_for("dae", "conv")
    assert "convolution" not in filters.caption_for("dae") + filters.caption_for("vae", "mlp")


def test_every_picture_says_what_to_see_and_where_in_the_lecture():
    from scratchgen.report.lecture import POINTS

    for kind in models.MODELS:
        for picture in catalogue.PICTURES:
            assert len(picture.caption_for(kind)) > 40
            assert picture.point_for(kind) in POINTS
    assert len({picture.file for picture in catalogue.PICTURES}) == len(catalogue.PICTURES)
