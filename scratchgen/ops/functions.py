"""Elementary functions beyond those that the models use: trigonometric, hyperbolic, other bases.

On every backend they are NumPy's functions (on a GPU CuPy's); the derivative rules are explicit.
"""

import math

import numpy as np

from ..engine.tensor import NUMPY_FUNCTIONS, Tensor, plain
from ..engine.types import TensorLike
from .axes import as_real, as_tensor
from .elementwise import BROADCASTING, Abs, Divide, Identity, Multiply, Pow, Square, is_number
from .op import Op, implements

__all__ = ["sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "sinh", "cosh", "arcsinh",
           "arccosh", "arctanh", "log2", "log10", "exp2", "cbrt", "logaddexp", "remainder",
           "reciprocal", "hypot", "nan_to_num", "deg2rad", "rad2deg"]

# --- trigonometric -------------------------------------------------------------------------------

class Sin(Op, numpy=np.sin):
    """y = sin x, x in radians"""

    def formula(x):
        return np.sin(x)

    def backward_x(dy, x):
        return dy * np.cos(x)


def sin(x: TensorLike) -> Tensor:
    """The sine of x in radians, element by element."""
    return Sin.apply(x)


class Cos(Op, numpy=np.cos):
    """y = cos x, x in radians"""

    def formula(x):
        return np.cos(x)

    def backward_x(dy, x):
        return -dy * np.sin(x)


def cos(x: TensorLike) -> Tensor:
    """The cosine of x in radians, element by element."""
    return Cos.apply(x)


class Tan(Op, numpy=np.tan):
    """y = tan x, x in radians; dy/dx = 1 + y²"""

    def formula(x):
        return np.tan(x)

    def backward_x(dy, y):
        return dy * (1 + y * y)


def tan(x: TensorLike) -> Tensor:
    """The tangent of x in radians, element by element."""
    return Tan.apply(x)


class Arcsin(Op, numpy=np.arcsin):
    """y = arcsin x; the derivative is ±∞ at ±1"""

    def formula(x):
        return np.arcsin(x)

    def backward_x(dy, x):
        return dy / np.sqrt(1 - x * x)


def arcsin(x: TensorLike) -> Tensor:
    """The inverse sine in radians, element by element; the derivative at ±1 is ±∞."""
    return Arcsin.apply(x)


class Arccos(Op, numpy=np.arccos):
    """y = arccos x; the derivative is −∞ at ±1"""

    def formula(x):
        return np.arccos(x)

    def backward_x(dy, x):
        return -dy / np.sqrt(1 - x * x)


def arccos(x: TensorLike) -> Tensor:
    """The inverse cosine in radians, element by element; the derivative at ±1 is −∞."""
    return Arccos.apply(x)


class Arctan(Op, numpy=np.arctan):
    """y = arctan x"""

    def formula(x):
        return np.arctan(x)

    def backward_x(dy, x):
        return dy / (1 + x * x)


def arctan(x: TensorLike) -> Tensor:
    """The inverse tangent in radians, element by element."""
    return Arctan.apply(x)


class Arctan2(Op, numpy=np.arctan2):
    """y = the angle of the point (b, a) in (−π, π]: arctan(a/b) in the right quadrant"""

    expects = BROADCASTING

    def formula(a, b):
        return np.arctan2(a, b)

    def backward_a(dy, a, b):
        return dy * b / (a * a + b * b)

    def backward_b(dy, a, b):
        return -dy * a / (a * a + b * b)


def arctan2(a: TensorLike, b: TensorLike) -> Tensor:
    """The angle of the point (b, a) in radians, in (−π, π]."""
    return Arctan2.apply(a, b)


# --- hyperbolic ----------------------------------------------------------------------------------

class Sinh(Op, numpy=np.sinh):
    """y = sinh x"""

    def formula(x):
        return np.sinh(x)

    def backward_x(dy, x):
        return dy * np.cosh(x)


def sinh(x: TensorLike) -> Tensor:
    """The hyperbolic sine, element by element."""
    return Sinh.apply(x)


class Cosh(Op, numpy=np.cosh):
    """y = cosh x"""

    def formula(x):
        return np.cosh(x)

    def backward_x(dy, x):
        return dy * np.sinh(x)


def cosh(x: TensorLike) -> Tensor:
    """The hyperbolic cosine, element by element."""
    return Cosh.apply(x)


class Arcsinh(Op, numpy=np.arcsinh):
    """y = arsinh x"""

    def formula(x):
        return np.arcsinh(x)

    def backward_x(dy, x):
        return dy / np.sqrt(1 + x * x)


def arcsinh(x: TensorLike) -> Tensor:
    """The inverse hyperbolic sine, element by element."""
    return Arcsinh.apply(x)


class Arccosh(Op, numpy=np.arccosh):
    """y = arcosh x, x >= 1; the derivative is ∞ at 1"""

    def formula(x):
        return np.arccosh(x)

    def backward_x(dy, x):
        return dy / (np.sqrt(x - 1) * np.sqrt(x + 1))


def arccosh(x: TensorLike) -> Tensor:
    """The inverse hyperbolic cosine of x ≥ 1, element by element; at 1 the derivative is ∞."""
    return Arccosh.apply(x)


class Arctanh(Op, numpy=np.arctanh):
    """y = artanh x, |x| < 1"""

    def formula(x):
        return np.arctanh(x)

    def backward_x(dy, x):
        return dy / (1 - x * x)


