"""The base class of the optimisers. It keeps the parameters of a network in one buffer.

The learning rate follows a schedule (``schedules.py``), a function step → factor.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..context import recorder
from ..engine.backend import kernels
from ..engine.capture import Captured, varying
from ..engine.copies import carried
from ..engine.memory import copy_into, reuse_freed_memory, to_host
from ..engine.other_names import NO_ZEROS
from ..errors import UserError
from ..nn.module import Module
from ..nn.packing import checked_parameters, packed
from ..nn.parameters import Parameter
from ..nn.structure import Structure

optimizer_kernels = kernels("optimizer")

Schedule = Callable[[int], float]       # step → factor on the learning rate


class Optimiser:
    """Base class: the packed parameters, the step count, and the state arrays named in ``slots``.

    ``network`` is a module, its ``parameters()``, or a list of parameters. ``schedule`` is a
    function step → factor on ``lr``.

    A step updates the parameters that have a gradient and are not frozen. The others, and their
    state, do not change; each parameter counts only the steps in which it was updated. A step
    raises UserError if the network's parameters are no longer those the optimiser was made for.

    ``copy.deepcopy`` and ``pickle`` of the pair (network, optimiser) give an independent pair.
    ``copy.copy`` gives an optimiser of the same network with a separate state.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, network: Module | Iterable[Parameter], lr: float,
                 schedule: Schedule | None = None, weight_decay: float = 0.0) -> None:
        check_number("the learning rate", lr, 0, above=True, example="1e-3")
        check_number("the weight decay", weight_decay, 0)
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
        self.excluded = [p for p in given if p.pack is not self.pack]  # frozen, another precision
        self.structure = None                          # of the network in the last step
        self.missed = {}                               # parameter index → number of missed steps
        self.inactive_since = {}                       # parameter index → first step without it
        self.groups = {}                               # cache of ``active_groups``
        self.state = {name: np.zeros_like(self.data) for name in self.slots}

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters, in the order of the buffers."""
        return self.pack.parameters

    @property
    def data(self) -> np.ndarray:
        """The values of all parameters (P,)."""
        return self.pack.data

    @property
    def grads(self) -> np.ndarray:
        """The gradients of all parameters (P,)."""
        return self.pack.grads

    def __copy__(self):
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), missed=dict(self.missed),
                          inactive_since=dict(self.inactive_since),
                          state={name: array.copy() for name, array in self.state.items()})
        return twin

    def __getstate__(self):
        return {**vars(self), "structure": None, "groups": {},
                "state": {name: carried(array) for name, array in self.state.items()}}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set all gradients to None. The next backward pass overwrites them."""
        if not set_to_none:
            raise UserError(NO_ZEROS)
        self.pack.clear_gradients()

    def gather(self) -> np.ndarray:
        """The gradients (P,), with zeros where a parameter is frozen or has no gradient."""
        self.pack.gather()
        return self.grads

    def step(self) -> None:
        """Update all parameters that have a gradient and are not frozen."""
        self.check_network()
        if (recording := recorder.get()) is not None and self.structure is not None:
            recording.conditions.append(self.structure.unchanged)
        active = self.pack.gather()
        if active is None and not self.inactive_since and not self.missed:
            self.update(self.data, self.grads, *self.state.values(), varying(
                self, "steps", self.coefficients, self.data.dtype))
        else:
            for part, missed in self.active_groups(active or (True,) * len(self.parameters)):
                coefficients = varying(
                    self, "steps", functools.partial(self.coefficients, missed=missed),
                    self.data.dtype)
                self.update(self.data[part], self.grads[part],
                            *(array[part] for array in self.state.values()), coefficients)
        self.steps += 1
        for p in self.parameters:
            p.changes[0] += 1

    def active_groups(self, active: tuple[bool, ...]) -> list[tuple[slice, int]]:
        """[(slice of the buffers, missed steps), …]: adjacent parameters that one kernel call
        updates, as they are active and have missed the same number of steps."""
        for i, updated in enumerate(active):
            if not updated and i not in self.inactive_since:
                self.inactive_since[i] = self.steps
                Captured.changes += 1                 # recorded steps contain the missed steps
            elif updated and i in self.inactive_since:
                missed = self.missed.get(i, 0) + self.steps - self.inactive_since.pop(i)
                if missed:
                    self.missed[i] = missed
        key = active, tuple(self.missed.items())
        if key not in self.groups:
            ends, found = [*self.pack.offsets[1:], self.pack.size], []
            for i, (first, end) in enumerate(zip(self.pack.offsets, ends, strict=True)):
                missed = self.missed.get(i, 0)
                if active[i] and found and found[-1][1:] == (first, missed):
                    found[-1] = found[-1][0], end, missed
                elif active[i]:
                    found.append((first, end, missed))
            self.groups = {key: [(slice(first, end), missed) for first, end, missed in found]}
        return self.groups[key]

    def check_network(self) -> None:
        """UserError unless the network's parameters are those of this optimiser."""
        if any(p.requires_grad for p in self.excluded):
            raise UserError("a parameter that was frozen, and of another precision than the rest, "
                            "when its optimiser was made is to be trained now; make one optimiser "
                            "for each precision")
        if self.network is None or self.structure is not None and self.structure.unchanged():
            return
        structure = Structure(self.network)
        if {id(p) for p in structure.parameters} != {
                id(p) for p in (*self.parameters, *self.excluded)}:
            raise UserError(f"the parameters of this {type(self.network).__name__} are no longer "
                            "those that its optimiser was made for (a layer or a parameter was "
                            "replaced, added or taken out); make a new optimiser for it")
        self.structure = structure

    def learning_rate(self, steps: int) -> float:
        """The learning rate after ``steps`` steps."""
        return self.lr * (self.schedule(steps) if self.schedule else 1)

    def coefficients(self, steps: int, missed: int = 0) -> tuple[float, ...]:
        """The kernel's argument ``numbers`` after ``steps`` steps, for parameters that have missed
        ``missed`` of them."""
        raise NotImplementedError

    def update(self, p: np.ndarray, g: np.ndarray, *arguments: Any) -> None:
        """Call the kernel with parameters, gradients, state arrays and coefficients."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the state arrays, the step count, and each parameter's missed steps if any."""
        missed = np.array([self.missed.get(i, 0) + self.steps
                           - self.inactive_since.get(i, self.steps)
                           for i in range(len(self.parameters))], np.int64)
        return {"step": np.array(self.steps, np.int64),
                **{name: np.array(to_host(array)) for name, array in self.state.items()},
                **({"missed": missed} if missed.any() else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of ``state_dict``."""
        if not hasattr(state, "keys") or "step" not in state:
            raise UserError("this is no saved optimiser state; give what state_dict() returned")
        n = len(self.parameters)
        for name, array in {**self.state, "missed": np.zeros(n)}.items():
            if name in (*self.state, *state) and (
                    name not in state or np.shape(state[name]) != array.shape):
                raise UserError(f"the saved optimiser state does not fit: {name} should be "
                                f"{array.shape}; load it into the optimiser and "
                                "network that it was saved from")
        for name, array in self.state.items():
            copy_into(array, state[name])
        self.steps = int(state["step"])
        self.inactive_since, missed = {}, np.asarray(state.get("missed", np.zeros(n))).tolist()
        self.missed = {i: int(count) for i, count in enumerate(missed) if count}
        Captured.changes += 1


def check_number(name, value, least, below=math.inf, above=False, example=None):
    """UserError unless ``value`` is a number ≥ ``least`` (> with ``above``) and < ``below``."""
    fits = isinstance(value, (Real, np.ndarray)) and np.ndim(value) == 0 and (
        not isinstance(value, bool)) and (value > least if above else value >= least) and (
        value < below)
    if not fits:
        bounds = "a positive number" if above and below == math.inf else (
            "a number that is not negative" if below == math.inf else
            f"a number from {least} to below {below}")
        raise UserError(f"{name} is {value!r}; give {bounds}"
                        + f", for example {example}" * bool(example))
