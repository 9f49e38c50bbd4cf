"""Every public function × every kind of number and odd array: the right value, or one sentence.

Integers give what NumPy gives for integers, or, where NumPy goes over to reals, the value of
float64 in float32: nothing wraps around on the way. The arrays of a caller, and the gradients that
the engine makes itself, may be read-only, broadcast, in any order or with gaps.
"""

import fractions
import functools
import inspect
import math

import numpy as np
import pytest
from test_ops import CONSTANT, ROWS, differentiable, function

import scratchgen as sg
from scratchgen import nn
from scratchgen.engine.tensor import FLOATS
from scratchgen.ops.op import OPS, Op

SMALL = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.bool_)
LABELS = {"cross_entropy": [1]}       # inputs that are whole numbers by what they mean


def whole(x, dtype):
    """Small whole numbers of the shape of x: 0, 1, 2, 3, for bools 0 and 1."""
    return (np.arange(x.size).reshape(x.shape) * 7 % (2 if dtype is np.bool_ else 4)).astype(dtype)


def reals(inputs):
    return [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]


def one_sentence(error):
    assert "\n" not in str(error) and len(str(error)) < 500, error
    assert isinstance(error, (TypeError, ValueError, IndexError)), repr(error)


# --- integers ------------------------------------------------------------------------------------

@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@pytest.mark.parametrize("name, inputs, options", ROWS)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_ops_of_integers(name, inputs, options, backend_name):
    """All real inputs replaced by small integers of one dtype."""
    of = reals(inputs)
    with sg.use_backend(backend_name):
        for dtype in SMALL:
            given = [whole(x, dtype) if i in of else x for i, x in enumerate(inputs)]
            try:
                found = OPS[name].apply(*given, **options)
            except (TypeError, ValueError) as error:
                one_sentence(error)
                bools = dtype is np.bool_ and "bool" in str(error)         # NumPy's word
                assert OPS[name].real or bools or name == "pow", (name, dtype, error)
                continue
            assert not OPS[name].real or not of
            exact = [x.astype(np.float64) if i in of else x for i, x in enumerate(given)]
            expected = np.asarray(OPS[name].formula(*exact, **options))
            if found.dtype.kind == "f":
                assert found.dtype == np.float32
                np.testing.assert_allclose(found.data, expected.astype(np.float32), rtol=1e-6)
            elif dtype in (np.int16, np.int32, np.int64):                  # these do not wrap here
                finite = np.isfinite(expected)         # what NumPy gives for x % 0 of integers
                np.testing.assert_array_equal(found.data[finite], expected[finite])


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", SMALL)
def test_values_that_wrapped_around(dtype, backend_name):
    x = np.array([0, 1, 1] if dtype is np.bool_ else [0, 3, 100], dtype)
    z = x.astype(np.float64)
    with sg.use_backend(backend_name):
        for f, expected in ((sg.sigmoid, 1 / (1 + np.exp(-z))), (sg.softplus, np.logaddexp(0, z)),
                            (sg.logsigmoid, -np.logaddexp(0, -z)), (sg.tanh, np.tanh(z)),
                            (sg.softmax, np.exp(z - z.max()) / np.exp(z - z.max()).sum()),
                            (sg.logsumexp, math.log(np.exp(z - z.max()).sum()) + z.max()),
                            (sg.exp, np.exp(z)), (sg.sqrt, np.sqrt(z)), (np.mean, z.mean()),
                            (np.var, z.var())):
            found = f(sg.tensor(x))
            assert found.dtype == np.float32, f
            with np.errstate(over="ignore"):
                np.testing.assert_allclose(found.data, expected.astype(np.float32), rtol=2e-6,
                                           atol=1e-43)


LAYERS = {"Dense": lambda: nn.Dense(4, 3), "Conv2d": lambda: nn.Conv2d(3, 2, 3),
          "ConvTranspose2d": lambda: nn.ConvTranspose2d(3, 2, 3),
          "BatchNorm": lambda: nn.BatchNorm(3), "Dropout": lambda: nn.Dropout(0.5)}


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", SMALL)
def test_layers_refuse_integers_and_say_what_to_do(layer, dtype, backend_name):
    shape = (2, 4) if layer == "Dense" else (2, 5, 5, 3)
    with sg.use_backend(backend_name):
        with pytest.raises(TypeError, match=rf"of {np.dtype(dtype)}.*astype\(np.float32\)") as said:
            LAYERS[layer]()(np.ones(shape, dtype))
        one_sentence(said.value)


# --- other numbers, and arrays that are not plain ------------------------------------------------

