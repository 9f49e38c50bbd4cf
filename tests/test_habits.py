"""What a user of NumPy or PyTorch types in the first hour: NumPy's value, and a gradient.

An expression is evaluated twice: with arrays, by NumPy, and with tensors. Where there is a
derivative it is checked too, of first and second order; where there is none the result is plain.
"""

import math
import re

import numpy as np
import pytest
from checks import name_of

import scratchgen as sg
from scratchgen import nn
from scratchgen.engine.memory import to_host
from scratchgen.engine.tensor import NUMPY_FUNCTIONS

RNG = np.random.default_rng(5)
ARRAYS = {
    "x": 0.1 * RNG.permutation(24).reshape(2, 3, 4) - 1.13,          # no ties, no zeros
    "m": 0.1 * RNG.permutation(12).reshape(3, 4) - 0.53 + RNG.uniform(0, 0.02, (3, 4)),
    "n": RNG.normal(size=(4, 5)),
    "s": RNG.normal(size=(3, 3)), "v": 0.17 * RNG.permutation(4) - 0.213,
    "u": RNG.uniform(0.1, 0.9, (2, 3)), "b": RNG.normal(size=(5, 3, 4)),
    "c": RNG.normal(size=(5, 4, 2)),
}
INDEX = {"i": np.array([2, 0, 2]), "j": np.array([[1, 0, 2], [0, 0, 1]]),
         "mask": np.arange(12).reshape(3, 4) % 3 == 0, "np": np, "sg": sg, "math": math}

