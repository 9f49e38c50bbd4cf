"""One number that mathematics knows, beside what training found for it."""

import dataclasses
import math

ROUNDING = 1e-9                           # by which a bound may seem to be passed


@dataclasses.dataclass(frozen=True)
class Answer:
    """The error is found − exact, or that over exact; it must lie between ``low`` and ``high``."""

    what: str
    exact: float
    found: float
    low: float
    high: float
    relative: bool = False

    @property
    def error(self):
        """Signed: below zero if too little was found."""
        return (self.found - self.exact) / (abs(self.exact) if self.relative else 1)

    @property
    def holds(self):
        """Whether the error is allowed; one that is no number is not."""
        return bool(self.low <= self.error <= self.high)

    @property
    def tolerance(self):
        """The largest error allowed, without its sign."""
        return max(-self.low, self.high)

    @property
    def badness(self):
        """Greater for a worse answer: those that miss before all that hold."""
        size = abs(self.error)
        return not self.holds, math.inf if math.isnan(size) else size


def near(what, exact, found, tolerance, relative=False):
    """An answer that may err to both sides."""
    return Answer(what, float(exact), float(found), -tolerance, tolerance, relative)


def least(what, exact, found, tolerance, relative=False):
    """The exact answer is a minimum: training that finds less is as wrong as much more."""
    return Answer(what, float(exact), float(found), -ROUNDING, tolerance, relative)


def greatest(what, exact, found, tolerance, relative=False):
    """The exact answer is a maximum."""
    return Answer(what, float(exact), float(found), -tolerance, ROUNDING, relative)
