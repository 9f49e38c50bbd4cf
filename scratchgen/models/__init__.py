"""The models, one per folder, and the code that they share."""

from .base import Model
from .classifier import Classifier, Probe
from .dae import DAE
from .gan import GAN
from .sdae import SDAE
from .vae import VAE

MODELS = {model.kind: model for model in (DAE, SDAE, VAE, GAN, Probe, Classifier)}

__all__ = ["DAE", "GAN", "MODELS", "SDAE", "VAE", "Classifier", "Model", "Probe"]
