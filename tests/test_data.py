"""Image sets, IDX files, downloads, the loader and the corruptions."""

import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
import time
import tracemalloc
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

from scratchgen import data
from scratchgen.data import catalogue, download, folders, idx
from scratchgen.engine.random import Stream
from scratchgen.errors import UserError

FULL = os.environ.get("SCRATCHGEN_DATA")  # read before the fixture below hides it
needs_full = pytest.mark.skipif(
    not FULL, reason="full MNIST and Fashion-MNIST: set SCRATCHGEN_DATA to their folder"
)
DEBIAN = dict(folders.DEBIAN)
ROLES = catalogue.ROLES


@pytest.fixture(autouse=True)
def no_data_of_this_machine(monkeypatch, tmp_path):
    """Every test sees an empty cache, no SCRATCHGEN_DATA, no Debian package and no proxy."""
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(folders.DEBIAN, "fashion-mnist", tmp_path / "debian")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def mini():
    return data.load("mnist-mini")


# ------------------------------------------------------------------------ the embedded set


def test_the_embedded_set_is_there_whole_and_small(mini):
    assert mini.train_images.shape == (10_000, 28, 28, 1)
    assert mini.test_images.shape == (2_000, 28, 28, 1)
    assert mini.image_shape == (28, 28, 1)
    assert mini.train_images.dtype == np.uint8 and mini.test_images.dtype == np.uint8
    # The first labels of MNIST, known from every course, and at position 9,999 a 7.
    assert mini.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mini.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mini.train_labels[9_999] == 7
    assert len(np.unique(mini.train_labels)) == 10
    folder = catalogue.MNIST_MINI.embedded
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
    assert len(list(folder.glob("*.gz"))) == 4


def test_the_embedded_files_have_the_pinned_content_and_no_time_stamp():
    rows = data.verify("mnist-mini")
    assert [row.ok for row in rows] == [True] * 4
    for row, role in zip(rows, ROLES, strict=True):
        content = Path(row.file).read_bytes()
        assert content[3] == 0 and content[4:8] == bytes(4)  # no file name, no time
        pinned = catalogue.MNIST_MINI.sha256[role]
        assert hashlib.sha256(gzip.decompress(content)).hexdigest() == pinned == row.sha256


def test_the_embedded_set_carries_its_licence():
    notice = (catalogue.MNIST_MINI.embedded / "LICENSE").read_text()
    for words in ("Yann LeCun", "Corinna Cortes", "ShareAlike 3.0", "10,000", "2,000", "Keras"):
        assert words in notice


@needs_full
def test_the_embedded_set_is_the_beginning_of_mnist(mini):
    full = data.load("mnist", FULL)
    assert np.array_equal(mini.train_images, full.train_images[:10_000])
    assert np.array_equal(mini.train_labels, full.train_labels[:10_000])
    assert np.array_equal(mini.test_images, full.test_images[:2_000])
    assert np.array_equal(mini.test_labels, full.test_labels[:2_000])


