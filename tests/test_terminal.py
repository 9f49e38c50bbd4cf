"""The command on every kind of standard stream, and where nothing can be kept in a cache."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from scratchgen.kernels import compiler

from scratchgen.cli import display, terminal

SMALL = ["--limit", "40", "--batch-size", "20", "--backend", "numpy", "--epochs", "1",
         "--no-pictures"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell of POSIX is used")


@pytest.fixture
def shell(tmp_path):
    """Runs a line of a shell, in which ``$S`` is the command; gives (status, stdout, stderr) as
    bytes."""
    def call(line, **environment):
        known = {name: value for name, value in os.environ.items()
                 if not name.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))}
        path = os.pathsep.join([*sys.path, known.get("PYTHONPATH", "")])
        known |= {"PYTHONPATH": path, "LC_ALL": "C.UTF-8", "S": f"{sys.executable} -m scratchgen",
                  "SMALL": " ".join(SMALL)} | environment
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=known, capture_output=True)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, (
            done.stderr.decode(errors="replace"))
        return done.returncode, done.stdout, done.stderr
    return call


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(shell, tmp_path, closed):
    assert shell(f"$S train vae $SMALL --out a {closed}")[0] == 0
    assert (tmp_path / "a" / "checkpoint.safetensors").exists()
    assert shell(f"$S eval a {closed}")[0] == 0
    assert shell(f"$S eval none {closed}")[0] == 2
    for path in (tmp_path / "a").iterdir():              # nothing was printed into a file
        assert b"test images" not in path.read_bytes() and b"no run in" not in path.read_bytes()


def test_a_reader_that_has_gone(shell):
    assert shell("$S data list | true")[2] == b""
    status, output, error = shell("$S train vae $SMALL --out a | head -n 1")
    assert output.startswith(b"vae epoch") and error == b""
    if os.path.exists("/dev/full"):
        status, _, error = shell("$S --version > /dev/full")
        assert status == 2 and b"No space left on device" in error


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_names_that_the_terminal_cannot_show(shell, encoding):
    odd = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    status, output, error = shell("$S train vae $SMALL --out 'e 图'", **odd)
    assert (status, error) == (0, b"") and rb"e \u56fe" in output
    assert shell("$S eval 'e 图'", **odd)[0] == 0
    status, output, _ = shell("$S report 'e 图'", **odd)
    assert (status, output) == (0, rb"e \u56fe/report.html" + b"\n")
    status, _, error = shell("$S eval 图", **odd)
    assert status == 2 and rb"no run in \u56fe" in error


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "utf-8"}, {
    "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
def test_names_that_are_not_utf_8_are_printed_as_they_are(shell, locale):
    status, output, error = shell(r"$S train vae $SMALL --out $(printf 'g\351')", **locale)
    assert (status, error) == (0, b"") and b"g\xe9   1 epoch " in output
    status, output, _ = shell(r"$S report $(printf 'g\351')", **locale)
    assert (status, output) == (0, b"g\xe9/report.html\n")


def test_data_whose_name_is_not_utf_8(shell, tmp_path):
    name = os.fsdecode(b"caf\xe9.npy")
    np.save(tmp_path / name, np.zeros((20, 4, 4), np.uint8))
    status, _, error = shell(r"$S train dae $SMALL --data $(printf 'caf\351.npy') --out a")
    assert status == 2 and b"is not UTF-8" in error and error.count(b"\n") == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("stream", [None, object(), io.StringIO()], ids=["None", "object",
                                                                             "closed"])
def test_streams_that_are_no_files(monkeypatch, stream):
    if hasattr(stream, "close"):
        stream.close()
    assert not terminal.is_terminal(stream)
    terminal.flush(stream)
    if stream is None:
        monkeypatch.setattr(sys, "stdout", None)
        display.table("title", ("a",), [(1,)])
        with display.TrainingDisplay("vae"):
            pass


# --- no place for compiled kernels ---------------------------------------------------------------

COMPILE = """
import numpy as np
from scratchgen.kernels import compiler

@compiler.compiled
def double(x):
    return 2 * x

@compiler.compiled
def triple(x):
    return 3 * x

print(double(4), triple(4), compiler.load_numba().config.CACHE_DIR)
"""


@pytest.mark.parametrize("places", [
    {"XDG_CACHE_HOME": "{file}/x"}, {"NUMBA_CACHE_DIR": "{file}/x"},
    {"HOME": "{file}", "XDG_CACHE_HOME": ""}, {"HOME": "{file}", "XDG_CACHE_HOME": "relative"}])
def test_kernels_are_compiled_without_a_cache(shell, tmp_path, places):
    (tmp_path / "file").write_text("")
    (tmp_path / "program.py").write_text(COMPILE)
    places = {name: value.format(file=tmp_path / "file") for name, value in places.items()}
    status, output, error = shell(f"{sys.executable} program.py",
                                  **{"NUMBA_CACHE_DIR": "", **places})
    assert status == 0, error
    assert output.startswith(b"8 12 ")
    assert error.count(b"compiled kernels cannot be kept in") == 1      # of two kernels
    assert b"NUMBA_CACHE_DIR" in error
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "program.py"]


def test_the_command_says_it_in_one_line(shell):
    code = ("import sys; from scratchgen.cli import terminal; terminal.prepare()\n"
            "from scratchgen.kernels import compiler\n"
            "compiler.is_writable('/dev/null/x'); compiler.is_writable('/dev/null/x')")
    status, _, error = shell(f'{sys.executable} -c "{code}"')
    assert status == 0
    assert error.startswith(b"scratchgen: compiled kernels cannot be kept in /dev/null/x")
    assert error.count(b"\n") == 1


def test_a_folder_that_can_be_written(tmp_path):
    assert compiler.is_writable(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
