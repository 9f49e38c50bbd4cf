"""Losses and likelihoods. Sums are in nats; nothing is averaged unless asked for.

``reduction`` is "sum" (the default), "mean" (over all elements, for ``cross_entropy`` over the
examples) or "none". Log-likelihoods and KL divergences are one number an example.
"""

import math

import numpy as np

from ..backend import empty, kernels
from ..errors import unknown
from ..kernels.bce import ROWS
from ..tensor import plain
from .op import Fused, only_arrays

bce_kernels = kernels("bce")
REDUCTIONS = ("sum", "mean", "none")
LOG_2PI = math.log(2 * math.pi)


class BceWithLogits(Fused):
    """−t ln σ(l) − (1 − t) ln(1 − σ(l)) = max(l, 0) − l t + ln(1 + e^−|l|);  dl = σ(l) − t, dt = −l
    """

    expects, real = "logits and target of one shape", True
    extras = ("slope",)

    def formula(logits, target, *, reduction):
        losses = np.maximum(logits, 0) - logits * target + np.log1p(np.exp(-np.abs(logits)))
        return reduce(losses, reduction)

    def forward(logits, target, *, reduction):
        rows = as_rows(logits)
        target = as_rows(np.asarray(target, rows.dtype))
        slope = empty(rows.shape, rows.dtype)
        if reduction == "none":
            losses = empty(rows.shape, rows.dtype)
            bce_kernels.elements(rows, target, slope, losses)
            return losses.reshape(logits.shape), slope
        partial = empty((-(-rows.shape[0] // ROWS), rows.shape[1]), rows.dtype)
        bce_kernels.total(rows, target, slope, partial)
        total = partial.sum(axis=0).sum(dtype=np.float64)
        return (total if reduction == "sum" else total / rows.size).astype(rows.dtype), slope

    def backward(wanted, dy, logits, slope, reduction):
        scale = dy / logits.size if reduction == "mean" else dy
        slope = slope.reshape(logits.shape)
        dlogits = None
        if wanted[0]:
            dlogits = np.multiply(slope, scale, out=slope)     # nobody reads the slope again
        return dlogits, -logits * scale if wanted[1] else None


class Mse(Fused):
    """(x − t)²;  dx = 2 (x − t), dt = −dx"""

    expects, real = "x and target of one shape", True

    def formula(x, target, *, reduction):
        return reduce(np.square(x - target), reduction)

    def forward(x, target, *, reduction):
        difference = x - target
        if reduction == "none":
            return difference * difference
        total = np.vdot(difference, difference)
        return total if reduction == "sum" else total / x.size

    def backward(wanted, dy, x, target, reduction):
        scale = 2 * dy / x.size if reduction == "mean" else 2 * dy
        dx = scale * (x - target)
        return dx, -dx


class CrossEntropy(Fused):
    """−ln softmax(l)[label] = logsumexp(l) − l[label];  dl = softmax(l) − onehot(label)"""

    expects, real = "logits (N, K) and integer labels (N,)", True

    def formula(logits, labels, *, reduction):
        logits = logits - np.max(np.real(plain(logits)), axis=1, keepdims=True)
        chosen = logits[np.arange(len(labels)), labels]
        return reduce(np.log(np.sum(np.exp(logits), axis=1)) - chosen, reduction)

    def forward(logits, labels, *, reduction):
        return CrossEntropy.formula(logits, labels, reduction=reduction)

    def backward(wanted, dy, logits, labels, reduction):
        n = len(labels)
        e = np.exp(logits - np.max(logits, axis=1, keepdims=True))
        difference = e / np.sum(e, axis=1, keepdims=True)
        difference[np.arange(n), labels] -= 1
        scale = dy / n if reduction == "mean" else dy
        return (scale[:, None] if scale.ndim else scale) * difference, None


class GaussianLogLikelihood(Fused):
    """Σ_d ln N(x; m, e^v) = −½ Σ_d [ln 2π + v + (x − m)² e^−v];  with r = (x − m) e^−v:
    dm = r, dx = −r, dv = ½ (r (x − m) − 1)
    """

    expects, real = "x (N, …), with mean and logvar that broadcast to its shape", True

    def formula(x, mean, logvar):
        terms = LOG_2PI + logvar + np.square(x - mean) * np.exp(-logvar)
        return -0.5 * np.sum(per_example(terms), axis=1)

    def forward(x, mean, logvar):
        return GaussianLogLikelihood.formula(x, mean, logvar)

    def backward(wanted, dy, x, mean, logvar):
        dy = dy.reshape(-1, *[1] * (np.ndim(x - mean) - 1))
        difference = x - mean
        r = difference * np.exp(-logvar)
        return -dy * r, dy * r, dy * 0.5 * (r * difference - 1)


class BernoulliLogLikelihood(Fused):
    """Σ_d [x l − ln(1 + e^l)], grey x allowed;  dl = x − σ(l), dx = l"""

    expects, real = "x and logits of one shape (N, …)", True
    extras = ("slope",)

    def formula(x, logits):
        losses = np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits)))
        return -np.sum(per_example(losses), axis=1)

    def forward(x, logits):
        losses, slope = BceWithLogits.forward(logits, x, reduction="none")
        return -as_rows(losses).sum(axis=1), slope

    def backward(wanted, dy, logits, slope):
        dy = dy.reshape(-1, *[1] * (logits.ndim - 1))
        return (dy * logits if wanted[0] else None,
                -dy * slope.reshape(logits.shape) if wanted[1] else None)


