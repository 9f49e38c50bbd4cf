"""The targets of the GPU backend: a row {what, target, measured, met, detail} each.

A row whose numbers are missing has ``measured`` None and ``met`` None.
"""

from ..precision import PRECISIONS
from . import rows as steps_rows
from .gemm_times import TENSOR_CORES
from .steps import FAST_PEERS, OURS, best

CONVOLUTION = {"forward": "forward", "backward_x": "∂x", "backward_w": "∂w"}
NON_TENSOR = ("tiled", "register_tiled", "split")


def item(record, part, name):
    return record.get(part, {}).get("items", {}).get(name, {})


def target(what, limit, measured, at_most, detail=""):
    met = None if measured is None else measured <= limit if at_most else measured >= limit
    return {"what": what, "target": f"{'≤' if at_most else '≥'} {limit:g}", "measured": measured,
            "met": met, "detail": detail}


def rows(record):
    """All of them, in the order of the issue."""
    found = []
    for precision in ("fp32", "tf32"):
        found.append(of_steps(record, precision, True, ("torch",), 0.15,
                              "small workloads, step against PyTorch eager"))
        found.append(of_steps(record, precision, True, FAST_PEERS, 0.7,
                              "small workloads, against the fastest of torch.compile and JAX"))
        found.append(of_steps(record, precision, False, ("torch", *FAST_PEERS), 1.0,
                              "large workloads, against the fastest peer"))
    return [*found, of_memory(record), *of_products(record),
            *(of_convolution(record, which, precision) for precision in PRECISIONS
              for which in CONVOLUTION), *of_the_vae(record)]


# --- training steps ------------------------------------------------------------------------------

def ratio(row, peers, statistic="median"):
    """(ours over the fastest of the peers, which one), or None."""
    own = best(row, OURS, statistic) if "peers" in row else None
    others = {p: t for p in peers if own and (t := best(row, p, statistic))}
    if not others:
        return None
    fastest = min(others, key=others.get)
    return own / others[fastest], fastest


def of_steps(record, precision, small, peers, limit, what):
    """The worst ratio of all rows of one kind."""
    chosen = [row for row in record.get("steps", {}).get("rows", {}).values()
              if row.get("precision") == precision and row.get("small") == small]
    ratios = {row["name"]: found for row in chosen if (found := ratio(row, peers))}
    worst = max((r for r, _ in ratios.values()), default=None)
    detail = ", ".join(f"{name} {r:.2f} ({peer})" for name, (r, peer) in ratios.items())
    return target(f"{what}, {precision}", limit, worst, True, detail)


def of_the_vae(record):
    """The replayed step beside its kernels alone, and beside its lower bounds."""
    key = steps_rows.key("vae", "fp32")
    row = record.get("steps", {}).get("rows", {}).get(key, {})
    kernels = record.get("steps", {}).get("kernels", {}).get(key, {})
    step = best(row, "drawn") if "peers" in row else None
    alone = kernels.get("seconds")
    limits = lower_bounds(record, row)
    of_kernels = step / alone if step and alone else None
    of_floor = step / max(limits.values()) if step and limits else None
    words = f"{1e6 * step:.1f} µs" if step else ""
    return [
        target("replayed VAE step (100×784-500-20): time over the sum of its kernels' times alone",
               1.15, of_kernels, True, f"{words}, {kernels.get('count', 0):.0f} kernels of "
               f"{1e6 * alone:.1f} µs" if of_kernels else ""),
        target("the same step over the larger of its FLOP and byte lower bounds", 6, of_floor, True,
               ", ".join([words, *(f"{n} {1e6 * t:.1f} µs" for n, t in limits.items())])
               if of_floor else "")]


def lower_bounds(record, row):
    """{flops, bytes}: a row's lower bounds in seconds at the measured ceilings, {} without them."""
    ceilings = item(record, "kernels", "ceilings")
    if "copy" not in ceilings or "floors" not in row:
        return {}
    return {"flops": row["floors"]["flops"] / ceilings[row["precision"]],
            "bytes": row["floors"]["bytes"] / ceilings["copy"]}


# --- kernels -------------------------------------------------------------------------------------

