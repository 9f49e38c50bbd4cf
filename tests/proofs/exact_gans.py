"""GANs with a known optimal discriminator or equilibrium, trained and compared with it.

Each case is a function ``case(seed, effort, **variant)`` that trains one model and returns its
answers; its docstring states the exact result, and ``effort`` multiplies the steps. All data are
one-dimensional.
"""

import functools
from statistics import NormalDist

import numpy as np

import scratchgen as sg
from scratchgen import models, optim
from scratchgen.data import densities, divergences
from scratchgen.models.by_hand import sigmoid
from scratchgen.models.gan.losses import Draws

from .answers import near

GAN = models.GAN


def on_the_line(mean=0.0, std=1.0, seed=0, **options):
    """A GAN on one-dimensional data with a linear D (unless ``options`` say otherwise) and a G
    that generates N(mean, std²)."""
    config = GAN.Config(**{"latent": 1, "generator": [], "discriminator": [], **options})
    model = GAN(config, (1,), seed, np.float64)
    model.generator[0].w.data[...] = std
    model.generator[0].b.data[...] = mean
    return model


def quantiles(n=2001, mean=0.0, std=1.0):
    """n quantiles (n, 1) of N(mean, std²); averages over them approximate expectations."""
    normal = NormalDist(mean, std)
    return np.array([[normal.inv_cdf((i + 0.5) / n)] for i in range(n)])


def fitted(model, x, z, steps=250, lr=0.1):
    """Trains D on x and G(z) until it converges; returns the last loss terms."""
    optimiser = optim.make("adam", model.discriminator, lr, schedule=optim.cosine(steps))
    for _ in range(steps):
        optimiser.zero_grad()
        terms = model.discriminator_loss(x, z)
        terms["loss"].backward()
        optimiser.step()
    return {name: float(value) for name, value in terms.items()}


@functools.cache
def best_loss(mean, real_std=1.0, std=1.0):
    """The least loss of D, ln 4 − 2 JSD, between N(0, real_std²) and N(mean, std²)."""
    return -divergences.value_of_game(densities.gaussian(0.0, real_std),
                                      densities.gaussian(mean, std))


def log_ratio(seed, effort=1):
    """Logistic D, 20,000 samples of N(0, 1) and N(1, 1): logit D*(x) = −m x + m²/2, m = 1."""
    model, rng = on_the_line(1.0, seed=seed), np.random.default_rng(seed)
    x, z = rng.normal(size=(2, 20000, 1))
    fitted(model, x, z, steps=250 * effort)
    layer = model.discriminator[0]
    return [near("slope −m", -1, layer.w.data.item(), 0.05),
            near("offset m²/2", 0.5, layer.b.data.item(), 0.05)]


def value_of_the_game(seed, effort=1, *, m):
    """Logistic D between N(0, 1) and N(m, 1), by quantiles: V(D*) = −ln 4 + 2 JSD."""
    model = on_the_line(m, seed=seed)
    found = fitted(model, quantiles(), quantiles(), 400 * effort, lr=0.1 * (1 + m))["loss"]
    layer = model.discriminator[0]
    return [near("V(D*) = −ln 4 + 2 JSD, nats", -best_loss(float(m)), -found, 2e-3),
            near("slope −m", -m, layer.w.data.item(), 0.02, relative=True),
            near("offset m²/2", m * m / 2, layer.b.data.item(), 0.03, relative=True)]


def ratio_that_is_not_linear(seed, effort=1, *, std):
    """D with 32 hidden units between N(0, std²) and N(0, ½²): logit D* is a parabola."""
    model = on_the_line(std=0.5, seed=seed, discriminator=[32])
    terms = fitted(model, quantiles(501, std=std), quantiles(501), 300 * effort, lr=0.03)
    return [near("V(D*) = −ln 4 + 2 JSD, nats", -best_loss(0.0, std, 0.5), -terms["loss"],
                 5e-3)]


def earth_movers_distance(seed, effort=1):
    """Critic with gradient penalty between N(0, 1) and N(2, 1): E D(x) − E D(G(z)) = W₁ = 2."""
    model = on_the_line(2.0, seed=seed, discriminator=[32, 32], loss="wasserstein",
                        penalty="gradient", penalty_weight=50.0)
    steps, streams = 250 * effort, sg.Streams(seed)
    optimiser = optim.make("adam", model.discriminator, 0.01, schedule=optim.cosine(steps))
    for _ in range(steps):
        optimiser.zero_grad()
        x, z = streams["x"].normal((2, 256, 1), np.float64)
        model.discriminator_loss(x, z, model.draw(len(x), streams))["loss"].backward()
        optimiser.step()
    terms = model.discriminator_loss(quantiles(), quantiles(), Draws(mix=np.full((2001, 1), 0.5)))
    x = sg.tensor(np.linspace(0, 2, 21)[:, None], requires_grad=True)
    slopes = sg.grad(sg.sum(model.discriminator(x)), x).data
    return [near("W₁", 2, float(terms["d_real"] - terms["d_fake"]), 0.05, relative=True),
            near("slope in between", -1, slopes.flat[np.abs(slopes + 1).argmax()], 0.1)]


def gan_on_the_line(seed, effort=1, mean=1.0, std=0.7):
    """GAN with R1 on N(1, 0.7²): p_g = p_data, D = ½ on 99 % of the mass."""
    steps, density = 500 * effort, densities.gaussian(mean, std)
    model = GAN(GAN.Config(latent=1, generator=[32, 32], discriminator=[32, 32], penalty="r1",
                           penalty_weight=2.0), (1,), seed)
    players = {key: optim.make("adam", network, 3e-3, beta1=0.5, beta2=0.9,
                               schedule=optim.cosine(steps))
               for key, network in model.networks().items()}
    streams = sg.Streams(seed)
    for _ in range(steps):
        x, _ = density.draw(128, streams["data"])
        model.training_step(x.astype(np.float32), streams, players)
    x = np.linspace(mean - 2.58 * std, mean + 2.58 * std, 101, dtype=np.float32)[:, None]
    with sg.no_grad():
        answer = sigmoid(model.discriminator(sg.tensor(x)).data)
    samples = model.sample(5000)
    return [near("D, where it is farthest off", 0.5, answer.flat[np.abs(answer - 0.5).argmax()],
                 0.05),
            near("mean of the samples", mean, samples.mean(), 0.15),
            near("their standard deviation", std, samples.std(), 0.25, relative=True)]


CASES = {
    "logistic D, samples of N(0, 1) and N(1, 1)": (log_ratio, [{}]),
    "logistic D, N(0, 1) and N(m, 1)": (value_of_the_game, [{"m": m} for m in (0.5, 1, 2, 3)]),
    "D with 32 units, N(0, s²) and N(0, ½²)": (ratio_that_is_not_linear,
                                               [{"std": 1.0}, {"std": 2.0}]),
    "critic, N(0, 1) and N(2, 1)": (earth_movers_distance, [{}]),
    "GAN on N(1, 0.7²)": (gan_on_the_line, [{}]),
}
