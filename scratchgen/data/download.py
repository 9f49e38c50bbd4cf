"""Download of a published image set into the user's cache folder, with several mirrors.

A mirror is not trusted: the checksum of the raw (decompressed) content decides. An interrupted
download can therefore be resumed from any mirror; if the two parts do not belong to the same file,
the checksum differs, and the file is downloaded again from its start.

The library pooch was considered. It has one address per file, deletes what an interrupted download
has received, and has no lock, no lower limit on speed and no upper limit on size; its checksum is
that of the compressed file, which may differ between mirrors.
"""

import contextlib
import http.client
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UserError
from . import idx
from .catalogue import ROLES, image_set, published_name
from .folders import cache_folder

Report = Callable[[str, int, int | None], object]  # (file, bytes so far, size if known)
TIMEOUT = 30  # seconds without a byte
MIN_RATE = 1000  # bytes a second, as the mean over TIMEOUT seconds; slower counts as a failure
CHUNK = 1 << 16
# A compressed file is larger than its raw content by a few bytes in a thousand at most.
MAX_OVERHEAD = 1 << 20


class _MirrorFailed(Exception):
    """The download from one mirror failed; the message is the reason."""


class _WrongContent(_MirrorFailed):
    """The bytes received are not the file, nor its beginning."""


def get(name: str, data_dir: str | os.PathLike[str] | None = None,
        report: Report | None = None, mirrors: Sequence[str] | None = None) -> Path:
    """Download the set ``name``; returns the folder (Path) with its four files.

    The files are written to the subfolder ``name`` of ``data_dir``, by default of the user's cache
    folder, where ``load`` finds them. Existing files with the right content are kept. A download is
    written to ``.<file>.part`` and renamed after its content was checked; after an interruption the
    next call resumes it.
    ``report(file, done, total)``: called as bytes arrive; ``total`` is None if unknown.
    ``mirrors``: addresses to use instead of the known ones.
    Raises UserError if no mirror delivers a file; it names the folder that the files belong in.
    """
    spec = image_set(name)
    if spec.embedded:
        return spec.embedded
    root = cache_folder() if data_dir is None else Path(data_dir).expanduser()
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for role in ROLES:
            path = folder / published_name(role)
            if not _has_content(path, spec.sha256[role]):
                _download(spec, role, path, mirrors or spec.mirrors, report)
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {folder} ({error.strerror or error}): "
            "free space or change its permissions, or choose another one with --data-dir"
        ) from None
    return folder


def _has_content(path, sha256):
    """Whether ``path`` is a file whose raw content has this checksum."""
    try:
        return os.path.isfile(path) and idx.raw_sha256(path) == sha256
    except UserError:
        return False  # damaged: download it again


def _download(spec, role, path, mirrors, report):
    """Download the file ``role`` from the first mirror that delivers it."""
    failures = []
    with _partial_file(path) as part:
        for mirror in mirrors:
            url = mirror + published_name(role)
            try:
                return _fetch(url, part, path, spec, role, report)
            except _MirrorFailed as failure:
                failures.append(f"{url}: {failure}")
    raise UserError(
        f"cannot download {path.name} of {spec.name} ({'; '.join(failures)}): check the network "
        f"and try again, or copy the files {', '.join(map(published_name, ROLES))} "
        f"into {path.parent}"
    )


@contextlib.contextmanager
def _partial_file(path):
    """The partial file ``.<file>.part`` of a download, open and locked.

    It is removed at the end if it is empty, or if the disk was full. While another process
    downloads the same file, a partial file with the process number in its name is used instead.
    """
    name = path.with_name(f".{path.name}.part")
    part = open(name, "a+b")
    shared = _lock(part) and _is_named(part, name)
    if not shared:
        part.close()
        name = path.with_name(f".{path.name}.{os.getpid()}.part")
        part = open(name, "a+b")
    try:
        yield part
        part.flush()
    except OSError:
        part.truncate(0)
        raise
    finally:
        with contextlib.suppress(OSError):
            part.close()
        with contextlib.suppress(OSError):
            if not shared or os.path.getsize(name) == 0:
                os.unlink(name)


