"""The GAN in all its forms: hand-written gradients, penalties, what confuses D, and exact answers.

Where the two densities are known, so are the best discriminator, the slope of a critic and the
eigenvalues of the training itself; our own training has to find them. More of these are in
``test_exact.py``.
"""

import math

import numpy as np
import pytest

import scratchgen as sg
from scratchgen import models, nn, optim
from scratchgen.models.by_hand import sigmoid
from scratchgen.models.gan.losses import (
    LOSSES,
    NO_DRAWS,
    UNPERTURBED,
    Draws,
    gradient_penalty,
    r1_penalty,
)
from scratchgen.models.gan.networks import fixed_statistics
from tests.proofs.exact_gans import fitted, on_the_line, quantiles

GAN = models.GAN
IMAGE, POINT = (8, 4, 3), (5,)           # what "conv" takes; every dimension different
MLP = {"latent": 3, "generator": [6, 8], "discriminator": [9, 4]}
CONV = {"arch": "conv", "latent": 2, "channels": 5}
CONFUSED = {"noise": 0.3, "input_dropout": 0.25, "smoothing": 0.1}
UNPENALISED = [(MLP, IMAGE), (MLP, POINT), (CONV, IMAGE), ({**CONV, "init": "dcgan"}, IMAGE)]


def made(options, shape=IMAGE, dtype=np.float64, **more):
    return GAN(GAN.Config(**{**options, **more}), shape, dtype=dtype)


def items(model, n=6, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *model.image_shape)).astype(model.dtype)


def inputs_of(model, n=6, seed=1):
    """(x, z, draws of D's step, confusion of G's step)."""
    streams = sg.Streams(seed)
    return (model.real(items(model, n)), model.noise(n, streams["z"]), model.draw(n, streams),
            model.perturbation(n, streams))


def optimisers(model, lr=1e-2, name="adam", **options):
    return {key: optim.make(name, network, lr, **options)
            for key, network in model.networks().items()}


# --- gradients by hand ---------------------------------------------------------------------------

