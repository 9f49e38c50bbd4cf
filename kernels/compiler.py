"""Compiles Python functions with Numba: lazily, at their first call, with a cache on disk.

Numba is imported at the first call of a kernel. So ``import scratchgen`` is quick, and the NumPy
and CUDA backends run without Numba.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import pathlib
import tempfile
import threading
import types
import warnings

from numpy import ndarray

from ..context import Lock
from ..errors import Notice
from . import blas, machine_code

PARALLEL_FROM = 16384     # elements of a kernel's largest array for which it uses several threads
SPIN_COUNT = "5000"       # about ten microseconds: the time of a fork and join, not of a kernel
# Only ``prange`` loops become parallel; by default Numba looks for others in each array expression,
# which costs time in every compilation.
ONLY_PRANGE = {"prange": True, "comprehension": False, "fusion": False, "inplace_binop": False,
               "numpy": False, "reduction": False, "setitem": False, "stencil": False}
compile_lock = Lock()     # two Python threads must not compile or register the same function
prange = range            # in the Python source; a compiled kernel uses Numba's parallel range


class compiled:
    """Decorator: a kernel for the Numba backend, compiled at its first call.

    Kernels may call each other: a global name that refers to another ``compiled`` function is bound
    to its compiled form. With ``parallel=True`` the ``prange`` loop runs on several threads if
    ``worth_threads``, a function of the kernel's arguments, says so: by default, if one of its
    arrays has at least ``PARALLEL_FROM`` elements. The bits are the same, because every iteration
    writes only its own part of the result.
    No kernel is compiled with ``fastmath``: it lets the compiler change the order of operations,
    and the bits would depend on the machine and the number of threads.
    """

    def __init__(self, function=None, *, parallel=False, worth_threads=None):
        self.function, self.parallel = function, parallel
        self.worth_threads = worth_threads or has_large_array
        self._dispatchers = {}
        if function is not None:
            functools.update_wrapper(self, function)

    def __call__(self, *args):
        if self.function is None:                      # used as @compiled(parallel=True)
            return compiled(args[0], parallel=self.parallel, worth_threads=self.worth_threads)
        return self.launcher()(*args)

    def dispatcher(self, parallel=False):
        """The Numba dispatcher, created once."""
        if parallel not in self._dispatchers:
            with compile_lock:
                if parallel not in self._dispatchers:
                    self._dispatchers[parallel] = self.new_dispatcher(parallel)
        return self._dispatchers[parallel]

    def new_dispatcher(self, parallel):
        numba = load_numba()
        function = with_globals(self.function, compiled_globals(self.function, parallel))
        function.__qualname__ += "_parallel" if parallel else ""         # the cache's key
        with cache_folder(numba) as writable:
            return numba.njit(cache=writable, parallel=ONLY_PRANGE if parallel else False,
                              error_model="numpy", nogil=True)(function)

    def launcher(self):
        """The function to call from Python: it selects the serial or the parallel dispatcher."""
        if not self.parallel:
            return self.dispatcher()

        def launch(*args):
            if not self.worth_threads(*args):
                return self.dispatcher()(*args)
            if load_numba().config.NUMBA_NUM_THREADS > 1 and Pool.free.acquire(False):
                free, Pool.used = Pool.free, True
                try:
                    return self.dispatcher(parallel=True)(*args)
                finally:
                    free.release()
            return self.dispatcher()(*args)
        return launch


def has_large_array(*args):
    """Whether one of the arguments is an array of at least ``PARALLEL_FROM`` elements."""
    for a in args:
        if type(a) is ndarray and a.size >= PARALLEL_FROM:
            return True
    return False


@compiled
def thread_count():
    """The number of threads of a ``prange`` loop; in a parallel kernel, all of Numba's."""
    return 1


class Pool:
    """Access to Numba's threads.

    Only one Python thread at a time may use them; a second one runs the serial version meanwhile
    (some of Numba's thread pools allow only one caller, and both would compete for the cores). In a
    process forked from one that has used them, no thread may: Numba's threads do not exist there,
    and a kernel would wait for them forever. The serial version computes the same bits.
    """

    free, used = threading.Lock(), False

    @classmethod
    def after_fork(cls):
        cls.free = threading.Lock()
        if cls.used:
            cls.free.acquire()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Pool.after_fork)


class Overloaded:
    """A NumPy function for which compiled kernels use another version.

    ``versions()`` returns a Numba overload: a function from argument types to the version to
    compile.
    """

    def __init__(self, function, versions):
        self.function, self.versions, self.known = function, versions, False
        functools.update_wrapper(self, function)

    def __call__(self, *args):
        return self.function(*args)

    @property
    def registered(self):
        """The Python function, after its versions are registered with Numba."""
        with compile_lock:
            if not self.known:
                load_numba().extending.overload(self.function)(self.versions())
                self.known = True
        return self.function


class Linked:
    """A function of machine code that kernels call by its symbol: all arguments are int64."""

    def __init__(self, symbol, arguments, result="void"):
        self.symbol, self.arguments, self.result = symbol, arguments, result

    @functools.cached_property
    def registered(self):
        """The function as a Numba ``ExternalFunction``."""
        types = load_numba().types
        signature = getattr(types, self.result)(*[types.int64] * self.arguments)
        return types.ExternalFunction(self.symbol, signature)


all_threads = Linked("get_num_threads", 0, "intp")     # of Numba's thread pool


