"""Changes in place: recorded as another name for the result would be, or refused; never half."""

import numpy as np
import pytest

import scratchgen as sg


def leaf(values):
    return sg.tensor(np.asarray(values, np.float64), requires_grad=True)


def constant(values):
    return sg.tensor(np.asarray(values, np.float64))


W = np.array([2.0, -1.0, 3.0])


def plus(acc, w):
    acc += w * w
    return acc


def minus(acc, w):
    acc -= w * w
    return acc


def times(acc, w):
    acc += 2.0
    acc *= w
    acc *= w                              # needs the value that it had before
    return acc


def divided(acc, w):
    acc += 1.0
    acc /= w
    return acc


def power(acc, w):
    acc += w
    acc **= 3
    return acc


def add_out(acc, w):
    np.add(w, w * w, out=acc)
    return acc


def elements(acc, w):
    for i in range(3):
        acc[i] = w[i] * w[2 - i]
    return acc


def added_elements(acc, w):
    for i in range(3):
        acc[i] += w[i] ** 3
        acc[-1] -= w[i]
    return acc


def slices(acc, w):
    acc[1:] = w[:-1] * w[0]
    acc[:2] *= w[1:]
    return acc


def mask(acc, w):
    acc[np.array([True, False, True])] = w[:2] * w[1:]
    return acc


def fancy(acc, w):
    acc[[2, 0]] += w[:2] * w[1:]
    return acc


def twice_named(acc, w):
    acc[[1, 1]] = w[:2] * w[1:]           # only the last stays
    return acc


def by_tensor(acc, w):
    acc[sg.tensor(np.array([0, 2]))] = w[1:] * w[0]
    return acc


def broadcast(acc, w):
    acc[...] = (w * w).sum()
    acc[1:] += w[0:1]
    return acc


def one_more_axis(acc, w):
    acc[:2] = sg.reshape(w[1:] * w[0], (1, 2))
    return acc


def a_row(acc, w):
    whole = sg.reshape(acc, (3,)) * 1.0
    part = whole[0:2]
    part += w[1:] * w[0]                  # whole changes with it
    part[0] *= w[2]
    return whole


def a_number(acc, w):
    total = 0
    for x in w:
        total += x * x
    acc += total
    return acc


def overwritten(acc, w):
    acc += w
    acc[...] = 1.0                        # the gradient ends here
    return acc


WAYS = [plus, minus, times, divided, power, add_out, elements, added_elements, slices, mask, fancy,
        twice_named, by_tensor, broadcast, one_more_axis, a_row, a_number, overwritten]


