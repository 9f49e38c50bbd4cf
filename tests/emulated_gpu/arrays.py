"""The part of CuPy that the engine uses, emulated with NumPy: what fails on a GPU fails here too.

``Array`` behaves like ``cupy.ndarray`` where that differs from ``numpy.ndarray``: it is never
converted to a host array implicitly, cannot be mixed with one, and every result is an Array, if
necessary without dimensions. A ``Stream`` records work instead of executing it while a graph is
captured, and tracks which work of other streams its own work is ordered after: two streams that use
the same memory without an order are an error.
"""

import collections
import contextlib
import ctypes
import functools
import operator
import threading
import warnings
import weakref

import numpy as np

POISON = np.frombuffer(np.uint32(0x7FFDBEEF).tobytes(), np.uint8)      # as in machine.cpp

# NumPy's functions that change their first argument; that allocate and compute nothing; that wait
# for the GPU because their result's size depends on the data.
CHANGING = {"copyto", "put", "putmask", "place", "fill_diagonal", "put_along_axis"}
UNSET = {"empty", "empty_like"}
WAITING = {"nonzero", "flatnonzero", "argwhere", "unique", "extract", "compress", "trim_zeros"}
# Functions that return a Python bool in NumPy and an array without dimensions in CuPy.
ANSWERS = {"allclose", "array_equal", "array_equiv"}
# Functions for which CuPy calls cuBLAS, whose stream it cannot set during a capture.
BY_CUBLAS = {"matmul", "dot", "vdot", "inner", "tensordot", "einsum"}
# Names that CuPy does not have.
MISSING = set("""
    asmatrix block bmat einsum_path errstate frompyfunc geomspace geterr insert isnat longdouble ma
    matrix matvec memmap ndenumerate nditer rec record seterr spacing testing unstack vecdot vecmat
    void linalg random fft polynomial lib strings char object_ True_ False_""".split())


class EmulationError(Exception):
    """An operation that is an error or undefined on a GPU."""


# --- streams, events and graphs ------------------------------------------------------------------

class Stream:
    """A queue of work, which is executed at once; ``graph`` is the graph that it captures, or None.

    ``clock`` counts the stream's operations; ``seen[s]`` is the clock of stream s up to which this
    stream's next operation is ordered after s (vector clocks).
    """

    def __init__(self, work, non_blocking=False):
        self.work, self.clock, self.seen, self.graph, self.invalid = work, 0, {}, None, False

    def use(self):
        self.work.local.current = self
        return self

    def touch(self, *arrays):
        """Register an operation of this stream on these arrays; an error if it is not ordered after
        their last use by another stream."""
        self.clock += 1
        for a in arrays:
            stream, clock = a.root.last_use
            if stream is not self and max(self.seen.get(stream, 0),
                                          self.work.host.get(stream, 0)) < clock:
                raise EmulationError("a stream uses memory that another stream may still use: let "
                                     "it wait for an event")
            a.root.last_use = self, self.clock

    def now(self):
        """The clocks that work after this point is ordered after."""
        return merged(self.seen, self.work.host, {self: self.clock})

    def record(self, event):
        event.record(self)

    def wait_event(self, event):
        self.seen = merged(self.seen, event.seen)

    def synchronize(self):
        if self.graph is not None:
            self.invalid = True
            raise EmulationError("synchronize() waits for the GPU, which a capture does not allow")
        self.work.host = merged(self.work.host, self.now())

    def begin_capture(self, mode=None):
        if self is self.work.null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.graph is not None:
            raise EmulationError("a capture begins inside another one")
        self.graph, self.invalid = Graph(self.work), False

    def end_capture(self):
        if self.graph is None:
            raise EmulationError("a capture ends that has not begun")
        captured, self.graph = self.graph, None
        if self.invalid:
            raise EmulationError("a capture ends that an operation inside has invalidated")
        return captured

    def is_capturing(self):
        return self.graph is not None


def merged(*clocks):
    """The maximum of several clocks for each stream."""
    result = {}
    for each in clocks:
        for stream, clock in each.items():
            result[stream] = max(clock, result.get(stream, 0))
    return result


