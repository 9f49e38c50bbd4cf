"""Image sets, batches of them, and their corruption."""

from .catalogue import image_set, names
from .corruption import (
    CORRUPTIONS,
    Corrupted,
    Gaussian,
    Masking,
    SaltAndPepper,
    corruption_named,
)
from .folders import cache_folder
from .images import Dataset, describe, load, verify
from .loader import BINARIZATIONS, Loader, binarize

__all__ = [
    "BINARIZATIONS",
    "CORRUPTIONS",
    "Corrupted",
    "Dataset",
    "Gaussian",
    "Loader",
    "Masking",
    "SaltAndPepper",
    "binarize",
    "cache_folder",
    "corruption_named",
    "describe",
    "get",
    "image_set",
    "load",
    "names",
    "verify",
]


def get(name, data_dir=None, report=None, mirrors=None):
    """Download the set ``name``; see ``download.get``, which says what it does and raises."""
    from . import download  # not at the top: the HTTP library takes 50 ms to import

    return download.get(name, data_dir, report, mirrors)
