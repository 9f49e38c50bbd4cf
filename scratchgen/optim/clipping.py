"""Gradient clipping."""

from numbers import Real

import numpy as np

from ..engine.memory import empty, is_readable
from ..engine.recorded import in_step
from ..errors import UserError
from .base import Optimiser, optimizer_kernels


def clip_norm(optimiser: Optimiser, limit: float) -> float:
    """Scale all gradients so that their joint L2 norm is at most ``limit``.

    Returns the norm before; on a GPU as an array there. Frozen parameters are left out.
    """
    grads = gradients_to_clip(optimiser, limit)
    norm = empty((1,), np.float64)
    optimizer_kernels.clip_norm(grads, float(limit), norm)
    return float(norm[0]) if is_readable(norm) else norm[0]


def clip_value(optimiser: Optimiser, limit: float) -> None:
    """Clip each element of the gradients to [−limit, limit]. Frozen parameters are left out."""
    grads = gradients_to_clip(optimiser, limit)
    np.clip(in_step(grads), -limit, limit, out=in_step(grads))


def gradients_to_clip(optimiser, limit):
    """The gradients (P,), safe to change in place. UserError for arguments that do not fit."""
    if not isinstance(optimiser, Optimiser):
        raise UserError(f"clipping of a {type(optimiser).__name__}: give the optimiser whose "
                        "gradients are to be clipped")
    if not isinstance(limit, Real) or not limit >= 0:
        raise UserError(f"the limit of clipping is {limit!r}; give a number of at least 0")
    optimiser.gather()
    optimiser.pack.protect_references()
    return optimiser.grads
