"""Optimisers: one for a network, over the one buffer in which its parameters lie.

Their learning rate follows a schedule (``schedules.py``), a function step → factor.
"""

import functools
import inspect
import math
from numbers import Real

import numpy as np

from ..engine.backend import backend, kernels
from ..engine.capture import Captured, varying
from ..engine.copies import carried
from ..engine.memory import copy_into, empty, reuse_freed_memory, to_host
from ..engine.other_names import NO_ZEROS
from ..errors import UserError, unknown
from ..nn.module import Structure
from ..nn.parameters import checked_parameters, packed

optimizer_kernels = kernels("optimizer")


class Optimiser:
    """Base: the packed parameters, the step count, the state arrays named in ``slots``.

    ``network`` is a module, its ``parameters()``, or a list of parameters. A step moves the
    parameters that have a gradient and are not frozen; the others, and their state, stay as they
    are, and begin (or go on) with their own count of steps when they get one. UserError in a step
    when the network has other parameters than those that the optimiser was made for.

    ``schedule``: a function step → factor on ``lr``. A copy is independent: of the pair (network,
    optimiser) by ``copy.deepcopy`` or ``pickle``; ``copy.copy`` has a state of its own for the
    same network.
    """

    slots = ()

    def __init__(self, network, lr, schedule=None, weight_decay=0.0):
        checked("the learning rate", lr, 0, above=True, example="1e-3")
        checked("the weight decay", weight_decay, 0)
        if schedule is not None and not callable(schedule):
            raise UserError(f"the schedule is {schedule!r}; give a function step → factor, such as "
                            "optim.cosine(1000)")
        reuse_freed_memory()
        self.network, given = checked_parameters(network)
        if not given:
            raise UserError(f"{type(self.network).__name__} has no parameters to optimise")
        self.lr, self.schedule = lr, schedule
        self.weight_decay, self.steps = weight_decay, 0
        self.pack = packed(given)
        self.left_out = [p for p in given if p.pack is not self.pack]      # of another precision
        self.structure = None                          # of the network, as it was last seen
        self.missed, self.absent = {}, {}              # place → steps missed; → since which step
        self.runs = {}                                 # remembered by ``runs_of``
        self.state = {name: np.zeros_like(self.data) for name in self.slots}   # where the data are

    parameters = property(lambda self: self.pack.parameters)
    data = property(lambda self: self.pack.data)       # (P,): the parameters, one after another
    grads = property(lambda self: self.pack.grads)     # (P,): their gradients

    def __copy__(self):
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), missed=dict(self.missed), absent=dict(self.absent),
                          state={name: array.copy() for name, array in self.state.items()})
        return twin

    def __getstate__(self):
        return {**vars(self), "structure": None, "runs": {},
                "state": {name: carried(array) for name, array in self.state.items()}}

    def zero_grad(self, set_to_none=True):
        """Forget the gradients, which are None until the next backward writes over them."""
        if not set_to_none:
            raise UserError(NO_ZEROS)
        self.pack.forget()

    def gather(self):
        """The gradient buffer (P,), complete: zeros where a parameter is frozen or has none."""
        self.pack.gather()
        return self.grads

    def step(self):
        """One update, from their gradients, of all parameters that have one and are not frozen."""
        self.refuse_others()
        active = self.pack.gather()
        if active is None and not self.absent and not self.missed:
            self.update(self.data, self.grads, *self.state.values(), varying(
                self, "steps", self.numbers, self.data.dtype))
        else:
            for here, late in self.runs_of(active or (True,) * len(self.parameters)):
                numbers = varying(self, "steps", functools.partial(self.numbers, late=late),
                                  self.data.dtype)
                self.update(self.data[here], self.grads[here],
                            *(array[here] for array in self.state.values()), numbers)
        self.steps += 1
        for p in self.parameters:
            p.changes[0] += 1

    def runs_of(self, active):
        """[(slice of the buffers, steps missed), …]: neighbours that are moved by one call."""
        for i, moves in enumerate(active):
            if not moves and i not in self.absent:
                self.absent[i] = self.steps
                Captured.absences += 1                 # its count is a constant of what is recorded
            elif moves and i in self.absent:
                late = self.missed.get(i, 0) + self.steps - self.absent.pop(i)
                if late:
                    self.missed[i] = late
        key = active, tuple(self.missed.items())
        if key not in self.runs:
            ends, found = [*self.pack.places[1:], self.pack.size], []
            for i, (first, end) in enumerate(zip(self.pack.places, ends, strict=True)):
                late = self.missed.get(i, 0)
                if active[i] and found and found[-1][1:] == (first, late):
                    found[-1] = found[-1][0], end, late
                elif active[i]:
                    found.append((first, end, late))
            self.runs = {key: [(slice(first, end), late) for first, end, late in found]}
        return self.runs[key]

    def refuse_others(self):
        """UserError unless the network's parameters are those that this optimiser has."""
        if any(p.requires_grad for p in self.left_out):
            raise UserError("a parameter that was frozen, and of another precision than the rest, "
                            "when its optimiser was made is to be trained now; make one optimiser "
                            "for each precision")
        if self.network is None or self.structure is not None and self.structure.holds():
            return
        structure = Structure(self.network)
        if {id(p) for p in structure.parameters} != {
                id(p) for p in (*self.parameters, *self.left_out)}:
            raise UserError(f"the parameters of this {type(self.network).__name__} are no longer "
                            "those that its optimiser was made for (a layer or a parameter was "
                            "replaced, added or taken out); make a new optimiser for it")
        self.structure = structure

    def rate(self, steps):
        """The learning rate of the step after ``steps`` others."""
        return self.lr * (self.schedule(steps) if self.schedule else 1)

    def numbers(self, steps, late=0):
        """What the kernel calls ``numbers``, for the step after ``steps`` others, of parameters
        that have missed ``late`` of them."""
        raise NotImplementedError

    def update(self, p, g, *arguments):
        """Call the kernel with parameters, gradients, state arrays and numbers."""
        raise NotImplementedError

    def state_dict(self):
        """The state arrays, copied, and the step count; ``missed`` of each parameter, if any."""
        missed = np.array([self.missed.get(i, 0) + self.steps - self.absent.get(i, self.steps)
                           for i in range(len(self.parameters))], np.int64)
        return {"step": np.array(self.steps, np.int64),
                **{name: np.array(to_host(array)) for name, array in self.state.items()},
                **({"missed": missed} if missed.any() else {})}

    def load_state_dict(self, state):
        """Continue from a saved state."""
        if not hasattr(state, "keys") or "step" not in state:
            raise UserError("this is no saved optimiser state; give what state_dict() returned")
        n = len(self.parameters)
        for name, array in {**self.state, "missed": np.zeros(n)}.items():
            if name in (*self.state, *state) and (
                    name not in state or np.shape(state[name]) != array.shape):
                raise UserError(f"the saved optimiser state does not fit: {name} should be "
                                f"{array.shape}; resume with the optimiser and network it is of")
        for name, array in self.state.items():
            copy_into(array, state[name])
        self.steps = int(state["step"])
        self.absent, missed = {}, np.asarray(state.get("missed", np.zeros(n))).tolist()
        self.missed = {i: int(late) for i, late in enumerate(missed) if late}
        Captured.absences += 1


