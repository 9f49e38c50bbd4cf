"""JAX: the whole step, optimiser included, in one jit whose state is donated."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import precision
from ..workloads import (
    PADDING,
    STRIDE,
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    Reshape,
    TiedDense,
)
from .layouts import from_jax, to_jax

set_precision = precision.jax
EPS, BETA2, MOMENTUM = 1e-8, 0.999, 0.1
ACTIVATIONS = {None: lambda x: x, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu,
               "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2)}


class Peer:
    def __init__(self, workload, layout="NHWC", joined=False):
        self.workload, self.layout, self.joined = workload, layout, joined
        self.batches = [jax.tree.map(jnp.asarray, batch) for batch in workload.batches()]
        step = self.gan_step if workload.kind == "gan" else self.plain_step
        self.compiled = jax.jit(lambda *given: step(*given)[:2], donate_argnums=0)
        self.with_gradients = jax.jit(step)

    def reset(self, lr=None):
        w, self.seen, self.state = self.workload, [], None     # the old one goes first
        p = {network: [{} for _ in layers] for network, layers in w.networks.items()}
        for (network, i, name), array in w.weights().items():
            p[network][i][name] = jnp.asarray(to_jax(w.networks[network][i], name, array,
                                                     self.layout == "NCHW"))
        stats = {network: [(jnp.zeros(layer.channels), jnp.ones(layer.channels))
                           if isinstance(layer, BatchNorm) else () for layer in layers]
                 for network, layers in w.networks.items()}
        slots = ("m", "v") if w.optimiser == "adam" else ()
        self.state = {"p": p, "stats": stats, "t": jnp.zeros((), jnp.float32),
                      "lr": jnp.float32(lr or w.lr),
                      **{slot: jax.tree.map(jnp.zeros_like, p) for slot in slots}}

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        self.state, losses = self.compiled(self.state, x, noise)
        self.seen.append(losses)

    def wait(self):
        jax.block_until_ready((self.state, self.seen[-1:]))

    def losses(self):
        return [[float(term) for term in terms] for terms in self.seen]

    def gradients(self):
        before = self.state, self.seen
        self.reset(float(self.state["lr"]))
        gradients = self.with_gradients(self.state, *self.batches[0])[2]
        self.state, self.seen = before
        return self.named(gradients)

    def parameters(self):
        return self.named(self.state["p"])

    def named(self, tree):
        return {(n, i, name): from_jax(self.workload.networks[n][i], name, np.asarray(a),
                                       self.layout == "NCHW")
                for n, parts in tree.items() for i, part in enumerate(parts)
                for name, a in part.items()}

    # --- steps -----------------------------------------------------------------------------------

    def plain_step(self, state, x, noise):
        loss = getattr(self, f"{self.workload.kind}_loss")
        value, gradients = jax.value_and_grad(loss)(state["p"], x, *noise)
        t = state["t"] + 1
        moved = self.descend(state, gradients, t, state["lr"])
        return {**state, **moved, "t": t}, (value,), gradients

    def gan_step(self, state, x, noise):
        t, (z_d, z_g) = state["t"] + 1, noise
        moved, losses, found = dict(state), [], {}
        for player, other, loss, z in (("discriminator", "generator", self.d_loss, (x, z_d)),
                                       ("generator", "discriminator", self.g_loss, (z_g,))):
            (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(
                moved["p"][player], moved["p"][other], state["stats"], *z)
            own = {slot: {player: moved[slot][player]} for slot in ("p", "m", "v")}
            for slot, new in self.descend(own, {player: gradients}, t,
                                          state["lr"]).items():
                moved[slot] = {**moved[slot], **new}
            moved["stats"] = {**moved["stats"], player: stats}
            losses.append(value)
            found[player] = gradients
        return {**moved, "t": t}, tuple(losses), found

    def descend(self, state, g, t, lr):
        """p and the optimiser's state after one update."""
        w = self.workload
        if w.optimiser == "sgd":
            return {"p": jax.tree.map(lambda p, g: p - lr * g, state["p"], g)}
        m = jax.tree.map(lambda m, g: w.beta1 * m + (1 - w.beta1) * g, state["m"], g)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, state["v"], g)
        rate, root = lr / (1 - w.beta1**t), jnp.sqrt(1 - BETA2**t)
        return {"m": m, "v": v, "p": jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + EPS), state["p"], m, v)}

    # --- losses ----------------------------------------------------------------------------------

    def dae_loss(self, p, x, u):
        h, _ = self.run("encoder", p["encoder"], jnp.where(u < self.workload.level, 0, x))
        if isinstance(self.workload.networks["decoder"][0], TiedDense):
            logits = h @ p["encoder"][0]["w"].T + p["decoder"][0]["b"]
        else:
            logits, _ = self.run("decoder", p["decoder"], h)
        return bce(logits, x) / len(x)

    def vae_loss(self, p, x, eps):
        h, _ = self.run("encoder", p["encoder"], x)
        mean, logvar = jnp.split(self.run("code", p["code"], h)[0], 2, axis=1)
        logits, _ = self.run("decoder", p["decoder"], mean + jnp.exp(0.5 * logvar) * eps)
        kl = 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - logvar - 1)
        return (bce(logits, x) + kl) / len(x)

    def regression_loss(self, p, x):
        return jnp.sum((self.run("net", p["net"], x)[0] - x)**2) / len(x)

    def classifier_loss(self, p, x, labels):
        logits, _ = self.run("net", p["net"], x)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(chosen)

    def d_loss(self, d, g, stats, x, z):
        fake, real, own = self.run("generator", g, z)[0], 2 * x - 1, stats["discriminator"]
        if self.joined:
            logits, own = self.run("discriminator", d, jnp.concatenate((real, fake)), own)
            on_real, on_fake = jnp.split(logits, 2)
        else:
            on_real, own = self.run("discriminator", d, real, own)
            on_fake, own = self.run("discriminator", d, fake, own)
        return jnp.mean(jax.nn.softplus(-on_real)) + jnp.mean(jax.nn.softplus(on_fake)), own

    def g_loss(self, g, d, stats, z):
        images, own = self.run("generator", g, z, stats["generator"])
        logits, _ = self.run("discriminator", d, images)
        return jnp.mean(jax.nn.softplus(-logits)), own

    def run(self, network, p, x, stats=None):
        """(a network's output, its running statistics afterwards)."""
        moved = list(stats or ())
        for i, (layer, own) in enumerate(zip(self.workload.networks[network], p, strict=True)):
            match layer:
                case Dense(activation=a):
                    x = ACTIVATIONS[a](x @ own["w"] + own["b"])
                case Conv() | ConvTranspose():
                    x = self.convolve(layer, own, x)
                case BatchNorm():
                    x, now = self.normalise(own, x)
                    if stats:
                        moved[i] = tuple((1 - MOMENTUM) * old + MOMENTUM * new
                                         for old, new in zip(stats[i], now, strict=True))
                case Activation(name):
                    x = ACTIVATIONS[name](x)
                case Reshape((h, w, c)):
                    x = x.reshape(-1, *((h, w, c) if self.layout == "NHWC" else (c, h, w)))
                case Flatten():
                    x = x.reshape(len(x), -1)
        return x, moved

    def convolve(self, layer, own, x):
        filters = "HWIO" if self.layout == "NHWC" else "OIHW"
        up = isinstance(layer, ConvTranspose)
        border = own["w"].shape[filters.index("H")] - 1 - PADDING if up else PADDING
        y = lax.conv_general_dilated(
            x, own["w"], (1, 1) if up else (STRIDE, STRIDE),
            [(border, border + (layer.extra if up else 0))] * 2,
            lhs_dilation=(STRIDE, STRIDE) if up else None,
            dimension_numbers=(self.layout, filters, self.layout))
        return y + self.channelwise(own["b"]) if "b" in own else y

    def channelwise(self, a):
        return a if self.layout == "NHWC" else a[:, None, None]

    def normalise(self, own, x):
        axes = (0, 1, 2) if self.layout == "NHWC" else (0, 2, 3)
        mean, n = jnp.mean(x, axes), x.size // own["gamma"].size
        centred = x - self.channelwise(mean)
        var = jnp.mean(centred**2, axes)
        scale = own["gamma"] * lax.rsqrt(var + 1e-5)
        return (centred * self.channelwise(scale) + self.channelwise(own["beta"]),
                lax.stop_gradient((mean, var * n / (n - 1))))


def bce(logits, x):
    """Summed over everything, from logits."""
    return jnp.sum(jax.nn.softplus(logits) - logits * x)


class CudaPeer(Peer):
    """JAX on the GPU; keeps the losses of the last step only."""

    last = None

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        self.state, self.last = self.compiled(self.state, x, noise)

    def wait(self):
        jax.block_until_ready((self.state, self.last))

    def losses(self):
        """Losses of the last step."""
        return [float(term) for term in self.last]