# Typed alike with arrays and with tensors.
ALIKE = """
np.exp(x) | np.log(u) | np.log2(u) | np.log10(u) | np.exp2(x) | np.sqrt(u) | np.cbrt(u)
np.abs(x) | np.sin(x) | np.cos(x) | np.tan(u) | np.arcsin(u) | np.arccos(u) | np.arctan(x)
np.sinh(x) | np.cosh(x) | np.tanh(x) | np.arcsinh(x) | np.arccosh(u + 1) | np.arctanh(u)
np.square(x) | np.arctan2(u, -u) | np.hypot(m, v) | np.logaddexp(m, v) | np.reciprocal(u)
np.fabs(x) | +x | np.positive(x) | np.float_power(u, 2) | np.deg2rad(x) | np.radians(x)
np.degrees(x) | x % 0.7 | np.rad2deg(x) | np.mod(x, 0.7) | np.nan_to_num(x) | np.maximum(m, v)
np.minimum(m, 0.1) | -x | x ** 2 | u ** -0.5 | 2 ** x | 1 / u | 3 - x | x + 1 | x * 2 | x / 2
m @ n | b @ c | v @ n | m @ v | np.power(u, 1.5) | np.negative(x) | np.matmul(m, n)
np.subtract(m, v) | np.divide(m, u[0, 0]) | np.sum(x) | np.sum(x, axis=0) | np.sum(x, 1)
np.sum(x, axis=(0, -1), keepdims=True) | x.sum() | np.sum(a=x, axis=1)
np.sum(x, axis=0, dtype=None) | np.mean(x, axis=0, dtype=None, out=None) | np.mean(x)
x.mean(axis=1) | x.mean(0, keepdims=True) | np.max(x, axis=1) | np.amin(x, axis=(0, 1))
np.amax(x) | x.max(axis=-1) | x.min() | np.prod(u) | np.prod(x, axis=1) | x.prod(axis=(0, 2))
np.cumsum(x) | np.cumsum(x, axis=1) | x.cumsum(axis=0) | np.cumprod(u) | np.cumprod(x, axis=-1)
np.var(x) | np.var(x, axis=1) | np.var(x, axis=0, ddof=1) | x.var(ddof=1) | np.std(x, axis=(0, 1))
x.std(axis=1, keepdims=True) | np.std(x, ddof=1) | np.var(x, correction=1)
np.var(x, 0, None, None) | np.linalg.norm(x) | np.linalg.norm(m, axis=1)
np.linalg.norm(m, 1, axis=0) | np.linalg.norm(m, 1) | np.linalg.norm(m, np.inf)
np.linalg.norm(m, -1) | np.linalg.norm(m, "fro") | np.linalg.norm(v, 3)
np.linalg.norm(v, np.inf) | np.linalg.norm(v, -np.inf)
np.linalg.norm(m, 2, axis=0, keepdims=True) | np.linalg.norm(x, axis=(0, 2))
np.linalg.norm(m, -np.inf, axis=(0, 1), keepdims=True) | np.median(x) | np.median(m, axis=0)
np.median(x, axis=(0, 1), keepdims=True) | np.quantile(x, 0.3)
np.quantile(m, [0, 0.25, 1], axis=0) | np.percentile(x, 10, axis=1) | np.percentile(m, [20, 80])
np.average(x) | np.average(m, axis=1, weights=v) | np.average(x, weights=np.abs(x)) | np.ptp(x)
np.ptp(x, axis=0) | np.nansum(x, axis=1) | np.nanmean(x) | np.diff(x) | np.diff(m, n=2, axis=0)
np.dot(m, n) | np.dot(v, v) | np.dot(m, v) | np.dot(2.0, v) | np.dot(x, n) | v.dot(v) | m.dot(n)
np.vdot(m, m) | np.inner(m, m) | np.inner(v, v) | np.outer(v, u) | np.tensordot(x, b, ([1], [1]))
np.tensordot(m, n, 1) | np.tensordot(m, m) | np.trace(m) | np.trace(x, axis1=1, axis2=2, offset=1)
np.einsum("ij,jk->ik", m, n) | np.einsum("ij,jk", m, n) | np.einsum("ii", s)
np.einsum("ii->i", s) | np.einsum("ij->ji", m) | np.einsum("ij->", m)
np.einsum("bij,bjk->bik", b, c) | np.einsum("...ij,...jk->...ik", b, c)
np.einsum("i,j->ij", v, v) | np.einsum("ij,ij->i", m, m) | np.einsum("ij,jk,kl->il", s, m, n)
np.einsum("bij,ij->b", b, m) | np.einsum("ij,j", m, v) | np.einsum("...j,j->...", x, v)
np.einsum("iji->j", sg_swap(s)) | np.einsum("i,i,i->", v, v, v) | np.einsum("ba,ca", m, m)
np.einsum("ij,kl->", s, m) | np.einsum("ij,jk->ik", m, n, optimize=True)
np.einsum("ij,jk->ik", m[:, :1], n) | np.einsum("ij,kj->k", s, s) | np.reshape(x, (6, 4))
x.reshape(4, 6) | x.reshape((2, -1)) | x.T | np.transpose(x, (1, 0, 2)) | x.transpose(2, 0, 1)
x.transpose((2, 0, 1)) | np.swapaxes(x, 0, 2) | x.swapaxes(0, 1) | np.moveaxis(x, 0, -1)
np.moveaxis(x, [0, 1], [-1, 0]) | np.ravel(x) | x.ravel() | x.flatten() | np.expand_dims(x, 1)
np.squeeze(x[:1]) | x[:1].squeeze() | np.squeeze(x[:1], axis=0) | x[None, :, 0]
np.broadcast_to(v, (3, 4)) | np.concatenate([m, s], axis=1) | np.concatenate((m, m)) | x[..., -1]
np.concat([m, m]) | np.stack([m, m], axis=1) | np.vstack([m, v]) | np.hstack([m, s])
np.vstack(m) | np.hstack([v, v]) | np.dstack([m, m]) | np.dstack([v, v]) | np.column_stack([v, v])
x[1, ::-1] | np.column_stack([m, s]) | np.append(v, 1.5) | np.append(m, m, axis=0)
np.atleast_1d(v[0]) | np.atleast_2d(v) | np.atleast_3d(v) | np.atleast_3d(m)
np.split(m, 2, axis=1)[1] | x[:, i] | np.split(v, [1, 3])[1] | np.array_split(v, 3)[0]
np.array_split(v, 3)[2] | np.hsplit(m, 2)[0] | np.vsplit(m, 3)[1] | np.unstack(m)[1]
np.tile(v, 3) | np.tile(m, (2, 1)) | np.tile(m, (2, 1, 2)) | np.repeat(v, 2)
np.repeat(m, 3, axis=1) | np.repeat(m, [2, 0, 1], axis=0) | v.repeat(2) | m[mask] | np.roll(m, 1)
np.roll(m, -2, axis=1) | np.roll(m, (1, 5), axis=(0, 1)) | np.flip(x) | x[x > 0]
np.flip(x, axis=1) | np.fliplr(m) | np.flipud(m) | np.pad(m, 1) | np.pad(m, ((1, 0), (0, 2)))
np.pad(m, pad_width=1, mode="constant") | np.take(m, i, axis=1) | np.take(m, [1, -1])
m.take(i, axis=0) | np.take_along_axis(m, np.argsort(m, axis=1), axis=1) | np.sort(m)
np.sort(x, axis=None) | np.sort(x, axis=0) | np.diag(s) | np.diag(v) | np.diag(v, -1)
np.diag(m, 1) | np.diagonal(x, 1, 1, 2) | x.diagonal() | np.tril(m) | np.tril(x, 1)
np.triu(m, -1) | np.where(m > 0, m, 0) | m.trace() | np.where(mask, m, -m) | np.clip(x, -0.5, 0.6)
np.clip(x, a_min=0, a_max=None) | np.clip(m, v, None) | np.clip(x, None, 0.3) | x.clip(-0.5, 0.5)
x.clip(max=0.2) | np.clip(x, min=-0.4, max=0.2) | abs(x) | np.nan_to_num(x, nan=1.0)
(x - x.mean(axis=0)) / x.std(axis=0) | np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
np.array_split(np.ravel(x), 5)[1] | np.swapaxes(a=x, axis1=0, axis2=1)
np.reshape(x, shape=(4, 6))
"""
# With other names than NumPy's: ours, and what NumPy calls it.
TRANSLATED = """
x.exp() : np.exp(x) | u.log() : np.log(u) | u.sqrt() : np.sqrt(u) | x.square() : np.square(x)
x.abs() : np.abs(x) | x.tanh() : np.tanh(x) | x.sigmoid() : 1 / (1 + np.exp(-x))
x.relu() : np.maximum(x, 0) | x.pow(2) : x ** 2 | x.sin() : np.sin(x) | x.cos() : np.cos(x)
u.reciprocal() : 1 / u | u.log1p() : np.log1p(u) | u.expm1() : np.expm1(u)
x.view(4, 6) : x.reshape(4, 6) | x.permute(2, 0, 1) : x.transpose(2, 0, 1)
m.unsqueeze(1) : m[:, None] | m.expand_dims(0) : m[None] | x.mT : np.swapaxes(x, -1, -2)
m.expand(2, 3, 4) : np.broadcast_to(m, (2, 3, 4))
m[:1].expand(5, -1) : np.broadcast_to(m[:1], (5, 4)) | x.flatten(1) : x.reshape(2, 12)
x.clamp(min=0) : np.maximum(x, 0) | x.clamp(-0.5, 0.5) : np.clip(x, -0.5, 0.5)
m.masked_fill(mask, 2) : np.where(mask, 2, m) | m.masked_select(mask) : m[mask]
m.index_select(1, i) : m[:, i] | m.gather(1, i[:, None]) : np.take_along_axis(m, i[:, None], 1)
sg.gather(m, 0, j) : m[j, np.arange(3)] | x.norm() : np.linalg.norm(x)
m.norm(axis=1) : np.linalg.norm(m, axis=1) | x.median() : np.median(x)
m.quantile(0.5, axis=0) : np.quantile(m, 0.5, axis=0) | x.logsumexp() : np.log(np.exp(x).sum())
x.softmax() : np.exp(x) / np.exp(x).sum(-1, keepdims=True) | x.ptp() : np.ptp(x) | m.mm(n) : m @ n
x.log_softmax(axis=0) : x - np.log(np.exp(x).sum(0)) | b.bmm(c) : b @ c | m.matmul(v) : m @ v
v.outer(v) : np.outer(v, v) | m.inner(m) : np.inner(m, m) | m.tile((2, 2)) : np.tile(m, (2, 2))
m.roll(1, 0) : np.roll(m, 1, 0) | m.flip(0) : np.flip(m, 0) | m.moveaxis(0, 1) : m.T
m.diff() : np.diff(m) | s.diag() : np.diag(s) | m.tril() : np.tril(m) | m.triu() : np.triu(m)
m.sort() : np.sort(m) | x.cumprod(axis=1) : np.cumprod(x, axis=1) | m.nansum() : m.sum()
m.nanmean() : m.mean() | m.broadcast_to((2, 3, 4)) : np.broadcast_to(m, (2, 3, 4))
m.maximum(v) : np.maximum(m, v) | m.minimum(v) : np.minimum(m, v) | u.log2() : np.log2(u)
u.log10() : np.log10(u) | u.tan() : np.tan(u) | m.split(2, axis=1)[0] : m[:, :2]
x.var(correction=1) : x.var(ddof=1) | sg.vstack([m, m]) : np.vstack([m, m])
sg.var(x, axis=1) : x.var(axis=1) | sg.prod(u) : u.prod() | sg.einsum("ij,kj->ik", m, m) : m @ m.T
sg.norm(v, ord=1) : np.abs(v).sum() | sg.sort(m, axis=0) : np.sort(m, axis=0) | sum(v) : v.sum()
max(v) : v.max() | v[::-1][0] : v[-1] | [*v][2] : v[2] | x.T.T : x | abs(v) : np.abs(v)
"""
# Without a derivative: places, answers, what is constant piece by piece. Plain arrays and numbers.
PLAIN = """
np.argmax(x) | np.argmin(x, axis=1) | x.argmax(axis=-1) | x.argmin() | np.argsort(m, axis=0)
m.argsort() | np.any(x > 1) | (x > 0).any() | np.all(x < 9) | x.all() | x.any(axis=0)
np.nonzero(m > 0)[0] | x > 0 | x == x | np.count_nonzero(x) | np.allclose(x, x)
np.isclose(x, 0.5) | np.array_equal(x, x) | x != x | x <= 0 | m < v | np.isnan(x) | np.isfinite(x)
np.isinf(x) | np.sign(x) | np.floor(x) | np.ceil(x) | np.round(x, 1) | x >= 0.5 | np.around(x)
np.rint(x) | np.trunc(x) | np.fix(x) | x.round(2) | x // 0.5 | np.shape(x) | np.ndim(x)
np.size(x) | len(x) | x.shape | x.ndim | x.size | x.dtype | np.where(m > 0)[1]
np.argwhere(m > 0) | np.searchsorted(np.sort(v), 0.1) | np.isin(x, x[0]) | x.tolist() | 0.5 in x
x[0, 0, 0] in x | m[0] in m | np.signbit(x) | np.heaviside(x, 0.5) | np.digitize(x, [0.0, 0.5])
np.histogram(x, 5)[0] | x.nonzero()[1] | f"{x.sum():.4f}" | "%.3f" % x.mean() | int(x.sum())
float(x[0, 0, 0]) | round(x.sum().item(), 2) | bool(v[0]) | math.sqrt(u[0, 0]) | x.mean().item()
np.flatnonzero(m > 0) | np.array_equiv(x, x) | np.logical_and(x > 0, m > 0) | x[0, 0, 0] == "x"
np.iscomplexobj(x) | np.isreal(m) | np.linspace(0, 1, len(v)) | np.result_type(x)
np.zeros_like(x) | np.ones_like(x) | np.full_like(x, 3) | np.ones_like(x, dtype=np.float32)
np.zeros_like(m, shape=(2,))
"""


