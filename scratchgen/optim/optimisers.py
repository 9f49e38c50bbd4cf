"""The optimisers: SGD, Adagrad, RMSprop, Adam, AdamW. Their base class is in ``base.py``."""

import inspect
import math
from collections.abc import Iterable
from typing import Any, Literal

from ..errors import unknown
from ..nn.module import Module
from ..nn.parameters import Parameter
from .base import Optimiser, Schedule, check_number, optimizer_kernels

OptimiserName = Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"]


class SGD(Optimiser):
    """Stochastic gradient descent with momentum, classical or Nesterov's. Sutskever et al. 2013.

    g += weight_decay p;  m = momentum m + g;  p −= lr (g + momentum m  if nesterov else  m).
    """

    slots = ("m",)

    def __init__(self, network: Module | Iterable[Parameter], lr: float, momentum: float = 0.0,
                 nesterov: bool = False, *, schedule: Schedule | None = None,
                 weight_decay: float = 0.0) -> None:
        check_number("the momentum", momentum, 0, below=1)
        super().__init__(network, lr, schedule, weight_decay)
        self.momentum, self.nesterov = momentum, bool(nesterov)

    def coefficients(self, steps, missed=0):
        return self.learning_rate(steps), self.momentum, self.weight_decay

    def update(self, p, g, m, numbers):
        optimizer_kernels.sgd(p, g, m, numbers, self.nesterov)


class Adagrad(Optimiser):
    """Adagrad: v += g²;  p −= lr g/(√v + eps). Duchi, Hazan & Singer 2011."""

    slots = ("v",)

    def __init__(self, network: Module | Iterable[Parameter], lr: float, eps: float = 1e-10, *,
                 schedule: Schedule | None = None, weight_decay: float = 0.0) -> None:
        check_number("eps", eps, 0)
        super().__init__(network, lr, schedule, weight_decay)
        self.eps = eps

    def coefficients(self, steps, missed=0):
        return self.learning_rate(steps), self.eps, self.weight_decay

    def update(self, p, g, v, numbers):
        optimizer_kernels.adagrad(p, g, v, numbers)


class RMSprop(Optimiser):
    """RMSprop: v = alpha v + (1 − alpha) g²;  p −= lr g/(√v + eps). Tieleman & Hinton 2012."""

    slots = ("v",)

    def __init__(self, network: Module | Iterable[Parameter], lr: float, alpha: float = 0.99,
                 eps: float = 1e-8, *, schedule: Schedule | None = None,
                 weight_decay: float = 0.0) -> None:
        check_number("alpha", alpha, 0, below=1)
        check_number("eps", eps, 0)
        super().__init__(network, lr, schedule, weight_decay)
        self.alpha, self.eps = alpha, eps

    def coefficients(self, steps, missed=0):
        return (self.learning_rate(steps), self.alpha, 1 - self.alpha, self.eps,
                self.weight_decay)

    def update(self, p, g, v, numbers):
        optimizer_kernels.rmsprop(p, g, v, numbers)


class Adam(Optimiser):
    """Adam, with weight decay as L2 regularisation. Kingma & Ba 2015, algorithm 1.

    m = β₁ m + (1 − β₁) g;  v = β₂ v + (1 − β₂) g²;  p −= lr m̂/(√v̂ + eps) with
    m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) in step t = 1, 2, …
    """

    slots = ("m", "v")
    decoupled = False

    def __init__(self, network: Module | Iterable[Parameter], lr: float = 1e-3,
                 beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, *,
                 schedule: Schedule | None = None, weight_decay: float = 0.0) -> None:
        check_number("beta1", beta1, 0, below=1)
        check_number("beta2", beta2, 0, below=1)
        check_number("eps", eps, 0)
        super().__init__(network, lr, schedule, weight_decay)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def coefficients(self, steps, missed=0):
        lr, t = self.learning_rate(steps), steps + 1 - missed
        bias1, bias2 = 1 - self.beta1**t, 1 - self.beta2**t
        decay, shrink = (0, 1 - lr * self.weight_decay) if self.decoupled else (
            self.weight_decay, 1)
        return (lr / bias1, self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2,
                1 / math.sqrt(bias2), self.eps, decay, shrink)

    def update(self, p, g, m, v, numbers):
        optimizer_kernels.adam(p, g, m, v, numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay: p is also multiplied by 1 − lr weight_decay in each step.
    Loshchilov & Hutter 2019, algorithm 2."""

    decoupled = True


OPTIMISERS: dict[str, type[Optimiser]] = {
    "sgd": SGD, "adagrad": Adagrad, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def make(name: OptimiserName, network: Module | Iterable[Parameter], lr: float,
         **options: Any) -> Optimiser:
    """An optimiser by name: sgd, adagrad, rmsprop, adam, adamw.

    Options that only other optimisers have are ignored, so that a configuration can switch.
    """
    if name not in OPTIMISERS:
        raise unknown("optimizer", name, OPTIMISERS)
    accepted = {known: options_of(known) for known in OPTIMISERS}
    for option in options:
        if not any(option in names for names in accepted.values()):
            raise unknown("optimizer option", option, set().union(*accepted.values()))
    return OPTIMISERS[name](network, lr, **{option: value for option, value in options.items()
                                            if option in accepted[name]})


def options_of(name: OptimiserName) -> set[str]:
    """The names of an optimiser's options."""
    return set(inspect.signature(OPTIMISERS[name]).parameters) - {"network", "lr"}
