"""Checking the derivative rule of one recorded call by itself.

A wrong rule makes the gradients of everything before it wrong, so a gradient alone does not say
where the error is. Here the gradient dy that arrives at a call is fixed, and the rule's result is
compared with the differences of Σ dy·op(x), which involve no other call.
"""

from typing import NamedTuple

import numpy as np

from ..engine import backward as engine
from ..engine.memory import ARRAYS, constant_to_device, to_host
from ..engine.tensor import plain
from .trace import forward, in_float64

STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)          # relative to the size of the input
EPSILON = np.finfo(np.float64).eps
# By dtype: the relative error allowed in a derivative, and in one where terms cancel.
TOLERANCE = {np.dtype(np.float64): (1e-6, 1e-11), np.dtype(np.float32): (1e-4, 1e-5)}


class Found(NamedTuple):
    """The derivative of one input along one direction. ``size``: the sum without cancellation."""

    input: str
    gradient: float
    differences: float
    verdict: str
    size: float


class RuleCheck:
    """The check of one call. ``dy``: the gradient of its result, as the tape computed it."""

    def __init__(self, call, value, dy, stream):
        self.node, self.options, self.stream = call.node, call.options, stream
        self.inputs = call.inputs(value)
        self.dy = np.asarray(to_host(plain(dy)))
        if not np.any(self.dy):                        # nothing could be seen through a zero
            self.dy = self.random(self.dy.shape).astype(self.dy.dtype)
        self.tolerance, self.floor = TOLERANCE[self.node.dtype]

    def findings(self):
        """A ``Found`` for each input that a gradient flows to."""
        needed = [i for i, parent in enumerate(self.node.parents) if parent is not None]
        gradients = self.pull_back(self.dy)
        return {i: self.judge(i, gradients[i]) for i in needed}

    def random(self, shape):
        """Random numbers in ±[½, 1½): none near zero, so that every error is visible."""
        u, sign = (to_host(self.stream.uniform(shape, np.float64)) for _ in range(2))
        return (0.5 + u) * np.where(sign < 0.5, -1, 1)

    def pull_back(self, dy):
        """The rule's gradients for this dy, on the backend and in the precision of the model."""
        needs = [parent is not None for parent in self.node.parents]
        dy = constant_to_device(np.ascontiguousarray(dy, self.node.dtype).reshape(np.shape(dy)))
        found = pulled_back(self.node, dy, needs)
        return [None if dx is None else np.array(to_host(plain(dx)), np.float64) for dx in found]

    def judge(self, i, gradient):
        """The result along a random direction; along one of relative steps if the first leaves
        the domain of the op."""
        uniform, relative = self.directions(np.asarray(self.inputs[i], np.float64))
        first = self.along(i, gradient, uniform)
        inside = all(np.isfinite(Line(self, i, uniform).at(t)).all() for t in (-1e-3, 1e-3))
        if first.verdict in ("OK", "KINK") or inside:
            return first
        return self.along(i, gradient, relative)

    def directions(self, x):
        """Steps of one size for all elements; then of each element's own size, since a logarithm
        or a root of small elements leaves its domain with the others' step."""
        size = float(np.sqrt(np.mean(np.square(x)))) if x.size else 1.0
        size = size if np.isfinite(size) and size else 1.0
        yield size * self.random(x.shape)
        yield np.maximum(np.abs(x), 1e-6 * size) * self.random(x.shape)

    def along(self, i, gradient, v):
        """The ``Found`` of input i along v."""
        line = Line(self, i, v)
        expected, dy = float(np.sum(gradient * v)), self.dy.astype(np.float64)
        best, size = line.compare(expected, dy)
        name = self.name(i)
        verdict = self.without_kinks(expected, best, size)
        if verdict == "WRONG":
            verdict = self.at_kinks(i, v, line, expected, dy)
        return Found(name, expected, best, verdict, size)

    def without_kinks(self, expected, best, size):
        """OK, ROUNDING or WRONG."""
        error = abs(expected - best)
        if error <= self.tolerance * max(abs(expected), abs(best)):
            return "OK"
        return "ROUNDING" if error <= self.floor * size else "WRONG"

    def at_kinks(self, i, v, line, expected, dy):
        """KINK if the rule is right for all smooth outputs, and between the one-sided slopes for
        the others; else WRONG.

        A rule is linear in dy, so dy = 0 at the outputs with a kink leaves the others' part.
        """
        kinked, left, right = line.kinks()
        if not kinked.any():
            return "WRONG"
        smooth = np.where(kinked, 0, dy)
        if smooth.any():
            part = float(np.sum(self.pull_back(smooth)[i] * v))
            best, size = line.compare(part, smooth)
            if self.without_kinks(part, best, size) == "WRONG":
                return "WRONG"
        rough = np.where(kinked, dy, 0)
        part = float(np.sum(self.pull_back(rough)[i] * v))
        ends = np.sort([rough * np.where(kinked, left, 0), rough * np.where(kinked, right, 0)], 0)
        slack = 1e-3 * float(np.sum(ends[1] - ends[0])) + 1e-9 * float(np.abs(ends).sum())
        return "KINK" if ends[0].sum() - slack <= part <= ends[1].sum() + slack else "WRONG"

    def name(self, i):
        names = self.node.op.inputs
        return names[i] if i < len(names) else f"input {i}"


def pulled_back(node, dy, needs):
    """The rule's gradients, from copies of the saved values: a rule may write its result over
    them, since the engine calls it only once."""
    saved = node.values
    node.values = {name: a.copy() if type(a) in ARRAYS else a for name, a in saved.items()}
    try:
        return engine.pull_back(node, dy, needs, engine.NOWHERE, create_graph=False)
    finally:
        node.values = saved


class Line:
    """The results of a call along x + t v, each output apart."""

    def __init__(self, check, i, v):
        self.check, self.i, self.v, self.cache = check, i, v, {}

    def at(self, t):
        if t not in self.cache:
            inputs = list(self.check.inputs)
            inputs[self.i] = in_float64(inputs[self.i]) + t * self.v
            self.cache[t] = forward(self.check.node.op, inputs, self.check.options)
        return self.cache[t]

    def slope(self, start, end):
        return (self.at(end) - self.at(start)) / (end - start)

    def compare(self, expected, dy):
        """(the nearest quotient over the steps, the size of its terms without cancellation)."""
        found = []
        with np.errstate(all="ignore"):
            for h in STEPS:
                slopes = (4 * self.slope(-h / 2, h / 2) - self.slope(-h, h)) / 3
                terms = np.where(dy == 0, 0, dy * slopes)          # 0 · NaN would be NaN
                found.append((float(np.sum(terms)), float(np.sum(np.abs(terms)))))
                if abs(found[-1][0] - expected) <= 1e-9 * abs(expected):
                    break
        finite = [pair for pair in found if np.isfinite(pair[0])]
        return min(finite, key=lambda pair: abs(pair[0] - expected), default=(np.nan, np.nan))

    def kinks(self):
        """(where outputs have a kink, their slopes on the left and on the right).

        The one-sided slopes of a smooth function differ by h y'', which shrinks with h.
        """
        small, large = 1e-6, 1e-5
        with np.errstate(all="ignore"):
            left, right = self.slope(-small, 0.0), self.slope(0.0, small)
            before = np.abs(self.slope(0.0, large) - self.slope(-large, 0.0))
            gap = np.abs(right - left)
            rounding = 64 * EPSILON * np.maximum(np.abs(self.at(0.0)), np.abs(self.at(small)))
            return gap > np.maximum(0.3 * before, rounding / small), left, right
