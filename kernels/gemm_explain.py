"""How a matrix product is computed, as one line of text: on the GPU the choice of
``gemm_chooser.py``, on the CPU those of ``gemm_blocks.py``.

    explain(100, 500, 784)             # kernel ("rung"), tile, split of the sum, blocks
    explain(100, 500, 784, device="cpu")
"""

import platform

import numpy as np

from . import gemm_blocks, gemm_tile
from .compiler import load_numba, processor
from .gemm_chooser import allow_tf32, choose, uses_blas


def explain(m, n, k, dtype="float32", ta=False, tb=False, device="cuda"):
    """How c (m, n) = a b with sums of k terms is computed, as one line of text.

    ``device``: "cuda" or "cpu". ``ta``, ``tb``: whether a factor is given transposed.
    """
    if device == "cpu":
        return explain_on_cpu(m, n, k, np.dtype(dtype), tb)
    rung, (rows, columns), split, blocks = choose(m, n, k, dtype, ta, tb)
    size = f"({m}, {k}) ({k}, {n}) {np.dtype(dtype).name}: {rung}"
    if rung == "cublas":
        return f"{size}{', TF32' if allow_tf32.switch.get() and dtype == 'float32' else ''}"
    return f"{size}, tile {rows} × {columns}, sums in {split}, {blocks} blocks"


def explain_on_cpu(m, n, k, dtype, tb):
    """One line for c (m, n) = a b with sums of k terms; ``tb``: b is given transposed."""
    size = f"({m}, {k}) ({k}, {n}) {dtype.name}"
    if uses_blas():
        return f"{size}: NumPy's BLAS"
    if min(m, n) < 1:
        return f"{size}: nothing to compute"
    numba = load_numba()
    unit = gemm_tile.unit_of(platform.machine(), processor(numba)[1])
    down, across = gemm_blocks.shares(m, n, k, dtype.itemsize, numba.get_num_threads())
    part_m, part_n = -(-m // down), -(-n // across)
    swapped = part_n < part_m and (gemm_blocks.work(part_n, part_m, False, dtype.itemsize)
                                   < gemm_blocks.work(part_m, part_n, tb, dtype.itemsize))
    rows, columns = (part_n, part_m) if swapped else (part_m, part_n)
    width = unit.columns(dtype.name)
    tiles, panels = -(-rows // unit.rows), -(-columns // width)
    heights = sorted({rows // tiles, -(-rows // tiles)})
    long = max(1, min(k, gemm_blocks.SUM))
    together = max(1, min(gemm_blocks.CACHE // (long * width * dtype.itemsize), panels))
    unused = 1 - rows * columns / (rows * panels * width)
    shared = ("one thread" if down * across == 1 else f"{across} threads share the columns"
              if down == 1 else f"{down} threads share the rows" if across == 1 else
              f"{down} × {across} threads share rows and columns")
    chains = max(1, -(-k // gemm_blocks.SUM))
    return (f"{size}: {unit.name}, {'as its transpose, ' * swapped}{shared}, each {tiles} × "
            f"{panels} tiles of {' or '.join(map(str, heights))} × {width} ({unused:.0%} unused); "
            f"{together} panels packed at a time{', transposed' * (tb != swapped)}; {chains} "
            f"chain{'s' * (chains > 1)} of fused multiply-adds per sum")
