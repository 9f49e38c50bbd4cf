"""What an op says to inputs of the wrong shape or dtype: its name, the shapes, what was expected.

One table for all ops. A case is a call that must be refused; each is tried on every backend, with
arrays and with tensors that require a gradient. No call may fall through to an answer, and none may
end with a bare message of NumPy or Numba.
"""

import functools
import re

import numpy as np
import pytest
from checks import name_of

import scratchgen as sg
from scratchgen.ops.op import OPS


def a(*shape, dtype=np.float32):
    """An array of that shape with different numbers in (0, 1)."""
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape).astype(dtype)


X, W, B = a(2, 5, 6, 3), a(3, 2, 3, 7), a(7)
UNARY = ("identity", "negative", "square", "exp", "log", "log1p", "expm1", "sqrt", "abs", "sigmoid",
         "tanh", "softplus", "logsigmoid", "relu", "sin", "cos", "tan", "arcsin", "arccos",
         "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh", "log2", "log10", "exp2", "cbrt")
BINARY = ("add", "subtract", "multiply", "divide", "pow", "maximum", "minimum", "arctan2",
          "logaddexp", "remainder")
REDUCTIONS = ("sum", "mean", "max", "min", "logsumexp")

# op -> [(inputs, options, what the message says beside the op's name)]
SHAPES = {
    **{name: [((a(2, 3), a(2, 3)), {}, "1 positional argument but 2"),
              ((), {}, "missing 1 required")]
       for name in UNARY},
    **{name: [((a(2, 3), a(4)), {}, r"\(2, 3\), \(4,\).*broadcast.*expected shapes"),
              ((a(2, 3), a(3, 2)), {}, r"\(2, 3\), \(3, 2\)"),
              ((a(2, 3),), {}, "missing 1 required")]
       for name in BINARY},
    **{name: [((a(2, 3),), {"axis": 2}, r"\(2, 3\), axis 2.*expected an axis"),
              ((a(2, 3),), {"axis": (0, 0)}, r"axis \(0, 0\)"),
              ((a(2, 3),), {"axis": "rows"}, "axis 'rows'"),
              ((a(2, 3),), {"axis": 1.0}, "axis 1.0")]
       for name in (*REDUCTIONS, "softmax", "log_softmax")},
    "clip": [((a(3), 1, 0), {}, "min 1, max 0; expected"), ((a(3), "a", 1), {}, "min is a str"),
             ((a(3), np.nan, 1), {}, "min nan")],
    "cumsum": [((a(2, 3), 2), {}, r"x \(2, 3\), axis 2; expected a whole number"),
               ((a(2, 3), "x"), {}, "axis 'x'")],
    "where": [((a(2) > 0.5, a(3), a(4)), {}, r"\(2,\), \(3,\), \(4,\).*expected shapes"),
              ((a(2) > 0.5, a(3)), {}, "3 inputs .*2 were given")],
    "affine": [((a(3), "a", 1), {}, "scale 'a'"), ((a(3), 2, a(3)), {}, "two numbers")],
    "leaky_relu": [((a(3),), {"slope": "a"}, "slope 'a'"), ((a(3),), {"slope": a(3)}, "a number")],
    "elu": [((a(3),), {"alpha": None}, "alpha None"), ((a(3),), {"alpha": a(3)}, "a number")],
    "reshape": [((a(2, 3), (4, 2)), {}, r"\(2, 3\), shape \(4, 2\).*expected a shape"),
                ((a(2, 3), (-1, -1)), {}, "shape"), ((a(2, 3), "ab"), {}, "shape 'ab'"),
                ((a(2, 3), (2.0, 3)), {}, "shape")],
    "transpose": [((a(2, 3), (0, 0)), {}, r"\(2, 3\), axes \(0, 0\).*expected axes"),
                  ((a(2, 3), (0,)), {}, "axes"), ((a(2, 3), (0, 5)), {}, "axes")],
    "broadcast_to": [((a(2, 3), (2, 4)), {}, r"\(2, 3\), shape \(2, 4\).*expected a shape"),
                     ((a(2, 3), (3,)), {}, r"shape \(3,\)"), ((a(3), (-1, 3)), {}, "shape")],
    "flip": [((a(2, 3), 2), {}, r"\(2, 3\), axis 2.*expected an axis"), ((a(2), "x"), {}, "'x'")],
    "pad": [((a(2, 3), (1, 2, 3)), {}, r"\(2, 3\), widths \(1, 2, 3\); expected"),
            ((a(2, 3), -1), {}, "widths -1"), ((a(2, 3), 0.5), {}, "widths 0.5"),
            ((a(2, 3), None), {}, "widths None")],
    "concat": [(([a(2, 3), a(2, 4)],), {}, r"\(2, 3\), \(2, 4\), axis 0.*expected at least one"),
               (([a(2, 3)],), {"axis": 2}, "axis 2"), (([],), {}, "expected at least one"),
               (([a(2, 3), a(3)],), {}, r"\(3,\)")],
    "index": [((a(2, 3), 2), {}, r"\(2, 3\), index 2.*expected"), ((a(2), (0, 0)), {}, "index"),
              ((a(2, 3), a(4) > 0), {}, "index"), ((a(2), "x"), {}, "'x'"),
              ((a(2), 0.5), {}, "0.5")],
    "scatter": [((a(2), (3,), slice(0, 3)), {}, r"\(2,\), shape \(3,\).*expected an index"),
                ((a(1), (3,), 7), {}, "index 7"), ((a(1), "x", 0), {}, "'x'")],
    "replace_at": [((a(4), a(2), slice(0, 3)), {}, r"\(4,\), \(2,\).*expected an index"),
                   ((a(3), 1.0, 7), {}, "index 7"), ((a(3), 1.0, "x"), {}, "'x'")],
    "conv2d": [((X[0], W, B), {}, r"x \(5, 6, 3\).*expected \(N, H, W, C\)"),
               ((X, W[..., :2, :], B), {}, r"w \(3, 2, 2, 7\)"), ((X, W, B[1:]), {}, r"b \(6,\)"),
               ((X[:, :1], W, B), {}, "expected a smaller kernel"),
               ((X, W, B), {"stride": -1}, "stride is -1"),
               ((X, W, B), {"padding": "full"}, "padding is 'full'; expected an int"),
               ((X, W, B), {"padding": "same", "stride": 2}, "expected stride 1"),
               ((X, W, B), {"groups": 2}, "groups 2; expected"),
               ((X, W[:, :, :1], B), {"groups": 0}, "groups 0; expected")],
    "conv2d_input": [((a(2, 5, 7), W, 5), {}, r"g \(2, 5, 7\).*expected \(N, OH, OW, O\)"),
                     ((a(2, 5, 6, 7), W[0], 5), {}, r"w \(2, 3, 7\)"),
                     ((a(2, 5, 6, 7), W, (5, 6)), {}, r"expected \(N, 3, 5, O\)"),
                     ((a(2, 3, 5, 6), W, (5, 6)), {}, r"g \(2, 3, 5, 6\)"),
                     ((a(2, 3, 5, 7), W, "x"), {}, "size is 'x'")],
    "conv2d_weight": [((X[0], a(2, 3, 5, 7), (3, 2)), {}, r"x \(5, 6, 3\).*expected"),
                      ((X, a(2, 3, 5), (3, 2)), {}, r"g \(2, 3, 5\).*expected"),
                      ((X, a(2, 3, 4, 7), (3, 2)), {}, r"\(2, 3, 5, O\)"),
                      ((X, a(2, 3, 5, 7), 9), {}, "expected a smaller kernel")],
    "conv_transpose2d": [((X[0], W, B), {}, r"x \(5, 6, 3\).*expected \(N, H, W, C\)"),
                         ((X, W, a(3)), {}, r"b \(3,\)"), ((X, W, B), {"padding": 9}, "less pad"),
                         ((X, W, B), {"groups": 2}, "groups 2; expected"),
                         ((X, W, B), {"output_padding": 1}, "must be smaller than stride")],
    "matmul": [((a(2, 3), a(4, 5)), {}, r"a \(2, 3\), b \(4, 5\); expected \(…, I, K\)"),
               ((a(3), a(4)), {}, r"a \(3,\), b \(4,\)"), ((a(), a(4)), {}, r"a \(\)"),
               ((a(2, 3, 4), a(5, 4, 2)), {}, r"\(2, 3, 4\), \(5, 4, 2\).*expected a \(…, I, K\)")],
    "dense": [((a(2, 3), a(4, 5), a(5)), {}, r"x \(2, 3\), w \(4, 5\).*expected \(N, C\)"),
              ((a(2, 3), a(3, 5), a(4)), {}, r"b \(4,\)"), ((a(3), a(3, 5)), {}, r"x \(3,\)"),
              ((a(2, 3), a(3, 5)), {"activation": "rleu"}, "did you mean 'relu'")],
    "bce_with_logits": [((a(2, 3), a(2, 1)), {}, r"logits \(2, 3\), target \(2, 1\); expected"),
                        ((a(2), a(2)), {"reduction": "avg"}, "unknown reduction")],
    "mse": [((a(2, 3), a(3)), {}, r"x \(2, 3\), target \(3,\); expected equal shapes"),
            ((a(2), a(2)), {"reduction": None}, "unknown reduction")],
    "cross_entropy": [((a(2, 3), np.arange(3)), {}, r"logits \(2, 3\), labels int64\(3,\);"),
                      ((a(3), np.arange(3)), {}, r"logits \(3,\)"),
                      ((a(2, 3), np.array([0, 3])), {}, "labels from 0 to 3; expected 0 to 2"),
                      ((a(2, 3), np.array([-1, 0])), {}, "labels from -1")],
    "gaussian_log_likelihood": [
        ((a(2, 3), a(2, 4), a(2, 3)), {}, r"x \(2, 3\), mean \(2, 4\), logvar \(2, 3\); expected"),
        ((a(2, 3), a(4, 2, 3), a(2, 3)), {}, r"mean \(4, 2, 3\)"),
        ((a(1, 3), a(2, 3), a(2, 3)), {}, r"x \(1, 3\)"), ((a(), a(), a()), {}, r"x \(\)")],
    "bernoulli_log_likelihood": [((a(2, 3), a(3)), {}, r"x \(2, 3\), logits \(3,\); expected"),
                                 ((a(), a()), {}, r"expected \(N, …\)")],
    "gaussian_kl": [((a(2, 3), a(2, 1)), {}, r"mean \(2, 3\), logvar \(2, 1\); expected equal"),
                    ((a(3), a(3)), {}, r"mean \(3,\); expected \(N, Z\)"),
                    ((a(2, 3), a(2, 3), a(3), a(3)), {}, r"mean2 \(3,\)"),
                    ((a(2, 3), a(2, 3), a(2, 3)), {}, "give both or neither")],
    "gaussian_kl_between": [((a(2, 3), a(2, 3), a(3), a(3)), {}, r"mean2 \(3,\), logvar2 \(3,\)"),
                            ((a(3), a(3), a(3), a(3)), {}, r"expected \(N, Z\)")],
    "batch_norm": [((X, a(2), a(3)), {}, r"x \(2, 5, 6, 3\), gamma \(2,\).*expected \(…, C\)"),
                   ((X, a(3), a(3), a(4), a(3)), {}, "running"), ((a(3), a(3), a(3)), {}, "x"),
                   ((X, a(3), a(3), a(3)), {}, "expected both or neither"),
                   ((X, a(3), a(3)), {"train": False}, "needs running_mean"),
                   ((a(1, 3), a(3), a(3)), {}, r"x \(1, 3\) has fewer than 2 values")],
    "normalize": [((X, a(3), a(3), a(3), a(2)), {}, r"x \(2, 5, 6, 3\).*var \(2,\); expected"),
                  ((X, a(6, 3), a(3), a(3), a(3)), {}, r"gamma \(6, 3\)"),
                  ((a(), a(), a(), a(), a()), {}, r"x \(\)")],
    **{name: [((X[0], 2), {}, r"x \(5, 6, 3\); expected \(N, H, W, C\)"), ((X, 0), {}, "size is 0"),
              ((X, 7), {}, "expected a smaller kernel"), ((X, "x"), {}, "size is 'x'"),
              ((X, 2), {"stride": 0}, "stride is 0"), ((X, 2), {"padding": 2}, "less padding")]
       for name in ("max_pool2d", "avg_pool2d")},
    "avg_pool2d_input": [((a(2, 3, 3), 6, 2), {}, r"g \(2, 3, 3\); expected \(N, 3, 3, C\)"),
                         ((a(2, 2, 3, 1), 6, 2), {}, r"expected \(N, 3, 3, C\)"),
                         ((a(2, 3, 3, 1), 0, 2), {}, "input_size is 0")],
    "upsample2d": [((X[0], 2), {}, r"x \(5, 6, 3\).*expected \(N, H, W, C\)"),
                   ((X, 1.5), {}, "scale is 1.5; expected an int"),
                   ((X, 2), {"mode": "cubic"}, "mode 'cubic'")],
    "reparametrize": [((a(2, 3), a(3), a(2, 3)), {}, r"mean \(2, 3\), logvar \(3,\).*expected"),
                      ((a(2, 3), a(2, 3), a(1, 3)), {}, r"eps \(1, 3\)")],
    "dropout": [((a(2, 3), 0.5, a(3)), {}, r"x \(2, 3\), uniform \(3,\); expected equal shapes"),
                ((a(3), 1.5, a(3)), {}, "p = 1.5"), ((a(3), "x", a(3)), {}, "p = 'x'"),
                ((a(3), float("nan"), a(3)), {}, "p = nan; expected 0 <= p <= 1")],
    # functions that are made of ops
    "swapaxes": [((a(2, 3), 0, 2), {}, r"x \(2, 3\), axis 2; expected a whole number")],
    "stack": [(([a(2, 3), a(3)],), {}, r"\(2, 3\), \(3,\): expected"), (([],), {}, "expected"),
              (([a(2, 3)],), {"axis": 3}, "axis 3")],
    "split": [((a(5), 2), {}, "5 elements"), ((a(5), 0), {}, "sections 0"), ((a(5), 1, 1), {}, "1"),
              ((a(4), -2), {}, "elements"), ((a(5), 2.5), {}, "sections 2.5")],
    "expand_dims": [((a(2, 3), 3), {}, "axis 3"), ((a(2, 3), -4), {}, "axis -4"),
                    ((a(2, 3), 0.5), {}, "axis 0.5")],
    "squeeze": [((a(2, 1), 0), {}, r"x \(2, 1\), axis 0; expected axes of length 1"),
                ((a(2, 1), 2), {}, "axis 2")],
    "flatten": [((a(),), {}, r"x \(\); expected \(N, …\)")],
}
EMPTY = {name: ((np.empty((2, 0), np.float32),), {"axis": 1}) for name in (
    "max", "min", "logsumexp", "softmax", "log_softmax")}