REFUSED = {
    "float16": lambda x: x.astype(np.float16), "longdouble": lambda x: x.astype(np.longdouble),
    "complex": lambda x: x.astype(np.complex64), "object": lambda x: x.astype(object),
    "text": lambda x: x.astype(str), "masked": lambda x: np.ma.masked_less(x, 0),
    "dates": lambda x: x.astype("datetime64[s]"),
    "structure": lambda x: np.zeros(x.shape, [("a", float)]),
}
EQUAL = {
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "Fortran order": np.asfortranarray,
    "backwards": lambda x: x[(slice(None, None, -1),) * x.ndim].copy()[
        (slice(None, None, -1),) * x.ndim],
    "with gaps": lambda x: np.repeat(x, 2, -1)[..., ::2] if x.ndim else x,
    "read-only": lambda x: read_only(x.copy()),
    "matrix": lambda x: x.view(np.matrix) if x.ndim == 2 else x,
    "memory map": lambda x: x.view(np.memmap),
    "unaligned": lambda x: unaligned(x),
}


def read_only(x):
    x.flags.writeable = False
    return x


def unaligned(x):
    """The same numbers at an address that is no multiple of their size."""
    memory = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


every_op = pytest.mark.parametrize("name, inputs, options", ROWS)


@every_op
@pytest.mark.filterwarnings("ignore")
def test_numbers_that_no_op_knows(name, inputs, options):
    for i in reals(inputs):
        for kind, make in REFUSED.items():
            given = [make(x) if i == j else x for j, x in enumerate(inputs)]
            with pytest.raises((TypeError, ValueError)) as said:
                OPS[name].apply(*given, **options)
            one_sentence(said.value)
            assert name in str(said.value), kind


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@every_op
def test_arrays_of_every_layout(name, inputs, options, backend_name):
    with sg.use_backend(backend_name):
        expected = OPS[name].apply(*inputs, **options).data
        for kind, make in EQUAL.items():
            given = [make(x) if i in reals(inputs) else x for i, x in enumerate(inputs)]
            before = [np.array(x) for x in given if isinstance(x, np.ndarray)]
            found = OPS[name].apply(*given, **options)
            assert type(found.data) is np.ndarray and found.data.dtype.isnative, kind
            np.testing.assert_allclose(found.data, expected, rtol=1e-12, atol=1e-14, err_msg=kind)
            for a, b in zip((x for x in given if isinstance(x, np.ndarray)), before, strict=True):
                np.testing.assert_array_equal(a, b)


def weighings(y):
    """Gradients of y's shape as the engine and its users make them, each with the plain array."""
    plain = np.array(np.cos(np.arange(y.size).reshape(y.shape)) + 1.5)
    yield "one number everywhere", np.broadcast_to(np.float64(0.5), y.shape)
    if y.ndim:
        yield "one row everywhere", np.broadcast_to(plain[:1], y.shape)
        yield "one column everywhere", np.broadcast_to(plain[..., :1], y.shape)
    for kind in ("read-only", *(("Fortran order", "backwards", "with gaps") if y.ndim else ())):
        yield kind, EQUAL[kind](plain)


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@every_op
def test_gradients_of_every_layout(name, inputs, options, backend_name):
    of = differentiable(name, inputs)
    with sg.use_backend(backend_name):
        def gradients(weights):
            tensors = [sg.tensor(inputs[i], requires_grad=True) for i in of]
            y = function(name, inputs, options, of)(*tensors)
            return [g.data for g in sg.grad(y, tensors, grad_outputs=weights)] if (
                y.requires_grad) else []
        y = function(name, inputs, options, of)(*(sg.tensor(inputs[i]) for i in of))
        for kind, weights in weighings(y):
            kept = np.array(weights)
            for found, expected in zip(gradients(weights), gradients(kept.copy()), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14, err_msg=kind)
            np.testing.assert_array_equal(weights, kept)


def reductions():
    return {"sum": lambda y: y.sum(), "mean": lambda y: y.mean(),
            "sum over an axis": lambda y: y.sum(0).sum(), "flattened": lambda y: sg.reshape(
                y, (-1,)).sum(), "turned": lambda y: np.transpose(y).sum(),
            "one element": lambda y: sg.reshape(y, (-1,))[0]}


@pytest.mark.parametrize("reduction", reductions())
@pytest.mark.parametrize("examples", [1, 2, 7])
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_dense_layers_behind_every_reduction(outputs, activation, examples, reduction, backend):
    """Dense(2, 1) on one example ended in a page of Numba's: its gradient was read-only."""
    x = np.linspace(-1, 1, 2 * examples).reshape(examples, 2)
    reduce, found = reductions()[reduction], []
    for name in ("numpy", backend):
        with sg.use_backend(name):
            layer = nn.Dense(2, outputs, activation, dtype=np.float64, stream=sg.Stream(0, "w"))
            reduce(layer(x)).backward()
            found.append([layer.w.grad.data, layer.b.grad.data])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


