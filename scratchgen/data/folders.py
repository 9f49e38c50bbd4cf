"""Search for the files of an image set in the data folders."""

import os
from pathlib import Path

from ..errors import UserError
from . import idx
from .catalogue import ROLES, SETS, file_names, image_set, published_name

ENVIRONMENT = "SCRATCHGEN_DATA"
# Debian's package dataset-fashion-mnist installs the complete set here.
DEBIAN = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}


def cache_folder() -> Path:
    """The user's cache folder for data: ``~/.cache/scratchgen``, or the platform's equivalent."""
    import platformdirs  # here, so that importing scratchgen does not need it

    try:
        return platformdirs.user_cache_path("scratchgen", appauthor=False)
    except RuntimeError:  # a user without a home folder
        return Path("~", ".cache", "scratchgen")


def roots(name, data_dir=None):
    """The folders in which the set ``name`` is looked for, in order.

    Raises UserError if there is no folder ``data_dir``; the others may be missing.
    """
    found = [Path(data_dir).expanduser()] if data_dir is not None else []
    if found and not os.path.isdir(found[0]):
        raise UserError(f"there is no data folder {data_dir}: expected a folder with data sets; "
                        "check the name")
    if os.environ.get(ENVIRONMENT):
        found.append(Path(os.environ[ENVIRONMENT]).expanduser())
    found.append(cache_folder())
    if name in DEBIAN:
        found.append(DEBIAN[name])
    return found


def locate(name, data_dir=None):
    """The files of the set ``name`` as ``{role: Path}``, from the first folder that has them.

    A folder has the set if it has all four files and its test labels are those of the set: MNIST
    and Fashion-MNIST use the same file names, so only the content distinguishes them. The test
    labels are a small file; the other files are checked when they are read. If no folder has the
    set, the first one with four files of unknown content is returned, so that reading them reports
    what is wrong; such files in ``data_dir`` take precedence over the set in other folders.
    Raises UserError if nothing is found.
    """
    spec = image_set(name)
    if spec.embedded:
        return {role: spec.embedded / published_name(role) for role in ROLES}
    unknown, notes = None, []
    for number, root in enumerate(roots(name, data_dir)):
        for folder in (root, *(root / each for each in spec.folders)):
            files = _files_in(folder)
            if len(files) < len(ROLES):
                notes += [f"{folder} lacks {_missing(files)}"] if files else []
                continue
            found = identify(files["t10k-labels"])
            if found == name:
                return files
            if found is None:
                unknown = unknown or files
        if unknown and data_dir is not None and number == 0:
            return unknown
    if unknown:
        return unknown
    raise _not_found(name, data_dir, notes)


def _files_in(folder):
    """``{role: Path}`` of the files in ``folder`` that have one of the accepted names."""
    files = {}
    for role in ROLES:
        paths = [folder / name for name in file_names(role)]
        # A regular file first: archives sometimes unpack to a folder of the same name beside it.
        present = [each for each in paths if os.path.isfile(each)]
        present += [each for each in paths if os.path.isdir(each)]
        if present:
            files[role] = present[0]
    return files


def identify(test_labels):
    """The name of the set whose test labels are in this file; None if unknown or unreadable."""
    try:
        checksum = idx.raw_sha256(test_labels)
    except UserError:
        return None  # the function that reads the file reports the error
    return next((s.name for s in SETS.values() if s.sha256["t10k-labels"] == checksum), None)


def _missing(files):
    return " and ".join(published_name(role) for role in ROLES if role not in files)


def _not_found(name, data_dir, notes):
    looked = ", ".join(str(root) for root in roots(name, data_dir))
    subfolders = " or ".join(image_set(name).folders)
    remarks = f" ({'; '.join(notes)})" if notes else ""
    return UserError(
        f"the data set {name} was not found: looked in {looked} and in subfolders {subfolders} "
        f"of each{remarks}; copy the files {', '.join(published_name(role) for role in ROLES)} "
        f"into one of these folders, run 'scratchgen data get {name}', "
        "or use mnist-mini, which needs no files"
    )
