"""Part "across": whole trainings that must agree: recorded and plain, the GPU and NumPy; and what
NVIDIA's sanitizer says of the kernels."""

import functools

from . import sanitizer, training

PLAYED = ("dae", "vae", "gan", "dcgan")
COMPARED = ("dae", "vae", "gan")


def items(deadline, quick):
    """name → function of this part."""
    found = {f"recorded = plain {kind}": functools.partial(training.recorded_is_plain, kind, quick)
             for kind in PLAYED}
    for dtype in ("float64", "float32"):
        for kind in COMPARED:
            found[f"NumPy = CUDA {kind} {dtype}"] = functools.partial(
                training.host_agrees, kind, dtype, quick)
    return found | {tool: functools.partial(sanitizer.check, tool, deadline)
                    for tool in sanitizer.TOOLS}
