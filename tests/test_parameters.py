"""Parameters and buffers are declared; freezing, assigning, keeping and replacing them."""

import functools
import gc

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import nn, optim
from scratchgen.engine.memory import to_device, to_host
from scratchgen.nn.packing import Pack

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def net(seed=3):
    stream = sg.Stream(seed, "test")
    return nn.Sequential(nn.Dense(3, 5, "tanh", stream=stream), nn.Dense(5, 2, stream=stream))


def descend(network, optimiser, x=X):
    optimiser.zero_grad()
    sg.square(network(x)).sum().backward()
    optimiser.step()


def values(network):
    return {name: to_host(p.data).copy() for name, p in network.named_parameters().items()}


# --- what is a parameter, a buffer, a part -------------------------------------------------------

class Keeps(nn.Module):
    """Keeps an output, an input, and a tensor that wants a gradient."""

    def __init__(self):
        self.dense, self.count = nn.Dense(3, 2), nn.Buffer(np.zeros(2))
        self.register_buffer("mean", np.zeros(3))

    def forward(self, x):
        self.x, self.output = x, self.dense(x)
        return self.output


def test_only_what_is_declared_is_a_parameter_or_a_buffer():
    network = Keeps()
    network(X)
    assert list(network.named_parameters()) == ["dense.w", "dense.b"]
    assert list(network.named_buffers()) == ["count", "mean"]
    network.count = np.ones(2)                             # still the buffer of that name
    assert np.array_equal(network.state_dict()["count"], [1, 1])
    Keeps().load_state_dict(network.state_dict())


def test_parts_are_found_in_lists_tuples_and_dicts_at_any_depth():
    class Nested(nn.Module):
        def __init__(self):
            self.layers = [nn.Dense(2, 3), None, 3, [nn.Dense(3, 4)], {"a": (nn.Dense(1, 2),)}]
            self.scales = {"x": nn.Parameter(np.ones(2, np.float32))}
            self.layers.append(self.layers)                # a list that contains itself

    network = Nested()
    assert list(network.named_parameters()) == [
        "scales.x", "layers.0.w", "layers.0.b", "layers.3.0.w", "layers.3.0.b", "layers.4.a.0.w",
        "layers.4.a.0.b"]
    assert len(network.modules()) == 4
    before = values(network)
    optimiser = optim.SGD(network, 0.5)
    sum(sg.square(p).sum() for p in network.parameters()).backward()
    optimiser.step()
    for name, after in values(network).items():
        np.testing.assert_allclose(after, 0 * before[name], atol=1e-7)


def test_a_leaf_that_is_no_parameter_is_refused_by_the_optimiser():
    network = net()
    network.scale = sg.tensor([1.0], requires_grad=True)
    with pytest.raises(sg.UserError, match=r"scale .*no parameter.*nn\.Parameter"):
        optim.SGD(network, 0.1)


def test_a_parameter_cannot_become_anything_else():
    layer = nn.Dense(3, 2)
    for other in (sg.tensor(np.ones((3, 2))), np.ones((3, 2)), 1.0):
        with pytest.raises(sg.UserError, match=r"Dense\.w is a parameter.*nn\.Parameter"):
            layer.w = other
    with pytest.raises(sg.UserError, match="int64 cannot be trained"):
        nn.Parameter(np.arange(3))


def test_keyword_arguments_reach_forward():
    class Scaled(nn.Module):
        def forward(self, x, scale=1.0):
            return x * scale

    network, seen = Scaled(), []
    assert np.array_equal(network(sg.Tensor(X), scale=2.0).data, 2 * X)
    with nn.Module.watching(lambda m, x, y: seen.append(x)):
        network(x=X, scale=3.0)
    assert seen[0] is X


def test_a_network_is_printed_with_its_layers_shapes_and_parameters():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm(4), nn.Activation("relu"),
                            nn.Flatten(), nn.Dropout(0.25), nn.Dense(16, 5, "tanh"))
    network[5].b.requires_grad = False
    lines = repr(network).splitlines()
    assert lines[0] == "Sequential" and lines[-1] == "133 parameters (5 frozen)"
    for line, words in zip(lines[1:], [
            ("layers.0", "Conv2d", "1 -> 4", "3x3", "stride 2", "w 3x3x1x4", "40 parameters"),
            ("layers.1", "BatchNorm", "gamma 4", "8 parameters"), ("layers.2", "relu"),
            ("layers.3", "Flatten"), ("layers.4", "Dropout", "0.25"),
            ("layers.5", "Dense", "16 -> 5, tanh", "b 5 frozen", "85 parameters")], strict=False):
        assert all(word in line for word in words), line
    assert "5 frozen" in network.summary((2, 5, 5, 1)).splitlines()[-1]
    assert all(line.isascii() for line in lines)


