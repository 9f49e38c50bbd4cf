"""Binary cross-entropy with logits: every element's loss and its gradient in one pass."""

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, launch
from .vector_math import exp, log1p

ROWS = 4                               # rows whose losses one partial sum adds
PACKS_FROM = 1 << 18                   # elements from which a GPU thread reads sixteen bytes


# --- total(logits, target, slope, partial): logits, target, slope (N, D) -------------------------
# slope = σ(l) − t;  Σ partial = Σ loss, partial (⌈N/4⌉, D): sums of 4 rows each, so that the
# order of additions is the same for any number of threads, and the inner loop is vectorised.

def total_numpy(logits, target, slope, partial):
    losses = np.empty_like(logits)
    elements_numpy(logits, target, slope, losses)
    for block in range(partial.shape[0]):
        np.sum(losses[block * ROWS:(block + 1) * ROWS], axis=0, out=partial[block])


@compiled(parallel=True)
def total_numba(logits, target, slope, partial):
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    n = logits.shape[0]
    for block in prange(partial.shape[0]):             # each iteration owns 4 rows
        sums = partial[block]
        sums[:] = zero
        for i in range(block * ROWS, min(n, (block + 1) * ROWS)):
            ll, tt, ss = logits[i], target[i], slope[i]
            for j in range(ll.size):
                v = ll[j]
                e = exp(-abs(v))
                sums[j] += max(v, zero) - v * tt[j] + log1p(e)
                ss[j] = (one if v >= zero else e) / (one + e) - tt[j]


def total_cuda(logits, target, slope, partial):
    n, d = logits.shape
    wide = uses_packs(logits)
    threads = partial.size * logits.itemsize // 16 if wide else partial.size
    launch("bce.total", blocks_for(threads, 128), 128, logits, target, slope, partial, n, d,
           constants=(wide,))


def uses_packs(x):
    """Whether a thread computes sixteen bytes of a row: if rows consist of whole packs, and enough
    threads remain."""
    return x.shape[1] % (16 // x.itemsize) == 0 and x.size >= PACKS_FROM


# --- elements(logits, target, slope, losses): all (N, D) -----------------------------------------

def elements_numpy(logits, target, slope, losses):
    e = np.exp(-np.abs(logits))
    losses[...] = np.maximum(logits, 0) - logits * target + np.log1p(e)
    slope[...] = np.where(logits >= 0, 1, e) / (1 + e) - target


@compiled(parallel=True)
def elements_numba(logits, target, slope, losses):
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    for i in prange(logits.shape[0]):                  # each iteration owns a row
        ll, tt, ss, out = logits[i], target[i], slope[i], losses[i]
        for j in range(ll.size):
            v = ll[j]
            e = exp(-abs(v))
            out[j] = max(v, zero) - v * tt[j] + log1p(e)
            ss[j] = (one if v >= zero else e) / (one + e) - tt[j]


def elements_cuda(logits, target, slope, losses):
    launch("bce.elements", blocks_for(logits.size, 1024), 256, logits, target, slope, losses,
           logits.size)
