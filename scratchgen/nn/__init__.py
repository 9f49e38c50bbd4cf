"""Layers, initial weights, and the module that holds a network's parameters."""

from ..engine.other_names import NN, missing
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
from .layers import (
    Activation,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    Function,
    MaxPool2d,
    Reshape,
    Sequential,
    TiedDense,
    Upsample,
)
from .module import Module
from .parameters import Buffer, Parameter

__all__ = ["INITIALISERS", "Activation", "AvgPool2d", "BatchNorm", "Buffer", "Conv2d",
           "ConvTranspose2d", "Dense", "Dropout", "Flatten", "Function", "MaxPool2d", "Module",
           "Parameter", "Reshape", "Sequential", "TiedDense", "Upsample", "dcgan", "glorot",
           "glorot_sigmoid", "he", "initial", "initial_bias", "pytorch"]


def __getattr__(name):
    raise missing("scratchgen.nn", name, NN, __all__)
