"""The GPU's benchmark as far as it goes without a GPU: its arithmetic, its conduct, its tables, and
that the peers compute what scratchgen does."""

import argparse
import contextlib
import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from emulated_gpu.emulator import available

import scratchgen as sg
from benchmarks.gpu import (
    __main__ as command,
)
from benchmarks.gpu import (
    checks,
    kernel_times,
    nodes,
    parts,
    pictures,
    rows,
    sanitizer,
    scheduler,
    steps,
    tables,
    targets,
    training,
)
from benchmarks.gpu.parts import Deadline
from benchmarks.peers import scratchgen as ours
from benchmarks.processes import Failed

PEERS = [p for p in ("torch", "jax") if importlib.util.find_spec(p)]


class Time:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


# --- workloads -----------------------------------------------------------------------------------

def test_floors_of_the_large_vae_by_hand():
    n, h, z = 50, 300, 20                              # of the same form, smaller
    found = rows.lower_bounds(rows.large_vae(n, h, z))
    forward = 784 * h + h * h + h * 2 * z + z * h + h * h + h * 784
    assert found["flops"] == 2 * n * (3 * forward - 784 * h)           # no gradient of the images
    parameters = forward + 4 * h + 2 * z + 784
    outputs = n * (4 * h + 2 * z + 784)
    assert found["parameters"] == parameters
    assert found["bytes"] == 28 * parameters + 16 * outputs            # Adam; outputs and gradients


def test_the_large_dcgan_is_radfords():
    w = rows.workload("large-dcgan")
    shapes = {name: [a.shape for (n, _, p), a in w.weights().items() if n == name and p == "w"]
              for name in w.networks}
    assert shapes["generator"] == [(100, 8192), (4, 4, 512, 256), (4, 4, 256, 128),
                                   (4, 4, 128, 64), (4, 4, 64, 3)]
    assert shapes["discriminator"] == [(4, 4, 3, 64), (4, 4, 64, 128), (4, 4, 128, 256),
                                       (4, 4, 256, 512), (8192, 1)]
    assert w.batch == 128 and w.image_shape == (64, 64, 3)


def losses_of(peer, w, count=2):
    peer.reset(w.lr_of_check)
    found = []
    for i in range(count):
        peer.step(i)
        peer.wait()
        found.append(peer.losses())
    return np.array(found)


def peer(library, w):
    if library == "torch":
        from benchmarks.peers import torch
        return torch.CudaPeer(w, device="cpu")
    from benchmarks.peers import jax
    return jax.CudaPeer(w)


ROWS = [pytest.param(library, name, marks=[pytest.mark.long] if library == "jax" and name != "vae"
                     else []) for library in PEERS for name in rows.NAMES]


@pytest.mark.parametrize("library, name", ROWS)
def test_peers_compute_what_we_do(library, name, restored_backend):
    w = rows.workload(name, quick=True)
    expected = losses_of(ours.CudaPeer(w, backend="numpy"), w)
    found = losses_of(peer(library, w), w)
    assert expected.shape == (2, 2 if w.kind == "gan" else 1) and np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture
def restored_backend():
    import scratchgen as sg
    with sg.use_backend("numpy"):
        yield


def test_a_reset_peer_begins_anew(restored_backend):
    w = rows.workload("gan", quick=True)
    peer = ours.CudaPeer(w, backend="numpy")
    assert losses_of(peer, w).tolist() == losses_of(peer, w).tolist()
    drawn = losses_of(ours.CudaPeer(w, backend="numpy", drawn=True), w)
    assert np.isfinite(drawn).all()


# --- time and failure ----------------------------------------------------------------------------

def test_deadlines_leave_time_for_others():
    clock = Time()
    whole = Deadline(60, now=clock)
    assert whole.part(50).left() == 50 and whole.part(50, reserve=20).left() == 40
    clock.now += 55
    assert whole.left() == 5 and not whole.over()
    assert whole.part(50, reserve=20).over()
    clock.now += 5
    assert whole.over() and whole.left() == 0


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path):
    clock, path, done = Time(), tmp_path / "part.json", []

    def slow():
        clock.now += 30
        return {"ok": True}

    items = {"breaks": lambda: 1 / 0, "wrong": lambda: {"ok": False}, "slow": slow,
             "late": lambda: done.append("late") or {"ok": True}}
    deadline = Deadline(20, now=clock)
    assert parts.run(items, path, deadline, progress=lambda _: None) == 1
    found = json.loads(path.read_text())["items"]
    assert "ZeroDivisionError" in found["breaks"]["error"] and found["wrong"]["ok"] is False
    assert found["slow"]["ok"] and found["late"] == {"skipped": "no time was left"} and not done
    assert [name for name, r in found.items() if parts.bad(r)] == ["breaks", "wrong"]


