"""The training loop: progress, log, checkpoint, resume.

A run is a pure function of its configuration. After any number of steps its whole state is the
weights, the optimisers' states, the streams' counters, the position (epoch, batch) and the running
sums of the epoch's losses: exactly what a checkpoint holds. Training that goes on from a checkpoint
therefore makes the same bits as training that was never stopped.
"""

import contextlib
import math
import signal
import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import config, data, optim, runs
from .backend import use_backend
from .errors import UserError
from .random import Streams

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

    def add(self, terms, images):
        self.batch += 1
        self.step += 1
        self.images += images
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * images

    def means(self):
        return {name: total / self.images for name, total in self.sums.items()}

    def next_epoch(self):
        self.epoch += 1
        self.batch, self.images, self.sums = 0, 0, {}


def train(given, out=None, resume=False, on_progress=None):
    """Trains a model and leaves a run folder; returns its ``Summary``.

    ``given`` holds the tables of the configuration that differ from the defaults, for example
    ``{"run": {"model": "vae"}, "train": {"epochs": 3}}``. ``out`` is the run folder (None: a new
    one below ``runs/``). With ``resume`` the run in ``out`` goes on where its checkpoint stands;
    ``train.epochs`` counts from its beginning. ``on_progress`` is called with ``Progress``.

    Wrong input raises ``UserError``. SIGINT or SIGTERM, in the main thread, ends the current step,
    writes a checkpoint and raises ``Interrupted``; a second one kills at once.
    """
    if resume:
        run = _run_to_resume(out)
        resolved = config.resume(run.config(), given)
    else:
        resolved = config.resolve(given)
    with use_backend(resolved["run"]["backend"]):
        dataset = _load_data(resolved)
        trainer = _Trainer(resolved, dataset)
        if not resume:
            run = runs.create(out, _label(resolved))
        with run.locked():
            trainer.attach(run, resume)
            return trainer.fit(on_progress or (lambda progress: None))


def _run_to_resume(out):
    if out is None:
        raise UserError("--resume needs the run to go on with: name its folder with --out")
    return runs.open_run(out)


def _label(resolved):
    settings = resolved["run"]
    preset = settings["preset"]
    return f"{settings['model']}-{resolved['data']['name'] if preset == 'default' else preset}"


def load(path):
    """The trained model of the run folder ``path``, in eval mode."""
    run = runs.open_run(path)
    resolved, checkpoint = run.config(), run.checkpoint()
    model = _build(resolved, checkpoint.state["image_shape"])
    with _fitting(run):
        _load_model(model, checkpoint, resolved)
    model.eval()
    return model


def dataset_of(path):
    """The data set that the run was trained on, read anew."""
    return _load_data(runs.open_run(path).config())


def evaluate_run(path, overrides=None):
    """Test means of a stored run, per image; ``overrides`` may replace values of [data] and [run].

    The model's shape must still fit: data of another image shape raise ``UserError``.
    """
    model, resolved = load(path), runs.open_run(path).config()
    resolved = config.resolve(config.merge(resolved, overrides or {}))
    dataset = _load_data(resolved)
    shape = tuple(runs.open_run(path).checkpoint().state["image_shape"])
    if tuple(dataset.image_shape) != shape:
        raise UserError(
            f"the images of {dataset.name} have shape {tuple(dataset.image_shape)}, "
            f"the model of {path} was trained on {shape}"
        )
    with use_backend(resolved["run"]["backend"]):
        return evaluate(model, dataset, resolved)


def evaluate(model, dataset, resolved):
    """Means of the loss and its terms over the test images, per image.

    Draws from fresh streams: evaluating twice gives the same numbers, and never moves training's.
    """
    seed, dtype = resolved["run"]["seed"], resolved["run"]["dtype"]
    loader = data.Loader(
        dataset.test_images,
        dataset.test_labels,
        EVALUATION_BATCH,
        seed,
        shuffle=False,
        binarize=resolved["data"]["binarize"],
    )
    streams, totals = Streams(seed), _Position()
    model.eval()
    for x, _ in loader.batches(0):
        totals.add(_floats(model.evaluate(x.astype(dtype, copy=False), streams)), len(x))
    model.train()
    return totals.means()


