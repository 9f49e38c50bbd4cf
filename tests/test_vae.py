"""The VAE in all its forms: gradients by hand, the equation term by term, bounds in their order."""

import itertools
import json
import math

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import optim
from scratchgen.models import VAE, by_hand, vae
from scratchgen.models.vae import by_hand as vae_by_hand
from scratchgen.models.vae import derivation
from scratchgen.models.vae.likelihood import DECODERS, Bernoulli, Gaussian
from scratchgen.train import config

SHAPE = (5, 4, 3)                        # an image; every dimension different, one of them odd


def images(n=7, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *shape))


def model_of(shape=SHAPE, seed=0, **settings):
    """A small float64 VAE whose biases are not zero: a forgotten one shall show."""
    settings = {"hidden": [6], "latent": 2, **settings}
    model = VAE(VAE.Config(**settings), shape, seed, np.float64)
    rng = np.random.default_rng(seed + 1)
    for p in model.parameters():
        p.data += 0.1 * rng.normal(size=p.shape)
    return model


def tape(model, x, eps):
    terms = model.loss(x, eps)
    terms["loss"].backward()
    return terms, {name: p.grad.data for name, p in model.named_parameters().items()}


def assert_equal_gradients(found, expected):
    (terms, gradients), (tape_terms, tape_gradients) = found, expected
    assert gradients.keys() == tape_gradients.keys() and terms.keys() == tape_terms.keys()
    for name, gradient in tape_gradients.items():
        assert gradients[name].shape == gradient.shape, name
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-10, atol=1e-13, err_msg=name)
    for name, value in tape_terms.items():
        np.testing.assert_allclose(terms[name], float(value), rtol=1e-10, err_msg=name)


# --- gradients -----------------------------------------------------------------------------------

FORMS = {
    "deep": {"hidden": [8, 5], "latent": 3},
    "linear": {"arch": "linear", "latent": 3},
    "linear learned": {"arch": "linear", "decoder": "learned-variance", "std": 0.7},
    "conv": {"arch": "conv", "channels": [3, 5]},
    "conv one layer": {"arch": "conv", "channels": [4], "activation": "softplus"},
    "gaussian": {"decoder": "gaussian", "std": 0.6},
    "learned": {"decoder": "learned-variance", "std": 0.3, "beta": 1.7},
    "conv learned": {"arch": "conv", "channels": [3, 2], "decoder": "learned-variance"},
    "samples": {"samples": 4},
    "samples learned": {"samples": 3, "decoder": "learned-variance", "hidden": [7, 4]},
    "warm-up": {"warmup": 5, "beta": 2.0},
    "free bits": {"free_bits": 0.15, "latent": 5},
    "free bits, all of them": {"free_bits": 50.0},
    "free bits, samples": {"free_bits": 0.15, "latent": 6, "samples": 2, "warmup": 4},
    "iwae 1": {"objective": "iwae"},
    "iwae 5": {"objective": "iwae", "samples": 5, "hidden": [8, 5], "latent": 3},
    "iwae warm-up": {"objective": "iwae", "samples": 3, "warmup": 5, "beta": 0.9},
    "iwae learned": {"objective": "iwae", "samples": 4, "decoder": "learned-variance"},
    "iwae linear": {"objective": "iwae", "samples": 3, "arch": "linear", "decoder": "gaussian"},
    "iwae conv": {"objective": "iwae", "samples": 2, "arch": "conv", "channels": [2, 3]},
}


def prepared(form, n=7):
    model = model_of(**FORMS[form])
    model.epoch = 2
    return model, model.draw(images(n), sg.Streams(1))


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_hand_equal_the_tape(backend, form, n):
    model, inputs = prepared(form, n)
    assert_equal_gradients(model.explicit_gradients(*inputs), tape(model, *inputs))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form):
    model, inputs = prepared(form)
    _, gradients = tape(model, *inputs)
    rng = np.random.default_rng(3)
    for name, p in model.named_parameters().items():
        direction, values = rng.normal(size=p.shape), []
        for step in (1e-5, -2e-5, 1e-5):
            p.data += step * direction
            values.append(model.loss(*inputs)["loss"].item())
        slope = np.sum(gradients[name] * direction)
        np.testing.assert_allclose(slope, (values[0] - values[1]) / 2e-5, rtol=1e-6, atol=1e-7,
                                   err_msg=name)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_one_hidden_layer_equals_the_general_form(activation):
    model = model_of(activation=activation, warmup=3)
    model.epoch = 2
    inputs = model.draw(images(), sg.Streams(1))
    assert_equal_gradients(vae_by_hand.gradients(model, *inputs),
                           model.one_hidden_layer_gradients(*inputs))


