"""Configuration and run folder: what is written can be read back, and nothing wrong gets in."""

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest

from scratchgen.errors import UserError
from scratchgen.train import checkpoint, config, files, runs, schema

STATE = {"epoch": 2, "batch": 3, "step": 17, "sums": {"loss": 0.1 + 0.2}}


class Fake:
    """As much of a model as the configuration looks at."""

    @dataclass
    class Config:
        arch: Literal["mlp", "conv"] = "mlp"
        hidden: tuple[int, ...] = field(default=(30, 20), metadata={"low": 1})
        beta: float = 1.0
        tied: bool = False
        offset: int = field(default=0, metadata={"low": -3, "high": 3})

        def __post_init__(self):
            if self.tied and len(self.hidden) > 1:
                raise ValueError("tied weights need one hidden layer")

    presets = {
        "default": {},
        "wide": {"model": {"hidden": [500]}, "train": {"epochs": 3}, "data": {"limit": 7}},
    }
    optimiser_defaults = {"epochs": 4, "lr": 0.5, "optimizer": "sgd", "momentum": 0.25}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(schema, "model_class", lambda kind: Fake)


def resolve(*settings, **run):
    return config.resolve(config.merge({"run": {"model": "fake", **run}},
                                       *map(config.setting, settings)))


# -- configuration


def test_later_sources_win(fake, tmp_path):
    assert resolve()["train"]["epochs"] == 4
    assert resolve()["model"]["hidden"] == [30, 20]
    assert resolve(preset="wide")["train"]["epochs"] == 3
    assert resolve(preset="wide")["data"]["limit"] == 7
    assert resolve("train.epochs=9", preset="wide")["train"]["epochs"] == 9
    file = tmp_path / "some.toml"
    file.write_text("[train]\nepochs = 6\nlr = 2\n")
    options = {"train": {"epochs": 7}}
    given = config.gather("fake", options, file, ["train.batch_size=8"])
    resolved = config.resolve(given)
    assert [resolved["train"][key] for key in ("epochs", "lr", "batch_size")] == [7, 2.0, 8]
    assert isinstance(resolved["train"]["lr"], float)


def test_options_of_the_chosen_optimiser(fake):
    assert resolve()["train"]["momentum"] == 0.25  # the model's default
    adam = resolve("train.optimizer=adam")["train"]
    assert (adam["beta1"], adam["beta2"]) == (0.9, 0.999) and "momentum" not in adam
    assert resolve("train.optimizer=adam", "train.beta1=0.5")["train"]["beta1"] == 0.5
    for wrong in ("1", "[0.5, 0.9]", "-0.1"):
        with pytest.raises(UserError, match="train.beta1 = .* of at least 0 and below 1"):
            resolve("train.optimizer=adam", f"train.beta1={wrong}")


def test_toml_round_trip(fake, tmp_path):
    settings = ("model.hidden=[4, 5]", 'data.dir=a "b" \\ c', "train.lr=1e-3")
    resolved = resolve(*settings, seed=2**63 - 1)
    file = tmp_path / "config.toml"
    file.write_text(config.dumps(resolved), encoding="utf-8")
    assert config.resolve(config.read(file)) == resolved
    assert config.model_config(resolved) == Fake.Config(hidden=(4, 5))


@pytest.mark.parametrize(
    "text, value",
    [("train.lr=.5", 0.5), ("train.lr=2", 2.0), ("model.hidden=40", [40]),
     ("data.name=mnist", "mnist"), ('data.name="mnist"', "mnist"), ("model.tied=false", False),
     ("model.offset=-3", -3), ("train.epochs = 2 ", 2), ("model.arch=conv", "conv")],
)  # fmt: skip
def test_set_values(fake, text, value):
    table, key = text.partition("=")[0].strip().split(".")
    assert resolve(text)[table][key] == value


def test_values_from_python(fake, tmp_path):
    given = {"run": {"model": "fake"}, "train": {"epochs": np.int64(3), "lr": np.float32(0.5)},
             "data": {"dir": tmp_path}, "model": {"hidden": (7, np.int32(8))}}
    resolved = config.resolve(given)
    assert config.resolve(tomllib.loads(config.dumps(resolved))) == resolved
    assert resolved["train"]["epochs"] == 3 and resolved["train"]["lr"] == 0.5
    assert resolved["data"]["dir"] == str(tmp_path) and resolved["model"]["hidden"] == [7, 8]


