"""What a type checker and an editor see: every public name, with hints that pyright accepts."""

import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import scratchgen as sg

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ROOT / "tests" / "typing" / "public_names.py"
WRONG = {"t.summ()": "summ", "sg.expp(t)": "expp", "sg.exp(t, t)": "positional",
         "sg.conv2d(t, t, stride='a')": "stride", "t.sum(dim=0)": "dim", "sg.zeros('a')": "zeros",
         "n: int = sg.exp(t)": "int"}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with the package as it is installed: the kernels lie inside it."""
    folder = tmp_path_factory.mktemp("installed")
    skip = shutil.ignore_patterns("__pycache__", "*.gz", "kernels")
    shutil.copytree(ROOT / "scratchgen", folder / "scratchgen", ignore=skip)
    shutil.copytree(ROOT / "kernels", folder / "scratchgen" / "kernels", ignore=skip)
    return folder


def errors_in(folder, text):
    """(line, message) of pyright's errors in a file of this text, in strict mode."""
    pytest.importorskip("pyright", reason="pyright is not installed: pip install -e '.[test]'")
    (folder / "checked.py").write_text(text, encoding="utf-8")
    (folder / "pyrightconfig.json").write_text('{"include": ["checked.py"], "strict": ["."]}')
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=folder, capture_output=True, text=True, timeout=300)
    if not done.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright does not start: {done.stderr.strip()[-200:]}")
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(e["range"]["start"]["line"], e["message"]) for e in found if e["severity"] == "error"]


def test_the_file_uses_every_public_name():
    text = NAMES.read_text(encoding="utf-8")
    assert set(sg.__all__) == set(re.findall(r"\bsg\.(\w+)", text))
    for folder in ("nn", "optim", "data", "models", "train", "plots", "study"):
        if folder != "plots" or importlib.util.find_spec("matplotlib"):
            names = set(getattr(sg, folder).__all__)
            assert names <= set(re.findall(rf"\bsg\.{folder}\.(\w+)", text)), folder


def test_pyright_accepts_every_public_name(package):
    assert errors_in(package, NAMES.read_text(encoding="utf-8")) == []


def test_pyright_refuses_wrong_calls(package):
    """Each on a line of its own: an error there, which names what is wrong."""
    start = "import scratchgen as sg\nt = sg.tensor([1.0])\n"
    found = errors_in(package, start + "\n".join(WRONG) + "\n")
    for line, (call, word) in enumerate(WRONG.items(), 2):
        assert any(at == line and word in message for at, message in found), call
