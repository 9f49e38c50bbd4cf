"""Instruments: the gradient check, the gradient ledger of a whole graph, claims that are computed
twice, and the laws of everything that draws random numbers."""

from .claims import CLAIMS, Comparison, check_claims, statement
from .gradient_check import GradientError, gradcheck
from .laws import FALSE_ALARMS, LAWS, Laws, Trial, check_laws
from .ledger import Ledger, ledger
from .trace import observe

__all__ = ["CLAIMS", "FALSE_ALARMS", "LAWS", "Comparison", "GradientError", "Laws", "Ledger",
           "Trial", "check_claims", "check_laws", "gradcheck", "ledger", "observe", "statement"]
