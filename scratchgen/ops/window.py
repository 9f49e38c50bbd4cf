"""The geometry of sliding windows, for convolution and pooling."""

import itertools
import operator
from typing import NamedTuple

from ..engine.tensor import Tensor


class Window(NamedTuple):
    """Output position i, tap u sees input position  i·stride + u·dilation − padding  (both axes).

    All are pairs (vertical, horizontal). ``size`` is that of the input, ``out`` of the output.
    """

    size: tuple
    out: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple = (1, 1)

    @property
    def taps(self):
        """Every (u, v) of the kernel, row by row."""
        return itertools.product(range(self.kernel[0]), range(self.kernel[1]))

    @property
    def borders(self):
        """The padding of N, H, W, C as ``np.pad`` takes it."""
        (ph, pw) = self.padding
        return (0, 0), (ph, ph), (pw, pw), (0, 0)

    @property
    def padded(self):
        """The size with its borders."""
        return tuple(n + 2 * p for n, p in zip(self.size, self.padding, strict=True))

    @property
    def inside(self):
        """Index of the image in the padded image."""
        return (slice(None), *(slice(p, p + n) for n, p in zip(self.size, self.padding,
                                                               strict=True)))

    def tap(self, u, v):
        """Index, in the padded image, of what tap (u, v) sees: one element an output position."""
        return (slice(None), *(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip((u, v), self.dilation, self.out, self.stride, strict=True)))


def sliding(op, size, kernel, stride, padding, dilation=1):
    """The window over an input of ``size``; ValueError where it does not fit."""
    stride, padding = pair(op, "stride", stride, 1), pair(op, "padding", padding, 0)
    dilation, kernel = pair(op, "dilation", dilation, 1), pair(op, "size", kernel, 1)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    free = tuple(n + 2 * p - r for n, p, r in zip(size, padding, reach, strict=True))
    if min(free) < 0:
        raise ValueError(f"{op}: the kernel {kernel} with dilation {dilation} covers {reach}, more "
                         f"than the input {tuple(size)} with padding {padding}; expected a smaller "
                         "kernel or more padding")
    out = tuple(f // s + 1 for f, s in zip(free, stride, strict=True))
    return Window(tuple(size), out, kernel, stride, padding, dilation)


def spreading(op, out, kernel, stride, padding, output_padding, dilation):
    """The window whose positions are ``out`` and whose input size is the transposed map's result:

    size = (out − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1
    """
    stride, padding = pair(op, "stride", stride, 1), pair(op, "padding", padding, 0)
    dilation, more = pair(op, "dilation", dilation, 1), pair(op, "output_padding",
                                                             output_padding, 0)
    for m, s, d in zip(more, stride, dilation, strict=True):
        if m >= max(s, d):
            raise ValueError(f"{op}: output_padding {more} must be smaller than stride {stride} or "
                             f"dilation {dilation}; expected less")
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, d, k, m in zip(
        out, stride, padding, dilation, kernel, more, strict=True))
    if min(size) < 1:
        raise ValueError(f"{op}: input {tuple(out)}, kernel {tuple(kernel)}, stride {stride} and "
                         f"padding {padding} give the size {size}; expected less padding")
    return Window(size, tuple(out), tuple(kernel), stride, padding, dilation)


def pair(op, name, value, least):
    """An int, or a pair of ints, as a pair; ValueError if one is below ``least``."""
    try:
        values = tuple(operator.index(v) for v in value) if isinstance(
            value, (tuple, list)) else (operator.index(value),) * 2
    except TypeError:
        values = ()
    if len(values) != 2 or min(values) < least:
        raise ValueError(f"{op}: {name} is {value!r}; expected an int of at least {least}, "
                         "or a pair of them")
    return values


def call(op, *inputs, out=None, **options):
    """The op on arrays by its kernel, in ``out`` if there is one; on tensors, recorded.
    For rules that serve both."""
    if any(isinstance(x, Tensor) for x in inputs):
        return op.apply(*inputs, **options)
    return op.forward(*inputs, **options) if out is None else op.forward(*inputs, out=out,
                                                                         **options)
