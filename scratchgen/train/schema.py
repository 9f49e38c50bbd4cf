"""The schema of a configuration: the keys of each table, their types, defaults and ranges.

The tables [run] and [data] are fixed. [model] has the fields of the model's ``Config`` dataclass,
and [train] also has the options of the optimiser's constructor, so both are declared only once.
"""

import dataclasses
import inspect
import json
import os
import typing

import numpy as np

from ..errors import UserError, unknown

MAX_NUMBER = 2**1023  # close to the largest float
MAX_COUNT = 10**9  # of epochs, images, units of a layer: more than fits into memory
MAX_SHOWN = 200  # characters of a value in an error message


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a configuration: the type, the default and the range of its value."""

    kind: type  # bool, int, float or str: the type of the value, or of each item of a list
    default: object = None  # None: the key is absent unless it is given
    low: float | None = 0  # value >= low
    above: float | None = None  # value > above
    high: float | None = None  # value <= high
    below: float | None = None  # value < below
    choices: tuple = ()
    is_list: bool = False

    def describe(self) -> str:
        """The expected value, for error messages: "a whole number of at least 1"."""
        if self.choices:
            what = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            what = {bool: "true or false", str: "text"}.get(self.kind) or self._range()
        return f"a list, each item {what}" if self.is_list else what

    def _range(self):
        number = "a whole number" if self.kind is int else "a finite number"
        limits = (("above", self.above), ("of at least", self.low if self.above is None else None),
                  ("below", self.below), ("at most", self.high))
        parts = [f"{relation} {limit}" for relation, limit in limits if limit is not None]
        return f"{number} {' and '.join(parts)}".rstrip()

    def accepts(self, value) -> bool:
        """Whether a value (an item, for a list) has the expected type and lies in the range."""
        if self.choices:
            return value in self.choices and type(value) is type(self.choices[0])
        if self.kind in (bool, str):
            return isinstance(value, self.kind)
        numeric = (int,) if self.kind is int else (int, float)
        return (
            isinstance(value, numeric)
            and not isinstance(value, bool)
            and abs(value) <= MAX_NUMBER  # False for NaN
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def check(self, name: str, value):
        """The value converted to its type (5 to 5.0 for a float); ``UserError`` if not accepted."""
        several = isinstance(value, (list, tuple))
        items = [_to_python(item) for item in (value if several else [value])]
        if (several and not self.is_list) or not all(self.accepts(item) for item in items):
            raise UserError(f"{name} = {show_value(value)}: expected {self.describe()}")
        items = [float(item) if self.kind is float else item for item in items]
        return items if self.is_list else items[0]


def _to_python(value):
    """Paths as text and NumPy scalars as numbers, for callers from Python."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


RUN = {
    "model": Key(str),
    "preset": Key(str, "default"),
    "seed": Key(int, 0, high=2**63 - 1),
    "backend": Key(str, "numba", choices=("numpy", "numba", "cuda")),
    "gradient": Key(str, "tape", choices=("tape", "explicit")),
    "dtype": Key(str, "float32", choices=("float32", "float64")),
}
DATA = {
    "name": Key(str, "mnist-mini"),
    "dir": Key(str, ""),  # empty: the standard folders
    "limit": Key(int, 0, high=MAX_COUNT),  # of training and of test images; 0: all
    "binarize": Key(str, "none", choices=("none", "threshold", "static", "dynamic")),
}
TRAIN = {
    # The total: a resumed run counts the epochs that it has already finished.
    "epochs": Key(int, 10, low=1, high=MAX_COUNT),
    "batch_size": Key(int, 100, low=1, high=MAX_COUNT),
    "lr": Key(float, 1e-3, above=0),
    "optimizer": Key(str, "adam"),
    # In batches; 0: only at each epoch's end.
    "checkpoint_every": Key(int, 0, high=MAX_COUNT),
}
# Decay rates of running means; they are below 1.
DECAY_RATES = ("momentum", "alpha", "beta1", "beta2")


def model_class(kind: str):
    """The model class of this kind; ``UserError`` for an unknown kind."""
    from ..models import MODELS

    if kind not in MODELS:
        raise unknown("model", kind, MODELS)
    return MODELS[kind]


def schema_of(kind: str, optimizer: str) -> dict[str, dict[str, Key]]:
    """Table name -> key name -> ``Key``, for a kind of model and an optimiser."""
    train = {**TRAIN, **_optimiser_keys(optimizer)}
    return {"run": RUN, "data": DATA, "train": train,
            "model": _model_keys(model_class(kind).Config)}


def _optimiser_keys(optimizer):
    """The keys of an optimiser: the arguments of its constructors, such as momentum."""
    from ..optim import OPTIMISERS

    if optimizer not in OPTIMISERS:
        raise unknown("optimizer", optimizer, OPTIMISERS)
    keys = {}
    for base in reversed(OPTIMISERS[optimizer].__mro__):
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            default = parameter.default
            if isinstance(default, (bool, float)) and name not in TRAIN:
                below = 1 if name in DECAY_RATES else None
                keys[name] = Key(type(default), default, below=below)
    return keys


def _model_keys(config_class):
    """The keys of a ``Config`` dataclass; metadata of a field: low, above, high, below, choices."""
    hints = typing.get_type_hints(config_class)
    keys = {}
    for field in dataclasses.fields(config_class):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        hint, is_list = hints[field.name], False
        if typing.get_origin(hint) in (tuple, list):
            hint, is_list = typing.get_args(hint)[0], True
        elif hint in (tuple, list):
            hint, is_list = type(default[0]) if default else int, True
        ranges = ("low", "above", "high", "below", "choices")
        limits = {name: field.metadata[name] for name in ranges if name in field.metadata}
        if typing.get_origin(hint) is typing.Literal:
            limits.setdefault("choices", typing.get_args(hint))
            hint = type(limits["choices"][0])
        if hint is int and "choices" not in limits:
            limits.setdefault("high", MAX_COUNT)
        keys[field.name] = Key(hint, default, is_list=is_list, **limits)
    return keys


def show_value(value) -> str:
    """A value for an error message, as in TOML, on one line and shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)  # line breaks as \\n
    text = "nothing" if value is None else str(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
