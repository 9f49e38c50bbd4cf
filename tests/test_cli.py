"""The commands: what they print, what they leave behind, and how they refuse."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scratchgen import cli
from scratchgen.cli import display
from scratchgen.errors import UserError
from scratchgen.train import Progress, files, runs

SMALL = ["--limit", "60", "--batch-size", "20", "--backend", "numpy", "--no-pictures"]


@pytest.fixture
def scratchgen(tmp_path, monkeypatch, capsys):
    """Runs one command line in an empty folder; gives (status, output, error output)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small VAE run; not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "vae"
    assert cli.run(["train", "vae", "--epochs", "1", *SMALL, "--out", str(path)]) == 0
    return path


def refused(result, *said):
    """Exit status 2 and one line that begins with the program's name and says all of ``said``."""
    status, _, error = result
    assert status == 2
    assert re.fullmatch(r"scratchgen: [^\n]+\n", error), error
    for part in said:
        assert part in error
    return True


def test_help_and_version(scratchgen):
    for arguments in ([], ["--help"], ["-h"]):
        status, output, _ = scratchgen(*arguments)
        assert status == 0 and "demo" in output and "train" in output
    status, output, _ = scratchgen("train", "--help")
    assert status == 0
    for option in ("--data", "--data-dir", "--arch", "--epochs", "--batch-size", "--lr", "--seed",
                   "--backend", "--gradient", "--preset", "--out", "--resume", "--overwrite",
                   "--limit", "--config", "--set", "--features", "--labels", "--no-pictures"):
        assert option in output
    status, output, _ = scratchgen("--version")
    assert status == 0 and re.fullmatch(r"scratchgen \d+\.\d+\.\d+\n", output)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from scratchgen import cli; cli.run(['--help'])\n"
        "print(sorted({'numba', 'matplotlib', 'safetensors'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# -- refusals


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train"], ["missing", "--help"]),
        (["trian"], ["trian", "train"]),
        (["train", "vea"], ["unknown model 'vea'", "'vae'"]),
        (["train", "vae", "--epohcs", "3"], ["--epohcs", "--epochs"]),
        (["train", "vae", "--preset", "demmo"], ["unknown preset", "'demo'"]),
        (["train", "vae", "--data", "mnist-mni"], ["unknown data set", "'mnist-mini'"]),
        (["train", "vae", "--backend", "torch"], ["run.backend", "numba"]),
        (["train", "vae", "--backend", "cuda"], ["cuda"]),
        (["train", "vae", "--gradient", "magic"], ["run.gradient", "explicit"]),
        (["train", "vae", "--arch", "mpl"], ["arch", "mlp"]),
        (["train", "vae", "--epochs", "-1"], ["train.epochs = -1"]),
        (["train", "vae", "--epochs", "2.5"], ["train.epochs = 2.5", "whole number"]),
        (["train", "vae", "--batch-size", "0"], ["train.batch_size = 0"]),
        (["train", "vae", "--lr", "fast"], ['train.lr = "fast"', "number above 0"]),
        (["train", "vae", "--lr", "nan"], ["train.lr = nan"]),
        (["train", "vae", "--lr", "-1"], ["train.lr = -1"]),
        (["train", "vae", "--seed", "-1"], ["run.seed = -1"]),
        (["train", "vae", "--limit", "-1"], ["data.limit = -1"]),
        (["train", "vae", "--set", "train.lr"], ["TABLE.KEY=VALUE"]),
        (["train", "vae", "--set", "train.epohcs=1"], ["'epohcs'", "'epochs'"]),
        (["train", "vae", "--set", "train.optimizer=adma"], ["adma", "adam"]),
        (["train", "vae", "--set", "model.hidden=0"], ["hidden"]),
        (["train", "vae", "--set", "model.nothing=1"], ["'nothing'"]),
        (["train", "vae", "--config", "none.toml"], ["none.toml"]),
        (["train", "vae", "--data", "mnist", "--data-dir", "nowhere"], ["nowhere"]),
        (["train", "vae", "--resume"], ["--out"]),
        (["train", "vae", "--resume", "--out", "none"], ["no run in none"]),
        (["train", "vae", "--resume", "--overwrite", "--out", "none"], ["expected one of them"]),
        (["demo", "--resume", "--overwrite", "--out", "none"], ["expected one of them"]),
        (["train", "vae", "--out", ""], ["--out is empty", "variable"]),
        (["train", "vae", "--out="], ["--out is empty"]),
        (["train", "vae", "--data", ""], ["--data is empty"]),
        (["train", "vae", "--data-dir", ""], ["--data-dir is empty"]),
        (["train", "vae", "--config", ""], ["--config is empty"]),
        (["sample", "none", "--out", ""], ["--out is empty"]),
        (["demo", "--out", ""], ["--out is empty"]),
        (["eval", ""], ["an argument is empty"]),
        (["demo", "--resume"], ["--out"]),
        (["eval", "none"], ["no run in none"]),
        (["sample", "none"], ["no run in none"]),
        (["sample", "none", "--n", "0"], ["--n 0"]),
        (["sample"], ["missing"]),
        (["plot", "none"], ["no run in none"]),
        (["report"], ["missing"]),
        (["report", "none"], ["no run in none"]),
        (["report", "none", "neither"], ["--out"]),
        (["report", "none", "--out", "page.pdf"], [".html"]),
        (["train", "classifier", "--labels", "wrong"], ["labels", "rotation"]),
        (["train", "vae", "--labels", "given"], ["labels"]),
        (["train", "vae", "--features", "none"], ["features"]),
        (["data", "verify", "mnits"], ["unknown data set", "'mnist'"]),
        (["data", "get", "mnits"], ["unknown data set", "'mnist'"]),
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_clear_line(scratchgen, tmp_path, arguments, said):
    status, output, error = scratchgen(*arguments)
    refused((status, output, error.lower()), *(part.lower() for part in said))
    assert list(tmp_path.iterdir()) == []  # nothing was left behind


