"""Building the model of a configuration, and loading its weights from a checkpoint."""

import contextlib
import os

import numpy as np

from ..errors import UserError
from ..models import Model
from . import config, runs, schema


def load(path: str | os.PathLike[str]) -> Model:
    """The trained model of the run folder ``path``, in eval mode."""
    run = runs.open_run(path)
    resolved, checkpoint = run.config(), run.checkpoint()
    with explain_mismatch(run):
        model = build(resolved, checkpoint.state["image_shape"])
        load_weights(model, checkpoint, resolved)
        model.epoch, model.step = checkpoint.state["epoch"], checkpoint.state["step"]
    model.eval()
    return model


def build(resolved, item_shape):
    """The model of a resolved configuration, with initial weights."""
    settings = resolved["run"]
    model = schema.model_class(settings["model"])
    return model(
        config.model_config(resolved),
        tuple(item_shape),
        settings["seed"],
        dtype=np.dtype(settings["dtype"]),
        **({"features": _features(resolved, tuple(item_shape))} if model.probes else {}),
    )


def _features(resolved, item_shape):
    """The trained model whose features a probe reads; its items must have the same shape."""
    path = resolved["model"]["features"]
    if not path:
        raise UserError("a probe reads the features of a trained run: name its folder with "
                        "--features RUN")
    model = load(path)
    if model.image_shape != item_shape:
        raise UserError(f"the model of {path} was trained on items of shape {model.image_shape}, "
                        f"and the data have {item_shape}: probe it on data of the same shape")
    return model


def load_weights(model, checkpoint, resolved):
    """Copies the checkpoint's weights into ``model``; ``ValueError`` for another kind of model."""
    kind = checkpoint.state["model"]
    if kind != resolved["run"]["model"]:
        raise ValueError(f"it contains a {kind}")
    model.load_state_dict(checkpoint.with_prefix("model"))


@contextlib.contextmanager
def explain_mismatch(run):
    """Raises ``UserError`` instead of the errors of a checkpoint that does not fit config.toml."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{run.checkpoint_path} does not fit the model that {run.path}/config.toml "
            f"describes ({error}): restore the two files from the same run"
        ) from None
