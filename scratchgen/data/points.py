"""Points drawn from a density that is known exactly, as training data."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..engine.random import Stream
from ..errors import UserError
from .densities import density_named
from .mixture import Mixture

TRAIN, TEST = 10_000, 2_000


class Part(NamedTuple):
    """A training or test set, the first arguments of a Loader: images or points, and labels."""

    items: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Points:
    """Points float32 (N, D) and labels (N,), for training and for testing; all read-only.

    ``density`` is the Mixture they were drawn from; the labels are its ``classes``: the number of
    the mode, or of the moon. Raises UserError if the shapes or dtypes of the arrays do not match.
    """

    name: str
    density: Mixture
    train_points: np.ndarray
    train_labels: np.ndarray
    test_points: np.ndarray
    test_labels: np.ndarray

    def __post_init__(self):
        for part in ("train", "test"):
            points, labels = getattr(self, f"{part}_points"), getattr(self, f"{part}_labels")
            check_points(points, labels, f"{part}ing set of {self.name}")
            if points.shape[1:] != self.item_shape:
                raise UserError(f"the {part}ing points of {self.name} have shape {points.shape}: "
                                f"expected (N, {self.density.dimensions}), the dimensions of the "
                                "density")
            for field, array in ((f"{part}_points", points), (f"{part}_labels", labels)):
                view = array.view()  # the array of the caller remains writable
                view.flags.writeable = False
                object.__setattr__(self, field, view)

    @property
    def item_shape(self) -> tuple[int, ...]:
        """(D,), the shape of one point."""
        return (self.density.dimensions,)

    @property
    def train(self) -> Part:
        """(items, labels) for training, the first arguments of a Loader."""
        return Part(self.train_points, self.train_labels)

    @property
    def test(self) -> Part:
        """(items, labels) for testing."""
        return Part(self.test_points, self.test_labels)

    def __repr__(self):
        train, test, d = len(self.train_points), len(self.test_points), *self.item_shape
        return f"Points({self.name}: {train} training and {test} test points in {d} dimensions)"


def points_named(name: str, limit: int | None = None) -> Points:
    """The Points drawn from the density ``name`` with its default options.

    10,000 for training and 2,000 for testing, or the first ``limit`` of each. They depend only on
    the name, not on the seed of a run, so that all runs use the same data. For other points call
    ``density_named(name, …).draw(n, stream)``. Raises UserError for unknown names.
    """
    density = density_named(name)
    arrays = []
    for part, count in (("train", TRAIN), ("test", TEST)):
        points, component = density.draw(count, Stream(0, f"points/{name}/{part}"))
        arrays += [points.astype(np.float32)[:limit], density.classes[component][:limit]]
    return Points(name, density, *arrays)


def are_points(items):
    """Whether an array is a set of points: float32 with two dimensions."""
    items = np.asanyarray(items)
    return items.ndim == 2 and items.dtype == np.float32


def check_points(points, labels, what):
    """Raises UserError unless points are finite float32 (N, D), N ≥ 1, with integer labels (N,)."""
    points, labels = np.asanyarray(points), np.asanyarray(labels)
    if not are_points(points) or points.size == 0:
        raise UserError(f"the {what} has points of dtype {points.dtype} and shape {points.shape}: "
                        "expected float32 and (N, D) with at least one point")
    if not np.isfinite(points).all():
        raise UserError(f"the {what} has points with NaN or infinity: expected finite numbers")
    if labels.shape != points.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(f"the {what} has {len(points)} points and labels of dtype {labels.dtype} "
                        f"and shape {labels.shape}: expected one integer label per point")