def test_folders_and_files_in_the_way(scratchgen, trained, tmp_path):
    again = ["train", "vae", "--epochs", "1", *SMALL, "--out"]
    refused(scratchgen(*again, trained), "already contains a run", "--resume")
    (tmp_path / "file").write_text("")
    refused(scratchgen(*again, "file"), "cannot create the run folder")
    refused(scratchgen("train", "gan", "--resume", "--out", trained), "run.model", "vae")
    refused(scratchgen("train", "vae", "--resume", "--lr", "0.5", "--out", trained), "train.lr")
    (tmp_path / "bad.toml").write_text("[train]\nlr = = 1\n")
    refused(scratchgen("train", "vae", "--config", "bad.toml"), "bad.toml", "line 2")


def test_damaged_and_foreign_checkpoints(scratchgen, trained, tmp_path):
    from safetensors.numpy import save

    whole = (trained / "checkpoint.safetensors").read_bytes()
    for wrong in (whole[:-7], b"", b"hello", save({"w": np.ones(3)})):
        copy = tmp_path / "copy"
        copy.mkdir(exist_ok=True)
        (copy / "config.toml").write_bytes((trained / "config.toml").read_bytes())
        (copy / "checkpoint.safetensors").write_bytes(wrong)
        for command in (["eval"], ["sample"], ["train", "vae", "--resume", "--out"]):
            refused(scratchgen(*command, copy), "checkpoint.safetensors")


def test_a_folder_of_other_files_is_left_alone(scratchgen, tmp_path):
    """Everything that a run writes may lie in a folder already, as somebody else's."""
    command = ["train", "vae", "--epochs", "1", *SMALL[:-1], "--out"]
    for name in ("summary.json", "env.json", "state.json", "report.html", "pictures/samples.png",
                 "notes.txt", ".hidden", "empty/"):
        path = tmp_path / "full" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True)
        if not name.endswith("/"):
            path.write_text("mine")
        refused(scratchgen(*command, "full"), "full contains", "is not a run", "--overwrite")
        assert [each.name for each in path.parent.iterdir() if each != path] == []
        assert not path.is_file() or path.read_text() == "mine"
        shutil.rmtree(tmp_path / "full")
    refused(scratchgen("demo", "--quick", "--out", foreign_demo(tmp_path)), "is not a run")
    (tmp_path / "litter").mkdir()
    for name in (".config.toml.tmp", ".DS_Store"):
        (tmp_path / "litter" / name).write_text("")
    assert scratchgen(*command, "litter", "--no-pictures")[0] == 0


