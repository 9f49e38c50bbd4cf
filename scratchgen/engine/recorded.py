"""Records the computations of a training step on the CPU, so that they can be repeated.

While a step is recorded, it runs as usual, on arrays of the class ``Recorded``. Every computation
with such an array (a kernel, a function or operator of NumPy) is executed and also added to a list,
together with the arrays that it reads and writes. Repeating the calls of that list repeats the
step: the same functions write the same results into the same arrays. There is no tape, no check and
no allocation, because all of that happened when the list was made.

The list is not valid if the step's Python code depends on values: if it reads an element, compares
two numbers, or copies an array to one of NumPy. Such an array class notices: it is no subclass of
``np.ndarray``, so NumPy must ask it for the values (``__array__``). The recording then keeps the
reason in ``refused``, and the step is run without recording from then on.

Memory: arrays of a step lie in blocks of an arena. A block is used again within the recording as
soon as no array refers to it. The list of calls contains the addresses only, and is executed in the
same order, so that the repeated step needs no more memory than the step itself.
"""

import bisect
import functools
import operator
import weakref

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..context import recorder

ALIGNMENT = 64                        # bytes: a cache line
WASTE = 2                             # a block may be so many times larger than the array in it

# What the functions say of an array does not depend on its values.
OF_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.may_share_memory,
             np.shares_memory, np.iscomplexobj, np.isrealobj, np.einsum_path}
# The shape of their results depends on values.
OF_UNKNOWN_SHAPE = {np.unique, np.nonzero, np.flatnonzero, np.argwhere, np.extract, np.compress,
                    np.trim_zeros, np.ndarray.nonzero, np.ndarray.compress, np.bincount}
READING = {np.ndarray.item, np.ndarray.tolist, np.ndarray.tobytes, np.ndarray.tofile}
WITH_OUT = {np.sum, np.mean, np.max, np.min, np.prod, np.take, np.concatenate, np.stack, np.cumsum,
            np.argmax, np.argmin, np.ndarray.sum, np.ndarray.mean, np.ndarray.max, np.ndarray.min,
            np.ndarray.argmax, np.ndarray.argmin, np.ndarray.take, np.ndarray.cumsum}

# id of an array → its owner, for arrays whose owner counts the references to it (``Pack.grads``).
# A list of calls refers to such an array by its address, and keeps the owner alive.
owners = weakref.WeakValueDictionary()


class Recorded(NDArrayOperatorsMixin):
    """An array of a step that is being recorded: ``array``, in a block of ``memory`` or outside.

    It has the methods and operators of NumPy's arrays.
    """

    __slots__ = ("array", "memory", "__weakref__")
    __hash__ = None

    def __init__(self, array, memory=None):
        self.array, self.memory = array, memory

    # --- what does not depend on values ---

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    nbytes = property(lambda self: self.array.nbytes)
    itemsize = property(lambda self: self.array.itemsize)
    strides = property(lambda self: self.array.strides)
    flags = property(lambda self: self.array.flags)
    base = property(lambda self: self.array.base)
    T = property(lambda self: Recorded(self.array.T, self.memory))

    def __len__(self):
        return len(self.array)

    # --- computations ---

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if any(type(x) is not Recorded and handles_ufuncs(x) for x in inputs):
            return NotImplemented                      # the tensor's method is called next
        return apply(ufunc if method == "__call__" else getattr(ufunc, method), inputs, options)

    def __array_function__(self, function, types, args, options):
        if not all(issubclass(t, (np.ndarray, Recorded)) for t in types):
            return NotImplemented
        return apply(function, args, options)

    def __getattr__(self, name):
        method = getattr(np.ndarray, name)
        if not callable(method):
            raise AttributeError(f"a recorded array has no attribute {name!r}")
        return functools.partial(apply_method, method, self)

    def __getitem__(self, index):
        return apply(operator.getitem, (self, index), {})

    def __setitem__(self, index, value):
        apply(operator.setitem, (self, index, value), {})

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # --- reading of values ---

    def __array__(self, dtype=None, copy=None):
        refuse("it copies an array to one of NumPy, or calls a function that does")
        return np.array(self.array, dtype)

    def __bool__(self):
        refuse("its Python code depends on whether a computed number is 0")
        return bool(self.array)

    def __int__(self):
        refuse("it reads a computed number")
        return int(self.array)

    def __float__(self):
        refuse("it reads a computed number")
        return float(self.array)

    def __index__(self):
        refuse("it reads a computed number")
        return operator.index(self.array)

    def __repr__(self):
        refuse("it prints a computed array")
        return repr(self.array)


