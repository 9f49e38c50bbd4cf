"""Every op: gradients of first and second order, the formula against the forward, odd layouts.

The table below has a row for every op with options; a test fails if one is missing.
"""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import scratchgen as sg
from scratchgen.ops.op import OPS
from scratchgen.ops.window import sliding, spreading

RNG = np.random.default_rng(11)


def options_of(op):
    return [p.name for p in inspect.signature(op.formula).parameters.values()
            if p.kind is p.KEYWORD_ONLY]


def normal(*shape):
    """Away from zero, where the kinks are."""
    x = RNG.normal(size=shape)
    return x + 0.1 * np.sign(x)


def positive(*shape):
    return RNG.uniform(0.3, 2.5, shape)


def apart(*shape):
    """No two elements within 0.05 of each other: maxima have no ties."""
    return 0.1 * RNG.permutation(math.prod(shape)).reshape(shape) - 1.03


def unit(*shape):
    return RNG.uniform(0.05, 0.95, shape)


WINDOW = sliding("conv2d", (4, 5), (3, 2), (2, 1), (1, 0), (1, 2))
SPREAD = spreading("conv_transpose2d", (2, 3), (3, 2), (2, 1), (1, 0), (1, 0), 1)
POOL = sliding("max_pool2d", (5, 4), (3, 2), (2, 1), (1, 0))
LABELS = np.array([2, 0, 3])
INDEX = (np.array([[0, 2, 0], [1, 1, 0]]), slice(None, None, 2))       # names elements twice