@pytest.mark.parametrize("confused", [{}, CONFUSED])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options, shape", UNPENALISED)
def test_gradients_by_hand_equal_the_tape(backend, options, shape, loss, confused):
    if loss == "wasserstein":
        confused = {**confused, "smoothing": 0}
    by_tape = made(options, shape, loss=loss, **confused)
    by_hand = made(options, shape, loss=loss, **confused)
    x, z, draws, confusion = inputs_of(by_tape)
    d_terms = by_tape.discriminator_loss(x, z, draws)
    d_terms["loss"].backward()
    assert all(p.grad is None for p in by_tape.generator.parameters())
    before = {n: p.grad.data.copy() for n, p in by_tape.discriminator.named_parameters().items()}
    g_terms = by_tape.generator_loss(z, confusion)
    g_terms["g_loss"].backward()
    for name, p in by_tape.discriminator.named_parameters().items():
        assert np.array_equal(p.grad.data, before[name])               # G's step leaves D alone
    terms, gradients = by_hand.explicit_gradients(x, z, draws, confusion)
    assert set(gradients) == set(by_tape.named_parameters())
    for name, p in by_tape.named_parameters().items():
        np.testing.assert_allclose(gradients[name], p.grad.data, rtol=1e-10, atol=1e-14,
                                   err_msg=name)
        if not (loss == "wasserstein" and p.shape == (1,)):    # a constant in D is worth nothing
            assert p.grad.data.any(), name
    for name, value in {**d_terms, **g_terms}.items():
        np.testing.assert_allclose(terms[name], float(value), rtol=1e-10, err_msg=name)
    for name, buffer in by_tape.named_buffers().items():
        np.testing.assert_allclose(by_hand.named_buffers()[name], buffer, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("penalty", ["gradient", "r1"])
def test_a_penalty_has_no_gradients_by_hand(penalty):
    model = made(MLP, penalty=penalty)
    x, z, draws, _ = inputs_of(model)
    with pytest.raises(sg.UserError, match="first order.*tape"):
        model.explicit_gradients(x, z, draws)


@pytest.mark.parametrize("penalty", ["gradient", "r1"])
@pytest.mark.parametrize("options, shape", [(MLP, POINT), (CONV, IMAGE)])
def test_penalised_gradients_equal_finite_differences(backend, options, shape, penalty):
    """Derivatives of a derivative, through dense, leaky and convolution layers."""
    model = made(options, shape, penalty=penalty, penalty_weight=3.0, loss="wasserstein")
    x, z, draws, _ = inputs_of(model, 4)
    model.discriminator_loss(x, z, draws)["loss"].backward()
    rng = np.random.default_rng(3)
    for name, p in model.discriminator.named_parameters().items():
        direction, h = rng.normal(size=p.shape), 1e-6
        p.data += h * direction
        above = model.discriminator_loss(x, z, draws)["loss"].item()
        p.data -= 2 * h * direction
        below = model.discriminator_loss(x, z, draws)["loss"].item()
        p.data += h * direction
        np.testing.assert_allclose(np.sum(p.grad.data * direction), (above - below) / (2 * h),
                                   rtol=1e-6, atol=1e-7, err_msg=name)


def test_penalties_of_a_linear_discriminator():
    """D(x) = w·x has the slope ‖w‖ everywhere."""
    model = made({"latent": 2, "generator": [], "discriminator": []}, POINT)
    w = np.linalg.norm(model.discriminator[0].w.data)
    x, z, _, _ = inputs_of(model)
    mix = np.random.default_rng(0).uniform(size=(len(x), 1))
    assert r1_penalty(model.discriminator, x).item() == pytest.approx(w**2 / 2, rel=1e-12)
    assert gradient_penalty(model.discriminator, x, -x, mix).item() == pytest.approx(
        (w - 1)**2, rel=1e-9)


# --- what the losses say -------------------------------------------------------------------------

def discriminates(model, w, b):
    """A model with D(x) = w x + b on the line."""
    model.discriminator[0].w.data[...] = w
    model.discriminator[0].b.data[...] = b
    return model


VALUES = {  # of D's and G's losses at the outputs 2 on real, −3 on generated items
    "minimax": (math.log1p(math.exp(-2)) + math.log1p(math.exp(-3)), -math.log1p(math.exp(-3))),
    "non-saturating": (math.log1p(math.exp(-2)) + math.log1p(math.exp(-3)),
                       math.log1p(math.exp(3))),
    "least-squares": (0.5 * (2 - 1)**2 + 0.5 * 9, 0.5 * 16),
    "wasserstein": (-2 - 3, 3)}


@pytest.mark.parametrize("loss", LOSSES)
def test_channels_bear_the_right_names(loss):
    """D is known on both sides: no term may be of the other side, or of another sign."""
    model = discriminates(on_the_line(-3.0, 0.0, loss=loss), 1, 0)
    x, z = np.full((7, 1), 2.0), np.zeros((7, 1))
    answer = sigmoid if loss in ("minimax", "non-saturating") else (lambda logit: logit)
    for terms in ({**model.discriminator_loss(x, z), **model.generator_loss(z)},
                  model.explicit_gradients(x, z)[0], model.evaluate(x, sg.Streams(0))):
        assert float(terms["loss"]) == pytest.approx(VALUES[loss][0], rel=1e-12)
        assert float(terms["g_loss"]) == pytest.approx(VALUES[loss][1], rel=1e-12)
        assert float(terms["d_real"]) == pytest.approx(float(answer(np.float64(2))), rel=1e-12)
        assert float(terms["d_fake"]) == pytest.approx(float(answer(np.float64(-3))), rel=1e-12)


@pytest.mark.parametrize("logit", [3.0, 30.0, 300.0])
def test_the_value_is_at_most_zero_and_reaches_it(logit):
    """sup V = 0. A form that is unbounded, or ln σ(1 − l) for ln(1 − σ(l)), would pass it."""
    model = discriminates(on_the_line(-1.0, 0.0), logit, 0)
    value = -model.discriminator_loss(np.ones((2, 1)), np.zeros((2, 1)))["loss"].item()
    assert value == pytest.approx(-2 * math.log1p(math.exp(-logit)), rel=1e-9) and value <= 0


def test_smoothing_lowers_the_real_label_only():
    model = discriminates(on_the_line(0.0, 1.0, smoothing=0.1), 0, 1.5)
    x, z = np.zeros((3, 1)), np.zeros((3, 1))
    p = float(sigmoid(np.float64(1.5)))
    expected = -0.9 * math.log(p) - 0.1 * math.log(1 - p) - math.log(1 - p)
    assert model.discriminator_loss(x, z)["loss"].item() == pytest.approx(expected, rel=1e-12)
    assert model.generator_loss(z)["g_loss"].item() == pytest.approx(-math.log(p), rel=1e-12)
    assert model.evaluate(x, sg.Streams(0))["loss"] == pytest.approx(
        -math.log(p) - math.log(1 - p), rel=1e-12)                     # −V, with the plain label


def test_evaluation_is_of_plain_images():
    plain, confused = made(MLP), made(MLP, **CONFUSED)
    x = items(plain)
    assert plain.evaluate(x, sg.Streams(3)) == confused.evaluate(x, sg.Streams(3))


# --- what confuses D -----------------------------------------------------------------------------

def test_instance_noise_fades_linearly():
    model = made(MLP, noise=0.8, noise_epochs=4)
    for epoch, std in enumerate([0.8, 0.6, 0.4, 0.2, 0, 0]):
        model.epoch = epoch
        assert model.instance_noise() == pytest.approx(std, abs=1e-12)
    assert made(MLP, noise=0.8).instance_noise() == 0.8                # for ever


def test_law_of_the_confusion():
    model = made({"latent": 1, "generator": [], "discriminator": []}, (4000,), noise=0.3,
                 input_dropout=0.25)
    confusion = model.perturbation(50, sg.Streams(0))
    n = confusion.noise.size
    assert abs(confusion.noise.std() / 0.3 - 1) < 5 / math.sqrt(2 * n)
    assert abs(confusion.noise.mean()) < 5 * 0.3 / math.sqrt(n)
    assert set(np.unique(confusion.keep)) == {0, 1 / 0.75}
    assert abs((confusion.keep == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n)
    x = np.ones((50, 4000))
    np.testing.assert_allclose(confusion(x), (x + confusion.noise) * confusion.keep)


def test_real_and_generated_images_are_confused_apart():
    model = made(MLP, **CONFUSED)
    draws = model.draw(6, sg.Streams(0))
    assert not np.array_equal(draws.real.noise, draws.fake.noise)
    assert not np.array_equal(draws.real.keep, draws.fake.keep)
    assert made(MLP).draw(6, sg.Streams(0)) == NO_DRAWS == Draws(UNPERTURBED, UNPERTURBED)


def test_only_what_is_used_is_drawn():
    for options, names in [({}, {"z"}), ({"noise": 1.0}, {"z", "instance-noise"}),
                           ({"input_dropout": 0.5}, {"z", "input-dropout"}),
                           ({"penalty": "gradient"}, {"z", "interpolation"})]:
        model, streams = made(MLP, **options), sg.Streams(0)
        model.training_step(items(model), streams, optimisers(model))
        assert set(streams.state()["counters"]) == names


# --- convolutional networks and batch norm -------------------------------------------------------

@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 12, 3)])
def test_conv_shapes(shape):
    model = made({"arch": "conv", "latent": 7, "channels": 4}, shape, np.float32)
    images = model.sample(3)
    assert images.shape == (3, *shape) and 0 <= images.min() <= images.max() <= 1
    assert model.discriminator(sg.tensor(model.real(images))).shape == (3, 1)