def foreign_demo(tmp_path):
    (tmp_path / "demo" / "dae").mkdir(parents=True)
    (tmp_path / "demo" / "dae" / "notes.txt").write_text("mine")
    return "demo"


def test_overwrite_replaces_a_run_and_leaves_the_rest(scratchgen, tmp_path):
    command = ["train", "vae", *SMALL, "--out", "a", "--epochs"]
    assert scratchgen(*command, "1")[0] == 0
    once = {each.name: each.read_bytes() for each in (tmp_path / "a").iterdir()}
    assert scratchgen(*command, "3", "--overwrite")[0] == 0
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "pictures" / "epochs").mkdir(parents=True)
    (tmp_path / "a" / "pictures" / "mine.png").write_text("mine")
    (tmp_path / "a" / "pictures" / "epochs" / "0003.npz").write_text("of the old run")
    refused(scratchgen(*command, "1"), "already contains a run", "--resume", "--overwrite")
    assert scratchgen(*command, "1", "--overwrite")[0] == 0
    for name in ("checkpoint.safetensors", "config.toml", "env.json"):
        assert (tmp_path / "a" / name).read_bytes() == once[name]
    assert len((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "a" / "pictures" / "mine.png").read_text() == "mine"
    assert not (tmp_path / "a" / "pictures" / "epochs").exists()


def test_a_probe_does_not_overwrite_the_run_it_reads(scratchgen, tmp_path):
    assert scratchgen("train", "vae", "--epochs", "1", *SMALL, "--out", "a")[0] == 0
    before = (tmp_path / "a" / "checkpoint.safetensors").read_bytes()
    refused(scratchgen("train", "probe", *SMALL, "--features", "a", "--out", "./a", "--overwrite"),
            "choose another --out")
    assert (tmp_path / "a" / "checkpoint.safetensors").read_bytes() == before


def test_a_folder_whose_name_looks_like_an_option(scratchgen):
    status, output, _ = scratchgen("train", "vae", "--epochs", "1", *SMALL, "--out=-x y")
    assert status == 0 and output.endswith("next: scratchgen sample './-x y'\n")
    assert scratchgen("sample", "./-x y", "--n", "4")[0] == 0


@pytest.mark.parametrize("out", ["a\0b", "x" * 300, "file", "file/below", "link"],
                         ids=["NUL", "long", "file", "below a file", "dangling link"])
def test_names_that_are_no_folder(scratchgen, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    refused(scratchgen("train", "vae", "--epochs", "1", *SMALL, "--out", out))
    refused(scratchgen("train", "vae", "--resume", "--out", out))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]


def test_a_folder_that_is_read_only(scratchgen, tmp_path, monkeypatch):
    """The bits do not bind a superuser, so the system's answer is given for it."""
    def no(path, flags, *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(files, "open", no, raising=False)
    refused(scratchgen("train", "vae", "--epochs", "1", *SMALL, "--out", "a"),
            "cannot write a/config.toml (Permission denied)", "choose another folder")


def test_run_folders_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong in ("", 3, None, "a\0b"):
        for call in (runs.create, runs.open_run)[wrong is None:]:
            with pytest.raises(UserError):
                call(wrong)
    assert list(tmp_path.iterdir()) == []


# -- what works


def test_the_package_is_a_program(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = [subprocess.run([sys.executable, "-m", "scratchgen", argument], capture_output=True,
                           text=True, env=environment, cwd=tmp_path)
            for argument in ("--version", "--bad")]
    assert done[0].returncode == 0 and done[0].stdout.startswith("scratchgen ")
    assert done[1].returncode == 2 and done[1].stderr.startswith("scratchgen: ")


def test_train_eval_sample(scratchgen, trained, tmp_path):
    status, output, _ = scratchgen("eval", trained, "--json")
    terms = json.loads(output)
    summary = json.loads((trained / "summary.json").read_text())
    assert status == 0 and terms["test_loss"] == summary["test_loss"]
    status, output, _ = scratchgen("eval", trained)
    assert status == 0 and "loss" in output
    status, output, _ = scratchgen("sample", trained, "--n", "9", "--seed", "2", "--out", "a.png")
    assert status == 0 and output == "a.png\n"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    status, output, _ = scratchgen("sample", trained, "--n", "4")
    assert status == 0 and output.strip().endswith("samples-seed0.png")


def test_plain_lines_when_not_on_a_terminal(scratchgen):
    status, output, error = scratchgen("train", "dae", "--epochs", "3", *SMALL)
    assert status == 0 and error == ""
    heading, *lines = output.splitlines()
    assert heading.split() == ["dae", "epoch", "loss", "time", "left"]
    for epoch in (1, 2, 3):
        train, test = lines[2 * epoch - 2 : 2 * epoch]
        assert re.fullmatch(rf" +{epoch}/3  train +[\d.]+(  \d+ s)?", train)
        assert re.fullmatch(r" +  test +[\d.]+", test)
    assert lines[0].endswith(" s") and not lines[4].endswith(" s")
    assert lines[6].startswith("runs/dae-mnist-mini-1   3 epochs   test loss")
    assert "\x1b" not in output
    assert runs.open_run("runs/dae-mnist-mini-1").checkpoint().state["epoch"] == 3


NUMBERS = {"loss": 105.62, "reconstruction": 1e-5 / 3, "kl": -98765.43}
GAME = {"loss": 1.066, "d_real": 0.7802, "d_fake": 0.0005446, "penalty": 9e22, "g_loss": -1e9}


@pytest.mark.parametrize("title, terms, test", [
    ("dae", {"loss": 454.98}, {"loss": 1e5}), ("vae", NUMBERS, NUMBERS),
    ("gan", GAME, {name: GAME[name] for name in GAME if name != "penalty"}),
    ("classifier", {"loss": 2.25, "accuracy": 0.13}, {"loss": 2.03, "accuracy": 0.35})])
@pytest.mark.parametrize("epochs, seconds", [(2, 0.2), (100, 5 * 3600 + 59 * 60), (1000, 3599)])
def test_the_table_of_epochs_is_aligned_and_fits_80_columns(title, terms, test, epochs, seconds):
    for epoch in {1, 2, epochs}:
        progress = Progress(epoch, epochs, 5, 5, terms, test, seconds)
        heading = display.format_heading(title, progress)
        lines = display.format_epoch(title, progress)
        assert max(map(len, (heading, *lines))) <= 80
        for name in terms:                                   # the numbers end where the name ends
            end = re.search(rf" {name}(?= )", heading).end()
            for line, values in zip(lines, (terms, test), strict=True):
                cell = line[:end].split()[-1]
                assert line[end : end + 1] in ("", " ")
                if name not in values:
                    assert cell == "-"
                else:
                    assert float(cell) == pytest.approx(values[name], rel=5e-3)


def test_the_heading_of_the_table_comes_once_and_again_with_other_terms(capsys):
    with display.TrainingDisplay("sdae") as shown:
        for epoch, terms in enumerate([{"loss": 1.0}] * 3 + [{"loss": 1.0, "accuracy": 0.5}], 1):
            shown(Progress(epoch, 4, 5, 5, terms, terms, 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert [i for i, line in enumerate(lines) if "epoch" in line] == [0, 7]
    assert "accuracy" in lines[7] and len(lines) == 10


def test_sources_of_the_configuration(scratchgen, tmp_path):
    (tmp_path / "some.toml").write_text("[train]\nepochs = 2\nlr = 0.5\n[run]\nseed = 4\n")
    status, _, error = scratchgen("train", "vae", "--config", "some.toml", "--lr", "0.001", *SMALL,
                                  "--set", "run.seed=5", "--set", "data.binarize=static",
                                  "--out", "a")
    assert status == 0, error
    resolved = runs.open_run("a").config()
    assert resolved["train"]["epochs"] == 2
    assert resolved["train"]["lr"] == 0.001
    assert (resolved["run"]["seed"], resolved["data"]["binarize"]) == (5, "static")
    # A run's own config.toml makes the same run again.
    status, _, error = scratchgen("train", "vae", "--config", "a/config.toml", "--no-pictures",
                                  "--out", "b")
    assert status == 0, error
    for name in ("checkpoint.safetensors", "config.toml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_resume_goes_on(scratchgen):
    first = ["train", "vae", "--epochs", "1", *SMALL, "--out", "a run"]
    assert scratchgen(*first)[0] == 0
    status, output, error = scratchgen("train", "vae", "--resume", "--epochs", "2", "--out",
                                       "a run", "--no-pictures")
    assert status == 0, error
    assert " 2/2  train" in output and " 1/2" not in output


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_writes_a_checkpoint_and_says_how_to_go_on(tmp_path, number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-u", "-m", "scratchgen.cli"]
    child = subprocess.Popen(
        [*command, "train", "vae", "--epochs", "100000", *SMALL, "--out", "a run"], text=True,
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(0.1)
    child.send_signal(number)
    output, error = child.communicate(timeout=60)
    assert (child.returncode, error) == (128 + number, "")
    go_on = output.splitlines()[-1].strip()
    assert go_on == "scratchgen train vae --resume --out 'a run'"
    assert runs.open_run(tmp_path / "a run").checkpoint().state["step"] > 0


def test_pictures_are_drawn(scratchgen, tmp_path):
    arguments = [option for option in SMALL if option != "--no-pictures"]
    status, output, error = scratchgen("train", "vae", "--epochs", "1", *arguments, "--out", "a")
    assert status == 0, error
    drawn = sorted((tmp_path / "a" / "pictures").glob("*.png"))
    assert drawn and all(picture.name in output for picture in drawn)
    assert "report: a/report.html" in output
    page = (tmp_path / "a" / "report.html").read_bytes()
    (tmp_path / "a" / "report.html").unlink()
    drawn[0].unlink()
    status, output, error = scratchgen("plot", "a")
    assert status == 0 and error == "" and drawn[0].exists()
    assert (tmp_path / "a" / "report.html").read_bytes() == page
    status, output, error = scratchgen("report", "a", "--out", "page.html")
    assert (status, output) == (0, "page.html\n")
    assert (tmp_path / "page.html").read_bytes() == page
    status, output, error = scratchgen("report", "a", "a", "--out", "two.html")
    assert status == 0 and (tmp_path / "two.html").exists()


def test_no_pictures_means_none(scratchgen, tmp_path):
    assert scratchgen("train", "vae", "--epochs", "1", *SMALL, "--out", "a")[0] == 0
    assert not (tmp_path / "a" / "pictures").exists()
    assert not (tmp_path / "a" / "report.html").exists()


def test_options_of_representation_learning(scratchgen, trained):
    status, output, error = scratchgen("train", "probe", "--features", trained, "--epochs", "1",
                                       *SMALL, "--out", "probe")
    assert status == 0, error
    assert output.endswith("next: scratchgen eval probe\n")
    status, _, error = scratchgen("train", "classifier", "--labels", "rotation", "--epochs", "1",
                                  *SMALL, "--out", "turned")
    assert status == 0, error
    assert runs.open_run("turned").config()["model"]["labels"] == "rotation"


def test_quick_demo(scratchgen, tmp_path, monkeypatch):
    status, output, error = scratchgen("demo", "--quick", "--out", "here")
    assert status == 0, error
    for kind in ("dae", "vae", "gan"):
        assert list((tmp_path / "here" / kind / "pictures").glob("*.png"))
        assert (tmp_path / "here" / kind / "report.html").exists()
    look, draw, explicit = output.splitlines()[-3:]
    assert "here/vae/report.html" in look
    assert scratchgen(*draw.split("scratchgen ")[1].split())[0] == 0
    assert "--gradient explicit" in explicit
    refused(scratchgen("demo", "--quick", "--out", "here"), "already contains a run")
    from scratchgen import plots

    monkeypatch.setattr(plots, "draw_run", lambda path: [])      # nothing new to draw
    status, output, error = scratchgen("demo", "--quick", "--out", "here", "--resume")
    assert status == 0, error


def test_data_commands(scratchgen):
    status, output, _ = scratchgen("data", "list")
    assert status == 0
    for name in ("mnist-mini", "mnist", "fashion-mnist"):
        assert name in output
    status, output, _ = scratchgen("data", "verify", "mnist-mini")
    assert status == 0 and output.count("ok ") == 4
