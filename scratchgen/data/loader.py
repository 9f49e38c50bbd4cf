"""Batches of images: shuffled, scaled to [0, 1], binarised; a pure function of seed and epoch.

Points (N, D) come in batches too, as they are.
"""

import math
from numbers import Integral

import numpy as np

from ..engine.backend import on_the_cpu
from ..engine.memory import native
from ..engine.random import WORDS_A_BLOCK, Stream
from ..errors import UserError, unknown
from .images import check_pair
from .points import are_points, check_points

BINARIZATIONS = ("none", "threshold", "static", "dynamic")
STATIC_CHUNK = 1024  # images per draw of the static binarisation; bounds its memory


def scale(images):
    """uint8 images as float32 in [0, 1]: v/255; float32 ones, there already, as they are.

    A division, not a multiplication by float32(1/255): both turn 255 into exactly 1.0, but the
    product is off by one unit in the last place for 126 of the 256 grey values, the quotient is
    the float32 nearest to v/255 for all of them, and the time is the same.
    """
    if images.dtype == np.float32:
        return images
    return np.divide(images, np.float32(255), dtype=np.float32)


def binarize(x, how, stream=None):
    """Float images in [0, 1] as images of zeros and ones, same shape and dtype.

    ``how``: "none" leaves x as it is; "threshold" gives x > 0.5; "static" and "dynamic" draw each
    pixel from Bernoulli(x) with the numbers of ``stream``. These two differ only in when a loader
    draws: once for each image, or anew in every epoch (Burda et al. 2016, section 5).
    Raises UserError for another ``how``, for a missing stream and for images of other numbers.
    """
    if how not in BINARIZATIONS:
        raise unknown("binarisation", how, BINARIZATIONS)
    if how == "none":
        return x
    if isinstance(x, np.ndarray):
        x = native(x, "binarize")
    if x.dtype not in (np.float32, np.float64):
        raise UserError(f"binarize of dtype {x.dtype}: expected float32 or float64 images in "
                        "[0, 1]; divide uint8 images by 255")
    if how == "threshold":
        return (x > 0.5).astype(x.dtype)
    if stream is None:
        raise UserError(f"binarisation {how!r} draws random numbers: give it a stream")
    # u lies in [0, 1), so a pixel of 0 never becomes 1 and a pixel of 1 always does.
    with on_the_cpu():
        return (_uniform_by_image(stream, x.shape) < x).astype(x.dtype)


def _uniform_by_image(stream, shape):
    """Uniform numbers (N, …), each image's own ones beginning with a new block of the stream.

    The counter of a stream counts blocks, so the numbers of an image do not depend on how the
    images are cut into batches.
    """
    draws = WORDS_A_BLOCK * _blocks_per_image(shape)
    return stream.uniform((shape[0], draws))[:, : math.prod(shape[1:])].reshape(shape)


def _blocks_per_image(shape):
    """By how much the counter of a stream advances for one image of a batch of this shape."""
    return -(-math.prod(shape[1:]) // WORDS_A_BLOCK)


class Loader:
    """Batches of a set of images, in an order and with draws that depend on (seed, epoch) alone.

    images (N, H, W, C), uint8 or float32 in [0, 1], or points (N, D), float32 of any size, which
    are neither scaled nor binarised; labels int (N,); ``batch_size`` images per batch, fewer in
    the last one unless ``drop_last``; ``binarize`` as in the function of that name. Raises
    UserError for values out of range and arrays that do not fit.
    """

    def __init__(
        self, images, labels, batch_size, seed, shuffle=True, drop_last=False, binarize="none"
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
                "no batch would be left; expected a batch size of at most the number of images"
            )
        Stream(seed, "shuffle/0")  # a bad seed is refused here, not at the first batch
        self.images, self.labels = np.asarray(images), np.asarray(labels)
        self.batch_size, self.seed = batch_size, seed
        self.shuffle, self.drop_last, self.binarize = shuffle, drop_last, binarize
        if binarize == "static":
            self.images = _drawn_once(self.images, seed)

    @property
    def batches_per_epoch(self):
        """The number of batches that ``batches(epoch)`` gives."""
        whole, rest = divmod(len(self.images), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def sizes(self):
        """The number of images in each batch of an epoch."""
        n, size = len(self.images), self.batch_size
        return [min(size, n - size * i) for i in range(self.batches_per_epoch)]

    def order(self, epoch):
        """The indices of the images in the order of epoch ``epoch``, int64 (N,)."""
        epoch = _whole("epoch", epoch, at_least=0)
        if not self.shuffle:
            return np.arange(len(self.images))
        with on_the_cpu():
            return Stream(self.seed, f"shuffle/{epoch}").permutation(len(self.images))

    def batches(self, epoch, start=0):
        """Yields (x, labels): float32 (B, H, W, C) in [0, 1] and (B,), from batch ``start`` on.

        Points come as (B, D). Epoch and start determine every value: a run that was interrupted
        after ``start`` batches goes on with exactly those that were left. Each x is a new array.
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


def _drawn_once(images, seed):
    """uint8 images of 0 and 255, drawn by ``seed`` and the index of each image."""
    drawn = np.empty(images.shape, np.uint8)
    stream = Stream(seed, "binarize/static")
    for first in range(0, len(images), STATIC_CHUNK):
        chunk = slice(first, first + STATIC_CHUNK)
        drawn[chunk] = 255 * binarize(scale(images[chunk]), "static", stream)
    return drawn


def _whole(name, value, at_least):
    """``value`` as an int; UserError unless it is a whole number of at least ``at_least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name} is {value!r}: expected a whole number, {at_least} or more")
    return int(value)
