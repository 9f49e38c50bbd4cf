"""Recorded steps on the CPU: a replay gives the bytes of the step itself, or is not used."""

import threading
import warnings

import numpy as np
import pytest
from test_cuda import FORMS, KINDS, SHAPE
from test_ops import CASES

import scratchgen as sg
from scratchgen.engine.backward import Node
from scratchgen.engine.capture import use_capture
from scratchgen.engine.memory import buffers
from scratchgen.engine.recorded import Recording
from scratchgen.errors import Notice
from scratchgen.ops.op import OPS
from scratchgen.train.runs import open_run


def bits(results):
    """The bytes of a nested structure of arrays, tensors and numbers."""
    if isinstance(results, dict):
        return {name: bits(value) for name, value in results.items()}
    if isinstance(results, (list, tuple)):
        return [bits(value) for value in results]
    array = np.asarray(getattr(results, "data", results)
                       if not isinstance(results, np.ndarray) else results)
    return array.dtype, array.shape, array.tobytes()


def recorded(step):
    """Whether all kinds of a captured step are recorded, and the last one has been checked."""
    found = list(step.recordings.values())
    return all(isinstance(r, Recording) for r in found) and found[-1].checked



# The switches of these two exist from their import on, which would begin a second recording.
assert sg.use_convolution and sg.use_gemm

# --- ops -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "case"), [
    (name, i) for name, cases in CASES.items() for i in range(len(cases))])
def test_every_op_and_its_derivatives(name, case, dtype):
    (inputs, options), op = CASES[name][case], OPS[name]
    real = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    given = [x.astype(dtype) if i in real else x for i, x in enumerate(inputs)]

    def step(factor, *arrays):
        arrays = dict(zip(real, arrays, strict=True))
        tensors = [sg.Tensor(arrays[i]) if i in real else x for i, x in enumerate(given)]
        for i in real:
            tensors[i].requires_grad = bool(op.joint or op.variadic or op.rules[i])
        y = op.apply(*tensors, **options)
        results = [y]
        if y.requires_grad:
            (sg.sum(y * y) * sg.tensor(factor)).backward()
            results += [tensors[i].grad for i in real if tensors[i].grad is not None]
        return results

    captured = sg.capture(step)
    for k in range(4):
        arrays = [given[i] * dtype(1 + k / 64) for i in real]
        factor = np.asarray(k + 1, dtype)
        assert bits(captured(factor, *arrays)) == bits(step(factor, *arrays)), (name, k)
    assert recorded(captured), captured.reason


def test_gradients_of_gradients():
    def step(x):
        x = sg.Tensor(x)
        x.requires_grad = True
        y = sg.tanh(x @ np.swapaxes(x, 0, 1)).sum()
        (dx,) = sg.grad(y, [x], create_graph=True)
        sg.square(dx).sum().backward()
        return y, dx, x.grad

    captured = sg.capture(step)
    for k in range(4):
        x = np.random.default_rng(k).normal(size=(3, 5))
        assert bits(captured(x)) == bits(step(x))
    assert recorded(captured)


# --- models and optimisers -----------------------------------------------------------------------

def train(form, captured, optimiser="adam", dtype=np.float32, steps=12, **options):
    """(losses, weights, optimisers' states, counters, the step) after batches of 6 and of 5."""
    kind, config = FORMS[form]
    model = KINDS[kind](KINDS[kind].Config(**config), SHAPE, dtype=dtype)
    streams, losses = sg.Streams(3), []
    optimisers = {name: sg.optim.make(optimiser, network, 1e-3,
                                      schedule=sg.optim.exponential(0.9), **options)
                  for name, network in model.networks().items()}

    def step(x, labels):
        return model.training_step(x, streams, optimisers, labels=labels)

    run = sg.capture(step, lambda: model.recording_key(optimisers))
    with use_capture(captured):
        for i in range(steps):
            rng = np.random.default_rng(i)
            n = 5 if i in (2, 4, 6) else 6
            terms = run(rng.random((n, *SHAPE)).astype(dtype), rng.integers(0, 3, n))
            losses.append({name: float(value) for name, value in terms.items()})
    state = {name: o.state_dict() for name, o in optimisers.items()}
    return losses, bits(model.state_dict()), bits(state), streams.state(), run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
