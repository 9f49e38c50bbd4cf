"""Training steps beside PyTorch and JAX: built early, checked, timed interleaved.

Building takes long (torch.compile with max-autotune: up to a minute a row), so it is done while
other parts of the measurement run that need no quiet GPU, by a process for each peer and row:
one that fails, hangs or is late costs its own row only. Timing begins when the other parts are
done; a peer that is not ready by then is recorded as absent. The peers of a row are timed
interleaved, block by block; each waits while others run. The times of a row and the trace of its
kernels are written before the next row begins.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile
import threading
import time
import traceback

import numpy as np

from ..processes import Failed
from ..processes import GpuProcess as Process
from ..records import save
from . import rows
from .parts import log

OURS, CHECKED, TURNS = "ours", 4, 5
LOSS_RTOL = {"fp32": 1e-4, "tf32": 5e-3}               # of the first losses, relative to ours
BLOCK = 0.04                                           # seconds
SECONDS_A_ROW = 7                                      # to check, time and trace it, about
TRACE = 12                                             # seconds that no trace is begun with
FIRST_GUESS = {"compiled": 60, "whole": 25, "jax": 15, "torch": 5, OURS: 10, "drawn": 10}
# peer → the module of its class
PEERS = {OURS: "scratchgen", "drawn": "scratchgen", "torch": "torch", "whole": "torch",
        "compiled": "torch", "jax": "jax"}
TITLES = {OURS: "scratchgen", "drawn": "scratchgen, noise drawn in the step",
          "torch": "PyTorch eager", "compiled": "torch.compile, max-autotune",
          "whole": "torch.compile, the step as one CUDA graph", "jax": "JAX jit"}
FAST_PEERS = ("compiled", "whole", "jax")
NOT_BUILT = "not built when the timing began"


def variants(peer, w):
    """label → options of its class."""
    joined = w.kind == "gan" and w.family == "mlp"     # real and generated images as one batch
    if peer == "torch":
        found = {"fused": {}, "foreach": {"optimiser": "foreach"}}
        if w.family == "conv":
            found["fused, channels last"] = {"channels_last": True}
        return found | ({"fused, joined": {"joined": True}} if joined else {})
    if peer in ("compiled", "whole"):
        mode = "max-autotune" if peer == "compiled" else None
        return {"joined" if joined else "": {"how": peer, "mode": mode, "joined": joined}}
    if peer == "jax":
        return {"joined" if joined else "": {"joined": joined}}
    return {"": {"drawn": True} if peer == "drawn" else {}}


# --- building ------------------------------------------------------------------------------------

class Builder(threading.Thread):
    """Builds the variants of one peer for one row until ``deadline``.

    ``built``: label → seconds; ``failed``: label → reason; ``notes``: label → what is to be said.
    A process that ends takes what it has built with it; it is started again for the next variant.
    """

    places = threading.Semaphore(max(2, (os.cpu_count() or 2) - 2))    # who may build at once

    def __init__(self, peer, name, precision, quick, deadline, variables, make=Process):
        super().__init__(daemon=True)
        self.peer, self.quick, self.deadline = peer, quick, deadline
        self.name, self.precision, self.row = name, precision, rows.key(name, precision)
        self.variables, self.make, self.process = variables, make, None
        self.built, self.failed, self.notes = {}, {}, {}

    def run(self):
        guess = 0 if self.quick else FIRST_GUESS[self.peer]
        with self.places:
            for label, options in variants(self.peer,
                                           rows.workload(self.name, self.quick)).items():
                if self.deadline.left() < guess:
                    return
                self.build(label, options)

    def build(self, label, options):
        if self.process is None or not self.process.alive():
            self.failed |= dict.fromkeys(self.built, "its process ended later")
            self.built = {}
            self.process = self.make(PEERS[self.peer], **self.variables)
        try:
            answer = self.process.ask(
                "build", patience=self.deadline.left() + 30, name=f"{self.row}|{label}",
                row=self.name, precision=self.precision, quick=self.quick, variant=options)
            self.built[label] = answer["seconds"]
            if answer.get("note"):
                self.notes[label] = answer["note"]
        except Failed as failure:
            self.failed[label] = str(failure)
            log(f"{self.peer}, {self.row} {label}: {failure}")

    def stop(self):
        """Ends its process: it must not build while others are timed, nor occupy memory."""
        if self.process:
            self.process.__exit__()
            self.process = None


# --- timing --------------------------------------------------------------------------------------

class Runner:
    """One variant of one peer in one row, and what was measured of it."""

    def __init__(self, builder, row, label):
        self.builder, self.row, self.label = builder, row, label
        self.seconds, self.failure, self.steps = [], None, 1

    def ask(self, do, **arguments):
        """The answer, or None if this variant has failed, now or before."""
        if self.failure is None:
            try:
                return self.builder.process.ask(do, patience=30, name=f"{self.row}|{self.label}",
                                                **arguments)
            except Failed as failure:
                self.failure = str(failure)
        return None

    def check(self, lr, reference, rtol):
        """Losses from the initial weights beside ``reference``; these losses."""
        answer = self.ask("check", steps=CHECKED, lr=lr)
        if answer is None:
            return None
        found = np.array(answer["losses"])
        if reference is None:
            if not np.isfinite(found).all():
                self.failure = "a loss is not finite"
        elif not np.max(np.abs(found - reference) / np.abs(reference)) <= rtol:
            error = np.max(np.abs(found - reference) / np.abs(reference))
            self.failure = f"its losses differ from scratchgen's by {error:.1e}"
        return found

    def warm_up(self):
        answer = self.ask("time", steps=5, blocks=2)
        if answer:
            self.steps = max(1, min(5000, round(BLOCK / answer["seconds"][-1])))

    def turn(self):
        """Two blocks; the first is for the caches and the clocks."""
        answer = self.ask("time", steps=self.steps, blocks=2)
        if answer and not answer["finite"]:
            self.failure = "a loss is not finite"
        elif answer:
            self.seconds.append(answer["seconds"][-1])

    def summary(self):
        found = {"first_steps": self.builder.built[self.label]}
        if self.label in self.builder.notes:
            found["note"] = self.builder.notes[self.label]
        if self.failure:
            return found | {"failed": self.failure}
        if self.seconds:
            found |= {"median": statistics.median(self.seconds), "minimum": min(self.seconds),
                      "blocks": len(self.seconds), "steps": self.steps}
        return found


def measure(name, precision, builders, deadline, quick=False):
    """A row of the record: every peer's variants, checked before and after the timing.

    ``builders``: of this row.
    """
    w, row = rows.workload(name, quick), rows.key(name, precision)
    runners = [Runner(b, row, label) for b in builders for label in b.built]
    compared = [r for r in runners if r.builder.peer != "drawn"]
    check(compared, w, LOSS_RTOL[precision])
    if not quick:
        for runner in runners:
            runner.warm_up()
        for turn in range(TURNS):
            for runner in runners if turn == 0 or deadline.left() > SECONDS_A_ROW else ():
                runner.turn()
        check(compared, w, LOSS_RTOL[precision])
    kernels = {} if quick else trace(runners, deadline)
    peers = {}
    for b in builders:
        own = {r.label: r.summary() for r in runners if r.builder is b}
        own |= {label: {"failed": reason} for label, reason in b.failed.items()}
        peers[b.peer] = own or {"": {"absent": NOT_BUILT}}
    failed = [f"{c} {label}: {v['failed']}" for c, own in peers.items()
              for label, v in own.items() if "failed" in v]
    return {"name": name, "precision": precision, "title": w.title, "family": w.family,
            "small": name in rows.SMALL, "batch": w.batch, "floors": rows.lower_bounds(w),
            "peers": peers, "failed": failed, "kernels": kernels,
            "ok": not any(f.startswith((OURS, "drawn")) or "differ" in f for f in failed)
            and any(b.built for b in builders if b.peer == OURS)}


def trace(runners, deadline):
    """The kernels of a replayed step of ours, by a profiler: behind the timing, for it slows."""
    for runner in runners:
        if runner.builder.peer == "drawn" and runner.failure is None:
            if deadline.left() < TRACE:
                return {"skipped": "no time was left"}
            answer = runner.ask("kernels")
            return {"failed": runner.failure} if answer is None else answer
    return {}


def check(runners, w, rtol):
    reference = None
    for runner in runners:
        found = runner.check(w.lr_of_check, reference, rtol)
        if reference is None and runner.builder.peer == OURS:
            reference = found


def best(row, peer, statistic="median"):
    """Of a peer's variants the shortest time, or None."""
    found = [v[statistic] for v in row.get("peers", {}).get(peer, {}).values()
             if statistic in v]
    return min(found, default=None)


