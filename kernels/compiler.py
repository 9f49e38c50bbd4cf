"""How a Python function becomes a Numba kernel: lazily, at its first call, with a safe cache.

Nothing here imports Numba until a kernel is really called: ``import scratchgen`` stays quick, and
the NumPy and CUDA backends run where Numba is not installed.
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

WORTH_WAKING_THREADS = 16384        # elements of a kernel's largest array
SPINS = "5000"      # some ten microseconds: a fork and join, not a whole kernel
# Only ``prange`` loops become parallel; by default Numba looks for others in each array expression,
# which costs time in every compilation.
ONLY_PRANGE = {"prange": True, "comprehension": False, "fusion": False, "inplace_binop": False,
               "numpy": False, "reduction": False, "setitem": False, "stencil": False}
making = Lock()     # so that two Python threads do not compile, or register, the same thing at once
prange = range      # what a kernel's source says; in a compiled kernel it is Numba's parallel range



class compiled:
    """Decorator: a kernel for the Numba backend, compiled at its first call.

    Kernels may call each other; a name that refers to another ``compiled`` function is bound to
    that function's compiled form. With ``parallel=True`` the ``prange`` loop is spread over
    ``THREADS``, if the kernel's first array is large enough to be worth waking them; the results
    are the same bits, for every iteration owns what it writes.
    No kernel is compiled with ``fastmath``: an order of operations that the compiler may choose
    would break bit-equality between machines and thread counts.
    """

    def __init__(self, function=None, *, parallel=False):
        self.function, self.parallel = function, parallel
        self._dispatchers = {}
        if function is not None:
            functools.update_wrapper(self, function)

    def __call__(self, *args):
        if self.function is None:                      # used as @compiled(parallel=True)
            return compiled(args[0], parallel=self.parallel)
        return self.launcher()(*args)

    def dispatcher(self, parallel=False):
        """The Numba dispatcher; made once."""
        if parallel not in self._dispatchers:
            with making:
                if parallel not in self._dispatchers:
                    self._dispatchers[parallel] = self.new_dispatcher(parallel)
        return self._dispatchers[parallel]

    def new_dispatcher(self, parallel):
        numba = load_numba()
        function = rebind(self.function, compiled_names(self.function, parallel))
        function.__qualname__ += "_parallel" if parallel else ""         # the cache's key
        with cache_folder(numba) as kept:
            return numba.njit(cache=kept, parallel=ONLY_PRANGE if parallel else False,
                              error_model="numpy", nogil=True)(function)

    def launcher(self):
        """What to call from Python: the dispatcher, or for a parallel kernel the fitting one."""
        if not self.parallel:
            return self.dispatcher()

        def launch(*args):
            for a in args:
                if type(a) is ndarray and a.size >= WORTH_WAKING_THREADS:
                    break
            else:
                return self.dispatcher()(*args)
            if load_numba().config.NUMBA_NUM_THREADS > 1 and Pool.free.acquire(False):
                free, Pool.used = Pool.free, True
                try:
                    return self.dispatcher(parallel=True)(*args)
                finally:
                    free.release()
            return self.dispatcher()(*args)
        return launch


@compiled
def thread_count():
    """Among how many threads a ``prange`` loop is shared; in a parallel kernel, all of Numba's."""
    return 1


