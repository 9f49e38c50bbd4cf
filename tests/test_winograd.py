"""Convolution with fewer products: the algebra, exactly; the kernels; and when they are taken."""

import pathlib
import re

import numpy as np
import pytest
from checks import assert_close, assert_gradients, draw, weighted
from scratchgen.kernels import compiler, conv2d, winograd
from scratchgen.kernels import minimal_filter as matrices
from scratchgen.kernels.conv2d_chooser import uses_winograd
from scratchgen.kernels.minimal_filter import POINTS, axis, count_lanes, minimal_filter, tile_of
from test_conv import assert_kernels_equal_formulas

import scratchgen as sg

# x, w, stride, padding, dilation
CASES = [
    ((3, 8, 10, 2), (4, 4, 2, 5), (2, 2), (1, 1), (1, 1)),           # as in a DCGAN
    ((2, 9, 11, 3), (4, 4, 3, 5), (2, 2), (1, 1), (1, 1)),           # a row and a column left over
    ((5, 7, 6, 2), (3, 3, 2, 4), (1, 1), (1, 1), (1, 1)),            # the usual 3 × 3
    ((2, 6, 9, 3), (2, 3, 3, 4), (1, 1), (0, 2), (1, 1)),
    ((2, 12, 7, 4), (4, 3, 4, 2), (2, 1), (1, 0), (1, 1)),           # two taps down, three across
    ((3, 13, 14, 2), (6, 9, 2, 3), (3, 3), (0, 2), (1, 1)),
    ((1, 3, 4, 2), (3, 2, 2, 1), (1, 1), (0, 0), (1, 1)),            # a single row of outputs
    ((2, 3, 5, 4), (4, 6, 4, 3), (2, 2), (3, 7), (1, 1)),            # border wider than the image
    ((70, 4, 5, 1), (2, 2, 1, 2), (1, 1), (0, 1), (1, 1)),           # more images than go at once
]


def dense(matrix, one, rows, columns):
    """A sparse matrix of an ``Axis``, written out."""
    out = np.zeros((rows, columns))
    for i in range(rows):
        for k in range(one.terms[matrix, i]):
            out[i, one.index[matrix, i, k]] += one.weight[matrix, i, k]
    return out


def correlation(w, n):
    """y = T x: the matrix (n, n + r − 1) of a filter."""
    return np.array([np.concatenate([np.zeros(i), w, np.zeros(n - 1 - i)]) for i in range(n)])


@pytest.mark.parametrize("m, r", [(1, 2), (2, 2), (3, 2), (1, 3), (2, 3)])
def test_a_tile_is_the_sum_with_fewer_products(m, r):
    """y = Aᵀ((G w) ∘ (Bᵀ x)), exactly: the numbers are halves of whole ones."""
    assert m <= tile_of(r)
    bt, g, at = minimal_filter(m, r)
    assert bt.shape == (m + r - 1, m + r - 1) and g.shape == (m + r - 1, r)
    rng = np.random.default_rng(3)
    for _ in range(20):
        w, x = rng.integers(-9, 9, r).astype(float), rng.integers(-9, 9, m + r - 1).astype(float)
        assert np.array_equal(at @ ((g @ w) * (bt @ x)), correlation(w, m) @ x)


