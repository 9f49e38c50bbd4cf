"""The gradient ledger: every node of the graph of a loss, its gradient, and whether it is right.

A row has two checks. The *rule* of its call is compared with differences of the call alone, so that
an error is reported where it is. The *gradient* of its value is compared with differences of the
loss along a random direction. A gradient that is wrong because of a wrong rule after it is noted as
such; its own row is WRONG only if no later row explains it.
"""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..engine import backward as engine
from ..engine.backward import Leaf, run_backward, topological_order
from ..engine.memory import to_host
from ..engine.random import Stream
from ..engine.tensor import Tensor, plain, seed_for
from ..errors import UserError
from .gradient_check import CentralLine
from .rule_check import TOLERANCE, RuleCheck, pulled_back
from .trace import Replay, observe

VERDICTS = ("OK", "ROUNDING", "KINK", "WRONG")
DIRECTIONS = 3                        # tried before a gradient counts as wrong
CURVE = tuple(10.0**-k for k in range(1, 10))          # steps of the errors that a row lists


class Row(NamedTuple):
    """One node. ``gradient``: its norm by the tape; ``along``: the derivative of the loss along a
    random direction, by the tape and by differences; ``errors``: (step, relative error)."""

    number: int
    op: str
    name: str
    inputs: list[int]
    equation: str
    formula: str
    shape: list[int]
    dtype: str
    value: dict[str, float]
    bytes: int
    gradient: float
    along: dict[str, float]
    errors: list[tuple[float, float]]
    verdict: str
    note: str


