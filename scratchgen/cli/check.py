"""The commands ``check …``: instruments that test the package itself."""

import itertools
import json
import operator
import pathlib
import shutil
import textwrap
from typing import Annotated

import typer

from .options import DataDir

Names = Annotated[list[str] | None, typer.Argument(
    metavar="[NAME]...", help="Names of claims; all without one.")]
JsonFile = Annotated[pathlib.Path | None, typer.Option(
    "--json", metavar="FILE", help="Write the same content to this file.")]


def claims(names: Names = None, json_file: JsonFile = None, data_dir: DataDir = None):
    """Compute claims of the theory in two ways and compare them; exit status 1 if one fails.

    Full MNIST is used if it is found: --data-dir, SCRATCHGEN_DATA or the cache folder.
    """
    from ..study import check_claims, statement

    found = [c.as_dict() for c in check_claims(names, data_dir)]
    if json_file is not None:
        json_file.write_text(json.dumps({"claims": found}, indent=1, ensure_ascii=False) + "\n",
                             encoding="utf-8")
    for name, comparisons in itertools.groupby(found, operator.itemgetter("claim")):
        print(textwrap.fill(f"{name}: {statement(name)}", width(), subsequent_indent="  "))
        for c in comparisons:
            print(textwrap.fill(sentence(c), width(), initial_indent="  ",
                                subsequent_indent=" " * 10))
    counts = {v: sum(c["verdict"] == v for c in found) for v in ("holds", "fails", "skipped")}
    print(f"{counts['holds']} hold, {counts['fails']} fail, {counts['skipped']} skipped")
    return 1 if counts["fails"] else 0


def sentence(c):
    """One comparison as text: the verdict, both numbers, how each was computed."""
    if c["verdict"] == "skipped":
        return f"skipped {c['left_is']}: {c['reason']}"
    return (f"{c['verdict']:<7} {c['left']:.8g} {c['relation']} {c['right']:.8g} "
            f"(± {c['tolerance']:.1g}): {c['left_is']}; {c['right_is']}")


def width():
    """Columns of a paragraph."""
    return min(100, shutil.get_terminal_size().columns)
