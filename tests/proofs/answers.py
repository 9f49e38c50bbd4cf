"""A quantity with a known exact value, and the value that training found."""

import dataclasses
import math

ROUNDING = 1e-9                           # by which rounding may exceed a bound


@dataclasses.dataclass(frozen=True)
class Answer:
    """``error`` is found − exact, divided by |exact| if relative; allowed between low and high."""

    what: str
    exact: float
    found: float
    low: float
    high: float
    relative: bool = False

    @property
    def error(self):
        """Signed error: negative if ``found`` is too small."""
        return (self.found - self.exact) / (abs(self.exact) if self.relative else 1)

    @property
    def holds(self):
        """Whether the error is within its bounds; False for NaN."""
        return bool(self.low <= self.error <= self.high)

    @property
    def tolerance(self):
        """The largest absolute error allowed."""
        return max(-self.low, self.high)

    @property
    def badness(self):
        """A sort key, larger for worse answers: all failures are worse than all passes."""
        size = abs(self.error)
        return not self.holds, math.inf if math.isnan(size) else size


def near(what, exact, found, tolerance, relative=False):
    """An answer whose error may have either sign."""
    return Answer(what, float(exact), float(found), -tolerance, tolerance, relative)


def least(what, exact, found, tolerance, relative=False):
    """The exact value is a minimum: finding less is an error, finding a little more is not."""
    return Answer(what, float(exact), float(found), -ROUNDING, tolerance, relative)


def greatest(what, exact, found, tolerance, relative=False):
    """The exact value is a maximum: finding more is an error, finding a little less is not."""
    return Answer(what, float(exact), float(found), -tolerance, ROUNDING, relative)
