"""scratchgen: deep learning from scratch, every gradient by hand, every claim executable.

    import scratchgen as sg
    x = sg.tensor([[1.0, 2.0]], requires_grad=True)
    sg.exp(x).sum().backward()
    x.grad

The ops are functions of this package (``sg.exp``, ``sg.conv2d``, …); layers are in ``sg.nn``,
optimisers in ``sg.optim``, data in ``sg.data``, the models in ``sg.models``.
"""

import importlib
import importlib.util
import pathlib
import sys
import types
from typing import TYPE_CHECKING

__version__ = "0.1.0"


def register_kernels():
    """In a checkout the kernels lie beside the package, in ``../kernels``.

    Installed they are ``scratchgen/kernels``; nobody ever imports a top-level ``kernels``.
    """
    if importlib.util.find_spec("scratchgen.kernels") is None:
        module = types.ModuleType("scratchgen.kernels")
        module.__path__ = [str(pathlib.Path(__file__).parents[1] / "kernels")]
        sys.modules["scratchgen.kernels"] = module


register_kernels()

from . import ops  # noqa: E402
from .context import enable_grad, no_grad  # noqa: E402
from .engine.backend import backend, use_backend  # noqa: E402  (after the kernels have been found)
from .engine.capture import capture, use_capture  # noqa: E402
from .engine.gradient import grad  # noqa: E402
from .engine.other_names import PACKAGE, missing  # noqa: E402
from .engine.random import Stream, Streams  # noqa: E402
from .engine.tensor import Tensor, tensor  # noqa: E402
from .errors import UserError  # noqa: E402
from .ops import *  # noqa: E402

if TYPE_CHECKING:
    from . import data, models, nn, optim, plots, study, train
    from .kernels.conv2d_chooser import use_convolution
    from .kernels.gemm_chooser import allow_tf32, use_gemm
    from .study import GradientError, gradcheck
    from .train import load

# Imported at first use, so that ``import scratchgen`` stays quick.
LAZY = {"nn": "nn", "optim": "optim", "data": "data", "models": "models", "train": "train",
        "plots": "plots", "study": "study", "load": "train:load",
        "gradcheck": "study:gradcheck",
        "GradientError": "study:GradientError",
        "use_gemm": "kernels.gemm_chooser:use_gemm",
        "allow_tf32": "kernels.gemm_chooser:allow_tf32",
        "use_convolution": "kernels.conv2d_chooser:use_convolution"}


if not TYPE_CHECKING:                  # a type checker would take any name for one that exists
    def __getattr__(name):
        if name not in LAZY:
            raise missing("scratchgen", name, PACKAGE, __all__)
        module, _, attribute = LAZY[name].partition(":")
        found = importlib.import_module(f".{module}", __name__)
        found = getattr(found, attribute) if attribute else found
        globals()[name] = found
        return found


def __dir__():
    return sorted({*globals(), *LAZY})


__all__ = ["GradientError", "Stream", "Streams", "Tensor", "UserError", "allow_tf32", "backend",
           "capture", "data", "enable_grad", "grad", "gradcheck", "load", "models", "nn", "no_grad",
           "optim", "plots", "study", "tensor", "train", "use_backend", "use_capture",
           "use_convolution", "use_gemm"]
__all__ += ops.__all__
