"""Pictures of data whose density is known, in one dimension (with D and D*) and in two.

The picture in one dimension is figure 1 of Goodfellow et al. (2014), which explains how a GAN is
trained.
"""

from statistics import NormalDist

import numpy as np

from ..context import no_grad
from ..data import mode_report
from ..engine.random import Stream
from ..engine.tensor import Tensor
from .capabilities import has, samples_of, title_of
from .mosaic import DPI, LABEL, TITLE

DATA, MODEL, LEARNED, OPTIMAL = "#000000", "#009E73", "#0072B2", "#56B4E9"
CELLS, BINS, DRAWS = 4000, 240, 20_000
ARROWS = 33
QUANTILES = (np.arange(ARROWS) + 0.5) / ARROWS      # of z, where the arrows begin


def limits(samples, density):
    """``(low, high)`` of the axes, each (D,): modes of the data ± 4 std and 99% of the samples."""
    low, high = np.quantile(samples, 0.005, axis=0), np.quantile(samples, 0.995, axis=0)
    if density is not None:
        reach = 4 * density.std[:, None]
        low_p, high_p = (density.means - reach).min(axis=0), (density.means + reach).max(axis=0)
        # Outliers must not make the data too small: at most half their size is added on a side.
        room = np.maximum((high_p - low_p) / 2, 1e-9)
        low = np.clip(low, low_p - room, low_p)
        high = np.clip(high, high_p, high_p + room)
    margin = 0.05 * np.maximum(high - low, 1e-6)
    return low - margin, high + margin


# --- in one dimension -----------------------------------------------------------------------------