def test_a_lost_gpu_ends_the_process_and_the_next_one_goes_on_behind(tmp_path):
    path, count = tmp_path / "part.json", []
    items = {"first": lambda: count.append(1) or {"ok": True}, "illegal access": lambda: 1 / 0,
             "last": lambda: {"ok": True}}
    silent = {"progress": lambda _: None}
    assert parts.run(items, path, Deadline(99), lambda: True, **silent) == parts.RESTART
    assert set(json.loads(path.read_text())["items"]) == {"first", "illegal access"}
    assert parts.run(items, path, Deadline(99), lambda: False, **silent) == 1
    assert json.loads(path.read_text())["items"]["last"]["ok"] and count == [1]


def test_an_item_that_ends_the_process_has_left_a_mark(tmp_path):
    path = tmp_path / "part.json"

    def ends():
        raise SystemExit

    with pytest.raises(SystemExit):
        parts.run({"ends": ends}, path, Deadline(99))
    assert json.loads(path.read_text())["items"]["ends"]["error"] == parts.CUT_OFF


class FakeChild:
    """Leaves what ``script`` says of its part: (seconds, exit status, record)."""

    script, started, signals = {}, [], []

    def __init__(self, part, options, deadline, share=0):
        self.part, self.share, self.deadline = part, share, deadline
        self.options = options
        FakeChild.started.append((part, share))

    def wait(self, seconds):
        statuses, record = FakeChild.script[self.part]
        if record is not None:
            parts.save(scheduler.path_of(self.options, self.part, self.share), record)
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]

    def running(self):
        return False

    def signal(self, number):
        FakeChild.signals.append(number)

    def end(self):
        pass


def conducted(tmp_path, script, monkeypatch):
    monkeypatch.setattr(FakeChild, "script", script)
    monkeypatch.setattr(FakeChild, "started", [])
    monkeypatch.setattr(FakeChild, "signals", [])
    monkeypatch.setenv(parts.LOG, "")
    monkeypatch.setattr(scheduler, "SHARES", {"checks": 2})
    monkeypatch.setattr(scheduler.time, "sleep", lambda _: None)
    options = command.options_of(["--out", str(tmp_path)])
    status = scheduler.run(options, FakeChild)
    path = tmp_path / "gpu.json"
    return status, json.loads(path.read_text()) if path.exists() else None


def good_script():
    passed = {"items": {"one": {"ok": True}}}
    return {"device": ([0], {"device": "H100", "commit": None}), "checks": ([0], passed),
            "across": ([0], passed), "kernels": ([0], passed), "mnist": ([0], passed),
            "steps": ([0], {"rows": {}})}


def test_all_parts_are_run_and_the_steps_wait_while_others_are_timed(tmp_path, monkeypatch):
    status, record = conducted(tmp_path, good_script(), monkeypatch)
    assert status == 0 and record["failures"] == [] and record["device"] == "H100"
    assert sorted(FakeChild.started) == sorted([
        ("device", 0), ("steps", 0), ("checks", 0), ("checks", 1), ("across", 0), ("kernels", 0),
        ("mnist", 0)])
    stop, go = scheduler.signal.SIGSTOP, scheduler.signal.SIGCONT
    assert FakeChild.signals == [stop, go, stop, go]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu_log.txt"]


def test_a_part_that_dies_or_hangs_is_recorded_and_the_others_follow(tmp_path, monkeypatch):
    script = good_script()
    script["across"] = [-11, -11, 0], {"items": {"one": {"ok": True}}}       # twice a crash
    script["kernels"] = [None], None                                         # hangs, leaves nothing
    script["mnist"] = [1], {"items": {"ten epochs": {"ok": False, "test_loss": 120.0}}}
    status, record = conducted(tmp_path, script, monkeypatch)
    assert status == 1 and FakeChild.started.count(("across", 0)) == 3
    text = "\n".join(record["failures"])
    assert "kernels: its time was over" in text and "left nothing" in text and "120.0" in text
    assert "across" not in text and record["mnist"]["items"]


