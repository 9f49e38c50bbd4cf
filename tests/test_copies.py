"""Copies and pickles of tensors, networks, models and optimisers are independent."""

import copy
import pickle

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, nn, optim


def pickled(x):
    return pickle.loads(pickle.dumps(x))


WAYS = [copy.deepcopy, copy.copy, pickled]
ways = pytest.mark.parametrize("way", WAYS, ids=["deepcopy", "copy", "pickle"])
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def net():
    return nn.Sequential(nn.Dense(3, 4, "tanh"), nn.BatchNorm(4), nn.Dense(4, 2))


def loss_of(network):
    return sg.square(network(X)).sum()


def descend(network, optimiser):
    optimiser.zero_grad()
    loss_of(network).backward()
    optimiser.step()


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@ways
@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("kind", [sg.tensor, nn.Parameter])
def test_a_copied_tensor_has_its_own_data_and_gradient(way, kind, requires_grad):
    t = kind(np.arange(3.0), requires_grad=requires_grad)
    if requires_grad:
        sg.square(t).sum().backward()
    twin = way(t)
    assert type(twin) is type(t) and twin.requires_grad == requires_grad and twin.is_leaf
    assert np.array_equal(twin.data, t.data) and not np.shares_memory(twin.data, t.data)
    if requires_grad:
        assert np.array_equal(twin.grad.data, [0, 2, 4])
        sg.square(twin).sum().backward()
        assert np.array_equal(t.grad.data, [0, 2, 4])
        assert np.array_equal(twin.grad.data, [0, 4, 8])


@ways
def test_a_computed_tensor_is_refused(way):
    with pytest.raises(RuntimeError, match="computed tensor.*detach"):
        way(sg.tensor([1.0], requires_grad=True) * 2)


@ways
@pytest.mark.parametrize("optimised", [False, True])
def test_a_copied_network_is_independent(way, optimised):
    network = net()
    if optimised:
        descend(network, optim.Adam(network, 0.1))
    twin = way(network)
    assert same(network, twin)
    for p in twin.parameters():
        p.grad = None
    before = [None if p.grad is None else p.grad.data.copy() for p in network.parameters()]
    buffers = {name: b.copy() for name, b in network.named_buffers().items()}
    descend(twin, optim.SGD(twin, 0.1))
    for p, gradient in zip(network.parameters(), before, strict=True):
        assert p.grad is None if gradient is None else np.array_equal(p.grad.data, gradient)
    assert all(np.array_equal(b, buffers[n]) for n, b in network.named_buffers().items())
    assert not same(network, twin)


@ways
def test_a_moving_average_of_the_weights(way):
    """The use of copies: the average follows the network and is not trained."""
    network = net()
    average, optimiser = way(network), optim.Adam(network, 0.1)
    expected = [p.data.copy() for p in network.parameters()]
    for _ in range(3):
        descend(network, optimiser)
        for mine, p, by_hand in zip(average.parameters(), network.parameters(), expected,
                                    strict=True):
            mine.data = 0.9 * mine.data + 0.1 * p.data
            by_hand[...] = 0.9 * by_hand + 0.1 * p.data
    for mine, by_hand in zip(average.parameters(), expected, strict=True):
        np.testing.assert_allclose(mine.data, by_hand, rtol=1e-6)


@pytest.mark.parametrize("way", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("order", [1, -1], ids=["network first", "optimiser first"])
@pytest.mark.parametrize("name", list(optim.OPTIMISERS))
def test_a_copied_pair_trains_as_the_first_would(way, order, name):
    network = net()
    optimiser = optim.make(name, network, 0.05, schedule=optim.warmup(3, optim.cosine(9)))
    for _ in range(3):
        descend(network, optimiser)
    network[0].b.requires_grad = False
    descend(network, optimiser)
    twin, theirs = way((network, optimiser)[::order])[::order]
    assert theirs.network is twin and theirs.data is twin[0].w.data.base
    assert theirs.data is not optimiser.data and twin[0].w.grad.data.base is theirs.grads
    start = copy.deepcopy(network)
    for _ in range(2):
        descend(twin, theirs)
    assert same(start, network) and not same(twin, network)
    for _ in range(2):
        descend(network, optimiser)
    assert same(twin, network)
    assert np.array_equal(optimiser.data, theirs.data)


def test_a_shallow_copy_of_an_optimiser_has_its_own_state():
    network = net()
    optimiser = optim.Adam(network, 0.1)
    descend(network, optimiser)
    twin, before = copy.copy(optimiser), {n: a.copy() for n, a in optimiser.state.items()}
    assert twin.network is network and twin.data is optimiser.data
    twin.step()
    assert twin.steps == 2 and optimiser.steps == 1
    assert all(np.array_equal(optimiser.state[n], a) for n, a in before.items())


def test_shared_parameters_are_shared_in_the_copy():
    first = nn.Dense(3, 4)
    network = nn.Sequential(first, nn.TiedDense(first))
    for way in WAYS:
        twin = way(network)
        assert twin[0].w is twin[1].w and twin[0].w is not first.w


def test_a_kept_output_is_a_constant_in_the_copy():
    network = net()
    network.output = network(X)
    network.outputs = [network.output, {"a": network.output}]
    for way in WAYS:
        twin = way(network)
        assert not twin.output.requires_grad and np.array_equal(twin.output.data,
                                                                network.output.data)
        assert not twin.outputs[0].requires_grad and not twin.outputs[1]["a"].requires_grad
    assert network.output.requires_grad


FORMS = {"dae": (models.DAE, {"hidden": 5}),
         "sdae": (models.SDAE, {"layers": [5], "levels": [0.1]}),
         "vae": (models.VAE, {"hidden": [5], "latent": 2}),
         "conv vae": (models.VAE, {"arch": "conv", "channels": [2], "latent": 2}),
         "gan": (models.GAN, {"latent": 2, "generator": [4], "discriminator": [4]}),
         "classifier": (models.Classifier, {})}


@pytest.mark.parametrize("way", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("form", FORMS)
def test_models_and_their_optimisers_go_on_alike(form, way):
    kind, options = FORMS[form]
    model = kind(kind.Config(**options), (8, 8, 1))
    optimisers = {name: optim.Adam(network, 1e-2) for name, network in model.networks().items()}
    x, labels = np.random.default_rng(0).random((6, 8, 8, 1), np.float32), np.arange(6) % 3
    streams = sg.Streams(3)
    model.training_step(x, streams, optimisers, labels=labels)
    twin, theirs, drawn = way((model, optimisers, streams))
    terms = [m.training_step(x, s, o, labels=labels)
             for m, s, o in ((model, streams, optimisers), (twin, drawn, theirs))]
    assert terms[0] == terms[1] and same(model, twin)


@pytest.mark.parametrize("way", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def test_copies_on_a_gpu(gpu, way):
    with sg.use_backend("cuda"):
        network = nn.Dense(3, 2)
        optimiser = optim.Adam(network, 0.1)
        descend(network, optimiser)
        twin, theirs = way((network, optimiser))
        start = network.state_dict()
        descend(twin, theirs)
        assert all(np.array_equal(start[n], a) for n, a in network.state_dict().items())
        descend(network, optimiser)
        assert same(network, twin)
