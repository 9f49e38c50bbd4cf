"""The matrix product on the CPU around its innermost tile (``gemm_tile.py``): packing and blocks.

C = A B, A (M, K), B (K, N). The columns of B are divided into panels as wide as a tile. Panels are
packed: copied, so that a tile reads consecutive cache lines. As many panels are packed at once as
fit into half of a core's second-level cache. Then, for a few rows of A at a time, which stay in the
first-level cache, the tiles of all these panels are computed:

    for each SUM of the inner index            # the sum of a longer product is taken in parts
        for each block of panels of B          # packed row by row of B
            for each ROWS rows of A
                for each panel of the block
                    tile: C[rows, panel] = or += A[rows, :] B[:, panel]

Rows are cut into tiles of nearly equal height: 100 rows are four of 13 and four of 12, not seven of
14 and one of 2. At the right edge a tile is computed in a buffer, and its valid columns are copied.

Every number of C is a sum over p in one order: chains of fused multiply-adds of SUM numbers, added
one after the other. It depends neither on the blocks nor on how C is shared among threads, so all
of those can be chosen for speed, and the bits stay the same.
"""

import numpy as np

from .compiler import Linked, compiled
from .gemm_tile import FLOAT32, FLOAT64, NUMBERS, PARAMETERS, SYMBOLS

SUM = 1024                       # the inner index of one chain of multiply-adds; part of the result
CACHE = 384 << 10                # bytes of packed panels
WORTH_THREADS = 1 << 19          # multiply-adds from which on a product is shared among threads
# In multiply-adds of a tile: the cost of packing a number, of a plain and of a transposed matrix;
# and of writing a number into a row that another core writes to. LEAST: with fewer rows, a tile
# waits for its own results.
PACK, TRANSPOSE, SHARED, LEAST = 4, 10, 32, 4


def linked(name, dtype):
    """A function of ``gemm_tile.py``, for kernels."""
    parameters = PARAMETERS.get(name, ())
    return Linked(SYMBOLS[name, dtype], len(parameters), "void" if parameters else "int64")


tile32, pack32, panels32, copy32 = (linked(name, FLOAT32) for name in PARAMETERS)
tile64, pack64, panels64, copy64 = (linked(name, FLOAT64) for name in PARAMETERS)
rows32, columns32 = (linked(name, FLOAT32) for name in NUMBERS)
rows64, columns64 = (linked(name, FLOAT64) for name in NUMBERS)


@compiled
def tile(size, rows, a, a_row, a_step, b, b_step, k, c, c_row, add):
    if size == 4:
        tile32(rows, a, a_row, a_step, b, b_step, k, c, c_row, add)
    else:
        tile64(rows, a, a_row, a_step, b, b_step, k, c, c_row, add)


@compiled
def pack(size, b, b_step, b_column, packed, k, columns):
    if size == 4:
        pack32(b, b_step, b_column, packed, k, columns)
    else:
        pack64(b, b_step, b_column, packed, k, columns)


@compiled
def pack_panels(size, b, b_step, packed, k, panels):
    if size == 4:
        panels32(b, b_step, packed, k, panels)
    else:
        panels64(b, b_step, packed, k, panels)