def test_the_record_is_kept_while_a_part_runs_and_from_an_earlier_run(tmp_path, monkeypatch):
    earlier = {"commit": "abc", "device": "H100", "parts": ["checks"], "statuses": {"checks": 1},
               "checks": {"items": {"parity gemm.matmul": {"ok": False}, "same bits a.b": {
                   "ok": True}, "rungs of the convolution": {"error": "no"}}}}
    parts.save(tmp_path / "earlier.json", earlier)
    options = command.options_of(["--out", str(tmp_path), "--parts", "kernels", "--earlier",
                                  str(tmp_path / "earlier.json"), "--seconds", "30"])
    seen = {}

    class Child(FakeChild):
        def wait(self, seconds):
            status = super().wait(seconds)
            if self.part == "kernels":
                seen["failed"] = scheduler.failed(self.options)
                until = Deadline(20)
                while not seen.get("record", {}).get("kernels") and not until.over():
                    seen["record"] = parts.load(tmp_path / "gpu.json")
            return status

    script = {"device": ([0], {"device": "H100"}),
              "kernels": ([0], {"items": {"ceilings": {"copy": 3e12}}})}
    monkeypatch.setattr(FakeChild, "script", script)
    assert scheduler.run(options, Child) == 1          # for the checks that failed before
    assert seen["record"]["kernels"]["items"] == {"ceilings": {"copy": 3e12}}
    assert set(seen["failed"]) == {"gemm", "conv2d"}
    record = parts.load(tmp_path / "gpu.json")
    assert record["parts"] == ["checks", "kernels"] and record["earlier"]["commit"] == "abc"
    assert record["checks"] == earlier["checks"]


def test_peers_that_are_left_out_keep_the_times_of_an_earlier_run_on_the_same_gpu():
    def record(device, **peers):
        return {"device": device, "commit": device, "steps": {"rows": {
            "vae fp32": {"peers": peers}, "vae tf32": {"skipped": "no time was left"}}}}
    earlier = record("H200", ours={"": {"median": 3}}, jax={"": {"median": 2}})
    for device, jax in (("H200", {"jax": {"": {"commit": "H200", "median": 2}}}), ("H100", {})):
        found = record(device, ours={"": {"median": 1}})
        scheduler.keep_peers(found, earlier)
        assert found["steps"]["rows"]["vae fp32"]["peers"] == {
            "ours": {"": {"median": 1}}, **jax}
        found = {"device": device, "steps": {}}        # and whole rows
        scheduler.keep_peers(found, {**earlier, "steps": {**earlier["steps"], "kernels": {
            "vae fp32": {"count": 7}}}})
        if jax:
            assert found["steps"]["rows"]["vae fp32"]["commit"] == "H200"
            assert found["steps"]["kernels"] == {"vae fp32": {"count": 7}}
        else:
            assert found["steps"] == {}


def test_an_item_that_hangs_is_ended_and_the_others_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "STILL", 0.3)
    path, started = tmp_path / "gpu_kernels.json", []

    class Child:
        def __init__(self, part, options, deadline, share):
            started.append(part)
            self.hangs = len(started) == 1
            items = parts.load(path).get("items", {}) | (
                {"hangs": {"error": parts.CUT_OFF}} if self.hangs else {"last": {"ok": True}})
            parts.save(path, {"items": items})

        def running(self):
            return self.hangs

        def wait(self, seconds):
            return 1

        def end(self):
            pass
    options = argparse.Namespace(work=tmp_path)
    assert scheduler.run_part("kernels", options, Deadline(30), Child) == 1
    found = parts.load(path)["items"]
    assert found == {"hangs": {"error": "it hung: no answer in 0.3 s"}, "last": {"ok": True}}
    assert len(started) == 2