def of_memory(record):
    """The smallest share of the copy's bandwidth."""
    shares = memory_shares(record)
    worst = min(shares.values(), default=None)
    return target("memory-bound kernels at ≥ 256 MB, share of the measured copy bandwidth", 0.85,
                  worst, False, ", ".join(f"{n} {s:.2f}" for n, s in sorted(
                      shares.items(), key=lambda pair: pair[1])))


def memory_kernels(record):
    """name → what was measured of it."""
    items = record.get("kernels", {}).get("items", {})
    return {name: kernel for group, found in items.items() if group.startswith("memory: ")
            for name, kernel in found.get("kernels", {}).items() if "median" in kernel}


def memory_shares(record):
    copy = item(record, "kernels", "ceilings").get("copy")
    return {name: k["bytes"] / k["median"] / copy for name, k in memory_kernels(record).items()
            } if copy else {}


def cold(timed):
    return timed.get("cold", {}).get("median")


def of_products(record):
    found = item(record, "kernels", "gemm 4096×4096×4096 NN")
    rungs, cublas = found.get("rungs", {}), found.get("cublas", {})
    plain = {n: t for n in NON_TENSOR if (t := cold(rungs.get(n, {})))}
    tensor = {n: t for n in TENSOR_CORES if (t := cold(rungs.get(n, {})))}
    fp32, tf32 = (cold(cublas.get(p, {})) for p in ("fp32", "tf32"))
    own, best = (min(times, key=times.get) if times else None for times in (plain, tensor))
    return [target("GEMM 4096³ fp32, our best non-tensor rung / cuBLAS fp32", 0.85,
                   fp32 / plain[own] if own and fp32 else None, False, own or ""),
            target("GEMM 4096³ TF32, our tensor-core rung / cuBLAS TF32", 0.8,
                   tf32 / tensor[best] if best and tf32 else None, False, best or "")]


def of_convolution(record, which, precision):
    found = item(record, "kernels", f"convolution {which}")
    rung, limit = {"fp32": ("implicit_gemm", 0.9), "tf32": ("tensor_core", 0.8)}[precision]
    theirs = {name: c["time"]["median"] for name, c in found.get("cudnn", {}).items()
              if name.startswith(precision)}
    ours = found.get("rungs", {}).get(f"{rung}, {precision}", {}).get("time", {}).get("median")
    fastest = min(theirs, key=theirs.get) if theirs else None
    return target(f"convolution {CONVOLUTION[which]} (N128 32² 128→128 3×3, {precision}), rate "
                  f"against cuDNN {precision}", limit,
                  theirs[fastest] / ours if fastest and ours else None, False,
                  f"cuDNN {fastest}" if fastest else "")


# --- failures ------------------------------------------------------------------------------------

def failures(record):
    """A line for each check that was not passed and each part that broke."""
    broken = record["statuses"].get("scheduler")
    found = [f"not all parts were run: {broken}"] if broken else []
    for part in record["parts"]:
        for name, result in record[part].get("items", {}).items():
            if "error" in result:
                watched = " ".join(result.get("sanitizer", {}).get("faults", [])[:3])
                found.append(f"{part}, {name}: {result['error']} {watched}".rstrip())
            elif result.get("ok") is False:
                found.append(f"{part}, {name}: {reason(result)}")
        for name, row in record[part].get("rows", {}).items():
            if row.get("ok") is False:
                found.append(f"{part}, {name}: {'; '.join(row['failed']) or 'ours was not built'}")
        status = record["statuses"].get(part, 0)
        if status is None or status < 0:
            found.append(f"{part}: " + ("its time was over" if status is None else
                                        f"its process was ended by signal {-status}"))
    return found


def reason(result):
    """Why a result is not ok, in short: its numbers."""
    kept = {k: v for k, v in result.items() if k not in ("ok", "seconds_taken") and v}
    return str(kept)[:400]


def line(row):
    """A target in one line."""
    mark = {True: "met", False: "MISSED", None: "not measured"}[row["met"]]
    measured = "" if row["measured"] is None else f" {row['measured']:.3f}"
    return f"{mark:12} {row['what']}: {row['target']}{measured}"
