"""An op: one class with its formula, forward pass and backward pass, in that order.

    class Divide(Op, numpy=np.divide):
        "y = a / b"

        def formula(a, b):
            return a / b

        def backward_a(dy, b):
            return dy / b

        def backward_b(dy, b, y):
            return -dy * y / b

``formula`` is NumPy code, over arrays or tensors. Its positional parameters are the inputs, the
keyword-only ones are options. ``forward`` is how the value is computed; left out, it is the
formula. ``backward_a`` is the derivative rule for input ``a``, called only if that gradient is
wanted. Its parameter names say what it needs, and only that is saved: ``dy``, an input, the output
``y``, an option, ``a_shape``, or an extra that ``forward`` returned beside y (named in ``extras``);
``out`` is an array that the gradient may be computed into, or None; ``onto`` one that it may be
added onto and that is then returned, or None.
``expects`` says which inputs fit, for the error that others get.

Rules are written in NumPy too, so that they work on tensors and can be differentiated again. An op
with kernels of its own derives from :class:`Fused`: its ``backward`` computes all gradients at once
on arrays, and derivatives of higher order come from its formula.

Numbers: an op has one precision, float32 or float64, in which all its real inputs are. Of integers
and bools alone it gives integers where NumPy does (sums, comparisons, indices), computed as NumPy
does; where NumPy would go over to reals, it is computed in float64 and given in float32, the
default. Layers and losses (``real``) refuse integers, but for their ``integers`` (labels). What has
another byte order is brought into the machine's; other dtypes are refused.

Ops are classes that are never instantiated: their functions take no ``self``.
Broadcasting, accumulation, dtype and shape checks are the engine's; no op mentions them.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..context import observer, recorder, recording
from ..engine.backend import backend
from ..engine.backward import Node, check_unchanged, run_backward
from ..engine.in_place import share
from ..engine.memory import ARRAYS, ON_HOST, array_module
from ..engine.recorded import in_step
from ..engine.tensor import FLOATS, NUMPY_FUNCTIONS, Tensor
from ..engine.types import TensorLike
from ..errors import UserError
from .inputs import (
    FAULTS,
    PLAIN,
    as_input,
    in_default,
    kind_of,
    mixed_precision,
    unfit,
    wrong_dtype,
)

F = TypeVar("F", bound=Callable[..., Any])
OPS = {}                              # public name -> op; filled as the classes are defined


class Op:
    """Base of all ops; see the module's docstring."""

    extras = ()                       # further results of forward
    expects = "an input of real numbers"
    optional = ()                     # inputs that may be None
    real = False                      # whether it has kernels, which need floating point
    integers = ()                     # inputs of such an op that are integers

    def __init_subclass__(cls, numpy=None, abstract=False):
        if abstract:
            return
        cls.name = snake_case(cls.__name__)
        parameters = inspect.signature(cls.formula).parameters.values()
        cls.inputs = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        cls.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if cls.forward is None:
            cls.forward = cls.formula
        cls.rules = [named(getattr(cls, f"backward_{name}", None)) for name in cls.inputs]
        cls.joint = named(getattr(cls, "backward", None))
        cls.position, cls.needs = {name: i for i, name in enumerate(cls.inputs)}, {}
        OPS[cls.name] = cls
        if numpy is not None:
            NUMPY_FUNCTIONS[numpy] = cls.apply

    formula = forward = None

    @classmethod
    def apply(cls, *inputs: TensorLike | None, **options: Any) -> Tensor:
        """Compute y and, if a gradient flows to an input, record the call."""
        arrays, parents, precision, given, whole = [], [], None, False, False
        for x in inputs:
            if isinstance(x, Tensor):
                array, parent = x.data if recorder.get() is None else in_step(x.data), x.node
            else:
                array, parent = x if type(x) in PLAIN else as_input(cls, x), None
                given = given or array is x and type(x) in ARRAYS
            arrays.append(array)
            parents.append(parent)
            dtype = getattr(array, "dtype", precision)
            if dtype is not precision:
                if dtype.kind == "f":
                    if precision is not None and dtype != precision:
                        raise mixed_precision(cls, arrays)
                    precision = dtype
                whole = whole or dtype.kind != "f"
                if dtype not in FLOATS and dtype.kind not in "iub":
                    raise wrong_dtype(cls, dtype)
        if cls.real and (whole or precision is None):
            cls.refuse_integers(arrays)
        if given and recording.get():
            cls.copy_given(inputs, arrays, parents)
        result = cls.computed(arrays, options) if precision else cls.of_integers(arrays, options)
        y, extras = (result[0], result[1:]) if cls.extras else (result, ())
        y = y if type(y) in ARRAYS else np.asarray(y)
        if y.dtype != precision and precision is not None and y.dtype.kind == "f":
            raise mixed_precision(cls, arrays)         # an integer array widened it
        y = cls.not_given(inputs, arrays, y) if given else y
        result = Tensor(y)
        for x, array in zip(inputs, arrays, strict=True):
            if (y is array or y.base is not None and shares(y, array)) and isinstance(x, Tensor):
                share(x, result, options.get("index"))
        if recording.get():
            wanted = tuple(parent is not None for parent in parents)
            if True in wanted:
                result.node = cls.record(inputs, arrays, parents, wanted, options, extras, y)
                if "y" in result.node.values:
                    result.node.guards["y"] = result.changes, result.changes[0]
        return result

    @classmethod
    def refuse_integers(cls, arrays):
        """TypeError if a layer or loss is given integers where it takes real numbers."""
        for i, a in enumerate(arrays):
            name = cls.inputs[i] if i < len(cls.inputs) else cls.inputs[-1]
            if type(a) in ARRAYS and a.dtype.kind in "iub" and name not in cls.integers:
                raise TypeError(
                    f"{cls.name}: {name} is of {a.dtype}; expected {cls.expects}, in float32 or "
                    f"float64: convert with {name}.astype(np.float32), and scale it if it is an "
                    "image of grey values")
        if not any(type(a) in ARRAYS for a in arrays):
            raise wrong_dtype(cls, "numbers")

    @classmethod
    def of_integers(cls, arrays, options):
        """The result of ``forward`` for integers, bools and Python numbers only.

        Whether that is a matter of integers is seen from the result. If not, it is computed again
        in float64: a formula may have wrapped around in between (0 - x of uint8).
        """
        def real(a):
            return a.astype(np.float64) if type(a) in ARRAYS and a.dtype.kind in "iub" else a
        try:
            with np.errstate(all="ignore"):
                result = cls.computed(arrays, options)
            if kind_of(result) != "f":
                return result
        except TypeError:                              # bools have no − and no negative
            if issubclass(cls, Ufunc) or not any(
                    type(a) in ARRAYS and a.dtype == bool for a in arrays):
                raise
        result = cls.computed([real(a) for a in arrays], options)
        return in_default(result)

    @staticmethod
    def not_given(inputs, arrays, y):
        """y, copied if it shares memory with an array of the caller, who may overwrite it."""
        given = [x for x, array in zip(inputs, arrays, strict=True)
                 if array is x and type(x) in ARRAYS]
        return y.copy() if any(shares(y, x) for x in given) else y

    @classmethod
    def copy_given(cls, inputs, arrays, parents):
        """Copy the caller's own arrays that the backward pass will need, for he may use their
        memory again before it."""
        wanted = tuple(parent is not None for parent in parents)
        if True not in wanted or cls.variadic:
            return
        needed = cls.inputs if cls.extras or issubclass(cls, Fused) else cls.needed(wanted)
        for name, x in zip(cls.inputs, inputs, strict=False):
            i = cls.position[name]
            if name in needed and arrays[i] is x and type(x) in ARRAYS:
                arrays[i] = x.copy()

    @classmethod
    def computed(cls, arrays, options):
        """The result of ``forward``; an error for inputs that it cannot compute with."""
        try:
            return cls.forward(*arrays, **options)
        except UserError:                              # it is explained already
            raise
        except FAULTS as error:
            raise unfit(cls, arrays, options, error) from error

    @classmethod
    def record(cls, inputs, arrays, parents, wanted, options, extras, y):
        """The node, with the values that the needed rules use."""
        shapes = [a.shape if type(a) in ARRAYS else np.shape(a) for a in arrays]
        values, guards = {}, {}
        for name in cls.needed(wanted):
            i = cls.position.get(name)
            if i is not None:
                values[name] = arrays[i]
                if isinstance(inputs[i], Tensor):
                    guards[name] = inputs[i].changes, inputs[i].changes[0]
            elif name in options:
                values[name] = options[name]
            elif name == "y":
                values["y"] = y
            elif name == "shapes":
                values["shapes"] = shapes
            elif name in cls.extras:
                values[name] = extras[cls.extras.index(name)]
            else:
                values[name] = shapes[cls.position[name.removesuffix("_shape")]]
        node = Node(cls, parents, values, guards, y, shapes)
        if observer.get() is not None:
            observer.get()(node, arrays, options, y)
        return node

    @classmethod
    def needed(cls, wanted):
        """The parameters of the rules of the needed inputs, cached per combination."""
        if wanted not in cls.needs:
            rules = {"all": cls.joint} if cls.joint else {
                name: rule for name, rule, want in zip(cls.inputs, cls.rules, wanted, strict=True)
                if want}
            missing = [name for name, rule in rules.items() if not rule]
            if missing:
                raise TypeError(f"{cls.name} has no derivative for {', '.join(missing)}; give a "
                                "constant there: x.detach()")
            named_in_rules = {name for rule in rules.values() for name in rule[1]}
            cls.needs[wanted] = sorted(named_in_rules - GIVEN)
        return cls.needs[wanted]

    @classmethod
    def pull_back(cls, node, dy, needs, places):
        """Gradients for the inputs, on arrays."""
        out, onto = places or ([None] * len(needs),) * 2
        if cls.joint:
            rule, names = cls.joint
            given = {**node.values, "dy": dy, "wanted": needs, "out": out, "onto": onto}
            return rule(*[given[name] for name in names])
        given, gradients = {**node.values, "dy": dy}, []
        for rule, need, here, there in zip(cls.rules, needs, out, onto, strict=True):
            given["out"], given["onto"] = here, there
            gradients.append(rule[0](*[given[name] for name in rule[1]]) if need else None)
        return gradients

    @classmethod
    def pull_back_recorded(cls, node, dy, needs, places):
        """The same rules on tensors, which records them."""
        values = dict(node.values)
        for name, parent in [*zip(cls.inputs, node.parents, strict=False), ("y", node)]:
            if name in values and parent is not None:
                values[name] = Tensor(values[name], parent)
                values[name].changes = node.guards[name][0]
        recorded = Node.__new__(Node)
        recorded.values = values
        return cls.pull_back(recorded, dy, needs, places)


