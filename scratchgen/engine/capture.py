"""A training step recorded once and replayed: one launch instead of a hundred.

On a GPU a small network waits for launches, not for arithmetic: Python and the driver need some
microseconds for each kernel, the kernel itself two. A CUDA graph is the list of a step's kernels
with their arguments, which the GPU then runs through by itself.

What differs from step to step must then lie in the GPU's memory: the counters of the random
streams, the optimiser's numbers, the place of the batch. Whoever needs such a number calls
``varying``. Outside a capture this is just the number, carried over. Inside, it becomes a slot of
the graph; a table, made by the same Python code on the host, holds the slots' values for the next
steps, a row a step, and the graph's first kernel copies the row. So a replayed step computes with
the very numbers of one that is not, and both make the same bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..context import Switch
from .backend import backend, gpu, kernels
from .memory import to_device

ROWS, WORDS = 48, 128                 # steps whose numbers are sent ahead, 8-byte words of each
MOST_GRAPHS = 16                      # that one captured step keeps
step_kernels = kernels("step")


def varying(owner, attribute, value, dtype):
    """value(owner.attribute) for a kernel: a number or array of ``dtype``; on a GPU an array.

    ``owner.attribute`` is an int that moves on by the same amount in every step of one kind: a
    stream's counter, an optimiser's count of steps. ``value`` must be a function of it alone.
    """
    if backend() != "cuda":
        return np.asarray(value(getattr(owner, attribute)), dtype)[()]
    if (graph := Graph.recording.get()) is not None:
        return graph.slot(owner, attribute, value, np.dtype(dtype))
    return to_device(np.atleast_1d(np.asarray(value(getattr(owner, attribute)), dtype)))


def capture(step: Callable[..., Any], key: Callable[[], Any] | None = None) -> "Captured":
    """``step``, a function of arrays (or nothing) that trains, as one that is replayed.

    The first call with new shapes runs as it is, the second is recorded, and from then on it is
    replayed: the same results, in the same arrays each time, so that a result which is to last is
    copied. ``key``: a function whose value (hashable) says all that a step depends on besides its
    arrays and what is ``varying``: where it changes, the step is recorded anew. Within the step
    nothing may be read from the GPU. On the CPU, and inside another step that is being recorded,
    ``step`` is called as it is.
    """
    return Captured(step, key or (lambda: ()))


class Captured:
    """What ``capture`` returns; ``graphs``: kind of step → Graph, or None after the first call."""

    frozen = 0                            # differs for different sets of frozen parameters
    absences = 0                          # how often some parameter has begun to miss steps

    def __init__(self, step, key):
        self.step, self.key, self.graphs = step, key, {}

    def __call__(self, *inputs: Any) -> Any:
        if backend() != "cuda" or Graph.recording.get() is not None:
            return self.step(*inputs)
        kind = self.key(), (Captured.frozen, Captured.absences,
                            *((x.shape, x.dtype) for x in inputs))
        if kind not in self.graphs:
            if len(self.graphs) == MOST_GRAPHS:        # let go of the oldest, with its memory
                del self.graphs[next(iter(self.graphs))]
            self.graphs[kind] = None
            return self.step(*(to_device(x) for x in inputs))
        if self.graphs[kind] is None:
            self.graphs[kind] = Graph(self.step, inputs)
        return self.graphs[kind].replay(inputs)


class Clock:
    """An int attribute that a step moves on: where it stood at the step's start, and by how much.
    """

    def __init__(self, owner, attribute):
        self.owner, self.attribute = owner, attribute
        self.start, self.moves = self.now(), 0

    def now(self):
        return getattr(self.owner, self.attribute)

    def set(self, value):
        setattr(self.owner, self.attribute, value)

    def at(self, steps):
        """Where it will stand after so many steps."""
        return (self.start + steps * self.moves) % 2**64


class Graph:
    """One recorded step: its graph, the clocks it moves, and the table of its slots."""

    recording = Switch("graph", None)                  # the one that the thread is recording

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
            # The memory that the step computes in stays the graph's own between replays.
            with device.capturing() as self.captured:
                step_kernels.take_row(self.table, self.row, self.current)
                self.results = step(*self.inputs)
        finally:
            Graph.recording.set(None)
            for clock in self.clocks.values():         # nothing has been done yet
                clock.moves = clock.now() - clock.start
                clock.set(clock.start)
        self.used = ROWS                               # the table is empty

    def slot(self, owner, attribute, value, dtype):
        """Where the graph's kernels read this number: a part of the current row."""
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
