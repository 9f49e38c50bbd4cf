"""Pictures of classifiers: which classes are taken for which."""

import numpy as np

from ..engine.random import Streams
from .abilities import ENCODED_AT_ONCE, has, title_of
from .mosaic import DPI, LABEL, TITLE


def confusion(model, test):
    """The confusion matrix of a model that can ``predict`` labels, given or by rotation."""
    from matplotlib.figure import Figure

    if not has(model, "predict"):
        return None
    x, labels, names = questions(model, test)
    chunks = np.array_split(x, -(-len(x) // ENCODED_AT_ONCE))
    answers = np.concatenate([np.asarray(model.predict(chunk)) for chunk in chunks])
    classes = np.union1d(labels, answers)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (np.searchsorted(classes, labels), np.searchsorted(classes, answers)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure((5.6, 5.6), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)     # √: rare mistakes stay visible
    if len(classes) <= 12:
        for i, j in np.argwhere(counts > 0):
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=LABEL - 2,
                      color="white" if share[i, j] > 0.4 else "black")
        ticks = [names.get(label, label) for label in classes]
        axes.set_xticks(range(len(classes)), ticks)
        axes.set_yticks(range(len(classes)), ticks)
    axes.set_xlabel("answer", fontsize=LABEL)
    axes.set_ylabel("turned by" if names else "class", fontsize=LABEL)
    axes.tick_params(labelsize=LABEL)
    wrong = 1 - counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{title_of(model)}: {counts.sum()} test items, {wrong:.1%} wrong",
                   fontsize=TITLE, loc="left")
    return figure


def questions(model, test):
    """(items, their labels, label → name): each image turned by chance where labels are turns."""
    if getattr(model.config, "labels", "given") != "rotation":
        return test.x, test.labels, {}
    rows, turns = model.inputs(test.x, Streams(model.seed), test.labels)
    return model.images(rows), turns, {k: f"{90 * k}°" for k in range(model.answers())}
