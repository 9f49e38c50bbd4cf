"""The commands. No logic: each reads its options, calls the package and shows what came back.

Wrong input ends with one line on standard error and exit status 2; a training that was stopped
writes its checkpoint and ends with 128 + the signal's number (Ctrl-C: 130).
"""

import contextlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ..errors import UserError
from . import terminal

# What every option is imported for stands inside the commands: `scratchgen --help` stays fast.

app = typer.Typer(
    help="Denoising autoencoders, VAEs and GANs from scratch: train them, look at them, "
    "read how every gradient is made.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="The image sets: what there is, fetching, checking.")
app.add_typer(data_app, name="data")


def option(metavar, text, *names):
    """An option whose help names what it takes."""
    return typer.Option(*names, metavar=metavar, help=text)


Model = Annotated[
    str, typer.Argument(metavar="dae|sdae|vae|gan|probe|classifier", help="What to train.")
]
DataDir = Annotated[
    str | None, typer.Option(help="Folder with the image files (default: the usual places).")
]
Folder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is in --out, a run or other files.")
]
Limit = Annotated[str | None, option("N", "Use only this many images; 0: all.")]
Backend = Annotated[str | None, typer.Option(help="numba or numpy.")]


def main():
    """The console script."""
    terminal.prepare()
    sys.exit(run(sys.argv[1:]))


def run(arguments):
    """Runs one command line (a list of text); returns the exit status."""
    try:
        _refuse_empty(arguments)
        status = app(args=arguments, prog_name="scratchgen", standalone_mode=False)
        terminal.flush(sys.stdout)
        return status if isinstance(status, int) else 0
    except UserError as error:
        return _complain(error)
    except MemoryError as error:
        reason = " ".join(str(error).split()) or "out of memory"
        return _complain(f"not enough memory ({reason}): choose a smaller model, batch or limit")
    except BrokenPipeError:  # of `scratchgen data list | head`
        with contextlib.suppress(AttributeError, OSError, ValueError):   # no real stream
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or exit would complain
        return 2
    except OSError as error:  # whatever the commands have not explained themselves
        where = f" {error.filename}" if error.filename else ""
        return _complain(f"cannot read or write{where} ({error.strerror or error}): check the path "
                         "and the space on the disk")
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "scratchgen"
        message = " ".join(error.format_message().split())
        return _complain(f"{message} (see: {command} --help)")


def _complain(message):
    print(f"scratchgen: {message}", file=sys.stderr)
    return 2


def _refuse_empty(arguments):
    """An empty argument is most often a variable of the shell that was never set."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument == "" or re.fullmatch("--[a-z-]+=", argument):
            what = before if before.startswith("-") and not argument else argument.rstrip("=")
            raise UserError(f"{what or 'an argument'} is empty: expected a value; check the "
                            "variable that it comes from, or leave it out")


def _show_version(wanted: bool):
    if wanted:
        from .. import __version__

        print(f"scratchgen {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
):
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def train(
    model: Model,
    data: Annotated[str | None, typer.Option(help="Image set; see: scratchgen data list.")] = None,
    data_dir: DataDir = None,
    arch: Annotated[str | None, typer.Option(help="The networks' form, such as mlp.")] = None,
    epochs: Annotated[str | None, option("N", "In all, those of a resumed run included.")] = None,
    batch_size: Annotated[str | None, option("N", "Images in a step.")] = None,
    lr: Annotated[str | None, option("X", "Learning rate.")] = None,
    seed: Annotated[str | None, option("N", "All randomness follows from it.")] = None,
    backend: Backend = None,
    gradient: Annotated[str | None, typer.Option(help="tape, or explicit (by hand).")] = None,
    preset: Annotated[str | None, typer.Option(help="A named set of values.")] = None,
    out: Annotated[str | None, typer.Option(help="Run folder (default: a new runs/...).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Overwrite = False,
    limit: Limit = None,
    config: Annotated[str | None, option("FILE.toml", "A file of such values.")] = None,
    set_: Annotated[list[str] | None, option("TABLE.KEY=VALUE", "Any value.", "--set")] = None,
    features: Annotated[str | None, option("RUN", "probe: the run that gives them.")] = None,
    labels: Annotated[str | None, typer.Option(help="classifier: given, or rotation.")] = None,
    pictures: Annotated[bool, typer.Option(help="Draw pictures and a report at the end.")] = True,
):
    """Train a model; Ctrl-C writes a checkpoint."""
    from ..train.config import gather

    options = {
        "run": _given(preset=preset, seed=seed, backend=backend, gradient=gradient),
        "data": _given(name=data, dir=data_dir, limit=limit),
        "train": _given(epochs=epochs, batch_size=batch_size, lr=lr),
        "model": _given(arch=arch, features=features, labels=labels),
    }
    given = gather(model, options, file=config, settings=set_ or ())
    again = f"scratchgen train {model} --resume --out"
    path = _train(given, out, resume, pictures, lambda run: f"{again} {_quoted(run)}",
                  overwrite)
    next_one = "sample" if model in ("dae", "vae", "gan") else "eval"
    print(f"next: scratchgen {next_one} {_quoted(path)}")


def _quoted(path):
    """A path as a shell takes it, which must not look like an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _given(**options):
    """The options that stand on the command line. Numbers arrive as text and are parsed as after
    ``--set``, so that the configuration alone says what they must be, in the same words."""
    from ..train.config import parsed

    numbers = ("epochs", "batch_size", "lr", "seed", "limit")
    return {
        name: parsed(value) if name in numbers else value
        for name, value in options.items()
        if value is not None
    }


