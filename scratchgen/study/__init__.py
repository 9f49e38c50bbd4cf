"""Instruments that check gradients. They import whatever they check; nothing imports them."""

from .gradient_check import GradientError, gradcheck

__all__ = ["GradientError", "gradcheck"]
