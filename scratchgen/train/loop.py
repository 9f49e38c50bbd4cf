"""The training loop: progress, log, checkpoint, resume.

A run is a pure function of its configuration. After any number of steps its whole state is the
weights, the optimisers' states, the streams' counters, the position (epoch, batch) and the running
sums of the epoch's losses: exactly what a checkpoint holds. Training that goes on from a checkpoint
therefore makes the same bits as training that was never stopped.
"""

import contextlib
import functools
import math
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import data, optim
from ..engine.backend import on_the_cpu, use_backend
from ..engine.random import Streams
from ..errors import UserError
from ..nn import Module
from . import config, runs
from .data_location import check_unchanged, data_name, fingerprint, located, missing, notice_changed
from .feed import feed
from .non_finite import origin

EVALUATION_BATCH = 500  # images; fixed, so that test metrics do not depend on train.batch_size
PROGRESS_INTERVAL = 0.1  # seconds between reports; a step may take one millisecond


@dataclass(frozen=True)
class Progress:
    """What ``on_progress`` is told, several times a second and at each epoch's end."""

    epoch: int  # the current one, from 1
    epochs: int  # in all
    batch: int  # done in this epoch
    batches: int  # in an epoch
    terms: dict  # means over this epoch so far, per image
    test: dict | None  # test means, at an epoch's end only
    seconds_left: float | None  # None until something has been timed


@dataclass(frozen=True)
class Summary:
    """What a finished run reached."""

    path: Path
    model: str
    preset: str
    data: str
    epochs: int
    steps: int
    parameters: int
    seconds: float
    metrics: dict  # train_loss, test_loss and their terms, per image

    def as_dict(self):
        """Flat and JSON-able: what ``summary.json`` holds (without the path)."""
        own = {name: value for name, value in vars(self).items() if name not in ("path", "metrics")}
        return {**own, **self.metrics}


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop and has written a checkpoint: ``path`` is the run folder."""

    def __init__(self, path, signal_number):
        super().__init__(f"stopped; the checkpoint is in {path}")
        self.path = path
        self.signal_number = signal_number


@dataclass
class _Position:
    """Where training stands, and the sums from which the epoch's means come."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current one
    step: int = 0  # finished batches in all
    images: int = 0  # seen in the current epoch
    sums: dict = field(default_factory=dict)  # term -> sum over these images

    def check(self):
        """ValueError unless all is of its kind: what is read from a file may be anything."""
        counts = (self.epoch, self.batch, self.step, self.images)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"its position is {counts}")
        if not all(isinstance(total, (int, float)) for total in self.sums.values()):
            raise ValueError("its sums are no numbers")

    def advance(self, images):
        self.batch += 1
        self.step += 1
        self.images += images

    def add(self, terms, images):
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * images

    def means(self, missing=0):
        """Means over the epoch so far, less ``missing`` images whose terms are not known yet."""
        return {name: total / (self.images - missing) for name, total in self.sums.items()}

    def next_epoch(self):
        self.epoch += 1
        self.batch, self.images, self.sums = 0, 0, {}


