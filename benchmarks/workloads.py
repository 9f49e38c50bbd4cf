"""The workloads: networks, sizes, initial weights and inputs, the same for every peer.

A workload says *what* is computed; the files in ``peers/`` say how each library does it.
Arrays are float32 in one convention: images as rows (N, H·W·C), dense weights (I, O), filters
(KH, KW, C, O) with C the channels of the layer's input. All filters are 4×4 with stride 2 and
padding 1. Weights, images and noise come from NumPy's generator with a fixed seed.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

KERNEL, STRIDE, PADDING = 4, 2, 1
BATCHES = 8                               # different ones, used cyclically
SEED = 20
CLASSES = 10


class Dense(NamedTuple):
    """a(x w + b). ``takes`` and ``gives``: the (H, W, C) that the rows stand for, if they do."""

    inputs: int
    outputs: int
    activation: str | None = None
    takes: tuple | None = None
    gives: tuple | None = None


class TiedDense(NamedTuple):
    """x wᵀ + b with the weights of the encoder's first layer."""

    inputs: int
    outputs: int


class Conv(NamedTuple):
    inputs: int
    outputs: int
    bias: bool = True


class ConvTranspose(NamedTuple):
    inputs: int
    outputs: int
    bias: bool = True
    extra: int = 0                        # output padding: the row that an odd side lost


class BatchNorm(NamedTuple):
    channels: int


class Activation(NamedTuple):
    name: str


class Reshape(NamedTuple):
    shape: tuple                          # (H, W, C)


class Flatten(NamedTuple):
    shape: tuple                          # (H, W, C) of what it flattens


@dataclass(frozen=True)
class Workload:
    """``kind``: dae, vae, gan or regression; ``family``: mlp, conv or overhead, for the targets."""

    name: str
    kind: str
    family: str
    title: str
    batch: int
    features: int                         # of an input row
    networks: dict                        # name → layers
    image_shape: tuple = (28, 28, 1)
    optimiser: str = "adam"
    lr: float = 1e-3
    beta1: float = 0.9
    level: float = 0.25                   # dae: the masked share
    latent: int = 20                      # vae, gan
    spread: float | None = None           # standard deviation of the weights; None: Glorot
    lr_of_check: float | None = None      # None: the same

    def weights(self):
        """(network, layer's index, parameter) → initial array."""
        rng, found = np.random.default_rng(SEED), {}
        for network, layers in self.networks.items():
            for i, layer in enumerate(layers):
                for name, shape in parameter_shapes(layer).items():
                    found[network, i, name] = initial(rng, name, shape, self.spread)
        return found

    def batches(self):
        """A list of (images (N, D) in [0, 1], noise arrays of the step)."""
        rng = np.random.default_rng(SEED + 1)
        return [(self.images(rng), self.noise(rng)) for _ in range(BATCHES)]

    def images(self, rng):
        """Four pixels of five are black, as in the digits; the tiny net's points are anywhere."""
        u = rng.random((2, self.batch, self.features), np.float32)
        if self.kind == "regression":
            return u[1]
        return np.where(u[0] < 0.8, np.float32(0), u[1])

    def noise(self, rng):
        """dae: uniform numbers, a pixel is masked below ``level``; vae: ε; gan: z for D and G."""
        if self.kind == "dae":
            return (rng.random((self.batch, self.features), np.float32),)
        draws = {"vae": 1, "gan": 2}.get(self.kind, 0)
        return tuple(rng.standard_normal((self.batch, self.latent), np.float32)
                     for _ in range(draws))


def parameter_shapes(layer):
    """Name → shape of a layer's parameters, in order."""
    match layer:
        case Dense(inputs, outputs):
            return {"w": (inputs, outputs), "b": (outputs,)}
        case TiedDense(_, outputs):
            return {"b": (outputs,)}
        case Conv(inputs, outputs, bias) | ConvTranspose(inputs, outputs, bias):
            return {"w": (KERNEL, KERNEL, inputs, outputs), **({"b": (outputs,)} if bias else {})}
        case BatchNorm(channels):
            return {"gamma": (channels,), "beta": (channels,)}
    return {}