def _is_named(file, name):
    """Whether the open file still has this name: before the lock another process may rename it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    except OSError:
        return False


def _lock(file):
    """Lock the file; False if another process has locked it. True where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _fetch(url, part, path, spec, role, report):
    """Download ``url`` into ``part``, check its content and rename it to ``path``.

    If a resumed download has the wrong content, the file is downloaded again from its start.
    """
    size = part.seek(0, os.SEEK_END)
    for start in (size, 0) if size else (0,):
        try:
            limit = math.prod(spec.shape(role)) + MAX_OVERHEAD
            _receive(url, part, start, limit, path.name, report)
            part.flush()
            os.fsync(part.fileno())  # or a power failure could leave a renamed file without content
            _check_content(part.name, spec.sha256[role])
        except _WrongContent:
            part.truncate(0)
            if start == 0:
                raise
        else:
            if os.name == "nt":  # Windows cannot rename an open file
                part.close()
            os.replace(part.name, path)
            return


def _receive(url, part, start, limit, name, report):
    """Append the bytes of ``url`` from byte ``start`` on to ``part``; ``limit``: the largest size.
    """
    with contextlib.closing(_chunks(url, start, limit)) as chunks:
        for chunk, done, total in chunks:
            if done - len(chunk) != part.tell():  # a server without ranges starts from byte 0
                part.truncate(done - len(chunk))
                part.seek(0, os.SEEK_END)
            part.write(chunk)
            if report is not None:
                report(name, done, total)


def _chunks(url, start, limit):
    """Yield ``(chunk, bytes of the file so far, size of the file or None)`` to the end of ``url``.

    From byte ``start`` on, or from 0 if the server does not support ranges.
    """
    total = done = None
    try:
        with _open(url, start) as response:
            done, total = _extent(response, start)
            if (total or 0) > limit:
                raise _WrongContent(f"announces {total} bytes, where at most {limit} are expected")
            since, before = time.monotonic(), done
            while chunk := response.read1(CHUNK):
                done += len(chunk)
                if done > limit:
                    raise _WrongContent(f"sends more than the {limit} bytes expected")
                yield chunk, done, total
                now = time.monotonic()
                if now - since > TIMEOUT:
                    if done - before < MIN_RATE * TIMEOUT:
                        raise _MirrorFailed(f"sends fewer than {MIN_RATE} bytes a second")
                    since, before = now, done
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # no bytes after ``start``: the file may be complete
            return
        raise _MirrorFailed(f"answers {error.code} {' '.join(str(error.reason).split())}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _MirrorFailed(" ".join(str(reason).split()) or type(reason).__name__) from None
    except http.client.HTTPException as error:  # its text may contain any bytes
        raise _MirrorFailed(f"does not speak HTTP ({type(error).__name__})") from None
    if total is not None and done < total:
        raise _MirrorFailed(f"ends after {done} of {total} bytes")


def _open(url, start):
    """The response to a request for ``url`` from byte ``start`` on.

    Only HTTP and HTTPS are supported, also after redirections, so that no address and no mirror can
    make the program read a local file.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler,
                    urllib.request.HTTPSHandler, urllib.request.HTTPRedirectHandler,
                    urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
                    urllib.request.UnknownHandler):
        opener.add_handler(handler())
    headers = {"User-Agent": "scratchgen", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _extent(response, start):
    """``(first byte of the response, size of the whole file or None)``."""
    length = response.headers.get("Content-Length", "")
    length = int(length) if length.isdecimal() and len(length) < 19 else None
    if response.status != 206:
        return 0, length  # the whole file: no range was requested, or the server has no ranges
    span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)",
                        response.headers.get("Content-Range", ""))
    if not span or int(span[1]) != start:
        raise _WrongContent(f"sends another range of the file than from byte {start} on")
    return start, None if span[2] == "*" else int(span[2])


def _check_content(path, sha256):
    """Raises _WrongContent unless the raw content of the file has this checksum."""
    try:
        found = idx.raw_sha256(path)
    except UserError:
        raise _WrongContent("sends a file that cannot be decompressed") from None
    if found != sha256:
        raise _WrongContent(f"sends another file (sha256 {found}, expected {sha256})")
