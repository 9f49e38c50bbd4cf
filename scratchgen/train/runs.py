"""The run folder: everything a run leaves behind, written so that a kill at any moment loses
nothing that was there before.

    config.toml               the resolved configuration
    env.json                  versions and machine
    metrics.jsonl             one line an epoch
    summary.json              the last epoch's metrics
    checkpoint.safetensors    weights, optimiser states and, in the metadata, the training state
    state.json                the training state once more, to be read by people
    pictures/                 PNG files, and a film of samples as GIF
    pictures/epochs/          samples kept at the end of epochs, of which the film is made
    report.html               all of this on one page

The checkpoint is one file because one rename is atomic and two are not: weights and training state
can never disagree. It holds no times and no paths, so equal training gives equal bytes.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError, shown
from . import config

FORMAT = 1  # of the checkpoint; a reader refuses what is newer than itself


# errno -> what to do about it; of others: REMEDY.
REMEDIES = {
    errno.ENOSPC: "free some space and go on with --resume, since what was there is kept",
    errno.EDQUOT: "free some space and go on with --resume, since what was there is kept",
    errno.EFBIG: "raise the limit on file sizes, or train a smaller model",
    errno.EACCES: "change its permissions, or choose another folder",
    errno.EPERM: "change its permissions, or choose another folder",
    errno.EROFS: "choose a folder on a disk that may be written to",
    errno.EIO: "check the disk",
}
REMEDY = "expected a folder that can be read and written; check the path"


# What a run writes into its folder.
FILES = ("config.toml", "env.json", "metrics.jsonl", "summary.json", "checkpoint.safetensors",
         "state.json", "report.html")
# What may lie in a folder that counts as empty: a file that a kill left half written, and what
# file managers put there.
LITTER = (*(f".{name}.tmp" for name in FILES), ".DS_Store", "Thumbs.db", "desktop.ini")


@contextlib.contextmanager
def _explained(action, path):
    """Turns an ``OSError`` (no permission, disk full, a file in the way) and a name that no file
    can have into a ``UserError``."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno, REMEDY)
        raise UserError(
            f"cannot {action} {shown_path(path)} ({error.strerror or error}): {remedy}") from None
    except UserError:
        raise
    except ValueError as error:  # a NUL, or a character that the file system cannot encode
        raise UserError(f"cannot {action} {str(path)!r} ({error}): expected a name that a file can "
                        "have; check the path") from None


def shown_path(path):
    """A path as it stands in a sentence: quoted where it is empty or not one line of text."""
    text = os.fspath(path)
    return text if isinstance(text, str) and text.isprintable() and text else repr(text)


