"""Threads, memory and precision of the compiled kernels: one pool, the same bits, no waste."""

import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from scratchgen.kernels import blas, compiler, gemm
from test_parity import CASES, KERNELS, copies, versions

import scratchgen as sg
from scratchgen.optim import make

ROOT = pathlib.Path(__file__).parents[1]
buffers = sys.modules["scratchgen.memory"].buffers
MODELS = {"dae": (sg.models.DAE, {"hidden": 300}), "vae": (sg.models.VAE, {"hidden": 300}),
          "gan": (sg.models.GAN, {}), "dae conv": (sg.models.DAE, {"arch": "conv"}),
          "vae conv": (sg.models.VAE, {"arch": "conv"}),
          "dcgan": (sg.models.GAN, {"arch": "conv", "channels": 16})}
# The only kernels with double precision in them: they add up partial sums of a whole batch.
DOUBLE = {"activation_backward_numba", "add_blocks", "merge"}


def trainer(name, batch=40):
    """(the model, what one training step is)."""
    kind, options = MODELS[name]
    model = kind(kind.Config(**options))
    x = np.random.default_rng(0).random((batch, 28, 28, 1), np.float32)
    streams = sg.Streams(0)
    optimisers = {n: make("adam", network, 1e-3) for n, network in model.networks().items()}
    return model, lambda: model.training_step(x, streams, optimisers)


def weights_after_training():
    """Bytes of each model's weights after three steps, in one line each; run in a process."""
    for name in MODELS:
        model, step = trainer(name)
        for _ in range(3):
            step()
        digest = np.concatenate([p.data.ravel() for p in model.parameters()])
        print(name, digest.tobytes().hex()[:4000], float(digest.sum(dtype=np.float64)))


def in_a_process(code, **environment):
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600,
                          env={**clean, "PYTHONPATH": os.pathsep.join(paths), **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_training_makes_the_same_bits_on_one_and_two_threads():
    """However many threads the kernels have, or BLAS was given."""
    code = "import test_threads as t; t.weights_after_training()"
    one = in_a_process(code, NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="2")
    assert len(one.splitlines()) == len(MODELS)
    assert one == in_a_process(code, NUMBA_NUM_THREADS="2", OPENBLAS_NUM_THREADS="1")
    assert one == in_a_process(code, NUMBA_NUM_THREADS="2")


def test_blas_keeps_to_one_thread():
    """The kernels' own threads call it; its own would fight with them for the cores."""
    found = blas.find()
    if found is None or not found.name.startswith("scipy_"):
        pytest.skip("NumPy's BLAS is not the OpenBLAS of its wheels, whose threads can be counted")
    code = """
import ctypes, numpy as np, scratchgen as sg
from scratchgen.kernels import blas
library = next(l for l in blas.libraries() if hasattr(l, "scipy_openblas_get_num_threads64_"))
library.scipy_openblas_set_num_threads64_(2)
count = library.scipy_openblas_get_num_threads64_
before = count()
sg.dense(np.ones((3, 4), np.float32), np.ones((4, 5), np.float32))
print(before, count())"""
    assert in_a_process(code).split() == ["2", "1"]


@pytest.mark.slow
def test_without_a_blas_to_call_products_are_loops(tmp_path):
    """Where NumPy's BLAS does not show itself: the same values, by plain loops."""
    code = """
import numpy as np
from scratchgen.kernels import blas
blas.find = lambda: None
from scratchgen.kernels import gemm
rng, kernel = np.random.default_rng(0), gemm.matmul_numba.launcher()
for m, k, n in ((5, 7, 3), (0, 3, 2), (70, 90, 170)):
    for ta in (False, True):
        for tb in (False, True):
            a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
            c = np.full((m, n), np.nan)
            kernel(np.ascontiguousarray(a.T if ta else a), np.ascontiguousarray(b.T if tb else b),
                   c, ta, tb)
            assert np.allclose(c, a @ b, rtol=1e-12, atol=1e-12), (m, k, n, ta, tb)
print("equal")"""
    assert in_a_process(code, NUMBA_CACHE_DIR=str(tmp_path)) == "equal\n"


def test_two_python_threads_compute_what_one_does():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(400, 400)).astype(np.float32) for _ in range(2))
    expected, found = np.empty_like(a), [np.empty_like(a) for _ in range(4)]
    kernel = gemm.matmul_numba.launcher()
    kernel(a, b, expected, False, False)

    def repeat(c):
        for _ in range(30):
            kernel(a, b, c, False, False)
    threads = [threading.Thread(target=repeat, args=(c,)) for c in found]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(c.tobytes() == expected.tobytes() for c in found)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_like_the_last_allocates_no_arrays(name):
    """Results are computed into arrays that earlier steps have let go."""
    _, step = trainer(name)
    for _ in range(3):
        step()
    made = buffers.made
    for _ in range(5):
        step()
    assert buffers.made == made
    assert made > 0


def test_an_array_in_use_is_never_lent_again():
    shape, kept = (64, 128), []
    for _ in range(5):
        array = sys.modules["scratchgen.memory"].empty(shape, np.float32)
        assert not any(np.shares_memory(array, other) for other in kept)
        kept.append(array[3:, ::2].T)              # a view is enough to hold it
    addresses = {view.base.ctypes.data for view in kept}
    del array
    kept.clear()
    assert sys.modules["scratchgen.memory"].empty(shape, np.float32).ctypes.data in addresses


def test_what_nobody_uses_is_let_go_when_much_is_kept(monkeypatch):
    memory = sys.modules["scratchgen.memory"]
    monkeypatch.setattr(memory, "KEPT_AT_MOST", 1 << 20)
    mine = memory.Buffers()
    used = mine.lend((1000, 100), np.dtype(np.float32))
    for width in range(200, 260):
        mine.lend((1000, width), np.dtype(np.float32))
    assert mine.bytes <= (1 << 20) + 1000 * 260 * 4
    assert any(used is array for array in mine.kept[(1000, 100), np.dtype(np.float32)])


def test_kernels_of_single_precision_compute_in_single_precision():
    """The compiled types of every variable of every kernel, called with float32."""
    checked = 0
    for family, kernel in KERNELS:
        version = versions(family)[kernel].get("numba")
        if version is not None:
            case = list(CASES[family, kernel](np.random.default_rng(1), np.float32))[-1]
            version(*copies(case))
    for module in {sys.modules[f"scratchgen.kernels.{family}"] for family, _ in KERNELS}:
        for function in vars(module).values():
            if not isinstance(function, compiler.compiled):
                continue
            for dispatcher in function._dispatchers.values():
                for signature in dispatcher.signatures:
                    if "float32" in str(signature) and "float64" not in str(signature):
                        checked += 1
                        found = doubles(dispatcher.overloads[signature].type_annotation)
                        assert bool(found) == (function.__name__ in DOUBLE), function.__name__
    assert checked >= 20


def doubles(annotation):
    """What a compiled function computes in double precision, by Numba's listing; numbers that
    stand in the source are doubles until they are given the arrays' precision."""
    typed = re.findall(r"# +(\S+) = (.*) :: (.*)$", str(annotation), re.MULTILINE)
    assert typed, "Numba lists no types"
    return [name for name, how, kind in typed if "float64" in kind.rpartition("->")[2]
            and "class" not in kind and not how.startswith(("global", "const"))]
