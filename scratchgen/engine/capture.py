"""Records a training step once and replays it: the tape is needed for one step only.

A step of a small network spends most of its time in Python: the tape, the checks of shapes, the
memory of results. All of this is the same in every step. ``capture`` records what a step computes,
and later calls repeat only that: on the CPU a list of calls of kernels and NumPy functions
(``recorded.py``), on a GPU a CUDA graph (``cuda_graph.py``).

Numbers that differ between steps are counters of the random streams, coefficients of the optimiser,
the position of the batch. Code that needs such a number calls ``varying``. Outside a recording it
returns the number; during a recording it returns a slot, whose value is computed again, by the same
Python code, for each replayed step. A replayed step therefore computes with the same numbers as a
step without recording, and produces the same bytes.
"""

import hashlib
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..context import Setting, Switch, recorder
from ..errors import Notice
from .backend import backend
from .cuda_graph import Graph
from .memory import ARRAYS, buffers, to_device
from .recorded import Arena, Recording, flat

MOST_RECORDINGS = 16                  # per captured step
SCALARS = (bool, int, float, str, type(None), np.generic)


def varying(owner, attribute, value, dtype):
    """value(owner.attribute) for a kernel: a number or array of ``dtype``; on a GPU an array.

    ``owner.attribute`` is an int that grows by the same amount in every step of one kind: a
    stream's counter, an optimiser's count of steps. ``value`` must depend on nothing else.
    """
    if (recording := recorder.get()) is not None:
        return recording.slot(owner, attribute, value, np.dtype(dtype))
    if backend() != "cuda":
        return np.asarray(value(getattr(owner, attribute)), dtype)[()]
    return to_device(np.atleast_1d(np.asarray(value(getattr(owner, attribute)), dtype)))


class use_capture(Setting):
    """Whether ``sg.capture`` records steps: ``use_capture(False)`` runs every step through the
    tape, permanently or in a ``with`` block only, in the calling thread."""

    switch = Switch("capture", True)

    def __init__(self, wanted: bool):
        super().__init__(bool(wanted))


def capture(step: Callable[..., Any], key: Callable[[], Any] | None = None) -> "Captured":
    """Return a function that records ``step`` and replays it.

    ``step`` is a training step: a function of arrays, or without arguments. On the CPU the first
    call with new shapes runs and records it, the second checks the recording, and later calls
    replay it; on a GPU the first call runs the step, and the second records it. The results are
    returned in the same arrays each time, so copy a result that must last. ``key`` is a function
    that returns a hashable value of everything that the step depends on besides its arrays, its
    modules and what is ``varying``; the step is recorded again when that value changes.

    Python code of the step is not executed in a replay. A step that reads computed numbers, or
    whose replay would give other bytes, is noticed on the CPU: it is run without recording, with a
    ``Notice`` that says why. On a GPU it must not read values. The backend "numpy" records nothing,
    and while another step is being recorded, ``step`` is called directly.
    """
    return Captured(step, key or (lambda: ()))


class Captured:
    """What ``capture`` returns; ``recordings``: kind of step → its recording.

    None instead of a recording: after the first call on a GPU, and on the CPU for a step that
    cannot be recorded, for the ``reason`` (the first one).
    """

    frozen = 0                            # differs for different sets of frozen parameters
    settings = 0                          # differs for different numbers and modes of modules
    changes = 0                           # how often a recording may have become invalid

    def __init__(self, step, key):
        self.step, self.key, self.recordings = step, key, {}
        self.arena, self.busy, self.reason = Arena(), threading.Lock(), None

    def __call__(self, *inputs: Any) -> Any:
        if recorder.get() is not None or backend() == "numpy" or not use_capture.switch.get():
            return self.step(*inputs)
        if not all(type(x) in ARRAYS or isinstance(x, SCALARS) for x in inputs):
            self.notice("an argument is no array")
            return self.step(*inputs)
        kind = (self.key(), Captured.frozen, Captured.settings, Captured.changes,
                *Switch.of_steps(),
                *((x.shape, x.dtype) if hasattr(x, "shape") else x for x in inputs))
        if backend() == "cuda":
            return self.on_gpu(kind, inputs)
        if not self.busy.acquire(blocking=False):      # another thread replays it: its arrays
            return self.step(*inputs)
        try:
            return self.on_cpu(kind, inputs)
        finally:
            self.busy.release()

    def on_gpu(self, kind, inputs):
        if kind not in self.recordings:
            self.release_oldest()
            self.recordings[kind] = None
            return self.step(*(to_device(x) for x in inputs))
        if self.recordings[kind] is None or not self.recordings[kind].valid():
            self.recordings[kind] = Graph(self.step, inputs)
        return self.recordings[kind].replay(inputs)

    def on_cpu(self, kind, inputs):
        if kind not in self.recordings:
            if self.none_has_come_again():
                self.notice("each step differs from those before in a setting, a module or the key")
                return self.step(*inputs)
            self.release_oldest()
            return self.record(kind, inputs)
        recording = self.recordings[kind]
        if recording is None:
            return self.step(*inputs)
        if not recording.valid():
            return self.record(kind, inputs)
        if not recording.checked:
            return self.check(kind, recording, inputs)
        return recording.replay(inputs)

    def release_oldest(self):
        """Make room for one more recording."""
        if len(self.recordings) == MOST_RECORDINGS:
            del self.recordings[next(iter(self.recordings))]

    def none_has_come_again(self):
        """Whether so many kinds of steps have been recorded, and none has come again."""
        return len(self.recordings) == MOST_RECORDINGS and not any(
            recording is not None and recording.checked for recording in self.recordings.values())

    def record(self, kind, inputs):
        """Run the step and record it."""
        recording = Recording(self.arena, self.step, inputs)
        self.keep(kind, recording, recording.refused)
        return recording.results

    def check(self, kind, recording, inputs):
        """Replay the step, then undo it and run it again: both must give the same bytes."""
        clocks = recording.clocks.values()
        before, starts = recording.copy_state(), [clock.now() for clock in clocks]
        recording.replay(inputs)
        replayed, ends = digest(recording, recording.state()), [clock.now() for clock in clocks]
        recording.restore_state(before)
        for clock, start in zip(clocks, starts, strict=True):
            clock.set(start)
        del before
        again = Recording(self.arena, self.step, inputs)
        same = recording.valid() and ends == [clock.now() for clock in clocks] and (
            replayed == digest(again, recording.state()))
        again.checked = True
        self.keep(kind, again, again.refused or (
            None if same else "a replay does not give the same bytes; it may compute with NumPy "
            "on arrays of the tensors (t.data), draw numbers from elsewhere than sg's streams, or "
            "depend on a state of its own"))
        buffers.release_idle()
        return again.results

    def keep(self, kind, recording, reason):
        """Keep the recording, or give the step up for the reason."""
        self.recordings[kind] = recording if reason is None else None
        if reason is not None:
            self.notice(reason)

    def notice(self, reason):
        """Say once why the step runs without recording."""
        if self.reason is None:
            self.reason = reason
            warnings.warn(f"this training step is run without recording: {reason}", Notice,
                          stacklevel=6)


def digest(recording, state):
    """A hash of the bytes of ``state``, and of the results of a recorded step."""
    found = hashlib.blake2b(str(len(recording.calls)).encode())
    for x in (*state, *recording.made, *flat(recording.results)):
        array = np.asarray(getattr(x, "data", x) if not isinstance(x, np.ndarray) else x)
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array))
    return found.digest()
