"""The software and the machine that a run was computed with."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from .. import __version__


def environment() -> dict:
    """What can change the numbers or the speed of a run: versions, platform, processors, commit.

    It contains no user or host names.
    """
    versions = {"python": platform.python_version(), "scratchgen": __version__}
    for name in ("numpy", "numba", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    commit = _commit()
    return {
        "versions": versions,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        **({"commit": commit} if commit else {}),
    }


def _commit():
    """The Git commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