def test_the_constant_layer_by_hand():
    layer = model_of(arch="linear").logvar
    x, dy = np.ones((3, 4)), np.arange(6.0).reshape(3, 2)
    y, cache = by_hand.forward(layer, x)
    gradients, dx = by_hand.backward(layer, cache, dy)
    assert np.array_equal(y, np.tile(layer.b.data, (3, 1))) and not dx.any() and dx.shape == x.shape
    assert np.array_equal(gradients["b"], [6, 9])


# --- the objective's parts -----------------------------------------------------------------------

def test_warm_up_grows_by_epochs_and_evaluation_has_the_whole_weight():
    model = model_of(beta=3.0, warmup=4)
    weights = []
    for model.epoch in range(7):
        weights.append(model.kl_weight())
    assert weights == [0, 0.75, 1.5, 2.25, 3, 3, 3]
    model.epoch = 0
    terms = model.loss(*model.draw(images(), sg.Streams(1)))
    assert terms["loss"].item() == terms["reconstruction"].item() and terms["kl"].item() > 0.01
    terms = model.evaluate(images(), sg.Streams(1))
    assert terms["loss"] == pytest.approx(terms["reconstruction"] + 3 * terms["kl"], rel=1e-12)


def test_free_bits_charge_each_dimension_at_least_their_price():
    model = model_of(latent=6, free_bits=0.15)
    x, eps = model.draw(images(), sg.Streams(1))
    each = model.kl_per_dimension(images())                         # some below, some above
    assert (each < 0.15).any() and (each > 0.15).any()
    terms = model.loss(x, eps)
    assert terms["kl"].item() == pytest.approx(each.sum(), rel=1e-12)
    charged = terms["loss"].item() - terms["reconstruction"].item()
    assert charged == pytest.approx(np.maximum(each, 0.15).sum(), rel=1e-12)
    evaluated = model.evaluate(images(), sg.Streams(1))
    assert evaluated["loss"] == pytest.approx(evaluated["reconstruction"] + evaluated["kl"])


def test_more_samples_are_the_mean_of_single_ones():
    one, many = model_of(), model_of(samples=4)
    x, eps = many.draw(images(), sg.Streams(1))
    assert eps.shape == (4 * len(x), 2)
    singles = [one.loss(x, part)["loss"].item() for part in np.split(eps, 4)]
    assert many.loss(x, eps)["loss"].item() == pytest.approx(np.mean(singles), rel=1e-12)


@pytest.mark.parametrize("decoder", DECODERS)
def test_iwae_bound_from_its_definition(decoder):
    model = model_of(objective="iwae", samples=3, decoder=decoder)
    x, eps = model.draw(images(), sg.Streams(1))
    mean, logvar = model.posterior(images())
    log_w = []
    for e in np.split(eps, 3):
        z = mean + np.exp(logvar / 2) * e
        log_p, _, _ = model.likelihood.log_p_and_gradients(x, model.output(sg.tensor(z)).data)
        prior = -0.5 * np.sum(z**2 + math.log(2 * math.pi), axis=1)
        q = -0.5 * np.sum((z - mean)**2 / np.exp(logvar) + logvar + math.log(2 * math.pi), axis=1)
        log_w.append(log_p + prior - q)
    expected = -np.mean(np.logaddexp.reduce(log_w, axis=0) - math.log(3))
    assert model.loss(x, eps)["loss"].item() == pytest.approx(expected, rel=1e-12)


def test_bernoulli_is_a_distribution():
    every = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
    output = np.tile(np.random.default_rng(0).normal(size=5) * 3, (32, 1))
    for log_p in (Bernoulli().log_p(every, sg.tensor(output)).data,
                  Bernoulli().log_p_and_gradients(every, output)[0]):
        assert np.exp(log_p).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("std", [0.1, 2.0])
def test_gaussian_is_a_density(std):
    likelihood = Gaussian(std, dtype=np.float64)
    axis = np.linspace(-20, 20, 1001) * std
    x = np.stack([a.ravel() for a in np.meshgrid(axis, axis)], axis=1)
    output = np.tile([0.3 * std, -1.1 * std], (len(x), 1))
    for log_p in (likelihood.log_p(x, sg.tensor(output)).data,
                  likelihood.log_p_and_gradients(x, output)[0]):
        assert np.exp(log_p).sum() * (axis[1] - axis[0])**2 == pytest.approx(1, rel=1e-10)


