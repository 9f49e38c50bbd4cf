"""Losses and likelihoods, in nats; sums, not means, unless ``reduction`` says otherwise.

``reduction`` is "sum" (the default), "mean" (over all elements, for ``cross_entropy`` over the
examples) or "none". Log-likelihoods and KL divergences are one number per example.
"""

import functools
import math

import numpy as np

from ..engine.backend import backend, kernels
from ..engine.memory import array_module, check_values, contiguous, empty, is_host, to_device
from ..engine.tensor import Tensor, plain
from ..engine.types import Reduction, TensorLike
from ..errors import unknown
from ..kernels.bce import ROWS
from .elementwise import Multiply
from .inputs import only_arrays
from .op import Fused
from .reduce import Sum

__all__ = ["bce_with_logits", "mse", "cross_entropy", "bernoulli_log_likelihood",
           "gaussian_log_likelihood", "gaussian_kl", "gaussian_kl_between"]

bce_kernels, likelihood_kernels = kernels("bce"), kernels("likelihood")
reduce_kernels = kernels("reduce")
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
        target = as_rows(to_device(target, rows.dtype))
        slope = empty(rows.shape, rows.dtype)
        if reduction == "none":
            losses = empty(rows.shape, rows.dtype)
            bce_kernels.elements(rows, target, slope, losses)
            return losses.reshape(logits.shape), slope
        partial = empty((-(-rows.shape[0] // ROWS), rows.shape[1]), rows.dtype)
        bce_kernels.total(rows, target, slope, partial)
        return total_of(partial, 1 if reduction == "sum" else rows.size), slope

    def backward(wanted, dy, logits, slope, reduction):
        scale = dy / logits.size if reduction == "mean" else dy
        dlogits = scaled(scale, slope.reshape(logits.shape)) if wanted[0] else None
        return dlogits, -logits * scale if wanted[1] else None


class Mse(Fused):
    """(x − t)²;  dx = 2 (x − t), dt = −dx"""

    expects, real = "x and target of one shape", True
    extras = ("difference",)

    def formula(x, target, *, reduction):
        return reduce(np.square(x - target), reduction)

    def forward(x, target, *, reduction):
        rows = as_rows(x)
        difference = empty(rows.shape, rows.dtype)
        partial = empty((-(-rows.shape[0] // ROWS), rows.shape[1]), rows.dtype)
        likelihood_kernels.squared_error(rows, as_rows(to_device(target, rows.dtype)), difference,
                                         partial)
        difference = difference.reshape(x.shape)
        if reduction == "none":
            return difference * difference, difference
        return total_of(partial, 1 if reduction == "sum" else x.size), difference

    def backward(wanted, dy, x, difference, reduction):
        dx = scaled(2 * dy / x.size if reduction == "mean" else 2 * dy, difference)
        return dx, -dx if wanted[1] else None


class CrossEntropy(Fused):
    """−ln softmax(l)[label] = logsumexp(l) − l[label];  dl = softmax(l) − onehot(label)"""

    expects, real = "logits (N, K) and integer labels (N,)", True
    extras, integers = ("slope",), ("labels",)

    def formula(logits, labels, *, reduction):
        logits = logits - np.max(np.real(plain(logits)), axis=1, keepdims=True)
        chosen = logits[array_module().arange(len(labels)), labels]
        return reduce(np.log(np.sum(np.exp(logits), axis=1)) - chosen, reduction)

    def forward(logits, labels, *, reduction):
        losses, slope = (empty(s, logits.dtype) for s in (logits.shape[:1], logits.shape))
        labels = contiguous(to_device(labels, np.int64))
        likelihood_kernels.cross_entropy(contiguous(logits), labels, losses, slope)
        if reduction == "none":
            return losses, slope
        return total_of(losses, 1 if reduction == "sum" else len(losses)), slope

    def backward(wanted, dy, logits, slope, reduction):
        scale = dy / len(logits) if reduction == "mean" else dy
        return scaled(scale[:, None] if scale.ndim else scale, slope), None


class GaussianLogLikelihood(Fused):
    """Σ_d ln N(x; m, e^v) = −½ Σ_d [ln 2π + v + (x − m)² e^−v];  with r = (x − m) e^−v:
    dm = r, dx = −r, dv = ½ (r (x − m) − 1)
    """

    expects, real = "x (N, …), with mean and logvar that broadcast to its shape", True

    def formula(x, mean, logvar):
        terms = LOG_2PI + logvar + np.square(x - mean) * np.exp(-logvar)
        return -0.5 * np.sum(per_example(terms), axis=1)

    def forward(x, mean, logvar):
        x, *parameters = matching(x, mean, logvar)
        log_p = empty(x.shape[:1], x.dtype)
        likelihood_kernels.gaussian_log_likelihood(x, *parameters, log_p)
        return log_p

    def backward(wanted, dy, x, mean, logvar):
        shape, (x, *parameters) = x.shape, matching(x, mean, logvar)
        dmean, dlogvar = empty(x.shape, x.dtype), empty(x.shape, x.dtype)
        likelihood_kernels.gaussian_log_likelihood_backward(contiguous(dy), x, *parameters, dmean,
                                                            dlogvar)
        dmean = dmean.reshape(shape)
        return -dmean if wanted[0] else None, dmean, dlogvar.reshape(shape)


class BernoulliLogLikelihood(Fused):
    """Σ_d [x l − ln(1 + e^l)], grey x allowed;  dl = x − σ(l), dx = l"""

    expects, real = "x and logits of one shape (N, …)", True
    extras = ("slope",)

    def formula(x, logits):
        losses = np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits)))
        return -np.sum(per_example(losses), axis=1)

    def forward(x, logits):
        losses, slope = BceWithLogits.forward(logits, x, reduction="none")
        return -Sum.forward(as_rows(losses), axis=1, keepdims=False), slope

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
        kl = empty(mean.shape[:1], mean.dtype)
        likelihood_kernels.gaussian_kl(contiguous(mean), contiguous(logvar), kl)
        return kl

    def backward(wanted, dy, mean, logvar):
        dmean, dlogvar = empty(mean.shape, mean.dtype), empty(mean.shape, mean.dtype)
        likelihood_kernels.gaussian_kl_backward(contiguous(dy), contiguous(mean),
                                                contiguous(logvar), dmean, dlogvar)
        return dmean, dlogvar


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

def bce_with_logits(logits: TensorLike, target: TensorLike, reduction: Reduction = "sum") -> Tensor:
    """Binary cross-entropy of ``target`` in [0, 1] under σ(``logits``); equal shapes; nats."""
    check_reduction(reduction)
    only_arrays("bce_with_logits", logits=logits)
    same_shape("bce_with_logits", logits=logits, target=target)
    return BceWithLogits.apply(logits, target, reduction=reduction)


def mse(x: TensorLike, target: TensorLike, reduction: Reduction = "sum") -> Tensor:
    """Squared error between two tensors of one shape."""
    check_reduction(reduction)
    only_arrays("mse", x=x)
    same_shape("mse", x=x, target=target)
    return Mse.apply(x, target, reduction=reduction)


def cross_entropy(logits: TensorLike, labels: TensorLike, reduction: Reduction = "sum") -> Tensor:
    """−ln softmax(``logits``)[label]: logits (N, K), labels (N,) integers below K; nats."""
    check_reduction(reduction)
    only_arrays("cross_entropy", logits=logits)
    labels = plain(labels) if hasattr(plain(labels), "dtype") else np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy: logits {logits.shape}, labels {labels.dtype}"
                         f"{labels.shape}; expected (N, K) and integers (N,)")
    check_values(labels, functools.partial(check_labels, classes=logits.shape[1]))
    return CrossEntropy.apply(logits, labels, reduction=reduction)


def check_labels(labels, classes):
    """ValueError for a label that is no class: a kernel would read beyond a row."""
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"cross_entropy: labels from {labels.min()} to {labels.max()}; expected "
                         f"0 to {classes - 1}")


def bernoulli_log_likelihood(x: TensorLike, logits: TensorLike) -> Tensor:
    """ln p(x) per example, x in [0, 1] and ``logits`` of one shape (N, …) → (N,), in nats."""
    only_arrays("bernoulli_log_likelihood", x=x, logits=logits)
    same_shape("bernoulli_log_likelihood", x=x, logits=logits)
    if logits.ndim < 1:
        raise ValueError("bernoulli_log_likelihood: x () and logits (); expected (N, …)")
    return BernoulliLogLikelihood.apply(x, logits)


def gaussian_log_likelihood(x: TensorLike, mean: TensorLike, logvar: TensorLike) -> Tensor:
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


def gaussian_kl(mean: TensorLike, logvar: TensorLike, mean2: TensorLike | None = None,
                logvar2: TensorLike | None = None) -> Tensor:
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


def gaussian_kl_between(mean: TensorLike, logvar: TensorLike, mean2: TensorLike,
                        logvar2: TensorLike, called: str = "gaussian_kl_between") -> Tensor:
    """``gaussian_kl`` of two Gaussians, all four of one shape (N, Z) → (N,), in nats."""
    parameters = {"mean": mean, "logvar": logvar, "mean2": mean2, "logvar2": logvar2}
    only_arrays(called, **parameters)
    same_shape(called, **parameters)
    if mean.ndim != 2:
        raise ValueError(f"{called}: mean {mean.shape}; expected (N, Z)")
    return GaussianKlBetween.apply(mean, logvar, mean2, logvar2)


# --- helpers -------------------------------------------------------------------------------------

def total_of(partial, count=1):
    """Σ partial / count, a number in their precision, added up in float64."""
    if backend() != "cuda":
        total = partial.sum(axis=0).sum(dtype=np.float64)
        return (total if count == 1 else total / count).astype(partial.dtype)
    total = empty((1,), partial.dtype)
    reduce_kernels.sum_all(partial, 1 / count, total)
    return total.reshape(())


def scaled(factor, slope):
    """factor · slope, in the memory of slope if factor is one number, as slope is used once."""
    if factor.ndim == 0 and is_host(slope):
        return np.multiply(slope, factor, out=slope)
    if factor.ndim == 0 and (type(factor) is not type(slope)):    # the host knows it
        return slope if factor == 1 else Multiply.forward(factor, slope)
    if factor.ndim == 0:
        likelihood_kernels.scale_rows(factor.reshape(1), as_rows(slope), as_rows(slope))
        return slope
    return factor * slope


def matching(x, mean, logvar):
    """x and mean as rows (N, D), and logvar as one number (1,) or as rows."""
    same = [as_rows(np.broadcast_to(a, x.shape)) for a in (x, mean)]
    one = np.size(logvar) == 1
    return *same, (contiguous(logvar).reshape(1) if one else as_rows(np.broadcast_to(logvar,
                                                                                     x.shape)))


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
    return contiguous(x).reshape(x.shape[0] if x.ndim else 1, math.prod(x.shape[1:]))


def check_reduction(reduction):
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)


def same_shape(op, **arguments):
    """An error that names both, unless all shapes are equal."""
    shapes = {name: np.shape(plain(x)) for name, x in arguments.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{op}: {', '.join(f'{n} {s}' for n, s in shapes.items())}; "
                         "expected equal shapes")
