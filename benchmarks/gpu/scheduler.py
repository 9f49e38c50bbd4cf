"""Runs the parts, each in a process of its own, within one limit of time; writes ``gpu.json``.

``gpu.json`` is written anew whenever a part has finished an item or a row, so that an error or the
end of the time loses nothing that was measured. The peers of the training steps begin to build at
once and go on beside the checks; while the kernels and the ten epochs are timed they are stopped
(SIGSTOP), so that the GPU is idle; then they go on building and are timed, interleaved. A part that
hangs or dies is ended, and the others follow; an item that made the GPU unusable is run again under
compute-sanitizer.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from ..processes import ROOT
from . import device, sanitizer, targets
from .parts import CUT_OFF, LOG, RESTART, Deadline, load, log, progress, save

SECONDS = 525                                          # of a run, by default
PARTS = ("checks", "across", "kernels", "mnist", "steps")
BUDGET = {"checks": 130, "across": 110, "kernels": 130, "mnist": 50}   # seconds, at most
SHARES = {"checks": min(12, os.cpu_count() or 1)}      # processes that share a part's items
RESERVE = 110                                          # seconds for timing the training steps
SHORT = 8                                              # seconds that no part is started with
BUILT = 75                                             # to wait for the peers before kernels
TIMED = ("kernels", "mnist")                           # these run alone
ITEMS = ("checks", "across", "kernels")                # whose items are short:
STILL = 60                                             # seconds after which one of them hangs
RESTARTS = 12                                          # of one part
# The checks' networks are small: threads of BLAS cost more than they give, and several processes
# share the cores.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}


class Child:
    """A part in a process of its own, which leads a process group."""

    def __init__(self, part, options, deadline, share=0):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", *arguments_of(part, options, deadline, share)],
            cwd=ROOT, stdin=subprocess.DEVNULL, process_group=0,
            env={**os.environ, **ENVIRONMENT} if part in ("checks", "across") else None)

    def wait(self, seconds):
        """Its exit status, or None if it had to be ended."""
        try:
            return self.process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError, PermissionError):         # it has ended
            os.killpg(self.process.pid, number)

    def end(self):
        """Its whole group, also what a process that has ended left behind."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.process.wait()


def arguments_of(part, options, deadline, share=0):
    """The command line of a part's process."""
    found = ["--part", part, "--until", repr(deadline.until), "--out", str(options.out),
             "--work", str(options.work), "--share", str(share)]
    found += ["--quick"] * options.quick
    found += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    found += ["--rows", ",".join(options.rows)] if options.rows else []
    found += ["--peers", ",".join(options.peers)] if options.peers else []
    return found


def path_of(options, part, share=0):
    shared = f"_{share}" if part in SHARES else ""
    return options.work / f"gpu_{part}{shared}.json"


def run_part(part, options, deadline, child=Child, share=0):
    """A part, started again behind whatever ended it, until it is through or its time is over."""
    for _ in range(RESTARTS):
        running = child(part, options, deadline, share)
        try:
            hung = part in ITEMS and hangs(running, path_of(options, part, share), deadline)
            status = None if hung else running.wait(deadline.left() + 3)
        finally:
            running.end()
        if hung:
            status = -signal.SIGKILL
            mark_hung(path_of(options, part, share))
        if status is None or status != RESTART and status >= 0 or deadline.left() < SHORT:
            break
    return status


def hangs(running, path, deadline):
    """Wait for a part's process; whether it must be ended, for its record has not grown in STILL
    seconds: an item hangs, and the others can still be done."""
    grown, size = time.monotonic(), None
    while running.running() and not deadline.over():
        found = path.stat().st_mtime_ns if path.exists() else 0
        if found != size:
            grown, size = time.monotonic(), found
        elif time.monotonic() - grown > STILL:
            return True
        time.sleep(0.1)
    return False


def mark_hung(path):
    """In the record of a part, the item that its process was at work on."""
    record = load(path)
    for name, result in record.get("items", {}).items():
        if result.get("error") == CUT_OFF:
            result["error"] = f"it hung: no answer in {STILL} s"
            progress(f"  {name}: {result['error']}")
    if record:
        save(path, record)


