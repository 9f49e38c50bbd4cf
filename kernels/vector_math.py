"""exp, log, tanh … for compiled kernels, written so that the compiler can vectorise them.

A call of the C library's ``expf`` computes one number and takes ten times as long as the arithmetic
below. In float32 each function is a range reduction and a short series, so a loop over an array is
vectorised; in float64 (used to check gradients) the C library is called. Measured errors
are in ``tests/test_vector_math.py``. Subnormal results of ``exp`` are flushed to zero.
"""

import functools
import math
import types

import numpy as np

from .compiler import CompiledUfuncs, Overloaded, by_precision, compiled

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
LOG2_E = F(1.4426950408889634)
# ln 2 in two parts: the first has few enough bits that n * LN2_HIGH is exact for |n| < 2^11.
LN2_HIGH, LN2_LOW = F(0.693145751953125), F(1.4286068203094173e-06)
EXP_LARGEST, EXP_SMALLEST = F(88.722835), F(-87.33654)
INFINITY = F(np.inf)
SQRT_HALF = F(0.7071067811865476)
E2, E3, E4, E5, E6, E7 = (F(1 / math.factorial(k)) for k in range(2, 8))
A3, A5, A7, A9 = F(1 / 3), F(1 / 5), F(1 / 7), F(1 / 9)
T3, T5, T7, T9, T11 = F(-1 / 3), F(2 / 15), F(-17 / 315), F(62 / 2835), F(-1382 / 155925)


@compiled
def exp_float32(x):
    """eˣ = 2ⁿ eʳ with n = round(x / ln 2), |r| ≤ ln(2)/2, and eʳ by its Taylor series to r⁷."""
    bounded = min(max(x, EXP_SMALLEST), EXP_LARGEST)
    n = np.floor(bounded * LOG2_E + HALF)
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    series = E7 * r + E6
    series = series * r + E5
    series = series * r + E4
    series = series * r + E3
    series = series * r + E2
    series = series * r * r + r + ONE
    # 2ⁿ in two factors, one after the other: 2¹²⁸ is no float32 although the result may be one.
    half_n = np.int32(n) >> 1
    rest_n = np.int32(n) - half_n
    power, rest = np.int32((half_n + 127) << 23).view(F), np.int32((rest_n + 127) << 23).view(F)
    y = series * power * rest if x > EXP_SMALLEST else ZERO
    y = y if x <= EXP_LARGEST else INFINITY
    return y if x == x else x                                    # NaN stays NaN


@compiled
def log_float32(x):
    """ln x = e ln 2 + ln m, x = 2ᵉ m, √½ ≤ m < √2, ln m = 2 artanh(s), s = (m − 1)/(m + 1)."""
    tiny = x < F(1.17549435e-38)
    scaled = x * (F(8388608.0) if tiny else ONE)                 # subnormals: times 2^23
    bits = F(scaled).view(np.int32)
    e = (bits >> 23) - 126
    m = np.int32((bits & 0x007FFFFF) | 0x3F000000).view(F)       # in [½, 1)
    low = m < SQRT_HALF
    m = m * TWO if low else m
    e = e - 1 if low else e
    e = e - 23 if tiny else e
    s = (m - ONE) / (m + ONE)
    q = s * s
    series = ((A9 * q + A7) * q + A5) * q + A3
    y = F(e) * LN2_HIGH + (F(e) * LN2_LOW + TWO * (s + s * q * series))
    y = y if x > ZERO else (-INFINITY if x == ZERO else F(np.nan))
    return y if x < INFINITY else x                              # +inf and NaN stay themselves


@compiled
def log1p_float32(x):
    """ln(1 + x), corrected for the rounding of 1 + x: ln u + (x − (u − 1))/u, u = 1 + x."""
    u = ONE + x
    regular = (u > ZERO) & (u < INFINITY)
    correction = (x - (u - ONE)) / (u if regular else ONE)
    return log_float32(u) + (correction if regular else ZERO)


@compiled
def expm1_float32(x):
    """eˣ − 1: the series without its leading 1 near zero, eˣ − 1 elsewhere."""
    series = E7 * x + E6
    series = series * x + E5
    series = series * x + E4
    series = series * x + E3
    series = series * x + E2
    return series * x * x + x if abs(x) < F(0.35) else exp_float32(x) - ONE


@compiled
def tanh_float32(x):
    """tanh x = (1 − e⁻²ᵃ)/(1 + e⁻²ᵃ) with the sign of x, a = |x|; its own series near zero."""
    a = abs(x)
    q = x * x
    series = (((T11 * q + T9) * q + T7) * q + T5) * q + T3
    e = exp_float32(-TWO * a)
    large = (ONE - e) / (ONE + e)
    signed = large if x >= ZERO else -large
    return x + x * q * series if a < F(0.3) else signed


@by_precision(exp_float32)
def exp(x):
    """eˣ. This and the next four: the series above in float32, the C library in float64."""
    return np.exp(x)


@by_precision(log_float32)
def log(x):
    """Natural logarithm."""
    return np.log(x)


@by_precision(log1p_float32)
def log1p(x):
    """ln(1 + x), accurate for small x."""
    return np.log1p(x)


@by_precision(expm1_float32)
def expm1(x):
    """eˣ − 1, accurate for small x."""
    return np.expm1(x)


@by_precision(tanh_float32)
def tanh(x):
    """Hyperbolic tangent."""
    return np.tanh(x)


def choose_one(condition, x, y):
    """The version of ``where`` for numbers."""
    return lambda condition, x, y: x if condition else y


def where(condition, x, y):
    """x where the condition holds, else y."""
    return np.where(condition, x, y)


where = Overloaded(where, lambda: choose_one)


@functools.cache
def numpy_of_formulas():
    """The module that a compiled formula sees as ``np``."""
    module = types.ModuleType("numpy_of_formulas")
    for name in ("exp", "log", "log1p", "expm1", "tanh", "where"):
        setattr(module, name, globals()[name].registered)
    for name in ("sqrt", "abs", "maximum", "minimum", "sign", "floor"):
        setattr(module, name, getattr(np, name))
    return module


def compile_formula(formula):
    """NumPy ufuncs, one a dtype, that evaluate an elementwise ``formula`` in one pass.

    The formula is plain NumPy; here its ``np`` is the module above and its literals are given the
    precision of the arguments, so that no float64 creeps into a float32 pass.
    """
    return CompiledUfuncs(formula, {"np": numpy_of_formulas()})
