"""What the trainer tells a model, and what it takes as data: images, own images, points."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, train
from scratchgen.train import runs

SMALL = {"hidden": 5, "latent": 2}


def tables(epochs=2, **data):
    return {"run": {"model": "vae", "backend": "numpy"}, "data": {"limit": 50, **data},
            "train": {"epochs": epochs, "batch_size": 20}, "model": SMALL}


def test_a_model_knows_labels_epoch_and_step(tmp_path, monkeypatch):
    steps, evaluations = [], []

    def training_step(self, x, streams, optimisers, gradient="tape", labels=None):
        steps.append((self.epoch, self.step, len(x), len(labels), self.training))
        return {"loss": float(labels.sum())}

    def evaluate(self, x, streams, labels=None):
        evaluations.append((self.epoch, self.step, len(x), len(labels), self.training))
        return {"loss": float(labels.sum())}

    monkeypatch.setattr(models.VAE, "training_step", training_step)
    monkeypatch.setattr(models.VAE, "evaluate", evaluate)
    train.train(tables(), tmp_path)
    assert steps == [(0, 0, 20, 20, True), (0, 1, 20, 20, True), (0, 2, 10, 10, True),
                     (1, 3, 20, 20, True), (1, 4, 20, 20, True), (1, 5, 10, 10, True)]
    assert evaluations == [(1, 3, 50, 50, False), (2, 6, 50, 50, False)]
    labels = sg.data.load("mnist-mini", limit=50).test_labels
    assert runs.open_run(tmp_path).metrics()[0]["test_loss"] == labels.sum()
    steps.clear()
    train.train(tables(3), tmp_path, resume=True)
    assert [step[:2] for step in steps] == [(2, 6), (2, 7), (2, 8)]
    model = train.load(tmp_path)
    assert (model.epoch, model.step, model.training) == (3, 9, False)


def test_a_held_out_part_is_never_trained_on(tmp_path, monkeypatch):
    dataset, seen, validated = sg.data.load("mnist-mini", limit=50), [], []
    monkeypatch.setattr(models.VAE, "held_out", 0.3)
    step, ends = models.VAE.training_step, []

    def training_step(self, x, *arguments, **options):
        seen.append(x)
        return step(self, x, *arguments, **options)

    def validate(self, x, streams, labels=None):
        validated.append((x, labels))
        return {"loss": 1.5}

    monkeypatch.setattr(models.VAE, "training_step", training_step)
    monkeypatch.setattr(models.VAE, "validate", validate)
    monkeypatch.setattr(models.VAE, "end_epoch", lambda self, valid: ends.append(valid))
    train.train(tables(1), tmp_path)
    images = dataset.train_images / np.float32(255)
    np.testing.assert_array_equal(validated[0][0], images[35:])
    np.testing.assert_array_equal(validated[0][1], dataset.train_labels[35:])
    order = np.concatenate(seen)
    assert sorted(map(bytes, order)) == sorted(map(bytes, images[:35]))
    assert ends == [{"loss": 1.5}]
    line = runs.open_run(tmp_path).metrics()[0]
    assert line["valid_loss"] == 1.5 and "test_loss" in line


def test_training_ends_when_the_model_has_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(models.VAE, "finished", lambda self: self.epoch >= 3)
    assert train.train(tables(9), tmp_path).epochs == 3


def test_each_network_may_have_a_rate_of_its_own(monkeypatch):
    rates = {"generator": None, "discriminator": 0.5}
    monkeypatch.setattr(models.GAN, "learning_rate", lambda self, name: rates[name])
    resolved = train.config.resolve({"run": {"model": "gan"}, "train": {"lr": 0.25}})
    trainer = train.loop.Trainer(resolved, sg.data.load("mnist-mini", limit=9))
    assert {name: o.lr for name, o in trainer.optimisers.items()} == {"generator": 0.25,
                                                                      "discriminator": 0.5}


POINTS = {"run": {"model": "dae", "preset": "points", "backend": "numpy"}, "data": {"limit": 70},
          "model": {"layers": [5], "hidden": 4}}


@pytest.mark.parametrize("name", ["ring", "moons", "mixture1d"])
def test_points_resume_to_the_same_bytes(name, tmp_path):
    given = train.config.merge(POINTS, {"data": {"name": name}, "train": {"batch_size": 20}})
    for folder, stops in (("whole", [4]), ("cut", [1, 3, 4])):
        for epochs in stops:
            train.train(train.config.merge(given, {"train": {"epochs": epochs}}),
                        tmp_path / folder, resume=epochs != stops[0])
    whole, cut = (runs.open_run(tmp_path / n).checkpoint_path.read_bytes()
                  for n in ("whole", "cut"))
    assert whole == cut
    points = train.load(tmp_path / "whole").sample(3)
    assert points.shape == (3, *sg.data.load(name, limit=1).item_shape)
    again = train.evaluate_run(tmp_path / "whole")
    assert again["loss"] == runs.open_run(tmp_path / "whole").metrics()[-1]["test_loss"]


def test_points_of_another_dimension_are_refused(tmp_path):
    train.train(train.config.merge(POINTS, {"train": {"epochs": 1}}), tmp_path)
    with pytest.raises(sg.UserError, match=r"\(1,\), the model of .* \(2,\)"):
        train.evaluate_run(tmp_path, {"data": {"name": "mixture1d"}})


@pytest.mark.parametrize("kind, settings", [
    ("dae", {"hidden": 6}), ("dae", {"arch": "conv", "hidden": 6}), ("vae", SMALL),
    ("gan", {"latent": 3, "generator": [6], "discriminator": [5]}),
    ("sdae", {"layers": [6], "levels": [0.1], "pretrain_epochs": 1}),
    ("classifier", {"layers": [6], "code": 5})])
@pytest.mark.parametrize("shape", [(9, 6, 3), (5, 7, 1)])
def test_every_model_learns_own_images(kind, settings, shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (30, *shape)).astype(np.uint8)
    np.savez(tmp_path / "my own.npz", images=images, labels=np.arange(30) % 4)
    summary = train.train({"run": {"model": kind, "backend": "numpy"}, "model": settings,
                           "data": {"name": str(tmp_path / "my own.npz")}, "train": {"epochs": 2}})
    assert summary.path.as_posix() == f"runs/{kind}-my own-1"
    assert np.isfinite(summary.metrics["test_loss"])
    assert train.load(summary.path).image_shape == shape
