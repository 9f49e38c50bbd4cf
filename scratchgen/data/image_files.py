"""Folders of PNG and JPEG files as arrays of images."""

import os
import struct
import warnings
import zlib

import numpy as np

from ..errors import UserError
from .idx import DEFLATE_MAX_RATIO
from .npy import MAX_BYTES

IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # and all names that start with a dot
PARTS = {"train", "test"}
GREY, COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA")
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
ORIENTATION = 0x0112                    # the tag of EXIF
# Its value -> the name of Pillow's operation that rotates the image upright.
UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
           6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
SIDEWAYS = tuple(UPRIGHT[value] for value in (5, 6, 7, 8))
SHORT = 3                               # EXIF's code for the type uint16
MAX_EXIF = 1 << 16                      # bytes: the largest segment of a JPEG file


def read_folder(path, limit=None):
    """[training images, labels, test images, labels]; for the layout see ``own_images.read``.

    uint8 (N, H, W, C); C is 1 if all files are grey and 3 otherwise. Transparent images are
    composed over black, and EXIF's orientation is applied. Colour profiles are not applied. Only
    the ``limit`` files of each part that are returned are opened. Raises UserError.
    """
    folders, _ = _entries(path)
    if {folder.name for folder in folders} == PARTS:
        train, test = (_by_class(path / part) for part in ("train", "test"))
        if train.keys() != test.keys():
            raise UserError(f"{path} has the classes {_listed(train)} for training and "
                            f"{_listed(test)} for testing: expected the same sub-folders")
    else:
        train, test = _last_tenths(_by_class(path), path)
    (train, train_labels), (test, test_labels) = (_interleaved(p, limit) for p in (train, test))
    images = _read_all(train + test)
    return [images[: len(train)], train_labels, images[len(train) :], test_labels]


def _entries(path):
    """``(folders, files)`` in ``path``, sorted; UserError for files that are not images."""
    try:
        entries = sorted(each for each in path.iterdir()
                         if not each.name.startswith(".") and each.name.lower() not in IGNORED)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be read ({error.strerror or error}): check its "
                        "permissions") from None
    folders = [each for each in entries if os.path.isdir(each)]
    files = [each for each in entries if not os.path.isdir(each)]
    for file in files:
        if file.suffix.lower() not in FORMATS or not os.path.isfile(file):
            raise UserError(f"{file} is not a PNG or JPEG file: expected only such files in a "
                            "folder of images; convert it or remove it")
    if folders and files:
        raise UserError(f"{path} contains files ({files[0].name}, …) and sub-folders "
                        f"({folders[0].name}, …): expected only files, or one sub-folder for each "
                        "class")
    if not entries:
        raise UserError(f"{path} is an empty folder: expected PNG or JPEG files")
    return folders, files


def _by_class(path):
    """``{class name: files}``; "" is the name of the class of a folder without sub-folders."""
    folders, files = _entries(path)
    if files:
        return {"": files}
    classes = {}
    for folder in folders:
        deeper, classes[folder.name] = _entries(folder)
        if deeper and PARTS & {each.name for each in folders}:
            raise UserError(f"{path} has the sub-folders {_listed(each.name for each in folders)}: "
                            "expected only train and test; add the missing one, and move the "
                            "others elsewhere")
        if deeper:
            raise UserError(f"{deeper[0]} is a folder in the folder of a class: expected only PNG "
                            f"or JPEG files in {folder}; move or remove it")
    return classes