def arctanh(x: TensorLike) -> Tensor:
    """The inverse hyperbolic tangent of |x| < 1, element by element."""
    return Arctanh.apply(x)


# --- powers and logarithms of other bases --------------------------------------------------------

class Log2(Op, numpy=np.log2):
    """y = log₂ x"""

    def formula(x):
        return np.log2(x)

    def backward_x(dy, x):
        return dy / (x * math.log(2))


def log2(x: TensorLike) -> Tensor:
    """The logarithm to base 2, element by element."""
    return Log2.apply(x)


class Log10(Op, numpy=np.log10):
    """y = log₁₀ x"""

    def formula(x):
        return np.log10(x)

    def backward_x(dy, x):
        return dy / (x * math.log(10))


def log10(x: TensorLike) -> Tensor:
    """The logarithm to base 10, element by element."""
    return Log10.apply(x)


class Exp2(Op, numpy=np.exp2):
    """y = 2ˣ"""

    def formula(x):
        return np.exp2(x)

    def backward_x(dy, y):
        return dy * y * math.log(2)


def exp2(x: TensorLike) -> Tensor:
    """2ˣ, element by element."""
    return Exp2.apply(x)


class Cbrt(Op, numpy=np.cbrt):
    """y = ∛x, of negative numbers too; the derivative is ∞ at 0"""

    def formula(x):
        return np.cbrt(x)

    def backward_x(dy, y):
        return dy / (3 * y * y)


def cbrt(x: TensorLike) -> Tensor:
    """The cube root, of negative numbers too; the derivative at 0 is ∞."""
    return Cbrt.apply(x)


class Logaddexp(Op, numpy=np.logaddexp):
    """y = ln(eᵃ + eᵇ), without overflow; dy/da = e^(a − y)"""

    expects = BROADCASTING

    def formula(a, b):
        return np.logaddexp(a, b)

    def backward_a(dy, a, y):
        return dy * np.exp(a - y)

    def backward_b(dy, b, y):
        return dy * np.exp(b - y)


def logaddexp(a: TensorLike, b: TensorLike) -> Tensor:
    """ln(eᵃ + eᵇ), element by element, without overflow."""
    return Logaddexp.apply(a, b)


class Remainder(Op, numpy=np.remainder):
    """y = a mod b = a − b ⌊a/b⌋, with the sign of b; the derivatives are those between the jumps"""

    expects = BROADCASTING

    def formula(a, b):
        return np.remainder(a, b)

    def backward_a(dy):
        return dy

    def backward_b(dy, a, b):
        return -dy * np.floor_divide(plain(a), plain(b))


def remainder(a: TensorLike, b: TensorLike) -> Tensor:
    """a mod b, with the sign of b, element by element."""
    return Remainder.apply(a, b)


# --- composed of other ops -----------------------------------------------------------------------

@implements(np.reciprocal)
def reciprocal(x: TensorLike) -> Tensor:
    """1/x. Any shape."""
    return Divide.apply(1.0, x)


@implements(np.hypot)
def hypot(a: TensorLike, b: TensorLike) -> Tensor:
    """√(a² + b²), shapes that broadcast; the gradient at (0, 0) is taken as 0."""
    real = next((x.dtype for x in (a, b) if not is_number(x) and as_tensor(
        "hypot", x).dtype.kind == "f"), np.float32)
    a, b = (x if is_number(x) else as_real("hypot", x, real) for x in (a, b))
    return root(Square.apply(a) + Square.apply(b))


def root(x):
    """√x with the gradient 0 at 0, a subgradient of the norm, instead of ∞."""
    zero = np.equal(plain(x), 0)
    return np.where(zero, 0, np.sqrt(np.where(zero, 1, x)))


@implements(np.nan_to_num)
def nan_to_num(x: TensorLike, *, nan: float = 0.0, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """Numbers in place of NaN, ∞ and −∞, where the gradient is then 0; without ``posinf`` and
    ``neginf`` the largest and the smallest number of x's dtype."""
    x = as_tensor("nan_to_num", x)
    if x.dtype.kind != "f":
        return Identity.apply(x)
    largest = float(np.finfo(x.dtype).max)
    posinf, neginf = largest if posinf is None else posinf, -largest if neginf is None else neginf
    if not (is_number(nan) and is_number(posinf) and is_number(neginf)):
        raise ValueError(f"nan_to_num: nan {nan!r}, posinf {posinf!r}, neginf {neginf!r}; expected "
                         "numbers")
    kinds = (np.isnan(x), nan), (np.isposinf(x), posinf), (np.isneginf(x), neginf)
    for found, number in kinds:
        x = np.where(found, number, x)
    return x


@implements(np.deg2rad)
def deg2rad(x: TensorLike) -> Tensor:
    """Degrees as radians: π/180 x."""
    return Multiply.apply(x, math.pi / 180)


@implements(np.rad2deg)
def rad2deg(x: TensorLike) -> Tensor:
    """Radians as degrees: 180/π x."""
    return Multiply.apply(x, 180 / math.pi)


NUMPY_FUNCTIONS |= {np.radians: deg2rad, np.degrees: rad2deg, np.positive: Identity.apply,
                    np.fabs: Abs.apply, np.float_power: Pow.apply}
