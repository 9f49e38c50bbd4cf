"""CuPy as far as the engine uses it, over NumPy: what would fail on a GPU fails here too.

``Array`` behaves as ``cupy.ndarray`` where that is not ``numpy.ndarray``: it never becomes a host
array by itself, refuses to be mixed with one, and everything computed from it is an Array, of no
dimensions if need be. ``Stream`` records work instead of doing it while a graph is captured.
"""

import collections
import operator
import warnings

import numpy as np

POISON = np.frombuffer(np.uint32(0x7FFDBEEF).tobytes(), np.uint8)      # as in machine.cpp

# Of NumPy's functions: what changes its first argument; what allocates and computes nothing; what
# asks the GPU how large its result is.
CHANGING = {"copyto", "put", "putmask", "place", "fill_diagonal", "put_along_axis"}
UNSET = {"empty", "empty_like"}
WAITING = {"nonzero", "flatnonzero", "argwhere", "unique", "extract", "compress", "trim_zeros"}
# Python bools from NumPy, arrays of no dimensions from CuPy.
ANSWERS = {"allclose", "array_equal", "array_equiv"}
# What CuPy has not.
MISSING = set("""
    asmatrix block bmat einsum_path errstate frompyfunc geomspace geterr insert isnat longdouble ma
    matrix matvec memmap ndenumerate nditer rec record seterr spacing testing unstack vecdot vecmat
    void linalg random fft polynomial lib strings char object_ True_ False_""".split())


class EmulationError(Exception):
    """What a GPU would do wrong, or would not do at all."""


# --- the stream and its graphs -------------------------------------------------------------------

class Stream:
    """The one queue of work. ``graph`` is what is being captured, or None."""

    graph = None

    def synchronize(self, what):
        """The host waits for results here: impossible while they are only recorded."""
        if self.graph is not None:
            raise EmulationError(f"{what} waits for the GPU, which a capture does not allow")

    def copy_from_host(self, what):
        if self.graph is not None:
            raise EmulationError(f"{what} copies from the host, which a capture does not allow")

    def begin_capture(self):
        if self.graph is not None:
            raise EmulationError("a capture begins inside another one")
        self.graph = Graph(self)

    def end_capture(self):
        if self.graph is None:
            raise EmulationError("a capture ends that has not begun")
        captured, self.graph = self.graph, None
        return captured


class Graph:
    """Recorded work: ``kernels`` names the kernels launched, ``others`` the operations of arrays.
    """

    def __init__(self, stream):
        self.stream, self.work, self.kernels, self.others = stream, [], [], []

    def add_kernel(self, name, run):
        self.kernels.append(name)
        self.work.append(run)

    def add_other(self, name, run):
        self.others.append(name)
        self.work.append(run)

    def launch(self, stream=None):
        """All of it, in order, in the memory that it was captured with."""
        if self.stream.graph is not None:
            raise EmulationError("a graph is launched while another one is captured")
        for run in self.work:
            run()


# --- from arrays to NumPy's and back -------------------------------------------------------------

def poison(numbers):
    """Fill a fresh array with NaN, or huge integers."""
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


def wrap(result, stream, sources, name=""):
    """The Array (or Arrays) of what NumPy returned."""
    if isinstance(result, np.ndarray):
        for s in sources:
            if result is s.numbers:
                return s
        return Array(result, stream, next((s.root for s in sources if is_view(result, [s])), None))
    if isinstance(result, np.generic) or name in ANSWERS:
        return Array(np.array(result), stream)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(wrap(r, stream, sources) for r in result))
    if isinstance(result, (list, tuple)):
        return type(result)(wrap(r, stream, sources) for r in result)
    return result


def compute(stream, name, function, args, kwargs=None):
    """``function`` of NumPy on Arrays; recorded, not done, while a graph is captured."""
    kwargs = kwargs or {}
    sources = list(arrays_in([args, kwargs]))
    if name in WAITING or name == "where" and len(args) == 1:
        stream.synchronize(name)
    inner, named = unwrap(args), {k: unwrap(v) for k, v in kwargs.items()}
    out = kwargs.get("out")
    out = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    if stream.graph is None:
        result = function(*inner, **named)
    elif name in CHANGING or out is not None:
        stream.graph.add_other(name, lambda: function(*inner, **named))
        return out
    else:
        result = record(stream, name, function, inner, named, sources)
    wrapped = wrap(result, stream, sources, name) if out is None else out
    if name in UNSET:
        poison(wrapped.numbers)
    return wrapped