def train(given, out=None, resume=False, on_progress=None, on_epoch=None, overwrite=False):
    """Trains a model and leaves a run folder; returns its ``Summary``.

    ``given`` holds the tables of the configuration that differ from the defaults, for example
    ``{"run": {"model": "vae"}, "train": {"epochs": 3}}``. ``out`` is the run folder (None: a new
    one below ``runs/``); one that holds anything is refused, unless ``overwrite``: then a run in it
    is replaced, and so are other files that have the names of a run's. With ``resume`` the run in
    ``out`` goes on where its checkpoint stands; ``train.epochs`` counts from its beginning.
    Paths (own images, ``data.dir``, ``model.features``) are kept absolute in config.toml.
    ``on_progress`` is called with ``Progress``; ``on_epoch`` at each epoch's end, after the
    checkpoint, with the ``Run``, the model in eval mode and the number of finished epochs. It must
    draw nothing from the model's streams.

    Wrong input raises ``UserError``. SIGINT or SIGTERM, in the main thread, ends the current step,
    writes a checkpoint and raises ``Interrupted``; a second one kills at once.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite replaces it: expected one of "
                        "them")
    if resume:
        run = _run_to_resume(out)
        resolved = config.resume(located(run.config()), located(given))
    else:
        resolved = config.resolve(given)
    with use_backend(resolved["run"]["backend"]):
        dataset = _load_data(resolved, out if resume else None)
        trainer = _Trainer(resolved, dataset)
        trainer.resolved = located(resolved)             # not before: messages say what was given
        if not resume:
            runs.check_features_differ(out, resolved["model"].get("features"))
            run = runs.create(out, _label(resolved), overwrite)
        with run.locked():
            if overwrite:
                run.clear()
            trainer.attach(run, resume)
            return trainer.fit(on_progress or (lambda progress: None), on_epoch)


def _run_to_resume(out):
    if out is None:
        raise UserError("--resume needs the run to go on with: name its folder with --out")
    return runs.open_run(out)


def _label(resolved):
    settings = resolved["run"]
    preset, name = settings["preset"], resolved["data"]["name"]
    stem = Path(name).stem or "images"  # own images are named by a path
    return f"{settings['model']}-{stem if preset == 'default' else preset}"


def load(path):
    """The trained model of the run folder ``path``, in eval mode."""
    run = runs.open_run(path)
    resolved, checkpoint = run.config(), run.checkpoint()
    with _fitting(run):
        model = _build(resolved, checkpoint.state["image_shape"])
        _load_model(model, checkpoint, resolved)
        model.epoch, model.step = checkpoint.state["epoch"], checkpoint.state["step"]
    model.eval()
    return model


def dataset_of(path):
    """The data set that the run was trained on, read anew; a ``Notice`` if it has changed."""
    run = runs.open_run(path)
    dataset = _load_data(run.config(), path)
    notice_changed(dataset, run.checkpoint().state, path)
    return dataset


def evaluate_run(path, overrides=None):
    """Test means of a stored run, per image; ``overrides`` may replace values of [data] and [run].

    The model's shape must still fit: items of another shape raise ``UserError``.
    """
    resolved = runs.open_run(path).config()
    resolved = config.resolve(config.merge(resolved, overrides or {}))
    with use_backend(resolved["run"]["backend"]):
        return _evaluated(path, resolved, own_data=not (overrides or {}).get("data"))


def _evaluated(path, resolved, own_data):
    model, dataset = load(path), _load_data(resolved, path)
    state = runs.open_run(path).checkpoint().state
    shape = tuple(state["image_shape"])
    if tuple(dataset.item_shape) != shape:
        raise UserError(
            f"the items of {dataset.name} have shape {tuple(dataset.item_shape)}, "
            f"the model of {path} was trained on {shape}"
        )
    if own_data:
        notice_changed(dataset, state, path)
    return evaluate(model, dataset, resolved)


def evaluate(model, dataset, resolved):
    """Means of the loss and its terms over the test items, per item.

    Draws from fresh streams: evaluating twice gives the same numbers, and never moves training's.
    """
    return _means(model, model.evaluate, dataset.test, resolved)


def _means(model, measure, part, resolved):
    """Means of the terms that ``measure`` gives, over all batches of (items, labels)."""
    streams, totals = Streams(resolved["run"]["seed"]), _Position()
    model.eval()
    for x, labels in _batches(part, resolved):
        totals.add(_floats(measure(x, streams, labels=labels)), len(x))
        totals.advance(len(x))
    model.train()
    return totals.means()


def _batches(part, resolved):
    """The items in order, as an evaluation sees them: (x, labels) in the run's precision."""
    loader = data.Loader(
        *part,
        EVALUATION_BATCH,
        resolved["run"]["seed"],
        shuffle=False,
        binarize=resolved["data"]["binarize"],
    )
    dtype = resolved["run"]["dtype"]
    return ((x.astype(dtype, copy=False), labels) for x, labels in loader.batches(0))