@needs_full
@pytest.mark.parametrize(
    ("name", "counts", "mean"),
    [
        ("mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 0.130660),
        ("fashion-mnist", [6000] * 10, 0.286041),
    ],
)
def test_the_full_sets_have_their_published_counts_and_means(name, counts, mean):
    full = data.load(name, FULL)
    assert full.train_images.shape == (60_000, 28, 28, 1)
    assert full.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(full.train_labels).tolist() == counts
    assert abs(full.train_images.mean() / 255 - mean) < 1e-6
    assert all(row.ok for row in data.verify(name, FULL))


# ------------------------------------------------------------------------ Dataset and load


def test_the_arrays_of_a_dataset_are_read_only(mini):
    for array in (mini.train_images, mini.train_labels, mini.test_images, mini.test_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(FrozenInstanceError):
        mini.name = "other"
    assert repr(mini) == "Dataset(mnist-mini: 10000 training and 2000 test images of 28×28×1)"


def test_a_dataset_freezes_its_own_view_only():
    x, labels = np.zeros((3, 5, 4, 1), np.uint8), np.zeros(3, np.uint8)
    data.Dataset("own", x, labels, x, labels)
    x[0] = 1
    assert x[0].min() == 1


def test_a_dataset_refuses_arrays_that_do_not_fit():
    x, labels = np.zeros((3, 5, 4, 1), np.uint8), np.zeros(3, np.uint8)
    with pytest.raises(UserError, match="3 images and labels .* one integer label per image"):
        data.Dataset("own", x, labels[:2], x, labels)
    with pytest.raises(UserError, match="test set of own .* one integer label"):
        data.Dataset("own", x, labels, x, labels.astype(float))
    with pytest.raises(UserError, match="dtype float64 .* expected uint8"):
        data.Dataset("own", x.astype(float), labels, x, labels)
    with pytest.raises(UserError, match="at least one image"):
        data.Dataset("own", x[:0], labels[:0], x, labels)
    with pytest.raises(UserError, match="expected the same"):
        data.Dataset("own", x, labels, x[:, :4], labels)


def test_limit_takes_the_first_images_of_both_parts(mini):
    some = data.load("mnist-mini", limit=2_500)
    assert np.array_equal(some.train_images, mini.train_images[:2_500])
    assert np.array_equal(some.train_labels, mini.train_labels[:2_500])
    assert len(some.test_images) == len(some.test_labels) == 2_000
    few = data.load("mnist-mini", limit=np.int64(7))
    assert len(few.train_images) == len(few.test_images) == 7
    assert few.train_images.base.nbytes < 10_000  # the rest of the set is not kept in memory
    assert len(data.load("mnist-mini", limit=10**9).train_images) == 10_000


@pytest.mark.parametrize("limit", [0, -1, 1.5, "10", True])
def test_a_bad_limit_is_refused(limit):
    with pytest.raises(UserError, match="limit is .* expected"):
        data.load("mnist-mini", limit=limit)


def test_an_unknown_set_is_refused_with_the_nearest_name():
    for function in (data.load, data.verify, data.get):
        with pytest.raises(UserError, match="unknown data set 'mnits': did you mean 'mnist'"):
            function("mnits")
    with pytest.raises(UserError, match="unknown data set"):
        data.load(["mnist"])
    assert data.names() == ("mnist-mini", "mnist", "fashion-mnist")


# ------------------------------------------------------------------------ where sets are found


@pytest.fixture
def tiny(monkeypatch):
    """Two small sets with the same file names, registered like MNIST and Fashion-MNIST."""
    made = {}
    for name, seed in (("tiny", 1), ("tiny-fashion", 2)):
        random = np.random.default_rng(seed)
        shapes = {"train-images": (7, 5, 4), "train-labels": 7, "t10k-images": (3, 5, 4),
                  "t10k-labels": 3}
        arrays = {role: random.integers(0, 256, size, np.uint8) for role, size in shapes.items()}
        spec = catalogue.ImageSet(
            name=name, train=7, test=3, image_shape=(5, 4), folders=(name, "mnist", "fashion"),
            sha256={r: hashlib.sha256(idx.encode(a)).hexdigest() for r, a in arrays.items()},
        )
        monkeypatch.setitem(catalogue.SETS, name, spec)
        made[name] = arrays
    return made


def put(arrays, folder, suffix=".gz", dot="-"):
    """Write the four files of a set into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        idx.write(folder / f"{role}{dot}idx{array.ndim}-ubyte{suffix}", array)
    return folder


def assert_is_tiny(dataset, arrays):
    assert np.array_equal(dataset.train_images[..., 0], arrays["train-images"])
    assert np.array_equal(dataset.train_labels, arrays["train-labels"])
    assert np.array_equal(dataset.test_images[..., 0], arrays["t10k-images"])
    assert np.array_equal(dataset.test_labels, arrays["t10k-labels"])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("subfolder", ["", "mnist", "fashion"])
def test_a_set_is_found_in_each_spelling_and_subfolder(tiny, tmp_path, suffix, dot, subfolder):
    put(tiny["tiny"], tmp_path / "data" / subfolder, suffix, dot)
    assert_is_tiny(data.load("tiny", tmp_path / "data"), tiny["tiny"])
    assert_is_tiny(data.load("tiny", str(tmp_path / "data")), tiny["tiny"])


def test_gzip_is_told_by_content_not_by_name(tiny, tmp_path):
    put(tiny["tiny"], tmp_path)
    for path in tmp_path.glob("*.gz"):
        path.rename(path.with_suffix(""))
    assert_is_tiny(data.load("tiny", tmp_path), tiny["tiny"])


def test_content_and_not_the_name_of_the_folder_tells_the_sets_apart(tiny, tmp_path):
    put(tiny["tiny-fashion"], tmp_path)
    put(tiny["tiny-fashion"], tmp_path / "mnist")
    put(tiny["tiny"], tmp_path / "fashion")
    assert_is_tiny(data.load("tiny", tmp_path), tiny["tiny"])
    assert_is_tiny(data.load("tiny-fashion", tmp_path), tiny["tiny-fashion"])


def test_fashion_files_are_never_taken_for_mnist(tiny, tmp_path):
    put(tiny["tiny-fashion"], tmp_path / "mnist")
    with pytest.raises(UserError, match="tiny was not found"):
        data.load("tiny", tmp_path)


def test_the_folders_are_asked_in_order(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(folders.DEBIAN, "tiny", tmp_path / "debian")
    named, environment = tmp_path / "named", tmp_path / "environment"
    monkeypatch.setenv("SCRATCHGEN_DATA", str(environment))
    order = [named, environment, tmp_path / "cache" / "scratchgen", tmp_path / "debian"]
    assert folders.roots("tiny") == order[1:]
    for folder in reversed(order):
        put(tiny["tiny"], folder)
        data_dir = named if named.exists() else None
        assert folders.locate("tiny", data_dir)["train-images"].parent == folder
    assert folders.roots("mnist") == order[1:3]  # Debian has no package of MNIST


def test_debian_has_fashion_mnist():
    assert DEBIAN == {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}


def test_the_cache_folder_follows_the_platform(monkeypatch):
    assert folders.cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "scratchgen"
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # not valid by the XDG specification
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    assert folders.cache_folder() == Path("/home/someone/.cache/scratchgen")
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert folders.cache_folder() == Path("/home/someone/Library/Caches/scratchgen")
    monkeypatch.setattr(platformdirs, "PlatformDirs", Windows)
    monkeypatch.setattr("platformdirs.windows.get_win_folder", lambda name: "/appdata")
    assert folders.cache_folder() == Path("/appdata/scratchgen/Cache")


def test_a_user_without_a_home_folder_still_has_the_embedded_set(monkeypatch):
    def no_home(*args, **options):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_path", no_home)
    assert data.describe()[0].where == "embedded"
    with pytest.raises(UserError, match="looked in ~/.cache/scratchgen"):
        data.load("mnist")


def test_not_found_lists_the_folders_and_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SCRATCHGEN_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError) as caught:
        data.load("fashion-mnist", tmp_path / "data")
    message = str(caught.value)
    for folder in ("data", "elsewhere", "cache/scratchgen", "debian"):
        assert str(tmp_path / folder) in message
    for role in ROLES:
        assert catalogue.published_name(role) in message
    assert "scratchgen data get fashion-mnist" in message and "\n" not in message


def test_an_incomplete_folder_is_said_to_be_incomplete(tiny, tmp_path):
    put(tiny["tiny"], tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="mnist lacks t10k-labels-idx1-ubyte.gz"):
        data.load("tiny", tmp_path)


def test_a_data_dir_that_is_no_folder_is_an_error(tmp_path):
    for function in (partial(data.load, "mnist"), partial(data.verify, "mnist"), data.describe):
        with pytest.raises(UserError, match="there is no data folder .*nowhere"):
            function(data_dir=tmp_path / "nowhere")


def test_describe_and_verify(tiny, tmp_path):
    put(tiny["tiny"], tmp_path / "mnist")
    rows = {row.name: row for row in data.describe(tmp_path)}
    assert rows["mnist-mini"] == ("mnist-mini", "embedded", 10_000, 2_000)
    assert rows["mnist"] == ("mnist", "not found", 60_000, 10_000)
    assert rows["tiny"] == ("tiny", str(tmp_path / "mnist"), 7, 3)
    assert [row.ok for row in data.verify("tiny", tmp_path)] == [True] * 4
    bad = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    idx.write(bad, tiny["tiny"]["train-images"] ^ 1)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bnot gzip")
    rows = data.verify("tiny", tmp_path)
    assert [row.ok for row in rows] == [False, False, True, True]
    assert rows[0].file == str(bad) and rows[0].sha256 == idx.raw_sha256(bad)
    assert rows[1].sha256.startswith("unreadable: ")
    idx.write(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", np.arange(3, dtype=np.uint8))
    rows = {row.name: row for row in data.describe(tmp_path)}
    assert rows["tiny"].where == f"{tmp_path / 'mnist'} (unknown content)"


def test_unknown_content_is_refused_by_its_checksum(tiny, tmp_path, monkeypatch):
    put(tiny["tiny"], tmp_path / "data")
    changed = tmp_path / "data" / "train-images-idx3-ubyte.gz"
    idx.write(changed, tiny["tiny"]["train-images"] ^ 1)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is not the .* sha256"):
        data.load("tiny", tmp_path / "data")
    monkeypatch.setenv("SCRATCHGEN_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is not the .* sha256"):
        data.load("tiny")


def test_unknown_labels_in_a_named_folder_are_an_error_but_hide_no_right_folder(tiny, tmp_path):
    put(tiny["tiny"], tmp_path / "cache" / "scratchgen")
    unknown = {**tiny["tiny"], "t10k-labels": np.arange(3, dtype=np.uint8)}
    put(unknown, tmp_path / "data")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz is not the t10k-labels file"):
        data.load("tiny", tmp_path / "data")
    put(tiny["tiny"], tmp_path / "data" / "mnist")
    assert_is_tiny(data.load("tiny", tmp_path / "data"), tiny["tiny"])


def test_numbers_of_images_and_labels_must_agree(tiny, tmp_path):
    put({**tiny["tiny"], "train-labels": np.zeros(6, np.uint8)}, tmp_path)
    with pytest.raises(UserError, match=r"train-labels.* shape \(6,\): expected \(7,\)"):
        data.load("tiny", tmp_path)


def test_swapped_images_and_labels_are_named(tiny, tmp_path):
    put(tiny["tiny"], tmp_path, suffix="")
    one, two = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    one.rename(tmp_path / "x")
    two.rename(one)
    (tmp_path / "x").rename(two)
    with pytest.raises(UserError, match="has 1 dimensions: expected 3 .* swapped"):
        data.load("tiny", tmp_path)


def test_a_folder_of_the_name_of_a_file(tiny, tmp_path):
    put(tiny["tiny"], tmp_path, suffix="", dot=".")
    (tmp_path / "train-images-idx3-ubyte").mkdir()  # as archives of MNIST unpack
    assert_is_tiny(data.load("tiny", tmp_path), tiny["tiny"])
    (tmp_path / "train-images.idx3-ubyte").unlink()
    with pytest.raises(UserError, match="train-images-idx3-ubyte is a folder"):
        data.load("tiny", tmp_path)


# ------------------------------------------------------------------------ IDX


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 5, 7), (3, 2, 4, 5)])
def test_idx_gives_back_what_was_written(tmp_path, shape, suffix):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f"file{suffix}"
    idx.write(path, array)
    found, checksum = idx.read_with_sha256(path, ndim=len(shape))
    assert found.dtype == np.uint8 and np.array_equal(found, array) and found.shape == shape
    assert checksum == idx.raw_sha256(path) == hashlib.sha256(idx.encode(array)).hexdigest()
    again = tmp_path / f"again{suffix}"
    idx.write(again, array)
    assert again.read_bytes() == path.read_bytes()
    if suffix:
        assert path.read_bytes()[3:8] == bytes(5)  # no file name, no time of writing


def test_the_header_of_idx_is_the_published_one():
    content = idx.encode(np.zeros((3, 300, 2), np.uint8))
    assert content[:16] == bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 1, 44, 0, 0, 0, 2])
    assert len(content) == 16 + 3 * 300 * 2


def test_idx_holds_bytes_only(tmp_path):
    with pytest.raises(UserError, match="dtype float64"):
        idx.write(tmp_path / "x", np.zeros(3))
    with pytest.raises(UserError, match="5 dimensions"):
        idx.encode(np.zeros((1, 1, 1, 1, 1), np.uint8))


GOOD = idx.encode(np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8))
PACKED = gzip.compress(GOOD, mtime=0)
FAULTS = {
    "empty": (b"", "is empty"),
    "two bytes": (GOOD[:2], "not an IDX file"),
    "text": (b"images, labels\n", "not an IDX file.* starts with 69 6d 61 67"),
    "wrong magic": (b"\0\1" + GOOD[2:], "not an IDX file"),
    "floats": (GOOD[:2] + b"\x0d" + GOOD[3:], "type 0x0d: expected 0x08"),
    "no dimensions": (GOOD[:3] + b"\0" + GOOD[4:], "has 0 dimensions"),
    "two dimensions": (GOOD[:3] + b"\2" + GOOD[4:], "has 2 dimensions: expected 3"),
    "cut header": (GOOD[:11], "truncated: it ends inside its header"),
    "cut data": (GOOD[:-1], "declares 6×5×4 values and the file has 119"),
    "no items": (GOOD[:4] + bytes(4) + GOOD[8:16], "has no values"),
    "trailing byte": (GOOD + b"\0", "has bytes after the 6×5×4 values"),
    "huge": (GOOD[:4] + b"\xff" * 12, "declares 4294967295×.* expected at most"),
    "large": (GOOD[:4] + struct.pack(">3I", 1000, 1000, 1000) + GOOD[16:], "far fewer"),
    "gzip cut": (PACKED[:-20], "is truncated: its gzip stream"),
    "gzip cut at its checksum": (PACKED[:-4], "is truncated: its gzip stream"),
    "gzip header only": (PACKED[:10], "is truncated: its gzip stream"),
    "gzip damaged": (PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:], "is damaged: .*CRC"),
    "gzip bad method": (PACKED[:2] + b"\7" + PACKED[3:], "is damaged"),
    "gzip bad block": (PACKED[:10] + b"\7" + PACKED[11:], "is damaged"),
    "gzip of nothing": (gzip.compress(b""), "is empty"),
    "gzip of text": (gzip.compress(b"some text"), "not an IDX file"),
    "gzip of cut data": (gzip.compress(GOOD[:-1]), "the file has 119"),
    "gzip of too much": (gzip.compress(GOOD + b"\0"), "has bytes after"),
    "gzip and garbage": (PACKED + b"garbage", "is damaged"),
    "two gzip streams": (PACKED + PACKED, "has bytes after"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_one_sentence_that_names_it(tmp_path, fault):
    content, message = FAULTS[fault]
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        idx.read(path, ndim=3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_path_that_is_no_readable_file(tmp_path):
    with pytest.raises(UserError, match="is a folder: expected an IDX file"):
        idx.read(tmp_path)
    with pytest.raises(UserError, match="there is no readable file .*missing"):
        idx.read(tmp_path / "missing")
    with pytest.raises(UserError, match="there is no readable file"):
        idx.read("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
        with pytest.raises(UserError, match="not a regular file"):
            idx.read(tmp_path / "pipe")


def test_a_file_without_permission(tmp_path, monkeypatch):
    idx.write(tmp_path / "file", np.zeros(3, np.uint8))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # the superuser may read everything
    with pytest.raises(UserError, match="cannot be read .Permission denied"):
        idx.read(tmp_path / "file")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_lying_header_allocates_nothing(tmp_path, pack):
    path = tmp_path / "liar"
    path.write_bytes(pack(GOOD[:4] + struct.pack(">3I", 1023, 1024, 1024) + GOOD[16:]))
    tracemalloc.start()
    with pytest.raises(UserError, match="truncated"):
        idx.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_raw_sha256_stops_at_a_limit(tmp_path, monkeypatch):
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(100_000)))
    monkeypatch.setattr(idx, "MAX_BYTES", 99_999)
    with pytest.raises(UserError, match="more than 99999 bytes"):
        idx.raw_sha256(tmp_path / "bomb")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    base=st.sampled_from([GOOD, PACKED, b""]),
    position=st.integers(0, len(GOOD)),
    patch=st.binary(max_size=12),
    keep=st.integers(0, 2 * len(GOOD)),
)
def test_any_bytes_give_an_array_or_a_user_error(tmp_path, base, position, patch, keep):
    path = tmp_path / "fuzzed"
    path.write_bytes((base[:position] + patch + base[position + len(patch) :])[:keep])
    try:
        array, checksum = idx.read_with_sha256(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert hashlib.sha256(idx.encode(array)).hexdigest() == checksum


# ------------------------------------------------------------------------ download


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files`` under /good/; the other folders go wrong in their own ways."""

    def do_GET(self):
        kind, name = self.path.strip("/").split("/")
        self.server.asked.append(self.path)
        content = self.server.files.get(name, b"")
        if kind == "missing":
            return self.send_error(404)
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            return self.end_headers()
        if kind == "lies":
            content = gzip.compress(b"not what you asked for")
        if kind == "html":
            content = b"<html>please log in</html>"
        if kind == "endless":
            content = bytes(3_000_000)
        if kind == "slow":
            time.sleep(1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if kind == "cut" else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tiny):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.address = f"http://127.0.0.1:{server.server_address[1]}/"
    server.asked = []
    server.files = {
        catalogue.published_name(role): gzip.compress(idx.encode(array))
        for role, array in tiny["tiny"].items()
    }
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_get_fills_the_cache_and_load_finds_it(server, tiny, tmp_path):
    seen = []
    folder = data.get("tiny", mirrors=[server.address + "good/"],
                      report=lambda *row: seen.append(row))
    assert folder == tmp_path / "cache" / "scratchgen" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == sorted(server.files)
    for name, content in server.files.items():
        assert (folder / name).read_bytes() == content
        assert (name, len(content), len(content)) in seen
    assert_is_tiny(data.load("tiny"), tiny["tiny"])


def test_get_keeps_what_is_there_and_mends_what_is_broken(server, tmp_path):
    mirrors = [server.address + "good/"]
    folder = data.get("tiny", tmp_path / "mine", mirrors=mirrors)
    assert folder == tmp_path / "mine" / "tiny" and len(server.asked) == 4
    data.get("tiny", tmp_path / "mine", mirrors=mirrors)
    assert len(server.asked) == 4
    broken = folder / "train-labels-idx1-ubyte.gz"
    broken.write_bytes(b"\x1f\x8b")
    data.get("tiny", tmp_path / "mine", mirrors=mirrors)
    assert server.asked[4:] == ["/good/train-labels-idx1-ubyte.gz"]
    assert broken.read_bytes() == server.files[broken.name]


BAD_MIRRORS = {
    "missing": "answers 404",
    "lies": "sends another file",
    "html": "sends another file",
    "cut": "ends after [0-9]+ of [0-9]+ bytes|IncompleteRead",
    "endless": "announces 3000000 bytes, where at most",
    "slow": "timed out",
}


@pytest.mark.parametrize("kind", BAD_MIRRORS)
def test_a_bad_mirror_is_passed_over_for_the_next(server, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    folder = data.get("tiny", mirrors=[server.address + kind + "/", server.address + "good/"])
    assert sorted(path.name for path in folder.iterdir()) == sorted(server.files)
    for name, content in server.files.items():
        assert (folder / name).read_bytes() == content
    assert len(server.asked) == 8


@pytest.mark.parametrize("kind", BAD_MIRRORS)
def test_bad_mirrors_alone_leave_nothing_behind(server, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    with pytest.raises(UserError, match=BAD_MIRRORS[kind]) as caught:
        data.get("tiny", mirrors=[server.address + kind + "/"])
    folder = tmp_path / "cache" / "scratchgen" / "tiny"
    assert all(path.suffix == ".part" for path in folder.iterdir())  # a later one goes on from it
    assert f"into {folder}" in str(caught.value)


def test_redirects_are_followed(server):
    folder = data.get("tiny", mirrors=[server.address + "moved/"])
    assert len(list(folder.iterdir())) == 4


def test_offline_says_where_to_put_the_files(tiny, tmp_path):
    with socket.socket() as unused:  # bound, not listening: nobody answers
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(UserError, match="check the network") as caught:
            data.get("tiny", mirrors=[url, "http://name.invalid/"])
    message = str(caught.value)
    assert str(tmp_path / "cache" / "scratchgen" / "tiny") in message and "\n" not in message
    assert "127.0.0.1" in message and "name.invalid" in message
    assert all(catalogue.published_name(role) in message for role in ROLES)


def test_a_broken_download_does_not_replace_a_file(server, tmp_path):
    folder = tmp_path / "cache" / "scratchgen" / "tiny"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"something of the user")
    with pytest.raises(UserError, match="sends another file"):
        data.get("tiny", mirrors=[server.address + "lies/"])
    assert (folder / "train-images-idx3-ubyte.gz").read_bytes() == b"something of the user"


def test_an_interrupted_download_leaves_a_part_and_no_file(server, tmp_path):
    def interrupt(file, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.get("tiny", mirrors=[server.address + "good/"], report=interrupt)
    names = [path.name for path in (tmp_path / "cache" / "scratchgen" / "tiny").iterdir()]
    assert names == [".train-images-idx3-ubyte.gz.part"]


def test_an_unwritable_folder_is_a_user_error(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to the folder .*tiny"):
        data.get("tiny", tmp_path / "file", mirrors=[server.address + "good/"])


def test_a_full_disk_is_a_user_error(server, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        data.get("tiny", mirrors=[server.address + "good/"])
    assert list((tmp_path / "cache" / "scratchgen" / "tiny").iterdir()) == []


def test_the_embedded_set_needs_no_download():
    assert data.get("mnist-mini", mirrors=["http://name.invalid/"]).name == "mnist-mini"
    for name in ("mnist", "fashion-mnist"):
        assert name in catalogue.SETS[name].folders  # where load finds what get has fetched
        assert len(catalogue.SETS[name].mirrors) >= 2
        assert all(url.startswith("http") and url.endswith("/")
                   for url in catalogue.SETS[name].mirrors)


# ------------------------------------------------------------------------ loader


def some_images(n=23, shape=(5, 3, 2), seed=0):
    """n random images that can be told apart, and their numbers as labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, *shape), np.uint8), np.arange(n)


def collect(batches):
    x, labels = zip(*batches, strict=True)
    return np.concatenate(x), np.concatenate(labels)


def test_an_epoch_holds_every_image_once_with_its_label_and_values():
    x, labels = some_images()
    loader = data.Loader(x, labels, batch_size=7, seed=1)
    got, numbers = collect(loader.batches(0))
    assert got.dtype == np.float32 and got.shape == x.shape
    assert sorted(numbers) == list(range(23)) and list(numbers) != list(range(23))
    assert np.array_equal(got, (x[numbers] / 255).astype(np.float32))


def test_every_grey_value_is_the_nearest_float32_and_255_is_one():
    values = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    x, _ = collect(data.Loader(values, np.arange(4), 3, 0, shuffle=False).batches(0))
    assert np.array_equal(x.ravel(), (np.arange(256) / 255.0).astype(np.float32))
    assert x.max() == 1.0 and x.min() == 0.0


@pytest.mark.parametrize(
    ("drop_last", "batch_size", "sizes"),
    [(False, 7, [7, 7, 7, 2]), (True, 7, [7, 7, 7]), (False, 23, [23]), (True, 23, [23]),
     (False, 100, [23]), (False, 1, [1] * 23)],
)
def test_batch_sizes(drop_last, batch_size, sizes):
    loader = data.Loader(*some_images(), batch_size, 1, drop_last=drop_last)
    assert [len(labels) for _, labels in loader.batches(0)] == sizes
    assert loader.batches_per_epoch == len(sizes)


def test_epochs_and_seeds_differ_and_repeat():
    x, labels = some_images(200, (1, 1, 1))
    def order(seed, epoch):
        return collect(data.Loader(x, labels, 10, seed).batches(epoch))[1].tolist()

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)
    assert order(1, 3) == Stream(1, "shuffle/3").permutation(200).tolist()


def test_without_shuffle_the_order_is_kept():
    x, labels = some_images()
    loader = data.Loader(x, labels, 7, 1, shuffle=False)
    for epoch in (0, 5):
        assert collect(loader.batches(epoch))[1].tolist() == list(range(23))


@pytest.mark.parametrize("how", ["none", "threshold", "static", "dynamic"])
@pytest.mark.parametrize("shape", [(5, 3, 2), (4, 4, 1), (1, 1, 1)])
def test_a_fresh_loader_resumes_anywhere(how, shape):
    x, labels = some_images(shape=shape)
    whole = list(data.Loader(x, labels, 6, 1, binarize=how).batches(2))
    for start in range(len(whole) + 1):
        rest = list(data.Loader(x, labels, 6, 1, binarize=how).batches(2, start))
        assert len(rest) == len(whole) - start
        for (a, b), (c, d) in zip(rest, whole[start:], strict=True):
            assert np.array_equal(a, c) and np.array_equal(b, d)


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize("shape", [(5, 3, 2), (7, 3, 1)])
def test_binarisation_does_not_depend_on_the_batch_size(how, shape):
    x, labels = some_images(shape=shape)
    one, numbers = collect(data.Loader(x, labels, 6, 1, binarize=how).batches(2))
    two, same = collect(data.Loader(x, labels, 23, 1, binarize=how).batches(2))
    assert np.array_equal(numbers, same) and np.array_equal(one, two)


def by_image(loader, epoch):
    """The images of an epoch in the order of their numbers."""
    x, numbers = collect(loader.batches(epoch))
    return x[np.argsort(numbers)]


def test_static_draws_once_and_dynamic_in_each_epoch():
    x, labels = some_images(50, (8, 8, 1))
    static = data.Loader(x, labels, 6, 1, binarize="static")
    assert np.array_equal(by_image(static, 0), by_image(static, 1))
    other = data.Loader(x, labels, 6, 2, binarize="static")
    assert not np.array_equal(by_image(static, 0), by_image(other, 0))
    unshuffled = data.Loader(x, labels, 6, 1, shuffle=False, binarize="static")
    assert np.array_equal(by_image(static, 0), by_image(unshuffled, 0))
    fewer = data.Loader(x[:20], labels[:20], 6, 1, binarize="static")
    assert np.array_equal(by_image(static, 0)[:20], by_image(fewer, 0))
    # Unshuffled, or the order of the images alone would make the epochs differ.
    dynamic = data.Loader(x, labels, 6, 1, shuffle=False, binarize="dynamic")
    draws = [by_image(dynamic, epoch) for epoch in (0, 1, 0)]
    assert np.array_equal(draws[0], draws[2])
    # In two independent draws a uniform grey pixel differs with probability 2∫p(1-p)dp = 1/3.
    differ = (draws[0] != draws[1]).mean()
    assert abs(differ - 1 / 3) < 5 * np.sqrt(2 / 9 / draws[0].size)


def test_static_binarisation_of_more_than_one_chunk_uses_new_numbers():
    x = np.full((1024 + 40, 4, 4, 1), 128, np.uint8)
    drawn = by_image(data.Loader(x, np.arange(len(x)), 100, 1, binarize="static"), 0)
    assert not np.array_equal(drawn[1024:], drawn[:40])


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_the_law_of_binarisation(how):
    """Each pixel is one with probability v/255, independently; 0 and 255 are certain."""
    grey = np.array([0, 1, 64, 128, 200, 254, 255], np.uint8)
    x = np.broadcast_to(grey[:, None, None], (20_000, 7, 1, 1))
    drawn = collect(data.Loader(x, np.zeros(20_000, int), 500, 3, binarize=how).batches(0))[0]
    assert set(np.unique(drawn)) == {0.0, 1.0} and drawn.dtype == np.float32
    p = grey / 255
    error = np.abs(drawn.mean(axis=(0, 2, 3)) - p)
    assert np.all(error <= 5 * np.sqrt(p * (1 - p) / 20_000))
    correlation = np.corrcoef(drawn[:, 2:5, 0, 0].T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlation) < 5 / np.sqrt(20_000))


def test_binarize_by_name():
    x = np.array([[0.0, 0.5, 0.500001, 1.0]], np.float32)
    assert data.binarize(x, "none") is x
    assert data.binarize(x, "threshold").tolist() == [[0, 0, 1, 1]]
    assert data.binarize(x, "dynamic", Stream(0, "b")).dtype == np.float32
    assert data.binarize(x.astype(np.float64), "threshold").dtype == np.float64
    with pytest.raises(UserError, match="unknown binarisation 'dynamc': did you mean 'dynamic'"):
        data.binarize(x, "dynamc")
    with pytest.raises(UserError, match="pass a stream"):
        data.binarize(x, "static")


def test_the_loader_leaves_its_images_alone_and_gives_new_arrays(mini):
    x, labels = some_images()
    before = x.copy()
    for how in data.BINARIZATIONS:
        batches = data.Loader(x, labels, 6, 1, shuffle=False, binarize=how).batches(0)
        first, _ = next(batches)
        kept = first.copy()
        first += 1
        next(batches)
        assert np.array_equal(first, kept + 1)
    assert np.array_equal(x, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: expected a whole number, 1 or more"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"batch_size": 24, "drop_last": True}, "there would be no batch"),
        ({"binarize": "dynamical"}, "unknown binarisation 'dynamical': did you mean 'dynamic'"),
        ({"seed": -1}, "seed -1"),
        ({"labels": np.arange(22)}, "one integer label per image"),
        ({"images": np.zeros((23, 5, 3, 2), np.float64)}, "expected uint8"),
        ({"images": np.zeros((23, 30), np.uint8)}, r"expected uint8 and \(N, H, W, C\)"),
    ],
)
def test_a_loader_refuses_bad_arguments(change, message):
    x, labels = some_images()
    good = {"images": x, "labels": labels, "batch_size": 6, "seed": 1}
    with pytest.raises(UserError, match=message):
        data.Loader(**{**good, **change})


def test_a_bad_epoch_or_start_is_refused_at_once():
    loader = data.Loader(*some_images(), 6, 1)
    for arguments, message in [((-1,), "epoch is -1"), ((0, -1), "start is -1"),
                               ((0, 5), "start is 5: expected at most the 4 batches"),
                               ((0.5,), "epoch is 0.5")]:
        with pytest.raises(UserError, match=message):
            loader.batches(*arguments)  # not only when the first batch is asked for


def test_an_epoch_of_60_000_images_takes_well_under_a_second():
    x = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), np.uint8)
    loader = data.Loader(x, np.zeros(60_000, np.uint8), 128, 1)
    loader.order(0)  # compiles the generator
    times = []
    for epoch in range(3):
        begin = time.perf_counter()
        for _ in loader.batches(epoch):
            pass
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.5  # 0.05 s on two idle cores; the rest is room for a busy machine


# ------------------------------------------------------------------------ corruption

CORRUPTIONS = [data.Masking(0.25), data.SaltAndPepper(0.3), data.Gaussian(0.5)]
by_kind = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: type(c).__name__)


def grey(n=400_000, dtype=np.float32):
    """Values strictly inside (0, 1), so that every 0 and 1 afterwards is the corruption's."""
    values = 0.1 + 0.8 * np.random.default_rng(5).random(n)
    return values.astype(np.float32).astype(dtype).reshape(-1, 20, 10, 1)


def test_masking_zeroes_its_fraction():
    x = grey()
    noisy = data.Masking(0.25)(x, Stream(1, "corruption")).noisy
    zeroed = noisy == 0
    assert np.array_equal(noisy[~zeroed], x[~zeroed])
    assert abs(zeroed.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / x.size)
    # Independent of the neighbour: both zeroed with probability 1/16.
    pairs = zeroed[:, :, :-1] & zeroed[:, :, 1:]
    assert abs(pairs.mean() - 1 / 16) < 5 * np.sqrt(1 / 16 / pairs.size) * 1.5


def test_salt_and_pepper_sets_its_fraction_by_a_fair_coin():
    x = grey()
    noisy = data.SaltAndPepper(0.3)(x, Stream(1, "corruption")).noisy
    changed = noisy != x
    assert abs(changed.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    assert set(np.unique(noisy[changed])) == {0.0, 1.0}
    coins = noisy[changed]
    assert abs(coins.mean() - 0.5) < 5 * np.sqrt(0.25 / coins.size)


def test_gaussian_adds_normal_noise_of_its_std_and_clips_nothing():
    x = grey()
    pair = data.Gaussian(0.5)(x, Stream(1, "corruption"))
    noise = (pair.noisy - x).astype(np.float64)
    n, variance = noise.size, 0.25
    assert abs(noise.mean()) < 5 * np.sqrt(variance / n)
    assert abs(noise.var() - variance) < 5 * variance * np.sqrt(2 / n)
    # The fourth moment tells a normal law from another of the same variance: 3 ± sqrt(96/n).
    assert abs((noise**4).mean() / variance**2 - 3) < 5 * np.sqrt(96 / n)
    assert abs(np.corrcoef(noise.ravel(), x.ravel())[0, 1]) < 5 / np.sqrt(n)
    assert pair.noisy.min() < 0 and pair.noisy.max() > 1


@by_kind
def test_the_pair_is_clean_and_noisy_and_cannot_be_changed(corruption):
    x = grey(2_000)
    before = x.copy()
    pair = corruption(x, Stream(1, "corruption"))
    assert np.array_equal(x, before) and np.array_equal(pair.clean, before)
    assert not np.array_equal(pair.noisy, before)
    with pytest.raises(FrozenInstanceError):
        pair.clean = pair.noisy
    for array in (pair.clean, pair.noisy):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    x[:] = 0  # what becomes of the batch does not reach the target
    assert np.array_equal(pair.clean, before)


@by_kind
def test_the_noise_does_not_depend_on_the_dtype(corruption):
    single = corruption(grey(6_000), Stream(1, "c"))
    double = corruption(grey(6_000, np.float64), Stream(1, "c"))
    assert single.noisy.dtype == single.clean.dtype == np.float32
    assert double.noisy.dtype == double.clean.dtype == np.float64
    assert np.allclose(single.noisy, double.noisy, rtol=0, atol=1e-6)
    assert np.array_equal(single.noisy == 0, double.noisy == 0)


@by_kind
def test_every_draw_comes_from_the_stream(corruption):
    x, stream = grey(6_000), Stream(1, "c")
    first, second = corruption(x, stream).noisy, corruption(x, stream).noisy
    assert not np.array_equal(first, second)
    assert np.array_equal(second, corruption(x, Stream(1, "c", counter=1_500)).noisy)
    assert stream.counter == 3_000  # 6,000 numbers a draw, four to a count
    assert not np.array_equal(first, corruption(x, Stream(2, "c")).noisy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_the_range(dtype):
    x = grey(40_000, dtype)
    for none in (data.Masking(0), data.SaltAndPepper(0.0), data.Gaussian(0)):
        assert np.array_equal(none(x, Stream(1, "c")).noisy, x)
    assert np.all(data.Masking(1)(x, Stream(1, "c")).noisy == 0)
    everywhere = data.SaltAndPepper(1)(x, Stream(1, "c")).noisy
    assert np.all((everywhere == 0) | (everywhere == 1))


@pytest.mark.parametrize("kind", [data.Masking, data.SaltAndPepper])
@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True])
def test_a_fraction_out_of_range_is_refused(kind, fraction):
    with pytest.raises(UserError, match="fraction is .* expected a number from 0"):
        kind(fraction)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf"), "0.5", None])
def test_a_bad_std_is_refused(std):
    with pytest.raises(UserError, match="std of the Gaussian .* expected a finite number"):
        data.Gaussian(std)


def test_corruption_by_name():
    assert data.corruption_named("masking", 0.25) == data.Masking(0.25)
    assert data.corruption_named("salt-and-pepper", 0.1) == data.SaltAndPepper(0.1)
    assert data.corruption_named("gaussian", 2) == data.Gaussian(2)
    with pytest.raises(UserError, match="unknown corruption 'maskin': did you mean 'masking'"):
        data.corruption_named("maskin", 0.25)
    with pytest.raises(UserError, match="fraction"):
        data.corruption_named("masking", 2)


def test_corruption_wants_float_images():
    for wrong in (np.zeros((2, 3), np.uint8), np.zeros(3, complex), np.array([None])):
        with pytest.raises(UserError, match="expected float32 or float64 images"):
            data.Masking(0.5)(wrong, Stream(1, "c"))
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError, match="expected the same shape and dtype"):
        data.Corrupted(x, x[:1])
    with pytest.raises(UserError, match="expected the same shape and dtype"):
        data.Corrupted(x, x.astype(np.float64))