class _Trainer:
    """One run in progress: the model and everything that moves with it."""

    def __init__(self, resolved, dataset):
        settings = resolved["run"]
        self.resolved = resolved
        self.dataset = dataset
        self.model = _build(resolved, dataset.image_shape)
        self.model.train()
        self.optimisers = {
            name: _optimiser(network, resolved["train"])
            for name, network in self.model.networks().items()
        }
        self.streams = Streams(settings["seed"])
        self.loader = data.Loader(
            dataset.train_images,
            dataset.train_labels,
            resolved["train"]["batch_size"],
            settings["seed"],
            binarize=resolved["data"]["binarize"],
        )
        self.position = _Position()
        self.epochs = resolved["train"]["epochs"]

    # -- the folder

    def attach(self, run, resume):
        """Binds the trainer to its folder: the first files of a new run, or the state of an old."""
        self.run = run
        started = resume and (run.checkpoint_path.exists() or bool(run.metrics()))
        if started:  # else a new run, or one killed before its first checkpoint
            self._restore(run.checkpoint())
            run.keep_metrics(self.position.epoch)
        run.write_config(self.resolved)
        run.write_environment()
        if not started:
            self._save()

    def _state(self):
        return {
            **vars(self.position),
            "streams": self.streams.state(),
            "model": self.resolved["run"]["model"],
            "image_shape": [int(size) for size in self.dataset.image_shape],
            "data": _fingerprint(self.dataset),
        }

    def _save(self):
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        for network, optimiser in self.optimisers.items():
            for name, array in optimiser.state_dict().items():
                tensors[f"optim.{network}.{name}"] = np.asarray(array)
        self.run.save(runs.Checkpoint(self._state(), tensors))

    def _restore(self, checkpoint):
        state = checkpoint.state
        if state.get("data") != _fingerprint(self.dataset):
            raise UserError(
                f"the training images of {self.dataset.name} are not those that {self.run.path} "
                "was trained on: name their folder with --data-dir"
            )
        with _fitting(self.run):
            _load_model(self.model, checkpoint, self.resolved)
            for network, optimiser in self.optimisers.items():
                optimiser.load_state_dict(checkpoint.part(f"optim.{network}"))
        self.streams.restore(state["streams"])
        self.position = _Position(**{name: state[name] for name in vars(self.position)})

    # -- the loop

    def fit(self, on_progress):
        """Trains up to the configured number of epochs."""
        self.on_progress, self.reported = on_progress, -math.inf
        self.started, self.first_step = time.monotonic(), self.position.step
        with _stop_requests() as stop:
            while self.position.epoch < self.epochs:
                self._run_epoch(stop)
                if stop:
                    break
        summary = self._summary()
        self.run.write_summary(summary.as_dict())
        if stop:
            raise Interrupted(self.run.path, stop[0])
        return summary

    def _run_epoch(self, stop):
        started = time.monotonic()
        position, dtype = self.position, self.resolved["run"]["dtype"]
        every = self.resolved["train"]["checkpoint_every"]
        for x, _ in self.loader.batches(position.epoch, start=position.batch):
            self._step(x.astype(dtype, copy=False))
            self._report()
            if position.batch == self.loader.batches_per_epoch:
                break  # a stop asked for now waits for the epoch's end, a moment away
            asked_to_stop = bool(stop)  # read once: what is raised below has been saved
            if asked_to_stop or (every and position.batch % every == 0):
                self._save()
            if asked_to_stop:
                raise Interrupted(self.run.path, stop[0])
        test = evaluate(self.model, self.dataset, self.resolved)
        self._refuse_non_finite(test, "test ")
        self._end_epoch(test, time.monotonic() - started)

    def _step(self, x):
        terms = self.model.training_step(
            x, self.streams, self.optimisers, gradient=self.resolved["run"]["gradient"]
        )
        terms = _floats(terms)
        self._refuse_non_finite(terms, "")
        self.position.add(terms, len(x))

    def _end_epoch(self, test, seconds):
        """Metrics first, then the checkpoint: a kill in between leaves a line too many, which
        resuming cuts off again; the other order would lose one."""
        position = self.position
        terms = position.means()
        self.run.append_metrics(
            {
                "epoch": position.epoch + 1,
                "step": position.step,
                **_prefixed("train_", terms),
                **_prefixed("test_", test),
                "seconds": round(seconds, 3),
            }
        )
        self._report(test)
        position.next_epoch()
        self._save()
        self.run.write_summary(self._summary().as_dict())

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
                terms=position.means(),
                test=test,
                seconds_left=(now - self.started) / done * left if done else None,
            )
        )

    def _refuse_non_finite(self, terms, what):
        for name, value in terms.items():
            if not math.isfinite(value):
                raise UserError(
                    f"the {what}{name} became {value} at step {self.position.step + 1}: "
                    f"train anew with a --lr below {self.resolved['train']['lr']:g} "
                    f"(the last checkpoint in {self.run.path} is from before)"
                )

    def _summary(self):
        history, settings = self.run.metrics(), self.resolved["run"]
        last = history[-1] if history else {}
        return Summary(
            path=self.run.path,
            model=settings["model"],
            preset=settings["preset"],
            data=self.dataset.name,
            epochs=self.position.epoch,
            steps=self.position.step,
            parameters=sum(p.data.size for p in self.model.named_parameters().values()),
            seconds=round(sum(line["seconds"] for line in history), 3),
            metrics={name: value for name, value in last.items() if name.startswith(_METRICS)},
        )


_METRICS = ("train_", "test_")


def _prefixed(prefix, terms):
    return {prefix + name: value for name, value in terms.items()}


def _floats(terms):
    return {name: float(value) for name, value in terms.items()}


def _load_data(resolved):
    settings = resolved["data"]
    return data.load(
        settings["name"], data_dir=settings["dir"] or None, limit=settings["limit"] or None
    )


def _build(resolved, image_shape):
    settings = resolved["run"]
    return config.model_class(settings["model"])(
        config.model_config(resolved),
        tuple(image_shape),
        settings["seed"],
        dtype=np.dtype(settings["dtype"]),
    )


def _optimiser(network, settings):
    options = {name: value for name, value in settings.items() if name not in config.TRAIN}
    return optim.make(settings["optimizer"], network, settings["lr"], **options)


def _load_model(model, checkpoint, resolved):
    kind = checkpoint.state["model"]
    if kind != resolved["run"]["model"]:
        raise ValueError(f"it holds a {kind}")
    model.load_state_dict(checkpoint.part("model"))


@contextlib.contextmanager
def _fitting(run):
    """A checkpoint whose tensors do not fit the model of config.toml is the user's to mend."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"{run.checkpoint_path} does not fit the model that {run.path}/config.toml "
            f"describes ({error}): put back the files that belong together"
        ) from None


def _fingerprint(dataset):
    """A checksum of the training images: resuming on others would not be resuming."""
    return zlib.crc32(np.ascontiguousarray(dataset.train_images))


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
