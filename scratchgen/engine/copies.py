"""Copies and pickles of tensors: independent leaves and constants of the same values."""

import numpy as np

from .memory import ARRAYS, is_host, to_device, to_host


class Copied:
    """The part of ``Tensor`` that is about copies of it."""

    __slots__ = ()

    def __deepcopy__(self, memo):
        """A tensor of its own with the same data, and the gradient that has been accumulated."""
        self.refuse_computed()
        return restored(type(self), self.data.copy(order="C"), self.requires_grad,
                        self.gradient_copied())

    def __copy__(self):
        """The same: a copy shares no memory, as with NumPy's arrays."""
        return self.__deepcopy__({})

    def __reduce_ex__(self, protocol):
        self.refuse_computed()
        return restored, (type(self), np.array(to_host(self.data), order="C"), self.requires_grad,
                          self.gradient_copied())

    def gradient_copied(self):
        """The accumulated gradient as a constant of its own, or None."""
        return None if self.grad is None else self.grad.detach().copy()

    def refuse_computed(self):
        """RuntimeError for a tensor that is part of a graph."""
        if not self.is_leaf:
            raise RuntimeError("a computed tensor cannot be copied or pickled, for its graph would "
                               "be lost; write t.detach().copy(), a constant")


class Carried:
    """An array of a GPU on its way into a copy, or through a pickle, which carries it by the
    host."""

    def __init__(self, array):
        self.array = array

    def __deepcopy__(self, memo):
        return self.array.copy()

    def __reduce__(self):
        return to_device, (to_host(self.array),)


def carried(x):
    """x as it is copied and pickled: itself, unless it is an array of a GPU."""
    return x if is_host(x) or type(x) not in ARRAYS else Carried(x)


def restored(cls, array, requires_grad, gradient):
    """The copy, from what was taken of the original."""
    twin = cls(to_device(array))
    twin.requires_grad = requires_grad
    twin.grad = gradient
    return twin