def run_shares(part, options, deadline, child=Child):
    """A part whose items several processes share; the worst exit status."""
    shares = range(SHARES.get(part, 1))
    with concurrent.futures.ThreadPoolExecutor(len(shares)) as pool:
        statuses = list(pool.map(
            lambda share: run_part(part, options, deadline, child, share), shares))
    return None if None in statuses else min(statuses) if min(statuses) < 0 else max(statuses)


def results_of(part, options):
    """What all processes of a part have left by now, joined."""
    record = {}
    for share in range(SHARES.get(part, 1)):
        found = load(path_of(options, part, share))
        record |= {**found, "items": {**record.get("items", {}), **found["items"]}} if (
            "items" in found) else found
    return record


# --- the run -------------------------------------------------------------------------------------

def run(options, child=Child, now=time.monotonic):
    """All parts that were asked for; the exit status."""
    deadline, statuses = Deadline(options.seconds, now=now), {}
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ[LOG] = str(options.out / "gpu_log.txt")
    with tempfile.TemporaryDirectory() as work:
        options.work = pathlib.Path(work)
        if options.earlier:                            # which families have failed
            save(options.work / "earlier.json", options.earlier)
        if run_part("device", options, deadline.part(60), child) != 0:
            return 2
        with kept(options, deadline, statuses):
            steps = child("steps", options, deadline.part(deadline.left(), 6)) if (
                "steps" in options.parts) else None
            try:
                run_parts(options, deadline, steps, child, statuses)
                (options.work / ".go").touch()
                if steps:
                    progress(f"steps ({deadline.left():.0f} s left)")
                    statuses["steps"] = steps.wait(deadline.left() - 3)
            except OSError as error:                   # what has been measured is kept
                statuses["scheduler"] = f"{type(error).__name__}: {error}"
            finally:
                if steps:
                    steps.end()
        run_again_watched(options, deadline)
        return finish(options, deadline, statuses)


@contextlib.contextmanager
def kept(options, deadline, statuses):
    """Inside, ``gpu.json`` is written anew every second."""
    done = threading.Event()

    def write():
        while not done.wait(1):
            try:
                save(options.out / "gpu.json", merged(options, deadline, statuses))
            except Exception as error:                 # the next second may be better
                log(f"gpu.json could not be written: {type(error).__name__}: {error}")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run_parts(options, deadline, steps, child, statuses):
    """The parts but the steps, in order; these are stopped while others are timed."""
    waiting = None                                     # once for all parts
    for part in [p for p in PARTS if p in options.parts and p != "steps"]:
        if steps and part in TIMED:                    # the peers need the processor until then
            waiting = waiting or deadline.part(BUILT, RESERVE)
            wait_for(options.work / ".built", steps, waiting)
        budget = deadline.part(BUDGET[part], reserve=RESERVE if steps else SHORT)
        if budget.left() < SHORT:
            save(path_of(options, part), {"items": {part: {"skipped": "no time was left"}}})
            continue
        progress(f"{part} ({deadline.left():.0f} s left)")
        if steps and part in TIMED:
            steps.signal(signal.SIGSTOP)
            time.sleep(0.5)                            # what is on the GPU comes to its end
        try:
            statuses[part] = run_shares(part, options, budget, child)
        finally:
            if steps and part in TIMED:
                steps.signal(signal.SIGCONT)


def wait_for(path, child, deadline):
    while not path.exists() and child.running() and not deadline.over():
        time.sleep(0.2)


def run_again_watched(options, deadline):
    """Each item that made the GPU unusable, under compute-sanitizer: which access was it?"""
    for part in options.parts:
        found = results_of(part, options).get("items", {})
        for name in [name for name, result in found.items() if result.get("lost")]:
            if deadline.left() < 2 * SHORT:
                return
            progress(f"{part}, {name}: once more under compute-sanitizer")
            command = ["-m", "benchmarks.gpu", *arguments_of(part, options, deadline),
                       "--only", name]
            found[name]["sanitizer"] = sanitizer.watched(
                "memcheck", command, deadline.part(60, reserve=3).left())
            save(options.work / f"gpu_{part}_watched.json", {"items": {name: found[name]}})