def test_the_smallest_tile_is_the_trick_that_saves_a_product():
    """Winograd's F(2, 2): (x0 − x1) w0, x1 (w0 + w1), (x2 − x1) w1."""
    bt, g, at = minimal_filter(2, 2)
    scale = np.array([-1, 1, 1])                       # of the first point, on both sides
    assert np.array_equal(bt * scale[:, None], [[1, -1, 0], [0, -1, 1], [0, 1, 0]])
    assert np.array_equal(g * scale[:, None], [[1, 0], [0, 1], [1, 1]])
    assert np.array_equal(at, [[1, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("r", [2, 3])
@pytest.mark.parametrize("n", range(1, 12))
def test_an_axis_of_tiles_is_the_sum(n, r):
    one = axis(n, r, np.dtype(np.float64))
    lanes = one.first[-1]
    assert lanes == count_lanes(n, r) < n * r or n == 1
    b = dense(matrices.INPUTS, one, lanes, n + r - 1)
    a = dense(matrices.LANES_OF_OUTPUT, one, n, lanes)
    assert np.array_equal(b.T, dense(matrices.LANES_OF_INPUT, one, n + r - 1, lanes))
    assert np.array_equal(a.T, dense(matrices.OUTPUTS, one, lanes, n))
    g = dense(matrices.TAPS, one, len(POINTS), r)
    assert np.array_equal(g.T, dense(matrices.POINTS_OF_TAP, one, r, len(POINTS)))
    point = np.repeat(np.arange(len(POINTS)), np.diff(one.first))
    w = np.random.default_rng(n).integers(-9, 9, r).astype(float)
    assert np.array_equal(a @ np.diag((g @ w)[point]) @ b, correlation(w, n))
    assert set(np.abs(one.weight).ravel()) <= {0, 0.5, 1, 2}           # exact in any precision
    assert one.first[1] == max(np.diff(one.first))     # space is made for the lanes of point 0


@pytest.fixture
def taken(monkeypatch):
    """Which of the three kernels were called."""
    names = []

    def watched(kernel):
        def spy(*arguments):
            names.append(kernel.__name__)
            kernel(*arguments)
        return spy
    for kernel in (winograd.forward, winograd.backward_x, winograd.backward_w):
        monkeypatch.setattr(winograd, kernel.__name__, watched(kernel))
    return names


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_formulas(case, taken):
    with sg.use_backend("numba"), sg.use_convolution("winograd"):
        assert_kernels_equal_formulas(*case)
        assert_kernels_equal_formulas(*case, rtol=1e-5, dtype=np.float32)
    assert taken == 2 * ["forward", "backward_x", "backward_w"]


@pytest.mark.parametrize("case", [CASES[1], CASES[4]], ids=str)
def test_gradients_of_any_order(case, taken):
    x_shape, w_shape, *options = case
    with sg.use_backend("numba"), sg.use_convolution("winograd"):
        assert_gradients(weighted(lambda x, w, b: sg.conv2d(x, w, b, *options, activation="tanh")),
                         draw(x_shape, w_shape, w_shape[3:]), order=2)
    assert set(taken) == {"forward", "backward_x", "backward_w"}


def test_transposed_convolution(taken):
    x, w, b = draw((3, 5, 4, 2), (4, 4, 2, 3), (3,))
    with sg.use_backend("numpy"):
        expected = sg.conv_transpose2d(x, w, b, 2, 1, activation="sigmoid").data
    with sg.use_backend("numba"), sg.use_convolution("winograd"):
        assert_close(sg.conv_transpose2d(x, w, b, 2, 1, activation="sigmoid").data, expected, 1e-12)
    assert taken == ["backward_x"]


def test_single_precision_loses_no_more_than_sums_of_patches():
    """Root mean square errors in a layer of a DCGAN, of both ways, beside float64's result: with
    few points the matrices hold no large numbers. Within a factor of two."""
    rng = np.random.default_rng(5)
    x, g = rng.normal(size=(16, 14, 14, 64)), rng.normal(size=(16, 7, 7, 128))
    w = rng.normal(size=(4 * 4 * 64, 128)) / 32
    geometry = (4, 4), (2, 2), (1, 1)
    exact = [np.empty_like(g), np.empty_like(x), np.empty_like(w)]
    given = [(x, w, np.zeros(128), 0), (g, np.ascontiguousarray(w.T), np.zeros(64), 0), (x, g)]
    for kernel, arguments, out, name in zip(
            (conv2d.forward_numpy, conv2d.backward_x_numpy, conv2d.backward_w_numpy), given, exact,
            ("forward", "backward_x", "backward_w"), strict=True):
        kernel(*arguments, *geometry, (1, 1), out)
        single = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in arguments]
        errors = {}
        for way in ("patches", "winograd"):
            found = np.empty(out.shape, np.float32)
            with sg.use_convolution(way), compiler.Pool.free:
                getattr(conv2d, f"{name}_numba")(*single, *geometry, (1, 1), found)
            errors[way] = float(np.sqrt(np.mean((found - out)**2) / np.mean(out**2)))
        assert errors["winograd"] <= 2 * errors["patches"] <= 2e-6, (name, errors)


def chosen(x, y, kernel, stride=(2, 2), dilation=(1, 1)):
    return uses_winograd(x, y, kernel, stride, dilation)


def test_taken_where_it_pays():
    """The second layers of the DCGAN and the convolutional VAE of the benchmarks, not the first."""
    assert chosen((64, 14, 14, 64), (64, 7, 7, 128), (4, 4))
    assert chosen((128, 14, 14, 32), (128, 7, 7, 64), (4, 4))
    assert chosen((64, 16, 16, 16), (64, 16, 16, 16), (3, 3), (1, 1))
    assert not chosen((64, 28, 28, 1), (64, 14, 14, 64), (4, 4))     # one channel
    assert not chosen((1, 14, 14, 64), (1, 7, 7, 128), (4, 4))       # mostly filters to transform
    with sg.use_convolution("patches"):
        assert not chosen((64, 14, 14, 64), (64, 7, 7, 128), (4, 4))
    with sg.use_convolution("winograd"):
        assert chosen((1, 14, 14, 3), (1, 7, 7, 5), (4, 4))


@pytest.mark.parametrize("kernel, stride, dilation", [
    ((4, 4), (2, 2), (2, 2)), ((4, 4), (4, 4), (1, 1)), ((5, 5), (2, 2), (1, 1)),
    ((4, 4), (1, 1), (1, 1)), ((3, 2), (1, 2), (1, 1))], ids=str)
def test_what_it_cannot_do_is_left_to_patches(kernel, stride, dilation, taken):
    case = (3, 12, 13, 2), (*kernel, 2, 3), stride, (1, 1), dilation
    with sg.use_backend("numba"), sg.use_convolution("winograd"):
        assert_kernels_equal_formulas(*case)
    assert not taken


def test_the_example_of_the_page_runs():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "winograd.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "assert len(bt) == 4" in example
    exec(compile(example, "docs/winograd.md", "exec"), {})


@pytest.mark.parametrize("outputs, taps, plain, fewer, both", [
    (7, 2, 14, 10, 0.51), (14, 2, 28, 19, 0.46), (16, 3, 48, 32, 0.44)])
def test_the_counts_of_the_page(outputs, taps, plain, fewer, both):
    assert (outputs * taps, count_lanes(outputs, taps)) == (plain, fewer)
    assert round((fewer / plain)**2, 2) == both