def rows(text):
    return [row.strip() for line in text.strip().splitlines() for row in line.split(" | ")]


def sg_swap(s):
    """A tensor (3, 2, 3) from one (3, 3): the outer axes have a diagonal."""
    return np.stack([s, 2 * s], axis=1)


def names_of(expression):
    return [name for name in ARRAYS if re.search(rf"(?<![\w.\"']){name}(?![\w\"'=])",
                                                 re.sub(r"\"[^\"]*\"", "", expression))]


def evaluate(expression, given):
    return eval(expression, {**INDEX, **ARRAYS, "sg_swap": sg_swap, **given})


def assert_value(found, expected, rtol=1e-12):
    """NumPy's value, and its shape and dtype."""
    found, expected = (np.asarray(to_host(v.data if isinstance(v, sg.Tensor) else v))
                       for v in (found, expected))
    assert found.shape == expected.shape and found.dtype == expected.dtype
    if expected.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    else:
        assert np.array_equal(found, expected)


WITH_GRADIENT = [(row, row) for row in rows(ALIKE)] + [
    tuple(part.strip() for part in row.split(" : ")) for row in rows(TRANSLATED)]


@pytest.mark.parametrize("ours, numpys", WITH_GRADIENT, ids=[row[0] for row in WITH_GRADIENT])
def test_values_and_gradients(ours, numpys, backend):
    names = names_of(ours)
    arrays = [ARRAYS[name] for name in names]

    def f(*tensors):
        return evaluate(ours, dict(zip(names, tensors, strict=True)))

    y = f(*[sg.tensor(a, requires_grad=True) for a in arrays])
    assert type(y) is sg.Tensor and y.requires_grad
    assert_value(y, evaluate(numpys, {}))
    for order in (1, 2):
        report = sg.gradcheck(f, arrays, order=order, directions=3)
        assert {row.verdict for row in report.rows} <= {"OK", "ROUNDING"}, str(report)


