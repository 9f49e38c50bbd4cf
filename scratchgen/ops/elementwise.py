"""Elementwise ops. Each rule is dL/dx from dy = dL/dy, element by element.

A ``Ufunc`` is a single function of NumPy on every CPU backend: one pass already.
"""

import math
from numbers import Real

import numpy as np

from ..engine.tensor import plain
from .inputs import only_arrays
from .op import Elementwise, Op, Ufunc, implements

BROADCASTING = ("shapes that broadcast: axis by axis from the last, equal lengths or one of them 1")


class Identity(Op):
    """y = x"""

    def formula(x):
        return x

    def backward_x(dy):
        return dy


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


class Subtract(Ufunc, numpy=np.subtract):
    """y = a − b"""

    expects = BROADCASTING

    def formula(a, b):
        return a - b

    def backward_a(dy):
        return dy

    def backward_b(dy):
        return -dy


class Multiply(Ufunc, numpy=np.multiply):
    """y = a b"""

    expects = BROADCASTING

    def formula(a, b):
        return a * b

    def backward_a(dy, b):
        return dy * b

    def backward_b(dy, a):
        return dy * a


class Divide(Ufunc, numpy=np.divide):
    """y = a / b"""

    expects = BROADCASTING

    def formula(a, b):
        return a / b

    def backward_a(dy, b):
        return dy / b

    def backward_b(dy, b, y):
        return -dy * y / b


class Negative(Ufunc, numpy=np.negative):
    """y = −x"""

    def formula(x):
        return -x

    def backward_x(dy):
        return -dy


class Pow(Op, numpy=np.power):
    """y = aᵇ; the gradient for b (ln a · y) is 0 where a = 0, as the limit is for b > 0."""

    expects = BROADCASTING

    def formula(a, b):
        return a**b

    def backward_a(dy, a, b):
        return dy * b * a ** (b - (b != 0))

    def backward_b(dy, a, y):
        return dy * y * np.log(np.where(np.greater(a, 0), a, y.dtype.type(1)))


class Square(Ufunc, numpy=np.square):
    """y = x²"""

    def formula(x):
        return x * x

    def backward_x(dy, x):
        return 2 * dy * x


class Exp(Ufunc, numpy=np.exp):
    """y = eˣ"""

    def formula(x):
        return np.exp(x)

    def backward_x(dy, y):
        return dy * y


class Log(Ufunc, numpy=np.log):
    """y = ln x"""

    def formula(x):
        return np.log(x)

    def backward_x(dy, x):
        return dy / x


class Log1p(Ufunc, numpy=np.log1p):
    """y = ln(1 + x)"""

    def formula(x):
        return np.log1p(x)

    def backward_x(dy, x):
        return dy / (1 + x)


class Expm1(Ufunc, numpy=np.expm1):
    """y = eˣ − 1"""

    def formula(x):
        return np.expm1(x)

    def backward_x(dy, y):
        return dy * (y + 1)


class Sqrt(Ufunc, numpy=np.sqrt):
    """y = √x"""

    def formula(x):
        return np.sqrt(x)

    def backward_x(dy, y):
        return dy / (2 * y)


class Affine(Elementwise):
    """y = scale·x + shift, for two numbers"""

    def formula(x, *, scale, shift):
        return scale * x + shift

    def backward_x(dy, scale):
        return scale * dy


# --- with a kink: the convention there is stated -------------------------------------------------

class Abs(Ufunc, numpy=np.absolute):
    """y = |x|; the derivative at 0 is taken as 0"""

    def formula(x):
        return np.abs(x)

    def backward_x(dy, x):
        return dy * np.sign(x)


class Maximum(Ufunc, numpy=np.maximum):
    """y = max(a, b); where a = b the whole gradient goes to a, as in max and max pooling"""

    expects = BROADCASTING

    def formula(a, b):
        return np.maximum(a, b)

    def backward_a(dy, a, b):
        return dy * np.greater_equal(a, b)

    def backward_b(dy, a, b):
        return dy * np.less(a, b)


class Minimum(Ufunc, numpy=np.minimum):
    """y = min(a, b); where a = b the whole gradient goes to a"""

    expects = BROADCASTING

    def formula(a, b):
        return np.minimum(a, b)

    def backward_a(dy, a, b):
        return dy * np.less_equal(a, b)

    def backward_b(dy, a, b):
        return dy * np.greater(a, b)


