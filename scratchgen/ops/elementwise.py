"""Elementwise ops. Each rule is dL/dx from dy = dL/dy, element by element.

A ``Ufunc`` is a single NumPy function on every CPU backend, which needs one pass.
"""

import math
from numbers import Real
from typing import overload

import numpy as np

from ..engine.tensor import Tensor, plain
from ..engine.types import Array, TensorLike
from .inputs import only_arrays
from .op import Elementwise, Op, Series, Ufunc, implements

__all__ = ["identity", "add", "subtract", "multiply", "divide", "negative", "pow", "square", "exp",
           "log", "log1p", "expm1", "sqrt", "affine", "abs", "maximum", "minimum", "clip", "where",
           "sigmoid", "tanh", "softplus", "logsigmoid", "relu", "leaky_relu", "elu"]

BROADCASTING = ("shapes that broadcast: axis by axis from the last, equal lengths or one of them 1")


class Identity(Op):
    """y = x"""

    def formula(x):
        return x

    def backward_x(dy):
        return dy


def identity(x: TensorLike) -> Tensor:
    """A new tensor with the values of x, through which gradients flow."""
    return Identity.apply(x)


# --- arithmetic ----------------------------------------------------------------------------------

class Add(Ufunc, numpy=np.add):
    """y = a + b"""

    expects = BROADCASTING

    def formula(a, b):
        return a + b

    def backward_a(dy):
        return dy

    def backward_b(dy):
        return dy


def add(a: TensorLike, b: TensorLike) -> Tensor:
    """a + b, element by element."""
    return Add.apply(a, b)


class Subtract(Ufunc, numpy=np.subtract):
    """y = a − b"""

    expects = BROADCASTING

    def formula(a, b):
        return a - b

    def backward_a(dy):
        return dy

    def backward_b(dy):
        return -dy


def subtract(a: TensorLike, b: TensorLike) -> Tensor:
    """a − b, element by element."""
    return Subtract.apply(a, b)


class Multiply(Ufunc, numpy=np.multiply):
    """y = a b"""

    expects = BROADCASTING

    def formula(a, b):
        return a * b

    def backward_a(dy, b):
        return dy * b

    def backward_b(dy, a):
        return dy * a


def multiply(a: TensorLike, b: TensorLike) -> Tensor:
    """a b, element by element."""
    return Multiply.apply(a, b)


class Divide(Ufunc, numpy=np.divide):
    """y = a / b"""

    expects = BROADCASTING

    def formula(a, b):
        return a / b

    def backward_a(dy, b):
        return dy / b

    def backward_b(dy, b, y):
        return -dy * y / b


def divide(a: TensorLike, b: TensorLike) -> Tensor:
    """a / b, element by element."""
    return Divide.apply(a, b)


class Negative(Ufunc, numpy=np.negative):
    """y = −x"""

    def formula(x):
        return -x

    def backward_x(dy):
        return -dy


def negative(x: TensorLike) -> Tensor:
    """−x, element by element."""
    return Negative.apply(x)


class Pow(Op, numpy=np.power):
    """y = aᵇ; the gradient for b (ln a · y) is 0 where a = 0, as the limit is for b > 0."""

    expects = BROADCASTING

    def formula(a, b):
        return a**b

    def backward_a(dy, a, b):
        return dy * b * a ** (b - (b != 0))

    def backward_b(dy, a, y):
        return dy * y * np.log(np.where(np.greater(a, 0), a, y.dtype.type(1)))


def pow(a: TensorLike, b: TensorLike) -> Tensor:
    """aᵇ, element by element."""
    return Pow.apply(a, b)


class Square(Ufunc, numpy=np.square):
    """y = x²"""

    def formula(x):
        return x * x

    def backward_x(dy, x):
        return 2 * dy * x


def square(x: TensorLike) -> Tensor:
    """x², element by element."""
    return Square.apply(x)


class Exp(Series, numpy=np.exp):
    """y = eˣ"""

    def formula(x):
        return np.exp(x)

    def backward_x(dy, y):
        return dy * y


def exp(x: TensorLike) -> Tensor:
    """eˣ, element by element."""
    return Exp.apply(x)


class Log(Series, numpy=np.log):
    """y = ln x"""

    def formula(x):
        return np.log(x)

    def backward_x(dy, x):
        return dy / x


def log(x: TensorLike) -> Tensor:
    """The natural logarithm ln x, element by element."""
    return Log.apply(x)