@pytest.mark.parametrize("expression", rows(PLAIN))
def test_plain_values(expression, backend):
    for wanted in (False, True):
        given = {name: sg.tensor(ARRAYS[name], requires_grad=wanted) for name in ARRAYS}
        found = evaluate(expression, given)
        assert not getattr(found, "requires_grad", False)
        expected = evaluate(expression, {})
        if isinstance(expected, (str, bool, int, float, list, tuple)):
            assert found == expected and type(found) is type(expected)
        else:
            assert_value(found, expected)


@pytest.mark.parametrize("ours, numpys", WITH_GRADIENT, ids=[row[0] for row in WITH_GRADIENT])
def test_the_same_on_a_gpu(gpu, ours, numpys):
    """On a GPU's arrays, which never become the host's by themselves; gradients too."""
    names, found = names_of(ours), None
    with sg.use_backend("cuda"):
        leaves = [sg.tensor(ARRAYS[name], requires_grad=True) for name in names]
        y = evaluate(ours, dict(zip(names, leaves, strict=True)))
        found = sg.grad((y * y).sum(), leaves)
    assert_value(y, evaluate(numpys, {}), 1e-10)
    with sg.use_backend("numpy"):
        leaves = [sg.tensor(ARRAYS[name], requires_grad=True) for name in names]
        y = evaluate(ours, dict(zip(names, leaves, strict=True)))
        expected = sg.grad((y * y).sum(), leaves)
    for a, b in zip(found, expected, strict=True):
        assert_value(a, b, 1e-10)


@pytest.mark.parametrize("expression", rows(PLAIN))
def test_plain_values_on_a_gpu(gpu, expression):
    expected = evaluate(expression, {})
    with sg.use_backend("cuda"):
        given = {name: sg.tensor(ARRAYS[name], requires_grad=True) for name in ARRAYS}
        found = evaluate(expression, given)
        if isinstance(expected, (str, bool, int, float, list, tuple)):
            assert found == expected or found == pytest.approx(expected)
            assert type(found) is type(expected)
        else:
            assert_value(found, expected)


# --- all of NumPy's names ------------------------------------------------------------------------

# Functions that give plain values of a tensor; all others give a tensor, or refuse.
ANSWERS = {f.__name__ for f in NUMPY_FUNCTIONS if getattr(
    NUMPY_FUNCTIONS[f], "__module__", "") == "scratchgen.ops.values"}
ANSWERS |= {"rint", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
            "logical_not", "logical_and", "logical_or", "zeros_like", "ones_like", "full_like",
            "empty_like", "where"}
# What takes anything and looks into nothing, or has no array as an argument.
UNTOUCHED = set("""
    isscalar iterable issubdtype broadcast_shapes busday_count busday_offset is_busday bmat
    datetime_as_string printoptions ndenumerate getbufsize geterr geterrcall errstate typename info
    save savez savez_compressed savetxt load loadtxt genfromtxt fromfile memmap show_config test
    show_runtime set_printoptions get_printoptions seterr seterrcall setbufsize get_include
    asarray_chkfinite nested_iters frompyfunc fromstring frombuffer fromregex fromiter fromfunction
    from_dlpack promote_types mintypecode base_repr binary_repr format_float_positional
    format_float_scientific einsum_path may_share_memory can_cast vander""".split())


