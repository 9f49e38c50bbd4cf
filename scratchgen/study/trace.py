"""Keeping every value of a computation, and computing it again from any node on.

The graph that the engine records keeps only what the derivative rules need. Finite differences at a
node need more: all inputs of the calls that depend on it. ``observe()`` keeps them, and ``Replay``
repeats these calls in float64 on the NumPy backend, with the value of one node changed.
"""

import numpy as np

from ..context import observer
from ..engine.backend import use_backend
from ..engine.backward import Leaf, topological_order
from ..engine.memory import ARRAYS, to_host
from ..errors import UserError


class observe:
    """``with observe() as trace:`` keeps copies of all values that are computed in the block."""

    def __enter__(self):
        self.calls = {}                                # node -> Call
        self.leaves = {}                               # leaf -> array
        observer.enter(self, observer.get())
        observer.set(self.keep)
        return self

    def __exit__(self, *exception):
        observer.leave(self)

    def keep(self, node, arrays, options, y):
        """Copy a call's result and those inputs that are no results themselves.

        Copied, because the caller may write into the arrays later.
        """
        constants = [None if parent is not None else copied(a)
                     for a, parent in zip(arrays, node.parents, strict=True)]
        for a, parent in zip(arrays, node.parents, strict=True):
            if type(parent) is Leaf and parent not in self.leaves:
                self.leaves[parent] = copied(a)
        self.calls[node] = Call(node, constants, options, copied(y))


class Call:
    """One recorded call: its node, its constant inputs, its options and its result."""

    def __init__(self, node, constants, options, y):
        self.node, self.constants, self.options, self.y = node, constants, options, y

    def inputs(self, value):
        """All inputs; ``value(parent)`` is the value of a node."""
        return [constant if parent is None else value(parent)
                for constant, parent in zip(self.constants, self.node.parents, strict=True)]


class Replay:
    """The graph of a loss, which can be computed again in float64.

    ``nodes`` are in the order of computation, each leaf before its first use; ``values`` their
    arrays in float64, ``recorded`` those that the model computed.
    """

    def __init__(self, trace, loss):
        order = topological_order([loss.node])[::-1]
        if any(type(node) is not Leaf and node not in trace.calls for node in order):
            raise UserError("the values of this graph were not kept: compute the whole loss inside "
                            "the function, as in ledger(lambda: f(x))")
        self.calls, self.root = trace.calls, loss.node
        self.nodes = by_first_use(order)
        self.number = {node: i for i, node in enumerate(self.nodes)}
        self.recorded = {node: trace.leaves[node] if type(node) is Leaf else trace.calls[node].y
                         for node in self.nodes}
        self.values = {}
        for node in self.nodes:
            self.values[node] = (in_float64(self.recorded[node]) if type(node) is Leaf
                                 else self.compute(node, self.values.get))
        self.users = {node: [] for node in self.nodes}
        for node in self.nodes:
            for parent in dict.fromkeys(node.parents):
                if parent is not None:
                    self.users[parent].append(node)

    def compute(self, node, value):
        """The result of a node's call, in float64; ``value(parent)`` is the value of a parent."""
        call = self.calls[node]
        return forward(node.op, call.inputs(value), call.options)

    def dependents(self, node):
        """The nodes that are computed from ``node``, in the order of computation."""
        found, stack = set(), [node]
        while stack:
            for user in self.users[stack.pop()]:
                if user not in found:
                    found.add(user)
                    stack.append(user)
        return sorted(found, key=self.number.get)

    def loss_as_function_of(self, node):
        """The function that gives the loss for another value of ``node``."""
        later = self.dependents(node)

        def loss(value):
            changed = {node: value}
            for each in later:
                changed[each] = self.compute(
                    each, lambda parent: changed[parent] if parent in changed
                    else self.values[parent])
            return float(changed[self.root])

        return loss


def forward(op, inputs, options):
    """The value of an op in float64, by its NumPy version."""
    if "running" in options:           # batch norm would update the model's running statistics
        options = {**options, "running": None}
    with use_backend("numpy"), np.errstate(all="ignore"):
        y = op.forward(*map(in_float64, inputs), **options)
    return np.asarray(y[0] if op.extras else y)


def in_float64(a):
    """A real array in float64; anything else as it is."""
    if isinstance(a, (np.ndarray, np.generic)) and a.dtype.kind == "f":
        return np.ascontiguousarray(a, np.float64).reshape(np.shape(a))
    return a


def copied(a):
    """A copy on the host of an array; numbers and None as they are."""
    return np.array(to_host(a)) if type(a) in ARRAYS else a


def by_first_use(order):
    """Nodes, oldest first, with each leaf moved to just before the first call that uses it."""
    placed = {}
    for node in order:
        if type(node) is not Leaf:
            placed.update(dict.fromkeys(
                parent for parent in node.parents if type(parent) is Leaf))
            placed[node] = None
    return list(placed) or list(order)
