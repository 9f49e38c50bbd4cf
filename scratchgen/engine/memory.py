"""Where arrays lie, and where results are put: the host's memory, or a GPU's.

On the backend "cuda" arrays are CuPy's, in the GPU's memory; ``to_device`` and ``to_host`` copy
them there and back. NumPy's functions accept both kinds, since CuPy implements NumPy's dispatch
protocols. The two differ only where an array is created, where its values are read on the host, and
where its type is asked for; those cases are handled here.
"""

import ctypes
import functools
import math
import sys
import threading
import types

import numpy as np

from .backend import backend, gpu

WORTH_KEEPING, KEPT_AT_MOST = 1 << 14, 1 << 29        # bytes: of an array, of all together
ARRAYS = {np.ndarray}                 # the types of arrays; the GPU's joins when it is first used


def array_module():
    """The module that makes arrays for the backend in force: NumPy, or CuPy."""
    if backend() != "cuda":
        return np
    xp = gpu().xp
    ARRAYS.add(xp.ndarray)
    return xp


def to_device(x, dtype=None):
    """x (an array or numbers) as an array in the memory of the backend in force."""
    if backend() != "cuda":
        return x if dtype is None and type(x) is np.ndarray else np.asarray(to_host(x), dtype)
    xp = array_module()
    return xp.asarray(x if isinstance(x, xp.ndarray) else np.asarray(x), dtype)


def to_host(x):
    """x as NumPy has it: an array of the GPU is copied from there, anything else stays."""
    if type(x) in ARRAYS and type(x) is not np.ndarray:
        return x.get()
    return x


def is_host(x):
    """Whether x is an array of NumPy's, whose values may be looked at without waiting for a GPU."""
    return type(x) is np.ndarray


def known_number(x):
    """A gradient made of one number that the host knows, for kernels: an array of the GPU, there.

    Where a gradient is the same number everywhere (at the end of a loss, and behind a sum or a
    constant factor) no kernel has to compute it, and no copy to carry it over.
    """
    if backend() != "cuda":
        return x
    if x.size > 1 and any(x.strides):
        raise AssertionError("a gradient of many numbers lies on the host, and the values on a GPU")
    return array_module().full(x.shape, x.flat[0] if x.size else 0, x.dtype)


def filled(shape, value, dtype):
    """A constant array of one number, not to be written to: the same array for the same request."""
    request = backend(), tuple(shape), value, np.dtype(dtype)
    return gpu().cached(_filled, *request) if backend() == "cuda" else _filled(*request)


@functools.lru_cache(maxsize=64)
def _filled(backend, shape, value, dtype):
    return array_module().full(shape, value, dtype)


def copy_into(array, values):
    """array[...] = values, wherever the two lie."""
    if type(array) is not np.ndarray and type(values) is np.ndarray and values.size == 1:
        array.fill(values.item())                      # not carried over, but a kernel's argument
    else:
        array[...] = to_host(values) if type(array) is np.ndarray else to_device(values)


def native(x, what):
    """An array of NumPy in the machine's byte order, of no subclass; TypeError for masked ones."""
    if type(x) is not np.ndarray:
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{what} of a masked array: expected an array without a mask, which "
                            "would be dropped; fill it with x.filled(0), or select with "
                            "x.compressed()")
        x = np.asarray(x)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def real_numbers(x, what):
    """An array of NumPy, or numbers, as ``native`` gives it; TypeError where a conversion to floats
    would lose something or guess: complex numbers, text, objects, dates, masked arrays."""
    x = native(x if isinstance(x, np.ndarray) else np.asarray(x), what)
    if x.dtype.kind not in "iubf":
        raise TypeError(f"{what} of dtype {x.dtype}: expected real numbers, float32 or float64; "
                        "convert with x.astype(np.float32)")
    return x


def contiguous(x, dtype=None):
    """x in C order (and ``dtype``) for a kernel: x itself if it is so already, and writable, which
    a broadcast number or a caller's read-only array is not."""
    if type(x) is not np.ndarray:
        return array_module().ascontiguousarray(x, dtype)
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.writeable else x.copy()


# --- memory for results --------------------------------------------------------------------------

class Buffers(threading.local):
    """Arrays for results, lent again as soon as nobody holds them: a step like the last allocates
    nothing. A fresh large array costs as much as the arithmetic, for the system has to zero it.
    """

    def __init__(self):
        self.kept, self.bytes, self.made = {}, 0, 0

    def lend(self, shape, dtype):
        """An uninitialised array that nobody else holds, not even by a view."""
        same = self.kept.setdefault((shape, dtype), [])
        if (i := idle(same)) is not None:
            return same[i]
        array = np.empty(shape, dtype)
        if self.bytes + array.nbytes > KEPT_AT_MOST:
            self.forget()
        same.append(array)
        self.made, self.bytes = self.made + 1, self.bytes + array.nbytes
        return array

    def forget(self):
        """Let go of all that is not in use."""
        for same in self.kept.values():
            while (i := idle(same)) is not None:
                self.bytes -= same.pop(i).nbytes


def idle(arrays):
    """The place of an array that nobody but the list holds, or None."""
    for i in range(len(arrays)):
        if references(arrays, i) == HELD_BY_THE_LIST:
            return i
    return None


def references(arrays, i):
    """How many hold arrays[i], counted in one way: what one that is idle counts differs between
    Python versions."""
    return sys.getrefcount(arrays[i])


HELD_BY_THE_LIST = references([np.empty(1)], 0)


def references_of_an_attribute():
    """What ``getrefcount`` says of an array that only one attribute of one object holds."""
    example = types.SimpleNamespace(data=np.empty(1))
    return sys.getrefcount(example.data)


ALONE = references_of_an_attribute()


def empty(shape, dtype):
    """An uninitialised array for a kernel to fill: the one place where results are allocated."""
    dtype = np.dtype(dtype)
    if backend() == "cuda":
        return array_module().empty(shape, dtype)      # CuPy keeps what is freed for the next
    if math.prod(shape) * dtype.itemsize < WORTH_KEEPING:
        return np.empty(shape, dtype)
    return buffers.lend(shape, dtype)


buffers = Buffers()


def zeros(shape, dtype):
    """An array of zeros in the memory of the backend in force."""
    return array_module().zeros(shape, dtype)


def empty_as(out, shape, dtype):
    """``out`` if there is one, else a new array: for gradients that have a place already."""
    return empty(shape, dtype) if out is None else out


@functools.cache
def reuse_freed_memory():
    """Ask the C library to keep freed arrays for the next ones; called when training begins.

    By default glibc returns a large array's pages to the system and zeroes new ones for the next
    array: a tenth to a fifth of a training step. Elsewhere than on glibc nothing is changed.
    """
    mmap_threshold, trim_threshold, as_much_as_possible = -3, -1, 2**31 - 1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, as_much_as_possible))
