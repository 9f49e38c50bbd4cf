"""Compile ahead of time: one epoch of two steps of a model, so that its kernels are in the cache.

Kernels are compiled at their first call and kept on disk; who starts a course, or measures, wants
that done before. What a model needs is found by training it, not by a list that would go stale.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..engine.backend import gpu
from ..kernels import compiler
from ..train import config, train

KINDS = ("dae", "sdae", "vae", "gan", "classifier")    # "probe" needs another model's run


@dataclass(frozen=True)
class Warm:
    """What one form of a model took: kernels compiled now, and the seconds of it all."""

    kernels: int
    seconds: float


def forms(kind, preset=None):
    """Name → the configurations of a model that use different kernels: its architectures, or
    ``preset`` alone."""
    if preset is not None:
        return {f"{kind} {preset}": {"run": {"model": kind, "preset": preset}}}
    choices = config.model_class(kind).Config.__dataclass_fields__
    archs = choices["arch"].metadata["choices"] if "arch" in choices else (None,)
    return {kind if arch is None else f"{kind} {arch}":
            {"run": {"model": kind}, **({"model": {"arch": arch}} if arch else {})}
            for arch in archs}


def warm_up(given, on_kernel=lambda name: None):
    """Train the configuration ``given`` for two steps, in a folder that is thrown away.

    ``on_kernel`` is called with the name of each kernel as its compilation begins.
    """
    resolved = config.resolve(given)
    batch, started, names = resolved["train"]["batch_size"], time.perf_counter(), []

    def begins(name):
        names.append(name)
        on_kernel(name)

    two_steps = {"data": {"limit": 2 * batch}, "train": {"epochs": 1}}
    watching = gpu().watching if resolved["run"]["backend"] == "cuda" else compiler.watching
    with tempfile.TemporaryDirectory() as folder, watching(begins):
        train(config.merge(given, two_steps), out=Path(folder) / "run")
    return Warm(len(names), time.perf_counter() - started)
