"""The matrix product: BLAS for a part, and which part each thread takes.

The parts depend on the shapes alone, never on the number of threads, so that every number of
threads makes the same bits. With ``ta`` the first factor is given transposed, with ``tb`` the
second.
"""

import functools

import numpy as np

from ..errors import UserError
from . import blas
from .compiler import Overloaded, compiled, load_numba, prange
from .cuda import blocks_for, device, empty, launch
from .gemm_chooser import REGISTER_TILES, TENSOR_TILES, allow_tf32, choose, count

TILE = 16                        # parts begin at multiples of this many rows or columns
SMALL, MEDIUM, LARGE = 1 << 19, 24 << 20, 96 << 20   # multiply-adds worth 2, 4 and 8 parts
TICKETS = 1 << 16                # the most tiles whose sums several blocks of a GPU share
IN_FLOAT32, IN_TF32 = 1, 7       # what CuPy calls the two precisions of cuBLAS
unsigned = np.uint64             # an index that cannot be negative needs no check
SIDE = 8                         # of a tile of a matrix that is turned
# a bᵀ is computed as (b aᵀ)ᵀ if a has so many times fewer rows than b has rows and columns: a large
# b costs BLAS up to twice the time if it is to be transposed, and c is quickly turned.
FLAT = 3


# --- gemm(a, b, c, ta, tb, beta): c = a b + beta c, on the calling thread; for kernels ------------

def gemm(a, b, c, ta, tb, beta):
    """a (M, K), b (K, N) or their transposes, c (M, N); rows are contiguous; beta is 0 or 1."""
    product = (a.T if ta else a) @ (b.T if tb else b)
    c[...] = product + c if beta else product


