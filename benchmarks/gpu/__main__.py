"""The command ``python -m benchmarks.gpu``: its options, then all parts, or one in its process."""

import argparse
import json
import pathlib
import signal
import sys

from . import __doc__ as doc
from . import rows, scheduler, steps

PLANS = {
    "all": {"about": "every part", "seconds": scheduler.SECONDS, "quick": False,
            "parts": list(scheduler.PARTS)},
    "first-checks": {"about": "is it right? checks and short trainings, small", "seconds": 150,
                     "quick": True, "parts": ["checks", "across"]},
    "first-speed": {"about": "is it fast? the kernels and four training steps", "seconds": 330,
                    "quick": False, "parts": ["kernels", "steps"],
                    "rows": ["vae", "large-vae", "large-dcgan", "large-sdae"],
                    "peers": [c for c in steps.PEERS if c != "compiled"]},
    "again": {"about": "what a change has done: as first-checks and first-speed, ours alone; the "
                       "peers' times are those of --earlier", "seconds": 240, "quick": False,
              "parts": ["checks", "across", "kernels", "steps"],
              "rows": ["vae", "large-vae", "large-dcgan", "large-sdae"],
              "peers": ["ours", "drawn"]}}


def options_of(arguments):
    """What was asked for; a name that does not exist ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu",
                                     description=doc.splitlines()[0])
    parser.add_argument("plan", nargs="?", choices=PLANS, default="all",
                        help="; ".join(f"{n}: {p['about']}" for n, p in PLANS.items()))
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--quick", action="store_true", default=None,
                        help="tiny sizes: correctness, no times")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="FOLDER",
                        help="with MNIST's IDX files, for the part mnist")
    parser.add_argument("--parts", type=names(scheduler.PARTS), default=None,
                        help=f"of {','.join(scheduler.PARTS)}")
    parser.add_argument("--rows", type=names(rows.NAMES), default=None,
                        help=f"training steps, of {','.join(rows.NAMES)}")
    parser.add_argument("--peers", type=names(steps.PEERS), default=None,
                        help=f"who is timed in a training step, of {','.join(steps.PEERS)}")
    parser.add_argument("--seconds", type=float, default=None,
                        help="that the whole run may take, start and end included")
    parser.add_argument("--earlier", type=pathlib.Path, metavar="GPU.JSON",
                        help="a record whose parts are kept; families of kernels whose checks "
                             "failed there are not timed")
    parser.add_argument("--dry-run", action="store_true",
                        help="on an emulated GPU and at tiny sizes: does everything run?")
    for name, kind in (("--part", str), ("--until", float), ("--share", int), ("--only", str),
                       ("--work", pathlib.Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)   # in a process of its own
    options = parser.parse_args(arguments)
    for name, value in PLANS[options.plan].items():
        if name != "about" and getattr(options, name) is None:
            setattr(options, name, value)
    options.out, options.share = options.out.absolute(), options.share or 0
    options.data_dir = options.data_dir and options.data_dir.absolute()
    if options.earlier:
        options.earlier = read_record(parser, options.earlier)
    return options


def read_record(parser, path):
    """A record, or the program ends with a sentence."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"--earlier {path}: {error}; expected a gpu.json of an earlier run")


def names(known):
    """A reader of comma-separated names."""
    def read(text):
        found = text.split(",")
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(
                f"{', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
        return found
    return read


def main(arguments=None):
    options = options_of(arguments)
    if options.part:
        return scheduler.run_here(options)
    if options.dry_run:
        from . import dry_run
        return dry_run.run(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))              # and all parts end
    return scheduler.run(options)


if __name__ == "__main__":
    sys.exit(main())
