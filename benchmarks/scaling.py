"""Scaling: time and peak memory of a training step against batch, width, image size and threads.

    python -m benchmarks scaling [--peers torch] [--threads 2] [--only SERIES ...] [--quick]
                                 [--out DIR]

Every point is a fresh process, in front of which another one has compiled what is kept on disk;
points of the peers alternate. Time is the median of the
chunks. Memory is the process's peak; its growth is counted from the smallest peak of the series,
which holds interpreter, libraries and compiled code, and from 1 MiB on. Exponents are fitted by
least squares to log y against log x over the upper half of the points, where the fixed costs of a
step weigh least.
"""

import statistics
import sys

import numpy as np

from . import peers, records, workloads
from .processes import Failed, Process, compile_ahead
from .readme import markdown
from .records import progress

OURS, WARM, CHUNKS, CHUNK_SECONDS = "scratchgen", 2, 5, 0.1
# series → (what x is, workload, x → its options, the points)
SERIES = {
    "batch": ("batch of the VAE 784-500-20", "vae", lambda x: {"batch": x},
              [1, 4, 16, 64, 256, 1024, 4096]),
    "width": ("hidden units of the DAE, batch 128", "dae", lambda x: {"width": x},
              [64, 128, 256, 512, 1024, 2048, 4096]),
    "image": ("image side of the conv VAE, batch 32", "conv-vae",
              lambda x: {"size": x, "batch": 32}, [14, 28, 42, 56, 84, 112]),
    "threads": ("threads", None, None, [1, 2]),
}
THREADED = ("vae", "conv-vae")            # workloads of the series "threads"


def main(arguments):
    return records.guarded(run, arguments)


def run(arguments):
    parser = records.parser(__doc__, "torch")
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES))
    options = parser.parse_args(arguments)
    records.check(options)
    names = [OURS, *(p for p in options.peers if not peers.missing(p))]
    path = records.path_of("scaling.json", options.out)
    record = {} if options.quick else records.load(path)
    record |= {"machine": records.machine(), "threads": options.threads, "peers": options.peers,
               "quick": options.quick}
    for series in options.only:
        progress(series)
        rows = (threads_series(names, options) if series == "threads"
                else size_series(series, names, options))
        record.setdefault("series", {})[series] = rows
        records.save(path, record)
    if not options.quick and set(SERIES) <= set(record["series"]):
        picture(record, records.path_of("scaling.png", options.out, pictures=True))
    failed = [p for rows in record["series"].values() for points in rows.values() for p in points
              if "failed" in p]
    print(table(record) if not options.quick else f"{len(failed)} points failed")
    return 1 if failed else 0


def size_series(series, names, options):
    """peer → points of one series, smallest first."""
    _, maker, options_of, points = SERIES[series]
    if options.quick:
        points = points[:2]
    found = {n: [] for n in names}
    for x in points:
        for n in names:
            found[n].append({"x": x, **point(n, maker, options_of(x), options.threads,
                                             options.quick)})
        progress(f"  {x}: " + ", ".join(
            f"{n} {1e3 * rows[-1].get('seconds', float('nan')):.2f} ms"
            for n, rows in found.items()))
    return found


def threads_series(names, options):
    """The same for the number of threads; a peer occurs once for each workload."""
    found = {}
    for workload in THREADED[:1] if options.quick else THREADED:
        for threads in range(1, options.threads + 1):
            for n in names:
                found.setdefault(f"{n}, {workload}", []).append(
                    {"x": threads, **point(n, workload, {}, threads, options.quick)})
    return found


