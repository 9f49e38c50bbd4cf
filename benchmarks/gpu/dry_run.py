"""``--dry-run``: the whole order at tiny sizes on the emulated GPU, so that a slip costs nothing.

Every item of every part is called once, the first case of each kernel is compared, a training step
of every row is built, checked and timed beside its peers on the CPU, and the tables are made from
the record. What only a GPU has is replaced: events (all times are 1 ms), cuBLAS by NumPy, cuDNN by
PyTorch on the CPU. Nothing that is measured means anything.
"""

import contextlib
import functools
import pathlib
import sys
import tempfile
import time
import types

import numpy as np

from scratchgen.engine.backend import use_backend

from .. import precision
from ..peers import server
from ..processes import ROOT, Failed
from . import checks, conv_times, device, parts, sanitizer, scheduler, steps
from . import tables as pages
from .parts import Deadline

SECONDS = 600


def run(options):
    """All parts that were asked for; the exit status."""
    sys.path.insert(0, str(ROOT / "tests"))
    from emulated_gpu.device import EmulatedGpu
    from emulated_gpu.emulator import available
    if not available():
        print("gpu: the dry run emulates a GPU, which needs Linux and g++", file=sys.stderr)
        return 2
    options.quick, options.seconds, deadline = True, SECONDS, Deadline(SECONDS)
    with tempfile.TemporaryDirectory() as work, replaced(EmulatedGpu()) as gpu:
        options.work = pathlib.Path(work)
        parts.save(scheduler.path_of(options, "device"),
                   {"device": "emulated", "capability": 90, **device.host()})
        statuses = {part: run_part(part, gpu, options, deadline)
                    for part in scheduler.PARTS if part in options.parts}
        status = scheduler.finish(options, deadline, statuses)
        record = parts.load(options.out / "gpu.json")
        for make in (pages.table_targets, pages.table_steps, pages.table_kernels,
                     pages.table_first_steps, pages.table_checks):
            make(record)
        return status


def run_part(part, gpu, options, deadline):
    """A part in this process; its exit status."""
    started, seconds = time.perf_counter(), scheduler.BUDGET.get(part, "the rest of the")
    scheduler.progress(f"{part}: {seconds} seconds at most; its process: python -m benchmarks.gpu "
                   f"{' '.join(scheduler.arguments_of(part, options, deadline))}")
    if part == "steps":
        (options.work / ".go").touch()
        status = steps.run(options, deadline, scheduler.progress)
    else:
        items = scheduler.items_of(part, gpu, options, deadline)
        status = parts.run(items, scheduler.path_of(options, part), deadline,
                           progress=scheduler.progress)
        scheduler.progress(f"  {len(items)} items: {', '.join(items)}")
    scheduler.progress(f"  {time.perf_counter() - started:.1f} s")
    return status


@contextlib.contextmanager
def replaced(gpu):
    """Replaces the real GPU by the emulated one, with the parts of CuPy that the benchmark uses."""
    from scratchgen.kernels import cuda
    every = checks.cases
    gpu.xp.random = Random(gpu.xp)
    gpu.xp._core = types.SimpleNamespace(_routines_linalg=types.SimpleNamespace(
        get_compute_type=lambda dtype: None, set_compute_type=lambda dtype, value: None))
    changes = [(cuda, "replacement", gpu), (precision, "cupy", lambda xp, name: None),
               (checks, "cases", lambda *of: list(every(*of))[:1]),
               (conv_times, "on_our_stream", lambda device: contextlib.nullcontext()),
               (conv_times, "CuDNN", OnTheCpu), (steps, "Process", InThisProcess),
               (steps.Builder.__init__, "__defaults__", (InThisProcess,)),
               (sanitizer, "check", lambda tool, deadline: {"skipped": "on a GPU only"})]
    before = [getattr(owner, name) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield gpu
    finally:
        for (owner, name, _), value in zip(changes, before, strict=True):
            setattr(owner, name, value)


class Random:
    """``cupy.random``, as far as the benchmark uses it."""

    def __init__(self, xp):
        self.xp = xp

    def default_rng(self, seed):
        rng = np.random.default_rng(seed)
        return types.SimpleNamespace(**{
            name: functools.partial(self.drawn, getattr(rng, name))
            for name in ("random", "standard_normal")})

    def drawn(self, draw, shape, dtype):
        return self.xp.asarray(draw(shape, dtype=dtype))


class OnTheCpu(conv_times.CuDNN):
    """PyTorch on the CPU in place of cuDNN."""

    def __init__(self, ours, channels_last, exact=False):
        class Host:                                    # the same arrays, on the host
            b = ours.b.get()
            x, g, w = (a.get() for a in (ours.x, ours.g, ours.w))
        super().__init__(Host, channels_last, exact)

    def result(self, which, xp):
        return xp.asarray(super().result(which, np))


class InThisProcess:
    """Replaces a peer's process: answers in this process; PyTorch and JAX run on the CPU."""

    process = None

    def __init__(self, module, **variables):
        try:
            self.served = server.ServedOnGpu(module)
        except ImportError as error:
            self.served = error
        self.peer = module != "scratchgen"

    def alive(self):
        return True

    def ask(self, do, patience=0, **arguments):
        if isinstance(self.served, ImportError):
            raise Failed(str(self.served))
        if do == "build" and self.peer and arguments["variant"].get("how"):
            raise Failed("compiled on a GPU only")
        if do == "build" and self.served.module.__name__.endswith("torch"):
            arguments["variant"] = {**arguments["variant"], "device": "cpu"}
        try:
            with use_backend("cuda"):                  # the builders are threads
                return self.served.answer({"do": do, **arguments})
        except Exception as error:                     # as server.serve answers
            raise Failed(f"{type(error).__name__}: {error}") from error

    def __exit__(self, *exception):
        pass
