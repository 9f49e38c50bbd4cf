"""Kernels from naive loops to the fast ones, rung by rung: each checked, then timed.

    python -m benchmarks ladder [--quick] [--only NAME] [--out DIR]

The rungs are plain functions in ``benchmarks/rungs``. Before and after the timing each is compared
with its formula in NumPy, on data of its own: the ladder's size and ragged ones, float32 and
float64. Timing is in float32, the rungs of a ladder interleaved. ``--quick`` checks only.
"""

import argparse
import functools
import pathlib
import sys

import numpy as np
from scratchgen.kernels.compiler import load_numba

from scratchgen.engine.memory import reuse_freed_memory

from . import records, timing
from .readme import markdown
from .rungs import idea_and_why, ladders, source
from .timing import digits, milliseconds

RTOL = {"float32": 1e-5, "float64": 1e-12}       # relative to a result's largest element
SECONDS = 8                                      # of timing for each ladder
OTHERS, OURS = "#9db4c8", "#c8553d"
COLUMNS = 2


class Wrong(Exception):
    """A rung does not compute its formula."""


# --- correctness ---------------------------------------------------------------------------------

def check(ladder, rung, size, dtype, seed):
    """Wrong, unless the rung returns what the formula does, and leaves its inputs as they were.

    The rung runs first, on data that no other has seen: memory that it forgets to write cannot hold
    the answer. Formula and comparison are in float64; NaN fails.
    """
    arrays = [np.ascontiguousarray(a, dtype)
              for a in ladder.arguments(np.random.default_rng(seed), *size)]
    given = [a.copy() for a in arrays]
    found = as_tuple(rung(*given))
    expected = as_tuple(ladder.formula(*(a.astype(np.float64) for a in arrays)))
    where = f"{ladder.name}: {rung.__name__}, size {size}, {dtype}"
    if len(found) != len(expected):
        raise Wrong(f"{where}: {len(found)} results, expected {len(expected)}")
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if np.shape(a) != np.shape(b):
            raise Wrong(f"{where}: result {i} has shape {np.shape(a)}, expected {np.shape(b)}")
        if np.ndim(b) and a.dtype != dtype:
            raise Wrong(f"{where}: result {i} has type {a.dtype}")
        error = np.max(np.abs(a - b)) / np.max(np.abs(b))
        if not error <= RTOL[dtype]:
            raise Wrong(f"{where}: result {i} is off by {error:.1e} of its largest element; "
                        f"allowed {RTOL[dtype]:.0e}")
    for i, (a, b) in enumerate(zip(given, arrays, strict=True)):
        if not any(np.shares_memory(a, f) for f in found) and not np.array_equal(a, b):
            raise Wrong(f"{where}: argument {i} was changed")


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def check_all(ladder, sizes, seed=0):
    """Every rung at every size in both precisions."""
    for size in sizes:
        for dtype in RTOL:
            for rung in ladder.rungs:
                seed += 1
                check(ladder, rung, size, dtype, seed)


# --- timing --------------------------------------------------------------------------------------

def measure(ladder):
    """The record of one ladder."""
    sizes = [*ladder.ragged, ladder.size]
    check_all(ladder, sizes)
    rng = np.random.default_rng(7)
    arguments = [np.ascontiguousarray(a, np.float32) for a in ladder.arguments(rng, *ladder.size)]
    functions = [functools.partial(rung, *(a.copy() for a in arguments))
                 for rung in ladder.rungs]
    times = timing.side_by_side(functions, SECONDS)
    check_all(ladder, sizes, seed=1000)
    work, rungs = ladder.work(*ladder.size), []
    for rung, found in zip(ladder.rungs, times, strict=True):
        idea, why = idea_and_why(rung)
        file, line = source(rung)
        rungs.append({"name": rung.__name__, "idea": idea, "why": why, "file": file, "line": line,
                      **found, "rate": work / found["median"] / 1e9,
                      "best_rate": work / found["minimum"] / 1e9})
    return {"name": ladder.name, "task": ladder.task, "size": ladder.size, "unit": ladder.unit,
            "work": work, "rungs": rungs}


# --- the table -----------------------------------------------------------------------------------