# op: [(inputs, options), …]; all dimensions of one case differ
CASES = {
    "identity": [([normal(2, 3)], {})],
    "add": [([normal(2, 3), normal(2, 3)], {}), ([normal(4, 1, 3), normal(2, 1)], {})],
    "subtract": [([normal(2, 3), normal(2, 3)], {}), ([normal(3), normal(4, 2, 1)], {})],
    "multiply": [([normal(2, 3), normal(2, 3)], {}), ([normal(2, 3), normal()], {})],
    "divide": [([normal(2, 3), positive(2, 3)], {}), ([normal(4, 1, 3), -positive(2, 1)], {})],
    "negative": [([normal(2, 3)], {})],
    "pow": [([positive(2, 3), normal(2, 3)], {}), ([positive(4, 1, 3), normal(2, 1)], {}),
            ([normal(2, 3), 3], {}), ([positive(2, 3), -0.5], {}), ([2.0, normal(3)], {})],
    "square": [([normal(2, 3)], {})],
    "exp": [([normal(2, 3)], {})],
    "log": [([positive(2, 3)], {})],
    "log1p": [([positive(2, 3)], {})],
    "expm1": [([normal(2, 3)], {})],
    "sqrt": [([positive(2, 3)], {})],
    "abs": [([normal(2, 3)], {})],
    "maximum": [([normal(2, 3), normal(2, 3)], {}), ([normal(4, 1, 3), normal(2, 1)], {})],
    "minimum": [([normal(2, 3), normal(2, 3)], {}), ([normal(4, 1, 3), normal(2, 1)], {})],
    "clip": [([normal(4, 3)], {"low": -0.6, "high": 0.7})],
    "where": [([RNG.random((2, 3)) < 0.5, normal(2, 3), normal(3)], {})],
    "sigmoid": [([normal(2, 3)], {})],
    "tanh": [([normal(2, 3)], {})],
    "softplus": [([normal(2, 3)], {})],
    "logsigmoid": [([normal(2, 3)], {})],
    "relu": [([normal(4, 3)], {})],
    "affine": [([normal(4, 3)], {"scale": 2.5, "shift": -0.7})],
    "leaky_relu": [([normal(4, 3)], {"slope": 0.3})],
    "elu": [([normal(4, 3)], {"alpha": 0.7})],
    "sum": [([normal(2, 3, 4)], {"axis": axis, "keepdims": keep})
            for axis, keep in [(None, False), (1, False), ((0, -1), True)]],
    "mean": [([normal(2, 3, 4)], {"axis": axis, "keepdims": keep})
             for axis, keep in [(None, False), (1, False), ((0, -1), True)]],
    "max": [([apart(2, 3, 4)], {"axis": axis, "keepdims": keep})
            for axis, keep in [(None, False), (1, False), ((0, -1), True)]],
    "min": [([apart(2, 3, 4)], {"axis": axis, "keepdims": keep})
            for axis, keep in [(None, False), (1, False), ((2, 0), False)]],
    "logsumexp": [([normal(2, 3, 4)], {"axis": axis, "keepdims": keep})
                  for axis, keep in [(None, False), (1, False), ((0, -1), True)]],
    "softmax": [([normal(2, 3)], {"axis": -1}), ([normal(2, 3)], {"axis": 0})],
    "log_softmax": [([normal(2, 3)], {"axis": -1}), ([normal(2, 3)], {"axis": 0})],
    "reshape": [([normal(2, 6)], {"shape": (3, -1)})],
    "transpose": [([normal(2, 3, 4)], {"axes": (2, 0, 1)}), ([normal(2, 3)], {"axes": None})],
    "broadcast_to": [([normal(3, 1)], {"shape": (2, 3, 4)})],
    "flip": [([normal(2, 3)], {"axis": 1}), ([normal(2, 3)], {"axis": None})],
    "pad": [([normal(2, 3)], {"widths": ((1, 0), (2, 3))})],
    "concat": [([normal(2, 3), normal(2, 1), normal(2, 4)], {"axis": -1})],
    "index": [([normal(4, 5)], {"index": index}) for index in
              [(slice(1, None), 2), INDEX, (None, ..., slice(None, None, -2)), [3, 3, 0]]],
    "replace_at": [([normal(4, 5), normal(2, 1)], {"index": (slice(1, 3), slice(0, 4))}),
                   ([normal(4, 5), normal(1, 2, 3, 3)], {"index": INDEX})],
    "scatter": [([normal(3, 2)], {"shape": (4, 5), "index": (slice(1, None), slice(0, 2))}),
                ([normal(2, 3, 3)], {"shape": (4, 5), "index": INDEX})],
    "matmul": [([normal(2, 3), normal(3, 4)], {}), ([normal(5, 1, 2, 3), normal(6, 3, 4)], {})],
    "dense": [([normal(2, 3), normal(3, 4), normal(4)], {"activation": a, "tied": False}) for a in
              (None, "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")]
    + [([normal(2, 3), normal(3, 4), None], {"activation": a, "tied": False})
       for a in (None, "elu")]
    + [([normal(2, 3), normal(4, 3), normal(4)], {"activation": "tanh", "tied": True})],
    "conv2d": [([normal(2, 4, 5, 3), normal(3, 2, 3, 6), normal(6)], {"window": WINDOW})],
    "conv2d_input": [([normal(2, *WINDOW.out, 6), normal(3, 2, 3, 6)], {"window": WINDOW})],
    "conv2d_weight": [([normal(2, 4, 5, 3), normal(2, *WINDOW.out, 6)], {"window": WINDOW})],
    "convolution_layer": [
        ([normal(2, 5, 6, 3), normal(2, 3, 3, 4), normal(4)],
         {"window": sliding("conv2d", (5, 6), (2, 3), 2, 1), "activation": "tanh",
          "transposed": False}),
        ([normal(4, 2, 3, 5), normal(3, 2, 5, 6), normal(6)],
         {"window": SPREAD, "activation": "sigmoid", "transposed": True})],
    "conv_transpose2d": [([normal(4, 2, 3, 5), normal(3, 2, 5, 6), normal(6)],
                          {"window": SPREAD})],
    "max_pool2d": [([apart(2, 5, 4, 3)], {"window": POOL})],
    "avg_pool2d": [([normal(2, 5, 4, 3)], {"window": POOL})],
    "avg_pool2d_input": [([normal(4, *POOL.out, 3)], {"window": POOL})],
    "upsample2d": [([normal(2, 3, 4, 5)], {"scale": (3, 2)})],
    "batch_norm": [([normal(2, 5, 3), normal(3), normal(3)], {"eps": 0.1, "running": None,
                                                              "activation": "tanh"})],
    "normalize": [([normal(2, 5, 3), normal(3), normal(3), normal(3), positive(3)],
                   {"eps": 0.1})],
    "bce_with_logits": [([normal(2, 3), unit(2, 3)], {"reduction": r})
                        for r in ("sum", "mean", "none")],
    "mse": [([normal(2, 3), normal(2, 3)], {"reduction": r}) for r in ("sum", "mean", "none")],
    "cross_entropy": [([normal(3, 4), LABELS], {"reduction": r}) for r in ("sum", "mean", "none")],
    "gaussian_log_likelihood": [([normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 4)], {}),
                                ([normal(2, 3), normal(2, 3), normal(1)], {})],
    "bernoulli_log_likelihood": [([unit(2, 3, 4), normal(2, 3, 4)], {})],
    "gaussian_kl": [([normal(2, 3), normal(2, 3)], {})],
    "gaussian_kl_between": [([normal(2, 3), normal(2, 3), normal(2, 3), normal(2, 3)], {})],
    "reparametrize": [([normal(2, 3), normal(2, 3), normal(2, 3)], {})],
    "dropout": [([normal(4, 5), unit(4, 5)], {"p": 0.4})],
    "arcsin": [([unit(2, 3) - 0.5], {})], "arccos": [([unit(2, 3) - 0.5], {})],
    "arctanh": [([unit(2, 3) - 0.5], {})], "arccosh": [([1 + positive(2, 3)], {})],
    "arctan2": [([normal(2, 3), normal(2, 3)], {}), ([normal(4, 1, 3), normal(2, 1)], {})],
    "logaddexp": [([normal(2, 3), normal(2, 3)], {}), ([normal(4, 1, 3), normal(2, 1)], {})],
    "remainder": [([apart(2, 3), np.array([0.47, -1.37, 2.11])], {})],
    "cumsum": [([normal(2, 3, 4)], {"axis": axis}) for axis in (0, 1, -1)],
}
# An op whose inputs are all it takes needs no row: positive inputs of one shape are taken.
CASES |= {name: [([positive(2, 3) for _ in op.inputs], {})] for name, op in OPS.items()
          if name not in CASES and op.inputs and not options_of(op)}
