"""The user's own images: an .npy or .npz file, or a folder of PNG or JPEG files, of any size."""

import os
from pathlib import Path

import numpy as np

from ..errors import UserError, unknown
from . import image_files, npy

# The names of the arrays in an .npz file: training images and labels, test images and labels.
ARRAY_NAMES = (("images", "labels", "test_images", "test_labels"),
             ("x_train", "y_train", "x_test", "y_test"))


def is_path(name):
    """Whether ``name`` is the path of a file or folder, rather than a misspelt name of a set."""
    if isinstance(name, os.PathLike):
        return True
    return isinstance(name, str) and (
        name.lower().endswith((".npy", ".npz", *image_files.FORMATS)) or "/" in name
        or os.sep in name or os.path.exists(name))


def read(path, limit=None):
    """[training images, labels, test images, labels] of the file or folder ``path``.

    Images are (N, H, W, C) with C 1 or 3: uint8, or float32 in [0, 1] for a file of floats.

    - .npy: (N, H, W) or (N, H, W, C).
    - .npz: arrays ``images`` and optionally ``labels``, ``test_images``, ``test_labels``; or
      ``x_train``, ``y_train``, ``x_test``, ``y_test``.
    - a folder: PNG or JPEG files of one size, or one sub-folder of them for each class, whose
      labels are 0, 1, … in the order of their names; or sub-folders ``train`` and ``test`` of
      either kind. Channels have at most 8 bits; EXIF's orientation is applied.

    Without a test part, the last tenth, at least one image, is the test set. In a folder with
    classes it is the last tenth of each class, and the images of the classes alternate, so that
    the first ``limit`` contain all classes. (Shuffle an array that is sorted by class before saving
    it.) Missing labels are 0. ``limit``: the largest number of files read from a folder for each
    part. Raises UserError, one sentence that names the file, for any other content.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        return image_files.read_folder(path, limit)
    if suffix == ".npy":
        return _split(_images(npy.read(path), path), None, path)
    if suffix == ".npz":
        return _from_archive(path)
    if not os.path.exists(path):
        raise UserError(f"there is no file or folder {path}: expected a .npy or .npz file or a "
                        "folder of PNG or JPEG files; check the name")
    raise UserError(f"{path} is neither a .npy nor a .npz file nor a folder of PNG or JPEG files: "
                    "expected one of these; convert it, or copy the images into a folder")


def _from_archive(path):
    arrays = npy.read_archive(path)
    names = ARRAY_NAMES["x_train" in arrays]
    for name in arrays:
        if name not in names:
            raise UserError(f"{path}: {unknown('array', name, names)}")
    images, labels, test_images, test_labels = (arrays.get(name) for name in names)
    if images is None:
        raise UserError(f"{path} contains {', '.join(arrays)}: expected an array "
                        f"{ARRAY_NAMES[0][0]!r} or {ARRAY_NAMES[1][0]!r}; save it with "
                        "np.savez(path, images=…)")
    if test_images is None and test_labels is not None:
        raise UserError(f"{path} contains {names[3]} without {names[2]}: expected both")
    if test_images is not None and (labels is None) != (test_labels is None):
        raise UserError(f"{path} has labels for one part only: expected {names[1]} and "
                        f"{names[3]}, or neither")
    images = _images(images, f"{path}, array {names[0]!r},")
    labels = _labels(labels, images, f"{path}, array {names[1]!r},")
    if test_images is None:
        return _split(images, labels, path)
    test_images = _images(test_images, f"{path}, array {names[2]!r},")
    return [images, labels, test_images,
            _labels(test_labels, test_images, f"{path}, array {names[3]!r},")]


def _split(images, labels, path):
    """Split off the last tenth, at least one image, as the test set."""
    labels = _labels(labels, images, path)
    if len(images) < 2:
        raise UserError(f"{path} contains 1 image: expected at least 2, one for training and one "
                        "for testing")
    first = len(images) - max(1, len(images) // 10)
    return [images[:first], labels[:first], images[first:], labels[first:]]


def _images(array, where):
    """The array as uint8 or float32 (N, H, W, C)."""
    if array.ndim == 2:
        raise UserError(f"{where} has shape {array.shape}: expected images, (N, H, W) or "
                        "(N, H, W, C); reshape rows of pixels to height and width, for example "
                        "x.reshape(-1, 28, 28)")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        raise UserError(f"{where} has shape {array.shape}: expected (N, H, W) or (N, H, W, C), "
                        "many images in one array")
    if array.shape[3] not in (1, 3):
        remedy = ("move the channels last with x.transpose(0, 2, 3, 1)" if array.shape[1] in (1, 3)
                  else "keep only the colours, x[..., :3]" if array.shape[3] in (2, 4)
                  else "select channels or convert it")
        raise UserError(f"{where} has shape {array.shape}, {array.shape[3]} channels: expected "
                        f"1 or 3; {remedy}")
    if array.dtype == np.uint8:
        if array.max() == 1:
            raise UserError(f"{where} contains only the values 0 and 1, of 255, which are black: "
                            "expected uint8 from 0 to 255; multiply a mask by 255")
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise UserError(f"{where} has images of dtype {array.dtype}: expected uint8, or floats "
                        "in [0, 1]; convert values from 0 to 255 with .astype(np.uint8)")
    low, high = array.min(), array.max()
    if not np.isfinite([low, high]).all():
        first = int(np.argmin(np.isfinite(array).all(axis=(1, 2, 3))))
        raise UserError(f"{where} contains NaN or infinity, first in image {first}: expected "
                        "floats in [0, 1]; remove or repair such images")
    if low < 0 or high > 1:
        raise UserError(f"{where} contains floats from {low!s} to {high!s}: expected [0, 1]; scale "
                        "them, save values from 0 to 255 as uint8, or remove rounding errors with "
                        "x.clip(0, 1)")
    return np.ascontiguousarray(array, np.float32)


def _labels(labels, images, where):
    """int64 (N,); zeros if there are none."""
    if labels is None:
        return np.zeros(len(images), np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:  # the shape in some published sets
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise UserError(f"{where} has labels of dtype {labels.dtype} and shape {labels.shape}: "
                        f"expected whole numbers and ({len(images)},), one for each image")
    if labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{where} has labels beyond 2^63: expected class numbers 0, 1, …")
    return labels.astype(np.int64)
