"""Fetching a published image set into the user's cache folder, from several mirrors in turn.

What a mirror says is not believed: only the checksum of the raw content decides. So an interrupted
download can go on where it stopped, on whatever mirror: if the whole does not fit together, it is
thrown away and fetched anew.
"""

import contextlib
import http.client
import math
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import UserError
from . import idx
from .catalogue import ROLES, image_set, published_name
from .folders import cache_folder

TIMEOUT = 30  # seconds without a byte
SLOWEST = 1000  # bytes a second, over TIMEOUT seconds: a server that trickles is no better
CHUNK = 1 << 16
# A compressed file is never larger than its raw content by more than a few bytes in a thousand.
SLACK = 1 << 20


class _MirrorFailed(Exception):
    """One mirror did not give the file; the message is the reason."""


class _WrongContent(_MirrorFailed):
    """What has been received is not the file, nor its beginning."""


def get(name, data_dir=None, report=None, mirrors=None):
    """Download the set ``name``; returns the folder (Path) with its four files.

    They go to the subfolder ``name`` of ``data_dir``, by default of the user's cache folder, where
    ``load`` finds them. Files already there with the right content are kept. The content of each
    download is checked before the file gets its name, so a broken one never has it. What an
    interrupted download has received stays beside it, as ``.<file>.part``, and the next one goes on
    from there.
    ``report(file, done, total)``: called as bytes arrive; ``total`` is None if unknown.
    ``mirrors``: addresses to use in place of the known ones.
    Raises UserError if no mirror gives a file, naming the folder to put the files in by hand.
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
                _from_some_mirror(spec, role, path, mirrors or spec.mirrors, report)
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {folder} ({error.strerror or error}): "
            "free or unlock it, or name another one with --data-dir"
        ) from None
    return folder


def _has_content(path, sha256):
    try:
        return os.path.isfile(path) and idx.raw_sha256(path) == sha256
    except UserError:
        return False  # damaged: download it again


def _from_some_mirror(spec, role, path, mirrors, report):
    failures = []
    with _part_of(path) as part:
        for mirror in mirrors:
            url = mirror + published_name(role)
            try:
                return _fetch(url, part, path, spec, role, report)
            except _MirrorFailed as failure:
                failures.append(f"{url}: {failure}")
    raise UserError(
        f"cannot download {path.name} of {spec.name} ({'; '.join(failures)}): check the network "
        f"and try again, or put the files {', '.join(map(published_name, ROLES))} "
        f"into {path.parent} by hand"
    )


@contextlib.contextmanager
def _part_of(path):
    """The file, open and locked, in which the parts of a download come together.

    A part without bytes is removed at the end, and so is one that the disk had no room for. While
    another process is downloading the same file, a part of this process' own takes its place.
    """
    name = path.with_name(f".{path.name}.part")
    part = open(name, "a+b")
    shared = _lock(part) and _is_at(part, name)
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


def _is_at(file, name):
    """Whether ``name`` still means the open file: until it was locked, another could rename it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    except OSError:
        return False


def _lock(file):
    """Whether no other process holds the file; where there are no locks, True."""
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
    """Download ``url`` into ``part``, which then becomes ``path``, whole and checked.

    If what comes after an earlier part does not make the file, everything is fetched once more.
    """
    size = part.seek(0, os.SEEK_END)
    for start in (size, 0) if size else (0,):
        try:
            _receive(url, part, start, math.prod(spec.shape(role)) + SLACK, path.name, report)
            part.flush()
            os.fsync(part.fileno())  # or a power cut could leave the name without the content
            _check_content(part.name, spec.sha256[role])
        except _WrongContent:
            part.truncate(0)
            if start == 0:
                raise
        else:
            if os.name == "nt":  # what is open cannot be renamed there
                part.close()
            os.replace(part.name, path)
            return


def _receive(url, part, start, limit, name, report):
    """Append to ``part``, from its byte ``start`` on, what ``url`` has; at most ``limit`` bytes."""
    with contextlib.closing(_chunks(url, start, limit)) as chunks:
        for chunk, done, total in chunks:
            if done - len(chunk) != part.tell():  # the first chunk, of a server without ranges
                part.truncate(done - len(chunk))
                part.seek(0, os.SEEK_END)
            part.write(chunk)
            if report is not None:
                report(name, done, total)


def _chunks(url, start, limit):
    """``(chunk, bytes of the file so far, its size or None)`` from ``start``, or 0, to its end."""
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
                    if done - before < SLOWEST * TIMEOUT:
                        raise _MirrorFailed(f"sends fewer than {SLOWEST} bytes a second")
                    since, before = now, done
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing after the part: it may be whole already
            return
        raise _MirrorFailed(f"answers {error.code} {' '.join(str(error.reason).split())}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _MirrorFailed(" ".join(str(reason).split()) or type(reason).__name__) from None
    except http.client.HTTPException as error:  # its text may be any bytes that were sent
        raise _MirrorFailed(f"does not speak HTTP ({type(error).__name__})") from None
    if total is not None and done < total:
        raise _MirrorFailed(f"ends after {done} of {total} bytes")


def _open(url, start):
    """The response to a request for ``url`` from byte ``start`` on.

    By HTTP and HTTPS alone, after redirections too: these are no way to a file of this machine.
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
    """(where the answer begins, size of the whole file or None)."""
    length = response.headers.get("Content-Length", "")
    length = int(length) if length.isdecimal() and len(length) < 19 else None
    if response.status != 206:
        return 0, length  # the whole file: the server knows no ranges, or none was asked for
    span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)",
                        response.headers.get("Content-Range", ""))
    if not span or int(span[1]) != start:
        raise _WrongContent(f"sends another part of the file than that from byte {start} on")
    return start, None if span[2] == "*" else int(span[2])


def _check_content(path, sha256):
    try:
        found = idx.raw_sha256(path)
    except UserError:
        raise _WrongContent("sends a file that cannot be decompressed") from None
    if found != sha256:
        raise _WrongContent(f"sends another file (sha256 {found}, expected {sha256})")
