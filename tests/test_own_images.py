"""Own images: .npy and .npz files and folders of PNGs, right, wrong and damaged."""

import io
import os
import shutil
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from scratchgen import data
from scratchgen.data import npy
from scratchgen.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (23, 5, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (23, 5, 4, 3), np.uint8)
FLOATS = RNG.random((23, 5, 4, 1))


def saved(path, array, **options):
    np.save(path, array, **options)
    return path


def raw(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text, array_bytes=b"", version=1):
    text = text.encode("latin-1")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + array_bytes


def refused(path, match):
    """The message of the one-sentence UserError that loading ``path`` raises."""
    with pytest.raises(UserError, match=match) as caught:
        data.load(path)
    message = str(caught.value)
    assert "\n" not in message and os.path.basename(str(path)) in message
    return message


# ------------------------------------------------------------------------ .npy


@pytest.mark.parametrize("array", [GREY, GREY[..., None], COLOUR, FLOATS, FLOATS.astype(np.float32),
                                   FLOATS.astype(np.float16), FLOATS.astype(">f8")],
                         ids=["grey", "grey channel", "colour", "f8", "f4", "f2", "big-endian"])
def test_an_array_is_cut_into_nine_tenths_and_one(tmp_path, array):
    own = data.load(saved(tmp_path / "own.npy", array))
    whole = array[..., None] if array.ndim == 3 else array
    kept = np.uint8 if array.dtype == np.uint8 else np.float32
    assert own.train_images.dtype == own.test_images.dtype == kept
    assert np.array_equal(own.train_images, whole[:21].astype(kept))
    assert np.array_equal(own.test_images, whole[21:].astype(kept))
    assert own.image_shape == own.item_shape == whole.shape[1:]
    assert not own.train_labels.any() and own.test_labels.shape == (2,)
    assert own.name == str(tmp_path / "own.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("array", [GREY, np.asfortranarray(COLOUR)], ids=["C", "Fortran"])
def test_all_versions_and_orders_of_the_format(tmp_path, array, version):
    with open(tmp_path / "own.npy", "wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(file, array, version)
    assert np.array_equal(npy.read(tmp_path / "own.npy"), array)


def test_the_header_of_python_2_is_read_without_a_warning(tmp_path):
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 3L), }"
    (tmp_path / "own.npy").write_bytes(header(text, bytes(range(6))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(npy.read(tmp_path / "own.npy"), [[0, 1, 2], [3, 4, 5]])


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["<u1", "<i2", ">i4", "<i8", "<f2", ">f4", "<f8", "u8"]),
       st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans())
def test_the_reader_agrees_with_numpy(tmp_path, dtype, shape, fortran):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else array)
    found = npy.read(tmp_path / "a.npy")
    assert found.dtype == array.dtype and np.array_equal(found, array)


def test_two_images_are_enough_and_limit_takes_the_first(tmp_path):
    two = data.load(saved(tmp_path / "two.npy", GREY[:2]))
    assert len(two.train_images) == len(two.test_images) == 1
    few = data.load(str(saved(tmp_path / "all.npy", GREY)), limit=3)
    assert np.array_equal(few.train_images[..., 0], GREY[:3])
    assert few.train_images.base.nbytes < 100


@pytest.mark.parametrize(("images", "tests"), [(2, 1), (9, 1), (19, 1), (20, 2), (39, 3)])
def test_the_last_tenth_is_for_testing(tmp_path, images, tests):
    array = 9 + np.arange(images, dtype=np.uint8)[:, None, None].repeat(3, axis=1)
    own = data.load(saved(tmp_path / "own.npy", array))
    assert list(own.test_images[:, 0, 0, 0]) == list(range(9 + images - tests, 9 + images))
    assert len(own.train_images) == images - tests


def test_paths_with_a_tilde_and_pathlib(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "own.npy", GREY)
    assert len(data.load("~/own.npy").train_images) == 21


def test_a_name_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-mini").mkdir()
    assert len(data.load("mnist-mini", limit=1).train_images) == 1
    refused("./mnist-mini", "empty folder")


