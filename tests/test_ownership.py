"""Who owns what comes back: for each public function and method, whether later calls change it.

``own``   the caller's: nothing that is done later changes it, and changing it changes nothing else.
``live``  a view of the object's present state, which moves with it.
"""

import copy
import inspect

import numpy as np
import pytest
from test_layers import LAYERS
from test_op_errors import WORKS

import scratchgen as sg
from scratchgen import data, models, nn, optim
from scratchgen.engine.memory import to_device, to_host

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def network():
    return nn.Sequential(nn.Dense(3, 4, "tanh"), nn.BatchNorm(4), nn.Dense(4, 2))


class World:
    """A network in training, and all that stands around it."""

    def __init__(self):
        self.network = network()
        self.optimiser = optim.Adam(self.network, 0.1)
        self.stream, self.streams = sg.Stream(1, "a"), sg.Streams(2)
        self.t = sg.tensor(X)
        self.loader = data.Loader(np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1) * 5,
                                  np.arange(3), 2, seed=0)
        self.model = models.VAE(models.VAE.Config(hidden=[5], latent=2), (4, 4, 1))
        self.model_optimiser = optim.Adam(self.model, 0.1)
        self.images = np.random.default_rng(0).random((3, 4, 4, 1), np.float32)
        self.captured = sg.capture(self.step)
        self.move()

    def step(self):
        self.optimiser.zero_grad()
        loss = sg.square(self.network(X)).sum()
        loss.backward()
        optim.clip_norm(self.optimiser, 0.5)
        self.optimiser.step()
        return loss.data

    def move(self):
        """All that may happen between two looks at a value."""
        self.step()
        self.captured()
        self.network(2 * X)
        with sg.no_grad():
            self.network.eval()(3 * X)
        self.network.train()
        self.t += 1.0
        self.streams["b"].normal((3, 4))
        self.stream.uniform(9)
        list(self.loader.batches(1))
        self.model.training_step(self.images, self.streams, {"model": self.model_optimiser})
        self.model.sample(2), self.model.encode(self.images[:2])


def hooked(w):
    seen = []
    with nn.Module.watching(lambda layer, x, y: seen.extend([x, y])):
        w.network(sg.tensor(X))
    return seen


def evaluated(w):
    with sg.no_grad():
        y = w.network.eval()(X)
    w.network.train()
    return y


def gradient_of(w):
    x = sg.tensor(X, requires_grad=True)
    return sg.grad(w.network(x).sum(), x)


def by_hand(w):
    """The gradients of a step without the tape."""
    w.model.training_step(w.images, w.streams, {"model": w.model_optimiser}, gradient="explicit")
    held = [p.grad for p in w.model.parameters()]
    w.step = lambda: w.model.training_step(
        w.images, w.streams, {"model": w.model_optimiser}, gradient="explicit")
    return held


def last_parameter(w):
    return w.network.parameters()[-1]


OWN = {
    "tensor": lambda w: sg.tensor(w.t.data), "copy": lambda w: w.t.copy(),
    "astype": lambda w: w.t.astype(np.float64), "item": lambda w: w.t.sum().item(),
    "tolist of numpy": lambda w: w.t.numpy().tolist(), "grad": gradient_of,
    "output in training": lambda w: w.network(X), "output in evaluation": evaluated,
    "output of a view": lambda w: sg.flatten(w.network(X)),
    "an op of a network's output": lambda w: w.network(X) * 2.0,
    "p.grad": lambda w: last_parameter(w).grad,
    "p.grad.data": lambda w: last_parameter(w).grad.data,
    "p.grad.numpy()": lambda w: last_parameter(w).grad.numpy(),
    "a slice of p.grad": lambda w: last_parameter(w).grad[0:1],
    "all gradients": lambda w: [p.grad for p in w.network.parameters()],
    "p.grad by hand": by_hand,
    "optimiser.grads": lambda w: w.optimiser.grads,
    "state_dict": lambda w: w.network.state_dict(),
    "optimiser.state_dict": lambda w: w.optimiser.state_dict(),
    "Streams.state": lambda w: w.streams.state(), "hooks": hooked,
    "Stream.normal": lambda w: w.stream.normal((3, 2)), "Stream.bits": lambda w: w.stream.bits(5),
    "Stream.uniform": lambda w: w.stream.uniform(5000),
    "Stream.permutation": lambda w: w.stream.permutation(7),
    "batches": lambda w: list(w.loader.batches(0)), "order": lambda w: w.loader.order(0),
    "step's loss": lambda w: w.step(),
    "clip_norm": lambda w: optim.clip_norm(w.optimiser, 1.0),
    "model.encode": lambda w: w.model.encode(w.images),
    "model.decode": lambda w: w.model.decode(np.zeros((2, 2), np.float32)),
    "model.reconstruct": lambda w: w.model.reconstruct(w.images),
    "model.sample": lambda w: w.model.sample(3),
    "model.evaluate": lambda w: w.model.evaluate(w.images, sg.Streams(1)),
    "model.training_step": lambda w: w.model.training_step(
        w.images, w.streams, {"model": w.model_optimiser}),
    "summary": lambda w: w.network.summary((4, 3)),
}
LIVE = {
    "t.data": lambda w: w.t.data, "t.numpy()": lambda w: w.t.numpy(),
    "detach": lambda w: w.t.detach(),
    "t[...]": lambda w: w.t[0:2], "reshape": lambda w: w.t.reshape(12),
    "p.data": lambda w: last_parameter(w).data, "p.numpy()": lambda w: last_parameter(w).numpy(),
    "parameters": lambda w: w.network.parameters(),
    "named_parameters": lambda w: w.network.named_parameters(),
    "named_buffers": lambda w: w.network.named_buffers(),
    "running_mean": lambda w: w.network[1].running_mean,
    "optimiser.data": lambda w: w.optimiser.data, "optimiser.state": lambda w: w.optimiser.state,
}


