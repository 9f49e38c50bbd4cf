"""What all tests share."""

import os

# The tests' matrices are small: a second BLAS thread costs more than it gives, and on cores that
# other programs keep busy the two wait for each other. Set before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import scratchgen as sg  # noqa: E402


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    """The test runs once on each backend."""
    with sg.use_backend(request.param):
        yield request.param


@pytest.fixture
def rng():
    """NumPy's generator with a fixed seed: the tests' own numbers do not come from ours."""
    return np.random.default_rng(20240229)
