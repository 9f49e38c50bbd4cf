"""Schedules of the learning rate: functions step → factor, with step = 0, 1, …

They can be copied and pickled, as the optimisers that use them.
"""

import functools
import math
from collections.abc import Sequence
from numbers import Real

from ..errors import UserError
from .base import Schedule


def exponential(rate: float) -> Schedule:
    """Exponential decay: the factor is rateˢᵗᵉᵖ."""
    if not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise UserError(f"exponential: the rate is {rate!r}; give a positive number, such as 0.99")
    return functools.partial(_exponential, rate)


def _exponential(rate, step):
    return rate**step


def cosine(steps: int) -> Schedule:
    """Cosine annealing: from 1 to 0 over ``steps`` along half a period, then 0.

    ½ (1 + cos(π step/steps)): Loshchilov & Hutter 2017, (5), without restarts.
    """
    return functools.partial(_cosine, checked_steps("cosine", steps))


def _cosine(steps, step):
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def warmup(steps: int, then: Schedule | None = None) -> Schedule:
    """Linear warm-up: from 1/steps to 1 over ``steps``, then the schedule ``then``, or 1."""
    if then is not None and not callable(then):
        raise UserError(f"warmup: what follows is {then!r}; give a schedule, such as cosine(1000)")
    return functools.partial(_warmup, checked_steps("warmup", steps), then)


def _warmup(steps, then, step):
    return (step + 1) / steps if step < steps else then(step - steps) if then else 1


def piecewise(boundaries: Sequence[int], factors: Sequence[float]) -> Schedule:
    """Piecewise constant: factors[i] from step boundaries[i−1] to before step boundaries[i].

    There is one factor more than boundaries.
    """
    boundaries, factors = list(boundaries), list(factors)
    if len(factors) != len(boundaries) + 1 or boundaries != sorted(boundaries):
        raise UserError(f"piecewise: {len(boundaries)} boundaries {boundaries} and {len(factors)} "
                        "factors; give boundaries in rising order and one factor more")
    return functools.partial(_piecewise, boundaries, factors)


def _piecewise(boundaries, factors, step):
    return factors[sum(step >= b for b in boundaries)]


def checked_steps(name, steps):
    """``steps``; UserError unless it is a number of at least 1."""
    if not isinstance(steps, Real) or not 1 <= steps < math.inf:
        raise UserError(f"{name}: the number of steps is {steps!r}; give at least 1")
    return steps