def write_atomically(path, content):
    """Writes bytes or text so that a reader finds the old file or the new one, never a part.

    Written beside the target (a rename is atomic only within one file system), flushed to the
    disk before the rename, and the folder after it: a power cut keeps the order too.
    """
    path = Path(path)
    content = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    with _explained("write", path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk, give back what it took
                os.unlink(temporary)
            raise
        _flush_folder(path.parent)


def _flush_folder(folder):
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Checkpoint:
    """``state``: the JSON-able training state; ``tensors``: dict of name -> ndarray."""

    state: dict
    tensors: dict

    def part(self, prefix):
        """The tensors below ``prefix``, under their names without it."""
        start = prefix + "."
        return {
            name[len(start):]: array
            for name, array in self.tensors.items()
            if name.startswith(start)
        }


class Run:
    """One run folder. Made by ``create`` or ``open_run``."""

    def __init__(self, path):
        self.path = Path(path)
        self.checkpoint_path = self.path / "checkpoint.safetensors"
        self.metrics_path = self.path / "metrics.jsonl"
        self.pictures = self.path / "pictures"

    def holds_anything(self):
        """Whether a run has been started here."""
        names = ("config.toml", "checkpoint.safetensors", "metrics.jsonl")
        return any((self.path / name).exists() for name in names)

    def foreign(self):
        """The name of something in the folder that keeps it from being empty; None if it is."""
        with _explained("read", self.path), os.scandir(self.path) as entries:
            return min((each.name for each in entries if each.name not in LITTER), default=None)

    def clear(self):
        """Removes the files of a run, and the pictures of its epochs; others stay."""
        with _explained("clear", self.path):
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
            kept = self.pictures / "epochs"
            if kept.is_dir() and not kept.is_symlink():
                shutil.rmtree(kept)

    @contextlib.contextmanager
    def locked(self):
        """Keeps a second process from training into the folder; a kill frees the lock."""
        try:
            import fcntl
        except ImportError:  # Windows: no such lock, nothing else changes
            yield
            return
        with _explained("open", self.path):
            descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.path} is being trained by another process: wait for it, "
                    "or choose another --out"
                ) from None
            except OSError:
                pass  # a file system without locks (some network folders): go on without
            yield
        finally:
            os.close(descriptor)

    # -- configuration and environment

    def write_config(self, resolved):
        write_atomically(self.path / "config.toml", config.dumps(resolved))

    def config(self):
        """The resolved configuration, checked anew: people edit such files."""
        return config.resolve(config.read(self.path / "config.toml"))

    def write_environment(self):
        """env.json: where the run was started and, if elsewhere, where it went on."""
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

    def append_metrics(self, line):
        """Adds one JSON line and flushes it to the disk."""
        content = (json.dumps(line) + "\n").encode()
        with _explained("write", self.metrics_path), open(self.metrics_path, "ab") as file:
            whole = file.seek(0, os.SEEK_END)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # no half a line
                    file.truncate(whole)
                raise

    def metrics(self):
        """The lines of metrics.jsonl as dicts; a torn last line (a kill while writing) is left out.

        Any other line that is not JSON with an epoch raises ``UserError``.
        """
        if not self.metrics_path.exists():
            return []
        text = _content(self.metrics_path).decode("utf-8", errors="replace")
        lines, history = text.split("\n"), []
        for number, line in enumerate(lines, start=1):
            try:
                history.append(_metrics_line(line))
            except (ValueError, RecursionError):
                if number < len(lines):
                    raise UserError(
                        f"{self.metrics_path}, line {number}: not JSON with a whole number "
                        '"epoch", as expected: put a good copy back, or take the line out'
                    ) from None
        return history

    def keep_metrics(self, epochs):
        """Cuts the metrics back to the first ``epochs`` epochs: those the checkpoint knows."""
        kept = [line for line in self.metrics() if line["epoch"] <= epochs]
        if kept or self.metrics_path.exists():
            write_atomically(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))

    def write_summary(self, summary):
        write_atomically(self.path / "summary.json", _json(summary))

    # -- checkpoint

    def save(self, checkpoint):
        """Writes the checkpoint, then the readable copy of its state."""
        from safetensors.numpy import save

        # np.array keeps 0-d arrays 0-d, which np.ascontiguousarray does not.
        tensors = {
            name: np.array(array, order="C") for name, array in sorted(checkpoint.tensors.items())
        }
        state = {**checkpoint.state, "format": FORMAT}
        state["digest"] = _digest(state, tensors)
        metadata = {"state": json.dumps(state, sort_keys=True)}
        write_atomically(self.checkpoint_path, save(tensors, metadata=metadata))
        write_atomically(self.path / "state.json", _json(state))

    def checkpoint(self):
        """The checkpoint; absent, damaged or foreign ones raise ``UserError``."""
        path = self.checkpoint_path
        if not path.exists():
            raise UserError(f"{self.path} holds no checkpoint.safetensors: train it first")
        if not path.is_file():  # a pipe or a device could block or never end
            raise UserError(f"{path} is no regular file: expected the checkpoint of a run")
        with _explained("read", path):
            metadata, tensors = _read_safetensors(path)
        try:
            state = json.loads(metadata["state"])
            version, digest = state["format"], state.pop("digest")
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            raise UserError(
                f"{path} was not written by scratchgen: expected the checkpoint of a run"
            ) from None
        if version != FORMAT:
            raise UserError(
                f"{path} has format {version}, this scratchgen reads {FORMAT}: "
                "use the version that wrote it"
            )
        if digest != _digest(state, tensors):
            raise UserError(_damaged(path, "its contents do not match its checksum"))
        del state["format"]
        return Checkpoint(state, tensors)


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            # Copied, since the arrays are views of a file that the next checkpoint replaces.
            tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}
            return file.metadata() or {}, tensors
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(_damaged(path, " ".join(str(error).split()))) from None


