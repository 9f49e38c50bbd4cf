"""Products of tensors by the names of their axes (einsum), dot, inner and outer products, traces.

All are matrix products of axes put in order, so every backend computes them with its own kernels
and derivatives of any order are those of ``matmul``, ``transpose`` and ``reshape``.
"""

import math
import string

import numpy as np

from ..engine.tensor import Tensor
from ..engine.types import Shape, TensorLike
from .axes import as_tensor, axes_in
from .op import implements
from .selection import diagonal

__all__ = ["einsum", "tensordot", "dot", "vdot", "inner", "outer", "trace"]

# --- einsum --------------------------------------------------------------------------------------

@implements(np.einsum)
def einsum(subscripts: str, *operands: TensorLike, optimize: bool | str = True) -> Tensor:
    """Σ of products over the axes that ``subscripts`` does not name behind its arrow, as in NumPy:
    ``einsum("ij,jk->ik", a, b)`` is a @ b.

    Letters name axes (one length each, or 1), ``...`` any others, one letter twice in an operand
    the diagonal. Without an arrow the result has the letters that occur once, in alphabetical
    order. Several operands are multiplied two at a time, in an order that NumPy finds.
    """
    if not isinstance(subscripts, str):
        raise TypeError("einsum: the subscripts are not a string; expected one, such as "
                        "einsum('ij,jk->ik', a, b)")
    operands = [as_tensor("einsum", x) for x in operands]
    order = contraction_order(subscripts, operands, optimize)
    names, result = letters_of(subscripts, operands)
    terms = [without_repeats(x, n) for x, n in zip(operands, names, strict=True)]
    for step in order:
        chosen = [terms.pop(i) for i in sorted(step, reverse=True)][::-1]
        while len(chosen) > 1:
            others = {*result, *(letter for _, n in [*chosen[2:], *terms] for letter in n)}
            chosen[:2] = [contracted(*chosen[:2], others)]
        terms.append(chosen[0])
    (x, found), = terms
    x, found = summed(x, found, set(result))
    return np.transpose(x, [found.index(letter) for letter in result])


def contraction_order(subscripts, operands, optimize):
    """Which operands to multiply, step by step; ValueError, with NumPy's reason, if they do not
    fit the subscripts."""
    stand_ins = [np.broadcast_to(np.float64(0), x.shape) for x in operands]
    try:
        path = np.einsum_path(subscripts, *stand_ins, optimize="greedy" if optimize else False)
        return path[0][1:]
    except (ValueError, IndexError, TypeError) as error:
        shapes = ", ".join(str(x.shape) for x in operands)
        raise ValueError(f"einsum of shapes {shapes}, subscripts {subscripts!r}: "
                         f"{' '.join(str(error).split()).rstrip('.')}; expected a letter for each "
                         "axis, and one length for each letter") from None


def letters_of(subscripts, operands):
    """The letters of each operand's axes, and of the result's; those that ``...`` stands for are
    others than the subscripts'."""
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    unused = [c for c in string.ascii_letters if c not in subscripts]
    names, widest = [], 0
    for part, x in zip(inputs.split(","), operands, strict=True):
        hidden = x.ndim - len(part.replace("...", ""))
        widest = max(widest, hidden if "..." in part else 0)
        names.append(part.replace("...", "".join(unused[:hidden][::-1])))
    extra = "".join(unused[:widest][::-1])
    if arrow:
        if extra and "..." not in result:
            raise ValueError(f"einsum: {subscripts!r} has '...' before the arrow and none behind; "
                             "expected it in the result, or letters to sum over")
        return names, result.replace("...", extra)
    given = inputs.replace(",", "").replace("...", "")
    return names, extra + "".join(sorted(c for c in set(given) if given.count(c) == 1))