@pytest.mark.parametrize("plan", command.PLANS)
def test_a_plan_is_one_word_and_its_options_can_be_overridden(tmp_path, plan):
    options = command.options_of([plan, "--out", str(tmp_path)])
    assert options.seconds == command.PLANS[plan]["seconds"] <= 540
    assert options.parts == command.PLANS[plan]["parts"]
    shorter = command.options_of([plan, "--out", str(tmp_path), "--seconds", "99", "--parts",
                                  "across", "--rows", "vae"])
    assert (shorter.seconds, shorter.parts, shorter.rows) == (99, ["across"], ["vae"])


def test_an_error_is_in_the_log_in_full(tmp_path, monkeypatch):
    monkeypatch.setenv(parts.LOG, str(tmp_path / "log"))

    def fails():
        raise RuntimeError("x" * 5000)
    assert len(parts.attempt(fails)["error"]) < 800
    assert "x" * 5000 in (tmp_path / "log").read_text() and "in fails" in (
        tmp_path / "log").read_text()


def test_a_row_that_cannot_be_measured_does_not_end_the_others(monkeypatch):
    monkeypatch.setattr(steps, "measure", lambda *of: 1 / 0)
    row = steps.attempted("vae", "fp32", [], Deadline(9), True)
    assert row["ok"] is False and "ZeroDivisionError" in row["failed"][0]
    assert steps.best(row, "ours") is None


def test_families_whose_checks_failed_are_not_timed(gpu):
    items = kernel_times.items(gpu, Deadline(9), True, {"gemm": "wrong", "conv2d": "wrong too"})
    assert items["gemm 64×64×64 NN"]() == items["sweep"]() == {"skipped": "wrong"}
    assert items["convolution forward"]() == {"skipped": "wrong too"}
    noise = items["memory: noise"] if "ceilings" in items else None
    assert noise.args[-1] == {"gemm": "wrong", "conv2d": "wrong too"}


def test_what_made_the_gpu_unusable_is_run_once_more_under_the_sanitizer(tmp_path, monkeypatch):
    path, asked = tmp_path / "gpu_across.json", []
    parts.run({"bad": lambda: 1 / 0}, path, Deadline(9), lambda: True, progress=lambda _: None)
    monkeypatch.setattr(sanitizer, "watched", lambda tool, command, seconds: asked.append(
        (tool, command[-2:])) or {"faults": ["Invalid __global__ read"], "ok": False})
    options = command.options_of(["--out", str(tmp_path), "--parts", "across"])
    options.work = tmp_path
    scheduler.run_again_watched(options, Deadline(99))
    record = scheduler.merged(options, Deadline(99), {})
    assert asked == [("memcheck", ["--only", "bad"])]
    assert record["across"]["items"]["bad"]["sanitizer"]["faults"] == ["Invalid __global__ read"]
    assert "Invalid __global__ read" in targets.failures(record)[0]


@pytest.mark.long
def test_the_dry_run_goes_through_the_whole_order(tmp_path):
    """Every item on the emulated GPU, and a row of the training steps; the command as it is."""
    if not available():
        pytest.skip("needs Linux and g++")
    pytest.importorskip("torch", reason="its convolutions are compared with PyTorch's")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--out", str(tmp_path), "--rows",
         "vae"], cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["parts"] == list(scheduler.PARTS) and record["failures"] == []
    for part in scheduler.PARTS[:-1]:
        assert f"{part}: " in done.stderr and record[part]["items"]
    assert record["steps"]["rows"]["vae fp32"]["peers"]["ours"][""]["first_steps"] > 0


@pytest.mark.parametrize("name", ["vae", "gan", pytest.param("dcgan", marks=pytest.mark.long),
                                  "large-sdae"])
def test_a_recorded_step_has_as_many_nodes_as_the_record_says(name, gpu):
    if not hasattr(gpu, "launched"):
        pytest.skip("only the emulated GPU lists what a graph consists of")
    recorded = parts.load(nodes.RECORD)
    assert set(recorded) == set(rows.NAMES)
    assert nodes.counted([name])[name] == recorded[name]


def test_without_a_gpu_one_sentence(tmp_path, capsys):
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path)],
                          cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode != 2:
        pytest.skip("there is a GPU")
    assert done.stderr.startswith("gpu: ") and done.stderr.count("\n") == 1
    with pytest.raises(SystemExit):
        command.options_of(["--out", str(tmp_path), "--parts", "checks,speed"])
    assert "speed: expected some of" in capsys.readouterr().err


# --- the race ------------------------------------------------------------------------------------

