"""Images and points, batches of them, their corruption, and densities known exactly."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .catalogue import image_set, names
from .corruption import CORRUPTIONS, Corrupted, Gaussian, Masking, SaltAndPepper, corruption_named
from .densities import DENSITIES, density_named, gaussian, grid, mixture1d, moons, ring
from .divergences import (
    bayes_accuracy,
    jensen_shannon,
    mode_report,
    optimal_discriminator,
    value_of_game,
)
from .folders import cache_folder
from .images import Dataset, describe, load, verify
from .loader import BINARIZATIONS, Loader, binarize
from .mixture import Mixture
from .points import Points

__all__ = [
    "BINARIZATIONS",
    "CORRUPTIONS",
    "DENSITIES",
    "Corrupted",
    "Dataset",
    "Gaussian",
    "Loader",
    "Masking",
    "Mixture",
    "Points",
    "SaltAndPepper",
    "bayes_accuracy",
    "binarize",
    "cache_folder",
    "corruption_named",
    "density_named",
    "describe",
    "gaussian",
    "get",
    "grid",
    "image_set",
    "jensen_shannon",
    "load",
    "mixture1d",
    "mode_report",
    "moons",
    "names",
    "optimal_discriminator",
    "ring",
    "value_of_game",
    "verify",
]


def get(name: str, data_dir: str | os.PathLike[str] | None = None,
        report: Callable[[str, int, int | None], object] | None = None,
        mirrors: Sequence[str] | None = None) -> Path:
    """Download the set ``name`` and return its folder; see ``download.get``."""
    from . import download

    return download.get(name, data_dir, report, mirrors)
