"""The commands ``check …``: instruments that test the package itself."""

import itertools
import json
import operator
import secrets
import shutil
import textwrap
from typing import Annotated

import typer

from .options import DataDir

Names = Annotated[list[str] | None, typer.Argument(
    metavar="[NAME]...", help="Names of claims; all without one.")]
JsonFile = Annotated[str | None, typer.Option(
    "--json", metavar="FILE", help="Write the same content to this file.")]


def claims(names: Names = None, json_file: JsonFile = None, data_dir: DataDir = None):
    """Compute claims of the theory in two ways and compare them; exit status 1 if one fails.

    Full MNIST is used if it is found: --data-dir, SCRATCHGEN_DATA or the cache folder.
    """
    from ..study import check_claims, statement

    found = [c.as_dict() for c in check_claims(names, data_dir)]
    if json_file is not None:
        write_json(json_file, {"claims": found})
    for name, comparisons in itertools.groupby(found, operator.itemgetter("claim")):
        print(textwrap.fill(f"{name}: {statement(name)}", width(), subsequent_indent="  "))
        for c in comparisons:
            print(textwrap.fill(sentence(c), width(), initial_indent="  ",
                                subsequent_indent=" " * 10))
    counts = {v: sum(c["verdict"] == v for c in found) for v in ("holds", "fails", "skipped")}
    print(f"{counts['holds']} hold, {counts['fails']} fail, {counts['skipped']} skipped")
    return 1 if counts["fails"] else 0


def write_json(path, content):
    from ..train.files import explain_errors, write_atomically

    with explain_errors("write", path):
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def sentence(c):
    """One comparison as text: the verdict, both numbers, how each was computed."""
    if c["verdict"] == "skipped":
        return f"skipped {c['left_is']}: {c['reason']}"
    return (f"{c['verdict']:<7} {c['left']:.8g} {c['relation']} {c['right']:.8g} "
            f"(± {c['tolerance']:.1g}): {c['left_is']}; {c['right_is']}")


def width():
    """Columns of a paragraph."""
    return min(100, shutil.get_terminal_size().columns)


def laws(
    run: Annotated[str | None, typer.Argument(
        metavar="[RUN]", help="A run folder of a VAE: also the draws from its posterior.")] = None,
    fresh: Annotated[bool, typer.Option(
        "--fresh", help="Draw with a new seed, which is printed.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The seed of all draws.")] = 0,
    json_file: JsonFile = None,
):
    """Test all that draws random numbers against its declared law; exit status 1 if one fails.

    All tests together raise a false alarm in one run of a thousand.
    """
    from ..study import FALSE_ALARMS, check_laws

    model, images = of_run(run) if run else (None, None)
    found = check_laws(model=model, x=images, seed=secrets.randbits(31) if fresh else seed)
    if json_file is not None:
        write_json(json_file, found.as_dict())
    failed = found.failed()
    for name, trials in itertools.groupby(found.trials, operator.attrgetter("law")):
        print(name)
        for t in trials:
            verdict = "fails" if t in failed else "holds"
            print(f"  {verdict}  p = {t.p_value:<8.2g} statistic {t.statistic:<9.3g} {t.test}")
    print(f"{len(found.trials) - len(failed)} hold, {len(failed)} fail, seed {found.seed}: a test "
          f"fails if p < {found.threshold:.2g}, so that all together raise a false alarm with "
          f"probability {FALSE_ALARMS:g} at most")
    return 1 if failed else 0


def of_run(folder):
    """The model of a run and the images it is tested on."""
    from ..plots import subject_of

    subject, _ = subject_of(folder)
    return subject.model, subject.test.x
