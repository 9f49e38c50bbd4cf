"""The gradient check itself: it must find wrong gradients, and tell kinks and rounding apart."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen.errors import UserError
from scratchgen.ops.op import OPS


def wrong(monkeypatch, name, i, rule, names):
    """Replace the rule of an op for input ``i``."""
    rules = list(OPS[name].rules)
    rules[i] = rule, names
    monkeypatch.setattr(OPS[name], "rules", rules)


def verdicts(report):
    return [row.verdict for row in report.rows]


def test_right_gradients_pass(rng):
    x, w = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))
    report = sg.gradcheck(lambda x, w: np.tanh(x @ w), [x, w])
    assert report.ok and verdicts(report) == ["OK"] * 18
    assert "18 derivatives, 18 OK" in str(report)
    assert sg.gradcheck(lambda x: (x**3).sum(), x).ok            # one input, a number


def test_directions(rng):
    x = rng.normal(size=(20, 30))
    report = sg.gradcheck(lambda x: np.exp(x), x, directions=4)
    assert [row.where for row in report.rows] == [f"direction {k}" for k in range(4)]
    assert report.ok


def test_a_wrong_rule_is_named_by_input_and_element(monkeypatch, rng):
    wrong(monkeypatch, "multiply", 1, lambda dy, a: 1.001 * dy * a, ("dy", "a"))
    a, b = rng.normal(size=(2, 3)) + 3, rng.normal(size=(2, 3))
    with pytest.raises(sg.GradientError, match=r"input 1\[0, 0\]: gradient .*, differences .*, "
                                            r"relative error 1\.0e-03: WRONG") as error:
        sg.gradcheck(lambda a, b: a * b, [a, b])
    assert "12 derivatives, 6 OK, 6 WRONG" in str(error.value)
    assert "input 0" not in str(error.value)
    report = sg.gradcheck(lambda a, b: a * b, [a, b], raise_error=False)
    assert not report.ok
    assert not sg.gradcheck(lambda a, b: a * b, [a, b], directions=2, raise_error=False).ok
    assert not sg.gradcheck(lambda a, b: a * b, [a, b], mode="complex", raise_error=False).ok


def test_order_2_finds_what_order_1_cannot(monkeypatch, rng):
    """y·dy of exp, its value right but cut off from the graph: first order right, second wrong."""
    def rule(dy, y):
        return dy * (y.detach() if isinstance(y, sg.Tensor) else y)

    wrong(monkeypatch, "exp", 0, rule, ("dy", "y"))
    x = rng.normal(size=3)
    assert sg.gradcheck(np.exp, x).ok
    with pytest.raises(sg.GradientError):
        sg.gradcheck(np.exp, x, order=2)


def test_order_2_passes_where_it_should(rng):
    x, w = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))
    assert verdicts(sg.gradcheck(lambda x, w: sg.dense(x, w, activation="tanh"), [x, w],
                                 order=2)) == ["OK"] * 18


def test_complex_step(rng):
    x = rng.uniform(0.5, 2, (2, 3))
    report = sg.gradcheck(lambda x: np.exp(x) * np.sqrt(x) / np.log1p(x), x, mode="complex",
                          rtol=1e-14, atol=0)
    assert verdicts(report) == ["OK"] * 6
    with pytest.raises(UserError, match="analytic"):
        sg.gradcheck(lambda x: x * np.abs(plain(x)) if isinstance(x, sg.Tensor) else np.abs(x), x,
                     mode="complex")


def plain(x):
    return x.data


def test_a_kink_is_no_error():
    x = np.array([0.0, 1.0, -1.0])
    report = sg.gradcheck(sg.relu, x)
    assert verdicts(report) == ["KINK", "OK", "OK"] and report.ok
    assert "input 0[0]" in str(report) and "KINK" in str(report)
    assert verdicts(sg.gradcheck(lambda x: sg.maximum(x, 0.5), np.array([0.5]))) == ["KINK"]
    step = sg.gradcheck(lambda x: sg.where(x.data > 0, x + 1, x), np.array([0.0]),
                        raise_error=False)
    assert verdicts(step) == ["KINK"]                            # a jump: no slope settles


def test_near_a_kink_a_smaller_step_decides():
    assert verdicts(sg.gradcheck(sg.relu, np.array([2e-5, -2e-4]))) == ["OK", "OK"]


def test_a_wrong_gradient_at_a_kink_is_wrong(monkeypatch):
    monkeypatch.setattr(OPS["abs"], "rules", [(lambda dy: 3 * dy, ("dy",))])
    assert verdicts(sg.gradcheck(np.abs, np.array([0.0]), raise_error=False)) == ["WRONG"]


def test_rounding_is_no_error():
    """Beside 10¹², a slope of 1 drowns in rounding; beside 10³ it does not."""
    x = np.array([0.3, 0.7])
    report = sg.gradcheck(lambda x: x + 1e12, x)
    assert set(verdicts(report)) == {"ROUNDING"} and report.ok
    assert verdicts(sg.gradcheck(lambda x: x + 1e3, x)) == ["OK", "OK"]


def test_an_error_is_not_excused_by_rounding_at_the_smallest_step(monkeypatch):
    wrong(monkeypatch, "exp", 0, lambda dy, y: 1.001 * dy * y, ("dy", "y"))
    report = sg.gradcheck(lambda x: np.exp(x) + 1e6, np.array([0.3, 0.7]), raise_error=False)
    assert verdicts(report) == ["WRONG", "WRONG"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_fails(monkeypatch):
    report = sg.gradcheck(np.sqrt, np.array([0.0, 1.0]), raise_error=False)
    assert verdicts(report) == ["WRONG", "OK"]
    with pytest.raises(sg.GradientError, match="nan"):
        sg.gradcheck(lambda x: x * np.nan, np.array([1.0]))
    monkeypatch.setattr(OPS["exp"], "rules", [(lambda dy: dy * np.nan, ("dy",))])
    with pytest.raises(sg.GradientError, match="gradient nan"):
        sg.gradcheck(np.exp, np.array([1.0]))
    assert not sg.gradcheck(lambda x: np.exp(x) / 0.0, np.array([1.0]), raise_error=False).ok


def test_a_dropped_dependence_is_found():
    with pytest.raises(sg.GradientError):
        sg.gradcheck(lambda x: x * x.detach(), np.array([0.5, 1.5]))


def test_steep_functions_and_small_domains():
    assert sg.gradcheck(np.log, np.array([1e-4, 0.5, 1e4])).ok
    assert sg.gradcheck(lambda x: x**5, np.array([1e-3, 10.0, -300.0])).ok


@pytest.mark.parametrize("arguments, text", [
    ({"inputs": np.ones(2, np.float32)}, "input 0 is float32.*astype"),
    ({"inputs": [np.ones(2), np.ones(2, int)]}, "input 1 is int64"),
    ({"inputs": np.ones(2), "mode": "forward"}, "mode 'forward'"),
    ({"inputs": np.ones(2), "order": 3}, "order 3"),
    ({"inputs": np.ones(2), "order": 2, "mode": "complex"}, "choose order 1"),
])
def test_wrong_arguments_are_named(arguments, text):
    with pytest.raises(UserError, match=text):
        sg.gradcheck(lambda *xs: xs[0], **arguments)


def test_a_random_function_is_refused(rng):
    with pytest.raises(UserError, match="noise"):
        sg.gradcheck(lambda x: x * rng.normal(size=2), np.ones(2))