@compiled
def multiply(size, a, a_row, a_step, b, b_step, b_column, c, c_row, c_column, m, n, k, add):
    """C (m, n) = A B, or C += A B with ``add``: addresses, and steps between rows and columns in
    numbers of ``size`` bytes. One of ``b_step`` and ``b_column`` is 1."""
    if m == 0 or n == 0:
        return
    rows, width = (rows32(), columns32()) if size == 4 else (rows64(), columns64())
    tiles = (m + rows - 1) // rows
    long = max(1, min(k, SUM))
    panels = max(1, min(CACHE // (long * width * size), (n + width - 1) // width))
    direct = b_column == 1 and tiles == 1 and size * k * n <= CACHE        # packing costs more
    work = np.empty(size * (rows * width + panels * width * long) + 64, np.uint8)
    edge = (work.ctypes.data + 63) // 64 * 64
    packed = edge + size * rows * width
    for p in range(0, max(k, 1), SUM):
        length, more = min(SUM, k - p), 1 if add or p > 0 else 0
        for left in range(0, n, panels * width):
            right, top = min(n, left + panels * width), 0
            if b_column == 1 and not direct:
                pack_panels(size, b + size * (p * b_step + left), b_step, packed, length,
                            (right - left) // width)
            for t in range(tiles):
                height = (m - top + tiles - t - 1) // (tiles - t)
                for j in range(left, right, width):
                    columns = min(width, right - j)
                    source, step = packed + size * (j - left) * length, width
                    start = b + size * (p * b_step + j * b_column)
                    if t == 0 and (b_column != 1 or columns < width):
                        pack(size, start, b_step, b_column, source, length, columns)
                    elif direct:
                        source, step = start, b_step
                    one_tile(size, height, columns, a + size * (top * a_row + p * a_step), a_row,
                             a_step, source, step, length, c + size * (top * c_row + j * c_column),
                             c_row, c_column, edge, more)
                top += height


@compiled
def one_tile(size, rows, columns, a, a_row, a_step, b, b_step, k, c, c_row, c_column, edge, add):
    """One tile of C: computed in place, or at the right edge, and in a transposed C, in the buffer
    ``edge``."""
    width = columns32() if size == 4 else columns64()
    if columns == width and c_column == 1:
        tile(size, rows, a, a_row, a_step, b, b_step, k, c, c_row, add)
    else:
        tile(size, rows, a, a_row, a_step, b, b_step, k, edge, width, 0)
        if size == 4:
            copy32(edge, c, c_row, c_column, rows, columns, add)
        else:
            copy64(edge, c, c_row, c_column, rows, columns, add)


@compiled
def gemm(a, b, c, ta, tb, add):
    """c (M, N) = a b, or c += a b with ``add``, on the calling thread.

    a (M, K), or its transpose with ``ta``; b (K, N), or its transpose with ``tb``. Rows are
    contiguous; they may lie further apart than they are long.
    """
    size, (m, n) = c.itemsize, c.shape
    k = a.shape[0] if ta else a.shape[1]
    a_row, b_row, c_row = a.strides[0] // size, b.strides[0] // size, c.strides[0] // size
    a_row, a_step = (1, a_row) if ta else (a_row, 1)
    b_step, b_column = (1, b_row) if tb else (b_row, 1)
    more = 1 if add else 0
    first, second, c_column = a.ctypes.data, b.ctypes.data, 1
    if n < m and work(n, m, a_row != 1, size) < work(m, n, tb, size):      # Cᵀ = Bᵀ Aᵀ
        first, second, c_row, c_column, m, n = second, first, c_column, c_row, n, m
        a_row, a_step, b_step, b_column = b_column, b_step, a_step, a_row
    multiply(size, first, a_row, a_step, second, b_step, b_column, c.ctypes.data, c_row, c_column,
             m, n, k, more)


@compiled
def work(m, n, transposed, size):
    """The multiply-adds that C (m, n) costs for each p, unused columns of tiles included."""
    width = columns32() if size == 4 else columns64()
    return (n + width - 1) // width * width * (max(m, LEAST) + (TRANSPOSE if transposed else PACK))


@compiled
def shares(m, n, k, size, threads):
    """(parts of the rows, parts of the columns) in which C (m, n) is shared among threads.

    Each thread packs the columns of B that it needs: parts of the rows repeat that, parts of the
    columns do not. But two cores that write into the same rows of C slow each other down, which a
    short sum does not hide. Of the two, the cheaper, in multiply-adds for each p.
    """
    if m * n * k < WORTH_THREADS:
        return 1, 1
    rows, width = (rows32(), columns32()) if size == 4 else (rows64(), columns64())
    tiles, panels = (m + rows - 1) // rows, (n + width - 1) // width
    least, found = -1.0, (1, 1)
    for down in range(1, threads + 1):
        if threads % down == 0:
            across = threads // down
            height = min(m, (tiles + down - 1) // down * rows)
            wide = (panels + across - 1) // across * width
            cost = wide * (height + PACK) + (SHARED * height * wide / k if across > 1 else 0.0)
            if least < 0 or cost < least:
                least, found = cost, (down, across)
    return found


@compiled
def share(t, down, across, m, n, size):
    """Part t of C (m, n): top, bottom, left, right; cut at multiples of a panel's width."""
    width = columns32() if size == 4 else columns64()
    panels, i, j = (n + width - 1) // width, t // across, t % across
    return (m * i // down, m * (i + 1) // down,
            min(n, panels * j // across * width), min(n, panels * (j + 1) // across * width))


@compiled
def gemm_share(t, down, across, a, b, c, ta, tb, add):
    """Part t of c = a b or c += a b."""
    top, bottom, left, right = share(t, down, across, c.shape[0], c.shape[1], c.itemsize)
    if top < bottom and left < right:
        gemm(a[:, top:bottom] if ta else a[top:bottom], b[left:right] if tb else b[:, left:right],
             c[top:bottom, left:right], ta, tb, add)
