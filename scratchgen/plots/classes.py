"""Pictures of classifiers: which classes are taken for which."""

import numpy as np

from ..mosaic import DPI, LABEL, TITLE
from .subject import ENCODED_AT_ONCE, has, title_of


def confusion(model, test):
    """The confusion matrix of a model that can ``predict`` the given labels."""
    from matplotlib.figure import Figure

    if not has(model, "predict") or getattr(model.config, "labels", "given") != "given":
        return None
    chunks = np.array_split(test.x, -(-len(test.x) // ENCODED_AT_ONCE))
    answers = np.concatenate([np.asarray(model.predict(x)) for x in chunks])
    answers = answers.argmax(axis=1) if answers.ndim == 2 else answers
    classes = np.union1d(test.labels, answers)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (np.searchsorted(classes, test.labels), np.searchsorted(classes, answers)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure((5.6, 5.6), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)     # √: rare mistakes stay visible
    if len(classes) <= 12:
        for i, j in np.argwhere(counts > 0):
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=LABEL - 2,
                      color="white" if share[i, j] > 0.4 else "black")
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("answer", fontsize=LABEL)
    axes.set_ylabel("class", fontsize=LABEL)
    axes.tick_params(labelsize=LABEL)
    wrong = 1 - counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{title_of(model)}: {counts.sum()} test items, {wrong:.1%} wrong",
                   fontsize=TITLE, loc="left")
    return figure
