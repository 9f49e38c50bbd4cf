"""The functions of compiled kernels: at most this many units in the last place off."""

import math

import numpy as np
import pytest
from scratchgen.kernels import vector_math
from scratchgen.kernels.vector_math import compile_formula

# measured over the whole range, rounded up; tests/test_vector_math.py holds them to it
LARGEST_ERROR = {"exp": 1, "log": 2, "log1p": 3, "expm1": 4, "tanh": 3}
LARGEST_ERROR_64 = {"exp": 1, "log": 2, "log1p": 3, "expm1": 4, "tanh": 3}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")       # the edges are tested
TINY = float(np.finfo(np.float32).tiny)


def all_floats(low, high, step):
    """Every step-th float32 from low to high (both positive), and their negatives."""
    first, last = np.float32([low, high]).view(np.int32)
    x = np.arange(first, last, step, dtype=np.int32).view(np.float32)
    return np.concatenate([-x[::-1], x])


DOMAIN = {"exp": lambda x: (x > -87.3) & (x < 88.7), "log": lambda x: x > 0,
          "log1p": lambda x: x > -1, "expm1": lambda x: x < 88.7, "tanh": lambda x: x == x}


@pytest.fixture(scope="module")
def compiled_functions():
    """Each function as a formula's ``np.f`` becomes it."""
    formulas = {                      # a line each: Numba's cache tells functions apart by line
        "exp": lambda x: np.exp(x),
        "log": lambda x: np.log(x),
        "log1p": lambda x: np.log1p(x),
        "expm1": lambda x: np.expm1(x),
        "tanh": lambda x: np.tanh(x)}
    return {name: compile_formula(f) for name, f in formulas.items()}


def units_off(y, exact):
    """|y − exact| in units of the last place of float32 at exact."""
    unit = np.spacing(np.maximum(np.abs(exact), TINY).astype(np.float32)).astype(np.float64)
    return np.abs(y.astype(np.float64) - exact) / unit


@pytest.mark.parametrize("name", LARGEST_ERROR)
def test_largest_error(name, compiled_functions):
    x = all_floats(1e-38, 3e38, 997)
    x = x[DOMAIN[name](x)]
    y = compiled_functions[name][np.dtype(np.float32)](x)
    with np.errstate(all="ignore"):
        error = units_off(y, getattr(np, name)(x.astype(np.float64)))
    assert y.dtype == np.float32 and len(x) > 1_000_000
    worst = np.argmax(error)
    assert error[worst] <= LARGEST_ERROR[name], (x[worst], error[worst])


@pytest.mark.parametrize("name", LARGEST_ERROR)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(name, dtype, compiled_functions):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1.0, 200.0 if dtype == np.float32 else 2000.0,
                  -200.0 if dtype == np.float32 else -2000.0, 1e-40, -1e-40], dtype)
    y = compiled_functions[name][np.dtype(dtype)](x)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.float64)).astype(dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=TINY)   # NaN only where NumPy has NaN


def test_edges_of_exp(compiled_functions):
    """Overflow where NumPy overflows; results below the smallest normal number may be zero."""
    exp = compiled_functions["exp"][np.dtype(np.float32)]
    largest = np.float32(math.log(float(np.finfo(np.float32).max)))
    edge = np.array([largest, np.nextafter(largest, np.float32(0)),
                     np.nextafter(largest, np.float32(np.inf)), 88.8, 1e30], np.float32)
    with np.errstate(over="ignore"):
        exact = np.exp(edge.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(exp(edge), exact, rtol=1e-6)
    below = np.array([-87.33655, -90, -103, -104, -1e30], np.float32)
    assert np.all((exp(below) >= 0) & (exp(below) <= 1.2e-38))


def test_subnormal_arguments_of_log(compiled_functions):
    x = np.float32([1e-45, 3e-42, 1.1e-38])
    y = compiled_functions["log"][np.dtype(np.float32)](x)
    np.testing.assert_allclose(y, np.log(x.astype(np.float64)), rtol=2e-7, equal_nan=False)


DOMAIN64 = {"exp": (-708, 709), "log": (1e-300, 1e300), "log1p": (-0.999, 1e10),
            "expm1": (-40, 709), "tanh": (-20, 20)}


@pytest.mark.parametrize("name", LARGEST_ERROR)
def test_largest_error_in_float64(name, compiled_functions, rng):
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("needs a long double of more than 53 bits for the exact values")
    low, high = DOMAIN64[name]
    x = np.concatenate([rng.uniform(low, high, 100_000), rng.uniform(-1, 1, 100_000),
                        10.0 ** rng.uniform(-300, 300, 50_000), rng.normal(size=50_000) / 1000])
    x = x[(x > low) & (x < high)]
    y = compiled_functions[name][np.dtype(np.float64)](x)
    exact = getattr(np, name)(x.astype(np.longdouble))
    error = np.abs(y - exact) / np.spacing(np.maximum(np.abs(exact), 1e-300).astype(np.float64))
    worst = np.argmax(error)
    assert error[worst] <= LARGEST_ERROR_64[name], (x[worst], error[worst])


def test_plain_versions_are_numpy(rng):
    x = rng.uniform(0.1, 5, 10)
    for name in LARGEST_ERROR:
        np.testing.assert_array_equal(getattr(vector_math, name)(x), getattr(np, name)(x))