def record(stream, name, function, args, kwargs, sources):
    """Make room for a result that each launch of the graph computes anew; views compute nothing."""
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
        stream.graph.add_other(name, run)
    return type(result)(results) if many and not hasattr(result, "_fields") else (
        type(result)(*results) if many else results[0])


# --- the array -----------------------------------------------------------------------------------

Pointer = collections.namedtuple("Pointer", "ptr")


class Flags:
    """The three that CuPy has."""

    def __init__(self, numbers, owndata):
        self.c_contiguous = numbers.flags.c_contiguous
        self.f_contiguous = numbers.flags.f_contiguous
        self.owndata = owndata

    def __getitem__(self, name):
        return getattr(self, name.lower())


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the memory of the emulated GPU: ``numbers`` is NumPy's, for the tests alone."""

    __slots__ = ("numbers", "stream", "_base", "__weakref__")
    __hash__ = None

    def __init__(self, numbers, stream, base=None):
        self.numbers, self.stream, self._base = numbers, stream, base

    @property
    def root(self):
        """The array whose memory this is."""
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
        return compute(self.stream, name, function, inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if not all(issubclass(t, (Array, np.ndarray)) for t in types):
            return NotImplemented
        return compute(self.stream, function.__name__, function, args, kwargs)

    def change(self, name, function, *args):
        """``function`` changes memory and returns nothing; its arguments are NumPy's."""
        if self.stream.graph is None:
            function(*args)
        else:
            self.stream.graph.add_other(name, lambda: function(*args))

    # --- indexing ---

    def __getitem__(self, key):
        key = index(key)
        if any(isinstance(k, Array) for k in key):
            if any(isinstance(k, Array) and k.dtype == bool for k in key):
                self.stream.synchronize("an index of bools")
            return compute(self.stream, "take", lambda a, *key: a[key], (self, *key))
        if Ellipsis not in key:
            key += (Ellipsis,)                         # so that a number is a view too
        return Array(self.numbers[key], self.stream, self.root)

    def __setitem__(self, key, value):
        refuse_host(value)
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
        return compute(self.stream, "reshape", np.reshape, (self, tuple(shape)), {"order": order})

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return compute(self.stream, "transpose", np.transpose, (self, axes or None))

    def view(self, dtype=None):
        numbers = self.numbers.view() if dtype is None else self.numbers.view(dtype)
        return Array(numbers, self.stream, self.root)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == dtype:
            return self
        return compute(self.stream, "astype", lambda a: a.astype(dtype, order=order), (self,))

    def copy(self, order="C"):
        return compute(self.stream, "copy", lambda a: a.copy(order=order), (self,))

    def flatten(self, order="C"):
        return compute(self.stream, "flatten", lambda a: a.flatten(order=order), (self,))

    def fill(self, value):
        refuse_host(value)
        self.change("fill", operator.setitem, self.numbers, ..., unwrap(value))

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    # --- between the host and the GPU ---

    def get(self):
        """A copy on the host."""
        self.stream.synchronize("get()")
        return self.numbers.copy()

    def set(self, host):
        """Overwrite with a host array of the same shape and dtype."""
        if not isinstance(host, np.ndarray):
            raise TypeError(f"set() takes a NumPy array, not {type(host).__name__}")
        if host.dtype != self.dtype:
            raise TypeError(f"{host.dtype} array cannot be set to {self.dtype} array")
        if host.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {host.shape}")
        self.stream.copy_from_host("set()")
        self.numbers[...] = host


def index(key):
    """A key as a tuple; host arrays and lists in it are an error."""
    key = key if isinstance(key, tuple) else (key,)
    for k in key:
        if isinstance(k, (list, np.ndarray)):
            raise TypeError(f"an index is a {type(k).__name__} of the host; use xp.asarray")
    return key


def refuse_host(value):
    """What is written to an array is an Array or one number."""
    if isinstance(value, (list, tuple)) or isinstance(value, np.ndarray) and value.ndim > 0:
        raise TypeError(f"Unsupported type {type(value)}: only an array of the GPU or a number can "
                        "be written into one")


def same_memory(a, b):
    return (a.ctypes.data, a.shape, a.strides, a.dtype) == (
        b.ctypes.data, b.shape, b.strides, b.dtype)


def give_methods():
    """The methods that NumPy has as functions, and those for which the host waits."""
    def of_function(name, function):
        def method(self, *args, **kwargs):
            return compute(self.stream, name, function, (self, *args), kwargs)
        return method

    def waiting(name):
        def method(self, *args):
            self.stream.synchronize(f"{name}()")
            return getattr(self.numbers, name)(*args)
        return method

    for name in ("sum", "prod", "mean", "var", "std", "min", "max", "argmin", "argmax", "all",
                 "any", "dot", "clip", "round", "cumsum", "cumprod", "argsort", "take", "repeat",
                 "swapaxes", "squeeze", "ravel", "diagonal", "trace", "nonzero"):
        setattr(Array, name, of_function(name, getattr(np, name)))
    for name in ("item", "tolist", "tobytes", "__bool__", "__int__", "__float__", "__complex__",
                 "__index__", "__repr__", "__str__", "__format__"):
        setattr(Array, name, waiting(name))


give_methods()


# --- the module ----------------------------------------------------------------------------------

class Xp:
    """What ``import cupy`` would give: its own ways to make arrays, the rest from NumPy."""

    ndarray = Array

    def __init__(self, stream):
        self.stream = stream

    def array(self, a, dtype=None, copy=True, order="K", ndmin=0):
        """An Array from anything; from the host's memory it is a copy."""
        if isinstance(a, Array):
            same = dtype is None or a.dtype == dtype
            return a if same and not copy else compute(
                self.stream, "copy" if same else "astype",
                lambda x: np.array(x, dtype, order=order, ndmin=ndmin), (a,))
        if any(True for _ in arrays_in(a)):
            return compute(self.stream, "stack", lambda *each: np.array(each, dtype), tuple(a))
        numbers = np.array(a, dtype, order=order, ndmin=ndmin)
        if numbers.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {numbers.dtype}")
        if numbers.ndim == 0:                          # a number goes along with the launch
            return compute(self.stream, "fill", np.full, ((), numbers.item(), numbers.dtype))
        self.stream.copy_from_host("array()")
        return Array(numbers, self.stream)

    def asarray(self, a, dtype=None, order=None):
        return self.array(a, dtype, copy=False, order=order or "K")

    asanyarray = asarray

    def ascontiguousarray(self, a, dtype=None):
        if isinstance(a, Array) and a.flags.c_contiguous and dtype in (None, a.dtype):
            return a
        return self.array(a, dtype, order="C")

    def asnumpy(self, a, stream=None, order="C", out=None):
        """A copy on the host."""
        return a.get() if isinstance(a, Array) else np.asarray(a, order=order)

    def __getattr__(self, name):
        if name in MISSING or name.startswith("__"):
            raise AttributeError(f"module 'cupy' has no attribute {name!r} (as far as this "
                                 "stand-in goes)")
        found = getattr(np, name)
        if callable(found) and not isinstance(found, type):
            found = Function(self.stream, name, found)
        setattr(self, name, found)
        return found


class Function:
    """A function or ufunc of NumPy, whose results are Arrays."""

    def __init__(self, stream, name, function):
        self.stream, self.__name__, self.function = stream, name, function

    def __call__(self, *args, **kwargs):
        if isinstance(self.function, np.ufunc) and len(args) > self.function.nin:
            args, kwargs["out"] = args[:self.function.nin], args[self.function.nin]
        return compute(self.stream, self.__name__, self.function, args, kwargs)

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


def make_xp(stream):
    """The stand-in for CuPy whose work goes to this stream."""
    return Xp(stream)