WRONG = {
    "rows": (np.zeros((9, 784), np.uint8), r"shape \(9, 784\): expected images.*reshape"),
    "one number a row": (np.zeros(9, np.uint8), r"shape \(9,\): expected \(N, H, W\)"),
    "a number": (np.uint8(3), r"shape \(\): expected"),
    "five": (np.zeros((2, 2, 2, 2, 3), np.uint8), r"expected \(N, H, W\)"),
    "channels first": (np.zeros((9, 3, 5, 4), np.uint8), r"4 channels.*transpose\(0, 2, 3, 1\)"),
    "alpha": (np.zeros((9, 6, 5, 4), np.uint8), r"4 channels: expected 1 or 3; .*x\[..., :3\]"),
    "seven channels": (np.zeros((9, 6, 5, 7), np.uint8), "7 channels: expected 1 or 3; select"),
    "whole numbers": (np.zeros((9, 5, 4), np.int64), r"dtype int64: expected uint8.*astype"),
    "booleans": (np.zeros((9, 5, 4), bool), r"booleans: .* with 255 \* x.astype"),
    "a mask": (np.eye(5, 4, dtype=np.uint8)[None].repeat(9, 0), "0 and 1, of 255.*mask by 255"),
    "hardly too large": (np.full((9, 5, 4), 1.0000002, np.float32), r"to 1.0000002: .*clip"),
    "text": (np.full((9, 5, 4), "a"), "expected integers or floating"),
    "complex": (np.zeros((9, 5, 4), complex), "type '<c16'"),
    "dates": (np.zeros((9, 5, 4), "M8[s]"), "expected integers or floating"),
    "records": (np.zeros(9, [("a", "u1")]), "no header of an array of numbers"),
    "none": (np.zeros((0, 5, 4), np.uint8), r"shape \(0, 5, 4\): expected .* at least one value"),
    "no pixels": (np.zeros((9, 0, 4), np.uint8), "at least one value"),
    "one image": (np.zeros((1, 5, 4), np.uint8), "contains 1 image: expected at least 2"),
    "too large": (np.full((9, 5, 4), 255.0), r"floats from 255.0 to 255.0: expected \[0, 1\]"),
    "negative": (np.full((9, 5, 4), -1e-9), r"expected \[0, 1\]; scale"),
    "nan": (np.where(np.arange(180) == 47, np.nan, 0.5).reshape(9, 5, 4),
            "NaN or infinity, first in image 2"),
    "infinite": (np.where(np.arange(180) == 20, -np.inf, 0.5).reshape(9, 5, 4).astype(np.float16),
                 "NaN or infinity, first in image 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_array_that_holds_no_images_is_refused(tmp_path, case):
    array, message = WRONG[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(saved(tmp_path / "own.npy", array), message)


class Bomb:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_objects_are_never_unpickled(tmp_path):
    array = np.empty((3, 2, 2), object)
    array[:] = Bomb(tmp_path / "exploded")
    saved(tmp_path / "own.npy", array, allow_pickle=True)
    np.savez(tmp_path / "own.npz", images=array)
    refused(tmp_path / "own.npy", "contains Python objects.*could run code")
    refused(tmp_path / "own.npz", "array 'images', contains Python objects")
    assert not (tmp_path / "exploded").exists()


GOOD = raw(GREY)
FAULTS = {
    "empty": (b"", "is empty"),
    "text": (b"images, labels\n", "not in NumPy's format: it starts with 69 6d 61"),
    "magic alone": (GOOD[:6], "not in NumPy's format"),
    "version 9": (GOOD[:6] + b"\x09" + GOOD[7:], "not in NumPy's format"),
    "cut header": (GOOD[:40], "no header of an array"),
    "long header": (GOOD[:8] + b"\xff\xff" + GOOD[10:], "no header of an array"),
    "code": (header("__import__('os').system('true')"), "no header of an array"),
    "key twice": (header("{'descr': '|u1', 'descr': '|u1', 'shape': (1,)}"), "no header"),
    "size below zero": (header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}"), "no h"),
    "nested": (header("(" * 9000), "no header"),
    "boolean size": (header("{'descr': '|u1', 'fortran_order': False, 'shape': (True,)}"), "no h"),
    "text for a size": (header("{'descr': '|u1', 'fortran_order': False, 'shape': '1'}"), "no hea"),
    "cut data": (GOOD[:-1], r"truncated: its header declares \(23, 5, 4\) .* the file has 459"),
    "no data": (GOOD[:128], "truncated: .* the file has 0"),
    "trailing byte": (GOOD + b"\0", "has bytes after its end"),
    "two arrays": (GOOD + GOOD, "has bytes after its end"),
    "huge": (header("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999999999, "
                    "9999999999999999999), }"), "more than 4294967296 bytes"),
    "many dimensions": (header("{'descr': '|u1', 'fortran_order': False, 'shape': ("
                               + "1, " * 70 + "), }", b"\0"), "expected 1 to 8 dimensions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_one_sentence_that_names_it(tmp_path, fault):
    content, message = FAULTS[fault]
    (tmp_path / "own.npy").write_bytes(content)
    refused(tmp_path / "own.npy", message)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("images.npy", content)
    refused(tmp_path / "own.npz", message)


def test_a_lying_header_allocates_nothing(tmp_path):
    lie = header("{'descr': '|u1', 'fortran_order': False, 'shape': (4000, 1000, 1000), }", b"\0")
    (tmp_path / "own.npy").write_bytes(lie)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("images.npy", lie)
    for name in ("own.npy", "own.npz"):
        tracemalloc.start()
        refused(tmp_path / name, "is truncated")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4_000_000


def test_what_is_no_file(tmp_path):
    refused(tmp_path / "missing.npy", "there is no readable file")
    refused(tmp_path / "missing.npz", "there is no readable file")
    refused(tmp_path / "missing", "there is no file or folder")
    (tmp_path / "notes.txt").write_text("images")
    refused(tmp_path / "notes.txt", "neither a .npy nor a .npz file nor a folder of PNG")
    with pytest.raises(UserError, match="is a folder"):
        npy.read(tmp_path)
    with pytest.raises(UserError, match="no readable file"):
        data.load("a\0b.npy")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npy")
        refused(tmp_path / "pipe.npy", "not a regular file")


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = saved(tmp_path / "own.npy", GREY)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # the superuser may read everything
    refused(path, "cannot be read .Permission denied")


# ------------------------------------------------------------------------ .npz

LABELS = np.arange(23) % 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [("images", "labels", "test_images", "test_labels"),
                                   ("x_train", "y_train", "x_test", "y_test")])
def test_an_archive_with_four_arrays(tmp_path, save, names):
    arrays = (COLOUR, LABELS.astype(np.int32), COLOUR[:4], LABELS[:4].astype(np.uint8)[:, None])
    save(tmp_path / "own.npz", **dict(zip(names, arrays, strict=True)))
    own = data.load(tmp_path / "own.npz")
    assert np.array_equal(own.train_images, COLOUR) and np.array_equal(own.train_labels, LABELS)
    assert np.array_equal(own.test_images, COLOUR[:4])
    assert np.array_equal(own.test_labels, LABELS[:4]) and own.test_labels.dtype == np.int64


def test_an_archive_without_a_test_part(tmp_path):
    np.savez(tmp_path / "own.npz", images=GREY, labels=LABELS)
    own = data.load(tmp_path / "own.npz")
    assert np.array_equal(own.train_labels, LABELS[:21])
    assert np.array_equal(own.test_labels, LABELS[21:]) and len(own.test_images) == 2
    np.savez(tmp_path / "bare.npz", x_train=GREY)
    assert not data.load(tmp_path / "bare.npz").train_labels.any()


WRONG_ARCHIVES = {
    "unknown": ({"images": GREY, "lables": LABELS}, "array 'lables': did you mean 'labels'"),
    "mixed": ({"x_train": GREY, "labels": LABELS}, "unknown array 'labels'"),
    "no images": ({"labels": LABELS}, "contains labels: expected an array 'images' or 'x_train'"),
    "labels short": ({"images": GREY, "labels": LABELS[1:]}, r"shape \(22,\): expected whole"),
    "labels floats": ({"images": GREY, "labels": LABELS * 1.0}, "labels of dtype float64"),
    "labels huge": ({"images": GREY, "labels": LABELS.astype("u8") + 2**63}, "beyond 2.63"),
    "test labels alone": ({"images": GREY, "labels": LABELS, "test_labels": LABELS}, "without"),
    "labels of one part": ({"images": GREY, "labels": LABELS, "test_images": GREY}, "one part"),
    "sizes": ({"images": GREY, "test_images": GREY[:, 1:]}, r"expected the same \(H, W, C\)"),
}


@pytest.mark.parametrize("case", WRONG_ARCHIVES)
def test_an_archive_with_wrong_arrays(tmp_path, case):
    arrays, message = WRONG_ARCHIVES[case]
    np.savez(tmp_path / "own.npz", **arrays)
    refused(tmp_path / "own.npz", message)


def test_a_zip_file_that_is_no_archive_of_arrays(tmp_path):
    path = tmp_path / "own.npz"
    for content, message in ((b"", "is damaged or not an .npz"), (GOOD, "is damaged or not"),
                             (b"PK\5\6" + bytes(18), "empty archive")):
        path.write_bytes(content)
        refused(path, message)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "images")
    refused(path, "contains 'readme.txt', which is not an array")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("images.npy", GOOD)
    refused(path, "uses another compression")
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("images.npy", GOOD)
        archive.writestr("images.npy", GOOD)
    refused(path, "twice")


def test_a_changed_byte_in_an_archive_is_noticed(tmp_path):
    np.savez(tmp_path / "own.npz", images=GREY)
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[300] ^= 1
    (tmp_path / "own.npz").write_bytes(content)
    refused(tmp_path / "own.npz", "is damaged .*CRC")


# ------------------------------------------------------------------------ PNG


def png(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_folder_of_files(tmp_path, images):
    for i, image in enumerate(images):
        png(tmp_path / f"{i:03}.png", image)
    (tmp_path / ".hidden").write_text("")
    own = data.load(tmp_path)
    whole = images[..., None] if images.ndim == 3 else images
    assert np.array_equal(own.train_images, whole[:21])
    assert np.array_equal(own.test_images, whole[21:]) and not own.train_labels.any()
    assert np.array_equal(data.load(str(tmp_path), limit=2).train_images, whole[:2])


def test_classes_are_sub_folders_and_come_in_turn(tmp_path):
    sizes = {"cat": 12, "ant": 21, "dog": 1}
    for number, (name, size) in enumerate(sizes.items()):
        for i in range(size):
            png(tmp_path / name / f"{i:02}.PNG", np.full((5, 4), 50 * number + i, np.uint8))
    own = data.load(tmp_path)
    assert list(own.train_labels[:5]) == [0, 1, 2, 0, 1]  # ant, cat, dog
    assert list(own.train_images[:5, 0, 0, 0]) == [50, 0, 100, 51, 1]
    assert list(np.bincount(own.train_labels)) == [19, 11, 1]
    assert list(np.bincount(own.test_labels)) == [2, 1]  # the last tenth of each class
    assert list(own.test_images[:, 0, 0, 0]) == [69, 11, 70]


def test_folders_called_train_and_test(tmp_path):
    for part, size in (("train", 5), ("test", 3)):
        for label in ("a", "b"):
            for i in range(size):
                png(tmp_path / part / label / f"{i}.png", GREY[i])
    own = data.load(tmp_path)
    assert (len(own.train_images), len(own.test_images)) == (10, 6)
    png(tmp_path / "test" / "c" / "0.png", GREY[0])
    refused(tmp_path, "classes a, b for training and a, b, c for testing")


def test_transparent_parts_are_laid_on_black_and_grey_joins_colour(tmp_path):
    rgba = np.zeros((5, 4, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 255
    rgba[0, ..., 3], rgba[1, ..., 3] = 0, 128
    png(tmp_path / "0.png", rgba)
    png(tmp_path / "1.png", GREY[0])
    png(tmp_path / "2.png", COLOUR[0], mode="P")
    png(tmp_path / "3.png", np.full((5, 4), 9, np.uint8), transparency=9)
    train = data.load(tmp_path).train_images
    assert train.shape == (3, 5, 4, 3)
    assert list(train[0, :3, 0, 0]) == [0, 100, 200] and not train[0, ..., 1:].any()
    assert np.array_equal(train[1], np.repeat(GREY[0][..., None], 3, axis=2))
    assert not data.load(tmp_path).test_images.any()
    assert train[2].any()


def test_grey_with_alpha_and_one_bit_stay_grey(tmp_path):
    png(tmp_path / "0.png", np.dstack([np.full((5, 4), 200, np.uint8)] * 3
                                      + [np.full((5, 4), 51, np.uint8)]), mode="LA")
    png(tmp_path / "1.png", np.eye(5, 4, dtype=bool))
    own = data.load(tmp_path)
    assert own.image_shape == (5, 4, 1) and (own.train_images == 40).all()
    assert np.array_equal(own.test_images[0, ..., 0], 255 * np.eye(5, 4, dtype=np.uint8))


def test_folders_that_hold_something_else(tmp_path):
    refused(tmp_path, "is an empty folder")
    png(tmp_path / "a.png", GREY[0])
    refused(tmp_path, "has only one image: expected at least 2")
    png(tmp_path / "b.png", GREY[0][:4])
    with pytest.raises(UserError, match=r"b.png is 4×4 pixels and .*a.png is 4×5: expected images"):
        data.load(tmp_path)
    png(tmp_path / "b.png", np.zeros((5, 4), np.uint16))
    with pytest.raises(UserError, match="b.png has more than 8 bits per channel"):
        data.load(tmp_path)
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.gif").write_bytes(b"")
    with pytest.raises(UserError, match="c.gif is not a PNG or JPEG file"):
        data.load(tmp_path)
    (tmp_path / "c.gif").unlink()
    png(tmp_path / "sub" / "a.png", GREY[0])
    refused(tmp_path, "contains files .a.png, …. and sub-folders .sub, ….")
    (tmp_path / "a.png").unlink()
    refused(tmp_path, "only one image")
    png(tmp_path / "sub2" / "deep" / "a.png", GREY[0])
    with pytest.raises(UserError, match="deep is a folder in the folder of a class"):
        data.load(tmp_path)


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


PNG = encoded(COLOUR[0])
JPEG = io.BytesIO()
Image.fromarray(COLOUR[0]).save(JPEG, "JPEG")
BOMB = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)) + chunk(
    b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"text", PNG[:20], PNG[:-40], JPEG.getvalue(), BOMB,
                                     BOMB.replace(b"\0\0\x23\x28", b"\0\1\0\0"), GOOD],
                         ids=["empty", "text", "header", "cut", "jpeg", "bomb", "larger", "npy"])
def test_a_damaged_png_is_one_sentence(tmp_path, content):
    (tmp_path / "0.png").write_bytes(PNG)
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(UserError, match="1.png cannot be read as a PNG image") as caught:
        data.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", JPEG.getvalue()[:20],
                                     JPEG.getvalue()[:-40], PNG],
                         ids=["empty", "text", "header", "cut", "png"])
def test_a_damaged_jpeg_is_one_sentence(tmp_path, content):
    (tmp_path / "0.png").write_bytes(PNG)
    (tmp_path / "1.jpg").write_bytes(content)
    with pytest.raises(UserError, match="1.jpg cannot be read as a JPEG image") as caught:
        data.load(tmp_path)
    assert "\n" not in str(caught.value)


# ------------------------------------- kinds of PNG, made by hand; JPEG; orientation

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}     # colour type of PNG -> samples of a pixel
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# A PNG file with alpha has no tRNS.
KINDS = [(kind, depth, see_through) for kind, depths in DEPTHS.items() for depth in depths
         for see_through in (False, True)[: 1 if kind in (4, 6) else 2]]
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]


