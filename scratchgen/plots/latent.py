"""Pictures of the latent space: embeddings, decoded grids, interpolation, traversals, KL."""

from statistics import NormalDist

import numpy as np

from ..engine.random import Stream, Streams
from .capabilities import codes_of, draws_images, has, title_of
from .mosaic import DPI, LABEL, TITLE, mosaic, rows_sheet, sheet

ACTIVE = 0.01        # variance of a posterior mean over images: Burda et al. 2016, section 5.2
PAIRS = 100          # of test images, for the distances of ``interpolation``


# --- in two dimensions ----------------------------------------------------------------------------


def embedding(model, test):
    """A scatter plot of the codes of test items, by class; for a VAE with contours of the prior."""
    from matplotlib.figure import Figure

    if not has(model, "encode"):
        return None
    codes = codes_of(model, test.x)
    points, names = project_to_2d(codes, test.labels)
    figure = Figure((5.9, 5.4), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    _scatter(axes, points, test.labels)
    if model.kind == "vae" and codes.shape[1] > 1:
        _prior_contours(axes)
    axes.set_aspect("equal" if codes.shape[1] > 1 else "auto", adjustable="datalim")
    axes.set_xlabel(names[0], fontsize=LABEL)
    axes.set_ylabel(names[1], fontsize=LABEL)
    axes.tick_params(labelsize=LABEL)
    what = {"vae": "posterior means", "dae": "codes"}.get(model.kind, "features")
    axes.set_title(f"{title_of(model)}: {what} of {len(points)} test items", fontsize=TITLE,
                   loc="left")
    figure.legend(title="class", frameon=False, fontsize=LABEL, loc="outside right center")
    return figure


def _scatter(axes, points, labels):
    """A dot for each point in the colour of its class, and the name of each class at its median.

    The name is above the median if it would cover the whole class.
    """
    from matplotlib import colormaps

    classes, which = np.unique(labels, return_inverse=True)
    palette = colormaps["tab10" if len(classes) <= 10 else "turbo"].resampled(max(10, len(classes)))
    axes.scatter(*points.T, s=5, c=palette(which), alpha=0.7, linewidths=0)
    small = 0.02 * np.ptp(points, axis=0).max()
    for i, label in enumerate(classes[:20]):         # more names would hide the points
        axes.scatter([], [], s=30, color=palette(i), label=str(label))
        members = points[which == i]
        above = 1.3 * LABEL if members.std(axis=0).max() < small else 0
        axes.annotate(str(label), np.median(members, axis=0), xytext=(0, above),
                      textcoords="offset points", fontsize=LABEL, va="center", weight="bold",
                      ha="center", bbox={"boxstyle": "circle,pad=0.1", "fc": "white",
                                         "ec": palette(i)})


def project_to_2d(codes, labels):
    """Points (N, 2) and the axes' names: the codes, or their first two principal components.

    The mean is not subtracted: N(0, I) projected on orthogonal directions is N(0, I), so that the
    contours of the prior are circles around 0. The class is the second axis of one-dimensional
    codes.
    """
    if codes.shape[1] == 1:
        return np.column_stack([codes, labels]), ("$z_1$", "class")
    if codes.shape[1] == 2:
        return codes, ("$z_1$", "$z_2$")
    codes = codes.astype(np.float64)
    variances, directions = np.linalg.eigh(np.cov(codes.T, bias=True))       # smallest first
    directions, total = directions[:, :-3:-1], max(variances.sum(), np.finfo(float).tiny)
    # The sign of an eigenvector is arbitrary; make its largest component positive.
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


def manifold(model, side=15):
    """Images decoded on a grid over a 2-D latent space, at quantiles of the prior."""
    if not (model.kind == "vae" and draws_images(model) and model.config.latent == 2):
        return None
    images, z = latent_grid(model, side)
    figure = sheet(mosaic(images, columns=side, gap=0), "VAE: images decoded on a grid\nof "
                   "quantiles of the prior", left=110, bottom=80)
    shown = np.linspace(0, side - 1, 6).round().astype(int)
    centres, names = (shown + 0.5) / side, [f"{value:.1f}".replace("-", "−") for value in z[shown]]
    axes = figure.axes[0]
    axes.set_xticks(centres, names)
    axes.set_yticks(centres, names)
    axes.set_xlabel("$z_1$", fontsize=TITLE)
    axes.set_ylabel("$z_2$", fontsize=TITLE)
    return figure


def latent_grid(model, side):
    """``(images, z)``: side² decoded images, z₁ to the right and z₂ upwards; the values of z."""
    z = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    first, second = np.meshgrid(z, z[::-1])
    return model.decode(np.stack([first.ravel(), second.ravel()], axis=1)), z


# --- between codes --------------------------------------------------------------------------------


def linear(a, b, t):
    """(1 − t) a + t b."""
    return (1 - t) * a + t * b


def spherical(a, b, t):
    """Spherical linear interpolation from a to b. Shoemake 1985; White 2016.

    Between codes of equal norm all points have that norm. A Gaussian in many dimensions has its
    mass close to one norm, which linear interpolation leaves.
    """
    cosine = np.sum(a * b) / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(float).tiny)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if min(angle, np.pi - angle) < 1e-4:            # no arc, or not a unique one
        return linear(a, b, t)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def interpolation(model, test, steps=8, pairs=3):
    """Images decoded between the codes of two test images, by linear and spherical interpolation.
    """
    if not (draws_images(model) and has(model, "encode", "decode")):
        return None
    ends = test.of_each_class()
    if len(ends) < 2:
        return None
    codes, rows, t = model.encode(ends).astype(np.float64), {}, np.linspace(0, 1, steps)
    for i in range(min(pairs, len(ends) // 2)):
        a, b = 2 * i, 2 * i + 1
        for way in (linear, spherical):
            path = np.stack([way(codes[a], codes[b], s) for s in t])
            name = f"{way.__name__}, pair {i + 1}"
            rows[name] = np.concatenate([ends[a:a + 1], model.decode(path), ends[b:b + 1]])
    at_ends, half_way = distances_to_data(model, test)
    return rows_sheet(rows, f"{title_of(model)}: interpolation between test images\n"
                      f"mean distance to the nearest test image:\n{at_ends:.2f} at the codes, "
                      f"{half_way:.2f} half way")


def distances_to_data(model, test):
    """Mean Euclidean distance of decoded images to the nearest test image.

    ``(at the codes of test images, half way between codes of different classes)``, for 100 random
    pairs. The nearest test image may be the encoded one, so the first value is at most the
    reconstruction error.
    """
    chosen = Stream(0, "holes").permutation(len(test.x))[:2 * PAIRS]
    a, b = chosen[:len(chosen) // 2], chosen[len(chosen) // 2:][:len(chosen) // 2]
    differ = test.labels[a] != test.labels[b]
    a, b = (a[differ], b[differ]) if differ.any() else (a, b)
    codes_a, codes_b = codes_of_images(model, test.x[a]), codes_of_images(model, test.x[b])
    return (nearest(model.decode(codes_a), test.x),
            nearest(model.decode((codes_a + codes_b) / 2), test.x))


def codes_of_images(model, x):
    """Codes in the shape that ``decode`` expects."""
    return np.asarray(model.encode(x), np.float64)


def nearest(images, x):
    """Mean over ``images`` of the Euclidean distance to the nearest image in x."""
    flat, others = images.reshape(len(images), -1), x.reshape(len(x), -1)
    squares = ((flat**2).sum(axis=1)[:, None] - 2 * flat @ others.T + (others**2).sum(axis=1))
    return float(np.sqrt(np.maximum(squares.min(axis=1), 0)).mean())


# --- one latent at a time -------------------------------------------------------------------------


def traversals(model, test, most=10, steps=9):
    """Images decoded with one latent from −3 to 3 and the others 0: a row for each latent."""
    if not (model.kind == "vae" and draws_images(model) and model.config.latent > 2):
        return None
    activity = codes_of(model, test.x).var(axis=0)
    order, images = np.argsort(-activity, kind="stable")[:most], []
    for dimension in order:
        z = np.zeros((steps, len(activity)))
        z[:, dimension] = np.linspace(-3, 3, steps)
        images.append(model.decode(z))
    figure = sheet(mosaic(np.concatenate(images), columns=steps), "VAE: one latent from −3 to 3, "
                   "the others 0\n(most active first)", left=90)
    figure.axes[0].set_yticks(1 - (np.arange(len(order)) + 0.5) / len(order),
                              [f"$z_{{{i + 1}}}$" for i in order])
    return figure


def kl_bars(model, test, history):
    """A bar chart of KL(q(z|x) ‖ p(z)) for each latent, largest first; active ones in blue."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    kl = kl_per_dimension(model, test, history)
    if kl is None or kl.ndim != 1 or not np.isfinite(kl).all():
        return None
    active = codes_of(model, test.x).var(axis=0) > ACTIVE
    order = np.argsort(-kl, kind="stable")
    figure = Figure((5.9, 3.9), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for chosen, colour, name in ((active, "#0072B2", "active"), (~active, "#D55E00", "not active")):
        if not chosen.any():
            continue
        places = np.flatnonzero(chosen[order])
        axes.bar(places + 1, kl[order][places], color=colour, label=f"{name}: {chosen.sum()}")
    axes.set_xlabel("latent, largest KL first", fontsize=LABEL)
    item = "image" if len(model.image_shape) > 1 else "point"
    axes.set_ylabel(f"nats per {item}", fontsize=LABEL)
    axes.set_title(f"VAE: KL of each latent, {kl.sum():.1f} nats in total", fontsize=TITLE,
                   loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=LABEL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=LABEL)
    return figure


def kl_per_dimension(model, test, history):
    """KL of each latent in nats, (Z,): from the last metrics, or computed; None if there is none.
    """
    extra = history[-1].get("extra", {}) if history else {}
    if "kl_per_dimension" not in extra and model.kind == "vae" and has(model, "extra_metrics"):
        extra = model.extra_metrics(test.x[:500], Streams(model.seed))
    kl = extra.get("kl_per_dimension")
    return None if kl is None else np.asarray(kl, np.float64)
