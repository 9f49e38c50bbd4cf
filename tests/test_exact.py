"""Exact answers, found by our own training: linear autoencoders and VAEs, the DAE as a score, GANs.

The cases and their tolerances are in ``tests/proofs/exact_autoencoders.py`` and ``exact_gans.py``;
``python -m tests.proofs exact`` trains them longer, on more seeds, and records the errors.
"""

import json
import math

import numpy as np
import pytest

from tests.proofs import answers, exact, exact_gans

# Of each case make test trains the first seed; test_dae.py has a shorter DAE as a score.
SEEDS = {"linear VAE, fixed variance": [1], "DAE on a ring of Gaussians": [0, 1],
         "logistic D, N(0, 1) and N(m, 1)": [0], "D with 32 units, N(0, s²) and N(0, ½²)": [0],
         "critic, N(0, 1) and N(2, 1)": [0, 1], "GAN on N(1, 0.7²)": [0, 1]}
assert set(SEEDS) <= set(exact.CASES)
TRAININGS = [pytest.param(name, seed, variant, marks=[pytest.mark.long] * (
                 i > 0 or name == "DAE on a ring of Gaussians"),
                          id="-".join(map(str, (name, *variant.values(), seed))))
             for name, (_, variants) in exact.CASES.items() for variant in variants
             for i, seed in enumerate(SEEDS.get(name, [0, 1, 2]))]


@pytest.mark.parametrize("name, seed, variant", TRAININGS)
def test_training_finds_the_exact_answer(name, seed, variant):
    case, _ = exact.CASES[name]
    found = case(seed, **variant)
    assert found
    for answer in found:
        assert answer.holds, answer


@pytest.mark.parametrize("m, jsd, loss", [(0.5, 0.030311, 1.325672), (1, 0.111421, 1.163451),
                                          (2, 0.336831, 0.712633), (3, 0.526777, 0.332740)])
def test_value_of_the_game_by_quadrature(m, jsd, loss):
    """What the trained D is held to, against numbers that were computed elsewhere."""
    assert exact_gans.best_loss(float(m)) == pytest.approx(loss, abs=1e-6)
    assert (math.log(4) - exact_gans.best_loss(float(m))) / 2 == pytest.approx(jsd, abs=1e-6)


@pytest.mark.parametrize("std, loss", [(1.0, 1.200828), (2.0, 0.879352)])
def test_value_of_the_game_of_other_widths(std, loss):
    assert exact_gans.best_loss(0.0, std, 0.5) == pytest.approx(loss, abs=1e-6)


# --- the judge itself ----------------------------------------------------------------------------

def test_a_wrong_answer_is_a_miss():
    for wrong in (answers.near("x", 2, 2.11, 0.05, relative=True), answers.near("x", 3, 2, 0),
                  answers.near("x", 1, np.nan, 0.5), answers.near("x", 1, np.inf, 0.5),
                  answers.least("x", 1, 1 - 1e-6, 0.1), answers.least("x", 1, 1.2, 0.1),
                  answers.greatest("x", -1, -1 + 1e-6, 0.1), answers.greatest("x", -1, -1.2, 0.1)):
        assert not wrong.holds, wrong
    for right in (answers.near("x", -2, -2.09, 0.05, relative=True), answers.near("x", 3, 3, 0),
                  answers.least("x", 1, 1.09, 0.1), answers.greatest("x", -1, -1.09, 0.1)):
        assert right.holds and right.tolerance >= abs(right.error)


def test_the_record_has_the_worst_of_all_trainings(tmp_path, monkeypatch):
    def case(seed, effort, shift):
        """What is exact.

        More about it.
        """
        return [answers.near("small", 1, 1 + 0.01 * seed * shift, 0.05),
                answers.least("minimum", 1, 1 + seed / 100 if seed else 0.999, 0.1)]

    monkeypatch.setattr(exact, "CASES", {"a case": (case, [{"shift": 1}, {"shift": -2}])})
    assert exact.main(["--seeds", "3", "--out", str(tmp_path / "new" / "exact.json")]) == 1
    record = json.loads((tmp_path / "new" / "exact.json").read_text(encoding="utf-8"))
    (found,) = record["cases"]
    small, minimum = found["answers"]
    assert found["statement"] == "What is exact." and record["seeds"] == 3
    assert small["pass"] and small["at"] == {"seed": 2, "shift": -2}
    assert small["error"] == pytest.approx(-0.04) and len(small["errors"]) == 6
    assert not minimum["pass"] and minimum["at"]["seed"] == 0      # less than the least: a miss


def test_a_part_does_not_replace_the_record(capsys):
    for wrong in (["--only", "linear"], ["--only", "none"], ["--seeds", "0"], ["--effort", "0"]):
        with pytest.raises(SystemExit) as caught:
            exact.main(wrong)
        assert caught.value.code == 2
