"""A peer's process: it keeps many peers, one a row and variant, and answers one at a
time. Between questions it waits, so that those of others can be timed.

    python -m benchmarks.gpu.process MODULE        reads questions as JSON lines, answers likewise

Processes of their own keep one library's memory, settings and faults from the others'.
"""

import importlib
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time

from ..processes import ROOT, Failed
from ..processes import Process as OfTheRace

STEPS_BEFORE = 3                                       # until everything has been compiled


class Process(OfTheRace):
    """``Process("ours")``; use it in a ``with`` block."""

    def __init__(self, module, **variables):
        self.name, self.started = module, time.perf_counter()
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.process", module], cwd=ROOT,
            env={**os.environ, **variables}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors)

    def ask(self, do, patience=60, **arguments):
        """The answer to a question; Failed with the reason if there is none in time."""
        try:
            self.process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise Failed(f"its process has ended: {self.last_words()}") from None
        if not select.select([self.process.stdout], [], [], max(patience, 0.1))[0]:
            self.process.kill()
            raise Failed(f"no answer to {do!r} in {patience:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(10)
            raise Failed(f"its process has ended: {self.last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def __exit__(self, *exception):
        self.process.kill()                            # it may be at work on what nobody waits for
        super().__exit__(*exception)

    def alive(self):
        return self.process.poll() is None


class Served:
    """The peers of one library by name, and the answers."""

    def __init__(self, module):
        self.module = importlib.import_module(f"benchmarks.gpu.{module}")
        self.known = {}

    def answer(self, question):
        return getattr(self, question.pop("do"))(**question)

    def build(self, name, row, precision, quick, variant):
        """Make a peer and do the first steps; seconds that this took."""
        from . import rows
        self.module.set_precision(precision)
        started = time.perf_counter()
        peer = self.module.Peer(rows.workload(row, quick), **variant)
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


def main(module):
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                                      # what libraries print must not mix with them
    served = None
    for line in sys.stdin:
        try:
            served = served or Served(module)
            answer = served.answer(json.loads(line))
        except Exception as error:                     # the row is marked; the others go on
            text = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {text[:400]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
