"""Running the training steps of an epoch, on the CPU or on a GPU, and collecting their losses.

Both devices execute the same steps in the same order. A step is recorded once and then replayed
(``engine/capture.py``). On a GPU the training set is kept in GPU memory if it fits, and each step
gathers its batch there. The losses are written to a buffer in GPU memory, one row
per step, and copied to the host asynchronously, so that the host never waits for the GPU within an
epoch.
"""

from collections.abc import Callable, Iterator

import numpy as np

from .. import data
from ..engine.backend import backend, gpu, kernels
from ..engine.capture import capture, varying
from ..engine.memory import empty, to_device, to_host
from ..engine.tensor import plain
from ..errors import UserError
from ..kernels.step import MOST_NUMBERS

ROWS = 2048                           # steps whose losses fit into the buffer on the GPU
MEMORY_SHARE = 0.5                    # of the free GPU memory that a training set may occupy
step_kernels, noise_kernels = kernels("step"), kernels("noise")

Losses = list[tuple[dict[str, float], int]]             # of steps: (terms, items)


def stepper(loader, model, streams, optimisers, options):
    """The stepper for the current backend; ``options`` are passed to ``training_step``."""
    kind = CudaStepper if backend() == "cuda" else Stepper
    return kind(loader, model, streams, optimisers, options)


class Stepper:
    """Runs the steps on the CPU; the losses of each step are known at once."""

    pending = pending_items = 0       # steps whose losses are not yet known, and their items

    def __init__(self, loader, model, streams, optimisers, options):
        self.loader, self.model, self.streams = loader, model, streams
        self.optimisers, self.options = optimisers, options
        self.prepare()

    def prepare(self):
        """Decide whether steps are recorded."""
        self.step = self.training_step
        if self.model.replayable and self.options["gradient"] == "tape":
            self.step = capture(self.step, lambda: self.model.recording_key(self.optimisers))

    def training_step(self, x, labels):
        """Trains on a batch; returns the losses by name."""
        return self.model.training_step(x, self.streams, self.optimisers, labels=labels,
                                        **self.options)

    def run(self, epoch: int, start: int,
            before_step: Callable[[], None]) -> Iterator[tuple[int, Losses]]:
        """Trains from batch ``start`` to the epoch's end; yields (items, losses) after each step.

        ``before_step()`` is called before each step. ``losses`` are those that became known since
        the last step, in the order of the steps.
        """
        for x, labels in self.loader.batches(epoch, start=start):
            before_step()
            terms = self.step(x.astype(self.model.dtype, copy=False), labels)
            yield len(x), [({name: float(value) for name, value in terms.items()}, len(x))]

    def remaining_losses(self) -> Losses:
        """The losses of all steps that ``run`` has not yielded yet; waits for them."""
        return []


