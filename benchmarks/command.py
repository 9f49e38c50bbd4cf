"""Warmstart: one epoch of the VAE on full MNIST from the command line, start-up included.

    python -m benchmarks warmstart [--data-dir FOLDER] [--rounds 5] [--threads 2] [--quick]
                                   [--out DIR]

``scratchgen train vae --epochs 1 --no-pictures`` against the plain script
``peers/torch_vae_script.py``, interleaved, each in a fresh process that may use as many cores as
there are threads. The first round fills the caches and is not counted. Both evaluate on the test
set at the end; their test losses must be alike.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from . import peers, records
from .processes import ROOT, Failed, environment
from .readme import markdown
from .records import marked, progress

FOLDERS = ("", "mnist")                   # where the files may lie, below the data folder
TARGET, ALIKE = 0.6, 2.0                  # of the script's time; nats


def main(arguments):
    return records.guarded(run, arguments)


def run(arguments):
    parser = records.parser(__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("SCRATCHGEN_DATA"), metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    options = parser.parse_args(arguments)
    records.check(options)
    folder = folder_of(options.data_dir)
    if folder is None:
        print("warmstart skipped: it needs the files of MNIST; name their folder with --data-dir "
              "or SCRATCHGEN_DATA")
        return 0
    if peers.missing("torch"):
        print("warmstart skipped: it needs PyTorch (the extra 'bench')")
        return 0
    try:
        found = measured(folder, options)
    except Failed as failure:
        progress(f"benchmarks: {failure}")
        return 1
    record = {"machine": records.machine(), "threads": options.threads, "quick": options.quick,
              "peers": found}
    record["failed"] = difference(record["peers"])
    records.save(records.path_of("command.json", options.out), record)
    print(table(record))
    return 1 if record["failed"] else 0


def folder_of(data_dir):
    """The folder with the files of MNIST, or None."""
    for name in FOLDERS if data_dir else ():
        folder = pathlib.Path(data_dir).absolute() / name
        if list(folder.glob("train-images-idx3-ubyte*")):
            return folder
    return None


def measured(folder, options):
    """peer → seconds of each counted round, and its test loss."""
    found = {"scratchgen": {"seconds": []}, "torch": {"seconds": []}}
    rounds = 0 if options.quick else options.rounds
    for i in range(rounds + 1):
        for name, row in found.items():
            seconds, row["test_loss"] = timed(name, folder, options.threads)
            if i:
                row["seconds"].append(seconds)
            progress(f"{name}: {seconds:.2f} s, test loss {row['test_loss']:.2f}")
    return found


def timed(name, folder, threads):
    """(seconds from start to end of the process, test loss)."""
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary) / "run"
        command = {
            "scratchgen": ["-m", "scratchgen.cli", "train", "vae", "--data", "mnist", "--data-dir",
                           str(folder), "--epochs", "1", "--no-pictures", "--out", str(out)],
            "torch": ["-m", "benchmarks.peers.torch_vae_script", str(folder)]}[name]
        cores = sorted(os.sched_getaffinity(0))[:threads]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                              env=environment(name, threads),
                              preexec_fn=lambda: os.sched_setaffinity(0, cores))
        seconds = time.perf_counter() - started
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Failed(f"{name} ended with status {done.returncode}: {last}")
        if name == "torch":
            return seconds, float(done.stdout.split()[-1])
        return seconds, json.loads((out / "summary.json").read_text())["test_loss"]


def difference(found):
    """None, or a sentence on the difference of the test losses; NaN is a difference."""
    ours, theirs = (found[n]["test_loss"] for n in ("scratchgen", "torch"))
    return None if abs(ours - theirs) <= ALIKE else (
        f"test losses of {ours:.2f} and {theirs:.2f} nats after the same training")


def table(record):
    rows, medians = [], {}
    for name, row in record["peers"].items():
        seconds = row["seconds"]
        medians[name] = statistics.median(seconds) if seconds else None
        rows.append([peers.TITLES.get(name, name) + (" script" if name == "torch" else ""),
                     f"{medians[name]:.2f} ({min(seconds):.2f})" if seconds else "–",
                     f"{row['test_loss']:.1f}", "–"])
    if all(medians.values()):
        rows[0][3] = marked(medians["scratchgen"] / medians["torch"], TARGET)
    text = markdown(("one epoch, from the command line", "s, median (minimum)", "test loss, nats",
                     "ratio"), rows, right=(1, 2, 3))
    failed = f"\n\nFailed: {record['failed']}." if record["failed"] else ""
    return f"{text}{failed}\n\n{records.provenance(record)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
