"""Markdown for the pages, from ``gpu.json``: targets, training steps, kernels, checks."""

from ..readme import markdown
from . import targets
from .gemm_times import TENSOR_CORES
from .steps import PEERS, TITLES, best

SHOWN = [c for c in PEERS if c != "drawn"]


def table_targets(record):
    """A row for each target: met, missed, or not measured."""
    marks = {True: "yes", False: "**no**", None: "not measured"}
    rows = [(row["what"].replace("|", r"\|"), row["target"],
             "–" if row["measured"] is None else f"{row['measured']:.2f}", marks[row["met"]])
            for row in record["targets"]]
    return f"{markdown(('', 'target', 'measured', 'met'), rows, right=(1, 2))}\n\n" \
           f"{provenance(record)}"


def table_steps(record):
    """Microseconds of a step, medians with minima in brackets, ratios, kernels, lower bounds."""
    header = ("workload", "precision", *(f"{TITLES[c]}, µs" for c in SHOWN), "of eager",
              "of the fastest", "kernels a step", "of their time alone", "of the lower bound")
    rows = []
    for key, row in record.get("steps", {}).get("rows", {}).items():
        if "peers" not in row:
            continue
        kernels = record["steps"].get("kernels", {}).get(key, {})
        drawn, limits = best(row, "drawn"), targets.lower_bounds(record, row)
        rows.append((row["title"], row["precision"], *(cell(row, c) for c in SHOWN),
                     number(first(targets.ratio(row, ("torch",)))),
                     number(first(targets.ratio(row, ("torch", *targets.FAST_PEERS)))),
                     f"{kernels['count']:.0f}" if "count" in kernels else "–",
                     number(drawn and kernels.get("seconds") and drawn / kernels["seconds"]),
                     number(drawn and limits and drawn / max(limits.values()))))
    kept = sorted({str(v["commit"]) for row in record.get("steps", {}).get("rows", {}).values()
                   for by in row.get("peers", {}).values() for v in by.values()
                   if "commit" in v})
    note = f" Peers measured on the same GPU with commit {', '.join(kept)}." if kept else ""
    return f"{markdown(header, rows, right=range(2, len(header)))}\n\n{provenance(record)}{note}"


def first(pair):
    return pair and pair[0]


def number(x):
    return f"{x:.2f}" if x else "–"


def cell(row, peer):
    median, minimum = best(row, peer), best(row, peer, "minimum")
    if median:
        return f"{1e6 * median:.1f} ({1e6 * minimum:.1f})"
    variants = row["peers"].get(peer, {}).values()
    return "failed" if any("failed" in v for v in variants) else "absent"


def table_first_steps(record):
    """Seconds from making a peer to the end of its third step."""
    rows = [(row["title"], row["precision"], *(
        seconds(row["peers"].get(c, {})) for c in SHOWN))
        for row in record.get("steps", {}).get("rows", {}).values() if "peers" in row]
    header = ("workload", "precision", *(f"{TITLES[c]}, s" for c in SHOWN))
    return (f"{markdown(header, rows, right=range(2, len(header)))}\n\nCompiled from nothing, "
            "while the others did too; what an earlier row of the same library compiled is not "
            "compiled again.")


def seconds(variants):
    found = [v["first_steps"] for v in variants.values() if "first_steps" in v]
    return f"{min(found):.1f}" if found else "–"


def table_kernels(record):
    """Products, convolutions and memory-bound kernels beside their counterparts."""
    items = record.get("kernels", {}).get("items", {})
    rows = []
    for name, found in items.items():
        if name.startswith("gemm ") and "rungs" in found:
            rows += of_product(found)
        if name.startswith("convolution ") and "rungs" in found:
            rows += of_convolution(name, found)
    copy = items.get("ceilings", {}).get("copy")
    for name, k in targets.memory_kernels(record).items():
        rate = k["bytes"] / k["median"]
        rows.append((name, f"{k['bytes'] >> 20} MB", f"{1e3 * k['median']:.3f}",
                     f"{rate / 1e9:,.0f} GB/s", f"{rate / copy:.2f} of a copy" if copy else "–"))
    return (f"{markdown(('kernel', 'size or rung', 'ms', 'rate', 'beside'), rows, right=(2, 3))}"
            f"\n\n{ceilings_in_words(items.get('ceilings', {}))}{provenance(record)}")


def of_product(found):
    rows, name = [], f"product {found['label']}"
    theirs = {p: targets.cold(t) for p, t in found["cublas"].items()}
    for rung, timed in {**{f"cuBLAS {p}": t for p, t in found["cublas"].items()},
                        **found["rungs"]}.items():
        if (median := targets.cold(timed)) is None:
            continue
        other = theirs.get("tf32" if rung in TENSOR_CORES else "fp32")
        beside = "" if rung.startswith("cuBLAS") or not other else f"{other / median:.2f} of cuBLAS"
        rows.append((name, rung, f"{1e3 * median:.3f}",
                     f"{found['flops'] / median / 1e12:.1f} TFLOP/s", beside))
        name = ""
    return rows


def of_convolution(name, found):
    rows, shown = [], name
    fastest = {p: min((c["time"]["median"] for n, c in found["cudnn"].items()
                       if n.startswith(p)), default=None) for p in ("fp32", "tf32")}
    for label, timed in {**{f"cuDNN {n}": c for n, c in found["cudnn"].items()},
                         **found["rungs"]}.items():
        if "time" not in timed:
            continue
        median = timed["time"]["median"]
        other = fastest["tf32" if "tf32" in label else "fp32"]
        beside = "" if label.startswith("cuDNN") or not other else f"{other / median:.2f} of cuDNN"
        rows.append((shown, label, f"{1e3 * median:.3f}",
                     f"{found['flops'] / median / 1e12:.1f} TFLOP/s", beside))
        shown = ""
    return rows


def ceilings_in_words(found):
    if "copy" not in found:
        return ""
    return (f"Ceilings: device copy {found['copy'] / 1e9:,.0f} GB/s (read and written), cuBLAS "
            f"{found['fp32'] / 1e12:.1f} TFLOP/s in float32, {found['tf32'] / 1e12:.0f} in TF32. ")


def table_checks(record):
    """How many checks of each kind were passed."""
    kinds = {}
    for part in ("checks", "across"):
        for name, result in record.get(part, {}).get("items", {}).items():
            kinds.setdefault(kind_of(name), []).append(result)
    rows = [(kind, sum(r.get("ok") is True for r in found), len(found),
             ", ".join(sorted({r["skipped"] for r in found if "skipped" in r})))
            for kind, found in kinds.items()]
    return f"{markdown(('check', 'passed', 'of', ''), rows, right=(1, 2))}\n\n{provenance(record)}"


def kind_of(name):
    """The first words of a check's name: what is checked, without of what."""
    for kind in ("parity", "same bits", "recorded = plain", "NumPy = CUDA"):
        if name.startswith(kind):
            return kind
    return name


def provenance(record):
    """Where and with what it was measured."""
    versions = ", ".join(f"{name} {record[name]}" for name in ("cupy", "torch", "jax", "numpy")
                         if record.get(name))
    return (f"{record.get('device')}, driver {record.get('driver')}, CUDA "
            f"{record.get('cuda_runtime')}, {versions}; commit {record.get('commit')}, "
            f"{record.get('date', '')[:10]}.")
