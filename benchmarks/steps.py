"""Steps: time and memory of a training step, for PyTorch and JAX too, and its lower bound.

    python -m benchmarks steps [--peers torch,torch-compile,jax] [--threads 2] [--rounds 2]
                               [--only NAME ...] [--quick] [--out DIR]

``comparison.py`` checks and times the peers, ``workloads.py`` states what they compute, and
``lower_bound.py`` the lower bound. The record has a section for each processor. It is written after
each workload; with --only the section keeps the others. The exit status is 1 if a peer failed: it
crashed, or its numbers differ from ours.
"""

import sys
import tempfile
import time

from . import comparison, peers, records, workloads
from .processes import Failed, Process
from .readme import markdown
from .records import marked, progress

PEERS = "torch,torch-compile,jax"
# Targets: of the fastest peer's time (workloads that are not named: MLP), of PyTorch's memory, of
# its time, of the lower bound.
FASTEST = {"dae-1000": 0.85, "conv-vae": 0.45, "dcgan": 0.45, "tiny": 1.0}
MLP, MEMORY = 0.80, 0.5
EAGER = {"mlp": 0.60, "conv": 0.60, "overhead": 0.50}
FLOOR = {"mlp": 1.25, "conv": 1.6}
COLD = ("vae", "conv-vae")                # workloads whose first step is also timed without caches


def main(arguments):
    return records.guarded(run, arguments)


