"""Image sets in memory: the Dataset, loading data by name or path, and checking its files."""

import os
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np

from ..errors import UserError, unknown
from . import idx, own_images
from .catalogue import ROLES, SETS, image_set, names
from .densities import DENSITIES
from .folders import identify, locate, roots
from .points import Part, Points, points_named


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images (N, H, W, C) and labels (N,), for training and for testing; all read-only.

    Images are uint8, or float32 in [0, 1] if the user's own file contains floats. Raises UserError
    if dtypes, shapes or numbers of images and labels do not match.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def __post_init__(self):
        check_pair(self.train_images, self.train_labels, f"training set of {self.name}")
        check_pair(self.test_images, self.test_labels, f"test set of {self.name}")
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise UserError(
                f"the images of {self.name} are {self.train_images.shape[1:]} for training and "
                f"{self.test_images.shape[1:]} for testing: expected the same (H, W, C)"
            )
        for field in ("train_images", "train_labels", "test_images", "test_labels"):
            view = getattr(self, field).view()  # the array of the caller remains writable
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image."""
        return self.train_images.shape[1:]

    item_shape = image_shape  # the name that Points and Dataset have in common

    @property
    def train(self) -> Part:
        """(items, labels) for training, the first arguments of a Loader."""
        return Part(self.train_images, self.train_labels)

    @property
    def test(self) -> Part:
        """(items, labels) for testing."""
        return Part(self.test_images, self.test_labels)

    def __repr__(self):
        size = "×".join(str(n) for n in self.image_shape)
        train, test = len(self.train_images), len(self.test_images)
        return f"Dataset({self.name}: {train} training and {test} test images of {size})"


def check_pair(images, labels, what):
    """Raises UserError unless ``images`` are (N, H, W, C), N ≥ 1, with integer labels (N,).

    Images must be uint8, or float32 in [0, 1].
    """
    images, labels = np.asanyarray(images), np.asanyarray(labels)
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or images.size == 0:
        raise UserError(
            f"the {what} has images of dtype {images.dtype} and shape {images.shape}: "
            "expected uint8 and (N, H, W, C) with at least one image, or float32 in [0, 1]"
        )
    # With a NaN, minimum and maximum are NaN, and the comparison is false.
    if images.dtype == np.float32 and not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"the {what} has float images with values from {images.min()} to {images.max()}: "
            "expected [0, 1]; divide by the largest possible value"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"the {what} has {len(images)} images and labels of dtype {labels.dtype} and shape "
            f"{labels.shape}: expected one integer label per image"
        )


def load(name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None,
         limit: int | None = None) -> Dataset | Points:
    """The Dataset or Points called ``name``: an image set, a density, or a path to own images.

    Image sets: see ``names()``; the content of every file is checked, so the result is the
    published set, bit for bit. Densities ("ring", …): Points, see ``points_named``. Own images: the
    path of a .npy or .npz file or of a folder, see ``own_images.read``; the name of a set takes
    precedence, so write ./mnist for a folder called mnist.
    ``limit``: use only the first ``limit`` items of the training set and of the test set.
    ``data_dir``: the folder that is searched for an image set first; ``mnist-mini`` is embedded.
    Raises UserError for an unknown name, a bad limit, and files that are missing or wrong.
    """
    if limit is not None and (not isinstance(limit, Integral) or isinstance(limit, bool)):
        raise UserError(f"limit is {limit!r}: expected a whole number of images, 1 or more")
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: expected at least 1 image")
    if isinstance(name, str) and name in SETS:
        arrays = _published(name, data_dir)
    elif isinstance(name, str) and name in DENSITIES:
        return points_named(name, limit)
    elif own_images.is_path(name):
        arrays = own_images.read(name, limit)
    else:
        nearest = unknown("data set", name, [*SETS, *DENSITIES])
        raise UserError(f"{nearest}, or the path of a .npy or .npz file or a folder of PNG or JPEG "
                        "files")
    if limit is not None:  # a copy, so that the rest of the set does not stay in memory
        arrays = [array[:limit].copy() for array in arrays]
    return Dataset(str(name), *arrays)


def _published(name, data_dir):
    """[training images, labels, test images, labels] of the set ``name``."""
    spec, files = image_set(name), locate(name, data_dir)
    arrays = [_read_checked(files[role], role, spec) for role in ROLES]
    return [array[..., None] if array.ndim == 3 else array for array in arrays]


def _read_checked(path, role, spec):
    """The array in ``path``; UserError unless it is the file ``role`` of the set ``spec``."""
    expected = spec.shape(role)
    array, checksum = idx.read_with_sha256(path, ndim=len(expected))
    if array.shape != expected:
        raise UserError(
            f"{path} contains an array of shape {array.shape}: expected {expected}, the {role} of "
            f"{spec.name}; images and labels must be the published files; {_remedy(spec)}"
        )
    if checksum != spec.sha256[role]:
        raise UserError(
            f"{path} is not the {role} file of {spec.name}: its content has sha256 {checksum}, "
            f"expected {spec.sha256[role]}; {_remedy(spec)}"
        )
    return array


def _remedy(spec):
    if spec.embedded:
        return "install the package again"
    return f"remove this file and run 'scratchgen data get {spec.name}'"


class SetRow(NamedTuple):
    """One line of the list of sets."""

    name: str
    where: str  # the folder (with a remark if its content is unknown), "embedded", or "not found"
    train: int  # number of training images
    test: int  # number of test images


def describe(data_dir: str | os.PathLike[str] | None = None) -> list[SetRow]:
    """A SetRow for every set: where it was found, and its sizes.

    Only the test labels are opened; ``verify`` reads all files. Raises UserError if ``data_dir`` is
    not a folder.
    """
    return [_describe(image_set(name), data_dir) for name in names()]


def _describe(spec, data_dir):
    roots(spec.name, data_dir)  # a wrong data_dir is an error, not "not found"
    try:
        files = locate(spec.name, data_dir)
    except UserError:
        return SetRow(spec.name, "not found", spec.train, spec.test)
    where = "embedded" if spec.embedded else str(files["t10k-labels"].parent)
    if identify(files["t10k-labels"]) != spec.name:
        where += " (unknown content)"
    return SetRow(spec.name, where, spec.train, spec.test)


class FileRow(NamedTuple):
    """One line of the check of a set."""

    file: str  # path
    sha256: str  # of the raw (decompressed) content, or "unreadable: …"
    ok: bool


def verify(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[FileRow]:
    """A FileRow for each of the four files of the set ``name``.

    The row of a file that cannot be read is not ok. Raises UserError if the name is unknown or the
    files are not found.
    """
    spec, rows = image_set(name), []
    for role, path in locate(name, data_dir).items():
        try:
            checksum = idx.raw_sha256(path)
        except UserError as error:
            checksum = f"unreadable: {error}"
        rows.append(FileRow(str(path), checksum, checksum == spec.sha256[role]))
    return rows
