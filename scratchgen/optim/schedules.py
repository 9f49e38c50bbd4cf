"""Schedules: functions step → factor on the learning rate, with step = 0, 1, …

They can be copied and pickled, as the optimisers that hold them.
"""

import functools
import math
from numbers import Real

from ..errors import UserError


def exponential(rate):
    """rateˢᵗᵉᵖ"""
    if not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise UserError(f"exponential: the rate is {rate!r}; give a positive number, such as 0.99")
    return functools.partial(_exponential, rate)


def _exponential(rate, step):
    return rate**step


def cosine(steps):
    """From 1 to 0 along half a cosine over ``steps``, then 0. Loshchilov & Hutter 2017."""
    return functools.partial(_cosine, checked_steps("cosine", steps))


def _cosine(steps, step):
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def warmup(steps, then=None):
    """From 1/steps up to 1 in equal steps, then another schedule."""
    if then is not None and not callable(then):
        raise UserError(f"warmup: what follows is {then!r}; give a schedule, such as cosine(1000)")
    return functools.partial(_warmup, checked_steps("warmup", steps), then)


def _warmup(steps, then, step):
    return (step + 1) / steps if step < steps else then(step - steps) if then else 1


def piecewise(boundaries, factors):
    """factors[i] from boundaries[i−1] up to boundaries[i] steps; one factor more."""
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
