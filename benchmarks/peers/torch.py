"""PyTorch, eager or compiled, at its best: functions on tensors without modules' overhead, fused
or foreach optimisers, gradients only for the player that moves, contiguous or channels-last images.

Compiled means that the losses are; their backward passes are compiled with them.
"""

import itertools
import types

import numpy as np
import torch
from torch.nn import functional as F

from .. import precision
from ..workloads import (
    PADDING,
    STRIDE,
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    Reshape,
    TiedDense,
)
from .layouts import from_torch, to_torch

ACTIVATIONS = {None: lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": F.relu,
               "leaky_relu": lambda x: F.leaky_relu(x, 0.2)}
LOSSES = ("dae_loss", "vae_loss", "regression_loss", "d_loss", "g_loss", "classifier_loss")
set_precision = precision.torch
numbers = itertools.count()


def set_threads(threads):
    torch.set_num_threads(threads)


class Peer:
    def __init__(self, workload, optimiser="fused", channels_last=False, compiled=False,
                 joined=False):
        self.workload, self.how, self.channels_last = workload, optimiser, channels_last
        self.joined = joined
        self.batches = [(torch.from_numpy(x), [torch.from_numpy(a) for a in noise])
                        for x, noise in workload.batches()]
        self.step_of = {"gan": self.gan_step}.get(workload.kind, self.plain_step)
        for name in LOSSES:
            setattr(self, name, torch.compile(getattr(self, name)) if compiled
                    else getattr(self, name))

    def reset(self, lr=None):
        w, self.seen, self.first = self.workload, [], None
        self.p = self.optimisers = None                        # the old ones go first
        self.p = {network: [{} for _ in layers] for network, layers in w.networks.items()}
        for (network, i, name), array in w.weights().items():
            native = torch.from_numpy(to_torch(w.networks[network][i], name, array,
                                               not self.channels_last))
            if native.ndim == 4 and self.channels_last:
                native = native.contiguous(memory_format=torch.channels_last)
            self.p[network][i][name] = native.requires_grad_()
        self.stats = {(network, i): (torch.zeros(layer.channels), torch.ones(layer.channels))
                      for network, layers in w.networks.items()
                      for i, layer in enumerate(layers) if isinstance(layer, BatchNorm)}
        groups = [[n] for n in w.networks] if w.kind == "gan" else [list(w.networks)]
        self.optimisers = [self.make_optimiser(group, lr or w.lr) for group in groups]

    def make_optimiser(self, networks, lr):
        w, own = self.workload, [p for n in networks for part in self.p[n] for p in part.values()]
        if w.optimiser == "sgd":
            return torch.optim.SGD(own, lr=lr, **{self.how: True})
        return torch.optim.Adam(own, lr=lr, betas=(w.beta1, 0.999), eps=1e-8,
                                **{self.how: True})

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        self.seen.append(self.step_of(x, *noise))
        if self.first is None:
            self.first = self.named(lambda p: p.grad.clone())

    def wait(self):
        pass

    def losses(self):
        return [[float(term) for term in terms] for terms in self.seen]

    def gradients(self):
        return self.first

    def parameters(self):
        return self.named(lambda p: p.detach())

    def named(self, tensor_of):
        return {(n, i, name): from_torch(self.workload.networks[n][i], name,
                                         tensor_of(p).contiguous().numpy(),
                                         not self.channels_last)
                for n, parts in self.p.items() for i, part in enumerate(parts)
                for name, p in part.items()}

    # --- steps -----------------------------------------------------------------------------------

    def plain_step(self, x, *noise):
        optimiser, = self.optimisers
        optimiser.zero_grad(set_to_none=True)
        loss = getattr(self, f"{self.workload.kind}_loss")(self.p, x, *noise)
        loss.backward()
        optimiser.step()
        return (loss.detach(),)

    def gan_step(self, x, z_d, z_g):
        of_g, of_d = self.optimisers
        of_d.zero_grad(set_to_none=True)
        d_loss = self.d_loss(self.p["discriminator"], detached(self.p["generator"]), x, z_d)
        d_loss.backward()
        of_d.step()
        of_g.zero_grad(set_to_none=True)
        g_loss = self.g_loss(self.p["generator"], detached(self.p["discriminator"]), z_g)
        g_loss.backward()
        of_g.step()
        return d_loss.detach(), g_loss.detach()

    # --- losses ----------------------------------------------------------------------------------

    def dae_loss(self, p, x, u):
        h = self.run("encoder", p["encoder"], torch.where(u < self.workload.level, 0.0, x))
        if isinstance(self.workload.networks["decoder"][0], TiedDense):
            logits = F.linear(h, p["encoder"][0]["w"].t(), p["decoder"][0]["b"])
        else:
            logits = self.run("decoder", p["decoder"], h)
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)

    def vae_loss(self, p, x, eps):
        mean, logvar = self.run("code", p["code"], self.run("encoder", p["encoder"], x)).chunk(2, 1)
        logits = self.run("decoder", p["decoder"], mean + torch.exp(0.5 * logvar) * eps)
        kl = 0.5 * torch.sum(mean.square() + logvar.exp() - logvar - 1)
        return (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)

    def regression_loss(self, p, x):
        return F.mse_loss(self.run("net", p["net"], x), x, reduction="sum") / len(x)

    def classifier_loss(self, p, x, labels):
        return F.cross_entropy(self.run("net", p["net"], x), labels)

    def d_loss(self, d, g, x, z):
        with torch.no_grad():
            fake = self.run("generator", g, z, moving=False)
        real = 2 * x - 1
        if self.joined:
            on_real, on_fake = self.run("discriminator", d, torch.cat((real, fake))).chunk(2)
        else:
            on_real, on_fake = (self.run("discriminator", d, rows) for rows in (real, fake))
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

    def g_loss(self, g, d, z):
        images = self.run("generator", g, z)
        return F.softplus(-self.run("discriminator", d, images, moving=False)).mean()

    def run(self, network, p, x, moving=True):
        """A network's output; ``moving``: whether its running statistics follow."""
        for i, (layer, own) in enumerate(zip(self.workload.networks[network], p, strict=True)):
            match layer:
                case Dense(activation=a):
                    x = ACTIVATIONS[a](F.linear(x, own["w"], own["b"]))
                case Conv():
                    x = F.conv2d(x, own["w"], own.get("b"), STRIDE, PADDING)
                case ConvTranspose(extra=extra):
                    x = F.conv_transpose2d(x, own["w"], own.get("b"), STRIDE, PADDING, extra)
                case BatchNorm():
                    stats = self.stats[network, i] if moving else (None, None)
                    x = F.batch_norm(x, *stats, own["gamma"], own["beta"], True, 0.1, 1e-5)
                case Activation(name):
                    x = ACTIVATIONS[name](x)
                case Reshape((h, w, c)):
                    x = (x.view(-1, h, w, c).permute(0, 3, 1, 2) if self.channels_last
                         else x.view(-1, c, h, w))
                case Flatten():
                    x = (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)
        return x


