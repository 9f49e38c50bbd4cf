"""What all tests share."""

import os

# The tests' matrices are small: a second BLAS thread costs more than it gives, and on cores that
# other programs keep busy the two wait for each other. Set before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from emulated_gpu.device import EmulatedGpu  # noqa: E402
from emulated_gpu.emulator import available  # noqa: E402
from scratchgen.kernels import cuda  # noqa: E402

import scratchgen as sg  # noqa: E402
from scratchgen.engine.memory import array_module  # noqa: E402

EMULATED = EmulatedGpu()


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    """The test runs once on each backend of the CPU."""
    with sg.use_backend(request.param):
        yield request.param


@pytest.fixture
def gpu(monkeypatch):
    """The GPU if there is one, else one that is emulated on the CPU."""
    try:
        return cuda.find_gpu()
    except sg.UserError:
        if not available():
            pytest.skip("no GPU, and none can be emulated here: that needs Linux and g++")
        monkeypatch.setattr(cuda, "replacement", EMULATED)
        with sg.use_backend("cuda"):
            array_module()                             # from here on its arrays are known
        return EMULATED


@pytest.fixture
def rng():
    """NumPy's generator with a fixed seed: the tests' own numbers do not come from ours."""
    return np.random.default_rng(20240229)
