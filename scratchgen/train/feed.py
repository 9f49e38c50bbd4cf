"""How batches reach the training step, and how its losses come back: on the CPU, and on a GPU.

Both run the same steps in the same order. On a GPU the training set lies in the GPU's memory if it
fits, each step gathers its own batch there, and the step as a whole is recorded once and replayed
(``capture.py``). Its losses stay on the GPU, a row a step, until somebody wants to see them; the
host never waits for a step within an epoch.
"""

import numpy as np

from .. import data
from ..engine.backend import backend, gpu, kernels
from ..engine.capture import capture, varying
from ..engine.memory import empty, to_device, to_host
from ..engine.tensor import plain
from ..errors import UserError
from ..kernels.step import MOST_NUMBERS

ROWS = 2048                           # steps whose losses may wait on the GPU
SHARE = 0.5                           # of the GPU's free memory that a training set may take
step_kernels, noise_kernels = kernels("step"), kernels("noise")


def feed(loader, model, streams, optimisers, options):
    """The feed for the backend in force; ``options``: of ``training_step``."""
    return (Replayed if backend() == "cuda" else Plain)(loader, model, streams, optimisers, options)


class Plain:
    """Step by step: each batch from the loader, each loss at once."""

    waiting = waiting_items = 0       # steps whose losses have not been seen, and their items

    def __init__(self, loader, model, streams, optimisers, options):
        self.loader, self.model, self.streams = loader, model, streams
        self.optimisers, self.options = optimisers, options

    def run(self, epoch, start, before):
        """Train through an epoch; after each step yields (items, [(terms, items), …]).

        ``before()`` is called before each step; the list has the losses that are known by now.
        """
        for x, labels in self.loader.batches(epoch, start=start):
            before()
            terms = self.step(x.astype(self.model.dtype, copy=False), labels)
            yield len(x), [(terms, len(x))]

    def step(self, x, labels):
        terms = self.model.training_step(x, self.streams, self.optimisers, labels=labels,
                                         **self.options)
        return {name: float(value) for name, value in terms.items()}

    def rest(self):
        """The losses of all steps that have not been given out yet."""
        return []


class Replayed(Plain):
    """Step by step, each one recorded once and replayed; losses come when they have arrived."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        if self.options["gradient"] == "explicit":
            raise UserError("gradients by hand are plain NumPy and cannot be computed on a GPU: "
                            'use --backend numpy or numba, or --gradient tape')
        if self.loader.images.dtype != np.uint8:
            self.model.refuse(self.loader.images)      # a batch on the GPU is not looked at
        self.history, self.waiting_steps, self.asked = History(self.model.dtype), [], None
        self.resident = resident(self.loader, self.model.dtype)
        self.size, step = self.loader.batch_size, self.gathered if self.resident else self.given
        self.captured = step if not self.model.replayable else capture(step, key=lambda: (
            self.size, self.model.phase(self.optimisers)))

    waiting = property(lambda self: len(self.waiting_steps))
    waiting_items = property(lambda self: sum(size for _, size in self.waiting_steps))

    def run(self, epoch, start, before):
        batches = None if self.resident else self.loader.batches(epoch, start=start)
        if self.resident:
            self.resident.begin(self.loader.order(epoch), start * self.loader.batch_size)
        for size in self.loader.sizes()[start:]:
            self.size = size
            before()
            if batches is None:
                names = self.captured()
            else:
                x, labels = next(batches)
                names = self.captured(x.astype(self.model.dtype, copy=False), labels)
            self.waiting_steps.append((names, self.size))
            yield self.size, self.rest() if self.waiting == ROWS else self.arrived()

    def gathered(self):
        """A step on the next batch of the resident set."""
        return self.given(*self.resident.batch(self.size))

    def given(self, x, labels):
        """A step on a batch; its losses go to the history, which gives their names."""
        return self.history.keep(self.model.training_step(
            x, self.streams, self.optimisers, labels=labels, **self.options))

    def arrived(self):
        """Losses that have come to the host; nobody waits for them."""
        if self.asked is None:
            self.asked = self.waiting, gpu().copy_out(self.history.array)
        count, copy = self.asked
        rows = copy()
        if rows is None:
            return []
        self.asked = None
        return self.give_out(rows, count)

    def rest(self):
        self.asked = None
        return self.give_out(to_host(self.history.array), self.waiting) if self.waiting else []

    def give_out(self, rows, count):
        """(terms, items) of the ``count`` oldest steps that wait."""
        first = self.history.count - self.waiting
        found = [(dict(zip(names, rows[(first + i) % ROWS].tolist(), strict=False)), n)
                 for i, (names, n) in enumerate(self.waiting_steps[:count])]
        del self.waiting_steps[:count]
        return found


class History:
    """The losses of the last ROWS steps, on the GPU: a row a step, at most eight in a row."""

    def __init__(self, dtype):
        self.count, self.array = 0, to_device(np.zeros((ROWS, MOST_NUMBERS), dtype))

    def keep(self, terms):
        """Write a step's terms into the next row; returns their names."""
        numbers = [to_device(plain(term)).astype(self.array.dtype, copy=False).reshape(1)
                   for term in terms.values()]
        row = varying(self, "count", lambda count: count % ROWS, np.uint64)
        step_kernels.keep(*numbers, *numbers[:1] * (MOST_NUMBERS - len(numbers)), row, self.array)
        self.count += 1
        return tuple(terms)


class Resident:
    """A training set in the GPU's memory, and the order of an epoch; batches are gathered there."""

    def __init__(self, items, labels, dtype):
        rows = items.reshape(len(items), -1)
        self.items = to_device(rows if rows.dtype == np.uint8 else rows.astype(dtype))
        self.labels = to_device(labels.reshape(-1, 1).astype(dtype))  # small integers are exact
        self.order, self.first = to_device(np.zeros(len(items), np.int64)), 0
        self.dtype = np.dtype(dtype)

    def begin(self, order, first):
        """An epoch's order; its next batch begins at place ``first``."""
        self.order.set(order)
        self.first = first

    def batch(self, size):
        """(x (B, D) in the model's precision, labels (B,)) of the next batch."""
        first = varying(self, "first", lambda first: first, np.uint64)
        x, labels = (empty((size, rows.shape[1]), self.dtype)
                     for rows in (self.items, self.labels))
        grey = self.items.dtype == np.uint8
        noise_kernels.gather(self.items, self.order, first, 255 if grey else 1, x)
        noise_kernels.gather(self.labels, self.order, first, 1, labels)
        self.first += size
        return x, labels.reshape(size).astype(np.int64)


def resident(loader, dtype):
    """The loader's training set on the GPU; None where it does not fit, or is drawn anew."""
    if loader.binarize == "dynamic":
        return None
    items = loader.images
    if loader.binarize == "threshold":
        items = np.where(data.loader.scale(items) > 0.5, 255, 0).astype(np.uint8)
    wide = 1 if items.dtype == np.uint8 else np.dtype(dtype).itemsize
    if items.size * wide > SHARE * gpu().free_memory():
        return None
    return Resident(items, loader.labels, dtype)
