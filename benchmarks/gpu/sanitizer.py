"""compute-sanitizer over the kernels: accesses outside arrays (memcheck), races (racecheck).

    python -m benchmarks.gpu.sanitizer        runs what the tool watches: each kernel, small cases
"""

import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np

from ..processes import ROOT

TOOLS = ("memcheck", "racecheck")
FOUND, CASES = 77, 4                                   # its exit status; cases a kernel
LARGEST = 20_000                                       # numbers in all arguments
SECONDS = 45                                           # for each tool


def tool():
    """The path of compute-sanitizer, or None."""
    beside = [pathlib.Path(root) / "bin" for root in
              (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda") if root]
    if nvcc := shutil.which("nvcc"):
        beside.append(pathlib.Path(nvcc).resolve().parent)
    return shutil.which("compute-sanitizer") or next(
        (str(folder / "compute-sanitizer") for folder in beside
         if (folder / "compute-sanitizer").exists()), None)


def check(name, deadline, seconds=SECONDS):
    """What a tool says of a process that runs the kernels."""
    return watched(name, ["-m", "benchmarks.gpu.sanitizer"],
                   deadline.part(seconds, reserve=2).left())


def watched(name, arguments, seconds):
    """What a tool says of a process of Python's with these arguments."""
    program = tool()
    if program is None:
        return {"skipped": "compute-sanitizer is not installed"}
    options = ["--padding", "256", "--report-api-errors", "no"] if name == "memcheck" else []
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [program, "--tool", name, "--error-exitcode", str(FOUND), *options, sys.executable,
             *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)     # the tool, and what it watches
            process.wait()
            status = None
        log.seek(0)
        return verdict(status, log.read())


def verdict(status, text):
    """A result from its exit status (None: cut off) and what it printed."""
    kernels = re.findall(r"^ran (\S+)", text, re.MULTILINE)
    faults = [line.strip("= ").strip() for line in text.splitlines()
              if line.startswith("=========") and re.search(r"Invalid|Error", line)
              and "SUMMARY" not in line]
    if not kernels and status != FOUND:
        return {"skipped": f"it could not run: {' '.join(text.split())[-300:]}"}
    ended = {"cut_off": True} if status is None else {"status": status}
    return {"kernels": len(kernels), **ended, "faults": faults[:20],
            "ok": not faults and status in (0, None)}


def main():
    from scratchgen.kernels import cuda

    from . import checks
    device = cuda.device()
    device.xp.cuda.set_allocator(None)                 # each array has memory of its own
    test = checks.parity()
    for family, kernel in checks.cuda_kernels():
        version = test.versions(family)[kernel]["cuda"]
        small = (case for case in checks.cases(family, kernel, np.float32)
                 if 0 < sum(np.size(a) for a in case) < LARGEST)
        every = list(itertools.islice(small, 40))
        for arguments in every[::max(1, len(every) // CASES)]:
            checks.run_on(device, version, test.copies(arguments))
        print(f"ran {family}.{kernel}", flush=True)


if __name__ == "__main__":
    main()
