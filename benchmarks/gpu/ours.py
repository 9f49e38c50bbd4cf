"""scratchgen on the GPU, the models' own training step, recorded once and replayed.

"given": the step takes images and noise as arguments, as the peers' do. "drawn": the images lie on
the GPU and the noise is drawn in the step, as in training.
"""

import json
import pathlib
import tempfile

import numpy as np

import scratchgen as sg
from scratchgen import models, nn, optim
from scratchgen.engine.backend import backend, gpu
from scratchgen.engine.capture import capture
from scratchgen.engine.memory import copy_into, to_device, to_host
from scratchgen.models.base import Model

from ..peers.scratchgen import build, split
from ..workloads import Activation, BatchNorm, Conv, ConvTranspose, Dense, Flatten, Reshape
from . import precision

WINDOW = {"size": 4, "stride": 2, "padding": 1}
set_precision = precision.ours


class Given:
    """In place of the streams: the given arrays, one for each draw."""

    def __init__(self, arrays):
        self.arrays = iter(arrays)

    def __getitem__(self, name):
        return self

    def uniform(self, shape, dtype=np.float32):
        array = next(self.arrays)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if array.size != np.prod(shape) or array.dtype != dtype:
            raise ValueError(f"the step draws {dtype}{shape}, the workload has {array.shape}")
        return array.reshape(shape)

    normal = uniform


class DeepGAN(models.GAN):
    """The same game with networks of any depth, made of the workload's layers."""

    def __init__(self, w):
        Model.__init__(self, models.GAN.Config(arch="conv", latent=w.latent), w.image_shape)
        self.of_points = False
        self.generator, self.discriminator = (network(w.networks[name]) for name in
                                              ("generator", "discriminator"))


def network(layers):
    """A workload's layers as scratchgen's."""
    made = []
    for layer in layers:
        match layer:
            case Dense(inputs, outputs, activation):
                made.append(nn.Dense(inputs, outputs, activation))
            case Conv(inputs, outputs, bias):
                made.append(nn.Conv2d(inputs, outputs, **WINDOW, bias=bias))
            case ConvTranspose(inputs, outputs, bias, extra):
                made.append(nn.ConvTranspose2d(inputs, outputs, **WINDOW, bias=bias,
                                               output_padding=extra))
            case BatchNorm(channels):
                made.append(nn.BatchNorm(channels))
            case Activation(name):
                made.append(nn.Activation(name))
            case Reshape(shape):
                made.append(nn.Reshape(*shape))
            case Flatten():
                made.append(nn.Flatten())
    return nn.Sequential(*made)


def model_of(w):
    """The model; its parameters come in the order of the workload's."""
    if w.kind == "classifier":
        layers = [layer.outputs for layer in w.networks["net"][:-1]]
        return models.SDAE(models.SDAE.Config(layers=layers, levels=[0.1] * len(layers),
                                              pretrain=False), w.image_shape)
    if w.kind == "vae" and w.family == "mlp":
        hidden = [layer.outputs for layer in w.networks["encoder"]]
        return models.VAE(models.VAE.Config(hidden=hidden, latent=w.latent), w.image_shape)
    if w.kind == "gan" and w.family == "conv":
        return DeepGAN(w)
    return build(w)


class Peer:
    """``backend``: "cuda"; a test without a GPU takes another, where the step is not recorded."""

    def __init__(self, w, backend="cuda", drawn=False):
        sg.use_backend(backend)
        self.workload, self.drawn = w, drawn
        self.model, self.streams = model_of(w), sg.Streams(0)
        options = {"beta1": w.beta1} if w.optimiser == "adam" else {}
        self.optimisers = {name: optim.make(w.optimiser, part, w.lr, **options)
                           for name, part in self.model.networks().items()}
        self.initial = [(p, to_device(array)) for p, (_, array) in zip(
            self.model.parameters(), split(w, w.weights()), strict=True)]
        self.buffers = [(b, b.copy()) for b in self.model.named_buffers().values()]
        self.batches = [(to_device(x), [to_device(a) for a in noise]) for x, noise in w.batches()]
        x, noise = self.batches[0]
        labels = noise if w.kind == "classifier" else ()
        self.plain = (lambda: self.training_step(x, *labels)) if drawn else self.training_step
        self.captured = capture(self.plain, key=lambda: self.model.recording_key(self.optimisers))
        self.note = None                               # why the step is timed without a capture

    def reset(self, lr=None):
        """The initial weights and a new optimiser, in the same memory: what is recorded stays."""
        self.last = None
        for p, array in self.initial:
            if p.shape != array.shape:
                raise ValueError(f"the model has {p.shape} where the workload has {array.shape}")
            copy_into(p.data, array)
            p.changes[0] += 1
        for buffer, before in self.buffers:
            buffer[...] = before
        for optimiser in self.optimisers.values():
            optimiser.lr, optimiser.steps = lr or self.workload.lr, 0
            for array in optimiser.state.values():
                array[...] = 0

    def training_step(self, x, *noise):
        streams = self.streams if self.drawn else Given(noise)
        labels = noise[0] if self.workload.kind == "classifier" else None
        return self.model.training_step(x, streams, self.optimisers, labels=labels)

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        inputs = () if self.drawn else (x, *noise)
        if self.note is None:
            try:
                self.last = self.captured(*inputs)
                return
            except Exception as error:                 # recorded; the step can be timed without
                text = " ".join(str(error).split())[:300]
                self.note = f"not captured: {type(error).__name__}: {text}"
        self.last = self.plain(*inputs)

    def wait(self):
        if backend() == "cuda":
            gpu().synchronize()

    def losses(self):
        """Of the last step."""
        names = ("loss", "g_loss") if self.workload.kind == "gan" else ("loss",)
        return [float(to_host(self.last[name])) for name in names]

    def kernels(self, steps=20):
        """Each kernel's time in replayed steps, as CUPTI has it: {count, seconds, longest}.

        PyTorch's profiler reads CUPTI for the whole process, not only for PyTorch's own kernels.
        """
        from torch.profiler import ProfilerActivity, profile
        with profile(activities=[ProfilerActivity.CUDA]):
            self.wait()                                # CUPTI is there before the graph is made
        self.captured.graphs.clear()
        for i in range(4):
            self.step(i)
        self.wait()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            for i in range(steps):
                self.step(i)
            self.wait()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "trace.json"
            found.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        return of_trace(events, steps)


def of_trace(events, steps):
    """A step's kernels, copies and fills: how many, their time together, the longest by name."""
    times = {}
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            times.setdefault(event["name"], []).append(1e-6 * event["dur"] / steps)
    if not times:
        raise RuntimeError("the profiler saw no kernel")
    by_time = sorted(times.items(), key=lambda pair: -sum(pair[1]))
    return {"count": sum(map(len, times.values())) / steps,
            "seconds": sum(map(sum, times.values())),
            "longest": [[name[:80], len(t) / steps, sum(t)] for name, t in by_time[:12]]}
