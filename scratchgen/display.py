"""What the commands show: live progress with losses and time left, and tables.

On a terminal a bar moves; elsewhere (a file, a pipe) each epoch is one plain line.
"""

import sys

from rich.console import Console
from rich.table import Table


def console():
    """Standard output as it is now: tests and pipes may have replaced it.

    Off a terminal lines are not wrapped, so that they can be searched.
    """
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def line_of(progress):
    """An epoch's end in one line of text."""
    width = len(str(progress.epochs))
    text = f"epoch {progress.epoch:{width}}/{progress.epochs}   {_terms(progress.terms)}"
    text += f"   test {_terms(progress.test)}"
    if progress.epoch < progress.epochs and progress.seconds_left is not None:
        text += f"   {_duration(progress.seconds_left)} left"
    return text


def _terms(terms):
    """``loss 105.62 (reconstruction 80.40, kl 25.22)``: the loss, then what it consists of."""
    shown = [f"{name} {value:.4g}" if abs(value) < 10 else f"{name} {value:.2f}"
             for name, value in terms.items()]
    return shown[0] + (f" ({', '.join(shown[1:])})" if len(shown) > 1 else "")


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
            self.console.print(f"{self.title}   {line_of(progress)}", markup=False)
        if self.bar:
            self.bar.update(
                self.task,
                description=f"{self.title} epoch {progress.epoch}/{progress.epochs}",
                total=progress.epochs * progress.batches,
                completed=(progress.epoch - 1) * progress.batches + progress.batch,
                losses=_left(progress) + _terms(progress.terms),
            )


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
        if sys.stdout.isatty():
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
