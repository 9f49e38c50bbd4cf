"""Reader of NumPy's formats .npy and .npz that believes no header.

``numpy.load`` evaluates the header as Python text and allocates what it declares. Here the header
is matched against what NumPy itself writes, only plain numbers are accepted, so no pickle is ever
opened, and memory is allocated after the declared size was held against the size of the file.

Source: NumPy Enhancement Proposal 1, "A simple file format for NumPy arrays".
"""

import math
import os
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import UserError
from .idx import DEFLATE_MAX_RATIO

MAGIC = b"\x93NUMPY"
MAX_BYTES = 1 << 32  # of all arrays of a file
MAX_HEADER = 10_000
MAX_NDIM = 8
CHUNK = 1 << 20

_QUOTED = r"'[^']*'|\"[^\"]*\""
_TUPLE = r"\((?:[0-9]{1,19}L?,)*(?:[0-9]{1,19}L?)?\)"
_FIELD = rf"['\"](descr|fortran_order|shape)['\"]:({_QUOTED}|True|False|{_TUPLE})"
_HEADER = re.compile(rf"\{{{_FIELD},{_FIELD},{_FIELD},?\}}")
_NUMBER = re.compile(r"[<>|=]?([iu][1248]|f[248])")


def read(path):
    """The array in the .npy file ``path``, of whole or floating-point numbers.

    Raises UserError, one sentence that names the file, if it is missing, no regular file, truncated
    or damaged, holds objects or anything else but numbers, is empty, too large, or goes on after
    its array.
    """
    path = Path(path)
    with _opened(path, ".npy") as file:
        return _read_array(file, os.path.getsize(path), str(path))


def read_archive(path):
    """The arrays in the .npz file ``path`` as ``{name: array}``; raises UserError as ``read``."""
    path = Path(path)
    with _opened(path, ".npz") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_members(members, path)
                return {m.filename.removesuffix(".npy"): _read_member(archive, m, path)
                        for m in members}
        except UserError:
            raise
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's fault, not the content's
            raise _damaged(path, error) from None
        # All that the zip reader was seen to raise on damaged files.
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError,
                RuntimeError, struct.error, OverflowError, IndexError) as error:
            raise _damaged(path, error) from None


@contextmanager
def _opened(path, kind):
    """The file opened for reading; every way of failing becomes a UserError."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: expected a {kind} file; name the file inside it")
    if not os.path.exists(path):
        raise UserError(f"there is no readable file {path}: expected a {kind} file; check the name")
    if not os.path.isfile(path):  # a pipe or a device could block or never end
        raise UserError(f"{path} is no regular file: expected a {kind} file; check the name")
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check its permissions"
        ) from None


# ------------------------------------------------------------------------ zip


def _check_members(members, path):
    if not members:
        raise UserError(f"{path} is an empty archive: expected arrays; save it again with np.savez")
    names = [member.filename for member in members]
    for member in members:
        name = member.filename
        if not name.endswith(".npy") or names.count(name) > 1:
            fault = "twice" if name.endswith(".npy") else "which is no array"
            raise UserError(f"{path} holds {name!r}, {fault}: expected what np.savez writes; "
                            "save it again")
        if member.flag_bits & 1:
            raise UserError(f"{path} is encrypted: expected what np.savez writes; save it again")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path} is compressed in another way than np.savez and "
                            "np.savez_compressed do: save it again with one of them")
        if member.file_size > os.path.getsize(path) * DEFLATE_MAX_RATIO:
            raise _damaged(path, f"{name} declares {member.file_size} bytes")
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise _too_large(path)


def _read_member(archive, member, path):
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, f"{path}, array {member.filename[:-4]!r},")


def _damaged(path, reason):
    return UserError(f"{path} is damaged or not an .npz file ({_one_line(reason)}): "
                     "save it again with np.savez")


def _one_line(reason):
    return " ".join(str(reason).split()) or type(reason).__name__


# ------------------------------------------------------------------------ one array


def _read_array(stream, size, where):
    """The array in a stream of ``size`` bytes; ``where``: what to call it in an error."""
    dtype, fortran, shape, used = _read_header(stream, where)
    if dtype.itemsize * math.prod(shape) > MAX_BYTES:
        raise _too_large(where)
    declared, there = dtype.itemsize * math.prod(shape), size - used
    if declared != there:
        fault = "is truncated" if there < declared else "goes on after its end"
        raise UserError(f"{where} {fault}: its header declares {shape} numbers, {declared} bytes, "
                        f"and {there} are there; save the array again")
    array = np.empty(declared, np.uint8)
    view, done = memoryview(array), 0
    while done < declared:
        got = stream.readinto(view[done : done + CHUNK])
        if not got:
            raise UserError(f"{where} is truncated: it ends after {done} of {declared} bytes; "
                            "save the array again")
        done += got
    if stream.read(1):  # also makes the zip reader compare its checksum
        raise UserError(f"{where} goes on after its end: save the array again")
    array = array.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _read_header(stream, where):
    """``(dtype, fortran order, shape, bytes used)``."""
    start = stream.read(len(MAGIC) + 2)
    if not start:
        raise UserError(f"{where} is empty: expected an array; save it again with np.save")
    if start[:6] != MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise UserError(f"{where} is not in NumPy's format: it starts with {start[:6].hex(' ')} "
                        f"where {MAGIC.hex(' ')} was expected; save the array with np.save")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > MAX_HEADER:
        raise _bad_header(where)
    text = stream.read(length)
    fields = _HEADER.fullmatch("".join(text.decode("latin-1").split()))
    if len(text) < length or not fields:
        raise _bad_header(where)
    fields = dict(zip(fields.groups()[::2], fields.groups()[1::2], strict=True))
    descr, order, shape = (fields.get(key, "") for key in ("descr", "fortran_order", "shape"))
    if descr[:1] not in "'\"" or order not in ("True", "False") or shape[:1] != "(":
        raise _bad_header(where)
    shape = tuple(int(n) for n in re.findall("[0-9]+", shape))
    return _dtype(descr[1:-1], where), order == "True", _sane(shape, where), 8 + width + length


def _dtype(descr, where):
    if "O" in descr:
        raise UserError(f"{where} holds Python objects, which could run code when loaded: expected "
                        "numbers; make it one array of uint8 and save that")
    if descr.endswith("b1"):
        raise UserError(f"{where} holds truth values: expected whole or floating-point numbers; "
                        "save them as black and white with 255 * x.astype(np.uint8)")
    if not _NUMBER.fullmatch(descr):
        raise UserError(f"{where} has values of type {descr!r}: expected whole or floating-point "
                        "numbers; convert it, for images with .astype(np.uint8)")
    return np.dtype(descr)


def _sane(shape, where):
    if 0 in shape or len(shape) > MAX_NDIM:
        raise UserError(f"{where} has shape {shape}: expected 1 to {MAX_NDIM} dimensions and at "
                        "least one value")
    return shape


def _bad_header(where):
    return UserError(f"{where} has no header of an array of numbers: it is damaged or holds "
                     "records; save a plain array with np.save")


def _too_large(where):
    return UserError(f"{where} declares more than {MAX_BYTES} bytes: expected less; the file is "
                     "damaged, or must be cut into smaller ones")
