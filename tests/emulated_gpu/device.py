"""The emulated GPU as the device that ``kernels/cuda.py`` launches on."""

import contextlib
import threading

import numpy as np
from scratchgen.kernels.gpu import Gpu

from .emulator import EmulationError, Emulator


class EmulatedGpu(Emulator):
    """Replaces the ``Gpu`` of ``kernels/gpu.py``: the same methods, on the CPU.

    Streams, captures and copies run the code of ``Gpu`` itself, on an emulated CuPy.
    """

    name, processors, capability = "emulated", 4, 90

    use_shared_stream, stream, set_stream = Gpu.use_shared_stream, Gpu.stream, Gpu.set_stream
    is_capturing, capturing, outside_capture = Gpu.is_capturing, Gpu.capturing, Gpu.outside_capture
    cached, upload, copy_to_host = Gpu.cached, Gpu.upload, Gpu.copy_to_host

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.local = threading.local()

    def launch(self, kernel, expression, grid, block, args, shared=0):
        if self.is_capturing() and (kernel.code, expression) not in self.kernels:
            raise EmulationError(f"the kernel {expression} is compiled and loaded while a graph is "
                                 "captured, which a GPU may not allow: launch it once before")
        super().launch(kernel.code, expression, kernel.parameters, grid, block, args, shared)

    def synchronize(self):
        self.work.synchronize("synchronize()")

    @contextlib.contextmanager
    def on_compilation(self, callback):
        known = set(self.kernels)
        yield
        for _, expression in set(self.kernels) - known:
            callback(expression)

    def pinned(self, shape, dtype):
        return np.empty(shape, dtype)

    def free_memory(self):
        return 1 << 30
