"""PyTorch on the GPU: eager, compiled with its own CUDA graphs, or a whole compiled step as one.

    how="eager"     fused or foreach optimiser, channels last or not
    how="compiled"  the losses by torch.compile(mode=…), "max-autotune" or "reduce-overhead": CUDA
                    graphs of the forward and of the backward pass; the fused optimiser behind them
    how="whole"     the losses compiled (mode None), and the whole step, optimiser included, in one
                    CUDA graph: what PyTorch can do at most for a small network

Losses and networks are those of ``benchmarks/peers/torch.py``.
"""

import itertools
import types

import numpy as np
import torch
from torch.nn import functional as F

from ..peers import torch as on_cpu
from ..peers.layouts import to_torch
from ..workloads import BatchNorm
from . import precision

LOSSES = ("dae_loss", "vae_loss", "regression_loss", "d_loss", "g_loss", "classifier_loss")
set_precision = precision.torch
numbers = itertools.count()


class Peer(on_cpu.Peer):
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
                setattr(self, name, compiled(getattr(self, name), mode))
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

    def classifier_loss(self, p, x, labels):
        return F.cross_entropy(self.run("net", p["net"], x), labels)


def compiled(method, mode):
    """A method compiled, from a copy of its code: torch.compile keeps what it made by the code, a
    few versions at most, and would go through all of them at each call."""
    function = method.__func__
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(numbers)}")
    copy = types.FunctionType(code, function.__globals__, code.co_name, function.__defaults__,
                              function.__closure__)
    return torch.compile(types.MethodType(copy, method.__self__), mode=mode, dynamic=False)