def _damaged(path, reason):
    return f"{path} is damaged ({reason}): put a good copy back, or train anew with another --out"


def _digest(state, tensors):
    """A checksum of the state and of the tensors' names, types, shapes and bytes: the file format
    has none of its own."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.array(array, order="C").tobytes())
    return digest.hexdigest()


def _metrics_line(text):
    """One line of metrics.jsonl as a dict; ValueError if it is none."""
    line = json.loads(text)
    if not isinstance(line, dict) or type(line.get("epoch")) is not int:
        raise ValueError(text)
    return line


def _content(path):
    """The bytes of a regular file; anything else raises ``UserError``."""
    with _explained("read", path):
        if not os.path.isfile(path):
            raise OSError(errno.EINVAL, "no regular file")
        return path.read_bytes()


def _json(value):
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def create(path=None, label="run", overwrite=False):
    """A new run folder; ``path`` None: ``runs/<label>-<n>`` with the first free number.

    A folder that holds anything (a run, or other files, which a run could write over) raises
    ``UserError`` unless ``overwrite``; so does one that cannot be made.
    """
    if path is None:
        return Run(first_free(label))
    path = _folder_name(path)
    run = Run(path)
    with _explained("make the run folder", path):
        if not run.path.exists() and run.path.is_symlink():
            raise UserError(f"{path} is a link to nothing: expected a folder, or a name that is "
                            "free; remove the link, or choose another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        if overwrite:
            return run
        holds_run, foreign = run.holds_anything(), run.foreign()
    if holds_run:
        raise UserError(f"{path} already holds a run: choose another --out, go on with --resume, "
                        "or replace it with --overwrite")
    if foreign is not None:
        raise UserError(f"{path} holds {shown_path(foreign)} and is no run: expected a new or "
                        "empty folder; choose another --out, or let files be written over with "
                        "--overwrite")
    return run


def check_not_read(out, features):
    """UserError if the folder of a new run, ``out``, is the run that a probe reads: overwriting
    would remove it."""
    with _explained("make the run folder", out):
        same = out and features and os.path.realpath(out) == os.path.realpath(features)
    if same:
        raise UserError(f"{features} gives the features and cannot be the probe's own folder too: "
                        "choose another --out")


def _folder_name(path):
    """``path`` itself; UserError unless it can name a folder."""
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"the run folder is {shown(path)}: expected a path, text or pathlib.Path")
    if not os.fspath(path):
        raise UserError("the name of the run folder is empty: expected a path; name one with "
                        "--out, or leave it out for a new one below runs/")
    return path


def first_free(label, parent="runs"):
    """Makes and returns ``parent/label-n`` for the smallest n >= 1 that is not taken."""
    number = 1
    while True:
        path = Path(parent) / f"{label}-{number}"
        with _explained("make the run folder", path):
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:  # taken, perhaps a moment ago by another process
                if not Path(parent).is_dir():
                    raise
        number += 1


def open_run(path):
    """The run folder at ``path``; ``UserError`` if there is none."""
    run = Run(_folder_name(path))
    with _explained("read", path):
        if not (run.path / "config.toml").is_file():
            raise UserError(f"no run in {path}: expected a folder that `scratchgen train` wrote")
    return run


def environment():
    """What may change the numbers or the speed of a run: versions and machine, no person."""
    import importlib.metadata

    from .. import __version__

    versions = {"python": platform.python_version(), "scratchgen": __version__}
    for name in ("numpy", "numba", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    commit = _commit()
    return {
        "versions": versions,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        **({"commit": commit} if commit else {}),
    }


def _commit():
    """The commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
