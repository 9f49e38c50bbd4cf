"""Bad input on the command line: one sentence, exit status 2, nothing written over."""

import errno
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from scratchgen import cli, train
from scratchgen.data import folders, idx
from scratchgen.errors import UserError, unknown
from scratchgen.train import files, runs

SMALL = ["--limit", "40", "--batch-size", "20", "--backend", "numpy", "--epochs", "1",
         "--no-pictures"]
TABLES = {"run": {"model": "vae", "backend": "numpy"}, "data": {"limit": 40},
          "train": {"epochs": 1, "batch_size": 20}, "model": {"hidden": 6, "latent": 2}}
GREY = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)


def snapshot(folder):
    """Path -> bytes of every file below the folder; None for what is no regular file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small VAE run as {file name: bytes}."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train.train(TABLES, path)
    return {name: content for name, content in snapshot(path).items() if content is not None}


@pytest.fixture
def place(tmp_path, monkeypatch, trained):
    """An empty working folder with a whole run in ``run``, and no data of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path / "no cache")
    monkeypatch.setattr(folders, "DEBIAN", {})
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    put(tmp_path / "run", trained)
    return tmp_path


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def refused(capsys, folder, arguments, *said):
    """The sentence of a command that is refused; everything in the folder is as it was."""
    before = snapshot(folder)
    capsys.readouterr()
    status = cli.run([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert status == 2, error
    assert re.fullmatch(r"scratchgen: [^\n]{15,3000}\n", error), error
    assert "Traceback" not in error
    for part in said:
        assert re.search(part, error), f"{part!r} is not in: {error}"
    assert snapshot(folder) == before
    return error


# --- names, options, configuration: (arguments, what the sentence says) --------------------------

VAE = ["train", "vae"]
ARGUMENTS = {
    "unknown command": (["trian", "vae"], "trian", "train"),
    "unknown model": (["train", "vea"], "unknown model 'vea': did you mean 'vae'"),
    "unknown option": ([*VAE, "--epohcs", "3"], "--epohcs", "--epochs"),
    "unknown preset": ([*VAE, "--preset", "dmo"], "unknown preset of vae 'dmo': did you mean 'dem"),
    "unknown data set": ([*VAE, "--data", "fashion"], "unknown data set 'fashion'.*fashion-mnist"),
    "unknown density": ([*VAE, "--data", "rign"], "did you mean 'ring'"),
    "unknown table": ([*VAE, "--set", "trian.lr=1"], "configuration table 'trian'.*'train'"),
    "unknown key": ([*VAE, "--set", "train.epoch=1"], "unknown key .*'epoch'.*'epochs'"),
    "unknown model key": ([*VAE, "--set", "model.hiden=1"], "'hiden': did you mean 'hidden'"),
    "unknown optimizer": ([*VAE, "--set", "train.optimizer=adma"], "'adma': did you mean 'adam'"),
    "unknown activation": ([*VAE, "--set", "model.activation=rleu"], "expected one of .*relu"),
    "unknown backend": ([*VAE, "--backend", "nunba"], "expected one of numpy, numba, cuda"),
    "missing cuda": ([*VAE, "--backend", "cuda", "--limit", "40"], "'cuda'", "choose|expected"),
    "unknown gradient": ([*VAE, "--gradient", "hand"], "expected one of tape, explicit"),
    "unknown dtype": ([*VAE, "--set", "run.dtype=float16"], "expected one of float32, float64"),
    "unknown binarization": ([*VAE, "--set", "data.binarize=x"], "none, threshold, static"),
    "unknown corruption": (["train", "dae", "--set", "model.corruption=mask"], "masking"),
    "negative epochs": ([*VAE, "--epochs", "-3"], "train.epochs = -3: expected a whole number"),
    "zero epochs": ([*VAE, "--epochs", "0"], "train.epochs = 0"),
    "epochs no number": ([*VAE, "--epochs", "ten"], 'train.epochs = "ten": expected a whole'),
    "half an epoch": ([*VAE, "--epochs", "0.5"], "train.epochs = 0.5: expected a whole number"),
    "far too many epochs": ([*VAE, "--epochs", "9" * 40], "at most 1000000000"),
    "number without end": ([*VAE, "--epochs", "9" * 5000], "train.epochs"),
    "zero batch size": ([*VAE, "--batch-size", "0"], "train.batch_size = 0: expected a whole"),
    "negative lr": ([*VAE, "--lr", "-0.1"], "train.lr = -0.1: expected a finite number above 0"),
    "infinite lr": ([*VAE, "--lr", "inf"], "train.lr = inf: expected a finite number"),
    "nan lr": ([*VAE, "--lr", "nan"], "train.lr = nan"),
    "overflowing lr": ([*VAE, "--lr", "1e999"], "train.lr = inf"),
    "lr a list": ([*VAE, "--set", "train.lr=[1, 2]"], "train.lr = .1, 2.: expected a finite"),
    "lr a date": ([*VAE, "--set", "train.lr=1979-05-27"], "train.lr = 1979-05-27"),
    "negative seed": ([*VAE, "--seed", "-1"], "run.seed = -1"),
    "huge seed": ([*VAE, "--seed", str(2**63)], "run.seed"),
    "negative limit": ([*VAE, "--limit", "-5"], "data.limit = -5"),
    "negative hidden": ([*VAE, "--set", "model.hidden=-1"], "model.hidden = -1"),
    "layers of text": (["train", "gan", "--set", "model.generator=['a']"], "each item a whole"),
    "set without value": ([*VAE, "--set", "train.lr"], "expected TABLE.KEY=VALUE"),
    "set without table": ([*VAE, "--set", "lr=1"], "expected TABLE.KEY=VALUE"),
    "no argument": (["train"], "[Mm]issing"),
    "resume without out": ([*VAE, "--resume"], "--out"),
    "resume nothing": ([*VAE, "--resume", "--out", "none"], "no run in none: expected a folder"),
    "eval nothing": (["eval", "none"], "no run in none"),
    "sample nothing": (["sample", "none"], "no run in none"),
    "plot nothing": (["plot", "none"], "no run in none"),
    "report nothing": (["report", "none"], "no run in none"),
    "probe nothing": (["train", "probe", "--features", "none"], "no run in none"),
    "probe of what": (["train", "probe"], "features"),
    "sample none": (["sample", "run", "--n", "0"], "--n 0: expected at least 1"),
    "sample x": (["sample", "run", "--n", "x"], "valid integer"),
    "sample a negative seed": (["sample", "run", "--seed", "-1"], "seed"),
    "verify unknown": (["data", "verify", "mnst"], "'mnst': did you mean 'mnist'"),
    "get unknown": (["data", "get", "mnst"], "'mnst': did you mean 'mnist'"),
    "data not there": ([*VAE, "--data", "mnist"], "mnist was not found.*scratchgen data get mnist"),
    "no such data folder": ([*VAE, "--data-dir", "none", "--data", "mnist"], "no data folder none"),
    "no such file": ([*VAE, "--data", "none.npy"], "there is no readable file none.npy"),
    "config not there": ([*VAE, "--config", "none.toml"], "cannot read none.toml .No such file"),
    "config a folder": ([*VAE, "--config", "run"], "cannot read run .Is a directory"),
    "run in the way": ([*VAE, *SMALL, "--out", "run"], "run already contains a run: choose"),
    "other model": (["train", "gan", "--resume", "--out", "run"], "run.model.*vae"),
    "other setting": ([*VAE, "--resume", "--lr", "0.5", "--out", "run"], "train.lr = 0.5: the run"),
    "other images": (["eval", "run", "--data", "ring"], r"\(2,\).*\(28, 28, 1\)"),
    "too wide": ([*VAE, *SMALL, "--set", "model.hidden=1000000000", "--out", "wide"], "memory"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case, place, capsys):
    arguments, *said = ARGUMENTS[case]
    refused(capsys, place, arguments, *said)


CONFIGURATIONS = {
    "no TOML": (b"[train]\nlr = = 1\n", "bad.toml is not valid TOML: .*line 2"),
    "key twice": (b"[train]\nlr = 1\nlr = 2\n", "line 3"),
    "no text": (b"\xff\xfe\x00", "not a text file: expected TOML in UTF-8"),
    "outside a table": (b"lr = 1\n", r"lr = 1 is not in a table: expected .*\[train\]"),
    "unknown key": (b"[train]\nrate = 1\n", "unknown key in .train. 'rate'"),
    "unknown table": (b"[optimizer]\nlr = 1\n", "unknown configuration table 'optimizer'"),
    "wrong type": (b'[train]\nlr = "fast"\n', 'train.lr = "fast": expected a finite number'),
    "table for a value": (b"[train.lr]\nx = 1\n", "train.lr = "),
    "number without end": (b"[train]\nlr = " + b"9" * 5000 + b"\n", "not valid TOML"),
    "larger than floats": (b"[train]\nlr = " + b"9" * 400 + b"\n", "train.lr"),
    "nested without end": (b"a = " + b"[" * 5000 + b"\n", "not valid TOML"),
    "too large": (b"#" * (1 << 21), "more than 1048576 bytes"),
    "other model": (b'[run]\nmodel = "gan"\n', "bad.toml is for the model 'gan'"),
    "NUL in a name": (b'[data]\nname = "a\\u0000b.npy"\n', "no readable file"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_configuration_files(case, place, capsys):
    content, said = CONFIGURATIONS[case]
    (place / "bad.toml").write_bytes(content)
    refused(capsys, place, [*VAE, "--config", "bad.toml"], said)
    if case != "other model":
        (place / "run" / "config.toml").write_bytes(content)
        refused(capsys, place, ["eval", "run"], "config.toml|model|table")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_pipes_do_not_block(place, capsys):
    for name in ("pipe.toml", "pipe.npy", "run/checkpoint.safetensors"):
        (place / name).unlink(missing_ok=True)
        os.mkfifo(place / name)
    refused(capsys, place, [*VAE, "--config", "pipe.toml"], "regular file")
    refused(capsys, place, [*VAE, "--data", "pipe.npy"], "regular file")
    refused(capsys, place, ["eval", "run"], "regular file")


# --- data ----------------------------------------------------------------------------------------

def idx_set(change=None):
    """The four files of MNIST, none of them MNIST's; ``change`` spoils one."""
    images, labels = idx.encode(GREY), idx.encode(np.arange(12, dtype=np.uint8) % 10)
    files = {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels,
             "t10k-images-idx3-ubyte": images, "t10k-labels-idx1-ubyte": labels}
    return {**files, **(change or {})}


IDX = {
    "wrong checksum": ({}, "sha256|checksum|published"),
    "truncated": ({"train-images-idx3-ubyte": idx.encode(GREY)[:-9]}, "is truncated"),
    "cut header": ({"train-images-idx3-ubyte": idx.encode(GREY)[:9]}, "ends inside its header"),
    "no IDX": ({"train-images-idx3-ubyte": b"<html>not found</html>"}, "is not an IDX file"),
    "empty file": ({"train-images-idx3-ubyte": b""}, "is empty: expected an IDX file"),
    "damaged gzip": ({"train-images-idx3-ubyte": b"\x1f\x8b\x08" + bytes(7) + b"a"}, "damag|ends"),
    "swapped": ({"train-images-idx3-ubyte": idx.encode(np.arange(9, dtype=np.uint8))}, "swapped"),
    "goes on": ({"train-images-idx3-ubyte": idx.encode(GREY) + b"x"}, "has bytes after"),
}


@pytest.mark.parametrize("case", IDX)
def test_idx_files(case, place, capsys):
    change, said = IDX[case]
    put(place / "data", idx_set(change))
    refused(capsys, place, [*VAE, "--data", "mnist", "--data-dir", "data"], said, "idx")
    if case == "wrong checksum":
        refused(capsys, place, ["data", "verify", "mnist", "--data-dir", "data"], "differs from")


def floats(value):
    images = GREY / np.float32(255)
    images[3, 2, 1] = value
    return images


ARRAYS = {
    "objects": (np.array([{"a": 1}, [2]], object), "Python objects.*convert it to one array"),
    "empty": (np.zeros((0, 8, 8), np.uint8), r"shape \(0, 8, 8\): expected"),
    "no dimensions": (np.uint8(3), r"shape \(\)"),
    "rows": (GREY.reshape(12, 64), r"shape \(12, 64\): expected images, \(N, H, W\)"),
    "five dimensions": (GREY[None, ..., None, None][0], r"expected \(N, H, W\) or"),
    "two channels": (np.stack([GREY, GREY], -1), "2 channels: expected 1 or 3"),
    "channels first": (np.stack([GREY] * 3, 1), "move the channels last"),
    "int64": (GREY.astype(np.int64), r"dtype int64: expected uint8.*astype\(np.uint8\)"),
    "complex": (GREY * 1j, "'<c16'"), "text": (GREY.astype(str), "'<U3'"),
    "booleans": (GREY > 9, "contains booleans"),
    "float16 beyond": (floats(2).astype("f2"), r"\[0, 1\]"),
    "NaN": (floats(np.nan), "NaN or infinity, first in image 3"),
    "infinity": (floats(-np.inf), "NaN or infinity, first in image 3"),
    "0 to 255 as floats": (GREY * 1.0, r"expected \[0, 1\]; scale"),
    "one image": (GREY[:1], "contains 1 image: expected at least 2"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_own_arrays(case, place, capsys):
    array, said = ARRAYS[case]
    np.save(place / "own.npy", array, allow_pickle=True)
    refused(capsys, place, [*VAE, *SMALL, "--data", "own.npy"], "own.npy", said)
    np.savez(place / "own.npz", images=array)
    refused(capsys, place, [*VAE, *SMALL, "--data", "own.npz"], "own.npz", said)


def test_other_own_data(place, capsys):
    train_on = [*VAE, *SMALL, "--data"]
    (place / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<u1', 'fortr")
    refused(capsys, place, [*train_on, "cut.npy"], "cut.npy has no header")
    (place / "text.npy").write_text("1 2 3")
    refused(capsys, place, [*train_on, "text.npy"], "is not in NumPy's format")
    np.savez(place / "names.npz", image=GREY)
    refused(capsys, place, [*train_on, "names.npz"], "'image': did you mean 'images'")
    np.savez(place / "labels.npz", images=GREY, labels=np.arange(5))
    refused(capsys, place, [*train_on, "labels.npz"], r"shape \(5,\): expected .* \(12,\)")
    folder = place / "pictures"
    folder.mkdir()
    refused(capsys, place, [*train_on, "pictures/"], "is an empty folder: expected PNG or JPEG")
    Image.fromarray(GREY[0]).save(folder / "a.png")
    Image.fromarray(GREY[1][:5]).save(folder / "b.png")
    refused(capsys, place, [*train_on, "pictures/"], "8×5 pixels.*8×8: expected images of one size")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    refused(capsys, place, [*train_on, "pictures/"], "b.png cannot be read as a PNG image")
    (folder / "b.png").rename(folder / "b.jpeg")
    refused(capsys, place, [*train_on, "pictures/"], "b.jpeg cannot be read as a JPEG")
    (folder / "b.jpeg").rename(folder / "b.bmp")
    refused(capsys, place, [*train_on, "pictures/"], "b.bmp is not a PNG or JPEG file")


# --- checkpoints ---------------------------------------------------------------------------------

def foreign():
    from safetensors.numpy import save

    return save({"weight": np.ones(3)}, metadata={"format": "pt"})


CHECKPOINTS = {
    "empty": (lambda whole: b"", "is damaged"),
    "cut": (lambda whole: whole[:-7], "is damaged"),
    "one byte": (lambda whole: whole[:-70] + bytes([whole[-70] ^ 4]) + whole[-69:],
                 "contents do not match its checksum.*restore it from a copy"),
    "text": (lambda whole: b"hello, I am no checkpoint", "is damaged"),
    "header too long": (lambda whole: b"\xff" * 8 + whole[8:], "is damaged"),
    "foreign": (lambda whole: foreign(), "not written by scratchgen: expected the checkpoint"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints(case, place, capsys, trained):
    spoil, said = CHECKPOINTS[case]
    file = place / "run" / "checkpoint.safetensors"
    file.write_bytes(spoil(trained["checkpoint.safetensors"]))
    for command in (["eval"], ["sample"], ["plot"], [*VAE, "--resume", "--epochs", "2", "--out"],
                    ["train", "probe", *SMALL, "--out", "probe", "--features"]):
        refused(capsys, place, [*command, "run"], "checkpoint.safetensors", said)


def test_checkpoints_that_do_not_fit(place, capsys):
    file = place / "run" / "checkpoint.safetensors"
    for change in ({"model": {"hidden": 7}}, {"run": {"model": "gan"}, "model": {}}):
        other = {**TABLES, "model": {}, **change, "run": {**TABLES["run"], **change.get("run", {})}}
        train.train(other, place / "other")
        file.write_bytes((place / "other" / "checkpoint.safetensors").read_bytes())
        for command in (["eval"], [*VAE, "--resume", "--epochs", "2", "--out"]):
            refused(capsys, place, [*command, "run"], "does not fit the model .*config.toml")
        for path in sorted((place / "other").rglob("*")):
            path.unlink()
        (place / "other").rmdir()
    file.unlink()
    refused(capsys, place, ["eval", "run"], "has no checkpoint.safetensors: train the run first")
    file.mkdir()
    refused(capsys, place, ["eval", "run"], "not a regular file")


@pytest.mark.parametrize("change", [
    {"image_shape": "x"}, {"image_shape": [10**9, 10**9, 1]}, {"image_shape": None}, {"model": 3},
    {"streams": 1}, {"streams": {"eps": "x"}}, {"epoch": None}], ids=str)
def test_checkpoints_with_a_right_checksum_and_wrong_content(change, place, capsys):
    run = runs.Run(place / "run")
    whole = run.checkpoint()
    run.save(runs.Checkpoint({**whole.state, **change}, whole.tensors))
    refused(capsys, place, [*VAE, "--resume", "--epochs", "2", "--out", "run"]
            if "image_shape" not in change else ["eval", "run"], "fit|memory")


def test_metrics_that_are_none(place, capsys):
    for line, number in ((b"[1, 2]", 1), (b"{", 1), (b'{"epoch": "x"}', 1), (b"[" * 99999, 1)):
        (place / "run" / "metrics.jsonl").write_bytes(line + b'\n{"epoch": 1}\n')
        refused(capsys, place, [*VAE, "--resume", "--epochs", "2", "--out", "run"],
                f"metrics.jsonl, line {number}: expected JSON")


# --- folders and disks ---------------------------------------------------------------------------

def test_folders_in_the_way(place, capsys):
    (place / "file").write_text("mine")
    again = [*VAE, *SMALL, "--out"]
    refused(capsys, place, [*again, "file"], "cannot create the run folder file .File exists")
    refused(capsys, place, [*again, "file/below"], "cannot create the run folder .*Not a directory")
    refused(capsys, place, [*again, "x" * 300], "File name too long")
    refused(capsys, place, ["sample", "run", "--out", "file/a.png"], "cannot write|cannot create")
    refused(capsys, place, ["sample", "run", "--out", "run"], "ends in .png|Is a directory")
    (place / "runs").write_text("mine")
    refused(capsys, place, [*VAE, *SMALL], "cannot create the run folder")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_folders_that_cannot_be_written(place, capsys, monkeypatch, number):
    """Permission bits do not bind a superuser, so the system's answer is put in its mouth."""
    def no(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runs.Path, "mkdir", no)
    refused(capsys, place, [*VAE, *SMALL, "--out", "new"], os.strerror(number),
            "choose|free some space")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_disk(place, capsys):
    disk = place / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "scratchgen-test", disk],
                      capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        refused(capsys, place, [*VAE, *SMALL, "--out", "disk/run"], "Read-only file system",
                "choose a folder on a disk that is not read-only")
    finally:
        subprocess.run(["umount", disk], check=True)


class FullDisk:
    """Fakes ``open``, ``os.fsync`` and ``os.replace`` in ``files``; the n-th call fails."""

    def __init__(self, monkeypatch, n):
        self.calls, self.n = 0, n
        monkeypatch.setattr(files, "open", self.open, raising=False)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(files.os, name, self.counted(getattr(os, name)))

    def counted(self, function):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls == self.n:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **options)
        return call

    def open(self, *arguments, **options):
        file = open(*arguments, **options)
        if "r" in arguments[1:2] or len(arguments) == 1:
            return file
        whole = file.write

        def write(content):
            if self.calls + 1 == self.n:               # some of it still found room
                whole(content[: len(content) // 2])
            self.counted(lambda: None)()
            return whole(content)

        return Proxy(file, write)


class Proxy:
    """A file whose ``write`` is another."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()


def outcome(path):
    """What a run has made, without times."""
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in runs.Run(path).metrics()]
    return (path / "checkpoint.safetensors").read_bytes(), lines


def test_a_full_disk_at_every_single_write(tmp_path, monkeypatch, trained):
    """Wherever it happens: an error of one sentence, the checkpoint whole, and the same end."""
    longer = {**TABLES, "train": {**TABLES["train"], "epochs": 2}}
    train.train(longer, tmp_path / "whole")
    n = refusals = 0
    while True:
        n += 1
        path = tmp_path / f"run{n}"
        put(path, trained)
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, n)
            try:
                train.train(longer, path, resume=True)
            except UserError as error:
                refusals += 1
                assert "No space left on device): free some space" in str(error)
        assert runs.Run(path).checkpoint().state["epoch"] in (1, 2)
        assert not list(path.glob(".*.tmp"))
        assert (path / "config.toml").exists() and (path / "summary.json").exists()
        train.train({}, path, resume=True)
        train.train(longer, path, resume=True)
        assert outcome(path) == outcome(tmp_path / "whole")
        if disk.calls < n:                              # the run came to its end undisturbed
            break
    assert refusals == n - 1 > 15


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_limit_on_file_sizes(place, capfd):
    """The system's own refusal (EFBIG), in a process of its own."""
    code = ("import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
            "from scratchgen import cli; sys.exit(cli.run(sys.argv[1:]))")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path),
                   "NUMBA_DISABLE_JIT": "0", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *VAE, *SMALL, "--out", "new"], text=True,
                          capture_output=True, env=environment, cwd=place)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.fullmatch(r"scratchgen: cannot write new/checkpoint.safetensors .File too large.: "
                        r"[^\n]+\n", done.stderr), done.stderr


# --- losses that are no numbers ------------------------------------------------------------------

DIVERGE = {
    "vae": (["train", "vae", "--lr", "1e30"], r"loss became nan at step 2, first in the output of "
            r"layer hidden"),
    "gan": (["train", "gan", "--lr", "1e35"], r"g_loss became nan at step 1, first in the output "
            r"of layer discriminator\."),
    "by hand": (["train", "dae", "--lr", "1e38", "--set", "train.optimizer=sgd", "--gradient",
                 "explicit"], r"loss became nan at step 2, first in the output of layer \w+"),
}


@pytest.mark.parametrize("case", DIVERGE)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_no_number(case, place, capsys):
    arguments, said = DIVERGE[case]
    status = cli.run([*arguments, *SMALL, "--out", "new"])
    error = capsys.readouterr().err
    assert status == 2 and re.fullmatch(r"scratchgen: [^\n]+\n", error)
    assert re.search(said, error), error
    assert "with a --lr below" in error and "checkpoint in new was written before" in error
    checkpoint = runs.Run(place / "new").checkpoint()
    assert checkpoint.state["step"] == 0
    assert all(np.isfinite(array).all() for array in checkpoint.tensors.values())


def test_weights_that_are_no_numbers_are_not_saved(place, monkeypatch):
    """Of a finite loss, a gradient may not be finite: the next checkpoint would be worthless."""
    run = runs.Run(place / "run")
    before = run.checkpoint_path.read_bytes()
    count = train.loop.Trainer._add_losses

    def spoil(self, known):
        count(self, known)
        if self.position.step == 4:
            next(iter(self.model.named_parameters().values())).data[0] = np.nan

    monkeypatch.setattr(train.loop.Trainer, "_add_losses", spoil)
    monkeypatch.setattr(train.evaluation, "evaluate", lambda *arguments: {"loss": 1.0})
    with pytest.raises(UserError, match=r"weights \S+ are no longer finite after step 4"):
        train.train({"train": {"epochs": 2}}, place / "run", resume=True)
    assert run.checkpoint_path.read_bytes() == before


# --- how it is said ------------------------------------------------------------------------------

def test_a_real_process_ends_with_status_2_and_one_line(place):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "scratchgen.cli", "train", "vea"], text=True,
                          capture_output=True, env=environment, cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"scratchgen: unknown model 'vea': did you mean 'vae'\? [^\n]+\n",
                        done.stderr)


def test_what_the_commands_have_not_explained(capsys, monkeypatch):
    """The last net: a file error or a lack of memory deep inside is a sentence as well."""
    for error, said in ((OSError(5, "Input/output error", "x.png"), "x.png .Input/output error"),
                        (MemoryError(), "not enough memory")):
        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(cli.app, "app", fail)
        assert cli.run(["data", "list"]) == 2
        assert re.search(said, capsys.readouterr().err)


def test_the_nearest_name():
    said = str(unknown("model", "vea", ["vae", "dae"]))
    assert "did you mean 'vae'? choose one of dae, vae" in said
    assert str(unknown("model", "xyz", ["vae"])) == "unknown model 'xyz': choose one of vae"
    for odd in (None, 3, [1], "two\nlines", "x" * 100_000):
        message = str(unknown("model", odd, ["vae"]))
        assert "\n" not in message and len(message) < 1000
