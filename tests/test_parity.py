"""Every version of every kernel against its NumPy version, over ragged shapes, in both precisions.

A kernel without cases, a version with another signature, or a missing version without a reason
fails a test here.
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scratchgen.kernels import compiler, cuda

import scratchgen as sg
from scratchgen.engine.backend import BACKENDS, kernels
from scratchgen.engine.memory import to_host

ROOT = pathlib.Path(__file__).parents[1]
SERVICES = {"compiler", "machine_code", "gemm_tile", "gemm_blocks", "vector_math", "blas", "cuda",
            "gpu", "elementwise", "gemm_chooser", "conv2d_chooser", "winograd", "minimal_filter"}
FAMILIES = [path.stem for path in sorted((ROOT / "kernels").glob("*.py"))
            if path.stem not in SERVICES]


def module(family):
    return importlib.import_module(f"scratchgen.kernels.{family}")


def versions(family):
    """{kernel: {backend: function}} of a file."""
    found = {}
    for name, value in vars(module(family)).items():
        stem, _, suffix = name.rpartition("_")
        if suffix in BACKENDS and callable(value) and value.__module__.endswith(f".{family}"):
            found.setdefault(stem, {})[suffix] = value
    return found


KERNELS = [(family, kernel) for family in FAMILIES for kernel in versions(family)]
every_kernel = pytest.mark.parametrize("family, kernel", KERNELS,
                                       ids=[f"{f}.{k}" for f, k in KERNELS])

# --- arguments: ragged on purpose (blocks are of 16, 64 and 128), size 1, empty ------------------

MATRICES = [(0, 3), (1, 1), (5, 0), (2, 7), (16, 64), (17, 65), (129, 3), (33, 130), (300, 61)]
VECTORS = [0, 1, 7, 64, 1001]
# (N, H, W, C), kernel, stride, padding, dilation
IMAGES = [((2, 7, 9, 3), (4, 5), (3, 2), (2, 1), (1, 1)), ((3, 8, 10, 2), (3, 2), (2, 3), (1, 1),
          (1, 1)), ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1)), ((0, 6, 5, 2), (3, 4), (2, 1),
          (1, 0), (1, 1)), ((2, 5, 11, 33), (2, 3), (1, 2), (0, 1), (1, 1))]
DILATED = IMAGES + [((2, 9, 11, 3), (3, 2), (2, 1), (2, 3), (3, 4)),
                    ((7, 11, 9, 3), (4, 3), (2, 1), (1, 2), (1, 1))]      # as winograd.py can


def out_size(shape, kernel, stride, padding, dilation):
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(
        shape[1:3], kernel, stride, padding, dilation, strict=True))


def activations(rng, dtype):
    for code in range(7):
        for shape in MATRICES if code == 5 else MATRICES[:6]:
            yield rng.normal(size=shape).astype(dtype), code


def bias_activation(rng, dtype):
    for y, code in activations(rng, dtype):
        yield y, rng.normal(size=y.shape[1]).astype(dtype), code


def activation_backward(rng, dtype):
    for y, code in activations(rng, dtype):
        y[y < 0] *= dtype(0.5)        # as an output of elu, sigmoid, tanh: above −1
        dy = rng.normal(size=y.shape).astype(dtype)
        yield dy, np.tanh(y), code, np.empty_like(y), np.empty(y.shape[1], dtype)


def losses(rng, dtype):
    for shape in [*MATRICES, (515, 512)]:
        logits = (10 * rng.normal(size=shape)).astype(dtype)
        yield logits, rng.random(shape).astype(dtype), np.empty(shape, dtype)


def bce_total(rng, dtype):
    for logits, target, slope in losses(rng, dtype):
        yield logits, target, slope, np.empty((-(-len(logits) // 4), logits.shape[1]), dtype)


def bce_elements(rng, dtype):
    for logits, target, slope in losses(rng, dtype):
        yield logits, target, slope, np.empty_like(logits)


def philox_bits(rng, dtype):
    for n in VECTORS:
        for seed, stream, counter in [(0, 0, 0), (2**64 - 1, 2**63 + 5, 2**64 - 3), (7, 9, 2**32)]:
            yield np.uint64(seed), np.uint64(stream), np.uint64(counter), np.empty(n, np.uint32)


def philox_draw(rng, dtype):
    for seed, stream, counter, words in philox_bits(rng, dtype):
        yield seed, stream, counter, np.empty(words.size, np.float32)


def philox_law(rng, dtype):
    for n in VECTORS:
        yield rng.integers(0, 2**32, n + n % 2, dtype=np.uint32), np.empty(n, np.float32)
    yield np.uint32([0, 0, 2**32 - 1, 2**32 - 1, 255, 2**31]), np.empty(6, np.float32)


# (M, K, N): none, small, split across columns, across rows, along the sum, and flat
PRODUCTS = [(0, 3, 2), (2, 0, 3), (3, 4, 0), (1, 1, 1), (5, 7, 3), (67, 90, 170), (170, 90, 67),
            (11, 6000, 9), (19, 203, 170)]


def matmul(rng, dtype):
    for m, k, n in PRODUCTS:
        for ta, tb in itertools.product((False, True), repeat=2):
            yield (rng.normal(size=(k, m) if ta else (m, k)).astype(dtype),
                   rng.normal(size=(n, k) if tb else (k, n)).astype(dtype),
                   np.full((m, n), np.nan, dtype), ta, tb)


def matmul_add(rng, dtype):
    for a, b, c, ta, tb in matmul(rng, dtype):
        yield a, b, rng.normal(size=c.shape).astype(dtype), ta, tb


def matmul_each(rng, dtype):
    for count, m, k, n in ((3, 2, 5, 4), (1, 7, 1, 20), (4, 30, 33, 17)):
        for ta, tb in itertools.product((False, True), repeat=2):
            yield (rng.normal(size=(count, k, m) if ta else (count, m, k)).astype(dtype),
                   rng.normal(size=(count, n, k) if tb else (count, k, n)).astype(dtype),
                   np.full((count, m, n), np.nan, dtype), ta, tb)


def dense_forward(rng, dtype):
    for a, b, c, ta, tb in matmul(rng, dtype):
        if not ta:
            for code in (0, 2, 5):
                yield (a / dtype(max(1, a.shape[1]) ** 0.5), b, tb,      # sums of size 1
                       rng.normal(size=c.shape[1]).astype(dtype), code, c)


def convolutions(rng, dtype):
    """x (N, H, W, C), w (KH·KW·C, O), the geometry and y's shape."""
    for shape, kernel, stride, padding, dilation in DILATED:
        out = (shape[0], *out_size(shape, kernel, stride, padding, dilation), 5)
        yield (rng.normal(size=shape).astype(dtype),
               rng.normal(size=(kernel[0] * kernel[1] * shape[3], 5)).astype(dtype),
               (kernel, stride, padding, dilation), out)


