"""The commands that train: ``train``, ``demo`` and ``warmup``."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .options import Backend, Capture, DataDir, Limit, Model, Overwrite, given, option, quoted
from .stored_runs import draw

DEMO_MODELS = ("dae", "vae", "gan")


def train(
    model: Model,
    data: Annotated[str | None, typer.Option(help="Data set; see: scratchgen data list.")] = None,
    data_dir: DataDir = None,
    arch: Annotated[str | None, typer.Option(help="Architecture, for example mlp.")] = None,
    epochs: Annotated[str | None, option("N", "Total, including those of a resumed run.")] = None,
    batch_size: Annotated[str | None, option("N", "Images per training step.")] = None,
    lr: Annotated[str | None, option("X", "Learning rate.")] = None,
    seed: Annotated[str | None, option("N", "Seed of all random numbers.")] = None,
    backend: Backend = None,
    gradient: Annotated[
        str | None, typer.Option(help="tape, or explicit (derived by hand).")] = None,
    capture: Capture = True,
    preset: Annotated[str | None, typer.Option(help="A named configuration.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Run folder (default: a new folder in runs/).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Overwrite = False,
    limit: Limit = None,
    config: Annotated[str | None, option("FILE.toml", "A configuration file.")] = None,
    set_: Annotated[
        list[str] | None, option("TABLE.KEY=VALUE", "Any configuration value.", "--set")] = None,
    features: Annotated[
        str | None, option("RUN", "For probe: the run whose features it reads.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="For classifier: given, or rotation.")] = None,
    pictures: Annotated[
        bool, typer.Option(help="Draw pictures and write a report at the end.")] = True,
):
    """Train a model; Ctrl-C stops it and writes a checkpoint."""
    from ..train.config import gather

    options = {
        "run": given(preset=preset, seed=seed, backend=backend, gradient=gradient),
        "data": given(name=data, dir=data_dir, limit=limit),
        "train": given(epochs=epochs, batch_size=batch_size, lr=lr),
        "model": given(arch=arch, features=features, labels=labels),
    }
    tables = gather(model, options, file=config, settings=set_ or ())
    resume_command = f"scratchgen train {model} --resume --out"
    path = run_training(tables, out, resume, pictures,
                        lambda run: f"{resume_command} {quoted(run)}", overwrite, capture)
    print(f"next: scratchgen {'sample' if model in DEMO_MODELS else 'eval'} {quoted(path)}")


def run_training(tables, out, resume, pictures, command_to_resume, overwrite=False, capture=True):
    """Trains with a progress display, then draws pictures; returns the run folder.

    ``command_to_resume``: a function of the run folder that returns the command to print if the
    training is stopped.
    """
    from .. import plots
    from ..engine.capture import use_capture
    from ..train import Interrupted
    from ..train import train as train_run
    from .display import TrainingDisplay

    try:
        with TrainingDisplay(tables["run"]["model"]) as display, use_capture(capture):
            summary = train_run(tables, out, resume, on_progress=display,
                                on_epoch=plots.keep_samples if pictures else None,
                                overwrite=overwrite)
    except Interrupted as stop:
        print("stopped; the checkpoint is written. To continue:\n"
              f"  {command_to_resume(stop.path)}")
        raise typer.Exit(128 + stop.signal_number) from None
    loss = summary.metrics["test_loss"]
    epochs = f"{summary.epochs} epoch{'s' if summary.epochs != 1 else ''}"
    print(f"{summary.path}   {epochs}   test loss {loss:.4f}")
    if pictures:
        draw(summary.path)
    return summary.path


def demo(
    out: Annotated[
        str | None, typer.Option(help="Folder (default: a new folder runs/demo-N).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the demo in --out.")] = False,
    overwrite: Overwrite = False,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch on 500 images.")] = False,
):
    """Train a DAE, a VAE and a GAN on the included digits and draw what they learned."""
    from ..train import runs

    if resume and overwrite:
        raise UserError("--resume continues a demo and --overwrite replaces it: expected one of "
                        "them")
    if resume and out is None:
        raise UserError("--resume needs the demo to continue: give its folder with --out")
    folder = Path(out) if out is not None else runs.create_numbered("demo")
    resume_command = f"scratchgen demo --resume --out {quoted(folder)}"
    shorter = {"data": {"limit": 500}, "train": {"epochs": 1}} if quick else {}
    for kind in DEMO_MODELS:
        tables = {"run": {"model": kind, "preset": "demo"}, **shorter}
        continued = resume and runs.Run(folder / kind).is_started()
        run_training(tables, folder / kind, continued, True, lambda run: resume_command, overwrite)
    reports = ", ".join(str(folder / kind / "report.html") for kind in DEMO_MODELS)
    print(f"\nlook at the pictures: {reports}")
    print(f"draw new digits: scratchgen sample {quoted(folder / 'vae')} --seed 1")
    print("train with the gradients derived by hand: scratchgen train vae --gradient explicit")


def warmup(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Default: all.")] = None,
    preset: Annotated[str | None, typer.Option(help="Only the kernels for this preset.")] = None,
    backend: Backend = None,
):
    """Compile the kernels ahead of time, so that the first training step does not wait for it."""
    from .display import CompilationDisplay
    from .warmup import MODELS, configurations, warm_up

    total = 0
    for kind in models or MODELS:
        for name, tables in configurations(kind, preset).items():
            tables["run"] |= given(backend=backend)
            with CompilationDisplay(name) as display:
                result = warm_up(tables, display)
            total += result.kernels
            print(f"{name}: {result.kernels} kernels compiled, {result.seconds:.0f} s")
    print(f"{total} kernels compiled" if total else "all kernels were already in the cache")
