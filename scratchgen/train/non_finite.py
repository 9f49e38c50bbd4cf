"""Finding the layer in which a loss became infinite or NaN."""

import numpy as np

from ..nn import Module


def locate_non_finite(model, compute) -> str:
    """Describes where the first non-finite number appears while ``compute()`` runs.

    ``compute`` repeats the forward pass of ``model`` from the state before the failed step.
    """
    names = {id(layer): name for name, layer in model.named_modules().items()}
    found = []

    def check(layer, x, y):
        if found or np.isfinite(y.data).all():
            return
        broken = any(not np.isfinite(p.data).all() for p in layer.parameters())
        cause = ", whose weights became non-finite in the step before" if broken else ""
        name = " ".join([*filter(None, [names.get(id(layer))]), f"({type(layer).__name__})"])
        found.append(f"first in the output of layer {name}{cause}")

    with Module.watching(check), np.errstate(all="ignore"):
        compute()
    return found[0] if found else "in the loss itself (the outputs of all layers are finite)"