def test_dcgan_is_the_published_network():
    """Radford et al. 2016 for 28×28: widths, N(0, 0.02²) weights, γ ~ N(1, 0.02²), no bias before
    a batch norm."""
    model = GAN(GAN.Config(**GAN.presets["dcgan"]["model"]))
    shapes = {name: p.shape for name, p in model.named_parameters().items()}
    assert shapes["generator.layers.0.w"] == (100, 7 * 7 * 128)
    assert shapes["generator.layers.4.w"] == (4, 4, 128, 64)
    assert shapes["generator.layers.7.w"] == (4, 4, 64, 1)
    assert shapes["discriminator.layers.1.w"] == (4, 4, 1, 64)
    assert shapes["discriminator.layers.3.w"] == (4, 4, 64, 128)
    assert shapes["discriminator.layers.7.w"] == (7 * 7 * 128, 1)
    assert "generator.layers.4.b" not in shapes and "discriminator.layers.3.b" not in shapes
    for name, p in model.named_parameters().items():
        if name.endswith((".w", ".gamma")):
            assert p.data.mean() == pytest.approx(float(name.endswith("gamma")), abs=0.01), name
            assert p.data.std() == pytest.approx(0.02, rel=0.3), name


@pytest.mark.parametrize("shape", [(28, 30, 1), (6, 8, 3), (5,)])
def test_conv_refuses_what_it_cannot_halve_twice(shape):
    with pytest.raises(sg.UserError, match="divisible by 4"):
        made(CONV, shape)


