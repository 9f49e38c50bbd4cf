"""Selects the kernel of gemm.cu or wgmma.cu for a matrix product on the GPU, by its shape.
``gemm_explain.py`` describes the choice for a shape.

    use_gemm("tiled")                  # from now on, or in a with block
    allow_tf32(True)                   # tensor cores; float32 products keep 24 bits otherwise

A GPU with 132 multiprocessors needs at least 132 blocks. A large product has them with tiles of
128 × 128, which read shared memory least; a smaller product takes smaller tiles. If these are still
too few, each sum is split over several blocks (split-k): the rung "split". Large products in TF32
take "wgmma" on a GPU that has it.
"""

import functools
from typing import NamedTuple

import numpy as np

from ..context import Setting, Switch
from ..errors import UserError, unknown
from .cuda import device

BLAS = "blas"                                          # on the CPU; the others on a GPU
RUNGS = ("naive", "tiled", "register_tiled", "split", "tensor_core", "wgmma", "cublas")
# By precision. tiles: rows, columns, and the least number of blocks for which the tile is used.
# A sum is split into up to ``most`` parts of at least ``share`` terms, until there are ``blocks``
# blocks. float32 and tf32: from a sweep over tiles and splits on an H200 (``benchmarks.gpu``, part
# kernels); for the longest sums of the small networks, adding the partial sums costs as much as
# another halving gains. The float64 values are estimates, not measured.
TABLE = {
    "float32": {"tiles": [[128, 128, 200], [64, 64, 100], [32, 32, 0]],
                "blocks": 132, "share": 64, "most": 16},
    "float64": {"tiles": [[64, 64, 120], [32, 32, 0]], "blocks": 132, "share": 64, "most": 16},
    "tf32": {"tiles": [[128, 128, 120], [64, 64, 0]], "blocks": 264, "share": 64, "most": 16},
}
# (rows, columns) of a tile: the template's constants in gemm.cu
REGISTER_TILES = {(128, 128): (128, 128, 16, 8), (64, 64): (64, 64, 16, 4),
                  (32, 32): (32, 32, 32, 4)}
TENSOR_TILES = {(128, 128): (4, 8, 2, 2), (64, 64): (2, 4, 2, 2)}
WARPGROUP_TILES = {(128, 256): (256, 4), (128, 128): (128, 6)}    # columns, stages
WIDER = 1.34            # the time of two tiles of 128 columns over that of one of 256 (on an H200)
TENSOR_CORES = 80                                      # the least compute capability with TF32
# The least multiply-adds, or tiles of 64 × 64, for which "auto" uses TF32 if it is allowed. Smaller
# products are faster in float32 (measured on an H200), and more accurate.
WORTH_MULTIPLY_ADDS, WORTH_TILES = 1 << 27, 132
PROCESSORS = 132                                       # of an H100 or H200, for the choice of tiles
# The least terms of a sum and tiles of 128 × 128 for which "auto" takes wgmma, which packs its
# factors first, instead of tensor_core.
WORTH_TERMS, WORTH_WARPGROUPS = 512, 64
WARPGROUPS = 90                                        # the only compute capability with wgmma


class Choice(NamedTuple):
    """A kernel, its tile (rows, columns), the blocks per sum, and the number of all blocks."""

    rung: str
    tile: tuple
    split: int
    blocks: int


class use_gemm(Setting):
    """Use the kernel ``name`` for matrix products on the GPU: "naive", "tiled", "register_tiled",
    "split", "tensor_core" (TF32), "wgmma" (TF32, on Hopper), "cublas", or "auto", by shape.
    ``tile`` (rows, columns) and ``split`` (blocks per sum) replace the table's values. A captured
    step keeps its kernels.

    On the CPU "blas": products of matrices and of dense layers by NumPy's BLAS. Convolutions, and
    every other name, use the product of ``gemm_blocks.py``. The bits then depend on the BLAS.
    """

    switch = Switch("gemm", ("auto", None, None))

    def __init__(self, name: str, tile: tuple[int, int] | None = None, split: int | None = None):
        if name not in (*RUNGS, BLAS, "auto"):
            raise unknown("gemm", name, (*RUNGS, BLAS, "auto"))
        tiles = {"tensor_core": TENSOR_TILES, "wgmma": WARPGROUP_TILES}.get(name, REGISTER_TILES)
        if tile is not None and tuple(tile) not in tiles:
            raise unknown("tile", tuple(tile), tiles)
        if split is not None and not 1 <= split <= 1024:
            raise UserError(f"gemm: split {split}: expected 1 to 1024 shares of a sum")
        if name == "wgmma" and split not in (None, 1):
            raise UserError("gemm 'wgmma' does not split sums: leave split out, or use gemm "
                            "'tensor_core'")
        super().__init__((name, tile and tuple(tile), split))