class GaussianKl(Fused):
    """KL(N(m, e^v) ‖ N(0, 1)) = ½ Σ_d [m² + e^v − v − 1];  dm = m, dv = ½ (e^v − 1)

    Kingma & Welling 2014, appendix B.
    """

    expects, real = "mean and logvar of one shape (N, Z)", True

    def formula(mean, logvar):
        return 0.5 * np.sum(np.square(mean) + np.exp(logvar) - logvar - 1, axis=1)

    def forward(mean, logvar):
        return GaussianKl.formula(mean, logvar)

    def backward(wanted, dy, mean, logvar):
        dy = dy[:, None]
        return dy * mean, dy * (0.5 * np.expm1(logvar))


class GaussianKlBetween(Fused):
    """KL(N(m, e^v) ‖ N(m₂, e^v₂)) = ½ Σ_d [v₂ − v + (e^v + (m − m₂)²) e^−v₂ − 1]

    With r = (m − m₂) e^−v₂ and q = e^(v − v₂):
    dm = r, dm₂ = −r, dv = ½ (q − 1), dv₂ = ½ (1 − q − r (m − m₂))
    """

    expects, real = "two means and two logvars, all of one shape (N, Z)", True

    def formula(mean, logvar, mean2, logvar2):
        square = np.square(mean - mean2)
        return 0.5 * np.sum(logvar2 - logvar + np.exp(logvar - logvar2)
                            + square * np.exp(-logvar2) - 1, axis=1)

    def forward(mean, logvar, mean2, logvar2):
        return GaussianKlBetween.formula(mean, logvar, mean2, logvar2)

    def backward(wanted, dy, mean, logvar, mean2, logvar2):
        dy, difference = dy[:, None], mean - mean2
        r, q = difference * np.exp(-logvar2), np.exp(logvar - logvar2)
        return (dy * r, dy * 0.5 * (q - 1), -dy * r, dy * 0.5 * (1 - q - r * difference))


# --- public functions ----------------------------------------------------------------------------

def bce_with_logits(logits, target, reduction="sum"):
    """Binary cross-entropy of ``target`` in [0, 1] under σ(``logits``); equal shapes; nats."""
    check_reduction(reduction)
    only_arrays("bce_with_logits", logits=logits)
    same_shape("bce_with_logits", logits=logits, target=target)
    return BceWithLogits.apply(logits, target, reduction=reduction)


def mse(x, target, reduction="sum"):
    """Squared error between two tensors of one shape."""
    check_reduction(reduction)
    only_arrays("mse", x=x)
    same_shape("mse", x=x, target=target)
    return Mse.apply(x, target, reduction=reduction)


