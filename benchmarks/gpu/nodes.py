"""How many kernels, and other operations of arrays, a recorded training step consists of; no GPU.

    python -m benchmarks nodes

records a step of each model on the emulated GPU, at tiny sizes, which the counts do not depend on,
and writes them to ``benchmarks/results/nodes.json``. A test counts again and compares.
Splitting a sum over blocks adds kernels at some sizes; the record of a real GPU has these.
"""

import argparse
import collections
import json
import sys

from ..processes import ROOT
from . import rows

RECORD = ROOT / "benchmarks" / "results" / "nodes.json"


def count(name):
    """{kernels, others, longest: {kernel: times}} of a step of the workload ``name``."""
    from ..peers import scratchgen as ours
    peer = ours.CudaPeer(rows.workload(name, quick=True), drawn=True)
    for i in range(2):                                 # as it is, then recorded
        peer.step(i)
    if peer.note:
        raise RuntimeError(f"{name}: {peer.note}")
    (graph,) = peer.captured.recordings.values()
    recorded = graph.captured.graph
    return {"kernels": len(recorded.kernels), "others": len(recorded.others),
            "by kernel": dict(sorted(collections.Counter(recorded.kernels).items())),
            "by other": dict(sorted(collections.Counter(recorded.others).items()))}


def counted(names=rows.NAMES):
    """name → count, on the emulated GPU, of which a process has one."""
    from scratchgen.kernels import cuda

    from scratchgen.engine.backend import use_backend
    if cuda.replacement is None:
        sys.path.insert(0, str(ROOT / "tests"))
        from emulated_gpu.device import EmulatedGpu
        cuda.replacement = EmulatedGpu()
    with use_backend("cuda"):
        return {name: count(name) for name in names}


def table(record):
    """Markdown: a row for each workload."""
    from ..readme import markdown
    found = [(name, c["kernels"], c["others"], ", ".join(
        f"{n} {kernel}" for kernel, n in sorted(c["by kernel"].items(), key=lambda p: -p[1])[:4]))
        for name, c in record.items()]
    return markdown(("step", "our kernels", "CuPy's", "the most frequent"), found, right=(1, 2))


def main(arguments=None):
    """Writes the record; the exit status."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    RECORD.write_text(json.dumps(counted(), indent=1) + "\n", encoding="utf-8")
    print(f"{RECORD.name} written")
    return 0