def numpy_names():
    for module in (np, np.linalg, np.fft):
        for name in sorted(module.__all__):
            function = getattr(module, name, None)
            if callable(function) and not isinstance(function, type) and name not in UNTOUCHED:
                yield pytest.param(function, id=f"{module.__name__}.{name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", list(numpy_names()))
def test_every_name_of_numpy_gives_a_tensor_or_refuses(function):
    """No object array, no gradient lost: a tensor with a gradient, a plain answer where the
    function is one, or a TypeError of one sentence."""
    array = np.array([[0.3, 0.5], [0.9, 0.2]])
    t = sg.tensor(array, requires_grad=True)
    for args in ((t,), (t, t), ([t, t],), (t, 1), (t, 1, 1)):
        plain = [[array, array] if isinstance(a, list) else array if a is t else a for a in args]
        try:
            expected = function(*plain)
        except Exception:                              # these are no arguments for it
            continue
        try:
            found = function(*args)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            message = str(error)
            assert "\n" not in message and len(message) < 400, message
            assert re.search(r"t\.numpy\(\)|t\.data|expected|derivative|give|sg\.no_grad|no option",
                             message), message
            continue
        if function.__name__ in ANSWERS:
            assert not getattr(found, "requires_grad", False)
            continue
        parts = found if isinstance(found, (list, tuple)) else [found]
        wanted = expected if isinstance(expected, (list, tuple)) else [expected]
        assert len(parts) == len(wanted)
        for part, value in zip(parts, wanted, strict=True):
            assert type(part) is sg.Tensor and part.requires_grad
            assert_value(part, value)


# --- edges ---------------------------------------------------------------------------------------

def gradient(f, x, order=1):
    """f's gradient at x; of order 2 the gradient of Σ cos(k) times it."""
    t = sg.tensor(np.array(x, float), requires_grad=True)
    g = sg.grad(f(t).sum(), t, create_graph=order == 2)
    if order == 2:
        g = sg.grad((g * np.cos(np.arange(g.size)).reshape(g.shape)).sum(), t)
    return g.data


def test_products_with_zeros(backend):
    x = [2.0, 0.0, 3.0, 5.0]
    assert np.array_equal(gradient(np.prod, x), [0, 30, 0, 0])
    assert np.array_equal(gradient(np.prod, [2.0, 0, 3, 0]), [0, 0, 0, 0])
    assert np.array_equal(gradient(np.cumprod, x), [1, 2 + 6 + 30, 0, 0])
    for f in (np.prod, np.cumprod, lambda t: np.prod(t.reshape(2, 2), axis=1)):
        for order in (1, 2):
            assert sg.gradcheck(f, [np.array(x)], order=order).ok
    assert np.prod(sg.tensor(np.ones((0, 3))), axis=0).data.tolist() == [1, 1, 1]
    assert np.prod(sg.tensor(np.ones(0))).item() == 1


