"""Gemm: matrix products at the shapes of the workloads, beside OpenBLAS, MKL and the tile's peak.

    python -m benchmarks gemm [--threads N] [--quick] [--out DIR]

The shapes are those of every dense layer: the forward pass, the gradient of its input (second
factor transposed) and of its weights (first factor transposed); and squares. OpenBLAS is called
through NumPy, MKL through PyTorch if it is installed. Each library has a process of its own, and
they take turns; results are checked against float64. OpenMP's threads are bound to the cores: after
a pause the operating system may place both on one core for a while, which says nothing of a
product. "Peak" is the speed of the tile alone, on factors that stay in the first-level cache.
"""

import concurrent.futures
import contextlib
import functools
import importlib.util
import math
import multiprocessing
import os
import statistics
import sys
import time

import numpy as np
from scratchgen.kernels.compiler import compiled, prange
from scratchgen.kernels.gemm_blocks import tile

from . import records, workloads
from .processes import environment
from .readme import markdown
from .workloads import Dense

LIBRARIES = ("scratchgen", "OpenBLAS", "MKL")
ROUNDS, LEAST = 9, 0.01                   # measurements of each, and their least seconds
PAUSE = 0.15                              # seconds before each: other libraries' threads spin
RTOL = 1e-5                               # of the sum of the products' absolute values
TARGETS = {"each": 0.95, "mean": 1.05, "small": 1.2}
SMALL = 128                               # rows of a batch


# --- the shapes ----------------------------------------------------------------------------------

def shapes():
    """name → (m, k, n, first factor transposed, second factor transposed)."""
    found = {}
    for w in (workloads.dae(), workloads.dae(20), workloads.dae(1000), workloads.vae(),
              workloads.gan(), workloads.sdae()):
        for layer in (layer for layers in w.networks.values() for layer in layers):
            if isinstance(layer, Dense):
                b, i, o = w.batch, layer.inputs, layer.outputs
                found |= {f"{b}×{i} · {i}×{o}": (b, i, o, False, False),
                          f"{b}×{o} · ({i}×{o})ᵀ": (b, o, i, False, True),
                          f"({b}×{i})ᵀ · {b}×{o}": (i, b, o, True, False)}
    return found | {f"{n}×{n} · {n}×{n}": (n, n, n, False, False) for n in (256, 1000, 2000)}


def batch_of(shape):
    """The rows of the batch: of a weights' gradient, the terms of a sum."""
    m, k, _, ta, _ = shape
    return k if ta else m


# --- in the process of one library ---------------------------------------------------------------

def factors(shape):
    m, k, n, ta, tb = shape
    rng = np.random.default_rng([m, k, n])
    return (rng.standard_normal((k, m) if ta else (m, k), np.float32),
            rng.standard_normal((n, k) if tb else (k, n), np.float32))


def product_of(library, shape):
    """(a function that computes the product, its result, its error relative to Σ |a||b|)."""
    a, b = factors(shape)
    m, _, n, ta, tb = shape
    c = np.full((m, n), np.nan, np.float32)
    left, right = a.T if ta else a, b.T if tb else b
    if library == "scratchgen":
        from scratchgen.kernels.gemm import matmul_numba
        run = functools.partial(matmul_numba, a, b, c, ta, tb)
    elif library == "OpenBLAS":
        run = functools.partial(np.matmul, left, right, out=c)
    else:
        import torch
        run = functools.partial(torch.mm, torch.from_numpy(left), torch.from_numpy(right),
                                out=torch.from_numpy(c))
    run()
    exact = left.astype(np.float64) @ right
    size = np.abs(left).astype(np.float64) @ np.abs(right)
    return run, c, float(np.max(np.abs(c - exact) / size))


class Timer:
    """Of one shape in one process: the function, and how often it is called for a measurement."""

    known = {}


def error_of(library, shape):
    """Prepare a shape; the error of its result."""
    run, _, error = product_of(library, shape)
    started = time.perf_counter()
    run()
    Timer.known = {shape: (run, max(1, round(LEAST / (time.perf_counter() - started))))}
    return error


def seconds_of(shape):
    """Seconds of one product, the mean of a measurement.

    It begins when the threads of the library before it have stopped waiting actively, and after a
    product that wakes the threads of this one.
    """
    run, repeat = Timer.known[shape]
    time.sleep(PAUSE)
    run()
    started = time.perf_counter()
    for _ in range(repeat):
        run()
    return (time.perf_counter() - started) / repeat


@compiled(parallel=True, worth_threads=lambda *arguments: True)
def tiles_alone(a, b, c, times, rows, width):
    for t in prange(len(a)):                           # each iteration owns a[t], b[t] and c[t]
        k = a.shape[1] // rows
        for _ in range(times):
            tile(4, rows, a[t].ctypes.data, k, 1, b[t].ctypes.data, width, k, c[t].ctypes.data,
                 width, 0)


