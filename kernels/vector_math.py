"""exp, log, tanh … for compiled kernels: the same bits on every processor, and vectorised.

A call of the C library's ``expf`` computes one number, takes ten times as long as the arithmetic
below, and its last bit depends on the library's version; NumPy's functions depend on the vector
unit. Here each function is a range reduction and a short series in plain additions and
multiplications, which every processor rounds in the same way, so a loop over an array can be
vectorised. Measured errors are in ``tests/test_vector_math.py``. Subnormal results of ``exp`` are
flushed to zero.
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


# --- float64: the same with longer series --------------------------------------------------------

D = np.float64
# ln 2 in two parts: n * LN2_HIGH_64 is exact for |n| < 2^20.
LN2_HIGH_64, LN2_LOW_64 = 0.693147180369123816490, 1.90821492927058770002e-10
LARGEST_64, SMALLEST_64 = 709.782712893384, -708.3964185322641
SMALLEST_NORMAL, TWO_52 = 2.2250738585072014e-308, 2.0**52
D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12, D13, D14, D15 = (
    1 / math.factorial(k) for k in range(2, 16))


@compiled
def powers_64(r):
    """(eʳ − 1 − r)/r² for |r| < 0.4, by the Taylor series to r¹⁵."""
    series = D15 * r + D14
    series = series * r + D13
    series = series * r + D12
    series = series * r + D11
    series = series * r + D10
    series = series * r + D9
    series = series * r + D8
    series = series * r + D7
    series = series * r + D6
    series = series * r + D5
    series = series * r + D4
    series = series * r + D3
    return series * r + D2


@compiled
def exp_float64(x):
    """As ``exp_float32``."""
    bounded = min(max(x, SMALLEST_64), LARGEST_64)
    n = np.floor(bounded * 1.4426950408889634 + 0.5)
    r = (bounded - n * LN2_HIGH_64) - n * LN2_LOW_64
    series = powers_64(r) * r * r + r + 1.0
    half_n = np.int64(n) >> 1
    rest_n = np.int64(n) - half_n
    power, rest = np.int64((half_n + 1023) << 52).view(D), np.int64((rest_n + 1023) << 52).view(D)
    y = series * power * rest if x > SMALLEST_64 else 0.0
    y = y if x <= LARGEST_64 else np.inf
    return y if x == x else x


@compiled
def log_float64(x):
    """As ``log_float32``."""
    tiny = x < SMALLEST_NORMAL
    bits = D(x * (TWO_52 if tiny else 1.0)).view(np.int64)
    e = (bits >> 52) - 1022
    m = np.int64((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000).view(D)
    low = m < 0.7071067811865476
    m = m * 2.0 if low else m
    e = e - 1 if low else e
    e = e - 52 if tiny else e
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    series = q / 23 + 1 / 21
    series = series * q + 1 / 19
    series = series * q + 1 / 17
    series = series * q + 1 / 15
    series = series * q + 1 / 13
    series = series * q + 1 / 11
    series = series * q + 1 / 9
    series = series * q + 1 / 7
    series = series * q + 1 / 5
    series = series * q + 1 / 3
    y = D(e) * LN2_HIGH_64 + (D(e) * LN2_LOW_64 + 2.0 * (s + s * q * series))
    y = y if x > 0.0 else (-np.inf if x == 0.0 else np.nan)
    return y if x < np.inf else x


@compiled
def log1p_float64(x):
    """As ``log1p_float32``."""
    u = 1.0 + x
    regular = (u > 0.0) & (u < np.inf)
    correction = (x - (u - 1.0)) / (u if regular else 1.0)
    return log_float64(u) + (correction if regular else 0.0)


@compiled
def expm1_float64(x):
    """As ``expm1_float32``."""
    near = powers_64(x) * x * x + x
    return near if abs(x) < 0.35 else exp_float64(x) - 1.0


@compiled
def tanh_float64(x):
    """tanh x = −t/(t + 2) with the sign of x, t = e⁻²ᵃ − 1, a = |x|."""
    t = expm1_float64(-2.0 * abs(x))
    y = -t / (t + 2.0)
    return y if x > 0.0 else (-y if x < 0.0 else x)


# --- by the precision of the argument ------------------------------------------------------------

@by_precision(exp_float32, exp_float64)
def exp(x):
    """eˣ."""
    return np.exp(x)


@by_precision(log_float32, log_float64)
def log(x):
    """Natural logarithm."""
    return np.log(x)


@by_precision(log1p_float32, log1p_float64)
def log1p(x):
    """ln(1 + x), accurate for small x."""
    return np.log1p(x)


@by_precision(expm1_float32, expm1_float64)
def expm1(x):
    """eˣ − 1, accurate for small x."""
    return np.expm1(x)


@by_precision(tanh_float32, tanh_float64)
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
