"""Runs the parts, each in a process of its own, within one limit of time; writes ``gpu.json``.

The contestants of the training steps begin to build at once and go on beside the checks; while the
kernels and the ten epochs are timed they are stopped (SIGSTOP), so that the GPU is quiet; then they
build on, and take their turns. A part that hangs or dies is ended, and the others follow.
"""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time

from ..processes import ROOT
from . import device, targets
from .deadline import Deadline
from .parts import RESTART, load, save

LIMIT = 525                                            # seconds, of nine minutes
PARTS = ("checks", "across", "kernels", "mnist", "steps")
BUDGET = {"checks": 130, "across": 110, "kernels": 110, "mnist": 50}   # seconds, at most
SHARES = {"checks": 6}                                 # processes that share a part's items
RESERVE = 110                                          # seconds for the turns of the contestants
SHORT = 8                                              # seconds that no part is started with
TIMED = ("kernels", "mnist")                           # while these run nobody else may
RESTARTS = 12                                          # of one part


def tell(text):
    print(text, file=sys.stderr, flush=True)


class Child:
    """A part in a process of its own, which leads a process group."""

    def __init__(self, part, options, deadline, share=0):
        arguments = ["--part", part, "--until", repr(deadline.until), "--out", str(options.out),
                     "--share", str(share)]
        arguments += ["--quick"] * options.quick
        arguments += ["--data-dir", str(options.data_dir)] if options.data_dir else []
        arguments += ["--rows", ",".join(options.rows)] if options.rows else []
        self.process = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", *arguments],
                                        cwd=ROOT, stdin=subprocess.DEVNULL, process_group=0)

    def wait(self, seconds):
        """Its exit status, or None if it had to be ended."""
        try:
            return self.process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass                                       # it has ended

    def end(self):
        """Its whole group, also what a process that has ended left behind."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.process.wait()


def path_of(options, part, share=0):
    shared = f"_{share}" if part in SHARES else ""
    return options.out / f"gpu_{part}{shared}.json"


def run_part(part, options, deadline, child=Child, share=0):
    """A part, started again behind whatever ended it, until it is through or its time is over."""
    for _ in range(RESTARTS):
        running = child(part, options, deadline, share)
        try:
            status = running.wait(deadline.left() + 3)
        finally:
            running.end()
        if status is None or status != RESTART and status >= 0 or deadline.left() < SHORT:
            break
    return status


def run_shares(part, options, deadline, child=Child):
    """A part whose items several processes share; the worst exit status."""
    shares = range(SHARES.get(part, 1))
    with concurrent.futures.ThreadPoolExecutor(len(shares)) as pool:
        statuses = list(pool.map(
            lambda share: run_part(part, options, deadline, child, share), shares))
    return None if None in statuses else min(statuses) if min(statuses) < 0 else max(statuses)


def results_of(part, options):
    """What all processes of a part left; their files are joined into one."""
    record = {}
    for share in range(SHARES.get(part, 1)):
        path = path_of(options, part, share)
        found = load(path)
        record |= {**found, "items": {**record.get("items", {}), **found["items"]}} if (
            "items" in found) else found
        if part in SHARES:
            path.unlink(missing_ok=True)
    if part in SHARES and record:
        save(options.out / f"gpu_{part}.json", record)
    return record or {"items": {part: {"error": "it left nothing"}}}


def run(options, child=Child, now=time.monotonic):
    """All parts that were asked for; the exit status."""
    deadline = Deadline(LIMIT, now=now)
    options.out.mkdir(parents=True, exist_ok=True)
    for old in (*options.out.glob("gpu_*.json"), options.out / ".go"):
        old.unlink(missing_ok=True)
    go = options.out / ".go"
    if run_part("device", options, deadline.part(60), child) != 0:
        return 2
    steps = child("steps", options, deadline.part(deadline.left(), 6)) if (
        "steps" in options.parts) else None
    statuses = {}
    try:
        conduct(options, deadline, steps, child, statuses)
        go.touch()
        if steps:
            tell(f"steps ({deadline.left():.0f} s left)")
            statuses["steps"] = steps.wait(deadline.left() - 3)
    except OSError as error:                           # what has been measured is kept
        statuses["conductor"] = f"{type(error).__name__}: {error}"
    finally:
        if steps:
            steps.end()
        go.unlink(missing_ok=True)
    return finish(options, deadline, statuses)


def conduct(options, deadline, steps, child, statuses):
    """The parts but the steps, in order; these are stopped while others are timed."""
    for part in [p for p in PARTS if p in options.parts and p != "steps"]:
        budget = deadline.part(BUDGET[part], reserve=RESERVE if steps else SHORT)
        if budget.left() < SHORT:
            save(path_of(options, part), {"items": {part: {"skipped": "no time was left"}}})
            continue
        tell(f"{part} ({deadline.left():.0f} s left)")
        if steps and part in TIMED:
            steps.signal(signal.SIGSTOP)
            time.sleep(0.5)                            # what is on the GPU comes to its end
        try:
            statuses[part] = run_shares(part, options, budget, child)
        finally:
            if steps and part in TIMED:
                steps.signal(signal.SIGCONT)


def finish(options, deadline, statuses):
    """``gpu.json`` from what the parts left, the targets, a summary; the exit status.

    ``statuses``: exit status of each part, None of one that was ended because its time was over.
    """
    record = {**load(path_of(options, "device")), "quick": options.quick, "parts": options.parts,
              "seconds": round(LIMIT - deadline.left(), 1), "statuses": statuses}
    for part in options.parts:
        record[part] = results_of(part, options)
    record["targets"] = [] if options.quick else targets.rows(record)
    record["failures"] = targets.failures(record)
    save(options.out / "gpu.json", record)
    for row in record["targets"]:
        tell(targets.line(row))
    for failure in record["failures"]:
        tell(f"FAILED {failure}")
    tell(f"{options.out / 'gpu.json'}: {len(record['failures'])} failures, "
         f"{record['seconds']:.0f} s")
    return 1 if record["failures"] else 0


# --- in the part's own process -------------------------------------------------------------------

def run_here(options):
    """One part, in this process; the exit status."""
    from scratchgen import UserError
    deadline = Deadline(until=options.until)
    try:
        if options.part == "device":
            save(path_of(options, "device"), device.describe())
            return 0
        if options.part == "steps":
            from . import steps
            return steps.run(options, deadline, steps.go_file(options.out), tell)
        return items_here(options, deadline)
    except UserError as error:
        tell(f"gpu: {error}")
        return 2


def items_here(options, deadline):
    from scratchgen.kernels import cuda

    from . import across, checks, kernel_times, mnist, parts
    gpu = cuda.device()
    path = path_of(options, options.part, options.share)
    make = {"checks": lambda: checks.items(gpu),
            "across": lambda: across.items(deadline, options.quick),
            "kernels": lambda: kernel_times.items(gpu, deadline, options.quick),
            "mnist": lambda: mnist.items(options)}[options.part]
    items = parts.attempt(make)
    if isinstance(items.get("error"), str):
        save(path, {"items": {"preparation": items}})
        return 1
    names = list(items)[options.share::SHARES.get(options.part, 1)]
    return parts.run({name: items[name] for name in names}, path, deadline,
                     lambda: device.lost(gpu), tell)