class allow_tf32(Setting):
    """Whether float32 products and convolutions may round their factors to TF32 (ten bits of
    mantissa) and use tensor cores; also applies to ``use_gemm("cublas")``. Off by default. Never
    applies to float64, nor to products too small to gain.
    """

    switch = Switch("allow_tf32", False)

    def __init__(self, allowed: bool):
        super().__init__(bool(allowed))


def uses_blas():
    """Whether products on the CPU are NumPy's."""
    return use_gemm.switch.get()[0] == BLAS


def choose(m, n, k, dtype, ta=False, tb=False):
    """The Choice for c (m, n) = a b with sums of k terms, by the table or by ``use_gemm``."""
    dtype = np.dtype(dtype).name
    name, tile, split = use_gemm.switch.get()
    if name == "auto":
        packed = (m if ta else k) % 4 == 0 and (k if tb else n) % 4 == 0
        worth = m * n * k > WORTH_MULTIPLY_ADDS or count_tiles(m, n, (64, 64)) >= WORTH_TILES
        if (allow_tf32.switch.get() and dtype == "float32" and packed and worth
                and has_tensor_cores()):
            name = "wgmma" if has_warpgroups() and k >= WORTH_TERMS and (
                count_tiles(m, n, (128, 128)) >= WORTH_WARPGROUPS) else "tensor_core"
    elif name == BLAS:
        raise UserError("gemm 'blas' is for the CPU: use gemm 'auto' or 'cublas' on a GPU")
    elif name in ("tensor_core", "wgmma"):
        if dtype != "float32":
            raise UserError(f"gemm {name!r} is for float32, and this product is {dtype}: "
                            "use float32, or gemm 'auto'")
        if name == "wgmma" and not has_warpgroups():
            raise UserError("gemm 'wgmma' needs a GPU of compute capability 9.0 (Hopper): use gemm "
                            "'auto'")
        if not has_tensor_cores():
            raise UserError("gemm 'tensor_core' needs a GPU of compute capability "
                            f"{TENSOR_CORES / 10} or more: use gemm 'auto'")
    tf32 = name in ("tensor_core", "wgmma")
    return cached_choice(m, n, k, "tf32" if tf32 else dtype, name, tile, split)


def has_tensor_cores():
    return device().capability >= TENSOR_CORES


def has_warpgroups():
    return device().capability == WARPGROUPS


@functools.lru_cache(maxsize=4096)
def cached_choice(m, n, k, precision, name, tile, split):
    """The Choice, a function of its arguments only."""
    if name == "naive":
        return Choice(name, (1, 1), 1, -(-m * n // 256))
    if name == "tiled":
        return Choice(name, (16, 16), 1, count_tiles(m, n, (16, 16)))
    if name == "cublas":
        return Choice(name, (0, 0), 1, 0)
    if name == "wgmma":
        tile = tile or min(WARPGROUP_TILES, key=lambda t: warpgroup_time(m, n, t))
        return Choice(name, tile, 1, count_tiles(m, n, tile))
    table = TABLE[precision]
    smallest = table["tiles"][-1]
    tile = tile or next(
        (rows, columns) for rows, columns, least in
        ([smallest] if name == "split" else table["tiles"])
        if [rows, columns, least] == smallest or (
            min(m / rows, n / columns) > 0.5 and count_tiles(m, n, (rows, columns)) >= least))
    blocks = count_tiles(m, n, tile)
    if split is None and name != "register_tiled":
        split = min(table["blocks"] // max(1, blocks), k // table["share"], table["most"])
        split = max(split, 2 if name == "split" else 1)
    if name == "auto":
        name = "split" if split > 1 else "register_tiled"
    return Choice(name, tile, split or 1, blocks * (split or 1))


def warpgroup_time(m, n, tile):
    """The time of wgmma in units of one tile's column: blocks run in waves of one per processor."""
    waves = -(-count_tiles(m, n, tile) // PROCESSORS)
    return waves * tile[1] * (WIDER if tile[1] == 128 else 1)


def count_tiles(m, n, tile):
    """The number of tiles of c (m, n)."""
    return -(-m // tile[0]) * -(-n // tile[1])
