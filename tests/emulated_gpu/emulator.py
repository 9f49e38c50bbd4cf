"""An emulated GPU: runs .cu files on the CPU, for tests, and detects their errors.

``Emulator().launch(…)`` compiles a kernel with g++ (shim.h defines what is built into NVRTC),
caches the library on disk, and runs it thread by thread (machine.cpp). Undefined behaviour of a GPU
raises ``EmulationError``: a barrier that some threads do not reach, an access outside an array, a
shuffle with an inactive lane. Shared memory and new arrays contain NaN until written. With
``reverse=True`` threads and blocks run in the opposite order, so results that depend on the order
have other bits.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import functools
import hashlib
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import tempfile

import numpy as np

from .arrays import Array, EmulationError, Work, arrays_in, make_xp

__all__ = ["Array", "EmulationError", "Emulator", "available"]

FOLDER = pathlib.Path(__file__).parent
BASIC = ("-std=c++17", "-fPIC", "-shared", "-w", "-pedantic-errors")
# No fused multiply-adds: the bits are those of the separate operations. The sanitisers call
# machine.cpp, not g++'s own library, which is left out of the link.
KERNEL_FLAGS = (*BASIC, "-O1", "-g1", "-gdwarf-4", "-ffp-contract=off", "-fno-strict-aliasing",
                "-fno-exceptions", "-fno-rtti", "-ftrivial-auto-var-init=pattern",
                "-fsanitize=bounds-strict,integer-divide-by-zero,alignment",
                "-fno-sanitize-recover=all", "-nostartfiles", "-nodefaultlibs")
LIBRARIES = ("-lm", "-lgcc")
MACHINE_FLAGS = (*BASIC, "-O2", "-U_FORTIFY_SOURCE")   # whose longjmp refuses to change stacks
MOST_THREADS, MOST_SHARED, ALIGNMENT = 1024, 48 << 10, 64


def available():
    """Whether the emulator works here: on Linux with g++."""
    return platform.system() == "Linux" and shutil.which("g++") is not None


# --- compiling -----------------------------------------------------------------------------------

def cache_folder():
    """The folder of compiled libraries, writable by the user only."""
    root = os.environ.get("XDG_CACHE_HOME")
    folder = (pathlib.Path(root) / "scratchgen" if root else
              pathlib.Path(tempfile.gettempdir()) / f"scratchgen-{os.getuid()}") / "emulated"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def compiled(text, flags, what):
    """The path of a library, compiled or from the cache; RuntimeError if g++ fails.

    The file is renamed into place, because two processes may compile the same one at once.
    """
    key = hashlib.sha256("\0".join(
        [text, shim(), platform.machine(), *flags, *LIBRARIES]).encode())
    path = cache_folder() / f"{key.hexdigest()[:32]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            library = pathlib.Path(folder) / "library.so"
            done = subprocess.run(
                ["g++", *flags, f"-I{FOLDER}", "-x", "c++", "-", "-o", library, *LIBRARIES],
                input=text, text=True, capture_output=True, cwd=folder)
            if done.returncode:
                raise RuntimeError(f"the CUDA kernel {what} does not compile:\n{done.stderr}")
            library.rename(path)
    return path


@functools.cache
def shim():
    return (FOLDER / "shim.h").read_text(encoding="utf-8")


def kernel_text(code, expression):
    """The source that g++ compiles for one kernel. The unnamed namespace makes all functions local,
    so that only those that this kernel uses are compiled."""
    return (f'#include "shim.h"\nnamespace {{\n#line 1 "kernel.cu"\n{code}\n}}\n'
            f'#line 1 "entry"\nEMULATED_KERNEL({expression})\n')


# --- machine.cpp's structures, in its order ------------------------------------------------------

class Launch(ctypes.Structure):
    _fields_ = [("entry", ctypes.c_void_p), ("arguments", ctypes.c_void_p),
                ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3),
                ("shared", ctypes.c_void_p), ("shared_bytes", ctypes.c_long),
                ("reversed", ctypes.c_int), ("seconds", ctypes.c_int)]


class Report(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 400), ("file", ctypes.c_char * 200),
                ("line", ctypes.c_int), ("in_thread", ctypes.c_int),
                ("block", ctypes.c_uint * 3), ("thread", ctypes.c_uint * 3),
                ("signal", ctypes.c_int), ("writing", ctypes.c_int),
                ("address", ctypes.c_size_t), ("instruction", ctypes.c_size_t)]


class Region(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("size", ctypes.c_long), ("written", ctypes.c_int),
                ("placed", ctypes.c_void_p), ("page", ctypes.c_void_p), ("pages", ctypes.c_long),
                ("damage", ctypes.c_long), ("damaged", ctypes.c_int)]


@functools.cache
def machine():
    """The library of machine.cpp, whose symbols the kernels' libraries use.

    PyDLL does not release the GIL: no other thread may change arrays or launch during a kernel.
    """
    text = (FOLDER / "machine.cpp").read_text(encoding="utf-8")
    library = ctypes.PyDLL(str(compiled(text, MACHINE_FLAGS, "machine.cpp")),
                           mode=ctypes.RTLD_GLOBAL)
    library.emulated_place.restype = ctypes.c_void_p
    library.emulated_remove.argtypes = [ctypes.c_void_p, ctypes.c_long]
    return library


class Kernel:
    """A compiled kernel: its entry point, the sizes of its parameters and its shared memory."""

    def __init__(self, code, expression):
        machine()
        self.path = compiled(kernel_text(code, expression), KERNEL_FLAGS, expression)
        self.library = library = ctypes.PyDLL(str(self.path))
        library.emulated_shared.restype = ctypes.c_void_p
        library.emulated_shared_bytes.restype = ctypes.c_long
        library.emulated_sizes.restype = ctypes.POINTER(ctypes.c_int)
        self.entry = ctypes.cast(library.emulated_entry, ctypes.c_void_p).value
        self.shared, self.shared_bytes = library.emulated_shared(), library.emulated_shared_bytes()
        sizes = library.emulated_sizes()
        self.sizes = []
        while sizes[len(self.sizes)] >= 0:
            self.sizes.append(sizes[len(self.sizes)])

    def line(self, instruction):
        """" in line 12 of dense.cu" for an address in the library, else nothing."""
        with open("/proc/self/maps") as maps:
            starts = [int(row.split("-")[0], 16) for row in maps if row.endswith(f"{self.path}\n")]
        if not starts or shutil.which("addr2line") is None:
            return ""
        done = subprocess.run(["addr2line", "-i", "-e", self.path, hex(instruction - min(starts))],
                              capture_output=True, text=True)
        found = re.findall(r"([\w.]+):(\d+)", done.stdout)
        found = [(file, number) for file, number in found if file not in ("shim.h", "entry")]
        if not found:
            return ""
        calls = [f"line {number} of {file}" for file, number in found]
        return f" in {calls[0]}" + "".join(f", called from {c}" for c in calls[1:])


# --- the launch ----------------------------------------------------------------------------------

class Emulator:
    """Arrays (``xp``, an emulated CuPy), launches, and steps captured as graphs.

    ``launched`` counts the launches by kernel name, including replays; a test may clear it. A
    launch of more than ``seconds`` of CPU time is reported as an endless loop.
    """

    def __init__(self, reverse=False, seconds=120):
        self.reverse, self.seconds = reverse, seconds
        self.launched = collections.Counter()
        self.work = Work()
        self.xp = make_xp(self.work)
        self.shared = self.xp.cuda.Stream(non_blocking=True).use()
        self.kernels = {}

    def launch(self, code, expression, parameters, grid, block, args, shared=0):
        """Run (or, while capturing, record) the kernel ``expression`` of the text ``code``.

        ``parameters``: (C type, name) of each; ``args``: an Array for each pointer, else a NumPy
        scalar, or a host array of one element for a struct such as int2. On an EmulationError the
        arrays are unchanged.
        """
        grid, block = dimensions(grid), dimensions(block)
        if math.prod(block) > MOST_THREADS:
            raise EmulationError(f"kernel {expression}: a block of {block} threads, and a GPU "
                                 f"takes at most {MOST_THREADS}")
        kernel = self.kernel(code, expression, shared)
        args = tuple(checked(expression, *each) for each in
                     zip(parameters, args, kernel.sizes, strict=True))
        arrays = list(arrays_in(args))
        # A captured kernel stores only the addresses of its arrays: it does not keep them alive.
        places = tuple(Array(a.numbers, self.work) if isinstance(a, Array) else a for a in args)
        run = functools.partial(self.run, kernel, expression, parameters, grid, block, places)
        if self.work.graph is None:
            self.work.current.touch(*arrays)
            run()
        else:
            self.work.graph.add_kernel(re.match(r"\w+", expression)[0], run, arrays)

    def kernel(self, code, expression, shared=0):
        if (code, expression) not in self.kernels:
            self.kernels[code, expression] = Kernel(code, expression)
        kernel, most = self.kernels[code, expression], shared or MOST_SHARED
        if kernel.shared_bytes >= most + ALIGNMENT:    # it may end in padding
            raise EmulationError(f"kernel {expression}: {kernel.shared_bytes} bytes of shared "
                                 f"memory, and a GPU takes at most {most} in this launch")
        return kernel

    def prepare(self, wanted):
        """Compile several (code, expression) at once, on all cores."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda each: compiled(kernel_text(*each), KERNEL_FLAGS, each[1]), wanted))

    def run(self, kernel, expression, parameters, grid, block, args):
        self.launched[re.match(r"\w+", expression)[0]] += 1
        names = [name for _, name in parameters]
        written = [kind.endswith("*") and not kind.startswith("const") for kind, _ in parameters]
        placement = Placement(args, names, written, in_front=self.reverse)
        try:
            values = [placement.pointer(k) if isinstance(a, Array) else np.array(a)
                      for k, a in enumerate(args)]
            pointers = (ctypes.c_void_p * len(args))(*[v.ctypes.data for v in values])
            wanted = Launch(kernel.entry, ctypes.addressof(pointers), tuple(grid), tuple(block),
                            kernel.shared, kernel.shared_bytes, self.reverse, self.seconds)
            report = Report()
            if machine().emulated_run(ctypes.byref(wanted), ctypes.byref(report)):
                raise EmulationError(self.error_message(kernel, expression, report, placement))
            placement.collect(expression)
        finally:
            placement.remove()

    def error_message(self, kernel, expression, report, placement):
        """The error message: what happened, in which kernel, block, thread and line."""
        where = f"kernel {expression}, block {tuple(report.block)}"
        if report.in_thread:
            where += f", thread {tuple(report.thread)}"
        if not report.signal:
            line = f"line {report.line} of {report.file.decode()}"
            return f"{where}: {report.text.decode()}, in {line}"
        line = kernel.line(report.instruction)
        if report.signal in (signal.SIGSEGV, signal.SIGBUS):
            verb = {0: "reads", 1: "writes"}.get(report.writing, "reads or writes")
            return f"{where}: {verb} {placement.describe(report.address)}{line}"
        what = {signal.SIGFPE: "an integer division by zero",
                signal.SIGILL: "an illegal instruction",
                signal.SIGVTALRM: f"does not end within {self.seconds} s"}
        return f"{where}: {what[report.signal]}{line}"

    # --- graphs, as CUDA's streams capture them ---

    def begin_capture(self):
        """Start to record work without executing it."""
        self.work.current.begin_capture()

    def end_capture(self):
        """The recorded graph; ``graph.launch()`` executes it."""
        return self.work.current.end_capture()

    @contextlib.contextmanager
    def capturing(self, pool=None):
        """Inside, work is recorded, not executed; yields a list to which the graph is appended."""
        graph = []
        self.begin_capture()
        try:
            yield graph
        finally:
            captured = self.end_capture()
        graph.append(captured)

    def synchronize(self):
        self.work.synchronize("synchronize()")


