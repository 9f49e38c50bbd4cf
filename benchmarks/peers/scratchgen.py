"""scratchgen, as the trainer uses it: the models' own ``training_step``, layers for the tiny net.

The step draws its noise from streams; here these hand out the workload's arrays.
"""

import numpy as np

import scratchgen as sg
from scratchgen import models, nn, optim

from ..workloads import parameter_shapes


class Given:
    """In place of the streams: the given arrays, one for each draw."""

    def __init__(self, arrays):
        self.arrays = iter(arrays)

    def __getitem__(self, name):
        return self

    def uniform(self, shape, dtype=np.float32):
        array = next(self.arrays)
        if array.shape != tuple(shape) or array.dtype != dtype:
            raise ValueError(f"the step draws {dtype}{shape}, the workload has {array.shape}")
        return array

    normal = uniform


class Regression(nn.Module):
    """The tiny net, with a training step like the models'."""

    def __init__(self, layers):
        self.net = nn.Sequential(*(nn.Dense(*layer[:3]) for layer in layers))

    def networks(self):
        return {"model": self}

    def training_step(self, x, streams, optimisers):
        optimisers["model"].zero_grad()
        loss = sg.mse(self.net(sg.Tensor(x)), x) / len(x)
        loss.backward()
        optimisers["model"].step()
        return {"loss": loss.item()}


class Peer:
    def __init__(self, workload, backend="numba"):
        self.workload, self.batches = workload, workload.batches()
        sg.use_backend(backend)

    def reset(self, lr=None):
        w, self.seen, self.model, self.optimisers = self.workload, [], None, None    # old ones go
        self.model = build(w)
        targets = self.model.parameters()
        for p, (_, array) in zip(targets, split(w, w.weights()), strict=True):
            if p.shape != array.shape:
                raise ValueError(f"the model has {p.shape} where the workload has {array.shape}")
            p.data[...] = array
        options = {"beta1": w.beta1} if w.optimiser == "adam" else {}
        self.optimisers = {name: optim.make(w.optimiser, network, lr or w.lr, **options)
                           for name, network in self.model.networks().items()}

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        self.seen.append(self.model.training_step(x, Given(noise), self.optimisers))

    def wait(self):
        pass

    def losses(self):
        names = ("loss", "g_loss") if self.workload.kind == "gan" else ("loss",)
        return [[terms[name] for name in names] for terms in self.seen]

    def gradients(self):
        return self.named(lambda p: p.grad.data)

    def parameters(self):
        return self.named(lambda p: p.data)

    def named(self, array_of):
        """Arrays by the workload's names; mean and logvar become one layer again."""
        keys = [key for key, _ in split(self.workload, self.workload.weights())]
        found = {}
        for key, p in zip(keys, self.model.parameters(), strict=True):
            found.setdefault(key, []).append(array_of(p))
        return {key: np.concatenate(parts, axis=-1).copy() for key, parts in found.items()}


def build(w):
    """The model of a workload; its parameters come in the order of the workload's."""
    layers = w.networks
    if w.kind == "dae":
        tied = not parameter_shapes(layers["decoder"][0]).get("w")
        return models.DAE(models.DAE.Config(hidden=layers["encoder"][0].outputs, level=w.level,
                                            tied=tied), w.image_shape)
    if w.kind == "regression":
        return Regression(layers["net"])
    arch = {"mlp": "mlp", "conv": "conv"}[w.family]
    if w.kind == "vae":
        how = ({"hidden": layers["encoder"][0].outputs} if arch == "mlp" else
               {"activation": "relu"})
        return models.VAE(models.VAE.Config(arch=arch, latent=w.latent, **how), w.image_shape)
    return models.GAN(models.GAN.Config(arch=arch, latent=w.latent), w.image_shape)


def split(w, arrays):
    """(key, array) in the order of the model's parameters: a VAE's code is mean, then logvar."""
    pairs = []
    for half in (0, 1):
        pairs += [(key, np.split(array, 2, axis=-1)[half]) for key, array in arrays.items()
                  if key[0] == "code"]
    own = [(key, array) for key, array in arrays.items() if key[0] != "code"]
    before = [pair for pair in own if pair[0][0] == "encoder"]
    return [*before, *pairs, *(pair for pair in own if pair[0][0] != "encoder")]
