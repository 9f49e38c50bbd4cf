"""A report: one self-contained HTML page about a run, or about several runs side by side.

The page contains its styles and its pictures (as data URIs); it has no scripts and loads nothing
from the network. Everything it shows is read from the run folders; the pictures are those that
``plots.draw_run`` has written.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from ..train.files import write_atomically
from . import contents, lecture

FILE_NAME = "report.html"


def write_report(paths: str | Path | Iterable[str | Path],
                 out: str | os.PathLike | None = None) -> Path:
    """Writes a report about one or several run folders and returns its path.

    ``out``: the file; None: ``report.html`` in the run folder, for a single run. Raises
    ``UserError`` for an empty list, a folder that is not a run, or a file that cannot be written.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not paths:
        raise UserError("a report about no runs: give at least one run folder")
    if out is None and len(paths) > 1:
        raise UserError("a report about several runs: name its file with --out")
    out = Path(out) if out is not None else Path(paths[0]) / FILE_NAME
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"cannot write a report to {out}: expected a name that ends in .html")
    page = render([contents.read_run(path) for path in paths])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {out.parent}: {error.strerror}") from None
    # For a file name that is not valid UTF-8, backslashreplace shows its bytes.
    write_atomically(out, page.encode("utf-8", "backslashreplace"))
    return out


def render(runs: list[contents.RunContents]) -> str:
    """The HTML page about ``runs``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    if len(runs) == 1:
        sections = contents.sections_of_one(runs[0])
    else:
        sections = contents.sections_of_several(runs)
    return environment.get_template("page.html").render(
        runs=runs, sections=sections, metrics=contents.metrics_table(runs),
        filters=contents.filters_figure(runs), points=lecture.POINTS)
