"""Curves: the loss, its terms and all other metrics in metrics.jsonl, by epoch."""

import math
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .capabilities import title_of
from .mosaic import DPI, LABEL, TITLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..models.base import Model

# The palette of Okabe and Ito, for readers with colour blindness: (train, test) of each term
ONE_TERM = (("#0072B2", "#D55E00"),)
SEVERAL = (("#0072B2", "#56B4E9"), ("#D55E00", "#E69F00"), ("#009E73", "#66C2A5"),
           ("#AA4499", "#CC79A7"))
WORDS = {"valid": "validation"}
PARTS = {"train": "-", "test": "--", "valid": ":"}
LAYER = "layer_"
NOT_DRAWN = ("layer", "best_epoch", "best_valid_error")     # numbers that describe the progress
NATS, PROBABILITY = "nats per image", "mean probability of “real”"
AVERAGED = " Train: mean over an epoch; test: at its end."
BEST_WEIGHTS = (" The test values use the weights with the lowest validation error so far, hence "
                "the steps.")
# Captions of a GAN's losses and outputs: for a discriminator of labels, and for a critic.
DISCRIMINATOR = (
    "D and G have opposing objectives: neither loss has to decrease. A loss of D near zero means "
    "that D separates data and samples, and that G receives hardly any gradient.",
    "Outputs of D on data and on samples. Both at one half: D cannot distinguish them. Close to 1 "
    "and 0: D is too strong, and its gradients vanish.")
CRITIC = (
    "D and G have opposing objectives. The loss of D without the penalty is minus an estimate of "
    "the Wasserstein distance between data and samples, up to a factor: it should approach zero.",
    "Mean scores of data and of samples. Only their difference is meaningful: it is the critic’s "
    "estimate of the distance.")


@dataclass(frozen=True)
class Panel:
    """One pair of axes: ``terms`` of the metrics → labels, ``levels`` at equilibrium → labels.

    ``name`` is part of the file's name. ``caption`` and ``point``, the number of a point of the
    lecture, are for the report.
    """

    name: str
    title: str
    terms: dict[str, str]
    unit: str = NATS
    levels: dict[float, str] = field(default_factory=dict)
    limits: tuple[float | None, float | None] = (None, None)
    caption: str = ""
    point: int | None = None


def panels_of(model: "Model", history: list[dict[str, Any]]) -> list[Panel]:
    """The panels of a model's metrics: first those defined for its kind, then all others."""
    available = terms_of(history)
    of_kind = {"dae": _autoencoder_panels, "vae": _vae_panels, "gan": _gan_panels}.get(model.kind)
    panels = [_layer_panel(available), *(of_kind(model) if of_kind else [])]
    panels = [panel for panel in panels if set(panel.terms) & available.keys()]
    drawn = {term for panel in panels for term in panel.terms}
    for term in available:
        if term not in drawn:
            panels.append(_panel_of(model, term))
    points = len(model.image_shape) == 1
    return [replace(panel, unit=panel.unit.replace("image", "point")) if points else panel
            for panel in panels if panel]


