"""Settings of the calling thread or asynchronous task: whether calls are recorded, which backend.

The settings are local to a thread, like NumPy's ``errstate``: a new thread begins with the
defaults. Asynchronous tasks and ``asyncio.to_thread`` begin with a copy of the settings of the code
that starts them (``contextvars`` in Python's library).
"""

import contextvars
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])


class Switch:
    """One setting: ``get()``, ``set(value)``, and ``with`` blocks that restore the old value.

    ``of_steps`` in the constructor: whether a training step may compute something else for another
    value, so that a recorded step (engine/capture.py) belongs to one value.

    ``enter`` and ``leave`` store the old values of the blocks that are open in this context, so
    that one object can be entered again inside itself, and by several threads at the same time.
    """

    getters = []

    def __init__(self, name, default, of_steps=True):
        self._value = contextvars.ContextVar(name, default=default)
        self._open = contextvars.ContextVar(f"{name}: open blocks", default=None)
        self.get, self.set = self._value.get, self._value.set
        if of_steps:
            Switch.getters.append(self.get)

    @classmethod
    def of_steps(cls):
        """The values of all switches on which a training step may depend."""
        return [get() for get in cls.getters]

    def enter(self, owner, before):
        """Begin a block of ``owner``; ``before`` is the value to restore after it."""
        self._open.set((owner, before, self._open.get()))

    def leave(self, owner):
        """End the innermost open block of ``owner``."""
        inner, block = [], self._open.get()
        while block is not None and block[0] is not owner:         # not closed in order
            inner.append(block)
            block = block[2]
        if block is None:
            return                                     # begun in another context
        self.set(block[1])
        rest = block[2]
        for owner, before, _ in reversed(inner):
            rest = owner, before, rest
        self._open.set(rest)


class Lock:
    """A reentrant lock, which is released in a forked process: a fork does not copy the thread that
    may have acquired it."""

    def __init__(self):
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self):
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *exception):
        self._lock.release()


class Setting:
    """Sets a value permanently, or inside a ``with`` block only, for the calling thread or task.

    A subclass names the ``switch`` that it sets.
    """

    switch = None

    def __init__(self, value):
        self.value, self.thread, self.before = value, threading.get_ident(), self.switch.get()
        self.switch.set(value)

    def __enter__(self) -> Self:
        """Set the value until ``__exit__``, which restores the value from before this object was
        created, or, if it is entered again or by another thread, from before the block."""
        first = self.thread == threading.get_ident()
        self.switch.enter(self, self.before if first else self.switch.get())
        self.switch.set(self.value)
        self.thread = None
        return self

    def __exit__(self, *exception: object) -> None:
        self.switch.leave(self)


# --- a step that is being recorded (engine/capture.py) -------------------------------------------

# The Recording (CPU) or Graph (GPU) that the thread is making, or None.
recorder = Switch("recorder", None, of_steps=False)


# --- who watches the calls (study/trace.py) ------------------------------------------------------

# Called as observer(node, inputs, options, y) with the arrays of each recorded call, or None.
observer = Switch("observer", None, of_steps=False)


# --- whether calls are recorded ------------------------------------------------------------------

recording = Switch("recording", True)


class no_grad:
    """``with no_grad():`` or ``@no_grad``: no graph is recorded, in this thread or task."""

    setting = False

    @overload
    def __new__(cls, function: None = None) -> Self: ...
    @overload
    def __new__(cls, function: F) -> F: ...
    def __new__(cls, function=None):
        """With a function, ``@no_grad`` without parentheses, the decorated one."""
        made = super().__new__(cls)
        return made if function is None else made(function)

    def __enter__(self) -> Self:
        recording.enter(self, recording.get())
        recording.set(self.setting)
        return self

    def __exit__(self, *exception: object) -> None:
        recording.leave(self)

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args, **options):
            with type(self)():
                return function(*args, **options)
        return wrapped


class enable_grad(no_grad):
    """Enables recording again inside ``no_grad``."""

    setting = True
