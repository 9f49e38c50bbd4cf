"""Layers, initial weights, and ``Module``, the base class of networks."""

from typing import TYPE_CHECKING

from ..engine.other_names import NN, missing
from .conv import Conv2d, ConvTranspose2d
from .dense import Dense, TiedDense
from .dropout import Dropout
from .function import Activation, Function
from .initialisers import (
    INITIALISERS,
    dcgan,
    glorot,
    glorot_sigmoid,
    he,
    initial,
    initial_bias,
    pytorch,
)
from .module import Module
from .norm import BatchNorm
from .parameters import Buffer, Parameter
from .pool import AvgPool2d, MaxPool2d, Upsample
from .sequential import Sequential
from .shape import Flatten, Reshape

__all__ = ["INITIALISERS", "Activation", "AvgPool2d", "BatchNorm", "Buffer", "Conv2d",
           "ConvTranspose2d", "Dense", "Dropout", "Flatten", "Function", "MaxPool2d", "Module",
           "Parameter", "Reshape", "Sequential", "TiedDense", "Upsample", "dcgan", "glorot",
           "glorot_sigmoid", "he", "initial", "initial_bias", "pytorch"]


if not TYPE_CHECKING:                  # a type checker would take any name for one that exists
    def __getattr__(name):
        raise missing("scratchgen.nn", name, NN, __all__)