def test_roots_at_zero_have_the_gradient_zero(backend):
    for f in (np.linalg.norm, np.std, lambda t: np.hypot(t, 0 * t), lambda t: t.norm(axis=0)):
        for order in (1, 2):
            with np.errstate(all="raise"):
                assert np.array_equal(gradient(f, np.zeros(3), order), np.zeros(3))
    assert np.isnan(np.linalg.norm(sg.tensor([np.nan, 1.0])).item())
    mixed = gradient(lambda t: np.linalg.norm(t, axis=1), [[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(mixed, [[0, 0], [0.6, 0.8]], rtol=1e-15, equal_nan=False)


def test_conventions(backend):
    for low in (0, np.zeros(5)):
        clipped = gradient(lambda t, low=low: np.clip(t, low, 1), [-1.0, 0, 0.5, 1, 2])
        assert np.array_equal(clipped, [0, 1, 1, 1, 0])
    assert np.array_equal(gradient(np.sort, [2.0, 1.0, 2.0]), [1, 1, 1])
    assert np.array_equal(gradient(np.median, [2.0, 1.0, 2.0, 2.0]), [0.5, 0, 0.5, 0])
    assert np.array_equal(gradient(np.ptp, [2.0, 1.0, 2.0, 1.0]), [1, -1, 0, 0])
    assert np.array_equal(gradient(np.cumsum, [1.0, 2.0, 3.0]), [3, 2, 1])
    assert np.array_equal(gradient(np.nansum, [1.0, np.nan, 3.0]), [1, 0, 1])
    edge = [np.nan, np.inf, -np.inf, 1.0]
    assert np.array_equal(gradient(np.nan_to_num, edge), [0, 0, 0, 1])
    assert np.array_equal(np.nan_to_num(sg.tensor(np.array(edge))).data, np.nan_to_num(edge))
    assert np.isnan(np.median(sg.tensor([1.0, np.nan])).item())
    t = sg.tensor([[3, 1], [2, 2]])
    assert np.array_equal(np.sort(t).data, [[1, 3], [2, 2]]) and np.var(t).item() == 0.5


@pytest.mark.parametrize("ours, theirs", [
    (lambda t: t.std(axis=1, correction=1), lambda t: t.std(dim=1)),
    (lambda t: t.var(), lambda t: t.var(correction=0)),
    (lambda t: np.prod(t, axis=0), lambda t: t.prod(dim=0)),
    (lambda t: np.cumprod(t, axis=1), lambda t: t.cumprod(dim=1)),
    (lambda t: np.cumsum(t, axis=0), lambda t: t.cumsum(dim=0)),
    (lambda t: t.norm(), lambda t: t.norm()), (lambda t: t.norm(ord=1, axis=0),
                                               lambda t: t.norm(p=1, dim=0)),
    (lambda t: t.clamp(-0.5, 0.5), lambda t: t.clamp(-0.5, 0.5)),
    (lambda t: t.sort(axis=0), lambda t: t.sort(dim=0).values),
    (lambda t: sg.einsum("ij,kj->ik", t, t), lambda t: t @ t.T),
    (lambda t: t.quantile(0.3, axis=1), lambda t: t.quantile(0.3, dim=1)),
    (lambda t: t.gather(1, np.array([[0, 0], [2, 1]])),
     lambda t: t.gather(1, torch_tensor([[0, 0], [2, 1]]))),
], ids=name_of)
def test_beside_pytorch(ours, theirs):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for x in (RNG.normal(size=(2, 3)), np.array([[0.0, 1.5, -2.0], [0.5, 0.0, 0.0]])):
        t = sg.tensor(x, requires_grad=True)
        y = ours(t)
        g = sg.grad(y, t, np.cos(np.arange(y.size)).reshape(y.shape))
        s = torch.tensor(x, requires_grad=True)
        z = theirs(s)
        (h,) = torch.autograd.grad(z, s, torch.tensor(np.cos(np.arange(y.size)).reshape(y.shape)))
        np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-12, equal_nan=False)
        np.testing.assert_allclose(g.data, h.numpy(), rtol=1e-12, atol=1e-14, equal_nan=False)


def torch_tensor(data):
    return pytest.importorskip("torch").tensor(data)


# --- what is refused, in one sentence ------------------------------------------------------------

T = sg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)


@pytest.mark.parametrize("call, kind, said", [
    (lambda: T.sum().backward(retain_graph=True), ValueError, r"create_graph=True"),
    (lambda: sg.grad(T.sum(), T, retain_graph=True), ValueError, r"create_graph=True"),
    (lambda: T.requires_grad_(), AttributeError, r"t\.requires_grad = True"),
    (lambda: T.zero_(), AttributeError, r"sg\.no_grad"),
    (lambda: T.add_(1), AttributeError, "t \\+="), (lambda: T.cuda(), AttributeError, "backend"),
    (lambda: T.clone(), AttributeError, r"t\.copy\(\)"),
    (lambda: T.float(), AttributeError, "astype"), (lambda: T.dim(), AttributeError, r"t\.ndim"),
    (lambda: sg.Tensor([1.0]).shape, AttributeError, r"sg\.tensor\(data\)"),
    (lambda: sg.tensor([T, T]), ValueError, r"sg\.stack"),
    (lambda: T.grad.zero_() if T.grad else sg.ones(2).zero_(), AttributeError, r"t\.grad = None"),
    (lambda: sg.optim.lr_scheduler, AttributeError, "cosine"),
    (lambda: sg.optim.Rmsprop, AttributeError, "did you mean 'RMSprop'"),
    (lambda: T.maen(), AttributeError, "did you mean 'mean'"),
    (lambda: T.something, AttributeError, "no attribute 'something'"),
    (lambda: sg.randn(2), AttributeError, r"sg\.Stream"), (lambda: sg.expp, AttributeError, "'exp"),
    (lambda: sg.cat([T, T]), AttributeError, r"sg\.concat"),
    (lambda: T.sum(dim=1), TypeError, "here it is 'axis'"),
    (lambda: T.mean(0, keepdim=True), TypeError, "here it is 'keepdims'"),
    (lambda: T.sum(wrong=1), TypeError, "choose among axis, keepdims"),
    (lambda: np.sum(T, where=np.ones((2, 2), bool)), TypeError, "no option 'where'"),
    (lambda: np.mean(T, dtype=np.float32), TypeError, "no option 'dtype'"),
    (lambda: np.sum(T, 0, np.float64), TypeError, "no option 'dtype'"),
    (lambda: np.pad(T, 1, mode="edge"), TypeError, "no option 'mode'"),
    (lambda: np.linalg.inv(T), TypeError, r"np\.linalg\.inv has no derivative here.*t\.numpy"),
    (lambda: np.linalg.norm(T, 2), ValueError, "ord 2"),
    (lambda: T < "x", TypeError, "np.less of float32 and str: expected numbers"),
    (lambda: [1, 2][T[0, 0]], TypeError, r"write int\(t\)"),
    (lambda: f"{T:.3f}", ValueError, "one element"), (lambda: int(T), ValueError, "one element"),
    (lambda: round(T), ValueError, "one element"), (lambda: bool(T), ValueError, r"a\.any"),
    (lambda: np.var(T[0, :1], ddof=1), ValueError, "smaller than the 1"),
    (lambda: np.einsum("ij,jk->ik", T, T[0]), ValueError, "expected a letter for each axis"),
    (lambda: np.einsum("...ij->ij", T[None]), ValueError, r"'\.\.\.'"),
    (lambda: sg.einsum(T, [0, 1]), TypeError, "subscripts"),
    (lambda: T.gather(0, 1.5), TypeError, "whole"),
    (lambda: T.reshape(3, 3), ValueError, "shape"), (lambda: T[None].transpose(0, 1), ValueError,
                                                     "swapaxes"),
    (lambda: sg.zeros(2, -1), ValueError, "whole numbers"),
    (lambda: sg.full(2, "a"), ValueError, "'a'"),
    (lambda: sg.linspace(0, None), ValueError, "two numbers"),
    (lambda: sg.zeros(2, dtype=complex), ValueError, "complex"),
], ids=name_of)
def test_one_sentence(call, kind, said):
    with pytest.raises(kind, match=said) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300


def test_a_constant_is_written_into_an_array():
    """``p.data -= lr * p.grad``, a hand-written step of gradient descent."""
    w = sg.tensor([1.0, 2.0], requires_grad=True)
    (w * w).sum().backward()
    w.data -= 0.25 * w.grad
    assert type(w.data) is np.ndarray and np.array_equal(w.data, [0.5, 1])


def test_no_grad_decorates_with_and_without_parentheses():
    @sg.no_grad
    def bare(x):
        """Documented."""
        return x * 2

    @sg.no_grad()
    def called(x):
        return x * 2

    assert not bare(T).requires_grad and not called(T).requires_grad and (T * 2).requires_grad
    assert bare.__name__ == "bare" and bare.__doc__ == "Documented."

    @sg.enable_grad
    def recorded(x):
        return x * 2

    with sg.no_grad():
        assert recorded(T).requires_grad and not (T * 2).requires_grad


def test_small_integers_do_not_wrap(backend):
    """Where the result is real it is that of float64, in float32."""
    x = np.array([200, 100, 255], np.uint8)
    for f in (np.prod, np.cumprod, np.cumsum, np.sum,
              lambda x: np.hypot(x, x.astype(np.float64))):
        assert_value(f(sg.tensor(x)), f(x))
    for f in (np.linalg.norm, np.var, np.std, np.mean, lambda x: np.linalg.norm(x, 3)):
        assert_value(f(sg.tensor(x)), np.float32(f(x.astype(np.float64))), rtol=1e-6)


@pytest.mark.parametrize("name", ["sign", "floor", "isnan", "round", "allclose", "argmax"])
def test_plain_functions_of_what_is_no_number(name):
    args = (np.array(["a"]),) * (2 if name == "allclose" else 1)
    if name == "argmax":
        args = (np.ones(2), "axis")
    with pytest.raises(TypeError, match=f"{name}.*expected") as caught:
        getattr(sg, name)(*args)
    assert "\n" not in str(caught.value)


def test_an_index_of_a_list_is_a_whole_number():
    assert [5, 6, 7][sg.tensor(2)] == 7 and "abc"[sg.tensor([1])] == "b"
    assert np.arange(3)[sg.tensor([2, 0])].tolist() == [2, 0]


def test_creation(backend):
    for found, expected in [
            (sg.zeros(2, 3), np.zeros((2, 3), np.float32)), (sg.ones((2,)), np.ones(2, np.float32)),
            (sg.full((2,), 3.5, dtype=np.float64), np.full(2, 3.5)),
            (sg.eye(2, 3), np.eye(2, 3, dtype=np.float32)), (sg.arange(5), np.arange(5)),
            (sg.arange(0, 1, 0.25), np.arange(0, 1, 0.25, dtype=np.float32)),
            (sg.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32)),
            (sg.zeros_like(T), np.zeros((2, 2), np.float32)),
            (np.full_like(T, fill_value=2), np.full((2, 2), 2, np.float32))]:
        assert type(found) is sg.Tensor and not found.requires_grad
        assert_value(found, expected)
    assert sg.zeros(2, requires_grad=True).requires_grad


