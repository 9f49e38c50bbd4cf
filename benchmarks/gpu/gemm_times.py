"""The ladder of the matrix product beside cuBLAS, and the sweep for the chooser's table.

cuBLAS is called through CuPy, in float32 and in TF32. Before a rung is timed, its product is
compared with cuBLAS's. Times: with an empty cache ("cold"), and for small shapes also from a CUDA
graph whose arrays lie in the cache ("warm"); cuBLAS, which CuPy cannot capture, by calls back to
back, whose launches count where they take longer than the product.
"""

import math

from .. import precision

RUNGS = ("naive", "tiled", "register_tiled", "split", "tensor_core", "wgmma", "auto")
TENSOR_CORES = ("tensor_core", "wgmma")                # these compute in TF32
SQUARES = (512, 1024, 2048, 4096)
# (M, N, K, ta, tb): products of the training steps, small and skinny
SKINNY = ((100, 500, 784, False, False), (100, 20, 500, False, False), (784, 500, 100, True, False),
          (100, 784, 500, False, False), (100, 500, 784, False, True), (500, 40, 100, True, False),
          (20, 1000, 1000, False, False), (128, 1000, 784, False, False),
          (784, 1000, 128, True, False), (128, 784, 1000, False, True),
          (4096, 4096, 784, False, False), (784, 4096, 4096, True, False))
NAIVE_AT_MOST = 2048 ** 3
WARM_BELOW = 1 << 33                                   # floating-point operations
RTOL = {"fp32": 1e-5, "tf32": 3e-3}                    # of the largest element, beside cuBLAS fp32
TILES = {"register_tiled": ((128, 128), (64, 64), (32, 32)), "tensor_core": ((128, 128), (64, 64)),
         "wgmma": ((128, 256), (128, 128))}
SPLITS = (1, 2, 4, 8, 16)


class Product:
    """c = a b of one shape, with N(0, 1) factors, and cuBLAS's answer."""

    def __init__(self, device, m, n, k, ta=False, tb=False):
        xp, self.device = device.xp, device
        rng = xp.random.default_rng(1)
        self.a = rng.standard_normal((k, m) if ta else (m, k), dtype=xp.float32)
        self.b = rng.standard_normal((n, k) if tb else (k, n), dtype=xp.float32)
        self.c, self.ta, self.tb, self.flops = xp.empty((m, n), xp.float32), ta, tb, 2 * m * n * k
        self.bytes = 4 * (m * k + k * n + m * n)
        precision.cupy(xp, "fp32")
        self.cublas()
        self.expected = self.c.copy()

    def cublas(self):
        """Straight into c: ``dot`` makes no copy of what lies transposed."""
        self.device.xp.dot(self.a.T if self.ta else self.a, self.b.T if self.tb else self.b,
                           out=self.c)

    def ours(self):
        from scratchgen.kernels.gemm import matmul_cuda
        matmul_cuda(self.a, self.b, self.c, self.ta, self.tb)

    def error(self):
        """Of what c holds, relative to the largest element."""
        xp = self.device.xp
        return float(xp.max(xp.abs(self.c - self.expected)) / xp.max(xp.abs(self.expected)))

    def timed(self, clock, function, rtol):
        """A dict: cold, warm, error, ok."""
        self.c.fill(math.nan)
        function()
        found = {"error": self.error()}
        found["ok"] = found["error"] <= rtol           # NaN fails
        if found["ok"]:
            found["cold"] = clock.each(function)
            if self.flops < WARM_BELOW:                # CuPy cannot call cuBLAS in a capture
                found["warm"] = (clock.in_a_row(function, calls=20) if function == self.cublas
                                 else clock.replayed(function))
        return found


def label(m, n, k, ta=False, tb=False):
    """As in BLAS: the letters say which factors are given transposed."""
    return f"{m}×{n}×{k} {'T' if ta else 'N'}{'T' if tb else 'N'}"


def ladder(device, clock, shape):
    """{flops, bytes, rungs: {name: …}, cublas: {fp32: …, tf32: …}} of one shape."""
    from scratchgen.kernels.gemm_chooser import WARPGROUPS, use_gemm
    product = Product(device, *shape)
    found = {"label": label(*shape), "flops": product.flops, "bytes": product.bytes,
             "cublas": {}, "rungs": {}}
    for name in precision.PRECISIONS:
        precision.cupy(device.xp, name)
        found["cublas"][name] = product.timed(clock, product.cublas, RTOL[name])
    precision.cupy(device.xp, "fp32")
    for rung in RUNGS:
        if rung == "naive" and math.prod(shape[:3]) > NAIVE_AT_MOST:
            continue
        if rung == "wgmma" and device.capability != WARPGROUPS:
            continue
        tf32 = rung in TENSOR_CORES
        precision.ours("tf32" if tf32 else "fp32")
        with use_gemm(rung):
            found["rungs"][rung] = product.timed(clock, product.ours,
                                                 RTOL["tf32" if tf32 else "fp32"])
    precision.ours("fp32")
    found["ok"] = all(r["ok"] for r in found["rungs"].values())
    return found


def sweep(device, clock, deadline, shapes):
    """shape → {"rung tile split": warm median}: what the chooser's table should say."""
    from scratchgen.kernels.gemm_chooser import WARPGROUPS, use_gemm
    found, ok = {}, True
    for shape in shapes:
        if deadline.left() < 3:
            break
        product, row = Product(device, *shape), found.setdefault(label(*shape), {})
        calls = 10 if product.flops < WARM_BELOW else 1
        for rung, tiles in TILES.items():
            if rung == "wgmma" and device.capability != WARPGROUPS:
                continue
            tf32 = "tf32" if rung in TENSOR_CORES else "fp32"
            precision.ours(tf32)
            for tile in tiles:
                for split in SPLITS[:1] if rung == "wgmma" else SPLITS:
                    with use_gemm(rung, tile=tile, split=split):
                        product.ours()
                        right = product.error() <= RTOL[tf32]
                        ok &= right
                        row[f"{rung} {tile[0]}×{tile[1]} {split}"] = clock.replayed(
                            product.ours, calls, most=5)["median"] if right else None
        precision.ours("fp32")
    return {"times": found, "ok": ok}