@pytest.mark.parametrize(
    "text, said",
    [
        ("train.epochs=-1", "train.epochs = -1: expected a whole number of at least 1"),
        ("train.epochs=2.5", "train.epochs = 2.5: expected a whole number"),
        ("train.epochs=true", "train.epochs = true: expected a whole number"),
        ("train.lr=0", "expected a finite number above 0"),
        ("train.lr=nan", "train.lr = nan"),
        ("train.lr=inf", "train.lr = inf"),
        ("train.lr=fast", 'train.lr = "fast": expected a finite number'),
        ("train.lr=[1.0]", "train.lr"),
        ("train.momentum=-1", "train.momentum = -1"),
        ("train.momentum=1", "of at least 0 and below 1"),
        ("train.beta1=0.5", "unknown key in [train] 'beta1'"),  # sgd has none
        ("train.optimizer=adma", "did you mean 'adam'"),
        ("train.optimizer=[3]", "train.optimizer = [3]: expected text"),
        ("run.preset=[3]", "run.preset = [3]: expected text"),
        ("run.model=[3]", "run.model = [3]: expected text"),
        ("train.epohcs=1", "did you mean 'epochs'"),
        ("trian.epochs=1", "did you mean 'train'"),
        ("model.hidden=[3, 0]", "a list, each item a whole number of at least 1"),
        ("model.hidden=[3, 'a']", "model.hidden"),
        ("model.arch=mpl", "expected one of mlp, conv"),
        ("model.tied=1", "model.tied = 1: expected true or false"),
        ("model.tied=true", "tied weights need one hidden layer"),
        ("model.offset=4", "at least -3 and at most 3"),
        ("run.backend=torch", "expected one of numpy, numba"),
        ("run.seed=-1", "run.seed"),
        ("run.preset=wied", "did you mean 'wide'"),
        ("data.binarize=maybe", "none, threshold, static, dynamic"),
        ("data.limit={a = 1}", "data.limit"),
        ("lr=3", "expected TABLE.KEY=VALUE"),
        ("train.lr", "expected TABLE.KEY=VALUE"),
        (".=1", "expected TABLE.KEY=VALUE"),
    ],
)
def test_wrong_values_are_named(fake, text, said):
    with pytest.raises(UserError) as caught:
        resolve(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, said",
    [(b"[train]\nlr = 1\nlr = 2\n", "line 3"), (b"[train\n", "line 1"), (b"\xff\xfe", "UTF-8"),
     (b"lr = 1\n", "is not in a table")],
)  # fmt: skip
def test_bad_toml_names_file_and_place(tmp_path, content, said):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        config.read(file)


def test_missing_config_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        config.read(tmp_path / "none.toml")
    with pytest.raises(UserError, match="directory"):
        config.read(tmp_path)


def test_file_for_another_model(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text('[run]\nmodel = "gan"\n')
    with pytest.raises(UserError, match="'gan', the command for 'vae'"):
        config.gather("vae", {}, file)


def test_resume_keeps_all_but_the_length(fake):
    stored = resolve("train.epochs=2")
    longer = config.resume(stored, {"run": {"model": "fake"}, "train": {"epochs": 4, "lr": 0.5}})
    assert longer == {**stored, "train": {**stored["train"], "epochs": 4}}
    with pytest.raises(UserError, match="train.lr = 0.25: the run was started with 0.5"):
        config.resume(stored, {"train": {"lr": 0.25}})
    with pytest.raises(UserError, match="run.seed"):
        config.resume(stored, {"run": {"seed": 5}})


# -- checkpoint


def tensors():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(5, 4)).astype(np.float32)
    return {
        "model.w": weights.T,  # not contiguous
        "model.b": np.zeros(3),
        "model.none": np.zeros((0, 2), np.float32),
        "optim.model.step": np.array(17, np.int64),
    }


@pytest.fixture
def run(tmp_path):
    run = runs.create(tmp_path / "a run")
    run.save(runs.Checkpoint(STATE, tensors()))
    return run


def test_checkpoint_round_trip(run):
    checkpoint = run.checkpoint()
    assert checkpoint.state == STATE
    assert checkpoint.tensors.keys() == tensors().keys()
    for name, array in tensors().items():
        assert checkpoint.tensors[name].dtype == array.dtype
        assert checkpoint.tensors[name].shape == array.shape
        np.testing.assert_array_equal(checkpoint.tensors[name], array)
    assert checkpoint.with_prefix("optim.model").keys() == {"step"}
    assert json.loads((run.path / "state.json").read_text())["step"] == 17


