"""A part of the measurement: named items, done one after the other, each kept when it is done.

An item returns a dict; ``ok`` in it says whether a check was passed. One that raises is recorded
with its error, and the next ones follow. A GPU that an item has made unusable (an access outside
an array ends the process's context) is noticed: the part then ends with RESTART, and started
again it goes on behind that item. One that ends the process leaves a mark that was set before.
"""

import os
import sys
import time
import traceback

from ..records import load, save

RESTART = 75
LOG = "SCRATCHGEN_GPU_LOG"                            # the path of the file that log writes to
CUT_OFF = "it ended the process, or time was up while it ran"


class Deadline:
    """``seconds`` from now, or at ``until``; in CLOCK_MONOTONIC, shared by all processes."""

    def __init__(self, seconds=None, until=None, now=time.monotonic):
        self.now = now
        self.until = now() + seconds if until is None else until

    def left(self):
        return max(0.0, self.until - self.now())

    def over(self):
        return self.left() <= 0

    def part(self, seconds, reserve=0.0):
        """A deadline of at most ``seconds``, which leaves ``reserve`` of this one for others."""
        return Deadline(max(0.0, min(seconds, self.left() - reserve)), now=self.now)


def log(text):
    """Into the log file alone, where there is one."""
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def progress(text):
    """On the screen and into the log."""
    print(text, file=sys.stderr, flush=True)
    log(text)


def run(items, path, deadline, lost=lambda: False, progress=print):
    """Do the items (name → function) that the record at ``path`` does not have; the exit status.
    """
    record = load(path)
    done = record.setdefault("items", {})
    for name, item in items.items():
        if name in done:
            continue
        if deadline.over():
            done[name] = {"skipped": "no time was left"}
            continue
        done[name] = {"error": CUT_OFF}
        save(path, record)
        started = time.perf_counter()
        done[name] = attempt(item)
        done[name]["seconds_taken"] = round(time.perf_counter() - started, 3)
        save(path, record)
        if bad(done[name]):
            progress(f"  {name}: {done[name].get('error', 'not passed')}")
        if "error" in done[name] and lost():
            done[name]["lost"] = True
            save(path, record)
            return RESTART
    save(path, record)
    return 1 if any(bad(result) for result in done.values()) else 0


def attempt(item):
    """What an item returns, or {"error": its message and place}."""
    try:
        return dict(item())
    except Exception as error:                         # recorded; the next item follows
        log(traceback.format_exc())
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:600]
        return {"error": f"{type(error).__name__}: {text} ({place.filename.rsplit('/', 1)[-1]}, "
                         f"line {place.lineno})"}


def bad(result):
    """Whether an item has failed; one that was skipped has not."""
    return "error" in result or result.get("ok") is False
