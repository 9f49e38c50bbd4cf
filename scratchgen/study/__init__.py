"""Instruments for studying a model: the gradient check, and claims that are computed twice."""

from .claims import CLAIMS, Comparison, check_claims, statement
from .gradient_check import GradientError, gradcheck

__all__ = ["CLAIMS", "Comparison", "GradientError", "check_claims", "gradcheck", "statement"]
