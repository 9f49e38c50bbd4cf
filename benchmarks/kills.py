"""Training killed at random moments, and disks that are full: what is left must be whole.

A run that is killed, resumed, killed again, … must at every moment hold a checkpoint that loads,
and end in the same bytes as the run that nothing disturbed. The same for a disk without room.
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

ROOT = Path(__file__).parents[1]
FILES = ("checkpoint.safetensors", "config.toml", "state.json")
TABLES = {
    "run": {"model": "vae", "seed": 5},
    "data": {"limit": 240},
    "train": {"epochs": 5, "batch_size": 20, "checkpoint_every": 2},
    "model": {"hidden": 40, "latent": 5},
}
# The trainers, each in a process of its own: forked off one that has imported everything and has
# not computed anything, at a line that names the folder. Ready when it has said its number.
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
    """Starts trainings with one backend, one after the other."""

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
        """Trains, or goes on training, into ``path``; (exit status, seconds).

        With ``kill_after``, it is killed so many seconds later, unless it has ended: status -9.
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
        """Trains to the end; the seconds it took."""
        status, seconds = self.train(path)
        if status:
            raise RuntimeError(f"a run did not end well: {Path(f'{path}.said').read_text()}")
        return seconds


def content(path):
    """The bytes of what a run's result is; times and machine left out."""
    metrics = [{k: v for k, v in line.items() if k != "seconds"}
               for line in runs.Run(path).metrics()]
    return [*((path / name).read_bytes() for name in FILES), metrics]


def kills(count, seed=0, backends=("numpy", "numba"), chain=6, tell=lambda killed: None):
    """Kill ``count`` times, up to ``chain`` times a run; a dict of counts.

    The moments are random between the beginning of the training and its end. AssertionError or
    UserError if what is left is not whole.
    """
    rng, counts = random.Random(seed), dict.fromkeys(COUNTS, 0)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trainers, whole, seconds = {}, {}, {}
        for backend in backends:
            trainers[backend] = stack.enter_context(Trainers(backend))
            path = Path(folder) / backend
            trainers[backend].finish(path)  # compiles what is not yet compiled
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
                tell(counts["kills"])
            trainers[backend].finish(path)
            assert content(path) == whole[backend], f"{path.name} ended in other bytes"
            assert not list(path.glob(".*.tmp")), "a temporary file was left"
            counts["runs ended in the same bytes"] += 1
            shutil.rmtree(path)
    return counts


COUNTS = ("kills", "before the first checkpoint", "while a file was being written",
          "runs ended in the same bytes")


def inspect(path, counts):
    """Whether a killed run holds a whole checkpoint, or had not come to its first one."""
    run = runs.Run(path)
    if run.checkpoint_path.exists():
        run.checkpoint()  # whole, or UserError
    else:
        assert not run.metrics(), "metrics without a checkpoint"
        counts["before the first checkpoint"] += 1
    counts["kills"] += 1
    counts["while a file was being written"] += any(path.glob(".*.tmp"))


def full_disk(attempts=12, tell=lambda row: None):
    """Train on a disk of memory that fills up, at ``attempts`` different amounts of free space.

    Each time: exit status 2 and one sentence; the checkpoint that was there, or a later whole one,
    loads; and with space again the run ends in the bytes of the undisturbed one. Needs the right to
    mount; returns None where that is lacking.
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
                return [_fill_and_train(trainers, Path(folder), size - round(
                    i * 2.2 * needed / attempts), tell) for i in range(attempts)]
        finally:
            subprocess.run(["umount", disk], check=True)


def _fill_and_train(trainers, folder, filled, tell):
    """One attempt with ``filled`` bytes of the disk taken away; a row of the report."""
    path, filler = folder / "disk" / "run", folder / "disk" / "filler"
    said = Path(f"{path}.said")
    filler.write_bytes(bytes(max(0, filled - 8192)))
    said.symlink_to(folder / "said")  # the last words need no room on the full disk
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
    tell(row)
    return row
