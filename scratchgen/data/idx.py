"""Reader and writer of IDX, the file format in which MNIST and Fashion-MNIST are published.

An IDX file is four bytes 0, 0, type, ndim; then ``ndim`` big-endian uint32 sizes; then the values
in C order. Here the type is always 0x08 (uint8). Whether a file is gzip-compressed is determined
from its first two bytes, not from its name.

Source: Y. LeCun, C. Cortes, "The MNIST database of handwritten digits", section on file formats.
"""

import gzip
import hashlib
import math
import os
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import UserError

UINT8 = 0x08
MAX_NDIM = 4
# The largest published set in this format, EMNIST, has 0.55 GB.
MAX_BYTES = 1 << 30
# The largest compression ratio of deflate: a smaller gzip file cannot contain what it declares.
DEFLATE_MAX_RATIO = 1032
CHUNK = 1 << 20


def read(path, ndim=None):
    """The array in the IDX file ``path``: uint8, ``ndim`` dimensions if that is given.

    Raises UserError for every defect of the file; see ``read_with_sha256``.
    """
    return read_with_sha256(path, ndim)[0]


def read_with_sha256(path, ndim=None):
    """``(array, sha256)``: the uint8 array, and the hex checksum of the raw (decompressed) bytes.

    The checksum is that of the content, so it does not depend on the compression. Memory is
    allocated only after the declared size was compared with the size of the file. Raises UserError,
    one sentence that names the file, if it is missing, not a regular file, truncated, damaged, not
    IDX, of another type or number of dimensions, too large, empty, or has bytes after its end.
    """
    path = Path(path)
    with _raw_bytes(path) as stream:
        header, shape = _read_header(stream, path, ndim)
        count = _checked_count(path, shape)
        array = np.empty(count, np.uint8)
        _fill(stream, array, path, shape)
        if stream.read(1):
            raise UserError(
                f"{path} has bytes after the {_sizes(shape)} values that its header declares: "
                "expected the end of the file there; get the original file again"
            )
    checksum = hashlib.sha256(header)
    checksum.update(array)
    return array.reshape(shape), checksum.hexdigest()


def raw_sha256(path):
    """Hex sha256 of the decompressed content of ``path``, whether it is IDX or not."""
    checksum = hashlib.sha256()
    left = MAX_BYTES
    with _raw_bytes(Path(path)) as stream:
        while chunk := stream.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise UserError(f"{path} contains more than {MAX_BYTES} bytes: expected a file of "
                                "an image set; check that this is the right file")
            checksum.update(chunk)
    return checksum.hexdigest()


def encode(array):
    """The raw bytes of an IDX file with ``array`` (uint8)."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or not 1 <= array.ndim <= MAX_NDIM:
        raise UserError(
            f"cannot write an array of dtype {array.dtype} with {array.ndim} dimensions as IDX: "
            f"expected uint8 and 1 to {MAX_NDIM} dimensions"
        )
    sizes = np.asarray(array.shape, ">u4").tobytes()
    return bytes((0, 0, UINT8, array.ndim)) + sizes + array.tobytes()


def write(path, array):
    """Write ``array`` (uint8) as an IDX file; compressed if ``path`` ends in ``.gz``.

    Without a time stamp and file name in the gzip header, the same array gives the same bytes.
    """
    path = Path(path)
    content = encode(array)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=9, mtime=0)
    path.write_bytes(content)


@contextmanager
def _raw_bytes(path):
    """Open a binary stream of the decompressed content; turns every failure into a UserError."""
    if os.path.isdir(path):  # the functions of os.path never raise, whatever the path
        raise UserError(f"{path} is a folder: expected an IDX file; name the file inside it")
    if not os.path.exists(path):
        raise UserError(f"there is no readable file {path}: expected an IDX file; check the name")
    if not os.path.isfile(path):  # a pipe or a device could block or never end
        raise UserError(f"{path} is not a regular file: expected an IDX file; check the name")
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield stream
            else:
                yield file
    except EOFError:
        raise UserError(
            f"{path} is truncated: its gzip stream ends early; get the original file again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged: its gzip stream cannot be read ({error}); "
            "get the original file again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check its permissions"
        ) from None


def _read_header(stream, path, ndim):
    """``(header bytes, shape)``, checked as far as the header alone allows."""
    magic = stream.read(4)
    if not magic:
        raise UserError(f"{path} is empty: expected an IDX file; get the original file again")
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise UserError(
            f"{path} is not an IDX file: it starts with {magic.hex(' ')} where 00 00 08 and the "
            "number of dimensions was expected; check that this is the right file"
        )
    if magic[2] != UINT8:
        raise UserError(
            f"{path} has IDX values of type 0x{magic[2]:02x}: expected 0x08 (unsigned bytes); "
            "convert it or check that this is the right file"
        )
    if not 1 <= magic[3] <= MAX_NDIM or (ndim is not None and magic[3] != ndim):
        expected = f"1 to {MAX_NDIM}" if ndim is None else f"{ndim}"
        raise UserError(
            f"{path} has {magic[3]} dimensions: expected {expected} "
            "(images have 3, labels 1); check that images and labels are not swapped"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise UserError(
            f"{path} is truncated: it ends inside its header; get the original file again"
        )
    return magic + sizes, tuple(int(size) for size in np.frombuffer(sizes, ">u4"))


def _checked_count(path, shape):
    """The number of values in ``shape``; UserError if the file cannot contain so many."""
    count = math.prod(shape)  # Python integers: four sizes of 2³²-1 do not overflow
    if count == 0:
        raise UserError(
            f"{path} has no values (its header declares {_sizes(shape)}): expected at least "
            "one; check that this is the right file"
        )
    if count > MAX_BYTES:
        raise UserError(
            f"{path} declares {_sizes(shape)} values: expected at most {MAX_BYTES} bytes; "
            "the file is damaged, or its set must be divided into smaller files"
        )
    if count > os.path.getsize(path) * DEFLATE_MAX_RATIO:
        raise _truncated(path, shape, "far fewer")
    return count


def _fill(stream, array, path, shape):
    """Read exactly ``array.size`` bytes into ``array``."""
    view = memoryview(array)
    done = 0
    while done < array.size:
        got = stream.readinto(view[done : done + CHUNK])
        if not got:
            raise _truncated(path, shape, f"{done}")
        done += got


def _truncated(path, shape, found):
    return UserError(
        f"{path} is truncated: its header declares {_sizes(shape)} values and the file has "
        f"{found}; get the original file again"
    )


def _sizes(shape):
    return "×".join(str(size) for size in shape)
