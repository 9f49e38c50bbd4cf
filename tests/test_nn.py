"""Modules, initialisers and optimisers."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import nn, optim


def net(dtype=np.float64, seed=3):
    stream = sg.Stream(seed, "test")
    return nn.Sequential(nn.Dense(4, 7, "tanh", stream=stream, dtype=dtype),
                         nn.Dense(7, 3, stream=stream, dtype=dtype))


def loss_of(network, seed=0):
    x = np.random.default_rng(seed).normal(size=(5, 4))
    return sg.mse(network(sg.Tensor(x)), np.ones((5, 3)))


# --- modules -------------------------------------------------------------------------------------

def test_parameters_are_named_after_their_attributes():
    assert {n: p.shape for n, p in net().named_parameters().items()} == {
        "layers.0.w": (4, 7), "layers.0.b": (7,), "layers.1.w": (7, 3), "layers.1.b": (3,)}


def test_packed_parameters_lie_in_one_buffer_and_keep_their_values():
    network = net()
    before = network.state_dict()
    data, grads = network.pack()
    sizes, wide = [p.size for p in network.parameters()], 16
    assert data.size == grads.size == sum(wide * -(-size // wide) for size in sizes)
    for name, p in network.named_parameters().items():
        assert p.data.base is data and p.grad_buffer.base is grads
        assert (p.data.ctypes.data - data.ctypes.data) % (wide * data.itemsize) == 0
        assert np.array_equal(p.data, before[name])
    loss_of(network).backward()
    for p in network.parameters():
        assert p.grad.data is p.grad_buffer and p.grad_buffer.any()
    assert network.pack()[0] is data                           # packing again changes nothing


def test_of_two_optimisers_with_common_parameters_the_earlier_is_refused():
    network = net()
    part = optim.Adam(network[0])
    whole = optim.Adam(network)
    loss_of(network).backward()
    whole.step()
    with pytest.raises(sg.UserError, match="another optimiser"):
        part.step()


def test_state_dict_round_trip_and_refusals():
    a, b = net(seed=1), net(seed=2)
    assert not np.array_equal(a[0].w.data, b[0].w.data)
    b.load_state_dict(a.state_dict())
    for name, array in a.state_dict().items():
        assert np.array_equal(b.state_dict()[name], array)
    state = a.state_dict()
    state["layers.0.w"] = state["layers.0.w"].T
    before = b.state_dict()
    with pytest.raises(sg.UserError, match="layers.0.w"):
        b.load_state_dict(state)
    del state["layers.0.w"]
    with pytest.raises(sg.UserError, match="missing"):
        b.load_state_dict(state)
    assert all(np.array_equal(before[n], v) for n, v in b.state_dict().items())


def test_loading_between_forward_and_backward_is_noticed():
    network = net()
    loss = loss_of(network)
    network.load_state_dict(network.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_an_optimiser_step_between_forward_and_backward_is_noticed():
    network = net()
    optimiser = optim.SGD(network, 0.1)
    loss_of(network).backward()
    loss = loss_of(network)
    optimiser.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_tied_layers_share_one_parameter_whose_gradient_has_both_uses():
    encoder = nn.Dense(4, 3, "tanh", stream=sg.Stream(0, "t"), dtype=np.float64)
    decoder = nn.TiedDense(encoder)
    network = nn.Sequential(encoder, decoder)
    assert list(network.named_parameters()) == ["layers.0.w", "layers.0.b", "layers.1.b"]
    x = sg.Tensor(np.random.default_rng(0).normal(size=(5, 4)))
    w1 = sg.tensor(encoder.w.data, requires_grad=True)
    w2 = sg.tensor(encoder.w.data.T, requires_grad=True)
    sg.square(network(x)).sum().backward()
    sg.square(sg.dense(sg.dense(x, w1, encoder.b, "tanh"), w2)).sum().backward()
    np.testing.assert_allclose(encoder.w.grad.data, w1.grad.data + w2.grad.data.T, rtol=1e-12)


def test_frozen_parameters_get_no_gradient_but_pass_it_on():
    network = net()
    x = sg.tensor(np.ones((2, 4)), requires_grad=True)
    with network.frozen():
        network(x).sum().backward()
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert np.abs(x.grad.data).min() > 0


def test_train_and_eval_reach_every_part():
    network = nn.Sequential(nn.Dropout(0.5, sg.Stream(0, "d")), nn.Sequential(nn.Dropout(0.5)))
    x = sg.Tensor(np.ones((8, 9)))
    assert (network(x).data == 0).any()
    network.eval()
    assert np.array_equal(network(x).data, x.data)


def test_batch_norm_layer_saves_its_running_statistics():
    layer = nn.BatchNorm(3, dtype=np.float64)
    x = np.random.default_rng(0).normal(2, 3, size=(50, 3))
    layer(sg.Tensor(x))
    np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean(axis=0), rtol=1e-12)
    assert set(layer.state_dict()) == {"gamma", "beta", "running_mean", "running_var"}
    other = nn.BatchNorm(3, dtype=np.float64)
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(other.running_var, layer.running_var)


def test_summary_counts_shapes_parameters_and_flops():
    network = nn.Sequential(nn.Reshape(6, 5, 2), nn.Conv2d(2, 3, (3, 2), padding=1), nn.Flatten(),
                            nn.Dense(6 * 6 * 3, 4))
    text = network.summary((7, 60))
    assert "(7, 6, 6, 3)" in text and "(7, 108)" in text and "(7, 4)" in text
    conv, dense = 2 * 7 * 6 * 6 * (3 * 2 * 2 * 3), 2 * 7 * 108 * 4
    assert f"{conv:,}" in text and f"{dense:,}" in text and f"{conv + dense:,}" in text
    assert f"{3 * 2 * 2 * 3 + 3:,}" in text and f"{39 + 108 * 4 + 4:,}" in text


# --- initialisers --------------------------------------------------------------------------------

@pytest.mark.parametrize("how, variance", [
    ("glorot", 2 / (150 + 200)), ("he", 2 / 150), ("dcgan", 0.02**2), ("pytorch", 1 / (3 * 150))])
def test_initialisers_have_their_variance(how, variance):
    w = nn.initial(how, (5, 3, 10, 200 // 15 * 15 or 15), sg.Stream(1, how), np.float64,
                   fans=(150, 200)).data
    n = w.size
    kurtosis = 1.8 if how in ("glorot", "pytorch") else 3.0
    assert abs(w.mean()) < 5 * np.sqrt(variance / n)
    assert abs(w.var() / variance - 1) < 5 * np.sqrt((kurtosis - 1) / n)


def test_fans_of_a_convolution_count_its_window():
    layer = nn.Conv2d(40, 50, (3, 5), init="he", stream=sg.Stream(2, "c"), dtype=np.float64)
    n = layer.w.size
    assert abs(layer.w.data.var() / (2 / (3 * 5 * 40)) - 1) < 5 * np.sqrt(2 / n)


def test_layers_without_a_stream_differ_from_each_other():
    assert not np.array_equal(nn.Dense(3, 4).w.data, nn.Dense(3, 4).w.data)


# --- optimisers ----------------------------------------------------------------------------------

OPTIONS = [("sgd", {}), ("sgd", {"momentum": 0.9}), ("sgd", {"momentum": 0.9, "nesterov": True}),
           ("sgd", {"weight_decay": 0.1, "momentum": 0.5}), ("adagrad", {}),
           ("rmsprop", {"alpha": 0.95}), ("adam", {"beta1": 0.5}), ("adam", {"weight_decay": 0.1}),
           ("adamw", {"weight_decay": 0.1})]


@pytest.mark.parametrize("name, options", OPTIONS)
def test_optimisers_equal_pytorch(backend, name, options):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here (extra 'bench')")
    network = net()
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in network.parameters()]
    their_options = dict(options)
    if "beta1" in options:
        their_options["betas"] = (their_options.pop("beta1"), 0.999)
    their_class = {"sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adam": "Adam",
                   "adamw": "AdamW"}[name]
    # PyTorch's Adam adds ε after the bias correction of √v, as ours does.
    reference = getattr(torch.optim, their_class)(
        theirs, lr=0.01, **{"weight_decay": 0, **their_options})
    optimiser = optim.make(name, network, 0.01, **options)
    for step in range(7):
        optimiser.zero_grad()
        loss_of(network, seed=step).backward()
        for p, t in zip(network.parameters(), theirs, strict=True):
            t.grad = torch.tensor(p.grad.data.copy())
        optimiser.step()
        reference.step()
    for p, t in zip(network.parameters(), theirs, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name, options", OPTIONS)
def test_optimiser_backends_agree(name, options):
    results = []
    for backend in ("numpy", "numba"):
        with sg.use_backend(backend):
            network = net()
            optimiser = optim.make(name, network, 0.05, **options)
            for step in range(5):
                optimiser.zero_grad()
                loss_of(network, seed=step).backward()
                optimiser.step()
            results.append(optimiser.data.copy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-11)


def test_first_adam_step_has_the_length_of_the_learning_rate():
    network = net()
    optimiser = optim.Adam(network, 0.01, eps=0)
    before = network.state_dict()
    loss_of(network).backward()
    optimiser.step()
    for name, after in network.state_dict().items():
        np.testing.assert_allclose(np.abs(after - before[name]), 0.01, rtol=1e-9)


def test_a_parameter_without_gradient_is_left_alone():
    network = net()
    optimiser = optim.SGD(network, 0.1)
    before = network.state_dict()
    sg.square(network[1].w).sum().backward()
    optimiser.step()
    after = network.state_dict()
    assert np.array_equal(before["layers.0.w"], after["layers.0.w"])
    np.testing.assert_allclose(after["layers.1.w"], 0.8 * before["layers.1.w"], rtol=1e-12)


def test_gradients_made_with_create_graph_are_used():
    network = net()
    optimiser = optim.SGD(network, 1.0)
    loss_of(network).backward(create_graph=True)
    expected = {n: p.data - p.grad.data for n, p in network.named_parameters().items()}
    optimiser.step()
    for name, p in network.named_parameters().items():
        np.testing.assert_allclose(p.data, expected[name], rtol=1e-12)


def test_optimiser_state_round_trip():
    a, b = net(), net()
    first, second = optim.Adam(a, 0.01), optim.Adam(b, 0.01)
    for step in range(3):
        first.zero_grad()
        loss_of(a, step).backward()
        first.step()
    b.load_state_dict(a.state_dict())
    second.load_state_dict(first.state_dict())
    for network, optimiser in ((a, first), (b, second)):
        optimiser.zero_grad()
        loss_of(network, 9).backward()
        optimiser.step()
    assert np.array_equal(first.data, second.data)


def test_clipping():
    network = net()
    optimiser = optim.SGD(network, 0.1)
    loss_of(network).backward()
    norm = np.sqrt(sum(np.sum(p.grad.data**2) for p in network.parameters()))
    assert optim.clip_norm(optimiser, norm / 2) == pytest.approx(norm, rel=1e-12)
    clipped = np.sqrt(sum(np.sum(p.grad.data**2) for p in network.parameters()))
    assert clipped == pytest.approx(norm / 2, rel=1e-12)
    assert optim.clip_norm(optimiser, norm) == pytest.approx(norm / 2, rel=1e-12)
    optim.clip_value(optimiser, 1e-3)
    assert max(np.abs(p.grad.data).max() for p in network.parameters()) == 1e-3


def test_schedules():
    assert [optim.exponential(0.5)(s) for s in range(3)] == [1, 0.5, 0.25]
    assert optim.cosine(10)(0) == 1 and optim.cosine(10)(5) == pytest.approx(0.5)
    assert optim.cosine(10)(10) == optim.cosine(10)(99) == pytest.approx(0)
    assert [optim.warmup(4)(s) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert optim.warmup(2, optim.exponential(0.5))(3) == 0.5
    assert [optim.piecewise([2, 4], [1, 0.1, 0.01])(s) for s in (0, 1, 2, 4)] == [1, 1, 0.1, 0.01]


def test_schedule_scales_the_step():
    network = net()
    optimiser = optim.SGD(network, 1.0, schedule=optim.exponential(0.5))
    lengths = []
    for _ in range(3):
        before = optimiser.data.copy()
        optimiser.grads[...] = 1
        for p in network.parameters():
            p.grad = sg.Tensor(p.grad_buffer)
        optimiser.step()
        lengths.append(np.abs(optimiser.data - before).max())
    np.testing.assert_allclose(lengths, [1, 0.5, 0.25], rtol=1e-12)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(sg.UserError, match="did you mean 'adam'"):
        optim.make("adm", net(), 0.1)
    with pytest.raises(sg.UserError, match="momentum"):
        optim.make("sgd", net(), 0.1, momentun=0.9)
    with pytest.raises(sg.UserError, match="glorot"):
        nn.Dense(2, 3, init="glorrot")
    with pytest.raises(sg.UserError, match="learning rate"):
        optim.Adam(net(), -1.0)
