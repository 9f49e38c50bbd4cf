"""The choice of backend, and the lookup of kernels.

``kernels/dense.py`` contains the versions of each kernel side by side: ``bias_activation_numpy``,
``bias_activation_numba`` and ``bias_activation_cuda``. The suffix is the registration:
``kernels("dense").bias_activation`` is the version for the current backend. A missing version
raises an error that lists the existing ones; there is no silent fallback.
"""

import importlib
from collections.abc import Callable
from typing import Literal

from ..context import Setting, Switch, recorder
from ..errors import unknown

BACKENDS = ("numpy", "numba", "cuda")


class use_backend(Setting):
    """Choose the backend: ``use_backend("numpy")`` permanently, or in a ``with`` block only.

    The choice applies to the calling thread or asynchronous task; a new thread begins with
    "numba".

    ``"numpy"`` is the reference, ``"numba"`` (the default) compiles kernels for the CPU, ``"cuda"``
    runs CUDA C on an NVIDIA GPU; UserError, with what to do, where there is none.
    """

    switch = Switch("backend", "numba")

    def __init__(self, name: Literal["numpy", "numba", "cuda"]):
        if name not in BACKENDS:
            raise unknown("backend", name, BACKENDS)
        if name == "cuda":
            gpu()
        super().__init__(name)


backend: Callable[[], str] = use_backend.switch.get     # the name of the current backend


def on_the_cpu():
    """``with on_the_cpu():`` arrays are NumPy's for every backend; for data that are prepared on
    the host before they are copied to the GPU."""
    return use_backend("numpy" if backend() == "cuda" else backend())


def gpu():
    """The device that the CUDA kernels run on; UserError, with what to do, where there is none."""
    from ..kernels import cuda
    return cuda.device()


class Family:
    """The kernels of one file; attribute ``f`` is ``f_<backend>``, looked up once per backend."""

    def __init__(self, name):
        self._name, self._versions = name, {}

    def __getattr__(self, function):
        key = backend(), function
        version = self._versions.get(key)
        if version is None:
            version = self._versions[key] = self._found(function)
        recording = recorder.get()
        return version if recording is None else recording.bind(version)

    def _found(self, function):
        name = self._name
        module = importlib.import_module(f"scratchgen.kernels.{name}")
        version = getattr(module, f"{function}_{backend()}", None)
        if version is None:
            versions = [b for b in BACKENDS if hasattr(module, f"{function}_{b}")]
            reason = getattr(module, "MISSING", {}).get(f"{function}_{backend()}", "")
            raise NotImplementedError(
                f"kernel {name}.{function} has no {backend()!r} version"
                f"{f' ({reason})' if reason else ''}; it exists for "
                f"{', '.join(versions) or 'none'}")
        if hasattr(version, "launcher"):               # compiled when it is first called
            version = version.launcher()
        return version


def kernels(name):
    """The family of kernels in ``kernels/<name>.py``."""
    return Family(name)
