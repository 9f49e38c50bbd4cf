"""The models. Each file reads beside the paper it implements."""

from .dae import DAE
from .gan import GAN
from .model import Model
from .representation import Classifier, Probe
from .sdae import SDAE
from .vae import VAE

MODELS = {model.kind: model for model in (DAE, SDAE, VAE, GAN, Probe, Classifier)}

__all__ = ["DAE", "GAN", "MODELS", "SDAE", "VAE", "Classifier", "Model", "Probe"]
