"""The denoising autoencoder (Vincent et al. 2008)."""

from .model import DAE

__all__ = ["DAE"]
