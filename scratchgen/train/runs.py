"""The run folder: all files of a run, written so that a kill at any moment damages none of them.

    config.toml               the resolved configuration
    env.json                  versions and machine
    metrics.jsonl             one line per epoch
    summary.json              the last epoch's metrics
    checkpoint.safetensors    weights, optimiser states and, in the metadata, the training state
    state.json                the training state once more, readable by people
    pictures/                 PNG files, and an animation of samples as GIF
    pictures/epochs/          samples saved at the end of each epoch, the frames of the animation
    report.html               all of this on one page
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError, shown
from . import checkpoint as checkpoint_file
from . import config, files
from .checkpoint import Checkpoint
from .environment import environment
from .files import explain_errors, format_path, write_atomically

# The files that a run writes into its folder.
FILES = ("config.toml", "env.json", "metrics.jsonl", "summary.json", "checkpoint.safetensors",
         "state.json", "report.html")
# Files that a folder may contain and still count as empty: temporary files left by a kill, and the
# files that file managers create.
IGNORED = (*(f".{name}.tmp" for name in FILES), ".DS_Store", "Thumbs.db", "desktop.ini")


class Run:
    """One run folder, from ``create`` or ``open_run``."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.checkpoint_path = self.path / "checkpoint.safetensors"
        self.metrics_path = self.path / "metrics.jsonl"
        self.pictures = self.path / "pictures"

    def is_started(self) -> bool:
        """Whether the folder contains files of a run."""
        names = ("config.toml", "checkpoint.safetensors", "metrics.jsonl")
        return any((self.path / name).exists() for name in names)

    def first_entry(self) -> str | None:
        """The first name in the folder, in alphabetical order; None if it counts as empty."""
        with explain_errors("read", self.path), os.scandir(self.path) as entries:
            return min((each.name for each in entries if each.name not in IGNORED), default=None)

    def clear(self) -> None:
        """Removes the run's files and the pictures of its epochs, and nothing else."""
        with explain_errors("clear", self.path):
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
            frames = self.pictures / "epochs"
            if frames.is_dir() and not frames.is_symlink():
                shutil.rmtree(frames)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against training by a second process.

        The operating system releases the lock when the process ends, also when it is killed.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no such lock: train without one
            yield
            return
        with explain_errors("open", self.path):
            descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process is training in {self.path}: wait until it has finished, "
                    "or choose another --out"
                ) from None
            except OSError:
                pass  # some network file systems have no locks: train without one
            yield
        finally:
            os.close(descriptor)

    # -- configuration and environment

    def write_config(self, resolved: dict) -> None:
        write_atomically(self.path / "config.toml", config.dumps(resolved))

    def config(self) -> dict:
        """The resolved configuration, checked again, because users may edit the file."""
        return config.resolve(config.read(self.path / "config.toml"))

    def write_environment(self) -> None:
        """Writes env.json: the environment of the start and, if it differs, of each resumption."""
        path = self.path / "env.json"
        now = environment()
        if path.exists():
            with contextlib.suppress(ValueError, OSError, RecursionError, AttributeError):
                started = json.loads(path.read_text(encoding="utf-8"))
                resumed = started.pop("resumed", [])
                if now != (resumed[-1] if resumed else started):
                    resumed.append(now)
                now = {**started, "resumed": resumed} if resumed else started
        write_atomically(path, _json(now))

    # -- metrics

    def append_metrics(self, line: dict) -> None:
        """Appends one JSON line and flushes it to the disk."""
        files.append(self.metrics_path, (json.dumps(line) + "\n").encode())

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl, one dict per epoch.

        An incomplete last line, left by a kill, is skipped; any other line that is not JSON with an
        epoch raises ``UserError``.
        """
        if not self.metrics_path.exists():
            return []
        text = files.read(self.metrics_path).decode("utf-8", errors="replace")
        lines, history = text.split("\n"), []
        for number, line in enumerate(lines, start=1):
            try:
                history.append(_metrics_line(line))
            except (ValueError, RecursionError):
                if number < len(lines):
                    raise UserError(
                        f"{self.metrics_path}, line {number}: expected JSON with a whole number "
                        '"epoch"; restore the file from a copy, or delete the line'
                    ) from None
        return history

    def truncate_metrics(self, epochs: int) -> None:
        """Removes the lines after the first ``epochs`` epochs, which the checkpoint includes."""
        lines = [line for line in self.metrics() if line["epoch"] <= epochs]
        if lines or self.metrics_path.exists():
            write_atomically(self.metrics_path, "".join(json.dumps(line) + "\n" for line in lines))

    def write_summary(self, summary: dict) -> None:
        write_atomically(self.path / "summary.json", _json(summary))

    # -- checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes the checkpoint, then the readable copy of its state."""
        content, state = checkpoint_file.encode(checkpoint)
        write_atomically(self.checkpoint_path, content)
        write_atomically(self.path / "state.json", _json(state))

    def checkpoint(self) -> Checkpoint:
        """Reads the checkpoint; a missing, damaged or foreign file raises ``UserError``."""
        return checkpoint_file.read(self.checkpoint_path)


