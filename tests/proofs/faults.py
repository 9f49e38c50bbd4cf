"""Long runs of the fault tests: damaged input, kills, a full disk; with counts.

    python -m tests.proofs faults --kills 200 --fuzz 100000 [--full-disk] [--bad-inputs] [--seed N]

Prints the counts and writes benchmarks/results/faults.json; the parts that are not run keep their
last result there. The exit status is 1 if a check failed.
"""

import argparse
import json
import time
from pathlib import Path

from . import bad_inputs, fuzzing, kills

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
SIZES = {"fuzz": "inputs", "kills": "kills"}     # part -> the key of its number of trials


def main(arguments=None):
    """Runs the selected parts; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs faults",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0, help="total number of SIGKILLs")
    parser.add_argument("--fuzz", type=int, default=0, help="total number of damaged files")
    parser.add_argument("--full-disk", action="store_true", help="on a small tmpfs; needs root")
    parser.add_argument("--bad-inputs", action="store_true", help="those of the tests, by kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    parts = {"fuzz": (asked.fuzz, fuzz), "kills": (asked.kills, kill),
             "full disk": (asked.full_disk, fill), "bad inputs": (asked.bad_inputs, refuse)}
    if not any(wanted > 0 for wanted, _ in parts.values()):
        parser.error("nothing to do: give --kills N, --fuzz N, --full-disk or --bad-inputs")
    before = recorded(asked.out)
    for name, key in SIZES.items():
        if 0 < parts[name][0] < before.get(name, {}).get(key, 0):
            parser.error(f"{asked.out} holds {before[name][key]} {key}, more than {parts[name][0]}:"
                         " give --out another file")
    failed = False
    for name, (wanted, act) in parts.items():
        if wanted > 0:
            begun = time.monotonic()
            result, bad = act(wanted, asked.seed)
            failed = failed or bad
            if result is not None:
                seconds = round(time.monotonic() - begun, 1)
                record(asked.out, name, {**result, "seed": asked.seed, "seconds": seconds})
    return int(failed)


def recorded(path):
    """The contents of the file, {} if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(path, name, result):
    """Writes one part's result into the file and keeps the other parts' results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {**recorded(path), name: result}
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{name} written to {path}")


def fuzz(count, seed):
    """Damaged files for every reader; (result, whether it failed)."""
    def report(name, outcome):
        print(f"{name:20} {outcome.inputs:7} inputs  {outcome.accepted:6} read  "
              f"{outcome.refused:7} refused  {len(outcome.crashes):3} crashes", flush=True)
        for content, what in outcome.crashes[:5]:
            print(f"    {what[:200]}   {content[:60]!r}")

    outcomes, megabytes = fuzzing.fuzz_all(count, seed, report)
    crashes = sum(len(outcome.crashes) for outcome in outcomes.values())
    rows = {name: {"inputs": o.inputs, "read": o.accepted, "refused": o.refused,
                   "crashes": len(o.crashes)} for name, o in outcomes.items()}
    total = sum(o.inputs for o in outcomes.values())
    print(f"{total} damaged files, {crashes} crashes, memory grew by {megabytes:.0f} MB")
    bad = crashes > 0 or megabytes > 1000
    return {"inputs": total, "crashes": crashes, "memory_growth_mb": round(megabytes),
            "readers": rows}, bad


def kill(count, seed):
    """SIGKILL at random moments; (result, whether it failed)."""
    def report(killed):
        if killed % 20 == 0:
            print(f"{killed} kills", flush=True)

    try:
        counts = kills.kills(count, seed, report=report)
    except (AssertionError, ValueError, RuntimeError) as error:
        print(f"after a kill: {error}")
        return {"failure": str(error)}, True
    print(", ".join(f"{name}: {number}" for name, number in counts.items()))
    return counts, False


def fill(_, seed):
    """Training on a full tmpfs; no result if this user may not mount one."""
    try:
        rows = kills.full_disk(report=lambda row: print(row, flush=True))
    except (AssertionError, ValueError, RuntimeError) as error:
        print(f"on a full disk: {error}")
        return {"failure": str(error)}, True
    if rows is None:
        print("full disk skipped: this user may not mount a tmpfs")
        return None, True
    failures = sum(row["failed"] for row in rows)
    print(f"{len(rows)} runs on a nearly full disk, {failures} stopped, none lost")
    return {"runs": len(rows), "stopped": failures}, False


def refuse(_, seed):
    """The invalid inputs of the tests; (result, whether it failed)."""
    kinds = bad_inputs.count()
    cases, refused = (sum(row[key] for row in kinds.values()) for key in ("cases", "refused"))
    for kind, row in kinds.items():
        print(f"{kind:40} {row['cases']:5} cases  {row['refused']:5} refused in one sentence")
    return {"cases": cases, "refused": refused, "kinds": kinds}, refused < cases
