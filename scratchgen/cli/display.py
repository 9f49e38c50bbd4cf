"""What the commands show: live progress with losses and time left, and tables.

On a terminal a bar moves; elsewhere (a file, a pipe) only the table of the epochs grows. Lines fit
into 80 columns.
"""

import io
import sys

from rich.console import Console
from rich.table import Table

from .terminal import is_terminal


def console():
    """Standard output as it is now: tests and pipes may have replaced it.

    Off a terminal lines are not wrapped, so that they can be searched.
    """
    return _Console(file=sys.stdout or io.StringIO(), highlight=False,
                    soft_wrap=not is_terminal(sys.stdout))


class _Console(Console):
    def on_broken_pipe(self):
        raise                                       # the BrokenPipeError, which the command handles


NUMBER = 9          # characters of a number in the table of epochs


def heading_of(title, progress):
    """The heading of the table of epochs: a column for each term that ``progress`` names."""
    names = "".join(f" {name:>{_width(name)}}" for name in _names(progress))
    return f"{title} epoch".ljust(_first(title, progress)) + "       " + names + "  time left"


def lines_of(title, progress):
    """An epoch's end as two lines below ``heading_of``: means over the training items, and over the
    test items."""
    counter = f"{progress.epoch}/{progress.epochs}".rjust(_first(title, progress))
    lines = [f"{counter}  train", " " * len(counter) + "  test "]
    for name in _names(progress):
        for number, terms in enumerate((progress.terms, progress.test)):
            cell = _number(terms[name]) if name in terms else "-"
            lines[number] += f" {cell:>{_width(name)}}"
    if progress.epoch < progress.epochs and progress.seconds_left is not None:
        lines[0] += f"  {_duration(progress.seconds_left)}"
    return lines


def _names(progress):
    """The terms of training and test, each once: some are measured in training only."""
    return dict.fromkeys((*progress.terms, *progress.test))


def _first(title, progress):
    return max(len(f"{title} epoch"), len(f"{progress.epochs}/{progress.epochs}"))


def _width(name):
    return max(len(name), NUMBER)


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


class Training:
    """The ``on_progress`` of a command, as a context manager."""

    def __init__(self, title):
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
            heading = heading_of(self.title, progress)
            if heading != self.heading:        # once, unless other terms come in
                self.console.print(heading, markup=False)
                self.heading = heading
            for line in lines_of(self.title, progress):
                self.console.print(line, markup=False)
        if self.bar:
            self.bar.update(
                self.task,
                description=f"{self.title} epoch {progress.epoch}/{progress.epochs}",
                total=progress.epochs * progress.batches,
                completed=(progress.epoch - 1) * progress.batches + progress.batch,
                losses=_left(progress) + _loss(progress.terms),
            )


def _loss(terms):
    """The first term; there is room for no more beside the bar."""
    return "".join(f"{name} {_number(value)}" for name, value in list(terms.items())[:1])


def _left(progress):
    left = progress.seconds_left
    return "" if left is None else f"{_duration(left)} left   "


def _bar(where):
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[losses]}"))
    return Progress(*columns, console=where, transient=True)


class Compiling:
    """The ``on_kernel`` of ``scratchgen warmup``: on a terminal, which kernel is being compiled."""

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


class Download:
    """The ``report`` of a download: one line a file, with a count of bytes on a terminal."""

    def __init__(self):
        self.file = None

    def __call__(self, file, done, total):
        if file != self.file:
            self.file = file
            print(file, flush=True)
        if is_terminal(sys.stdout):
            of = f" of {total / 1e6:.1f}" if total else ""
            print(f"\r  {done / 1e6:.1f}{of} MB", end="\n" if done == total else "", flush=True)


def table(title, headings, rows):
    """Prints a table; numbers stand to the right."""
    grid = Table(title=title, title_justify="left")
    for position, heading in enumerate(headings):
        numeric = all(isinstance(row[position], (int, float)) for row in rows)
        grid.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    console().print(grid)
