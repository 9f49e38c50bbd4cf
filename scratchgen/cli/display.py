"""Output of the commands: progress with losses and the remaining time, and tables.

On a terminal there is a progress bar below the table of epochs; in a file or a pipe there is only
the table. Lines are at most 80 columns wide.
"""

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .terminal import is_terminal

if TYPE_CHECKING:                   # imported here, the training would delay `scratchgen data`
    from ..train import Progress


def console():
    """A console on the current ``sys.stdout``, which tests may have replaced.

    Lines are wrapped on a terminal only: in a file a wrapped line could not be searched.
    """
    return _Console(file=sys.stdout or io.StringIO(), highlight=False,
                    soft_wrap=not is_terminal(sys.stdout))


class _Console(Console):
    def on_broken_pipe(self):
        raise                                       # the BrokenPipeError, which ``run`` handles


NUMBER_WIDTH = 9    # characters of a number in the table of epochs


def format_heading(title: str, progress: "Progress") -> str:
    """The heading of the table of epochs, with a column for each term of ``progress``."""
    names = "".join(f" {name:>{_width(name)}}" for name in _names(progress))
    return f"{title} epoch".ljust(_first_width(title, progress)) + "       " + names + "  time left"


def format_epoch(title: str, progress: "Progress") -> list[str]:
    """The two lines of an epoch: means over the training items, means over the test items."""
    counter = f"{progress.epoch}/{progress.epochs}".rjust(_first_width(title, progress))
    lines = [f"{counter}  train", " " * len(counter) + "  test "]
    for name in _names(progress):
        for number, terms in enumerate((progress.terms, progress.test)):
            cell = _number(terms[name]) if name in terms else "-"
            lines[number] += f" {cell:>{_width(name)}}"
    if progress.epoch < progress.epochs and progress.seconds_left is not None:
        lines[0] += f"  {_duration(progress.seconds_left)}"
    return lines


def _names(progress):
    """The names of all terms; some are measured in training or in testing only."""
    return dict.fromkeys((*progress.terms, *progress.test))


def _first_width(title, progress):
    return max(len(f"{title} epoch"), len(f"{progress.epochs}/{progress.epochs}"))


def _width(name):
    return max(len(name), NUMBER_WIDTH)


def _number(value):
    size = abs(value)
    if 0 < size < 1e-3 or not size < 1e5:
        return f"{value:.2e}"
    return f"{value:.4g}" if size < 10 else f"{value:.2f}"


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class TrainingDisplay:
    """The ``on_progress`` of a command, used as a context manager."""

    def __init__(self, title: str):
        self.title = title
        self.console = console()
        self.heading = None
        self.bar = _bar(self.console) if self.console.is_terminal else None

    def __enter__(self):
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=None, losses="")
        return self

    def __exit__(self, *exception):
        if self.bar:
            self.bar.stop()

    def __call__(self, progress):
        if progress.test is not None:
            heading = format_heading(self.title, progress)
            if heading != self.heading:        # again only when the terms have changed
                self.console.print(heading, markup=False)
                self.heading = heading
            for line in format_epoch(self.title, progress):
                self.console.print(line, markup=False)
        if self.bar:
            self.bar.update(
                self.task,
                description=f"{self.title} epoch {progress.epoch}/{progress.epochs}",
                total=progress.epochs * progress.batches,
                completed=(progress.epoch - 1) * progress.batches + progress.batch,
                losses=_time_left(progress) + _loss(progress.terms),
            )


def _loss(terms):
    """The first term; beside the bar there is space for one."""
    return "".join(f"{name} {_number(value)}" for name, value in list(terms.items())[:1])


def _time_left(progress):
    left = progress.seconds_left
    return "" if left is None else f"{_duration(left)} left   "


def _bar(console):
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as ProgressBar

    columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[losses]}"))
    return ProgressBar(*columns, console=console, transient=True)


class CompilationDisplay:
    """The ``on_kernel`` of ``scratchgen warmup``: on a terminal shows the current kernel."""

    def __init__(self, title):
        self.status = console().status(title)
        self.title, self.count = title, 0

    def __enter__(self):
        self.status.start()
        return self

    def __exit__(self, *exception):
        self.status.stop()

    def __call__(self, kernel):
        self.count += 1
        self.status.update(f"{self.title}: {self.count} compiled, now {kernel}")


class DownloadDisplay:
    """The ``report`` of a download: a line for each file, on a terminal with the size so far."""

    def __init__(self):
        self.file = None

    def __call__(self, file, done, total):
        if file != self.file:
            self.file = file
            print(file, flush=True)
        if is_terminal(sys.stdout):
            of = f" of {total / 1e6:.1f}" if total else ""
            print(f"\r  {done / 1e6:.1f}{of} MB", end="\n" if done == total else "", flush=True)


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Prints a table; columns of numbers are right-aligned."""
    grid = Table(title=title, title_justify="left")
    for position, heading in enumerate(headings):
        numeric = all(isinstance(row[position], (int, float)) for row in rows)
        grid.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    console().print(grid)