def handles_ufuncs(x):
    """Whether x has its own ``__array_ufunc__``, as tensors have."""
    method = getattr(type(x), "__array_ufunc__", np.ndarray.__array_ufunc__)
    return method is not np.ndarray.__array_ufunc__ and not isinstance(x, np.generic)


def apply_method(method, array, *args, **options):
    """A method of NumPy's arrays, of a recorded one."""
    return apply(method, (array, *args), options)


def apply(function, args, options):
    """function(*args, **options) with recorded arrays among the arguments."""
    recording = recorder.get()
    if type(recording) is not Recording:               # an array that has outlived its recording
        return function(*plain(args), **plain(options))
    return recording.apply(function, args, options)


def in_step(array):
    """An array from outside, for a computation of the step that is being recorded, if one is."""
    if type(array) is np.ndarray and type(recorder.get()) is Recording:
        return Recorded(array)
    return array


def refuse(reason):
    """Mark the present recording on the CPU, if any, as one that cannot be repeated."""
    if type(recording := recorder.get()) is Recording:
        recording.refuse(reason)


def plain(x):
    """x with NumPy's arrays for the recorded ones, also inside of lists, tuples, dicts, slices."""
    return mapped(x, lambda array: array.array)


def mapped(x, change):
    """x with change(a) for each recorded array a, also inside of lists, tuples, dicts, slices."""
    kind = type(x)
    if kind is Recorded:
        return change(x)
    if kind is list or kind is tuple:
        return kind(mapped(part, change) for part in x)
    if kind is dict:
        return {name: mapped(part, change) for name, part in x.items()}
    if kind is slice:
        return slice(mapped(x.start, change), mapped(x.stop, change), mapped(x.step, change))
    return x


# --- the memory of a step ------------------------------------------------------------------------

class Arena:
    """Blocks of memory for the arrays of recorded steps."""

    def __init__(self):
        self.free, self.bytes = [], 0                  # [(size, number, block)], in this order

    def block(self, size):
        """A ``Memory`` of at least so many bytes."""
        size = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
        i = bisect.bisect_left(self.free, (size,))
        if i < len(self.free) and self.free[i][0] <= WASTE * size:
            return Memory(self, self.free.pop(i))
        self.bytes += size
        array = np.empty(size + ALIGNMENT, np.uint8)
        first = -array.ctypes.data % ALIGNMENT
        return Memory(self, (size, self.bytes, array[first:first + size]))

    def release(self, entry):
        bisect.insort(self.free, entry, key=operator.itemgetter(0, 1))


class Memory:
    """A block while an array refers to it; afterwards the arena has it back."""

    __slots__ = ("arena", "entry")

    def __init__(self, arena, entry):
        self.arena, self.entry = arena, entry

    def array(self, shape, dtype, strides=None):
        """The first bytes of the block as an array."""
        return np.ndarray(shape, dtype, self.entry[2], strides=strides)

    def __del__(self):
        self.arena.release(self.entry)


# --- the list of calls ---------------------------------------------------------------------------

