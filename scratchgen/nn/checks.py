"""Checks of the options of layers. Each raises UserError for a value that cannot work."""

import operator
from numbers import Real

import numpy as np

from ..engine.tensor import FLOATS
from ..errors import UserError, unknown
from ..kernels.dense import ACTIVATIONS
from ..ops.window import pair, spreading


def positive_int(layer, name, value):
    """``value`` as an int of at least 1."""
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found < 1 or isinstance(value, bool):
        raise UserError(f"{layer}: {name} is {value!r}; give a whole number of at least 1")
    return found


def real_number(layer, name, value):
    """``value``, if it is a real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UserError(f"{layer}: {name} is {value!r}; give a number")
    return value


def float_dtype(dtype):
    """``dtype`` as a NumPy dtype: float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in FLOATS:
        raise UserError(f"the dtype of a layer is {dtype!r}; give np.float32 or np.float64")
    return found


def check_activation(name):
    """Require an activation that a dense layer can apply, or None."""
    if not isinstance(name, (str, type(None))) or name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)


def kernel_size(layer, size, stride, padding, dilation):
    """The size of a window as (KH, KW), after a check of all its options."""
    try:
        if padding in ("same", "valid") and layer == "Conv2d":
            if padding == "same" and pair(layer, "stride", stride, 1) != (1, 1):
                raise UserError(f"Conv2d: padding 'same' with stride {stride}; give stride 1, or a "
                                "number for the padding")
            padding = 0
        for name, value, least in (("stride", stride, 1), ("padding", padding, 0),
                                   ("dilation", dilation, 1)):
            pair(layer, name, value, least)
        return pair(layer, "size", size, 1)
    except ValueError as error:
        raise UserError(str(error)) from None


def inputs_per_group(layer, inputs, outputs, groups):
    """The number of input channels of each group; ``groups`` must divide inputs and outputs."""
    if inputs % positive_int(layer, "groups", groups) or outputs % groups:
        raise UserError(f"{layer}: groups is {groups}; give a divisor of {inputs} inputs and "
                        f"{outputs} outputs")
    return inputs // groups


def check_output_padding(layer, size, stride, output_padding, dilation):
    """Require an ``output_padding`` smaller than the stride or the dilation."""
    try:
        spreading(layer, (9, 9), size, stride, 0, output_padding, dilation)
    except ValueError as error:
        raise UserError(str(error)) from None


def check_pooling(layer, size, stride, padding):
    """Check the options of a pooling layer; the padding is at most half of the window."""
    kernel = kernel_size(layer, size, 1 if stride is None else stride, padding, 1)
    if any(2 * p > k for p, k in zip(pair(layer, "padding", padding, 0), kernel, strict=True)):
        raise UserError(f"{layer}: padding is {padding!r}; give at most half of the size {size!r}")