def _panel_of(model, term):
    """The panel of one term; None for terms that are not drawn."""
    name = term.replace("_", " ")
    if term in NOT_DRAWN:
        return None
    if term in ("accuracy", "error") or term.endswith(("_accuracy", "_error")):
        what = "correctly" if "accuracy" in term else "incorrectly"
        return Panel(term, f"{title_of(model)}: {name}", {term: ""}, "share of items",
                     limits=(0, 1) if "accuracy" in term else (0, None), point=6,
                     caption=f"The share of test items and of training items that are classified "
                             f"{what}. The gap between the two is overfitting."
                             + BEST_WEIGHTS * (model.kind == "sdae"))
    if term == "loss":
        classifies = model.kind in ("probe", "classifier", "sdae")
        return Panel("loss", f"{title_of(model)}: loss", {"loss": ""},
                     "nats per item" if classifies else "mean per item",
                     caption="The loss on training and on test items. The curves separate when the "
                             "model begins to overfit." + BEST_WEIGHTS * (model.kind == "sdae"),
                     point=6 if classifies else None)
    if term == "active_units":
        return Panel(term, "VAE: active units", {term: ""}, "latents", point=5,
                     limits=(0, None),
                     caption="The number of latent variables that carry information. The decoder "
                             "ignores the others, and their KL divergence goes to zero.")
    if model.kind == "vae" and term == "std":
        return Panel(term, "VAE: learned std of p(x|z)", {term: ""}, "units of the data", point=5,
                     limits=(0, None),
                     caption="The standard deviation of the values around the decoder’s mean, the "
                             "same for all. Its optimum is the root of the mean squared error.")
    if model.kind == "vae" and term == "kl_weight":
        return Panel(term, "VAE: weight of the KL", {term: ""}, "factor", limits=(0, None), point=5,
                     caption="Small at first, so that the model learns to use the latent variables "
                             "before their KL divergence is fully penalised.")
    return Panel(term, f"{title_of(model)}: {name}", {term: ""}, "mean per item",
                 caption=f"The {name} of each epoch.")


def _layer_panel(available):
    """Greedy pre-training: the losses of the autoencoders of all layers, one after the other."""
    layers = sorted(term for term in available if term.startswith(LAYER))
    return Panel("layers", "Layer-wise pre-training",
                 {term: term.replace("_", " ") for term in layers},
                 "loss, mean per item", point=2,
                 caption="Each layer is trained separately, as a denoising autoencoder of the "
                         "clean codes of the layer below. A curve ends where the next one begins.")


def _autoencoder_panels(model):
    distance, unit = {"bce": ("cross-entropy", NATS),
                      "mse": ("squared error", "squared error per image")}[model.config.loss]
    caption = (f"The {distance} between the clean input and its reconstruction from a corrupted "
               "input. The minimum is not zero: what the noise has destroyed can only be guessed.")
    if not model.config.level:
        caption = f"The {distance} between the input and its reconstruction; nothing is corrupted."
    return [Panel("loss", f"DAE: {distance} with the clean input", {"loss": ""}, unit, point=2,
                  caption=caption)]


def _vae_panels(model):
    loss, caption = _bound(model.config)
    density = ("" if model.config.decoder == "bernoulli" else
               " A density may exceed one, so this term may be negative.")
    return [
        Panel("loss", f"VAE: loss{loss}", {"loss": ""}, point=5, caption=caption),
        Panel("reconstruction", "VAE: −E[ln p(x|z)]", {"reconstruction": ""}, point=5,
              caption="First term of the ELBO, estimated by sampling: how poorly the decoder "
                      f"predicts an item from a code drawn from q(z|x).{density}"),
        Panel("kl", "VAE: KL(q(z|x) ‖ p(z))", {"kl": ""}, point=5,
              caption="Second term of the ELBO, in closed form: the information in the code about "
                      "an item, in nats. More is worthwhile if the first term decreases by more."),
    ]


def _bound(c):
    """(name of the loss, caption); the loss is −ELBO only without weights and free bits."""
    if c.objective == "iwae":
        name = f" = −IWAE bound, K = {c.samples}"
        caption = ("Minus the importance-weighted lower bound on ln p(x), with "
                   f"{c.samples} codes for each item. It is tighter than the ELBO, whose two terms "
                   "follow.")
    else:
        name, caption = " = −ELBO", ("Minus the lower bound on ln p(x), the sum of the next two "
                                     "curves. Lower values mean a better model of the test items.")
    if c.beta != 1:
        name = f", with {c.beta:g} KL" if c.objective == "iwae" else (
            f" = reconstruction + {c.beta:g} KL")
        caption = f"Not a bound on ln p(x), because the KL divergence is weighted by {c.beta:g}."
    changes = []
    if c.warmup:
        changes.append("the weight of the KL divergence increases to "
                       f"{c.beta:g} over {c.warmup} epochs")
    if c.free_bits:
        changes.append("the KL divergence of each latent variable counts as at least "
                       f"{c.free_bits:g} nats")
    if changes:
        return f"{name} (test)", f"{caption} In training only, {' and '.join(changes)}."
    return name, caption