# --- the part ------------------------------------------------------------------------------------

def environment(folder, peer):
    """Every peer compiles from nothing, into a folder of its own that its rows share."""
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TORCHINDUCTOR_COMPILE_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
            "CUPY_CACHE_DIR": str(folder / f"cupy-{peer}"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{peer}"),
            "TRITON_CACHE_DIR": str(folder / f"triton-{peer}")}


def selected(quick, names, peers):
    """(peer, name, precision) of all that is to be built, the most important rows first."""
    chosen = [c for c in PEERS if c == OURS or peers is None or c in peers]
    found = [(c, *row) for row in rows.rows(names) for c in chosen]
    if quick:                                          # one compilation, for its correctness
        found = [f for f in found if f[0] not in ("whole", "compiled")
                 or f == ("whole", "vae", "fp32")]
    return found


def run(options, deadline, progress=print):
    """Build, wait until the GPU is ours alone, measure; the exit status."""
    names = options.rows or rows.NAMES
    reserve = 10 if options.quick else 15 + SECONDS_A_ROW * len(rows.rows(names))
    build_until = deadline.part(deadline.left(), reserve)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        builders = [Builder(c, name, precision, options.quick, build_until, environment(folder, c))
                    for c, name, precision in selected(options.quick, names, options.peers)]
        stack.callback(lambda: [b.stop() for b in builders])
        for builder in builders:
            builder.start()
        while any(b.is_alive() for b in builders) and not build_until.over():
            time.sleep(0.1)
        (options.work / ".built").touch()
        while not (options.work / ".go").exists() and not deadline.over():
            time.sleep(0.1)
        end_late(builders, progress)
        return measure_all(options, deadline, builders, names, progress)