def test_dropout_of_everything(backend):
    x = sg.tensor([1.0, np.inf, np.nan], requires_grad=True)
    y = sg.dropout(x, 1.0, np.zeros(3, np.float32))
    assert np.array_equal(y.data, [0, 0, 0]) and np.array_equal(sg.grad(y.sum(), x).data, [0, 0, 0])


@pytest.mark.parametrize("ours, numpys", WITH_GRADIENT, ids=[row[0] for row in WITH_GRADIENT])
def test_float32_stays_float32(ours, numpys):
    names = names_of(ours)
    single = {name: a.astype(np.float32) for name, a in ARRAYS.items()}
    leaves = [sg.tensor(single[name], requires_grad=True) for name in names]
    y = evaluate(ours, {**single, **dict(zip(names, leaves, strict=True))})
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.data, evaluate(numpys, {}), rtol=2e-5, atol=2e-6, equal_nan=False)
    for g in sg.grad(y.sum(), leaves):
        assert g.dtype == np.float32


NO_AXES = """
    np.sum(t) | np.mean(t) | np.prod(t) | np.var(t) | np.std(t) | np.linalg.norm(t) | np.ravel(t)
    np.median(t) | np.cumsum(t) | np.cumprod(t) | np.repeat(t, 3) | np.tile(t, 2) | np.sort(t, None)
    np.ptp(t) | np.dot(t, t) | np.outer(t, t) | np.transpose(t) | np.clip(t, 0, 1) | np.roll(t, 1)
    np.einsum(",->", t, t) | np.squeeze(t) | np.quantile(t, 0.5) | np.expand_dims(t, 0)
    np.atleast_2d(t) | np.vstack([t, t]) | np.hstack([t, t]) | np.stack([t, t]) | np.nansum(t)
    np.average(t)"""


