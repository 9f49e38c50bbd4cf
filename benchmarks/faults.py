"""The long form of the tests of faults: damaged input, kills, a full disk; with counts.

    python -m benchmarks.faults --kills 200 --fuzz 100000 [--full-disk] [--seed N]

Prints a table and writes benchmarks/results/faults.json. Ends with status 1 if anything went wrong.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from . import fuzzing, kills

RESULTS = Path(__file__).parent / "results" / "faults.json"


def main(arguments=None):
    """Runs what is asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs of a training, in all")
    parser.add_argument("--fuzz", type=int, default=0, help="damaged files, in all")
    parser.add_argument("--full-disk", action="store_true", help="on a small tmpfs; needs root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    found, failed = {}, False
    if asked.out.exists():  # parts that are not run now keep their last result
        found = json.loads(asked.out.read_text(encoding="utf-8"))
    for wanted, act in ((asked.fuzz, fuzz), (asked.kills, kill), (asked.full_disk, fill)):
        if wanted:
            begun = time.monotonic()
            name, result, bad = act(wanted, asked.seed)
            seconds = round(time.monotonic() - begun, 1)
            found[name] = {**result, "seed": asked.seed, "seconds": seconds}
            failed = failed or bad
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"written to {asked.out}")
    return int(failed)


def fuzz(count, seed):
    """Damaged files for every reader."""
    def tell(name, outcome):
        print(f"{name:20} {outcome.inputs:7} inputs  {outcome.accepted:6} read  "
              f"{outcome.refused:7} refused  {len(outcome.crashes):3} crashes", flush=True)
        for content, what in outcome.crashes[:5]:
            print(f"    {what[:200]}   {content[:60]!r}")

    outcomes, megabytes = fuzzing.fuzz_all(count, seed, tell)
    crashes = sum(len(outcome.crashes) for outcome in outcomes.values())
    rows = {name: {"inputs": o.inputs, "read": o.accepted, "refused": o.refused,
                   "crashes": len(o.crashes)} for name, o in outcomes.items()}
    total = sum(o.inputs for o in outcomes.values())
    print(f"{total} damaged files, {crashes} crashes, memory grew by {megabytes:.0f} MB")
    bad = crashes > 0 or megabytes > 1000
    return "fuzz", {"inputs": total, "crashes": crashes, "memory_growth_mb": round(megabytes),
                    "readers": rows}, bad


def kill(count, seed):
    """SIGKILL at random moments."""
    def tell(killed):
        if killed % 20 == 0:
            print(f"{killed} kills", flush=True)

    try:
        counts = kills.kills(count, seed, tell=tell)
    except (AssertionError, ValueError, RuntimeError) as error:
        print(f"after a kill: {error}")
        return "kills", {"failure": str(error)}, True
    print(", ".join(f"{name}: {number}" for name, number in counts.items()))
    return "kills", counts, False


def fill(_, seed):
    """A disk of memory that is full."""
    rows = kills.full_disk(tell=lambda row: print(row, flush=True))
    if rows is None:
        print("no full disk tried: mounting one takes rights that this user lacks")
        return "full disk", {"skipped": "no right to mount"}, False
    failures = sum(row["failed"] for row in rows)
    print(f"{len(rows)} runs on a disk that was nearly full, {failures} stopped by it, none lost")
    return "full disk", {"runs": len(rows), "stopped": failures}, False


if __name__ == "__main__":
    sys.exit(main())