def table(record):
    """Markdown: a row for each rung, with a link to its source."""
    rows = []
    for ladder in record["ladders"]:
        slowest = ladder["rungs"][0]["median"]
        name = f"**{ladder['name']}** {' × '.join(f'{n:,}' for n in ladder['size'])}"
        for rung in ladder["rungs"]:
            rows.append((name, f"[{rung['idea']}]({rung['file']}#L{rung['line']})",
                         milliseconds(rung["median"]), f"{digits(rung['rate'])} {ladder['unit']}",
                         f"{digits(slowest / rung['median'])}×", rung["why"]))
            rows[-1] = tuple(cell.replace("|", r"\|") for cell in rows[-1])
            name = ""
    rows = markdown(("kernel", "rung", "ms", "rate", "speed", "why"), rows, right=(2, 3, 4))
    return f"{rows}\n\nMedians, float32. {records.provenance(record)}"


def picture(record, path):
    """The ladders as bar charts, one panel each, on logarithmic scales."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    ladders = record["ladders"]
    lines = -(-len(ladders) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(11, 2.1 * lines), squeeze=False,
                                layout="constrained")
    for axis, ladder in zip(axes.flat, ladders, strict=False):
        panel(axis, ladder)
    for axis in axes.flat[len(ladders):]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"written: {path}")


def panel(axis, ladder):
    """One ladder; the slowest rung on top."""
    rates = [rung["rate"] for rung in ladder["rungs"]]
    colours = [OTHERS] * (len(rates) - 1) + [OURS]
    bars = axis.barh(range(len(rates)), rates, color=colours, height=0.72)
    axis.bar_label(bars, [digits(rate) for rate in rates], padding=3, fontsize=9)
    axis.set_yticks(range(len(rates)), [rung["name"].replace("_", " ")
                                        for rung in ladder["rungs"]], fontsize=9)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_xlim(min(rates) / 2, max(rates) * 2.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    size = " × ".join(f"{n:,}" for n in ladder["size"])
    axis.set_title(f"{ladder['name']}, {size}: {ladder['unit']}", fontsize=10, loc="left")


# --- the commands --------------------------------------------------------------------------------

def options_of(command, names, arguments):
    """What was asked for; ``only`` is checked against the names."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {command}")
    parser.add_argument("--quick", action="store_true", help="check only, no timing, no files")
    parser.add_argument("--only", metavar="NAME", action="append",
                        help=f"one of: {'; '.join(names)} (may be given several times)")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path,
                        help="for record and picture (default: benchmarks/results and docs; with "
                             "--only, nothing is written without it)")
    options = parser.parse_args(arguments)
    for name in options.only or ():
        if name not in names:
            parser.error(f"there is no {name!r}; expected one of: {'; '.join(names)}")
    return options


def main(arguments=None):
    """The command ``ladder``; the exit status."""
    every = ladders()
    options = options_of("ladder", [ladder.name for ladder in every], arguments)
    chosen = [ladder for ladder in every if not options.only or ladder.name in options.only]
    reuse_freed_memory()
    found = []
    try:
        for ladder in chosen:
            if options.quick:
                check_all(ladder, ladder.ragged)
                print(f"{ladder.name}: {len(ladder.rungs)} rungs equal their formula")
            else:
                found.append(measure(ladder))
                print_ladder(found[-1])
    except Wrong as wrong:
        print(f"ladder: {wrong}", file=sys.stderr)
        return 1
    if found and (options.out or not options.only):
        record = write("ladder.json", options.out, {"rtol": RTOL, "ladders": found})
        picture(record, records.path_of("ladder.png", options.out, pictures=True))
    return 0


def print_ladder(found):
    """One ladder on the terminal."""
    print(f"{found['name']}: {found['task']}; {found['size']}")
    for rung in found["rungs"]:
        print(f"  {rung['name']:28} {milliseconds(rung['median']):>8} ms "
              f"{digits(rung['rate']):>6} {found['unit']}  (best {digits(rung['best_rate'])})",
              flush=True)


def write(name, out, record):
    """The record with its machine and threads at its head, saved."""
    record = {"machine": records.machine(), "threads": load_numba().get_num_threads(), **record}
    path = records.path_of(name, out)
    records.save(path, record)
    print(f"written: {path}")
    return record
