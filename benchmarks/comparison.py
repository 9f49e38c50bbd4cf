"""One workload: all peers checked against each other, then timed, interleaved.

Before the first round, each variant that keeps on disk what it compiles has done so in a process
that is not measured. In each round every peer starts in a fresh process. One after the other
they do their first step, are checked (first losses and gradients; all must agree) and warm up; then
they are timed interleaved, A B C A B C, each for some chunks of steps while the others wait; then
their losses from the initial weights are compared again. From the second round on only the fastest
variant of each peer runs.
"""

import contextlib
import pathlib
import statistics
import tempfile

import numpy as np

from . import lower_bound, peers, processes, workloads
from .processes import Failed
from .records import progress

OURS = "scratchgen"
CHECKED = 4                               # steps whose losses are compared
LOSS_RTOL = 1e-4                          # float32, relative to scratchgen's
GRADIENT_RTOL = 1e-3                      # of the largest element of each parameter's gradient
PASSES, CHUNKS, CHUNK_SECONDS = 5, 3, 0.08


class Runner:
    """A peer's variant and what was measured of it."""

    def __init__(self, name, label, options):
        self.name, self.label, self.options = name, label, options
        self.seconds, self.starts, self.memories, self.failure = [], [], [], None

    def attempt(self, action):
        """``action()``'s answer, or None if the peer failed, now or before."""
        if self.failure is None:
            try:
                return action()
            except Failed as failure:
                self.failure = str(failure)
                progress(f"  {self.title}: {failure}")
        return None

    title = property(lambda self: f"{self.name} ({self.label})" if self.label else self.name)
    median = property(lambda self: statistics.median(self.seconds))

    def compile_ahead(self, step, threads):
        """In a process of its own, so that those that are measured start warm."""
        self.attempt(lambda: processes.compile_ahead(self.name, threads, *step, self.options))

    def enter(self, stack, step, threads):
        """A fresh process, its first step done."""
        maker, options = step
        self.process = stack.enter_context(
            processes.Process(self.name, threads, maker, options, self.options))
        self.starts.append(self.attempt(self.process.first_step))

    def warm_up(self):
        """Some steps, and how many make a chunk."""
        once = self.process.ask("time", steps=1, chunks=2)["seconds"][-1]
        steps = max(1, round(CHUNK_SECONDS / once))
        self.steps = max(1, round(steps * once / (self.process.ask(
            "time", steps=steps, chunks=1)["seconds"][0])))

    def time_chunks(self):
        """Times some chunks of steps; the first one warms the caches and does not count."""
        answer = self.process.ask("time", steps=self.steps, chunks=CHUNKS)
        if not answer["finite"]:
            raise Failed("a loss is not finite")
        self.seconds += answer["seconds"][1:]


def compare(name, chosen, threads, rounds, quick):
    """The row of a workload: every peer's times, memory, failures."""
    step = workloads.STEPS[name]
    workload = workloads.make(*step, name=name)
    runners = [Runner(OURS, "", {})] + [
        Runner(peer, label, options) for peer in chosen if not peers.missing(peer)
        for label, options in peers.variants(peer, workload).items()]
    if quick:
        runners = list({r.name: r for r in reversed(runners)}.values())[::-1]  # first variants
    for runner in () if quick else runners:
        runner.compile_ahead(step, threads)
    running = runners
    for i in range(rounds):
        one_round(running, workload, step, threads, first=i == 0, quick=quick)
        running = fastest_variants(running)
    row = {"title": workload.title, "family": workload.family, "batch": workload.batch,
           "peers": {n: summary([r for r in runners if r.name == n])
                           for n in dict.fromkeys(r.name for r in runners)}}
    for peer in chosen:
        if peers.missing(peer):
            row["peers"][peer] = {"absent": f"{peers.missing(peer)} is not installed"}
    if not quick:
        try:
            row["floor"] = lower_bound.of_workload(*step, threads)
        except Failed as failure:
            progress(f"  {failure}")
    return row


def one_round(runners, workload, step, threads, first, quick):
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for runner in runners:
            runner.enter(stack, step, threads)
        check(runners, workload, folder if first else None)
        if not quick:
            for runner in runners:
                runner.attempt(runner.warm_up)
            for _ in range(PASSES):
                for runner in runners:
                    runner.attempt(runner.time_chunks)
        for runner in runners:
            runner.memories.append(runner.attempt(lambda r=runner: r.process.ask("memory")))
        if not quick:
            check(runners, workload)


def fastest_variants(runners):
    """Each peer's fastest variant; those that failed are out."""
    fit = [r for r in runners if r.failure is None]
    best = {}
    for r in fit:
        if r.name not in best or r.seconds and r.median < best[r.name].median:
            best[r.name] = r
    return list(best.values())


# --- checks --------------------------------------------------------------------------------------

def check(runners, workload, folder=None):
    """Losses of the first steps from the initial weights, and with a folder the first gradients,
    beside scratchgen's. Who differs has failed.
    """
    reference = None
    for i, runner in enumerate(runners):
        file = str(folder / f"{i}.npz") if folder else None
        answer = runner.attempt(lambda r=runner, f=file: r.process.ask(
            "check", steps=CHECKED, lr=workload.lr_of_check, gradients=f))
        if answer is None:
            continue
        found = np.array(answer["losses"]), load_gradients(file)
        reference = found if reference is None else reference
        runner.failure = difference(found, reference)
        if runner.failure:
            progress(f"  {runner.title}: {runner.failure}")


def load_gradients(file):
    if file is None:
        return {}
    with np.load(file) as arrays:
        return dict(arrays)


def difference(found, reference):
    """None, or a sentence on where (losses, gradients) exceed the tolerances; NaN exceeds them."""
    (losses, gradients), (losses_of_ours, ours) = found, reference
    if losses.shape != losses_of_ours.shape:
        return f"{losses.shape} losses where scratchgen has {losses_of_ours.shape}"
    error = np.abs(losses - losses_of_ours) / np.abs(losses_of_ours)
    if not np.max(error) <= LOSS_RTOL:
        return (f"loss {losses.flat[np.argmax(error)]:.6g} where scratchgen has "
                f"{losses_of_ours.flat[np.argmax(error)]:.6g} in the first {len(losses)} steps")
    if set(gradients) != set(ours):
        return f"gradients of {sorted(gradients)} where scratchgen has {sorted(ours)}"
    for name, gradient in ours.items():
        if gradients[name].shape != gradient.shape:
            return f"gradient of {name} has shape {gradients[name].shape}, not {gradient.shape}"
        error = np.max(np.abs(gradients[name] - gradient)) / np.max(np.abs(gradient))
        if not error <= GRADIENT_RTOL:
            return f"gradient of {name} differs from scratchgen's by {error:.1e} of its largest"
    return None


def summary(variants):
    """What a row says of a peer, by its fastest variant."""
    fit = [v for v in variants if v.failure is None]
    failures = {v.label: v.failure for v in variants if v.failure}
    if not fit:
        return {"failed": failures}
    best = min(fit, key=lambda v: v.median if v.seconds else 0)
    found = {"variant": best.label, "start": best.starts,
             "memory": [m for m in best.memories if m], "failed": failures}
    if best.seconds:
        found |= {"median": best.median, "min": min(best.seconds), "seconds": best.seconds,
                  "variants": {v.label: v.median for v in fit}}
    return found
