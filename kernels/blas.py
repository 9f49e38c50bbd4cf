"""NumPy's BLAS, limited to one thread while Numba's thread pool is in use.

No kernel calls BLAS. But BLAS has a thread pool of its own, which the NumPy code of a model or a
user wakes with every matrix product, and its threads then wait actively for milliseconds. Beside
Numba's threads on the same cores, a training step takes up to ten times longer.
"""

import contextlib
import ctypes
import functools
import pathlib

import numpy as np

SETTERS = ("scipy_openblas_set_num_threads64_",        # of NumPy's wheels
           "openblas_set_num_threads64_", "openblas_set_num_threads",      # Linux distributions
           "MKL_Set_Num_Threads")                      # conda


@functools.cache
def find_setter():
    """The function of NumPy's BLAS that sets its number of threads; None if there is none."""
    for library in libraries():
        for name in SETTERS:
            with contextlib.suppress(AttributeError):
                return getattr(library, name)
    return None


def libraries():
    """The libraries that may contain BLAS: NumPy's extension module, and those beside it."""
    from numpy.linalg import _umath_linalg
    folder = pathlib.Path(np.__file__).parent
    paths = [_umath_linalg.__file__, *sorted(folder.parent.glob("numpy.libs/*blas*")),
             *sorted(folder.glob(".dylibs/*blas*"))]
    for path in paths:
        with contextlib.suppress(OSError):
            yield ctypes.CDLL(str(path))


def use_threads(count):
    """Sets the number of BLAS's threads; returns whether that was possible."""
    setter = find_setter()
    if setter is None:
        return False
    setter(ctypes.c_int(count))
    return True