def test_a_penalised_discriminator_has_no_batch_norm():
    kinds = {penalty: {type(m) for m in made(CONV, penalty=penalty).discriminator.modules()}
             for penalty in ("none", "gradient", "r1")}
    assert nn.BatchNorm in kinds["none"]
    assert nn.BatchNorm not in kinds["gradient"] | kinds["r1"]


def test_evaluation_of_dcgan_plays_as_in_training():
    """D by the statistics of its batches, whatever the mode; nothing moves, the mode stays."""
    model = models.GAN(models.GAN.Config(arch="conv", channels=3, latent=5), (8, 8, 1))
    x = np.random.default_rng(0).random((12, 8, 8, 1), np.float32)
    z = model.noise(len(x), sg.Streams(0)["z"])
    model.eval()
    model.discriminator.train()
    with sg.no_grad(), fixed_statistics(model):
        expected = model.discriminator_loss(model.real(x), z, NO_DRAWS)
    model.eval()
    before = {n: b.copy() for n, b in model.named_buffers().items()}
    found = model.evaluate(x, sg.Streams(0))
    for term in ("loss", "d_real", "d_fake"):
        assert found[term] == pytest.approx(expected[term].item(), rel=1e-6)
    assert not model.training and not model.discriminator.training
    assert all(np.array_equal(b, before[n]) for n, b in model.named_buffers().items())
    with sg.no_grad():                                  # with running statistics it is another D
        other = model.discriminator_loss(model.real(x), z, NO_DRAWS)
    assert abs(other["d_real"].item() - found["d_real"]) > 1e-3


def test_running_statistics_move_in_their_own_step_only():
    model = made(CONV)
    x, z, draws, confusion = inputs_of(model)

    def moved(step):
        before = {name: b.copy() for name, b in model.named_buffers().items()}
        step()
        return {name.split(".")[0] for name, b in model.named_buffers().items()
                if not np.array_equal(b, before[name])}

    assert moved(lambda: model.discriminator_loss(x, z, draws)) == {"discriminator"}
    assert moved(lambda: model.generator_loss(z, confusion)) == {"generator"}
    assert moved(lambda: model.explicit_discriminator_gradients(x, z)) == {"discriminator"}
    assert moved(lambda: model.explicit_generator_gradients(z)) == {"generator"}
    assert not moved(lambda: model.evaluate(items(model), sg.Streams(0)))
    assert not moved(lambda: model.sample(3))
    assert model.generator.training                    # sampling was in eval mode, and is over


def test_samples_do_not_depend_on_their_company():
    model = made(CONV)
    z = model.noise(5, sg.Stream(0, "z"))
    np.testing.assert_allclose(model.decode(z[:1]), model.decode(z)[:1], rtol=1e-6)


# --- training ------------------------------------------------------------------------------------

FORMS = {"conv": CONV, "conv gradient penalty": {**CONV, "penalty": "gradient"},
         "confused": {**MLP, **CONFUSED, "noise_epochs": 2, "d_steps": 2, "g_steps": 2},
         "r1 points": {**MLP, "penalty": "r1"}, "wasserstein": {**MLP, "loss": "wasserstein"},
         "least squares": {**MLP, "loss": "least-squares"}}


def trained(form, gradient="tape", steps=5, dtype=np.float64, stop=None):
    """A model after some steps; with ``stop`` it is saved and restored there."""
    shape = POINT if "points" in form else IMAGE
    model, streams = made(FORMS[form], shape, dtype), sg.Streams(5)
    players, history = optimisers(model), []
    for step in range(steps):
        if step == stop:
            state = model.state_dict(), streams.state(), {
                name: o.state_dict() for name, o in players.items()}
            model, streams = made(FORMS[form], shape, dtype), sg.Streams(5)
            players = optimisers(model)
            model.load_state_dict(state[0])
            streams.restore(state[1])
            for name, o in players.items():
                o.load_state_dict(state[2][name])
        model.epoch = step // 2
        history.append(model.training_step(items(model, seed=step), streams, players, gradient))
    return model, history