CONSTANT = {"dropout": [1]}            # inputs without a derivative
# |x|, max and the like: not formulas that continue into the complex plane
WITH_KINKS = {"abs", "maximum", "minimum", "clip", "softplus", "logsigmoid", "relu", "leaky_relu",
              "elu", "arctan2", "logaddexp", "remainder", "cbrt", "max", "min",
              "max_pool2d", "bce_with_logits", "bernoulli_log_likelihood"}
ROWS = [pytest.param(name, inputs, options, id=f"{name}-{i}")
        for name, cases in CASES.items() for i, (inputs, options) in enumerate(cases)]
every_op = pytest.mark.parametrize("name, inputs, options", ROWS)


def test_the_table_has_every_op():
    assert set(CASES) == set(OPS)


def differentiable(name, inputs):
    """The positions of the inputs that gradients flow to."""
    return [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"
            and i not in CONSTANT.get(name, [])]


def function(name, inputs, options, of):
    """The op as a function of the inputs at the positions ``of``."""
    def f(*tensors):
        given = list(inputs)
        for i, x in zip(of, tensors, strict=True):
            given[i] = x
        return OPS[name].apply(*given, **options)
    return f


def gradients(name, inputs, options, of):
    tensors = [sg.tensor(inputs[i], requires_grad=True) for i in of]
    y = function(name, inputs, options, of)(*tensors)
    weights = np.cos(np.arange(y.size).reshape(y.shape)).astype(y.dtype) + y.dtype.type(1.5)
    found = sg.grad(y, tensors, grad_outputs=weights)
    return y, [g.data for g in found]


# --- gradients -----------------------------------------------------------------------------------

@every_op
def test_gradient(name, inputs, options, backend):
    of = differentiable(name, inputs)
    report = sg.gradcheck(function(name, inputs, options, of), [inputs[i] for i in of])
    assert report.ok and {row.verdict for row in report.rows} == {"OK"}
    assert len(report.rows) == sum(inputs[i].size for i in of)


@every_op
def test_second_order(name, inputs, options, backend):
    of = differentiable(name, inputs)
    report = sg.gradcheck(function(name, inputs, options, of), [inputs[i] for i in of], order=2,
                          directions=3)
    assert {row.verdict for row in report.rows} == {"OK"}


@every_op
def test_each_gradient_alone_is_the_same(name, inputs, options, backend):
    of = differentiable(name, inputs)
    together = gradients(name, inputs, options, of)[1]
    for i, expected in zip(of, together, strict=True):
        alone = gradients(name, inputs, options, [i])[1][0]
        np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize("name, inputs, options",
                         [row for row in ROWS if row.values[0] not in WITH_KINKS
                          and row.id not in {f"dense-{i}" for i in (1, 2, 3, 6, 8)}])