def by_precision(single, double):
    """Decorator: compiled kernels use ``single`` for float32 and ``double`` for float64."""
    def decorate(function):
        def versions():
            numba = load_numba()
            of_single, of_double = single.dispatcher(), double.dispatcher()

            def choose(x):
                if x == numba.types.float32:
                    return lambda x: of_single(x)
                return lambda x: of_double(x)
            return choose
        return Overloaded(function, versions)
    return decorate


class CompiledUfuncs(dict):
    """A dict dtype → NumPy ufunc of ``formula`` with ``names`` as globals, each compiled at its
    first use."""

    def __init__(self, formula, names):
        super().__init__()
        self.formula, self.names = formula, names

    def __missing__(self, dtype):
        numba, code = load_numba(), self.formula.__code__
        scalar = numba.from_dtype(dtype)
        signature = scalar(*[scalar] * (code.co_argcount + code.co_kwonlyargcount))
        with compile_lock, cache_folder(numba) as writable:
            if dtype not in self:
                self[dtype] = numba.vectorize([signature], cache=writable)(
                    with_globals(self.formula, self.names, literals=dtype.type))
        return self[dtype]


def with_globals(function, names, literals=None):
    """A copy of a function with other globals; ``literals`` is a type for its numeric literals.

    With ``literals``, keyword-only parameters (a formula's options) become positional, because
    ufuncs have only positional ones.
    """
    code = function.__code__
    if literals is not None:
        code = code.replace(
            co_argcount=code.co_argcount + code.co_kwonlyargcount, co_kwonlyargcount=0,
            co_consts=tuple(literals(c) if type(c) in (int, float) else c
                            for c in code.co_consts))
    copy = types.FunctionType(code, {**function.__globals__, **names}, function.__name__,
                              function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def compiled_globals(function, parallel=False):
    """The globals of the compiled ``function``: dispatchers, and the parallel range."""
    numba = load_numba()
    names = {"prange": numba.prange}
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, compiled):
            names[name] = value.dispatcher()
        elif isinstance(value, (Overloaded, Linked)):
            names[name] = value.registered
    if parallel and "thread_count" in names:
        names["thread_count"] = all_threads.registered
    return names


@functools.cache
def load_numba():
    """Numba, imported when the first kernel is compiled; the tiles of products are linked to it."""
    with compile_lock:
        return _load_numba()


@functools.cache
def _load_numba():
    limit_openmp_spinning()
    import numba
    import numba.core.event
    from llvmlite import binding
    blas.use_threads(1)
    with cache_folder(numba) as writable:
        folder = numba.config.CACHE_DIR if writable else None
    addresses = machine_code.addresses(*processor(numba), folder, source_fingerprint())
    for name, address in addresses.items():
        binding.add_symbol(name, address)
    return numba


def processor(numba):
    """(its name, its features) of the processor that Numba compiles for, as LLVM writes them."""
    from llvmlite import binding
    config, features = numba.config, numba.core.codegen.get_host_cpu_features()
    return (config.CPU_NAME or binding.get_host_cpu_name(),
            features if config.CPU_FEATURES is None else config.CPU_FEATURES)


def limit_openmp_spinning():
    """Load the OpenMP library that runs Numba's threads, with a short spinning time.

    Between two kernels the threads spin, so that the next kernel starts quickly, and then sleep, so
    that other processes can use the core. By default they spin long (or, with a passive policy, not
    at all): next to one busy process a training step of 4 ms then takes up to 90 ms. OpenMP reads
    its settings when it is loaded. Settings of the user are kept.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    try:
        with contextlib.suppress(OSError):
            ctypes.CDLL("libgomp.so.1")
    finally:
        del os.environ["GOMP_SPINCOUNT"]


@contextlib.contextmanager
def on_compilation(callback):
    """Inside, call ``callback(name)`` when the compilation of a kernel begins."""
    events = load_numba().core.event

    class Watcher(events.Listener):
        def on_start(self, event):
            callback(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event):
            pass

    with events.install_listener("numba:compile", Watcher()):
        yield


@contextlib.contextmanager
def cache_folder(numba):
    """Set Numba's cache folder, named by a hash of all kernels; yields whether it is writable.

    Numba detects a change in a function's file, but not in the functions that it calls; the hash
    covers both. A folder that the user has chosen (NUMBA_CACHE_DIR) is kept. If the folder is not
    writable, kernels are compiled without a cache: Numba's alternative, a folder next to the source
    files, is not named by the hash and is shared by all users.
    """
    before = numba.config.CACHE_DIR
    folder = os.environ.get("NUMBA_CACHE_DIR")
    if not folder:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):                    # the XDG specification ignores relative ones
            base = os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(base, "scratchgen", "numba", source_fingerprint())
        numba.config.CACHE_DIR = folder
    try:
        yield is_writable(folder)
    finally:
        numba.config.CACHE_DIR = before


@functools.cache
def is_writable(folder):
    """Whether files can be created in the folder, which is created if missing; warns once if not.
    """
    try:
        if folder.startswith("~"):                     # a user without a home
            raise OSError(errno.ENOENT, "no home folder")
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        warnings.warn(f"compiled kernels cannot be kept in {folder} ({reason}), so every process "
                      "compiles its own: name a folder with NUMBA_CACHE_DIR", Notice, stacklevel=2)
        return False


@functools.cache
def source_fingerprint():
    """A short hash of every kernel source file."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
