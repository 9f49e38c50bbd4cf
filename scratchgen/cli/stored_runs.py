"""The commands that read a run folder: ``plot``, ``report``, ``eval`` and ``sample``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .options import Backend, DataDir, Limit, RunFolder, given, option


def plot(folder: RunFolder):
    """Draw the pictures and the report of a run again."""
    draw(folder)


def draw(path):
    """Draws the pictures of a run, then writes its report; prints the paths of the files."""
    from .. import plots, report

    for picture in plots.draw_run(path):
        print(f"  {picture}")
    print(f"report: {report.write_report([path])}")


def report(
    folders: Annotated[list[str], typer.Argument(metavar="RUN...", help="One or several runs.")],
    out: Annotated[
        str | None, option("FILE.html", "Default: report.html in the run folder.")
    ] = None,
):
    """Write a self-contained HTML page about a run, or about several runs side by side."""
    from ..report import write_report

    print(write_report(folders, out))


def evaluate(
    folder: RunFolder,
    data: Annotated[
        str | None, typer.Option(help="A data set other than that of the run.")] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    backend: Backend = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
):
    """Measure the loss and its terms on the test images."""
    from ..train import evaluate_run
    from . import display

    overrides = {
        "data": given(name=data, dir=data_dir, limit=limit),
        "run": given(backend=backend),
    }
    terms = evaluate_run(folder, overrides)
    if as_json:
        print(json.dumps({f"test_{name}": value for name, value in terms.items()}))
    else:
        display.table(f"{folder}, test images", ("term", "mean per image"), list(terms.items()))


def sample(
    folder: RunFolder,
    n: Annotated[int, typer.Option("--n", help="Number of images.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed of the images.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Default: a file in RUN/pictures/.")
    ] = None,
):
    """Generate images with a trained model and save them as a grid in one PNG file."""
    if n < 1:
        raise UserError(f"--n {n}: expected at least 1 image")
    from .. import plots
    from ..train import load

    images = load(folder).sample(n, seed=seed)
    path = Path(out) if out else Path(folder) / "pictures" / f"samples-seed{seed}.png"
    plots.save_grid(images, path)
    print(path)
