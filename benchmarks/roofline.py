"""Roofline: forward pass and gradients of each kernel beside the machine's measured ceilings.

    python -m benchmarks roofline [--threads 2] [--quick] [--out DIR]

Ceilings, measured in the same process: the fastest float32 product (a square one by NumPy's BLAS,
or the fastest below), and the bandwidth of copying, by the size of what is copied: what fits in the
caches moves faster. Points: the layers of the workloads through the public ops. A point's intensity
is its arithmetic over the bytes that it must read and write (batch norm reads its input twice, once
for the statistics); exp and log count as one operation.
"""

import math
import os
import subprocess
import sys

import numpy as np

from . import lower_bound, records
from .kernel_points import points
from .peers import THREAD_SETTINGS
from .processes import environment
from .readme import markdown

SECONDS = 0.4                             # for each point
SQUARE = 1536
COPIED = [1 << n for n in (20, 22, 24, 26, 28)]                # bytes
COLOURS = {"dense": "tab:blue", "conv2d": "tab:red", "conv_transpose2d": "tab:orange",
           "bce": "tab:green", "adam": "tab:purple", "batch_norm": "tab:brown"}
MARKERS = {"forward": "o", "dx": "s", "dw": "^", "backward": "s", "step": "D"}


def main(arguments):
    return records.guarded(run, arguments)


def run(arguments):
    options = records.parser(__doc__).parse_args(arguments)
    records.check(options)
    settings = set(THREAD_SETTINGS) & set(os.environ)
    if settings or len(os.sched_getaffinity(0)) != options.threads:
        return again(arguments, options.threads)
    seconds = 0 if options.quick else SECONDS
    record = {"machine": records.machine(), "threads": options.threads, "quick": options.quick,
              "ceilings": ceilings(options.threads, options.quick),
              "points": list(points(seconds, options.quick))}
    records.save(records.path_of("roofline.json", options.out), record)
    picture(record, records.path_of("roofline.png", options.out, pictures=True))
    print(f"{table_of_points(record)}\n\n{table(record)}")
    bad = [p for p in record["points"] if not (math.isfinite(p["seconds"]) and p["finite"])]
    return 1 if bad else 0


def again(arguments, threads):
    """The same in a process of ``threads`` cores, as a user starts it: nothing about threads set.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run([sys.executable, "-m", "benchmarks", "roofline", *arguments],
                          env=environment("scratchgen", threads),
                          preexec_fn=lambda: os.sched_setaffinity(0, cores))
    return done.returncode


# --- measuring -----------------------------------------------------------------------------------

def ceilings(threads, quick):
    """FLOP/s of a large product, and [bytes, bytes/s] of copying."""
    n, seconds = (64, 0) if quick else (SQUARE, 1.0)
    return {"product": 2 * n**3 / lower_bound.product_time((n, n, n), 6 * seconds),
            "copying": [[size, lower_bound.bandwidth(size, threads, seconds)]
                        for size in (COPIED[:2] if quick else COPIED)]}


# --- what the record says ------------------------------------------------------------------------

def ceiling(record, p):
    """What the roofline allows at a point's intensity and size, FLOP/s."""
    sizes, rates = np.array(record["ceilings"]["copying"]).T
    rate = np.interp(np.log(p["bytes"]), np.log(sizes), rates)
    return min(peak(record), rate * p["flops"] / p["bytes"])


def peak(record):
    """FLOP/s of the fastest product: the square one, or a point that went beyond it."""
    return max(record["ceilings"]["product"], *(p["flops"] / p["seconds"]
                                                for p in record["points"] if p["op"] == "dense"))


def table(record):
    """A row for each op and pass, over all its shapes: the slowest and the fastest."""
    kinds, rows = {}, []
    for p in record["points"]:
        kinds.setdefault((p["op"], p["pass"]), []).append(p)
    for kind, found in kinds.items():
        rates = [p["flops"] / p["seconds"] / 1e9 for p in found]
        moved = [p["bytes"] / p["seconds"] / 1e9 for p in found]
        shares = [100e9 * r / ceiling(record, p) for r, p in zip(rates, found, strict=True)]
        rows.append([*kind, len(found), *(span(values) for values in (rates, moved, shares))])
    copying = ", ".join(f"{size >> 20} MiB {rate / 1e9:.0f}"
                        for size, rate in record["ceilings"]["copying"])
    text = markdown(("op", "pass", "shapes", "GFLOP/s", "GB/s", "% of the ceiling"), rows,
                    right=range(2, 6))
    return (f"{text}\n\nCeilings: {peak(record) / 1e9:.0f} GFLOP/s; copying, GB/s, of {copying}. "
            f"{records.provenance(record)}")


def span(values):
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} … {high}"


def table_of_points(record):
    rows = []
    for p in record["points"]:
        rate = p["flops"] / p["seconds"]
        rows.append([p["op"], p["pass"], p["label"], f"{1e3 * p['seconds']:.3f}",
                     f"{p['flops'] / p['bytes']:.1f}", f"{rate / 1e9:.1f}",
                     f"{p['bytes'] / p['seconds'] / 1e9:.1f}",
                     f"{100 * rate / ceiling(record, p):.0f} %"])
    return markdown(("op", "pass", "shape", "ms", "FLOP/byte", "GFLOP/s", "GB/s",
                     "of the ceiling"), rows, right=range(3, 8))


def picture(record, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes, copying = figure.subplots(), record["ceilings"]["copying"]
    x = np.geomspace(0.08, 1000, 200)
    for (size, rate), style in ((copying[-1], "-"), (copying[0], "--")):
        axes.loglog(x, np.minimum(peak(record), rate * x) / 1e9, color="0.35", linestyle=style,
                    linewidth=1, label=f"copying {size >> 20} MiB: {rate / 1e9:.0f} GB/s")
    axes.axhline(peak(record) / 1e9, color="0.35", linewidth=1,
                 label=f"products: {peak(record) / 1e9:.0f} GFLOP/s")
    shown = set()
    for p in record["points"]:
        kind = (p["op"], p["pass"])
        axes.loglog(p["flops"] / p["bytes"], p["flops"] / p["seconds"] / 1e9, linestyle="",
                    marker=MARKERS[p["pass"]], color=COLOURS[p["op"]], markersize=5, alpha=0.8,
                    label=None if kind in shown else " ".join(kind))
        shown.add(kind)
    axes.set(xlabel="intensity, FLOP/byte", ylabel="GFLOP/s", xlim=x[[0, -1]])
    axes.set_title(f"{record['machine']['processor']}, {records.threads(record)}, float32",
                   fontsize=10)
    axes.grid(alpha=0.25, which="both", linewidth=0.4)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