class Pool:
    """Who may wake Numba's threads.

    Only one Python thread at a time: of two, the second computes alone (some of Numba's thread
    pools allow only one to enter, and both would want the same cores). In a process forked from one
    that has used them, nobody: the threads are not there, and a kernel would wait for them forever.
    Whoever computes alone makes the same bits.
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
    """A NumPy function that kernels may call too, where Numba compiles another version of it.

    ``versions()`` gives what Numba calls an overload: argument types → the version to compile.
    """

    def __init__(self, function, versions):
        self.function, self.versions, self.known = function, versions, False
        functools.update_wrapper(self, function)

    def __call__(self, *args):
        return self.function(*args)

    @property
    def registered(self):
        """The plain function, once Numba knows its versions."""
        with making:
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
        """What Numba calls an external function."""
        types = load_numba().types
        signature = getattr(types, self.result)(*[types.int64] * self.arguments)
        return types.ExternalFunction(self.symbol, signature)


all_threads = Linked("get_num_threads", 0, "intp")     # of Numba's thread pool


def by_precision(fast):
    """Decorator: in kernels, ``fast`` for float32 and the function as it stands for float64."""
    def decorate(function):
        def versions():
            numba = load_numba()
            fast_version, exact_version = fast.dispatcher(), numba.njit(function)

            def choose(x):
                if x == numba.types.float32:
                    return lambda x: fast_version(x)
                return lambda x: exact_version(x)
            return choose
        return Overloaded(function, versions)
    return decorate


class CompiledUfuncs(dict):
    """dtype → the NumPy ufunc that evaluates ``formula`` with ``names`` for its globals; each is
    compiled when it is first asked for."""

    def __init__(self, formula, names):
        super().__init__()
        self.formula, self.names = formula, names

    def __missing__(self, dtype):
        numba, code = load_numba(), self.formula.__code__
        scalar = numba.from_dtype(dtype)
        signature = scalar(*[scalar] * (code.co_argcount + code.co_kwonlyargcount))
        with making, cache_folder(numba) as kept:
            if dtype not in self:
                self[dtype] = numba.vectorize([signature], cache=kept)(
                    rebind(self.formula, self.names, literals=dtype.type))
        return self[dtype]


def rebind(function, names, literals=None):
    """The same code with other globals; with ``literals``, its numbers as scalars of that type.

    Keyword-only parameters (a formula's options) then become positional: ufuncs know no others.
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


def compiled_names(function, parallel=False):
    """What the names in ``function`` mean once compiled: dispatchers, and the parallel range."""
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
    with making:
        return _load_numba()


@functools.cache
def _load_numba():
    patient_threads()
    import numba
    import numba.core.event
    from llvmlite import binding
    blas.use_threads(1)
    with cache_folder(numba) as kept:
        folder = numba.config.CACHE_DIR if kept else None
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


def patient_threads():
    """Load the OpenMP library that Numba's threads come from, so that they wait well.

    Between two kernels they spin, which is quick, and soon fall asleep, which leaves the core to
    others. As it stands it spins long (or, asked to be passive, not at all): beside one busy
    process a training step of 4 ms then takes up to 90. It reads its settings when it is loaded;
    the user's own are respected.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        with contextlib.suppress(OSError):
            ctypes.CDLL("libgomp.so.1")
    finally:
        del os.environ["GOMP_SPINCOUNT"]


@contextlib.contextmanager
def watching(begins):
    """Inside, ``begins(name)`` is called when the compilation of a kernel begins."""
    events = load_numba().core.event

    class Watcher(events.Listener):
        def on_start(self, event):
            begins(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event):
            pass

    with events.install_listener("numba:compile", Watcher()):
        yield


@contextlib.contextmanager
def cache_folder(numba):
    """Cache in a folder named by the source of all kernels; gives whether it can be written.

    Numba notices a change in a function's own file, not in the functions it calls; the fingerprint
    does. A folder that the user has chosen (NUMBA_CACHE_DIR) is respected. Where the folder cannot
    be written, kernels are compiled without a cache: the places that Numba would take instead
    (beside the source, which is shared, without the fingerprint) are not used.
    """
    before = numba.config.CACHE_DIR
    folder = os.environ.get("NUMBA_CACHE_DIR")
    if not folder:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):                    # as the specification of XDG has it
            base = os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(base, "scratchgen", "numba", source_fingerprint())
        numba.config.CACHE_DIR = folder
    try:
        yield can_be_written(folder)
    finally:
        numba.config.CACHE_DIR = before


@functools.cache
def can_be_written(folder):
    """Whether files can be made in the folder, which is made if it is missing; says once if not."""
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