def detached(p):
    """The same weights as constants."""
    return [{name: tensor.detach() for name, tensor in part.items()} for part in p]


# --- on the GPU ----------------------------------------------------------------------------------

class CudaPeer(Peer):
    """PyTorch on the GPU; ``reset`` writes into the same memory, so that CUDA graphs stay valid.

    how="eager"     fused or foreach optimiser, channels last or not
    how="compiled"  the losses by torch.compile(mode=…), "max-autotune" or "reduce-overhead": CUDA
                    graphs of the forward and of the backward pass; the fused optimiser after them
    how="whole"     the losses compiled (mode None), and the whole step, optimiser included, in one
                    CUDA graph: the fastest form of a small network in PyTorch
    """

    def __init__(self, workload, how="eager", mode=None, optimiser="fused", channels_last=False,
                 joined=False, device="cuda"):
        self.workload, self.whole, self.device = workload, how == "whole", device
        self.how, self.channels_last, self.joined = optimiser, channels_last, joined
        self.graph, self.last = None, None
        self.batches = [(self.native(self.images(x)), [self.native(a) for a in noise])
                        for x, noise in workload.batches()]
        self.step_of = {"gan": self.gan_step}.get(workload.kind, self.plain_step)
        if how != "eager":
            for name in LOSSES:
                setattr(self, name, compile_copy(getattr(self, name), mode))
        self.marks = how == "compiled"
        self.make_state()

    def native(self, array):
        return torch.from_numpy(array).to(self.device)

    def images(self, x):
        """Rows as this layout has them: colours first, or last as in the workload."""
        shape = self.workload.image_shape
        if self.channels_last or len(shape) < 3 or shape[-1] == 1:
            return x
        return np.ascontiguousarray(x.reshape(-1, *shape).transpose(0, 3, 1, 2)).reshape(len(x), -1)

    def make_state(self):
        """Weights, statistics and optimisers; ``reset`` writes into them."""
        w = self.workload
        self.p = {network: [{} for _ in layers] for network, layers in w.networks.items()}
        self.initial = []
        for (network, i, name), array in w.weights().items():
            tensor = self.native(to_torch(w.networks[network][i], name, array,
                                          not self.channels_last))
            if tensor.ndim == 4 and self.channels_last:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.p[network][i][name] = tensor.clone().requires_grad_()
            self.initial.append((self.p[network][i][name], tensor))
        self.stats = {(network, i): (torch.zeros(layer.channels, device=self.device),
                                     torch.ones(layer.channels, device=self.device))
                      for network, layers in w.networks.items()
                      for i, layer in enumerate(layers) if isinstance(layer, BatchNorm)}
        groups = [[n] for n in w.networks] if w.kind == "gan" else [list(w.networks)]
        self.optimisers = [self.make_optimiser(group, w.lr) for group in groups]

    def make_optimiser(self, networks, lr):
        if not self.whole or self.workload.optimiser == "sgd":
            return super().make_optimiser(networks, lr)
        own = [p for n in networks for part in self.p[n] for p in part.values()]
        rate = torch.tensor(lr, device=self.device)    # a graph reads it, so that it can change
        return torch.optim.Adam(own, lr=rate, betas=(self.workload.beta1, 0.999), eps=1e-8,
                                fused=True, capturable=True)

    @torch.no_grad()
    def reset(self, lr=None):
        for p, tensor in self.initial:
            p.copy_(tensor)
        for mean, var in self.stats.values():
            mean.zero_()
            var.fill_(1)
        for optimiser in self.optimisers:
            for state in optimiser.state.values():
                for tensor in state.values():
                    if isinstance(tensor, torch.Tensor):
                        tensor.zero_()
            for group in optimiser.param_groups:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(lr or self.workload.lr)
                else:
                    group["lr"] = lr or self.workload.lr

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        if self.whole:
            if self.graph is None:
                self.record(x, noise)
            for mine, given in zip(self.inputs, (x, *noise), strict=True):
                mine.copy_(given)
            self.graph.replay()
            self.last = self.results
            return
        if self.marks:
            torch.compiler.cudagraph_mark_step_begin()
        self.last = self.step_of(x, *noise)

    def record(self, x, noise):
        """The step as a CUDA graph, after some that run as they are, as PyTorch's manual says."""
        self.inputs = [a.clone() for a in (x, *noise)]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step_of(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.results = self.step_of(*self.inputs)
        self.graph = graph
        self.reset()

    def wait(self):
        if self.device != "cpu":
            torch.cuda.synchronize()

    def losses(self):
        """Of the last step."""
        return [float(term) for term in self.last]


def compile_copy(method, mode):
    """Compiles a copy of a method: torch.compile caches its results by code object, a few versions
    for each, and would check all of them at each call."""
    function = method.__func__
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(numbers)}")
    copy = types.FunctionType(code, function.__globals__, code.co_name, function.__defaults__,
                              function.__closure__)
    return torch.compile(types.MethodType(copy, method.__self__), mode=mode, dynamic=False)
