"""The resolved configuration of a run: four tables of plain values.

``[run]`` says what is trained and how it is computed, ``[data]`` on what, ``[train]`` for how long
and with which optimiser; ``[model]`` holds the fields of the model's own ``Config`` dataclass.
Later sources win: the model's defaults, its preset, a TOML file, the command line, ``--set``.
Every value is checked, whichever source it came from; a wrong one raises ``UserError``.
"""

import copy
import dataclasses
import inspect
import json
import os
import tomllib
import typing

import numpy as np

from ..errors import UserError, shown, unknown

LARGEST = 2**1023  # nearly the largest float; no number may be larger
MANY = 10**9  # epochs, batch sizes, images, layer widths: more than any machine can hold
MAX_BYTES = 1 << 20  # of a configuration file
LONGEST = 200  # characters of a value in an error message


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration value: its type, its default and the range it must lie in."""

    kind: type  # bool, int, float or str: the type of the value, or of each item of a list
    default: object = None  # None: absent unless given
    low: float | None = 0
    above: float | None = None
    high: float | None = None
    below: float | None = None
    choices: tuple = ()
    is_list: bool = False

    def expectation(self):
        """What a value must be, in words."""
        if self.choices:
            what = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            what = {bool: "true or false", str: "text"}.get(self.kind) or self._range()
        return f"a list, each item {what}" if self.is_list else what

    def _range(self):
        number = "a whole number" if self.kind is int else "a finite number"
        limits = (("above", self.above), ("of at least", self.low if self.above is None else None),
                  ("below", self.below), ("at most", self.high))
        words = [f"{words} {limit}" for words, limit in limits if limit is not None]
        return f"{number} {' and '.join(words)}".rstrip()

    def accepts(self, value):
        """Whether one value (one item, for a list) has the right type and lies in the range."""
        if self.choices:
            return value in self.choices and type(value) is type(self.choices[0])
        if self.kind in (bool, str):
            return isinstance(value, self.kind)
        numeric = (int,) if self.kind is int else (int, float)
        return (
            isinstance(value, numeric)
            and not isinstance(value, bool)
            and abs(value) <= LARGEST  # which also refuses NaN
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def checked(self, name, value):
        """The value in its own type (5 becomes 5.0 for a float), or ``UserError``."""
        several = isinstance(value, (list, tuple))
        items = [_plain(item) for item in (value if several else [value])]
        if (several and not self.is_list) or not all(self.accepts(item) for item in items):
            raise UserError(f"{name} = {_shown(value)}: expected {self.expectation()}")
        items = [float(item) if self.kind is float else item for item in items]
        return items if self.is_list else items[0]


def _plain(value):
    """Paths and NumPy scalars, which callers from Python have at hand, as text and numbers."""
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
    "dir": Key(str, ""),  # empty: the usual places
    "limit": Key(int, 0, high=MANY),  # this many training and test images; 0: all
    "binarize": Key(str, "none", choices=("none", "threshold", "static", "dynamic")),
}
TRAIN = {
    # In all: a resumed run counts the epochs it already has.
    "epochs": Key(int, 10, low=1, high=MANY),
    "batch_size": Key(int, 100, low=1, high=MANY),
    "lr": Key(float, 1e-3, above=0),
    "optimizer": Key(str, "adam"),
    # Batches between checkpoints; 0: at each epoch's end only.
    "checkpoint_every": Key(int, 0, high=MANY),
}
DECAY_RATES = ("momentum", "alpha", "beta1", "beta2")  # of running means: 1 would never forget
# What may differ when a run goes on: anything else would change the bits of the result.
RESUMABLE = {("train", "epochs"), ("train", "checkpoint_every"), ("data", "dir")}


def model_class(kind):
    """The model class of that kind; unknown kinds raise ``UserError``."""
    from ..models import MODELS

    if kind not in MODELS:
        raise unknown("model", kind, MODELS)
    return MODELS[kind]


def tables(kind, optimizer):
    """table name -> key name -> ``Key``, for the model and the optimiser of these names."""
    train = {**TRAIN, **_options(optimizer)}
    return {"run": RUN, "data": DATA, "train": train, "model": _fields(model_class(kind).Config)}


def _options(optimizer):
    """The keys of an optimiser: what its constructors take by name, such as momentum."""
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


def _fields(config_class):
    """The keys of a ``Config`` dataclass; a field's metadata may set low, above, high, choices."""
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
            limits.setdefault("high", MANY)
        keys[field.name] = Key(hint, default, is_list=is_list, **limits)
    return keys


def merge(*sources):
    """One nested dict of tables from several; later ones win, key by key."""
    merged = {}
    for source in sources:
        for table, values in source.items():
            if not isinstance(values, dict):
                raise UserError(
                    f"{table} = {_shown(values)} stands outside a table: expected it below "
                    "[run], [data], [train] or [model]"
                )
            merged.setdefault(table, {}).update(copy.deepcopy(values))
    return merged


