"""The roofline's points: forward pass and gradients of the kernels, timed through the public ops.

The time of a gradient is that of ``backward`` alone, with a gradient asked for one input only.
"""

import math
import time

import numpy as np

from . import lower_bound, workloads
from .workloads import Conv, ConvTranspose, Dense

LEAST = 5
LAYERS = ("dae", "vae", "gan", "conv-vae", "dcgan")            # whose layers are measured
WINDOW = {"stride": workloads.STRIDE, "padding": workloads.PADDING}


def points(seconds, quick):
    """A point for each different layer of the workloads, then the kernels without products."""
    import scratchgen as sg
    seen = set()
    for maker in LAYERS:
        workload = workloads.make(maker, {"batch": 4} if quick else {})
        for network in workload.networks:
            inputs = lower_bound.features(workload, network)
            for layer, before, after in workloads.sizes(workload.networks[network], inputs):
                key = (workload.batch, layer, before)
                if isinstance(layer, (Dense, Conv, ConvTranspose)) and key not in seen:
                    seen.add(key)
                    yield from of_layer(sg, workload, layer, before, after, seconds)
    yield from elementwise(sg, 4 if quick else 128, seconds)


def of_layer(sg, workload, layer, before, after, seconds):
    """forward, dx and dw of a layer."""
    rng = np.random.default_rng(0)
    shapes = workloads.parameter_shapes(layer)
    x = rng.standard_normal((workload.batch, *before), np.float32)
    w = rng.standard_normal(shapes["w"], np.float32) * np.float32(0.05)
    b = np.zeros(shapes["w"][-1], np.float32)
    op, call = {
        Dense: ("dense", lambda x, w: sg.dense(x, w, b, getattr(layer, "activation", None))),
        Conv: ("conv2d", lambda x, w: sg.conv2d(x, w, b, **WINDOW)),
        ConvTranspose: ("conv_transpose2d", lambda x, w: sg.conv_transpose2d(x, w, b, **WINDOW)),
    }[type(layer)]
    flops = 2 * math.prod(lower_bound.as_product(layer, before, after, workload.batch))
    size = 4 * (x.size + w.size + workload.batch * math.prod(after))
    label = f"{workload.name}: {'×'.join(map(str, before))} → {'×'.join(map(str, after))}"
    yield point(op, "forward", label, flops, size, *forward(sg, call, x, w, seconds))
    for what, of in (("dx", 0), ("dw", 1)):
        yield point(op, what, label, flops, size, *backward(sg, call, [x, w], [of], seconds))


def elementwise(sg, batch, seconds):
    """Cross-entropy, batch norm, and Adam's step: all bound by memory."""
    rng = np.random.default_rng(0)
    logits, target = (rng.random((batch, 784), np.float32) for _ in range(2))
    n, name = logits.size, f"{batch}×784"
    yield point("bce", "forward", name, 6 * n, 8 * n, *forward(
        sg, lambda h: sg.bce_with_logits(h, target), logits, None, seconds))
    yield point("bce", "backward", name, 3 * n, 12 * n, *backward(
        sg, lambda h: sg.bce_with_logits(h, target), [logits], [0], seconds))
    x = rng.random((batch, 14, 14, 64), np.float32)
    gamma, beta = np.ones(64, np.float32), np.zeros(64, np.float32)
    n, name = x.size, "×".join(map(str, x.shape))
    yield point("batch_norm", "forward", name, 6 * n, 12 * n, *forward(
        sg, lambda x, gamma: sg.batch_norm(x, gamma, beta), x, gamma, seconds))
    yield point("batch_norm", "backward", name, 8 * n, 20 * n, *backward(
        sg, lambda x, gamma: sg.batch_norm(x, gamma, beta), [x, gamma], [0, 1], seconds))
    net = sg.nn.Dense(784, 1000)
    optimiser = sg.optim.make("adam", net, 1e-3)
    for p in net.parameters():
        p.store_gradient(np.full(p.shape, 0.1, np.float32))
    n = sum(p.size for p in net.parameters())
    yield point("adam", "step", f"{n} parameters", 13 * n, 28 * n,
                *timed(optimiser.step, lambda _: None, net.w.data, seconds))


def forward(sg, call, x, w, seconds):
    tensors = [sg.Tensor(a) for a in (x, w) if a is not None]
    with sg.no_grad():
        return timed(lambda: call(*tensors), lambda _: None, None, seconds)


def backward(sg, call, arrays, wanted, seconds):
    """The time of ``backward`` alone; only the inputs numbered in ``wanted`` get a gradient."""
    tensors = [sg.tensor(a, requires_grad=i in wanted) for i, a in enumerate(arrays)]
    dy = np.full(call(*tensors).shape, 0.5, np.float32)
    graphs = []

    def prepare(_):
        for i in wanted:
            tensors[i].grad = None
        graphs[:] = [call(*tensors)]

    return timed(lambda: graphs[0].backward(dy), prepare, lambda: tensors[wanted[0]].grad.data,
                 seconds)


def timed(run, prepare, result, seconds):
    """(shortest time of ``run()`` after ``prepare``, whether its result is finite)."""
    best, count, end = math.inf, -1, time.perf_counter() + seconds
    while count < LEAST * (seconds > 0) or time.perf_counter() < end:
        prepare(count)
        started = time.perf_counter()
        y = run()
        if count >= 0 or not seconds:     # the first one may compile
            best = min(best, time.perf_counter() - started)
        count += 1
    array = result() if callable(result) else result if result is not None else y.data
    return best, bool(np.isfinite(array).all())


def point(op, what, label, flops, size, seconds, finite):
    return {"op": op, "pass": what, "label": label, "flops": flops, "bytes": size,
            "seconds": seconds, "finite": finite}
