"""A peer's process: reads questions as JSON lines, answers each with one line.

    python -m benchmarks.peers.server NAME THREADS MAKER OPTIONS VARIANT    CPU (JSON texts)
    python -m benchmarks.peers.server MODULE                               GPU

A process for each peer separates the memory, settings and faults of the libraries. Between
questions it waits, so that others can be timed.
"""

import importlib
import json
import math
import os
import sys
import time

STEPS_BEFORE = 3                          # on the GPU, until everything is compiled


def serve(make):
    """Answers the questions on standard input with the methods of ``make()``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                         # what libraries print must not mix with the answers
    served = None
    for line in sys.stdin:
        try:
            served = served or make()
            answer = served.answer(json.loads(line))
        except Exception as error:        # the row is marked; the benchmark goes on
            text = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {text[:400]}"}
        print(json.dumps(answer), file=answers, flush=True)


class Served:
    """The peer, and its answers."""

    def __init__(self, name, threads, maker, options, variant):
        from benchmarks import peers, workloads
        module = importlib.import_module(f"benchmarks.peers.{peers.MODULES[name]}")
        self.resident = memory("VmRSS")       # after the imports
        if hasattr(module, "set_threads"):
            module.set_threads(threads)
        self.peer = module.Peer(workloads.make(maker, options), **variant)
        self.steps = 0

    def answer(self, command):
        return getattr(self, command.pop("do"))(**command)

    def first(self):
        """The first step of all: what has to be compiled is compiled here."""
        self.peer.reset()
        started = time.perf_counter()
        self.run(1)
        return {"seconds": time.perf_counter() - started}

    def check(self, steps, lr=None, gradients=None):
        """From the initial weights: the losses, and the first step's gradients in a file."""
        import numpy as np
        self.peer.reset(lr)
        self.steps = 0
        self.run(1)
        if gradients:
            arrays = self.peer.gradients()
            np.savez(gradients, **{" ".join(map(str, key)): a for key, a in arrays.items()})
        self.run(steps - 1)
        return {"losses": np.asarray(self.peer.losses(), float).tolist()}

    def time(self, steps, chunks):
        """Seconds a step, in each of some chunks of steps; and whether all losses are finite."""
        import numpy as np
        seconds = []
        for _ in range(chunks):
            started = time.perf_counter()
            self.run(steps)
            seconds.append((time.perf_counter() - started) / steps)
        losses = np.asarray(self.peer.losses(), float)
        return {"seconds": seconds, "finite": bool(np.isfinite(losses).all())}

    def run(self, steps):
        for _ in range(steps):
            self.peer.step(self.steps)
            self.steps += 1
        self.peer.wait()

    def memory(self):
        """Peak and present resident memory of this process, and what its imports took, MiB."""
        return {"peak": memory("VmHWM"), "now": memory("VmRSS"), "imports": self.resident}


def memory(field):
    """A line of the kernel's account of this process, in MiB."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


class ServedOnGpu:
    """The peers of one library on the GPU by name, one for each row and variant."""

    def __init__(self, module):
        self.module = importlib.import_module(f"benchmarks.peers.{module}")
        self.known = {}

    def answer(self, question):
        return getattr(self, question.pop("do"))(**question)

    def build(self, name, row, precision, quick, variant):
        """Makes a peer and runs its first steps; returns the seconds."""
        from benchmarks.gpu import rows
        self.module.set_precision(precision)
        started = time.perf_counter()
        peer = self.module.CudaPeer(rows.workload(row, quick), **variant)
        peer.reset()
        for i in range(STEPS_BEFORE):
            peer.step(i)
        peer.wait()
        self.known[name] = peer, precision
        return {"seconds": time.perf_counter() - started,
                "note": getattr(peer, "note", None)}

    def chosen(self, name):
        peer, precision = self.known[name]
        self.module.set_precision(precision)
        return peer

    def check(self, name, steps, lr=None):
        """The losses of the first steps from the initial weights."""
        peer, losses = self.chosen(name), []
        peer.reset(lr)
        for i in range(steps):
            peer.step(i)
            losses.append(peer.losses())
        peer.reset()
        return {"losses": losses}

    def time(self, name, steps, blocks):
        """Seconds a step in each of some blocks of steps; the host waits at their ends only."""
        peer, seconds = self.chosen(name), []
        peer.wait()
        for _ in range(blocks):
            started = time.perf_counter()
            for i in range(steps):
                peer.step(i)
            peer.wait()
            seconds.append((time.perf_counter() - started) / steps)
        return {"seconds": seconds, "finite": all(map(math.isfinite, peer.losses()))}

    def kernels(self, name):
        return self.chosen(name).kernels()

    def drop(self, name):
        """Forget a peer; its memory is for others."""
        self.known.pop(name, None)
        return {}


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(lambda: ServedOnGpu(sys.argv[1]))
    else:
        THREADS = int(sys.argv[2])
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
        serve(lambda: Served(sys.argv[1], THREADS, sys.argv[3], *map(json.loads, sys.argv[4:6])))
