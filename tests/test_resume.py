"""Training that was stopped, killed or extended makes the same bytes as training in one go."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from scratchgen import train
from scratchgen.errors import Notice, UserError
from scratchgen.models import MODELS
from scratchgen.train import config, files, runs

KINDS = ("dae", "vae", "gan")
MODEL = {  # small; the GAN's generator has its turn at every second step, across epochs
    "dae": {"hidden": 13},
    "vae": {"hidden": 13, "latent": 3},
    "gan": {"latent": 3, "generator": [11], "discriminator": [13], "d_steps": 2},
}
LIMIT, BATCH = 90, 20  # five batches an epoch, the last one smaller


def tables(kind, epochs, **train_settings):
    return {
        "run": {"model": kind, "seed": 3, "backend": "numpy"},
        "data": {"limit": LIMIT},
        "train": {"epochs": epochs, "batch_size": BATCH, **train_settings},
        "model": MODEL[kind],
    }


def content(path):
    return (path / "checkpoint.safetensors").read_bytes()


def metrics_without_times(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """kind -> the folder of a run of four epochs in one go."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole") / kind
            train.train(tables(kind, 4), made[kind])
        return made[kind]

    return folder


def assert_same_run(path, whole):
    assert content(path) == content(whole)
    assert metrics_without_times(path) == metrics_without_times(whole)
    names = {file.name for file in path.iterdir()}
    assert names == {"config.toml", "env.json", "metrics.jsonl", "summary.json", "state.json",
                     "checkpoint.safetensors"}


@pytest.mark.parametrize("kind", KINDS)
def test_two_and_two_epochs_equal_four(kind, uninterrupted, tmp_path):
    train.train(tables(kind, 2), tmp_path)
    assert content(tmp_path) != content(uninterrupted(kind))
    train.train(tables(kind, 4), tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted(kind))


class _Stop(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_between_any_two_batches(kind, uninterrupted, tmp_path, monkeypatch):
    """SIGINT in epoch 2, after batch 2, then once more one batch later."""
    monkeypatch.setattr(train.loop, "PROGRESS_INTERVAL", 0)

    def interrupt_at(epoch, batch):
        def on_progress(progress):
            if (progress.epoch, progress.batch) == (epoch, batch) and progress.test is None:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

        return on_progress

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(train.Interrupted):
        train.train(tables(kind, 4), tmp_path, on_progress=interrupt_at(2, 2))
    assert signal.getsignal(signal.SIGINT) is before
    state = runs.open_run(tmp_path).checkpoint().state
    assert (state["epoch"], state["batch"], state["step"]) == (1, 2, 7)
    with pytest.raises(KeyboardInterrupt):
        train.train({}, tmp_path, resume=True, on_progress=interrupt_at(2, 3))
    with pytest.raises(KeyboardInterrupt):  # at an epoch's last batch the epoch is completed
        train.train({}, tmp_path, resume=True, on_progress=interrupt_at(3, 5))
    state = runs.open_run(tmp_path).checkpoint().state
    assert (state["epoch"], state["batch"], state["step"]) == (3, 0, 15)
    train.train({}, tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_failure_at_any_write_loses_nothing(kind, uninterrupted, tmp_path, monkeypatch):
    """The process dies at its n-th change of a file, for every n: before it, or half-way."""
    replace, failures = os.replace, 0

    def dying(after):
        count = 0

        def dying_replace(source, target):
            nonlocal count
            count += 1
            if count > after:
                raise _Stop
            replace(source, target)

        return dying_replace

    for after in (0, 1, 2, 3, 4, 5, 6, 7):
        monkeypatch.setattr(files.os, "replace", dying(after))
        try:
            train.train(tables(kind, 4), tmp_path, resume=(tmp_path / "config.toml").exists())
        except _Stop:
            failures += 1
        monkeypatch.undo()
    assert failures >= 6
    train.train(tables(kind, 4), tmp_path, resume=True)
    for leftover in tmp_path.glob(".*.tmp"):  # none: each was renamed by the next write
        raise AssertionError(leftover)
    assert_same_run(tmp_path, uninterrupted(kind))


CHILD = """
import json, sys
from scratchgen import train
given, out, resume = json.loads(sys.argv[1])
train.train(given, out, resume, on_progress=lambda progress: print(progress.epoch, flush=True))
"""


def start(given, out, resume):
    arguments = json.dumps([given, str(out), resume])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, arguments], stdout=subprocess.PIPE, env=environment
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("kind, number", [("vae", signal.SIGKILL), ("gan", signal.SIGKILL),
                                          ("dae", signal.SIGTERM)])
def test_killed_at_random_moments(kind, number, uninterrupted, tmp_path):
    """Each life is cut short at another moment after its first sign of life; the last is not."""
    generator = np.random.default_rng(number)
    epochs, path = 30, tmp_path / "cut"
    given = tables(kind, epochs, checkpoint_every=2)
    for _ in range(3):
        child = start(given, path, (path / "config.toml").exists())
        child.stdout.readline()
        time.sleep(generator.uniform(0, 0.15))
        child.send_signal(number)
        child.communicate(timeout=60)
    train.train(given, path, resume=True)
    train.train(given, tmp_path / "whole")
    assert content(path) == content(tmp_path / "whole")
    assert metrics_without_times(path) == metrics_without_times(tmp_path / "whole")
    assert len(metrics_without_times(path)) == epochs


@pytest.mark.parametrize("gradient", ["tape", "explicit"])
def test_metrics_and_summary(gradient, tmp_path):
    given = config.merge(tables("vae", 2), {"run": {"gradient": gradient}})
    summary = train.train(given, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 5), (2, 10)]
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["test_loss"] == lines[-1]["test_loss"] == summary.metrics["test_loss"]
    assert written["train_loss"] == lines[-1]["train_loss"]
    assert (written["model"], written["epochs"], written["steps"]) == ("vae", 2, 10)
    assert written["parameters"] > 0 and "metrics" not in written
    # The test means come from the stored model too: evaluating draws from fresh streams.
    again = train.evaluate_run(tmp_path)
    assert {f"test_{name}": value for name, value in again.items()} == {
        name: value for name, value in summary.metrics.items() if name.startswith("test_")
    }


