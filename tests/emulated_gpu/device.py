"""The emulated GPU as the device that ``kernels/cuda.py`` launches on."""

import contextlib
import threading

import numpy as np
from scratchgen.kernels.gpu import Gpu

from .emulator import EmulationError, Emulator


class EmulatedGpu(Emulator):
    """In place of ``kernels/gpu.py``: the same methods, on the CPU.

    Streams, captures and copies are Gpu's own code, on the stand-in for CuPy.
    """

    name, processors, capability = "emulated", 4, 90

    enter_thread, stream, is_capturing = Gpu.enter_thread, Gpu.stream, Gpu.is_capturing
    capturing, switch, not_captured, cached = (Gpu.capturing, Gpu.switch, Gpu.not_captured,
                                               Gpu.cached)
    upload, copy_out = Gpu.upload, Gpu.copy_out

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.local = threading.local()

    def launch(self, kernel, expression, grid, block, args):
        if self.is_capturing() and (kernel.code, expression) not in self.kernels:
            raise EmulationError(f"the kernel {expression} is compiled and loaded while a graph is "
                                 "captured, which a GPU may not allow: launch it once before")
        super().launch(kernel.code, expression, kernel.parameters, grid, block, args)

    def synchronize(self):
        self.work.synchronize("synchronize()")

    @contextlib.contextmanager
    def watching(self, begins):
        known = set(self.kernels)
        yield
        for _, expression in set(self.kernels) - known:
            begins(expression)

    def pinned(self, shape, dtype):
        return np.empty(shape, dtype)

    def free_memory(self):
        return 1 << 30
