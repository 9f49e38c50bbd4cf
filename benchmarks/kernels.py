"""The kernels at the workloads' shapes: the NumPy version and the Numba version, compared.

    python -m benchmarks kernels [--quick] [--only FAMILY.KERNEL] [--out DIR]

Both versions are called with the same arrays and compared before and after the timing, in float32.
``--quick`` compares only.
"""

import functools
import importlib
import inspect
import sys

import numpy as np
from scratchgen.kernels.bce import ROWS
from scratchgen.kernels.dense import ACTIVATIONS, IDENTITY

from scratchgen.engine.memory import reuse_freed_memory

from . import ladder, machine, records, timing
from .timing import digits, milliseconds

RTOL = 1e-5                       # of an array's largest element; all in float32
SECONDS = 2                       # of timing for each kernel
CONV = ((4, 4), (2, 2), (1, 1), (1, 1))                # kernel, stride, padding, dilation
POOL = ((2, 2), (2, 2), (0, 0))                        # kernel, stride, padding
P = 784 * 1000 + 1000 + 1000 * 784 + 784   # parameters of the denoising autoencoder
ADAM = (1e-3, 0.9, 0.1, 0.999, 1e-3, 0.1, 1e-8, 0, 1)  # lr … shrink, as kernels/optimizer.py says


class Draw:
    """Arrays for one kernel; uninitialised results are NaN, so that an unwritten one is noticed."""

    def __init__(self):
        self.rng = np.random.default_rng(5)

    def normal(self, *shape, scale=1):
        return self.rng.standard_normal(shape, np.float32) * np.float32(scale)

    def positive(self, *shape):
        return self.rng.random(shape, np.float32) + np.float32(0.5)

    def images(self, *shape):
        """Integers, so that maxima tie."""
        return self.rng.integers(-3, 3, shape).astype(np.float32)

    def words(self, n):
        return self.rng.integers(0, 2**32, n, dtype=np.uint32)

    def empty(self, *shape):
        return np.full(shape, np.nan, np.float32)


SIGMOID, TANH, LEAKY = (ACTIVATIONS[name] for name in ("sigmoid", "tanh", "leaky_relu"))

CASES = {}                        # family.kernel → (shape as text, unit, work, arguments)


def case(name, text, arguments, flops=None, moved=None):
    """``arguments``: of a Draw, those of the kernel. Work is flops, or float32 numbers moved."""
    CASES[name] = (text, *(("GFLOP/s", flops) if flops else ("GB/s", 4 * moved)), arguments)


# --- dense, gemm: the VAE's first layer, the denoising autoencoder's hidden units ----------------

FLOPS = 2 * 100 * 784 * 500
case("dense.forward", "x 100×784, w 784×500, tanh", lambda d: (
    d.normal(100, 784), d.normal(784, 500, scale=1 / 28), False, d.normal(500), TANH,
    d.empty(100, 500)), flops=FLOPS)
case("gemm.matmul", "dw = xᵀ dy, x 100×784, dy 100×500", lambda d: (
    d.normal(100, 784), d.normal(100, 500), d.empty(784, 500), True, False), flops=FLOPS)
case("gemm.matmul_add", "dw += xᵀ dy, x 20×1000, dy 20×1000", lambda d: (
    d.normal(20, 1000), d.normal(20, 1000), d.normal(1000, 1000), True, False),
    flops=2 * 20 * 1000 * 1000)
case("gemm.matmul_each", "a 64×49×32, b 64×32×49", lambda d: (
    d.normal(64, 49, 32), d.normal(64, 32, 49), d.empty(64, 49, 49), False, False),
    flops=2 * 64 * 49 * 32 * 49)
for name in ("softmax", "log_softmax"):
    case(f"reduce.{name}", "x 1000×100", lambda d: (d.normal(1000, 100), d.empty(1000, 100)),
         moved=2 * 1000 * 100)
case("reduce.logsumexp", "x 1000×100", lambda d: (d.normal(1000, 100), d.empty(1000)),
     moved=1000 * 101)
