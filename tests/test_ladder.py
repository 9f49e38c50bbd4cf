"""The ladders' rungs equal their formulas, and a wrong rung does not pass; so for the kernels.

float32 is tested compiled, as it is timed. In float64 the same sources run uncompiled (the house's
on the NumPy backend), which spares the compiler and shows that they are plain Python; the command
itself checks both compiled, and test_parity.py holds the house's kernels to each other.
"""

import json

import numpy as np
import pytest
from scratchgen.kernels.compiler import compiled

import scratchgen as sg
from benchmarks import kernels, ladder, machine, timing
from benchmarks.rungs import idea_and_why, ladders, source

EVERY = ladders()
RUNGS = [pytest.param(found, rung, id=f"{found.name}: {rung.__name__}")
         for found in EVERY for rung in found.rungs]
every_rung = pytest.mark.parametrize("found, rung", RUNGS)
every_ladder = pytest.mark.parametrize("found", EVERY, ids=[found.name for found in EVERY])


# --- correctness ---------------------------------------------------------------------------------

@every_rung
def test_rung_equals_formula_float32(found, rung):
    for i, size in enumerate(found.ragged):
        ladder.check(found, rung, size, "float32", seed=i)


@every_rung
def test_rung_equals_formula_float64(found, rung):
    plain = rung.function if isinstance(rung, compiled) else rung
    with sg.use_backend("numpy"):
        ladder.check(found, plain, found.ragged[0], "float64", seed=9)


def scaled(results):
    return tuple(r * (1 + 1e-4) for r in results)


