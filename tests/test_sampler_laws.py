"""``check laws``: every law holds, and a sampler of another density fails it."""

import json
import math

import numpy as np
import pytest

import scratchgen as sg
from scratchgen.cli import run
from scratchgen.models import VAE
from scratchgen.study import laws


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_laws_hold(seed):
    found = sg.study.check_laws(seed=seed)
    assert found.failed() == [] and {t.law for t in found.trials} == set(laws.LAWS)
    assert found.threshold * len(found.trials) == pytest.approx(laws.FALSE_ALARMS)


def test_the_same_seed_gives_the_same_p_values():
    assert sg.study.check_laws(["uniform"], seed=7) == sg.study.check_laws(["uniform"], seed=7)
    assert sg.study.check_laws(["uniform"], seed=7) != sg.study.check_laws(["uniform"], seed=8)


@pytest.mark.long
def test_false_alarms_are_as_rare_as_stated():
    """p-values under the law: over 200 seeds the share below 0.01 is 0.01, within five standard
    errors of independent tests (they are not quite), and no run fails."""
    runs = [sg.study.check_laws(["normal", "uniform", "dropout", "shuffling", "binarisation"],
                                seed=seed) for seed in range(200)]
    p = np.array([t.p_value for found in runs for t in found.trials if t.p_value < 1])
    assert abs(np.mean(p < 0.01) - 0.01) < 5 * math.sqrt(0.01 * 0.99 / len(p))
    assert sum(bool(found.failed()) for found in runs) <= 2


def failed(name, **options):
    return {t.test for t in sg.study.check_laws([name], **options).failed()}


def test_a_variance_taken_for_the_standard_deviation_fails(monkeypatch):
    right = sg.ops.reparametrize
    monkeypatch.setattr(sg.ops, "reparametrize", lambda m, v, eps: right(m, 2 * v, eps))
    assert {"variance 1", "Φ", "E[∂ ln q/∂v] = 0", "∂E[z²]/∂v = e^v",
            "KL to N(0, 1): Monte Carlo = closed form"} <= failed("reparametrize")


def test_a_kl_without_its_half_fails(monkeypatch):
    right = sg.ops.gaussian_kl
    monkeypatch.setattr(sg.ops, "gaussian_kl", lambda m, v: 2 * right(m, v))
    assert failed("reparametrize") == {"KL to N(0, 1): Monte Carlo = closed form"}


def test_a_mean_without_a_gradient_fails(monkeypatch):
    right = sg.ops.reparametrize
    monkeypatch.setattr(sg.ops, "reparametrize", lambda m, v, eps: right(
        sg.ops.subtract(sg.ops.multiply(m, 1.5), 0.5 * m.data), v, eps))
    assert failed("reparametrize") == {"∂E[z²]/∂m = 2m"}


def test_dropout_without_its_scale_fails(monkeypatch):
    right = sg.ops.dropout
    monkeypatch.setattr(sg.ops, "dropout", lambda x, p, u: right(x, p, u) * (1 - p))
    assert failed("dropout") == {"mean x", "the others are x/(1 − p)"}


def test_a_fraction_of_what_is_kept_fails(monkeypatch):
    monkeypatch.setattr(laws, "Masking", lambda fraction: sg.data.Masking(1 - fraction))
    assert failed("masking") == {"0 with the fraction"}


def test_the_variance_of_a_corruption_taken_for_its_std_fails(monkeypatch):
    monkeypatch.setattr(laws, "Gaussian", lambda std: sg.data.Gaussian(std**2))
    assert "variance 1" in failed("gaussian corruption")


def test_an_initialiser_with_the_wrong_fan_fails(monkeypatch):
    right = laws.INITIALISERS["he"]
    monkeypatch.setitem(laws.INITIALISERS, "he", lambda shape, fan_in, fan_out, *rest: right(
        shape, fan_out, fan_in, *rest))
    assert {"he: variance 1", "he: Φ"} <= failed("initialisers")


def test_every_initialiser_has_a_law():
    assert set(laws.DECLARED) == set(laws.INITIALISERS)


def test_a_biased_shuffle_fails(monkeypatch):
    """Exchanging each place with any other, instead of one behind it, is not uniform."""
    def biased(stream, n):
        order = np.arange(n)
        for i, j in enumerate((stream.uniform((n,), np.float64) * n).astype(int)):
            order[[i, j]] = order[[j, i]]
        return order
    monkeypatch.setattr(sg.Stream, "permutation", biased)
    assert "first two items" in failed("shuffling")


def test_numbers_used_twice_fail(monkeypatch):
    right = sg.Stream.normal

    def doubled(stream, shape, dtype=np.float32):
        return np.repeat(right(stream, (shape[0] // 2,), dtype), 2)
    monkeypatch.setattr(sg.Stream, "normal", doubled)
    assert {"float32: neighbours", "float64: neighbours"} <= failed("normal")


def test_the_draws_of_a_trained_model(monkeypatch):
    model = VAE(VAE.Config(hidden=8, latent=3), (4, 4, 1), seed=1)
    x = sg.Stream(1, "x").uniform((50, 4, 4, 1))
    found = sg.study.check_laws(["uniform"], model, x)
    assert found.failed() == [] and "posterior of the run" in {t.law for t in found.trials}
    with pytest.raises(sg.UserError, match="expected a VAE"):
        sg.study.check_laws(model=sg.models.DAE(image_shape=(4, 4, 1)), x=x)


def test_nan_fails():
    assert laws.Laws([laws.Trial("a", "b", 0.0, math.nan)], 1e-6, 0).failed()
    assert laws.mean_test("empty", np.empty(0), 1)[2] == 0


def test_the_command(capsys, tmp_path):
    path = tmp_path / "laws.json"
    assert run(["check", "laws", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert " 0 fail, seed 0" in text and "reparametrize" in text
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {row["verdict"] for row in found["laws"]} == {"holds"}
    assert run(["check", "laws", "--fresh", "--json", str(path)]) in (0, 1)
    assert json.loads(path.read_text(encoding="utf-8"))["seed"] != 0


def test_a_law_that_fails_is_the_exit_status(capsys, monkeypatch):
    monkeypatch.setattr(laws, "LAWS", {"uniform": lambda _: [laws.mean_test("no", np.ones(3), 2)]})
    assert run(["check", "laws"]) == 1
    assert "fails" in capsys.readouterr().out


def test_a_folder_without_a_run_is_one_sentence(capsys, tmp_path):
    assert run(["check", "laws", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scratchgen: ") and error.count("\n") == 1
