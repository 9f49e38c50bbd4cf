"""Which kernel computes a convolution, by its shape.

    use_convolution("patches")         # from now on or in a with block

On the CPU: the product of patches (``conv2d.py``), or fewer products (``winograd.py``) where there
are channels enough to pay for its transforms. On the GPU: the implicit product, and its tile.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from ..context import Setting, Switch
from ..errors import unknown
from .cuda import blocks_for, launch
from .gemm_chooser import allow_tf32, has_tensor_cores
from .minimal_filter import count_lanes

CONVOLUTIONS = ("auto", "patches", "winograd", "implicit_gemm", "tensor_core", "naive")
# Winograd's transforms pay if they save so many multiply-adds for each number of the images (times
# the taps: patches of many are dear) and of the filters. Measured on two cores, 1 to 512 channels.
FOR_IMAGES, FOR_FILTERS = 80, 3000


class use_convolution(Setting):
    """Choose how convolutions are computed, from now on or in a ``with`` block.

    On the CPU "patches" or "winograd"; on the GPU "implicit_gemm", "tensor_core" (TF32, for float32
    alone, and channels that are multiples of four, more than four of the result; else it is the
    former) or "naive", the definition. "auto" chooses by shape, TF32 only where ``allow_tf32`` is
    on. A name that the backend in force does not have means "auto" there, and "winograd" means
    "patches" for filters that ``winograd.py`` cannot do. The NumPy backend is always the
    definition. UserError for another name.
    """

    switch = Switch("convolution", "auto")

    def __init__(self, name):
        if name not in CONVOLUTIONS:
            raise unknown("convolution", name, CONVOLUTIONS)
        super().__init__(name)


convolution = use_convolution.switch.get               # the kernel of convolutions in force


# --- on the CPU ----------------------------------------------------------------------------------

def by_winograd(x, y, kernel, stride, dilation):
    """Whether the convolution from a shape x (N, H, W, C) to y (N, OH, OW, O), or one of its
    gradients, takes the kernels of ``winograd.py``."""
    return decided(convolution(), x, y, kernel, stride, dilation)


@functools.lru_cache(maxsize=1024)
def decided(name, x, y, kernel, stride, dilation):
    """The same for the choice ``name``; shapes come again in every step."""
    taps = [k // s for k, s in zip(kernel, stride, strict=True)]
    whole = all(r in (2, 3) and r * s == k for r, k, s in zip(taps, kernel, stride, strict=True))
    if name == "patches" or not whole or dilation != (1, 1) or min(*x, *y) < 1:
        return False
    if name == "winograd":
        return True
    depth, width = x[3] * math.prod(stride), y[3]
    lanes = math.prod(map(count_lanes, y[1:3], taps))
    saved = x[0] * (math.prod(y[1:3]) * math.prod(taps) - lanes) * depth * width
    return saved > (FOR_IMAGES * x[0] * lanes * (depth + width) / math.prod(taps)
                    + FOR_FILTERS * depth * width)


# --- on the GPU: which tile ----------------------------------------------------------------------

PROCESSORS = 132       # that tiles are chosen for: one number, so that all GPUs make the same bits
LEAST_SLABS = 4        # of a reduction, that are worth a block of their own


class Tile(NamedTuple):
    """What a block computes (rows, columns), a thread of it (tm, tn), how many packs of sixteen
    bytes a slab of the reduction is deep, how the source is read (as the .cu file says), and which
    part of a GPU's rate the tile is thought to reach."""

    rows: int
    columns: int
    tm: int
    tn: int
    depth: int
    read: int
    rate: float


NUMBERS, PACKS, ONE_TAP = range(3)
THIN = 4               # channels of the result, for which there are tiles of four columns
TILES = [Tile(128, 128, 8, 8, 4, ONE_TAP, 1.0), Tile(128, 64, 8, 8, 4, ONE_TAP, 0.95),
         Tile(64, 64, 8, 8, 8, ONE_TAP, 0.85), Tile(64, 32, 8, 4, 8, ONE_TAP, 0.65),
         Tile(32, 32, 8, 4, 8, ONE_TAP, 0.6), Tile(64, 64, 8, 4, 8, PACKS, 0.6),
         Tile(32, 32, 8, 4, 8, PACKS, 0.5), Tile(64, 64, 8, 4, 4, NUMBERS, 0.4),
         Tile(32, 32, 8, 4, 8, NUMBERS, 0.3)]
