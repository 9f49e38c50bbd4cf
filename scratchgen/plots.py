"""Pictures of a run: what the loss did, what the model makes of images, what its codes mean.

A picture is a function (model, test images) → matplotlib ``Figure``; ``PICTURES`` says which
belong to which model, ``draw_run`` writes them all, and the loss curves.
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from . import data, runs
from .backend import use_backend
from .errors import UserError
from .mosaic import DPI, LABEL, TITLE, mosaic, rows_sheet, save_grid, sheet, strip, write
from .random import Streams
from .train import dataset_of, load

__all__ = ["PICTURES", "HeldOut", "curves", "draw_run", "mosaic", "overview", "save_grid"]

# Okabe and Ito's palette, which the colour-blind tell apart: (train, test) for each term
ONE_TERM = (("#0072B2", "#D55E00"),)
TWO_TERMS = (("#0072B2", "#56B4E9"), ("#D55E00", "#E69F00"))
ENCODED_AT_ONCE = 500        # images; bounds the memory of the hidden layers


@dataclass(frozen=True)
class HeldOut:
    """The test images, binarised as those for training: x (N, H, W, C), labels (N,)."""

    x: np.ndarray
    labels: np.ndarray

    def of_each_class(self, each=1, classes=10):
        """The first ``each`` images of each of the first ``classes`` classes, by class."""
        found = [np.flatnonzero(self.labels == label)[:each] for label in np.unique(self.labels)]
        return self.x[np.concatenate(found[:classes])]


def draw_run(path):
    """Draws the pictures of the run folder ``path`` into ``pictures/``; returns their paths."""
    run, (model, test, backend) = runs.open_run(path), _trained(path)
    history = run.metrics()
    with use_backend(backend):
        written = [write(curves(model, history), run.pictures / "curves.png")] if history else []
        for name, draw in PICTURES[model.kind].items():
            figure = draw(model, test)
            if figure is not None:
                written.append(write(figure, run.pictures / f"{name}.png"))
    return written


def overview(run_paths, path):
    """One wide picture, a panel for each run: DAE triptych, VAE manifold, GAN samples."""
    if not run_paths:
        raise UserError("an overview of no runs: give at least one run folder")
    panels = []
    for model, test, backend in map(_trained, run_paths):
        with use_backend(backend):
            panels.append(_panel(model, test))
    return write(strip(panels), path)


def _trained(path):
    """(model, its test images, its backend) of a run folder."""
    resolved = runs.open_run(path).config()
    with use_backend(resolved["run"]["backend"]):
        model, dataset = load(path), dataset_of(path)
        loader = data.Loader(dataset.test_images, dataset.test_labels, len(dataset.test_images),
                             resolved["run"]["seed"], shuffle=False,
                             binarize=resolved["data"]["binarize"])
        return model, HeldOut(*next(iter(loader.batches(0)))), resolved["run"]["backend"]


def _panel(model, test):
    """(mosaic, title, subtitle) for the overview."""
    if model.kind == "dae":
        triples = np.stack(_denoised(model, test.of_each_class(each=2)), axis=1)
        return (mosaic(triples.reshape(-1, *model.image_shape), columns=6),
                "Denoising autoencoder", "clean · corrupted · decoded")
    if model.kind == "vae" and model.config.latent == 2:
        return mosaic(_manifold(model, 10)[0], columns=10), "VAE", "2-D latent manifold"
    return mosaic(model.sample(100)), model.kind.upper(), "samples"


# --- loss curves ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One pair of axes: ``terms`` of the metrics → names, ``levels`` at equilibrium → names."""

    title: str
    terms: dict
    unit: str = "nats per image"
    levels: dict = field(default_factory=dict)
    limits: tuple = (None, None)


def panels_of(model):
    """What there is to see of a model's metrics."""
    c = model.config
    if model.kind == "dae":
        distance, unit = {"bce": ("cross-entropy", Panel.unit),
                          "mse": ("squared error", "squared error per image")}[c.loss]
        return [Panel(f"DAE: {distance} with the clean image", {"loss": ""}, unit)]
    if model.kind == "vae":
        loss = "−ELBO" if c.beta == 1 else f"reconstruction + {c.beta:g} KL"
        return [Panel(f"VAE: loss = {loss}", {"loss": ""}),
                Panel("reconstruction: −E[ln p(x|z)]", {"reconstruction": ""}),
                Panel("KL(q(z|x) ‖ N(0, I))", {"kl": ""})]
    g_level, g_name = ((-math.log(2), "−ln 2") if c.loss == "minimax" else (math.log(2), "ln 2"))
    return [Panel("GAN: losses (dotted: at equilibrium)", {"loss": "D loss", "g_loss": "G loss"},
                  levels={math.log(4): "D: ln 4", g_level: f"G: {g_name}"}),
            Panel("GAN: what D answers (dotted: at equilibrium)",
                  {"d_real": "D(x)", "d_fake": "D(G(z))"}, "mean probability of “real”",
                  {0.5: "1/2"}, (0, 1))]


