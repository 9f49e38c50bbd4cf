"""scratchgen, as the trainer uses it: the models' own ``training_step``, layers for the tiny net,
recorded once and replayed.

The step draws its noise from streams; here these hand out the workload's arrays.
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

from .. import precision
from ..workloads import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    Reshape,
    parameter_shapes,
)

WINDOW = {"size": 4, "stride": 2, "padding": 1}
set_precision = precision.ours


class Given:
    """Replaces the streams: returns the given arrays, one for each draw."""

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


class Regression(nn.Module):
    """The tiny net, with a training step like the models'."""

    def __init__(self, layers):
        self.net = nn.Sequential(*(nn.Dense(*layer[:3]) for layer in layers))

    def networks(self):
        return {"model": self}

    def recording_key(self, optimisers):
        return ()

    def training_step(self, x, streams, optimisers):
        optimisers["model"].zero_grad()
        loss = sg.mse(self.net(sg.Tensor(x)), x) / len(x)
        loss.backward()
        optimisers["model"].step()
        return {"loss": loss.data}


class Peer:
    def __init__(self, workload, backend="numba"):
        self.workload, self.batches = workload, workload.batches()
        sg.use_backend(backend)

    def reset(self, lr=None):
        w, self.seen, self.model, self.optimisers = self.workload, [], None, None    # old ones go
        self.model = build(w)
        targets = self.model.parameters()
        for p, (_, array) in zip(targets, split(w, w.weights()), strict=True):
            if p.shape != array.shape:
                raise ValueError(f"the model has {p.shape} where the workload has {array.shape}")
            p.data[...] = array
        options = {"beta1": w.beta1} if w.optimiser == "adam" else {}
        self.optimisers = {name: optim.make(w.optimiser, network, lr or w.lr, **options)
                           for name, network in self.model.networks().items()}
        model, optimisers = self.model, self.optimisers
        self.captured = capture(
            lambda x, *noise: model.training_step(x, Given(noise), optimisers),
            lambda: model.recording_key(optimisers))

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        terms = self.captured(x, *noise)
        self.seen.append({name: float(value) for name, value in terms.items()})

    def wait(self):
        pass

    def losses(self):
        names = ("loss", "g_loss") if self.workload.kind == "gan" else ("loss",)
        return [[terms[name] for name in names] for terms in self.seen]

    def gradients(self):
        return self.named(lambda p: p.grad.data)

    def parameters(self):
        return self.named(lambda p: p.data)

    def named(self, array_of):
        """Arrays by the workload's names; mean and logvar become one layer again."""
        keys = [key for key, _ in split(self.workload, self.workload.weights())]
        found = {}
        for key, p in zip(keys, self.model.parameters(), strict=True):
            found.setdefault(key, []).append(array_of(p))
        return {key: np.concatenate(parts, axis=-1).copy() for key, parts in found.items()}


def build(w):
    """The model of a workload; its parameters come in the order of the workload's."""
    layers = w.networks
    if w.kind == "dae":
        tied = not parameter_shapes(layers["decoder"][0]).get("w")
        return models.DAE(models.DAE.Config(hidden=layers["encoder"][0].outputs, level=w.level,
                                            tied=tied), w.image_shape)
    if w.kind == "regression":
        return Regression(layers["net"])
    arch = {"mlp": "mlp", "conv": "conv"}[w.family]
    if w.kind == "vae":
        how = ({"hidden": layers["encoder"][0].outputs} if arch == "mlp" else
               {"activation": "relu"})
        return models.VAE(models.VAE.Config(arch=arch, latent=w.latent, **how), w.image_shape)
    return models.GAN(models.GAN.Config(arch=arch, latent=w.latent), w.image_shape)


def split(w, arrays):
    """(key, array) in the order of the model's parameters: a VAE's code is mean, then logvar."""
    pairs = []
    for half in (0, 1):
        pairs += [(key, np.split(array, 2, axis=-1)[half]) for key, array in arrays.items()
                  if key[0] == "code"]
    own = [(key, array) for key, array in arrays.items() if key[0] != "code"]
    before = [pair for pair in own if pair[0][0] == "encoder"]
    return [*before, *pairs, *(pair for pair in own if pair[0][0] != "encoder")]


# --- on the GPU ----------------------------------------------------------------------------------

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


class CudaPeer:
    """scratchgen on the GPU: the models' training step, recorded once and replayed.

    The step takes images and noise as arguments, as the peers' steps do; with ``drawn`` the images
    lie on the GPU and the noise is drawn in the step, as in training. Another
    ``backend`` than "cuda" is for tests without a GPU; the step is then not recorded.
    """

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
        self.captured.recordings.clear()
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
