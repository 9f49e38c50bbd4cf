"""The roofline and the ladder of the product as pictures, from ``gpu.json``. Needs matplotlib.

    python -m benchmarks.gpu.pictures        writes docs/gpu-roofline.png and docs/gpu-ladder.png
"""

import numpy as np

from . import targets

COLOURS = {"product": "tab:blue", "convolution": "tab:red", "memory-bound": "tab:green"}


def points(record):
    """(kind, label, intensity in FLOP/byte, FLOP/s) of what was measured, our fastest rungs."""
    for name, found in record.get("kernels", {}).get("items", {}).items():
        if name.startswith("gemm ") and (found.get("rungs") or {}).get("auto"):
            if median := targets.cold(found["rungs"]["auto"]):
                yield "product", found["label"], found["flops"] / found["bytes"], \
                    found["flops"] / median
        if name.startswith("convolution ") and "implicit_gemm, fp32" in found.get("rungs", {}):
            if "time" in (timed := found["rungs"]["implicit_gemm, fp32"]):
                yield "convolution", name, found["flops"] / found["bytes"], \
                    found["flops"] / timed["time"]["median"]
    for name, k in targets.memory_kernels(record).items():
        if k["flops"]:
            yield "memory-bound", name, k["flops"] / k["bytes"], k["flops"] / k["median"]


def picture_roofline(record, path):
    """Each kernel at its intensity, under the measured ceilings."""
    from matplotlib.figure import Figure
    ceilings = targets.item(record, "kernels", "ceilings")
    figure = Figure(figsize=(8.4, 5), layout="constrained")
    axes, x = figure.subplots(), np.geomspace(0.1, 2000, 200)
    for name, style in (("fp32", "-"), ("tf32", "--")):
        axes.loglog(x, np.minimum(ceilings[name], ceilings["copy"] * x) / 1e12, color="0.35",
                    linestyle=style, linewidth=1,
                    label=f"cuBLAS {name}: {ceilings[name] / 1e12:.0f} TFLOP/s")
    shown = set()
    for kind, _, intensity, rate in points(record):
        axes.loglog(intensity, rate / 1e12, "o", color=COLOURS[kind], markersize=5, alpha=0.8,
                    label=None if kind in shown else kind)
        shown.add(kind)
    axes.set(xlabel="intensity, FLOP/byte", ylabel="TFLOP/s", xlim=x[[0, -1]])
    axes.set_title(f"{record.get('device')}: device copy {ceilings['copy'] / 1e9:,.0f} GB/s",
                   fontsize=10)
    axes.grid(alpha=0.25, which="both", linewidth=0.4)
    axes.legend(fontsize=8, frameon=False)
    save(figure, path)


def picture_ladder(record, path, name="gemm 4096×4096×4096 NN"):
    """The rungs of one product, the slowest on top, and cuBLAS."""
    from matplotlib.figure import Figure
    found = targets.item(record, "kernels", name)
    timed = {**found["rungs"], **{f"cuBLAS {p}": t for p, t in found["cublas"].items()}}
    rates = sorted((found["flops"] / m / 1e12, n) for n, t in timed.items()
                   if (m := targets.cold(t)))
    figure = Figure(figsize=(7, 0.45 * len(rates) + 1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([n.replace("_", " ") for _, n in rates], [r for r, _ in rates],
                     color=["#c8553d" if n.startswith("cuBLAS") else "#9db4c8" for _, n in rates])
    axes.bar_label(bars, [f"{r:.1f}" for r, _ in rates], padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(f"product {found['label']}: TFLOP/s, {record.get('device')}", fontsize=10,
                   loc="left")
    save(figure, path)


def save(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    """From the record that the repository keeps."""
    from ..processes import ROOT
    from ..records import load
    record = load(ROOT / "benchmarks" / "results" / "gpu.json")
    picture_roofline(record, ROOT / "docs" / "gpu-roofline.png")
    picture_ladder(record, ROOT / "docs" / "gpu-ladder.png")


if __name__ == "__main__":
    main()
