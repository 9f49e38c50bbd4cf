"""The training loop: steps, progress reports, metrics, checkpoints, resuming.

The result of a run is a pure function of its configuration. The complete state after any number of
steps is: the weights, the optimisers' states, the counters of the random streams, the position
(epoch, batch) and the running sums of the epoch's losses. A checkpoint contains exactly this, so a
resumed training gives the same bits as an uninterrupted one.
"""

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, optim
from ..engine.backend import use_backend
from ..engine.random import Streams
from ..errors import UserError
from ..models import Model
from ..nn import Module
from . import config, evaluation, runs, schema
from .interrupt import Interrupted, stop_requests
from .non_finite import locate_non_finite
from .progress import Position, Progress, Summary
from .run_data import (
    check_unchanged,
    checksums,
    data_name,
    load_data,
    split_validation,
    with_absolute_paths,
)
from .stepper import stepper
from .trained_model import build, explain_mismatch, load_weights

PROGRESS_INTERVAL = 0.1  # seconds between progress reports, since a step may take one millisecond
METRICS = ("train_", "valid_", "test_")  # prefixes of the names in metrics.jsonl


def train(
    given: dict[str, Any],
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[runs.Run, Model, int], None] | None = None,
    overwrite: bool = False,
) -> Summary:
    """Trains a model, writes a run folder and returns its ``Summary``.

    ``given``: the tables of the configuration that differ from the defaults, for example
    ``{"run": {"model": "vae"}, "train": {"epochs": 3}}``. Relative paths in it (own images,
    ``data.dir``, ``model.features``) are stored as absolute paths in config.toml.
    ``out``: the run folder; None: a new folder in ``runs/``. A folder that is not empty raises
    ``UserError``, unless ``overwrite`` is set: then a run in it is replaced, and so are other files
    with the names of run files.
    ``resume``: continue the run in ``out`` from its checkpoint; ``train.epochs`` is the total,
    including the epochs before.
    ``on_progress``: called with a ``Progress`` several times a second and at each epoch's end.
    ``on_epoch``: called at each epoch's end, after the checkpoint, with the ``Run``, the model in
    eval mode and the number of finished epochs. It must not draw from the model's random streams.

    Invalid input raises ``UserError``. SIGINT or SIGTERM, in the main thread, finishes the current
    step, writes a checkpoint and raises ``Interrupted``; a second signal ends the process at once.
    """
    if resume and overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it: expected one of "
                        "them")
    if resume:
        run = _run_to_resume(out)
        resolved = config.resume(with_absolute_paths(run.config()), with_absolute_paths(given))
    else:
        resolved = config.resolve(given)
    with use_backend(resolved["run"]["backend"]):
        dataset = load_data(resolved, out if resume else None)
        trainer = Trainer(resolved, dataset)
        # Only now, so that the error messages of the lines above show the paths as given.
        trainer.resolved = with_absolute_paths(resolved)
        if not resume:
            runs.check_features_differ(out, resolved["model"].get("features"))
            run = runs.create(out, _label(resolved), overwrite)
        with run.locked():
            if overwrite:
                run.clear()
            trainer.start(run, resume)
            return trainer.fit(on_progress or (lambda progress: None), on_epoch)


def _run_to_resume(out):
    if out is None:
        raise UserError("--resume needs the run to continue: give its folder with --out")
    return runs.open_run(out)


def _label(resolved):
    """The first part of a new run folder's name: the model, and the data set or the preset."""
    settings = resolved["run"]
    preset, name = settings["preset"], resolved["data"]["name"]
    stem = Path(name).stem or "images"  # the name of own images is a path
    return f"{settings['model']}-{stem if preset == 'default' else preset}"


