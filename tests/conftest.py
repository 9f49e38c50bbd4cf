"""What all tests share."""

import numpy as np
import pytest

import scratchgen as sg


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    """The test runs once on each backend."""
    with sg.use_backend(request.param):
        yield request.param


@pytest.fixture
def rng():
    """NumPy's generator with a fixed seed: the tests' own numbers do not come from ours."""
    return np.random.default_rng(20240229)