def test_the_table_has_every_op():
    inner = {"convolution_layer"}         # what conv2d and conv_transpose2d with an activation are
    assert set(OPS) - inner <= set(SHAPES)
    assert all(callable(getattr(sg, name)) for name in SHAPES)


def assert_refused(call, name, said="", kinds=(ValueError, TypeError)):
    """One sentence that begins with the op's name, of the kinds named."""
    with pytest.raises(kinds) as caught:
        call()
    message = str(caught.value)
    assert re.match(rf"{name}\b|unknown (reduction|activation) ", message), message
    assert re.search(said, message), message
    assert "\n" not in message and len(message) < 600
    return message


def recorded(x):
    """A tensor that requires a gradient in place of an array of floats."""
    if isinstance(x, list):
        return [recorded(v) for v in x]
    is_float = isinstance(x, np.ndarray) and x.dtype.kind == "f"
    return sg.tensor(x, requires_grad=True) if is_float else x


@pytest.mark.parametrize("as_tensors", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize("name", SHAPES)
def test_wrong_shapes_and_options(name, as_tensors, backend):
    for inputs, options, said in SHAPES[name]:
        inputs = [recorded(x) for x in inputs] if as_tensors else inputs
        indexes = name in ("index", "scatter", "replace_at")
        kinds = (ValueError, TypeError, *([IndexError] if indexes else []))
        call = functools.partial(getattr(sg, name), *inputs, **options)
        message = assert_refused(call, name, said, kinds)
        assert re.search("expected|choose|give|given|missing|needs|must|train with", message)


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_reduce(name, backend):
    inputs, options = EMPTY[name]
    assert_refused(lambda: getattr(sg, name)(*inputs, **options), name, "at least one element")


# A call of every op that works, whose first input is then made wrong.
WORKS = {
    **{name: ((a(2, 3),), {}) for name in (*UNARY, *REDUCTIONS, "cumsum", "softmax", "log_softmax",
                                           "flip", "leaky_relu", "elu", "transpose", "flatten",
                                           "squeeze")},
    **{name: ((a(2, 3), a(2, 3)), {}) for name in (*BINARY, "bce_with_logits", "mse", "gaussian_kl",
                                                   "bernoulli_log_likelihood")},
    "arccosh": ((1 + a(2, 3),), {}), "clip": ((a(3), 0, 1), {}), "affine": ((a(3), 2, 1), {}),
    "where": ((a(3) > 0.5, a(3), a(3)), {}),
    "reshape": ((a(2, 3), (3, 2)), {}), "broadcast_to": ((a(3), (2, 3)), {}),
    "pad": ((a(2, 3), 1), {}), "concat": (([a(2, 3), a(2, 3)],), {}),
    "stack": (([a(2, 3), a(2, 3)],), {}), "index": ((a(3), 1), {}),
    "scatter": ((a(2), (3,), slice(0, 2)), {}), "swapaxes": ((a(2, 3), 0, 1), {}),
    "replace_at": ((a(3), a(1), slice(0, 2)), {}), "split": ((a(4), 2), {}),
    "expand_dims": ((a(3), 0), {}), "conv2d": ((X, W, B), {}),
    "conv2d_input": ((a(2, 3, 5, 7), W, (5, 6)), {}),
    "conv2d_weight": ((X, a(2, 3, 5, 7), (3, 2)), {}), "conv_transpose2d": ((X, W, B), {}),
    "matmul": ((a(2, 3), a(3, 4)), {}), "dense": ((a(2, 3), a(3, 4), a(4)), {}),
    "cross_entropy": ((a(2, 3), np.arange(2)), {}),
    "gaussian_log_likelihood": ((a(2, 3),) * 3, {}), "gaussian_kl_between": ((a(2, 3),) * 4, {}),
    "batch_norm": ((X, a(3), a(3)), {}), "normalize": ((X, *[a(3)] * 4), {}),
    "max_pool2d": ((X, 2), {}), "avg_pool2d": ((X, 2), {}),
    "avg_pool2d_input": ((a(2, 3, 3, 2), 6, 2), {}), "upsample2d": ((X, 2), {}),
    "reparametrize": ((a(2, 3),) * 3, {}), "dropout": ((a(2, 3), 0.5, a(2, 3)), {}),
}
KERNELS = {name for name, op in OPS.items() if op.real}      # they know floating point alone


def first(inputs, change):
    """The inputs with the first one (of a list: its first) changed."""
    head, *rest = inputs
    return ([change(head[0]), *head[1:]] if isinstance(head, list) else change(head), *rest)


def test_every_op_has_a_call_that_works(backend):
    assert set(WORKS) == set(SHAPES)
    for name, (inputs, options) in WORKS.items():
        getattr(sg, name)(*inputs, **options)


DTYPES = {"a string": lambda x: np.full(x.shape, "a"), "complex": lambda x: x.astype(complex),
          "float16": lambda x: x.astype(np.float16), "objects": lambda x: x.astype(object),
          "dates": lambda x: np.zeros(x.shape, "M8[s]")}


@pytest.mark.parametrize("name", WORKS)
def test_wrong_dtypes(name, backend):
    inputs, options = WORKS[name]
    for kind, change in DTYPES.items():
        wrong = first(inputs, change)
        said = "" if kind == "a string" else "expected|precision"
        assert_refused(functools.partial(getattr(sg, name), *wrong, **options), name, said)
    if name in KERNELS:
        whole = [x.astype(np.int64) if isinstance(x, np.ndarray) else x for x in inputs]
        call = functools.partial(getattr(sg, name), *whole, **options)
        assert_refused(call, name, "float32 or float64")


@pytest.mark.parametrize("name", [name for name in WORKS if OPS.get(name) and len(
    OPS[name].inputs) > 1 and name not in ("where", "cross_entropy", "bce_with_logits",
                                           "bernoulli_log_likelihood")])
def test_mixed_precision(name, backend):
    """Never computed silently in the wider one."""
    inputs, options = WORKS[name]
    wrong = first(inputs, lambda x: x.astype(np.float64))
    assert_refused(lambda: getattr(sg, name)(*wrong, **options), name,
                   "float32 and float64.*one precision", TypeError)


@pytest.mark.parametrize("wrong", [None, "text", {"a": 1}, object(), [[1.0], [1.0, 2.0]], 1j,
                                   {1, 2}, b"bytes"], ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("name", WORKS)
def test_what_is_no_array(name, wrong):
    inputs, options = WORKS[name]
    assert_refused(lambda: getattr(sg, name)(*first(inputs, lambda x: wrong), **options), name)


def test_a_list_of_numbers_is_an_array():
    x = sg.tensor(a(3, dtype=np.float64), requires_grad=True)
    assert np.array_equal((x * [1.0, 2.0, 5.0]).data, x.data * [1, 2, 5])
    assert np.array_equal(sg.add([1, 2], (3, 4)).data, [4, 6])


# --- tensors themselves --------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "said"), [
    (lambda: sg.tensor([[1.0], [1.0, 2.0]]), "of one length"),
    (lambda: sg.tensor(["a"]), "not <U1"),
    (lambda: sg.tensor(None), "not object"),
    (lambda: sg.tensor([1.0], dtype="flaot"), "dtype 'flaot'"),
    (lambda: sg.tensor([1, 2], requires_grad=True), "int64 cannot require a gradient"),
    (lambda: sg.tensor(a(2, 3)).item(), r"item\(\) of shape \(2, 3\)"),
    (lambda: float(sg.tensor(a(2))), r"float\(\) of shape \(2,\)"),
], ids=name_of)
def test_tensors_made_or_read_wrongly(call, said):
    with pytest.raises(sg.UserError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
