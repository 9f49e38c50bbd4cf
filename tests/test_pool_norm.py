"""Pooling, upsampling and batch norm: kernels = formula, gradients of any order, laws, errors."""

import numpy as np
import pytest
from checks import assert_close, assert_gradients, assert_same_bits_for_two_threads, draw, weighted

import scratchgen as sg
from scratchgen.ops.norm import BatchNorm, Normalize
from scratchgen.ops.pool import AvgPool2d, AvgPool2dInput, MaxPool2d, pooling

BACKENDS = ("numpy", "numba")

# x, size, stride, padding
POOLS = [
    ((2, 6, 8, 3), (2, 2), None, (0, 0)),
    ((2, 7, 9, 4), (3, 2), (2, 3), (1, 0)),
    ((3, 5, 8, 2), (4, 5), (1, 2), (2, 1)),                          # overlap
    ((2, 8, 11, 3), (2, 1), (5, 4), (1, 0)),                         # stride > size
    ((2, 4, 5, 3), (4, 5), (1, 1), (0, 0)),                          # the whole image
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)),
    ((0, 6, 5, 2), (2, 3), None, (1, 1)),                            # empty batch
    ((2, 3, 4, 19), (2, 3), (1, 1), (1, 1)),
]


def distinct(shape, seed=0):
    """Numbers at least 0.1 apart, so that no finite step changes which is the largest."""
    rng = np.random.default_rng(seed)
    return 0.1 * rng.permutation(int(np.prod(shape))).reshape(shape) + 0.03


# --- pooling -------------------------------------------------------------------------------------

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pooling_kernels_equal_formulas(case, backend):
    x_shape, *options = case
    x, = draw(x_shape)
    window = pooling("pool", x, *options)
    g, = draw((x_shape[0], *window.out, x_shape[3]), seed=1)
    with sg.use_backend(backend):
        assert_close(MaxPool2d.forward(x, window=window)[0],
                     MaxPool2d.formula(x, window=window), 0)
        assert_close(AvgPool2d.forward(x, window=window),
                     AvgPool2d.formula(x, window=window), 1e-12)
        assert_close(AvgPool2dInput.forward(g, window=window),
                     AvgPool2dInput.formula(g, window=window), 1e-12)
        # backward by the kernels = backward through the formula
        t = sg.tensor(x, requires_grad=True)
        for f in (sg.max_pool2d, sg.avg_pool2d):
            fast = sg.grad(f(t, *options), t, g)
            slow = sg.grad(f(t, *options), t, g, create_graph=True)
            assert_close(fast.data, slow.data, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [c for c in POOLS if c[0][0]], ids=str)
