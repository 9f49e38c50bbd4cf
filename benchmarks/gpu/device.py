"""The GPU and the versions: the head of the record."""

import datetime
import importlib.metadata
import os
import platform
import subprocess

from ..machine import commit, processor

PACKAGES = {"numpy": ("numpy",), "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
            "torch": ("torch",), "jax": ("jax",), "triton": ("triton",)}
COMMIT = "SCRATCHGEN_COMMIT"                           # where git does not say it


def describe():
    """A dict; UserError where there is no GPU."""
    from scratchgen.kernels import cuda
    device = cuda.device()
    runtime = device.xp.cuda.runtime
    properties = runtime.getDeviceProperties(device.xp.cuda.Device().id)
    return {"device": device.name, "capability": device.capability,
            "processors": device.processors, "memory": int(properties["totalGlobalMem"]),
            "l2": int(properties["l2CacheSize"]), "driver": driver(),
            "cuda_driver": runtime.driverGetVersion(), "cuda_runtime": runtime.runtimeGetVersion(),
            "nvrtc": nvrtc(device.xp), **host()}


def nvrtc(cupy):
    """The compiler's version as text, or None where CuPy does not say it."""
    try:
        return ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    except Exception:                                  # no measurement depends on it
        return None


def host():
    """What can be said without a GPU."""
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{name: version(*names) for name, names in PACKAGES.items()},
            "commit": os.environ.get(COMMIT) or commit(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def version(*names):
    """Of the first of these packages that is installed, or None."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def driver():
    """The driver's version as nvidia-smi has it, or None."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout else None


def lost(device):
    """Whether the GPU no longer answers: after an access outside an array nothing works."""
    try:
        device.synchronize()
        device.xp.zeros(1).get()
    except Exception:                                  # whatever it says, it is of no more use
        return True
    return False