def test_complex_step_of_the_formula(name, inputs, options, backend):
    of = differentiable(name, inputs)

    def f(*given):
        if isinstance(given[0], sg.Tensor):
            return function(name, inputs, options, of)(*given)
        every = list(inputs)
        for i, x in zip(of, given, strict=True):
            every[i] = x
        return OPS[name].formula(*every, **options)

    report = sg.gradcheck(f, [inputs[i] for i in of], mode="complex", rtol=1e-11, atol=1e-12)
    assert {row.verdict for row in report.rows} == {"OK"}


# --- the formula is the truth --------------------------------------------------------------------

@every_op
def test_forward_is_the_formula(name, inputs, options, backend):
    expected = np.asarray(OPS[name].formula(*inputs, **options))
    y = OPS[name].apply(*inputs, **options)
    assert y.shape == expected.shape and y.dtype == expected.dtype == np.float64
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-13, equal_nan=False)


@every_op
def test_float32_is_float64_rounded(name, inputs, options, backend):
    """Value and gradients in float32 within 32 units in the last place of the largest element."""
    single = [x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
              for x in inputs]
    double = [x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
              for x in single]
    of = differentiable(name, inputs)
    y, found = gradients(name, single, options, of)
    expected, truths = gradients(name, double, options, of)
    for actual, truth in zip([y.data, *found], [expected.data, *truths], strict=True):
        assert actual.dtype == np.float32 and actual.shape == truth.shape
        error = np.max(np.abs(actual - truth)) / max(np.max(np.abs(truth)), 1e-3)
        assert error <= 32 * 2.0**-24


def odd_layouts(x):
    """The same values: transposed memory, negative strides, every third element."""
    yield np.array(x, order="F")
    yield np.flip(np.flip(x).copy())
    wide = np.full((*x.shape[:-1], 3 * x.shape[-1]) if x.ndim else (), np.nan, x.dtype)
    wide[..., ::3] = x
    yield wide[..., ::3]


@every_op
def test_any_memory_layout(name, inputs, options, backend):
    of = [i for i in differentiable(name, inputs) if inputs[i].ndim]
    y, expected = gradients(name, inputs, options, of)
    for layout in range(3):
        given = [sg.Tensor(list(odd_layouts(inputs[i]))[layout]) for i in of]
        for x in given:
            x.requires_grad = True
        z = function(name, inputs, options, of)(*given)
        np.testing.assert_allclose(z.data, y.data, rtol=1e-12, atol=1e-13, equal_nan=False)
        seed = np.cos(np.arange(y.size).reshape(y.shape)) + 1.5
        if y.ndim:
            seed = list(odd_layouts(seed))[layout]
        for g, e in zip(sg.grad(z, given, grad_outputs=seed), expected, strict=True):
            np.testing.assert_allclose(g.data, e, rtol=1e-12, atol=1e-13, equal_nan=False)


UNARY = ["identity", "negative", "square", "exp", "log", "log1p", "expm1", "sqrt", "abs", "sigmoid",
         "tanh", "softplus", "logsigmoid", "relu", "leaky_relu", "elu"]
REFERENCE = {"identity": lambda x: x, "abs": np.abs, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
             "softplus": lambda x: np.logaddexp(0, x), "logsigmoid": lambda x: -np.logaddexp(0, -x),
             "relu": lambda x: np.where(x > 0, x, 0), "leaky_relu": lambda x: x * np.where(
                 x > 0, 1, 0.2), "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1)}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (2, 0, 4), (1, 1, 1), (17,), (5, 7, 3)])
def test_unary_ops_on_all_shapes(name, shape, backend, rng):
    x = rng.uniform(0.2, 3, shape) if name in ("log", "sqrt") else rng.normal(size=shape)
    x = np.asarray(np.abs(x) if name == "log1p" else x)
    t = sg.tensor(x, requires_grad=True)
    y = getattr(sg, name)(t)
    expected = REFERENCE.get(name, getattr(np, name, None))(x)
    assert y.shape == shape and y.dtype == np.float64
    np.testing.assert_allclose(y.data, expected, rtol=1e-11, equal_nan=False)
    y.sum().backward()
    assert t.grad.shape == shape and np.all(np.isfinite(t.grad.data))
    zero_stride = getattr(sg, name)(np.broadcast_to(x[..., None], (*shape, 4)))
    np.testing.assert_array_equal(zero_stride.data, np.stack([y.data] * 4, axis=-1))


@settings(max_examples=50, deadline=None)
@given(array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5), st.data())
def test_reductions_equal_numpy(shape, data):
    x = np.random.default_rng(5).normal(size=shape)
    axes = st.none()
    if shape:
        one = st.integers(-len(shape), len(shape) - 1)
        several = st.lists(st.integers(0, len(shape) - 1), unique=True).map(tuple)
        axes = st.one_of(axes, one, several)
    axis, keepdims = data.draw(axes), data.draw(st.booleans())
    t = sg.tensor(x, requires_grad=True)
    for name, reference in [("sum", np.sum), ("mean", np.mean), ("max", np.max), ("min", np.min),
                            ("logsumexp", lambda x, **o: np.log(np.sum(np.exp(x), **o)))]:
        if axis == () and name in ("max", "min"):
            continue
        y = getattr(sg, name)(t, axis=axis, keepdims=keepdims)
        expected = reference(x, axis=axis, keepdims=keepdims)
        assert y.shape == np.shape(expected)
        np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-14, equal_nan=False)
        g = sg.grad(y.sum(), t)       # each group's gradients sum to 1, for the sum: each is 1
        total = {"sum": x.size}.get(name, y.size)
        np.testing.assert_allclose(g.data.sum(), total, rtol=1e-10, equal_nan=False)


