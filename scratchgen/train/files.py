"""Reading and writing files: atomic writes, and errors that say what to do.

Every ``OSError`` becomes a ``UserError`` that names the path, the reason and a remedy.
"""

import contextlib
import errno
import os
from pathlib import Path

from ..errors import UserError

# errno -> what the user can do about it; DEFAULT_REMEDY for all others.
REMEDIES = {
    errno.ENOSPC: "free some space, then continue with --resume (the files from before are intact)",
    errno.EDQUOT: "free some space, then continue with --resume (the files from before are intact)",
    errno.EFBIG: "raise the limit on file sizes, or train a smaller model",
    errno.EACCES: "change its permissions, or choose another folder",
    errno.EPERM: "change its permissions, or choose another folder",
    errno.EROFS: "choose a folder on a disk that is not read-only",
    errno.EIO: "check the disk",
}
DEFAULT_REMEDY = "expected a folder that can be read and written; check the path"


@contextlib.contextmanager
def explain_errors(action, path):
    """Raises ``UserError`` instead of an ``OSError`` (permission, full disk, …) in its block, and
    instead of the ``ValueError`` for a name that no file can have.

    ``action`` is a verb for the message: "cannot write runs/a/config.toml (…): …".
    """
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno, DEFAULT_REMEDY)
        raise UserError(
            f"cannot {action} {format_path(path)} ({error.strerror or error}): {remedy}") from None
    except UserError:
        raise
    except ValueError as error:  # a NUL, or a character that the file system cannot encode
        raise UserError(f"cannot {action} {str(path)!r} ({error}): expected a name that a file can "
                        "have; check the path") from None


def format_path(path):
    """A path for a message: quoted if it is empty or has unprintable characters."""
    text = os.fspath(path)
    return text if isinstance(text, str) and text.isprintable() and text else repr(text)


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file such that readers see either the old content or the new, never a part.

    The content goes to a temporary file in the same folder (a rename is atomic only within one
    file system) and is flushed to the disk before the rename; then the folder is flushed too, so
    that the order survives a power failure.
    """
    path = Path(path)
    content = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    with explain_errors("write", path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk, free the space again
                os.unlink(temporary)
            raise
        _flush_folder(path.parent)


def _flush_folder(folder):
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: str | os.PathLike, content: bytes) -> None:
    """Appends to a file and flushes it to the disk; a failed write leaves the file unchanged."""
    with explain_errors("write", path), open(path, "ab") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # remove a partly written line
                file.truncate(size)
            raise


def read(path: Path) -> bytes:
    """The bytes of a regular file; anything else raises ``UserError``."""
    with explain_errors("read", path):
        if not os.path.isfile(path):
            raise OSError(errno.EINVAL, "not a regular file")
        return path.read_bytes()
