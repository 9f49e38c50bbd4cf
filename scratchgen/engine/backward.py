"""The backward pass: reverse-mode differentiation of a recorded graph, independent of the ops.

Each differentiable call creates a :class:`Node`: its op, its parents, and the values that the
derivative needs. The backward pass visits each node once, after all nodes computed from it.

*Why a topological order?* Take ``b = a + a; c = b + b``, so dc/da = 4. A walk that follows every
path from c would visit b twice and a four times (20 stacked additions: a million visits). A walk
that visits each node once, as soon as it is reached, would propagate b's gradient when only one of
its two contributions has been added: b receives 1, propagates 1 + 1 to a, and receives its second 1
too late, so that a ends with 2 instead of 4. Only after *all* consumers of b have been visited is
db = 2 complete, and da = 2 + 2 = 4. A node is always newer than its parents, so "newest first" is
such an order, and sorting by age gives it without recursion (a chain of 100,000 nodes is no
problem).

Reference: Griewank & Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, chapter 3.
"""

import itertools
import operator
import weakref

import numpy as np

from ..context import enable_grad, no_grad
from .backend import backend
from .memory import constant_to_device

NOWHERE = None                        # no destinations: the rules allocate their results


class Node:
    """One recorded call.

    ``parents``: for each input, the node that computed it, or None where no gradient is needed.
    ``values``: by name, the values that the op's derivative rules use; None once freed.
    ``guards``: for the inputs and the output among those values, (change counter, its value at the
    call).
    """

    __slots__ = ("op", "parents", "values", "guards", "age", "shape", "dtype", "shapes")
    ages = itertools.count(1)

    def __init__(self, op, parents, values, guards, y, shapes):
        self.op, self.parents, self.values, self.guards = op, parents, values, guards
        self.shape, self.dtype, self.shapes = y.shape, y.dtype, shapes
        self.age = next(Node.ages)


class Leaf:
    """The node of a tensor created by the user, where gradients are accumulated."""

    __slots__ = ("tensor", "age")
    parents = ()

    def __init__(self, tensor):
        self.tensor, self.age = weakref.ref(tensor), next(Node.ages)


def topological_order(roots, oldest=0):
    """The nodes that the roots depend on, newest first; none older than ``oldest``."""
    seen, stack = set(roots), list(roots)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in seen and parent.age >= oldest:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=operator.attrgetter("age"), reverse=True)


def run_backward(roots, seeds, create_graph=False, wanted=None):
    """Propagate the gradients ``seeds`` from the nodes ``roots`` backward.

    Without ``wanted`` they are accumulated in the leaves. With a list of nodes, the gradients of
    these are returned in that order (None where there is no path) and no leaf is changed.
    ``create_graph`` evaluates the rules on tensors, so that the result can be differentiated again;
    otherwise each node is freed as soon as it has been used.
    """
    with (enable_grad if create_graph else no_grad)():
        if wanted is None:
            walk(roots, seeds, create_graph, topological_order(roots), None, ())
            return None
        order = topological_order(roots, min((node.age for node in wanted), default=0))
        useful = nodes_leading_to(wanted, order)
        found = walk(roots, seeds, create_graph, order, useful, set(wanted))
        return [found.get(node) for node in wanted]


def walk(roots, seeds, create_graph, order, useful, targets):
    """Visit the nodes in ``order``; returns the gradients of those among ``targets``, by node."""
    gradients, found = {}, {}
    in_place = useful is None and not create_graph
    for root, seed in zip(roots, seeds, strict=True):
        add_to(gradients, root, seed)
    for node in order:
        gradient = gradients.pop(node, None)
        if gradient is None:
            continue
        if isinstance(gradient, np.generic):           # NumPy's arithmetic on 0-d arrays
            gradient = np.asarray(gradient)
        if node in targets:
            found[node] = gradient
        if type(node) is Leaf:
            if useful is None:
                accumulate(node.tensor(), gradient, create_graph)
            continue
        needs = [p is not None and (useful is None or p in useful) for p in node.parents]
        if True in needs:
            refuse_freed(node)
            places = destinations(node, gradients) if in_place else NOWHERE
            for parent, dx in zip(node.parents, pull_back(node, gradient, needs, places,
                                                          create_graph), strict=True):
                if dx is not None:
                    add_to(gradients, parent, dx, in_place)
            if not create_graph:
                node.values = None    # parents remain: a second pass must raise an error here
    return found


