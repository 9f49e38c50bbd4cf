"""``check claims``: every claim holds, and a fault in the code that it concerns makes it fail."""

import json
import math
import os

import numpy as np
import pytest

import scratchgen as sg
from scratchgen.cli import run
from scratchgen.models.gan import losses as gan_losses
from scratchgen.study import claims

DATA = os.environ.get("SCRATCHGEN_DATA")


@pytest.mark.parametrize("name", claims.CLAIMS)
def test_the_claim_holds(name):
    found = sg.study.check_claims([name])
    assert found
    for comparison in found:
        assert comparison.holds, comparison
    if name == "mnist-constants" and not DATA:
        pytest.skip("full MNIST: set SCRATCHGEN_DATA to its folder")
    assert not any(c.skipped for c in found)


def fails(name):
    return [c for c in sg.study.check_claims([name]) if not c.holds]


@pytest.mark.parametrize("name", ["elbo-gaussian"])
def test_a_kl_without_its_half_fails(name, monkeypatch):
    right = sg.ops.gaussian_kl
    monkeypatch.setattr(sg.ops, "gaussian_kl", lambda *given: 2 * right(*given))
    assert fails(name)


@pytest.mark.parametrize("name", ["densities-integrate", "elbo-gaussian", "tweedie"])
def test_a_variance_taken_for_the_standard_deviation_fails(name, monkeypatch):
    """With e^(2 logvar) the density still integrates to one; the other claims see it."""
    right = sg.ops.gaussian_log_likelihood
    monkeypatch.setattr(sg.ops, "gaussian_log_likelihood",
                        lambda x, mean, logvar: right(x, mean, 2 * logvar))
    assert bool(fails(name)) == (name != "densities-integrate")


def test_a_missing_constant_of_the_likelihood_fails(monkeypatch):
    right = sg.ops.gaussian_log_likelihood
    monkeypatch.setattr(sg.ops, "gaussian_log_likelihood",
                        lambda x, *rest: right(x, *rest) + math.log(2 * math.pi) / 2)
    assert fails("densities-integrate")


@pytest.mark.parametrize("name", ["value-supremum", "value-at-optimum", "half-at-equality",
                                  "saturation"])
def test_labels_of_the_wrong_side_fail(name, monkeypatch):
    right = gan_losses.losses_named

    def exchanged(loss, smoothing=0.0):
        found = right(loss, smoothing)
        return found._replace(real=found.fake, generator=found.real)
    monkeypatch.setattr(claims, "losses_named", exchanged)
    assert fails(name)


def test_a_prior_with_another_weight_fails_the_active_units(monkeypatch):
    monkeypatch.setattr(claims.VAE, "kl_weight", lambda self: self.config.beta / 2)
    assert fails("active-units")


def test_a_transposed_convolution_without_dilation_fails(monkeypatch):
    right = sg.ops.conv_transpose2d
    monkeypatch.setattr(sg.ops, "conv_transpose2d", lambda *arrays, dilation, **options: right(
        *arrays, **options))
    assert fails("adjoint")


def test_nan_holds_nothing():
    for relation in ("=", "≤"):
        assert not claims.Comparison("c", "a", np.nan, relation, "b", 0.0, 1.0).holds
        assert not claims.Comparison("c", "a", 0.0, relation, "b", np.nan, 1.0).holds
    assert claims.Comparison("c", "a", 1.0, "≤", "b", 0.5, 0.5).holds
    assert not claims.Comparison("c", "a", 1.0, "≤", "b", 0.4, 0.5).holds
    assert not claims.Comparison("c", "a", 0.4, "=", "b", 1.0, 0.5).holds


def test_the_command_prints_and_writes_the_same(capsys, tmp_path):
    path = tmp_path / "claims.json"
    assert run(["check", "claims", "dirac-gan", "half-at-equality", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "dirac-gan" in text and "4 hold, 0 fail, 0 skipped" in text
    found = json.loads(path.read_text(encoding="utf-8"))["claims"]
    assert [c["verdict"] for c in found] == ["holds"] * 4
    assert found[0]["left"] == pytest.approx(math.sqrt(1 + 0.01 / 4))


def test_the_command_fails_if_a_claim_fails(capsys, monkeypatch):
    monkeypatch.setitem(claims.CLAIMS, "wrong", lambda _: [claims.equal("one", 1, "two", 2, 0.5)])
    assert run(["check", "claims", "wrong"]) == 1
    assert "0 hold, 1 fail" in capsys.readouterr().out


def test_what_needs_missing_data_is_skipped_with_a_reason(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "claims.json"
    assert run(["check", "claims", "mnist-constants", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "0 hold, 0 fail, 2 skipped" in text and "complete MNIST" in text
    found = json.loads(path.read_text(encoding="utf-8"))["claims"]
    assert found[0]["verdict"] == "skipped" and found[0]["left"] is None


def test_missing_data_in_a_folder_that_was_named_is_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for folder in (tmp_path, tmp_path / "none"):
        assert run(["check", "claims", "mnist-constants", "--data-dir", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("scratchgen: ") and error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_sentence(capsys, tmp_path):
    path = tmp_path / "none" / "claims.json"
    assert run(["check", "claims", "dirac-gan", "--json", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"scratchgen: cannot write {path} (")


def test_an_unknown_claim_is_one_sentence(capsys):
    assert run(["check", "claims", "dirac-gans"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scratchgen: ") and "dirac-gan" in error and error.count("\n") == 1