def curves(model, history):
    """Loss and terms over epochs, from the lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    panels = panels_of(model)
    figure = Figure((4.4 * len(panels), 3.8), dpi=DPI, facecolor="white", layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel, history)
    return figure


def _draw_panel(axes, panel, history):
    """Train solid, test dashed, the last value in the legend, equilibria named at the right."""
    from matplotlib.ticker import MaxNLocator

    epochs = [line["epoch"] for line in history]
    palette = ONE_TERM if len(panel.terms) == 1 else TWO_TERMS
    for (term, name), colours in zip(panel.terms.items(), palette, strict=True):
        for part, colour, style in zip(("train", "test"), colours, ("-", "--"), strict=True):
            values = [line[f"{part}_{term}"] for line in history]
            axes.plot(epochs, values, style, marker=".", color=colour,
                      label=f"{name} {part}: {values[-1]:#.4g}".strip())
    for level, name in panel.levels.items():
        axes.axhline(level, color="0.5", linewidth=1, linestyle=":", zorder=0)
        axes.annotate(name, (1.01, level), xycoords=("axes fraction", "data"), va="center",
                      color="0.35", fontsize=LABEL)
    axes.set(ylim=panel.limits)
    axes.set_title(panel.title, fontsize=TITLE, loc="left")
    axes.set_xlabel("epoch", fontsize=LABEL)
    axes.set_ylabel(panel.unit, fontsize=LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=LABEL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=LABEL, loc="upper center", ncols=2,
                bbox_to_anchor=(0.5, -0.2))


# --- images ---------------------------------------------------------------------------------------


def triptych(model, test):
    """Test images of every class: clean, corrupted, reconstructed."""
    c, (clean, noisy, again) = model.config, _denoised(model, test.of_each_class())
    corruption = f"corrupted  $\\tilde x$\n({c.corruption} {c.level:g})"
    return rows_sheet({"clean  $x$": clean, corruption: noisy,
                       "reconstruction\n$g(f(\\tilde x))$": again},
                      "DAE: test images, corrupted and reconstructed")


def _denoised(model, x):
    """Images, the same corrupted as in training, and what the model makes of those."""
    pair, = model.draw(x, Streams(model.seed))
    noisy = model.images(pair.noisy)
    return x, noisy, model.reconstruct(noisy)


def reconstructions(model, test):
    """Test images of every class and what their mean codes decode to."""
    x = test.of_each_class()
    return rows_sheet({"test image  $x$": x, "decoded mean\nof  $q(z|x)$": model.reconstruct(x)},
                      "VAE: reconstructions of test images")


def filters(model, test, count=100):
    """The weights into hidden units as images: 0 is mid-grey, white and black ±max |w| of each."""
    w = model.encoder.w.data.T[:count].reshape(-1, *model.image_shape)
    largest = np.abs(w).max(axis=(1, 2, 3), keepdims=True)
    return sheet(mosaic(0.5 + 0.5 * w / np.maximum(largest, np.finfo(w.dtype).tiny)),
                 f"{model.kind.upper()}: first-layer filters, {len(w)} of "
                 f"{model.encoder.w.shape[1]} hidden units (mid-grey: 0)")


def samples(model, test, count=64):
    """Images from random codes."""
    return sheet(mosaic(model.sample(count)), {
        "dae": "DAE: decoder on random codes:\nit never learned which codes are images",
        "vae": "VAE: samples, decoder means of $z \\sim N(0, I)$",
        "gan": "GAN: samples $G(z)$, $z \\sim N(0, I)$"}[model.kind])


def manifold(model, test, side=20):
    """What a 2-D latent space decodes to, at equal steps of the prior's probability."""
    if model.config.latent != 2:
        return None
    images, z = _manifold(model, side)
    figure = sheet(mosaic(images, columns=side, gap=0), "VAE: 2-D latent manifold, decoded at "
                   "equal steps of the prior’s probability", left=110, bottom=75)
    shown = np.linspace(0, side - 1, 6).round().astype(int)
    centres, names = (shown + 0.5) / side, [f"{value:.1f}".replace("-", "−") for value in z[shown]]
    axes = figure.axes[0]
    axes.set_xticks(centres, names)
    axes.set_yticks(centres, names)
    axes.set_xlabel("$z_1$", fontsize=TITLE)
    axes.set_ylabel("$z_2$", fontsize=TITLE)
    return figure