class Clip(Ufunc):
    """y = x inside [low, high], else the nearer bound; the gradient passes inside and on a bound"""

    def formula(x, *, low, high):
        return np.clip(x, low, high)

    def backward_x(dy, x, low, high):
        return dy * (np.greater_equal(x, low) & np.less_equal(x, high))


class Where(Ufunc):
    """y = a where the condition holds, else b"""

    expects = BROADCASTING

    def formula(condition, a, b):
        return np.where(condition, a, b)

    def backward_a(dy, condition):
        return np.where(condition, dy, 0)

    def backward_b(dy, condition):
        return np.where(condition, 0, dy)


# --- activations ---------------------------------------------------------------------------------

class Sigmoid(Elementwise):
    """y = σ(x) = 1/(1 + e⁻ˣ); where e⁻ˣ overflows, 1/∞ = 0 is right to the last subnormal"""

    def formula(x):
        return 1.0 / (1.0 + np.exp(-x))

    def backward_x(dy, y):
        return dy * y * (1.0 - y)


class Tanh(Elementwise, numpy=np.tanh):
    """y = tanh x"""

    def formula(x):
        return np.tanh(x)

    def backward_x(dy, y):
        return dy * (1.0 - y * y)


class Softplus(Elementwise):
    """y = ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|); dy/dx = σ(x)"""

    def formula(x):
        return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))

    def backward_x(dy, x):
        return dy / (1.0 + np.exp(-x))


class Logsigmoid(Elementwise):
    """y = ln σ(x) = min(x, 0) − ln(1 + e^−|x|); dy/dx = σ(−x)"""

    def formula(x):
        return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))

    def backward_x(dy, x):
        return dy / (1.0 + np.exp(x))


class Relu(Elementwise):
    """y = max(x, 0); the derivative at 0 is taken as 0"""

    def formula(x):
        return np.maximum(x, 0.0)

    def backward_x(dy, y):
        return np.where(y > 0.0, dy, 0.0)


class LeakyRelu(Elementwise):
    """y = x for x > 0, else slope·x; the derivative at 0 is taken as the slope"""

    def formula(x, *, slope):
        return np.where(x > 0.0, x, slope * x)

    def backward_x(dy, x, slope):
        return np.where(x > 0.0, dy, slope * dy)


class Elu(Elementwise):
    """y = x for x > 0, else α (eˣ − 1); the derivative at 0 is taken as α"""

    def formula(x, *, alpha):
        return np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0)))

    def backward_x(dy, x, alpha):
        return np.where(x > 0.0, dy, dy * alpha * np.exp(np.minimum(x, 0.0)))


@implements(np.clip)
def clip(x, low=None, high=None):
    """x limited to [low, high]: numbers, None (no limit there), or tensors and arrays that
    broadcast with x. The gradient passes inside and on a bound, beyond it to the bound. Any shape.
    """
    numbers = [bound for bound in (low, high) if bound is None or is_number(bound)]
    if len(numbers) == 2:
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if not low <= high:
            raise ValueError(f"clip: low {low!r}, high {high!r}; expected low <= high")
        return Clip.apply(x, low=low, high=high)
    only_arrays("clip", x=x, **{name: bound for name, bound in (("low", low), ("high", high))
                                if not (bound is None or is_number(bound))})
    x = x if low is None else Maximum.apply(x, low)
    return x if high is None else Minimum.apply(x, high)


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


def affine(x, scale, shift):
    """``scale``·x + ``shift``, two numbers. Any shape."""
    if not (is_number(scale) and is_number(shift)):
        raise ValueError(f"affine: scale {scale!r}, shift {shift!r}; expected two numbers")
    return Affine.apply(x, scale=scale, shift=shift)


def leaky_relu(x, slope=0.2):
    """x for x > 0, else ``slope``·x (Maas et al. 2013; 0.2: Radford et al. 2016). Any shape."""
    if not is_number(slope):
        raise ValueError(f"leaky_relu: slope {slope!r}; expected a number")
    return LeakyRelu.apply(x, slope=slope)


def elu(x, alpha=1.0):
    """x for x > 0, else ``alpha``·(eˣ − 1) (Clevert, Unterthiner & Hochreiter 2016). Any shape."""
    if not is_number(alpha):
        raise ValueError(f"elu: alpha {alpha!r}; expected a number")
    return Elu.apply(x, alpha=alpha)


def is_number(value):
    """Whether an option is a real number, of Python or NumPy."""
    return isinstance(value, Real) or isinstance(value, np.ndarray) and value.ndim == 0
