"""The models. Each file reads beside the paper it implements."""

from .dae import DAE
from .gan import GAN
from .model import Model
from .vae import VAE

MODELS = {model.kind: model for model in (DAE, VAE, GAN)}

__all__ = ["DAE", "GAN", "MODELS", "Model", "VAE"]
