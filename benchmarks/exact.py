"""Exact answers, found by our own training: what mathematics says, what was found, the error.

    python -m benchmarks.exact [--seeds N] [--effort N] [--only TEXT] [--out FILE]

Trains every case of ``exact_autoencoders`` and ``exact_gans`` on seeds 0 to N − 1, prints each
answer at its worst, and writes all to benchmarks/results/exact.json. A miss is recorded as a miss,
and the exit status is then 1. The tests train the same cases on fewer seeds, and half as long (with
effort 1).
"""

import argparse
import inspect
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from . import exact_autoencoders, exact_gans

RESULTS = Path(__file__).parent / "results" / "exact.json"
CASES = {**exact_autoencoders.CASES, **exact_gans.CASES}


def statement(case):
    """What is exact: the first line of the case's docstring."""
    return inspect.getdoc(case).splitlines()[0]


def train(name, seeds, effort):
    """The record of one case: each of its answers, at the worst of all trainings."""
    case, variants = CASES[name]
    begun, trained = time.monotonic(), {}
    for variant in variants:
        for seed in seeds:
            for answer in case(seed, effort, **variant):
                trained.setdefault(answer.what, []).append((answer, {"seed": seed, **variant}))
    return {"case": name, "statement": statement(case),
            "answers": [summary(answers) for answers in trained.values()],
            "seconds": round(time.monotonic() - begun, 1)}


def summary(answers):
    """One quantity over all trainings: the worst answer, and every error."""
    worst, where = max(answers, key=lambda pair: pair[0].badness)
    return {"what": worst.what, "exact": worst.exact, "found": worst.found, "error": worst.error,
            "measure": "relative" if worst.relative else "absolute",
            "tolerance": worst.tolerance, "pass": all(a.holds for a, _ in answers), "at": where,
            "errors": [answer.error for answer, _ in answers]}


def tell(record):
    """The record of a case, printed."""
    print(f"{record['case']}: {record['statement']}  ({record['seconds']} s)")
    for answer in record["answers"]:
        print(f"  {'holds ' if answer['pass'] else 'MISSED'}  {answer['what']}: "
              f"exact {answer['exact']:.6g}, found {answer['found']:.6g}; {answer['measure']} "
              f"error {answer['error']:.2g} of {answer['tolerance']:g}, the worst of "
              f"{len(answer['errors'])} ({answer['at']})", flush=True)


def main(arguments=None):
    """Trains what is asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="each case is trained so many times")
    parser.add_argument("--effort", type=int, default=2, help="so many times the tests' steps")
    parser.add_argument("--only", default="", help="the cases with this text in their names")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    names = [name for name in CASES if asked.only in name]
    if asked.seeds < 1 or asked.effort < 1 or not names:
        parser.error(f"expected N of at least 1, and a text in one of: {', '.join(CASES)}")
    if asked.only and asked.out == RESULTS:
        parser.error("some cases only: give --out another file than the record of all")
    records = []
    for name in names:
        records.append(train(name, range(asked.seeds), asked.effort))
        tell(records[-1])
    versions = {name: metadata.version(name) for name in ("numpy", "numba")}
    found = {"seeds": asked.seeds, "effort": asked.effort, "python": platform.python_version(),
             **versions, "cases": records}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    answers = [answer for record in records for answer in record["answers"]]
    missed = sum(not answer["pass"] for answer in answers)
    print(f"{len(answers) - missed} of {len(answers)} answers hold; written to {asked.out}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