def conv_forward(rng, dtype):
    for code, (x, w, geometry, out) in enumerate(convolutions(rng, dtype)):
        yield x, w, rng.normal(size=5).astype(dtype), code, *geometry, np.empty(out, dtype)


def conv_backward_x(rng, dtype):
    for code, (x, w, geometry, out) in enumerate(convolutions(rng, dtype)):
        yield (rng.normal(size=out).astype(dtype), np.ascontiguousarray(w.T),
               rng.normal(size=x.shape[3]).astype(dtype), code, *geometry, x)


def conv_backward_w(rng, dtype):
    for x, w, geometry, out in convolutions(rng, dtype):
        yield x, rng.normal(size=out).astype(dtype), *geometry, w


def pooled(rng, dtype):
    for shape, kernel, stride, padding, dilation in [*IMAGES, ((2, 6, 7, 8), (3, 2), (2, 1), (1, 0),
                                                               (1, 1))]:
        out = (shape[0], *out_size(shape, kernel, stride, padding, dilation), shape[3])
        x = rng.integers(-3, 3, shape).astype(dtype)             # ties
        yield x, kernel, stride, padding, rng.normal(size=out).astype(dtype)


def max_forward(rng, dtype):
    for *arguments, y in pooled(rng, dtype):
        yield *arguments, y, np.empty(y.shape, np.int32)


def max_backward(rng, dtype):
    for x, kernel, stride, padding, dy in pooled(rng, dtype):
        tap = np.empty(dy.shape, np.int32)
        module("pool").max_forward_numpy(x, kernel, stride, padding, dy.copy(), tap)
        yield dy, tap, kernel, stride, padding, x


