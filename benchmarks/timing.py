"""Interleaved timing of several functions, so that all see the same state of the machine.
"""

import statistics
import time

LEAST = 0.004                            # seconds for one measurement: short calls are repeated
ROUNDS = 5, 25                           # at least, at most


def seconds(function, repeat):
    """Of one call, of ``repeat`` in a row."""
    start = time.perf_counter()
    for _ in range(repeat):
        function()
    return (time.perf_counter() - start) / repeat


def side_by_side(functions, budget):
    """[{"median", "minimum", "rounds"}] of the functions in seconds a call.

    Each round calls every function once; there are as many rounds as fit in ``budget`` seconds,
    within ROUNDS. The first calls, which may compile, are not counted.
    """
    for function in functions:
        function()
    alone = [min(seconds(f, 1) for _ in range(2)) for f in functions]
    repeats = [max(1, round(LEAST / t)) for t in alone]
    one_round = sum(r * t for r, t in zip(repeats, alone, strict=True))
    rounds = min(max(round(budget / one_round), ROUNDS[0]), ROUNDS[1])
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, repeat, found in zip(functions, repeats, times, strict=True):
            found.append(seconds(function, repeat))
    return [{"median": statistics.median(t), "minimum": min(t), "rounds": rounds} for t in times]


def digits(x):
    """A positive number with two digits at least."""
    return f"{x:.2f}" if x < 0.995 else f"{x:.1f}" if x < 10 else f"{x:,.0f}"


def milliseconds(seconds):
    return digits(1000 * seconds) if seconds >= 1e-4 else f"{1000 * seconds:.3f}"
