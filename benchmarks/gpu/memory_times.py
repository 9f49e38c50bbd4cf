"""Kernels that are bound by memory, at 256 MB an array and more, beside a device copy.

Bytes count each array once for each time it must be read or written. ``flops`` an element are for
the roofline; exp and log count as one.
"""

import functools
import inspect

import numpy as np

MEGABYTES = 256
COLUMNS = 1024


def sigmoid_gate(x, y):
    return y / (1.0 + np.exp(-x))


class Arrays:
    """Makers of arrays of one size; ``n`` numbers in rows of COLUMNS."""

    def __init__(self, device, quick):
        self.xp = device.xp
        self.n = 1 << 14 if quick else (MEGABYTES << 20) // 4
        self.shape = (self.n // COLUMNS, COLUMNS)
        self.rng = self.xp.random.default_rng(3)

    def random(self, shape=None):
        return self.rng.random(shape or self.shape, dtype=self.xp.float32)

    def empty(self, shape=None, dtype=np.float32):
        return self.xp.empty(shape or self.shape, dtype)

    def vector(self):
        """One number a column, positive."""
        return self.random(COLUMNS) + np.float32(0.5)


def by_name(version, named):
    """A call of a kernel with those of the named arguments that it takes."""
    names = inspect.signature(version).parameters
    return functools.partial(version, *(named[name] for name in names))


def dense_and_loss(a):
    """(name, function, accesses, flops an element); an access is 4 bytes an element."""
    from scratchgen.kernels import bce, dense
    y, g, out, losses, b = a.random(), a.random(), a.empty(), a.empty(), a.vector()
    partial = a.empty((-(-a.shape[0] // 4), COLUMNS))
    yield "dense.bias_activation", lambda: dense.bias_activation_cuda(y, b, 2), 2, 2
    yield ("dense.activation_backward",
           lambda: dense.activation_backward_cuda(g, y, 2, out, b), 3, 3)
    yield "bce.total", lambda: bce.total_cuda(g, y, out, partial), 3.25, 8
    yield "bce.elements", lambda: bce.elements_cuda(g, y, out, losses), 4, 8


def batch_norm(a):
    from scratchgen.kernels import batch_norm as bn
    x, y, dy, dx = a.random(), a.random(), a.random(), a.empty()
    named = {"x": x, "y": y, "dy": dy, "dx": dx, "activation": 2,
             **{n: a.vector() for n in ("mean", "var", "inverse", "gamma", "beta", "dgamma",
                                        "dbeta")}}
    yield "batch_norm.statistics", by_name(bn.statistics_cuda, named), 1, 3
    yield "batch_norm.normalize", by_name(bn.normalize_cuda, {**named, "y": dx}), 2, 5
    yield "batch_norm.backward_parameters", by_name(bn.backward_parameters_cuda, named), 3, 6
    yield "batch_norm.backward_x", by_name(bn.backward_x_cuda, named), 4, 8


def adam(a):
    from scratchgen.kernels import optimizer
    p, g, m, v = (a.random(a.n) for _ in range(4))
    numbers = a.xp.asarray(np.float32([1e-6, 0.9, 0.1, 0.999, 1e-3, 0.9, 1e-8, 0, 1]))
    yield "optimizer.adam", lambda: optimizer.adam_cuda(p, g, m, v, numbers), 7, 13


def random_numbers(a):
    from scratchgen.kernels import philox
    bits, out = a.empty(a.n, np.uint32), a.empty(a.n)
    counter = a.xp.zeros(1, np.uint64)
    seed, stream = np.uint64(7), np.uint64(9)
    yield "philox.bits", lambda: philox.bits_cuda(seed, stream, counter, bits), 1, 0
    yield "philox.uniform", lambda: philox.uniform_cuda(bits, out), 2, 1
    yield "philox.normal", lambda: philox.normal_cuda(bits, out), 2, 10
    yield ("philox.draw_uniform",
           lambda: philox.draw_uniform_cuda(seed, stream, counter, out), 1, 1)
    yield ("philox.draw_normal",
           lambda: philox.draw_normal_cuda(seed, stream, counter, out), 1, 10)


def formula_and_sums(a):
    from scratchgen.kernels import reduce
    from scratchgen.kernels.elementwise import Formula
    x, y, gate = a.random(), a.random(), Formula(sigmoid_gate)
    rows, columns, one = a.empty(a.shape[0]), a.empty(COLUMNS), a.empty(1)
    yield "elementwise: y σ(x)", lambda: gate(x, y), 3, 4
    deep, wide = x.reshape(1, *a.shape), x.reshape(*a.shape, 1)
    yield "reduce.sum over rows", lambda: reduce.sum_cuda(wide, rows.reshape(-1, 1)), 1, 1
    yield "reduce.sum over columns", lambda: reduce.sum_cuda(deep, columns.reshape(1, -1)), 1, 1
    yield "reduce.sum_all", by_name(reduce.sum_all_cuda, {"x": x, "scale": 1.0, "y": one}), 1, 1


def noise(a):
    from scratchgen.kernels import noise as family
    x, u, out = a.random(a.n), a.random(a.n), a.empty(a.n)
    yield ("noise.masking",
           lambda: family.masking_cuda(x, u, np.float32(0.25), out), 3, 1)
    d = 784
    count = a.n // d
    images = a.xp.zeros((count, d), np.uint8)
    order = a.xp.asarray(np.random.default_rng(0).permutation(count).astype(np.int64))
    named = {"images": images, "order": order, "first": a.xp.zeros(1, np.uint64), "scale": 255.0,
             "out": a.empty((count, d))}
    yield "noise.gather", by_name(family.gather_cuda, named), 1.25 * count * d / a.n, 1


GROUPS = {"dense and loss": dense_and_loss, "batch norm": batch_norm, "adam": adam,
          "random numbers": random_numbers, "formula and sums": formula_and_sums, "noise": noise}


def measure(device, clock, group, quick, failed):
    """{kernels: {name: {bytes, flops, median, minimum, …}}} of one group."""
    arrays, found = Arrays(device, quick), {}
    for name, function, accesses, flops in GROUPS[group](arrays):
        if (reason := failed.get(name.split(".")[0])) is not None:
            found[name] = {"skipped": reason}
            continue
        try:
            found[name] = clock.in_a_row(function)
        except Exception as error:                     # of one kernel alone
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
            continue
        found[name] |= {"bytes": int(4 * accesses * arrays.n), "flops": int(flops * arrays.n)}
    return {"kernels": found, "ok": not any("failed" in k for k in found.values())}
