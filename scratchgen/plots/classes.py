"""The confusion matrix of a classifier."""

import numpy as np

from ..engine.random import Streams
from .capabilities import ENCODED_AT_ONCE, has, title_of
from .mosaic import DPI, LABEL, TITLE


def confusion(model, test):
    """The confusion matrix of a model that can ``predict`` labels: classes or rotations."""
    from matplotlib.figure import Figure

    if not has(model, "predict"):
        return None
    x, labels, names = labelled_inputs(model, test)
    chunks = np.array_split(x, -(-len(x) // ENCODED_AT_ONCE))
    predictions = np.concatenate([np.asarray(model.predict(chunk)) for chunk in chunks])
    classes = np.union1d(labels, predictions)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (np.searchsorted(classes, labels), np.searchsorted(classes, predictions)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure((5.6, 5.6), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)     # √: rare errors remain visible
    if len(classes) <= 12:
        for i, j in np.argwhere(counts > 0):
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=LABEL - 2,
                      color="white" if share[i, j] > 0.4 else "black")
        ticks = [names.get(label, label) for label in classes]
        axes.set_xticks(range(len(classes)), ticks)
        axes.set_yticks(range(len(classes)), ticks)
    axes.set_xlabel("predicted rotation" if names else "predicted class", fontsize=LABEL)
    axes.set_ylabel("true rotation" if names else "true class", fontsize=LABEL)
    axes.tick_params(labelsize=LABEL)
    error = 1 - counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{title_of(model)}: {counts.sum()} test items, error {error:.1%}",
                   fontsize=TITLE, loc="left")
    return figure


def labelled_inputs(model, test):
    """``(items, labels, {label: name})``; rotated images for a classifier of rotations."""
    if getattr(model.config, "labels", "given") != "rotation":
        return test.x, test.labels, {}
    rows, rotations = model.inputs(test.x, Streams(model.seed), test.labels)
    return model.images(rows), rotations, {k: f"{90 * k}°" for k in range(model.class_count())}
