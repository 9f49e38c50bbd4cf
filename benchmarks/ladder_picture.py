"""The ladders as a picture: a panel a ladder, a bar a rung, on logarithmic scales."""

from .figures import digits

OTHERS, OURS = "#9db4c8", "#c8553d"
COLUMNS = 2


def draw(record, path):
    """Writes docs/ladder.png, or wherever ``path`` says."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    ladders = record["ladders"]
    lines = -(-len(ladders) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(11, 2.1 * lines), squeeze=False,
                                layout="constrained")
    for axis, ladder in zip(axes.flat, ladders, strict=False):
        panel(axis, ladder)
    for axis in axes.flat[len(ladders):]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"written: {path}")


def panel(axis, ladder):
    """One ladder; the slowest rung on top."""
    rates = [rung["rate"] for rung in ladder["rungs"]]
    colours = [OTHERS] * (len(rates) - 1) + [OURS]
    bars = axis.barh(range(len(rates)), rates, color=colours, height=0.72)
    axis.bar_label(bars, [digits(rate) for rate in rates], padding=3, fontsize=9)
    axis.set_yticks(range(len(rates)), [rung["name"].replace("_", " ")
                                        for rung in ladder["rungs"]], fontsize=9)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_xlim(min(rates) / 2, max(rates) * 2.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    size = " × ".join(f"{n:,}" for n in ladder["size"])
    axis.set_title(f"{ladder['name']}, {size}: {ladder['unit']}", fontsize=10, loc="left")