def average_backward(rng, dtype):
    for x, kernel, stride, padding, dy in pooled(rng, dtype):
        yield dy, kernel, stride, padding, x


def columns(rng, dtype, count):
    """(x (M, C), then ``count`` arrays (C,)); the values of the latter are positive."""
    for shape in MATRICES[1:2] + MATRICES[3:] + [(2051, 128)]:
        yield (rng.normal(size=shape).astype(dtype) + 3,
               *(rng.uniform(0.5, 2, shape[1]).astype(dtype) for _ in range(count)))


def statistics(rng, dtype):
    yield from columns(rng, dtype, 2)


def normalize(rng, dtype):
    for code, (x, *rest) in enumerate(columns(rng, dtype, 4)):
        yield x, *rest, code % 7, np.empty_like(x)


def backward_parameters(rng, dtype):
    for code, (x, *rest) in enumerate(columns(rng, dtype, 4)):
        yield (rng.normal(size=x.shape).astype(dtype), np.tanh(rng.normal(size=x.shape)).astype(
            dtype), code % 7, x, *rest)


def backward_x(rng, dtype):
    for code, (x, *rest) in enumerate(columns(rng, dtype, 5)):
        yield (rng.normal(size=x.shape).astype(dtype), np.tanh(rng.normal(size=x.shape)).astype(
            dtype), code % 7, x, *rest, np.empty_like(x))


def optimiser(count, options):
    """p, g, then state that is positive, then numbers in the arrays' precision, then switches."""
    def arguments(rng, dtype):
        for n in VECTORS:
            for numbers, *switches in options:
                yield (rng.normal(size=n).astype(dtype), rng.normal(size=n).astype(dtype),
                       *(rng.uniform(0.1, 1, n).astype(dtype) for _ in range(count)),
                       np.array(numbers, dtype), *switches)
    return arguments


def clip_norm(rng, dtype):
    for n in VECTORS:
        for limit in (0.5, 1e6):
            yield rng.normal(size=n).astype(dtype), limit, np.empty(1, np.float64)


def take_row(rng, dtype):
    for rows, width in ((1, 1), (5, 3), (4, 128), (2, 100)):
        yield (rng.integers(0, 2**63, (rows, width), dtype=np.uint64),
               np.uint64([rng.integers(rows)]), np.empty(width, np.uint64))


def keep(rng, dtype):
    for rows, width in ((1, 1), (5, 3), (4, 8), (2, 7)):
        yield (*rng.normal(size=(8, 1)).astype(dtype), np.uint64([rng.integers(rows)]),
               np.zeros((rows, width), dtype))


def running(rng, dtype):
    for c, rows in ((1, 2), (7, 100), (64, 3), (1001, 12544)):
        yield (*rng.normal(size=(1, c)).astype(dtype), *rng.uniform(0.5, 2, (1, c)).astype(dtype),
               0.1, *rng.normal(size=(1, c)).astype(dtype),
               *rng.uniform(0.5, 2, (1, c)).astype(dtype), rows)


def inverse(rng, dtype):
    for n in VECTORS:
        yield rng.uniform(0, 2, n).astype(dtype), 1e-5, np.empty(n, dtype)


def upsampled(rng, dtype):
    """x (N, H, W, C), scale, y; pixels by fours of channels, one by one, and none."""
    for shape, scale in (((2, 3, 5, 4), (3, 2)), ((3, 4, 2, 7), (1, 5)), ((1, 1, 1, 1), (1, 1)),
                         ((0, 2, 3, 4), (2, 2)), ((2, 7, 3, 1), (2, 3))):
        n, h, w, c = shape
        yield (rng.normal(size=shape).astype(dtype), scale,
               rng.normal(size=(n, h * scale[0], w * scale[1], c)).astype(dtype))


def upsample_backward(rng, dtype):
    for x, scale, y in upsampled(rng, dtype):
        yield y, scale, x


# (A, R, B): rows and columns; few and long, many and short; in packs and not; cut into shares
AXES = [(1, 1, 1), (5, 7, 1), (3, 2052, 1), (2, 20001, 1), (301, 6, 1), (0, 3, 1), (4, 1, 6),
        (1, 2049, 3), (3, 700, 128), (2, 3001, 50), (1025, 2, 132), (6, 5, 9), (0, 4, 5), (3, 4, 0)]


