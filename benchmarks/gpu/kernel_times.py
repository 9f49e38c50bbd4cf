"""Part "kernels": measured ceilings, then each kernel beside its library counterpart or ceiling."""

import functools

from .. import precision
from . import conv_times, gemm_times, memory_times
from .clock import Clock

COPIED = 1 << 30                                       # bytes
SECONDS = 0.12                                         # for each measurement
QUICK_SQUARES, QUICK_SKINNY = (64,), ((5, 7, 33, True, False),)


def ceilings(device, clock, quick):
    """Bytes a second of a device copy (read and written), FLOP/s of cuBLAS's largest products."""
    xp = device.xp
    size = 1 << 16 if quick else COPIED
    a, b = xp.ones(size, "uint8"), xp.empty(size, "uint8")
    copied = clock.in_a_row(lambda: b.data.copy_from_device_async(a.data, size, device.stream))
    found = {"copy": 2 * size / copied["median"], "copy_best": 2 * size / copied["minimum"]}
    for name in precision.PRECISIONS:
        rates = []
        for n in (64,) if quick else (4096, 8192):
            product = gemm_times.Product(device, n, n, n)
            precision.cupy(xp, name)
            rates.append(product.flops / clock.each(product.cublas)["median"])
        found[name] = max(rates)
    precision.cupy(xp, "fp32")
    return found


def items(device, deadline, quick, failed=None):
    """name → function of this part, the most important first.

    ``failed``: family of kernels → why it is not timed.
    """
    clock = Clock(device, 0 if quick else SECONDS)
    squares = [(n, n, n) for n in (QUICK_SQUARES if quick else gemm_times.SQUARES)][::-1]
    skinny = QUICK_SKINNY if quick else gemm_times.SKINNY
    found = {"ceilings": lambda: ceilings(device, clock, quick)}
    gemm = {f"gemm {gemm_times.label(*shape)}": functools.partial(
        gemm_times.ladder, device, clock, shape) for shape in (*squares, *skinny)}
    first = next(iter(gemm))
    found[first] = gemm[first]
    found |= {f"convolution {which}": functools.partial(
        conv_times.measure, device, clock, which, quick) for which in conv_times.PASSES}
    found |= {f"memory: {group}": functools.partial(
        memory_times.measure, device, clock, group, quick, failed or {})
        for group in memory_times.GROUPS}
    found |= gemm
    found["sweep"] = lambda: gemm_times.sweep(device, clock, deadline, (*skinny, *squares[::-1]))
    for name in found:
        family = {"gemm": "gemm", "sweep": "gemm", "convolution": "conv2d"}.get(name.split()[0])
        if failed and family in failed:
            found[name] = lambda family=family: {"skipped": failed[family]}
    return found