def dimensions(given):
    """One to three ints, extended to three by ones."""
    given = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not 1 <= len(given) <= 3 or min(given) < 1:
        raise EmulationError(f"a grid or block of {given}: expected one to three positive numbers")
    return tuple(int(n) for n in given) + (1,) * (3 - len(given))


def checked(expression, parameter, argument, size):
    """The argument, if it fits its parameter; TypeError otherwise, as a GPU would misread it."""
    kind, name = parameter
    if kind.endswith("*"):
        if not isinstance(argument, Array):
            raise TypeError(f"kernel {expression}: {name} is a {type(argument).__name__}; expected "
                            "an array of the emulated GPU")
    elif isinstance(argument, np.ndarray) and argument.size != 1:              # as CuPy's _pointer
        raise TypeError(f"kernel {expression}: {name} is a numpy.ndarray of shape "
                        f"{argument.shape}; only those of size one can be passed by value")
    elif not isinstance(argument, (np.generic, np.ndarray)) or argument.nbytes != size:
        raise TypeError(f"kernel {expression}: {name} is {argument!r}; expected a NumPy value of "
                        f"{size} bytes, a {kind}")
    return argument if isinstance(argument, Array) else argument.copy()


class Placement:
    """Copies of a launch's arrays between guard pages; overlapping arrays are placed together."""

    def __init__(self, args, names, written, in_front):
        spans = []                                     # first byte, last byte, argument
        for k, a in enumerate(args):
            if isinstance(a, Array):
                spans.append((*np.lib.array_utils.byte_bounds(a.numbers), k))
        self.kept, self.names, self.where = args, [], {}
        unions = []
        for first, last, k in sorted(spans):
            if unions and first < unions[-1][1]:
                unions[-1][1] = max(unions[-1][1], last)
            else:
                unions.append([first, last, []])
            unions[-1][2].append(k)
            self.where[k] = len(unions) - 1, args[k].numbers.ctypes.data - unions[-1][0]
        self.regions = (Region * len(unions))(*[
            Region(first, last - first, any(written[k] for k in members))
            for first, last, members in unions])
        self.names = [" and ".join(names[k] for k in sorted(members)) for *_, members in unions]
        self.total = ctypes.c_long()
        self.base = machine().emulated_place(self.regions, len(unions), in_front,
                                             ctypes.byref(self.total))
        if not self.base:
            raise MemoryError("no memory for the arrays of an emulated kernel")

    def pointer(self, k):
        region, offset = self.where[k]
        return np.array(self.regions[region].placed + offset, np.uint64)

    def collect(self, expression):
        if machine().emulated_collect(self.regions, len(self.regions)):
            r, name = next((r, n) for r, n in zip(self.regions, self.names, strict=True)
                           if r.damaged)
            raise EmulationError(f"kernel {expression}: a thread has written "
                                 f"{describe_outside(r.damage, r.size, name)}")

    def remove(self):
        machine().emulated_remove(self.base, self.total)

    def describe(self, address):
        """Describe an address relative to the nearest array."""
        if not self.names or not self.base <= address < self.base + self.total.value:
            return f"at {address:#x}, which is in no array"

        def distance(k):
            r = self.regions[k]
            return max(r.placed - address, address - r.placed - r.size)
        nearest = min(range(len(self.names)), key=distance)
        r = self.regions[nearest]
        return describe_outside(address - r.placed, r.size, self.names[nearest])


def describe_outside(offset, size, name):
    """Describe a place outside an array, ``offset`` bytes from its start."""
    return (f"{-offset} bytes in front of {name}" if offset < 0 else
            f"{offset - size} bytes behind the end of {name} ({size} bytes)")