class CudaStepper(Stepper):
    """Replays a recorded step on the GPU; losses become known some steps later."""

    def prepare(self):
        if self.options["gradient"] == "explicit":
            raise UserError("gradients by hand are plain NumPy and cannot be computed on a GPU: "
                            'use --backend numpy or numba, or --gradient tape')
        if self.loader.images.dtype != np.uint8:
            self.model.check_data(self.loader.images)      # batches on the GPU are not checked
        self.buffer, self.pending_steps = LossBuffer(self.model.dtype), []
        self.copy_in_flight = None        # (steps, function that returns the copy or None)
        self.resident = resident(self.loader, self.model.dtype)
        self.size = self.loader.batch_size
        step = self.step_on_resident if self.resident else self.step_on
        self.step = step if not self.model.replayable else capture(step, key=lambda: (
            self.size, self.model.recording_key(self.optimisers)))

    @property
    def pending(self):
        return len(self.pending_steps)

    @property
    def pending_items(self):
        return sum(size for _, size in self.pending_steps)

    def run(self, epoch, start, before_step):
        batches = None if self.resident else self.loader.batches(epoch, start=start)
        if self.resident:
            self.resident.begin(self.loader.order(epoch), start * self.loader.batch_size)
        for size in self.loader.sizes()[start:]:
            self.size = size
            before_step()
            if batches is None:
                names = self.step()
            else:
                x, labels = next(batches)
                names = self.step(x.astype(self.model.dtype, copy=False), labels)
            self.pending_steps.append((names, self.size))
            full = self.pending == ROWS
            yield self.size, self.remaining_losses() if full else self.copied_losses()

    def step_on_resident(self):
        """Trains on the next batch of the training set in GPU memory."""
        return self.step_on(*self.resident.batch(self.size))

    def step_on(self, x, labels):
        """Trains on a batch; writes the losses to the buffer and returns their names."""
        return self.buffer.append(self.training_step(x, labels))

    def copied_losses(self):
        """The losses whose copy to the host has finished; [] while a copy is in flight."""
        if self.copy_in_flight is None:
            self.copy_in_flight = self.pending, gpu().copy_to_host(self.buffer.array)
        count, finished_copy = self.copy_in_flight
        rows = finished_copy()
        if rows is None:
            return []
        self.copy_in_flight = None
        return self._take(rows, count)

    def remaining_losses(self):
        self.copy_in_flight = None
        return self._take(to_host(self.buffer.array), self.pending) if self.pending else []

    def _take(self, rows, count):
        """(terms, items) of the ``count`` oldest pending steps, which are then no longer pending.
        """
        first = self.buffer.count - self.pending
        losses = [(dict(zip(names, rows[(first + i) % ROWS].tolist(), strict=False)), n)
                  for i, (names, n) in enumerate(self.pending_steps[:count])]
        del self.pending_steps[:count]
        return losses


class LossBuffer:
    """A ring buffer in GPU memory: the losses of the last ROWS steps, one row per step."""

    def __init__(self, dtype):
        self.count, self.array = 0, to_device(np.zeros((ROWS, MOST_NUMBERS), dtype))

    def append(self, terms):
        """Writes a step's terms (at most MOST_NUMBERS) to the next row; returns their names."""
        numbers = [to_device(plain(term)).astype(self.array.dtype, copy=False).reshape(1)
                   for term in terms.values()]
        row = varying(self, "count", lambda count: count % ROWS, np.uint64)
        step_kernels.keep(*numbers, *numbers[:1] * (MOST_NUMBERS - len(numbers)), row, self.array)
        self.count += 1
        return tuple(terms)


class ResidentData:
    """A training set in GPU memory with the order of the current epoch."""

    def __init__(self, items, labels, dtype):
        rows = items.reshape(len(items), -1)
        self.items = to_device(rows if rows.dtype == np.uint8 else rows.astype(dtype))
        self.labels = to_device(labels.reshape(-1, 1).astype(dtype))  # small integers are exact
        self.order, self.first = to_device(np.zeros(len(items), np.int64)), 0
        self.dtype = np.dtype(dtype)

    def begin(self, order, first):
        """Sets an epoch's order of the items; the next batch begins at position ``first``."""
        self.order.set(order)
        self.first = first

    def batch(self, size):
        """Gathers the next batch: x (B, D) in the model's dtype, labels (B,)."""
        first = varying(self, "first", lambda first: first, np.uint64)
        x, labels = (empty((size, rows.shape[1]), self.dtype)
                     for rows in (self.items, self.labels))
        grey = self.items.dtype == np.uint8
        noise_kernels.gather(self.items, self.order, first, 255 if grey else 1, x)
        noise_kernels.gather(self.labels, self.order, first, 1, labels)
        self.first += size
        return x, labels.reshape(size).astype(np.int64)


def resident(loader, dtype):
    """The loader's training set in GPU memory.

    None if it does not fit, or if it is binarised again for each batch.
    """
    if loader.binarize == "dynamic":
        return None
    items = loader.images
    if loader.binarize == "threshold":
        items = np.where(data.loader.scale(items) > 0.5, 255, 0).astype(np.uint8)
    item_size = 1 if items.dtype == np.uint8 else np.dtype(dtype).itemsize
    if items.size * item_size > MEMORY_SHARE * gpu().free_memory():
        return None
    return ResidentData(items, loader.labels, dtype)
