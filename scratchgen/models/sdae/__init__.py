"""The stacked denoising autoencoder (Vincent et al. 2010)."""

from .model import SDAE

__all__ = ["SDAE"]
