"""Features and semantics: end to end, on frozen features, labels given or derived from the data."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, train
from scratchgen.models.classifier.model import features_of, rotated
from scratchgen.train import runs

SQUARE = (6, 6, 2)
SMALL = {"layers": [7], "code": 5, "classes": 4, "activation": "tanh"}


def images(n=9, shape=SQUARE, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *shape))


def labels(n=9, classes=4):
    return np.arange(n) % classes


def small(kind, **config):
    """A small model of that kind for images 6 by 6."""
    config = {"dae": {"hidden": 5}, "vae": {"hidden": 6, "latent": 3},
              "gan": {"latent": 3, "generator": [5], "discriminator": [7, 4]},
              "sdae": {"layers": [6, 5], "levels": [0.1, 0.1]}, "classifier": SMALL}[kind] | config
    return models.MODELS[kind](models.MODELS[kind].Config(**config), SQUARE, dtype=np.float64)


def probe(kind="dae", dtype=np.float64, **config):
    return models.Probe(models.Probe.Config(**{"classes": 4, **config}), SQUARE, dtype=dtype,
                        features=small(kind))


def check_gradients(model):
    inputs = model.inputs(images(), sg.Streams(1), labels())
    terms = model.loss(*inputs)
    terms["loss"].backward()
    explicit_terms, explicit = model.explicit_gradients(*inputs)
    wanted = {name: p.grad.data for name, p in model.named_parameters().items()
              if p.grad is not None}
    assert set(wanted) == set(explicit)
    for name, gradient in wanted.items():
        assert gradient.any(), name
        np.testing.assert_allclose(explicit[name], gradient, rtol=1e-10, atol=1e-13, err_msg=name)
    for name, value in terms.items():
        np.testing.assert_allclose(explicit_terms[name], float(value), rtol=1e-10)
    return set(wanted)


@pytest.mark.parametrize("config", [{}, {"hidden": 6}, {"arch": "conv"}, {"labels": "rotation"},
                                    {"arch": "conv", "labels": "rotation", "hidden": 3}])
def test_gradients_by_hand_equal_the_tape_end_to_end(backend, config):
    model = small("classifier", **config)
    assert check_gradients(model) == set(model.named_parameters())


@pytest.mark.parametrize("kind", ["dae", "vae", "gan", "sdae", "classifier"])
@pytest.mark.parametrize("hidden", [0, 6])
def test_gradients_by_hand_equal_the_tape_on_frozen_features(kind, hidden):
    wanted = check_gradients(probe(kind, hidden=hidden))
    assert {name.split(".")[0] for name in wanted} == {"semantics"}


def test_loss_is_the_cross_entropy():
    model = small("classifier")
    for p in model.semantics.parameters():
        p.data[...] = 0
    terms = model.evaluate(images(), sg.Streams(0), labels())
    assert terms["loss"] == pytest.approx(np.log(4), rel=1e-12)
    assert terms["accuracy"] == np.mean(labels() == 0)      # all logits equal: class 0


def test_labels_by_rotation_undo_it():
    model = small("classifier", labels="rotation")
    assert model.class_count() == 4 and model.semantics.b.shape == (4,)
    x = images(200)
    rows, turns = model.inputs(x, sg.Streams(3), None)
    assert np.bincount(turns).min() > 25
    np.testing.assert_array_equal(rotated(rows.reshape(x.shape), -turns % 4), x)
    again, _ = model.inputs(x, sg.Streams(3), np.zeros(200, int))    # given labels are ignored
    np.testing.assert_array_equal(again, rows)
    other = model.inputs(x, sg.Streams(4), None)[1]
    assert not np.array_equal(turns, other)


def test_one_quarter_turn_is_anticlockwise():
    image = np.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    assert rotated(image, np.array([1]))[0, :, :, 0].tolist() == [[2, 4], [1, 3]]


def test_a_probe_leaves_its_features_alone():
    model = probe("gan", np.float32)
    assert not model.features.training and not model.train().features.training
    before = model.features.state_dict()
    optimisers = {name: sg.optim.make("adam", network, 1e-2)
                  for name, network in model.networks().items()}
    first = model.evaluate(images(), sg.Streams(0), labels())["loss"]
    for _ in range(20):
        model.training_step(images(), sg.Streams(0), optimisers, labels=labels())
    assert model.evaluate(images(), sg.Streams(0), labels())["loss"] < first
    for name, array in model.features.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert model.size() == 4 * 4 + 4 and model.predict(images()).shape == (9,)


def test_features_of_a_gan_are_what_its_discriminator_has_before_its_verdict():
    gan = small("gan")
    x = images()
    d = gan.discriminator.layers
    logits = features_of(gan, x) @ d[-1].w.data + d[-1].b.data
    np.testing.assert_allclose(logits, gan.discriminator(sg.Tensor(gan.real(x))).data, rtol=1e-12)


# --- in the training loop ------------------------------------------------------------------------

def tables(kind, epochs, **model):
    return {"run": {"model": kind, "backend": "numpy"}, "data": {"limit": 300},
            "train": {"epochs": epochs, "batch_size": 20}, "model": model}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "dae"
    train.train(tables("dae", 3, hidden=60), folder)
    return folder


def same_bytes_when_resumed(given, epochs, folder):
    whole, cut = folder / "whole", folder / "cut"
    summary = train.train(given(epochs), whole)
    train.train(given(1), cut)
    train.train(given(epochs), cut, resume=True)
    assert (whole / "checkpoint.safetensors").read_bytes() == (
        cut / "checkpoint.safetensors").read_bytes()
    return whole, summary


def test_probe_of_a_run(autoencoder, tmp_path):
    whole, summary = same_bytes_when_resumed(
        lambda epochs: tables("probe", epochs, features=str(autoencoder)), 8, tmp_path)
    assert summary.parameters == 60 * 10 + 10
    assert summary.metrics["test_accuracy"] > 0.35
    model = train.load(whole)
    dataset = sg.data.load("mnist-mini", limit=300)
    x = dataset.test_images.astype(np.float32) / np.float32(255)
    raw = train.load(autoencoder).encode(x)
    np.testing.assert_array_equal(model.encode(x), (raw - model.shift) / model.scale)
    codes = model.encode(dataset.train_images / np.float32(255))
    np.testing.assert_allclose([codes.mean(axis=0), codes.std(axis=0)], [[0] * 60, [1] * 60],
                               atol=1e-3)
    right = np.mean(model.predict(x) == dataset.test_labels)
    assert right == pytest.approx(summary.metrics["test_accuracy"], abs=1e-6)
    assert train.evaluate_run(whole)["accuracy"] == summary.metrics["test_accuracy"]


@pytest.mark.parametrize("how", ["given", "rotation"])
def test_classifier_in_the_training_loop(how, tmp_path):
    _, summary = same_bytes_when_resumed(
        lambda epochs: tables("classifier", epochs, labels=how, layers=[40], code=20), 6, tmp_path)
    assert summary.metrics["test_accuracy"] > 0.4


@pytest.mark.parametrize("preset", ["conv", "rotation", "points"])
def test_presets(preset, tmp_path):
    given = {"run": {"model": "classifier", "preset": preset}, "data": {"limit": 40},
             "train": {"epochs": 1}}
    assert set(train.train(given, tmp_path).metrics) == {
        f"{part}_{name}" for part in ("train", "test") for name in ("loss", "accuracy")}


def test_a_probe_of_a_changed_run_keeps_the_features_it_was_trained_on(tmp_path):
    given = tables("vae", 1, hidden=20, latent=4)
    train.train(given, tmp_path / "vae")
    train.train(tables("probe", 1, features=str(tmp_path / "vae")), tmp_path / "probe")
    before = train.load(tmp_path / "probe").encode(images(3, (28, 28, 1)).astype(np.float32))
    train.train({**given, "train": {"epochs": 2, "batch_size": 20}}, tmp_path / "vae", resume=True)
    after = train.load(tmp_path / "probe").encode(images(3, (28, 28, 1)).astype(np.float32))
    np.testing.assert_array_equal(before, after)


def test_what_a_probe_needs_is_said(autoencoder, tmp_path):
    with pytest.raises(sg.UserError, match="--features RUN"):
        train.train(tables("probe", 1), tmp_path / "a")
    with pytest.raises(sg.UserError, match="no run in"):
        train.train(tables("probe", 1, features=str(tmp_path / "none")), tmp_path / "b")
    given = tables("probe", 1, features=str(autoencoder))
    given["data"]["name"] = "ring"
    with pytest.raises(sg.UserError, match=r"\(28, 28, 1\).*\(2,\)"):
        train.train(given, tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_what_does_not_fit_is_said():
    with pytest.raises(sg.UserError, match="square"):
        models.Classifier(models.Classifier.Config(labels="rotation"), (4, 5, 1))
    with pytest.raises(sg.UserError, match="square"):
        models.Classifier(models.Classifier.Config(labels="rotation"), (2,))
    with pytest.raises(sg.UserError, match="no labels"):
        small("classifier").evaluate(images(), sg.Streams(0))
    with pytest.raises(sg.UserError, match="no sampler"):
        small("classifier").sample(1)


def test_extra_is_logged_under_its_own_key(tmp_path, monkeypatch):
    monkeypatch.setattr(models.VAE, "extra_metrics",
                        lambda self, x, streams: {"seen": list(x.shape), "epoch": self.epoch},
                        raising=False)
    train.train(tables("vae", 2, hidden=5, latent=2), tmp_path)
    assert [line["extra"] for line in runs.open_run(tmp_path).metrics()] == [
        {"seen": [300, 28, 28, 1], "epoch": epoch} for epoch in (1, 2)]


@pytest.mark.parametrize("wrong, remedy", [
    ([-1, -1], "number the classes from 0 on"), ([-1, 5], "number the classes from 0 on"),
    ([0, 4], "--set model.classes=5")])
def test_labels_out_of_range_are_refused_with_advice_that_helps(wrong, remedy):
    from scratchgen.models.classifier.scores import checked

    with pytest.raises(sg.UserError, match=remedy):
        checked(np.array(wrong), 4)