@pytest.mark.parametrize("start", ["constant", "computed"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_change_in_place_has_its_gradient(way, start, backend):
    """Beside a second path, by differences of what NumPy or a tensor without a graph computes."""
    def value(w, of_a_leaf=False):
        w = leaf(w) if of_a_leaf else constant(w)
        acc = w * 0.0 + 1.0 if start == "computed" else constant(np.ones(3))
        result = way(acc, w)
        return w, (result * constant([1.0, 10.0, 100.0])).sum() + w.sum()

    w, loss = value(W, of_a_leaf=True)
    assert loss.requires_grad
    loss.backward()
    step, found = 1e-6, np.zeros(3)
    for i, d in enumerate(np.eye(3) * step):
        found[i] = (value(W + d)[1].item() - value(W - d)[1].item()) / (2 * step)
    np.testing.assert_allclose(w.grad.data, found, rtol=1e-6, atol=1e-6)
    assert loss.item() == value(W)[1].item()


def test_pytorch_has_the_same_gradients(backend):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here (extra 'bench')")
    for way in (plus, times, elements, added_elements, slices, fancy, a_number):
        w, theirs = leaf(W), torch.tensor(W, requires_grad=True)
        way(constant(np.ones(3)), w).sum().backward()
        acc = torch.ones(3, dtype=torch.float64)
        if way is times:                  # PyTorch refuses what needs the value before
            (3 * theirs * theirs).sum().backward()
        else:
            way(acc, theirs).sum().backward()
        np.testing.assert_allclose(w.grad.data, theirs.grad.numpy(), rtol=1e-12)


def test_what_was_saved_of_the_old_value_stays():
    w = leaf(W)
    h = w * 2.0
    y = h * h                             # saves h
    h += w
    (y.sum() + h.sum()).backward()
    np.testing.assert_allclose(w.grad.data, 8 * W + 3)


def test_second_derivatives_flow_through_a_change():
    w = leaf(W)
    acc = constant(np.zeros(3))
    acc[:2] += w[1:] ** 3
    (slope,) = [sg.grad(acc.sum(), w, create_graph=True)]
    np.testing.assert_allclose(sg.grad(slope.sum(), w).data, [0, *(6 * W[1:])])


@pytest.mark.parametrize("sharing", [
    lambda h: sg.reshape(h, (1, 3)), lambda h: h.detach(), lambda h: h[1:], lambda h: h.T,
    lambda h: np.flip(h), lambda h: sg.broadcast_to(h, (2, 3)), lambda h: h.detach()[0:1]])
def test_memory_that_others_share_is_not_changed(sharing):
    """They would keep the old value, or have the new one without its gradient."""
    w = leaf(W)
    h = w * 2.0
    other = sharing(h)
    for change in (plus, elements):
        with pytest.raises(RuntimeError, match=r"another tensor shares.*write t = "):
            change(h, w)
    del other
    plus(h, w).sum().backward()
    np.testing.assert_allclose(w.grad.data, 2 * W + 2)


@pytest.mark.parametrize("part", [lambda w: w, lambda w: w[0:2], lambda w: w[0:2][1:]])
def test_leaves_and_their_parts_are_refused(part):
    w = leaf(W)
    target = part(w)
    with pytest.raises(RuntimeError, match="graph needs.*no_grad|another tensor shares"):
        target += 1.0
    with pytest.raises(RuntimeError, match="graph needs.*no_grad|another tensor shares"):
        target[0] = 1.0
    assert np.array_equal(w.data, W)


def test_a_frozen_parameter_does_not_become_a_computed_tensor():
    p = sg.nn.Parameter(np.ones(3), requires_grad=False)
    with pytest.raises(RuntimeError, match="no_grad"):
        p += leaf(W)
    p += 1.0
    assert np.array_equal(p.data, [2, 2, 2])


def test_what_does_not_fit_is_refused():
    whole_numbers = sg.tensor(np.arange(3))
    with pytest.raises(TypeError, match="int64.*float64.*cannot hold"):
        whole_numbers += leaf(W)
    acc = constant(np.zeros(3))
    with pytest.raises(TypeError, match=r"\(3,\) gives float64\(2, 3\)"):
        acc += leaf([W, W])
    with pytest.raises(ValueError, match="replace_at"):
        acc[0:2] = leaf(W)
    assert not acc.requires_grad and np.array_equal(acc.data, [0, 0, 0])


def test_without_a_gradient_or_recording_the_memory_itself_changes():
    c = constant(np.zeros(3))
    view, array = c[1:], c.numpy()
    c += 1.0
    assert np.array_equal(view.data, [1, 1]) and np.array_equal(array, [1, 1, 1])
    w = leaf(W)
    with sg.no_grad():
        w += 1.0
        c[0] = w[0]
    assert np.array_equal(w.data, W + 1) and c.data[0] == 3 and not c.requires_grad


# --- arrays of the caller's ----------------------------------------------------------------------

def linear(x, w):
    return x @ w


MODELS = {
    "op": linear, "product": lambda x, w: x * w[:, 0],
    "dense": lambda x, w: sg.dense(x, w, None, "tanh"),
    "flatten first": lambda x, w: sg.flatten(x) @ w,
    "reshape, transpose": lambda x, w: sg.transpose(sg.reshape(x, (3, 4))) @ w,
    "index": lambda x, w: sg.index(x, slice(0, 2)) @ w,
    "network": lambda x, w: sg.nn.Sequential(sg.nn.Flatten(), sg.nn.Reshape(3))(x) @ w,
    "loss": lambda x, w: sg.mse(constant(np.ones((4, 3))) * w[:, 0], x)}


@pytest.mark.parametrize("name", MODELS)
def test_an_array_may_be_filled_again_before_backward(name, backend):
    x = np.arange(12.0).reshape(4, 3)
    expected, w = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), leaf([[1.0, 2.0], [3.0, 4.0],
                                                                    [5.0, 6.0]])
    MODELS[name](sg.tensor(x), expected).sum().backward()
    loss = MODELS[name](x, w).sum()
    x[...] = 0
    loss.backward()
    assert expected.grad.data.any() and np.array_equal(w.grad.data, expected.grad.data)


def test_a_tensor_is_not_copied():
    x, w = constant(np.ones((4, 3))), leaf(np.ones((3, 2)))
    y = x @ w
    assert y.node.values["a"] is x.data
    x += 1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()
