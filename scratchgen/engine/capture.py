"""Records a training step as a CUDA graph and replays it: one launch instead of about a hundred.

For a small network on a GPU, launching takes longer than computing: Python and the driver need
several microseconds for each kernel, the kernel itself about two. A CUDA graph is the list of a
step's kernels with their arguments, which the GPU executes without the host.

Numbers that differ between steps must then be read from the GPU's memory: counters of the random
streams, coefficients of the optimiser, the position of the batch. Code that needs such a number
calls ``varying``. Outside a recording it returns the number, copied to the device. During a
recording it returns a slot of the graph. A table, computed on the host by the same Python code,
contains the values of all slots for the next steps, one row per step, and the first kernel of the
graph copies the current row. A replayed step therefore computes with the same numbers as a step
without recording, and produces the same bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..context import Switch
from .backend import backend, gpu, kernels
from .memory import to_device

ROWS, WORDS = 48, 128                 # steps in the table, and 8-byte words per step
MOST_GRAPHS = 16                      # per captured step
step_kernels = kernels("step")


def varying(owner, attribute, value, dtype):
    """value(owner.attribute) for a kernel: a number or array of ``dtype``; on a GPU an array.

    ``owner.attribute`` is an int that grows by the same amount in every step of one kind: a
    stream's counter, an optimiser's count of steps. ``value`` must depend on nothing else.
    """
    if backend() != "cuda":
        return np.asarray(value(getattr(owner, attribute)), dtype)[()]
    if (graph := Graph.recording.get()) is not None:
        return graph.slot(owner, attribute, value, np.dtype(dtype))
    return to_device(np.atleast_1d(np.asarray(value(getattr(owner, attribute)), dtype)))


def capture(step: Callable[..., Any], key: Callable[[], Any] | None = None) -> "Captured":
    """Return a function that records ``step`` and replays it.

    ``step`` is a training step: a function of arrays, or without arguments. The first call with new
    shapes runs it, the second records it, and later calls replay the recording. The results are
    returned in the same arrays each time, so copy a result that must last. ``key`` is a function
    that returns a hashable value of everything that the step depends on besides its arrays and what
    is ``varying``; the step is recorded again when that value changes. The step must not read
    values from the GPU. On the CPU, and while another step is being recorded, ``step`` is called
    directly.
    """
    return Captured(step, key or (lambda: ()))


class Captured:
    """What ``capture`` returns; ``graphs``: kind of step → Graph, or None after the first call."""

    frozen = 0                            # differs for different sets of frozen parameters
    absences = 0                          # how often a parameter has begun to skip steps

    def __init__(self, step, key):
        self.step, self.key, self.graphs = step, key, {}

    def __call__(self, *inputs: Any) -> Any:
        if backend() != "cuda" or Graph.recording.get() is not None:
            return self.step(*inputs)
        kind = self.key(), (Captured.frozen, Captured.absences,
                            *((x.shape, x.dtype) for x in inputs))
        if kind not in self.graphs:
            if len(self.graphs) == MOST_GRAPHS:        # release the oldest and its memory
                del self.graphs[next(iter(self.graphs))]
            self.graphs[kind] = None
            return self.step(*(to_device(x) for x in inputs))
        if self.graphs[kind] is None:
            self.graphs[kind] = Graph(self.step, inputs)
        return self.graphs[kind].replay(inputs)


class Clock:
    """An int attribute that a step increases: its value at the step's start, and the increase."""

    def __init__(self, owner, attribute):
        self.owner, self.attribute = owner, attribute
        self.start, self.moves = self.now(), 0

    def now(self):
        return getattr(self.owner, self.attribute)

    def set(self, value):
        setattr(self.owner, self.attribute, value)

    def at(self, steps):
        """Its value after so many steps."""
        return (self.start + steps * self.moves) % 2**64


class Graph:
    """One recorded step: its graph, the clocks that it advances, and the table of its slots."""

    recording = Switch("graph", None)                  # the graph that the thread is recording

    def __init__(self, step, inputs):
        device = gpu()
        self.clocks, self.slots, self.width = {}, [], 0
        self.inputs = [to_device(np.zeros(x.shape, x.dtype)) for x in inputs]
        self.uploads = [device.upload(x) for x in self.inputs]
        self.row = to_device(np.zeros(1, np.uint64))
        self.current = to_device(np.zeros(WORDS, np.uint64))
        self.table = to_device(np.zeros((ROWS, WORDS), np.uint64))
        step_kernels.take_row(self.table, self.row, self.current)     # compiled before the capture
        Graph.recording.set(self)
        try:
            # The memory of intermediate results belongs to the graph between replays.
            with device.capturing() as self.captured:
                step_kernels.take_row(self.table, self.row, self.current)
                self.results = step(*self.inputs)
        finally:
            Graph.recording.set(None)
            for clock in self.clocks.values():         # the recording has computed nothing
                clock.moves = clock.now() - clock.start
                clock.set(clock.start)
        self.used = ROWS                               # the table is empty

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