def checked(name, value, least, below=math.inf, above=False, example=None):
    """UserError unless ``value`` is a number from ``least`` (or above it), below ``below``."""
    fits = isinstance(value, (Real, np.ndarray)) and np.ndim(value) == 0 and (
        not isinstance(value, bool)) and (value > least if above else value >= least) and (
        value < below)
    if not fits:
        bounds = "a positive number" if above and below == math.inf else (
            "a number that is not negative" if below == math.inf else
            f"a number from {least} to below {below}")
        raise UserError(f"{name} is {value!r}; give {bounds}"
                        + f", for example {example}" * bool(example))


class SGD(Optimiser):
    """Stochastic gradient descent, with momentum and Nesterov's variant. Sutskever et al. 2013."""

    slots = ("m",)

    def __init__(self, network, lr, momentum=0.0, nesterov=False, **options):
        checked("the momentum", momentum, 0, below=1)
        super().__init__(network, lr, **options)
        self.momentum, self.nesterov = momentum, bool(nesterov)

    def numbers(self, steps, late=0):
        return self.rate(steps), self.momentum, self.weight_decay

    def update(self, p, g, m, numbers):
        optimizer_kernels.sgd(p, g, m, numbers, self.nesterov)


class Adagrad(Optimiser):
    """Duchi, Hazan & Singer 2011."""

    slots = ("v",)

    def __init__(self, network, lr, eps=1e-10, **options):
        checked("eps", eps, 0)
        super().__init__(network, lr, **options)
        self.eps = eps

    def numbers(self, steps, late=0):
        return self.rate(steps), self.eps, self.weight_decay

    def update(self, p, g, v, numbers):
        optimizer_kernels.adagrad(p, g, v, numbers)


