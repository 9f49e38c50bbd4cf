"""The `pytorch-example` VAE on full MNIST: test loss on three seeds, time per epoch beside PyTorch.

    python -m benchmarks.vae_mnist --data-dir DIR [--seeds 0 1 2] [--epochs 10] [--rounds 5]

The network, batch, optimiser and loss are those of PyTorch's own example (784-400-20-400-784, ReLU,
Adam 1e-3, batch 128, grey BCE summed + KL). The epochs of both are timed interleaved, A B A B, in
one process with the same number of threads; the first epoch of each is not counted. PyTorch gets
the images as one tensor in memory, so that no data loader slows it down.
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import statistics
import tempfile
import time

import numpy as np

from scratchgen import data, models, optim, train
from scratchgen.engine.random import Streams

RESULTS = pathlib.Path(__file__).parent / "results"
PUBLISHED, TOLERANCE = 105.6, 0.7        # nats, test set, 10 epochs


def test_losses(data_dir, seeds, epochs):
    """The test loss of a full training run for each seed."""
    losses = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            summary = train.train(
                {"run": {"model": "vae", "preset": "pytorch-example", "seed": seed},
                 "data": {"name": "mnist", "dir": data_dir}, "train": {"epochs": epochs}},
                out=pathlib.Path(folder) / "run")
        losses[seed] = summary.metrics["test_loss"]
        print(f"seed {seed}: test loss {losses[seed]:.2f} nats in {summary.seconds:.1f} s")
    return losses


def our_epoch(dataset, seed=0):
    """A function that trains one epoch and returns the last loss."""
    model = models.VAE(models.VAE.Config(hidden=400, latent=20, activation="relu", init="pytorch"))
    optimisers, streams = {"model": optim.make("adam", model, 1e-3)}, Streams(seed)
    loader = data.Loader(dataset.train_images, dataset.train_labels, 128, seed)
    epoch = iter(range(10**6))

    def run():
        for x, _ in loader.batches(next(epoch)):
            terms = model.training_step(x, streams, optimisers)
        return terms["loss"]
    return run


def their_epoch(dataset, threads):
    """The same in PyTorch, as its example writes it."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.tensor(dataset.train_images.reshape(-1, 784).astype(np.float32) / 255)
    fc1, fc21, fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
    fc3, fc4 = nn.Linear(20, 400), nn.Linear(400, 784)
    network = nn.ModuleList([fc1, fc21, fc22, fc3, fc4])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def run():
        for batch in torch.randperm(len(images)).split(128):
            x = images[batch]
            optimiser.zero_grad()
            h = F.relu(fc1(x))
            mean, logvar = fc21(h), fc22(h)
            z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            y = torch.sigmoid(fc4(F.relu(fc3(z))))
            loss = F.binary_cross_entropy(y, x, reduction="sum") - 0.5 * torch.sum(
                1 + logvar - mean.pow(2) - logvar.exp())
            loss.backward()
            optimiser.step()
        return loss.item() / len(x)
    return run


def epoch_times(dataset, rounds, threads):
    """Seconds per epoch of both, interleaved, and the last loss of each."""
    runs = {"scratchgen": our_epoch(dataset), "pytorch": their_epoch(dataset, threads)}
    times, losses = {name: [] for name in runs}, {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            losses[name].append(run())
            if i:
                times[name].append(time.perf_counter() - start)
        print({name: f"{losses[name][-1]:.1f}" for name in runs}, flush=True)
    if not all(np.isfinite(value) and abs(value - losses["pytorch"][-1]) < 15
               for value in losses["scratchgen"][-1:]):
        raise SystemExit(f"the two do not train alike: {losses}")
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    dataset = data.load("mnist", data_dir=options.data_dir)
    times = epoch_times(dataset, options.rounds, options.threads)
    losses = test_losses(options.data_dir, options.seeds, options.epochs)
    record = {
        "machine": {"processor": platform.processor() or platform.machine(),
                    "threads": options.threads, "python": platform.python_version(),
                    **{name: importlib.metadata.version(name)
                       for name in ("numpy", "numba", "torch")}},
        "test_loss": losses, "published": PUBLISHED, "tolerance": TOLERANCE,
        "within": all(abs(loss - PUBLISHED) <= TOLERANCE for loss in losses.values()),
        "seconds_per_epoch": times,
        "ratio_of_medians": statistics.median(times["scratchgen"]) / statistics.median(
            times["pytorch"]),
        "ratio_of_minima": min(times["scratchgen"]) / min(times["pytorch"])}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "vae_mnist.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