class FakeProcess:
    """Peers with known times and losses; answers as a process does."""

    def __init__(self, module, **variables):
        self.module, self.known = module, set()

    def alive(self):
        return True

    def ask(self, do, patience=0, name=None, **arguments):
        if do == "build":
            if "foreach" in name:
                raise Failed("no such optimiser")
            self.known.add(name)
            return {"seconds": 2.0}
        assert name in self.known
        step = {"scratchgen": 1e-4, "torch": 1e-3, "jax": 2e-4}[self.module]
        loss = 1.01 if self.module == "jax" else 1.0
        return {"check": {"losses": [[loss]] * 4}, "kernels": {"count": 7, "seconds": 5e-5},
                "time": {"seconds": [9.0, step], "finite": True}}[do]

    def __exit__(self, *exception):
        self.known.clear()


def test_a_row_has_times_failures_and_who_was_not_ready():
    clock = Time()
    builders = {c: steps.Builder(c, "vae", "fp32", False, Deadline(40, now=clock), {},
                                 FakeProcess) for c in steps.PEERS}
    for builder in builders.values():
        builder.run()                                  # "compiled" would take too long
    row = steps.measure("vae", "fp32", list(builders.values()), Deadline(40, now=clock))
    found = row["peers"]
    assert found["ours"][""]["median"] == 1e-4 and row["ok"] is False and row["small"]
    assert "differ from scratchgen's by 1.0e-02" in found["jax"][""]["failed"]
    assert found["torch"]["foreach"]["failed"] == "no such optimiser"
    assert found["compiled"] == {"": {"absent": steps.NOT_BUILT}}
    assert row["kernels"] == {"count": 7, "seconds": 5e-5}
    assert steps.best(row, "torch") == 1e-3 and steps.best(row, "jax") is None
    assert targets.ratio(row, ("torch",)) == (pytest.approx(0.1), "torch")


class DyingProcess(FakeProcess):
    """JAX's process ends while it builds the large network, the others' while they build it late.
    """

    def ask(self, do, name=None, **arguments):
        if self.module == "jax" and name.startswith("large-vae"):
            raise Failed("its process has ended: out of memory")
        return super().ask(do, name=name, **arguments)


def test_a_row_that_fails_costs_itself_only(tmp_path, monkeypatch):
    monkeypatch.setattr(steps.Builder.__init__, "__defaults__", (DyingProcess,))
    options = command.options_of(["--out", str(tmp_path), "--rows", "vae,large-vae", "--peers",
                                  "torch,jax"])
    options.work = tmp_path
    (tmp_path / ".go").touch()
    monkeypatch.setattr(steps, "LOSS_RTOL", {"fp32": 0.1, "tf32": 0.1})
    steps.run(options, Deadline(200), progress=lambda _: None)
    record = json.loads((tmp_path / "gpu_steps.json").read_text())
    jax = {name: row["peers"]["jax"][""] for name, row in record["rows"].items()}
    assert jax["vae fp32"]["median"] == jax["vae tf32"]["median"] == 2e-4
    assert jax["large-vae fp32"]["failed"] == "its process has ended: out of memory"
    assert record["rows"]["large-vae tf32"]["peers"]["ours"][""]["median"] == 1e-4
    assert set(record["rows"]["vae fp32"]["peers"]) == {"ours", "torch", "jax"}
    assert (tmp_path / ".built").exists()


def test_a_step_that_cannot_be_captured_is_timed_without(gpu, monkeypatch):
    w = rows.workload("vae", quick=True)
    with sg.use_backend("cuda"):
        peer = ours.CudaPeer(w)
        step = peer.model.training_step

        def reads(*arguments, **options):
            terms = step(*arguments, **options)
            float(terms["loss"])                       # the host waits
            return terms
        monkeypatch.setattr(peer.model, "training_step", reads)
        found = losses_of(peer, w, 3)
        assert peer.note.startswith("not captured: ") and np.isfinite(found).all()
        assert "waits for the GPU" in peer.note or "apture" in peer.note


def test_a_nan_is_a_difference():
    runner = steps.Runner(argparse.Namespace(process=argparse.Namespace(
        ask=lambda do, **_: {"losses": [[float("nan")]]})), "vae fp32", "")
    runner.check(None, np.array([[1.0]]), 1e-4)
    assert runner.failure


