"""Training makes the same bytes on every processor: compiled for others, and run here.

Numba compiles for the processor that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name, with a cache of
its own; NPY_DISABLE_CPU_FEATURES restricts the vector units that NumPy uses, OPENBLAS_CORETYPE the
kernels of OpenBLAS. What another processor would compute differently shows as other weights,
optimiser states or losses after twelve steps.
"""

import json
import os
import pathlib
import platform
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ["tied dae", "peppered dae", "free vae", "iwae", "wgan-gp", "r1", "sdae"]

# A processor without AVX: other vectors, no fused multiply-add instruction, another number of
# threads. One with AVX2, as most have. NumPy's and OpenBLAS's choices follow.
PROCESSORS = {
    "without AVX": {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+sse4.2,+ssse3,+popcnt",
                    "NUMBA_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
                    "OPENBLAS_CORETYPE": "Nehalem"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES":
             "+avx2,+fma,+avx,+sse4.2,+ssse3,+popcnt,+bmi,+bmi2,+lzcnt",
             "NPY_DISABLE_CPU_FEATURES": "X86_V4", "OPENBLAS_CORETYPE": "Haswell"},
}
CHILD = """
import hashlib, json, sys
import numpy as np
from test_capture import train
import scratchgen as sg

found = {}
for form, dtype in json.loads(sys.argv[1]):
    losses, weights, state, counters, step = train(form, True, dtype=np.dtype(dtype))
    assert step.recordings
    for what, value in (("losses", losses), ("weights", weights), ("optimisers", state)):
        found[f"{what} of {form}, {dtype}"] = hashlib.sha256(repr(value).encode()).hexdigest()
for name in sg.data.densities.DENSITIES:
    points = sg.data.load(name, limit=100)
    found[f"points of {name}"] = hashlib.sha256(points.train_points.tobytes()).hexdigest()
print(json.dumps(found))
"""


def digests(environment, forms, dtypes=("float32",)):
    """What the child process has found: name → hash."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    jobs = [(form, dtype) for form in forms for dtype in dtypes]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, json.dumps(jobs)], text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"),
                         reason="compiles for other x86 processors")


@x86
def test_training_without_avx_makes_the_same_bytes(tmp_path):
    other = digests({**PROCESSORS["without AVX"], "NUMBA_CACHE_DIR": str(tmp_path)}, SMALL)
    assert other == digests({}, SMALL) and len(other) > 3 * len(SMALL)


@x86
@pytest.mark.long
@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_model_makes_the_same_bytes(processor, tmp_path):
    from test_capture import FORMS
    both = "float32", "float64"
    other = digests({**PROCESSORS[processor], "NUMBA_CACHE_DIR": str(tmp_path)}, FORMS, both)
    here = digests({}, FORMS, both)
    assert {name for name in here if other[name] != here[name]} == set()
    assert len(here) > 6 * len(FORMS)
