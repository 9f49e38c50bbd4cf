"""NumPy's own BLAS, called from inside compiled kernels, on the calling thread.

A matrix product is the one kernel that is not written out here: years of work have gone into BLAS,
and NumPy brings one along. But its threads and Numba's would fight for the cores: both spin while
they wait, so on two cores a training step took up to ten times longer. Hence one pool: BLAS is told
to use one thread, and the kernels' own threads call it for a part of the product each
(``gemm.py``). That also makes the result independent of the number of threads.
"""

import contextlib
import ctypes
import functools
import pathlib
from typing import NamedTuple

import numpy as np

ROW_MAJOR, NOT_TRANSPOSED, TRANSPOSED = 101, 111, 112          # of the CBLAS interface
INTERFACES = (        # name of sgemm, bits of its integers, the function that sets the threads
    ("scipy_cblas_sgemm64_", 64, "scipy_openblas_set_num_threads64_"),    # NumPy's wheels
    ("cblas_sgemm64_", 64, "openblas_set_num_threads64_"),
    ("cblas_sgemm$NEWLAPACK$ILP64", 64, None),                            # wheels on macOS
    ("cblas_sgemm", 32, "openblas_set_num_threads"),                      # Linux distributions
    ("cblas_sgemm", 32, "MKL_Set_Num_Threads"),                           # conda
)


class Blas(NamedTuple):
    """Where BLAS is: the addresses of its two products, the bits of its integers, its name."""

    sgemm: int
    dgemm: int
    bits: int
    name: str
    set_threads: object


@functools.cache
def find():
    """NumPy's BLAS, or None where it does not show itself."""
    for library in libraries():
        for name, bits, threads in INTERFACES:
            with contextlib.suppress(AttributeError):
                addresses = [ctypes.cast(getattr(library, n), ctypes.c_void_p).value
                             for n in (name, name.replace("sgemm", "dgemm"))]
                setter = getattr(library, threads) if threads else None
                return Blas(*addresses, bits, name, setter)
    return None


def libraries():
    """What may hold it: NumPy's extension module with all it links to, and what came with it."""
    from numpy.linalg import _umath_linalg
    folder = pathlib.Path(np.__file__).parent
    paths = [_umath_linalg.__file__, *sorted(folder.parent.glob("numpy.libs/*blas*")),
             *sorted(folder.glob(".dylibs/*blas*"))]
    for path in paths:
        with contextlib.suppress(OSError):
            yield ctypes.CDLL(str(path))
    with contextlib.suppress(OSError):
        yield ctypes.CDLL("/System/Library/Frameworks/Accelerate.framework/Accelerate")


@functools.cache
def use_one_thread():
    """From now on a matrix product runs on the thread that asks for it; whether that worked."""
    blas = find()
    if blas is None or blas.set_threads is None:
        return False
    blas.set_threads(ctypes.c_int(1))
    return True
