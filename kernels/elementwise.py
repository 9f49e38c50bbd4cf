"""Elementwise ops on the GPU: the op's formula is traced once and compiled to a kernel of one pass.

A formula is called with ``Term`` objects, which record the operations as C: ``1.0 / (1.0 +
np.exp(-x))`` becomes ``(T(1.0) / (T(1.0) + exp((-x))))``, the body of the loop below. On the CPU
Numba compiles the formula itself (``vector_math.py``). There are no other versions: the formula is
the reference.
"""

import functools
import inspect

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from . import cuda

BLOCK, MOST_BLOCKS = 256, 1 << 16
INFIX = {np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/", np.less: "<",
         np.less_equal: "<=", np.greater: ">", np.greater_equal: ">=", np.equal: "==",
         np.not_equal: "!=", np.bitwise_and: "&", np.logical_and: "&&", np.logical_or: "||"}
FUNCTIONS = {np.exp: "exp", np.log: "log", np.log1p: "log1p", np.expm1: "expm1", np.tanh: "tanh",
             np.sqrt: "sqrt", np.absolute: "fabs", np.floor: "floor", np.maximum: "maximum",
             np.minimum: "minimum", np.sign: "sign", np.negative: "-", np.power: "pow",
             np.square: "square"}
# How an input is read for element i of n, in rows of c: its own number ("full"), one that depends
# on the column ("row") or on the row ("column"), or a scalar from memory ("one") or by value.
READ = {"full": "{name}_pack.at[k]", "row": "{name}[at % c]", "column": "{name}[at / c]",
        "one": "{name}[0]", "value": "{name}_value"}
KERNEL = """#include "common.cuh"

// out = {text}
template <typename T>
__global__ void {name}({parameters}, T* out, long long n, long long c) {{
    GRID_STRIDE(i, packs<T>(n)) {{
        Pack<T> out_pack;
{loads}        for (int k = 0; k < Pack<T>::SIZE; k++) {{
            long long at = min(i * Pack<T>::SIZE + k, n - 1);
{reads}            out_pack.at[k] = {text};
        }}
        store(out, i, n, out_pack);
    }}
}}
"""


class Term(NDArrayOperatorsMixin):
    """A value in a formula, as a C expression."""

    def __init__(self, text):
        self.text = text

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        texts = [c_expression(x) for x in inputs]
        if method == "__call__" and not options and ufunc in INFIX:
            return Term(f"({texts[0]} {INFIX[ufunc]} {texts[1]})")
        if method == "__call__" and not options and ufunc in FUNCTIONS:
            return Term(f"{FUNCTIONS[ufunc]}({', '.join(texts)})")
        return NotImplemented

    def __array_function__(self, function, types, args, options):
        if function is np.where and not options:
            condition, a, b = (c_expression(x) for x in args)
            return Term(f"({condition} ? {a} : {b})")
        if function is np.clip and not options:
            x, low, high = (c_expression(x) for x in args)
            return Term(f"minimum(maximum({x}, {low}), {high})")
        return NotImplemented


def c_expression(x):
    """The C expression of a term or of a number."""
    return x.text if isinstance(x, Term) else f"T({float(x)!r})"


class Formula:
    """An elementwise function of device arrays, compiled once for each combination of inputs."""

    def __init__(self, function):
        self.function = function
        self.names = list(inspect.signature(function).parameters)
        self.name = function.__qualname__.replace(".", "_").lower()
        self.kernels = {}

    def __call__(self, *inputs):
        """The result, of the inputs' common shape and of the first array's dtype."""
        xp = cuda.device().xp
        arrays = [x for x in inputs if isinstance(x, xp.ndarray)]
        dtype = next(a.dtype for a in arrays if a.dtype.kind == "f")
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        passed, kinds, width = [], [], 1
        for x in inputs:
            x, kind, c = access_to(x, shape, dtype, width, xp)
            width = max(width, c)
            passed.append(x)
            kinds.append(kind)
        same = inputs[self.names.index(self.body)] if self.body in self.names else None
        if getattr(same, "shape", None) == shape:
            return same                                # the rule passes an input on
        y = cuda.empty(shape, dtype)
        blocks = cuda.blocks_for(y.size * y.itemsize, 16 * BLOCK, MOST_BLOCKS)
        cuda.launch_kernel(self.kernel(tuple(kinds)), blocks, BLOCK, (*passed, y, y.size, width))
        return y

    @functools.cached_property
    def body(self):
        """The formula in C."""
        signature = inspect.signature(self.function)
        plain = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
        options = {n: Term(n) for n in self.names if n not in plain}
        return c_expression(self.function(*(Term(n) for n in plain), **options))

    def kernel(self, kinds):
        """The kernel for inputs of these kinds (keys of READ)."""
        if kinds not in self.kernels:
            code = cuda.with_includes(self.source(kinds), f"{self.name}.cu")
            self.kernels[kinds] = cuda.parse(code)[self.name]
        return self.kernels[kinds]

    def source(self, kinds):
        """Its CUDA C."""
        inputs = list(zip(self.names, kinds, strict=True))
        parameters = ", ".join(f"T {n}_value" if kind == "value" else f"const T* {n}"
                               for n, kind in inputs)
        loads = "".join(f"        Pack<T> {n}_pack = load({n}, i, n);\n" for n, kind in inputs
                        if kind == "full")
        text = self.body
        # Within the loop a name denotes the element, not the array of that name.
        reads = "".join(f"            const T {n}_k = {READ[kind].format(name=n)};\n"
                        for n, kind in inputs)
        for n, _ in inputs:
            text = rename(text, n, f"{n}_k")
        return KERNEL.format(text=text, name=self.name, parameters=parameters, loads=loads,
                             reads=reads)


def rename(text, name, other):
    """``text`` with one whole word replaced."""
    return cuda.re.sub(rf"\b{name}\b", other, text)


def access_to(x, shape, dtype, width, xp):
    """(argument, kind, row length) of an input; the kind is a key of READ."""
    if not isinstance(x, xp.ndarray):                  # a number, perhaps in an array of its own
        return float(x), "value", 1
    x = x.astype(dtype, copy=False)
    if x.shape == shape and (x.size == 1 or any(x.strides)):
        return xp.ascontiguousarray(x), "full", 1
    if x.size > 1 and not any(x.strides):
        x = x[(0,) * x.ndim]                           # one number, broadcast
    if x.size == 1:
        return xp.ascontiguousarray(x), "one", 1
    trimmed = x.shape[next((i for i, n in enumerate(x.shape) if n != 1), x.ndim):]
    if trimmed == shape[len(shape) - len(trimmed):] and width in (1, x.size):
        return xp.ascontiguousarray(x), "row", x.size
    padded = (1,) * (len(shape) - x.ndim) + x.shape
    lead = len(shape) - next((i for i, n in enumerate(padded[::-1]) if n != 1), 0)
    rest = int(np.prod(shape[lead:], dtype=np.int64))
    if padded[:lead] == shape[:lead] and width in (1, rest) and rest > 1:
        return xp.ascontiguousarray(x), "column", rest
    return xp.ascontiguousarray(xp.broadcast_to(x, shape)), "full", 1