def one_nan(results):
    return tuple(np.where(np.arange(np.size(r)).reshape(np.shape(r)) == np.size(r) // 2, np.nan, r)
                 .astype(np.asarray(r).dtype)[()] for r in results)


def last_left_out(results):
    """The tail that a block does not divide, forgotten in the last result."""
    last = np.array(results[-1])
    last.reshape(-1)[-1] = 0
    return (*results[:-1], last)


def wrong_precision(results):
    return tuple(np.asarray(r, np.float64) for r in results)


@every_ladder
@pytest.mark.parametrize("mutate", [scaled, one_nan, last_left_out, wrong_precision])
def test_wrong_results_are_caught(found, mutate):
    def mutant(*arguments):
        return mutate(ladder.as_tuple(found.rungs[-1](*arguments)))
    size = found.ragged[0]
    ladder.check(found, found.rungs[-1], size, "float32", seed=3)
    with pytest.raises(ladder.Wrong, match="is off by|has shape|has type"):
        ladder.check(found, mutant, size, "float32", seed=3)


@every_ladder
def test_wrong_rungs_are_caught(found):
    """A dropped term, a wrong shape and a changed argument."""
    good, size = found.rungs[-1], found.ragged[0]

    def without_last_argument(*arguments):
        return good(*arguments[:-1], np.zeros_like(arguments[-1]))

    def flat(*arguments):
        return tuple(np.ravel(r)[None] for r in ladder.as_tuple(good(*arguments)))

    def changes_argument(*arguments):
        results = good(*arguments)
        arguments[0][...] += 1
        return results
    for wrong in (without_last_argument, flat, changes_argument):
        with np.errstate(all="ignore"), pytest.raises(ladder.Wrong, match=found.name):
            ladder.check(found, wrong, size, "float32", seed=4)


def test_a_rung_that_writes_nothing_is_caught():
    """Memory that held the right answer before does not help it."""
    found = EVERY[0]

    def lazy(x, w, b):
        return np.empty((len(x), w.shape[1]), x.dtype)
    with pytest.raises(ladder.Wrong):
        ladder.check_all(found._replace(rungs=(found.rungs[0].function, lazy)), found.ragged[:1])


# --- texts, table, command -----------------------------------------------------------------------

@every_rung
def test_rung_says_what_and_why_and_where(found, rung):
    idea, why = idea_and_why(rung)
    file, line = source(rung)
    assert 10 < len(idea) < 110 and 20 < len(why) < 260
    text = (machine.ROOT / file).read_text(encoding="utf-8").splitlines()
    assert any(t.startswith(f"def {rung.__name__}(") for t in text[line - 1:line + 1])


@every_ladder
def test_ladder_has_three_rungs_or_more_and_ends_with_scratchgen(found):
    names = [rung.__name__ for rung in found.rungs]
    assert 3 <= len(set(names)) == len(names) <= 7
    assert [name.startswith("scratchgen_") for name in names] == [False] * (len(names) - 1) + [True]
    assert len(found.ragged) >= 3 and len(set(found.ragged[0])) == len(found.ragged[0])
    assert found.unit in ("GFLOP/s", "GB/s") and found.work(*found.size) > 0


def test_quick_command(capsys):
    assert ladder.main(["--quick", "--only", "Adam"]) == 0
    assert capsys.readouterr().out == "Adam: 5 rungs equal their formula\n"
    with pytest.raises(SystemExit) as stopped:
        ladder.main(["--only", "adams"])
    assert stopped.value.code == 2 and "'adams'" in capsys.readouterr().err


def test_record_table_and_picture(tmp_path, monkeypatch, capsys):
    bce = next(found for found in EVERY if found.name == "softplus-BCE")
    small = bce._replace(rungs=bce.rungs[-2:], size=(9, 4), ragged=((5, 3),))
    monkeypatch.setattr(ladder, "ladders", lambda: [small])
    monkeypatch.setattr(timing, "LEAST", 1e-5)
    assert ladder.main(["--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "ladder.json").read_text(encoding="utf-8"))
    assert {"processor", "numpy", "numba", "commit", "date"} <= set(record["machine"])
    rung = record["ladders"][0]["rungs"][1]
    assert rung["rate"] == pytest.approx(3 * 4 * 9 * 4 / rung["median"] / 1e9)
    assert rung["minimum"] <= rung["median"] and rung["rounds"] >= 5
    lines = ladder.table(record).splitlines()
    assert len(lines) == 6 and "](benchmarks/rungs/bce.py#L" in lines[3] and "GB/s" in lines[3]
    assert (tmp_path / "ladder.png").stat().st_size > 1000


def test_a_wrong_rung_stops_the_command(monkeypatch, capsys):
    def wrong(logits, target):
        return bce.formula(logits, 1 - target)
    bce = next(found for found in EVERY if found.name == "softplus-BCE")
    monkeypatch.setattr(ladder, "ladders", lambda: [bce._replace(rungs=(wrong,))])
    assert ladder.main(["--quick"]) == 1
    assert "softplus-BCE: wrong" in capsys.readouterr().err


# --- the house's kernels -------------------------------------------------------------------------

def test_every_kernel_is_measured():
    there = kernels.kernels_there_are()
    assert len(there) >= 7 and set(there) == set(kernels.CASES)


@pytest.mark.parametrize("name", kernels.CASES)
def test_kernels_have_the_shapes_that_the_table_says(name):
    text, _, work, arguments = kernels.CASES[name]
    first = next(a for a in arguments(kernels.Draw()) if isinstance(a, np.ndarray))
    assert ("×".join(map(str, first.shape)) if first.ndim > 1 else f"{first.size:,}") in text
    assert work >= 4 * first.size


@pytest.mark.parametrize("name", ["bce.elements", "philox.uniform"])
def test_versions_agree_and_a_wrong_one_is_caught(name, monkeypatch):
    kernels.compare(name)
    right = kernels.versions(name)

    def wrong(*arguments):
        right["numba"](*arguments)
        arguments[-1].reshape(-1)[-1] = np.nan
    monkeypatch.setattr(kernels, "versions", lambda _: {**right, "numba": wrong})
    with pytest.raises(ladder.Wrong, match=name):
        kernels.compare(name)


def test_timing_takes_turns():
    calls = []
    times = timing.side_by_side([lambda: calls.append(0) or timing.time.sleep(0.005),
                                 lambda: calls.append(1) or timing.time.sleep(0.005)], budget=0.01)
    assert calls[-4:] == [0, 1, 0, 1]
    assert all(t["median"] >= t["minimum"] > 0.004 for t in times)
