"""The gradient ledger: right gradients are OK, wrong rules WRONG at their node, kinks KINK."""

import json

import numpy as np
import pytest

import scratchgen as sg
from scratchgen.engine import backward as engine
from scratchgen.models import DAE
from scratchgen.ops.op import OPS, named
from scratchgen.study import ledger


def network(rng):
    """A loss in which one value is used twice."""
    x = sg.tensor(rng.standard_normal((3, 4)))
    w = sg.tensor(rng.standard_normal((4, 5)), requires_grad=True)
    b = sg.tensor(rng.standard_normal(5), requires_grad=True)

    def loss():
        h = sg.tanh(x @ w + b)
        return sg.mean(sg.exp(h) * sg.sigmoid(h) + sg.log(2.0 + sg.cos(h)) / 3.0)

    return loss, {"w": w, "b": b}


def test_right_gradients_are_ok(rng, backend):
    loss, names = network(rng)
    found = ledger(loss, names)
    assert {row.verdict for row in found.rows} == {"OK"}
    assert {row.name for row in found.rows if row.op == "leaf"} == {"w", "b"}
    y = loss()
    y.backward()
    norms = {row.name: row.gradient for row in found.rows}
    for name, tensor in names.items():
        assert norms[name] == pytest.approx(np.linalg.norm(tensor.grad.data), rel=1e-12)
    assert json.loads(json.dumps(found.as_json()))["rows"][0]["verdict"] == "OK"
    assert all(min(error for _, error in row.errors) < 1e-6 for row in found.rows)


MUTANTS = [("tanh", 0, lambda dy, y: dy * (1 - y)), ("exp", 0, lambda dy, y: 1.001 * dy * y),
           ("sigmoid", 0, lambda dy, y: dy * y), ("log", 0, lambda dy, x: dy * x),
           ("cos", 0, lambda dy, x: dy * np.sin(x)), ("multiply", 0, lambda dy, b: dy + b),
           ("multiply", 1, lambda dy, a: dy * a * a), ("divide", 0, lambda dy, b: dy * b),
           ("matmul", 1, lambda dy, a: 1.001 * np.swapaxes(a, -1, -2) @ dy),
           ("add", 1, lambda dy: 2 * dy)]


@pytest.mark.parametrize("op, i, wrong", MUTANTS, ids=[f"{op}-{i}" for op, i, _ in MUTANTS])
def test_a_wrong_rule_is_reported_at_its_node(op, i, wrong, rng, monkeypatch):
    loss, names = network(rng)
    with sg.use_backend("numpy"):
        rules = list(OPS[op].rules)
        rules[i] = named(wrong)
        monkeypatch.setattr(OPS[op], "rules", rules)
        monkeypatch.setattr(OPS[op], "needs", {})
        found = ledger(loss, names)
    assert {row.op for row in found.rows if row.verdict == "WRONG"} == {op}
    assert not found.ok and "WRONG" in str(found)


def test_a_missing_sum_over_uses_is_reported_where_it_happens(rng, monkeypatch):
    loss, names = network(rng)
    monkeypatch.setattr(engine, "add_to", lambda gradients, node, gradient, into_buffers=False:
                        gradients.__setitem__(node, gradient))
    wrong = [row.op for row in ledger(loss, names).rows if row.verdict == "WRONG"]
    assert wrong == ["tanh"]


def test_kinks_are_kinks(rng, backend):
    x = sg.tensor(np.array([-1.5, 0.0, 0.0, 2.0]), requires_grad=True)
    weights = np.array([1.0, 2.0, -3.0, 4.0])
    found = ledger(lambda: sg.sum(sg.relu(x) * weights))
    assert {row.op for row in found.rows if row.verdict == "KINK"} == {"relu"}
    assert found.ok


def test_a_wrong_rule_beside_a_kink_is_wrong(monkeypatch):
    x = sg.tensor(np.array([-1.5, 0.0, 2.0]), requires_grad=True)
    with sg.use_backend("numpy"):
        monkeypatch.setattr(OPS["relu"], "rules", [named(lambda dy, y: np.where(
            y > 0, 1.01 * dy, 0))])
        monkeypatch.setattr(OPS["relu"], "needs", {})
        found = ledger(lambda: sg.sum(sg.relu(x)))
    assert [row.op for row in found.rows if row.verdict == "WRONG"] == ["relu"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model(dtype, backend):
    model = DAE(DAE.Config(hidden=7), (5, 4, 1), dtype=dtype)
    x = np.random.default_rng(0).random((3, 5, 4, 1)).astype(dtype)
    pair, = model.draw(x, sg.Streams(0))
    found = ledger(lambda: model.loss(pair)["loss"], model.named_parameters())
    assert found.ok and len(found.rows) > 5
    assert {row.op for row in found.rows} >= {"leaf", "dense", "bce_with_logits"}


def test_what_is_no_loss_is_refused():
    x = sg.tensor([1.0, 2.0], requires_grad=True)
    for wrong in (x, lambda: x, lambda: sg.tensor(1.0)):
        with pytest.raises(sg.UserError, match="ledger"):
            ledger(wrong)
