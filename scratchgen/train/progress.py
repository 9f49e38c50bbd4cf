"""Progress reports, the summary of a run, and the position of training within it."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """The argument of ``on_progress``, called several times a second and at each epoch's end."""

    epoch: int  # the current epoch, counted from 1
    epochs: int  # the configured total
    batch: int  # finished batches of this epoch
    batches: int  # batches per epoch
    terms: dict[str, float]  # means per item over this epoch so far
    test: dict[str, float] | None  # means over the test items, at an epoch's end only
    seconds_left: float | None  # estimated; None before the first step


@dataclass(frozen=True)
class Summary:
    """The result of a run: what was trained, for how long, and the last epoch's metrics."""

    path: Path
    model: str
    preset: str
    data: str
    epochs: int
    steps: int
    parameters: int
    seconds: float
    metrics: dict[str, float]  # train_loss, test_loss and their terms, means per item

    def as_dict(self) -> dict:
        """The content of ``summary.json``: flat, JSON-serialisable, without the path."""
        fields = {name: value for name, value in vars(self).items()
                  if name not in ("path", "metrics")}
        return {**fields, **self.metrics}


@dataclass
class Position:
    """The number of finished epochs and batches, and the running sums of the epoch's terms."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # finished batches in total
    images: int = 0  # items seen in the current epoch
    sums: dict = field(default_factory=dict)  # term -> sum over these items

    def check(self):
        """Raises ``ValueError`` for values of the wrong type, which a damaged file may contain."""
        counts = (self.epoch, self.batch, self.step, self.images)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"its position is {counts}")
        if not all(isinstance(total, (int, float)) for total in self.sums.values()):
            raise ValueError("its sums are not numbers")

    def advance(self, images):
        """Counts one finished batch of ``images`` items."""
        self.batch += 1
        self.step += 1
        self.images += images

    def add(self, terms, images):
        """Adds the means ``terms`` of a batch of ``images`` items to the sums."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * images

    def means(self, pending=0):
        """Means over the epoch so far, without the ``pending`` items whose terms are not yet known.
        """
        return {name: total / (self.images - pending) for name, total in self.sums.items()}

    def next_epoch(self):
        self.epoch += 1
        self.batch, self.images, self.sums = 0, 0, {}
