"""The generative adversarial network (Goodfellow et al. 2014)."""

from .model import GAN

__all__ = ["GAN"]
