"""The denoising autoencoder's other forms: deep, convolutional, linear, of points."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, optim, train
from scratchgen.data import density_named

FORMS = {  # (item shape, configuration)
    "deep": ((4, 3, 2), {"layers": [6, 5], "hidden": 3}),
    "deep tanh": ((4, 3, 2), {"layers": [6], "hidden": 7, "activation": "tanh", "loss": "mse"}),
    "linear": ((4, 3, 2), {"hidden": 3, "activation": "linear", "output": "linear",
                           "loss": "mse"}),
    "linear tied": ((4, 3, 2), {"hidden": 3, "activation": "linear", "output": "linear",
                                "loss": "mse", "tied": True}),
    "conv": ((8, 12, 2), {"arch": "conv", "hidden": 5}),
    "conv, odd sizes": ((5, 7, 3), {"arch": "conv", "hidden": 4, "activation": "linear",
                                    "loss": "mse"}),
    "points": ((2,), {"layers": [7, 6], "hidden": 5, "activation": "relu", "output": "linear",
                      "loss": "mse", "corruption": "gaussian", "level": 0.4}),
    "numbers": ((1,), {"hidden": 5, "activation": "tanh", "output": "linear", "loss": "mse",
                       "corruption": "gaussian", "level": 0.4}),
}


def made(form, dtype=np.float64, seed=0, **more):
    shape, config = FORMS[form]
    return models.DAE(models.DAE.Config(**{**config, **more}), shape, seed, dtype)


def items(model, n=5, seed=0):
    x = np.random.default_rng(seed).uniform(size=(n, *model.image_shape))
    return x if len(model.image_shape) == 3 else 4 * x - 2


@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_hand_equal_the_tape(backend, form):
    model = made(form)
    inputs = model.draw(items(model), sg.Streams(1))
    terms = model.loss(*inputs)
    terms["loss"].backward()
    explicit_terms, explicit = model.explicit_gradients(*inputs)
    parameters = model.named_parameters()
    assert set(parameters) == set(explicit)
    for name, p in parameters.items():
        np.testing.assert_allclose(explicit[name], p.grad.data, rtol=1e-10, atol=1e-13,
                                   err_msg=name)
        assert p.grad.data.any(), name
    np.testing.assert_allclose(explicit_terms["loss"], terms["loss"].item(), rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_both_gradients_train_alike_and_the_loss_falls(form):
    trained = []
    for gradient in ("tape", "explicit"):
        model, streams = made(form), sg.Streams(2)
        optimisers = {"model": optim.make("adam", model, 1e-2)}
        before = model.evaluate(items(model, 20), sg.Streams(3))["loss"]
        for _ in range(60):
            model.training_step(items(model, 20), streams, optimisers, gradient)
        assert model.evaluate(items(model, 20), sg.Streams(3))["loss"] < 0.995 * before
        trained.append(model.state_dict())
    for name, array in trained[0].items():
        np.testing.assert_allclose(trained[1][name], array, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_the_two_halves(form):
    model = made(form, np.float32)
    x = items(model).astype(np.float32)
    codes = model.encode(x)
    assert codes.shape == (5, model.config.hidden)
    assert np.array_equal(model.reconstruct(x), model.decode(codes))
    a, b, c = model.sample(6, seed=1), model.sample(6, seed=1), model.sample(6, seed=2)
    assert a.shape == (6, *model.image_shape) and a.dtype == np.float32
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    if len(model.image_shape) == 3:
        assert a.min() >= 0 and a.max() <= 1


@pytest.mark.parametrize("height, width", [(4, 4), (5, 6), (7, 9), (11, 8), (28, 28)])
def test_convolutions_give_back_any_size(height, width):
    model = models.DAE(models.DAE.Config(arch="conv", hidden=3), (height, width, 3))
    x = np.zeros((2, height, width, 3), np.float32)
    assert model.reconstruct(x).shape == x.shape


def test_the_codes_of_a_wide_convolution_have_the_documented_shapes():
    model = models.DAE(models.DAE.Config(arch="conv", hidden=20), (28, 28, 1))
    shapes = {name: p.shape for name, p in model.encoder.named_parameters().items()}
    assert [shapes[f"layers.{i}.w"] for i in (1, 3, 6)] == [(4, 4, 1, 32), (4, 4, 32, 64),
                                                            (3136, 20)]


def test_denoising_a_gaussian_in_closed_form():
    """Trained on N(0, 2²) with noise of std 1, a linear DAE finds the Wiener filter 4/(4 + 1)."""
    model = models.DAE(models.DAE.Config(
        hidden=1, activation="linear", output="linear", loss="mse", corruption="gaussian",
        level=1.0), (1,), dtype=np.float64)
    x = 2 * np.random.default_rng(0).normal(size=(5000, 1))
    optimisers, streams = {"model": optim.make("adam", model, 1e-2)}, sg.Streams(0)
    for _ in range(400):
        model.training_step(x, streams, optimisers)
    slope = float(model.encoder.w.data[0, 0] * model.decoder.w.data[0, 0])
    assert slope == pytest.approx(4 / 5, abs=0.02)


def test_the_residual_of_a_dae_of_points_follows_the_score(tmp_path):
    """y − x̃ ≈ std² ∇ ln p_std(x̃): the direction to where the data are."""
    train.train({"run": {"model": "dae", "preset": "points"}, "data": {"limit": 2000},
                 "train": {"epochs": 15}}, tmp_path)
    model, ring = train.load(tmp_path), density_named("ring")
    noisy = ring.smoothed(0.3).sample(2000, sg.Stream(5, "noisy"))
    residual = model.reconstruct(noisy.astype(np.float32)) - noisy
    score = 0.3**2 * ring.smoothed(0.3).score(noisy)
    cosine = np.sum(residual * score) / np.linalg.norm(residual) / np.linalg.norm(score)
    assert cosine > 0.9


def test_the_conv_preset_learns_more_than_the_mean_image(tmp_path):
    """The plateau at which a sigmoid code stays: the best that one answer to all images can do."""
    summary = train.train({"run": {"model": "dae", "preset": "conv"}, "data": {"limit": 1500},
                           "train": {"epochs": 4, "batch_size": 50}}, tmp_path)
    x = sg.data.load("mnist-mini", limit=1500).test_images.reshape(1500, -1) / 255
    p = np.clip(x.mean(axis=0), 1e-9, 1 - 1e-9)
    plateau = -np.mean(np.sum(x * np.log(p) + (1 - x) * np.log(1 - p), axis=1))
    assert summary.metrics["test_loss"] < plateau - 40


@pytest.mark.parametrize("config, said", [
    ({"tied": True, "layers": [3]}, "tied weights are for one dense hidden layer"),
    ({"tied": True, "arch": "conv"}, "tied weights are for one dense hidden layer"),
    ({"output": "linear"}, 'loss = "mse"'),
])
def test_configurations_that_contradict_themselves(config, said):
    with pytest.raises(sg.UserError, match=said):
        models.DAE.Config(**config)


def test_data_that_do_not_fit():
    with pytest.raises(sg.UserError, match="--preset points"):
        models.DAE(models.DAE.Config(), (2,)).draw(np.array([[0.5, 1.5]]), sg.Streams(0))
    with pytest.raises(sg.UserError, match="at least 4 by 4"):
        models.DAE(models.DAE.Config(arch="conv"), (3, 9, 1))
    with pytest.raises(sg.UserError, match='arch = "mlp"'):
        models.DAE(models.DAE.Config(arch="conv"), (2,))
