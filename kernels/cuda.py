"""CUDA C kernels: read from ``.cu`` files, compiled by NVRTC, launched by CuPy.

``launch("dense.bias_activation", grid, block, y, b, …)`` is the only way to launch a kernel. It
reads the kernel's parameters from ``dense.cu``, takes T (float or double) from the arrays, and
checks what a kernel cannot: dtype, device and contiguity of every array, the range of every number.
CuPy is imported at the first launch; Numba is never imported here.
"""

import contextlib
import functools
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from ..errors import UserError

FOLDER = pathlib.Path(__file__).parent
FLOATS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
SCALARS = {"float": np.float32, "double": np.float64, "int": np.int32, "unsigned": np.uint32,
           "long long": np.int64, "unsigned long long": np.uint64, "bool": np.bool_,
           "unsigned char": np.uint8}
INT2 = np.dtype([("x", np.int32), ("y", np.int32)])    # what CUDA C calls int2
LARGEST_GRID = (2**31 - 1, 65535, 65535)
KERNEL = re.compile(
    r"(?P<constants>(?:^// constants:.*\n)*)"
    r"(?:^template <(?P<template>[^>]*)>\s+)?"
    r"^__global__ void (?:__launch_bounds__\([^)]*\)\s+)?(?P<name>\w+)\((?P<parameters>[^)]*)\)",
    re.MULTILINE)


# --- parsing a .cu file --------------------------------------------------------------------------

class Kernel(NamedTuple):
    """A ``__global__`` function: its source, name, parameters (C type, name), and its template.

    ``constants``: the values of the template parameters after T for which it is compiled, from a
    comment above it: ``// constants: (true, 8) (false, 8)``. ``architecture``: the only one that it
    is compiled for, from a comment ``// architecture: sm_90a``, or None.
    """

    code: str
    name: str
    parameters: tuple
    of_type: bool                     # whether the first template parameter is a type, T
    constants: tuple
    architecture: str | None = None

    def expression(self, dtype, constants=()):
        """The C++ expression of one instance: ``tiled<float, true, 8>``."""
        words = [FLOATS[np.dtype(dtype)]] * self.of_type + [
            str(c).lower() if isinstance(c, bool) else str(c) for c in constants]
        return f"{self.name}<{', '.join(words)}>" if words else self.name

    def instances(self):
        """The expressions of all instances."""
        return [self.expression(dtype, constants)
                for dtype in (FLOATS if self.of_type else list(FLOATS)[:1])
                for constants in self.constants or ((),)]


def source(name):
    """The text of the file ``name`` with its includes expanded."""
    return with_includes((FOLDER / name).read_text(encoding="utf-8"), name)


def with_includes(text, name, seen=None):
    """A text with its includes expanded, each file once; ``#line`` keeps the line numbers."""
    seen = set() if seen is None else seen
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(text.splitlines(), 1):
        included = re.match(r'#include "([\w.]+)"', line)
        if included and included[1] not in seen:
            seen.add(included[1])
            inner = (FOLDER / included[1]).read_text(encoding="utf-8")
            lines += [with_includes(inner, included[1], seen), f'#line {number + 1} "{name}"']
        else:
            lines.append("" if included or line == "#pragma once" else line)
    return "\n".join(lines) + "\n"


def parse(code):
    """A dict name → Kernel of all ``__global__`` functions in a text."""
    found = {}
    architecture = re.search(r"^// architecture: (\w+)$", code, re.MULTILINE)
    for match in KERNEL.finditer(code):
        parameters = [re.sub(r"\s+", " ", p.replace("__restrict__", "")).strip()
                      for p in match["parameters"].split(",")]
        pairs = tuple(re.fullmatch(r"(.*?[ *])(\w+)", p).groups() for p in parameters)
        constants = tuple(tuple(word.strip() for word in group.split(","))
                          for group in re.findall(r"\(([^)]*)\)", match["constants"] or ""))
        found[match["name"]] = Kernel(
            code, match["name"], tuple((kind.strip().replace(" *", "*"), name)
                                       for kind, name in pairs),
            (match["template"] or "").startswith("typename"), constants,
            architecture and architecture[1])
    return found


@functools.cache
def kernels_of(family):
    """A dict name → Kernel of the file ``<family>.cu``."""
    return parse(source(f"{family}.cu"))


# --- the launch path -----------------------------------------------------------------------------