def _train(given, out, resume, pictures, command_to_go_on, overwrite=False):
    """Trains with progress shown, and draws; returns the run folder."""
    from .. import plots
    from ..train import Interrupted
    from ..train import train as train_run
    from .display import Training

    try:
        with Training(given["run"]["model"]) as display:
            summary = train_run(given, out, resume, on_progress=display,
                                on_epoch=plots.keep_samples if pictures else None,
                                overwrite=overwrite)
    except Interrupted as stop:
        print(f"stopped, and the checkpoint is written; to go on:\n  {command_to_go_on(stop.path)}")
        raise typer.Exit(128 + stop.signal_number) from None
    loss = summary.metrics["test_loss"]
    print(f"{summary.path}   {summary.epochs} epochs   test loss {loss:.4f}")
    if pictures:
        _draw(summary.path)
    return summary.path


def _draw(path):
    """The pictures of a run, then the report that shows them; prints where they are."""
    from .. import plots, report

    for picture in plots.draw_run(path):
        print(f"  {picture}")
    print(f"report: {report.write_report([path])}")


@app.command()
def plot(folder: Folder):
    """Draw the pictures and the report of a run anew."""
    _draw(folder)


@app.command()
def report(
    folders: Annotated[list[str], typer.Argument(metavar="RUN...", help="One run or several.")],
    out: Annotated[
        str | None, option("FILE.html", "Default: report.html in the run folder.")
    ] = None,
):
    """Write a page about a run, or about several side by side, that needs nothing else."""
    from ..report import write_report

    print(write_report(folders, out))


@app.command(name="eval")
def evaluate(
    folder: Folder,
    data: Annotated[str | None, typer.Option(help="Another image set.")] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    backend: Backend = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
):
    """Loss and terms of a trained model on the test images."""
    from ..train import evaluate_run
    from . import display

    overrides = {
        "data": _given(name=data, dir=data_dir, limit=limit),
        "run": _given(backend=backend),
    }
    terms = evaluate_run(folder, overrides)
    if as_json:
        print(json.dumps({f"test_{name}": value for name, value in terms.items()}))
    else:
        display.table(f"{folder}, test images", ("term", "mean per image"), list(terms.items()))


@app.command()
def sample(
    folder: Folder,
    n: Annotated[int, typer.Option("--n", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(help="Another seed, other images.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Default: in the run's pictures/.")
    ] = None,
):
    """Draw images from a trained model and save them as one grid."""
    if n < 1:
        raise UserError(f"--n {n}: expected at least 1 image")
    from ..train import load

    images = load(folder).sample(n, seed=seed)
    from .. import plots

    path = Path(out) if out else Path(folder) / "pictures" / f"samples-seed{seed}.png"
    plots.save_grid(images, path)
    print(path)


@app.command()
def demo(
    out: Annotated[str | None, typer.Option(help="Folder (default: a new runs/demo-...).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the demo in --out.")] = False,
    overwrite: Overwrite = False,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch on 500 images.")] = False,
):
    """Train all three models on embedded digits and draw what they learned."""
    from ..train import runs

    if resume and overwrite:
        raise UserError("--resume goes on with a demo and --overwrite replaces it: expected one "
                        "of them")
    if resume and out is None:
        raise UserError("--resume needs the demo to go on with: name its folder with --out")
    folder = Path(out) if out is not None else runs.create_numbered("demo")
    again = f"scratchgen demo --resume --out {_quoted(folder)}"
    shorter = {"data": {"limit": 500}, "train": {"epochs": 1}} if quick else {}
    for kind in ("dae", "vae", "gan"):
        given = {"run": {"model": kind, "preset": "demo"}, **shorter}
        continued = resume and runs.Run(folder / kind).is_started()
        _train(given, folder / kind, continued, True, lambda run: again, overwrite)
    pages = ", ".join(str(folder / kind / "report.html") for kind in ("dae", "vae", "gan"))
    print(f"\nlook at the pictures: {pages}")
    print(f"draw new digits: scratchgen sample {_quoted(folder / 'vae')} --seed 1")
    print("train with the gradient written out by hand: scratchgen train vae --gradient explicit")


@app.command()
def warmup(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Default: all.")] = None,
    preset: Annotated[str | None, typer.Option(help="Only what this preset needs.")] = None,
    backend: Backend = None,
):
    """Compile the kernels that training needs, so that its first step starts at once."""
    from .display import Compiling
    from .warmup import KINDS, forms, warm_up

    total = 0
    for kind in models or KINDS:
        for name, given in forms(kind, preset).items():
            given["run"] |= _given(backend=backend)
            with Compiling(name) as display:
                warm = warm_up(given, display)
            total += warm.kernels
            print(f"{name}: {warm.kernels} kernels compiled, {warm.seconds:.0f} s")
    print(f"{total} kernels compiled" if total else "all of them were in the cache")


@data_app.command("list")
def data_list(data_dir: DataDir = None):
    """The image sets and where they were found."""
    from .. import data
    from . import display

    display.table("", ("name", "found in", "train", "test"), data.describe(data_dir))


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="Image set.")],
    data_dir: DataDir = None,
):
    """Download an image set into the cache folder, or into --data-dir."""
    from .. import data
    from . import display

    print(data.get(name, data_dir, report=display.Download()))


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="Image set.")],
    data_dir: DataDir = None,
):
    """Compare the files of an image set with their published checksums."""
    from .. import data

    rows = data.verify(name, data_dir)
    for row in rows:
        print(f"{'ok ' if row.ok else 'BAD'} {row.file} {row.sha256}")
    if not all(row.ok for row in rows):
        raise UserError(f"{name} differs from the published files: remove the bad ones, then "
                        f"scratchgen data get {name}")


if __name__ == "__main__":
    main()
