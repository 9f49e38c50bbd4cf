"""A lower bound for the time of a training step: its matrix products and its memory traffic.

    bound = multiply-adds of the products / measured peak
          + (4·7·P + 8·(A + A')) bytes / measured bandwidth

P parameters: Adam reads p, g, m, v and writes p, m, v (SGD without momentum: 3 instead of 7).
A elements of layers' outputs and A' of their gradients: outside the products each is read once and
written once. A convolution counts as the product of its patches, gathering them not counted; a
kernel that needs fewer multiply-adds (kernels/winograd.py) may take less time than this bound.

The peak is the speed of the product's innermost tile alone, on factors that stay in the first-level
cache, on all threads (``benchmarks/gemm.py``). The bandwidth is that of copying between
arrays which together are as large as what the step touches: what fits in the caches moves faster,
which lowers the bound.
"""

import concurrent.futures
import json
import math
import os
import subprocess
import sys
import time

import numpy as np

from . import workloads
from .processes import ROOT, Failed, environment
from .workloads import KERNEL, BatchNorm, Conv, ConvTranspose, Dense, TiedDense

SECONDS, LEAST, MOST = 0.25, 3, 300       # for each measurement
PEAKS = 15                                # measurements of the tile
WITH_WEIGHTS = (Dense, TiedDense, Conv, ConvTranspose)


def passes(workload):
    """(network, gradients of its weights?, of its input?, at all?) of each pass of a step."""
    if workload.kind == "gan":
        return [("generator", False, False, False), ("discriminator", True, False, True),
                ("discriminator", True, False, True), ("generator", True, False, True),
                ("discriminator", False, True, True)]
    first, *others = workload.networks
    return [(first, True, False, True), *((name, True, True, True) for name in others)]


def features(workload, network):
    """The features of the rows that go into a network."""
    layers = workload.networks[network]
    return getattr(layers[0], "inputs", None) if isinstance(layers[0], (Dense, TiedDense)) else (
        math.prod(layers[0].shape))


def as_product(layer, before, after, batch):
    """(rows, inner, columns) of the product that a layer's forward pass is."""
    match layer:
        case Dense(inputs, outputs) | TiedDense(inputs, outputs):
            return batch, inputs, outputs
        case Conv(inputs, outputs):
            return batch * math.prod(after[:2]), KERNEL**2 * inputs, outputs
        case ConvTranspose(inputs, outputs):
            return batch * math.prod(before[:2]), inputs, KERNEL**2 * outputs


def products(workload):
    """(m, k, n) of every matrix product in a step."""
    found = []
    for network, dw, dx_of_first, backward in passes(workload):
        first = True
        layers = workloads.sizes(workload.networks[network], features(workload, network))
        for layer, before, after in layers:
            if not isinstance(layer, WITH_WEIGHTS):
                continue
            m, k, n = as_product(layer, before, after, workload.batch)
            found.append((m, k, n))
            if backward and (dx_of_first or not first):
                found.append((m, n, k))                        # dx = dy wᵀ
            if dw:
                found.append((k, m, n))                        # dw = xᵀ dy
            first = False
    return found


def moved(workload):
    """(bytes that the step moves outside the products, bytes that it touches at all)."""
    parameters = sum(a.size for a in workload.weights().values())
    elements = touched = 0
    for network, _, _, backward in passes(workload):
        layers = workloads.sizes(workload.networks[network], features(workload, network))
        outputs = sum(math.prod(after) for layer, _, after in layers
                      if isinstance(layer, (*WITH_WEIGHTS, BatchNorm))) * workload.batch
        elements += outputs * (1 + backward)
        touched += outputs
    accesses, arrays = (7, 4) if workload.optimiser == "adam" else (3, 2)
    return 4 * accesses * parameters + 8 * elements, 4 * (arrays * parameters + touched)


# --- measuring -----------------------------------------------------------------------------------

def best(run, seconds=SECONDS):
    """The shortest time of ``run()`` in seconds, of many."""
    run()
    shortest, count, end = math.inf, 0, time.perf_counter() + seconds
    while count < LEAST or count < MOST and time.perf_counter() < end:
        started = time.perf_counter()
        run()
        shortest, count = min(shortest, time.perf_counter() - started), count + 1
    return shortest


def product_time(shape, seconds=SECONDS):
    """Seconds of one product (m, k) @ (k, n), float32, or of its transpose: in whichever order in
    memory of the operands it is fastest.
    """
    m, k, n = shape
    return min(in_order(*sizes, transposed, seconds / 6)
               for sizes in ((m, k, n), (n, k, m)) for transposed in ("", "a", "b"))


def in_order(m, k, n, transposed, seconds):
    """The same, with one operand a transposed view or none."""
    rng = np.random.default_rng(0)
    a = rng.random((k, m) if transposed == "a" else (m, k), np.float32)
    b = rng.random((n, k) if transposed == "b" else (k, n), np.float32)
    a, b = a.T if transposed == "a" else a, b.T if transposed == "b" else b
    out = np.empty((m, n), np.float32)
    return best(lambda: np.matmul(a, b, out=out), seconds)


def bandwidth(size, threads, seconds=SECONDS):
    """Bytes a second, read plus written, of copying within ``size`` bytes on ``threads`` threads.

    Each thread copies its own part many times in one go, so that starting it does not count.
    """
    part = max(1024, size // 8 // threads)                     # two arrays of float32
    pairs = [(np.ones(part, np.float32), np.empty(part, np.float32)) for _ in range(threads)]
    times = max(1, int(5e7 // (8 * part)))

    def copies(pair):
        for _ in range(times):
            np.copyto(pair[1], pair[0])

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        fastest = best(lambda: list(pool.map(copies, pairs)), seconds)
    return threads * times * 8 * part / fastest


def measure(workload, threads):
    """(multiply-adds per second, bytes per second)."""
    from .gemm import peak_seconds, tile_size
    size = tile_size()
    return (1 / min(peak_seconds(threads, *size) for _ in range(PEAKS)),
            bandwidth(moved(workload)[1], threads))


def in_own_process(maker, options, threads):
    """``measure`` in a fresh process on ``threads`` cores."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lower_bound", maker, json.dumps(options), str(threads)],
        cwd=ROOT, env=environment("numpy", threads), capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"the lower bound was not measured: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def of_workload(maker, options, threads):
    """{floor, products, memory} in seconds, and what they are made of."""
    workload = workloads.make(maker, options)
    peak, rate = in_own_process(maker, options, threads)
    shapes, (size, touched) = products(workload), moved(workload)
    work, different = sum(map(math.prod, shapes)), sorted(set(shapes))
    return {"floor": work / peak + size / rate, "products": work / peak, "memory": size / rate,
            "flops": 2 * work, "flops_per_second": 2 * peak, "bytes": size, "touched": touched,
            "bytes_per_second": rate, "shapes": [[*s, shapes.count(s)] for s in different]}


if __name__ == "__main__":
    THREADS = int(sys.argv[3])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    print(json.dumps(measure(workloads.make(sys.argv[1], json.loads(sys.argv[2])), THREADS)))