# --- freezing ------------------------------------------------------------------------------------

OPTIMISERS = [("sgd", {"momentum": 0.9, "weight_decay": 0.1}), ("adam", {"weight_decay": 0.1}),
              ("adamw", {"weight_decay": 0.1}), ("rmsprop", {"weight_decay": 0.1}),
              ("adagrad", {"weight_decay": 0.1})]


@pytest.mark.parametrize("backend_of_all", ["numpy", "numba", "cuda"])
@pytest.mark.parametrize("before", [True, False], ids=["frozen before", "frozen after"])
@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_frozen_parameters_are_moved_by_nothing(name, options, before, backend_of_all, request):
    if backend_of_all == "cuda":
        request.getfixturevalue("gpu")
    with sg.use_backend(backend_of_all):
        network = net()
        if before:
            network[0].w.requires_grad = False
        optimiser = optim.make(name, network, 0.1, **options)
        descend(network, optimiser)
        network[0].w.requires_grad = False                 # with momentum and a gradient, or not
        start, gradient = values(network), network[0].w.grad
        kept = None if gradient is None else gradient.data.copy()
        for _ in range(3):
            sg.square(network(X)).sum().backward()
            optim.clip_norm(optimiser, 1e-3)
            optimiser.step()
        for parameter, value in values(network).items():
            assert np.array_equal(value, start[parameter]) == (parameter == "layers.0.w")
        assert gradient is None or np.array_equal(  # nor clipped
            to_host(gradient.data), to_host(kept))


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_freezing_and_thawing_equal_pytorch(name, options, backend):
    """Also of a parameter that gets its first gradient late: it has its own count of steps."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here (extra 'bench')")
    network = nn.Sequential(nn.Dense(3, 5, "tanh", dtype=np.float64), nn.Dense(5, 2,
                                                                              dtype=np.float64))
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in network.parameters()]
    optimiser = optim.make(name, network, 0.05, **options)
    reference = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
                 "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad}[name](
        theirs, lr=0.05, **options)
    x = X.astype(np.float64)
    for step in range(12):
        for i, p in enumerate(network.parameters()):
            p.requires_grad = not (i == 0 and step < 5 or i == 3 and 3 <= step < 8)
        optimiser.zero_grad()
        sg.square(network(sg.Tensor(x))).sum().backward()
        for p, t in zip(network.parameters(), theirs, strict=True):
            t.grad = None if p.grad is None else torch.tensor(p.grad.data.copy())
        optimiser.step()
        reference.step()
        if step == 6:                                      # the counts are a part of the state
            saved, optimiser = optimiser.state_dict(), optim.make(name, network, 0.05, **options)
            optimiser.load_state_dict(saved)
    for p, t in zip(network.parameters(), theirs, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_freezing_and_thawing_reach_a_recorded_step(gpu):
    """The step is recorded anew for another set of frozen parameters."""
    results = []
    for captured in (True, False):
        with sg.use_backend("cuda"):
            network = net()
            optimiser = optim.Adam(network, 0.1)
            x = to_device(X)
            step = functools.partial(descend, network, optimiser, sg.Tensor(x))
            step = sg.capture(step) if captured else step
            for i in range(12):
                network[0].w.requires_grad = not 4 <= i < 8
                before = to_host(network[0].w.data).copy()
                step()
                assert np.array_equal(before, to_host(network[0].w.data)) == (4 <= i < 8)
            results.append(values(network))
    assert all(np.array_equal(results[0][name], value) for name, value in results[1].items())


def test_frozen_parameters_are_saved_and_counted():
    network = net()
    network[0].w.requires_grad = False
    assert "layers.0.w" in network.state_dict() and len(network.parameters()) == 4


def test_a_frozen_parameter_of_another_precision_is_left_out():
    network = net()
    network.table = nn.Parameter(np.ones(3), requires_grad=False)
    optimiser = optim.Adam(network, 0.1)
    descend(network, optimiser)
    assert np.array_equal(network.table.data, [1, 1, 1])
    network.table.requires_grad = True
    with pytest.raises(sg.UserError, match="one optimiser for each precision"):
        optimiser.step()
    with pytest.raises(sg.UserError, match="float32 and float64.*one precision"):
        optim.Adam(network, 0.1)


# --- what an optimiser takes ---------------------------------------------------------------------

def test_an_optimiser_takes_a_module_its_parameters_or_some_of_them():
    results = []
    for given in (lambda n: n, lambda n: n.parameters(), lambda n: (p for p in n.parameters()),
                  lambda n: list(n.named_parameters().values())):
        network = net()
        descend(network, optim.Adam(given(network), 0.1))
        results.append(values(network))
    for result in results[1:]:
        assert all(np.array_equal(result[name], results[0][name]) for name in result)
    network = net()
    before = values(network)
    descend(network, optim.SGD(network[1].parameters(), 0.1, momentum=0.5))
    assert {n for n, v in values(network).items() if not np.array_equal(v, before[n])} == {
        "layers.1.w", "layers.1.b"}


@pytest.mark.parametrize(("given", "said"), [
    (lambda: [], "no parameters.*used up"), (lambda: iter(()), "no parameters"),
    (lambda: [net()[0].w] * 2, "same parameter twice"),
    (lambda: [sg.tensor([1.0], requires_grad=True)], "a Tensor in it.*nn.Parameter"),
    (lambda: net()[0].w, "of a Parameter: expected a module"), (lambda: 3, "of a int"),
    (lambda: nn.Flatten(), "Flatten has no parameters"),
    (lambda: net().state_dict(), "with a str in it")])
def test_what_an_optimiser_cannot_take(given, said):
    given = given()
    with pytest.raises(sg.UserError, match=said):
        optim.Adam(given, 0.1)


# --- all ways to set a parameter -----------------------------------------------------------------

def assign(layer, new):
    layer.w.data = new


def assign_tensor(layer, new):
    layer.w.data = sg.Tensor(new)


def assign_elements(layer, new):
    layer.w.data[...] = new


def multiply(layer, new):
    layer.w.data *= 0
    layer.w.data += new


def set_attribute(layer, new):
    layer.w = nn.Parameter(new)


def load(layer, new):
    layer.load_state_dict({"w": to_host(new), "b": to_host(layer.b.data)})


def copy_to(layer, new):
    if isinstance(layer.w.data, np.ndarray):
        np.copyto(layer.w.data, new)
    else:
        layer.w.data[...] = new


def through_a_view(layer, new):
    layer.w.data.reshape(-1)[...] = new.reshape(-1)


def in_no_grad(layer, new):
    with sg.no_grad():
        layer.w[...] = new


WAYS = [assign, assign_tensor, assign_elements, multiply, set_attribute, load, copy_to,
        through_a_view, in_no_grad]


@pytest.mark.parametrize("when", ["before", "after", "within a recorded step"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("backend", ["numpy", "numba", "cuda"])
def test_a_value_that_is_set_is_what_trains(backend, way, when, request):
    if backend == "cuda":
        request.getfixturevalue("gpu")
    with sg.use_backend(backend):
        layer = nn.Dense(3, 2, stream=sg.Stream(1, "w"))
        new = to_device(np.full((3, 2), 0.25, np.float32))
        if when == "before":
            way(layer, new)
        optimiser = optim.SGD(layer, 0.1, momentum=0.5)
        x = to_device(X)

        def step():
            optimiser.zero_grad()
            sg.square(layer(sg.Tensor(x)) - 1).sum().backward()
            optimiser.step()

        if when == "within a recorded step":
            step = sg.capture(step)
            for _ in range(3):
                step()
            optimiser.state["m"][...] = 0
        if when != "before":
            way(layer, new)
        layer.b.data[...] = 0
        step()
        error = X @ np.full((3, 2), 0.25, np.float32) - 1
        np.testing.assert_allclose(to_host(layer.w.data), 0.25 - 0.1 * 2 * X.T @ error, rtol=1e-5)
        assert layer.w.data.base is optimiser.data


def test_another_shape_or_dtype_is_refused_and_changes_nothing():
    layer = nn.Dense(3, 2)
    before = layer.w.data.copy()
    for wrong in (np.ones((2, 3), np.float32), np.ones((3, 2)), np.ones((3, 2), int), 1.0,
                  [[1, 2]] * 3):
        with pytest.raises(sg.UserError, match=r"float32\(3, 2\) cannot become"):
            layer.w.data = wrong
    assert np.array_equal(layer.w.data, before)


def test_assigning_between_forward_and_backward_is_noticed():
    layer = nn.Dense(3, 2)
    x = sg.tensor(X, requires_grad=True)                   # so that w is needed
    loss = sg.square(layer(x)).sum()
    layer.w.data = layer.w.data * 2
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


# --- gradients that are kept ---------------------------------------------------------------------

HOLDS = {"the tensor": lambda g: g, "its array": lambda g: g.data, "numpy()": lambda g: g.numpy(),
         "a slice": lambda g: g[1:], "a view of a view": lambda g: g.data.reshape(-1)[::2]}
EVENTS = {
    "backward": lambda n, o: sg.square(n(X)).sum().backward(),
    "another step": lambda n, o: descend(n, o),
    "zero_grad of the network": lambda n, o: (n.zero_grad(), sg.square(n(X)).sum().backward()),
    "clip_norm": lambda n, o: optim.clip_norm(o, 1e-3),
    "clip_value": lambda n, o: optim.clip_value(o, 1e-3),
    "create_graph": lambda n, o: sg.square(n(X)).sum().backward(create_graph=True),
    "grad set by hand": lambda n, o: (setattr(n[0].w, "grad", sg.Tensor(np.ones((3, 5), "f"))),
                                      o.step())}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("holds", HOLDS)
@pytest.mark.parametrize("packed", [True, False])
def test_a_gradient_that_is_held_does_not_change(holds, event, packed):
    network = net()
    optimiser = optim.SGD(network, 0.1) if packed else None
    if not packed and event in ("another step", "clip_norm", "clip_value", "grad set by hand"):
        pytest.skip("needs an optimiser")
    sg.square(network(X)).sum().backward()
    held = HOLDS[holds](network[0].w.grad)
    before = np.array(held)
    assert before.any()
    for _ in range(2):
        EVENTS[event](network, optimiser)
        assert np.array_equal(np.array(held), before)


def test_training_with_kept_gradients_is_the_same_training():
    networks = [net(), net()]
    kept = []
    for network in networks:
        optimiser = optim.Adam(network, 0.1)
        for _ in range(4):
            descend(network, optimiser)
            if network is networks[1]:
                kept.append([p.grad for p in network.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*(values(n).values() for n in networks),
                                                     strict=True))
    assert not any(np.shares_memory(a[0].data, b[0].data) for a, b in zip(kept, kept[1:],
                                                                          strict=False))


def test_gradients_that_nobody_holds_stay_in_one_buffer(monkeypatch):
    network = net()
    optimiser = optim.Adam(network, 0.1)
    monkeypatch.setattr(Pack, "allocate_gradients", lambda self: pytest.fail("a second buffer"))
    for _ in range(4):
        descend(network, optimiser)
        optim.clip_norm(optimiser, 1.0)
        sum(float(np.sum(np.square(p.grad.data))) for p in network.parameters())
        gc.collect()


# --- what was replaced ---------------------------------------------------------------------------

def replace_layer(network):
    network.layers[1] = nn.Dense(5, 4)


def replace_parameter(network):
    network[1].w = nn.Parameter(np.ones((5, 4), np.float32))


def add_layer(network):
    network.layers.append(nn.Dense(2, 2))


def add_attribute(network):
    network.head = nn.Dense(2, 2)


def remove_layer(network):
    network.layers.pop()


def tie(network):
    network[1].b = network[0].b


@pytest.mark.parametrize("given", [lambda n: n, lambda n: n.parameters()],
                         ids=["module", "parameters()"])
@pytest.mark.parametrize("change", [replace_layer, replace_parameter, add_layer, add_attribute,
                                    remove_layer, tie], ids=lambda change: change.__name__)
def test_an_optimiser_notices_that_its_network_has_other_parameters(change, given):
    network = net()
    optimiser = optim.SGD(given(network), 0.1)
    descend(network, optimiser)
    before = values(network)
    change(network)
    with pytest.raises(sg.UserError, match="no longer those.*make a new optimiser"):
        optimiser.step()
    after = values(network)
    assert all(np.array_equal(after[n], before[n]) for n in before if n in after
               and after[n].shape == before[n].shape)
    optimiser = optim.SGD(network, 0.1)                    # which takes over the old parameters
    optimiser.step()


def test_attributes_that_are_no_parameters_may_change():
    network = net()
    optimiser = optim.SGD(network, 0.1)
    for i in range(3):
        network.history = [*getattr(network, "history", []), i]
        network.last = network(X)
        before = network[0].w.data.copy()
        descend(network, optimiser)
        assert not np.array_equal(network[0].w.data, before)       # stepped, without an error


def test_a_new_parameter_of_the_same_shape_takes_the_place_of_the_old():
    layer = nn.Dense(3, 2)
    optimiser = optim.Adam(layer, 0.1)
    old, new = layer.w, nn.Parameter(np.ones((3, 2), np.float32))
    layer.w = new
    assert optimiser.parameters[0] is new and old.pack is None
    assert not np.shares_memory(old.data, new.data)
    descend(layer, optimiser)
    assert not np.array_equal(new.data, np.ones((3, 2)))


# --- options that are refused when made ----------------------------------------------------------

@pytest.mark.parametrize(("call", "said"), [
    (lambda: nn.Dense(2, 2, "gelu"), "did you mean 'elu'"), (lambda: nn.Dense(0, 2), "inputs is 0"),
    (lambda: nn.Dense(2, 2.0), "outputs is 2.0"), (lambda: nn.Dense(2, True), "outputs is True"),
    (lambda: nn.Dense(2, 2, dtype=int), "dtype of a layer.*float32"),
    (lambda: nn.Dense(2, 2, dtype="x"), "dtype of a layer is 'x'"),
    (lambda: nn.TiedDense(nn.Flatten()), "TiedDense of a Flatten"),
    (lambda: nn.TiedDense(nn.Dense(2, 2), "gelu"), "unknown activation"),
    (lambda: nn.Conv2d(1, 2, 0), "size is 0"),
    (lambda: nn.Conv2d(1, 2, 3, stride=0), "stride is 0"),
    (lambda: nn.Conv2d(1, 2, 3, padding=-1), "padding is -1"),
    (lambda: nn.Conv2d(1, 2, 3, padding="samee"), "samee"),
    (lambda: nn.Conv2d(1, 2, 3, padding="same", stride=2), "'same' with stride 2"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups is 2"),
    (lambda: nn.Conv2d(3, 4, 3, groups=0), "groups is 0"),
    (lambda: nn.Conv2d(1, 2, 3, dilation=1.5), "dilation is 1.5"),
    (lambda: nn.Conv2d(1.0, 2, 3), "inputs is 1.0"),
    (lambda: nn.ConvTranspose2d(1, 2, 3, output_padding=2), "output_padding"),
    (lambda: nn.BatchNorm(0), "channels is 0"), (lambda: nn.BatchNorm(3, momentum=2), "momentum"),
    (lambda: nn.BatchNorm(3, eps=-1), "eps is -1"), (lambda: nn.Dropout(2), "p is 2"),
    (lambda: nn.Dropout("x"), "p is 'x'"), (lambda: nn.Dropout(float("nan")), "p is nan"),
    (lambda: nn.MaxPool2d(2, padding=2), "padding is 2"), (lambda: nn.AvgPool2d(0), "size is 0"),
    (lambda: nn.Upsample(0), "scale is 0"), (lambda: nn.Function(3), "Function of a int"),
    (lambda: nn.Sequential(nn.Flatten(), None), "given a NoneType"),
    (lambda: optim.Adam(net(), "1e-3"), "learning rate is '1e-3'"),
    (lambda: optim.Adam(net(), -1), "learning rate is -1"),
    (lambda: optim.Adam(net(), float("inf")), "learning rate is inf"),
    (lambda: optim.Adam(net(), beta1=1), "beta1 is 1"),
    (lambda: optim.Adam(net(), beta2=-1), "beta2 is -1"),
    (lambda: optim.Adam(net(), eps="x"), "eps is 'x'"),
    (lambda: optim.Adam(net(), weight_decay=-1), "weight decay is -1"),
    (lambda: optim.SGD(net(), 0.1, momentum=1.5), "momentum is 1.5"),
    (lambda: optim.RMSprop(net(), 0.1, alpha=2), "alpha is 2"),
    (lambda: optim.SGD(net(), 0.1, schedule=0.5), "schedule is 0.5"),
    (lambda: optim.cosine(0), "cosine: the number of steps is 0"),
    (lambda: optim.warmup(0), "warmup: the number of steps"),
    (lambda: optim.warmup(3, 1.0), "warmup: what follows is 1.0"),
    (lambda: optim.exponential(-1), "exponential: the rate is -1"),
    (lambda: optim.piecewise([2, 4], [1, 0.1]), "2 boundaries.*one factor more"),
    (lambda: optim.piecewise([4, 2], [1, 0.1, 0.01]), "rising order"),
    (lambda: optim.clip_norm(net(), 1.0), "clipping of a Sequential"),
    (lambda: optim.clip_norm(optim.SGD(net(), 0.1), -1), "limit of clipping is -1"),
    (lambda: net().load_state_dict([1]), "is a dict of arrays"),
    (lambda: nn.Dense(1, 1).load_state_dict({"w": [[1]], "b": [1]}), "the saved w is a list"),
    (lambda: optim.SGD(net(), 0.1).load_state_dict([]), "no saved optimiser state")])
def test_wrong_options_are_refused_when_made(call, said):
    with pytest.raises(sg.UserError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