class Event:
    """A point in a stream. An event that was never recorded orders nothing, as in CUDA."""

    done = True

    def __init__(self, work):
        self.work, self.seen = work, {}

    def record(self, stream=None):
        stream = stream or self.work.current
        if stream.graph is None:
            self.seen = stream.now()

    def synchronize(self):
        self.work.host = merged(self.work.host, self.seen)


class Graph:
    """Recorded work: ``kernels`` names the kernels launched, ``others`` the operations of arrays.
    """

    def __init__(self, work):
        self.owner, self.work, self.kernels, self.others, self.arrays = work, [], [], [], {}

    def add_kernel(self, name, run, arrays=()):
        self.kernels.append(name)
        self.add(run, arrays)

    def add_other(self, name, run, arrays=()):
        self.others.append(name)
        self.add(run, arrays)

    def add(self, run, arrays):
        """Append work; arrays allocated outside the capture are tracked by weak references."""
        self.work.append(run)
        self.arrays.update((id(a.root), weakref.ref(a.root)) for a in arrays
                           if a.root.made_in is not self)

    def launch(self, stream=None):
        """Execute the work in order, with the captured memory."""
        stream = stream or self.owner.current
        if stream.graph is not None:
            raise EmulationError("a graph is launched while another one is captured")
        arrays = [reference() for reference in self.arrays.values()]
        if any(a is None for a in arrays):
            raise EmulationError("a graph is launched that uses an array which has been freed")
        stream.touch(*arrays)
        for run in self.work:
            run()


class Work:
    """The streams of the threads: each has a current stream, initially the default one."""

    def __init__(self):
        self.local, self.host = threading.local(), {}
        self.null = Stream(self)

    @property
    def current(self):
        return getattr(self.local, "current", self.null)

    @property
    def graph(self):
        return self.current.graph

    def synchronize(self, what):
        """Wait for the results on the host, which is an error during a capture."""
        if self.graph is not None:
            self.current.invalid = True
            raise EmulationError(f"{what} waits for the GPU, which a capture does not allow")
        self.current.synchronize()

    def copy_from_host(self, what):
        if self.graph is not None:
            raise EmulationError(f"{what} copies from the host, which a capture does not allow")


class Cuda:
    """The part of ``cupy.cuda`` for streams and memory."""

    class runtime:
        streamCaptureModeRelaxed = 2

    def __init__(self, work):
        self.Stream = functools.partial(Stream, work)
        self.Event = lambda **options: Event(work)
        self.allocators = threading.local()

    def get_allocator(self):
        return getattr(self.allocators, "current", None)

    @contextlib.contextmanager
    def using_allocator(self, allocator):
        before, self.allocators.current = self.get_allocator(), allocator
        try:
            yield
        finally:
            self.allocators.current = before

    @staticmethod
    def get_elapsed_time(start, end):
        """Milliseconds, a constant."""
        return 1.0

    @staticmethod
    def alloc_pinned_memory(size):
        return bytearray(size)

    class MemoryPool:
        """``freed``: whether its blocks were given back."""

        freed = False

        def malloc(self, size):
            raise NotImplementedError

        def free_all_blocks(self):
            self.freed = True


# --- conversion between Array and numpy.ndarray --------------------------------------------------

def poison(numbers):
    """Fill a new array with NaN, or huge integers."""
    if numbers.size:
        flat = numbers.reshape(-1, order="A").view(np.uint8)
        flat[...] = np.resize(POISON, flat.size)
    return numbers


def unwrap(value):
    """NumPy's version of an argument; a host array among them is an error."""
    if isinstance(value, Array):
        return value.numbers
    if isinstance(value, np.ndarray):                  # CuPy refuses those of one number too
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: an array of the host is mixed "
                        "with one of the GPU; use xp.asarray")
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(v) for v in value)
    return value


def arrays_in(value):
    """All Arrays among arguments, in lists and tuples too."""
    if isinstance(value, Array):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from arrays_in(v)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))


def is_view(result, sources):
    return any(np.may_share_memory(result, s.numbers) for s in sources)


def wrap(result, work, sources, name=""):
    """The Array (or Arrays) of what NumPy returned."""
    if isinstance(result, np.ndarray):
        for s in sources:
            if result is s.numbers:
                return s
        return Array(result, work, next((s.root for s in sources if is_view(result, [s])), None))
    if isinstance(result, np.generic) or name in ANSWERS:
        return Array(np.array(result), work)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(wrap(r, work, sources) for r in result))
    if isinstance(result, (list, tuple)):
        return type(result)(wrap(r, work, sources) for r in result)
    return result


