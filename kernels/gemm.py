"""The matrix product over all threads (``gemm_blocks.py``, ``gemm_tile.py``), and on a GPU.

With ``ta`` the first factor is given transposed, with ``tb`` the second.
"""

import functools

import numpy as np

from ..errors import UserError
from .compiler import compiled, prange, thread_count
from .cuda import blocks_for, device, empty, launch
from .gemm_blocks import WORTH_THREADS, gemm, gemm_share, shares
from .gemm_chooser import (
    REGISTER_TILES,
    TENSOR_TILES,
    WARPGROUP_TILES,
    allow_tf32,
    choose,
    count_tiles,
)

TICKETS = 1 << 16                # the most tiles for which a product is split over blocks of a GPU
IN_FLOAT32, IN_TF32 = 1, 7       # CuPy's numbers for the two precisions of cuBLAS


def worth_threads(a, b, c, ta, tb):
    """Whether a product has enough multiply-adds to be shared among threads."""
    return c.size * (a.shape[0] if ta else a.shape[1]) >= WORTH_THREADS


# --- matmul(a, b, c, ta, tb): c = a b;  matmul_add(a, b, c, ta, tb): c += a b --------------------

def matmul_numpy(a, b, c, ta, tb):
    """c (M, N); a (M, K), or its transpose with ``ta``; b (K, N), or its transpose with ``tb``."""
    np.matmul(a.T if ta else a, b.T if tb else b, out=c)


def matmul_add_numpy(a, b, c, ta, tb):
    """Adds the second gradient of a matrix that is used twice."""
    c += (a.T if ta else a) @ (b.T if tb else b)


@compiled(parallel=True, worth_threads=worth_threads)
def matmul_numba(a, b, c, ta, tb):
    m, n = c.shape
    down, across = shares(m, n, a.shape[0] if ta else a.shape[1], c.itemsize, thread_count())
    for t in prange(down * across):                    # each iteration owns a block of c
        gemm_share(np.int64(t), down, across, a, b, c, np.int64(ta), np.int64(tb), np.int64(0))


def matmul_cuda(a, b, c, ta, tb):
    product(a, b, c, ta, tb)


@compiled(parallel=True, worth_threads=worth_threads)
def matmul_add_numba(a, b, c, ta, tb):
    m, n = c.shape
    down, across = shares(m, n, a.shape[0] if ta else a.shape[1], c.itemsize, thread_count())
    for t in prange(down * across):                    # each iteration owns a block of c
        gemm_share(np.int64(t), down, across, a, b, c, np.int64(ta), np.int64(tb), np.int64(1))


def matmul_add_cuda(a, b, c, ta, tb):
    product(a, b, c, ta, tb, accumulate=True)


# --- matmul_each(a, b, c, ta, tb): c[i] = a[i] b[i] for a batch of matrices ----------------------

def matmul_each_numpy(a, b, c, ta, tb):
    """c (Z, M, N); a (Z, M, K), or of transposed matrices with ``ta``; b (Z, K, N), or with ``tb``.
    """
    np.matmul(a.swapaxes(1, 2) if ta else a, b.swapaxes(1, 2) if tb else b, out=c)


@compiled(parallel=True)
def matmul_each_numba(a, b, c, ta, tb):
    for i in prange(len(c)):                           # each iteration owns a matrix of c
        gemm(a[i], b[i], c[i], np.int64(ta), np.int64(tb), np.int64(0))


def matmul_each_cuda(a, b, c, ta, tb):
    for matrices in zip(a, b, c, strict=True):
        product(*matrices, ta, tb)


# --- on a GPU: c = activation(a b + bias), in one launch -----------------------------------------

def product(a, b, c, ta, tb, bias=None, activation=0, accumulate=False):
    """c (M, N) = activation(a b + bias), or activation(c + a b + bias) to ``accumulate``.

    a (M, K), b (K, N) or their transposes, bias (N,) or none; ``activation`` as in dense.py.
    ``choose`` selects the kernel. c must not overlap a or b.
    """
    m, n = c.shape
    k = a.shape[0] if ta else a.shape[1]
    rung, tile, split, blocks = choose(m, n, k, c.dtype, ta, tb)
    epilogue = (c if bias is None else bias, activation, bias is not None, accumulate, m, n)
    if rung == "cublas":
        cublas_product(a, b, c, ta, tb, epilogue)
    elif rung == "naive":
        launch("gemm.naive", blocks, 256, a, b, c, ta, tb, *epilogue, k)
    elif rung == "tiled":
        launch("gemm.tiled", (blocks_for(m, 16), blocks_for(n, 16)), (16, 16), a, b, c, ta, tb,
               *epilogue, k)
    elif rung == "wgmma":
        columns, stages = WARPGROUP_TILES[tile]
        launch("wgmma.product", blocks, 256, packed(a, m, k, not ta), packed(b, n, k, tb), c,
               *epilogue, k, constants=(columns, stages),
               shared=stages * (128 + columns) * 128 + 1024)
    else:
        tiles = count_tiles(m, n, tile)
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


def packed(x, rows, length, along):
    """A factor in the tiles of ``wgmma.cu``, 128 rows × 32 terms, an even number of them along the
    rows; x (rows, length), or (length, rows) if not ``along``."""
    steps, tiles = -(-length // 32), -(-rows // 256) * 2
    tiles_of_rows = empty((tiles, steps, 128, 32), x.dtype)
    launch("wgmma.pack", tiles * steps, 256, x, tiles_of_rows, rows, length,
           constants=(int(along),))
    return tiles_of_rows


@functools.lru_cache(maxsize=8)
def tickets(gpu):
    """For each tile a counter of the blocks that have finished it; every launch leaves zeros.

    All products use the same counters, so two must not run on two streams at once.
    """
    return gpu.xp.zeros(TICKETS, np.uint32)


def cublas_product(a, b, c, ta, tb, epilogue):
    """The product by NVIDIA's cuBLAS, then bias and activation in a second launch.

    In full float32, whatever the value of CUPY_TF32, unless ``allow_tf32`` is on. UserError inside
    a capture, where CuPy cannot call cuBLAS.
    """
    if device().is_capturing():
        raise UserError("gemm 'cublas' cannot be captured, because CuPy cannot call cuBLAS on a "
                        "capturing stream: use gemm 'auto', or run the step without a capture")
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
