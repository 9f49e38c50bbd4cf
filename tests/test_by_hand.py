"""The plain NumPy networks of ``models.by_hand`` against the tape, value and every gradient."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import nn
from scratchgen.models import by_hand

F64 = {"dtype": np.float64, "stream": sg.Stream(8, "by hand")}


def convolutional():
    return nn.Sequential(
        nn.Reshape(7, 6, 2), nn.Conv2d(2, 5, (3, 4), stride=(2, 1), padding=(1, 2), **F64),
        nn.BatchNorm(5, dtype=np.float64), nn.Activation("leaky_relu"),
        nn.Sequential(nn.Conv2d(5, 4, 2, dilation=2, bias=False, **F64), nn.Activation("elu")),
        nn.ConvTranspose2d(4, 3, (4, 3), stride=2, padding=1, output_padding=(0, 1), **F64),
        nn.Activation("tanh"), nn.Flatten(), nn.Dense(3 * 4 * 10, 9, "softplus", **F64))


NETWORKS = {
    "convolutional": (convolutional(), (11, 84)),
    "convolutional, one image": (convolutional(), (1, 84)),
    "convolutional, eval": (convolutional().eval(), (3, 84)),
    **{f"dense {a}": (nn.Sequential(nn.Dense(4, 7, a, **F64), nn.Dense(7, 3, None, **F64)), (5, 4))
       for a in (None, *nn.Activation.NAMES)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients_equal_the_tape(backend, name):
    network, shape = NETWORKS[name]
    rng = np.random.default_rng(0)
    for buffer in network.named_buffers().values():
        buffer[...] = rng.uniform(0.5, 2, buffer.shape)
    x = sg.tensor(rng.normal(size=shape), requires_grad=True)
    start = network.state_dict()
    network.zero_grad()
    y = network(x)
    dy = rng.normal(size=y.shape)
    y.backward(dy)
    by_tape = network.named_buffers()
    by_tape = {n: b.copy() for n, b in by_tape.items()}
    network.load_state_dict(start)
    value, cache = by_hand.forward(network, x.data)
    gradients, dx = by_hand.backward(network, cache, dy)
    np.testing.assert_allclose(value, y.data, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(dx, x.grad.data, rtol=1e-10, atol=1e-13)
    assert set(gradients) == set(network.named_parameters())
    for n, p in network.named_parameters().items():
        np.testing.assert_allclose(gradients[n], p.grad.data, rtol=1e-10, atol=1e-12, err_msg=n)
        assert np.abs(gradients[n]).max() > 0
    for n, b in network.named_buffers().items():
        np.testing.assert_allclose(b, by_tape[n], rtol=1e-12, err_msg=n)