def compute(work, name, function, args, kwargs=None):
    """Call NumPy's ``function`` on Arrays; record the call while a graph is captured."""
    kwargs = kwargs or {}
    sources = list(arrays_in([args, kwargs]))
    if name in WAITING or name == "where" and len(args) == 1:
        work.synchronize(name)
    inner, named = unwrap(args), {k: unwrap(v) for k, v in kwargs.items()}
    out = kwargs.get("out")
    out = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    if work.graph is None:
        if name not in UNSET:
            work.current.touch(*sources)
        result = function(*inner, **named)
    elif name in BY_CUBLAS:
        raise NotImplementedError("calling cublas during stream capture is currently unsupported")
    elif name in CHANGING or out is not None:
        work.graph.add_other(name, lambda: function(*inner, **named), sources)
        return out
    else:
        result = record(work, name, function, inner, named, sources)
    wrapped = wrap(result, work, sources, name) if out is None else out
    if name in UNSET:
        poison(wrapped.numbers)
    return wrapped


def record(work, name, function, args, kwargs, sources):
    """Allocate a result that each launch of the graph recomputes; views need no work."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        try:
            result = function(*args, **kwargs)
        except IndexError:                             # by indices that are not computed yet
            result = function(*[0 * a if isinstance(a, np.ndarray) else a for a in args], **kwargs)
    many = isinstance(result, (list, tuple))
    results = [np.array(r) if isinstance(r, np.generic) or name in ANSWERS else r
               for r in (result if many else [result])]
    fresh = [k for k, r in enumerate(results)
             if isinstance(r, np.ndarray) and not is_view(r, sources)]
    for k in fresh:
        results[k] = poison(np.array(results[k]))      # memory of its own
    if fresh and name not in UNSET:
        def run():
            again = function(*args, **kwargs)
            for k in fresh:
                results[k][...] = again[k] if many else again
        work.graph.add_other(name, run, sources)
    return type(result)(results) if many and not hasattr(result, "_fields") else (
        type(result)(*results) if many else results[0])


# --- the array -----------------------------------------------------------------------------------

class Pointer(collections.namedtuple("Pointer", "ptr")):
    """A place in memory, and CuPy's copies and fills by it."""

    def copy_from_device_async(self, other, size, stream):
        ctypes.memmove(self.ptr, other.ptr, size)

    def memset_async(self, value, size, stream):
        ctypes.memset(self.ptr, value, size)