def initial(rng, name, shape, spread):
    """Weights of the given spread, or with Glorot's; biases 0, scales 1."""
    if name != "w":
        return np.full(shape, name == "gamma", np.float32)
    window = math.prod(shape[:-2])
    std = spread or math.sqrt(2 / (window * (shape[-2] + shape[-1])))
    return rng.standard_normal(shape, np.float32) * np.float32(std)


# --- the networks --------------------------------------------------------------------------------

def dae(batch=128, width=1000):
    return Workload(f"dae-{batch}", "dae", "mlp", f"DAE 784-{width}-784, batch {batch}", batch, 784,
                    {"encoder": (Dense(784, width, "sigmoid"),), "decoder": (Dense(width, 784),)})


def sdae():
    """A stacked autoencoder's second layer as the model trains it: tied weights, plain descent."""
    return Workload("sdae", "dae", "mlp", "SDAE layer 1000-1000, tied, SGD, batch 20", 20, 1000,
                    {"encoder": (Dense(1000, 1000, "sigmoid"),),
                     "decoder": (TiedDense(1000, 1000),)},
                    image_shape=(1000,), optimiser="sgd", lr=0.1)


def vae(batch=100, width=500, latent=20):
    return Workload("vae", "vae", "mlp", f"VAE 784-{width}-{latent}, batch {batch}", batch, 784,
                    {"encoder": (Dense(784, width, "tanh"),),
                     "code": (Dense(width, 2 * latent),),      # mean and logvar, side by side
                     "decoder": (Dense(latent, width, "tanh"), Dense(width, 784))}, latent=latent)


def conv_vae(batch=128, size=28, latent=20):
    half, small = size // 2, (size // 4, size // 4, 64)
    rows = math.prod(small)
    return Workload("conv-vae", "vae", "conv", f"conv VAE {size}×{size}, batch {batch}", batch,
                    size * size, {
        "encoder": (Reshape((size, size, 1)), Conv(1, 32), Activation("relu"), Conv(32, 64),
                    Activation("relu"), Flatten(small)),
        "code": (Dense(rows, 2 * latent, takes=small),),
        "decoder": (Dense(latent, rows, "relu", gives=small), Reshape(small),
                    ConvTranspose(64, 32, extra=half % 2), Activation("relu"),
                    ConvTranspose(32, 1, extra=size % 2),
                    Flatten((size, size, 1)))}, image_shape=(size, size, 1), latent=latent)


def gan(batch=100):
    a = "leaky_relu"                                           # slope 0.2
    return Workload("gan", "gan", "mlp", f"GAN MLP, batch {batch}", batch, 784, {
        "generator": (Dense(100, 256, a), Dense(256, 512, a), Dense(512, 784, "tanh")),
        "discriminator": (Dense(784, 512, a), Dense(512, 256, a), Dense(256, 1))},
        lr=2e-4, beta1=0.5, latent=100)


def dcgan(batch=64):
    """Adam's first steps go by a gradient's sign alone. Where it is all but 0 rounding decides, and
    batch norm carries that into the losses' fourth digit: losses are compared at smaller steps.
    """
    small, image = (7, 7, 128), (28, 28, 1)
    return Workload("dcgan", "gan", "conv", f"DCGAN 28×28, batch {batch}", batch, 784, {
        "generator": (Dense(100, 6272, gives=small), Reshape(small), BatchNorm(128),
                      Activation("relu"), ConvTranspose(128, 64, bias=False), BatchNorm(64),
                      Activation("relu"), ConvTranspose(64, 1), Activation("tanh"),
                      Flatten(image)),
        "discriminator": (Reshape(image), Conv(1, 64), Activation("leaky_relu"),
                          Conv(64, 128, bias=False), BatchNorm(128), Activation("leaky_relu"),
                          Flatten(small), Dense(6272, 1, takes=small))},
        lr=2e-4, beta1=0.5, latent=100, spread=0.02, lr_of_check=2e-6)


def tiny():
    return Workload("tiny", "regression", "overhead", "2-8-2 net, batch 4: the engine's overhead",
                    4, 2, {"net": (Dense(2, 8, "tanh"), Dense(8, 2))}, image_shape=(2,))


