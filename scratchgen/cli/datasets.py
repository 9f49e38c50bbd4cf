"""The commands ``data list``, ``data get`` and ``data verify``."""

from typing import Annotated

import typer

from ..errors import UserError
from .options import DataDir

Name = Annotated[str, typer.Argument(help="Name of the data set.")]


def list_sets(data_dir: DataDir = None):
    """List the data sets and the folders where they were found."""
    from .. import data
    from . import display

    display.table("", ("name", "found in", "train", "test"), data.describe(data_dir))


def get(name: Name, data_dir: DataDir = None):
    """Download a data set into the cache folder, or into --data-dir."""
    from .. import data
    from . import display

    print(data.get(name, data_dir, report=display.DownloadDisplay()))


def verify(name: Name, data_dir: DataDir = None):
    """Compare the files of a data set with their published checksums."""
    from .. import data

    rows = data.verify(name, data_dir)
    for row in rows:
        print(f"{'ok ' if row.ok else 'BAD'} {row.file} {row.sha256}")
    if not all(row.ok for row in rows):
        raise UserError(f"{name} differs from the published files: delete those marked BAD, then "
                        f"run scratchgen data get {name}")
