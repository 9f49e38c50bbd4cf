"""Training: the loop, its configuration, the feed of batches, the run folder."""

from .loop import (
    Interrupted,
    Progress,
    Summary,
    dataset_of,
    evaluate,
    evaluate_run,
    load,
    train,
)

__all__ = ["Interrupted", "Progress", "Summary", "dataset_of", "evaluate", "evaluate_run", "load",
           "train"]
