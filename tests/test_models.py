"""The three models: hand-written gradients against the tape, the losses' known values, training."""

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, nn, optim
from scratchgen.engine.memory import buffers
from scratchgen.models import MODELS

SHAPE = (4, 3, 2)                        # an image; every dimension different


def images(n=5, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *SHAPE))


def same(model, terms, explicit_terms, explicit):
    """Every parameter's gradient and every term, tape against hand, at rtol 1e-10."""
    parameters = model.named_parameters()
    assert set(parameters) == set(explicit)
    for name, p in parameters.items():
        np.testing.assert_allclose(explicit[name], p.grad.data, rtol=1e-10, atol=1e-14,
                                   err_msg=name)
    assert any(p.grad.data.any() for p in parameters.values())
    for name, value in terms.items():
        np.testing.assert_allclose(explicit_terms[name], float(value), rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("n, hidden", [(5, 7), (1, 2), (11, 30)])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("activation", nn.Activation.NAMES)
def test_dae_gradients_by_hand_equal_the_tape(backend, n, hidden, tied, loss, activation):
    config = models.DAE.Config(hidden=hidden, tied=tied, loss=loss, activation=activation)
    model = models.DAE(config, SHAPE, dtype=np.float64)
    inputs = model.draw(images(n), sg.Streams(1))
    terms = model.loss(*inputs)
    terms["loss"].backward()
    same(model, terms, *model.explicit_gradients(*inputs))


@pytest.mark.parametrize("n, hidden, latent", [(5, 7, 3), (1, 2, 1), (11, 30, 13)])
@pytest.mark.parametrize("activation", nn.Activation.NAMES)
def test_vae_gradients_by_hand_equal_the_tape(backend, n, hidden, latent, activation):
    config = models.VAE.Config(hidden=hidden, latent=latent, activation=activation, beta=0.7)
    model = models.VAE(config, SHAPE, dtype=np.float64)
    inputs = model.draw(images(n), sg.Streams(1))
    terms = model.loss(*inputs)
    terms["loss"].backward()
    same(model, terms, *model.explicit_gradients(*inputs))


@pytest.mark.parametrize("n, latent, generator, discriminator",
                         [(5, 3, [6, 8], [9, 4]), (1, 2, [7], [3]), (11, 10, [5, 6, 7], [13])])
@pytest.mark.parametrize("loss", ["minimax", "non-saturating"])
def test_gan_gradients_by_hand_equal_the_tape(backend, n, latent, generator, discriminator, loss):
    config = models.GAN.Config(latent=latent, generator=generator, discriminator=discriminator,
                               loss=loss)
    model = models.GAN(config, SHAPE, dtype=np.float64)
    x, z = model.real(images(n)), model.noise(n, sg.Stream(1, "z"))
    d_terms, g_terms = model.discriminator_loss(x, z), model.generator_loss(z)
    d_terms["loss"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    g_terms["g_loss"].backward()
    same(model, {**d_terms, **g_terms}, *model.explicit_gradients(x, z))


def gradients_of(kind):
    """A small model's loss as a function of its parameters, for the finite-difference check."""
    if kind == "gan":
        model = models.GAN(models.GAN.Config(latent=2, generator=[4], discriminator=[3]), SHAPE,
                           dtype=np.float64)
        x, z = model.real(images()), model.noise(5, sg.Stream(1, "z"))
        return model, lambda: (model.discriminator_loss(x, z)["loss"]
                               + model.generator_loss(z)["g_loss"])
    config = models.MODELS[kind].Config(hidden=5)
    model = models.MODELS[kind](config, SHAPE, dtype=np.float64)
    inputs = model.draw(images(), sg.Streams(1))
    return model, lambda: model.loss(*inputs)["loss"]


@pytest.mark.parametrize("kind", ["dae", "vae"])
def test_loss_gradients_equal_finite_differences(backend, kind):
    model, loss = gradients_of(kind)
    loss().backward()
    rng = np.random.default_rng(3)
    for name, p in model.named_parameters().items():
        direction = rng.normal(size=p.shape)
        slope = float(np.sum(p.grad.data * direction))
        p.data += 1e-5 * direction
        above = loss().item()
        p.data -= 2e-5 * direction
        below = loss().item()
        p.data += 1e-5 * direction
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6, atol=1e-8,
                                   err_msg=name)


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_gan_loss_gradients_equal_finite_differences(backend, player):
    model = models.GAN(models.GAN.Config(latent=2, generator=[4], discriminator=[3]), SHAPE,
                       dtype=np.float64)
    x, z = model.real(images()), model.noise(5, sg.Stream(1, "z"))
    loss = ((lambda: model.discriminator_loss(x, z)["loss"]) if player == "discriminator"
            else (lambda: model.generator_loss(z)["g_loss"]))
    loss().backward()
    rng = np.random.default_rng(3)
    for name, p in getattr(model, player).named_parameters().items():
        direction = rng.normal(size=p.shape)
        slope = float(np.sum(p.grad.data * direction))
        p.data += 1e-6 * direction
        above = loss().item()
        p.data -= 2e-6 * direction
        below = loss().item()
        p.data += 1e-6 * direction
        np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-6, atol=1e-8,
                                   err_msg=name)