def test_same_content_same_bytes(run, tmp_path):
    other = runs.create(tmp_path / "other")
    turned = dict(reversed(tensors().items()))
    other.save(runs.Checkpoint(dict(reversed(STATE.items())), turned))
    assert other.checkpoint_path.read_bytes() == run.checkpoint_path.read_bytes()


@pytest.mark.parametrize("position", [0, 3, 9, 40, 300, -1, -30])
def test_flipped_byte_is_noticed(run, position):
    content = bytearray(run.checkpoint_path.read_bytes())
    content[position] ^= 0x11
    run.checkpoint_path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        run.checkpoint()
    assert str(run.checkpoint_path) in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 8, 100, -1])
def test_truncated_checkpoint(run, length):
    run.checkpoint_path.write_bytes(run.checkpoint_path.read_bytes()[:length])
    with pytest.raises(UserError, match="is damaged .*restore it from a copy"):
        run.checkpoint()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"state": "[1]"}, {"state": "{"}])
def test_foreign_checkpoint(run, metadata):
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3)}, run.checkpoint_path, metadata=metadata)
    with pytest.raises(UserError, match="not written by scratchgen"):
        run.checkpoint()


def test_checkpoint_of_a_later_format(run, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    run.save(runs.Checkpoint(STATE, tensors()))
    monkeypatch.undo()
    with pytest.raises(UserError, match="use the version that wrote it"):
        run.checkpoint()


def test_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        runs.create(tmp_path / "new").checkpoint()


# -- writing


def test_failed_write_keeps_the_old_file(run, monkeypatch):
    before = run.checkpoint_path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="cannot write .*No space left"):
        run.save(runs.Checkpoint({**STATE, "epoch": 3}, tensors()))
    monkeypatch.undo()
    assert run.checkpoint_path.read_bytes() == before
    assert run.checkpoint().state == STATE


def test_metrics_survive_a_torn_line(run):
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch, "test_loss": 1 / epoch})
    with open(run.metrics_path, "a") as file:
        file.write('{"epoch": 4, "test_l')
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    run.truncate_metrics(2)
    assert run.metrics_path.read_text().count("\n") == 2
    run.append_metrics({"epoch": 3, "test_loss": 1 / 3})
    assert run.metrics()[-1] == {"epoch": 3, "test_loss": 1 / 3}


def test_torn_line_in_the_middle(run):
    run.metrics_path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(UserError, match="line 2: expected JSON"):
        run.metrics()


def test_folder_with_a_run_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="already contains a run: choose another --out"):
        runs.create(run.path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("kept")
    with pytest.raises(UserError, match="contains note.txt and is not a run: .*--overwrite"):
        runs.create(tmp_path / "notes")
    assert runs.create(tmp_path / "notes", overwrite=True).path.is_dir()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot create the run folder"):
            runs.create(path)


def test_first_free_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "vae-mnist-2").mkdir(parents=True)
    names = [runs.create(label="vae-mnist").path.as_posix() for _ in range(3)]
    assert names == ["runs/vae-mnist-1", "runs/vae-mnist-3", "runs/vae-mnist-4"]


def test_no_default_folder_below_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(UserError, match="cannot create the run folder"):
        runs.create(label="vae-mnist")


def test_missing_run(tmp_path):
    with pytest.raises(UserError, match="no run in"):
        runs.open_run(tmp_path / "none")


@pytest.mark.skipif(sys.platform == "win32", reason="no folder locks there")
def test_two_processes_do_not_train_into_one_folder(run):
    code = (
        "import sys; from scratchgen.train import runs\n"
        "with runs.Run(sys.argv[1]).locked(): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, run.path], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process"), run.locked():
            pass
        other.kill()
        other.wait()
        with run.locked():  # the kill has freed it
            pass


def test_environment_names_versions_and_no_person(run):
    run.write_environment()
    written = json.loads((run.path / "env.json").read_text())
    assert written["versions"]["numpy"] == np.__version__
    assert "resumed" not in written
    run.write_environment()
    assert json.loads((run.path / "env.json").read_text()) == written
    (run.path / "env.json").write_text(json.dumps({**written, "platform": "elsewhere"}))
    run.write_environment()
    assert json.loads((run.path / "env.json").read_text())["resumed"] == [written]