class Log1p(Series, numpy=np.log1p):
    """y = ln(1 + x)"""

    def formula(x):
        return np.log1p(x)

    def backward_x(dy, x):
        return dy / (1 + x)


def log1p(x: TensorLike) -> Tensor:
    """ln(1 + x), element by element, accurate for small x."""
    return Log1p.apply(x)


class Expm1(Series, numpy=np.expm1):
    """y = eˣ − 1"""

    def formula(x):
        return np.expm1(x)

    def backward_x(dy, y):
        return dy * (y + 1)


def expm1(x: TensorLike) -> Tensor:
    """eˣ − 1, element by element, accurate for small x."""
    return Expm1.apply(x)


class Sqrt(Ufunc, numpy=np.sqrt):
    """y = √x"""

    def formula(x):
        return np.sqrt(x)

    def backward_x(dy, y):
        return dy / (2 * y)


def sqrt(x: TensorLike) -> Tensor:
    """√x, element by element."""
    return Sqrt.apply(x)


class Affine(Elementwise):
    """y = scale·x + shift, for two numbers"""

    def formula(x, *, scale, shift):
        return scale * x + shift

    def backward_x(dy, scale):
        return scale * dy


def affine(x: TensorLike, scale: float, shift: float) -> Tensor:
    """``scale``·x + ``shift``, two numbers. Any shape."""
    if not (is_number(scale) and is_number(shift)):
        raise ValueError(f"affine: scale {scale!r}, shift {shift!r}; expected two numbers")
    return Affine.apply(x, scale=scale, shift=shift)


# --- not differentiable everywhere: with the convention ------------------------------------------

class Abs(Ufunc, numpy=np.absolute):
    """y = |x|; the derivative at 0 is taken as 0"""

    def formula(x):
        return np.abs(x)

    def backward_x(dy, x):
        return dy * np.sign(x)


def abs(x: TensorLike) -> Tensor:
    """|x|, element by element; the derivative at 0 is taken as 0."""
    return Abs.apply(x)


class Maximum(Ufunc, numpy=np.maximum):
    """y = max(a, b); where a = b the whole gradient goes to a, as in max and max pooling"""

    expects = BROADCASTING

    def formula(a, b):
        return np.maximum(a, b)

    def backward_a(dy, a, b):
        return dy * np.greater_equal(a, b)

    def backward_b(dy, a, b):
        return dy * np.less(a, b)


def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """The larger of a and b, element by element; of equals the gradient goes to a."""
    return Maximum.apply(a, b)


class Minimum(Ufunc, numpy=np.minimum):
    """y = min(a, b); where a = b the whole gradient goes to a"""

    expects = BROADCASTING

    def formula(a, b):
        return np.minimum(a, b)

    def backward_a(dy, a, b):
        return dy * np.less_equal(a, b)

    def backward_b(dy, a, b):
        return dy * np.greater(a, b)


def minimum(a: TensorLike, b: TensorLike) -> Tensor:
    """The smaller of a and b, element by element; of equals the gradient goes to a."""
    return Minimum.apply(a, b)


class Clip(Ufunc):
    """y = x inside [low, high], else the nearer bound; the gradient passes inside and on a bound"""

    def formula(x, *, low, high):
        return np.clip(x, low, high)

    def backward_x(dy, x, low, high):
        return dy * (np.greater_equal(x, low) & np.less_equal(x, high))


@implements(np.clip)
def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """x limited to [min, max]: numbers, None (no limit there), or tensors and arrays that
    broadcast with x. The gradient passes inside and on a bound, beyond it to the bound. Any shape.
    """
    numbers = [bound for bound in (min, max) if bound is None or is_number(bound)]
    if len(numbers) == 2:
        low, high = -math.inf if min is None else min, math.inf if max is None else max
        if not low <= high:
            raise ValueError(f"clip: min {low!r}, max {high!r}; expected min <= max")
        return Clip.apply(x, low=low, high=high)
    only_arrays("clip", x=x, **{name: bound for name, bound in (("min", min), ("max", max))
                                if not (bound is None or is_number(bound))})
    x = x if min is None else Maximum.apply(x, min)
    return x if max is None else Minimum.apply(x, max)


class Where(Ufunc):
    """y = a where the condition holds, else b"""

    expects = BROADCASTING

    def formula(condition, a, b):
        return np.where(condition, a, b)

    def backward_a(dy, condition):
        return np.where(condition, dy, 0)

    def backward_b(dy, condition):
        return np.where(condition, 0, dy)