def _manifold(model, side):
    """side² decoded images, z₁ growing rightwards and z₂ upwards; the ``side`` values of z."""
    z = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    first, second = np.meshgrid(z, z[::-1])
    return model.decode(np.stack([first.ravel(), second.ravel()], axis=1)), z


# --- codes ----------------------------------------------------------------------------------------


def embedding(model, test):
    """Codes of the test images in the plane, coloured by class; VAE: with the prior's contours."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    chunks = np.array_split(test.x, -(-len(test.x) // ENCODED_AT_ONCE))
    codes = np.concatenate([model.encode(x) for x in chunks])
    points, names = in_the_plane(codes, test.labels)
    classes, which = np.unique(test.labels, return_inverse=True)
    palette = colormaps["tab10" if len(classes) <= 10 else "turbo"].resampled(max(10, len(classes)))
    figure = Figure((6.4, 5.6), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.scatter(*points.T, s=5, c=palette(which), alpha=0.7, linewidths=0)
    for i, label in enumerate(classes[:20]):         # more names would hide the points
        axes.scatter([], [], s=30, color=palette(i), label=str(label))
        axes.text(*np.median(points[which == i], axis=0), str(label), fontsize=LABEL, va="center",
                  weight="bold", ha="center", bbox={"boxstyle": "circle,pad=0.1", "fc": "white",
                                                    "ec": palette(i)})
    if model.kind == "vae" and codes.shape[1] > 1:
        _prior_contours(axes)
    axes.set_aspect("equal" if codes.shape[1] > 1 else "auto", adjustable="datalim")
    axes.set_xlabel(names[0], fontsize=LABEL)
    axes.set_ylabel(names[1], fontsize=LABEL)
    axes.tick_params(labelsize=LABEL)
    what = "posterior means" if model.kind == "vae" else "codes"
    axes.set_title(f"{model.kind.upper()}: {what} of {len(points)} test images", fontsize=TITLE,
                   loc="left")
    figure.legend(title="class", frameon=False, fontsize=LABEL, loc="outside right center")
    return figure


def in_the_plane(codes, labels):
    """Points (N, 2) and the axes' names: the codes, or their first two principal components.

    Not centred: N(0, I) projected on orthogonal directions is N(0, I), so the contours of a prior
    stay where they belong. One-dimensional codes are spread out by class.
    """
    if codes.shape[1] == 1:
        return np.column_stack([codes, labels]), ("$z_1$", "class")
    if codes.shape[1] == 2:
        return codes, ("$z_1$", "$z_2$")
    codes = codes.astype(np.float64)
    variances, directions = np.linalg.eigh(np.cov(codes.T, bias=True))       # smallest first
    directions, total = directions[:, :-3:-1], max(variances.sum(), np.finfo(float).tiny)
    # An eigenvector's sign is arbitrary: the largest component shall be positive.
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])
    return codes @ directions, tuple(f"principal component {i}: {max(0, v) / total:.0%} of variance"
                                     for i, v in enumerate(variances[:-3:-1], start=1))


def _prior_contours(axes):
    """Circles one, two and three standard deviations of N(0, I) from its mean."""
    from matplotlib.patches import Circle

    for radius in (1, 2, 3):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="0.2", linewidth=0.9))
        axes.text(radius * 0.5**0.5, -radius * 0.5**0.5, f"{radius}σ", ha="center", va="center",
                  fontsize=LABEL, zorder=2.5, bbox={"fc": "white", "ec": "none", "pad": 1})


PICTURES = {
    "dae": {"triptych": triptych, "filters": filters, "samples": samples, "embedding": embedding},
    "vae": {"reconstructions": reconstructions, "samples": samples, "manifold": manifold,
            "embedding": embedding},
    "gan": {"samples": samples},
}
