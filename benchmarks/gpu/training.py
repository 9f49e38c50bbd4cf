"""Part "across": trainings from the same seed, recorded and plain, on the GPU and with NumPy.

compute-sanitizer's checks of the kernels belong to the part, too.
"""

import functools

import numpy as np

import scratchgen as sg
from scratchgen import models, optim
from scratchgen.engine.capture import capture
from scratchgen.engine.memory import to_device, to_host

from . import sanitizer

PLAYED = ("dae", "vae", "gan", "dcgan")
COMPARED = ("dae", "vae", "gan")
STEPS = 10
# Weights: float32 relative to the largest element of each parameter, for all but a few elements.
# Adam moves an element whose gradient is nothing but rounding by up to lr in a direction that
# rounding decides, so these few are held to what Adam can move in so many steps.
WEIGHTS = {"float64": 1e-9, "float32": 3e-4}
LOSSES = {"float64": 1e-9, "float32": 3e-4}
FEW = 1e-4                                             # of all elements, float32 only


def make(kind, dtype=np.float32, quick=False):
    """(model, optimisers): small networks of the model's usual kind."""
    width = 24 if quick else 300
    how = {
        "dae": lambda: models.DAE(models.DAE.Config(hidden=width), dtype=dtype),
        "vae": lambda: models.VAE(models.VAE.Config(hidden=width), dtype=dtype),
        "gan": lambda: models.GAN(models.GAN.Config(
            generator=[width, width + 8], discriminator=[width + 8, width]), dtype=dtype),
        "dcgan": lambda: models.GAN(models.GAN.Config(
            arch="conv", channels=4 if quick else 32, init="dcgan"), dtype=dtype)}
    model = how[kind]()
    gan = kind in ("gan", "dcgan")
    options = {"beta1": 0.5} if gan else {}
    return model, {name: optim.make("adam", network, 2e-4 if gan else 1e-3, **options)
                   for name, network in model.networks().items()}


def batches(sizes, dtype, seed=5):
    """Images (N, 784) in [0, 1], four of five pixels black."""
    rng = np.random.default_rng(seed)
    for n in sizes:
        u = rng.random((2, n, 784))
        yield np.where(u[0] < 0.8, 0, u[1]).astype(dtype)


def trained(kind, sizes, dtype=np.float32, quick=False, recorded=False):
    """(losses (steps, terms), every array that training changes by name), on the host."""
    model, optimisers = make(kind, dtype, quick)
    streams, losses = sg.Streams(3), []

    def step(x):
        return model.training_step(x, streams, optimisers)
    if recorded:
        step = capture(step, key=lambda: model.recording_key(optimisers))
    for x in batches(sizes, dtype):
        losses.append([float(to_host(term)) for term in step(to_device(x)).values()])
    arrays = {name: np.array(to_host(p.data)) for name, p in model.named_parameters().items()}
    arrays |= {name: np.array(to_host(b)) for name, b in model.named_buffers().items()}
    for name, optimiser in optimisers.items():
        arrays |= {f"{name}.{slot}": np.array(to_host(a)) for slot, a in optimiser.state.items()}
    return np.array(losses), arrays


def recorded_is_plain(kind, quick=False):
    """Training with a recorded step, and with one that is not, makes the same bytes.

    Every epoch ends with a smaller batch; two kinds of steps are recorded and alternate.
    """
    sizes = [8, 8, 8, 5] * 2 if quick else [64, 64, 64, 64, 37] * 3
    with sg.use_backend("cuda"):
        plain, recorded = (trained(kind, sizes, quick=quick, recorded=r) for r in (False, True))
        again = trained(kind, sizes, quick=quick, recorded=True)
    differing = [name for name in plain[1]
                 if not plain[1][name].tobytes() == recorded[1][name].tobytes()]
    if plain[0].tobytes() != recorded[0].tobytes():
        differing.append("losses")
    same_again = all(a.tobytes() == again[1][n].tobytes() for n, a in recorded[1].items())
    return {"steps": len(sizes), "arrays": len(plain[1]), "differing": differing,
            "two runs are equal": same_again, "ok": not differing and same_again
            and bool(np.isfinite(plain[0]).all())}


def host_agrees(kind, dtype, quick=False):
    """Ten steps on the host and on the GPU: losses and weights within their tolerances.

    The host computes in float64: its own float32 strays farther from that, where rounding decides
    on which side of its kink a ReLU is, than the GPU's, whose sums are in other orders.
    """
    dtype, sizes = np.dtype(dtype), [6 if quick else 50] * STEPS
    found = {}
    for backend, precision in (("numpy", np.float64), ("cuda", dtype)):
        with sg.use_backend(backend):
            found[backend] = trained(kind, sizes, precision, quick)
    (losses, ours), (expected, theirs) = found["cuda"], found["numpy"]
    lr = 2e-4 if kind == "gan" else 1e-3
    of_losses = float(np.max(np.abs(losses - expected) / np.max(np.abs(expected), axis=0)))
    parameters = [n for n in theirs if not n.endswith((".m", ".v"))]
    pairs = [(np.abs(ours[n] - theirs[n]), np.max(np.abs(theirs[n]))) for n in parameters]
    beyond = sum(int(np.sum(~(d <= WEIGHTS[dtype.name] * top))) for d, top in pairs)
    share = beyond / sum(d.size for d, _ in pairs)
    farthest = float(max(np.max(d) for d, _ in pairs))
    allowed = 0 if dtype == np.float64 else FEW
    return {"losses": of_losses, "losses_tolerance": LOSSES[dtype.name],
            "weights": float(max(np.max(d) / max(top, 1e-12) for d, top in pairs)),
            "weights_tolerance": WEIGHTS[dtype.name], "share_beyond": share,
            "share_allowed": allowed, "farthest": farthest, "ok": bool(
                of_losses <= LOSSES[dtype.name] and share <= allowed
                and farthest <= 2 * lr * STEPS and np.isfinite(losses).all())}


def items(deadline, quick):
    """name → function of this part."""
    found = {f"recorded = plain {kind}": functools.partial(recorded_is_plain, kind, quick)
             for kind in PLAYED}
    for dtype in ("float64", "float32"):
        for kind in COMPARED:
            found[f"NumPy = CUDA {kind} {dtype}"] = functools.partial(
                host_agrees, kind, dtype, quick)
    return found | {tool: functools.partial(sanitizer.check, tool, deadline)
                    for tool in sanitizer.TOOLS}
