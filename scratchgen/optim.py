"""Optimisers: one for a network, over the one buffer in which its parameters lie.

A schedule is a function step → factor on the learning rate, with step = 0, 1, ….
"""

import inspect
import math

import numpy as np

from .backend import backend, kernels
from .capture import varying
from .errors import UserError, unknown
from .memory import empty, host, put, reuse_freed_memory
from .other_names import OPTIM, missing

optimizer_kernels = kernels("optimizer")


class Optimiser:
    """Base: the packed network, the step count, the state arrays named in ``slots``."""

    slots = ()

    def __init__(self, network, lr, schedule=None, weight_decay=0.0):
        if not lr > 0 or not math.isfinite(lr):
            raise UserError(f"the learning rate is {lr}; give a positive number, for example 1e-3")
        if not weight_decay >= 0:
            raise UserError(f"the weight decay is {weight_decay}; give a number that is not "
                            "negative")
        reuse_freed_memory()
        self.network, self.lr, self.schedule = network, lr, schedule
        self.weight_decay, self.steps = weight_decay, 0
        self.parameters = network.parameters()
        self.data, self.grads = network.pack()
        self.state = {name: np.zeros_like(self.data) for name in self.slots}   # where the data are

    def zero_grad(self):
        """Forget the gradients: the next backward writes over them."""
        for p in self.parameters:
            p.grad = None

    def gather(self):
        """The gradient buffer (P,), complete: zeros where a parameter has no gradient."""
        for p in self.parameters:
            if p.grad is None:
                p.grad_buffer[...] = 0
            elif p.grad.data is not p.grad_buffer:     # made with create_graph
                p.take_gradient(p.grad.data)
        return self.grads

    def step(self):
        """One update of all parameters from their gradients."""
        self.gather()
        self.update(varying(self, "steps", self.numbers, self.data.dtype))
        self.steps += 1
        for p in self.parameters:
            p.changes[0] += 1

    def rate(self, steps):
        """The learning rate of the step after ``steps`` others."""
        return self.lr * (self.schedule(steps) if self.schedule else 1)

    def numbers(self, steps):
        """What the kernel calls ``numbers``, for the step after ``steps`` others."""
        raise NotImplementedError

    def update(self, numbers):
        """Call the kernel."""
        raise NotImplementedError

    def state_dict(self):
        """The state arrays, copied, and the step count."""
        return {"step": np.array(self.steps, np.int64),
                **{name: np.array(host(array)) for name, array in self.state.items()}}

    def load_state_dict(self, state):
        """Continue from a saved state."""
        for name, array in self.state.items():
            if name not in state or state[name].shape != array.shape:
                raise UserError(f"the saved optimiser state does not fit: {name} should be "
                                f"{array.shape}; resume with the optimiser and network it is of")
            put(array, state[name])
        self.steps = int(state["step"])


class SGD(Optimiser):
    """Stochastic gradient descent, with momentum and Nesterov's variant. Sutskever et al. 2013."""

    slots = ("m",)

    def __init__(self, network, lr, momentum=0.0, nesterov=False, **options):
        super().__init__(network, lr, **options)
        self.momentum, self.nesterov = momentum, nesterov

    def numbers(self, steps):
        return self.rate(steps), self.momentum, self.weight_decay

    def update(self, numbers):
        optimizer_kernels.sgd(self.data, self.grads, self.state["m"], numbers, self.nesterov)


class Adagrad(Optimiser):
    """Duchi, Hazan & Singer 2011."""

    slots = ("v",)

    def __init__(self, network, lr, eps=1e-10, **options):
        super().__init__(network, lr, **options)
        self.eps = eps

    def numbers(self, steps):
        return self.rate(steps), self.eps, self.weight_decay

    def update(self, numbers):
        optimizer_kernels.adagrad(self.data, self.grads, self.state["v"], numbers)


class RMSprop(Optimiser):
    """Tieleman & Hinton 2012."""

    slots = ("v",)

    def __init__(self, network, lr, alpha=0.99, eps=1e-8, **options):
        super().__init__(network, lr, **options)
        self.alpha, self.eps = alpha, eps

    def numbers(self, steps):
        return self.rate(steps), self.alpha, 1 - self.alpha, self.eps, self.weight_decay

    def update(self, numbers):
        optimizer_kernels.rmsprop(self.data, self.grads, self.state["v"], numbers)


class Adam(Optimiser):
    """Kingma & Ba 2015; weight decay as L2 regularisation."""

    slots = ("m", "v")
    decoupled = False

    def __init__(self, network, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, **options):
        super().__init__(network, lr, **options)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def numbers(self, steps):
        lr, t = self.rate(steps), steps + 1
        bias1, bias2 = 1 - self.beta1**t, 1 - self.beta2**t
        decay, shrink = (0, 1 - lr * self.weight_decay) if self.decoupled else (
            self.weight_decay, 1)
        return (lr / bias1, self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2,
                math.sqrt(bias2), self.eps, decay, shrink)

    def update(self, numbers):
        optimizer_kernels.adam(self.data, self.grads, self.state["m"], self.state["v"], numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019."""

    decoupled = True


OPTIMISERS = {"sgd": SGD, "adagrad": Adagrad, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def make(name, network, lr, **options):
    """An optimiser by name: sgd, adagrad, rmsprop, adam, adamw.

    Options that only other optimisers take are passed over, so that a configuration can switch.
    """
    if name not in OPTIMISERS:
        raise unknown("optimizer", name, OPTIMISERS)
    takes = {known: options_of(known) for known in OPTIMISERS}
    for option in options:
        if not any(option in names for names in takes.values()):
            raise unknown("optimizer option", option, set().union(*takes.values()))
    return OPTIMISERS[name](network, lr, **{o: v for o, v in options.items() if o in takes[name]})


def options_of(name):
    """The names of an optimiser's options."""
    return {parameter for cls in OPTIMISERS[name].__mro__[:-1]
            for parameter in inspect.signature(cls.__init__).parameters
            if parameter not in ("self", "network", "lr", "options")}


# --- schedules -----------------------------------------------------------------------------------

def exponential(rate):
    """rateˢᵗᵉᵖ"""
    return lambda step: rate**step


def cosine(steps):
    """From 1 to 0 along half a cosine over ``steps``, then 0. Loshchilov & Hutter 2017."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def warmup(steps, then=None):
    """From 1/steps up to 1 in equal steps, then another schedule."""
    return lambda step: (step + 1) / steps if step < steps else then(step - steps) if then else 1


def piecewise(boundaries, factors):
    """factors[i] from boundaries[i−1] up to boundaries[i] steps; one factor more."""
    return lambda step: factors[sum(step >= b for b in boundaries)]


# --- clipping ------------------------------------------------------------------------------------

def clip_norm(optimiser, limit):
    """Scale all gradients so that their joint norm is at most ``limit``; returns the norm before.
    """
    grads = optimiser.gather()
    norm = empty((1,), np.float64)
    optimizer_kernels.clip_norm(grads, float(limit), norm)
    return norm[0] if backend() == "cuda" else float(norm[0])


def clip_value(optimiser, limit):
    """Limit each gradient to [−limit, limit]."""
    grads = optimiser.gather()
    np.clip(grads, -limit, limit, out=grads)


def __getattr__(name):
    raise missing("scratchgen.optim", name, OPTIM, __dir__())


def __dir__():
    return sorted(globals())
