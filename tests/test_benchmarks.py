"""The benchmarks' checks and arithmetic, and a short form of each: right numbers, no times.

The peers are those that can be imported; torch.compile takes too long here.
"""

import importlib.util
import json

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import (
    comparison,
    gemm,
    lower_bound,
    peers,
    processes,
    records,
    scaling,
    steps,
    workloads,
)
from benchmarks.peers import layouts

PEERS = [p for p in ("torch", "jax") if importlib.util.find_spec(p)]


# --- short forms ---------------------------------------------------------------------------------

@pytest.mark.parametrize("names", [
    ("tiny",), pytest.param(("vae", "sdae", "dcgan"), marks=pytest.mark.long)], ids=" ".join)
def test_steps_all_peers_compute_the_same(tmp_path, names):
    peers = ",".join(["numpy", *PEERS])
    status = benchmarks.main(["steps", "--quick", "--threads", "1", "--peers", peers, "--out",
                              str(tmp_path), "--only", *names])
    (record,) = json.loads((tmp_path / "steps.json").read_text())["processors"].values()
    assert status == 0 and set(record["rows"]) == set(names)
    for row in record["rows"].values():
        assert set(row["peers"]) == {"scratchgen", "numpy", *PEERS}
        assert not any(c["failed"] for c in row["peers"].values())


def test_scaling_and_roofline_in_short(tmp_path, capsys):
    short = ["--quick", "--threads", "1", "--out", str(tmp_path)]
    assert benchmarks.main(["scaling", "--peers", "", "--only", "batch", "image", *short]) == 0
    series = json.loads((tmp_path / "scaling.json").read_text())["series"]
    assert [p["x"] for p in series["batch"]["scratchgen"]] == [1, 4]
    assert benchmarks.main(["roofline", *short]) == 0
    points = json.loads((tmp_path / "roofline.json").read_text())["points"]
    assert {(p["op"], p["pass"]) for p in points} >= {
        (op, what) for op in ("dense", "conv2d", "conv_transpose2d")
        for what in ("forward", "dx", "dw")}
    assert all(p["finite"] and p["seconds"] > 0 for p in points)
    assert (tmp_path / "roofline.png").stat().st_size > 10_000