def merged(options, deadline, statuses):
    """The record of all that is known by now; an earlier record's parts are kept in it.

    ``statuses``: exit status of each part, None of one that was ended because its time was over.
    """
    earlier = options.earlier or {}
    parts = [p for p in PARTS if p in options.parts or p in earlier.get("parts", ())]
    record = {**load(path_of(options, "device")), "quick": options.quick, "parts": parts,
              "seconds": round(options.seconds - deadline.left(), 1),
              "statuses": {**earlier.get("statuses", {}), **statuses}}
    if earlier:
        record["earlier"] = {k: earlier.get(k) for k in ("commit", "date", "device", "driver",
                                                         "parts")}
    for part in parts:
        record[part] = results_of(part, options) if part in options.parts else earlier[part]
        watched = load(options.work / f"gpu_{part}_watched.json").get("items", {})
        if watched:
            record[part]["items"] |= watched
    keep_peers(record, earlier)
    return record


def keep_peers(record, earlier):
    """Into the steps, what an earlier run on the same GPU measured of rows, and of peers,
    that this one leaves out; marked with that run's commit."""
    if earlier.get("device") != record.get("device") or "steps" not in record:
        return
    before_this, steps = earlier.get("steps", {}), record["steps"]
    rows = steps.setdefault("rows", {})
    for key in before_this.get("rows", {}).keys() - rows.keys():
        rows[key] = {"commit": earlier.get("commit"), **before_this["rows"][key]}
        if key in before_this.get("kernels", {}):
            steps.setdefault("kernels", {})[key] = before_this["kernels"][key]
    for key, row in rows.items():
        before = before_this.get("rows", {}).get(key, {}).get("peers", {})
        for name in before.keys() - row.get("peers", before).keys():
            row["peers"][name] = {
                label: {"commit": earlier.get("commit"), **found}
                for label, found in before[name].items()}


def finish(options, deadline, statuses):
    """``gpu.json`` with the targets and the failures, a summary; the exit status."""
    record = merged(options, deadline, statuses)
    for part in options.parts:
        record[part] = record[part] or {"items": {part: {"error": "it left nothing"}}}
    record["targets"] = [] if options.quick else targets.rows(record)
    record["failures"] = targets.failures(record)
    save(options.out / "gpu.json", record)
    for row in record["targets"]:
        progress(targets.line(row))
    for failure in record["failures"]:
        progress(f"FAILED {failure[:300]}")
        log(failure)
    progress(f"{options.out / 'gpu.json'}: {len(record['failures'])} failures, "
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
            return steps.run(options, deadline, progress)
        return items_here(options, deadline)
    except UserError as error:
        progress(f"gpu: {error}")
        return 2


def items_of(part, gpu, options, deadline):
    """name → function of a part's items."""
    from . import checks, kernel_times, mnist, training
    return {"checks": lambda: checks.items(gpu),
            "across": lambda: training.items(deadline, options.quick),
            "kernels": lambda: kernel_times.items(gpu, deadline, options.quick, failed(options)),
            "mnist": lambda: mnist.items(options)}[part]()


def items_here(options, deadline):
    from scratchgen.kernels import cuda

    from . import parts
    gpu = cuda.device()
    path = path_of(options, options.part, options.share)
    items = parts.attempt(lambda: items_of(options.part, gpu, options, deadline))
    if isinstance(items.get("error"), str):
        save(path, {"items": {"preparation": items}})
        return 1
    if options.only:                                   # under a tool that watches
        result = parts.attempt(items[options.only])
        print(f"ran {options.only.replace(' ', '_')}", flush=True)
        return 1 if parts.bad(result) else 0
    names = list(items)[options.share::SHARES.get(options.part, 1)]
    return parts.run({name: items[name] for name in names}, path, deadline,
                     lambda: device.lost(gpu), progress)


def failed(options):
    """family → the first check of it that was not passed, in this run or the earlier one."""
    found = {}
    for record in (load(options.work / "earlier.json").get("checks", {}),
                   results_of("checks", options)):
        for name, result in record.get("items", {}).items():
            if "error" in result or result.get("ok") is False:
                family = {"rungs of the product": "gemm", "tensor cores": "gemm",
                          "rungs of the convolution": "conv2d"}.get(
                              name, name.split()[-1].split(".")[0])
                found.setdefault(family, f"not timed: the check {name!r} was not passed")
    return found