class Elementwise(Op, abstract=True):
    """An op whose formula and rules act on each element alone.

    On the compiled backends the formula itself is the kernel: one pass over memory, no temporaries.
    """

    def __init_subclass__(cls, numpy=None, abstract=False):
        super().__init_subclass__(numpy=numpy, abstract=abstract)
        if not abstract:
            cls.forward = cls.kernel(cls.forward)
            # A rule that returns dy unchanged needs no kernel on the CPU.
            cls.rules = [rule and ((cuda_kernel if rule[1] == ("dy",) else cls.kernel)(rule[0]),
                                   rule[1]) for rule in cls.rules]

    @staticmethod
    def kernel(function):
        """The function as it is computed on each backend."""
        return elementwise_kernel(function)


class Ufunc(Elementwise, abstract=True):
    """An elementwise op that is one NumPy ufunc, which needs a single pass on the CPU."""

    @staticmethod
    def kernel(function):
        return cuda_kernel(function)


class Series(Ufunc, abstract=True):
    """A ufunc of which NumPy's last bits differ between processors: the formula is compiled."""

    @staticmethod
    def kernel(function):
        return elementwise_kernel(function)


class Fused(Op, abstract=True):
    """Several steps as one node, with kernels; its formula says what they must equal.

    ``backward(wanted, dy, …)`` returns one gradient an input (anything where ``wanted`` is False),
    on arrays; ``out`` and ``onto`` there are one array or None an input. With create_graph the
    formula is evaluated on tensors and differentiated instead.
    """

    @classmethod
    def record(cls, inputs, arrays, parents, wanted, options, extras, y):
        node = super().record(inputs, arrays, parents, wanted, options, extras, y)
        node.values["formula"] = (arrays, options, {
            i: (x.changes, x.changes[0]) for i, x in enumerate(inputs) if isinstance(x, Tensor)})
        return node

    @classmethod
    def pull_back_recorded(cls, node, dy, needs, places):
        arrays, options, guards = node.values["formula"]
        check_unchanged(cls, guards)
        # Fresh tensors stand for the inputs, so that the inner graph ends exactly there; each is
        # tied to its parent by an identity, through which later derivatives flow.
        inputs = list(arrays)
        for i, parent in enumerate(node.parents):
            if parent is not None:
                inputs[i] = Tensor(arrays[i], parent)
                inputs[i].changes = guards[i][0]
                inputs[i] = OPS["identity"].apply(inputs[i])
        y = cls.formula(*inputs, **options)
        wanted = [x.node for x, need in zip(inputs, needs, strict=True) if need]
        found = iter(run_backward([y.node], [dy], create_graph=True, wanted=wanted))
        return [next(found) if need else None for need in needs]


