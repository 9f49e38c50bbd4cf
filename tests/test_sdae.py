"""The stacked autoencoder: its phases, what it learns from, gradients, early stopping, resuming."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, train
from scratchgen.models.classifier.scores import checked
from scratchgen.train import runs

SHAPE = (4, 3, 2)
SMALL = {"layers": [7, 6], "levels": [0.3, 0.2], "pretrain_epochs": 2, "classes": 4}


def images(n=5, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *SHAPE))


def made(epoch=0, dtype=np.float64, **config):
    model = models.SDAE(models.SDAE.Config(**{**SMALL, **config}), SHAPE, dtype=dtype)
    for i, p in enumerate(model.parameters()):          # no zeros left in the logistic layer
        p.data += np.random.default_rng(i).normal(size=p.shape) * 0.1
    model.epoch = epoch
    return model


@pytest.mark.parametrize("epoch, layer", [(0, 0), (1, 0), (2, 1), (3, 1), (4, None), (9, None)])
def test_the_phase_is_a_function_of_the_epoch(epoch, layer):
    assert made(epoch).layer() == layer
    assert made(epoch + 1).eval().layer() == layer      # after the epoch, still what it trained
    assert made(epoch, pretrain=False).layer() is None


@pytest.mark.parametrize("epoch", [0, 2, 4])
@pytest.mark.parametrize("config", [{}, {"tied": False}, {"output": "linear"},
                                    {"corruption": "gaussian"}])
def test_gradients_by_hand_equal_the_tape(backend, epoch, config):
    model = made(epoch, **config)
    inputs = model.inputs(images(), sg.Streams(1), np.array([0, 3, 1, 1, 2]))
    terms = model.loss(*inputs)
    terms["loss"].backward()
    explicit_terms, explicit = model.explicit_gradients(*inputs)
    wanted = {name: p.grad.data for name, p in model.named_parameters().items()
              if p.grad is not None}
    assert set(wanted) == set(explicit) and len(wanted) >= 3
    for name, gradient in wanted.items():
        assert gradient.any()
        np.testing.assert_allclose(explicit[name], gradient, rtol=1e-10, atol=1e-14, err_msg=name)
    for name, value in terms.items():
        np.testing.assert_allclose(explicit_terms[name], float(value), rtol=1e-10)


def test_each_layer_learns_from_clean_codes_of_the_layer_below():
    model = made(epoch=2)
    x = images()
    k, pair = model.inputs(x, sg.Streams(1), None)
    below = model.stack[0]
    h = 1 / (1 + np.exp(-(x.reshape(5, -1) @ below.encoder.w.data + below.encoder.b.data)))
    np.testing.assert_allclose(pair.clean, h, rtol=1e-12)
    assert k == 1 and (pair.noisy == 0).any() and not (pair.clean == 0).any()
    before = model.stack[0].state_dict()
    optimisers = {name: sg.optim.make("sgd", network, 0.1)
                  for name, network in model.networks().items()}
    upper = model.stack[1].state_dict()
    model.training_step(x, sg.Streams(1), optimisers)
    assert all(np.array_equal(a, before[n]) for n, a in model.stack[0].state_dict().items())
    assert not np.array_equal(upper["encoder.w"], model.stack[1].encoder.w.data)


def test_pre_trained_encoders_become_the_classifier():
    model = made(epoch=4)
    model.end_epoch({"loss": 3.0})
    for k, dae in enumerate(model.stack):
        assert np.array_equal(model.classifier[k].w.data, dae.encoder.w.data)
        assert np.array_equal(model.classifier[k].b.data, dae.encoder.b.data)
    model.training = False
    np.testing.assert_allclose(model.encode(images()), model.codes(images(), 2), rtol=1e-12)


def test_the_first_weights_are_the_same_without_pre_training():
    with_, without = (models.SDAE(models.SDAE.Config(**SMALL, pretrain=p), SHAPE)
                      for p in (True, False))
    for k, dae in enumerate(with_.stack):
        assert np.array_equal(dae.encoder.w.data, without.classifier[k].w.data)
    assert not with_.classifier[2].w.data.any()
    assert without.networks().keys() == {"classifier"} and with_.size() == without.size()


def test_early_stopping_keeps_the_best_weights():
    model = made(pretrain=False, patience=3)
    weights, errors = {}, [0.5, 0.3, 0.4, 0.299, 0.31, 0.35, 0.3]
    for epoch, error in enumerate(errors, 1):
        assert not model.finished()
        model.epoch = epoch
        for p in model.classifier.parameters():
            p.data += 1
        weights[epoch] = model.classifier[0].w.data.copy()
        model.end_epoch({"error": error})
        if epoch == 4:                                  # 0.299 is better, but not by enough
            assert model.record.tolist() == [0.299, 4, 4]
            break
    assert model.finished()
    model.classifier[0].w.data += 5
    with model.best_weights():
        assert np.array_equal(model.classifier[0].w.data, weights[4])
    assert np.array_equal(model.classifier[0].w.data, weights[4] + 5)
    model.epoch = 6
    model.end_epoch({"error": 0.2})                     # twice as long as it took to come here
    assert model.record.tolist() == [0.2, 6, 12] and not model.finished()
    assert model.extra_metrics(None, None) == {"phase": "fine-tuning", "best_epoch": 6,
                                               "best_valid_error": 0.2}


def test_kept_weights_come_back_after_an_error():
    model = made(pretrain=False)
    model.end_epoch({})
    model.epoch = 1
    model.end_epoch({"error": 0.1})
    model.classifier[0].w.data += 1
    before = model.classifier[0].w.data.copy()
    with pytest.raises(sg.UserError, match="images of shape"):
        model.predict(np.zeros((2, 9)))
    assert np.array_equal(model.classifier[0].w.data, before)


# --- in the training loop ------------------------------------------------------------------------

def tables(epochs, **model):
    return {"run": {"model": "sdae", "backend": "numpy"}, "data": {"limit": 90},
            "train": {"epochs": epochs, "batch_size": 20, "lr": 1e-2},
            "model": {"layers": [9, 8], "levels": [0.1, 0.2], "pretrain_epochs": 2, **model}}


def test_log_names_phase_and_layer(tmp_path):
    summary = train.train(tables(6), tmp_path)
    lines = runs.open_run(tmp_path).metrics()
    assert [line["extra"]["phase"] for line in lines] == ["pre-training"] * 4 + ["fine-tuning"] * 2
    assert [line["extra"].get("layer") for line in lines] == [1, 1, 2, 2, None, None]
    assert [("test_error" in line, "valid_error" in line) for line in lines] == [
        (False, False)] * 4 + [(True, True)] * 2
    assert summary.steps == 6 * 4                       # 75 of 90 images, 20 a step
    model = train.load(tmp_path)
    assert model.size() == summary.parameters == 784 * 9 + 9 + 9 * 8 + 8 + 8 * 10 + 10
    dataset = sg.data.load("mnist-mini", limit=90)
    x = dataset.test_images.astype(np.float32) / np.float32(255)
    wrong = np.mean(model.predict(x) != dataset.test_labels)
    assert wrong == pytest.approx(summary.metrics["test_error"], abs=1e-12)
    again = train.evaluate_run(tmp_path)
    assert again == {name: summary.metrics[f"test_{name}"] for name in ("loss", "error")}
    assert model.reconstruct(x[:3]).shape == (3, 28, 28, 1) and model.encode(x[:3]).shape == (3, 8)
    with pytest.raises(sg.UserError, match="no sampler"):
        model.sample(3)


@pytest.mark.parametrize("stops", [(1, 3), (2, 4), (5,)])
def test_resuming_in_any_phase_makes_the_same_bytes(stops, tmp_path):
    train.train(tables(7), tmp_path / "whole")
    for epochs in (*stops, 7):
        train.train(tables(epochs), tmp_path / "cut", resume=epochs != stops[0])
    whole, cut = (runs.open_run(tmp_path / name).checkpoint_path.read_bytes()
                  for name in ("whole", "cut"))
    assert whole == cut


def test_early_stopping_ends_the_run(tmp_path):
    given = tables(200, pretrain=False, patience=2)
    summary = train.train(given, tmp_path)
    assert 2 <= summary.epochs < 200
    before = runs.open_run(tmp_path).checkpoint_path.read_bytes()
    assert train.train(given, tmp_path, resume=True).epochs == summary.epochs
    assert runs.open_run(tmp_path).checkpoint_path.read_bytes() == before
    best = runs.open_run(tmp_path).metrics()[-1]["extra"]
    errors = [line["valid_error"] for line in runs.open_run(tmp_path).metrics()]
    assert min(errors) == best["best_valid_error"] == errors[best["best_epoch"] - 1]


def test_training_by_hand_equals_training_by_tape(tmp_path):
    for gradient in ("tape", "explicit"):
        given = sg.train.config.merge(tables(5), {
            "run": {"gradient": gradient, "dtype": "float64"}, "train": {"optimizer": "sgd"}})
        train.train(given, tmp_path / gradient)
    one, two = (train.load(tmp_path / name).state_dict() for name in ("tape", "explicit"))
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-8, atol=1e-12, err_msg=name)


def test_points_are_learned_too(tmp_path):
    given = {"run": {"model": "sdae", "preset": "points"}, "data": {"limit": 300},
             "train": {"epochs": 14, "lr": 1e-2, "batch_size": 20},
             "model": {"layers": [9, 8], "pretrain_epochs": 1, "classes": 2}}
    assert train.train(given, tmp_path).metrics["test_error"] < 0.25


@pytest.mark.parametrize("given, said", [
    ({"model": {"levels": [0.1]}}, "2 layers and model.levels 1"),
    ({"model": {"classes": 5}, "train": {"epochs": 5}}, "--set model.classes=10"),
    ({"model": {"pretrain_lr": 0}}, "pretrain_lr = 0: expected a finite number above 0"),
    ({"data": {"name": "moons"}}, "preset points"),
    ({"data": {"limit": 1}}, "expected at least 2"),
])
def test_what_does_not_fit_is_said(given, said, tmp_path):
    with pytest.raises(sg.UserError, match=said):
        train.train(sg.train.config.merge(tables(1), given), tmp_path)


def test_labels_are_checked():
    with pytest.raises(sg.UserError, match="no labels"):
        checked(None, 3)
    with pytest.raises(sg.UserError, match=r"from -1 to 2.*expected 0 to 4"):
        checked(np.array([2, -1]), 5)


# --- what it is for ------------------------------------------------------------------------------

def test_with_few_epochs_of_fine_tuning_pre_training_gives_fewer_errors(tmp_path):
    """The short version: a small net, one seed, and fine-tuning that ends early for both.

    So it shows that fine-tuning starts from better weights, not that it ends with better ones; the
    long test below shows that. Measured: 56 % errors with pre-training and 86 % without.
    """
    test = sg.data.load("mnist-mini")
    x, errors = test.test_images.astype(np.float32) / 255, {}
    for pretrain in (True, False):
        out = tmp_path / str(pretrain)
        train.train({
            "run": {"model": "sdae", "seed": 0}, "data": {"limit": 300},
            "train": {"epochs": 24 * pretrain + 40, "lr": 1e-2},
            "model": {"layers": [48] * 3, "levels": [0.25] * 3, "pretrain": pretrain,
                      "pretrain_epochs": 8, "patience": 40}}, out)
        errors[pretrain] = np.mean(train.load(out).predict(x) != test.test_labels)
    assert errors[True] < errors[False] - 0.1


@pytest.mark.long
def test_pre_training_beats_none_where_labels_are_few(tmp_path):
    """500 labels and 100 to stop by, the same net, first weights and epochs of fine-tuning.

    Both reach the end of what the labels teach: the errors that remain on the training images say
    that neither was merely stopped too soon. Errors are of all 2,000 test images. A single seed
    may lose; over these six the gain was 2.3 points with a standard error of 0.9.
    """
    test = sg.data.load("mnist-mini")
    x, labels = test.test_images.astype(np.float32) / 255, test.test_labels
    errors, left = {True: [], False: []}, []
    for seed in range(6):
        for pretrain in (True, False):
            out = tmp_path / f"{seed}-{pretrain}"
            summary = train.train({
                "run": {"model": "sdae", "seed": seed}, "data": {"limit": 600},
                "train": {"epochs": 30 * pretrain + 40},
                "model": {"layers": [200] * 3, "levels": [0.25] * 3, "pretrain": pretrain,
                          "pretrain_epochs": 10, "patience": 40}}, out)
            errors[pretrain].append(np.mean(train.load(out).predict(x) != labels))
            left.append(summary.metrics["train_error"])
    gains = np.subtract(errors[False], errors[True])
    assert max(left) < 0.05
    assert gains.mean() > 0.005, (errors, left)
