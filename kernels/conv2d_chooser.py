"""Selects the kernel that computes a convolution, by its shape.

    use_convolution("patches")         # from now on or in a with block

On the CPU: the product of patches (``conv2d.py``), or Winograd convolution (``winograd.py``) if
there are enough channels to pay for its transforms. On the GPU: implicit GEMM, and its tile.
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
# Winograd convolution pays if it saves so many multiply-adds per transformed number of the images
# (divided by the taps: patches of many taps cost more) and of the filters. Measured on two cores
# with 1 to 512 channels.
FOR_IMAGES, FOR_FILTERS = 80, 3000


class use_convolution(Setting):
    """Choose how convolutions are computed, from now on or in a ``with`` block.

    On the CPU "patches" or "winograd"; on the GPU "implicit_gemm", "tensor_core" (TF32: float32
    only, the channels a multiple of four and more than four of the result, otherwise
    "implicit_gemm") or "naive", the definition. "auto" chooses by shape, TF32 only if
    ``allow_tf32`` is on. A name that the current backend does not have means "auto" there, and
    "winograd" means "patches" for filters that ``winograd.py`` does not support. The NumPy backend
    always computes the definition. UserError for another name.
    """

    switch = Switch("convolution", "auto")

    def __init__(self, name: str):
        if name not in CONVOLUTIONS:
            raise unknown("convolution", name, CONVOLUTIONS)
        super().__init__(name)


convolution = use_convolution.switch.get               # the name that is currently set


# --- on the CPU ----------------------------------------------------------------------------------

def uses_winograd(x, y, kernel, stride, dilation):
    """Whether the convolution from a shape x (N, H, W, C) to y (N, OH, OW, O), or one of its
    gradients, is computed by ``winograd.py``."""
    return cached_uses_winograd(convolution(), x, y, kernel, stride, dilation)


@functools.lru_cache(maxsize=1024)
def cached_uses_winograd(name, x, y, kernel, stride, dilation):
    """The same for the choice ``name``; cached, because shapes repeat in every step."""
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

PROCESSORS = 132       # assumed for the choice of a tile; constant: all GPUs give the same bits
LEAST_SLABS = 4        # the fewest slabs of a reduction that one block computes


class Tile(NamedTuple):
    """The tile of a block (rows, columns) and of a thread (tm, tn), the depth of a slab of the
    reduction in packs of sixteen bytes, how the source is read (see conv2d.cu), and the estimated
    fraction of the GPU's peak rate."""

    rows: int
    columns: int
    tm: int
    tn: int
    depth: int
    read: int
    rate: float


NUMBERS, PACKS, ONE_TAP = range(3)
THIN = 4               # the most channels of a result for which tiles of four columns are used
TILES = [Tile(128, 128, 8, 8, 4, ONE_TAP, 1.0), Tile(128, 64, 8, 8, 4, ONE_TAP, 0.95),
         Tile(64, 64, 8, 8, 8, ONE_TAP, 0.85), Tile(64, 32, 8, 4, 8, ONE_TAP, 0.65),
         Tile(32, 32, 8, 4, 8, ONE_TAP, 0.6), Tile(64, 64, 8, 4, 8, PACKS, 0.6),
         Tile(32, 32, 8, 4, 8, PACKS, 0.5), Tile(64, 64, 8, 4, 4, NUMBERS, 0.4),
         Tile(32, 32, 8, 4, 8, NUMBERS, 0.3)]
THIN_TILES = [Tile(128, 4, 4, 4, 8, PACKS, 0.2), Tile(128, 4, 4, 4, 4, NUMBERS, 0.1)]
# On tensor cores, tm and tn are the numbers of a warp's products of 16 × 8, down and across.
TENSOR_TILES = [Tile(128, 128, 4, 4, 4, ONE_TAP, 1.0), Tile(128, 64, 2, 4, 4, ONE_TAP, 0.8),
                Tile(64, 64, 2, 2, 8, ONE_TAP, 0.6), Tile(64, 64, 2, 2, 8, PACKS, 0.5)]
TENSOR_TILES_OF_W = [Tile(128, 128, 4, 4, 4, True, 1.0), Tile(64, 64, 2, 2, 8, True, 0.6)]
TILES_OF_W = [Tile(128, 128, 8, 8, 4, True, 1.0), Tile(64, 64, 8, 8, 8, True, 0.85),
              Tile(32, 32, 8, 4, 16, True, 0.6), Tile(64, 64, 8, 4, 4, False, 0.5),
              Tile(32, 32, 8, 4, 8, False, 0.4)]


def on_tensor_cores(x):
    """Whether implicit GEMM of x uses TF32."""
    wanted = convolution() == "tensor_core" or convolution() == "auto" and allow_tf32.switch.get()
    return wanted and x.dtype == np.float32 and has_tensor_cores()


def plan_backward_w(x, dw, positions):
    """For the gradient of the filters, a sum over ``positions``: the kernel, its tile, the number
    of tiles of dw, the shares into which a sum is split over blocks, and the slabs per share."""
    even = x.shape[3] % pack_size(x) == 0 and dw.shape[1] % pack_size(x) == 0
    tensor = even and on_tensor_cores(x)
    tiles = TENSOR_TILES_OF_W if tensor else TILES_OF_W
    tile = fastest_tile([t for t in tiles if t.read == even], *dw.shape, 1)
    blocks = tiles_covering(tile, *dw.shape)
    slabs = blocks_for(positions, tile.depth * pack_size(x))
    slabs_per_share = max(LEAST_SLABS, blocks_for(slabs, max(1, 2 * PROCESSORS // max(1, blocks))))
    return ("tensor_core" if tensor else "implicit_gemm", tile, blocks,
            max(1, blocks_for(slabs, slabs_per_share)), slabs_per_share)


def launch_implicit_gemm(arguments, transposed, sizes, rows, phases):
    """Launch implicit GEMM, forward or ``transposed``, with ``rows`` pixels of y per phase."""
    source, result = arguments[0], arguments[-1]
    channels, columns, pack = sizes[2], sizes[5], pack_size(source)

    def fits(tile):
        if tile.read == ONE_TAP:
            return channels % (tile.depth * pack) == 0 and columns % pack == 0
        return tile.read == NUMBERS or channels % pack == 0
    thin = columns <= THIN                             # tensor cores compute eight columns or more
    tensor = not thin and on_tensor_cores(source) and channels % pack == 0
    tiles = THIN_TILES if thin else TENSOR_TILES if tensor else TILES
    processors = PROCESSORS / math.prod(phases)
    tile = fastest_tile([t for t in tiles if fits(t)], rows, columns, processors)
    launch(f"conv2d.{'tensor_core' if tensor else 'implicit_gemm'}",
           (tiles_covering(tile, rows, columns), *phases), 256, *arguments, transposed,
           len(result) * sizes[3] * sizes[4], *sizes, constants=tile[:6])


def fastest_tile(tiles, rows, columns, processors):
    """The tile with the least estimated time of the multiprocessor with the most blocks."""
    def time(tile):
        blocks = math.ceil(tiles_covering(tile, rows, columns) / processors)
        return blocks * tile.rows * tile.columns / tile.rate
    return min(tiles, key=time)


def tiles_covering(tile, rows, columns):
    """The number of tiles that cover a result."""
    return blocks_for(rows, tile.rows) * blocks_for(columns, tile.columns)


def pack_size(x):
    """How many numbers of x sixteen bytes hold."""
    return 16 // x.dtype.itemsize