# --- tensors, and single numbers -----------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_tensors_of_odd_arrays():
    big = np.array([1.5, -2.0], ">f4")
    t = sg.tensor(big, requires_grad=True)
    assert t.dtype == np.float32 and t.dtype.isnative
    sg.square(t).sum().backward()
    np.testing.assert_array_equal(t.grad.data, [3, -4])
    assert sg.tensor(np.array([1, 2], ">i2")).dtype == np.int16
    for kind, make in REFUSED.items():
        with pytest.raises((TypeError, sg.UserError)) as said:
            sg.tensor(make(np.ones((2, 3))))
        one_sentence(said.value), kind
    assert sg.tensor(np.matrix([[1.0, 2.0]])).shape == (1, 2)


def test_single_numbers_are_weak():
    t = sg.tensor(np.float32([1, 2]))
    for number in (fractions.Fraction(1, 2), np.float16(0.5), np.float64(0.5), np.longdouble(0.5),
                   np.int8(1), True, np.bool_(True), 1):
        y = t * number
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y.data, np.float32([1, 2]) * float(number))
    for number in (1j, np.complex64(1), "a", b"a", np.datetime64("2020"), object()):
        with pytest.raises(TypeError) as said:
            t * number
        one_sentence(said.value)
    assert sg.exp(1).dtype == sg.exp(1.0).dtype == np.float32


def test_what_numpy_says_of_integers_is_the_reason():
    with pytest.raises((TypeError, ValueError), match="negative integer powers") as e:
        sg.tensor(np.arange(3)) ** -1
    assert "broadcast" not in str(e.value)
    with pytest.raises((TypeError, ValueError, OverflowError), match="256 out of bounds") as e:
        sg.tensor(np.uint8([1, 2])) + 256
    assert "broadcast" not in str(e.value)


@pytest.mark.filterwarnings("error")
def test_nan_passes_without_a_warning(backend):
    x = np.array([np.nan, 1.0, -1.0], np.float32)
    for name in ("relu", "sigmoid", "tanh", "softplus", "elu", "leaky_relu", "logsigmoid", "exp",
                 "square", "abs"):
        t = sg.tensor(x, requires_grad=True)
        y = getattr(sg, name)(t)
        assert np.isnan(y.data[0]) and np.isfinite(y.data[1:]).all(), name
        y.sum().backward()


def test_the_table_has_every_public_op():
    """Whatever is public and takes arrays is in the table, or is made of what is there."""
    assert {row.values[0] for row in ROWS} == set(OPS)
    for name, op in OPS.items():
        assert issubclass(op, Op) and set(CONSTANT.get(name, [])) <= set(range(9))
    assert FLOATS == (np.dtype(np.float32), np.dtype(np.float64))


# --- public functions that are no ops ------------------------------------------------------------