class Ledger(NamedTuple):
    """The rows in the order of computation. As text: a table."""

    rows: list[Row]

    @property
    def ok(self) -> bool:
        """Whether no row is WRONG."""
        return all(row.verdict != "WRONG" for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """The content as values that JSON can store."""
        return {"rows": [row._asdict() for row in self.rows]}

    def __str__(self):
        lines = [f"{'':>4} {'op':22} {'shape':16} {'gradient':>11} {'rel. error':>10}  verdict"]
        for row in self.rows:
            best = min((error for _, error in row.errors), default=float("nan"))
            lines.append(f"{row.number:4} {row.op + ' ' + row.name:22.22} {str(row.shape):16.16} "
                         f"{row.gradient:11.4g} {best:10.1e}  {row.verdict} {row.note}".rstrip())
        return "\n".join(lines)


def ledger(loss: Callable[[], Tensor], names: dict[str, Tensor] | None = None,
           seed: int = 0) -> Ledger:
    """The ledger of ``loss``, a function without arguments that returns a tensor of one number.

    ``names``: names of leaves, for example ``model.named_parameters()``. ``seed``: of the random
    directions. Noise in the loss must be fixed. Changes no ``.grad``.
    """
    if not callable(loss):
        raise UserError("ledger() needs the values of all calls: give a function that computes "
                        "the loss, ledger(lambda: f(x))")
    with observe() as trace:
        y = loss()
    if not isinstance(y, Tensor) or y.size != 1 or not y.requires_grad:
        raise UserError("ledger(): expected a function that returns a tensor of one element, "
                        "computed from tensors with requires_grad=True")
    return Ledger(Builder(trace, y, names or {}, Stream(seed, "ledger")).rows())


class Builder:
    """Makes the rows: walks backward to check the rules, then compares the tape's gradients."""

    def __init__(self, trace, loss, names, stream):
        self.replay, self.stream = Replay(trace, loss), stream
        self.names = {id(tensor): name for name, tensor in names.items()}
        self.findings = self.check_rules(loss)
        nodes = self.replay.nodes
        found = run_backward([loss.node], [seed_for(loss, None, False)], wanted=nodes)
        self.gradients = {node: np.zeros(np.shape(self.replay.recorded[node])) if g is None else
                          np.array(to_host(plain(g)), np.float64)
                          for node, g in zip(nodes, found, strict=True)}

    def check_rules(self, loss):
        """node -> what the check of its rule found. A walk that, unlike the engine's own, frees no
        node, as its rules are called several times."""
        gradients, findings = {loss.node: seed_for(loss, None, False)}, {}
        for node in topological_order([loss.node]):
            dy = gradients.get(node)
            if dy is None or type(node) is Leaf:
                continue
            check = RuleCheck(self.replay.calls[node], self.replay.values.get, dy, self.stream)
            findings[node] = list(check.findings().values())
            needs = [parent is not None for parent in node.parents]
            dy = np.asarray(dy) if isinstance(dy, np.generic) else dy
            for parent, dx in zip(node.parents, pulled_back(node, dy, needs), strict=True):
                if dx is not None:
                    engine.add_to(gradients, parent, dx)
        return findings

    def rows(self):
        """Judged from the loss backward, so that later rows can explain earlier ones."""
        verdicts = {}
        rows = [self.row(node, verdicts) for node in reversed(self.replay.nodes)]
        return rows[::-1]

    def row(self, node, verdicts):
        along, errors, verdict = self.compare(node)
        notes = [f"rule for {each.input}: {each.gradient:.6g}, differences {each.differences:.6g}"
                 for each in self.findings.get(node, ()) if each.verdict in ("WRONG", "KINK")]
        own = worst([each.verdict for each in self.findings.get(node, ())])
        later = self.replay.dependents(node)
        if verdict in ("WRONG", "KINK"):
            reason = next((each for wanted in ("WRONG", "KINK") for each in later
                           if verdicts[each] == wanted), None)
            if reason is not None:
                notes.append(f"gradient differs because of {self.replay.number[reason]}, "
                             f"{verdicts[reason]}")
                verdict = "OK"
            else:
                notes.append(f"gradient {along['tape']:.6g}, differences "
                             f"{along['differences']:.6g}")
        verdicts[node] = worst([own, verdict])
        return Row(self.replay.number[node], *self.description(node),
                   float(np.linalg.norm(self.gradients[node])), along, errors, verdicts[node],
                   "; ".join(notes))

    def description(self, node):
        """The fields of a row that are known without a check."""
        value, leaf = self.replay.recorded[node], type(node) is Leaf
        number = self.replay.number
        with np.errstate(all="ignore"):
            statistics = {name: float(getattr(np, name)(value)) if np.size(value) else 0.0
                          for name in ("mean", "std", "min", "max")}
        name = self.names.get(id(node.tensor()), "") if leaf else ""
        return ("leaf" if leaf else node.op.name, name,
                [number[p] for p in node.parents if p is not None],
                "" if leaf else (node.op.__doc__ or "").partition("\n")[0],
                "" if leaf else textwrap.dedent(inspect.getsource(node.op.formula)),
                list(np.shape(value)), str(value.dtype), statistics, int(value.nbytes))

    def compare(self, node):
        """(derivatives along a direction, errors over the steps, verdict)."""
        x, gradient = self.replay.values[node], self.gradients[node]
        loss = self.replay.loss_as_function_of(node)
        tolerance, floor = TOLERANCE[self.replay.recorded[node].dtype]
        for _ in range(DIRECTIONS):
            v = to_host(self.stream.normal(np.shape(x), np.float64)).reshape(np.shape(x))
            line = CentralLine(lambda xs: loss(xs[0]), [x], [v])
            expected = float(np.sum(gradient * v))
            errors = [(relative(expected, line.slope(-h, h)), h) for h in CURVE]
            errors = [each for each in errors if np.isfinite(each[0])]
            least, h = min(errors, default=(np.inf, 0))
            # Among many units of relu some are so near their kink that only the smallest steps
            # stay on one side, where the quotient's rounding is still small enough.
            quotient, verdict = ((line.slope(-h, h), "OK") if least <= tolerance else
                                 line.judge(expected, tolerance, 0.0))
            if verdict not in ("OK", "ROUNDING") and self.cancels(node, expected, quotient, floor):
                verdict = "ROUNDING"
            if verdict in ("OK", "ROUNDING"):
                break
        return ({"tape": expected, "differences": quotient},
                [(h, error) for error, h in errors], verdict)

    def cancels(self, node, expected, quotient, floor):
        """Whether the difference is within the rounding of the terms that were added up."""
        size = sum(found.size for user in self.replay.users[node]
                   for found in self.findings.get(user, ()))
        return abs(expected - quotient) <= floor * size


def worst(verdicts):
    """The last of VERDICTS that occurs; OK for none."""
    return max(verdicts, key=VERDICTS.index, default="OK")


def relative(a, b):
    """The relative difference of two numbers."""
    larger = max(abs(a), abs(b))
    return abs(a - b) / larger if larger else 0.0
