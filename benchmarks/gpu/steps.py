"""Training steps beside PyTorch and JAX: built early, checked, timed in turn.

Building takes long (torch.compile with max-autotune: up to a minute a row), so each contestant's
process builds one row after the other while other parts of the measurement run that need no quiet
GPU. Timing begins when these are done: everybody who is ready takes part, and who is not is
recorded as such. In a row the contestants take turns, block by block; each waits while others run.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile
import threading
import time

import numpy as np

from ..processes import Failed
from . import rows
from .parts import load, save
from .process import Process

OURS, CHECKED, TURNS = "ours", 4, 5
LOSS_RTOL = {"fp32": 1e-4, "tf32": 5e-3}               # of the first losses, relative to ours
BLOCK = 0.04                                           # seconds
SECONDS_A_ROW = 5                                      # to check and time it, about
FIRST_GUESS = {"compiled": 60, "whole": 25, "jax": 15, "torch": 5, OURS: 10, "drawn": 10}
# contestant → the module of its class
CREW = {OURS: "ours", "drawn": "ours", "torch": "peer_torch", "whole": "peer_torch",
        "compiled": "peer_torch", "jax": "peer_jax"}
TITLES = {OURS: "scratchgen", "drawn": "scratchgen, noise drawn in the step",
          "torch": "PyTorch eager", "compiled": "torch.compile, max-autotune",
          "whole": "torch.compile, the step as one CUDA graph", "jax": "JAX jit"}
FAST_PEERS = ("compiled", "whole", "jax")
NOT_BUILT = "not built when the timing began"


def variants(contestant, w):
    """label → options of its class."""
    joined = w.kind == "gan" and w.family == "mlp"     # real and generated images as one batch
    if contestant == "torch":
        found = {"fused": {}, "foreach": {"optimiser": "foreach"}}
        if w.family == "conv":
            found["fused, channels last"] = {"channels_last": True}
        return found | ({"fused, joined": {"joined": True}} if joined else {})
    if contestant in ("compiled", "whole"):
        mode = "max-autotune" if contestant == "compiled" else None
        return {"joined" if joined else "": {"how": contestant, "mode": mode, "joined": joined}}
    if contestant == "jax":
        return {"joined" if joined else "": {"joined": joined}}
    return {"": {"drawn": True} if contestant == "drawn" else {}}


# --- building ------------------------------------------------------------------------------------

class Builder(threading.Thread):
    """Builds the rows of one contestant, in order, until ``deadline``; ``built``: name → seconds.

    ``failed``: name → reason. A process that ends takes what it has built with it; it is started
    again, and goes on with the next row.
    """

    def __init__(self, contestant, wanted, quick, deadline, variables, make=Process):
        super().__init__(daemon=True)
        self.contestant, self.wanted, self.quick = contestant, wanted, quick
        self.deadline, self.variables, self.make = deadline, variables, make
        self.built, self.failed, self.process, self.longest = {}, {}, None, 0

    def run(self):
        guess = 0 if self.quick else FIRST_GUESS[self.contestant]
        for name, precision in self.wanted:
            for label, options in variants(self.contestant,
                                           rows.workload(name, self.quick)).items():
                if self.deadline.left() < max(guess, self.longest):
                    return
                self.build(name, precision, label, options)

    def build(self, name, precision, label, options):
        key = (rows.key(name, precision), label)
        if self.process is None or not self.process.alive():
            if self.process is not None:
                self.failed |= dict.fromkeys(self.built, "its process ended later")
                self.built = {}
            self.process = self.make(CREW[self.contestant], **self.variables)
        started = time.monotonic()
        try:
            self.built[key] = self.process.ask(
                "build", patience=self.deadline.left() + 30, name="|".join(key), row=name,
                precision=precision, quick=self.quick, variant=options)["seconds"]
        except Failed as failure:
            self.failed[key] = str(failure)
        self.longest = max(self.longest, time.monotonic() - started)

    def labels(self, row):
        return [label for (of, label) in self.built if of == row]


# --- timing --------------------------------------------------------------------------------------

class Runner:
    """One variant of one contestant in one row, and what was measured of it."""

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
        key = (self.row, self.label)
        found = {"first_steps": self.builder.built[key]}
        if self.failure:
            return found | {"failed": self.failure}
        if self.seconds:
            found |= {"median": statistics.median(self.seconds), "minimum": min(self.seconds),
                      "blocks": len(self.seconds), "steps": self.steps}
        return found


def measure(name, precision, builders, deadline, quick=False):
    """A row of the record: every contestant's variants, checked before and after the timing."""
    w, row = rows.workload(name, quick), rows.key(name, precision)
    runners = [Runner(b, row, label) for b in builders for label in b.labels(row)]
    compared = [r for r in runners if r.builder.contestant != "drawn"]
    check(compared, w, LOSS_RTOL[precision])
    if not quick:
        for runner in runners:
            runner.warm_up()
        for turn in range(TURNS):
            for runner in runners if turn == 0 or deadline.left() > SECONDS_A_ROW else ():
                runner.turn()
        check(compared, w, LOSS_RTOL[precision])
    for runner in runners:
        runner.ask("drop")
    contestants = {}
    for b in builders:
        own = {r.label: r.summary() for r in runners if r.builder is b}
        own |= {label: {"failed": reason} for (of, label), reason in b.failed.items() if of == row}
        contestants[b.contestant] = own or {"": {"absent": NOT_BUILT}}
    failed = [f"{c} {label}: {v['failed']}" for c, own in contestants.items()
              for label, v in own.items() if "failed" in v]
    return {"name": name, "precision": precision, "title": w.title, "family": w.family,
            "small": name in rows.SMALL, "batch": w.batch, "floors": rows.floors(w),
            "contestants": contestants, "failed": failed,
            "ok": not any(f.startswith((OURS, "drawn")) or "differ" in f for f in failed)
            and bool(builders[0].labels(row))}


