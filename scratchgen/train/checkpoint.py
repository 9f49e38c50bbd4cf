"""The checkpoint file: weights, optimiser states and the training state, with a checksum.

It is a single safetensors file, because one rename is atomic and two are not: weights and training
state always belong together. The training state is JSON in the file's metadata. It contains no
times and no paths, so equal training gives equal bytes.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .files import explain_errors

FORMAT = 1  # version of the file format; a file of any other version is refused


@dataclass(frozen=True)
class Checkpoint:
    """``state``: the training state, JSON-serialisable; ``tensors``: dict of name -> ndarray."""

    state: dict
    tensors: dict

    def with_prefix(self, prefix: str) -> dict:
        """The tensors named ``prefix.*``, without the prefix."""
        start = prefix + "."
        return {
            name[len(start):]: array
            for name, array in self.tensors.items()
            if name.startswith(start)
        }


def encode(checkpoint: Checkpoint) -> tuple[bytes, dict]:
    """The bytes of the checkpoint file, and the state stored in it (with format and digest)."""
    from safetensors.numpy import save

    # np.array keeps 0-d arrays 0-d, which np.ascontiguousarray does not.
    tensors = {
        name: np.array(array, order="C") for name, array in sorted(checkpoint.tensors.items())
    }
    state = {**checkpoint.state, "format": FORMAT}
    state["digest"] = _digest(state, tensors)
    return save(tensors, metadata={"state": json.dumps(state, sort_keys=True)}), state


def read(path) -> Checkpoint:
    """Reads a checkpoint file; a missing, damaged or foreign file raises ``UserError``."""
    if not path.exists():
        raise UserError(f"{path.parent} has no {path.name}: train the run first")
    if not path.is_file():  # reading a pipe or a device could block or never end
        raise UserError(f"{path} is not a regular file: expected the checkpoint of a run")
    with explain_errors("read", path):
        metadata, tensors = _read_safetensors(path)
    try:
        state = json.loads(metadata["state"])
        version, digest = state["format"], state.pop("digest")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} was not written by scratchgen: expected the checkpoint of a run"
        ) from None
    if version != FORMAT:
        raise UserError(
            f"{path} has format {version}, this version of scratchgen reads format {FORMAT}: "
            "use the version that wrote it"
        )
    if digest != _digest(state, tensors):
        raise UserError(_damaged(path, "its contents do not match its checksum"))
    del state["format"]
    return Checkpoint(state, tensors)


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            # Copies, because the arrays are views of a file that the next checkpoint replaces.
            tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}
            return file.metadata() or {}, tensors
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(_damaged(path, " ".join(str(error).split()))) from None


def _damaged(path, reason):
    return (f"{path} is damaged ({reason}): restore it from a copy, or train again with another "
            "--out")


def _digest(state, tensors):
    """SHA-256 of the state and of the tensors' names, types, shapes and bytes; safetensors has no
    checksum."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.array(array, order="C").tobytes())
    return digest.hexdigest()
