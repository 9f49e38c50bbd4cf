"""The command line that trains a model with a given configuration."""

import json
import shlex
from pathlib import PurePath

from ..train import config

OPTIONS = {("data", "name"): "--data", ("data", "dir"): "--data-dir", ("data", "limit"): "--limit",
           ("train", "epochs"): "--epochs", ("train", "batch_size"): "--batch-size",
           ("train", "lr"): "--lr", ("run", "seed"): "--seed", ("run", "backend"): "--backend",
           ("run", "gradient"): "--gradient", ("model", "arch"): "--arch",
           ("model", "features"): "--features"}


def command_line(resolved: dict) -> str:
    """The shortest command line for this configuration: only values that are not defaults.

    Absolute paths become ``FOLDER/name``, because they are valid on one machine only.
    """
    run, train = resolved["run"], resolved["train"]
    base = {"run": {"model": run["model"], "preset": run["preset"]}}
    words = ["scratchgen", "train", run["model"]]
    if run["preset"] != "default":
        words += ["--preset", run["preset"]]
    if train["optimizer"] != config.resolve(base)["train"]["optimizer"]:
        # The optimiser comes first, because it determines the other keys of [train].
        base["train"] = {"optimizer": train["optimizer"]}
        words += ["--set", f"train.optimizer={_toml(train['optimizer'])}"]
    defaults = config.resolve(base)
    for table, values in resolved.items():
        for name, value in values.items():
            if value != defaults[table].get(name):
                words += _option(table, name, value)
    return shlex.join(words)


def _option(table, name, value):
    if (table, name) == ("data", "dir"):
        return ["--data-dir", "FOLDER"]
    if (table, name) in (("model", "features"), ("data", "name")):
        path = PurePath(value)
        return [OPTIONS[table, name], f"FOLDER/{path.name}" if path.is_absolute() else value]
    if (table, name) in OPTIONS:
        return [OPTIONS[table, name], value if isinstance(value, str) else _toml(value)]
    return ["--set", f"{table}.{name}={_toml(value)}"]


def _toml(value):
    """A value as TOML text, for which JSON is sufficient here."""
    return json.dumps(value, ensure_ascii=False)