def axes(rng, dtype):
    for a, r, b in AXES:
        yield rng.normal(size=(a, r, b)).astype(dtype), np.full((a, b), np.nan, dtype)


def sum_all(rng, dtype):
    for shape in [(0,), (1,), (7,), (25, 131), (3, 5, 1001), (32771,), (41, 999)]:
        yield rng.normal(size=shape).astype(dtype), 0.25, np.empty(1, dtype)


SCORES = [*MATRICES[:2], *MATRICES[3:], (3, 2101), (2, 8500)]


def exponentials(rng, dtype):
    for shape in SCORES:
        x = (5 * rng.normal(size=shape)).astype(dtype)
        x[:, 1::3] = -1e30                             # of no weight
        yield x, np.empty_like(x)


def finite_exponentials(rng, dtype):
    for x, y in exponentials(rng, dtype):
        x[x < -1e29] = -20
        yield x, y


def logsumexp(rng, dtype):
    for x, _ in exponentials(rng, dtype):
        yield x, np.empty(len(x), dtype)
        yield x[:, :1] + 900, np.empty(len(x), dtype)


def exponentials_backward(rng, dtype):
    for x, dx in finite_exponentials(rng, dtype):
        y = np.empty_like(x)
        module("reduce").softmax_numpy(x, y)
        yield rng.normal(size=x.shape).astype(dtype), y, dx


ROWED = [*MATRICES, (3, 1500)]


def drawn(rng, dtype, shape, count):
    return (rng.normal(size=shape).astype(dtype) for _ in range(count))


def gaussian_kl(rng, dtype):
    for shape in ROWED:
        yield *drawn(rng, dtype, shape, 2), np.empty(shape[0], dtype)


def gaussian_kl_backward(rng, dtype):
    for shape in ROWED:
        yield *drawn(rng, dtype, shape[0], 1), *drawn(rng, dtype, shape, 4)


def four_matrices(rng, dtype):
    for shape in ROWED:
        yield tuple(drawn(rng, dtype, shape, 4))


