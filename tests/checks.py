"""What several test files check with: gradients, closeness that NaN fails, bits and threads.

Gradients are checked in float64 by central differences along random directions.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np

import scratchgen as sg

STEP = 1e-5


def draw(*shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_gradients(f, arrays, order=1, rtol=1e-6, seed=0):
    """Check every derivative of ``f`` (tensors → one number) up to ``order``, input by input.

    Order 2 checks the gradient of a directional derivative of f that create_graph recorded.
    """
    rng = np.random.default_rng(seed)
    for i, array in enumerate(arrays):
        direction = rng.standard_normal(array.shape)
        tensors = [sg.tensor(a, requires_grad=True) for a in arrays]
        exact = float(np.sum(sg.grad(f(*tensors), tensors)[i].data * direction))
        plus, minus = (f(*[sg.tensor(a + s * STEP * direction if k == i else a, requires_grad=True)
                           for k, a in enumerate(arrays)]).item() for s in (1, -1))
        difference = (plus - minus) / (2 * STEP)
        scale = max(abs(exact), abs(difference), 1e-3)
        assert abs(exact - difference) <= rtol * scale, (
            f"input {i}: gradient {exact!r}, difference {difference!r}")
    if order > 1:
        assert_gradients(along(f, [rng.standard_normal(a.shape) for a in arrays]), arrays,
                         order - 1, rtol, seed + 1)


def along(f, directions):
    """The derivative of f along the directions, as a function that can be differentiated."""
    def derivative(*tensors):
        found = sg.grad(f(*tensors), list(tensors), create_graph=True)
        return sum((g * d).sum() for g, d in zip(found, directions, strict=True))
    return derivative


def weighted(f, seed=7):
    """f's output as one number whose every derivative is alive: Σ r (y + y²/2), r random."""
    def number(*tensors):
        y = f(*tensors)
        r = np.random.default_rng(seed).standard_normal(y.shape)
        return (r * (y + 0.5 * (y * y))).sum()
    return number


def assert_close(found, expected, rtol):
    """Equal shapes and elements, to ``rtol`` of the largest; NaN fails."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.isfinite(expected).all()
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale, equal_nan=False)


def assert_same_bits_for_two_threads(module):
    """``module.parallel_results()`` in a process of its own, as the thread count is set there."""
    program = f"""
import numba, {module} as module
numba.set_num_threads(1); one = [a.tobytes() for a in module.parallel_results()]
numba.set_num_threads(2); two = [a.tobytes() for a in module.parallel_results()]
assert one == two, [a == b for a, b in zip(one, two)]
print("equal", len(one))"""
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, "NUMBA_NUM_THREADS": "2"})
    assert done.returncode == 0 and done.stdout.startswith("equal"), done.stderr


def name_of(value):
    """The name that a parameter gives to a test: the same in every process, also of a lambda."""
    return getattr(value, "__name__", None) or str(value)
