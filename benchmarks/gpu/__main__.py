"""The command ``python -m benchmarks.gpu``: its options, then all parts, or one in its process."""

import argparse
import pathlib
import signal
import sys

from . import __doc__ as doc
from . import conductor, rows


def options_of(arguments):
    """What was asked for; a name that does not exist ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu",
                                     description=doc.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: correctness, no times")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="FOLDER",
                        help="with MNIST's IDX files, for the part mnist")
    parser.add_argument("--parts", type=names(conductor.PARTS), default=list(conductor.PARTS),
                        help=f"of {','.join(conductor.PARTS)}")
    parser.add_argument("--rows", type=names(rows.NAMES), default=None,
                        help=f"training steps, of {','.join(rows.NAMES)}")
    parser.add_argument("--part", help=argparse.SUPPRESS)              # in a process of its own
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.out = options.out.absolute()
    options.data_dir = options.data_dir and options.data_dir.absolute()
    return options


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
        return conductor.run_here(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))              # and all parts end
    return conductor.run(options)


if __name__ == "__main__":
    sys.exit(main())
