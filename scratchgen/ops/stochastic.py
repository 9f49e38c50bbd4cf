"""Ops with noise. The noise is an argument, so the op is a deterministic function.

A gradient check cannot see a sampler with a wrong law (σ² where σ belongs passes it), so each of
these has a test of its law as well.
"""

from numbers import Real

import numpy as np

from ..engine.tensor import Tensor, plain
from ..engine.types import TensorLike
from .elementwise import where
from .inputs import only_arrays
from .op import Elementwise

__all__ = ["reparametrize", "dropout"]


class Reparametrize(Elementwise):
    """z = m + e^(v/2) ε: for ε ~ N(0, 1) a draw from N(m, e^v), and a differentiable one

    v is the log-variance, e^(v/2) the standard deviation.  dm = dz, dv = dz ½ e^(v/2) ε.
    Kingma & Welling 2014, section 2.4.
    """

    expects = "mean, logvar and eps of one shape"

    def formula(mean, logvar, eps):
        return mean + np.exp(0.5 * logvar) * eps

    def backward_mean(dy):
        return dy

    def backward_logvar(dy, logvar, eps):
        return dy * (0.5 * np.exp(0.5 * logvar) * eps)

    def backward_eps(dy, logvar):
        return dy * np.exp(0.5 * logvar)


class Dropout(Elementwise):
    """y = x·keep/(1 − p), keep = [u ≥ p]: E y = x for u uniform on [0, 1)

    Srivastava et al. 2014, scaled while training so that nothing changes afterwards.
    """

    expects = "x and uniform of one shape"

    def formula(x, uniform, *, p):
        return np.where(uniform >= p, x * (1 / (1 - p)), 0)

    def backward_x(dy, uniform, p):
        return np.where(uniform >= p, dy * (1 / (1 - p)), 0)


def reparametrize(mean: TensorLike, logvar: TensorLike, eps: TensorLike) -> Tensor:
    """mean + exp(logvar/2)·eps, all of one shape (N, Z); ``eps`` from N(0, 1)."""
    only_arrays("reparametrize", mean=mean, logvar=logvar, eps=eps)
    shapes = [np.shape(plain(x)) for x in (mean, logvar, eps)]
    if len(set(shapes)) > 1:
        raise ValueError(f"reparametrize: mean {shapes[0]}, logvar {shapes[1]}, eps {shapes[2]}; "
                         "expected equal shapes")
    return Reparametrize.apply(mean, logvar, eps)


def dropout(x: TensorLike, p: float, uniform: TensorLike) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest; ``uniform`` of x's shape.
    With p = 1 all is 0, and so is the gradient."""
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(f"dropout: p = {p!r}; expected 0 <= p <= 1")
    only_arrays("dropout", x=x, uniform=uniform)
    if np.shape(plain(x)) != np.shape(plain(uniform)):
        raise ValueError(f"dropout: x {np.shape(plain(x))}, uniform {np.shape(plain(uniform))}; "
                         "expected equal shapes")
    if p == 1:                                         # 1/(1 − p) is not a number
        return where(np.zeros_like(plain(x), dtype=bool), x, 0)
    return Dropout.apply(x, uniform, p=p)
