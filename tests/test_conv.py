"""The convolution family: kernels = formula, adjoint identities, gradients of any order, errors."""

import numpy as np
import pytest
from checks import assert_close, assert_gradients, assert_same_bits_for_two_threads, draw, weighted
from hypothesis import given, settings
from hypothesis import strategies as st

import scratchgen as sg
from scratchgen.ops.conv import Conv2d, Conv2dInput, Conv2dWeight, ConvTranspose2d
from scratchgen.ops.window import sliding, spreading

BACKENDS = ("numpy", "numba")

# (N, H, W, C), (KH, KW, C, O), stride, padding, dilation
CASES = [
    ((2, 7, 9, 3), (4, 5, 3, 6), (1, 1), (0, 0), (1, 1)),
    ((2, 7, 9, 3), (4, 5, 3, 6), (3, 2), (2, 1), (1, 1)),
    ((3, 8, 10, 2), (3, 2, 2, 5), (2, 3), (1, 2), (3, 4)),           # dilation
    ((2, 8, 11, 3), (2, 1, 3, 4), (5, 4), (0, 1), (1, 1)),           # stride > kernel
    ((3, 5, 4, 2), (1, 1, 2, 6), (1, 1), (0, 0), (1, 1)),            # x is its own patches
    ((3, 5, 4, 2), (1, 1, 2, 6), (2, 3), (0, 0), (1, 1)),
    ((2, 3, 8, 5), (1, 4, 5, 6), (1, 4), (0, 0), (1, 1)),            # patches side by side
    ((2, 3, 9, 5), (1, 4, 5, 6), (1, 4), (0, 0), (1, 1)),            # with a column left over
    ((3, 5, 4, 2), (1, 1, 2, 6), (1, 1), (2, 1), (1, 1)),
    ((2, 4, 5, 3), (4, 5, 3, 6), (7, 2), (0, 0), (1, 1)),            # one patch an image
    ((2, 4, 5, 3), (4, 5, 3, 6), (1, 1), (0, 1), (1, 1)),
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1)),
    ((1, 1, 6, 1), (3, 2, 1, 1), (1, 1), (1, 0), (1, 2)),
    ((2, 3, 5, 4), (5, 6, 4, 1), (2, 1), (3, 7), (1, 1)),            # border wider than the image
    ((0, 6, 5, 2), (3, 4, 2, 7), (2, 1), (1, 0), (1, 1)),            # empty batch
    ((5, 6, 17, 19), (2, 3, 19, 4), (1, 2), (0, 1), (1, 1)),         # longer runs
]
DIFFERENTIABLE = [CASES[i] for i in (1, 2, 3, 5, 6, 9, 13)]

# x, kernel of conv_transpose2d, stride, padding, output_padding, dilation
TRANSPOSED = [
    ((2, 4, 5, 3), (3, 2, 3, 6), (1, 1), (0, 0), (0, 0), (1, 1)),
    ((2, 4, 5, 3), (5, 4, 3, 6), (3, 2), (2, 1), (1, 0), (1, 1)),
    ((3, 2, 4, 5), (3, 2, 5, 6), (2, 1), (1, 2), (1, 2), (2, 3)),    # output_padding ≥ stride
    ((2, 3, 4, 5), (1, 2, 5, 6), (4, 3), (0, 0), (3, 1), (1, 1)),    # stride > kernel
    ((2, 1, 1, 5), (3, 4, 5, 6), (1, 1), (0, 0), (0, 0), (1, 1)),    # the first layer of a DCGAN
    ((0, 2, 3, 5), (3, 4, 5, 6), (2, 1), (1, 1), (0, 0), (1, 1)),
]