def without_repeats(x, names):
    """(x, letters) with the diagonal of axes that share a letter."""
    for letter in sorted(set(names)):
        while names.count(letter) > 1:
            first = names.index(letter)
            second = names.index(letter, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ValueError(f"einsum: the axes {letter!r} of an operand {x.shape} have two "
                                 "lengths; expected one, for there is no diagonal")
            x = diagonal(x, 0, first, second)
            names = names[:first] + names[first + 1:second] + names[second + 1:] + letter
    return x, names


def summed(x, names, needed):
    """(x, letters) summed over the axes that no other operand or the result has."""
    alone = tuple(a for a, letter in enumerate(names) if letter not in needed)
    if not alone:
        return x, names
    return np.sum(x, axis=alone), "".join(letter for letter in names if letter in needed)


def contracted(first, second, others):
    """The product of two (tensor, letters), summed over the letters that no other one needs.

    Axes are ordered so that it is a product of matrices: shared and kept (a batch of them), only in
    the first (rows), summed over, only in the second (columns).
    """
    (a, in_a), (b, in_b) = summed(*first, {*second[1], *others}), summed(*second,
                                                                      {*first[1], *others})
    both = [c for c in in_a if c in in_b]
    batch, inner = [c for c in both if c in others], [c for c in both if c not in others]
    rows, columns = [c for c in in_a if c not in both], [c for c in in_b if c not in both]
    size = {}
    for letter, n in zip(in_a + in_b, a.shape + b.shape, strict=True):
        size[letter] = max(size.get(letter, 1), n) if n != 1 else size.get(letter, 1)
        if n == 0:
            size[letter] = 0

    def ordered(x, names, groups):
        x = np.transpose(x, [names.index(c) for group in groups for c in group])
        full = tuple(size[c] for group in groups for c in group)
        x = x if x.shape == full else np.broadcast_to(x, full)
        return np.reshape(x, (*(size[c] for c in groups[0]),
                              *(math.prod(size[c] for c in group) for group in groups[1:])))

    y = ordered(a, in_a, (batch, rows, inner)) @ ordered(b, in_b, (batch, inner, columns))
    names = "".join([*batch, *rows, *columns])
    return np.reshape(y, tuple(size[c] for c in names)), names


# --- products of two -----------------------------------------------------------------------------

@implements(np.tensordot)
def tensordot(a: TensorLike, b: TensorLike, axes: int | tuple[Shape, Shape] = 2) -> Tensor:
    """Σ of products over ``axes``: the last n of a with the first n of b, or two lists of them."""
    a, b = as_tensor("tensordot", a), as_tensor("tensordot", b)
    if isinstance(axes, (tuple, list)) and len(axes) == 2:
        of_a, of_b = axes_in("tensordot", a, axes[0]), axes_in("tensordot", b, axes[1])
    elif isinstance(axes, (int, np.integer)) and 0 <= axes <= min(a.ndim, b.ndim):
        of_a, of_b = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        raise ValueError(f"tensordot: a {a.shape}, b {b.shape}, axes {axes!r}; expected a number "
                         "of axes that both have, or two lists of axes")
    if [a.shape[i] for i in of_a] != [b.shape[i] for i in of_b]:
        raise ValueError(f"tensordot: a {a.shape}, b {b.shape}, axes {axes!r}; expected equal "
                         "lengths along the axes that are summed over")
    rest_a, rest_b = ([i for i in range(x.ndim) if i not in of] for x, of in ((a, of_a), (b, of_b)))
    inner = math.prod(a.shape[i] for i in of_a)
    shapes = [a.shape[i] for i in rest_a], [b.shape[i] for i in rest_b]
    rows = np.reshape(np.transpose(a, [*rest_a, *of_a]), (math.prod(shapes[0]), inner))
    columns = np.reshape(np.transpose(b, [*of_b, *rest_b]), (inner, math.prod(shapes[1])))
    return np.reshape(rows @ columns, (*shapes[0], *shapes[1]))


@implements(np.dot)
def dot(a: TensorLike, b: TensorLike) -> Tensor:
    """Of vectors Σ a b, of matrices a @ b; of more axes the sum over the last one of a and the last
    but one of b, of a number the product with it."""
    a, b = (x if isinstance(x, (int, float)) else as_tensor("dot", x) for x in (a, b))
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return np.multiply(a, b)
    if a.shape[-1] != b.shape[max(0, b.ndim - 2)]:
        raise ValueError(f"dot: a {a.shape}, b {b.shape}; expected a (…, K), b (K,) or (…, K, J)")
    return tensordot(a, b, ([a.ndim - 1], [max(0, b.ndim - 2)]))


@implements(np.vdot)
def vdot(a: TensorLike, b: TensorLike) -> Tensor:
    """Σ of the products of the elements of a and b, in C order."""
    a, b = as_tensor("vdot", a), as_tensor("vdot", b)
    return dot(np.reshape(a, (-1,)), np.reshape(b, (-1,)))


@implements(np.inner)
def inner(a: TensorLike, b: TensorLike) -> Tensor:
    """The sum of products over the last axis of each."""
    a, b = as_tensor("inner", a), as_tensor("inner", b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, ([a.ndim - 1], [b.ndim - 1]))


@implements(np.outer)
def outer(a: TensorLike, b: TensorLike) -> Tensor:
    """y[i, j] = a[i] b[j], of the elements of a and b in C order."""
    a, b = as_tensor("outer", a), as_tensor("outer", b)
    return np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1))


@implements(np.trace)
def trace(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of the diagonal ``offset``."""
    return np.sum(diagonal(as_tensor("trace", x), offset, axis1, axis2), axis=-1)
