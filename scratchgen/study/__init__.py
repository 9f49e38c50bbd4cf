"""The gradient check."""

from .gradient_check import GradientError, gradcheck

__all__ = ["GradientError", "gradcheck"]