class Flags:
    """The three that CuPy has."""

    def __init__(self, numbers, owndata):
        self.c_contiguous = numbers.flags.c_contiguous
        self.f_contiguous = numbers.flags.f_contiguous
        self.owndata = owndata

    def __getitem__(self, name):
        return getattr(self, name.lower())


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of the emulated GPU; ``numbers`` is its NumPy array, for use by tests only."""

    __slots__ = ("numbers", "work", "_base", "made_in", "last_use", "__weakref__")
    __hash__ = None

    def __init__(self, numbers, work, base=None):
        self.numbers, self.work, self._base, self.made_in = numbers, work, base, work.graph
        # The pool may have taken this memory from an array that its stream was still using.
        self.last_use = (work.null, 0) if work.graph else (work.current, work.current.clock)

    @property
    def root(self):
        """The array that owns the memory."""
        return self if self._base is None else self._base

    base = property(operator.attrgetter("_base"))
    shape = property(operator.attrgetter("numbers.shape"))
    dtype = property(operator.attrgetter("numbers.dtype"))
    ndim = property(operator.attrgetter("numbers.ndim"))
    size = property(operator.attrgetter("numbers.size"))
    nbytes = property(operator.attrgetter("numbers.nbytes"))
    itemsize = property(operator.attrgetter("numbers.itemsize"))
    strides = property(operator.attrgetter("numbers.strides"))

    @property
    def flags(self):
        return Flags(self.numbers, self._base is None)

    @property
    def data(self):
        return Pointer(self.numbers.ctypes.data if self.size else 0)

    @property
    def T(self):
        return self.transpose()

    @property
    def real(self):
        return np.real(self)

    # --- NumPy's functions and operators ---

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` "
                        "to construct a NumPy array explicitly.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if any(hasattr(x, "__array_ufunc__") and not isinstance(x, (Array, np.ndarray, np.generic))
               for x in inputs):
            return NotImplemented                      # a type that knows what to do with an Array
        function = getattr(ufunc, method)
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if method == "at":
            return self.change(name, function, *unwrap(inputs))
        return compute(self.work, name, function, inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if not all(issubclass(t, (Array, np.ndarray)) for t in types):
            return NotImplemented
        return compute(self.work, function.__name__, function, args, kwargs)

    def change(self, name, function, *args):
        """``function`` changes this array and returns nothing; its arguments are NumPy's."""
        if self.work.graph is None:
            self.work.current.touch(self)
            function(*args)
        else:
            self.work.graph.add_other(name, lambda: function(*args), [self])

    # --- indexing ---

    def __getitem__(self, key):
        key = index(key)
        if any(isinstance(k, Array) for k in key):
            if any(isinstance(k, Array) and k.dtype == bool for k in key):
                self.work.synchronize("an index of bools")
            return compute(self.work, "take", lambda a, *key: a[key], (self, *key))
        if Ellipsis not in key:
            key += (Ellipsis,)                         # so that a number is a view too
        return Array(self.numbers[key], self.work, self.root)

    def __setitem__(self, key, value):
        check_not_host(value)
        key, inner = unwrap(index(key)), unwrap(value)
        if isinstance(value, Array):
            basic = not any(isinstance(k, np.ndarray) for k in key)
            if basic and same_memory(self.numbers[(*key, Ellipsis) if Ellipsis not in key else key],
                                     inner):
                return                                 # a[key] += b has already written there
        name = "setitem" if isinstance(value, Array) else "fill"
        self.change(name, operator.setitem, self.numbers, key, inner)

    def __len__(self):
        return len(self.numbers)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # --- methods that are views or compute ---

    def reshape(self, *shape, order="C"):
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return compute(self.work, "reshape", np.reshape, (self, tuple(shape)), {"order": order})

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return compute(self.work, "transpose", np.transpose, (self, axes or None))

    def view(self, dtype=None):
        numbers = self.numbers.view() if dtype is None else self.numbers.view(dtype)
        return Array(numbers, self.work, self.root)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == dtype:
            return self
        return compute(self.work, "astype", lambda a: a.astype(dtype, order=order), (self,))

    def copy(self, order="C"):
        return compute(self.work, "copy", lambda a: a.copy(order=order), (self,))

    def flatten(self, order="C"):
        return compute(self.work, "flatten", lambda a: a.flatten(order=order), (self,))

    def fill(self, value):
        check_not_host(value)
        self.change("fill", operator.setitem, self.numbers, ..., unwrap(value))

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    # --- between the host and the GPU ---

    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy on the host."""
        stream = stream or self.work.current
        if blocking or stream.graph is not None:
            self.work.synchronize("get()")
        stream.touch(self)
        if out is None:
            return self.numbers.copy()
        out[...] = self.numbers
        return out

    def set(self, host, stream=None):
        """Overwrite with a host array of the same shape and dtype."""
        if not isinstance(host, np.ndarray):
            raise TypeError(f"set() takes a NumPy array, not {type(host).__name__}")
        if host.dtype != self.dtype:
            raise TypeError(f"{host.dtype} array cannot be set to {self.dtype} array")
        if host.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {host.shape}")
        stream = stream or self.work.current
        if stream is self.work.current:
            self.work.copy_from_host("set()")
        stream.touch(self)
        self.numbers[...] = host


def index(key):
    """A key as a tuple; host arrays and lists in it are an error."""
    key = key if isinstance(key, tuple) else (key,)
    for k in key:
        if isinstance(k, (list, np.ndarray)):
            raise TypeError(f"an index is a {type(k).__name__} of the host; use xp.asarray")
    return key


def check_not_host(value):
    """Only an Array or one number may be written to an Array."""
    if isinstance(value, (list, tuple)) or isinstance(value, np.ndarray) and value.ndim > 0:
        raise TypeError(f"Unsupported type {type(value)}: only an array of the GPU or a number can "
                        "be written into one")


def same_memory(a, b):
    return (a.ctypes.data, a.shape, a.strides, a.dtype) == (
        b.ctypes.data, b.shape, b.strides, b.dtype)


def add_methods():
    """Add the methods that are functions in NumPy, and those that wait for the result."""
    def of_function(name, function):
        def method(self, *args, **kwargs):
            return compute(self.work, name, function, (self, *args), kwargs)
        return method

    def waiting(name):
        def method(self, *args):
            self.work.synchronize(f"{name}()")
            return getattr(self.numbers, name)(*args)
        return method

    for name in ("sum", "prod", "mean", "var", "std", "min", "max", "argmin", "argmax", "all",
                 "any", "dot", "clip", "round", "cumsum", "cumprod", "argsort", "take", "repeat",
                 "swapaxes", "squeeze", "ravel", "diagonal", "trace", "nonzero"):
        setattr(Array, name, of_function(name, getattr(np, name)))
    for name in ("item", "tolist", "tobytes", "__bool__", "__int__", "__float__", "__complex__",
                 "__index__", "__repr__", "__str__", "__format__"):
        setattr(Array, name, waiting(name))


add_methods()


# --- the module ----------------------------------------------------------------------------------

class Xp:
    """The emulated module ``cupy``: its constructors of arrays, and NumPy's functions."""

    ndarray = Array

    def __init__(self, work):
        self.work, self.cuda = work, Cuda(work)

    def array(self, a, dtype=None, copy=True, order="K", ndmin=0):
        """An Array from anything; from the host's memory it is a copy."""
        if isinstance(a, Array):
            same = dtype is None or a.dtype == dtype
            return a if same and not copy else compute(
                self.work, "copy" if same else "astype",
                lambda x: np.array(x, dtype, order=order, ndmin=ndmin), (a,))
        if any(True for _ in arrays_in(a)):
            return compute(self.work, "stack", lambda *each: np.array(each, dtype), tuple(a))
        numbers = np.array(a, dtype, order=order, ndmin=ndmin)
        if numbers.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {numbers.dtype}")
        if numbers.ndim == 0:                          # a number is passed with the launch
            return compute(self.work, "fill", np.full, ((), numbers.item(), numbers.dtype))
        self.work.copy_from_host("array()")
        return Array(numbers, self.work)

    def asarray(self, a, dtype=None, order=None):
        return self.array(a, dtype, copy=False, order=order or "K")

    asanyarray = asarray

    def ascontiguousarray(self, a, dtype=None):
        if isinstance(a, Array) and a.flags.c_contiguous and dtype in (None, a.dtype):
            return a
        return self.array(a, dtype, order="C")

    def asnumpy(self, a, work=None, order="C", out=None):
        """A copy on the host."""
        return a.get() if isinstance(a, Array) else np.asarray(a, order=order)

    def __getattr__(self, name):
        if name in MISSING or name.startswith("__"):
            raise AttributeError(f"module 'cupy' has no attribute {name!r} (in this emulation)")
        found = getattr(np, name)
        if callable(found) and not isinstance(found, type):
            found = Function(self.work, name, found)
        setattr(self, name, found)
        return found


class Function:
    """A function or ufunc of NumPy, whose results are Arrays."""

    def __init__(self, work, name, function):
        self.work, self.__name__, self.function = work, name, function

    def __call__(self, *args, **kwargs):
        if isinstance(self.function, np.ufunc) and len(args) > self.function.nin:
            args, kwargs["out"] = args[:self.function.nin], args[self.function.nin]
        return compute(self.work, self.__name__, self.function, args, kwargs)

    def __getattr__(self, name):
        found = getattr(self.function, name)           # at, reduce, outer, … of a ufunc
        if not callable(found):
            return found

        def method(array, *args, **kwargs):
            if not isinstance(array, Array):
                raise TypeError(f"{self.__name__}.{name} takes an array of the GPU, not "
                                f"{type(array).__name__}")
            return found(array, *args, **kwargs)
        return method


def make_xp(work):
    """An emulated CuPy whose operations run on the streams of ``work``."""
    return Xp(work)