class RMSprop(Optimiser):
    """Tieleman & Hinton 2012."""

    slots = ("v",)

    def __init__(self, network, lr, alpha=0.99, eps=1e-8, **options):
        checked("alpha", alpha, 0, below=1)
        checked("eps", eps, 0)
        super().__init__(network, lr, **options)
        self.alpha, self.eps = alpha, eps

    def numbers(self, steps, late=0):
        return self.rate(steps), self.alpha, 1 - self.alpha, self.eps, self.weight_decay

    def update(self, p, g, v, numbers):
        optimizer_kernels.rmsprop(p, g, v, numbers)


class Adam(Optimiser):
    """Kingma & Ba 2015; weight decay as L2 regularisation."""

    slots = ("m", "v")
    decoupled = False

    def __init__(self, network, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, **options):
        checked("beta1", beta1, 0, below=1)
        checked("beta2", beta2, 0, below=1)
        checked("eps", eps, 0)
        super().__init__(network, lr, **options)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def numbers(self, steps, late=0):
        lr, t = self.rate(steps), steps + 1 - late
        bias1, bias2 = 1 - self.beta1**t, 1 - self.beta2**t
        decay, shrink = (0, 1 - lr * self.weight_decay) if self.decoupled else (
            self.weight_decay, 1)
        return (lr / bias1, self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2,
                math.sqrt(bias2), self.eps, decay, shrink)

    def update(self, p, g, m, v, numbers):
        optimizer_kernels.adam(p, g, m, v, numbers)


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


# --- clipping ------------------------------------------------------------------------------------

def clip_norm(optimiser, limit):
    """Scale all gradients so that their joint norm is at most ``limit``; returns the norm before.

    Frozen parameters have no part in it.
    """
    grads = to_clip(optimiser, limit)
    norm = empty((1,), np.float64)
    optimizer_kernels.clip_norm(grads, float(limit), norm)
    return norm[0] if backend() == "cuda" else float(norm[0])


def clip_value(optimiser, limit):
    """Limit each gradient to [−limit, limit]; frozen parameters have no part in it."""
    grads = to_clip(optimiser, limit)
    np.clip(grads, -limit, limit, out=grads)


def to_clip(optimiser, limit):
    """The gradients (P,), which nobody else holds; UserError for what cannot be clipped."""
    if not isinstance(optimiser, Optimiser):
        raise UserError(f"clipping of a {type(optimiser).__name__}: give the optimiser whose "
                        "gradients are to be clipped")
    if not isinstance(limit, Real) or not limit >= 0:
        raise UserError(f"the limit of clipping is {limit!r}; give a number of at least 0")
    optimiser.gather()
    optimiser.pack.leave_kept()
    return optimiser.grads