def unary():
    """name → function of the package that takes one array first, and can be called with it alone.
    """
    found = {}
    for name in sg.ops.__all__:
        f = getattr(sg, name)
        try:
            parameters = list(inspect.signature(f).parameters.values())
        except (TypeError, ValueError):
            continue
        required = [p for p in parameters if p.default is p.empty and p.kind in (
            p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(required) == 1 and required[0].name in ("x", "a", "logits"):
            found[name] = f
    return found


@pytest.mark.parametrize("name", unary())
@pytest.mark.filterwarnings("ignore")
def test_public_functions_of_one_array(name, backend):
    """The same for functions that are made of ops: integers as reals or as NumPy's, never wrapped;
    what is no number refused in one sentence."""
    f, base = unary()[name], np.array([[3, 1, 2], [0, 2, 1], [1, 0, 3]])
    try:
        expected = f(base.astype(np.float64))
    except (TypeError, ValueError, IndexError) as error:
        return one_sentence(error)                     # it needs another shape, say

    def plain(y):
        return np.asarray(y.data if isinstance(y, sg.Tensor) else y, dtype=np.float64)
    for dtype in SMALL[:-1]:
        try:
            found = f(base.astype(dtype))
        except (TypeError, ValueError) as error:
            one_sentence(error)
            continue
        if isinstance(found, sg.Tensor) and np.dtype(dtype).kind != "u":
            np.testing.assert_allclose(plain(found), plain(expected), rtol=1e-5, atol=1e-6)
            assert found.dtype in FLOATS or found.dtype.kind in "iub"
    for kind in ("other byte order", "read-only", "with gaps"):
        found = f(EQUAL[kind](base.astype(np.float64)))
        if isinstance(found, sg.Tensor):
            np.testing.assert_allclose(plain(found), plain(expected), rtol=1e-12)
    for kind in ("complex", "object", "text", "masked", "float16"):
        try:
            found = f(REFUSED[kind](base.astype(np.float64)))
        except (TypeError, ValueError, AttributeError) as error:
            assert "\n" not in str(error)
        else:
            assert not isinstance(found, sg.Tensor), (kind, found)


def test_the_functions_of_one_array_are_found():
    assert len(unary()) > 40
    assert functools.reduce(lambda a, b: a and b, (callable(f) for f in unary().values()))


# --- arrays that do not come in through an op ----------------------------------------------------

def rows():
    return np.random.default_rng(0).random((6, 784)).astype(np.float32)


ENTRIES = {
    "the gradient for backward": lambda x: (
        sg.exp(t := sg.tensor(rows(), requires_grad=True)).backward(x), t.grad)[1],
    "the gradient for grad": lambda x: sg.grad(
        sg.exp(t := sg.tensor(rows(), requires_grad=True)), t, grad_outputs=x),
    "a batch for a VAE": lambda x: sg.models.VAE(sg.models.VAE.Config()).draw(
        x, sg.Streams(seed=0)),
    "a batch for a DAE": lambda x: sg.models.DAE(sg.models.DAE.Config()).draw(
        x, sg.Streams(seed=0)),
    "corruption": lambda x: sg.data.Masking(0.3)(x, sg.Stream(0, "test")),
    "binarize": lambda x: sg.data.binarize(x, "threshold"),
    "Dropout": lambda x: nn.Dropout(0.5)(x),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["complex", "object", "text", "masked", "dates", "structure"])
@pytest.mark.filterwarnings("error")
def test_odd_arrays_are_refused_where_no_op_sees_them(entry, kind, backend):
    wrong = np.ma.masked_less(rows(), 0.5) if kind == "masked" else REFUSED[kind](rows())
    with pytest.raises((TypeError, sg.UserError), match="expected") as said:
        ENTRIES[entry](wrong)
    assert "\n" not in str(said.value) and len(str(said.value)) < 500


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["other byte order", "read-only", "Fortran order", "backwards"])
def test_odd_layouts_are_taken_where_no_op_sees_them(entry, kind, backend):
    """They give what the plain array gives."""
    found, expected = (ENTRIES[entry](x) for x in (EQUAL[kind](rows()), rows()))
    for a, b in zip(arrays_of(found), arrays_of(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def arrays_of(y):
    """The arrays of what an entry gives: of a tensor, of a pair of clean and noisy ones, or of all
    in a tuple."""
    if isinstance(y, tuple):
        return [a for part in y for a in arrays_of(part)]
    if isinstance(y, sg.data.Corrupted):
        return [y.clean, y.noisy]
    return [y.data if isinstance(y, sg.Tensor) else y]


DENSITIES = {
    "log_density": lambda x: sg.data.ring().log_density(x),
    "score": lambda x: sg.data.ring().score(x),
    "responsibilities": lambda x: sg.data.ring().responsibilities(x),
    "posterior_mean": lambda x: sg.data.ring().posterior_mean(x, 0.3),
    "cdf": lambda x: sg.data.mixture1d().cdf(x[:, 0]),
    "mode_report": lambda x: sg.data.mode_report(x, sg.data.ring())}


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_densities_of_odd_points(name):
    f, points = DENSITIES[name], np.random.default_rng(0).normal(size=(6, 2))
    expected = f(points)
    for kind in ("complex", "object", "text", "masked", "dates", "structure"):
        with pytest.raises(sg.UserError, match="expected an array") as said:
            f(np.ma.masked_less(points, 0) if kind == "masked" else REFUSED[kind](points))
        one_sentence(said.value)
    for kind in ("other byte order", "read-only", "Fortran order", "backwards", "memory map"):
        found = f(EQUAL[kind](points))
        assert found == expected if name == "mode_report" else np.allclose(found, expected), kind


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.float16, np.longdouble, ">f8",
                                   complex, object, str, "no dtype"], ids=str)
def test_samplers_and_layers_know_two_precisions(dtype, backend):
    """A draw of uniform numbers in int32 was all zeros."""
    stream = sg.Stream(0, "test")
    for make in (lambda: stream.uniform(3, dtype), lambda: stream.normal(3, dtype),
                 *(functools.partial(layer, dtype=dtype) for layer in (
                     lambda dtype: nn.Dense(2, 3, dtype=dtype),
                     lambda dtype: nn.Conv2d(2, 3, 3, dtype=dtype),
                     lambda dtype: nn.BatchNorm(3, dtype=dtype)))):
        with pytest.raises(sg.UserError, match="float32 or .*float64") as said:
            make()
        one_sentence(said.value)
    assert stream.counter == 0
    for name in ("float32", np.float64, np.dtype(np.float32)):
        assert stream.uniform(3, name).dtype == stream.normal(3, name).dtype == name


@pytest.mark.parametrize("how", ["threshold", "static"])
def test_binarize_refuses_grey_values_of_bytes(how):
    with pytest.raises(sg.UserError, match="divide uint8 images by 255"):
        sg.data.binarize(np.full((2, 3), 200, np.uint8), how, sg.Stream(0, "test"))
