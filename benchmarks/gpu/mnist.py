"""Part "mnist": ten epochs of the VAE of PyTorch's example on full MNIST."""

import time

import numpy as np

import scratchgen as sg
from scratchgen import UserError, data, models, optim
from scratchgen.engine.backend import gpu, on_the_cpu
from scratchgen.engine.memory import to_host
from scratchgen.train.stepper import stepper

PRESET = "pytorch-example"
EXPECTED, ALLOWED = 105.6, 0.7                         # nats, of PyTorch's example after 10 epochs
EVALUATED = 500                                        # images at once
SEED = 0


def build(shape, train):
    """(model, optimisers, loader, streams) of the preset."""
    preset = models.VAE.presets[PRESET]
    settings = preset["train"]
    model = models.VAE(models.VAE.Config(**preset["model"]), shape, SEED)
    optimisers = {name: optim.make(settings["optimizer"], network, settings["lr"])
                  for name, network in model.networks().items()}
    loader = data.Loader(*train, settings["batch_size"], SEED)
    return model, optimisers, loader, sg.Streams(SEED)


def test_loss(model, test):
    """The mean over the test images, from fresh streams, as the trainer evaluates."""
    loader, streams, total, count = data.Loader(*test, EVALUATED, SEED, shuffle=False), \
        sg.Streams(SEED), 0.0, 0
    model.eval()
    for x, labels in loader.batches(0):
        total += float(to_host(model.evaluate(x, streams, labels=labels)["loss"])) * len(x)
        count += len(x)
    model.train()
    return total / count


def train(dataset, epochs, backend="cuda"):
    """Losses, and seconds of each epoch; the first has the compilation in it."""
    with sg.use_backend(backend):
        model, optimisers, loader, streams = build(dataset.item_shape, dataset.train)
        steps = stepper(loader, model, streams, optimisers, {"gradient": "tape"})
        seconds, losses = [], []
        for epoch in range(epochs):
            started, known = time.perf_counter(), []
            model.epoch = epoch
            for _, found in steps.run(epoch, 0, lambda: None):
                known += found
            known += steps.remaining_losses()
            if backend == "cuda":
                gpu().synchronize()
            seconds.append(time.perf_counter() - started)
            images = sum(n for _, n in known)
            losses.append(sum(terms["loss"] * n for terms, n in known) / images)
            if images != len(dataset.train[0]):
                raise RuntimeError(f"losses of {images} images came of {len(dataset.train[0])}")
        return {"epochs": epochs, "seconds": seconds, "train_losses": losses,
                "steps_per_epoch": loader.batches_per_epoch,
                "test_loss": test_loss(model, dataset.test)}


def measure(folder, quick):
    """The item: skipped, with a word, where the files are not."""
    try:
        with on_the_cpu():
            dataset = data.load("mnist-mini" if quick else "mnist", data_dir=folder or None,
                                limit=600 if quick else None)
    except UserError as error:
        return {"skipped": f"no MNIST: {error}"}
    found = train(dataset, 1 if quick else 10)
    seconds = found["seconds"]
    ok = np.isfinite(found["test_loss"])
    if not quick:
        found |= {"expected": EXPECTED, "allowed": ALLOWED}
        ok = abs(found["test_loss"] - EXPECTED) <= ALLOWED
    return {**found, "wall": sum(seconds), "data": dataset.name, "ok": bool(ok)}


def items(options):
    return {"ten epochs": lambda: measure(options.data_dir, options.quick)}