def check(runners, w, rtol):
    reference = None
    for runner in runners:
        found = runner.check(w.lr_of_check, reference, rtol)
        if reference is None and runner.builder.contestant == OURS:
            reference = found


def best(row, contestant, statistic="median"):
    """Of a contestant's variants the shortest time, or None."""
    found = [v[statistic] for v in row["contestants"].get(contestant, {}).values()
             if statistic in v]
    return min(found, default=None)


# --- the part ------------------------------------------------------------------------------------

def environment(folder, contestant):
    """Every contestant compiles from nothing, into a folder of its own."""
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "CUPY_CACHE_DIR": str(folder / f"cupy-{contestant}"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{contestant}"),
            "TRITON_CACHE_DIR": str(folder / f"triton-{contestant}")}


def crew(quick, names):
    """contestant → rows that it is to build."""
    wanted = rows.rows(names)
    found = dict.fromkeys(CREW, wanted)
    if quick:                                          # one compilation, for its correctness
        found |= {"whole": [r for r in wanted if r == ("vae", "fp32")], "compiled": []}
    return found


def run(options, deadline, go, tell=print):
    """Build, wait for ``go()`` (the GPU is ours alone), measure; the exit status."""
    path, names = options.out / "gpu_steps.json", options.rows or rows.NAMES
    reserve = 10 if options.quick else 15 + SECONDS_A_ROW * len(rows.rows(names))
    build_until = deadline.part(deadline.left(), reserve)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        builders = [Builder(c, wanted, options.quick, build_until, environment(folder, c))
                    for c, wanted in crew(options.quick, names).items()]
        stack.callback(lambda: [b.process.__exit__() for b in builders if b.process])
        for builder in builders:
            builder.start()
        wait_for(builders, build_until, go, deadline)
        silence(builders, tell)
        status = measure_all(options, deadline, builders, path, names, tell)
        if not options.quick:
            record = load(path)
            record["kernels"] = kernels_of_a_step(names, stack, environment(folder, OURS), deadline)
            save(path, record)
        return status


def wait_for(builders, build_until, go, deadline):
    """Until all is built or the time for it is over, and the GPU is free."""
    while any(b.is_alive() for b in builders) and not build_until.over():
        time.sleep(0.1)
    while not go() and not deadline.over():
        time.sleep(0.1)


def silence(builders, tell):
    """Nobody may build while others are timed: who still does is ended after a moment."""
    for builder in builders:
        builder.join(20)
        if builder.is_alive():
            tell(f"  {builder.contestant}: still building, and ended")
            builder.failed |= dict.fromkeys(builder.built, "ended while it built a later row")
            builder.built = {}
            builder.process.process.kill()
            builder.join(5)


def measure_all(options, deadline, builders, path, names, tell):
    record = {"rows": {}, "rtol": LOSS_RTOL, "checked_steps": CHECKED, "turns": TURNS}
    for name, precision in rows.rows(names):
        row = rows.key(name, precision)
        if deadline.left() < 5:
            record["rows"][row] = {"skipped": "no time was left"}
            continue
        record["rows"][row] = measure(name, precision, builders, deadline, options.quick)
        save(path, record)
        tell(f"  {row}: " + ", ".join(
            f"{c} {1e6 * t:.0f} µs" for c in CREW
            if (t := best(record["rows"][row], c)) is not None))
        for failure in record["rows"][row]["failed"]:
            tell(f"    {failure}")
    save(path, record)
    return 0 if all(row.get("ok", True) for row in record["rows"].values()) else 1


def kernels_of_a_step(names, stack, variables, deadline):
    """row → a replayed step's kernels, by a profiler in a process of its own: it slows others."""
    found, process = {}, stack.enter_context(Process("ours", **variables))
    for name, precision in rows.rows(names):
        row = rows.key(name, precision)
        if deadline.left() < 15:
            found[row] = {"skipped": "no time was left"}
            continue
        try:
            process.ask("build", patience=deadline.left(), name=row, row=name, quick=False,
                        precision=precision, variant={"drawn": True})
            found[row] = process.ask("kernels", patience=deadline.left(), name=row)
            process.ask("drop", name=row)
        except Failed as failure:
            found[row] = {"failed": str(failure)}
    return found


def go_file(out):
    """The function that says whether the GPU is free: whether a file has appeared."""
    path = pathlib.Path(out) / ".go"
    return lambda: os.path.exists(path)