class Trainer:
    """The state of one run: model, optimisers, random streams, data and position."""

    def __init__(self, resolved: dict, dataset):
        settings = resolved["run"]
        self.resolved = resolved
        self.dataset = dataset
        self.checksums = checksums(dataset)
        self.model = build(resolved, dataset.item_shape)
        self.model.train()
        self.optimisers = {
            name: _optimiser(network, resolved["train"], self.model.learning_rate(name))
            for name, network in self.model.networks().items()
        }
        self.streams = Streams(settings["seed"])
        self.training, self.validation = split_validation(dataset, self.model.held_out)
        self.loader = data.Loader(
            *self.training,
            resolved["train"]["batch_size"],
            settings["seed"],
            binarize=resolved["data"]["binarize"],
        )
        self.stepper = stepper(self.loader, self.model, self.streams, self.optimisers,
                               {"gradient": settings["gradient"]})
        self.position = Position()
        self.epochs = resolved["train"]["epochs"]

    # -- the run folder

    def start(self, run: runs.Run, resume: bool) -> None:
        """Writes the first files of a new run, or restores the state of a stored one."""
        self.run = run
        # A run that was killed before its first checkpoint starts again from the beginning.
        started = resume and (run.checkpoint_path.exists() or bool(run.metrics()))
        if started:
            self._restore(run.checkpoint())
            run.truncate_metrics(self.position.epoch)
        run.write_config(self.resolved)
        run.write_environment()
        if not started:
            self.model.prepare(next(evaluation.batches(self.training, self.resolved))[0])
            self._save()

    def _state(self):
        return {
            **vars(self.position),
            "streams": self.streams.state(),
            "model": self.resolved["run"]["model"],
            "image_shape": [int(size) for size in self.dataset.item_shape],
            **self.checksums,
        }

    def _save(self):
        for name, p in self.model.named_parameters().items():
            if not np.isfinite(p.data).all():  # the loss was finite, its gradient was not
                raise UserError(
                    f"the weights {name} are no longer finite after step {self.position.step}: "
                    f"train again with a --lr below {self.resolved['train']['lr']:g} "
                    f"(the last checkpoint in {self.run.path} was written before)"
                )
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        for network, optimiser in self.optimisers.items():
            for name, array in optimiser.state_dict().items():
                tensors[f"optim.{network}.{name}"] = np.asarray(array)
        self.run.save(runs.Checkpoint(self._state(), tensors))

    def _restore(self, checkpoint):
        state = checkpoint.state
        check_unchanged(self.checksums, state, self.dataset.name, self.run.path)
        with explain_mismatch(self.run):
            load_weights(self.model, checkpoint, self.resolved)
            for network, optimiser in self.optimisers.items():
                optimiser.load_state_dict(checkpoint.with_prefix(f"optim.{network}"))
            self.streams.restore(state["streams"])
            self.position = Position(**{name: state[name] for name in vars(self.position)})
            self.position.check()

    # -- the loop

    def fit(self, on_progress, on_epoch=None) -> Summary:
        """Trains up to the configured number of epochs."""
        self.on_epoch = on_epoch
        self.on_progress, self.last_report = on_progress, -math.inf
        self.start_time, self.first_step = time.monotonic(), self.position.step
        with stop_requests() as stop:
            self._update_model_position()
            while self.position.epoch < self.epochs and not self.model.finished():
                self._run_epoch(stop)
                if stop:
                    break
        summary = self._summary()
        self.run.write_summary(summary.as_dict())
        if stop:
            raise Interrupted(self.run.path, stop[0])
        return summary

    def _run_epoch(self, stop):
        start_time, position = time.monotonic(), self.position
        every = self.resolved["train"]["checkpoint_every"]
        steps = self.stepper.run(position.epoch, position.batch, self._update_model_position)
        for images, losses in steps:
            position.advance(images)
            self._add_losses(losses)
            self._report()
            if position.batch == self.loader.batches_per_epoch:
                break  # a signal that arrives now is handled at the epoch's end
            stopping = bool(stop)  # read once: a signal after the save must wait for the next save
            if stopping or (every and position.batch % every == 0):
                self._add_losses(self.stepper.remaining_losses())
                self._save()
            if stopping:
                raise Interrupted(self.run.path, stop[0])
        self._add_losses(self.stepper.remaining_losses())
        self._update_model_position(epochs_more=1)
        self._end_epoch(*self._evaluate(), start_time)

    def _update_model_position(self, epochs_more=0):
        """Sets the model's epoch and step, which its warm-ups, schedules and phases depend on."""
        self.model.epoch = self.position.epoch + epochs_more
        self.model.step = self.position.step

    def _add_losses(self, losses):
        """Adds the losses of steps, (terms, images) for each, to the epoch's sums."""
        first = self.position.step - self.stepper.pending - len(losses) + 1
        for step, (terms, images) in enumerate(losses, first):
            self._check_finite(terms, "", step, functools.partial(self._repeat, step))
            self.position.add(terms, images)

    def _evaluate(self):
        """Evaluates at an epoch's end: (test means, validation means, extra metrics).

        The validation comes first, because ``end_epoch`` may choose the weights by it (early
        stopping); the test then measures the chosen weights.
        """
        valid = {}
        if self.validation:
            measure = functools.partial(
                evaluation.mean_terms, self.model, self.model.validate, self.validation,
                self.resolved)
            valid = measure()
            self._check_finite(valid, "validation ", self.position.step + 1, measure)
        self.model.end_epoch(valid)
        measure = functools.partial(evaluation.evaluate, self.model, self.dataset, self.resolved)
        test = measure()
        self._check_finite(test, "test ", self.position.step + 1, measure)
        return test, valid, self._extra_metrics()

    def _extra_metrics(self):
        """Metrics that only this kind of model has, on the first test items; {} for most models."""
        x, _ = next(evaluation.batches(self.dataset.test, self.resolved))
        self.model.eval()
        extra = self.model.extra_metrics(x, Streams(self.resolved["run"]["seed"]))
        self.model.train()
        return extra

    def _end_epoch(self, test, valid, extra, start_time):
        """Writes the metrics, then the checkpoint.

        A kill in between leaves one line too many, which resuming removes; in the other order a
        line would be missing.
        """
        position = self.position
        self.run.append_metrics(
            {
                "epoch": position.epoch + 1,
                "step": position.step,
                **_prefixed("train_", position.means()),
                **_prefixed("valid_", valid),
                **_prefixed("test_", test),
                **({"extra": extra} if extra else {}),
                "seconds": round(time.monotonic() - start_time, 3),
            }
        )
        self._report(test)
        position.next_epoch()
        self._save()
        self.run.write_summary(self._summary().as_dict())
        if self.on_epoch:
            self.model.eval()
            self.on_epoch(self.run, self.model, position.epoch)
            self.model.train()

    def _report(self, test=None):
        """Calls ``on_progress``, at most every PROGRESS_INTERVAL unless an epoch has ended."""
        now, position = time.monotonic(), self.position
        if test is None and now - self.last_report < PROGRESS_INTERVAL:
            return
        self.last_report = now
        batches = self.loader.batches_per_epoch
        done = position.step - self.first_step
        left = self.epochs * batches - position.step
        self.on_progress(
            Progress(
                epoch=position.epoch + 1,
                epochs=self.epochs,
                batch=position.batch,
                batches=batches,
                terms=position.means(self.stepper.pending_items),
                test=test,
                seconds_left=(now - self.start_time) / done * left if done else None,
            )
        )

    # -- losses that are not finite

    def _check_finite(self, terms, what, step, repeat):
        """Raises ``UserError`` for a loss that is infinite or NaN; ``repeat`` computes it again."""
        for name, value in terms.items():
            if not math.isfinite(value):
                raise UserError(
                    f"the {what}{name} became {value} at step {step}, "
                    f"{locate_non_finite(self.model, repeat)}: "
                    f"train again with a --lr below {self.resolved['train']['lr']:g} "
                    f"(the last checkpoint in {self.run.path} was written before)"
                )

    def _repeat(self, failed):
        """Repeats the forward passes of step number ``failed`` (from 1), from the state before it.

        The optimiser has changed that state since. But training is deterministic, so repeating it
        from the last checkpoint, at most one epoch back, reproduces the state.
        """
        failed, dtype = failed - 1, self.resolved["run"]["dtype"]
        self._restore(self.run.checkpoint())
        options = {"gradient": self.resolved["run"]["gradient"]}
        position = self.position
        for x, labels in self.loader.batches(position.epoch, start=position.batch):
            self._update_model_position()
            if position.step == failed:  # with explicit gradients no layer is called
                options["gradient"] = "tape"
            with Module.watching(None) if position.step < failed else contextlib.nullcontext():
                self.model.training_step(
                    x.astype(dtype, copy=False), self.streams, self.optimisers, **options,
                    labels=labels,
                )
            if position.step == failed:
                return
            position.advance(len(x))

    def _summary(self):
        history, settings = self.run.metrics(), self.resolved["run"]
        last = history[-1] if history else {}
        return Summary(
            path=self.run.path,
            model=settings["model"],
            preset=settings["preset"],
            data=data_name(self.resolved),
            epochs=self.position.epoch,
            steps=self.position.step,
            parameters=self.model.size(),
            seconds=round(sum(line.get("seconds", 0) for line in history), 3),
            metrics={name: value for name, value in last.items() if name.startswith(METRICS)},
        )


def _prefixed(prefix, terms):
    return {prefix + name: value for name, value in terms.items()}


def _optimiser(network, settings, lr):
    """``lr``: a learning rate that the model sets for this network; None: that of [train]."""
    options = {name: value for name, value in settings.items() if name not in schema.TRAIN}
    return optim.make(settings["optimizer"], network, lr or settings["lr"], **options)
