"""Arrays in the memory of the host or of a GPU, and the memory of results.

On the backend "cuda" arrays are CuPy's, in the GPU's memory; ``to_device`` and ``to_host`` copy
them there and back. NumPy's functions accept both kinds, since CuPy implements NumPy's dispatch
protocols. The two differ only where an array is created, where its values are read on the host, and
where its type is asked for; those cases are handled here. While a step is recorded on the CPU, its
arrays are of a third kind, ``Recorded`` (``recorded.py``): they lie in the host's memory, but their
values are not to be read.
"""

import ctypes
import functools
import math
import sys
import threading
import types

import numpy as np

from ..context import recorder
from .backend import backend, gpu
from .recorded import Recorded, Recording, in_step

WORTH_KEEPING, KEPT_AT_MOST = 1 << 14, 1 << 29        # bytes of one array, and of all
ARRAYS = {np.ndarray, Recorded}       # the types of arrays; the GPU's joins when it is first used
ON_HOST = {np.ndarray, Recorded}


def array_module():
    """The module that creates arrays for the current backend: NumPy or CuPy."""
    if backend() != "cuda":
        return np
    xp = gpu().xp
    ARRAYS.add(xp.ndarray)
    return xp


def to_device(x, dtype=None):
    """x (an array or numbers) as an array in the memory of the current backend."""
    if backend() != "cuda":
        if type(x) is Recorded:
            return x if dtype is None else x.astype(dtype, copy=False)
        return x if dtype is None and type(x) is np.ndarray else np.asarray(to_host(x), dtype)
    xp = array_module()
    return xp.asarray(x if isinstance(x, xp.ndarray) else np.asarray(x), dtype)


def to_host(x):
    """x as a NumPy array: copied from the GPU if it is there; anything else is returned as it
    is."""
    if type(x) is Recorded:
        return np.asarray(x)
    if type(x) in ARRAYS and type(x) is not np.ndarray:
        return x.get()
    return x


def is_host(x):
    """Whether x is an array in the host's memory."""
    return type(x) in ON_HOST


def is_readable(x):
    """Whether x is an array whose values can be read without waiting for a GPU, and outside a
    recording, in which they differ from step to step."""
    return type(x) is np.ndarray


def constant_to_device(x):
    """A gradient that is a constant on the host, as an array that kernels can read.

    A gradient has the same value everywhere at the end of a loss, after a sum and after a constant
    factor. It then needs neither a kernel nor a copy from the host.
    """
    if backend() != "cuda":
        return x
    if x.size > 1 and any(x.strides):
        raise AssertionError("a gradient of many numbers lies on the host, and the values on a GPU")
    return array_module().full(x.shape, x.flat[0] if x.size else 0, x.dtype)


def filled(shape, value, dtype):
    """A constant array, read-only by convention: cached for equal arguments."""
    request = backend(), tuple(shape), value, np.dtype(dtype)
    return gpu().cached(_filled, *request) if backend() == "cuda" else _filled(*request)


def check_values(array, check):
    """check(array), which raises an error for values that do not fit.

    In a step that is recorded, each replay checks its own values. On a GPU nothing is checked,
    since that would wait for it.
    """
    if type(array) is Recorded and type(recording := recorder.get()) is Recording:
        recording.check(check, array)
    elif is_host(array):
        check(to_host(array))


@functools.lru_cache(maxsize=64)
def _filled(backend, shape, value, dtype):
    return array_module().full(shape, value, dtype)


def copy_into(array, values):
    """array[...] = values, each on the host or on the GPU."""
    if type(array) not in ON_HOST and type(values) is np.ndarray and values.size == 1:
        array.fill(values.item())                      # an argument of a kernel instead of a copy
    elif type(array) in ON_HOST:
        in_step(array)[...] = values if type(values) is Recorded else to_host(values)
    else:
        array[...] = to_device(values)


def lasting_copy(x):
    """A copy in C order that other code may keep, also if it is made in a step that is recorded."""
    if type(x) is not Recorded:
        return x.copy(order="C")
    recording = recorder.get()
    return np.array(x) if recording is None else recording.lasting_copy(x)


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
    """x in C order (and ``dtype``) for a kernel: x itself if it already is and is writable;
    broadcast and read-only arrays are copied."""
    if type(x) is Recorded:
        fits = x.flags.c_contiguous and x.flags.writeable and dtype in (None, x.dtype)
        return x if fits else x.astype(x.dtype if dtype is None else dtype, order="C")
    if type(x) is not np.ndarray:
        return array_module().ascontiguousarray(x, dtype)
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.writeable else x.copy()


# --- memory for results --------------------------------------------------------------------------

class BufferPool(threading.local):
    """Arrays for results, reused as soon as nothing else refers to them, so that a training step
    like the previous one allocates nothing. A new large array takes as long as the computation,
    because the operating system fills it with zeros.
    """

    def __init__(self):
        self.kept, self.bytes, self.made = {}, 0, 0

    def allocate(self, shape, dtype):
        """An uninitialised array without other references or views."""
        same = self.kept.setdefault((shape, dtype), [])
        if (i := find_idle(same)) is not None:
            return same[i]
        array = np.empty(shape, dtype)
        if self.bytes + array.nbytes > KEPT_AT_MOST:
            self.release_idle()
        same.append(array)
        self.made, self.bytes = self.made + 1, self.bytes + array.nbytes
        return array

    def release_idle(self):
        """Release all arrays that are not in use."""
        for same in self.kept.values():
            while (i := find_idle(same)) is not None:
                self.bytes -= same.pop(i).nbytes


def find_idle(arrays):
    """The index of an array that only the list refers to, or None."""
    for i in range(len(arrays)):
        if references(arrays, i) == REFERENCES_OF_THE_POOL:
            return i
    return None


def references(arrays, i):
    """The reference count of arrays[i], always read in this way: the count of an idle array differs
    between Python versions."""
    return sys.getrefcount(arrays[i])


REFERENCES_OF_THE_POOL = references([np.empty(1)], 0)


def references_of_an_attribute():
    """What ``getrefcount`` says of an array that only one attribute of one object holds."""
    example = types.SimpleNamespace(data=np.empty(1))
    return sys.getrefcount(example.data)


ONE_REFERENCE = references_of_an_attribute()


def empty(shape, dtype):
    """An uninitialised array for a kernel to fill. All results are allocated here."""
    dtype = np.dtype(dtype)
    if backend() == "cuda":
        return array_module().empty(shape, dtype)      # CuPy has a pool of its own
    if type(recording := recorder.get()) is Recording:
        return recording.empty(shape, dtype)
    if math.prod(shape) * dtype.itemsize < WORTH_KEEPING:
        return np.empty(shape, dtype)
    return buffers.allocate(shape, dtype)


buffers = BufferPool()


def zeros(shape, dtype):
    """An array of zeros in the memory of the current backend."""
    if type(recorder.get()) is Recording:
        array = empty(shape, dtype)
        array.fill(0)
        return array
    return array_module().zeros(shape, dtype)


def empty_as(out, shape, dtype):
    """``out`` if there is one, otherwise a new array."""
    return empty(shape, dtype) if out is None else out


@functools.cache
def reuse_freed_memory():
    """Configure the C library to reuse the memory of freed arrays; called when training begins.

    By default glibc returns the pages of a large array to the system, which fills new pages with
    zeros for the next array; this takes 10 to 20 % of a training step. Without glibc it has no
    effect.
    """
    mmap_threshold, trim_threshold, as_much_as_possible = -3, -1, 2**31 - 1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, as_much_as_possible))
