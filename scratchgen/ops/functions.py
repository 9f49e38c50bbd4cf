"""Elementary functions beyond those that the models use: trigonometric, hyperbolic, other bases.

On every backend they are NumPy's (on a GPU CuPy's) own; the derivative rules are written out.
"""

import math

import numpy as np

from ..engine.tensor import NUMPY_FUNCTIONS, plain
from .axes import as_real, as_tensor
from .elementwise import BROADCASTING, Abs, Divide, Identity, Multiply, Pow, Square, is_number
from .op import Op, implements

PUBLIC = ("reciprocal", "hypot", "nan_to_num", "deg2rad", "rad2deg")


# --- trigonometric -------------------------------------------------------------------------------

class Sin(Op, numpy=np.sin):
    """y = sin x, x in radians"""

    def formula(x):
        return np.sin(x)

    def backward_x(dy, x):
        return dy * np.cos(x)


class Cos(Op, numpy=np.cos):
    """y = cos x, x in radians"""

    def formula(x):
        return np.cos(x)

    def backward_x(dy, x):
        return -dy * np.sin(x)


class Tan(Op, numpy=np.tan):
    """y = tan x, x in radians; dy/dx = 1 + y²"""

    def formula(x):
        return np.tan(x)

    def backward_x(dy, y):
        return dy * (1 + y * y)


class Arcsin(Op, numpy=np.arcsin):
    """y = arcsin x; the derivative is ±∞ at ±1"""

    def formula(x):
        return np.arcsin(x)

    def backward_x(dy, x):
        return dy / np.sqrt(1 - x * x)


class Arccos(Op, numpy=np.arccos):
    """y = arccos x; the derivative is −∞ at ±1"""

    def formula(x):
        return np.arccos(x)

    def backward_x(dy, x):
        return -dy / np.sqrt(1 - x * x)


class Arctan(Op, numpy=np.arctan):
    """y = arctan x"""

    def formula(x):
        return np.arctan(x)

    def backward_x(dy, x):
        return dy / (1 + x * x)


class Arctan2(Op, numpy=np.arctan2):
    """y = the angle of the point (b, a) in (−π, π]: arctan(a/b) in the right quadrant"""

    expects = BROADCASTING

    def formula(a, b):
        return np.arctan2(a, b)

    def backward_a(dy, a, b):
        return dy * b / (a * a + b * b)

    def backward_b(dy, a, b):
        return -dy * a / (a * a + b * b)


# --- hyperbolic ----------------------------------------------------------------------------------

class Sinh(Op, numpy=np.sinh):
    """y = sinh x"""

    def formula(x):
        return np.sinh(x)

    def backward_x(dy, x):
        return dy * np.cosh(x)


class Cosh(Op, numpy=np.cosh):
    """y = cosh x"""

    def formula(x):
        return np.cosh(x)

    def backward_x(dy, x):
        return dy * np.sinh(x)


class Arcsinh(Op, numpy=np.arcsinh):
    """y = arsinh x"""

    def formula(x):
        return np.arcsinh(x)

    def backward_x(dy, x):
        return dy / np.sqrt(1 + x * x)


class Arccosh(Op, numpy=np.arccosh):
    """y = arcosh x, x >= 1; the derivative is ∞ at 1"""

    def formula(x):
        return np.arccosh(x)

    def backward_x(dy, x):
        return dy / (np.sqrt(x - 1) * np.sqrt(x + 1))


class Arctanh(Op, numpy=np.arctanh):
    """y = artanh x, |x| < 1"""

    def formula(x):
        return np.arctanh(x)

    def backward_x(dy, x):
        return dy / (1 - x * x)


# --- powers and logarithms of other bases --------------------------------------------------------

class Log2(Op, numpy=np.log2):
    """y = log₂ x"""

    def formula(x):
        return np.log2(x)

    def backward_x(dy, x):
        return dy / (x * math.log(2))


class Log10(Op, numpy=np.log10):
    """y = log₁₀ x"""

    def formula(x):
        return np.log10(x)

    def backward_x(dy, x):
        return dy / (x * math.log(10))


class Exp2(Op, numpy=np.exp2):
    """y = 2ˣ"""

    def formula(x):
        return np.exp2(x)

    def backward_x(dy, y):
        return dy * y * math.log(2)


class Cbrt(Op, numpy=np.cbrt):
    """y = ∛x, of negative numbers too; the derivative is ∞ at 0"""

    def formula(x):
        return np.cbrt(x)

    def backward_x(dy, y):
        return dy / (3 * y * y)


class Logaddexp(Op, numpy=np.logaddexp):
    """y = ln(eᵃ + eᵇ), without overflow; dy/da = e^(a − y)"""

    expects = BROADCASTING

    def formula(a, b):
        return np.logaddexp(a, b)

    def backward_a(dy, a, y):
        return dy * np.exp(a - y)

    def backward_b(dy, b, y):
        return dy * np.exp(b - y)


class Remainder(Op, numpy=np.remainder):
    """y = a mod b = a − b ⌊a/b⌋, with the sign of b; the derivatives are those between the jumps"""

    expects = BROADCASTING

    def formula(a, b):
        return np.remainder(a, b)

    def backward_a(dy):
        return dy

    def backward_b(dy, a, b):
        return -dy * np.floor_divide(plain(a), plain(b))


# --- made of other ops ---------------------------------------------------------------------------

@implements(np.reciprocal)
def reciprocal(x):
    """1/x. Any shape."""
    return Divide.apply(1.0, x)


@implements(np.hypot)
def hypot(a, b):
    """√(a² + b²), shapes that broadcast; the gradient at (0, 0) is taken as 0."""
    real = next((x.dtype for x in (a, b) if not is_number(x) and as_tensor(
        "hypot", x).dtype.kind == "f"), np.float32)
    a, b = (x if is_number(x) else as_real("hypot", x, real) for x in (a, b))
    return root(Square.apply(a) + Square.apply(b))


def root(x):
    """√x with the gradient 0 at 0, where that of √ is ∞: what a norm has among its subgradients."""
    zero = np.equal(plain(x), 0)
    return np.where(zero, 0, np.sqrt(np.where(zero, 1, x)))


@implements(np.nan_to_num)
def nan_to_num(x, *, nan=0.0, posinf=None, neginf=None):
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
def deg2rad(x):
    """Degrees as radians: π/180 x."""
    return Multiply.apply(x, math.pi / 180)


@implements(np.rad2deg)
def rad2deg(x):
    """Radians as degrees: 180/π x."""
    return Multiply.apply(x, 180 / math.pi)


NUMPY_FUNCTIONS |= {np.radians: deg2rad, np.degrees: rad2deg, np.positive: Identity.apply,
                    np.fabs: Abs.apply, np.float_power: Pow.apply}
