"""A training step as a CUDA graph: one launch instead of about a hundred.

For a small network on a GPU, launching takes longer than computing: Python and the driver need
several microseconds for each kernel, the kernel itself about two. A CUDA graph is the list of a
step's kernels with their arguments, which the GPU executes without the host.

Numbers that differ between steps must then be read from the GPU's memory: counters of the random
streams, coefficients of the optimiser, the position of the batch. During a recording ``varying``
(``capture.py``) returns a slot of the graph. A table, computed on the host by the same Python code,
contains the values of all slots for the next steps, one row per step, and the first kernel of the
graph copies the current row. A replayed step therefore computes with the same numbers as a step
without recording, and produces the same bytes.
"""

import numpy as np

from ..context import recorder
from .backend import gpu, kernels
from .memory import to_device
from .recorded import Clock

ROWS, WORDS = 48, 128                 # steps in the table, and 8-byte words per step
step_kernels = kernels("step")


class Graph:
    """One recorded step: its graph, the clocks that it advances, and the table of its slots."""

    def __init__(self, step, inputs):
        device = gpu()
        self.clocks, self.slots, self.width, self.conditions = {}, [], 0, []
        self.inputs = [to_device(np.zeros(x.shape, x.dtype)) for x in inputs]
        self.uploads = [device.upload(x) for x in self.inputs]
        self.row = to_device(np.zeros(1, np.uint64))
        self.current = to_device(np.zeros(WORDS, np.uint64))
        self.table = to_device(np.zeros((ROWS, WORDS), np.uint64))
        step_kernels.take_row(self.table, self.row, self.current)     # compiled before the capture
        recorder.set(self)
        try:
            # The memory of intermediate results belongs to the graph between replays.
            with device.capturing() as self.captured:
                step_kernels.take_row(self.table, self.row, self.current)
                self.results = step(*self.inputs)
        finally:
            recorder.set(None)
            for clock in self.clocks.values():         # the recording has computed nothing
                clock.moves = clock.now() - clock.start
                clock.set(clock.start)
        self.used = ROWS                               # the table is empty

    def bind(self, kernel):
        """The kernel, whose launch the capture records."""
        return kernel

    def slot(self, owner, attribute, value, dtype):
        """The array from which the graph's kernels read this number: a part of the current row."""
        clock = self.clocks.setdefault((id(owner), attribute), Clock(owner, attribute))
        example = np.atleast_1d(np.asarray(value(clock.now()), dtype))
        first, words = self.width, -(-example.nbytes // 8)
        self.width += words
        if self.width > WORDS:
            raise RuntimeError(f"a step with more than {WORDS} words of varying numbers")
        self.slots.append((clock, clock.now() - clock.start, value, dtype, first))
        return self.current[first:first + words].view(dtype)[:example.size]

    def valid(self):
        """Whether the networks are made of the same layers."""
        return all(condition() for condition in self.conditions)

    def replay(self, inputs):
        """Run the step on these inputs; its results lie where they always do."""
        for upload, given in zip(self.uploads, inputs, strict=True):
            upload.send(given)
        if self.used == ROWS or any(c.now() != c.at(self.used) for c in self.clocks.values()):
            self.fill()
        self.captured.launch()
        self.used += 1
        for clock in self.clocks.values():
            clock.set(clock.at(self.used))
        return self.results

    def fill(self):
        """Send the numbers of the next steps, counted from where the clocks stand now."""
        for clock in self.clocks.values():
            clock.start = clock.now()
        table = np.zeros((ROWS, WORDS), np.uint64)
        for clock, offset, value, dtype, first in self.slots:
            for k, row in enumerate(table):
                numbers = np.atleast_1d(np.asarray(value((clock.at(k) + offset) % 2**64), dtype))
                row[first:].view(np.uint8)[:numbers.nbytes] = numbers.view(np.uint8)
        self.table.set(table)
        self.row[...] = 0
        self.used = 0
