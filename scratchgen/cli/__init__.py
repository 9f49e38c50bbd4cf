"""The command line: ``scratchgen train vae``, …"""

from .app import main, run

__all__ = ["main", "run"]
