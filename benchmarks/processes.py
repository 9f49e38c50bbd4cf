"""A peer in its own process, which answers one question at a time and waits in between."""

import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

from . import peers

ROOT = pathlib.Path(__file__).parents[1]
PATIENCE = 400                            # seconds for one answer: a cold compilation may be in it


class Failed(Exception):
    """A peer gave no answer, or said why it cannot."""


def environment(name, threads, **more):
    """This process's variables without any setting of threads, and the peer's own."""
    own = {k: v for k, v in os.environ.items() if k not in peers.THREAD_SETTINGS}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**own, "PYTHONPATH": path, **peers.environment(name, threads), **more}


class Process:
    """``Process(name, threads, maker, options, variant)``; use it in a ``with`` block."""

    def __init__(self, name, threads, maker, options=None, variant=None, **variables):
        self.name, self.started = name, time.perf_counter()
        self.errors = tempfile.TemporaryFile()
        texts = [json.dumps(part) for part in (options or {}, variant or {})]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.server", name, str(threads), maker, *texts],
            cwd=ROOT, env=environment(name, threads, **variables), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()            # it ends when its input does
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ask(self, do, **arguments):
        """The answer to a command; Failed with the reason if there is none."""
        try:
            self.process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.last_words()) from None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.process.kill()
            raise Failed(f"no answer to {do!r} in {PATIENCE} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(self.last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def first_step(self):
        """Seconds from the process's start to the end of its first step, and of that step alone."""
        alone = self.ask("first")["seconds"]
        return {"start": time.perf_counter() - self.started, "first_step": alone}

    def every_kind_of_step(self):
        """Ask for all that a measurement asks for, once: with it everything is compiled."""
        self.first_step()
        with tempfile.TemporaryDirectory() as folder:
            self.ask("check", steps=2, gradients=str(pathlib.Path(folder) / "gradients.npz"))
        self.ask("time", steps=1, chunks=1)

    def last_words(self):
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        status = self.process.poll()
        return lines[-1][:300] if lines else f"ended with status {status}"


class GpuProcess(Process):
    """``GpuProcess("torch")``: a process for the peers of one library on the GPU."""

    def __init__(self, module, **variables):
        self.name, self.started = module, time.perf_counter()
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.server", module], cwd=ROOT,
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
        self.process.kill()                            # it may still be compiling
        super().__exit__(*exception)

    def alive(self):
        return self.process.poll() is None


def compile_ahead(name, *what):
    """Compile in a process that is not measured what ``name`` keeps on disk; else do nothing.

    ``what``: threads and the rest of ``Process``'s arguments. Whoever is measured after that starts
    warm, and its memory is a training's without a compiler's. JAX and eager PyTorch keep nothing:
    each of their processes is as every later one of a user's. Raises Failed if a step does.
    """
    if name in peers.CACHES:
        with Process(name, *what) as process:
            process.every_kind_of_step()