def _last_tenths(classes, path):
    """``(train, test)``: the files of each class, split before the last tenth."""
    train, test = {}, {}
    for name, files in classes.items():
        first = len(files) - max(len(files) // 10, 1 if len(files) > 1 else 0)
        train[name], test[name] = files[:first], files[first:]
    if not any(test.values()):
        raise UserError(f"{path} has only one image{' of each class' if len(classes) > 1 else ''}: "
                        "expected at least 2, one for training and one for testing")
    return train, test


def _interleaved(classes, limit):
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
                            f"{width}×{height}: expected images of one size; crop or scale them")
        if mode not in GREY + COLOUR:
            raise UserError(f"{file} has {mode}: expected 8 bits per channel, grey or RGB; convert "
                            "it, or save an .npy file of floats in [0, 1]")
    channels = 3 if any(mode in COLOUR for _, mode in headers) else 1
    shape = (len(files), height, width, channels)
    if np.prod(shape, dtype=object) > MAX_BYTES:
        raise UserError(f"the images in {files[0].parent} take more than {MAX_BYTES} bytes: "
                        "expected fewer or smaller ones; select some, or scale them down")
    images = np.empty(shape, np.uint8)
    for file, image in zip(files, images, strict=True):
        image[:] = _decode(file, channels=channels)
    return images


def _decode(file, header_only=False, channels=1):
    """``(size, mode)`` or the pixels, uint8 (H, W, channels); turns every failure into a UserError.
    """
    from PIL import Image  # not at the top: takes 60 ms to import

    kind = FORMATS[file.suffix.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=[kind]) as image:
                # The largest number of pixels in a PNG file of this size, at one bit per pixel,
                # the smallest depth; a JPEG file needs more bytes.
                if image.width * image.height > 8 * DEFLATE_MAX_RATIO * os.path.getsize(file):
                    raise ValueError(f"{image.width}×{image.height} pixels in so few bytes")
                depth, exif = _png_header(file) if kind == "PNG" else (8, image.info.get("exif"))
                rotation = UPRIGHT.get(_orientation(exif))
                if not header_only:
                    return _pixels(image, depth, rotation, channels)
                size = image.size[::-1] if rotation in SIDEWAYS else image.size
                return size, _mode(image.mode, depth)
    # The exceptions that Pillow was found to raise on damaged files; SyntaxError for a bad chunk.
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, OSError, SyntaxError,
            ValueError, EOFError, zlib.error, struct.error, OverflowError, IndexError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            reason = error.strerror
        else:
            reason = f"not a {kind} file" if "cannot identify" in str(error) else " ".join(
                str(error).split())
        raise UserError(f"{file} cannot be read as a {kind} image ({reason}): expected a complete "
                        f"{kind} file; save it again or remove it") from None


def _mode(mode, depth):
    """Pillow's mode, or a description of a mode that is not accepted.

    Pillow reduces colours of 16 bits to 8 without a warning, so the depth is checked too.
    """
    if depth > 8 or mode.startswith(("I", "F")):
        return "more than 8 bits per channel"
    return mode if mode in GREY + COLOUR else f"the mode {mode}"


def _png_header(file):
    """``(bits per channel, content of the eXIf chunk or None)``; only chunk headers are read."""
    with open(file, "rb") as content:
        content.seek(24)
        depth = content.read(1)
        content.seek(8)
        while len(header := content.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            if name == b"eXIf":
                return depth[0], content.read(min(length, MAX_EXIF))
            content.seek(length + 4, os.SEEK_CUR)
    return depth[0], None


def _orientation(content):
    """EXIF's orientation, 1 to 8; 1 if it is missing or cannot be read."""
    if not content:
        return 1
    content = content.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    try:
        start, = struct.unpack_from(f"{order}I", content, 4)
        entries, = struct.unpack_from(f"{order}H", content, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", content, entry)
            if tag == ORIENTATION and kind == SHORT:
                return value
    except struct.error:                       # no TIFF header, or an offset beyond its end
        pass
    return 1


def _pixels(image, depth, rotation, channels):
    """uint8 (H, W, channels), upright, composed over black where they are transparent."""
    from PIL import Image

    transparent = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparent, int):
        # The file has a grey value of ``depth`` bits; Pillow compares it with values of 8 bits.
        most = 2**depth - 1
        image.info["transparency"] = (transparent & most) * 255 // most
    if image.mode in ("LA", "RGBA") or transparent is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if rotation is not None:
        image = image.transpose(Image.Transpose[rotation])
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
