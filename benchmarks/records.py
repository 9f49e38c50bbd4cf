"""Records of measurements: the machine, the settings, the rows; and what their tables share."""

import argparse
import json
import os
import pathlib
import sys
import tempfile

from . import peers
from .machine import describe

ROOT = pathlib.Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
LIBRARIES = ("torch", "jax")


class Refused(Exception):
    """What the user asked for cannot be done: one sentence."""


def machine():
    """Processor, cores, versions, commit, date."""
    return describe(*LIBRARIES)


# --- options that the benchmarks share -----------------------------------------------------------

def parser(doc, default_peers=None):
    """Options: --peers, --threads, --quick, --out."""
    found = argparse.ArgumentParser(description=doc.splitlines()[0],
                                    prog=f"python -m benchmarks {doc.split(':')[0].lower()}")
    if default_peers is not None:
        found.add_argument("--peers", default=default_peers, metavar="A,B", help=(
            f"of {', '.join(peers.PEERS)} (default: {default_peers or 'none'}; '' for none)"))
    found.add_argument("--threads", type=int, default=2, metavar="N")
    found.add_argument("--quick", action="store_true", help="check the results, measure nothing")
    found.add_argument("--out", type=pathlib.Path, metavar="DIR", help=(
        "for the record and the pictures (default: benchmarks/results and docs)"))
    return found


def check(options):
    """Refuses peers that do not exist and more threads than there are cores; --quick keeps nothing
    unless --out says where.
    """
    options.peers = [p for p in getattr(options, "peers", "").split(",") if p]
    for peer in options.peers:
        if peer not in peers.PEERS:
            raise Refused(f"no peer {peer!r}: expected some of {', '.join(peers.PEERS)}")
    cores = len(os.sched_getaffinity(0))
    if not 1 <= options.threads <= cores:
        raise Refused(f"--threads {options.threads}: this process may use {cores} "
                      f"core{'s' * (cores > 1)}; give a number from 1 to {cores}")
    if options.quick and options.out is None:                  # no measurement: nothing to keep
        options.scratch = tempfile.TemporaryDirectory()
        options.out = pathlib.Path(options.scratch.name)


def guarded(run, arguments):
    """The exit status of ``run(arguments)``; what the user got wrong is one line and status 2."""
    try:
        return run(arguments)
    except Refused as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def progress(text):
    print(text, file=sys.stderr, flush=True)


# --- files ---------------------------------------------------------------------------------------

def path_of(name, out, pictures=False):
    return (out or (DOCS if pictures else RESULTS)) / name


def load(path):
    """A record, or {} if there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


# --- tables --------------------------------------------------------------------------------------

def marked(value, target, other=None):
    """A ratio beside its target, marked if it misses it; ``other`` in square brackets."""
    if value is None:
        return "–"
    beside = "" if other is None else f" [{other:.2f}]"
    if target is None:
        return f"{value:.2f}{beside}"
    return (f"{value:.2f}{beside} (≤ {target:.2f})" if value <= target else
            f"**{value:.2f}**{beside} (≤ {target:.2f}) ✗")


def marked_at_least(value, target):
    """A ratio beside the least that it should be, marked if it is less."""
    return (f"{value:.2f} (≥ {target:.2f})" if value >= target else
            f"**{value:.2f}** (≥ {target:.2f}) ✗")


def threads(record):
    return f"{record['threads']} thread{'s' * (record['threads'] > 1)}"


def provenance(record, commits=None):
    """One line on where and with what the numbers of a record were measured; ``commits`` if not
    all of them at one."""
    m = record["machine"]
    versions = ", ".join(f"{n} {m[n]}" for n in ("numpy", "numba", *LIBRARIES) if m.get(n))
    return (f"{m['processor']}, {threads(record)} of {m['cores']} cores, Python "
            f"{m['python']}, {versions}; {commits or 'commit ' + m['commit']}, {m['date'][:10]}.")
