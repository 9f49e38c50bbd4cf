"""The page of a run: its pictures, its numbers, and its configuration described in sentences."""

from .page import write_report

__all__ = ["write_report"]