def test_kernels_of_a_step_from_a_trace():
    events = [{"cat": "kernel", "name": "dense", "dur": 3.0}, {"cat": "cpu_op", "dur": 99.0},
              {"cat": "kernel", "name": "adam", "dur": 5.0}, {"cat": "gpu_memcpy", "name": "copy",
                                                             "dur": 2.0}] * 4
    found = ours.of_trace(events, steps=2)
    assert found["count"] == 6 and found["seconds"] == pytest.approx(20e-6)
    assert found["longest"][0][:2] == ["adam", 2.0]
    with pytest.raises(RuntimeError):
        ours.of_trace([], 1)


# --- checks --------------------------------------------------------------------------------------

def test_errors_that_nothing_slips_through():
    a = np.float32([1, -4])
    assert checks.error_of(a, a) == 0 and checks.error_of(a + np.float32(0.4), a) > 0.09
    for wrong in (np.float32([1, np.nan]), np.float32([1, np.inf]), a.astype(float), a[:1]):
        assert checks.error_of(wrong, a) == np.inf
    infinite = np.float32([-np.inf, 2])
    assert checks.error_of(infinite, infinite) == 0 and checks.error_of(a, infinite) == np.inf


def test_the_cases_can_be_had_without_pytest_and_numba():
    code = ("import sys; sys.modules['pytest'] = sys.modules['numba'] = None\n"
            "from benchmarks.gpu import checks, scheduler, kernel_times, mnist, training\n"
            "from benchmarks.peers import scratchgen\n"
            "print(len(checks.cuda_kernels()))\n"
            "print(sorted({'cupy', 'torch', 'typer', 'matplotlib', 'PIL'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=pathlib.Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    count, loaded = done.stdout.split("\n")[:2]
    assert int(count) > 40 and loaded == "[]"


def idle(a, b, c, d, e, f, g, h, row, history):
    """A kernel that does nothing."""


idle.__module__ = "scratchgen.kernels.step"


def test_kernels_and_trainings_emulated(gpu):
    if not hasattr(gpu, "reverse"):
        pytest.skip("on a GPU the benchmark itself runs them")
    assert checks.agrees(gpu, "optimizer", "adam")["ok"]
    assert checks.repeats(gpu, "dense", "bias_activation")["ok"]
    with pytest.MonkeyPatch.context() as patch:        # it is found out
        patch.setattr(checks.parity().module("step"), "keep_cuda", idle)
        assert not checks.agrees(gpu, "step", "keep")["ok"]
    assert training.recorded_is_plain("vae", quick=True)["ok"]
    assert training.host_agrees("dae", np.float64, quick=True)["ok"]


def test_what_the_sanitizer_said():
    clean = "ran dense.forward\nran step.keep\n========= ERROR SUMMARY: 0 errors\n"
    assert sanitizer.verdict(0, clean) == {"kernels": 2, "status": 0, "faults": [], "ok": True}
    found = sanitizer.verdict(77, "ran a.b\n========= Invalid __global__ write of size 4 bytes\n")
    assert not found["ok"] and found["faults"] == ["Invalid __global__ write of size 4 bytes"]
    assert sanitizer.verdict(None, clean)["ok"] and sanitizer.verdict(None, clean)["cut_off"]
    assert "skipped" in sanitizer.verdict(1, "Device not supported")


# --- what is made of a record --------------------------------------------------------------------

def record_of():
    """A record as a GPU would leave it, with round numbers."""
    def timed(seconds):
        return {"median": seconds, "minimum": 0.9 * seconds}

    def variants(seconds):
        return {"": {**timed(seconds), "first_steps": 3.0}}

    def row(name, precision, **times):
        w = rows.workload(name, quick=True)
        return {"name": name, "precision": precision, "title": w.title, "small": name in rows.SMALL,
                "floors": {"flops": 4e8, "bytes": 2.4e7}, "failed": [], "ok": True,
                "peers": {c: variants(t) for c, t in times.items()}}
    cublas = {"fp32": {"cold": timed(2.5e-3)}, "tf32": {"cold": timed(3.5e-4)}}
    rungs = {"tiled": timed(2e-2), "register_tiled": timed(2.8e-3), "tensor_core": timed(5e-4),
             "auto": timed(2.8e-3)}
    conv = {"flops": 4e10, "bytes": 1.4e8, "rungs": {"implicit_gemm, fp32": {"time": timed(1e-3)}},
            "cudnn": {"fp32, channels last": {"time": timed(0.95e-3)},
                      "fp32, channels first": {"time": timed(1.2e-3)}}}
    items = {"ceilings": {"copy": 3e12, "fp32": 5e13, "tf32": 4e14},
             "gemm 4096×4096×4096 NN": {
                 "label": "4096×4096×4096 NN", "flops": 2 * 4096**3, "bytes": 3 * 4 * 4096**2,
                 "cublas": cublas, "rungs": {n: {"cold": t} for n, t in rungs.items()}},
             **{f"convolution {p}": conv for p in targets.CONVOLUTION},
             "memory: adam": {"kernels": {"optimizer.adam": {
                 **timed(1e-3), "bytes": int(2.7e9), "flops": 10**9}}}}
    return {"device": "NVIDIA H100", "driver": "580", "cuda_runtime": 13000, "cupy": "14.2.0",
            "torch": "2.11", "jax": "0.11", "numpy": "2.5", "commit": "abc", "date": "2026-11-25",
            "parts": ["checks", "kernels", "steps"], "statuses": {},
            "checks": {"items": {"parity a.b": {"ok": True}, "parity a.c": {"ok": False}}},
            "kernels": {"items": items},
            "steps": {"rows": {"vae fp32": row("vae", "fp32", ours=4e-5, drawn=4.2e-5, torch=4e-4,
                                               whole=5e-5, jax=1e-4),
                               "large-sdae fp32": row("large-sdae", "fp32", ours=2e-4, torch=1e-4)},
                      "kernels": {"vae fp32": {"count": 30, "seconds": 4e-5}}}}


def test_targets_are_ratios_of_the_record():
    found = {row["what"]: row for row in targets.rows(record_of())}
    expected = {
        "small workloads, step against PyTorch eager, fp32": (0.1, True),
        "small workloads, against the fastest of torch.compile and JAX, fp32": (0.8, False),
        "large workloads, against the fastest peer, fp32": (2.0, False),
        "small workloads, step against PyTorch eager, tf32": (None, None),
        "memory-bound kernels at ≥ 256 MB, share of the measured copy bandwidth": (0.9, True),
        "GEMM 4096³ fp32, our best non-tensor rung / cuBLAS fp32": (2.5 / 2.8, True),
        "GEMM 4096³ TF32, our tensor-core rung / cuBLAS TF32": (0.7, False),
        "convolution ∂w (N128 32² 128→128 3×3, fp32), rate against cuDNN fp32": (0.95, True),
        "replayed VAE step (100×784-500-20): time over the sum of its kernels' times alone":
            (1.05, True),
        "the same step over the larger of its FLOP and byte lower bounds": (5.25, True)}
    for what, (measured, met) in expected.items():
        assert found[what]["measured"] == (measured and pytest.approx(measured)), what
        assert found[what]["met"] is met, what
    assert len(found) == 17
    empty = targets.rows({})
    assert len(empty) == 17 and all(row["met"] is None for row in empty)


def test_tables_and_pictures(tmp_path):
    record = record_of()
    record["targets"] = targets.rows(record)
    assert targets.failures(record) == ["checks, parity a.c: {}"]
    text = {make.__name__: make(record) for make in (
        tables.table_targets, tables.table_steps, tables.table_kernels, tables.table_first_steps,
        tables.table_checks)}
    for table in text.values():
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") - line.count(r"\|") for line in lines}) == 1
    assert text["table_targets"].count("**no**") == 3
    assert "| 40.0 (36.0) | 400.0 (360.0) |" in text["table_steps"]
    assert "2,700 GB/s" in text["table_kernels"] and "NVIDIA H100" in text["table_kernels"]
    assert "0.89 of cuBLAS" in text["table_kernels"]
    assert "| parity | 1 | 2 |" in text["table_checks"]
    with contextlib.suppress(ImportError):
        pictures.picture_roofline(record, tmp_path / "roofline.png")
        pictures.picture_ladder(record, tmp_path / "ladder.png")
        assert (tmp_path / "ladder.png").stat().st_size > 5000
