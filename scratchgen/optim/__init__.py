"""Optimisers, gradient clipping, schedules of the learning rate."""

from typing import TYPE_CHECKING

from ..engine.other_names import OPTIM, missing
from .base import Optimiser
from .clipping import clip_norm, clip_value
from .optimisers import OPTIMISERS, SGD, Adagrad, Adam, AdamW, RMSprop, make, options_of
from .schedules import cosine, exponential, piecewise, warmup

__all__ = ["OPTIMISERS", "SGD", "Adagrad", "Adam", "AdamW", "Optimiser", "RMSprop", "clip_norm",
           "clip_value", "cosine", "exponential", "make", "options_of", "piecewise", "warmup"]


if not TYPE_CHECKING:                  # a type checker would take any name for one that exists
    def __getattr__(name):
        raise missing("scratchgen.optim", name, OPTIM, __all__)