@pytest.mark.parametrize("expression", rows(NO_AXES))
def test_numbers_have_no_axes(expression, backend):
    t = sg.tensor(np.array(2.5), requires_grad=True)
    y = evaluate(expression, {"t": t})
    assert_value(y, evaluate(expression, {"t": np.array(2.5)}))
    assert np.isfinite(sg.grad(y.sum(), t).data)


# --- layers and optimisers -----------------------------------------------------------------------

NET = nn.Sequential(nn.Dense(3, 4), nn.Activation("relu"), nn.Dense(4, 2))


@pytest.mark.parametrize("call, kind, said", [
    (lambda: nn.Linear(3, 4), AttributeError, r"nn\.Dense\(inputs, outputs\)"),
    (lambda: nn.ReLU(), AttributeError, r"nn\.Activation\('relu'\)"),
    (lambda: nn.CrossEntropyLoss(), AttributeError, r"sg\.cross_entropy"),
    (lambda: nn.Dens(3, 4), AttributeError, "did you mean 'Dense'"),
    (lambda: nn.ModuleList([]), AttributeError, "list of modules"),
    (lambda: nn.functional.relu, AttributeError, r"sg\.relu"),
    (lambda: NET.cuda(), AttributeError, "use_backend"),
    (lambda: NET.to("cuda"), AttributeError, "use_backend"),
    (lambda: NET[0].weight, AttributeError, "it is w"),
    (lambda: NET.requires_grad_(False), AttributeError, "frozen"),
    (lambda: NET.parametrs(), AttributeError, "did you mean 'parameters'"),
    (lambda: NET.zero_grad(set_to_none=False), ValueError, "are None"),
    (lambda: sg.optim.SGD(nn.Dense(2, 2), lr=0.1).zero_grad(set_to_none=False), ValueError, "None"),
    (lambda: NET.append(sg.relu), ValueError, r"nn\.Function"),
], ids=name_of)
def test_layers_under_other_names(call, kind, said):
    with pytest.raises(kind, match=said) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300


def test_a_layers_own_faults_are_not_hidden():
    class Broken(nn.Module):
        @property
        def size(self):
            return self.missing_inner.size

    with pytest.raises(AttributeError, match="'missing_inner'"):
        Broken().size  # noqa: B018
    assert not hasattr(Broken(), "forwards") and not hasattr(Broken(), "_private")


def test_sequential_is_a_list():
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    assert type(NET[:2]) is nn.Sequential and NET[:2][0] is NET[0] and NET[-1] is NET[2]
    assert [type(layer) for layer in NET] == [nn.Dense, nn.Activation, nn.Dense] and len(NET) == 3
    assert np.array_equal(NET[1:](NET[:1](x)).data, NET(x).data)
    longer = nn.Sequential(*NET).append(nn.Activation("sigmoid"))
    assert np.array_equal(longer(x).data, sg.sigmoid(NET(x)).data)
    longer.zero_grad(set_to_none=True)
    assert len(longer.parameters()) == 4 and longer[0].w is NET[0].w


def test_grouped_convolution_layer(backend):
    layer = nn.Conv2d(4, 8, 3, padding="same", groups=4, dtype=np.float64)
    assert layer.w.shape == (3, 3, 1, 8)
    x = RNG.normal(size=(2, 5, 6, 4))
    y = nn.Sequential(layer, nn.Activation("tanh"))(x)
    each = [sg.conv2d(x[..., i:i + 1], layer.w.data[..., 2 * i:2 * i + 2], None, padding=1).data
            for i in range(4)]
    np.testing.assert_allclose(y.data, np.tanh(np.concatenate(each, -1)), rtol=1e-12)
    assert sg.gradcheck(layer, [x], directions=3).ok
    assert "4 -> 8, 3x3" in repr(layer) and "groups 4" in repr(layer)
    back = nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2, dtype=np.float64)
    assert back.w.shape == (3, 3, 4, 4) and back(y).shape == (2, 11, 13, 4)
    assert sg.gradcheck(back, [y.data], directions=3).ok
    with pytest.raises(sg.UserError, match="ConvTranspose2d: groups is 3"):
        nn.ConvTranspose2d(8, 4, 3, groups=3)


def test_dropout_layer_of_everything(backend):
    layer = nn.Dropout(1.0)
    x = sg.tensor([1.0, np.inf, np.nan], requires_grad=True)
    assert np.array_equal(layer(x).data, [0, 0, 0]) and layer.eval()(x) is x
