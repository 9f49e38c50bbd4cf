"""Fetching a published image set into the user's cache folder, from several mirrors in turn."""

import contextlib
import http.client
import math
import os
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import UserError
from . import idx
from .catalogue import ROLES, image_set, published_name
from .folders import cache_folder

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 16
# A compressed file is never larger than its raw content by more than a few bytes in a thousand.
SLACK = 1 << 20


class _MirrorFailed(Exception):
    """One mirror did not give the file; the message is the reason."""


def get(name, data_dir=None, report=None, mirrors=None):
    """Download the set ``name``; returns the folder (Path) with its four files.

    They go to the subfolder ``name`` of ``data_dir``, by default of the user's cache folder, where
    ``load`` finds them. Files already there with the right content are kept. The content of each
    download is checked before the file gets its name, so a broken one is never left behind.
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
    for mirror in mirrors:
        url = mirror + published_name(role)
        try:
            return _fetch(url, path, spec, role, report)
        except _MirrorFailed as failure:
            failures.append(f"{url}: {failure}")
    raise UserError(
        f"cannot download {path.name} of {spec.name} ({'; '.join(failures)}): check the network "
        f"and try again, or put the files {', '.join(map(published_name, ROLES))} "
        f"into {path.parent} by hand"
    )


def _fetch(url, path, spec, role, report):
    """Download ``url`` to ``path``, which appears whole and checked, or not at all."""
    # The process number keeps two downloads at the same time from writing into one file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            for chunk, done, total in _chunks(url, math.prod(spec.shape(role)) + SLACK):
                file.write(chunk)
                if report is not None:
                    report(path.name, done, total)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name without the content
        _check_content(temporary, spec.sha256[role])
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _chunks(url, limit):
    """``(chunk, bytes so far, total or None)`` until the end; at most ``limit`` bytes in all."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "scratchgen"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            done = 0
            while chunk := response.read(CHUNK):
                done += len(chunk)
                if done > limit:
                    raise _MirrorFailed(f"sends more than the {limit} bytes expected")
                yield chunk, done, total
    except urllib.error.HTTPError as error:
        raise _MirrorFailed(f"answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _MirrorFailed(str(reason) or type(reason).__name__) from None
    if total is not None and done < total:
        raise _MirrorFailed(f"ends after {done} of {total} bytes")


def _check_content(path, sha256):
    try:
        found = idx.raw_sha256(path)
    except UserError:
        raise _MirrorFailed("sends a file that cannot be decompressed") from None
    if found != sha256:
        raise _MirrorFailed(f"sends another file (sha256 {found}, expected {sha256})")