def game(model, density):
    """The densities p_data and p_g, D, D* and the map z → x of a GAN in one dimension."""
    from matplotlib.figure import Figure

    if model.kind != "gan" or model.image_shape != (1,):
        return None
    reached, edges, p_g = generated_density(model, density)
    x = (edges[1:] + edges[:-1]) / 2
    figure = Figure((5.9, 5.9), dpi=DPI, facecolor="white", layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    right = axes.twinx()
    if density is not None:
        p_data = np.exp(density.log_density(x[:, None]))
        axes.plot(x, p_data, ":", color=DATA, linewidth=2.2, label="$p_{data}$, exact")
        total = p_data + p_g
        dense = total > 1e-4 * total.max()          # D* is not drawn where both densities are 0
        right.plot(x[dense], (p_data / np.maximum(total, 1e-300))[dense], "--", color=OPTIMAL,
                   label="$D^* = p_{data} / (p_{data} + p_g)$")
        axes.set(ylim=(0, min(max(p_data.max(), p_g.max()) * 1.05, 3 * p_data.max())))
    axes.plot(x, p_g, color=MODEL, label="$p_g$")
    outputs = discriminator_outputs(model, x[:, None])
    if outputs is not None:
        right.plot(x, outputs, color=LEARNED, label="$D$")
    _finish_game(figure, axes, right)
    if density is not None:
        divergence = jensen_shannon(p_data, p_g, edges)
        axes.set_title("GAN in one dimension: densities and discriminator\n"
                       f"JSD(data, generated) = {divergence:.3f}, maximum ln 2 = 0.693",
                       fontsize=TITLE, loc="left")
    _draw_map(below, reached, "z" if model.config.latent == 1 else "quantiles", axes.get_xlim())
    below.set_xlabel("$x$", fontsize=LABEL)
    below.tick_params(labelsize=LABEL)
    below.spines["top"].set_visible(False)
    return figure


def _finish_game(figure, axes, right):
    right.axhline(0.5, color="0.6", linewidth=0.8, zorder=0)
    right.set(ylim=(0, 1.02))
    right.set_ylabel("probability of “real”", fontsize=LABEL)
    axes.set(ylim=(0, axes.get_ylim()[1]))
    axes.set_ylabel("density", fontsize=LABEL)
    axes.set_title("GAN in one dimension: densities and discriminator", fontsize=TITLE, loc="left")
    figure.legend(frameon=False, fontsize=LABEL, loc="outside lower center", ncols=2)
    for each in (axes, right):
        each.tick_params(labelsize=LABEL)
        each.spines["top"].set_visible(False)


def _draw_map(axes, reached, name, limits):
    """Draw arrows from quantiles of z up to x = G(z): they are dense where p_g is large."""
    z = np.array([NormalDist().inv_cdf(q) for q in QUANTILES])
    low, high = limits
    start = (low + high) / 2 + z / np.abs(z).max() * (high - low) * 0.45
    inside = (reached >= low) & (reached <= high)
    for a, b in zip(start[inside], reached[inside], strict=True):
        axes.annotate("", (b, 1), (a, 0), arrowprops={"arrowstyle": "->", "color": MODEL,
                                                      "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0})
    axes.set(ylim=(0, 1), xlim=limits)
    axes.set_yticks([0, 1], [name, "x = G(z)"])
    axes.spines[["left", "right"]].set_visible(False)


def generated_density(model, density):
    """``(reached (ARROWS,), edges (B + 1,), p_g (B,))`` of a generator in one dimension.

    With one latent p_g is exact up to the width of a bin: the mass of small cells of z ~ N(0, 1) is
    distributed over the intervals between G of their ends; ``reached`` is G at the quantiles of z.
    With more latents p_g is a histogram of 20,000 samples, and ``reached`` has their quantiles.
    """
    if model.config.latent == 1:
        z = np.linspace(-6, 6, CELLS + 1)
        ends = _flat(model.decode(z[:, None]))
        mass = np.diff([NormalDist().cdf(value) for value in z])
        low, high = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
        reached = _flat(model.decode(np.array([[NormalDist().inv_cdf(q)] for q in QUANTILES])))
        bulk = reached[:, None]
    else:
        low = high = np.sort(_flat(model.sample(DRAWS)))
        mass, reached, bulk = np.full(DRAWS, 1 / DRAWS), np.quantile(low, QUANTILES), low[:, None]
    (start,), (stop,) = limits(bulk, density)
    edges = np.linspace(start, stop, BINS + 1)
    width = np.maximum(high - low, (stop - start) / BINS / 100)     # 0 where the slope of G is 0
    below = np.array([np.clip((edge - low) / width, 0, 1) @ mass for edge in edges])
    return reached, edges, np.diff(below) / np.diff(edges)


def jensen_shannon(p, q, edges):
    """½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q)/2, of histogram densities: nats, 0 to ln 2."""
    m = np.maximum((p + q) / 2, 1e-300)
    terms = [f * np.log(np.maximum(f, 1e-300) / m) for f in (p, q)]
    return float(np.sum(np.diff(edges) * sum(terms)) / 2)


def _flat(x):
    return np.asarray(x, np.float64).reshape(-1)


def discriminator_outputs(model, x):
    """D(x) of points (N, D), probabilities; None for a critic, whose outputs are scores."""
    if has(model, "answers"):
        return np.asarray(model.answers(x)).reshape(-1)
    if getattr(model.config, "loss", "") not in ("minimax", "non-saturating"):
        return None
    with no_grad():
        logits = model.discriminator(Tensor(model.real(x.astype(model.dtype)))).data.reshape(-1)
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def draw_histogram(axes, samples, density, low, high):
    """Draw a histogram of 1-D samples and the exact density."""
    x = np.linspace(low[0], high[0], 400)
    axes.hist(samples[:, 0], bins=np.linspace(low[0], high[0], 60), density=True, color=MODEL,
              alpha=0.6)
    if density is not None:
        p = np.exp(density.log_density(x[:, None]))
        axes.plot(x, p, ":", color=DATA, linewidth=2)
        axes.set(ylim=(0, 2 * p.max()))
    axes.set(xlim=(low[0], high[0]))


# --- in two dimensions ----------------------------------------------------------------------------


def plane(model, density):
    """Samples of a model of 2-D points, with the density of the data and its captured modes."""
    from matplotlib.figure import Figure

    samples = samples_of(model, 2000) if model.image_shape == (2,) else None
    if samples is None:
        return None
    low, high = limits(samples, density)
    figure = Figure(_size(low, high), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    draw_plane(axes, samples, density, low, high)
    title = f"{title_of(model)}: 2,000 samples"
    if density is not None and len(density.weights) <= 50:
        report = mode_report(samples, density)
        title += (f", {report.captured} of {report.modes} modes captured,\n"
                  f"{report.high_quality:.0%} of samples within 3 std of a mode")
    axes.set_title(title, fontsize=TITLE, loc="left")
    _label_axes(axes)
    return figure


def _label_axes(axes):
    axes.set_xlabel("$x_1$", fontsize=LABEL)
    axes.set_ylabel("$x_2$", fontsize=LABEL)
    axes.tick_params(labelsize=LABEL)


def _size(low, high):
    """Size of a figure of this rectangle in inches."""
    width, height = high - low
    return 5.9, float(np.clip(5.3 * height / width, 2.5, 8)) + 0.6


def draw_plane(axes, samples, density, low, high):
    """Draw points and the density: modes as circles of 3 std, or contours if modes overlap."""
    from matplotlib.collections import EllipseCollection

    if density is not None:
        size = float((high - low).max())
        if density.std.min() < size / 40 and len(density.weights) <= 100:
            widths = 2 * 3 * density.std
            axes.add_collection(EllipseCollection(
                widths, widths, np.zeros(len(widths)), units="xy", offsets=density.means,
                transOffset=axes.transData, facecolor="none", edgecolor=DATA, linewidth=0.8))
        else:
            x, y = (np.linspace(low[i], high[i], 160) for i in (0, 1))
            log_p = density.log_density(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
            log_p = log_p.reshape(160, 160) - log_p.max()
            axes.contour(x, y, log_p, levels=[-4.5, -2, -0.5], colors="0.35", linewidths=0.8,
                         linestyles="solid")
    axes.scatter(*samples.T, s=6, color=MODEL, alpha=0.5, linewidths=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_aspect("equal")


def field(model, test, density):
    """The vector field g(f(x)) − x of a denoiser of 2-D points; it points to denser data."""
    from matplotlib.figure import Figure

    if model.kind != "dae" or model.image_shape != (2,):
        return None
    low, high = limits(test.x, density)
    x, y = (np.linspace(low[i], high[i], 25) for i in (0, 1))
    nodes = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)
    arrows = np.asarray(model.reconstruct(nodes)) - nodes
    figure = Figure(_size(low, high), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    shown = test.x[Stream(0, "field").permutation(len(test.x))[:500]]
    draw_plane(axes, shown, density, low, high)
    axes.quiver(*nodes.T, *arrows.T, angles="xy", scale_units="xy", scale=2, width=0.003,
                color=LEARNED)
    axes.set_title(f"{title_of(model)}: reconstruction − input (arrows at half length)",
                   fontsize=TITLE, loc="left")
    _label_axes(axes)
    return figure
