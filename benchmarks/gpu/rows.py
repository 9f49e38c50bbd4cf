"""The training steps that are measured: the small workloads, large ones, and their lower bounds.

A row is a workload in one precision. The small ones stand in ``benchmarks/workloads.py``; here are
those that a GPU needs to have something to do.
"""

import math
from dataclasses import replace

import numpy as np

from .. import lower_bound, workloads
from ..precision import PRECISIONS
from ..workloads import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    Reshape,
    TiedDense,
)

SMALL = ("vae", "dae-128", "dae-20", "dae-1000", "gan", "sdae", "conv-vae", "dcgan")
QUICK = {"dae-128": {"batch": 5, "width": 12}, "dae-20": {"batch": 3, "width": 12},
         "dae-1000": {"batch": 6, "width": 12}, "vae": {"batch": 5, "width": 16, "latent": 3},
         "gan": {"batch": 4}, "conv-vae": {"batch": 3, "latent": 3},
         "dcgan": {"batch": 4}}
CLASSES = 10


class Classifier(workloads.Workload):
    """Images and labels; the labels take the place of the noise."""

    def noise(self, rng):
        return (rng.integers(0, CLASSES, self.batch),)


def large_vae(batch=4096, width=4096, latent=64):
    a = "tanh"
    return workloads.Workload(
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
    return workloads.Workload(
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


LARGE = {"large-vae": (large_vae, {"batch": 6, "width": 16, "latent": 4}),
         "large-dcgan": (large_dcgan, {"batch": 3, "size": 16, "channels": (2, 3, 4, 5)}),
         "large-sdae": (large_sdae, {"batch": 5, "width": 12})}
NAMES = (*SMALL[:1], *LARGE, *SMALL[1:])               # the most important first


def tiny_sdae(batch=20, width=1000):
    """As ``workloads.sdae``, of any size."""
    return replace(workloads.sdae(), batch=batch, features=width, image_shape=(width,), networks={
        "encoder": (Dense(width, width, "sigmoid"),), "decoder": (TiedDense(width, width),)})


def workload(name, quick=False):
    """By its name; ``quick``: the same networks at sizes for a check."""
    if name in LARGE:
        maker, tiny = LARGE[name]
        return replace(maker(**(tiny if quick else {})), name=name)
    if name == "sdae" and quick:
        return tiny_sdae(4, 12)
    maker, options = workloads.STEPS[name]
    return workloads.make(maker, QUICK[name] if quick else options, name=name)


def rows(names=NAMES):
    """(name, precision) in the order of their importance."""
    return [(name, precision) for precision in PRECISIONS for name in names]


def key(name, precision):
    return f"{name} {precision}"


def lower_bounds(w):
    """{flops, bytes} that a step needs at least, as in ``benchmarks/lower_bound.py``.

    The bytes are counted as if no cache kept anything between two kernels. The networks of small
    workloads fit in a GPU's second-level cache, so that a step may be faster than its bytes allow.
    """
    return {"flops": sum(2 * m * k * n for m, k, n in lower_bound.products(w)),
            "bytes": int(lower_bound.moved(w)[0]),
            "parameters": int(sum(np.size(a) for a in w.weights().values()))}
