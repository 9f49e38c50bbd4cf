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


# --- long proofs ---------------------------------------------------------------------------------

LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true",
                     help="run the tests marked as long, and no others (make proofs)")


def pytest_collection_modifyitems(config, items):
    """Deselect the long tests, or with --long all others."""
    long = [item for item in items if item.get_closest_marker("long")]
    short = [item for item in items if not item.get_closest_marker("long")]
    items[:], others = (long, short) if config.getoption("--long") else (short, long)
    config.hook.pytest_deselected(items=others)
    config.stash[LEFT_OUT] = len(long)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):        # in a worker of pytest-xdist
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Every worker collects all tests, so one count is as good as another."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter, config):
    count = config.stash.get(LEFT_OUT, 0)
    if count and not config.getoption("--long"):
        terminalreporter.write_line(f"{count} long tests were left out; make proofs runs them "
                                    "(or: pytest --long)")


# --- fixtures ------------------------------------------------------------------------------------


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