@overload
def where(condition: TensorLike, /) -> tuple[Array, ...]: ...
@overload
def where(condition: TensorLike, a: TensorLike, b: TensorLike, /) -> Tensor: ...
@implements(np.where)
def where(condition, *branches):
    """``a`` where the condition holds, else ``b``: ``where(condition, a, b)``, shapes that
    broadcast. ``where(condition)`` are the places where it holds, as ``nonzero`` has them.
    """
    if not branches:
        return np.nonzero(plain(condition))
    if len(branches) != 2:
        raise TypeError("where takes 3 inputs (condition, a, b), or the condition alone, and "
                        f"{len(branches) + 1} were given")
    return Where.apply(condition, *branches)


# --- activations ---------------------------------------------------------------------------------

class Sigmoid(Elementwise):
    """y = σ(x) = 1/(1 + e⁻ˣ); where e⁻ˣ overflows, 1/∞ = 0 is right to the last subnormal"""

    def formula(x):
        return 1.0 / (1.0 + np.exp(-x))

    def backward_x(dy, y):
        return dy * y * (1.0 - y)


def sigmoid(x: TensorLike) -> Tensor:
    """The logistic function 1/(1 + e⁻ˣ), element by element."""
    return Sigmoid.apply(x)


class Tanh(Elementwise, numpy=np.tanh):
    """y = tanh x"""

    def formula(x):
        return np.tanh(x)

    def backward_x(dy, y):
        return dy * (1.0 - y * y)


def tanh(x: TensorLike) -> Tensor:
    """The hyperbolic tangent, element by element."""
    return Tanh.apply(x)


class Softplus(Elementwise):
    """y = ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|); dy/dx = σ(x)"""

    def formula(x):
        return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))

    def backward_x(dy, x):
        return dy / (1.0 + np.exp(-x))


def softplus(x: TensorLike) -> Tensor:
    """ln(1 + eˣ), element by element, without overflow."""
    return Softplus.apply(x)


class Logsigmoid(Elementwise):
    """y = ln σ(x) = min(x, 0) − ln(1 + e^−|x|); dy/dx = σ(−x)"""

    def formula(x):
        return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))

    def backward_x(dy, x):
        return dy / (1.0 + np.exp(x))


def logsigmoid(x: TensorLike) -> Tensor:
    """The logarithm of ``sigmoid``, element by element, without underflow."""
    return Logsigmoid.apply(x)


class Relu(Elementwise):
    """y = max(x, 0); the derivative at 0 is taken as 0"""

    def formula(x):
        return np.maximum(x, 0.0)

    def backward_x(dy, y):
        return np.where(y > 0.0, dy, 0.0)


def relu(x: TensorLike) -> Tensor:
    """max(x, 0), element by element; the derivative at 0 is taken as 0."""
    return Relu.apply(x)


class LeakyRelu(Elementwise):
    """y = x for x > 0, else slope·x; the derivative at 0 is taken as the slope"""

    def formula(x, *, slope):
        return np.where(x > 0.0, x, slope * x)

    def backward_x(dy, x, slope):
        return np.where(x > 0.0, dy, slope * dy)


def leaky_relu(x: TensorLike, slope: float = 0.2) -> Tensor:
    """x for x > 0, else ``slope``·x (Maas et al. 2013; 0.2: Radford et al. 2016). Any shape."""
    if not is_number(slope):
        raise ValueError(f"leaky_relu: slope {slope!r}; expected a number")
    return LeakyRelu.apply(x, slope=slope)


class Elu(Elementwise):
    """y = x for x > 0, else α (eˣ − 1); the derivative at 0 is taken as α"""

    def formula(x, *, alpha):
        return np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0)))

    def backward_x(dy, x, alpha):
        return np.where(x > 0.0, dy, dy * alpha * np.exp(np.minimum(x, 0.0)))


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x for x > 0, else ``alpha``·(eˣ − 1) (Clevert, Unterthiner & Hochreiter 2016). Any shape."""
    if not is_number(alpha):
        raise ValueError(f"elu: alpha {alpha!r}; expected a number")
    return Elu.apply(x, alpha=alpha)


def is_number(value):
    """Whether an option is a real number, of Python or NumPy."""
    return isinstance(value, Real) or isinstance(value, np.ndarray) and value.ndim == 0