def test_a_replayed_step_trains_to_the_same_bytes(form, dtype):
    plain, replayed = (train(form, captured, dtype=dtype) for captured in (False, True))
    assert replayed[:4] == plain[:4]
    assert recorded(replayed[4]) and not plain[4].recordings


@pytest.mark.parametrize(("optimiser", "options"), [
    ("sgd", {}), ("sgd", {"momentum": 0.9}), ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("adagrad", {}), ("rmsprop", {}), ("adam", {"weight_decay": 0.1}),
    ("adamw", {"weight_decay": 0.1})])
def test_every_optimiser(optimiser, options):
    plain, replayed = (train("vae", captured, optimiser, **options) for captured in (False, True))
    assert replayed[:4] == plain[:4] and recorded(replayed[4])


# --- a small step of a user ----------------------------------------------------------------------

class Setup:
    """A network, its optimiser and a step on it; ``extra`` is called in each step."""

    def __init__(self, extra=lambda network, loss: None, captured=True):
        self.stream = sg.Stream(1, "dropout")
        self.network = sg.nn.Sequential(
            sg.nn.Dense(5, 4, "tanh", stream=sg.Stream(0, "a")), sg.nn.Dropout(0.3, self.stream),
            sg.nn.Dense(4, 3, stream=sg.Stream(0, "b")))
        self.optimiser = sg.optim.Adam(self.network, 1e-2)
        self.extra, self.steps = extra, 0
        self.step = sg.capture(self.plain) if captured else self.plain

    def plain(self, x):
        self.optimiser.zero_grad()
        loss = sg.square(self.network(x)).sum()
        loss.backward()
        found = self.extra(self.network, loss)
        self.optimiser.step()
        return loss if found is None else (loss, found)

    def run(self, steps, n=6):
        """The results of the next steps, as bytes."""
        found = []
        for _ in range(steps):
            self.steps += 1
            x = np.random.default_rng(self.steps).normal(size=(n, 5)).astype(np.float32)
            found.append(bits(self.step(x)))
        return found


def both(change=lambda setup: None, extra=lambda network, loss: None, before=4, after=4):
    """The captured setup, after it was compared with a plain one before and after a change."""
    replayed, plain = Setup(extra), Setup(extra, captured=False)
    assert replayed.run(before) == plain.run(before)
    change(replayed), change(plain)
    assert replayed.run(after) == plain.run(after)
    assert bits(replayed.network.state_dict()) == bits(plain.network.state_dict())
    return replayed


def test_a_replay_uses_no_tape_and_no_new_memory():
    setup = Setup()
    setup.run(3)
    nodes, made = next(Node.ages), buffers.made
    setup.run(5)
    assert next(Node.ages) == nodes + 1 and buffers.made == made
    assert recorded(setup.step)


def replace_layer(setup):
    setup.network.layers[0] = sg.nn.Dense(5, 4, "relu", stream=sg.Stream(2, "c"))
    setup.optimiser = sg.optim.Adam(setup.network, 1e-2)


def replace_parameter(setup):
    setup.network[0].w = sg.nn.Parameter(np.full((5, 4), 0.25, np.float32))


def freeze(setup):
    setup.network[0].w.requires_grad = False


def keep_gradients(setup):
    setup.kept = [p.grad for p in setup.network.parameters()]


@pytest.mark.parametrize(("change", "kinds"), [
    (lambda s: s.network.eval(), 2), (lambda s: setattr(s.network[1], "p", 0.6), 2),
    (lambda s: setattr(s.network[0], "activation", "relu"), 2), (freeze, 3),
    (replace_parameter, 2), (replace_layer, 1),
    (lambda s: setattr(s.optimiser, "lr", 0.3), 1),
    (lambda s: setattr(s.stream, "counter", 77), 1),
    (lambda s: s.optimiser.load_state_dict(s.optimiser.state_dict()), 2),
    (lambda s: s.network.load_state_dict(s.network.state_dict()), 1),
    (lambda s: s.network[0].w.data.fill(0.5), 1), (lambda s: s.optimiser.zero_grad(), 1),
    (keep_gradients, 1)], ids=lambda c: getattr(c, "__name__", str(c)))
def test_a_change_between_steps_takes_effect(change, kinds):
    setup = both(change)
    assert len(setup.step.recordings) == kinds and recorded(setup.step)


