"""The emulated GPU as the device that ``kernels/cuda.py`` launches on."""

import contextlib

import numpy as np

from .emulator import EmulationError, Emulator


class EmulatedGpu(Emulator):
    """In place of ``kernels/gpu.py``: the same methods, on the CPU."""

    name, processors, capability = "emulated", 4, 90

    def launch(self, kernel, expression, grid, block, args):
        if self.stream.graph is not None and (kernel.code, expression) not in self.kernels:
            raise EmulationError(f"the kernel {expression} is compiled and loaded while a graph is "
                                 "captured, which a GPU may not allow: launch it once before")
        super().launch(kernel.code, expression, kernel.parameters, grid, block, args)

    @contextlib.contextmanager
    def capturing(self):
        recorded = Recorded()
        self.begin_capture()
        try:
            yield recorded
        finally:
            recorded.graph = self.end_capture()

    @contextlib.contextmanager
    def watching(self, begins):
        known = set(self.kernels)
        yield
        for _, expression in set(self.kernels) - known:
            begins(expression)

    def copy_in(self, mine, given):
        if isinstance(given, self.xp.ndarray):
            self.xp.copyto(mine, given)
        else:
            mine.set(np.asarray(given, mine.dtype))

    def copy_out(self, array):
        copy = self.xp.asnumpy(array)
        return lambda: copy

    def free_memory(self):
        return 1 << 30


class Recorded:
    """A captured step."""

    graph = None

    def launch(self):
        self.graph.launch()