def cross_entropy(logits, labels, reduction="sum"):
    """−ln softmax(``logits``)[label]: logits (N, K), labels (N,) integers below K; nats."""
    check_reduction(reduction)
    only_arrays("cross_entropy", logits=logits)
    labels = np.asarray(plain(labels))
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy: logits {logits.shape}, labels {labels.dtype}"
                         f"{labels.shape}; expected (N, K) and integers (N,)")
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(f"cross_entropy: labels from {labels.min()} to {labels.max()}; expected "
                         f"0 to {logits.shape[1] - 1}")
    return CrossEntropy.apply(logits, labels, reduction=reduction)


def bernoulli_log_likelihood(x, logits):
    """ln p(x) per example, x in [0, 1] and ``logits`` of one shape (N, …) → (N,), in nats."""
    only_arrays("bernoulli_log_likelihood", x=x, logits=logits)
    same_shape("bernoulli_log_likelihood", x=x, logits=logits)
    if logits.ndim < 1:
        raise ValueError("bernoulli_log_likelihood: x () and logits (); expected (N, …)")
    return BernoulliLogLikelihood.apply(x, logits)


def gaussian_log_likelihood(x, mean, logvar):
    """ln N(x; mean, e^logvar) per example, x (N, …) → (N,), in nats.

    ``mean`` and ``logvar`` have the shape of x, or one that broadcasts to it.
    """
    only_arrays("gaussian_log_likelihood", x=x, mean=mean)
    shapes = [np.shape(plain(a)) for a in (x, mean, logvar)]
    fits = shapes[0] and all(len(s) <= len(shapes[0]) and all(
        n in (1, m) for n, m in zip(s[::-1], shapes[0][::-1], strict=False)) for s in shapes[1:])
    if not fits:
        raise ValueError(f"gaussian_log_likelihood: x {shapes[0]}, mean {shapes[1]}, logvar "
                         f"{shapes[2]}; expected {GaussianLogLikelihood.expects}")
    return GaussianLogLikelihood.apply(x, mean, logvar)


def gaussian_kl(mean, logvar, mean2=None, logvar2=None):
    """KL(N(mean, e^logvar) ‖ N(mean2, e^logvar2)) per example, (N, Z) → (N,), in nats.

    The second Gaussian is N(0, I) if left out.
    """
    if (mean2 is None) != (logvar2 is None):
        raise ValueError("gaussian_kl: the second Gaussian needs both mean2 and logvar2; give both "
                         "or neither")
    if mean2 is not None:
        return gaussian_kl_between(mean, logvar, mean2, logvar2, "gaussian_kl")
    only_arrays("gaussian_kl", mean=mean, logvar=logvar)
    same_shape("gaussian_kl", mean=mean, logvar=logvar)
    if mean.ndim != 2:
        raise ValueError(f"gaussian_kl: mean {mean.shape}; expected (N, Z)")
    return GaussianKl.apply(mean, logvar)


def gaussian_kl_between(mean, logvar, mean2, logvar2, called="gaussian_kl_between"):
    """``gaussian_kl`` of two Gaussians, all four of one shape (N, Z) → (N,), in nats."""
    parameters = {"mean": mean, "logvar": logvar, "mean2": mean2, "logvar2": logvar2}
    only_arrays(called, **parameters)
    same_shape(called, **parameters)
    if mean.ndim != 2:
        raise ValueError(f"{called}: mean {mean.shape}; expected (N, Z)")
    return GaussianKlBetween.apply(mean, logvar, mean2, logvar2)


# --- helpers -------------------------------------------------------------------------------------

def reduce(losses, reduction):
    """The sum, the mean over all elements, or the losses as they are."""
    if reduction == "none":
        return losses
    return np.sum(losses) if reduction == "sum" else np.mean(losses)


def per_example(x):
    """(N, …) as (N, everything else)."""
    return np.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def as_rows(x):
    """A contiguous array (N, D) for a kernel."""
    return np.ascontiguousarray(x).reshape(x.shape[0] if x.ndim else 1, math.prod(x.shape[1:]))


def check_reduction(reduction):
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)


def same_shape(op, **arguments):
    """An error that names both, unless all shapes are equal."""
    shapes = {name: np.shape(plain(x)) for name, x in arguments.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{op}: {', '.join(f'{n} {s}' for n, s in shapes.items())}; "
                         "expected equal shapes")
