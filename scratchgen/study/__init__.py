"""Instruments: the gradient check, claims that are computed twice, and the laws of everything that
draws random numbers."""

from .claims import CLAIMS, Comparison, check_claims, statement
from .gradient_check import GradientError, gradcheck
from .laws import FALSE_ALARMS, LAWS, Laws, Trial, check_laws

__all__ = ["CLAIMS", "FALSE_ALARMS", "LAWS", "Comparison", "GradientError", "Laws", "Trial",
           "check_claims", "check_laws", "gradcheck", "statement"]