class Recording:
    """The calls of one step."""

    def __init__(self, arena, step, inputs):
        self.arena, self.calls, self.refused = arena, [], None
        self.outside, self.owned = {}, {}              # id → array, id → (owner, weak reference)
        self.clocks, self.checked, self.conditions = {}, False, []
        self.inputs = [np.array(x) if hasattr(x, "shape") else x for x in inputs]
        recorder.set(self)
        try:
            self.kept, self.made = [], []              # memory of results, lasting arrays
            self.results = self.finished(step(*map(in_step, self.inputs)))
        finally:
            recorder.set(None)
        for clock in self.clocks.values():
            clock.moves = clock.now() - clock.start

    # --- while the step is recorded ---

    def lasting_copy(self, x):
        """A copy that other code may keep, as an array of NumPy; each replay writes to it."""
        copy = np.empty(x.shape, x.dtype)
        Recorded(copy)[...] = x
        self.made.append(copy)
        return copy

    def slot(self, owner, attribute, value, dtype):
        """The number value(owner.attribute), which is different in every step."""
        clock = self.clocks.setdefault((id(owner), attribute), Clock(owner, attribute))
        return Varying(owner, attribute, value, dtype, clock.now() - clock.start)

    def empty(self, shape, dtype, strides=None):
        """An uninitialised array."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        memory = self.arena.block(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        return Recorded(memory.array(shape, dtype, strides), memory)

    def refuse(self, reason):
        """Note why the step cannot be repeated; it goes on as usual."""
        self.refused = self.refused or reason

    def bind(self, kernel):
        """The kernel: executed and recorded."""
        def recorded_kernel(*args):
            kernel(*[current(x) for x in args])
            self.add(kernel, args, {})
        return recorded_kernel

    def check(self, check, array):
        """check(array), which may raise an error: now, and in each replay."""
        check(array.array)
        self.add(check, (array,), {})

    def add(self, function, args, options):
        """Record a call whose results are among its arguments."""
        if any(type(x) is Varying for x in args):
            self.calls.append(VaryingCall(function, [
                x if type(x) is Varying else self.fixed(x) for x in args]))
            return
        self.calls.append(functools.partial(
            function, *map(self.fixed, args), **{k: self.fixed(v) for k, v in options.items()}))

    def fixed(self, x):
        """An argument as the list of calls refers to it."""
        kind = type(x)
        if kind is Recorded:
            # A view, for the step may make the array read-only after this call.
            return x.array.view() if x.memory is not None else self.fixed(x.array)
        if kind is np.ndarray:
            return self.known(x)
        if kind in (list, tuple):
            return kind(map(self.fixed, x))
        if kind is dict:
            return {name: self.fixed(part) for name, part in x.items()}
        return mapped(x, self.fixed)

    def known(self, array):
        """An array from outside the step, as the list of calls refers to it."""
        root = array
        while type(root.base) is np.ndarray:
            root = root.base
        if (owner := owners.get(id(root))) is None:
            self.outside[id(root)] = root
            return array
        self.owned[id(root)] = owner, weakref.ref(root)
        return by_address(array)

    def apply(self, function, args, options):
        """A function of NumPy: executed and recorded."""
        values, named = plain(args), plain(options)
        if function in OF_SHAPES:
            return function(*values, **named)
        if function in READING:
            self.refuse("it reads computed numbers")
        if function in OF_UNKNOWN_SHAPE or function is operator.getitem and selects(args[1]):
            self.refuse("the shape of an array depends on computed numbers")
        result = function(*values, **named)
        if result is None or options.get("out") is not None:
            self.add(function, args, options)
            out = options.get("out")
            return out[0] if type(out) is tuple and len(out) == 1 else out
        given = [x for x in flat((args, options)) if type(x) is Recorded]
        if isinstance(result, (np.ndarray, np.generic)):
            y, fresh = self.result(result, given, args, function)
            if fresh and function is not np.empty_like:
                self.add_fresh(function, args, options, y)
            return y
        if type(result) in (list, tuple) and all(isinstance(r, np.ndarray) for r in result):
            return self.results_of(function, args, options, result, given)
        self.refuse("it reads computed numbers")
        return result

    def result(self, array, given, args, function):
        """(The recorded array for a result, whether it is new or a view of an argument)."""
        if isinstance(array, np.generic) and function is operator.getitem:
            index = args[1] if type(args[1]) is tuple else (args[1],)
            if all(isinstance(i, (int, np.integer)) for i in index):       # one element: a view
                return Recorded(args[0].array[(*index, ...)], args[0].memory), False
        array = np.asarray(array)
        for x in given:
            if np.may_share_memory(array, x.array):
                return Recorded(array, x.memory), False
        dense = array.size and array.nbytes == array.itemsize + sum(
            (n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
        y = self.empty(array.shape, array.dtype, array.strides if dense else None)
        y.array[...] = array
        return y, True

    def add_fresh(self, function, args, options, y):
        """Record a call whose new result is written to y."""
        if hasattr(function, "nout") or function in WITH_OUT:        # a ufunc, NumPy's or Numba's
            self.add(function, args, {**options, "out": y})
        elif function in (np.ndarray.copy, np.ndarray.astype):
            self.add(np.copyto, (y, args[0]), {"casting": "unsafe"})
        else:
            self.add(store, (y, function, args, options), {})

    def results_of(self, function, args, options, results, given):
        """The recorded arrays for a list or tuple of results."""
        found = [self.result(array, given, args, function) for array in results]
        if any(fresh for _, fresh in found):
            self.add(store_all, ([y if fresh else None for y, fresh in found], function, args,
                                 options), {})
        return type(results)(y for y, _ in found)

    def finished(self, results):
        """The step's results with NumPy's arrays, whose memory remains theirs."""
        kind = type(results)
        if kind is Recorded:
            self.kept.append(results.memory)
            return results.array
        if kind in (list, tuple):
            return kind(map(self.finished, results))
        if kind is dict:
            return {name: self.finished(part) for name, part in results.items()}
        if type(getattr(results, "data", None)) is Recorded:           # a tensor
            constant = results.detach()
            constant.data = self.finished(results.data)
            return constant
        return results

    # --- when it is repeated ---

    def valid(self):
        """Whether the arrays that are known by their addresses still exist, and the networks are
        made of the same layers."""
        return all(condition() for condition in self.conditions) and all(
            reference() is owner.counted_array() for owner, reference in self.owned.values())

    def replay(self, inputs):
        """Repeat the step on these inputs; its results lie where they always do."""
        for x, given in zip(self.inputs, inputs, strict=True):
            if type(x) is np.ndarray:
                x[...] = given
        with np.errstate(all="ignore"):
            for call in self.calls:
                call()
        for clock in self.clocks.values():
            clock.set(clock.now() + clock.moves)
        return self.results

    def state(self):
        """The arrays that existed before the step, and that its calls may write to."""
        own = {id(x) for x in (*self.inputs, *self.made)}
        arrays = [*self.outside.values(), *(o.counted_array() for o, _ in self.owned.values())]
        return [a for a in arrays if a.flags.writeable and id(a) not in own]

    def copy_state(self):
        """Copies of these arrays."""
        return [array.copy() for array in self.state()]

    def restore_state(self, copies):
        """The values of ``copies`` in these arrays again."""
        for array, values in zip(self.state(), copies, strict=True):
            array[...] = values


class Clock:
    """An int attribute that a step increases: its value at the step's start, and the increase."""

    def __init__(self, owner, attribute):
        self.owner, self.attribute = owner, attribute
        self.start, self.moves = self.now(), 0

    def now(self):
        return getattr(self.owner, self.attribute)

    def set(self, value):
        setattr(self.owner, self.attribute, value % 2**64)

    def at(self, steps):
        """Its value after so many steps."""
        return (self.start + steps * self.moves) % 2**64


