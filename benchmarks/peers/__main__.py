"""A peer's process: reads commands as JSON lines, answers each with one.

    python -m benchmarks.peers NAME THREADS MAKER OPTIONS VARIANT       (JSON texts)
"""

import json
import os
import sys
import time


def main(name, threads, maker, options, variant):
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                             # what libraries print must not mix with the answers
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    served = None
    for line in sys.stdin:
        try:
            served = served or Served(name, threads, maker, options, variant)
            answer = served.answer(json.loads(line))
        except Exception as error:            # the row is marked; the benchmark goes on
            text = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {text[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


class Served:
    """The peer, and its answers."""

    def __init__(self, name, threads, maker, options, variant):
        import importlib

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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(json.loads, sys.argv[4:6]))
