"""A convolution's three passes beside cuDNN: N 128, 32×32, 128 → 128 channels, 3×3.

cuDNN is called through PyTorch with its search for the fastest algorithm on, in float32 and TF32,
with channels last and first; the faster layout counts. Both sides are timed by the same events on
the same stream. Before, both are compared with cuDNN in float64: in float32 it may choose
Winograd's algorithm, which multiplies less and rounds more, and is then no reference.
"""

import contextlib

from .. import precision

SIZES = {"n": 128, "side": 32, "channels": 128}
QUICK = {"n": 2, "side": 6, "channels": 8}
KERNEL, STRIDE, PADDING, DILATION = (3, 3), (1, 1), (1, 1), (1, 1)
RUNGS = {"fp32": ("naive", "implicit_gemm"), "tf32": ("tensor_core",)}
RTOL = {"fp32": 2e-5, "tf32": 5e-3}                    # of the largest element, beside float64
PASSES = ("forward", "backward_x", "backward_w")


class Convolution:
    """The arrays of the three passes, ours; ``call(pass)`` runs one."""

    def __init__(self, device, n, side, channels):
        xp = device.xp
        rng = xp.random.default_rng(2)
        shape = (n, side, side, channels)
        self.x, self.g = (rng.standard_normal(shape, dtype=xp.float32) for _ in range(2))
        self.w = rng.standard_normal((9 * channels, channels), dtype=xp.float32) / 30
        self.transposed = xp.ascontiguousarray(self.w.T)
        self.b, self.y = xp.zeros(channels, xp.float32), xp.empty(shape, xp.float32)
        self.dx, self.dw = xp.empty_like(self.x), xp.empty_like(self.w)
        self.flops = 2 * n * side * side * 9 * channels * channels
        self.bytes = {"forward": 4 * (2 * self.x.size + self.w.size),
                      "backward_x": 4 * (2 * self.x.size + self.w.size),
                      "backward_w": 4 * (2 * self.x.size + self.w.size)}

    def call(self, which):
        from scratchgen.kernels import conv2d
        geometry = KERNEL, STRIDE, PADDING, DILATION
        if which == "forward":
            conv2d.forward_cuda(self.x, self.w, self.b, 0, *geometry, self.y)
        elif which == "backward_x":
            conv2d.backward_x_cuda(self.g, self.transposed, self.b, 0, *geometry, self.dx)
        else:
            conv2d.backward_w_cuda(self.x, self.g, *geometry, self.dw)

    def result(self, which):
        return {"forward": self.y, "backward_x": self.dx, "backward_w": self.dw}[which]


class CuDNN:
    """The same through PyTorch, which reads our arrays where they lie."""

    def __init__(self, ours, channels_last, exact=False):
        import torch
        self.torch = torch
        form = torch.channels_last if channels_last else torch.contiguous_format
        c = ours.b.size

        def images(a):                                 # (N, H, W, C) → N C H W
            return torch.from_dlpack(a).permute(0, 3, 1, 2).contiguous(memory_format=form)
        self.x, self.g = images(ours.x), images(ours.g)
        filters = torch.from_dlpack(ours.w).reshape(3, 3, c, c).permute(3, 2, 0, 1)
        self.w, self.b = filters.contiguous(memory_format=form), torch.from_dlpack(ours.b)
        if exact:
            self.x, self.g, self.w, self.b = (
                a.double() for a in (self.x, self.g, self.w, self.b))

    def call(self, which):
        torch = self.torch
        if which == "forward":
            self.out = torch.nn.functional.conv2d(self.x, self.w, self.b, STRIDE, PADDING)
            return
        wanted = [which == "backward_x", which == "backward_w", False]
        found = torch.ops.aten.convolution_backward(
            self.g, self.x, self.w, None, STRIDE, PADDING, DILATION, False, [0, 0], 1, wanted)
        self.out = found[0] if which == "backward_x" else found[1]

    def result(self, which, xp):
        """In our layout, as an array of CuPy."""
        out = self.out.detach()
        out = out.permute(0, 2, 3, 1) if which != "backward_w" else out.permute(2, 3, 1, 0).reshape(
            -1, out.shape[0])
        return xp.from_dlpack(out.contiguous())


@contextlib.contextmanager
def on_our_stream(device):
    """PyTorch's work goes to the stream that the events are on."""
    import torch
    with torch.cuda.stream(torch.cuda.ExternalStream(device.stream.ptr)), torch.no_grad():
        yield


def difference(xp, found, expected):
    return float(xp.max(xp.abs(found - expected)) / xp.max(xp.abs(expected)))


def measure(device, clock, which, quick=False):
    """{flops, bytes, cudnn: {"fp32, channels last": …}, rungs: {…}} of one pass."""
    from scratchgen.kernels.conv2d_chooser import use_convolution
    ours = Convolution(device, **(QUICK if quick else SIZES))
    found = {"flops": ours.flops, "bytes": ours.bytes[which], "cudnn": {}, "rungs": {}}
    with on_our_stream(device):
        exact = CuDNN(ours, False, exact=True)
        exact.call(which)
        expected = exact.result(which, device.xp)
        del exact                                      # its arrays are large
        for name in precision.PRECISIONS:
            precision.torch(name)
            for last in (True, False):
                theirs = CuDNN(ours, last)
                theirs.call(which)
                result = theirs.result(which, device.xp)
                found["cudnn"][f"{name}, channels {'last' if last else 'first'}"] = {
                    "error": difference(device.xp, result, expected),
                    "time": clock.each(lambda t=theirs: t.call(which))}
    for name in precision.PRECISIONS:
        precision.ours(name)
        for rung in RUNGS[name]:
            with use_convolution(rung):
                ours.result(which).fill(float("nan"))
                ours.call(which)
                error = difference(device.xp, ours.result(which), expected)
                timed = found["rungs"][f"{rung}, {name}"] = {
                    "error": error, "ok": error <= RTOL[name]}
                if timed["ok"]:                        # what is wrong is not timed
                    timed["time"] = clock.each(lambda: ours.call(which), most=20)
    precision.ours("fp32")
    found["ok"] = all(r["ok"] for r in found["rungs"].values())
    return found
