"""``python -m tests.proofs NAME``: long checks that write their record to benchmarks/results."""

import sys

from . import exact, faults

PROOFS = {"exact": exact.main, "faults": faults.main}


def main(arguments):
    """Runs one proof; returns the exit status."""
    if not arguments or arguments[0] not in PROOFS:
        print(f"usage: python -m tests.proofs {{{','.join(PROOFS)}}} [options]", file=sys.stderr)
        return 2
    return PROOFS[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
