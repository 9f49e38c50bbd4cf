"""Compiling kernels ahead of time, by training each configuration for two steps.

A kernel is compiled at its first call and then cached on disk. Training finds the kernels that a
model needs; a list of them would have to be updated with every change of a model.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..engine.backend import gpu
from ..kernels import compiler
from ..train import config, schema, train

MODELS = ("dae", "sdae", "vae", "gan", "classifier")    # a probe needs the run of another model


@dataclass(frozen=True)
class Warmup:
    """The result for one configuration: the kernels that were compiled, and the total seconds."""

    kernels: int
    seconds: float


def configurations(kind: str, preset: str | None = None) -> dict[str, dict]:
    """Name → configuration, for all architectures of a model, or for ``preset`` only."""
    if preset is not None:
        return {f"{kind} {preset}": {"run": {"model": kind, "preset": preset}}}
    fields = schema.model_class(kind).Config.__dataclass_fields__
    archs = fields["arch"].metadata["choices"] if "arch" in fields else (None,)
    return {kind if arch is None else f"{kind} {arch}":
            {"run": {"model": kind}, **({"model": {"arch": arch}} if arch else {})}
            for arch in archs}


def warm_up(given: dict, on_kernel: Callable[[str], None] = lambda name: None) -> Warmup:
    """Trains the configuration ``given`` for two steps, in a temporary run folder.

    ``on_kernel`` is called with the name of each kernel before it is compiled.
    """
    resolved = config.resolve(given)
    batch, start, names = resolved["train"]["batch_size"], time.perf_counter(), []

    def record(name):
        names.append(name)
        on_kernel(name)

    two_steps = {"data": {"limit": 2 * batch}, "train": {"epochs": 1}}
    compiles = gpu() if resolved["run"]["backend"] == "cuda" else compiler
    with tempfile.TemporaryDirectory() as folder, compiles.on_compilation(record):
        train(config.merge(given, two_steps), out=Path(folder) / "run")
    return Warmup(len(names), time.perf_counter() - start)