def test_learned_variance_rests_at_the_mean_squared_error():
    likelihood = Gaussian(0.5, learned=True, dtype=np.float64)
    rng = np.random.default_rng(0)
    x, output = rng.normal(size=(2, 9, 4))
    likelihood.logvar.data[...] = np.log(np.mean((x - output)**2))
    likelihood.negative_log_likelihood(x, sg.tensor(output)).backward()
    assert abs(likelihood.logvar.grad.data[0]) < 1e-13
    assert "likelihood.logvar" in model_of(decoder="learned-variance").named_parameters()
    fixed = model_of(decoder="gaussian")
    assert "likelihood.logvar" not in fixed.named_parameters()
    assert not fixed.named_buffers()


# --- the lecture's equation ----------------------------------------------------------------------

def terms_add_up(terms, atol):
    right = terms["expected_log_likelihood"] - terms["kl_prior"] + terms["kl_posterior"]
    np.testing.assert_allclose(terms["log_p"], right, rtol=0, atol=atol)
    assert (terms["kl_posterior"] > 0).all()


@pytest.mark.parametrize("latent", [1, 2, 5])
@pytest.mark.parametrize("decoder", ["gaussian", "learned-variance"])
def test_the_equation_in_closed_form(decoder, latent):
    model = model_of(shape=(6,), arch="linear", latent=latent, decoder=decoder, std=0.8)
    x = 3 * np.random.default_rng(2).normal(size=(9, 6))
    terms = model.derivation(x)
    terms_add_up(terms, 1e-10)
    assert np.ptp(terms["kl_posterior"]) > 1
    if latent <= 2:                      # the other way, by integration
        for name, values in derivation.quadrature(model, x).items():
            np.testing.assert_allclose(values, terms[name], rtol=1e-10, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("latent, settings, shape, atol", [
    (1, {}, SHAPE, 1e-10), (2, {}, (3, 2, 1), 1e-10),
    (1, {"decoder": "gaussian", "std": 0.5}, (3,), 1e-10),
    (2, {"decoder": "learned-variance", "std": 0.7}, (4,), 1e-10),
    (1, {"arch": "linear"}, (3, 2, 1), 1e-10),
    (2, {"arch": "conv", "channels": [2]}, (4, 3, 1), 1e-10)])
def test_the_equation_by_quadrature(latent, settings, shape, atol):
    model = model_of(shape, latent=latent, **settings)
    for p in model.parameters():
        p.data *= 1.5                    # a posterior that is no Gaussian
    terms_add_up(model.derivation(images(4, shape)), atol)


@pytest.mark.parametrize("latent", [1, 2])
def test_probabilities_of_all_binary_images_sum_to_one(latent):
    model = model_of((3, 2, 1), latent=latent, hidden=[5])
    for p in model.parameters():
        p.data *= 2
    every = np.array(list(itertools.product([0.0, 1.0], repeat=6))).reshape(-1, 3, 2, 1)
    log_p = np.concatenate([model.derivation(x)["log_p"] for x in np.split(every, 8)])
    assert np.exp(log_p).sum() == pytest.approx(1, rel=1e-9)


def test_the_elbo_is_the_first_two_terms():
    """With 20,000 samples the loss's terms are the equation's, within five standard errors."""
    model = model_of(latent=1, samples=20_000)
    x = images(2)
    exact, (rows, eps) = model.derivation(x), model.draw(x, sg.Streams(3))
    terms = model.loss(rows, eps)
    assert terms["kl"].item() == pytest.approx(exact["kl_prior"].mean(), rel=1e-12)
    assert terms["reconstruction"].item() == pytest.approx(
        -exact["expected_log_likelihood"].mean(), abs=0.02)


@pytest.mark.parametrize("settings", [
    {"latent": 1}, {"latent": 2, "shape": (3, 2, 1)},
    {"latent": 2, "decoder": "gaussian", "std": 0.5, "shape": (3, 2, 1)},
    {"latent": 4, "arch": "linear", "decoder": "gaussian", "std": 0.8, "shape": (6,)}])
def test_bounds_in_their_order(settings):
    """ELBO ≤ L_2 ≤ L_10 ≤ L_100 ≤ ln p, each gap beyond the Monte Carlo error of the means."""
    model = model_of(**settings)
    for p in model.parameters():
        p.data *= 1.5
    x = images(2, model.image_shape)
    exact = model.derivation(x)
    elbo = exact["expected_log_likelihood"] - exact["kl_prior"]
    copies = np.repeat(x, 2000, axis=0)
    bounds = [model.log_likelihood(copies, k, seed=k).reshape(2, -1) for k in (1, 2, 10, 100)]
    means = np.array([b.mean(axis=1) for b in bounds])
    errors = np.array([b.std(axis=1) for b in bounds]) / math.sqrt(2000)
    assert (np.abs(means[0] - elbo) < 5 * errors[0]).all()
    assert (np.diff(means, axis=0) > 0).all()
    assert (means[-1] < exact["log_p"] + 5 * errors[-1]).all()
    assert (exact["log_p"] - means[-1]).sum() < (exact["log_p"] - elbo).sum() / 2


# --- a model whose every number is known ---------------------------------------------------------

def one_dimensional(**settings):
    """p(z) = N(0, 1), p(x|z) = N(z, 1) and the wrong q = N(x/2, 2/3); the right one is N(x/2, ½).
    """
    model = model_of((1,), arch="linear", latent=1, decoder="gaussian", std=1.0, **settings)
    for p, value in ((model.mean.w, 0.5), (model.mean.b, 0), (model.logvar.b, math.log(2 / 3)),
                     (model.decoder.w, 1), (model.decoder.b, 0)):
        p.data[...] = value
    return model


def test_one_dimensional_gaps():
    """At x = 1.5: ln p = −1.82801, gap .022826 at K = 1, then about χ²/(2K), χ² = .032796.

    The mean of u = e^(L_K − ln p) − 1 is 0, for the mean weight is p(x) without bias. Adding u
    takes nearly all noise from L_K, as ln(1 + u) − u ≈ −u²/2.
    """
    model = one_dimensional()
    exact = model.derivation(np.array([[1.5]]))
    assert exact["log_p"][0] == pytest.approx(-1.82801, abs=5e-6)
    assert exact["kl_posterior"][0] == pytest.approx(0.022826, abs=5e-7)
    x = np.full((100_000, 1), 1.5)
    for k, low, high in ((1, 0.022826, 0.022826), (5, 0.0033, 0.0035), (50, 0.00033, 0.0004)):
        below = model.log_likelihood(x[:len(x) // k], k, seed=4) - exact["log_p"]
        u = np.expm1(below)
        count = math.sqrt(len(u))
        assert abs(u.mean()) < 4 * u.std() / count
        gap, error = np.mean(u - below), np.std(u - below) / count
        assert low - 4 * error < gap < high + 4 * error and error < high / 30, k


def test_the_iwae_objective_has_the_same_gaps():
    x = np.full((100_000, 1), 1.5)
    losses = []
    for k, gap in ((1, 0.022826), (5, 0.0034)):
        terms = one_dimensional(objective="iwae", samples=k).evaluate(x, sg.Streams(1))
        assert terms["loss"] == pytest.approx(1.82801 + gap, abs=0.003)      # four standard errors
        losses.append(terms["loss"])
    assert losses[1] < losses[0] - 0.015


def test_with_the_true_posterior_every_bound_is_exact():
    """Then all weights are p(x): L_k = ln p(x) for every k, and the sign is no matter of taste."""
    model = one_dimensional()
    model.logvar.b.data[...] = math.log(0.5)
    x = np.array([[-2.0], [0.3], [1.5]])
    exact = model.derivation(x)
    np.testing.assert_allclose(exact["kl_posterior"], 0, atol=1e-14)
    expected = -0.5 * (math.log(4 * math.pi) + x[:, 0]**2 / 2)      # N(0, 2)
    np.testing.assert_allclose(exact["log_p"], expected, rtol=1e-12)
    for k in (1, 7, 100):
        np.testing.assert_allclose(model.log_likelihood(x, k), expected, rtol=1e-12)


def test_linear_vae_at_the_principal_subspace():
    """Lucas et al. 2019: at R = I the ELBO is the pPCA likelihood; rotated, smaller by a known gap.
    """
    d, q, rng = 6, 3, np.random.default_rng(5)
    x = rng.normal(size=(400, d)) @ np.diag([3, 2, 1.5, 1, 0.7, 0.4]) @ rng.normal(size=(d, d))
    x -= x.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = values[q:].mean()
    best = -(d * math.log(2 * math.pi) + np.log(values[:q]).sum() + (d - q) * math.log(variance)
             + d) / 2
    model = model_of((d,), arch="linear", latent=q, decoder="gaussian", std=math.sqrt(variance))
    rotation = np.linalg.qr(rng.normal(size=(q, q)))[0]
    for R, gap in ((np.eye(q), 0), (rotation, None)):
        W = vectors[:, :q] @ np.diag(np.sqrt(values[:q] - variance)) @ R
        M = W.T @ W + variance * np.eye(q)
        if gap is None:
            gap = (np.log(np.diag(M / variance)).sum() - np.linalg.slogdet(M / variance)[1]) / 2
            assert gap > 0.1
        model.decoder.w.data[...], model.decoder.b.data[...] = W.T, 0
        model.mean.w.data[...], model.mean.b.data[...] = np.linalg.solve(M, W.T).T, 0
        model.logvar.b.data[...] = np.log(variance / np.diag(M))    # the best factorial q
        terms = model.derivation(x)
        terms_add_up({**terms, "kl_posterior": np.maximum(terms["kl_posterior"], 1e-300)}, 1e-10)
        assert terms["log_p"].mean() == pytest.approx(best, rel=1e-12)
        elbo = np.mean(terms["expected_log_likelihood"] - terms["kl_prior"])
        assert elbo == pytest.approx(best - gap, abs=1e-10)


# --- log_likelihood ------------------------------------------------------------------------------

@pytest.mark.parametrize("k", [1, 3, 100])
def test_log_likelihood_uses_exactly_k_samples(monkeypatch, k):
    drawn = []
    normal = sg.Stream.normal

    def noted(self, shape, dtype):
        drawn.append(shape)
        return normal(self, shape, dtype)

    model = model_of()
    monkeypatch.setattr(sg.Stream, "normal", noted)
    monkeypatch.setattr(vae.model, "ROWS_AT_ONCE", 40)              # five samples of eight images
    found = model.log_likelihood(images(8), k)
    assert sum(shape[0] for shape in drawn) == k * 8 and max(s[0] for s in drawn) <= 40
    assert found.shape == (8,) and found.dtype == np.float64 and np.isfinite(found).all()


def test_log_likelihood_is_a_function_of_its_arguments():
    model = model_of()
    x = images(3)
    first = model.log_likelihood(x, 20, seed=1)
    assert np.array_equal(first, model.log_likelihood(x, 20, seed=1))
    assert not np.array_equal(first, model.log_likelihood(x, 20, seed=2))
    with pytest.raises(sg.UserError, match="at least one"):
        model.log_likelihood(x, 0)


def test_weights_beyond_the_range_of_exp():
    """784 pixels, ln w far below −700: the sum is formed from logarithms."""
    model = VAE(VAE.Config(decoder="gaussian", std=0.01), (28, 28, 1))
    found = model.log_likelihood(images(2, (28, 28, 1)), 30)
    assert np.isfinite(found).all() and (found < -10_000).all()


# --- what is logged, and images ------------------------------------------------------------------

def test_extra_metrics():
    model = model_of(latent=3, decoder="learned-variance", std=0.25)
    for p in (model.mean.w, model.mean.b, model.logvar.w, model.logvar.b):
        p.data[:] = 0
    model.mean.w.data[:, 1] = 5
    model.logvar.b.data[...] = [0, -2, 1]
    x = images(40)
    found = json.loads(json.dumps(model.extra_metrics(x, sg.Streams(0))))
    assert found["active_units"] == 1 and found["kl_weight"] == 1
    assert found["std"] == pytest.approx(0.25, rel=0.2)
    each = np.array(found["kl_per_dimension"])
    assert each[0] == 0 and each[2] == pytest.approx((math.e - 2) / 2)
    kl = model.loss(*model.draw(x, sg.Streams(0)))["kl"].item()
    assert each.sum() == pytest.approx(kl, rel=1e-12)


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 9, 3), (5, 4, 2), (4, 31, 1)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_convolutions_give_back_any_size(shape, decoder):
    model = VAE(VAE.Config(arch="conv", channels=[3, 4], latent=2, decoder=decoder), shape)
    x = images(3, shape).astype(np.float32)
    assert model.encode(x).shape == (3, 2) and model.reconstruct(x).shape == x.shape
    samples = model.sample(4, seed=1)
    assert samples.shape == (4, *shape) and samples.dtype == np.float32
    assert samples.min() >= 0 and samples.max() <= 1
    mean, logvar = model.posterior(x)
    assert np.array_equal(mean, model.encode(x)) and logvar.shape == mean.shape


def test_the_convolutional_form_has_the_sizes_it_announces():
    model = VAE(VAE.Config(arch="conv"))
    shapes = {name: p.shape for name, p in model.named_parameters().items()}
    assert shapes["mean.w"] == shapes["logvar.w"] == (3136, 20)
    assert shapes["hidden.layers.0.w"] == (20, 3136)
    assert shapes["encoder.layers.1.w"] == (4, 4, 1, 32)
    assert shapes["encoder.layers.3.w"] == (4, 4, 32, 64)
    assert shapes["hidden.layers.2.w"] == (4, 4, 64, 32)
    assert shapes["decoder.layers.0.w"] == (4, 4, 32, 1)


def test_means_of_points_are_not_clipped():
    model = model_of((2,), decoder="gaussian")
    model.decoder.b.data[...] = [-3, 4]
    z = np.zeros((5, 2))
    assert model.decode(z)[:, 0].max() < -1 and model.decode(z)[:, 1].min() > 2
    assert model.sample(6).shape == (6, 2)
    image = model_of((1, 2, 1), decoder="gaussian")
    image.decoder.b.data[...] = [-3, 4]
    assert np.array_equal(np.unique(image.decode(z)), [0, 1])


# --- settings ------------------------------------------------------------------------------------

@pytest.mark.parametrize("preset", sorted(VAE.presets))
def test_every_preset_makes_a_model(preset):
    resolved = config.resolve({"run": {"model": "vae", "preset": preset}})
    shape = (2,) if preset == "points" else (28, 28, 1)
    model = VAE(config.model_config(resolved), shape)
    optim.make(resolved["train"]["optimizer"], model, resolved["train"]["lr"])
    assert np.isfinite(model.evaluate(images(2, shape).astype(np.float32), sg.Streams(0))["loss"])


@pytest.mark.parametrize("settings, shape, message", [
    ({"objective": "iwae", "free_bits": 0.1}, SHAPE, "free_bits"),
    ({"hidden": []}, SHAPE, "linear"),
    ({"arch": "conv"}, (2,), "H, W, C"),
    ({"arch": "conv"}, (3, 9, 1), "3×9.*at least 4"),
    ({}, (2,), "learned-variance")])
def test_settings_that_do_not_fit_are_refused(settings, shape, message):
    if len(shape) == 1 and "arch" in settings:
        settings = {**settings, "decoder": "gaussian"}
    with pytest.raises(sg.UserError, match=message):
        VAE(VAE.Config(**settings), shape)


def test_derivation_refuses_what_it_cannot_compute():
    with pytest.raises(sg.UserError, match="latent = 1 or 2"):
        model_of(latent=3).derivation(images())
    narrow = model_of((2,), latent=2, decoder="gaussian", std=1e-4)
    with pytest.raises(sg.UserError, match="too narrow"):
        narrow.derivation(images(1, (2,)))


# --- training ------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [
    {"arch": "conv", "channels": [4, 8], "activation": "relu", "init": "pytorch"},
    {"decoder": "learned-variance"}, {"objective": "iwae", "samples": 3},
    {"warmup": 2, "free_bits": 0.1, "samples": 2}])
def test_every_form_trains(settings):
    """On eight images: the bound rises by more than a tenth of a nat a pixel."""
    model = VAE(VAE.Config(**{"hidden": [30], "latent": 3, **settings}), (8, 6, 1))
    model.epoch = 2
    x = (images(8, (8, 6, 1)) > 0.5).astype(np.float32)
    optimisers, streams = {"model": optim.make("adam", model, 0.01)}, sg.Streams(1)
    before = model.evaluate(x, sg.Streams(2))["loss"]
    for _ in range(150):
        model.training_step(x, streams, optimisers)
    after = model.evaluate(x, sg.Streams(2))["loss"]
    assert after < before - 0.1 * model.pixels


@pytest.mark.parametrize("form", ["conv learned", "iwae 5", "free bits, samples"])
def test_training_by_hand_equals_training_by_tape(form):
    states = []
    for gradient in ("tape", "explicit"):
        model = model_of(**FORMS[form])
        model.epoch = 1
        optimisers, streams = {"model": optim.make("adam", model, 1e-2)}, sg.Streams(5)
        for seed in range(4):
            model.training_step(images(seed=seed), streams, optimisers, gradient)
        states.append(model.state_dict())
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=1e-7, err_msg=name)