def peak_seconds(threads, rows, width, k=200, times=4000):
    """Seconds of a multiply-add of the tile alone, on all threads together."""
    a, b, c = (np.ones((threads, 1 << 15), np.float32)[:, :n] for n in (rows * k, width * k, 4096))
    a, b, c = (np.ascontiguousarray(x) for x in (a, b, c))
    tiles_alone(a, b, c, 1 << 15, rows, width)
    started = time.perf_counter()
    tiles_alone(a, b, c, times, rows, width)
    return (time.perf_counter() - started) / (times * rows * width * k * threads)


def tile_size():
    """(rows, columns) of the float32 tile of this processor."""
    import platform

    from scratchgen.kernels.compiler import load_numba, processor
    from scratchgen.kernels.gemm_tile import unit_of
    unit = unit_of(platform.machine(), processor(load_numba())[1])
    return unit.rows, unit.columns("float32")


# --- all of them ---------------------------------------------------------------------------------

@contextlib.contextmanager
def processes(threads):
    """library → executor of one process, for those that are installed."""
    found = {}
    with contextlib.ExitStack() as stack:
        for library in LIBRARIES:
            if library == "MKL" and not importlib.util.find_spec("torch"):
                continue
            before, count = dict(os.environ), str(threads)
            os.environ.clear()
            os.environ.update(environment("torch", threads, OPENBLAS_NUM_THREADS=count,
                                          NUMBA_NUM_THREADS=count, OMP_PROC_BIND="true"))
            executor = concurrent.futures.ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"))
            found[library] = stack.enter_context(executor)
            executor.submit(os.getpid).result()        # the process starts with these variables
            os.environ.clear()
            os.environ.update(before)
        yield found


def measure(options):
    """The record of this processor: {"machine", "threads", "peak", "rows"}."""
    rows = []
    with processes(options.threads) as libraries:
        size = libraries["scratchgen"].submit(tile_size).result()
        peak = math.inf
        for name, shape in shapes().items():
            errors = {lib: p.submit(error_of, lib, shape).result() for lib, p in libraries.items()}
            if not all(error <= RTOL for error in errors.values()):        # NaN fails too
                raise records.Refused(f"{name}: relative errors of {errors}; expected {RTOL}")
            times = {library: [] for library in libraries}
            for _ in range(1 if options.quick else ROUNDS):
                for library, process in libraries.items():
                    times[library].append(process.submit(seconds_of, shape).result())
            time.sleep(PAUSE)
            peak = min(peak, libraries["scratchgen"].submit(
                peak_seconds, options.threads, *size).result())
            work = 2e-9 * math.prod(shape[:3])
            rows.append({"product": name, "batch": batch_of(shape), "gflops": {
                library: {"median": work / statistics.median(t), "best": work / min(t)}
                for library, t in times.items()}})
            records.progress(f"{name}: " + ", ".join(
                f"{lib} {g['median']:.0f}" for lib, g in rows[-1]["gflops"].items()))
    return {"machine": records.machine(), "threads": options.threads, "peak": 2e-9 / peak,
            "tile": list(size), "rows": rows}


def summary(section):
    """The geometric means, and the targets that are missed."""
    rows = section["rows"]
    best = [max(g["median"] for lib, g in row["gflops"].items() if lib != "scratchgen")
            for row in rows]
    ratios = [row["gflops"]["scratchgen"]["median"] / fastest
              for row, fastest in zip(rows, best, strict=True)]
    of_openblas = [row["gflops"]["scratchgen"]["median"] / row["gflops"]["OpenBLAS"]["median"]
                   for row in rows if row["batch"] <= SMALL]
    return {"ratios": ratios, "mean": statistics.geometric_mean(ratios),
            "below": sum(r < TARGETS["each"] for r in ratios),
            "small": statistics.geometric_mean(of_openblas)}


def table_of(section):
    """What is printed: a row for each product, and the targets."""
    found, libraries = summary(section), list(section["rows"][0]["gflops"])
    header = ("product", *(f"{library}, GFLOP/s" for library in libraries), "of the faster library")
    rows = [(row["product"], *(f"{row['gflops'][lib]['median']:.0f}" for lib in libraries),
             records.marked_at_least(ratio, TARGETS["each"]))
            for row, ratio in zip(section["rows"], found["ratios"], strict=True)]
    return "\n".join([
        markdown(header, rows, right=range(1, len(header))), "",
        f"Geometric mean {records.marked_at_least(found['mean'], TARGETS['mean'])} of the faster "
        f"library, {records.marked_at_least(found['small'], TARGETS['small'])} of OpenBLAS for "
        f"batches of at most {SMALL}; {found['below']} of {len(rows)} products below "
        f"{TARGETS['each']}. The tile alone, {section['tile'][0]} × {section['tile'][1]}: "
        f"{section['peak']:.0f} GFLOP/s. {records.provenance(section)}"])


def run(arguments):
    options = records.parser(__doc__).parse_args(arguments)
    records.check(options)
    path = records.path_of("gemm.json", options.out)
    record = records.load(path) or {"processors": {}}
    section = measure(options)
    record["processors"][section["machine"]["processor"]] = section
    records.save(path, record)
    print(table_of(section))
    return 0


def main(arguments):
    return records.guarded(run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