def point(name, maker, options, threads, quick):
    """{seconds, peak} of a step in a fresh process, or {failed}."""
    variant = next(iter(peers.variants(name, workloads.make(maker, options)).values()))
    try:
        if not quick:
            compile_ahead(name, threads, maker, options, variant)
        with Process(name, threads, maker, options, variant) as process:
            process.first_step()
            once = process.ask("time", steps=1, chunks=1 if quick else WARM)["seconds"][-1]
            steps = 1 if quick else max(1, round(CHUNK_SECONDS / once))
            timed = process.ask("time", steps=steps, chunks=1 if quick else CHUNKS)
            if not timed["finite"]:
                return {"failed": "a loss is not finite"}
            return {"seconds": statistics.median(timed["seconds"]),
                    "peak": process.ask("memory")["peak"]}
    except Failed as failure:
        progress(f"  {name}: {failure}")
        return {"failed": str(failure)}


# --- what the record says ------------------------------------------------------------------------

def fitted(x, y):
    """The points (x, y), each (n,), that a line is fitted to: the upper half, where y is known."""
    upper = len(x) // 2 if len(x) > 2 else 0
    x, y = np.array(x[upper:], float), np.array(y[upper:], float)
    return x[np.isfinite(y)], y[np.isfinite(y)]


def exponent(x, y):
    """The slope of log y against log x there, by least squares; None for less than two points."""
    x, y = fitted(x, y)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(x) > 1 else None


def curves(record, series):
    """(peer, x, seconds, peak MiB, its growth or NaN) of those that have all points."""
    for name, points in record["series"].get(series, {}).items():
        if points and not any("failed" in p for p in points):
            peaks = np.array([p["peak"] for p in points])
            growth = peaks - peaks.min()
            yield (name, [p["x"] for p in points], [p["seconds"] for p in points], peaks,
                   np.where(growth >= 1, growth, np.nan))


def table(record):
    """The exponents, and the ends of each series."""
    rows = []
    for series, (title, *_) in SERIES.items():
        for name, x, seconds, peaks, growth in curves(record, series):
            powers = ["–" if power is None else f"{power:.2f}"
                      for power in (exponent(x, seconds), exponent(x, growth))]
            rows.append([title, f"{x[0]} … {x[-1]}", name,
                         f"{1e3 * seconds[0]:.3g} … {1e3 * seconds[-1]:.3g}", powers[0],
                         f"{peaks[0]:.0f} … {peaks[-1]:.0f}",
                         "–" if series == "threads" else powers[1]])
    text = markdown(("x", "from … to", "", "ms a step", "exponent of time",
                     "peak memory, MiB", "exponent of its growth"), rows,
                    right=(3, 4, 5, 6))
    return f"{text}\n\n{records.provenance(record)}"


def picture(record, path):
    """Time above, memory below, a column for each series, both axes logarithmic."""
    from matplotlib.figure import Figure

    shown = [s for s in SERIES if s != "threads"]
    figure = Figure(figsize=(3.6 * len(shown), 6.2), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex="col", squeeze=False)
    for column, series in enumerate(shown):
        for name, x, seconds, _, growth in curves(record, series):
            draw(axes[0][column], name, x, np.multiply(seconds, 1e3))
            draw(axes[1][column], name, x, growth)
        axes[1][column].set_xlabel(SERIES[series][0], fontsize=9)
        for row in (0, 1):
            axes[row][column].set_xticks(SERIES[series][3], SERIES[series][3], fontsize=7)
            axes[row][column].minorticks_off()
            axes[row][column].grid(alpha=0.25, which="both", linewidth=0.4)
            axes[row][column].legend(fontsize=7, frameon=False)
    axes[0][0].set_ylabel("ms a step")
    axes[1][0].set_ylabel("growth of peak memory, MiB")
    figure.suptitle(f"{record['machine']['processor']}, {records.threads(record)}; "
                    "lines: fits over the upper half", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


def draw(axes, name, x, y):
    """The points, and the line that was fitted to the upper half."""
    power = exponent(x, y)
    line, = axes.loglog(x, y, "o", markersize=4,
                        label=name if power is None else f"{name}: ∝ x^{power:.2f}")
    if power is not None:
        x, y = fitted(x, y)
        level = np.exp(np.mean(np.log(y)) - power * np.mean(np.log(x)))
        axes.loglog(x, level * x**power, color=line.get_color())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
