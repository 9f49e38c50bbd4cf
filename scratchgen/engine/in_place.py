"""Changing tensors in place, and who shares their memory.

``t += v`` and ``t[i] = v`` are recorded wherever a gradient flows to t or v: t becomes the result,
as another tensor would that takes over its name. Where this could leave a tensor with a value whose
gradient it does not know, it is refused.
"""

import sys
from typing import Any

from ..context import recording
from .backward import Leaf


class Changed:
    """The part of ``Tensor`` that changes it in place."""

    __slots__ = ()
    declared = False                      # whether it is a module's parameter

    def __setitem__(self, index: Any, value: Any) -> None:
        """``t[index] = v``, recorded where a gradient flows to v or t; see ``change``."""
        if recording.get() and (self.requires_grad or requires_grad(value)):
            seen = isinstance(value, Changed) and value.alias
            if seen and seen.whole is self and seen.index is index:
                return                    # t[index] += v, which has changed t already
            self.become(self.with_item(index, value), "t[...] = v",
                        "t = sg.where(mask, v, t)")
            return
        self.data[plain_index(index)] = plain(value)
        self.changes[0] += 1

    def change(self, ufunc, inputs):
        """``t += v`` and its kin.

        Where no gradient is involved, or nothing is recorded, the data are changed in place. Else
        the tensor becomes the result of t + v, in memory of its own: what earlier calls have saved
        of its old value stays as it was.
        """
        if recording.get() and (self.requires_grad or any(map(requires_grad, inputs))):
            self.refuse_leaf("t += v", "t = t + v")
            return self.become(ufunc(*inputs), "t += v", "t = t + v")
        ufunc(*map(plain, inputs), out=self.data)
        self.changes[0] += 1
        return self

    def become(self, result, what, instead):
        """Be ``result`` from now on; what this tensor is a part of, by its index, changes with it.

        RuntimeError for a leaf, and where another tensor shares the memory in another way, for it
        would keep the old values, or have the new ones without their gradient.
        """
        self.refuse_leaf(what, instead)
        if not isinstance(result, Changed):            # of a function that has no derivative
            raise TypeError(f"{what} of a tensor and a {type(result).__name__}; write {instead}")
        if result.shape != self.shape or result.dtype != self.dtype:
            raise TypeError(f"{what} of a tensor {self.dtype}{self.shape} gives "
                            f"{result.dtype}{result.shape}, which it cannot hold; write {instead}")
        whole, part, above = self.alias and self.alias.whole, self, 1
        while whole is not None:
            part, above, whole = whole, above + 1, whole.alias and whole.alias.whole
        if self.alias is not None and self.alias.tensors() > above:
            raise RuntimeError(f"{what} would change memory that another tensor shares (a view, "
                               f"or detach()), which would not know the gradient; write {instead}")
        part.refuse_leaf(what, instead)
        self.put_in_whole(result)
        return self

    def put_in_whole(self, result):
        """``become`` once it is known that it may."""
        whole = self.alias and self.alias.whole
        if whole is not None:
            index = self.alias.index
            whole.put_in_whole(whole.with_item(index, result))
            result = whole[index]
        self.data, self.node, self.changes = result.data, result.node, result.changes
        self.alias = result.alias

    def refuse_leaf(self, what, instead):
        """A leaf that is changed while the graph is recorded would lose its own gradient."""
        if isinstance(self.node, Leaf) or self.declared:
            raise RuntimeError(f"{what} would change in place a tensor that the graph needs; "
                               f"write {instead}, or do it inside 'with sg.no_grad():'")


class Alias:
    """What a tensor that shares its memory with others knows of them.

    ``token`` is held by the alias of each of them. ``whole`` and ``index`` of ``y = x[index]``:
    x and the index; else None.
    """

    __slots__ = ("token", "whole", "index")

    def __init__(self, token, whole=None, index=None):
        self.token, self.whole, self.index = token, whole, index

    def tensors(self):
        """How many tensors share the memory and live."""
        return sys.getrefcount(self.token) - Alias.spare


Alias.spare = 0
Alias.spare = Alias([]).tensors() - 1


def share(x, view, index=None):
    """Note that ``view`` lies in the memory of x: whoever changes one changes both."""
    view.changes = x.changes
    if x.alias is None:
        x.alias = Alias([])
    view.alias = Alias(x.alias.token) if index is None else Alias(x.alias.token, x, index)


def requires_grad(x):
    """Whether x is a tensor that a gradient flows to."""
    return isinstance(x, Changed) and x.node is not None


def plain_index(index):
    """An index with arrays for its tensors; itself if there are none."""
    if isinstance(index, tuple) and any(isinstance(part, Changed) for part in index):
        return tuple(map(plain, index))
    return plain(index)


def plain(x):
    """The array behind a tensor; anything else as it is."""
    return x.data if isinstance(x, Changed) else x