def packed(samples, depth):
    """The rows of a PNG image, each with filter 0."""
    content = b""
    for row in samples:
        bits = "".join(f"{sample:0{depth}b}" for sample in row.reshape(-1))
        bits += "0" * (-len(bits) % 8)
        content += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return content


def by_hand(samples, depth, kind, interlaced=False, *chunks):
    """A PNG file of integer samples (H, W, C)."""
    height, width, _ = samples.shape
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    raw = b"".join(packed(samples[y::down, x::right], depth) for x, y, right, down in passes
                   if samples[y::down, x::right].size)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    return b"".join((PNG[:8], chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(raw)),
                     chunk(b"IEND", b"")))


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
@pytest.mark.parametrize("kind, depth, see_through", KINDS)
def test_every_kind_of_png(tmp_path, rng, kind, depth, see_through, interlaced):
    samples = rng.integers(0, 2**depth, (9, 7, CHANNELS[kind]))
    palette = rng.integers(0, 256, (min(2**depth, 256), 4))
    chunks = [chunk(b"PLTE", palette[:, :3].astype(np.uint8).tobytes())] * (kind == 3)
    if see_through:
        chunks.append(chunk(b"tRNS", palette[:, 3].astype(np.uint8).tobytes() if kind == 3 else
                            struct.pack(f">{CHANNELS[kind]}H", *samples[0, 0])))
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(by_hand(samples, depth, kind, interlaced, *chunks))
    if depth == 16:
        refused(tmp_path, "0.png has more than 8 bits per channel: expected 8")
        return
    if kind == 3:
        colours, alpha = palette[samples[..., 0], :3], palette[samples[..., 0], 3] / 255
        alpha = alpha if see_through else np.ones((9, 7))
    else:
        scaled = samples * 255 // (2**depth - 1)
        colours = scaled[..., : 3 if kind in (2, 6) else 1]
        alpha = scaled[..., -1] / 255 if kind in (4, 6) else np.ones((9, 7))
        if see_through:
            alpha = 1.0 - (samples == samples[0, 0]).all(axis=2)
    found = data.load(tmp_path).train_images[0]
    assert np.array_equal(found, np.rint(colours * alpha[..., None]).astype(np.uint8))


