"""Folders of PNG files as arrays of images."""

import os
import struct
import warnings
import zlib

import numpy as np

from ..errors import UserError
from .idx import DEFLATE_MAX_RATIO
from .npy import MAX_BYTES

IGNORED = ("thumbs.db", "desktop.ini")  # and all names that start with a dot
PARTS = {"train", "test"}
GREY, COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA")


def read_folder(path, limit=None):
    """[training images, labels, test images, labels]; ``own_images.read`` says how they are laid.

    uint8 (N, H, W, C); C is 1 if all files are grey and else 3. What is transparent is laid on
    black. Only the ``limit`` files of each part that are returned are opened. Raises UserError.
    """
    folders, _ = _entries(path)
    if {folder.name for folder in folders} == PARTS:
        train, test = (_by_class(path / part) for part in ("train", "test"))
        if train.keys() != test.keys():
            raise UserError(f"{path} has classes {_listed(train)} to train on and {_listed(test)} "
                            "to test on: expected the same sub-folders")
    else:
        train, test = _last_tenths(_by_class(path), path)
    (train, train_labels), (test, test_labels) = (_in_turn(p, limit) for p in (train, test))
    images = _read_all(train + test)
    return [images[: len(train)], train_labels, images[len(train) :], test_labels]


def _entries(path):
    """``(folders, files)`` in ``path``, sorted; UserError for what is neither folder nor PNG."""
    try:
        entries = sorted(each for each in path.iterdir()
                         if not each.name.startswith(".") and each.name.lower() not in IGNORED)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be read ({error.strerror or error}): check its "
                        "permissions") from None
    folders = [each for each in entries if os.path.isdir(each)]
    files = [each for each in entries if not os.path.isdir(each)]
    for file in files:
        if file.suffix.lower() != ".png" or not os.path.isfile(file):
            raise UserError(f"{file} is no PNG file: expected only such files in a folder of "
                            "images; convert it or take it away")
    if folders and files:
        raise UserError(f"{path} holds files ({files[0].name}, …) and sub-folders "
                        f"({folders[0].name}, …): expected files alone, or one sub-folder a class")
    if not entries:
        raise UserError(f"{path} is an empty folder: expected PNG files")
    return folders, files


def _by_class(path):
    """``{class name: files}``; the one class of a folder without sub-folders is called ""."""
    folders, files = _entries(path)
    if files:
        return {"": files}
    classes = {}
    for folder in folders:
        deeper, classes[folder.name] = _entries(folder)
        if deeper:
            raise UserError(f"{deeper[0]} lies too deep: expected PNG files in {folder}, one "
                            "sub-folder a class")
    return classes


def _last_tenths(classes, path):
    """The files of each class cut into two, ``(train, test)``."""
    train, test = {}, {}
    for name, files in classes.items():
        first = len(files) - max(len(files) // 10, 1 if len(files) > 1 else 0)
        train[name], test[name] = files[:first], files[first:]
    if not any(test.values()):
        raise UserError(f"{path} has only one image{' of each class' if len(classes) > 1 else ''}: "
                        "expected at least 2, one to train on and one to test on")
    return train, test


def _in_turn(classes, limit):
    """``(files, labels)``: the first file of each class, then the second of each, and so on."""
    chosen = sorted((place, label, file)
                    for label, (_, files) in enumerate(sorted(classes.items()))
                    for place, file in enumerate(files))[:limit]
    return [file for _, _, file in chosen], np.array([label for _, label, _ in chosen], np.int64)


def _listed(classes):
    return ", ".join(sorted(classes)) or "none"


# ------------------------------------------------------------------------ files


def _read_all(files):
    """uint8 (N, H, W, C); all headers are read before the first image is decoded."""
    headers = [_decode(file, header_only=True) for file in files]
    (width, height), _ = headers[0]
    for file, (size, mode) in zip(files, headers, strict=True):
        if size != (width, height):
            raise UserError(f"{file} is {size[0]}×{size[1]} pixels and {files[0]} is "
                            f"{width}×{height}: expected images of one size; cut or scale them")
        if mode not in GREY + COLOUR:
            raise UserError(f"{file} has more than 8 bits a channel (mode {mode}): expected 8; "
                            "convert it, or save an .npy file of floats in [0, 1]")
    channels = 3 if any(mode in COLOUR for _, mode in headers) else 1
    shape = (len(files), height, width, channels)
    if np.prod(shape, dtype=object) > MAX_BYTES:
        raise UserError(f"the images in {files[0].parent} take more than {MAX_BYTES} bytes: "
                        "expected fewer or smaller ones; choose some, or scale them down")
    images = np.empty(shape, np.uint8)
    for file, image in zip(files, images, strict=True):
        image[:] = _decode(file, channels=channels)
    return images


def _decode(file, header_only=False, channels=1):
    """``(size, mode)`` or the pixels, uint8 (H, W, channels); every fault becomes a UserError."""
    from PIL import Image  # not at the top: takes 60 ms to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=["PNG"]) as image:
                if not header_only:
                    return _pixels(image, channels)
                # At one bit a pixel, the least there is, no file holds more pixels than this.
                if image.width * image.height > 8 * DEFLATE_MAX_RATIO * os.path.getsize(file):
                    raise ValueError(f"{image.width}×{image.height} pixels in so few bytes")
                return image.size, image.mode
    # All that Pillow was seen to raise on damaged files; SyntaxError is its word for a bad chunk.
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, OSError, SyntaxError,
            ValueError, EOFError, zlib.error, struct.error, OverflowError, IndexError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            reason = error.strerror
        else:
            reason = "no PNG file" if "cannot identify" in str(error) else " ".join(
                str(error).split())
        raise UserError(f"{file} cannot be read as a PNG image ({reason}): expected a whole PNG "
                        "file; save it again or take it away") from None


def _pixels(image, channels):
    """uint8 (H, W, channels), with transparent parts laid on black."""
    from PIL import Image

    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
