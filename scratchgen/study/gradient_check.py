"""Compare the gradients of a function with difference quotients, element by element.

The derivative along a direction v is computed twice: by the backward pass, as the sum of gradient
times v, and from function values alone, in one of two ways:

``central``   D(h) = (L(x + hv) − L(x − hv)) / 2h has error c h² + O(h⁴), so (4 D(h/2) − D(h)) / 3
              has error O(h⁴) (Richardson 1911). Rounding adds about ε |L| / h.
``complex``   L(x + ihv) = L(x) + ih L'(x) + O(h²), so Im L / h has no cancellation at all and h may
              be 1e-20 (Squire & Trapp, SIAM Review 40, 1998). L must then be an analytic formula.

A disagreement is not always an error: at a kink the derivative does not exist, and where |L| is
much larger than its derivative the rounding error dominates the quotient. The report distinguishes
these cases.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..context import no_grad
from ..engine.gradient import grad
from ..engine.memory import ARRAYS, to_host
from ..engine.random import Stream
from ..engine.tensor import Tensor, plain, tensor
from ..errors import UserError, unknown

STEPS = (1e-3, 1e-4, 1e-5, 1e-6)      # relative to the size of x; tried in this order
COMPLEX_STEP = 1e-20
SHOWN = 20                            # rows in the text of a report
EPSILON = np.finfo(np.float64).eps


class GradientError(AssertionError):
    """A gradient is wrong. The message is the text of the report."""


class Row(NamedTuple):
    """One derivative, computed in both ways. ``verdict``: OK, WRONG, KINK or ROUNDING."""

    where: str
    gradient: float
    differences: float
    verdict: str

    def __str__(self):
        larger = max(abs(self.gradient), abs(self.differences))
        relative = abs(self.gradient - self.differences) / larger if larger else 0.0
        return (f"{self.where}: gradient {self.gradient:.12g}, differences "
                f"{self.differences:.12g}, relative error {relative:.1e}: {self.verdict}")


class Report(NamedTuple):
    """All rows. As text: those that are not OK, or the last one."""

    rows: list[Row]
    title: str

    @property
    def ok(self) -> bool:
        """Whether no row is WRONG."""
        return all(row.verdict != "WRONG" for row in self.rows)

    def __str__(self):
        counts = {verdict: sum(row.verdict == verdict for row in self.rows)
                  for verdict in ("OK", "WRONG", "KINK", "ROUNDING")}
        shown = sorted((row for row in self.rows if row.verdict != "OK"),
                       key=lambda row: row.verdict != "WRONG")
        lines = [f"{self.title}: {len(self.rows)} derivatives, "
                 + ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)]
        lines += [f"  {row}" for row in shown[:SHOWN] or self.rows[-1:]]
        if len(shown) > SHOWN:
            lines.append(f"  … and {len(shown) - SHOWN} more")
        return "\n".join(lines)


def gradcheck(f: Callable[..., Any], inputs: Tensor | ArrayLike | Sequence[Tensor | ArrayLike],
              order: Literal[1, 2] = 1, mode: Literal["central", "complex"] = "central",
              directions: int | None = None, rtol: float = 1e-6, atol: float = 1e-9,
              seed: int = 0, raise_error: bool = True) -> Report:
    """Check the gradients of ``f``, a function of tensors, at ``inputs``.

    ``f``           a function of as many tensors as there are inputs, which returns one tensor of
                    any shape; L is its sum with fixed random weights. Noise must be an input or
                    fixed. For ``mode="complex"`` it is also called with complex arrays.
    ``inputs``      float64 arrays or tensors, one or a list
    ``order``       1: the gradient; 2: the derivative of the gradient (through create_graph)
                    against differences of the gradient
    ``mode``        "central" or "complex" (order 1 only)
    ``directions``  None: every element of every input; k: k random directions through all inputs
    ``rtol atol``   a derivative is OK within atol + rtol · the larger of the two values

    Returns a Report. WRONG raises GradientError unless ``raise_error`` is False. KINK: the
    one-sided differences disagree for every step size, and the gradient lies between them.
    ROUNDING: the two values differ by less than the rounding error of the quotient. NaN is WRONG.
    """
    arrays = checked_inputs(inputs)
    if mode not in ("central", "complex"):
        raise unknown("mode", mode, ("central", "complex"))
    if order not in (1, 2) or (order == 2 and mode == "complex"):
        raise UserError(f"gradcheck: order {order} with mode {mode!r}; choose order 1, or order 2 "
                        "with mode 'central'")
    stream = Stream(seed, "gradcheck")
    value, gradients = first_order(f, arrays, stream)
    if order == 2:
        value, gradients = second_order(gradients, arrays, stream)
    if not np.array_equal(value(arrays), value(arrays), equal_nan=True):
        raise UserError("gradcheck: two evaluations of f at the same point differ; give its noise "
                        "as an input")
    found = [np.asarray(to_host(plain(g))) for g in gradients(arrays, create_graph=False)]
    line = (lambda v: ComplexLine(value, arrays, v)) if mode == "complex" else (
        lambda v: CentralLine(value, arrays, v))
    rows = []
    for where, v in directions_through(arrays, directions, stream):
        expected = float(sum(np.sum(g[part != 0] * part[part != 0])
                             for g, part in zip(found, v, strict=True)))
        rows.append(Row(where, expected, *line(v).judge(expected, rtol, atol)))
    report = Report(rows, f"gradcheck of order {order}, {mode}")
    if raise_error and not report.ok:
        raise GradientError(str(report))
    return report


def checked_inputs(inputs):
    """The inputs as float64 arrays. UserError for other dtypes."""
    inputs = [inputs] if isinstance(inputs, (Tensor, *ARRAYS)) else list(inputs)
    arrays = [np.array(to_host(plain(x))) for x in inputs]
    for i, array in enumerate(arrays):
        if array.dtype != np.float64:
            raise UserError(f"gradcheck: input {i} is {array.dtype}, in which differences say "
                            "nothing about a gradient; give float64: x.astype(np.float64), and "
                            "keep integers inside f")
    return arrays


def weights(stream, shape):
    """Random weights in ±[½, 1½): away from zero, so that every error is visible."""
    u, v = (to_host(stream.uniform(shape, np.float64)) for _ in range(2))
    return (0.5 + u) * np.where(v < 0.5, -1, 1)


def first_order(f, arrays, stream):
    """L = Σ weights · f as a function of arrays, and its gradients by the backward pass."""
    cache = {}

    def weighted_sum(y):
        if "w" not in cache:
            cache["w"] = weights(stream, np.shape(plain(y)))
        return np.sum(y * cache["w"])

    def value(xs):
        if any(np.iscomplexobj(x) for x in xs):
            return to_host(plain(weighted_sum(to_host(plain(f(*xs))))))
        with no_grad():
            return weighted_sum(f(*map(tensor, xs))).item()

    def gradients(xs, create_graph):
        xs = xs if isinstance(xs[0], Tensor) else [tensor(x, requires_grad=True) for x in xs]
        return grad(weighted_sum(f(*xs)), xs, create_graph=create_graph)

    return value, gradients


def second_order(gradients, arrays, stream):
    """M = Σ weights · gradient of L, by the backward pass alone, and its gradients."""
    w = [weights(stream, x.shape) for x in arrays]

    def value(xs):
        return float(sum(np.vdot(g.data, part)
                         for g, part in zip(gradients(xs, create_graph=False), w, strict=True)))

    def gradients_of_value(xs, create_graph):
        xs = [tensor(x, requires_grad=True) for x in xs]
        parts = [np.sum(g * part)
                 for g, part in zip(gradients(xs, create_graph=True), w, strict=True)]
        return grad(parts, xs, create_graph=create_graph)

    return value, gradients_of_value


def directions_through(arrays, directions, stream):
    """(name, one array for each input): every element, or ``directions`` random directions."""
    for k in range(directions or 0):
        yield f"direction {k}", [stream.normal(x.shape, np.float64) for x in arrays]
    for i, x in enumerate(arrays if directions is None else ()):
        for index in itertools.product(*map(range, x.shape)):
            v = [np.zeros_like(other) for other in arrays]
            v[i][index] = 1
            yield f"input {i}{list(index) if index else ''}", v


class CentralLine:
    """The values of L along the line x + t v, with a cache."""

    def __init__(self, value, arrays, v):
        self.value, self.arrays, self.v, self.cache = value, arrays, v, {}
        self.scale = max((float(np.max(np.maximum(1, np.abs(x)) * (part != 0), initial=0))
                          for x, part in zip(arrays, v, strict=True)), default=1.0)
        self.scale /= max((float(np.max(np.abs(part), initial=0)) for part in v), default=1) or 1

    def at(self, t):
        if t not in self.cache:
            with np.errstate(all="ignore"):            # a step may leave the function's domain
                self.cache[t] = self.value([x + t * self.scale * part
                                            for x, part in zip(self.arrays, self.v, strict=True)])
        return self.cache[t]

    def slope(self, start, end):
        return (self.at(end) - self.at(start)) / ((end - start) * self.scale)

    def richardson(self, h):
        return (4 * self.slope(-h / 2, h / 2) - self.slope(-h, h)) / 3

    def judge(self, gradient, rtol, atol):
        """(value from differences, verdict)."""
        quotients = []
        for h in STEPS:
            quotients.append(self.richardson(h))
            if close(gradient, quotients[-1], rtol, atol):
                return quotients[-1], "OK"
        best = next((q for q in quotients if np.isfinite(q)), np.nan)
        roundings = [16 * EPSILON * abs(self.at(h)) / (h * self.scale) for h in STEPS]
        if self.has_kink(gradient, roundings[-1]):
            return best, "KINK"
        # Converged: two steps agree much better with each other than with the gradient, even
        # with their rounding errors.
        converged = any(abs(q - finer) + r < 0.1 * abs(gradient - q) for (q, finer), r in zip(
            itertools.pairwise(quotients), roundings, strict=False))
        within_rounding = any(abs(gradient - q) <= r
                              for q, r in zip(quotients, roundings, strict=True))
        return best, "ROUNDING" if within_rounding and not converged else "WRONG"

    def has_kink(self, gradient, rounding):
        """Whether the one-sided slopes differ for small h, with the gradient between them.

        For a smooth function their difference is h L'', proportional to h.
        """
        small, large = STEPS[-1], STEPS[-2]
        left, right = self.slope(-small, 0.0), self.slope(0.0, small)
        before = abs(self.slope(0.0, large) - self.slope(-large, 0.0))
        slack = rounding + 1e-3 * abs(right - left)
        return (abs(right - left) > max(0.3 * before, rounding)
                and min(left, right) - slack <= gradient <= max(left, right) + slack)


class ComplexLine(CentralLine):
    """The derivative along x + i t v, by one complex step."""

    def judge(self, gradient, rtol, atol):
        y = self.value([x + 1j * COMPLEX_STEP * part
                        for x, part in zip(self.arrays, self.v, strict=True)])
        if not np.iscomplexobj(y):
            raise UserError("gradcheck: f returned real numbers for complex ones, so it is no "
                            "analytic formula over arrays; use mode='central'")
        quotient = float(np.imag(y)) / COMPLEX_STEP
        return quotient, "OK" if close(gradient, quotient, rtol, atol) else "WRONG"


def close(a, b, rtol, atol):
    """Whether two numbers agree. NaN and infinities never do."""
    return bool(np.isfinite(a) and np.isfinite(b)
                and abs(a - b) <= atol + rtol * max(abs(a), abs(b)))
