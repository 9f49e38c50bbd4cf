"""Matrix product and the dense layer."""

import numpy as np

from ..engine.backend import backend, kernels, use_backend
from ..engine.memory import ARRAYS, contiguous, empty, empty_as, filled
from ..engine.tensor import Tensor
from ..engine.types import ActivationName, TensorLike
from ..errors import unknown
from ..kernels.dense import ACTIVATIONS, IDENTITY, SLOPE
from ..kernels.gemm_chooser import uses_blas
from .elementwise import elu, leaky_relu
from .inputs import only_arrays
from .op import OPS, Fused, Op, implements

__all__ = ["matmul", "dense"]

dense_kernels, gemm_kernels = kernels("dense"), kernels("gemm")


class Matmul(Op):
    """y = a b over the last two axes, leading axes broadcast; da = dy bᵀ, db = aᵀ dy"""

    expects = "a (…, I, K) and b (…, K, J)"

    def formula(a, b):
        return a @ b

    def forward(a, b):
        if a.dtype != b.dtype or a.dtype.kind != "f":
            return a @ b
        return product(a, b) if a.ndim == b.ndim == 2 else products(a, b)

    def backward_a(dy, b):
        return product_of_derivative(dy, np.swapaxes(b, -1, -2))

    def backward_b(dy, a):
        return product_of_derivative(np.swapaxes(a, -1, -2), dy)


class Dense(Fused):
    """y = a(x w + b): one matrix product, then bias and activation in one pass.

    With h = x w + b and dh = dy ∘ a'(h):  dx = dh wᵀ,  dw = xᵀ dh,  db = Σ_n dh_n.
    Tied: h = x wᵀ + b, so dx = dh w, dw = dhᵀ x.
    """

    expects, real = "x (N, C), w (C, O), or (O, C) if tied, and b (O,)", True
    optional = ("b",)

    def formula(x, w, b, *, activation, tied):
        h = x @ (np.transpose(w) if tied else w)
        return apply_activation(h if b is None else h + b, activation)

    def forward(x, w, b, *, activation, tied):
        w, tw = kernel_operand(w.T if tied else w)
        outputs = w.shape[1 - tw]
        y = empty((x.shape[0], outputs), x.dtype)
        bias = filled((outputs,), 0, x.dtype) if b is None else contiguous(b)
        if backend() == "numba" and uses_blas():
            multiply("matmul", contiguous(x), w, y, False, tw)
            dense_kernels.bias_activation(y, bias, ACTIVATIONS[activation])
        else:
            dense_kernels.forward(contiguous(x), w, tw, bias, ACTIVATIONS[activation], y)
        return y

    def backward(wanted, dy, x, w, y, activation, tied, out, onto):
        want_x, want_w, want_b = wanted
        dh, dx, dw, db = dy, None, None, None
        if want_b or activation is not None:
            db = empty_as(out[2], dy.shape[1:], dy.dtype)
            dh = contiguous(dy)
            dy, dh = dh, dh if activation is None else empty(dy.shape, dy.dtype)
            dense_kernels.activation_backward(dy, y, ACTIVATIONS[activation], dh, db)
        if want_x:
            dx = product(dh, w if tied else w.T, out[0])
        if want_w:
            dw = product(*((dh.T, x) if tied else (x.T, dh)), out[1], onto[1])
        return dx, dw, db


def multiply(kernel, *arguments):
    """Calls a kernel of gemm.py; on the CPU with ``use_gemm("blas")`` NumPy's version."""
    if backend() == "numba" and uses_blas():
        with use_backend("numpy"):
            getattr(gemm_kernels, kernel)(*arguments)
    else:
        getattr(gemm_kernels, kernel)(*arguments)


def product(a, b, out=None, onto=None):
    """a b for matrices: added to an array, in ``out``, or in a new array."""
    (a, ta), (b, tb) = kernel_operand(a), kernel_operand(b)
    if onto is not None:
        multiply("matmul_add", a, b, onto, ta, tb)
        return onto
    c = empty_as(out, (a.shape[ta], b.shape[1 - tb]), a.dtype)
    multiply("matmul", a, b, c, ta, tb)
    return c


def products(a, b):
    """a b over the last two axes of arrays, leading axes broadcast."""
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = empty((*leading, a.shape[-2], b.shape[-1]), a.dtype)
    (first, ta), (second, tb) = batch_operand(a, leading), batch_operand(b, leading)
    if y.size:
        multiply("matmul_each", first, second, y.reshape(-1, *y.shape[-2:]), ta, tb)
    return y


def batch_operand(a, leading):
    """(a as a contiguous array of matrices (Z, …, …), whether these are transposed)."""
    swapped = np.swapaxes(a, -1, -2)
    transposed = swapped.flags.c_contiguous and not a.flags.c_contiguous
    a = swapped if transposed else a
    a = contiguous(np.broadcast_to(a, (*leading, *a.shape[-2:])))
    return a.reshape(-1, *a.shape[-2:]), transposed


def product_of_derivative(a, b):
    """a b in a derivative: of arrays, or of tensors, whose product is then recorded."""
    return Matmul.forward(a, b) if type(a) in ARRAYS and type(b) in ARRAYS else Matmul.apply(a, b)


def kernel_operand(a):
    """(matrix with contiguous rows, whether it is transposed), as the kernels expect."""
    if a.flags.c_contiguous:
        return a, False
    return (a.T, True) if a.flags.f_contiguous else (contiguous(a), False)


@implements(np.matmul)
def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """Matrix product of (…, I, K) and (…, K, J), leading axes broadcast; 1-D operands as NumPy."""
    only_arrays("matmul", a=a, b=b)
    if min(a.ndim, b.ndim) < 1 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: a {a.shape}, b {b.shape}; expected (…, I, K) and (…, K, J)")
    if a.ndim > 1 and b.ndim > 1:
        return Matmul.apply(a, b)
    wide = Matmul.apply(a if a.ndim > 1 else a[None, :], b if b.ndim > 1 else b[:, None])
    return wide[(..., *([0] if a.ndim == 1 else []), *([slice(None)] if b.ndim > 1 else [0]))]


def dense(x: TensorLike, w: TensorLike, b: TensorLike | None = None,
          activation: ActivationName | None = None, tied: bool = False) -> Tensor:
    """The dense layer a(x w + b): x (N, C), w (C, O), b (O,) or None → (N, O).

    ``activation``: None, "relu", "leaky_relu" (slope 0.2), "elu", "sigmoid", "tanh", "softplus".
    ``tied``: a(x wᵀ + b) with w (O, C), the weights of the layer from O to C.
    """
    check_activation(activation)
    only_arrays("dense", x=x, w=w, **({} if b is None else {"b": b}))
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[tied] or (
            b is not None and b.shape != (w.shape[1 - tied],)):
        raise ValueError(f"dense: x {x.shape}, w {w.shape}, b {None if b is None else b.shape}; "
                         f"expected (N, C), {'(O, C)' if tied else '(C, O)'} and (O,)")
    return Dense.apply(x, w, b, activation=activation, tied=tied)


def check_activation(activation):
    """UserError unless there is an activation of this name."""
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, [name for name in ACTIVATIONS if name])


def apply_activation(h, activation):
    """An activation by name, on arrays or tensors."""
    if ACTIVATIONS[activation] == IDENTITY:
        return h
    if type(h) in ARRAYS:
        return OPS[activation].formula(h, **{"leaky_relu": {"slope": SLOPE},
                                             "elu": {"alpha": 1.0}}.get(activation, {}))
    return {"leaky_relu": leaky_relu, "elu": elu}.get(activation, OPS[activation].apply)(h)
