"""The data of a run: loading them, their path in config.toml, and a checksum of their content."""

import os
import warnings
import zlib
from pathlib import PurePath

import numpy as np

from .. import data
from ..data import own_images
from ..data.catalogue import SETS
from ..data.densities import DENSITIES
from ..engine.backend import on_the_cpu
from ..errors import Notice, UserError
from . import config, runs


def load_data(resolved, folder=None):
    """The data set of a configuration; ``folder``: the run folder, for a stored run."""
    settings = resolved["data"]
    try:
        with on_the_cpu():
            return data.load(
                settings["name"], data_dir=settings["dir"] or None, limit=settings["limit"] or None
            )
    except UserError as error:
        raise (_moved(error, resolved, folder) if folder else error) from None


def _moved(error, resolved, folder):
    """The error for a stored run's data that cannot be read; missing files may have been moved."""
    name = resolved["data"]["name"]
    if not os.path.isabs(name) or os.path.exists(name):
        return error
    return UserError(f"{error}; if the data were moved, give their new path: scratchgen train "
                     f"{resolved['run']['model']} --resume --out {folder} --data PATH")


def dataset_of(path: str | os.PathLike[str]) -> data.Dataset | data.Points:
    """Loads the data set of the run in ``path``; warns with a ``Notice`` if it has changed."""
    run = runs.open_run(path)
    dataset = load_data(run.config(), path)
    notice_changed(dataset, run.checkpoint().state, path)
    return dataset


def split_validation(dataset, share):
    """(training part, validation part); the last ``share`` of the training items is held out.

    The validation part is None for a share of 0.
    """
    if not share:
        return dataset.train, None
    items, labels = dataset.train
    first = len(items) - max(1, round(share * len(items)))
    if first < 1:
        raise UserError(
            f"{dataset.name} has {len(items)} training items, and {share:g} of them are held out "
            "for validation: expected at least 2; use more items, or hold out fewer"
        )
    return (items[:first], labels[:first]), (items[first:], labels[first:])


# -- the path


def with_absolute_paths(tables):
    """The tables of a configuration with absolute paths, valid in any working folder.

    Paths are ``data.dir``, ``model.features`` and, for own images, ``data.name``.
    """
    tables = config.merge(tables)
    for table, name in (("data", "name"), ("data", "dir"), ("model", "features")):
        value = tables.get(table, {}).get(name)
        if not value or not isinstance(value, (str, os.PathLike)):
            continue                            # not given, or an error that the schema reports
        if name == "name" and (value in SETS or value in DENSITIES
                               or not own_images.is_path(value)):
            continue
        tables[table][name] = path = os.path.abspath(os.path.expanduser(value))
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"the path {path!r} is not UTF-8: expected UTF-8, because config.toml "
                            "stores the path; rename the file or folder") from None
    return tables


def data_name(resolved):
    """The name of the data set; for own images the last part of their path."""
    path = PurePath(resolved["data"]["name"])
    return path.name if path.is_absolute() else resolved["data"]["name"]


# -- the checksum


def checksums(dataset):
    """Checksums of a data set, stored in the checkpoint's state and compared when a run resumes.

    ``data`` is of the training items' bytes; ``data_rest`` of the shapes and dtypes, the labels and
    the test part.
    """
    items, *others = *dataset.train, *dataset.test
    rest = zlib.crc32(f"{items.dtype} {items.shape}".encode())
    for array in others:
        rest = zlib.crc32(f"{array.dtype} {array.shape}".encode(), rest)
        rest = zlib.crc32(np.ascontiguousarray(array), rest)
    return {"data": zlib.crc32(np.ascontiguousarray(items)), "data_rest": rest}


def _difference(found, state):
    """Which part of the data differs between the checksums ``found`` and those in a checkpoint's
    ``state``; None if all agree. (Older checkpoints have a checksum of the training items only.)"""
    if found["data"] != state.get("data"):
        return "training items"
    if found["data_rest"] != state.get("data_rest", found["data_rest"]):
        return "shapes, labels or test items"
    return None


def check_unchanged(found, state, name, folder):
    """Raises ``UserError`` if the checksums ``found`` of the data ``name`` differ from those in the
    checkpoint's ``state`` of the run in ``folder``."""
    what = _difference(found, state)
    if what is None:
        return
    option = "--data" if os.path.isabs(name) else "--data-dir"
    raise UserError(f"the {what} of {name} are not those that {folder} was trained on: restore "
                    f"them, give the path of the original data with {option}, or train again with "
                    "another --out")


def notice_changed(dataset, state, folder):
    """Warns with a ``Notice`` if the data of the run in ``folder`` have changed: pictures and
    metrics then show other data than the model was trained on."""
    what = _difference(checksums(dataset), state)
    if what is not None:
        warnings.warn(f"the {what} of {dataset.name} are not those that {folder} was trained on",
                      Notice, stacklevel=3)
