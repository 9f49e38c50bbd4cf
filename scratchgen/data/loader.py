"""Batches of images: shuffled, scaled to [0, 1], binarised; a pure function of seed and epoch.

Points (N, D) are only shuffled.
"""

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Literal

import numpy as np

from ..engine.backend import on_the_cpu
from ..engine.memory import native
from ..engine.random import WORDS_A_BLOCK, Stream
from ..errors import UserError, unknown
from .images import check_pair
from .points import are_points, check_points

Binarization = Literal["none", "threshold", "static", "dynamic"]
BINARIZATIONS: tuple[Binarization, ...] = ("none", "threshold", "static", "dynamic")
STATIC_CHUNK = 1024  # images per draw of the static binarisation; limits its memory


def scale(images):
    """uint8 images as float32 in [0, 1]: v/255. Float32 images are returned unchanged.

    A division, not a multiplication by float32(1/255): both map 255 to exactly 1.0, but the product
    is wrong by one unit in the last place for 126 of the 256 grey values, while the quotient is the
    float32 nearest to v/255 for all of them, and takes the same time.
    """
    if images.dtype == np.float32:
        return images
    return np.divide(images, np.float32(255), dtype=np.float32)


def binarize(x: np.ndarray, how: Binarization, stream: Stream | None = None) -> np.ndarray:
    """Binarised images: zeros and ones, with the shape and dtype of x, floats in [0, 1].

    ``how``: "none" returns x; "threshold" returns x > 0.5; "static" and "dynamic" draw each pixel
    from Bernoulli(x) with the random numbers of ``stream``. These two differ only in when a Loader
    draws: once for each image, or again in every epoch (Burda et al. 2016, section 5).
    Raises UserError for another ``how``, for a missing stream and for other dtypes.
    """
    if how not in BINARIZATIONS:
        raise unknown("binarisation", how, BINARIZATIONS)
    if how == "none":
        return x
    if isinstance(x, np.ndarray):
        x = native(x, "binarize")
    if x.dtype not in (np.float32, np.float64):
        raise UserError(f"binarize got images of dtype {x.dtype}: expected float32 or float64 in "
                        "[0, 1]; divide uint8 images by 255")
    if how == "threshold":
        return (x > 0.5).astype(x.dtype)
    if stream is None:
        raise UserError(f"binarisation {how!r} draws random numbers: pass a stream")
    # u lies in [0, 1), so a pixel of 0 never becomes 1 and a pixel of 1 always does.
    with on_the_cpu():
        return (_uniform_by_image(stream, x.shape) < x).astype(x.dtype)


def _uniform_by_image(stream, shape):
    """Uniform numbers (N, …); those of each image begin with a new block of the stream.

    The counter of a stream counts blocks, so the numbers of an image do not depend on the batch
    size.
    """
    draws = WORDS_A_BLOCK * _blocks_per_image(shape)
    return stream.uniform((shape[0], draws))[:, : math.prod(shape[1:])].reshape(shape)


def _blocks_per_image(shape):
    """The number of blocks of a stream for one image of a batch of this shape."""
    return -(-math.prod(shape[1:]) // WORDS_A_BLOCK)


class Loader:
    """Batches of images or points; order and random numbers depend only on (seed, epoch).

    images (N, H, W, C), uint8 or float32 in [0, 1], or points (N, D), float32, which are neither
    scaled nor binarised; labels int (N,); ``batch_size`` images per batch, fewer in the last one
    unless ``drop_last``; ``binarize`` as in the function of that name. Raises UserError for values
    out of range and arrays whose shapes do not match.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int,
        shuffle: bool = True, drop_last: bool = False, binarize: Binarization = "none",
    ):
        points = are_points(images)
        (check_points if points else check_pair)(images, labels, "loader")
        if binarize not in BINARIZATIONS:
            raise unknown("binarisation", binarize, BINARIZATIONS)
        if points and binarize != "none":
            raise UserError(f"binarize is {binarize!r} and the data are points: expected 'none', "
                            "as only images can be binarised")
        batch_size = _whole("batch_size", batch_size, at_least=1)
        if drop_last and batch_size > len(images):
            raise UserError(
                f"batch_size is {batch_size} and there are {len(images)} images: with drop_last "
                "there would be no batch; expected at most the number of images"
            )
        Stream(seed, "shuffle/0")  # raises UserError for a bad seed now, not at the first batch
        self.images, self.labels = np.asarray(images), np.asarray(labels)
        self.batch_size, self.seed = batch_size, seed
        self.shuffle, self.drop_last, self.binarize = shuffle, drop_last, binarize
        if binarize == "static":
            self.images = _binarize_static(self.images, seed)

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches that ``batches(epoch)`` yields."""
        whole, rest = divmod(len(self.images), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def sizes(self) -> list[int]:
        """The number of images in each batch of an epoch."""
        n, size = len(self.images), self.batch_size
        return [min(size, n - size * i) for i in range(self.batches_per_epoch)]

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the images in the order of ``epoch``, int64 (N,)."""
        epoch = _whole("epoch", epoch, at_least=0)
        if not self.shuffle:
            return np.arange(len(self.images))
        with on_the_cpu():
            return Stream(self.seed, f"shuffle/{epoch}").permutation(len(self.images))

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (x, labels): float32 (B, H, W, C) in [0, 1] and (B,), from batch ``start`` on.

        Points are (B, D). The values depend only on the epoch and the batch: a run that was
        interrupted after ``start`` batches resumes with the remaining ones. Each x is a new array.
        """
        order = self.order(epoch)
        start = _whole("start", start, at_least=0)
        if start > self.batches_per_epoch:
            raise UserError(
                f"start is {start}: expected at most the {self.batches_per_epoch} batches of "
                "an epoch"
            )
        return self._batches(order, epoch, start)

    def _batches(self, order, epoch, start):
        for number in range(start, self.batches_per_epoch):
            first = number * self.batch_size
            chosen = order[first : first + self.batch_size]
            x = scale(self.images[chosen])
            if self.binarize == "threshold":
                x = binarize(x, "threshold")
            elif self.binarize == "dynamic":
                counter = first * _blocks_per_image(x.shape)
                x = binarize(x, "dynamic", Stream(self.seed, f"binarize/{epoch}", counter))
            yield x, self.labels[chosen]


def _binarize_static(images, seed):
    """uint8 images of 0 and 255, drawn with random numbers from ``seed`` and the image's index."""
    binary = np.empty(images.shape, np.uint8)
    stream = Stream(seed, "binarize/static")
    for first in range(0, len(images), STATIC_CHUNK):
        chunk = slice(first, first + STATIC_CHUNK)
        binary[chunk] = 255 * binarize(scale(images[chunk]), "static", stream)
    return binary


def _whole(name, value, at_least):
    """``value`` as an int; UserError unless it is an integer of at least ``at_least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name} is {value!r}: expected a whole number, {at_least} or more")
    return int(value)