def squared_error(rng, dtype):
    for shape in [*MATRICES, (515, 512)]:
        yield (*drawn(rng, dtype, shape, 3),
               np.full((-(-shape[0] // 4), shape[1]), np.nan, dtype))


def cross_entropy(rng, dtype):
    for shape in SCORES:
        logits = (5 * rng.normal(size=shape)).astype(dtype)
        yield (logits, rng.integers(0, shape[1], shape[0]), np.empty(shape[0], dtype),
               np.empty_like(logits))


def gaussian_log_likelihood(rng, dtype):
    for shape in ROWED:
        for logvar in (1, shape):
            yield (*drawn(rng, dtype, shape, 2), *drawn(rng, dtype, logvar, 1),
                   np.empty(shape[0], dtype))


def gaussian_log_likelihood_backward(rng, dtype):
    for shape in ROWED:
        for logvar in (1, shape):
            yield (*drawn(rng, dtype, shape[0], 1), *drawn(rng, dtype, shape, 2),
                   *drawn(rng, dtype, logvar, 1), *drawn(rng, dtype, shape, 2))


def scale_rows(rng, dtype):
    for shape in ROWED:
        for dy in (1, shape[0]):
            yield *drawn(rng, dtype, dy, 1), *drawn(rng, dtype, shape, 2)


def noisy(law, levels):
    def arguments(rng, dtype):
        for n in VECTORS:
            for level in levels:
                noise = rng.normal(size=n) if law == "normal" else rng.random(n)
                yield (rng.normal(size=n).astype(dtype), noise.astype(np.float32), level,
                       np.full(n, np.nan, dtype))
    return arguments


def gather(rng, dtype):
    # (COUNT, D), rows wanted, the first of them; the last two go beyond the end
    for shape, b, first in (((9, 5), 3, 0), ((9, 8), 4, 5), ((7, 3), 7, 0), ((1, 1), 1, 0),
                            ((11, 12), 4, 9), ((5, 7), 3, 4), ((5, 4), 0, 2)):
        order = rng.permutation(shape[0])
        images = rng.integers(0, 256, shape, np.uint8)
        out = np.full((b, shape[1]), np.nan, dtype)
        yield images, order, np.uint64([first]), 255, out
        yield images.astype(dtype), order, np.uint64([first]), 1, out


CASES = {
    ("gemm", "matmul"): matmul, ("gemm", "matmul_add"): matmul_add,
    ("gemm", "matmul_each"): matmul_each,
    ("dense", "forward"): dense_forward,
    ("dense", "bias_activation"): bias_activation,
    ("dense", "activation_backward"): activation_backward,
    ("bce", "total"): bce_total, ("bce", "elements"): bce_elements,
    ("philox", "bits"): philox_bits, ("philox", "uniform"): philox_law,
    ("philox", "normal"): philox_law,
    ("philox", "draw_uniform"): philox_draw, ("philox", "draw_normal"): philox_draw,
    ("conv2d", "forward"): conv_forward, ("conv2d", "backward_x"): conv_backward_x,
    ("conv2d", "backward_w"): conv_backward_w,
    ("pool", "max_forward"): max_forward, ("pool", "max_backward"): max_backward,
    ("pool", "average_forward"): pooled, ("pool", "average_backward"): average_backward,
    ("batch_norm", "statistics"): statistics, ("batch_norm", "normalize"): normalize,
    ("batch_norm", "backward_parameters"): backward_parameters,
    ("batch_norm", "backward_x"): backward_x,
    ("batch_norm", "running"): running, ("batch_norm", "inverse"): inverse,
    ("resample", "upsample_forward"): upsampled, ("resample", "upsample_backward"):
    upsample_backward,
    **{("reduce", name): axes for name in ("sum", "mean", "max", "min")},
    ("reduce", "sum_all"): sum_all, ("reduce", "softmax"): exponentials,
    ("reduce", "log_softmax"): finite_exponentials, ("reduce", "logsumexp"): logsumexp,
    ("reduce", "softmax_backward"): exponentials_backward,
    ("reduce", "log_softmax_backward"): exponentials_backward,
    ("likelihood", "gaussian_kl"): gaussian_kl,
    ("likelihood", "gaussian_kl_backward"): gaussian_kl_backward,
    ("likelihood", "squared_error"): squared_error, ("likelihood", "cross_entropy"): cross_entropy,
    ("likelihood", "gaussian_log_likelihood"): gaussian_log_likelihood,
    ("likelihood", "gaussian_log_likelihood_backward"): gaussian_log_likelihood_backward,
    ("likelihood", "scale_rows"): scale_rows,
    ("noise", "masking"): noisy("uniform", (0.0, 0.3, 1.0)),
    ("noise", "salt_and_pepper"): noisy("uniform", (0.0, 0.3, 1.0)),
    ("noise", "gaussian"): noisy("normal", (0.0, 0.5)),
    ("noise", "gather"): gather,
    ("optimizer", "sgd"): optimiser(1, [((0.1, 0.9, 0.01), True), ((0.1, 0.9, 0.01), False),
                                        ((0.1, 0.0, 0.0), False)]),
    ("optimizer", "adagrad"): optimiser(1, [((0.1, 1e-8, 0.01),)]),
    ("optimizer", "rmsprop"): optimiser(1, [((0.1, 0.9, 0.1, 1e-8, 0.01),)]),
    ("optimizer", "adam"): optimiser(2, [((0.1, 0.9, 0.1, 0.99, 0.01, 0.2, 1e-8, 0.01, 0.9),)]),
    ("optimizer", "clip_norm"): clip_norm,
    ("step", "take_row"): take_row, ("step", "keep"): keep,
}
# Kernels that compute in several ways, to choose from
WAYS = {("conv2d", backend): [functools.partial(sg.use_convolution, name) for name in names]
        for backend, names in {"numba": ("patches", "winograd"),
                               "cuda": ("implicit_gemm", "naive")}.items()}
PRECISIONS = {np.float32: 3e-6, np.float64: 1e-13}     # relative to the largest element
# The ladder of products and the reductions of any shape have kernels of their own names.
LAUNCHED_BY_OTHER_NAMES = {("gemm", "matmul"), ("gemm", "matmul_add"), ("gemm", "matmul_each"),
                           ("dense", "forward"),
                           *(("reduce", kernel) for kernel in ("sum", "mean", "max", "min"))}
EXACT = {"philox", "pool.max_forward"}          # bit-equal: they only choose


def copies(arguments):
    return [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]


def test_every_kernel_has_cases_and_every_case_a_kernel():
    assert set(CASES) == set(KERNELS) and len(KERNELS) >= 7


@pytest.mark.parametrize("backend", BACKENDS[1:])
@every_kernel
def test_versions_agree(family, kernel, backend, request):
    """Each version against NumPy's. The CUDA version runs on the GPU, or emulated without one."""
    every = versions(family)[kernel]
    if backend not in every:
        pytest.skip(f"{backend}: {module(family).MISSING[f'{kernel}_{backend}']}")
    device = request.getfixturevalue("gpu") if backend == "cuda" else None
    for dtype, tolerance in PRECISIONS.items():
        count = 0
        for arguments in CASES[family, kernel](np.random.default_rng(1), dtype):
            expected = copies(arguments)
            every["numpy"](*expected)
            for way in WAYS.get((family, backend), [contextlib.nullcontext]):
                found = copies(arguments) if device is None else carried(arguments, family, kernel,
                                                                         device.xp)
                with way():
                    every[backend](*found)
                compare_all(found, expected, family, kernel, tolerance)
            count += 1
        assert count >= 4


def compare_all(found, expected, family, kernel, tolerance):
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, np.ndarray):
            compare(to_host(a), b, 0 if {family, f"{family}.{kernel}"} & EXACT else tolerance)


def carried(arguments, family, kernel, xp):
    """The arguments on the GPU; a counter of the generator is an array there."""
    counter = ("philox", kernel) if kernel in ("bits", "draw_uniform", "draw_normal") else None
    return [xp.asarray(a if isinstance(a, np.ndarray) else np.uint64([a]))
            if isinstance(a, np.ndarray) or counter and i == 2 else a
            for i, a in enumerate(arguments)]


@every_kernel
def test_the_order_of_threads_and_blocks_does_not_matter(family, kernel, gpu, monkeypatch):
    """Emulated forwards and backwards: the same bits, and nothing outside the arrays is touched."""
    if not hasattr(gpu, "reverse") or "cuda" not in versions(family)[kernel]:
        pytest.skip("only the emulated GPU can run its threads in another order")
    version = versions(family)[kernel]["cuda"]
    every = list(CASES[family, kernel](np.random.default_rng(1), np.float32))
    largest = sorted(every, key=lambda case: sum(np.size(a) for a in case))[-6:]
    for arguments in largest:
        results = []
        for reverse in (False, True):
            monkeypatch.setattr(gpu, "reverse", reverse)
            found = carried(arguments, family, kernel, gpu.xp)
            version(*found)
            results.append(b"".join(to_host(a).tobytes() for a, given in zip(found, arguments,
                                                                          strict=True)
                                    if isinstance(given, np.ndarray)))
        assert results[0] == results[1]


@pytest.mark.parametrize("family", sorted(path.stem for path in (ROOT / "kernels").glob("*.py")
                                          if path.with_suffix(".cu").exists()))
def test_cuda_c_has_the_parameters_of_python(family):
    """A ``__global__`` function named as a Python function begins with its parameters, in order,
    workspaces and sizes behind them; one that is launched under other names says so here."""
    for kernel, every in versions(family).items():
        if "cuda" in every and (family, kernel) not in LAUNCHED_BY_OTHER_NAMES:
            wanted = list(inspect.signature(every["cuda"]).parameters)
            files = [path.stem for path in (ROOT / "kernels").glob("*.cu")
                     if path.stem == family or path.stem == f"{family}_{kernel}"]
            (found,) = [cuda.kernels_of(f)[kernel] for f in files if kernel in cuda.kernels_of(f)]
            assert [name for _, name in found.parameters][:len(wanted)] == wanted, kernel


# --- what is compared ----------------------------------------------------------------------------

def compare(a, b, tolerance):
    """Equal within ``tolerance`` of the largest element; NaN fails, unless it is expected there."""
    assert a.dtype == b.dtype and a.shape == b.shape
    usual = np.isfinite(b) if b.dtype.kind == "f" else np.ones(b.shape, bool)
    assert np.array_equal(a[~usual], b[~usual], equal_nan=True)
    a, b = a[usual], b[usual]
    if a.size:
        assert np.max(np.abs(a.astype(np.float64) - b)) <= tolerance * max(1, np.max(np.abs(b)))


@every_kernel
def test_versions_have_one_signature(family, kernel):
    signatures = {tuple(inspect.signature(v).parameters) for v in versions(family)[kernel].values()}
    assert len(signatures) == 1


@every_kernel
def test_a_missing_version_has_a_reason(family, kernel):
    missing = set(BACKENDS) - set(versions(family)[kernel])
    reasons = getattr(module(family), "MISSING", {})
    assert all(len(reasons.get(f"{kernel}_{backend}", "")) > 10 for backend in missing)
    assert "numpy" not in missing


def test_a_missing_version_is_an_error_that_lists_the_others(monkeypatch):
    monkeypatch.delattr(module("dense"), "bias_activation_numba")
    with sg.use_backend("numba"), pytest.raises(NotImplementedError, match="'numba'.*numpy"):
        kernels("dense").bias_activation  # noqa: B018  (the look-up itself)


def test_backends_are_chosen_and_restored():
    before = sg.backend()
    with sg.use_backend("numpy"):
        assert sg.backend() == "numpy"
        assert kernels("dense").bias_activation is module("dense").bias_activation_numpy
        with sg.use_backend("numba"):
            assert sg.backend() == "numba"
        assert sg.backend() == "numpy"
    assert sg.backend() == before
    with pytest.raises(sg.UserError, match="did you mean 'numba'"):
        sg.use_backend("nunba")
    assert sg.backend() == before


def test_numbers_from_the_generator_are_the_same_bits():
    for draw in (lambda s: s.bits(1003), lambda s: s.uniform((7, 11)), lambda s: s.normal((5, 3)),
                 lambda s: s.permutation(101)):
        with sg.use_backend("numpy"):
            expected = draw(sg.Stream(3, "both"))
        with sg.use_backend("numba"):
            assert draw(sg.Stream(3, "both")).tobytes() == expected.tobytes()


# --- threads -------------------------------------------------------------------------------------

def differing_kernels():
    """Run with two threads at hand: kernels whose bits depend on their number, or on the run."""
    import numba
    assert numba.config.NUMBA_NUM_THREADS == 2
    compiler.PARALLEL_FROM = 0
    parallel = 0
    for family, kernel in KERNELS:
        version = versions(family)[kernel].get("numba")
        if version is None or not getattr(version, "parallel", True):
            continue
        parallel += 1
        every = list(CASES[family, kernel](np.random.default_rng(1), np.float32))
        largest = sorted(every, key=lambda case: sum(np.size(a) for a in case))[-3:]
        for way in WAYS.get((family, "numba"), [contextlib.nullcontext]):
            for arguments in [*largest, every[-1]]:    # the last of conv2d is one for winograd.py
                if len(bits_of(version, arguments, way, numba)) != 1:
                    yield f"{family}.{kernel}"
    print(parallel, "parallel kernels")


def bits_of(version, arguments, way, numba):
    """The results with one thread, with two, twice, and in a thread that must go alone."""
    results = set()
    for threads in (1, 2, 2, None):
        if threads is not None:
            numba.set_num_threads(threads)
        found = copies(arguments)
        with way(), compiler.Pool.free if threads is None else contextlib.nullcontext():
            version(*found)
        results.add(b"".join(a.tobytes() for a in found if isinstance(a, np.ndarray)))
    return results


@pytest.mark.long
def test_one_and_two_threads_give_the_same_bits():
    code = "import test_parity as t; print('differing:', list(t.differing_kernels()))"
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(
        [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "differing: []"
    assert int(lines[-2].split()[0]) >= 5


def test_small_arrays_do_not_wake_threads(monkeypatch):
    chosen = []
    monkeypatch.setattr(compiler.load_numba().config, "NUMBA_NUM_THREADS", 2)
    kernel = module("bce").elements_numba
    monkeypatch.setattr(kernel, "dispatcher", lambda parallel=False: lambda *a: chosen.append(
        parallel))
    for n in (compiler.PARALLEL_FROM - 1, compiler.PARALLEL_FROM):
        kernel.launcher()(np.zeros(3, np.float32), np.zeros(n, np.float32))
    with compiler.Pool.free:              # another Python thread has them
        kernel.launcher()(np.zeros(compiler.PARALLEL_FROM, np.float32))
    assert chosen == [False, True, False]