def read(path):
    """The tables of a TOML file; an unreadable or malformed file raises ``UserError``."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        # a pipe or a device could block or never end
        raise UserError(f"{path} is not a regular file: expected a TOML file; check the name")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path} ({reason}): expected a TOML file; check the name"
                        ) from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} holds more than {MAX_BYTES} bytes: expected a configuration")
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file: expected TOML in UTF-8") from None
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: numbers of any length
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid TOML: {reason}") from None
    return merge(tables)


def setting(text):
    """The tables of one ``TABLE.KEY=VALUE``."""
    name, equals, value = text.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and table and key):
        raise UserError(
            f"--set {shown(text)}: expected TABLE.KEY=VALUE, for example --set train.lr=0.001"
        )
    return {table: {key: parsed(value.strip())}}


def parsed(text):
    """A value as TOML; what is not TOML is a number if it can be one, and text otherwise."""
    try:
        document = tomllib.loads(f"value = {text}")
        if document.keys() == {"value"}:
            return document["value"]
    except (ValueError, RecursionError):
        pass
    try:
        return float(text)  # forms that TOML lacks, such as .5
    except ValueError:
        return text


def gather(model, options, file=None, settings=()):
    """The tables that a command line gives: a TOML file, then options, then ``--set`` texts."""
    from_file, from_settings = read(file) if file else {}, merge(*map(setting, settings))
    named = merge(from_file, from_settings).get("run", {}).get("model", model)
    if named != model:
        raise UserError(
            f"{file or '--set'} is for the model {named!r}, the command for {model!r}: "
            "expected one and the same"
        )
    return merge(from_file, options, {"run": {"model": model}}, from_settings)


def resolve(given):
    """The complete configuration: defaults and preset below the ``given`` tables, all checked."""
    given = merge(given)
    kind = given.get("run", {}).get("model")
    if kind is None:
        raise UserError('run.model is missing: say which model to train, for example "vae"')
    model = model_class(RUN["model"].checked("run.model", kind))
    preset = RUN["preset"].checked("run.preset", given["run"].get("preset", "default"))
    if preset not in model.presets:
        raise unknown(f"preset of {kind}", preset, model.presets)
    below = merge({"train": model.optimiser_defaults}, model.presets[preset])
    own = below["train"].setdefault("optimizer", TRAIN["optimizer"].default)
    optimizer = given.get("train", {}).get("optimizer", own)
    schema = tables(kind, TRAIN["optimizer"].checked("train.optimizer", optimizer))
    if optimizer != own:  # the options of the model's own choice are not this one's
        below["train"] = {name: below["train"][name] for name in TRAIN if name in below["train"]}
    defaults = {table: {name: key.default for name, key in keys.items() if key.default is not None}
                for table, keys in schema.items()}
    checked = _checked(merge(defaults, below, given), schema)
    model_config(checked)
    return checked


def _checked(resolved, schema):
    for table, values in resolved.items():
        if table not in schema:
            raise unknown("configuration table", table, schema)
        for name in values:
            if name not in schema[table]:
                raise unknown(f"key in [{table}]", name, schema[table])
    return {
        table: {
            name: key.checked(f"{table}.{name}", resolved[table][name])
            for name, key in keys.items()
            if name in resolved[table]
        }
        for table, keys in schema.items()
    }


def model_config(resolved):
    """The model's ``Config`` from the [model] table; what it refuses becomes a ``UserError``."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in resolved["model"].items()
    }
    try:
        return model_class(resolved["run"]["model"]).Config(**fields)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"[model] of {resolved['run']['model']}: {error}") from None


def resume(stored, given):
    """The configuration with which a stored run goes on.

    ``given`` may repeat what is stored and change what leaves the result's bits alone (the number
    of epochs, where the data lie); any other change raises ``UserError``.
    """
    schema = tables(stored["run"]["model"], stored["train"]["optimizer"])
    resolved = merge(stored)
    for table, values in merge(given).items():
        for name, value in values.items():
            key = schema.get(table, {}).get(name)
            value = key.checked(f"{table}.{name}", value) if key else value
            before = resolved.get(table, {}).get(name)
            if (table, name) in RESUMABLE or _moved(table, name, before, value):
                resolved[table][name] = value
            elif before != value:
                raise UserError(
                    f"{table}.{name} = {_shown(value)}: the run was started with "
                    f"{_shown(before)}, and a resumed run keeps everything but train.epochs and "
                    "the place of its data; start a new one with another --out"
                )
    return resolve(resolved)


def _moved(table, name, before, value):
    """Whether both values name own images by an absolute path: their checksum decides."""
    return (table, name) == ("data", "name") and all(
        isinstance(path, str) and os.path.isabs(path) for path in (before, value))


def dumps(resolved):
    """The configuration as TOML text."""
    import tomli_w

    return tomli_w.dumps(resolved)


def _shown(value):
    """A value as the user would write it in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)  # line breaks as \\n
    text = "nothing" if value is None else str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