def _gan_panels(model):
    loss = getattr(model.config, "loss", "")
    equilibrium = {"minimax": {math.log(4): "ln 4", -math.log(2): "−ln 2"},
                   "non-saturating": {math.log(4): "ln 4", math.log(2): "ln 2"}}.get(loss, {})
    probabilities = loss in ("minimax", "non-saturating")
    dotted = "; dotted: at equilibrium" if equilibrium else ""
    losses, outputs = (CRITIC if loss == "wasserstein" else DISCRIMINATOR)
    return [
        Panel("loss", f"GAN: losses{dotted}", {"loss": "D", "g_loss": "G"},
              NATS if probabilities else "mean per item", equilibrium, point=7,
              caption=losses),
        Panel("answers", "GAN: mean outputs of D", {"d_real": "D(x)", "d_fake": "D(G(z))"},
              PROBABILITY if probabilities else "mean output",
              {0.5: "1/2"} if probabilities else {}, (0, 1) if probabilities else (None, None),
              point=9, caption=outputs + AVERAGED),
        Panel("penalty", "GAN: gradient penalty in the loss of D", {"penalty": ""}, "mean per item",
              point=9, caption="The penalty on large gradients of D. It prevents D from becoming "
                               "so steep that G receives no useful gradient."),
    ]


# --- drawing --------------------------------------------------------------------------------------


def terms_of(history):
    """Term → {part: values by epoch, NaN where a line has none}; parts: train, test, valid.

    Numbers under "extra" are terms with the single part "". In layer-wise pre-training the losses
    belong to different networks: terms layer_1, layer_2, …
    """
    found = {}
    for i, line in enumerate(history):
        extra = line.get("extra") if isinstance(line.get("extra"), dict) else {}
        for key, value in (*line.items(), *((f"_{name}", v) for name, v in extra.items())):
            part, _, term = key.partition("_")
            if part in PARTS and extra.get("phase") == "pre-training" and "layer" in extra:
                term = f"{LAYER}{extra['layer']}" if term == "loss" else ""
            if (part in PARTS or (part == "" and key[1:] in extra)) and term and _is_number(value):
                values = found.setdefault(term, {}).setdefault(part, [math.nan] * len(history))
                values[i] = float(value)
    return {term: parts for term, parts in found.items() if _has_curve(parts)}


def _has_curve(parts):
    """Whether there is a finite value; for numbers under "extra", whether they change."""
    finite = [v for values in parts.values() for v in values if math.isfinite(v)]
    return bool(finite) and ("" not in parts or len(set(finite)) > 1)


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def curves(panel: Panel, history: list[dict[str, Any]]) -> "Figure":
    """The figure of one panel."""
    from matplotlib.figure import Figure

    figure = Figure((5.6, 4.2), dpi=DPI, facecolor="white", layout="constrained")
    draw_panel(figure.subplots(), panel, history)
    figure.draw_without_rendering()      # a first layout may change the ticks and their size
    return figure


def draw_panel(axes, panel, history):
    """Draw the terms: train solid, test dashed, last values in the legend, levels dotted."""
    from matplotlib.ticker import MaxNLocator

    epochs, available = [line["epoch"] for line in history], terms_of(history)
    shown = [term for term in panel.terms if term in available]
    palette = ONE_TERM if len(shown) == 1 else SEVERAL
    for i, term in enumerate(shown):
        colours = (*palette[i % len(palette)], "0.4")
        for part, values in available[term].items():
            if part == "valid" and len(shown) > 1:
                continue                              # too many lines to distinguish
            style, colour = PARTS.get(part, "-"), colours[list(PARTS).index(part) if part else 0]
            last = next(v for v in values[::-1] if np.isfinite(v) or v == values[0])
            name = " ".join(filter(None, (panel.terms[term], WORDS.get(part, part))))
            axes.plot(epochs, values, style, marker="." if len(epochs) < 80 else None,
                      color=colour, label=f"{name}: {last:#.4g}".replace("-", "−").lstrip(": "))
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
