"""``python -m benchmarks NAME``: one of the benchmarks, or the README's tables from their results.
"""

import importlib
import os
import sys

COMMANDS = {
    "steps": ("steps:main", "training steps beside PyTorch and JAX, and beside their lower bound"),
    "scaling": ("scaling:main", "time and memory against batch, width, image size, threads"),
    "roofline": ("roofline:main", "each kernel beside the machine's ceilings"),
    "threads": ("threads:main", "one pool of threads or two, on a quiet and a crowded machine"),
    "warmstart": ("command:main", "one epoch from the command line, start-up included"),
    "ladder": ("ladder:main", "kernels from naive loops to the fast ones, rung by rung"),
    "gemm": ("gemm:main", "matrix products beside OpenBLAS, MKL and the peak of the tile"),
    "kernels": ("kernels:main", "each kernel alone"),
    "nodes": ("gpu.nodes:main", "kernels of a recorded step on a GPU, counted without one"),
    "resources": ("nvrtc:main", "registers, shared memory and spills of the CUDA kernels"),
    "gpu": ("gpu.__main__:main", "the CUDA backend, checked and timed on a GPU"),
    "readme": ("readme:main", "write the tables into README.md"),
}


def main(arguments):
    """Runs one command; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip() + "\n")
        print("\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()))
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"benchmarks: no benchmark {name!r}: expected one of {', '.join(COMMANDS)}",
              file=sys.stderr)
        return 2
    module, function = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)(rest)


def until_closed(arguments):
    """``main``, which ends quietly if the reader of its output (``| head``) closes the pipe."""
    try:
        status = main(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # for the flush at exit
        return 1


if __name__ == "__main__":
    sys.exit(until_closed(sys.argv[1:]))
