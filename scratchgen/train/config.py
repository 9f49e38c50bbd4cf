"""The configuration of a run: four tables of plain values, from files and from the command line.

[run] contains the model and how it is computed, [data] the data, [train] the number of epochs and
the optimiser, [model] the fields of the model's ``Config`` dataclass. Later sources override
earlier ones: the model's defaults, its preset, a TOML file, the options of the command line,
``--set``. Every value is checked against the schema, whatever its source; an invalid one raises
``UserError``.
"""

import copy
import os
import tomllib

from ..errors import UserError, shown, unknown
from . import schema
from .schema import show_value

MAX_BYTES = 1 << 20  # of a configuration file
# The keys that may change when a run is resumed; any other change would change the result's bits.
RESUMABLE = {("train", "epochs"), ("train", "checkpoint_every"), ("data", "dir")}


def merge(*sources: dict) -> dict:
    """Merges tables key by key; later sources override earlier ones."""
    merged = {}
    for source in sources:
        for table, values in source.items():
            if not isinstance(values, dict):
                raise UserError(
                    f"{table} = {show_value(values)} is not in a table: expected it in "
                    "[run], [data], [train] or [model]"
                )
            merged.setdefault(table, {}).update(copy.deepcopy(values))
    return merged


def read(path: str | os.PathLike) -> dict:
    """The tables of a TOML file; ``UserError`` for an unreadable or malformed file."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        # reading a pipe or a device could block or never end
        raise UserError(f"{path} is not a regular file: expected a TOML file; check the name")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: not a valid file name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path} ({reason}): expected a TOML file; check the name"
                        ) from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES} bytes: expected a configuration file")
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file: expected TOML in UTF-8") from None
    except (ValueError, RecursionError) as error:  # ValueError: also for numbers that are too long
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid TOML: {reason}") from None
    return merge(tables)


def setting(text: str) -> dict:
    """The tables for one ``TABLE.KEY=VALUE``."""
    name, equals, value = text.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and table and key):
        raise UserError(
            f"--set {shown(text)}: expected TABLE.KEY=VALUE, for example --set train.lr=0.001"
        )
    return {table: {key: parsed(value.strip())}}


def parsed(text: str):
    """Parses a value as TOML; otherwise as a number; otherwise it is text."""
    try:
        document = tomllib.loads(f"value = {text}")
        if document.keys() == {"value"}:
            return document["value"]
    except (ValueError, RecursionError):
        pass
    try:
        return float(text)  # forms that TOML does not have, such as .5
    except ValueError:
        return text


def gather(model: str, options: dict, file=None, settings=()) -> dict:
    """The tables of a command line: a TOML file, then the options, then the ``--set`` texts."""
    from_file, from_settings = read(file) if file else {}, merge(*map(setting, settings))
    named = merge(from_file, from_settings).get("run", {}).get("model", model)
    if named != model:
        raise UserError(
            f"{file or '--set'} is for the model {named!r}, the command for {model!r}: "
            "expected the same model in both"
        )
    return merge(from_file, options, {"run": {"model": model}}, from_settings)


def resolve(given: dict) -> dict:
    """The complete, checked configuration: defaults, preset, then the ``given`` tables."""
    given = merge(given)
    kind = given.get("run", {}).get("model")
    if kind is None:
        raise UserError('run.model is missing: name the model to train, for example "vae"')
    model = schema.model_class(schema.RUN["model"].check("run.model", kind))
    preset = schema.RUN["preset"].check("run.preset", given["run"].get("preset", "default"))
    if preset not in model.presets:
        raise unknown(f"preset of {kind}", preset, model.presets)
    base = merge({"train": model.optimiser_defaults}, model.presets[preset])
    default_optimizer = base["train"].setdefault("optimizer", schema.TRAIN["optimizer"].default)
    optimizer = given.get("train", {}).get("optimizer", default_optimizer)
    optimizer = schema.TRAIN["optimizer"].check("train.optimizer", optimizer)
    keys = schema.schema_of(kind, optimizer)
    if optimizer != default_optimizer:  # its options do not apply to another optimiser
        base["train"] = {name: value for name, value in base["train"].items()
                         if name in schema.TRAIN}
    defaults = {table: {name: key.default for name, key in of_table.items()
                        if key.default is not None}
                for table, of_table in keys.items()}
    resolved = _check(merge(defaults, base, given), keys)
    model_config(resolved)
    return resolved


def _check(resolved, keys):
    """The tables with every value checked and converted, in the order of the schema."""
    for table, values in resolved.items():
        if table not in keys:
            raise unknown("configuration table", table, keys)
        for name in values:
            if name not in keys[table]:
                raise unknown(f"key in [{table}]", name, keys[table])
    return {
        table: {
            name: key.check(f"{table}.{name}", resolved[table][name])
            for name, key in of_table.items()
            if name in resolved[table]
        }
        for table, of_table in keys.items()
    }


def model_config(resolved: dict):
    """The model's ``Config`` for the [model] table; ``UserError`` if the dataclass rejects it."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in resolved["model"].items()
    }
    try:
        return schema.model_class(resolved["run"]["model"]).Config(**fields)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"[model] of {resolved['run']['model']}: {error}") from None


def resume(stored: dict, given: dict) -> dict:
    """The configuration for continuing a stored run.

    ``given`` may repeat stored values, and may change those that do not affect the result (the
    number of epochs, the path of the data); any other change raises ``UserError``.
    """
    keys = schema.schema_of(stored["run"]["model"], stored["train"]["optimizer"])
    resolved = merge(stored)
    for table, values in merge(given).items():
        for name, value in values.items():
            key = keys.get(table, {}).get(name)
            value = key.check(f"{table}.{name}", value) if key else value
            before = resolved.get(table, {}).get(name)
            if (table, name) in RESUMABLE or _is_moved(table, name, before, value):
                resolved[table][name] = value
            elif before != value:
                raise UserError(
                    f"{table}.{name} = {show_value(value)}: the run was started with "
                    f"{show_value(before)}, and resuming can change only train.epochs and "
                    "the path of the data; start a new run with another --out"
                )
    return resolve(resolved)


def _is_moved(table, name, before, value):
    """Whether both values are absolute paths of own images; their checksums are compared later."""
    return (table, name) == ("data", "name") and all(
        isinstance(path, str) and os.path.isabs(path) for path in (before, value))


def dumps(resolved: dict) -> str:
    """The configuration as TOML text."""
    import tomli_w

    return tomli_w.dumps(resolved)
