"""The ladders: each kernel from naive loops to the fast one, a rung at a time.

One page a kernel, to be read from top to bottom. A rung is a plain function of arrays that returns
what its ladder's formula returns. The first paragraph of its docstring names the idea; the
paragraph that begins with "Why:" says why it is faster than the rung before (on the first rung:
why it is slow). The last rung of every ladder is scratchgen's.

No rung is compiled with ``fastmath``: the order of additions is what the source says, so the bits
are the same on every machine, and a sum becomes vector instructions only if the source adds into
several numbers side by side.
"""

import importlib
import inspect
import pathlib
from collections.abc import Callable
from typing import NamedTuple

PAGES = ("dense", "dense_backward", "conv2d", "conv2d_backward", "bce", "adam", "batch_norm")


class Ladder(NamedTuple):
    """``arguments(rng, *size)`` → what ``formula`` and every rung take; arrays come in float64.

    ``formula`` is plain NumPy and is the truth. ``work(*size)`` counts what the task needs, by
    whatever way a rung goes: multiplications and additions in ``unit`` GFLOP/s, or bytes in GB/s
    with every array of the task counted once. ``ragged`` are sizes with all dimensions different.
    """

    name: str
    task: str                              # as a formula, with the shapes
    unit: str
    work: Callable
    arguments: Callable
    formula: Callable
    rungs: tuple
    size: tuple
    ragged: tuple


def ladders():
    """Every ladder of every page, in order."""
    return [ladder for page in PAGES
            for ladder in importlib.import_module(f"{__name__}.{page}").LADDERS]


def source(rung):
    """(file within the repository, line) of a rung."""
    function = inspect.unwrap(rung)
    path = pathlib.Path(inspect.getsourcefile(function)).resolve()
    return (path.relative_to(pathlib.Path(__file__).resolve().parents[2]).as_posix(),
            inspect.getsourcelines(function)[1])


def idea_and_why(rung):
    """The first paragraph of a rung's docstring, and the one that begins with "Why:"."""
    paragraphs = [" ".join(p.split()) for p in inspect.getdoc(rung).split("\n\n")]
    why = next(p for p in paragraphs if p.startswith("Why: "))
    return paragraphs[0], why.removeprefix("Why: ")