def test_pooling_gradients(case, backend):
    x_shape, *options = case
    with sg.use_backend(backend):
        for f in (sg.max_pool2d, sg.avg_pool2d):
            assert_gradients(weighted(lambda x, f=f: f(x, *options)), [distinct(x_shape)], order=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_first_of_equal_maxima_gets_the_gradient(backend, create_graph):
    x = sg.tensor(np.ones((1, 2, 3, 1)), requires_grad=True)
    with sg.use_backend(backend):
        dx = sg.grad(sg.max_pool2d(x, (2, 3)).sum(), x, create_graph=create_graph)
    assert dx.data.ravel().tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_pooling_pads_with_minus_infinity_and_keeps_nan(backend):
    with sg.use_backend(backend):
        y = sg.max_pool2d(np.full((1, 3, 5, 2), -4.0), 3, 2, 1)
        assert (y.data == -4).all()
        x = np.zeros((1, 2, 4, 1))
        x[0, 0, 1] = np.nan
        assert np.isnan(sg.max_pool2d(x, 2).data).ravel().tolist() == [True, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_average_pooling_counts_the_border(backend):
    with sg.use_backend(backend):
        y = sg.avg_pool2d(np.ones((1, 2, 2, 1)), 2, 2, 1)
    assert y.data.ravel().tolist() == [0.25] * 4


def test_average_pooling_and_its_transpose():
    """⟨avg_pool2d(x), g⟩ = ⟨x, avg_pool2d_input(g)⟩"""
    x, g = draw((2, 7, 9, 4), (2, 4, 3, 4))
    options = (3, 2), (2, 3), (1, 0)
    left = np.vdot(sg.avg_pool2d(x, *options).data, g)
    right = np.vdot(x, sg.avg_pool2d_input(g, (7, 9), *options).data)
    assert abs(left - right) <= 1e-12 * abs(left)


def test_upsampling():
    x, = draw((2, 3, 4, 5))
    nearest = sg.upsample2d(x, (3, 2)).data
    assert_close(nearest, np.repeat(np.repeat(x, 3, axis=1), 2, axis=2), 0)
    # a ramp stays a ramp between the centres of the first and the last pixel
    ramp = np.arange(4.0)[None, :, None, None] + np.zeros((2, 1, 3, 5))
    bilinear = sg.upsample2d(ramp, (3, 2), "bilinear").data
    expected = np.clip((np.arange(12) + 0.5) / 3 - 0.5, 0, 3)
    assert_close(bilinear, expected[None, :, None, None] + np.zeros((2, 1, 6, 5)), 1e-12)
    for mode in ("nearest", "bilinear"):
        assert_gradients(weighted(lambda x, m=mode: sg.upsample2d(x, (3, 2), m)), [x], order=2)


def test_strided_inputs():
    x, = draw((2, 6, 9, 3))
    strided = np.asfortranarray(x)[:, ::-1]
    for backend in BACKENDS:
        with sg.use_backend(backend):
            for f in (sg.max_pool2d, sg.avg_pool2d):
                assert_close(f(strided, 3, 2, 1).data, f(strided.copy(order="C"), 3, 2, 1).data, 0)


# --- batch norm ----------------------------------------------------------------------------------

NORMS = [(2, 3), (7, 4), (2, 1, 3, 5), (4, 6, 5, 3), (3, 11, 13, 2), (300, 1), (2, 3, 130)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_batch_norm_kernels_equal_formula(shape, activation, backend):
    x, gamma, beta, g = draw(shape, shape[-1:], shape[-1:], shape)
    options = {"eps": 1e-5, "running": None, "activation": activation}
    with sg.use_backend(backend):
        assert_close(BatchNorm.forward(x, gamma, beta, **options)[0],
                     BatchNorm.formula(x, gamma, beta, **options), 1e-12)
        tensors = [sg.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
        fast = sg.grad(sg.batch_norm(*tensors, activation=activation), tensors, g)
        slow = sg.grad(sg.batch_norm(*tensors, activation=activation), tensors, g,
                       create_graph=True)
        for a, b in zip(fast, slow, strict=True):
            # with two rows dx is what is left of terms 1/ε times larger that cancel
            assert_close(a.data, b.data, 1e-12 if shape[0] > 2 else 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(7, 4), (4, 3, 5, 2)], ids=str)
def test_batch_norm_gradients(shape, backend):
    inputs = draw(shape, shape[-1:], shape[-1:])
    mean, var = draw(shape[-1:], shape[-1:], seed=1)
    with sg.use_backend(backend):
        assert_gradients(weighted(lambda *a: sg.batch_norm(*a, eps=1e-2)), inputs, order=2)
        assert_gradients(weighted(lambda *a: sg.batch_norm(*a, mean, var**2 + 0.1, train=False)),
                         inputs, order=2)
        assert_gradients(weighted(sg.normalize), [*inputs, mean, var**2 + 0.1], order=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_normalizes_and_keeps_running_statistics(backend):
    x, = draw((6, 5, 4, 3))
    x = 2 * x + 7
    one, zero = np.ones(3), np.zeros(3)
    running_mean, running_var = zero.copy(), one.copy()
    with sg.use_backend(backend):
        y = sg.batch_norm(x, one, zero, running_mean, running_var, momentum=0.25, eps=0).data
        assert_close(y.mean(axis=(0, 1, 2)) + one, one, 1e-12)
        assert_close(y.var(axis=(0, 1, 2)), one, 1e-12)
        rows = x.reshape(-1, 3)
        assert_close(running_mean, 0.25 * rows.mean(axis=0), 1e-12)
        assert_close(running_var, 0.75 + 0.25 * rows.var(axis=0, ddof=1), 1e-12)
        before = running_mean.copy()
        t = sg.tensor(x, requires_grad=True)
        y = sg.batch_norm(t, one, zero, running_mean, running_var, train=False)
        assert_close(y.data, (x - running_mean) / np.sqrt(running_var + 1e-5), 1e-12)
        assert_close(running_mean, before, 0)
        # a second derivative evaluates the formula, which must not count the batch twice
        y = sg.batch_norm(t, one, zero, running_mean, running_var)
        once = running_mean.copy()
        sg.grad((y * y).sum(), t, create_graph=True)
        assert_close(running_mean, once, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_in_float32_with_a_large_mean(backend):
    """The two-pass variance keeps five digits where Σx² − M·mean² would keep none."""
    x = (1000 + 0.1 * draw((50, 30, 40, 2))[0]).astype(np.float32)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    with sg.use_backend(backend):
        y = sg.batch_norm(x, one, zero, eps=0).data
    rows = x.reshape(-1, 2).astype(np.float64)
    exact = ((rows - rows.mean(axis=0)) / rows.std(axis=0)).reshape(x.shape)
    assert y.dtype == np.float32
    # the mean itself is rounded to float32: 3e-5 of 1000, that is 3e-4 standard deviations
    assert np.abs(y - exact).max() < 5e-4
    assert np.abs(y.reshape(-1, 2).astype(np.float64).std(axis=0) - 1).max() < 1e-5


# --- one thread or two: the same bits -----------------------------------------------------------

def parallel_results():
    """Arrays large enough for the threads to be woken; float32 as in training."""
    x, gamma, beta = (sg.tensor(a, requires_grad=True)
                      for a in draw((7, 26, 23, 5), (5,), (5,), dtype=np.float32))
    largest, mean = sg.max_pool2d(x, 3, 1, 1), sg.avg_pool2d(x, 3, 1, 1)
    y = sg.batch_norm(x, gamma, beta)
    total = (y * y * y).sum() + (largest * mean).sum()
    return [y.data, largest.data, mean.data, *(g.data for g in sg.grad(total, [x, gamma, beta]))]


def test_one_and_two_threads_give_the_same_bits():
    assert_same_bits_for_two_threads("test_pool_norm")


# --- errors --------------------------------------------------------------------------------------

X, C = np.zeros((2, 5, 6, 3)), np.zeros(3)


@pytest.mark.parametrize(("f", "message"), [
    (lambda: sg.max_pool2d(X[0], 2), r"max_pool2d: x \(5, 6, 3\); expected \(N, H, W, C\)"),
    (lambda: sg.max_pool2d(X, 7), r"max_pool2d: the kernel \(7, 7\).*covers"),
    (lambda: sg.max_pool2d(X, 0), r"max_pool2d: size is 0; expected an int of at least 1"),
    (lambda: sg.max_pool2d(X, 2, 0), r"max_pool2d: stride is 0"),
    (lambda: sg.avg_pool2d(X, 3, 1, 2), r"avg_pool2d: padding \(2, 2\) is more than half"),
    (lambda: sg.avg_pool2d_input(X, 4, 2), r"avg_pool2d_input: g .*expected \(N, 2, 2, C\)"),
    (lambda: sg.upsample2d(X, 0), r"upsample2d: scale is 0"),
    (lambda: sg.upsample2d(X, 2, "cubic"), r"mode 'cubic'; expected .*'nearest' or 'bilinear'"),
    (lambda: sg.batch_norm(X, np.ones(4), C), r"batch_norm: x .*gamma \(4,\)"),
    (lambda: sg.batch_norm(X, C, C, train=False), r"train=False needs running_mean"),
    (lambda: sg.batch_norm(X[:1, 0, 0], C, C), r"batch_norm: x \(1, 3\) has fewer than 2 values"),
    (lambda: sg.batch_norm(X[:0], C, C), r"batch_norm: x .* has fewer than 2 values"),
])
def test_errors_say_what_was_expected(f, message):
    with pytest.raises(ValueError, match=message):
        f()


def test_normalize_kernel_is_its_formula():
    x, *others = draw((4, 5, 3), (3,), (3,), (3,), (3,))
    others[3] = others[3] ** 2
    found = sg.normalize(x, *others, eps=1e-3).data
    assert_close(found, Normalize.formula(x, *others, eps=1e-3), 1e-12)
