"""Random numbers as a pure function of (seed, stream, counter): Philox 4×32-10.

Noise, masks, initial weights and shuffling all use it. Runs with the same seed draw the same
numbers on every backend, a checkpoint stores only counters, and any single draw can be repeated
later.

>>> Stream(seed=1, name="eps").normal((2, 3)) is reproducible on any machine and backend.
"""

import hashlib
import math
from typing import Any

import numpy as np

from ..context import Lock
from ..errors import UserError
from .backend import backend, kernels
from .capture import varying
from .memory import empty, to_host
from .types import Array, DType, Shape

philox = kernels("philox")
WORDS_A_BLOCK = 4
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
counter_lock = Lock()


class Stream:
    """One sequence of draws.

    ``name`` (text, or a 64-bit number) distinguishes the streams of one seed. ``counter`` is the
    number of blocks of four words that have been drawn; it may be set.
    """

    def __init__(self, seed: int, name: str | int, counter: int = 0):
        for what, value in (("seed", seed), ("counter", counter),
                            ("name", 0 if isinstance(name, str) else name)):
            if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**64:
                raise UserError(f"{what} {value!r} is not a whole number from 0 to 2^64 - 1; "
                                f"give one, for example {what}=0")
        self.seed, self.name, self.counter = int(seed), name, int(counter)
        self.number = number_of(name) if isinstance(name, str) else int(name)

    def bits(self, n: int) -> Array:
        """n random 32-bit words, uint32 (n,)."""
        words = empty((n,), np.uint32)
        philox.bits(*self._next(n), words)
        return words

    def _next(self, n):
        """(seed, stream, counter) of the next n words; advances the counter."""
        with counter_lock:                                # threads may share a stream
            counter = varying(self, "counter", lambda counter: counter, np.uint64)
            self.counter = (self.counter + -(-n // WORDS_A_BLOCK)) % 2**64
        return np.uint64(self.seed), np.uint64(self.number), counter

    def uniform(self, shape: Shape, dtype: DType = np.float32) -> Array:
        """Uniform on [0, 1): multiples of 2⁻²⁴, the same numbers in either precision."""
        return self._draw("uniform", shape, dtype)

    def normal(self, shape: Shape, dtype: DType = np.float32) -> Array:
        """N(0, 1), drawn in float32 also for float64, so that both precisions use the same
        noise."""
        return self._draw("normal", shape, dtype)

    def permutation(self, n: int) -> Array:
        """A random order of 0 … n−1, int64 (NumPy): the order of n random 64-bit keys."""
        return np.argsort(to_host(self.bits(2 * n)).view(np.uint64), kind="stable")

    def _draw(self, law, shape, dtype):
        if dtype not in FLOATS:
            raise UserError(f"numbers of the law {law!r} are drawn in float32 or float64, not in "
                            f"{dtype!r}; convert them afterwards")
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        n = math.prod(shape)
        out = empty((n,), np.float32)
        if backend() == "numba":
            getattr(philox, law)(self.bits(n + n % 2), out)
        else:
            getattr(philox, f"draw_{law}")(*self._next(n + n % 2), out)
        return out.reshape(shape).astype(dtype, copy=False)

    def __repr__(self):
        return f"Stream(seed={self.seed}, name={self.name!r}, counter={self.counter})"


class Streams:
    """All streams of a run by name, and their counters as the state to save."""

    def __init__(self, seed: int):
        self.seed, self._streams = seed, {}
        Stream(seed, "check")                          # refuses an invalid seed

    def __getitem__(self, name: str) -> Stream:
        if name not in self._streams:
            self._streams[name] = Stream(self.seed, name)
        return self._streams[name]

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores: the seed and each stream's counter."""
        return {"seed": self.seed,
                "counters": {name: s.counter for name, s in sorted(self._streams.items())}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.seed = state["seed"]
        kept, self._streams = self._streams, {}
        for name, counter in state["counters"].items():
            stream = Stream(self.seed, name, counter)
            if name in kept:                           # existing references continue
                vars(kept[name]).update(vars(stream))
            self._streams[name] = kept.get(name, stream)


def number_of(name):
    """The 64-bit number of a stream's name: the first eight bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