THIN_TILES = [Tile(128, 4, 4, 4, 8, PACKS, 0.2), Tile(128, 4, 4, 4, 4, NUMBERS, 0.1)]
# The same on tensor cores: an entry's tm and tn are a warp's products of 16 × 8, down and across.
TENSOR_TILES = [Tile(128, 128, 4, 4, 4, ONE_TAP, 1.0), Tile(128, 64, 2, 4, 4, ONE_TAP, 0.8),
                Tile(64, 64, 2, 2, 8, ONE_TAP, 0.6), Tile(64, 64, 2, 2, 8, PACKS, 0.5)]
TENSOR_TILES_OF_W = [Tile(128, 128, 4, 4, 4, True, 1.0), Tile(64, 64, 2, 2, 8, True, 0.6)]
TILES_OF_W = [Tile(128, 128, 8, 8, 4, True, 1.0), Tile(64, 64, 8, 8, 8, True, 0.85),
              Tile(32, 32, 8, 4, 16, True, 0.6), Tile(64, 64, 8, 4, 4, False, 0.5),
              Tile(32, 32, 8, 4, 8, False, 0.4)]


def on_tensor_cores(x):
    """Whether an implicit product of x is to be computed in TF32."""
    wanted = convolution() == "tensor_core" or convolution() == "auto" and allow_tf32.switch.get()
    return wanted and x.dtype == np.float32 and has_tensor_cores()


def shares_of_w(x, dw, positions):
    """For a gradient of filters, a sum over so many positions: the kernel, its tile, how many tiles
    cover dw, how many blocks share a sum, and how many slabs of it each takes."""
    even = x.shape[3] % pack(x) == 0 and dw.shape[1] % pack(x) == 0
    tensor = even and on_tensor_cores(x)
    tile = quickest([t for t in (TENSOR_TILES_OF_W if tensor else TILES_OF_W) if t.read == even],
                    *dw.shape, 1)
    blocks = blocks_of(tile, *dw.shape)
    slabs = blocks_for(positions, tile.depth * pack(x))
    of_a_share = max(LEAST_SLABS, blocks_for(slabs, max(1, 2 * PROCESSORS // max(1, blocks))))
    return ("tensor_core" if tensor else "implicit_gemm", tile, blocks,
            max(1, blocks_for(slabs, of_a_share)), of_a_share)


def gathered(arguments, transposed, sizes, rows, phases):
    """The implicit product, forwards or transposed: so many phases, each of so many pixels."""
    source, result = arguments[0], arguments[-1]
    channels, columns = sizes[2], sizes[5]

    def fits(tile):
        if tile.read == ONE_TAP:
            return channels % (tile.depth * pack(source)) == 0 and columns % pack(source) == 0
        return tile.read == NUMBERS or channels % pack(source) == 0
    thin = columns <= THIN                             # tensor cores compute eight columns or more
    tensor = not thin and on_tensor_cores(source) and channels % pack(source) == 0
    tiles = THIN_TILES if thin else TENSOR_TILES if tensor else TILES
    tile = quickest([t for t in tiles if fits(t)], rows, columns, PROCESSORS / math.prod(phases))
    launch(f"conv2d.{'tensor_core' if tensor else 'implicit_gemm'}",
           (blocks_of(tile, rows, columns), *phases), 256, *arguments, transposed,
           len(result) * sizes[3] * sizes[4], *sizes, constants=tile[:6])


def quickest(tiles, rows, columns, processors):
    """The tile with which the processor that has most to do is done first."""
    def time(tile):
        blocks = math.ceil(blocks_of(tile, rows, columns) / processors)
        return blocks * tile.rows * tile.columns / tile.rate
    return min(tiles, key=time)


def blocks_of(tile, rows, columns):
    """How many tiles cover a result."""
    return blocks_for(rows, tile.rows) * blocks_for(columns, tile.columns)


def pack(x):
    """How many numbers sixteen bytes are."""
    return 16 // x.dtype.itemsize
