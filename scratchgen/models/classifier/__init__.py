"""A classifier, and a probe: a linear classifier of the codes of a trained model."""

from .model import Classifier, Probe

__all__ = ["Classifier", "Probe"]