# --- known values --------------------------------------------------------------------------------

def test_gan_losses_of_an_undecided_discriminator():
    model = models.GAN(models.GAN.Config(latent=2, generator=[4], discriminator=[3]), SHAPE)
    for p in model.discriminator.parameters():
        p.data[...] = 0
    x, z = model.real(images()), model.noise(5, sg.Stream(1, "z"))
    terms = model.discriminator_loss(x, z)
    assert terms["loss"].item() == pytest.approx(np.log(4), rel=1e-6)      # −V = ln 4 at D = ½
    assert terms["d_real"] == terms["d_fake"] == 0.5
    assert model.generator_loss(z)["g_loss"].item() == pytest.approx(np.log(2), rel=1e-6)
    model.config.loss = "minimax"
    assert model.generator_loss(z)["g_loss"].item() == pytest.approx(-np.log(2), rel=1e-6)


def test_collapsed_vae_has_no_kl_and_the_entropy_of_its_bias():
    model = models.VAE(models.VAE.Config(hidden=3, latent=2), SHAPE, dtype=np.float64)
    for name, p in model.named_parameters().items():
        if name != "decoder.b":
            p.data[...] = 0
    x = images(50)
    mean = x.mean(axis=0).reshape(-1)
    model.decoder.b.data[...] = np.log(mean / (1 - mean))
    terms = model.loss(*model.draw(x, sg.Streams(0)))
    assert terms["kl"].item() == 0
    entropy = -np.sum(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    assert terms["loss"].item() == pytest.approx(entropy, rel=1e-12)


def test_dae_target_is_the_clean_image():
    """With every pixel zeroed the best reconstruction is σ(bias), compared with the clean image."""
    model = models.DAE(models.DAE.Config(hidden=3, level=1.0), SHAPE, dtype=np.float64)
    (pair,) = model.draw(images(), sg.Streams(0))
    assert not pair.noisy.any()
    model.decoder.w.data[...] = 0
    expected = -np.log(0.5) * model.pixels                                 # logits are all 0
    assert model.loss(pair)["loss"].item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(AttributeError):
        model.loss(pair.noisy)                                             # an array is no pair


# --- training ------------------------------------------------------------------------------------

SMALL = {"dae": {"hidden": 6}, "vae": {"hidden": 6, "latent": 2},
         "gan": {"latent": 3, "generator": [5], "discriminator": [7], "d_steps": 2, "g_steps": 2}}


def trained(kind, gradient="tape", steps=6, dtype=np.float64, backend="numba"):
    with sg.use_backend(backend):
        model = models.MODELS[kind](models.MODELS[kind].Config(**SMALL[kind]), SHAPE, dtype=dtype)
        optimisers = {name: optim.make("adam", network, 1e-2)
                      for name, network in model.networks().items()}
        streams = sg.Streams(5)
        history = [model.training_step(images(seed=s), streams, optimisers, gradient)
                   for s in range(steps)]
    return model, history


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_training_by_hand_equals_training_by_tape(kind):
    by_tape, tape_history = trained(kind)
    by_hand, hand_history = trained(kind, "explicit")
    for name, array in by_tape.state_dict().items():
        np.testing.assert_allclose(by_hand.state_dict()[name], array, rtol=1e-8, err_msg=name)
    assert [sorted(terms) for terms in tape_history] == [sorted(terms) for terms in hand_history]


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_training_on_both_backends_agrees(kind):
    on_numpy, on_numba = trained(kind, backend="numpy")[0], trained(kind, backend="numba")[0]
    for name, array in on_numpy.state_dict().items():
        np.testing.assert_allclose(on_numba.state_dict()[name], array, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_training_is_the_same_bits_again(kind):
    first, second = trained(kind, dtype=np.float32)[0], trained(kind, dtype=np.float32)[0]
    for name, array in first.state_dict().items():
        assert array.dtype == np.float32
        assert np.array_equal(array, second.state_dict()[name])


@pytest.mark.parametrize("kind", ["dae", "vae", "gan"])
def test_a_step_allocates_no_arrays_for_results_after_the_first_three(kind):
    """Arrays of 16 KB or more for results of kernels come from the pool of buffers."""
    model = MODELS[kind](MODELS[kind].Config(), (28, 28, 1))
    optimisers = {name: optim.Adam(network, 1e-3) for name, network in model.networks().items()}
    streams, x = sg.Streams(0), np.full((100, 28, 28, 1), 0.25, np.float32)
    counts = []
    for _ in range(6):
        model.training_step(x, streams, optimisers)
        counts.append(buffers.made)
    assert counts[0] > 0 and counts[2:] == [counts[2]] * 4


@pytest.mark.parametrize("kind", ["dae", "vae"])
def test_training_approaches_the_entropy_of_grey_images(kind):
    """Two images, again and again: the loss falls towards Σ H(x), below which no BCE can be."""
    model, _ = trained(kind, steps=0)
    x = images(2)
    optimisers, streams = {"model": optim.make("adam", model, 0.03)}, sg.Streams(1)
    history = [model.training_step(x, streams, optimisers)["loss"] for _ in range(300)]
    floor = -np.sum(x * np.log(x) + (1 - x) * np.log(1 - x)) / 2
    assert history[0] > floor + 4
    assert floor < np.mean(history[-20:]) < floor + 2


def test_gan_schedule_counts_the_turns():
    model, history = trained("gan", steps=6)
    assert all(set(terms) == {"loss", "d_real", "d_fake", "g_loss"} for terms in history)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_samples_are_images_and_reproducible(kind):
    model, _ = trained(kind, steps=1, dtype=np.float32)
    a, b, c = model.sample(7, seed=1), model.sample(7, seed=1), model.sample(7, seed=2)
    assert a.shape == (7, *SHAPE) and a.dtype == np.float32
    assert a.min() >= 0 and a.max() <= 1
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize("kind", ["dae", "vae"])
def test_encode_decode_reconstruct(kind):
    model, _ = trained(kind, steps=1, dtype=np.float32)
    x = images().astype(np.float32)
    codes = model.encode(x)
    assert codes.shape == (5, {"dae": 6, "vae": 2}[kind])
    assert np.array_equal(model.reconstruct(x), model.decode(codes))
    assert model.reconstruct(x).shape == x.shape


def test_images_of_another_shape_are_refused():
    model = models.VAE(models.VAE.Config(hidden=3), SHAPE)
    with pytest.raises(sg.UserError, match=r"\(5, 5, 1\).*\(4, 3, 2\)"):
        model.encode(np.zeros((2, 5, 5, 1), np.float32))