def launch(name, grid, block, *args, constants=(), shared=0):
    """Run the kernel ``"family.kernel"`` on ``grid`` blocks of ``block`` threads (ints or tuples).

    ``args`` are device arrays, numbers, and pairs of ints, in the order of the .cu file;
    ``constants`` are the template arguments after T; ``shared``: bytes of dynamic shared memory. An
    empty grid launches nothing. TypeError and ValueError name the argument that does not fit.
    """
    family, _, kernel = name.partition(".")
    launch_kernel(kernels_of(family)[kernel], grid, block, args, constants, shared)


def launch_kernel(kernel, grid, block, args, constants=(), shared=0):
    """``launch`` for a ``Kernel`` instead of a name."""
    grid, block = (t if isinstance(t, tuple) else (t,) for t in (grid, block))
    if 0 in grid:
        return
    if len(args) != len(kernel.parameters):
        raise TypeError(f"kernel {kernel.name} takes {len(kernel.parameters)} arguments "
                        f"({', '.join(n for _, n in kernel.parameters)}), not {len(args)}")
    if any(n > most for n, most in zip(grid, LARGEST_GRID, strict=False)):
        raise ValueError(f"kernel {kernel.name}: a grid of {grid} blocks, and a GPU takes at most "
                         f"{LARGEST_GRID}; use smaller batches or images")
    dtype = next((a.dtype for a, (kind, _) in zip(args, kernel.parameters, strict=True)
                  if kind in ("T*", "const T*")), np.dtype(np.float32))
    if dtype not in FLOATS:
        raise TypeError(f"kernel {kernel.name}: an array of {dtype}; expected float32 or float64")
    device().launch(kernel, kernel.expression(dtype, constants), grid, block, tuple(
        argument(kernel, a, kind, name, dtype)
        for a, (kind, name) in zip(args, kernel.parameters, strict=True)), shared)


def argument(kernel, a, kind, name, dtype):
    """One argument, converted for the launch; TypeError or ValueError if it does not fit."""
    if kind.endswith("*"):
        wanted = kind.removeprefix("const ").removesuffix("*").strip()
        wanted = dtype if wanted == "T" else np.dtype(SCALARS[wanted])
        if not isinstance(a, device().xp.ndarray):
            raise TypeError(f"kernel {kernel.name}: {name} is a {type(a).__name__}; expected an "
                            "array in the GPU's memory")
        if a.dtype != wanted:
            raise TypeError(f"kernel {kernel.name}: {name} is of {a.dtype}; expected {wanted}")
        if not a.flags.c_contiguous:
            raise ValueError(f"kernel {kernel.name}: {name} {a.shape} is a view with gaps or in "
                             "another order, which a kernel would misread; pass a contiguous copy")
        return a
    if kind == "int2":
        first, second = a
        pair = tuple(argument(kernel, n, "int", name, dtype) for n in (first, second))
        return np.array([pair], INT2)                  # CuPy passes one element by value
    scalar = dtype.type if kind == "T" else SCALARS[kind]
    with contextlib.suppress(OverflowError):
        number = scalar(a)
        if number.dtype.kind not in "iu" or number == a:
            return number
    raise ValueError(f"kernel {kernel.name}: {name} = {a} does not fit in {kind}")


def empty(shape, dtype):
    """An uninitialised array on the device, a workspace between two launches."""
    return device().xp.empty(shape, dtype)


def blocks_for(n, block, at_most=None):
    """The number of blocks of ``block`` threads for n items, at most ``at_most``."""
    count = -(-n // block)
    return count if at_most is None else min(count, at_most)


# --- the device ----------------------------------------------------------------------------------

def device():
    """The device that kernels run on: the GPU, or the replacement that a test has set."""
    gpu = replacement or find_gpu()
    gpu.use_shared_stream()
    return gpu


@functools.cache
def find_gpu():
    """The GPU; UserError, with what to do, if there is none."""
    from .gpu import Gpu
    return Gpu()


def after_fork():
    """Disable the GPU: CUDA does not work in a process forked from one that has used it."""
    global find_gpu
    if find_gpu.cache_info().currsize:
        find_gpu = refuse_after_fork


def refuse_after_fork():
    raise UserError("this process was forked from one that had used the GPU, and CUDA does not "
                    "work in it: start processes with multiprocessing's method 'spawn', or choose "
                    "the backend 'numba'")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)


replacement = None      # a device that a test uses instead of the GPU
