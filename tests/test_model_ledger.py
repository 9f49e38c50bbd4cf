"""The command ``ledger``: complete for each model, with no WRONG; bad input is one sentence."""

import json

import pytest

from scratchgen import cli

SMALL = {"dae": ["model.hidden=9"], "vae": ["model.hidden=[11]", "model.latent=3"],
         "gan": ["model.latent=5", "model.generator=[9]", "model.discriminator=[8]"],
         "classifier": ["model.layers=[9]", "model.code=7"],
         "sdae": ["model.layers=[9]", "model.levels=[0.2]"]}


@pytest.mark.parametrize("kind", SMALL)
def test_the_ledger_of_a_model_has_no_wrong_row(kind, tmp_path, capsys):
    file = tmp_path / "ledger.json"
    settings = [part for text in SMALL[kind] for part in ("--set", text)]
    assert cli.run(["ledger", kind, *settings, "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert {"OK"} <= {row["verdict"] for row in rows} <= {"OK", "ROUNDING", "KINK"}
    assert all(row["name"] for row in rows if row["op"] == "leaf")
    assert len({row["part"] for row in rows}) == (2 if kind == "gan" else 1)
    assert "verdict" in capsys.readouterr().out


def test_kinks_of_many_units_are_not_wrong(capsys):
    """Convolutions with relu: thousands of units, some at 0, some very near."""
    assert cli.run(["ledger", "dae", "--preset", "conv", "--batch-size", "3"]) == 0
    output = capsys.readouterr().out
    assert "KINK" in output and "WRONG" not in output


@pytest.mark.parametrize("arguments", [["nothing"], ["vae", "--dtype", "int8"],
                                       ["dae", "--batch-size", "0"]])
def test_bad_input_is_one_sentence(arguments, capsys):
    assert cli.run(["ledger", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
