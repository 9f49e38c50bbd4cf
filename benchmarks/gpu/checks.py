"""Part "checks": every CUDA kernel against its NumPy version, and the same bits in every run.

The arguments are those of ``tests/test_parity.py``; so are the tolerances, relative to the largest
element. Each comparison is written so that NaN fails.
"""

import contextlib
import functools
import inspect
import sys
import types

import numpy as np

from ..processes import ROOT

GEMM_RUNGS = ("naive", "tiled", "register_tiled", "split", "cublas", "auto")
CONVOLUTIONS = ("naive", "implicit_gemm", "auto")
TF32 = 2e-3                                            # · √K, absolute, for N(0, 1) factors
RUNS = 3


# --- the cases -----------------------------------------------------------------------------------

@functools.cache
def parity():
    """The module ``tests/test_parity.py``; a fake replaces pytest if it is not installed."""
    path = str(ROOT / "tests")
    if path not in sys.path:
        sys.path.insert(0, path)
    try:
        import pytest  # noqa: F401
    except ImportError:
        sys.modules["pytest"] = fake_pytest()
    import test_parity
    return test_parity


def fake_pytest():
    """As much of pytest as the import of a test file touches: decorators that do nothing."""
    module = types.ModuleType("pytest")

    class Mark:
        def __getattr__(self, name):
            return lambda *args, **options: (
                args[0] if len(args) == 1 and callable(args[0]) and not options else lambda f: f)

    module.mark = Mark()
    module.fixture = lambda *args, **options: (
        args[0] if args and callable(args[0]) else lambda f: f)
    module.raises = lambda *args, **options: contextlib.nullcontext()
    module.param = lambda *values, **options: values[0] if len(values) == 1 else values
    module.importorskip = __import__
    return module


def cuda_kernels():
    """(family, kernel) of all that have a CUDA version and cases."""
    test = parity()
    return [(f, k) for f, k in test.KERNELS
            if "cuda" in test.versions(f)[k] and (f, k) in test.CASES]


def cases(family, kernel, dtype):
    """Tuples of arguments."""
    return parity().CASES[family, kernel](np.random.default_rng(1), dtype)


def on_device(device, version, arguments):
    """The arguments of a CUDA version: arrays in the GPU's memory. A draw's counter is one there,
    for a recorded step moves on."""
    names = inspect.signature(version).parameters
    arrays = [np.array([a], np.uint64) if name == "counter" and not np.ndim(a) else a
              for name, a in zip(names, arguments, strict=True)]
    return [device.xp.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays]


def run_on(device, version, arguments):
    """What a CUDA version leaves in its arrays, on the host, by position."""
    passed = on_device(device, version, arguments)
    version(*passed)
    return {i: device.xp.asnumpy(a) for i, a in enumerate(passed)
            if isinstance(arguments[i], np.ndarray)}


def error_of(found, expected):
    """The largest difference, relative to the largest element or to 1; inf if they do not fit.

    What is not finite must be the same in both: an infinity or NaN that was expected.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=expected.dtype.kind == "f"):
        return float("inf")
    if not finite.any():
        return 0.0
    found, expected = found[finite].astype(np.float64), expected[finite]
    error = float(np.max(np.abs(found - expected)) / max(1, np.max(np.abs(expected))))
    return error if error >= 0 else float("inf")       # NaN


# --- items ---------------------------------------------------------------------------------------

def agrees(device, family, kernel):
    """The CUDA version beside NumPy's, over all cases and both precisions."""
    test = parity()
    version, reference = (test.versions(family)[kernel][b] for b in ("cuda", "numpy"))
    exact = {family, f"{family}.{kernel}"} & set(test.EXACT)
    found = {"cases": 0}
    for dtype, tolerance in test.PRECISIONS.items():
        worst = 0.0
        for arguments in cases(family, kernel, dtype):
            expected = test.copies(arguments)
            reference(*expected)
            for i, array in run_on(device, version, test.copies(arguments)).items():
                worst = max(worst, error_of(array, expected[i]))
            found["cases"] += 1
        found[np.dtype(dtype).name] = {"worst": worst, "tolerance": 0 if exact else tolerance}
    found["ok"] = found["cases"] > 0 and all(
        found[name]["worst"] <= found[name]["tolerance"] for name in ("float32", "float64"))
    return found


def repeats(device, family, kernel):
    """Several runs on the largest cases leave the same bytes."""
    test = parity()
    version, differ = test.versions(family)[kernel]["cuda"], 0
    every = list(cases(family, kernel, np.float32))
    largest = sorted(every, key=lambda case: sum(np.size(a) for a in case))[-2:]
    for arguments in largest:
        bytes_of = {b"".join(a.tobytes() for a in run_on(
            device, version, test.copies(arguments)).values()) for _ in range(RUNS)}
        differ += len(bytes_of) > 1
    return {"cases": len(largest), "runs": RUNS, "ok": differ == 0 and len(largest) > 0}


def rung_agrees(device, choose, names, kernels):
    """Each rung beside NumPy over the cases of some kernels: {rung: worst error, …}."""
    found, test = {}, parity()
    for name in names:
        with choose(name):
            results = [agrees(device, *kernel) for kernel in kernels]
        found[name] = {d: max(r[d]["worst"] for r in results) for d in ("float32", "float64")}
        found[name]["ok"] = all(r["ok"] for r in results)
    return {"rungs": found, "ok": all(r["ok"] for r in found.values()),
            "tolerance": {np.dtype(d).name: t for d, t in test.PRECISIONS.items()}}


def tensor_cores_agree(device):
    """The TF32 rungs: their error grows with the root of the sum's length."""
    from scratchgen.kernels.gemm import matmul_cuda
    from scratchgen.kernels.gemm_chooser import WARPGROUPS, allow_tf32, use_gemm
    worst, count = 0.0, 0
    rungs = ("tensor_core",) + ("wgmma",) * (device.capability == WARPGROUPS)
    for rung in rungs:
        with use_gemm(rung), allow_tf32(True):
            for a, b, c, ta, tb in cases("gemm", "matmul", np.float32):
                k = a.shape[0] if ta else a.shape[1]
                exact = (a.T if ta else a).astype(float) @ (b.T if tb else b).astype(float)
                found = run_on(device, matmul_cuda, (a, b, c, ta, tb))[2]
                error = np.max(np.abs(found - exact), initial=0) / max(1, k) ** 0.5
                worst, count = max(worst, float(error) if error >= 0 else float("inf")), count + 1
    return {"cases": count, "worst": worst, "tolerance": TF32, "ok": worst <= TF32}


def items(device):
    """name → function of this part."""
    from scratchgen.kernels.conv2d_chooser import use_convolution
    found = {}
    for family, kernel in cuda_kernels():
        found[f"parity {family}.{kernel}"] = functools.partial(agrees, device, family, kernel)
    for family, kernel in cuda_kernels():
        found[f"same bits {family}.{kernel}"] = functools.partial(repeats, device, family, kernel)

    def gemm_rungs():
        from scratchgen.kernels.gemm_chooser import use_gemm
        return rung_agrees(device, use_gemm, GEMM_RUNGS, [("gemm", "matmul")])

    convolutions = [("conv2d", k) for k in ("forward", "backward_x", "backward_w")]
    return found | {
        "rungs of the product": gemm_rungs,
        "tensor cores": lambda: tensor_cores_agree(device),
        "rungs of the convolution": lambda: rung_agrees(device, use_convolution, CONVOLUTIONS,
                                                        convolutions)}