def run(arguments):
    parser = records.parser(__doc__, PEERS)
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="fresh processes each")
    parser.add_argument("--only", nargs="+", default=list(workloads.STEPS), metavar="NAME",
                        help=f"of {', '.join(workloads.STEPS)}")
    options = parser.parse_args(arguments)
    records.check(options)
    unknown = set(options.only) - set(workloads.STEPS)
    if unknown or options.rounds < 1:
        raise records.Refused(
            f"--only {' '.join(sorted(unknown))}: expected some of {', '.join(workloads.STEPS)}"
            if unknown else f"--rounds {options.rounds}: expected 1 or more")
    path = records.path_of("steps.json", options.out)
    every = {} if options.quick else records.load(path)
    here = records.machine()
    record = every.setdefault("processors", {}).setdefault(here["processor"], {})
    record |= {"machine": here, "threads": options.threads,
               "rounds": options.rounds, "peers": options.peers, "quick": options.quick}
    started = time.perf_counter()
    for name in options.only:
        progress(f"{name} ({time.perf_counter() - started:.0f} s)")
        rows = record.setdefault("rows", {})
        rows[name] = measured(name, options) | {
            "commit": record["machine"]["commit"], "date": record["machine"]["date"]}
        record["rows"] = {n: rows[n] for n in workloads.STEPS if n in rows}
        records.save(path, every)
    print(report({**record, "rows": {n: record["rows"][n] for n in options.only}}))
    failed = [n for n in options.only if failures(record["rows"][n])]
    progress(f"{len(options.only) - len(failed)} of {len(options.only)} workloads agree"
         + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def measured(name, options):
    rounds = 1 if options.quick else options.rounds
    row = comparison.compare(name, options.peers, options.threads, rounds, options.quick)
    if name in COLD and not options.quick:
        row["cold"] = {n: cold_start(n, name, options.threads)
                       for n in (comparison.OURS, *options.peers) if not peers.missing(n)}
    return row


def cold_start(peer, name, threads):
    """Seconds to the end of the first step with nothing compiled before."""
    step = workloads.STEPS[name]
    options = next(iter(peers.variants(peer, workloads.make(*step)).values()))
    with tempfile.TemporaryDirectory() as empty:
        variables = {peers.CACHES[peer]: empty} if peer in peers.CACHES \
            else {}
        with Process(peer, threads, *step, options, **variables) as process:
            try:
                return process.first_step()
            except Failed as failure:
                return {"failed": str(failure)}


# --- what the record says ------------------------------------------------------------------------

def failures(row):
    """peer → {variant: reason} of a row."""
    return {name: c["failed"] for name, c in row["peers"].items() if c.get("failed")}


def ratios(row, statistic="median"):
    """{fastest, eager, floor, memory}: ours over theirs, None where one of the two is missing."""
    own = row["peers"][comparison.OURS]
    others = {n: c for n, c in row["peers"].items()
              if n not in (comparison.OURS, "numpy") and statistic in c}
    if statistic not in own:
        return dict.fromkeys(("fastest", "eager", "floor", "memory"))
    eager, time_of_ours = others.get("torch"), own[statistic]
    return {
        "fastest": others and time_of_ours / min(c[statistic] for c in others.values()) or None,
        "eager": eager and time_of_ours / eager[statistic],
        "floor": time_of_ours / row["floor"]["floor"] if "floor" in row else None,
        "memory": eager and peak(own) / peak(eager)}


def peak(peer):
    """Peak memory of its last process, MiB; what is kept on disk was compiled before."""
    return peer["memory"][-1]["peak"]


def targets(name, row):
    family = row["family"]
    return {"fastest": FASTEST.get(name, MLP), "eager": EAGER[family], "floor": FLOOR.get(family),
            "memory": MEMORY}


def bound_beside_peers(row):
    """How much of the fastest peer's time the lower bound is; "" where that is no news."""
    times = {n: c["median"] for n, c in row["peers"].items()
             if n not in (comparison.OURS, "numpy") and "median" in c}
    if not times or "floor" not in row:
        return ""
    fastest = min(times, key=times.get)
    return (f"the lower bound is {row['floor']['floor'] / times[fastest]:.2f} of "
            f"{peers.TITLES[fastest]}")


def table(record):
    """A table for each processor, the latest first."""
    sections = sorted(record["processors"].values(), key=lambda r: r["machine"]["date"])
    return "\n\n".join(table_of(section) for section in sections[::-1])


def table_of(record):
    """Times, medians with minima in brackets, and the four ratios beside their targets; in square
    brackets the ratios of the minima.
    """
    names = [comparison.OURS, *record["peers"]]
    header = ["workload", *(f"{peers.TITLES.get(n, n)}, ms" for n in names), "lower bound, ms",
              "of the fastest [minima]", "of PyTorch [minima]", "of the lower bound [minimum]",
              "memory, MiB", "of PyTorch's"]
    rows, notes = [], []
    for name, row in record["rows"].items():
        wanted, found, of_minima = targets(name, row), ratios(row), ratios(row, "min")
        floor = row.get("floor", {}).get("floor")
        rows.append([row["title"], *(cell(row["peers"].get(n)) for n in names),
                     f"{1e3 * floor:.2f}" if floor and wanted["floor"] else "–",
                     *(marked(found[r], wanted[r], of_minima[r])
                       if r != "floor" or wanted[r] else "–"
                       for r in ("fastest", "eager", "floor")),
                     memories(row), marked(found["memory"], wanted["memory"])])
        notes += [f"- {row['title']}: {c}, {label or 'as it is'}, failed: {reason}"
                  for c, by in failures(row).items() for label, reason in by.items()]
        missed = wanted["floor"] and (found["fastest"] or 0) > wanted["fastest"]
        if missed and (bound := bound_beside_peers(row)):
            notes.append(f"- {row['title']}: {bound}.")
    text = f"{record['machine']['processor']}:\n\n" + markdown(
        header, rows, right=range(1, len(header)))
    own = record["machine"]["commit"]              # rows may have been measured one by one
    commits = ", ".join(dict.fromkeys(r.get("commit", own) for r in record["rows"].values()))
    return "\n".join([text, "", *notes, *([""] if notes else []),
                      records.provenance(record, f"commits {commits}")])


def cell(peer):
    if peer is None or "absent" in peer:
        return "absent"
    if "median" not in peer:
        return "failed" if peer["failed"] else "agrees"
    mark = " (a variant failed)" if peer["failed"] else ""
    return f"{1e3 * peer['median']:.2f} ({1e3 * peer['min']:.2f}){mark}"


def memories(row):
    """Ours and PyTorch's peak."""
    found = [row["peers"].get(n, {}) for n in (comparison.OURS, "torch")]
    return " / ".join(f"{peak(c):.0f}" if c.get("memory") else "–" for c in found)


def table_first_step(record):
    """The same for each processor."""
    sections = sorted(record["processors"].values(), key=lambda r: r["machine"]["date"])
    return "\n\n".join(f"{section['machine']['processor']}:\n\n{first_step_of(section)}"
                       for section in sections[::-1])


def first_step_of(record):
    """From the start of Python to the end of the first step, without caches and with them."""
    rows = []
    for row in record["rows"].values():
        for name, cold in row.get("cold", {}).items():
            warm = row["peers"][name].get("start", [None])[-1]
            rows.append([row["title"], peers.TITLES.get(name, name),
                         *(f"{s[key]:.2f}" if s and "failed" not in s else "–"
                           for s in (cold, warm) for key in ("start", "first_step"))])
    return markdown(("workload", "peer", "cold: start to first step, s", "first step, s",
                     "warm: start to first step, s", "first step, s"), rows, right=(2, 3, 4, 5))


def report(record):
    """What is printed at the end."""
    if record["quick"]:
        return "\n".join(f"{name:10} " + ", ".join(f"{n}: {cell(c)}" for n, c in
                                                   row["peers"].items())
                         for name, row in record["rows"].items())
    return f"{table_of(record)}\n\n{first_step_of(record)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
