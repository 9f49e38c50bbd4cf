"""Times of work on the GPU, by events.

``each``: single calls behind memsets that empty the second-level cache; while they run (0.24 ms on
an H200), the host has time to ask for the call, so that the launch itself does not count. One
memset was too short on a slow host: small products seemed to take 20 µs more, convolutions 170 µs.
``in_a_row``: calls back to back behind one that is not counted, for work that is much larger than
the cache. ``replayed``: many calls as one CUDA graph, for small work whose arrays lie in the cache,
as in a training step.
"""

import statistics

FLUSH, TIMES = 256 << 20, 4                            # bytes: five times the cache of an H100


class Clock:
    """``device``: as of ``cuda.device()``; ``seconds``: for each measurement (0: one call)."""

    def __init__(self, device, seconds=0.25):
        self.device, self.seconds = device, seconds
        self.cuda, self.stream = device.xp.cuda, device.stream
        self.flushed = device.xp.zeros(FLUSH if seconds else 1, "uint8")

    def between(self, before, function, calls=1):
        """Seconds of the calls, after ``before``."""
        start, end = self.cuda.Event(), self.cuda.Event()
        before()
        start.record(self.stream)
        for _ in range(calls):
            function()
        end.record(self.stream)
        end.synchronize()
        return self.cuda.get_elapsed_time(start, end) / 1e3 / calls

    def flush(self):
        for _ in range(TIMES):
            self.flushed.data.memset_async(0, self.flushed.nbytes, self.stream)

    def each(self, function, most=60):
        """{median, minimum, calls} of single calls with an empty cache."""
        return self.repeated(lambda: self.between(self.flush, function), function, most)

    def in_a_row(self, function, calls=4, most=40):
        """{median, minimum, calls} of calls back to back."""
        return self.repeated(lambda: self.between(function, function, calls), function, most)

    def replayed(self, function, calls=20, most=20):
        """{median, minimum, calls} of one of many calls in a CUDA graph."""
        if not self.seconds:
            return self.each(function)
        for _ in range(2):
            function()
        self.device.synchronize()
        with self.device.capturing() as recorded:
            for _ in range(calls):
                function()
        found = self.repeated(lambda: self.between(recorded.launch, recorded.launch),
                              recorded.launch, most)
        return {**found, "median": found["median"] / calls, "minimum": found["minimum"] / calls}

    def repeated(self, measure, function, most):
        for _ in range(3 if self.seconds else 1):      # compiles, and warms up
            function()
        self.device.synchronize()
        once = measure()
        count = min(most, max(5, int(self.seconds / max(once, 1e-6)))) if self.seconds else 1
        times = [measure() for _ in range(count)]
        return {"median": statistics.median(times), "minimum": min(times), "calls": count}