def assert_kernels_equal_formulas(x_shape, w_shape, stride, padding, dilation, rtol=1e-12,
                                  dtype=np.float64):
    window = sliding("conv2d", x_shape[1:3], w_shape[:2], stride, padding, dilation)
    x, w, b, g = draw(x_shape, w_shape, w_shape[3:], (x_shape[0], *window.out, w_shape[3]),
                      dtype=dtype)
    assert_close(Conv2d.forward(x, w, b, window=window),
                 Conv2d.formula(x, w, b, window=window), rtol)
    assert_close(Conv2dInput.forward(g, w, window=window),
                 Conv2dInput.formula(g, w, window=window), rtol)
    assert_close(Conv2dWeight.forward(x, g, window=window),
                 Conv2dWeight.formula(x, g, window=window), rtol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_formulas(case, backend):
    with sg.use_backend(backend):
        assert_kernels_equal_formulas(*case)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_stays_float32(backend):
    with sg.use_backend(backend):
        assert_kernels_equal_formulas(*CASES[1], rtol=1e-5, dtype=np.float32)
        x, w, b = (sg.tensor(a, requires_grad=True)
                   for a in draw(*CASES[1][:2], (6,), dtype=np.float32))
        y = sg.conv_transpose2d(sg.conv2d(x, w, b), np.swapaxes(w, 2, 3), stride=2)
        y.sum().backward()
        assert {t.dtype for t in (y, x.grad, w.grad, b.grad)} == {np.dtype(np.float32)}


def test_formula_is_the_definition():
    """y[n, i, j, o] = b[o] + Σ x[n, i·s + u·d − p, j·s + v·d − p, c] w[u, v, c, o], by loops."""
    (n, h, width, c), (kh, kw, _, o), (sh, sw), (ph, pw), (dh, dw) = CASES[2]
    x, w, b = draw(*CASES[2][:2], (o,))
    y = sg.conv2d(x, w, b, (sh, sw), (ph, pw), (dh, dw)).data
    for image, i, j in np.ndindex(y.shape[:3]):
        expected = b.copy()
        for u, v in np.ndindex(kh, kw):
            row, column = i * sh + u * dh - ph, j * sw + v * dw - pw
            if 0 <= row < h and 0 <= column < width:
                expected += x[image, row, column] @ w[u, v]
        assert_close(y[image, i, j], expected, 1e-12)


def test_formula_takes_complex_numbers():
    """The complex step sees the exact derivative: the formulas are analytic."""
    x, w, g = draw(*CASES[2][:2], CASES[2][0])
    window = sliding("conv2d", x.shape[1:3], w.shape[:2], *CASES[2][2:])
    step = Conv2d.formula(x + 1e-30j * g, w, None, window=window).imag / 1e-30
    assert_close(step, Conv2d.forward(g, w, None, window=window), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_three_maps_are_each_others_transposes(case, backend):
    """⟨conv2d(x, w), g⟩ = ⟨x, conv2d_input(g, w)⟩ = ⟨w, conv2d_weight(x, g)⟩"""
    x_shape, w_shape, *options = case
    window = sliding("conv2d", x_shape[1:3], w_shape[:2], *options)
    x, w, g = draw(x_shape, w_shape, (x_shape[0], *window.out, w_shape[3]))
    with sg.use_backend(backend):
        y = sg.conv2d(x, w, None, *options).data
        dx = sg.conv2d_input(g, w, x_shape[1:3], *options).data
        dw = sg.conv2d_weight(x, g, w_shape[:2], *options).data
    forms = [np.vdot(y, g), np.vdot(x, dx), np.vdot(w, dw)]
    scale = np.vdot(np.abs(y), np.abs(g)) + 1e-300
    assert max(forms) - min(forms) <= 1e-12 * scale


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_conv2d_gradients(case, backend):
    x_shape, w_shape, *options = case
    with sg.use_backend(backend):
        assert_gradients(weighted(lambda x, w, b: sg.conv2d(x, w, b, *options)),
                         draw(x_shape, w_shape, w_shape[3:]), order=2)


def test_conv2d_input_and_weight_gradients():
    x_shape, w_shape, *options = CASES[1]
    g_shape = sg.conv2d(*draw(x_shape, w_shape), None, *options).shape
    assert_gradients(weighted(lambda g, w: sg.conv2d_input(g, w, x_shape[1:3], *options)),
                     draw(g_shape, w_shape), order=2)
    assert_gradients(weighted(lambda x, g: sg.conv2d_weight(x, g, w_shape[:2], *options)),
                     draw(x_shape, g_shape), order=2)


def test_third_order():
    assert_gradients(weighted(lambda x, w: sg.conv2d(x, w, None, 2, 1)),
                     draw((2, 4, 5, 3), (3, 2, 3, 4)), order=3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_conv_transpose2d(case, backend):
    x_shape, w_shape, stride, padding, output_padding, dilation = case
    x, w, b = draw(x_shape, w_shape, w_shape[3:])
    window = spreading("conv_transpose2d", x_shape[1:3], w_shape[:2], stride, padding,
                       output_padding, dilation)

    def f(x, w, b):
        return sg.conv_transpose2d(x, w, b, stride, padding, output_padding, dilation)

    with sg.use_backend(backend):
        assert_close(f(x, w, b).data, ConvTranspose2d.formula(x, w, b, window=window), 1e-12)
        if x.size:
            assert_gradients(weighted(f), [x, w, b], order=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend):
    """Transposed, flipped and zero-stride arrays are legal, for values and gradients alike."""
    x, w, g = draw((2, 7, 9, 3), (4, 5, 3, 6), (2, 4, 5, 6))
    strided_x = np.ascontiguousarray(x.transpose(3, 1, 0, 2)).transpose(2, 1, 3, 0)
    strided_w = np.ascontiguousarray(w[::-1, :, ::-1])[::-1, :, ::-1]
    constant = np.broadcast_to(g[:1, :1, :1], g.shape)
    assert not strided_x.flags.c_contiguous and not strided_w.flags.c_contiguous
    with sg.use_backend(backend):
        for gradient in (g, constant, g[:, ::-1]):
            results = []
            for data in ((x, w, gradient.copy()), (strided_x, strided_w, gradient)):
                tensors = [sg.Tensor(a) for a in data[:2]]
                for t in tensors:
                    t.requires_grad = True
                y = sg.conv2d(*tensors)
                results.append([y.data, *(t.data for t in sg.grad(y, tensors, data[2]))])
            for plain, strided in zip(*results, strict=True):
                assert_close(strided, plain, 1e-13)


def test_only_wanted_gradients_are_computed(monkeypatch):
    x, w, b = draw((2, 7, 9, 3), (4, 5, 3, 6), (6,))
    monkeypatch.setattr(Conv2dInput, "forward", lambda *a, **o: pytest.fail("dx was computed"))
    w = sg.tensor(w, requires_grad=True)
    sg.conv2d(x, w, b).sum().backward()
    assert w.grad.shape == w.shape


@pytest.mark.parametrize("n, size", [(70, 28), (3, 90), (41, 33)])
def test_large_batches_go_in_parts(n, size):
    """Many images at a time, or parts of unequal size: the values of the plain version."""
    results = []
    for backend in BACKENDS:
        with sg.use_backend(backend):
            x, w, b = (sg.tensor(a, requires_grad=True)
                       for a in draw((n, size, size, 3), (4, 5, 3, 6), (6,)))
            y = sg.conv2d(x, w, b, stride=2)
            results.append([y.data, *(g.data for g in sg.grad((y * y).sum(), [x, w, b]))])
    for numba, numpy in zip(*results, strict=True):
        assert_close(numba, numpy, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus"])
@pytest.mark.parametrize("convolution", [sg.conv2d, sg.conv_transpose2d])
def test_an_activation_is_computed_along(convolution, activation, backend):
    """As the convolution and the activation one after the other, twice differentiable."""
    with sg.use_backend(backend):
        for size, kernel, options in [((5, 7), (4, 3), {"stride": 2, "padding": 1}),
                                      ((3, 4), (3, 4), {}), ((3, 2), (1, 1), {})]:
            arrays = draw((3, *size, 2), (*kernel, 2, 4), (4,))
            inputs = [sg.tensor(a, requires_grad=True) for a in arrays]
            together = convolution(*inputs, activation=activation, **options)
            apart = getattr(sg, activation)(convolution(*inputs, **options))
            assert_close(together.data, apart.data, 1e-13)
            (g,) = draw(apart.shape, seed=1)
            found = sg.grad(together, inputs, g)
            for one, other in zip(found, sg.grad(apart, inputs, g), strict=True):
                assert_close(one.data, other.data, 1e-12)
            assert_gradients(weighted(lambda *a, o=options: convolution(
                *a, activation=activation, **o)), arrays, order=2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_shape(data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    n, c, o = (data.draw(st.integers(low, 4)) for low in (0, 1, 1))
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 4), pair(0, 3), pair(1, 3)
    least = [max(1, d * (k - 1) + 1 - 2 * p)
             for k, p, d in zip(kernel, padding, dilation, strict=True)]
    size = [data.draw(st.integers(m, m + 5)) for m in least]
    for backend in BACKENDS:
        with sg.use_backend(backend):
            assert_kernels_equal_formulas((n, *size, c), (*kernel, c, o), stride, padding, dilation)


# --- one thread or two: the same bits -----------------------------------------------------------

def parallel_results():
    """Arrays large enough for the threads to be woken; float32 as in training."""
    x, w, b = (sg.tensor(a, requires_grad=True)
               for a in draw((7, 26, 23, 5), (5, 4, 5, 6), (6,), dtype=np.float32))
    y = sg.conv2d(x, w, b, (2, 1), (2, 1))
    return [y.data, *(g.data for g in sg.grad((y * y).sum(), [x, w, b]))]


def test_one_and_two_threads_give_the_same_bits():
    assert_same_bits_for_two_threads("test_conv")


# --- errors --------------------------------------------------------------------------------------

X, W = np.zeros((2, 5, 6, 3)), np.zeros((4, 3, 3, 7))


@pytest.mark.parametrize(("f", "message"), [
    (lambda: sg.conv2d(X[0], W), r"conv2d: x \(5, 6, 3\).*expected \(N, H, W, C\)"),
    (lambda: sg.conv2d(X, W[0]), r"conv2d: .*w \(3, 3, 7\).*expected"),
    (lambda: sg.conv2d(X[..., :2], W), r"conv2d: x \(2, 5, 6, 2\), w \(4, 3, 3, 7\)"),
    (lambda: sg.conv2d(X, W, np.zeros(3)), r"b \(3,\); expected .* \(O,\)"),
    (lambda: sg.conv2d(X, np.zeros((6, 3, 3, 7))), r"kernel \(6, 3\).*covers \(6, 3\), more"),
    (lambda: sg.conv2d(X, W, dilation=2), r"dilation \(2, 2\) covers \(7, 5\)"),
    (lambda: sg.conv2d(X, W, stride=0), r"conv2d: stride is 0; expected an int of at least 1"),
    (lambda: sg.conv2d(X, W, stride=1.5), r"stride is 1.5"),
    (lambda: sg.conv2d(X, W, padding=(1, 2, 3)), r"padding is \(1, 2, 3\); .* or a pair"),
    (lambda: sg.conv2d(X, W, padding=-1), r"padding is -1; expected an int of at least 0"),
    (lambda: sg.conv_transpose2d(X, W, stride=2, output_padding=2),
     r"conv_transpose2d: output_padding \(2, 2\) must be smaller than stride \(2, 2\)"),
    (lambda: sg.conv_transpose2d(X, W, padding=9), r"conv_transpose2d: .*expected less padding"),
    (lambda: sg.conv_transpose2d(X[..., :1], W), r"conv_transpose2d: x \(2, 5, 6, 1\)"),
    (lambda: sg.conv2d_input(X, W, 9), r"conv2d_input: g .*expected \(N, 6, 7, O\)"),
    (lambda: sg.conv2d_weight(X, X, 3), r"conv2d_weight: .*\(2, 3, 4, O\)"),
])
def test_errors_say_what_was_expected(f, message):
    with pytest.raises(ValueError, match=message):
        f()
