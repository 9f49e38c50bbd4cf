"""Training a model from a configuration, resuming it, and evaluating it."""

from .evaluation import evaluate, evaluate_run
from .interrupt import Interrupted
from .loop import train
from .progress import Progress, Summary
from .run_data import dataset_of
from .trained_model import load

__all__ = ["Interrupted", "Progress", "Summary", "dataset_of", "evaluate", "evaluate_run", "load",
           "train"]