def test_other_shapes_have_recordings_of_their_own():
    replayed, plain = Setup(), Setup(captured=False)
    for n in (6, 4, 6, 4, 4, 6, 6, 4):
        assert replayed.run(1, n) == plain.run(1, n)
    assert len(replayed.step.recordings) == 2 and recorded(replayed.step)


def test_gradients_that_the_user_keeps_are_those_of_the_replay():
    """A recorded step always writes to the same memory, so a kept gradient is the latest one."""
    setup = Setup()
    setup.run(3)
    kept = setup.network[0].w.grad
    before = kept.numpy().copy()
    setup.run(2)
    assert setup.network[0].w.grad is kept and (kept.numpy() != before).any()


def test_settings_of_the_thread_belong_to_the_kind_of_step():
    setup = Setup()
    setup.run(3)
    with sg.no_grad(), pytest.raises(RuntimeError, match="no gradient flows through"):
        setup.run(1)
    with sg.use_backend("numpy"):
        setup.run(1)
    with use_capture(False):
        setup.run(1)
    assert len(setup.step.recordings) == 1 and recorded(setup.step)


def test_layers_are_watched_in_each_step():
    setup, seen = Setup(), []
    setup.run(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        with setup.network.watching(lambda layer, x, y: seen.append(layer)):
            setup.run(3)
    assert len(seen) == 9
    setup.run(1)
    assert len(seen) == 9


# --- what cannot be recorded ---------------------------------------------------------------------

GENERATOR = np.random.default_rng(5)
COUNTS = {}


def own_state(network, loss):
    COUNTS[id(network)] = COUNTS.get(id(network), 0) + 1
    return loss.detach() * COUNTS[id(network)]


def sgd_in_numpy(network, loss):
    for p in network.parameters():
        p.data -= np.float32(0.1) * p.grad.data


def foreign_numbers(network, loss):
    return loss.detach() * GENERATOR.random()


READING = {
    "float": lambda network, loss: float(loss) * 2,
    "item": lambda network, loss: loss.item() * 2,
    "numpy": lambda network, loss: network[0].w.grad.numpy().sum(),
    "asarray": lambda network, loss: np.asarray(loss.detach()) * 2,
    "comparison": lambda network, loss: network[0].w * 2 if loss.data > 3 else network[0].w,
    "bool": lambda network, loss: bool(np.isfinite(loss.data)),
    "allclose": lambda network, loss: np.allclose(loss.data, 1),
    "list": lambda network, loss: network[0].w.grad.data.tolist(),
    "mask": lambda network, loss: np.sum(loss.data.reshape(1)[loss.data.reshape(1) > 2]),
    "nonzero": lambda network, loss: np.sum(np.nonzero(loss.data.reshape(1))[0]),
    "index": lambda network, loss: np.arange(9)[int(loss.data) % 9],
    "print": lambda network, loss: len(f"{loss}"),
}


@pytest.mark.parametrize("reading", READING)
def test_a_step_that_reads_values_runs_without_recording(reading):
    with pytest.warns(Notice, match="run without recording") as notices:
        setup = both(extra=READING[reading])
    assert list(setup.step.recordings.values()) == [None]
    assert len(notices) == 1


@pytest.mark.parametrize("extra", [own_state, sgd_in_numpy])
def test_a_step_whose_replay_differs_runs_without_recording(extra):
    with pytest.warns(Notice, match="a replay does not give the same bytes"):
        setup = both(extra=extra)
    assert list(setup.step.recordings.values()) == [None]


def test_numbers_from_elsewhere_are_noticed():
    setup = Setup(foreign_numbers)
    with pytest.warns(Notice, match="a replay does not give the same bytes"):
        setup.run(3)


@pytest.mark.parametrize("extra", [
    lambda optimiser: sg.optim.clip_norm(optimiser, 0.5),
    lambda optimiser: sg.optim.clip_value(optimiser, 0.1)])
def test_clipping_is_recorded(extra):
    setups = Setup(), Setup(captured=False)
    for setup in setups:
        setup.extra = lambda network, loss, setup=setup: extra(setup.optimiser)
    assert setups[0].run(6) == setups[1].run(6) and recorded(setups[0].step)


@pytest.mark.parametrize("place", range(0, 12, 2))
def test_a_recording_that_lacks_a_call_is_noticed(place, monkeypatch):
    setup, add = Setup(), Recording.add

    def without_one(self, function, args, options):
        self.count = getattr(self, "count", -1) + 1
        if self.count != place:
            add(self, function, args, options)

    monkeypatch.setattr(Recording, "add", without_one)
    with pytest.warns(Notice, match="a replay does not give the same bytes"):
        setup.run(3)


def test_an_error_of_the_step_arrives_and_the_next_call_goes_on():
    def step(x):
        y = sg.square(sg.Tensor(x))
        if fails:
            raise ZeroDivisionError("of the step")
        return y

    captured = sg.capture(step)
    for fails in (True, False, False, False):
        if fails:
            with pytest.raises(ZeroDivisionError, match="of the step"):
                captured(np.ones(3))
        else:
            assert (captured(np.full(3, 2.0)).numpy() == 4).all()


def test_a_capture_inside_another_is_a_part_of_it():
    inner = sg.capture(lambda x: sg.square(sg.Tensor(x)))
    outer = sg.capture(lambda x: sg.square(inner(x)))
    for k in range(1, 5):
        np.testing.assert_array_equal(outer(np.full(3, k, np.float32)).numpy(), k**4)
    assert recorded(outer) and not inner.recordings


def test_two_threads_may_call_one_captured_step():
    step = sg.capture(lambda x: sg.square(sg.Tensor(x)) * 3)
    wrong = []

    def work(seed):
        for i in range(200):
            x = np.full((40, 40), seed * 1000 + i, np.float64)
            y = step(x)
            with lock:
                wrong.extend([i] * (y.shape != x.shape))

    lock = threading.Lock()
    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_memory_of_a_recording_is_about_that_of_the_step():
    def step(x):
        y = sg.Tensor(x)
        for _ in range(50):
            y = sg.tanh(y)
        return y.sum()

    captured = sg.capture(step)
    x = np.ones((100, 100))
    with sg.no_grad():
        for _ in range(3):
            captured(x)
    assert recorded(captured) and captured.arena.bytes < 4 * x.nbytes


def test_recordings_of_long_past_kinds_are_released():
    stream, kind = sg.Stream(1, "z"), iter(k // 3 for k in range(120))
    draw = sg.capture(lambda: stream.uniform(3), lambda: next(kind))
    for _ in range(120):
        draw()
    assert [k for k, *_ in draw.recordings] == list(range(24, 40)) and draw.reason is None


def test_a_step_that_is_never_of_the_same_kind_is_not_recorded_for_ever():
    stream, kind = sg.Stream(1, "z"), iter(range(100))
    draw = sg.capture(lambda: stream.uniform(3), lambda: next(kind))
    with pytest.warns(Notice, match="each step differs from those before") as notices:
        found = [draw().copy() for _ in range(40)]
    assert len(notices) == 1 and len(draw.recordings) == 16
    again = sg.Stream(1, "z")
    np.testing.assert_array_equal(found, [again.uniform(3) for _ in range(40)])


def test_each_replay_checks_its_labels():
    """A kernel would read beyond the row of a label that is no class."""
    step = sg.capture(lambda x, labels: sg.cross_entropy(sg.Tensor(x), labels))
    x = np.zeros((3, 4), np.float32)
    for _ in range(4):
        step(x, np.array([0, 3, 1]))
    for labels in ([0, 1, 99_999_999], [0, -1, 2]):
        with pytest.raises(ValueError, match="cross_entropy: labels from"):
            step(x, np.array(labels))
    assert recorded(step)
    assert float(step(x, np.array([2, 2, 2]))) == pytest.approx(3 * np.log(4))


def test_each_replay_checks_the_data_of_a_model():
    model = sg.models.DAE(sg.models.DAE.Config(hidden=3), (2, 2, 1))
    optimisers = {"model": sg.optim.Adam(model, 1e-3)}
    streams = sg.Streams(1)
    step = sg.capture(lambda x: model.training_step(x, streams, optimisers))
    for _ in range(4):
        step(np.full((3, 2, 2, 1), 0.5, np.float32))
    with pytest.raises(sg.UserError, match=r"values in \[0, 1\], and the data go from"):
        step(np.full((3, 2, 2, 1), 2, np.float32))
    assert recorded(step)


@pytest.mark.parametrize("argument", [[1.0, 2.0], sg.Tensor(np.ones(2)), {"a": 1}],
                         ids=["list", "tensor", "dict"])
def test_arguments_that_are_no_arrays_reach_the_step(argument):
    step = sg.capture(lambda x: x)
    with pytest.warns(Notice, match="an argument is no array"):
        assert step(argument) is argument


def test_a_layer_that_is_exchanged_in_a_list_is_noticed():
    setup = Setup()
    setup.run(4)
    other = sg.nn.Dense(5, 4, "relu", stream=sg.Stream(2, "c"))
    setup.network.layers[0] = other
    with pytest.raises(sg.UserError, match="no longer those that its optimiser was made for"):
        setup.run(1)


def test_modules_that_are_made_meanwhile_change_nothing():
    """Nor do those that are made in the step itself."""
    setup = both(lambda s: sg.nn.Sequential(sg.nn.Dense(3, 2), sg.nn.Dropout(0.5)),
                 extra=lambda network, loss: sg.nn.Flatten()(network[0].w))
    assert len(setup.step.recordings) == 1 and recorded(setup.step)


def test_an_attribute_that_becomes_none_and_back():
    replayed, plain = Setup(), Setup(captured=False)
    for value in (None, "relu", None, "relu", None):
        for setup in (replayed, plain):
            setup.network[0].activation = value
        assert replayed.run(3) == plain.run(3)
    assert len(replayed.step.recordings) == 2


# --- training runs -------------------------------------------------------------------------------

RUNS = {
    "vae": {"model": {"hidden": 9, "latent": 2, "warmup": 2}, "train": {"optimizer": "adam"}},
    "dae": {"model": {"hidden": 7, "tied": True}, "train": {"optimizer": "sgd", "momentum": 0.9}},
    "gan": {"model": {"latent": 5, "generator": [9], "discriminator": [7], "d_steps": 2},
            "train": {"optimizer": "rmsprop"}},
    "sdae": {"model": {"layers": [9, 7], "levels": [0.2, 0.3]}, "train": {}},
    "classifier": {"model": {"layers": [9], "code": 7}, "train": {"optimizer": "adamw"}},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_makes_the_same_files_with_and_without_capture(name, tmp_path):
    """The first run is captured; the third is stopped after an epoch and resumed without."""
    tables = {"run": {"model": name}, "data": {"limit": 90}, **RUNS[name]}
    tables["train"] = {"epochs": 3, "batch_size": 20, **tables["train"]}
    if name == "sdae":
        tables["model"]["pretrain_epochs"] = 1
    for folder, captured in (("a", True), ("b", False)):
        with use_capture(captured), warnings.catch_warnings():
            warnings.simplefilter("error", Notice)
            sg.train.train(tables, tmp_path / folder)
    first = {**tables, "train": {**tables["train"], "epochs": 1}}
    sg.train.train(first, tmp_path / "c")
    with use_capture(False):
        sg.train.train({"train": {"epochs": 3}}, tmp_path / "c", resume=True)
    made = [open_run(tmp_path / folder).checkpoint_path.read_bytes() for folder in "abc"]
    assert made[0] == made[1] == made[2]
    metrics = [[{k: v for k, v in line.items() if k != "seconds"} for line in
                open_run(tmp_path / folder).metrics()] for folder in "abc"]
    assert metrics[0] == metrics[1] == metrics[2]


def test_the_trainer_replays_steps(monkeypatch, tmp_path):
    replays, replay = [], Recording.replay
    monkeypatch.setattr(Recording, "replay", lambda self, inputs: replays.append(1) or replay(
        self, inputs))
    tables = {"run": {"model": "vae"}, "data": {"limit": 100}, "model": RUNS["vae"]["model"],
              "train": {"epochs": 2, "batch_size": 20}}
    sg.train.train(tables, tmp_path / "a")
    assert len(replays) > 5
    replays.clear()
    with use_capture(False):
        sg.train.train(tables, tmp_path / "b")
    sg.train.train({**tables, "run": {"model": "vae", "gradient": "explicit"}}, tmp_path / "c")
    assert not replays