def gemm_versions():
    """For Numba: a call of BLAS, or plain loops where NumPy's BLAS does not show itself."""
    types, found = load_numba().types, blas.find()
    if found is None:
        return lambda a, b, c, ta, tb, beta: loops
    whole, pointer = (types.int64 if found.bits == 64 else types.int32), types.uintp

    def product(name, scalar):
        return types.ExternalFunction(name, types.void(
            types.int32, types.int32, types.int32, whole, whole, whole, scalar, pointer, whole,
            pointer, whole, scalar, pointer, whole))
    products = {types.float32: product("scratchgen_sgemm", types.float32),
                types.float64: product("scratchgen_dgemm", types.float64)}
    row_major, plain, transposed = blas.ROW_MAJOR, blas.NOT_TRANSPOSED, blas.TRANSPOSED

    def choose(a, b, c, ta, tb, beta):
        call, size = products[c.dtype], c.dtype.bitwidth // 8
        kind = np.float32 if size == 4 else np.float64

        def version(a, b, c, ta, tb, beta):
            m, n = c.shape
            k = a.shape[0] if ta else a.shape[1]
            if m > 0 and n > 0:              # with each factor, how many numbers apart its rows are
                call(row_major, transposed if ta else plain, transposed if tb else plain, m, n, k,
                     kind(1), a.ctypes.data, max(a.strides[0] // size, a.shape[1], 1),
                     b.ctypes.data, max(b.strides[0] // size, b.shape[1], 1),
                     kind(beta), c.ctypes.data, max(c.strides[0] // size, n))
        return version
    return choose


def loops(a, b, c, ta, tb, beta):
    """The same without BLAS: the innermost loop runs along rows of c, and of b if it can."""
    m, n = c.shape
    for i in range(m):
        row = c[i]
        if beta == 0:
            row[:] = 0
        for k in range(a.shape[0] if ta else a.shape[1]):
            factor = a[k, i] if ta else a[i, k]
            for j in range(n):
                row[j] += factor * (b[j, k] if tb else b[k, j])


gemm = Overloaded(gemm, gemm_versions)


# --- matmul(a, b, c, ta, tb): c = a b;  matmul_add(a, b, c, ta, tb): c += a b, over all threads ---

def matmul_numpy(a, b, c, ta, tb):
    """As ``gemm``."""
    np.matmul(a.T if ta else a, b.T if tb else b, out=c)


def matmul_add_numpy(a, b, c, ta, tb):
    """A second gradient of one matrix is added so, without a pass of its own."""
    c += (a.T if ta else a) @ (b.T if tb else b)


@compiled(parallel=True)
def matmul_numba(a, b, c, ta, tb):
    m, n = c.shape
    k = a.shape[0] if ta else a.shape[1]
    count = parts(m * n * k)
    if count == 1 or max(m, n) >= 2 * TILE * count:
        for t in prange(count):                        # each iteration owns a block of c
            gemm_part(t, count, a, b, c, ta, tb, 0)
    else:                                              # a long sum into few numbers: split the sum
        partial = np.empty((count, m, n), c.dtype)
        for t in prange(count):                        # each iteration owns partial[t]
            first, last = k * t // count, k * (t + 1) // count
            gemm(a[first:last] if ta else a[:, first:last],
                 b[:, first:last] if tb else b[first:last], partial[t], ta, tb, 0)
        c[:] = partial[0]
        for t in range(1, count):
            c += partial[t]


def matmul_cuda(a, b, c, ta, tb):
    product(a, b, c, ta, tb)


@compiled(parallel=True)
def matmul_add_numba(a, b, c, ta, tb):
    count = parts(c.size * (a.shape[0] if ta else a.shape[1]))
    for t in prange(count):                            # each iteration owns a block of c
        gemm_part(t, count, a, b, c, ta, tb, 1)


def matmul_add_cuda(a, b, c, ta, tb):
    product(a, b, c, ta, tb, accumulate=True)


@compiled
def gemm_part(t, count, a, b, c, ta, tb, beta):
    """Part t of c = a b + beta c."""
    short = ta and len(a) < min(c.shape)
    top, bottom, left, right = block(t, count, c.shape[0], c.shape[1], short)
    part, rows = c[top:bottom, left:right], a[:, top:bottom] if ta else a[top:bottom]
    columns = b[left:right] if tb else b[:, left:right]
    if tb and not ta and beta == 0 and count > 1 and FLAT * len(c) <= min(len(b), b.shape[1]):
        turned = np.empty((right - left, bottom - top), c.dtype)
        gemm(columns, rows, turned, False, True, 0)
        turn(turned, part)
    else:
        gemm(rows, columns, part, ta, tb, beta)


@compiled
def turn(a, b):
    """b = aᵀ, in tiles of a size that the compiler knows, then what is left over."""
    m, n = a.shape
    rows, columns = m // SIDE * SIDE, n // SIDE * SIDE
    for top in range(0, rows, SIDE):
        for left in range(0, columns, SIDE):
            for i in range(SIDE):
                for j in range(SIDE):
                    b[unsigned(left + j), unsigned(top + i)] = a[unsigned(top + i),
                                                                 unsigned(left + j)]
    for i in range(m):
        for j in range(columns if i < rows else 0, n):
            b[j, i] = a[i, j]


@compiled
def parts(work):
    """In how many parts a product of so many multiply-adds is computed."""
    if work < SMALL:
        return 1
    return 2 if work < MEDIUM else 4 if work < LARGE else 8


@compiled
def block(t, count, m, n, short):
    """Part t of c (m, n): top, bottom, left, right. Cut across its longer side; but where a sum is
    ``short`` (dw = xᵀ dy of a batch) across its rows, whose parts are whole in memory: with columns
    of a c that is not in the cache BLAS takes up to three times as long."""
    rows = m >= n or short and m >= 2 * TILE * count
    side = m if rows else n
    first = (side * t // count + TILE // 2) // TILE * TILE         # at the nearest tile: even parts
    last = side if t == count - 1 else (side * (t + 1) // count + TILE // 2) // TILE * TILE
    return (first, last, 0, n) if rows else (0, m, first, last)


# --- the same on a GPU: c = activation(a b + bias), in one launch --------------------------------

def product(a, b, c, ta, tb, bias=None, activation=0, accumulate=False):
    """c (M, N) = activation(a b + bias), or activation(c + a b + bias) to ``accumulate``.

    a (M, K), b (K, N) or their transposes, bias (N,) or none; ``activation`` as in dense.py. The
    rung is the one that ``choose`` says. c must not overlap a or b.
    """
    m, n = c.shape
    k = a.shape[0] if ta else a.shape[1]
    rung, tile, split, blocks = choose(m, n, k, c.dtype, ta, tb)
    epilogue = (c if bias is None else bias, activation, bias is not None, accumulate, m, n)
    if rung == "cublas":
        by_cublas(a, b, c, ta, tb, epilogue)
    elif rung == "naive":
        launch("gemm.naive", blocks, 256, a, b, c, ta, tb, *epilogue, k)
    elif rung == "tiled":
        launch("gemm.tiled", (blocks_for(m, 16), blocks_for(n, 16)), (16, 16), a, b, c, ta, tb,
               *epilogue, k)
    else:
        tiles = count(m, n, tile)
        split = split if tiles <= TICKETS else 1
        partial = c if split == 1 else empty(tiles * split * tile[0] * tile[1], c.dtype)
        rest = (*epilogue, k, partial, device().cached(tickets, device()))
        if rung == "tensor_core":
            constants = TENSOR_TILES[tile]
            launch("gemm.tensor_core", (tiles, split), 32 * constants[2] * constants[3], a, b, c,
                   *rest, constants=(int(ta), int(tb), *constants))
        else:
            launch("gemm.register_tiled", (tiles, split), 256, a, b, c, ta, tb, *rest,
                   constants=REGISTER_TILES[tile])


@functools.lru_cache(maxsize=8)
def tickets(gpu):
    """A count for each tile, of the blocks that are done with it; every launch leaves zeros.

    Products on two streams at once would share the counts, and must not be.
    """
    return gpu.xp.zeros(TICKETS, np.uint32)


def by_cublas(a, b, c, ta, tb, epilogue):
    """The last rung: NVIDIA's library, then bias and activation in a launch of their own.

    In full float32, whatever CUPY_TF32 says, unless ``allow_tf32`` is on. UserError inside a
    capture, where CuPy cannot call cuBLAS.
    """
    if device().is_capturing():
        raise UserError("gemm 'cublas' cannot be captured, for CuPy gives cuBLAS no stream that is "
                        "recording: use gemm 'auto', or run the step without a capture")
    xp, (bias, activation, biased, accumulate, m, n) = device().xp, epilogue
    precisions = xp._core._routines_linalg
    before = precisions.get_compute_type(c.dtype)
    tf32 = allow_tf32.switch.get() and c.dtype == np.float32
    precisions.set_compute_type(c.dtype, IN_TF32 if tf32 else IN_FLOAT32)
    try:
        out = empty(c.shape, c.dtype) if accumulate else c
        xp.matmul(a.T if ta else a, b.T if tb else b, out=out)
    finally:
        precisions.set_compute_type(c.dtype, before)
    if accumulate:
        c += out
    if biased or activation:                           # c = activation(c + bias): no sum is left
        launch("gemm.naive", blocks_for(m * n, 256), 256, a, b, c, False, False, bias, activation,
               biased, True, m, n, 0)
