"""Arguments and options that several commands share, and the tables they are collected in."""

import shlex
from typing import Annotated

import typer


def option(metavar, text, *names):
    """An option with the placeholder ``metavar`` for its value in the help."""
    return typer.Option(*names, metavar=metavar, help=text)


Model = Annotated[
    str, typer.Argument(metavar="dae|sdae|vae|gan|probe|classifier", help="The model to train.")
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")]
DataDir = Annotated[
    str | None, typer.Option(help="Folder with the image files (default: the standard folders).")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the contents of --out, a run or other files.")
]
Limit = Annotated[str | None, option("N", "Use only the first N images; 0: all.")]
Backend = Annotated[str | None, typer.Option(help="numba, numpy or cuda.")]
Capture = Annotated[bool, typer.Option(
    help="Record a training step and replay it; without, every step runs through the tape.")]

NUMBERS = ("epochs", "batch_size", "lr", "seed", "limit")


def given(**options):
    """The options that were given, as a table of the configuration.

    Numbers are options of type text and are parsed like the values of ``--set``, so that only the
    configuration decides which values are valid, with the same error messages.
    """
    from ..train.config import parsed

    return {
        name: parsed(value) if name in NUMBERS else value
        for name, value in options.items()
        if value is not None
    }


def quoted(path):
    """A path as an argument for the shell; a leading "-" must not look like an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
