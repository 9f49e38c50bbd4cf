"""``scratchgen warmup``: what it compiles is what training needs."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.long
def test_after_a_warm_up_training_compiles_nothing(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
                   "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def scratchgen(*arguments):
        done = subprocess.run([sys.executable, "-m", "scratchgen.cli", *arguments], env=environment,
                              cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first = scratchgen("warmup", "vae", "--preset", "default")
    assert int(first[-1].split()[0]) > 20
    again = scratchgen("warmup", "vae", "--preset", "default")
    assert again[-1] == "all kernels were already in the cache"
    code = """
from scratchgen.train import train
from scratchgen.kernels import compiler
compiled = []
with compiler.on_compilation(compiled.append):
    train({"run": {"model": "vae"}, "train": {"epochs": 2}, "data": {"limit": 700}})
print(compiled)"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_training_needs_no_kernel_that_the_warm_up_has_not_used(tmp_path):
    """The short version: a small network, and the versions of all kernels in a new process.

    A version belongs to one list of argument types, serial or parallel. Each is compiled or read
    from the cache at its first use, so the test does not depend on what the cache contains.
    """
    code = """
import gc
from scratchgen.cli.warmup import warm_up
from scratchgen.kernels import compiler
from scratchgen.train import train

def versions():
    kernels = [k for k in gc.get_objects() if type(k) is compiler.compiled]
    return {(k.__module__, k.__qualname__, parallel, signature) for k in kernels
            for parallel, d in k._dispatchers.items() for signature in d.signatures}

given = {"run": {"model": "vae"}, "model": {"arch": "mlp", "hidden": 16, "latent": 2}}
warm_up(given)
before = versions()
train({**given, "train": {"epochs": 2}, "data": {"limit": 300}})
print(len(before), sorted(versions() - before, key=str))"""
    environment = {**os.environ,
                   "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, new = done.stdout.split(maxsplit=1)
    assert int(count) > 10
    assert new.strip() == "[]"


def test_unknown_names_are_refused(capsys):
    from scratchgen import cli

    assert cli.run(["warmup", "vee"]) == 2
    assert "did you mean 'vae'" in capsys.readouterr().err
    assert cli.run(["warmup", "vae", "--preset", "defalt"]) == 2
    assert "did you mean 'default'" in capsys.readouterr().err