def test_empty_batches(backend):
    x = sg.tensor(np.ones((0, 3)), requires_grad=True)
    w = sg.tensor(np.ones((3, 4)), requires_grad=True)
    y = sg.dense(x, w, sg.tensor(np.ones(4)), activation="tanh")
    total = (y.sum() + sg.bce_with_logits(y, y.data) + sg.mse(x, x.data)
             + sg.gaussian_kl(y, y).sum() + sg.max(x, axis=1).sum() + sg.min(x, axis=-1).sum()
             + sg.bernoulli_log_likelihood(y.data, y).sum() + sg.softmax(x).sum()
             + sg.gaussian_log_likelihood(x, x, x).sum()
             + sg.cross_entropy(y, np.zeros(0, int)) + sg.concat([x, x]).sum())
    assert total.item() == 0
    total.backward()
    assert x.grad.shape == (0, 3) and np.array_equal(w.grad.data, np.zeros((3, 4)))
    assert sg.bce_with_logits(y, y.data, reduction="none").shape == (0, 4)


# --- conventions at kinks ------------------------------------------------------------------------

@pytest.mark.parametrize("f, x, expected", [
    (sg.relu, [0.0], [0]), (sg.abs, [0.0], [0]), (sg.leaky_relu, [0.0], [0.2]),
    (lambda x: sg.elu(x, 0.5), [0.0], [0.5]), (lambda x: sg.clip(x, -1, 2), [-1.0, 2.0], [1, 1]),
    (lambda x: sg.max(x), [3.0, 5.0, 5.0], [0, 1, 0]), (sg.min, [5.0, 3.0, 3.0], [0, 1, 0]),
    (lambda x: sg.max_pool2d(sg.reshape(x, (1, 2, 2, 1)), 2), [1.0, 4.0, 4.0, 4.0], [0, 1, 0, 0]),
    (lambda x: sg.maximum(x, x.detach()), [2.0], [1]),
    (lambda x: sg.maximum(x.detach(), x), [2.0], [0]),
    (lambda x: sg.minimum(x, x.detach()), [2.0], [1]),
    (lambda x: sg.minimum(x.detach(), x), [2.0], [0]),
    (lambda x: sg.dense(sg.reshape(x, (1, 1)), np.ones((1, 1)), None, "relu"), [0.0], [0]),
    (lambda x: sg.dense(sg.reshape(x, (1, 1)), np.ones((1, 1)), None, "leaky_relu"), [0.0], [0.2]),
    (lambda x: x**0, [0.0], [0]), (lambda x: x**1, [0.0], [1]), (lambda x: x**2, [-1.5], [-3]),
    (lambda x: sg.pow(0.0, x), [2.0], [0])])
@pytest.mark.parametrize("create_graph", [False, True])
def test_conventions_at_kinks(f, x, expected, create_graph, backend):
    t = sg.tensor(np.array(x), requires_grad=True)
    g = sg.grad(f(t).sum(), t, create_graph=create_graph)
    np.testing.assert_array_equal(g.data, expected)


def test_dividing_the_maximum_over_several_axes(backend):
    x = np.zeros((2, 3, 4))
    t = sg.tensor(x, requires_grad=True)
    g = sg.grad(sg.max(t, axis=(0, 2)).sum(), t).data
    assert np.array_equal(np.argwhere(g), [[0, 0, 0], [0, 1, 0], [0, 2, 0]]) and g.sum() == 3


