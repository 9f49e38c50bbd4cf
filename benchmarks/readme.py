"""Writes the tables of measured numbers into the pages, from the records in benchmarks/results.

    python -m benchmarks readme

A table stands between ``<!-- name -->`` and ``<!-- /name -->``. It is not edited: a
test compares it with the record.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "speed.md", ROOT / "docs" / "gpu.md")
RESULTS = Path(__file__).parent / "results"
# marker in a page -> (file of the record, "module:function" that makes Markdown of it)
TABLES = {
    "exact": ("exact.json", "readme:table_exact"),
    "faults": ("faults.json", "readme:table_faults"),
    "steps": ("steps.json", "steps:table"),
    "first-step": ("steps.json", "steps:table_first_step"),
    "warmstart": ("command.json", "command:table"),
    "threads": ("threads.json", "threads:table"),
    "scaling": ("scaling.json", "scaling:table"),
    "roofline": ("roofline.json", "roofline:table"),
    "ladder": ("ladder.json", "ladder:table"),
    "kernels": ("kernels.json", "kernels:table"),
    "resources": ("resources.json", "nvrtc:table"),
    "gpu-nodes": ("nodes.json", "gpu.nodes:table"),
    "gpu-checks": ("gpu.json", "gpu.tables:table_checks"),
    "gpu-targets": ("gpu.json", "gpu.tables:table_targets"),
    "gpu-steps": ("gpu.json", "gpu.tables:table_steps"),
    "gpu-kernels": ("gpu.json", "gpu.tables:table_kernels"),
}


def main(arguments=None):
    """Brings every table up to date; the exit status."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for marker in TABLES:
        if not any(f"<!-- {marker} -->" in text for text in texts.values()):
            print(f"{marker}: no place for it in any page")
    for page, before in texts.items():
        after = updated(before, up=len(page.relative_to(ROOT).parts) - 1)
        if after != before:
            page.write_text(after, encoding="utf-8")
        print(f"{page.name} {'written' if after != before else 'was up to date'}")
    return 0


def updated(text, report=print, up=0):
    """The text with every table in it made anew whose record exists; ``report`` is called
    for the others.

    ``up``: how many folders the page lies below the root, which its links start from.
    """
    for marker, (file, where) in TABLES.items():
        path = RESULTS / file
        if f"<!-- {marker} -->" not in text:
            continue
        if not path.exists():
            report(f"{marker}: no {file} yet, left as it is")
        else:
            module, function = where.split(":")
            make = getattr(importlib.import_module(f"benchmarks.{module}"), function)
            table = make(json.loads(path.read_text("utf-8"))).replace("](", f"]({'../' * up}")
            text = replace_between(text, marker, table)
    return text


def replace_between(text, marker, body):
    """The text with ``body`` on lines of its own between the two comments of that name."""
    parts = re.split(rf"(<!-- /?{re.escape(marker)} -->)", text)
    if parts[1::2] != [f"<!-- {marker} -->", f"<!-- /{marker} -->"]:
        raise ValueError(f"expected <!-- {marker} --> and <!-- /{marker} --> once each, in order")
    parts[2] = f"\n{body.strip()}\n"
    return "".join(parts)


def markdown(header, rows, right=()):
    """A table; the columns with the numbers in ``right`` are flushed right."""
    rule = ["--:" if i in right else "---" for i in range(len(header))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (header, rule, *rows))


def table_exact(record):
    """A row for each quantity, at the worst of all trainings."""
    rows = []
    for case in record["cases"]:
        name = case["case"]
        for answer in case["answers"]:
            relative = answer["measure"] == "relative"
            error, allowed = (f"{100 * abs(x):.2g} %" if relative else f"{abs(x):.2g}"
                              for x in (answer["error"], answer["tolerance"]))
            what = answer["what"].replace("|", r"\|")
            rows.append((name, what, f"{answer['exact']:.5g}", f"{answer['found']:.5g}",
                         error if answer["pass"] else f"**{error}: missed**", allowed))
            name = ""
    return markdown(("trained", "quantity", "exact", "found", "error", "allowed"), rows,
                    right=(2, 3, 4, 5))


def table_faults(record):
    """A row for each kind of fault: how often it was tried, and what came of it."""
    rows = [(f"bad input: {kind}", row["cases"], f"{row['refused']} refused in one sentence")
            for kind, row in record.get("bad inputs", {}).get("kinds", {}).items()]
    makers = {"fuzz": fuzz_row, "kills": kills_row, "full disk": disk_row}
    for part, make in makers.items():
        found = record.get(part, {})
        if "failure" in found:
            rows.append((part, 0, f"**{found['failure']}**"))
        elif found:
            rows.append(make(found))
    rows = [(what, f"{tried:,}" if tried else "", outcome) for what, tried, outcome in rows]
    return markdown(("fault", "tried", "outcome"), rows, right=(1,))


def fuzz_row(found):
    read, refused = (sum(row[key] for row in found["readers"].values())
                     for key in ("read", "refused"))
    return (f"files damaged at random ({', '.join(found['readers'])})", found["inputs"],
            f"{refused:,} refused in one sentence, {read:,} read, {found['crashes']} crashes")


def kills_row(found):
    return ("SIGKILL at a random moment of training", found["kills"],
            f"a whole checkpoint each time (or, {found['before the first checkpoint']} times, none "
            f"yet), though {found['while a file was being written']} fell while a file was being "
            f"written; all {found['runs ended in the same bytes']} runs, resumed, ended in the "
            "same bytes")


def disk_row(found):
    return ("training on a disk that is nearly full", found["runs"],
            f"{found['stopped']} stopped with one sentence, nothing lost; with room again all "
            "ended in the same bytes")


if __name__ == "__main__":
    sys.exit(main())
