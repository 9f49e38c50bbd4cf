"""What NVRTC makes of the CUDA kernels: registers, shared memory, spills; no GPU is needed.

    python -m benchmarks resources

compiles every instance of every kernel with the wheel ``nvidia-cuda-nvrtc`` and writes the table to
``benchmarks/results/resources.json``. A test compiles them again and compares.
"""

import argparse
import ctypes
import functools
import json
import pathlib
import re
import sys

from scratchgen.kernels import cuda

FAMILIES = sorted(path.stem for path in cuda.FOLDER.glob("*.cu"))
ARCHITECTURES = (75, 80, 90)          # Turing, Ampere, Hopper
RECORD = pathlib.Path(__file__).parent / "results" / "resources.json"
MOST_SHARED = 48 * 1024               # bytes of static shared memory that a block may have


class CompileError(Exception):
    """NVRTC's message."""


@functools.cache
def library():
    """NVRTC of the wheel, or None where it is not installed."""
    for folder in map(pathlib.Path, sys.path):
        for path in sorted(folder.glob("nvidia/*/lib/libnvrtc.so.*")):
            if "builtins" not in path.name and "alt" not in path.name:
                return ctypes.CDLL(str(path))
    return None


def newest():
    """The newest architecture that this NVRTC compiles for."""
    count = ctypes.c_int()
    library().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    library().nvrtcGetSupportedArchs(found)
    return max(found)


def compile_code(code, expressions, architecture):
    """Compile and assemble; NVRTC's log, with what ptxas says of each kernel. CompileError."""
    nvrtc, program = library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None)
    try:
        for expression in expressions:
            nvrtc.nvrtcAddNameExpression(program, expression.encode())
        options = [b"--std=c++17", f"--gpu-architecture=sm_{architecture}".encode(),
                   b"--ptxas-options=-v"]
        failed = nvrtc.nvrtcCompileProgram(program, len(options),
                                           (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        text = log.value.decode(errors="replace")
        if failed:
            raise CompileError(text)
        return text, {mangled(nvrtc, program, e): e for e in expressions}
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def mangled(nvrtc, program, expression):
    """The name of an instance in the compiled code."""
    name = ctypes.c_char_p()
    nvrtc.nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(name))
    return name.value.decode()


def resources(family, architecture):
    """expression → {registers, shared, spills} of one file; bytes for the last two."""
    kernels = cuda.kernels_of(family).values()
    expressions = [e for kernel in kernels for e in kernel.instances()]
    first = next(iter(kernels))
    if first.architecture == f"sm_{architecture}a":    # with the instructions of this one only
        architecture = f"{architecture}a"
    log, names = compile_code(first.code, expressions, architecture)
    found = {}
    for part in log.split("Compiling entry function")[1:]:
        expression = names.get(re.search(r"'(\w+)'", part)[1])
        if expression is None:
            continue
        shared = re.search(r"(\d+) bytes smem", part)
        found[expression] = {
            "registers": int(re.search(r"Used (\d+) registers", part)[1]),
            "shared": int(shared[1]) if shared else 0,
            "spills": sum(map(int, re.findall(r"(\d+) bytes spill", part)))}
    return found


def table(record):
    """A row for each file: its instances, and the most that one of them uses on sm_90."""
    from .readme import markdown
    rows = []
    for family, architectures in record.items():
        used = architectures[str(ARCHITECTURES[-1])].values()
        rows.append((f"`kernels/{family}.cu`", len(used), max(u["registers"] for u in used),
                     f"{max(u['shared'] for u in used):,}", max(u["spills"] for u in used)))
    return markdown(("file", "instances", "registers of a thread", "shared memory, bytes",
                     "spills, bytes"), rows, right=(1, 2, 3, 4))


def main(arguments=None):
    """Writes the table; the exit status."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    if library() is None:
        print("resources: NVRTC is not installed: pip install nvidia-cuda-nvrtc", file=sys.stderr)
        return 2
    table = {family: {str(a): resources(family, a) for a in ARCHITECTURES} for family in FAMILIES}
    RECORD.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{RECORD.name} written: {sum(len(t['90']) for t in table.values())} instances")
    return 0
