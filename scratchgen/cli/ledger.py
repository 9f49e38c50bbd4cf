"""The command ``ledger``."""

import json
from typing import Annotated

import typer

from .options import Backend, DataDir, Model, given, option


def ledger(
    model: Model,
    preset: Annotated[str | None, typer.Option(help="A named configuration.")] = None,
    backend: Backend = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    batch_size: Annotated[str, option("N", "Images in the batch.")] = "4",
    seed: Annotated[str | None, option("N", "Seed of all random numbers.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set; see: scratchgen data list.")] = None,
    data_dir: DataDir = None,
    set_: Annotated[
        list[str] | None, option("TABLE.KEY=VALUE", "Any configuration value.", "--set")] = None,
    as_json: Annotated[
        str | None, option("FILE.json", "Also write the rows to this file.", "--json")] = None,
):
    """Check the gradient of every node of a model's loss against differences."""
    from ..study.model_ledger import model_ledger
    from ..train.config import gather
    from ..train.files import explain_errors, write_atomically

    options = {"run": given(preset=preset, backend=backend, dtype=dtype, seed=seed),
               "data": given(name=data, dir=data_dir), "train": given(batch_size=batch_size)}
    found = model_ledger(gather(model, options, settings=set_ or ()))
    for name, each in found.items():
        print(f"{model}: {name}\n{each}\n")
    if as_json:
        rows = [{"part": name, **row} for name, each in found.items()
                for row in each.as_json()["rows"]]
        with explain_errors("write", as_json):
            write_atomically(as_json, json.dumps({"rows": rows}, indent=1) + "\n")
