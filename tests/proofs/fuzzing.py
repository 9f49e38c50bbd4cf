"""Fuzzing of every file reader with randomly damaged files.

A reader may return a result or raise ``UserError`` with one sentence; anything else is a crash. The
damage is a pure function of a seed, so that every crash can be reproduced.
"""

import gzip
import io
import json
import os
import random
import resource
import string
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scratchgen import data, train
from scratchgen.data import idx
from scratchgen.errors import UserError
from scratchgen.train import config, runs

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # faster than a disk
EDGES = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
         2**63, 2**64 - 1)
WORDS = (b"nan", b"-inf", b"1e999", b"-1", b"0", b"9" * 30, b"9" * 5000, b"[" * 2000, b"{" * 2000,
         b"\0", b"\xff\xfe", b"\n", b"''", b'"', b"\\u0000", b"true", b"1979-05-27", b"|O", b"<f2",
         b"__import__('os')", b"None", b".5", b"'a'", b"[1, 'a']", b"{a = 1}", b"/dev/zero")


@dataclass
class Outcome:
    """Counts of one reader's inputs, and its crashes."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashes: list = field(default_factory=list)


def damaged(content, others, rng):
    """A copy of ``content`` with one to four random faults."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(content) + 1) if rng.random() < 0.6 else rng.randrange(
            min(len(content), 160) + 1)
        end = min(len(content), at + rng.choice((1, 1, 2, 4, 8, 100)))
        fault = rng.randrange(8)
        if fault == 0:
            content[at:end] = rng.randbytes(end - at)
        elif fault == 1 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif fault == 2:
            del content[at:end]
        elif fault == 3:
            content[at:at] = rng.choice(WORDS)
        elif fault == 4:
            content[at:end] = rng.choice(WORDS)
        elif fault == 5:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(EDGES) % 256**size
            content[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        elif fault == 6:
            del content[at:]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            content[at:end] = other[start : start + rng.choice((4, 40, 4000))]
    return bytes(content)


# --- the readers: name -> (whole files, read(path of the damaged file)) --------------------------

def saved(save, *args, **options):
    """The bytes that ``save`` writes into a file."""
    content = io.BytesIO()
    save(content, *args, **options)
    return content.getvalue()


def encoded(array, kind, turned=0):
    """An image file of the ``kind``; ``turned``: EXIF's orientation."""
    from PIL import Image

    tags = Image.Exif()
    if turned:
        tags[0x0112] = turned
    return saved(Image.fromarray(array).save, kind, exif=tags.tobytes() if turned else b"")


def read_image(path):
    """Reads the image as one of two in a folder; the other one is valid."""
    return data.load(path.parent)


def read_config(path):
    return config.resolve(config.merge({"run": {"model": "vae"}}, config.read(path)))


def read_setting(path):
    """One ``--set`` of a command line."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    return config.resolve(config.gather("vae", {}, None, [text]))


def read_metrics(path):
    return runs.Run(path.parent).metrics()


RUN_TABLES = {"run": {"model": "dae", "backend": "numpy"}, "data": {"limit": 20},
              "train": {"epochs": 1}, "model": {"hidden": 3}}


def readers():
    """name -> (file name, whole files, read)."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (11, 5, 4), np.uint8)
    colour = rng.integers(0, 256, (5, 4, 3), np.uint8)
    labels = np.arange(11) % 3
    idx_file = idx.encode(grey)
    resolved = config.resolve(RUN_TABLES)
    lines = "".join(json.dumps({"epoch": e, "train_loss": 1 / e, "seconds": 0.1}) + "\n"
                    for e in (1, 2, 3))
    settings = [b"train.lr=0.1", b"model.hidden=3", b"run.seed=7", b"data.name=mnist-mini",
                b"train.optimizer=sgd", b'model.arch="mlp"']
    return {
        "IDX": ("images.idx", [idx_file, idx.encode(labels.astype(np.uint8)),
                               gzip.compress(idx_file)], idx.read),
        ".npy": ("own.npy", [saved(np.save, grey), saved(np.save, grey / 255),
                             saved(np.save, np.asfortranarray(grey))], data.load),
        ".npz": ("own.npz", [saved(np.savez, images=grey, labels=labels),
                             saved(np.savez_compressed, x_train=grey)], data.load),
        "PNG": ("0.png", [encoded(grey[0], "PNG"), encoded(colour, "PNG"),
                          encoded(colour, "PNG", turned=6)], read_image),
        "JPEG": ("0.jpg", [encoded(grey[0], "JPEG"), encoded(colour, "JPEG", turned=8)],
                 read_image),
        "TOML": ("config.toml", [config.dumps(resolved).encode(),
                                 b"[train]\nlr = 1e-3 # a\n[model]\nbeta = 0.5\n"], read_config),
        "--set": ("setting", settings, read_setting),
        "metrics": ("metrics.jsonl", [lines.encode()], read_metrics),
    }


def fuzz(name, count, seed=0):
    """``Outcome`` of ``count`` damaged files for the reader ``name``."""
    file_name, whole, read = readers()[name]
    rng, outcome = random.Random(f"{name} {seed}"), Outcome()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / file_name
        if read is read_image:
            (Path(folder) / "1").with_suffix(path.suffix).write_bytes(whole[0])
        for _ in range(count):
            content = damaged(rng.choice(whole), whole, rng)
            path.write_bytes(content)
            judge(outcome, read, path, content)
    return outcome


def judge(outcome, read, path, content):
    """Reads the file once and counts the outcome."""
    outcome.inputs += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
        outcome.accepted += 1
    except UserError as error:
        outcome.refused += 1
        if "\n" in str(error) or not 20 <= len(str(error)) <= 20_000:
            outcome.crashes.append((content, f"no sentence: {error}"))
    except BaseException as error:  # a panic in a compiled reader is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        outcome.crashes.append((content, f"{type(error).__name__}: {error}"))


# --- checkpoints: damaged bytes, and invalid content with a valid checksum -----------------------

def fuzz_checkpoint_bytes(count, seed=0):
    """Damaged checkpoint.safetensors files, read by ``Run.checkpoint``."""
    rng, outcome = random.Random(f"bytes {seed}"), Outcome()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        run = runs.create(Path(folder) / "run")
        tensors = {"model.w": np.arange(12, dtype=np.float32).reshape(3, 4),
                   "model.b": np.zeros(3), "optim.model.step": np.array(17)}
        run.save(runs.Checkpoint({"epoch": 1, "sums": {"loss": 0.5}}, tensors))
        whole = run.checkpoint_path.read_bytes()
        for _ in range(count):
            content = damaged(whole, [whole], rng)
            run.checkpoint_path.write_bytes(content)
            accepted = outcome.accepted
            judge(outcome, lambda path: run.checkpoint(), run.checkpoint_path, content)
            if content != whole and outcome.accepted > accepted:
                outcome.crashes.append((content, "the damage was not noticed"))
    return outcome


def fuzz_checkpoint_content(count, seed=0):
    """Checkpoints with invalid state or tensors but a valid checksum, loaded and resumed."""
    rng, outcome = random.Random(f"content {seed}"), Outcome()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "run"
        train.train(RUN_TABLES, path)
        run = runs.open_run(path)
        whole = run.checkpoint()
        for number in range(count):
            state, tensors = json.loads(json.dumps(whole.state)), dict(whole.tensors)
            description = wrong_content(state, tensors, rng)
            run.save(runs.Checkpoint(state, tensors))
            read = train.load if number % 10 else (lambda path: train.train({}, path, resume=True))
            judge(outcome, read, path, description)
    return outcome


def wrong_content(state, tensors, rng):
    """Changes one value of the state or one tensor in place; returns a description."""
    values = (None, -1, 0, 10**30, 0.5, "", "x", [], {}, [1, 2], {"a": 1}, True, float("inf"))
    if rng.random() < 0.5:
        place = state
        while True:
            key = rng.choice(sorted(place))
            if isinstance(place[key], dict) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            break
        if rng.random() < 0.2:
            del place[key]
            return f"state without {key}"
        place[key] = rng.choice(values)
        return f"state {key} = {place[key]!r}"
    name = rng.choice(sorted(tensors))
    array = tensors.pop(name)
    changed = rng.choice((None, array.astype(np.int8), array.ravel()[:1], array[..., None],
                          np.zeros((0, 3)), array.T.copy(), array.astype(np.float16)))
    if changed is not None:
        tensors[name if rng.random() < 0.8 else rng.choice(string.ascii_letters)] = changed
    return f"tensor {name} {'gone' if changed is None else changed.shape}"


# --- all readers ---------------------------------------------------------------------------------

# Inputs per reader, in percent of all; fast readers get more.
SHARES = {"IDX": 20, ".npy": 18, ".npz": 8, "PNG": 6, "JPEG": 4, "TOML": 8, "--set": 8,
          "metrics": 7, "checkpoint bytes": 20, "checkpoint content": 1}


def fuzz_all(count, seed=0, report=lambda name, outcome: None):
    """``{reader: Outcome}`` for ``count`` inputs in total, and the growth of memory in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {}
    for name, share in SHARES.items():
        inputs = -(-count * share // 100)
        if name == "checkpoint bytes":
            outcomes[name] = fuzz_checkpoint_bytes(inputs, seed)
        elif name == "checkpoint content":
            outcomes[name] = fuzz_checkpoint_content(inputs, seed)
        else:
            outcomes[name] = fuzz(name, inputs, seed)
        report(name, outcomes[name])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return outcomes, (after - before) / 1024
