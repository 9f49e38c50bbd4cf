"""The training steps that are measured: the small workloads, large ones, and their lower bounds.

A row is a workload of ``benchmarks/workloads.py`` in one precision.
"""

from dataclasses import replace

import numpy as np

from .. import lower_bound, workloads
from ..precision import PRECISIONS
from ..workloads import Dense, TiedDense, large_dcgan, large_sdae, large_vae

SMALL = ("vae", "dae-128", "dae-20", "dae-1000", "gan", "sdae", "conv-vae", "dcgan")
QUICK = {"dae-128": {"batch": 5, "width": 12}, "dae-20": {"batch": 3, "width": 12},
         "dae-1000": {"batch": 6, "width": 12}, "vae": {"batch": 5, "width": 16, "latent": 3},
         "gan": {"batch": 4}, "conv-vae": {"batch": 3, "latent": 3},
         "dcgan": {"batch": 4}}
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