class _Trainer:
    """One run in progress: the model and everything that moves with it."""

    def __init__(self, resolved, dataset):
        settings = resolved["run"]
        self.resolved = resolved
        self.dataset = dataset
        self.fingerprint = fingerprint(dataset)
        self.model = _build(resolved, dataset.item_shape)
        self.model.train()
        self.optimisers = {
            name: _optimiser(network, resolved["train"], self.model.learning_rate(name))
            for name, network in self.model.networks().items()
        }
        self.streams = Streams(settings["seed"])
        self.training, self.held_out = _split(dataset, self.model.held_out)
        self.loader = data.Loader(
            *self.training,
            resolved["train"]["batch_size"],
            settings["seed"],
            binarize=resolved["data"]["binarize"],
        )
        self.feed = feed(self.loader, self.model, self.streams, self.optimisers,
                         {"gradient": settings["gradient"]})
        self.position = _Position()
        self.epochs = resolved["train"]["epochs"]

    # -- the folder

    def attach(self, run, resume):
        """Binds the trainer to its folder: the first files of a new run, or the state of an old."""
        self.run = run
        started = resume and (run.checkpoint_path.exists() or bool(run.metrics()))
        if started:  # else a new run, or one killed before its first checkpoint
            self._restore(run.checkpoint())
            run.truncate_metrics(self.position.epoch)
        run.write_config(self.resolved)
        run.write_environment()
        if not started:
            self.model.begin(next(_batches(self.training, self.resolved))[0])
            self._save()

    def _state(self):
        return {
            **vars(self.position),
            "streams": self.streams.state(),
            "model": self.resolved["run"]["model"],
            "image_shape": [int(size) for size in self.dataset.item_shape],
            **self.fingerprint,
        }

    def _save(self):
        for name, p in self.model.named_parameters().items():
            if not np.isfinite(p.data).all():  # of a finite loss, a gradient that is not
                raise UserError(
                    f"the weights {name} are no longer finite after step {self.position.step}: "
                    f"train anew with a --lr below {self.resolved['train']['lr']:g} "
                    f"(the last checkpoint in {self.run.path} is from before)"
                )
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        for network, optimiser in self.optimisers.items():
            for name, array in optimiser.state_dict().items():
                tensors[f"optim.{network}.{name}"] = np.asarray(array)
        self.run.save(runs.Checkpoint(self._state(), tensors))

    def _restore(self, checkpoint):
        state = checkpoint.state
        check_unchanged(self.fingerprint, state, self.dataset.name, self.run.path)
        with _fitting(self.run):
            _load_model(self.model, checkpoint, self.resolved)
            for network, optimiser in self.optimisers.items():
                optimiser.load_state_dict(checkpoint.with_prefix(f"optim.{network}"))
            self.streams.restore(state["streams"])
            self.position = _Position(**{name: state[name] for name in vars(self.position)})
            self.position.check()

    # -- the loop

    def fit(self, on_progress, on_epoch=None):
        """Trains up to the configured number of epochs."""
        self.on_epoch = on_epoch
        self.on_progress, self.reported = on_progress, -math.inf
        self.started, self.first_step = time.monotonic(), self.position.step
        with _stop_requests() as stop:
            self._tell_model()
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
        started, position = time.monotonic(), self.position
        every = self.resolved["train"]["checkpoint_every"]
        for images, known in self.feed.run(position.epoch, position.batch, self._tell_model):
            position.advance(images)
            self._count(known)
            self._report()
            if position.batch == self.loader.batches_per_epoch:
                break  # a stop asked for now waits for the epoch's end, a moment away
            asked_to_stop = bool(stop)  # read once: what is raised below has been saved
            if asked_to_stop or (every and position.batch % every == 0):
                self._count(self.feed.rest())
                self._save()
            if asked_to_stop:
                raise Interrupted(self.run.path, stop[0])
        self._count(self.feed.rest())
        self._tell_model(epochs_more=1)
        self._end_epoch(*self._assess(), started)

    def _tell_model(self, epochs_more=0):
        """Where training stands, for what depends on it: warm-ups, schedules, phases."""
        self.model.epoch = self.position.epoch + epochs_more
        self.model.step = self.position.step

    def _count(self, known):
        """Add the losses of steps, (terms, images) each, to the epoch's sums."""
        first = self.position.step - self.feed.waiting - len(known) + 1
        for step, (terms, images) in enumerate(known, first):
            self._refuse_non_finite(terms, "", step, functools.partial(self._repeat, step))
            self.position.add(terms, images)

    def _assess(self):
        """(test means, validation means, extra) after an epoch; the model learns of the second.

        First the validation, which may choose the weights (early stopping), then the test.
        """
        valid = {}
        if self.held_out:
            measure = functools.partial(
                _means, self.model, self.model.validate, self.held_out, self.resolved
            )
            valid = measure()
            self._refuse_non_finite(valid, "validation ", self.position.step + 1, measure)
        self.model.end_epoch(valid)
        measure = functools.partial(evaluate, self.model, self.dataset, self.resolved)
        test = measure()
        self._refuse_non_finite(test, "test ", self.position.step + 1, measure)
        return test, valid, self._extra()

    def _extra(self):
        """What the model alone knows to say, of the first test items; {} of most models."""
        x, _ = next(_batches(self.dataset.test, self.resolved))
        self.model.eval()
        extra = self.model.extra_metrics(x, Streams(self.resolved["run"]["seed"]))
        self.model.train()
        return extra

    def _end_epoch(self, test, valid, extra, started):
        """Metrics first, then the checkpoint: a kill in between leaves a line too many, which
        resuming cuts off again; the other order would lose one."""
        position = self.position
        self.run.append_metrics(
            {
                "epoch": position.epoch + 1,
                "step": position.step,
                **_prefixed("train_", position.means()),
                **_prefixed("valid_", valid),
                **_prefixed("test_", test),
                **({"extra": extra} if extra else {}),
                "seconds": round(time.monotonic() - started, 3),
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
        now, position = time.monotonic(), self.position
        if test is None and now - self.reported < PROGRESS_INTERVAL:
            return
        self.reported = now
        batches = self.loader.batches_per_epoch
        done = position.step - self.first_step
        left = self.epochs * batches - position.step
        self.on_progress(
            Progress(
                epoch=position.epoch + 1,
                epochs=self.epochs,
                batch=position.batch,
                batches=batches,
                terms=position.means(self.feed.waiting_items),
                test=test,
                seconds_left=(now - self.started) / done * left if done else None,
            )
        )

    def _refuse_non_finite(self, terms, what, step, measure_again):
        """A loss that is no number ends the run; ``measure_again`` computes it once more."""
        for name, value in terms.items():
            if not math.isfinite(value):
                raise UserError(
                    f"the {what}{name} became {value} at step {step}, "
                    f"{origin(self.model, measure_again)}: "
                    f"train anew with a --lr below {self.resolved['train']['lr']:g} "
                    f"(the last checkpoint in {self.run.path} is from before)"
                )

    def _repeat(self, failed):
        """The forward passes of the step number ``failed`` (from 1), from the state before it.

        That state is gone, the optimiser having moved on; but a run is a pure function, so
        training from the last checkpoint, at most an epoch ago, leads there again.
        """
        failed, dtype = failed - 1, self.resolved["run"]["dtype"]
        self._restore(self.run.checkpoint())
        options = {"gradient": self.resolved["run"]["gradient"]}
        position = self.position
        for x, labels in self.loader.batches(position.epoch, start=position.batch):
            self._tell_model()
            if position.step == failed:  # by the tape: by hand, no layer is called
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
            metrics={name: value for name, value in last.items() if name.startswith(_METRICS)},
        )


_METRICS = ("train_", "valid_", "test_")


def _prefixed(prefix, terms):
    return {prefix + name: value for name, value in terms.items()}


def _floats(terms):
    return {name: float(value) for name, value in terms.items()}


def _load_data(resolved, folder=None):
    """The data of a configuration: a new one, or that of the run in ``folder``."""
    settings = resolved["data"]
    try:
        with on_the_cpu():
            return data.load(
                settings["name"], data_dir=settings["dir"] or None, limit=settings["limit"] or None
            )
    except UserError as error:
        raise (missing(error, resolved, folder) if folder else error) from None


def _build(resolved, item_shape):
    settings = resolved["run"]
    model = config.model_class(settings["model"])
    return model(
        config.model_config(resolved),
        tuple(item_shape),
        settings["seed"],
        dtype=np.dtype(settings["dtype"]),
        **({"features": _features(resolved, tuple(item_shape))} if model.probes else {}),
    )


def _features(resolved, item_shape):
    """The trained model that a probe reads, which must have seen items of the same shape."""
    path = resolved["model"]["features"]
    if not path:
        raise UserError("a probe reads the features of a trained run: name its folder with "
                        "--features RUN")
    model = load(path)
    if model.image_shape != item_shape:
        raise UserError(f"the model of {path} was trained on items of shape {model.image_shape}, "
                        f"and the data have {item_shape}: probe it on data of its own shape")
    return model


def _optimiser(network, settings, lr):
    """``lr``: the model's own learning rate for this network, None: that of [train]."""
    options = {name: value for name, value in settings.items() if name not in config.TRAIN}
    return optim.make(settings["optimizer"], network, lr or settings["lr"], **options)


def _split(dataset, share):
    """(training, held out): the last ``share`` of the training items is kept for validation."""
    if not share:
        return dataset.train, None
    items, labels = dataset.train
    first = len(items) - max(1, round(share * len(items)))
    if first < 1:
        raise UserError(
            f"{dataset.name} has {len(items)} training items, and {share:g} of them are held out "
            "for validation: expected at least 2; give more, or hold out less"
        )
    return (items[:first], labels[:first]), (items[first:], labels[first:])


def _load_model(model, checkpoint, resolved):
    kind = checkpoint.state["model"]
    if kind != resolved["run"]["model"]:
        raise ValueError(f"it holds a {kind}")
    model.load_state_dict(checkpoint.with_prefix("model"))


@contextlib.contextmanager
def _fitting(run):
    """A checkpoint whose tensors do not fit the model of config.toml is the user's to mend."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{run.checkpoint_path} does not fit the model that {run.path}/config.toml "
            f"describes ({error}): put back the files that belong together"
        ) from None


@contextlib.contextmanager
def _stop_requests():
    """A list that stays empty until SIGINT or SIGTERM arrives and puts its number in.

    The handler only takes note: an exception raised by a signal could land between two parameter
    updates and leave half a step behind. It restores the system's default first, so a second signal
    ends the process at once; the checkpoint on disk stays whole. Signals reach the main thread
    alone; in any other thread the list stays empty.
    """
    requests = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    watched = (signal.SIGINT, signal.SIGTERM)

    def take_note(number, frame):
        for each in watched:
            signal.signal(each, signal.SIG_DFL)
        requests.append(number)

    before = {each: signal.signal(each, take_note) for each in watched}
    try:
        yield requests
    finally:
        for each, handler in before.items():
            signal.signal(each, handler if handler is not None else signal.SIG_DFL)