def numbers(x):
    """All the numbers in x, copied."""
    if isinstance(x, dict):
        return [n for value in x.values() for n in numbers(value)]
    if isinstance(x, (list, tuple)):
        return [n for value in x for n in numbers(value)]
    if isinstance(x, sg.Tensor):
        x = x.data
    return [x] if isinstance(x, str) else [np.array(to_host(x))]


def equal(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", OWN)
def test_what_is_the_callers_does_not_change(name, backend):
    world = World()
    held = OWN[name](world)
    before = numbers(held)
    for _ in range(3):
        world.move()
        assert equal(numbers(held), before)


@pytest.mark.parametrize("name", LIVE)
def test_what_is_live_moves_with_its_owner(name, backend):
    world = World()
    held = LIVE[name](world)
    before = numbers(held)
    world.move()
    assert not equal(numbers(held), before)
    fresh = numbers(LIVE[name](world))
    assert equal(numbers(held), fresh)


def test_the_loss_of_a_replayed_step_is_the_latest(backend):
    """A replay writes its results to the same arrays; the backend "numpy" replays nothing."""
    world = World()
    held = world.captured()
    before = numbers(held)
    world.move()
    assert equal(numbers(held), before) == (backend == "numpy")


def arrays_of(x):
    found = x if isinstance(x, (list, tuple)) else [x]
    return [v.data if isinstance(v, sg.Tensor) else v for v in found
            if isinstance(v, (sg.Tensor, np.ndarray))]


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("name", WORKS)
def test_no_op_returns_memory_of_the_callers_arrays(name, recording, backend):
    """Every public op, on arrays: filling them again changes no result."""
    inputs, options = WORKS[name]
    given = []

    def fresh(x):
        if isinstance(x, (list, tuple)):
            return type(x)(map(fresh, x))
        if isinstance(x, np.ndarray):
            given.append(x.copy())
            return given[-1]
        return x

    inputs = fresh(list(inputs))
    with sg.enable_grad() if recording else sg.no_grad():
        results = arrays_of(getattr(sg, name)(*inputs, **options))
    before = [np.array(r) for r in results]
    for x in given:
        x[...] = 0
    assert equal(results, before)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_keeps_or_returns_memory_of_the_callers_array(name, mode, backend):
    layer, shape = copy.deepcopy(LAYERS[name])
    layer.train(mode == "train")
    x = np.random.default_rng(0).normal(size=shape)
    y = layer(x)
    array = y.data if isinstance(y, sg.Tensor) else y
    before = array.copy()
    x[...] = 0
    assert np.array_equal(array, before) or array is x            # evaluation's dropout: x itself
    layer(np.random.default_rng(1).normal(size=shape))
    assert np.array_equal(array, before) or array is x


def test_a_recorded_steps_result_is_the_graphs_own(gpu):
    """On a GPU: the same array in each step, as ``capture`` says; a copy lasts."""
    with sg.use_backend("cuda"):
        layer, x = nn.Dense(3, 2), to_device(X)
        optimiser = optim.SGD(layer, 0.1)

        def step():
            optimiser.zero_grad()
            loss = sg.square(layer(sg.Tensor(x))).sum()
            loss.backward()
            optimiser.step()
            return loss.data

        step = sg.capture(step)
        step(), step()
        result = step()
        kept, before = result.copy(), float(to_host(result))
        assert step() is result
        assert float(to_host(result)) < before == float(to_host(kept))


def test_the_table_names_every_method_that_returns_values():
    """A new public method of a tensor, module, optimiser, stream or loader is a new line here."""
    known = {
        sg.Tensor: {"item", "detach", "copy", "numpy", "reshape", "astype", "backward", "transpose",
                    "sum", "mean", "max", "min", "store_gradient", "refuse_many"},
        nn.Module: {"forward", "named_parameters", "parameters", "named_buffers", "parts",
                    "modules", "named_modules", "train", "eval", "zero_grad", "frozen",
                    "state_dict", "load_state_dict", "summary", "flops", "describe", "watching",
                    "pack", "register_buffer", "check_declared"},
        optim.Optimiser: {"zero_grad", "step", "gather", "state_dict", "load_state_dict",
                          "learning_rate", "coefficients", "update", "check_network",
                          "active_groups"},
        data.Loader: {"batches", "sizes", "order"},
        sg.Stream: {"bits", "uniform", "normal", "permutation"}, sg.Streams: {"state", "restore"}}
    for cls, names in known.items():
        methods = {n for n, f in vars(cls).items() if not n.startswith("_")
                   and (inspect.isfunction(f) or isinstance(f, staticmethod))}
        if cls is not sg.Tensor:                          # its ops have a table of their own
            assert methods == names, cls.__name__
