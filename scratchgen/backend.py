"""Which kernels run: the choice of backend, and the one place where a kernel is looked up.

``kernels/dense.py`` holds the versions of each kernel side by side: ``bias_activation_numpy``,
``bias_activation_numba``, and later ``bias_activation_cuda``. The suffix is the registration:
``kernels("dense").bias_activation`` is the version for the backend in force. A version that does
not exist is an error that lists those that do; nothing falls back silently.
"""

import ctypes
import functools
import importlib
import math
import sys
import threading

import numpy as np

from .errors import UserError, unknown

BACKENDS = ("numpy", "numba", "cuda")
WORTH_KEEPING, KEPT_AT_MOST = 1 << 14, 1 << 29        # bytes: of an array, of all together


class use_backend:
    """Choose the backend: ``use_backend("numpy")`` from now on, or in a ``with`` block only.

    ``"numpy"`` is the reference, ``"numba"`` (the default) compiles kernels for the CPU.
    """

    current = "numba"

    def __init__(self, name):
        if name not in BACKENDS:
            raise unknown("backend", name, BACKENDS)
        if name == "cuda":
            raise UserError("the backend 'cuda' is not part of this version: "
                            "choose 'numba' or 'numpy'")
        self.previous = use_backend.current
        self._switch(name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._switch(self.previous)

    @staticmethod
    def _switch(name):
        use_backend.current = name
        for family in _families.values():
            family.__dict__.clear()


def backend():
    """The name of the backend in force."""
    return use_backend.current


class Family:
    """The kernels of one file; attribute ``f`` is ``f_<backend>``, looked up once a backend."""

    def __getattr__(self, function):
        name = next(name for name, family in _families.items() if family is self)
        module = importlib.import_module(f"scratchgen.kernels.{name}")
        version = getattr(module, f"{function}_{backend()}", None)
        if version is None:
            versions = [b for b in BACKENDS if hasattr(module, f"{function}_{b}")]
            reason = getattr(module, "MISSING", {}).get(f"{function}_{backend()}", "")
            raise NotImplementedError(
                f"kernel {name}.{function} has no {backend()!r} version"
                f"{f' ({reason})' if reason else ''}; it exists for "
                f"{', '.join(versions) or 'none'}")
        if hasattr(version, "launcher"):               # compiled when it is first called
            version = version.launcher()
        self.__dict__[function] = version
        return version


def kernels(name):
    """The family of kernels in ``kernels/<name>.py``."""
    return _families.setdefault(name, Family())


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


def empty(shape, dtype):
    """An uninitialised array for a kernel to fill: the one place where results are allocated."""
    dtype = np.dtype(dtype)
    if math.prod(shape) * dtype.itemsize < WORTH_KEEPING:
        return np.empty(shape, dtype)
    return buffers.lend(shape, dtype)


buffers = Buffers()


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


_families = {}