class Varying:
    """A number, or a row of numbers, that differs in every step: value(owner.attribute).

    ``offset``: how much the attribute has grown in the step before the number is used; ``now``: its
    value while the step is recorded.
    """

    __slots__ = ("owner", "attribute", "value", "dtype", "offset", "now")

    def __init__(self, owner, attribute, value, dtype, offset):
        self.owner, self.attribute, self.value = owner, attribute, value
        self.dtype, self.offset = dtype, offset
        self.now = self.at(getattr(owner, attribute))

    def at(self, count):
        return np.asarray(self.value(count), self.dtype)[()]

    def next(self):
        """Its value in a step that begins now."""
        return self.at((getattr(self.owner, self.attribute) + self.offset) % 2**64)


class VaryingCall:
    """A call with ``Varying`` arguments."""

    __slots__ = ("function", "args", "places")

    def __init__(self, function, args):
        self.function, self.args = function, args
        self.places = [(i, x) for i, x in enumerate(args) if type(x) is Varying]

    def __call__(self):
        args = self.args.copy()
        for i, x in self.places:
            args[i] = x.next()
        self.function(*args)


def current(x):
    """An argument of a kernel with its present value."""
    kind = type(x)
    return x.array if kind is Recorded else x.now if kind is Varying else x


def store(y, function, args, options):
    """y[...] = function(*args, **options)"""
    y[...] = function(*args, **options)


def store_all(places, function, args, options):
    """Copy the results into the arrays of ``places`` (None: the result is a view)."""
    for y, result in zip(places, function(*args, **options), strict=True):
        if y is not None:
            y[...] = result


def by_address(array):
    """The same numbers as an array that does not refer to the object ``array``."""
    import ctypes
    low, high = np.lib.array_utils.byte_bounds(array)
    memory = (ctypes.c_char * (high - low)).from_address(low)
    return np.ndarray(array.shape, array.dtype, memory, array.ctypes.data - low, array.strides)


def selects(index):
    """Whether an index contains recorded truth values, which select a number of elements."""
    return any(type(part) is Recorded and part.dtype == bool
               for part in (index if type(index) is tuple else (index,)))


def flat(x):
    """The parts of lists, tuples and dicts, one after another."""
    if type(x) in (list, tuple):
        for part in x:
            yield from flat(part)
    elif type(x) is dict:
        yield from flat(list(x.values()))
    else:
        yield x