@pytest.mark.parametrize("form", [f for f in FORMS if "penalty" not in FORMS[f]])
def test_training_by_hand_equals_training_by_tape(backend, form):
    (by_tape, tape_history), (by_hand, hand_history) = trained(form), trained(form, "explicit")
    for name, array in by_tape.state_dict().items():
        np.testing.assert_allclose(by_hand.state_dict()[name], array, rtol=1e-7, atol=1e-9,
                                   err_msg=name)
    assert [sorted(terms) for terms in tape_history] == [sorted(terms) for terms in hand_history]


@pytest.mark.parametrize("form", FORMS)
def test_stopping_in_between_changes_no_bit(form):
    whole, history = trained(form, dtype=np.float32)
    resumed, _ = trained(form, dtype=np.float32, stop=3)
    for name, array in whole.state_dict().items():
        assert array.dtype == np.float32 and np.array_equal(array, resumed.state_dict()[name]), name
    expected = {"loss", "d_real", "d_fake", "g_loss"} | (
        {"penalty"} if "penalty" in FORMS[form] else set())
    assert all(set(terms) == expected for terms in history)
    assert set(whole.evaluate(items(whole), sg.Streams(0))) == expected


@pytest.mark.parametrize("preset", GAN.presets)
def test_presets_are_configurations(preset):
    from scratchgen.train import config
    resolved = config.resolve({"run": {"model": "gan", "preset": preset}})
    shape = {"ring": (2,), "grid": (2,), "mixture1d": (1,)}.get(resolved["data"]["name"],
                                                                (28, 28, 1))
    assert GAN(config.model_config(resolved), shape).sample(2).shape == (2, *shape)


def test_wasserstein_has_no_label_to_smooth():
    with pytest.raises(sg.UserError, match="no labels"):
        made(MLP, loss="wasserstein", smoothing=0.1)


# --- exact answers: the discriminator ------------------------------------------------------------

@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_smoothed_discriminator_at_equal_densities(alpha):
    """D* = (1 − α) p/(p + q): at p_g = p_data (1 − α)/2, not ½.

    It is (1 − α)/(2 − α) for a loss (1 − α) ln D(x) + ln(1 − D(G(z))), which merely weighs the real
    images less and leaves out the other half of the soft label, α ln(1 − D(x)).
    """
    model = on_the_line(0.0, smoothing=alpha)
    terms = fitted(model, quantiles(501), quantiles(501))
    assert terms["d_real"] == pytest.approx((1 - alpha) / 2, abs=1e-3)
    assert terms["d_fake"] == pytest.approx((1 - alpha) / 2, abs=1e-3)


def test_smoothed_discriminator_keeps_its_shape():
    """The factor 1 − α is the same everywhere: N(0, 1) against N(1, 1) at α = 0.2."""
    model = on_the_line(1.0, discriminator=[32], smoothing=0.2)
    fitted(model, quantiles(501), quantiles(501), steps=300, lr=0.03)
    x = np.linspace(-1.5, 2.5, 41)[:, None]
    with sg.no_grad():
        found = sigmoid(model.discriminator(sg.tensor(x)).data)
    np.testing.assert_allclose(found, 0.8 * sigmoid(0.5 - x), atol=0.03)


def test_least_squares_discriminator_at_equal_densities():
    """(b p + a q)/(p + q) = ½ for the targets a = 0, b = 1 (Mao 2017, equation 5)."""
    terms = fitted(on_the_line(0.0, loss="least-squares"), quantiles(501), quantiles(501))
    assert terms["d_real"] == pytest.approx(0.5, abs=1e-3)
    assert terms["loss"] == pytest.approx(0.25, abs=1e-3)


# --- exact answers: the critic -------------------------------------------------------------------

