"""Training that is killed at random moments or runs out of disk space.

A run that is killed and resumed repeatedly must always have a valid checkpoint and must end with
the same bytes as an undisturbed run. The same holds for a full disk.
"""

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scratchgen.train import runs

ROOT = Path(__file__).parents[2]
FILES = ("checkpoint.safetensors", "config.toml", "state.json")
TABLES = {
    "run": {"model": "vae", "seed": 5},
    "data": {"limit": 240},
    "train": {"epochs": 5, "batch_size": 20, "checkpoint_every": 2},
    "model": {"hidden": 40, "latent": 5},
}
# A server process that imports everything once. For each folder name on its standard input it forks
# a process that trains into that folder, and prints the process id, then the exit status.
PROGRAM = """
import json, os, sys
import numba, safetensors.numpy, tomli_w
from scratchgen import data, optim, train
from scratchgen.models import MODELS
given = json.loads(sys.argv[1])
for line in sys.stdin:
    out = line.strip()
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)
        continue
    sys.stdin.close()
    try:
        train.train(given, out, resume=os.path.exists(os.path.join(out, "config.toml")))
    except BaseException as error:
        with open(out + ".said", "w") as file:
            file.write(f"{type(error).__name__}: {error}")
        os._exit(2)
    os._exit(0)
"""


class Trainers:
    """Runs trainings with one backend, one at a time, each in a forked process."""

    def __init__(self, backend):
        tables = {**TABLES, "run": {**TABLES["run"], "backend": backend}}
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1",
                       "NUMBA_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(tables)], text=True, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)

    def train(self, path, kill_after=None):
        """Trains into ``path``, or resumes the run there; (exit status, seconds).

        ``kill_after``: seconds after which the process is killed (status -9) if still running.
        """
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        begun = time.monotonic()
        if kill_after is not None:
            ended, _, _ = select.select([self.process.stdout], [], [], kill_after)
            if not ended:
                os.kill(pid, signal.SIGKILL)
        status = int(self.process.stdout.readline())
        return status, time.monotonic() - begun

    def finish(self, path):
        """Trains to the end; returns the seconds."""
        status, seconds = self.train(path)
        if status:
            raise RuntimeError(f"a run did not end well: {Path(f'{path}.said').read_text()}")
        return seconds


def content(path):
    """The bytes of a run's results, without times and machine."""
    metrics = [{k: v for k, v in line.items() if k != "seconds"}
               for line in runs.Run(path).metrics()]
    return [*((path / name).read_bytes() for name in FILES), metrics]


def kills(count, seed=0, backends=("numpy", "numba"), chain=6, report=lambda killed: None):
    """Kills trainings ``count`` times, each run up to ``chain`` times; returns a dict of counts.

    The moments are random between start and end of the training. Raises AssertionError or UserError
    if the files that remain are not valid.
    """
    rng, counts = random.Random(seed), dict.fromkeys(COUNTS, 0)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trainers, whole, seconds = {}, {}, {}
        for backend in backends:
            trainers[backend] = stack.enter_context(Trainers(backend))
            path = Path(folder) / backend
            trainers[backend].finish(path)  # fills the cache of compiled kernels
            shutil.rmtree(path)
            seconds[backend] = trainers[backend].finish(path)
            whole[backend] = content(path)
        while counts["kills"] < count:
            number = counts["runs ended in the same bytes"]
            backend = backends[number % len(backends)]
            path = Path(folder) / f"killed-{number}"
            for _ in range(min(chain, count - counts["kills"])):
                span = seconds[backend] / (1 if rng.random() < 0.3 else chain / 2)
                status, _ = trainers[backend].train(path, rng.uniform(0, span))
                if status == 0:
                    break
                assert status == -signal.SIGKILL, Path(f"{path}.said").read_text()
                inspect(path, counts)
                report(counts["kills"])
            trainers[backend].finish(path)
            assert content(path) == whole[backend], f"{path.name} ended in other bytes"
            assert not list(path.glob(".*.tmp")), "a temporary file was left"
            counts["runs ended in the same bytes"] += 1
            shutil.rmtree(path)
    return counts


COUNTS = ("kills", "before the first checkpoint", "while a file was being written",
          "runs ended in the same bytes")


def inspect(path, counts):
    """Checks that a killed run has a valid checkpoint or had not written its first one."""
    run = runs.Run(path)
    if run.checkpoint_path.exists():
        run.checkpoint()  # valid, or UserError
    else:
        assert not run.metrics(), "metrics without a checkpoint"
        counts["before the first checkpoint"] += 1
    counts["kills"] += 1
    counts["while a file was being written"] += any(path.glob(".*.tmp"))


def full_disk(attempts=12, report=lambda row: None):
    """Trains on a tmpfs that fills up, with ``attempts`` different amounts of free space.

    Each time the training must end with one sentence, a valid checkpoint must remain, and with free
    space again the run must end with the bytes of the undisturbed one. None if this user may not
    mount a tmpfs.
    """
    size = 4 << 20
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        if os.name == "nt" or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "scratchgen-test", disk],
                capture_output=True).returncode:
            return None
        try:
            with Trainers("numpy") as trainers:
                trainers.finish(Path(folder) / "whole")
                needed = sum(f.stat().st_size for f in (Path(folder) / "whole").iterdir())
                return [fill_and_train(trainers, Path(folder), size - round(
                    i * 2.2 * needed / attempts), report) for i in range(attempts)]
        finally:
            subprocess.run(["umount", disk], check=True)


def fill_and_train(trainers, folder, filled, report):
    """One attempt with ``filled`` bytes of the disk occupied; a row of the report."""
    path, filler = folder / "disk" / "run", folder / "disk" / "filler"
    said = Path(f"{path}.said")
    filler.write_bytes(bytes(max(0, filled - 8192)))
    said.symlink_to(folder / "said")  # the error message needs no space on the full disk
    status, _ = trainers.train(path)
    sentence = said.read_text() if status else "done"
    assert status == 0 or sentence.startswith("UserError: "), sentence
    kept = runs.Run(path).checkpoint_path.exists()
    if kept:
        runs.Run(path).checkpoint()
    filler.unlink()
    trainers.finish(path)
    assert content(path) == content(folder / "whole"), "the run ended in other bytes"
    shutil.rmtree(path)
    said.unlink()
    row = {"taken": filled, "failed": status != 0, "checkpoint kept": kept,
           "said": sentence.replace(str(folder), "")}
    report(row)
    return row
