"""Reader of NumPy's .npy and .npz files that does not trust their headers.

``numpy.load`` allocates what a header declares, before it reads the data. Here NumPy parses the
header (``numpy.lib.format``), then the declared size is compared with the size of the file, and
only an array of numbers whose sizes agree is read. Pickles are never loaded.

Source: NumPy Enhancement Proposal 1, "A simple file format for NumPy arrays".
"""

import io
import math
import os
import struct
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from numpy.lib import format as npy_format

from ..errors import UserError
from .idx import DEFLATE_MAX_RATIO

MAGIC = npy_format.MAGIC_PREFIX
MAX_BYTES = 1 << 32  # of all arrays of a file
MAX_HEADER = 10_000  # as in numpy.load: a longer literal could crash the parser
MAX_NDIM = 8
MAX_SIZE = 1 << 64  # of one dimension


def read(path):
    """The array of integers or floating-point numbers in the .npy file ``path``.

    Raises UserError, one sentence that names the file, if it is missing, not a regular file,
    truncated, damaged, empty or too large, if it contains objects or anything else but numbers, or
    has bytes after its array.
    """
    path = Path(path)
    with _open(path, ".npy") as file:
        return _read_array(file, os.path.getsize(path), str(path))


def read_archive(path):
    """The arrays in the .npz file ``path`` as ``{name: array}``; raises UserError as ``read``."""
    path = Path(path)
    with _open(path, ".npz") as file:
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
                raise  # an error of the disk, not of the content
            raise _damaged(path, error) from None
        # The exceptions that the zip reader was found to raise on damaged files.
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError,
                RuntimeError, struct.error, OverflowError, IndexError) as error:
            raise _damaged(path, error) from None


@contextmanager
def _open(path, kind):
    """Open the file for reading; turns every failure into a UserError."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: expected a {kind} file; name the file inside it")
    if not os.path.exists(path):
        raise UserError(f"there is no readable file {path}: expected a {kind} file; check the name")
    if not os.path.isfile(path):  # a pipe or a device could block or never end
        raise UserError(f"{path} is not a regular file: expected a {kind} file; check the name")
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
            fault = "twice" if name.endswith(".npy") else "which is not an array"
            raise UserError(f"{path} contains {name!r}, {fault}: expected an archive written by "
                            "np.savez; save it again")
        if member.flag_bits & 1:
            raise UserError(f"{path} is encrypted: expected an archive written by np.savez; save "
                            "it again")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path} uses another compression than np.savez and "
                            "np.savez_compressed: save it again with one of them")
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
    """The array in a stream of ``size`` bytes; ``where``: its name in error messages."""
    shape, dtype, header_bytes = _read_header(stream, where)
    expected, found = dtype.itemsize * math.prod(shape), size - header_bytes
    if expected > MAX_BYTES:
        raise _too_large(where)
    if expected != found:
        fault = "is truncated" if found < expected else "has bytes after its end"
        raise UserError(f"{where} {fault}: its header declares {shape} numbers, {expected} bytes, "
                        f"and the file has {found}; save the array again")
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header of a file that Python 2 wrote
            array = npy_format.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER)
    except ValueError:
        raise UserError(f"{where} is truncated: it ends before its {expected} bytes; save the "
                        "array again") from None
    if stream.read(1):  # also makes the zip reader compare its checksum
        raise UserError(f"{where} has bytes after its end: save the array again")
    return array


def _read_header(stream, where):
    """``(shape, dtype, bytes of the header)``."""
    start = io.BytesIO(stream.read(npy_format.MAGIC_LEN + 4 + MAX_HEADER))
    prefix = start.getvalue()[:len(MAGIC)]
    if not prefix:
        raise UserError(f"{where} is empty: expected an array; save it again with np.save")
    try:
        version = npy_format.read_magic(start)
    except ValueError:
        version = None
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise UserError(f"{where} is not in NumPy's format: it starts with {prefix.hex(' ')} "
                        f"where {MAGIC.hex(' ')} was expected; save the array with np.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Version 3 differs from 2 in the encoding of field names, and records are refused.
            parse = (npy_format.read_array_header_1_0 if version == (1, 0)
                     else npy_format.read_array_header_2_0)
            shape, _, dtype = parse(start, max_header_size=MAX_HEADER)
    except Exception:  # NumPy evaluates a Python literal, which can fail in any way
        raise _bad_header(where) from None
    _check_dtype(dtype, where)
    _check_shape(shape, where)
    return shape, dtype, start.tell()


def _check_dtype(dtype, where):
    if dtype.hasobject:
        raise UserError(f"{where} contains Python objects, which could run code when loaded: "
                        "expected numbers; convert it to one array of uint8 and save that")
    if dtype.names or dtype.subdtype:
        raise _bad_header(where)
    if dtype.kind == "b":
        raise UserError(f"{where} contains booleans: expected integers or floating-point numbers; "
                        "save them as black and white with 255 * x.astype(np.uint8)")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(f"{where} has values of type {dtype.str!r}: expected integers or "
                        "floating-point numbers; convert it, for images with .astype(np.uint8)")


def _check_shape(shape, where):
    if not all(type(n) is int and 0 <= n < MAX_SIZE for n in shape):
        raise _bad_header(where)
    if 0 in shape or len(shape) > MAX_NDIM:
        raise UserError(f"{where} has shape {shape}: expected 1 to {MAX_NDIM} dimensions and at "
                        "least one value")


def _bad_header(where):
    return UserError(f"{where} has no header of an array of numbers: it is damaged or contains "
                     "records; save a plain array with np.save")


def _too_large(where):
    return UserError(f"{where} declares more than {MAX_BYTES} bytes: expected less; the file is "
                     "damaged, or must be divided into smaller ones")