@pytest.mark.parametrize("weight", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("m", [1.0, -2.0])
def test_slope_of_a_linear_critic(m, weight):
    """Slope ∓(1 + |m|/(2λ)): ∓1 for large λ. E D(x) − E D(G(z)) is |m|, W₁, times that.

    It starts on the right side of 0: (|D'| − 1)² has a second, wrong minimum of the other sign.
    """
    model = discriminates(on_the_line(m, loss="wasserstein", penalty="gradient",
                                      penalty_weight=weight), -math.copysign(0.5, m), 0)
    optimiser, streams = optim.make("adam", model.discriminator, 0.05), sg.Streams(0)
    optimiser.schedule = optim.cosine(300)
    x = quantiles(101)
    for _ in range(300):
        optimiser.zero_grad()
        terms = model.discriminator_loss(x, x, model.draw(len(x), streams))
        terms["loss"].backward()
        optimiser.step()
    slope = 1 + abs(m) / (2 * weight)
    assert model.discriminator[0].w.data.item() == pytest.approx(-math.copysign(slope, m), rel=1e-3)
    assert terms["d_real"] - terms["d_fake"] == pytest.approx(abs(m) * slope, rel=1e-3)
    assert terms["penalty"].item() == pytest.approx(m * m / (4 * weight), rel=2e-2)


# --- exact answers: the dynamics (Mescheder 2018, the Dirac-GAN) ---------------------------------

class Silent:
    """A stream that draws zeros: G makes one point."""

    def normal(self, shape, dtype):
        return np.zeros(shape, dtype)


def dirac(**options):
    """Data at 0, G makes the one point θ, D(x) = ψ x (its bias decays by itself)."""
    model = on_the_line(1e-4, 0.0, loss="minimax", **options)
    return discriminates(model, 1e-4, 0)


def radius(model):
    """√(θ² + ψ²)."""
    return math.hypot(model.generator[0].b.data.item(), model.discriminator[0].w.data.item())


def played(model, h, steps, simultaneous):
    """Radii after each step of gradient descent with step size h."""
    players, streams = optimisers(model, h, "sgd"), {"z": Silent()}
    x, z, radii = np.zeros((2, 1)), np.zeros((2, 1)), [radius(model)]
    for _ in range(steps):
        if simultaneous:
            for o in players.values():
                o.zero_grad()
            model.discriminator_loss(x, z)["loss"].backward()
            model.generator_loss(z)["g_loss"].backward()
            for o in players.values():
                o.step()
        else:
            model.training_step(x, streams, players)
        radii.append(radius(model))
    return np.array(radii)


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_simultaneous_steps_spiral_out(h):
    """Eigenvalues 1 ± ih/2: every step multiplies the radius by √(1 + h²/4)."""
    radii = played(dirac(), h, 20, simultaneous=True)
    np.testing.assert_allclose(radii[1:] / radii[:-1], math.sqrt(1 + h * h / 4), rtol=2e-3)


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_alternating_steps_stay_on_a_cycle(h):
    """|λ| = 1: neither out nor in, for as long as one likes."""
    radii = played(dirac(), h, 240, simultaneous=False)
    assert 0.6 < radii[120:].min() / radii[0] < radii[120:].max() / radii[0] < 1.7
    assert radii[160:].max() == pytest.approx(radii[:80].max(), rel=0.02)


@pytest.mark.parametrize("gamma, h", [(0.5, 0.5), (1.0, 0.2), (1.0, 0.5), (2.0, 0.5)])
def test_r1_converges_at_the_predicted_rate(gamma, h):
    """Eigenvalues of the vector field −γ/2 ± √(γ²/4 − ¼); simultaneous steps: 1 + h of that."""
    model = dirac(penalty="r1", penalty_weight=gamma)
    steps = round(12 / h)
    radii = played(model, h, 2 * steps, simultaneous=True)
    root = np.sqrt(complex(gamma**2 / 4 - 1 / 4))
    rate = max(abs(1 + h * (-gamma / 2 + root)), abs(1 + h * (-gamma / 2 - root)))
    found = (radii[-1] / radii[steps]) ** (1 / steps)
    assert rate < 1 and found == pytest.approx(rate, rel=0.1 * h)
    alternating = played(dirac(penalty="r1", penalty_weight=gamma), h, 2 * steps, False)
    assert alternating[-1] < 0.1 * alternating[0]
