"""Where a loss that is no longer finite came from."""

import numpy as np

from ..nn import Module


def origin(model, compute):
    """In words, where the first number that is not finite arises while ``compute()`` runs.

    ``compute`` evaluates the layers of ``model`` once more, from the state in which they were.
    """
    names = {id(layer): name for name, layer in model.named_modules().items()}
    found = []

    def note(layer, x, y):
        if found or np.isfinite(y.data).all():
            return
        broken = [p for p in layer.parameters() if not np.isfinite(p.data).all()]
        cause = ", whose weights the step before has made so" if broken else ""
        called = " ".join([*filter(None, [names.get(id(layer))]), f"({type(layer).__name__})"])
        found.append(f"first in the output of layer {called}{cause}")

    with Module.watching(note), np.errstate(all="ignore"):
        compute()
    return found[0] if found else "in the loss itself, the output of every layer being finite"
