"""What a run remembers of its data: where they lie, and a checksum of what they hold."""

import os
import warnings
import zlib
from pathlib import PurePath

import numpy as np

from ..data import own_images
from ..data.catalogue import SETS
from ..data.densities import DENSITIES
from ..errors import Notice, UserError
from . import config


def located(tables):
    """The tables of a configuration with every path made absolute.

    A run folder can then be used from any working folder. Paths are ``data.name`` if it means own
    images, ``data.dir`` and ``model.features``.
    """
    tables = config.merge(tables)
    for table, name in (("data", "name"), ("data", "dir"), ("model", "features")):
        value = tables.get(table, {}).get(name)
        if not value or not isinstance(value, (str, os.PathLike)):
            continue                                    # not given, or for the schema to refuse
        if name == "name" and (value in SETS or value in DENSITIES
                               or not own_images.is_path(value)):
            continue
        tables[table][name] = path = os.path.abspath(os.path.expanduser(value))
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"the path {path!r} is not UTF-8: expected UTF-8, as a run keeps it in "
                            "its config.toml; rename the file or folder") from None
    return tables


def data_name(resolved):
    """The data set; of own images only the last part of their path: the rest is of one machine."""
    path = PurePath(resolved["data"]["name"])
    return path.name if path.is_absolute() else resolved["data"]["name"]


def fingerprint(dataset):
    """Checksums of a data set, as entries of a checkpoint's state: resuming on others would not be
    resuming.

    ``data``: of the training items' bytes; ``data_rest``: of the shapes and dtypes, the labels and
    the test part.
    """
    items, *others = *dataset.train, *dataset.test
    rest = zlib.crc32(f"{items.dtype} {items.shape}".encode())
    for array in others:
        rest = zlib.crc32(f"{array.dtype} {array.shape}".encode(), rest)
        rest = zlib.crc32(np.ascontiguousarray(array), rest)
    return {"data": zlib.crc32(np.ascontiguousarray(items)), "data_rest": rest}


def changed(found, state):
    """What differs between the fingerprint ``found`` and that in a checkpoint's ``state``; None if
    nothing does. (Older checkpoints know the training items alone.)"""
    if found["data"] != state.get("data"):
        return "training items"
    if found["data_rest"] != state.get("data_rest", found["data_rest"]):
        return "shapes, labels or test items"
    return None


def check_unchanged(found, state, name, folder):
    """UserError unless the fingerprint ``found`` of the data ``name`` is that in the checkpoint's
    ``state`` of the run in ``folder``."""
    what = changed(found, state)
    if what is None:
        return
    option = "--data" if os.path.isabs(name) else "--data-dir"
    raise UserError(f"the {what} of {name} are not those that {folder} was trained on: put them "
                    f"back, name the place where they lie with {option}, or train anew with "
                    "another --out")


def notice_changed(dataset, state, folder):
    """Warns with a ``Notice`` if the data of the run in ``folder`` have changed: what is looked at
    or measured is then of other data than what was trained on."""
    what = changed(fingerprint(dataset), state)
    if what is not None:
        warnings.warn(f"the {what} of {dataset.name} are not those that {folder} was trained on",
                      Notice, stacklevel=3)


def missing(error, resolved, folder):
    """The error for data that cannot be read: if they were moved, how the run learns of it."""
    name = resolved["data"]["name"]
    if not os.path.isabs(name) or os.path.exists(name):
        return error
    return UserError(f"{error}; if they were moved, tell the run: scratchgen train "
                     f"{resolved['run']['model']} --resume --out {folder} --data PATH")