def test_one_pool_and_two_compute_the_same(tmp_path):
    assert benchmarks.main(["threads", "--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert "one pool" in (tmp_path / "threads.json").read_text()


def test_warmstart_says_what_it_lacks(tmp_path, capsys):
    assert benchmarks.main(["warmstart", "--threads", "1", "--data-dir", str(tmp_path)]) == 0
    assert "skipped" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [
    ["step"], ["steps", "--peers", "tensorflow"], ["steps", "--only", "lstm"],
    ["steps", "--rounds", "0"], ["scaling", "--threads", "4096"]], ids=" ".join)
def test_wrong_arguments_are_one_sentence(arguments, capsys):
    assert benchmarks.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("benchmarks: ") and message.count("\n") == 1


# --- a difference fails --------------------------------------------------------------------------

def numbers(loss=1.0, gradient=1.0, name="a 0 w"):
    return np.array([[2.0], [loss]]), {name: np.array([0.5, gradient])}


def test_what_counts_as_a_difference():
    same = numbers()
    assert comparison.difference(numbers(1 + 5e-5, 1 + 5e-4), same) is None
    for wrong in (numbers(1 + 2e-4), numbers(gradient=1.002), numbers(np.nan), numbers(np.inf),
                  numbers(gradient=np.nan), numbers(name="a 0 b"), (np.array([[2.0]]), same[1])):
        assert comparison.difference(wrong, same)
    assert comparison.difference(numbers(np.nan), numbers(np.nan))   # also of scratchgen itself


def crashes(monkeypatch):
    honest = peers.variants
    monkeypatch.setattr(peers, "variants", lambda name, workload: (
        {"": {"no_such_option": 1}} if name == "numpy" else honest(name, workload)))


def computes_something_else(monkeypatch):
    honest = processes.Process.ask

    def ask(process, do, **arguments):
        answer = honest(process, do, **arguments)
        if process.name == "numpy" and do == "check":
            answer["losses"] = (1.001 * np.array(answer["losses"])).tolist()
        return answer

    monkeypatch.setattr(processes.Process, "ask", ask)


@pytest.mark.parametrize("broken, reason", [(crashes, "no_such_option"),
                                            (computes_something_else, "loss")])
def test_a_broken_peer_fails_its_row(tmp_path, monkeypatch, capsys, broken, reason):
    broken(monkeypatch)
    status = benchmarks.main(["steps", "--quick", "--threads", "1", "--peers", "numpy", "--out",
                              str(tmp_path), "--only", "tiny"])
    (record,) = json.loads((tmp_path / "steps.json").read_text())["processors"].values()
    row = record["rows"]["tiny"]["peers"]
    assert status == 1 and reason in row["numpy"]["failed"][""]
    assert not row["scratchgen"]["failed"] and "numpy: failed" in capsys.readouterr().out


class Asked(processes.Process):
    """A process that writes down what it was asked."""

    log = []

    def __init__(self, name, *what, **variables):
        Asked.log.append((name, []))
        super().__init__(name, *what, **variables)

    def ask(self, do, **arguments):
        self.asked().append(do)
        return super().ask(do, **arguments)

    def asked(self):
        return next(asked for name, asked in reversed(Asked.log) if name == self.name)


def asked(monkeypatch):
    monkeypatch.setattr(Asked, "log", [])
    for module in (processes, scaling):
        monkeypatch.setattr(module, "Process", Asked)
    return Asked.log


def test_nothing_is_called_warm_before_a_process_of_its_own_has_compiled(monkeypatch):
    """One round: the process that is measured is not the one that compiles."""
    log = asked(monkeypatch)
    monkeypatch.setattr(lower_bound, "of_workload", lambda *of: {"floor": 1e-3})
    monkeypatch.setattr(comparison, "CHUNK_SECONDS", 1e-3)
    row = comparison.compare("tiny", ["numpy"], 1, rounds=1, quick=False)["peers"]
    assert [name for name, _ in log] == ["scratchgen", "scratchgen", "numpy"]
    ahead, measured = log[0][1], log[1][1]
    assert ahead == ["first", "check", "time"] and set(ahead) < set(measured)
    assert len(row["scratchgen"]["start"]) == len(row["scratchgen"]["memory"]) == 1
    log.clear()
    assert "seconds" in scaling.point("scratchgen", *workloads.STEPS["tiny"], 1, quick=False)
    assert [asked for _, asked in log] == [ahead, ["first", "time", "time", "memory"]]


def test_what_fails_while_it_compiles_fails_its_row(monkeypatch):
    log = asked(monkeypatch)
    monkeypatch.setattr(lower_bound, "of_workload", lambda *of: {"floor": 1e-3})
    monkeypatch.setattr(peers, "variants", lambda name, workload: {"": {}})
    monkeypatch.setattr(peers, "CACHES", {"numpy": "NUMBA_CACHE_DIR"})
    monkeypatch.setattr(comparison, "CHUNK_SECONDS", 1e-3)

    honest = Asked.ask

    def ask(process, do, **arguments):
        if process.name == "numpy":
            raise processes.Failed("no compiler")
        return honest(process, do, **arguments)
    monkeypatch.setattr(Asked, "ask", ask)
    row = comparison.compare("tiny", ["numpy"], 1, rounds=1, quick=False)["peers"]
    assert row["numpy"]["failed"] == {"": "no compiler"} and "median" in row["scratchgen"]
    assert len(log) == 3


# --- arithmetic ----------------------------------------------------------------------------------

def test_the_floors_products_and_bytes_by_hand():
    n, vae = 100, workloads.vae()
    forward = 784 * 500 + 500 * 40 + 20 * 500 + 500 * 784
    assert sum(2 * m * k * o for m, k, o in lower_bound.products(vae)) == 2 * n * (
        3 * forward - 784 * 500)                       # no gradient of the images
    parameters = forward + 500 + 40 + 500 + 784
    outputs = n * (500 + 40 + 500 + 784)
    assert lower_bound.moved(vae) == (28 * parameters + 16 * outputs, 16 * parameters + 4 * outputs)
    conv = lower_bound.products(workloads.conv_vae(batch=2))
    assert conv[:2] == [(2 * 196, 16, 32), (16, 2 * 196, 32)]      # no gradient of the images here
    assert (2 * 49, 64, 16 * 32) in conv                           # the transposed one, from 7×7


def test_exponents_of_exact_powers():
    x = np.array([1, 4, 16, 64, 256])
    assert scaling.exponent(x, 3 * x**1.5) == pytest.approx(1.5)
    bent = np.where(x < 16, 7.0, x**2.0)               # fixed costs below, a square above
    assert scaling.exponent(x, bent) == pytest.approx(2.0)


def row_of(ours, eager, jax, memory=(100, 400)):
    def one(seconds, peak):
        return {"median": seconds, "min": seconds, "failed": {}, "memory": [{"peak": peak}]}
    return {"title": "DAE", "family": "mlp", "peers": {
        "scratchgen": one(ours, memory[0]), "torch": one(eager, memory[1]), "jax": one(jax, 300)},
        "floor": {"floor": 0.008, "products": 0.007}}


def test_ratios_targets_and_marks():
    good, bad = row_of(0.009, 0.020, 0.012), row_of(0.011, 0.014, 0.012, (250, 400))
    assert steps.ratios(good) == pytest.approx(
        {"fastest": 0.75, "eager": 0.45, "floor": 1.125, "memory": 0.25})
    section = {"rows": {"good": good, "bad": bad}, "peers": ["torch", "jax", "numpy"],
               "machine": records.machine(), "threads": 2}
    text = steps.table({"processors": {"one": section, "another": section}})
    of_good, of_bad = text.splitlines()[4:6]
    assert "✗" not in of_good and of_bad.count("✗") == 4 and "absent" in of_good
    assert text.count("the lower bound is 0.67 of JAX") == 2


def test_products_beside_libraries():
    def row(ours, openblas, mkl, batch=100):
        rates = {"scratchgen": ours, "OpenBLAS": openblas, "MKL": mkl}
        return {"product": "a · b", "batch": batch, "gflops": {
            library: {"median": rate, "best": rate} for library, rate in rates.items()}}

    section = {"rows": [row(100, 50, 80), row(80, 40, 100), row(60, 120, 30, batch=1000)],
               "machine": records.machine(), "threads": 2, "peak": 150, "tile": [6, 16]}
    found = gemm.summary(section)
    assert found["ratios"] == pytest.approx([1.25, 0.8, 0.5])
    assert found["mean"] == pytest.approx(0.5 ** (1 / 3))
    assert found["below"] == 2 and found["small"] == pytest.approx(2)
    text = gemm.table_of(section)
    assert [line.count("✗") for line in text.splitlines()[2:5]] == [0, 1, 1] and "150" in text


def test_the_shapes_of_products():
    shapes = gemm.shapes()
    assert shapes["100×784 · 784×500"] == (100, 784, 500, False, False)
    assert shapes["100×500 · (784×500)ᵀ"] == (100, 500, 784, False, True)
    assert shapes["(100×784)ᵀ · 100×500"] == (784, 100, 500, True, False)
    assert gemm.batch_of((784, 100, 500, True, False)) == 100
    for shape in ((5, 7, 3, True, True), (7, 3, 5, False, True)):
        for library in ("scratchgen", "OpenBLAS"):
            run, c, error = gemm.product_of(library, shape)
            assert error < gemm.RTOL and c.shape == (shape[0], shape[2])


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("channels_first", [True, False])
def test_layouts_there_and_back(library, channels_first):
    there, back = getattr(layouts, f"to_{library}"), getattr(layouts, f"from_{library}")
    workload = workloads.conv_vae(batch=1)
    for (network, i, name), array in workload.weights().items():
        layer = workload.networks[network][i]
        array = np.arange(array.size, dtype=np.float32).reshape(array.shape)
        again = back(layer, name, there(layer, name, array, channels_first), channels_first)
        np.testing.assert_array_equal(again, array)


def test_workloads_are_the_same_every_time():
    for maker in ("sdae", "gan"):
        one, two = (workloads.make(maker) for _ in range(2))
        for (x, noise), (y, other) in zip(one.batches(), two.batches(), strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == np.float32 and 0 <= x.min() and x.max() <= 1
            for a, b in zip(noise, other, strict=True):
                np.testing.assert_array_equal(a, b)
        for key, array in one.weights().items():
            np.testing.assert_array_equal(array, two.weights()[key])
