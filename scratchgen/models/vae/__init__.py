"""The variational autoencoder (Kingma and Welling 2014)."""

from .model import VAE

__all__ = ["VAE"]