def test_epoch_means_are_weighted_by_batch_size(tmp_path, monkeypatch):
    values = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(MODELS["vae"], "training_step",
                        lambda *arguments, **options: {"loss": next(values)})
    train.train(tables("vae", 1), tmp_path)
    mean = (20 * (1 + 2 + 3 + 4) + 10 * 5) / 90
    assert runs.open_run(tmp_path).metrics()[0]["train_loss"] == pytest.approx(mean, rel=1e-15)


@pytest.mark.parametrize("method", ["training_step", "evaluate"])
def test_non_finite_loss_stops_and_keeps_the_checkpoint(method, tmp_path, monkeypatch):
    train.train(tables("vae", 2), tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(MODELS["vae"], method,
                        lambda *arguments, **options: {"loss": 1.0, "kl": float("nan")})
    with pytest.raises(UserError, match="kl became nan at step 1[16]"):
        train.train(tables("vae", 4), tmp_path, resume=True)
    assert content(tmp_path) == before
    assert len(runs.open_run(tmp_path).metrics()) == 2


def test_resuming_a_finished_run_changes_nothing(uninterrupted):
    path = uninterrupted("vae")
    before = content(path), (path / "metrics.jsonl").read_bytes()
    summary = train.train({}, path, resume=True)
    assert (content(path), (path / "metrics.jsonl").read_bytes()) == before
    assert summary.epochs == 4


def test_resuming_on_other_data_is_refused(tmp_path):
    train.train(tables("vae", 1), tmp_path)
    text = (tmp_path / "config.toml").read_text().replace(f"limit = {LIMIT}", "limit = 80")
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError, match="not those that .* was trained on"):
        train.train({}, tmp_path, resume=True)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A run on own images, named by a relative path, and a probe of it; the working folder is then
    another."""
    rng = np.random.default_rng(3)
    save_own(tmp_path / "own.npz", rng)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    given = config.merge(tables("vae", 1), {"data": {"name": "own.npz", "limit": 0}})
    train.train(given, "run")
    probe = {"run": {"model": "probe", "backend": "numpy"}, "data": {"name": "./own.npz"},
             "train": {"epochs": 1}, "model": {"features": "run"}}
    train.train(probe, "probe")
    monkeypatch.chdir("elsewhere")
    return given


def save_own(path, rng, **changed):
    arrays = {"images": rng.integers(0, 256, (30, 6, 4), np.uint8), "labels": np.arange(30) % 3,
              "test_images": rng.integers(0, 256, (9, 6, 4), np.uint8),
              "test_labels": np.arange(9) % 3}
    np.savez(path, **arrays | changed)


def test_a_run_finds_its_data_from_another_folder(own, tmp_path):
    from scratchgen import plots, report

    for run in ("run", "probe"):
        path = Path("..", run)
        assert train.evaluate_run(path)["loss"] > 0
        assert plots.draw_run(path)
        assert "own.npz" in report.write_report([path]).read_text()
        assert train.train({"train": {"epochs": 2}}, path, resume=True).epochs == 2
    again = config.merge(own, {"data": {"name": "../own.npz"}, "train": {"epochs": 3}})
    assert train.train(again, "../run", resume=True).epochs == 3
    stored = runs.open_run("../probe").config()
    assert stored["data"]["name"] == str(tmp_path / "own.npz")
    assert stored["model"]["features"] == str(tmp_path / "run")


def test_data_that_were_moved_are_named_anew(own, tmp_path):
    (tmp_path / "own.npz").rename("moved.npz")
    for act in (train.evaluate_run, train.dataset_of,
                lambda path: train.train({}, path, resume=True)):
        with pytest.raises(UserError, match="no file or folder|no readable file") as caught:
            act("../run")
        assert "if the data were moved" in str(caught.value) and "\n" not in str(caught.value)
    assert train.train({"data": {"name": "moved.npz"}}, "../run", resume=True).epochs == 1
    assert train.evaluate_run("../run")["loss"] > 0


@pytest.mark.parametrize("changed, what", [
    ({"labels": np.arange(30) % 2}, "shapes, labels or test items"),
    ({"test_labels": np.arange(9) % 2}, "shapes, labels or test items"),
    ({"test_images": np.zeros((9, 6, 4), np.uint8)}, "shapes, labels or test items"),
    ({"images": np.zeros((30, 6, 4), np.uint8)}, "training items"), ({}, None)])
def test_resuming_on_changed_data_is_refused(own, tmp_path, changed, what):
    save_own(tmp_path / "own.npz", np.random.default_rng(3), **changed)
    before = content(tmp_path / "run")
    if what is None:
        assert train.train({"train": {"epochs": 2}}, "../run", resume=True).epochs == 2
        return
    with pytest.raises(UserError, match=f"the {what} of .*own.npz are not those that .*run was"):
        train.train({"train": {"epochs": 2}}, "../run", resume=True)
    assert content(tmp_path / "run") == before


def test_looking_at_changed_data_says_so(own, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.evaluate_run("../run")
        train.dataset_of("../run")
        save_own(tmp_path / "own.npz", np.random.default_rng(4))
        train.evaluate_run("../run", {"data": {"name": "../own.npz"}})      # asked for
    for look in (train.evaluate_run, train.dataset_of):
        with pytest.warns(Notice, match="training items of .*own.npz are not those that .*run was"):
            look("../run")


def test_a_path_that_is_not_utf_8_is_refused(tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.npy")
    np.save(name, np.zeros((20, 4, 4), np.uint8))
    with pytest.raises(UserError, match="is not UTF-8"):
        train.train(config.merge(tables("dae", 1), {"data": {"name": name}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpoint_of_another_model_is_refused(uninterrupted, tmp_path):
    train.train(tables("gan", 1), tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(content(uninterrupted("vae")))
    for act in (train.load, lambda path: train.train({}, path, resume=True)):
        with pytest.raises(UserError, match="does not fit the model .*it contains a vae"):
            act(tmp_path)


def test_checkpoint_of_another_size_is_refused(tmp_path):
    for name, width in (("small", 6), ("large", 7)):
        given = config.merge(tables("vae", 1), {"model": {"hidden": width}})
        train.train(given, tmp_path / name)
    (tmp_path / "small" / "checkpoint.safetensors").write_bytes(content(tmp_path / "large"))
    with pytest.raises(UserError, match="does not fit the model"):
        train.load(tmp_path / "small")


def test_missing_checkpoint_of_a_run_with_metrics(tmp_path):
    train.train(tables("vae", 1), tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match="has no checkpoint"):
        train.train(tables("vae", 2), tmp_path, resume=True)
    assert len(runs.open_run(tmp_path).metrics()) == 1


def test_loaded_model_is_the_trained_one(uninterrupted):
    path = uninterrupted("vae")
    first, second = (train.load(path).sample(5, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, 28, 28, 1) and 0 <= first.min() and first.max() <= 1
    stored = runs.open_run(path).checkpoint().with_prefix("model")
    for name, array in train.load(path).state_dict().items():
        np.testing.assert_array_equal(array, stored[name])