def exif(value, order=">"):
    """EXIF with a tag before the orientation, which is ``value``."""
    return (b"MM" if order == ">" else b"II") + struct.pack(
        f"{order}HIHHHIHHHHIHHI", 42, 8, 2, 0x010F, 2, 1, 0, 0, 0x0112, 3, 1, value, 0, 0)


STORED = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
UPRIGHT = {0: STORED, 1: STORED, 2: STORED[:, ::-1], 3: STORED[::-1, ::-1], 4: STORED[::-1],
           5: STORED.T, 6: np.rot90(STORED, -1), 7: STORED[::-1, ::-1].T, 8: np.rot90(STORED),
           9: STORED}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", UPRIGHT)
def test_images_are_turned_as_exif_says(tmp_path, value, order):
    tags = exif(value, order)
    assert Image.open(io.BytesIO(by_hand(STORED[..., None], 8, 0, False, chunk(b"eXIf", tags)))
                      ).getexif()[0x0112] == value                 # Pillow reads it the same
    end = chunk(b"IEND", b"")
    plain = by_hand(STORED[..., None], 8, 0)
    (tmp_path / "0.png").write_bytes(by_hand(STORED[..., None], 8, 0, False, chunk(b"eXIf", tags)))
    (tmp_path / "1.png").write_bytes(plain.removesuffix(end) + chunk(b"eXIf", tags) + end)
    flat = Image.fromarray(np.repeat(np.repeat(STORED, 8, axis=0), 8, axis=1))
    flat.save(tmp_path / "0.jpg", quality=100, exif=b"Exif\0\0" + tags)
    for name in ("0.jpg", "0.png", "1.png"):
        folder = tmp_path / name.replace(".", "")
        folder.mkdir()
        for copy in "ab":
            shutil.copy(tmp_path / name, folder / f"{copy}{name}")
        found = data.load(folder).train_images[0, ..., 0]
        scale = 8 if name.endswith("jpg") else 1
        assert found.shape == tuple(scale * n for n in UPRIGHT[value].shape)
        found = found[scale // 2 :: scale, scale // 2 :: scale]
        assert np.abs(found.astype(int) - UPRIGHT[value]).max() <= 2 * (scale > 1)


@pytest.mark.parametrize("tags", [b"", b"MM", b"XX" + bytes(30), exif(6)[:14],
                                  b"MM\0\x2a" + b"\xff" * 9, exif(6)[:8] + b"\xff\xff" + bytes(12)])
def test_damaged_exif_counts_as_none(tmp_path, tags):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(by_hand(STORED[..., None], 8, 0, False, chunk(b"eXIf", tags)))
    assert np.array_equal(data.load(tmp_path).train_images[0, ..., 0], STORED)


@pytest.mark.parametrize("name, options", [("0.jpg", {}), ("0.JPEG", {"progressive": True})])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_folders_of_jpeg_files(tmp_path, mode, name, options):
    image = Image.new(mode, (20, 10), 70 if mode == "L" else (200, 70, 30))
    (tmp_path / "__MACOSX").mkdir()
    for each in (name, "z.jpg"):
        image.save(tmp_path / each, "JPEG", quality=100, **options)
    found = data.load(tmp_path).train_images
    assert found.shape == (1, 10, 20, len(mode))
    assert np.abs(found[0, 0, 0].astype(int) - np.array(image.getpixel((0, 0)))).max() <= 2


def test_a_jpeg_of_printing_inks_is_refused(tmp_path):
    for name in ("0.jpg", "1.jpg"):
        Image.new("CMYK", (8, 8)).save(tmp_path / name)
    refused(tmp_path, "0.jpg has the mode CMYK: expected 8 bits per channel, grey or RGB")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("train",), ("train", "validation")])