def attempted(name, precision, builders, deadline, quick):
    """``measure``; where it fails itself, a row that says so, and the others follow."""
    try:
        return measure(name, precision, builders, deadline, quick)
    except Exception as error:
        log(traceback.format_exc())
        return {"name": name, "precision": precision, "ok": False,
                "failed": [f"{type(error).__name__}: {error}"[:400]]}


def end_late(builders, progress):
    """Ends the processes that still build, so that they do not disturb the timing."""
    late = [b for b in builders if b.is_alive()]
    for builder in late:
        progress(f"  {builder.peer}, {builder.row}: still building, and ended")
        if builder.process:
            builder.process.process.kill()
    for builder in late:
        builder.join(5)


def measure_all(options, deadline, builders, names, progress):
    """Row by row, each written when it is done; the exit status."""
    path = options.work / "gpu_steps.json"
    record = {"rows": {}, "kernels": {}, "rtol": LOSS_RTOL, "checked_steps": CHECKED,
              "turns": TURNS}
    for name, precision in rows.rows(names):
        row = rows.key(name, precision)
        own = [b for b in builders if b.row == row]
        if deadline.left() < 5:
            record["rows"][row] = {"skipped": "no time was left"}
        else:
            record["rows"][row] = found = attempted(name, precision, own, deadline, options.quick)
            record["kernels"][row] = kernels = found.pop("kernels", {})
            progress(f"  {row}: " + ", ".join(
                f"{c} {1e6 * t:.0f} µs" for c in PEERS if (t := best(found, c)) is not None)
                + (f"; {kernels['count']:.0f} kernels of {1e6 * kernels['seconds']:.0f} µs"
                   if "count" in kernels else ""))
            for failure in found["failed"]:
                progress(f"    {failure}"[:300])
        for builder in own:
            builder.stop()
        save(path, record)
    return 0 if all(row.get("ok", True) for row in record["rows"].values()) else 1
