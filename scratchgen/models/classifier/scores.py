"""Labels, the cross-entropy with its explicit gradient, accuracy and error rate of classifiers."""

import functools

import numpy as np

from ...engine.memory import check_values, to_device
from ...errors import UserError


def _remedy(labels):
    if labels.min() < 0:
        return "number the classes from 0 on, and leave out items without a label"
    return f"choose another number with --set model.classes={max(labels.max() + 1, 2)}"


def checked(labels, classes):
    """The labels as int64 (N,). UserError unless they are from 0 to ``classes`` − 1."""
    if labels is None:
        raise UserError("a classifier was given no labels: call it with labels=…")
    labels = labels.astype(np.int64, copy=False) if hasattr(labels, "astype") else np.asarray(
        labels, np.int64)
    check_values(labels, functools.partial(_check_classes, classes=classes))
    return labels


def _check_classes(labels, classes):
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"the labels go from {labels.min()} to {labels.max()}, and the model has "
                        f"{classes} classes: expected 0 to {classes - 1}; {_remedy(labels)}")


def explicit_cross_entropy(logits, labels):
    """(mean −ln softmax(l)[label], its gradient (softmax(l) − onehot(label))/N), plain NumPy."""
    n = len(labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    loss = np.sum(np.log(total[:, 0]) - shifted[np.arange(n), labels]) / n
    dlogits = e / total
    dlogits[np.arange(n), labels] -= 1
    return loss, dlogits / logits.dtype.type(n)


def accuracy(logits, labels):
    """The fraction of items whose largest logit is the label's."""
    return np.mean(logits.argmax(axis=1) == to_device(labels))


def error_rate(logits, labels):
    """The fraction of items whose largest logit is not the label's."""
    return np.mean(logits.argmax(axis=1) != to_device(labels))
