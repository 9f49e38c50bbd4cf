"""Trainings whose optimum is known in closed form, compared with that optimum.

    python -m tests.proofs exact [--seeds N] [--effort N] [--only TEXT] [--out FILE]

Trains every case of ``exact_autoencoders.py`` and ``exact_gans.py`` on seeds 0 to N − 1, prints the
worst error of each quantity, and writes all errors to benchmarks/results/exact.json. If an error
exceeds its tolerance, it is recorded as such and the exit status is 1. The tests train the same
cases on fewer seeds and half as long (effort 1).
"""

import argparse
import inspect
import json
import platform
import time
from importlib import metadata
from pathlib import Path

from . import exact_autoencoders, exact_gans

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "exact.json"
CASES = {**exact_autoencoders.CASES, **exact_gans.CASES}


def statement(case):
    """The first line of the case's docstring, which states the exact result."""
    return inspect.getdoc(case).splitlines()[0]


def train(name, seeds, effort):
    """Trains one case on all seeds and variants; the record of the worst answers."""
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
    """The worst answer of one quantity over all trainings, and all errors."""
    worst, where = max(answers, key=lambda pair: pair[0].badness)
    return {"what": worst.what, "exact": worst.exact, "found": worst.found, "error": worst.error,
            "measure": "relative" if worst.relative else "absolute",
            "tolerance": worst.tolerance, "pass": all(a.holds for a, _ in answers), "at": where,
            "errors": [answer.error for answer, _ in answers]}


def print_case(record):
    """Prints the record of a case."""
    print(f"{record['case']}: {record['statement']}  ({record['seconds']} s)")
    for answer in record["answers"]:
        print(f"  {'passed' if answer['pass'] else 'FAILED'}  {answer['what']}: "
              f"exact {answer['exact']:.6g}, found {answer['found']:.6g}; {answer['measure']} "
              f"error {answer['error']:.2g} of {answer['tolerance']:g}, the worst of "
              f"{len(answer['errors'])} ({answer['at']})", flush=True)


def main(arguments=None):
    """Trains the selected cases; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs exact",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds per case")
    parser.add_argument("--effort", type=int, default=2, help="factor for the tests' steps")
    parser.add_argument("--only", default="", help="only the cases whose name contains this text")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    names = [name for name in CASES if asked.only in name]
    if asked.seeds < 1 or asked.effort < 1 or not names:
        parser.error("expected N of at least 1, and a text that occurs in one of: "
                     f"{', '.join(CASES)}")
    if asked.only and asked.out == RESULTS:
        parser.error("--only selects some cases: give --out a file other than the record of all")
    records = []
    for name in names:
        records.append(train(name, range(asked.seeds), asked.effort))
        print_case(records[-1])
    versions = {name: metadata.version(name) for name in ("numpy", "numba")}
    found = {"seeds": asked.seeds, "effort": asked.effort, "python": platform.python_version(),
             **versions, "cases": records}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    answers = [answer for record in records for answer in record["answers"]]
    missed = sum(not answer["pass"] for answer in answers)
    print(f"{len(answers) - missed} of {len(answers)} answers passed; written to {asked.out}")
    return int(missed > 0)
