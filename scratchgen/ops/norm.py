"""Batch normalisation over all axes but the last (Ioffe & Szegedy 2015)."""

import math

import numpy as np

from ..engine.backend import kernels
from ..engine.memory import contiguous, empty, empty_as
from ..engine.tensor import Tensor
from ..engine.types import ActivationName, Array, TensorLike
from ..kernels.dense import ACTIVATIONS
from .conv import matrix
from .dense import apply_activation, check_activation
from .inputs import only_arrays
from .op import Elementwise, Fused

__all__ = ["batch_norm", "normalize"]

norm_kernels = kernels("batch_norm")


class BatchNorm(Fused):
    """y = a(γ x̂ + β) with x̂ = (x − mean)/√(var + ε), statistics of this batch

    ``running`` = (mean, var, momentum) is brought up to date by ``forward``; y does not depend on
    it. With r = 1/√(var + ε), M rows, sums Σ over the rows, dh = dy ∘ a' the gradient for γ x̂ + β,
    and g = γ dh the gradient for x̂:

        d var  = Σ g (x − mean) · (−½) r³           x̂ depends on var through r = (var + ε)^−½
        d mean = −r Σ g                             (through var: ∝ Σ (x − mean) = 0)
        dx     = g r + d var · 2 (x − mean)/M + d mean/M
               = r (g − Σ g /M − x̂ Σ (g x̂)/M)       (x − mean) r = x̂, twice
               = γ r (dh − dβ/M − x̂ dγ/M)           dβ = Σ dh,  dγ = Σ dh x̂
    """

    expects, real = "x (…, C), and gamma and beta (C,)", True
    extras = ("mean", "inverse")

    def formula(x, gamma, beta, *, eps, running, activation):
        rows = tuple(range(x.ndim - 1))
        centred = x - np.mean(x, axis=rows)
        var = np.mean(centred * centred, axis=rows)
        return apply_activation(gamma * centred / np.sqrt(var + eps) + beta, activation)

    def forward(x, gamma, beta, *, eps, running, activation):
        rows, y = matrix(x), empty(x.shape, x.dtype)
        mean, var, inverse = (empty(gamma.shape, x.dtype) for _ in range(3))
        norm_kernels.statistics(rows, mean, var)
        if running is not None:
            norm_kernels.running(*running, mean, var, len(rows))
        norm_kernels.inverse(var, eps, inverse)
        norm_kernels.normalize(rows, mean, inverse, contiguous(gamma),
                               contiguous(beta), ACTIVATIONS[activation], matrix(y))
        return y, mean, inverse

    def backward(wanted, dy, x, gamma, y, mean, inverse, activation, out):
        rows, through = matrix(x), (matrix(dy), matrix(y), ACTIVATIONS[activation])
        dgamma, dbeta = (empty_as(o, mean.shape, x.dtype) for o in out[1:])
        norm_kernels.backward_parameters(*through, rows, mean, inverse, dgamma, dbeta)
        dx = None
        if wanted[0]:
            dx = empty(x.shape, x.dtype)
            norm_kernels.backward_x(*through, rows, mean, inverse, contiguous(gamma),
                                    dgamma, dbeta, matrix(dx))
        return dx, dgamma, dbeta


class Normalize(Elementwise):
    """y = γ (x − mean)/√(var + ε) + β with given mean and var: batch norm after training"""

    expects = "x (…, C), and gamma, beta, mean and var (C,)"

    def formula(x, gamma, beta, mean, var, *, eps):
        return gamma * ((x - mean) / np.sqrt(var + eps)) + beta

    def backward_x(dy, gamma, var, eps):
        return dy * gamma / np.sqrt(var + eps)

    def backward_gamma(dy, x, mean, var, eps):
        return dy * ((x - mean) / np.sqrt(var + eps))

    def backward_beta(dy):
        return dy

    def backward_mean(dy, gamma, var, eps):
        return -dy * gamma / np.sqrt(var + eps)

    def backward_var(dy, x, gamma, mean, var, eps):
        return -0.5 * dy * gamma * (x - mean) / ((var + eps) * np.sqrt(var + eps))


# --- public functions ----------------------------------------------------------------------------

def batch_norm(x: TensorLike, gamma: TensorLike, beta: TensorLike,
               running_mean: Array | None = None, running_var: Array | None = None,
               train: bool = True, momentum: float = 0.1, eps: float = 1e-5,
               activation: ActivationName | None = None) -> Tensor:
    """Normalise each channel: x (…, C), gamma and beta (C,) → (…, C).

    In training the mean and biased variance of this batch are used, and the running arrays
    (plain ndarrays (C,), both or neither) move towards its mean and unbiased variance, in place:
    running += momentum·(batch − running). Otherwise the running arrays are used. ``activation`` is
    as in ``dense``.
    """
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: one of running_mean and running_var alone; expected both or "
                         "neither")
    check_activation(activation)
    running = None if running_mean is None else (running_mean, running_var)
    only_arrays("batch_norm", x=x, gamma=gamma, beta=beta,
                **({"running_mean": running_mean, "running_var": running_var} if running else {}))
    if x.ndim < 2 or any(a.shape != x.shape[-1:] for a in (gamma, beta, *(running or ()))):
        raise ValueError(f"batch_norm: x {x.shape}, gamma {gamma.shape}, beta {beta.shape}, running"
                         f" {running and [a.shape for a in running]}; expected (…, C), and (C,) "
                         "for all others")
    if not train:
        if running is None:
            raise ValueError("batch_norm: train=False needs running_mean and running_var")
        return apply_activation(Normalize.apply(x, gamma, beta, *running, eps=eps), activation)
    if math.prod(x.shape[:-1]) < 2:
        raise ValueError(f"batch_norm: x {x.shape} has fewer than 2 values a channel, whose "
                         "variance says nothing; train with larger batches, or use train=False")
    return BatchNorm.apply(x, gamma, beta, eps=eps, activation=activation,
                           running=running and (*running, momentum))


def normalize(x: TensorLike, gamma: TensorLike, beta: TensorLike, mean: TensorLike,
              var: TensorLike, eps: float = 1e-5) -> Tensor:
    """γ (x − mean)/√(var + ε) + β: x (…, C), all others (C,), var ≥ 0."""
    only_arrays("normalize", x=x, gamma=gamma, beta=beta, mean=mean, var=var)
    if x.ndim < 1 or any(a.shape != x.shape[-1:] for a in (gamma, beta, mean, var)):
        raise ValueError(f"normalize: x {x.shape}, gamma {gamma.shape}, beta {beta.shape}, mean "
                         f"{mean.shape}, var {var.shape}; expected (…, C), and (C,) for all others")
    return Normalize.apply(x, gamma, beta, mean, var, eps=eps)