# --- large networks, for a GPU -------------------------------------------------------------------

class Classifier(Workload):
    """Images and labels; the labels take the place of the noise."""

    def noise(self, rng):
        return (rng.integers(0, CLASSES, self.batch),)


def large_vae(batch=4096, width=4096, latent=64):
    a = "tanh"
    return Workload(
        "large-vae", "vae", "mlp", f"VAE 784-{width}-{width}-{latent}, batch {batch}", batch, 784,
        {"encoder": (Dense(784, width, a), Dense(width, width, a)),
         "code": (Dense(width, 2 * latent),),
         "decoder": (Dense(latent, width, a), Dense(width, width, a), Dense(width, 784))},
        latent=latent)


def large_dcgan(batch=128, size=64, channels=(64, 128, 256, 512)):
    """G doubles four times from 4×4, D halves as often; D's first layer has no batch norm."""
    small, image = (size >> 4, size >> 4, channels[-1]), (size, size, 3)
    up = [Dense(100, math.prod(small), gives=small), Reshape(small), BatchNorm(channels[-1]),
          Activation("relu")]
    for inputs, outputs in zip(channels[:0:-1], channels[-2::-1], strict=True):
        up += [ConvTranspose(inputs, outputs, bias=False), BatchNorm(outputs), Activation("relu")]
    up += [ConvTranspose(channels[0], 3), Activation("tanh"), Flatten(image)]
    down = [Reshape(image), Conv(3, channels[0]), Activation("leaky_relu")]
    for inputs, outputs in zip(channels, channels[1:], strict=False):
        down += [Conv(inputs, outputs, bias=False), BatchNorm(outputs), Activation("leaky_relu")]
    down += [Flatten(small), Dense(math.prod(small), 1, takes=small)]
    return Workload(
        "large-dcgan", "gan", "conv", f"DCGAN {size}×{size}×3, {channels[0]} … {channels[-1]} "
        f"channels, batch {batch}", batch, math.prod(image),
        {"generator": tuple(up), "discriminator": tuple(down)}, image_shape=image, lr=2e-4,
        beta1=0.5, latent=100, spread=0.02, lr_of_check=2e-6)


def large_sdae(batch=128, width=1000):
    """Fine-tuning: all three layers and the logistic one on top learn the labels."""
    a = "sigmoid"
    return Classifier(
        "large-sdae", "classifier", "mlp", f"SDAE {width}-{width}-{width}, fine-tuning, batch "
        f"{batch}", batch, 784, {"net": (Dense(784, width, a), Dense(width, width, a),
                                         Dense(width, width, a), Dense(width, CLASSES))},
        optimiser="sgd", lr=0.1)


MAKERS = {"dae": dae, "sdae": sdae, "vae": vae, "conv-vae": conv_vae, "gan": gan, "dcgan": dcgan,
          "tiny": tiny}
STEPS = {"dae-128": ("dae", {"batch": 128}), "dae-20": ("dae", {"batch": 20}),
         "dae-1000": ("dae", {"batch": 1000}), "vae": ("vae", {}), "gan": ("gan", {}),
         "sdae": ("sdae", {}), "conv-vae": ("conv-vae", {}), "dcgan": ("dcgan", {}),
         "tiny": ("tiny", {})}


def make(maker, options=None, name=None):
    """The workload that ``maker`` of MAKERS makes, under another name if one is given."""
    workload = MAKERS[maker](**(options or {}))
    return replace(workload, name=name or workload.name)


# --- sizes ---------------------------------------------------------------------------------------

def sizes(layers, features):
    """(layer, shape of one item before it, after it) for each layer of a network."""
    shape, found = (features,), []
    for layer in layers:
        before = shape
        match layer:
            case Dense(_, outputs) | TiedDense(_, outputs):
                shape = (outputs,)
            case Conv(_, outputs):
                shape = (shape[0] // STRIDE, shape[1] // STRIDE, outputs)
            case ConvTranspose(_, outputs, _, extra):
                shape = (*(STRIDE * side + extra for side in shape[:2]), outputs)
            case Reshape(new):
                shape = new
            case Flatten():
                shape = (math.prod(shape),)
        found.append((layer, before, shape))
    return found
