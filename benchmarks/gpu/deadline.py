"""How much time is left. Absolute times are of CLOCK_MONOTONIC, which all processes share."""

import time


class Deadline:
    """``seconds`` from now, or the moment ``until``."""

    def __init__(self, seconds=None, until=None, now=time.monotonic):
        self.now = now
        self.until = now() + seconds if until is None else until

    def left(self):
        return max(0.0, self.until - self.now())

    def over(self):
        return self.left() <= 0

    def part(self, seconds, reserve=0.0):
        """A deadline of at most ``seconds``, which leaves ``reserve`` of this one for others."""
        return Deadline(max(0.0, min(seconds, self.left() - reserve)), now=self.now)