def _metrics_line(text):
    """A line of metrics.jsonl as a dict; ValueError if it is invalid."""
    line = json.loads(text)
    if not isinstance(line, dict) or type(line.get("epoch")) is not int:
        raise ValueError(text)
    return line


def _json(value):
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def create(path: str | os.PathLike | None = None, label: str = "run",
           overwrite: bool = False) -> Run:
    """Creates a run folder; ``path`` None: ``runs/<label>-<n>`` with the first free number.

    A folder that is not empty raises ``UserError``, unless ``overwrite``; so does one that cannot
    be created.
    """
    if path is None:
        return Run(create_numbered(label))
    path = _checked_path(path)
    run = Run(path)
    with explain_errors("create the run folder", path):
        if not run.path.exists() and run.path.is_symlink():
            raise UserError(f"{path} is a broken symbolic link: expected a folder, or a name "
                            "that is free; remove the link, or choose another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        if overwrite:
            return run
        started, entry = run.is_started(), run.first_entry()
    if started:
        raise UserError(f"{path} already contains a run: choose another --out, continue the run "
                        "with --resume, or replace it with --overwrite")
    if entry is not None:
        raise UserError(f"{path} contains {format_path(entry)} and is not a run: expected a new or "
                        "empty folder; choose another --out, or allow files to be overwritten with "
                        "--overwrite")
    return run


def check_features_differ(out, features):
    """Raises ``UserError`` if ``out``, the folder of a new probe, is also the run whose features it
    reads: overwriting would delete that run."""
    with explain_errors("create the run folder", out):
        same = out and features and os.path.realpath(out) == os.path.realpath(features)
    if same:
        raise UserError(f"{features} is the run that the probe reads its features from, and "
                        "cannot also be the probe's run folder: choose another --out")


def _checked_path(path):
    """``path``; ``UserError`` if it is not a path or is empty."""
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"the run folder is {shown(path)}: expected a path as str or pathlib.Path")
    if not os.fspath(path):
        raise UserError("the name of the run folder is empty: expected a path; give one with "
                        "--out, or omit --out for a new folder in runs/")
    return path


def create_numbered(label: str, parent: str = "runs") -> Path:
    """Creates the folder ``parent/label-n`` with the smallest free n >= 1 and returns its path."""
    number = 1
    while True:
        path = Path(parent) / f"{label}-{number}"
        with explain_errors("create the run folder", path):
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:  # exists, perhaps since a moment ago, from another process
                if not Path(parent).is_dir():
                    raise
        number += 1


def open_run(path: str | os.PathLike) -> Run:
    """Opens the run folder ``path``; ``UserError`` if it is not one."""
    run = Run(_checked_path(path))
    with explain_errors("read", path):
        if not (run.path / "config.toml").is_file():
            raise UserError(f"no run in {path}: expected a folder written by `scratchgen train`")
    return run
