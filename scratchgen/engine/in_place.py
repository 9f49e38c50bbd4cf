"""Changing tensors in place, and who shares their memory.

``t += v`` and ``t[i] = v`` are recorded wherever a gradient flows to t or v: t becomes the result,
as another tensor would that takes over its name. Where this could leave a tensor with a value whose
gradient it does not know, it is refused.
"""

import sys
from typing import Any

from ..context import recording
from .backward import Leaf
from .recorded import in_step


class InPlace:
    """The part of ``Tensor`` that changes it in place."""

    __slots__ = ()
    declared = False                      # whether it is a module's parameter

    def __setitem__(self, index: Any, value: Any) -> None:
        """``t[index] = v``, recorded where a gradient flows to v or t; see ``change``."""
        if recording.get() and (self.requires_grad or requires_grad(value)):
            seen = isinstance(value, InPlace) and value.alias
            if seen and seen.whole is self and seen.index is index:
                return                    # t[index] += v, which has changed t already
            self.replace(self.with_item(index, value), "t[...] = v",
                        "t = sg.where(mask, v, t)")
            return
        in_step(self.data)[plain_index(index)] = plain(value)
        self.changes[0] += 1

    def change(self, ufunc, inputs):
        """``t += v`` and its kin.

        Where no gradient is involved, or nothing is recorded, the data are changed in place.
        Otherwise the tensor is replaced by the result of t + v in new memory, so that values saved
        by earlier calls are not changed.
        """
        if recording.get() and (self.requires_grad or any(map(requires_grad, inputs))):
            self.refuse_leaf("t += v", "t = t + v")
            return self.replace(ufunc(*inputs), "t += v", "t = t + v")
        ufunc(*map(plain, inputs), out=in_step(self.data))
        self.changes[0] += 1
        return self

    def replace(self, result, what, instead):
        """Replace this tensor's data and node by those of ``result``, and update the tensor of
        which it is an indexed part.

        RuntimeError for a leaf, and where another tensor shares the memory in another way: it would
        keep the old values, or see the new ones without their gradient.
        """
        self.refuse_leaf(what, instead)
        if not isinstance(result, InPlace):            # of a function that has no derivative
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
        self.write_back(result)
        return self

    def write_back(self, result):
        """``replace`` after its checks: also updates the tensors of which this one is a part."""
        whole = self.alias and self.alias.whole
        if whole is not None:
            index = self.alias.index
            whole.write_back(whole.with_item(index, result))
            result = whole[index]
        self.data, self.node, self.changes = result.data, result.node, result.changes
        self.alias = result.alias

    def refuse_leaf(self, what, instead):
        """RuntimeError for a leaf: changed while the graph is recorded, it would lose its
        gradient."""
        if isinstance(self.node, Leaf) or self.declared:
            raise RuntimeError(f"{what} would change in place a tensor that the graph needs; "
                               f"write {instead}, or do it inside 'with sg.no_grad():'")


class Alias:
    """Describes how a tensor shares its memory with others.

    All tensors that share memory refer to one ``token``. For ``y = x[index]``, ``whole`` is x and
    ``index`` the index; otherwise both are None.
    """

    __slots__ = ("token", "whole", "index")

    def __init__(self, token, whole=None, index=None):
        self.token, self.whole, self.index = token, whole, index

    def tensors(self):
        """The number of existing tensors that share the memory."""
        return sys.getrefcount(self.token) - Alias.spare


Alias.spare = 0
Alias.spare = Alias([]).tensors() - 1


def share(x, view, index=None):
    """Record that ``view`` shares the memory of x, so that a change of one changes both."""
    view.changes = x.changes
    if x.alias is None:
        x.alias = Alias([])
    view.alias = Alias(x.alias.token) if index is None else Alias(x.alias.token, x, index)


def requires_grad(x):
    """Whether x is a tensor that a gradient flows to."""
    return isinstance(x, InPlace) and x.node is not None


def plain_index(index):
    """An index with arrays for its tensors; itself if there are none."""
    if isinstance(index, tuple) and any(isinstance(part, InPlace) for part in index):
        return tuple(map(plain, index))
    return plain(index)


def plain(x):
    """The array behind a tensor; anything else as it is."""
    return x.data if isinstance(x, InPlace) else x