case("dense.bias_activation", "y 128×1000, sigmoid", lambda d: (
    d.normal(128, 1000), d.normal(1000), SIGMOID), moved=2 * 128 * 1000)
case("dense.activation_backward", "dy 128×1000, sigmoid", lambda d: (
    d.normal(128, 1000), d.positive(128, 1000), SIGMOID, d.empty(128, 1000), d.empty(1000)),
    moved=3 * 128 * 1000)

# --- conv2d, batch norm: DCGAN's second convolution, its largest batch norm; pool ----------------

FLOPS = 2 * 64 * 7 * 7 * 4 * 4 * 64 * 128
case("conv2d.forward", "x 64×14×14×64 → 128, 4×4/2, leaky ReLU", lambda d: (
    d.normal(64, 14, 14, 64), d.normal(1024, 128, scale=1 / 32), d.normal(128), LEAKY, *CONV,
    d.empty(64, 7, 7, 128)), flops=FLOPS)
case("conv2d.backward_x", "dy 64×7×7×128 → 64, 4×4/2", lambda d: (
    d.normal(64, 7, 7, 128), d.normal(128, 1024, scale=1 / 32), d.normal(64), IDENTITY, *CONV,
    d.empty(64, 14, 14, 64)), flops=FLOPS)
case("conv2d.backward_w", "x 64×14×14×64, dy 64×7×7×128", lambda d: (
    d.normal(64, 14, 14, 64), d.normal(64, 7, 7, 128), *CONV, d.empty(1024, 128)), flops=FLOPS)

M = 64 * 14 * 14
case("batch_norm.statistics", "x 12544×64", lambda d: (
    d.normal(M, 64), d.empty(64), d.empty(64)), moved=M * 64)
case("batch_norm.normalize", "x 12544×64, leaky ReLU", lambda d: (
    d.normal(M, 64), d.normal(64), d.positive(64), d.positive(64), d.normal(64), LEAKY,
    d.empty(M, 64)), moved=2 * M * 64)
case("batch_norm.backward_parameters", "dy 12544×64, leaky ReLU", lambda d: (
    d.normal(M, 64), d.normal(M, 64), LEAKY, d.normal(M, 64), d.normal(64), d.positive(64),
    d.empty(64), d.empty(64)), moved=3 * M * 64)
case("batch_norm.backward_x", "dy 12544×64, leaky ReLU", lambda d: (
    d.normal(M, 64), d.normal(M, 64), LEAKY, d.normal(M, 64), d.normal(64), d.positive(64),
    d.positive(64), d.normal(64), d.normal(64), d.empty(M, 64)), moved=4 * M * 64)

case("batch_norm.running", "64 channels", lambda d: (
    d.normal(64), d.positive(64), 0.1, d.normal(64), d.positive(64), M), moved=6 * 64)
case("batch_norm.inverse", "64 channels", lambda d: (d.positive(64), 1e-5, d.empty(64)),
     moved=2 * 64)

POOLED = 64 * 14 * 14 * 32
case("pool.max_forward", "x 64×28×28×32, 2×2", lambda d: (
    d.images(64, 28, 28, 32), *POOL, d.empty(64, 14, 14, 32),
    np.full((64, 14, 14, 32), -1, np.int32)), moved=6 * POOLED)
case("pool.max_backward", "dy 64×14×14×32, 2×2", lambda d: (
    d.normal(64, 14, 14, 32), d.rng.integers(0, 4, (64, 14, 14, 32), np.int32), *POOL,
    d.empty(64, 28, 28, 32)), moved=6 * POOLED)
case("pool.average_forward", "x 64×28×28×32, 2×2", lambda d: (
    d.normal(64, 28, 28, 32), *POOL, d.empty(64, 14, 14, 32)), moved=5 * POOLED)
case("pool.average_backward", "dy 64×14×14×32, 2×2", lambda d: (
    d.normal(64, 14, 14, 32), *POOL, d.empty(64, 28, 28, 32)), moved=5 * POOLED)

case("resample.upsample_forward", "x 64×14×14×32, ×2", lambda d: (
    d.normal(64, 14, 14, 32), (2, 2), d.empty(64, 28, 28, 32)), moved=5 * POOLED)
