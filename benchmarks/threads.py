"""Threads: one pool for products and kernels, or BLAS's threads beside Numba's, quiet and crowded.

    python -m benchmarks threads [--threads 2] [--quick] [--out DIR]

A stack of dense layers, forward, as the engine computes it (its own threads call BLAS, one thread
each) and as NumPy and Numba do by default (``np.matmul`` on BLAS's threads, then a
kernel on Numba's, both with the settings they come with). Each in a process of its own; then again
beside a process that keeps a core busy.
"""

import json
import os
import statistics
import subprocess
import sys
import time

from . import records
from .readme import markdown

SETTINGS = {"one pool, as in the engine": "one", "two pools, BLAS's and Numba's": "two"}
CONDITIONS = ("quiet", "beside a busy process")
SIZES = (784, 500, 784, 500, 784)
BATCH = 100
BUSY = "while True: pass"


def main(arguments):
    return records.guarded(run, arguments)


def run(arguments):
    options = records.parser(__doc__).parse_args(arguments)
    records.check(options)
    rounds, path = 1 if options.quick else 5, records.path_of("threads.json", options.out)
    found = {title: {condition: [] for condition in CONDITIONS} for title in SETTINGS}
    sums = set()
    for _ in range(rounds):
        for condition in CONDITIONS:
            neighbour = subprocess.Popen([sys.executable, "-c", BUSY]) \
                if condition != "quiet" and not options.quick else None
            for title, setting in SETTINGS.items():
                result = child(setting, options)
                found[title][condition] += result["seconds"]
                sums.add(round(result["sum"], 3))
            if neighbour:
                neighbour.kill()
                neighbour.wait()
    seconds = {title: {c: {"median": statistics.median(times), "minimum": min(times),
                           "count": len(times)} for c, times in by.items()}
               for title, by in found.items()}
    record = {"machine": records.machine(), "threads": options.threads, "seconds": seconds}
    records.save(path, record)
    print(table(record))
    return 0 if len(sums) == 1 else 1


def child(setting, options):
    clean = {k: v for k, v in os.environ.items()
             if not k.endswith("_NUM_THREADS") and not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", "benchmarks.threads", setting, str(options.threads),
               "3" if options.quick else "200"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True,
                          cwd=records.ROOT)
    return json.loads(done.stdout)


def work(setting, threads, repeats):
    """Seconds of each forward pass after the first ten, and the sum of the result."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import numpy as np
    from scratchgen.kernels import blas, compiler, dense

    if setting == "two":
        compiler.limit_openmp_spinning = lambda: None                 # OpenMP as it comes
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s).astype(np.float32) / 28 for s in zip(SIZES, SIZES[1:],
                                                                      strict=False)]
    values = [np.empty((BATCH, n), np.float32) for n in SIZES]
    values[0][...] = rng.random(values[0].shape)
    forward, activate = dense.forward_numba.launcher(), dense.bias_activation_numba.launcher()
    tanh, zeros = dense.ACTIVATIONS["tanh"], {n: np.zeros(n, np.float32) for n in SIZES}

    def together():
        for x, w, y in zip(values, weights, values[1:], strict=False):
            forward(x, w, False, zeros[y.shape[1]], tanh, y)

    def apart():
        for x, w, y in zip(values, weights, values[1:], strict=False):
            np.matmul(x, w, out=y)
            activate(y, zeros[y.shape[1]], tanh)

    step = together if setting == "one" else apart
    step()
    if setting == "two":
        blas.use_threads(threads)
    seconds = []
    for _ in range(10 + repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[10:], "sum": float(values[-1].sum(dtype=np.float64))}


def table(record):
    """Medians and minima, in milliseconds."""
    rows = [[title, *(f"{1e3 * by[c]['median']:.2f} ({1e3 * by[c]['minimum']:.2f})"
                      for c in CONDITIONS)] for title, by in record["seconds"].items()]
    sizes = "-".join(map(str, SIZES))
    text = markdown((f"forward through {sizes}, batch {BATCH}", *(f"{c}, ms" for c in CONDITIONS)),
                    rows, right=(1, 2))
    return f"{text}\n\n{records.provenance(record)}"


if __name__ == "__main__":
    print(json.dumps(work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