def test_sub_folders_beside_train_and_test(tmp_path, names):
    for name in names:
        for i in range(2):
            png(tmp_path / name / "a" / f"{i}.png", GREY[i])
    refused(tmp_path, "expected only train and test")


# ------------------------------------------------------------------------ fuzz

ARCHIVE = io.BytesIO()
np.savez(ARCHIVE, images=GREY, labels=LABELS)
PACKED = io.BytesIO()
np.savez_compressed(PACKED, images=GREY)
TURNED = by_hand(GREY[0][..., None], 8, 0, False, chunk(b"eXIf", exif(6)))
BASES = {".npy": [GOOD, raw(FLOATS), raw(FLOATS > 0.5)],
         ".npz": [ARCHIVE.getvalue(), PACKED.getvalue()],
         ".png": [PNG, encoded(GREY[0]), TURNED], ".jpg": [JPEG.getvalue()]}


@settings(max_examples=600, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(BASES)), st.data())
def test_any_bytes_give_images_or_a_user_error(tmp_path, suffix, choice):
    base = choice.draw(st.sampled_from(BASES[suffix]))
    position = choice.draw(st.one_of(st.integers(0, 160), st.integers(0, len(base))))
    patch = choice.draw(st.binary(max_size=12))
    keep = choice.draw(st.one_of(st.just(2 * len(base)), st.integers(0, len(base))))
    path = tmp_path / "own" / f"fuzzed{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((base[:position] + patch + base[position + len(patch):])[:keep])
    folder = suffix in (".png", ".jpg")
    if folder:
        (path.parent / f"whole{suffix}").write_bytes(base)
    try:
        own = data.load(path.parent if folder else path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert own.train_images.ndim == 4 and own.train_images.dtype in (np.uint8, np.float32)
    finally:
        for file in path.parent.iterdir():
            file.unlink()


# ------------------------------------------------------------------------ the loader


def test_a_loader_gives_float_images_as_they_are(tmp_path):
    own = data.load(saved(tmp_path / "own.npy", FLOATS))
    x, _ = next(data.Loader(*own.train, 21, 1, shuffle=False).batches(0))
    assert x.dtype == np.float32 and np.array_equal(x, FLOATS[:21].astype(np.float32))
    x += 1  # a new array
    assert own.train_images.max() <= 1
    grey = data.load(saved(tmp_path / "grey.npy", GREY))
    same = data.Loader(grey.train_images / np.float32(255), grey.train_labels, 5, 1,
                       binarize="dynamic")
    for how in data.BINARIZATIONS:  # the same batches as the bytes they come from
        bytes_, floats = (data.Loader(images, grey.train_labels, 5, 1, binarize=how)
                          for images in (grey.train_images, same.images))
        for (a, _), (b, _) in zip(bytes_.batches(1), floats.batches(1), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_a_loader_refuses_float_images_out_of_range(value):
    images = np.full((4, 5, 4, 1), 0.5, np.float32)
    images[2, 1, 1] = value
    with pytest.raises(UserError, match=r"expected \[0, 1\]"):
        data.Loader(images, np.zeros(4, int), 2, 1)