# --- extreme values ------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_stay_finite(dtype, backend):
    big = np.array([[-1e30, -800.0, -100.0, 0.0, 100.0, 800.0, 1e30]], dtype)
    target = np.array([[0, 1, 0, 0.5, 1, 0, 1]], dtype)
    x = sg.tensor(big, requires_grad=True)
    for name, expected in [("softplus", np.maximum(big, 0)), ("logsigmoid", np.minimum(big, 0)),
                           ("sigmoid", (big > 0) + 0.5 * (big == 0)), ("tanh", np.sign(big))]:
        y = getattr(sg, name)(x)
        np.testing.assert_allclose(y.data, expected, atol=1, rtol=1e-6, equal_nan=False)
        assert np.all(np.isfinite(sg.grad(y.sum(), x).data))
    slope = sg.grad(sg.bce_with_logits(x, target), x)
    np.testing.assert_allclose(slope.data, [[0, -1, 0, 0, 0, 1, 0]], atol=1e-6, equal_nan=False)
    assert np.isfinite(sg.logsumexp(x).data) and np.isclose(sg.softmax(x).data.sum(), 1)
    assert sg.log_softmax(x).data[0, -1] == 0


# --- what each public function refuses -----------------------------------------------------------

@pytest.mark.parametrize("call, text", [
    (lambda: sg.dense(np.ones((2, 3)), np.ones((4, 5))), r"x \(2, 3\), w \(4, 5\).*expected"),
    (lambda: sg.dense(np.ones((2, 3)), np.ones((3, 5)), activation="reul"), "did you mean 'relu'"),
    (lambda: sg.bce_with_logits(np.ones((2, 3)), np.ones((1, 3))), r"\(2, 3\).*\(1, 3\).*equal"),
    (lambda: sg.bernoulli_log_likelihood(np.ones((1, 3)), np.ones((2, 3))), "equal shapes"),
    (lambda: sg.mse(np.ones(2), np.ones(2), reduction="avg"), "reduction 'avg'"),
    (lambda: sg.cross_entropy(np.ones((2, 3)), np.array([0, 3])), "expected 0 to 2"),
    (lambda: sg.cross_entropy(np.ones((2, 3)), np.array([0.0, 1.0])), "integers"),
    (lambda: sg.gaussian_kl(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3))), "logvar2"),
    (lambda: sg.reparametrize(np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2))), "equal shapes"),
    (lambda: sg.dropout(np.ones(3), 1.1, np.ones(3)), "expected 0 <= p <= 1"),
    (lambda: sg.split(sg.tensor(np.ones(5)), 2), "5 elements"),
    (lambda: sg.reshape(sg.tensor(np.ones(5)), (2, 3)), "reshape of shapes"),
])
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_shapes_of_the_moving_functions(rng):
    x = rng.normal(size=(2, 3, 4))
    t = sg.tensor(x, requires_grad=True)
    pairs = [(sg.stack([t, t], axis=-1), np.stack([x, x], -1)), (sg.swapaxes(t, 0, -1),
             np.swapaxes(x, 0, -1)), (sg.expand_dims(t, -2), np.expand_dims(x, -2)),
             (sg.squeeze(t[:1]), x[0]), (sg.flatten(t), x.reshape(2, 12)), (sg.pad(t, 1),
             np.pad(x, 1)), (t[..., None, 1], x[..., None, 1]), (t[x > 0], x[x > 0]),
             (sg.squeeze(t[:1], 0), x[0]), (sg.split(t, [1, 3], axis=2)[1], x[..., 1:3]),
             (sg.split(t, 2, axis=-1)[1], x[..., 2:]), (t.T, x.T),
             (t.transpose(1, 0, 2), x.transpose(1, 0, 2)), (t.reshape(4, -1), x.reshape(4, -1))]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.data, theirs)
        assert ours.requires_grad


@pytest.mark.parametrize("a, b", [((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3,)),
                                  ((3,), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4))])
def test_matmul_of_all_ranks(a, b, rng):
    arrays = [rng.normal(size=a), rng.normal(size=b)]
    np.testing.assert_allclose(sg.matmul(*map(sg.tensor, arrays)).data, np.matmul(*arrays),
                               rtol=1e-12, equal_nan=False)
    assert sg.gradcheck(sg.matmul, arrays, directions=2).ok