def nodes_leading_to(wanted, order):
    """The nodes in ``order`` from which some wanted node can be reached."""
    useful = set(wanted)
    for node in reversed(order):
        if any(parent in useful for parent in node.parents if parent is not None):
            useful.add(node)
    return useful


def add_to(gradients, node, gradient, into_buffers=False):
    """Add the gradients of several uses of one value; in place only in a parameter's own buffer,
    since other arrays may share memory."""
    known = gradients.get(node)
    buffer = free_buffer(node) if into_buffers and type(node) is Leaf else None
    if known is None:
        gradients[node] = gradient
    elif buffer is None:
        gradients[node] = known + gradient
    elif gradient is not buffer:      # otherwise the rule has added to it
        gradients[node] = np.add(known, gradient, out=buffer)


def free_buffer(leaf):
    """A parameter's part of its network's gradient buffer, if no earlier gradient is in it."""
    tensor = leaf.tensor()
    return None if tensor is None or tensor.grad is not None else tensor.grad_buffer


def refuse_freed(node):
    if node.values is None:
        raise RuntimeError(
            f"the graph of this {node.op.name} has been freed by an earlier backward pass; compute "
            "the loss again before a second backward, or keep the graph with create_graph=True")


def destinations(node, gradients):
    """For each input, the array into which its gradient may be computed, or None; and the array to
    which it may be added, which the rule then returns.

    Both are a parameter's part of its network's gradient buffer: the first is used for the first
    gradient of the parameter, the second for further ones. This saves a copy or an addition.
    """
    out, onto = [None] * len(node.parents), [None] * len(node.parents)
    for i, parent in enumerate(node.parents):
        if type(parent) is Leaf and node.parents.count(parent) == 1:
            buffer, known = free_buffer(parent), gradients.get(parent)
            if known is None:
                out[i] = buffer
            elif known is buffer:
                onto[i] = buffer
    return out, onto


def pull_back(node, dy, needs, places, create_graph):
    """The gradients with respect to those inputs of the node that ``needs`` selects."""
    check_unchanged(node.op, node.guards)
    rules = node.op.pull_back_recorded if create_graph else node.op.pull_back
    return [match_input(node, i, dx) if need else None
            for i, (dx, need) in enumerate(zip(rules(node, dy, needs, places), needs, strict=True))]


def check_unchanged(op, guards):
    """Raise if a value that a derivative needs has been changed in place since it was saved."""
    for counter, reading in guards.values():
        if counter[0] != reading:
            raise RuntimeError(
                f"an input or the result of {op.name} was changed in place after {op.name} had "
                "been computed, and its gradient needs the old value; run backward before the "
                "change, or change a copy: x.detach().copy()")


def match_input(node, i, dx):
    """The gradient in the shape of input ``i``: summed over the axes that were broadcast."""
    shape = node.shapes[i]
    if dx.shape != shape:
        dx = unbroadcast(dx, shape)
    if type(dx) is np.ndarray and shape and backend() == "cuda":
        dx = constant_to_device(dx)
    if dx.shape != shape or dx.dtype != node.dtype:
        raise AssertionError(f"the rule of {node.op.name} for input {i} gave {dx.dtype}{dx.shape}, "
                             f"expected {node.dtype}{shape}")
    return dx


def unbroadcast(dx, shape):
    """Sum over the axes that broadcasting repeated: its transpose, for arrays and tensors."""
    extra = len(dx.shape) - len(shape)
    if extra > 0:
        dx = np.sum(dx, axis=tuple(range(extra)))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and dx.shape[i] != 1)
    return np.sum(dx, axis=repeated, keepdims=True) if repeated else dx


def accumulate(tensor, gradient, create_graph):
    """Add to ``tensor.grad``; in the network's gradient buffer if it has one.

    A gradient that is referenced elsewhere is not changed: the sum is then a new tensor.
    """
    if tensor is None:                # the leaf no longer exists
        return
    if tensor.grad is None:
        tensor.store_gradient(gradient)
    elif tensor.gradient_is_referenced():
        total = tensor.grad + gradient
        tensor.grad = None            # the buffer stays with the other references
        tensor.store_gradient(total)
    elif create_graph or tensor.grad.requires_grad:    # the old gradient may be part of a graph
        tensor.store_gradient(tensor.grad + gradient)
    else:
        tensor.grad.data += gradient
        tensor.grad.changes[0] += 1