def elementwise_kernel(function):
    """The function: compiled into one pass where the backend compiles, unchanged elsewhere."""
    on_gpu, compiled = cuda_kernel(function), None

    def evaluate(*args, **options):
        nonlocal compiled
        where = backend()
        if where == "cuda":
            return on_gpu(*args, **options)
        if where == "numpy" or any(isinstance(a, Tensor) for a in args):
            with np.errstate(over="ignore"):          # e⁻ˣ may: the formulas divide by it
                return function(*args, **options)
        dtypes = [a.dtype for a in args if type(a) in ARRAYS and a.dtype in FLOATS]
        if not dtypes:                                 # integers and numbers: as in NumPy
            return function(*args, **options)
        if compiled is None:
            from ..kernels.vector_math import compile_formula
            compiled = compile_formula(function)
        with np.errstate(over="ignore", invalid="ignore"):             # a NaN is compared
            return compiled[dtypes[0]](*args, *options.values())

    evaluate.__wrapped__, evaluate.__doc__ = function, function.__doc__
    return evaluate


def cuda_kernel(function):
    """The function: one kernel for arrays on a GPU, unchanged otherwise."""
    compiled = None

    def evaluate(*args, **options):
        nonlocal compiled
        if backend() != "cuda":
            return function(*args, **options)
        on_gpu = [type(a) in ARRAYS and type(a) is not np.ndarray and a.dtype in FLOATS
                  for a in args]
        if not any(on_gpu) or any(isinstance(a, Tensor) for a in args):
            return function(*args, **options)
        if compiled is None:
            from ..kernels.elementwise import Formula
            compiled = Formula(function)
        return compiled(*args, *options.values())

    evaluate.__wrapped__, evaluate.__doc__ = function, function.__doc__
    return evaluate


def shares(y, array):
    """Whether two arrays may share memory."""
    if type(y) in ON_HOST and type(array) in ON_HOST:
        return np.may_share_memory(y, array)
    return type(y) is type(array) and array_module().may_share_memory(y, array)


def implements(numpy_function: Callable[..., Any]) -> Callable[[F], F]:
    """Decorator: a call of NumPy's function with a tensor calls this function."""
    def register(function: F) -> F:
        NUMPY_FUNCTIONS[numpy_function] = function
        return function
    return register


def named(rule):
    """A rule with the names of its parameters, or None."""
    return rule and (rule, tuple(inspect.signature(rule).parameters))


GIVEN = {"dy", "wanted", "out", "onto"}            # to the rules, by the backward pass


def snake_case(name):
    """``ConvTranspose2d`` -> ``conv_transpose2d``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