case("resample.upsample_backward", "dy 64×28×28×32, ×2", lambda d: (
    d.normal(64, 28, 28, 32), (2, 2), d.empty(64, 14, 14, 32)), moved=5 * POOLED)

# --- losses, optimisers, random numbers ----------------------------------------------------------

case("bce.total", "logits 128×784", lambda d: (
    d.normal(128, 784, scale=5), d.positive(128, 784), d.empty(128, 784),
    d.empty(-(-128 // ROWS), 784)), moved=3 * 128 * 784)
case("bce.elements", "logits 128×784", lambda d: (
    d.normal(128, 784, scale=5), d.positive(128, 784), d.empty(128, 784), d.empty(128, 784)),
    moved=4 * 128 * 784)

ROW, CODES, PIXELS = (128,), (128, 20), (128, 784)
case("likelihood.gaussian_kl", "mean 128×20", lambda d: (
    d.normal(*CODES), d.normal(*CODES), d.empty(*ROW)), moved=2 * 128 * 20)
case("likelihood.gaussian_kl_backward", "mean 128×20", lambda d: (
    d.normal(*ROW), d.normal(*CODES), d.normal(*CODES), d.empty(*CODES), d.empty(*CODES)),
    moved=4 * 128 * 20)
case("likelihood.squared_error", "x 128×784", lambda d: (
    d.normal(*PIXELS), d.normal(*PIXELS), d.empty(*PIXELS), d.empty(-(-128 // ROWS), 784)),
    moved=3 * 128 * 784)
case("likelihood.cross_entropy", "logits 128×10", lambda d: (
    d.normal(128, 10), d.rng.integers(0, 10, 128), d.empty(*ROW), d.empty(128, 10)),
    moved=2 * 128 * 10)
case("likelihood.gaussian_log_likelihood", "x 128×784, one variance", lambda d: (
    d.normal(*PIXELS), d.normal(*PIXELS), d.normal(1), d.empty(*ROW)), moved=2 * 128 * 784)
case("likelihood.gaussian_log_likelihood_backward", "x 128×784, one variance", lambda d: (
    d.normal(*ROW), d.normal(*PIXELS), d.normal(*PIXELS), d.normal(1), d.empty(*PIXELS),
    d.empty(*PIXELS)), moved=4 * 128 * 784)
case("likelihood.scale_rows", "slope 128×784", lambda d: (
    d.normal(1), d.normal(*PIXELS), d.empty(*PIXELS)), moved=2 * 128 * 784)
for corruption, noise in (("masking", "uniform"), ("salt_and_pepper", "uniform"),
                          ("gaussian", "normal")):
    case(f"noise.{corruption}", f"100,352 numbers, {noise} noise", lambda d: (
        d.positive(128 * 784), d.positive(128 * 784), 0.25, d.empty(128 * 784)),
        moved=3 * 128 * 784)

case("optimizer.sgd", "1,569,784 parameters, momentum", lambda d: (
    d.normal(P), d.normal(P), d.normal(P), np.float32([0.1, 0.9, 0]), True), moved=5 * P)
case("optimizer.adagrad", "1,569,784 parameters", lambda d: (
    d.normal(P), d.normal(P), d.positive(P), np.float32([0.01, 1e-10, 0])), moved=5 * P)
case("optimizer.rmsprop", "1,569,784 parameters", lambda d: (
    d.normal(P), d.normal(P), d.positive(P), np.float32([1e-3, 0.99, 0.01, 1e-8, 0])),
    moved=5 * P)
case("optimizer.adam", "1,569,784 parameters", lambda d: (
    d.normal(P), d.normal(P), d.normal(P), d.positive(P), np.float32(ADAM)), moved=7 * P)
case("optimizer.clip_norm", "1,569,784 parameters", lambda d: (
    d.normal(P), 1.0, np.empty(1, np.float64)), moved=3 * P)

case("philox.bits", "100,352 words", lambda d: (
    np.uint64(3), np.uint64(5), np.uint64(7), np.zeros(128 * 784, np.uint32)), moved=128 * 784)
case("philox.uniform", "100,352 numbers", lambda d: (
    d.words(128 * 784), d.empty(128 * 784)), moved=2 * 128 * 784)
case("philox.normal", "100,352 numbers", lambda d: (
    d.words(128 * 784), d.empty(128 * 784)), moved=2 * 128 * 784)


# --- correctness and timing ----------------------------------------------------------------------

def kernels_there_are():
    """family.kernel of every kernel with both versions in ``kernels/``."""
    folder, found = machine.ROOT / "kernels", []
    for path in sorted(folder.glob("*.py")):
        module = importlib.import_module(f"scratchgen.kernels.{path.stem}")
        for name in vars(module):
            stem, _, suffix = name.rpartition("_")
            version = vars(module).get(f"{stem}_numpy")
            if suffix == "numba" and version and version.__module__ == module.__name__:
                found.append(f"{path.stem}.{stem}")
    return found


def versions(name):
    """The functions to compare: {"numpy": …, "numba": …}."""
    family, kernel = name.split(".")
    module = importlib.import_module(f"scratchgen.kernels.{family}")
    return {backend: getattr(module, f"{kernel}_{backend}") for backend in ("numpy", "numba")}


def compare(name):
    """Wrong unless both versions make the same of the same arrays; NaN fails."""
    results, both = {}, versions(name)
    for backend, function in both.items():
        results[backend] = CASES[name][3](Draw())
        function(*results[backend])
    parameters = inspect.signature(both["numpy"]).parameters
    for parameter, a, b in zip(parameters, results["numba"], results["numpy"], strict=True):
        if isinstance(b, np.ndarray):
            a, b = a.astype(np.float64), b.astype(np.float64)
            error = np.max(np.abs(a - b)) / np.max(np.abs(b))
            if not error <= RTOL:
                raise ladder.Wrong(f"{name}: {parameter} differs by {error:.1e} of its largest "
                                   f"element; allowed {RTOL:.0e}")


def measure(name):
    """The record of one kernel."""
    text, unit, work, draw = CASES[name]
    compare(name)
    functions = {backend: functools.partial(function, *draw(Draw()))
                 for backend, function in versions(name).items()}
    times = dict(zip(functions, timing.side_by_side(list(functions.values()), SECONDS),
                     strict=True))
    compare(name)
    return {"kernel": name, "shape": text, "unit": unit, "work": work,
            "ratio": times["numba"]["median"] / times["numpy"]["median"],
            **{backend: {**t, "rate": work / t["median"] / 1e9} for backend, t in times.items()}}


def table(record):
    """Markdown: a row for each kernel."""
    rows = [(f"[{row['kernel']}](kernels/{row['kernel'].split('.')[0]}.py)", row["shape"],
             *(f"{milliseconds(row[b]['median'])} ms, {digits(row[b]['rate'])} "
               f"{row['unit']}" for b in ("numpy", "numba")), f"{row['ratio']:.2f}")
            for row in record["kernels"]]
    rows = ladder.markdown(("kernel", "shape", "NumPy", "Numba", "Numba/NumPy"), rows,
                           right=(2, 3, 4))
    return f"{rows}\n\nMedians, float32. {records.provenance(record)}"


def main(arguments=None):
    """The command ``kernels``; the exit status."""
    options = ladder.options_of("kernels", list(CASES), arguments)
    reuse_freed_memory()
    found = []
    try:
        for name in options.only or CASES:
            if options.quick:
                compare(name)
                print(f"{name}: both versions agree")
                continue
            found.append(measure(name))
            print(f"{name:30} {found[-1]['shape']:42}" + "".join(
                f" {b} {milliseconds(found[-1][b]['median']):>7} ms"
                for b in ("numpy", "numba")) + f"  ratio {found[-1]['ratio']:.2f}", flush=True)
    except ladder.Wrong as wrong:
        print(f"kernels: {wrong}", file=sys.stderr)
        return 1
    if found and (options.out or not options.only):
        ladder.write("kernels.json", options.out, {"rtol": RTOL, "kernels": found})
    return 0
