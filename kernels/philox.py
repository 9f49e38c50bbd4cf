"""Philox 4×32-10, a counter-based generator, and uniform and normal numbers from its bits.

Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Four 32-bit
words of counter and two of key give four random words. A draw does not depend on earlier draws, so
draws can be made in any order and on any device.

Every version gives the same bits, also of normal numbers: they are computed only by operations that
IEEE 754 rounds exactly (+ − × ÷ √) and series for log, sin and cos.
"""

import math

import numpy as np

from .compiler import compiled, prange
from .cuda import blocks_for, launch
from .vector_math import where

F = np.float32
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)                    # round multipliers
W0, W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)                    # key increments
LOW, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10
SHARE = 1024                                             # blocks of one parallel iteration
THREADS = 256                                            # of a block, on the GPU
UNIT = F(2.0**-24)
ZERO, ONE, HALF, TWO, FOUR = F(0), F(1), F(0.5), F(2), F(4)
QUARTER_TURN, LN2, SQRT_HALF = F(math.pi / 2), F(math.log(2)), F(math.sqrt(0.5))
L3, L5, L7, L9 = (F(1 / k) for k in (3, 5, 7, 9))                        # artanh s
S3, S5, S7, S9 = (F((-1) ** (k // 2) / math.factorial(k)) for k in (3, 5, 7, 9))
C4, C6, C8, C10 = (F((-1) ** (k // 2) / math.factorial(k)) for k in (4, 6, 8, 10))


# --- bits(seed, stream, counter, out): block i of four words from counter + i --------------------

def bits_numpy(seed, stream, counter, out):
    """Fill ``out`` (n, uint32); ``seed``, ``stream`` and ``counter`` are 64-bit numbers."""
    blocks = -(-out.size // 4)
    index = np.arange(blocks, dtype=np.uint64) + np.uint64(counter)
    c0, c1 = index & LOW, index >> SHIFT
    c2, c3 = np.uint64(stream) & LOW, np.uint64(stream) >> SHIFT
    k0, k1 = np.uint64(seed) & LOW, np.uint64(seed) >> SHIFT
    for _ in range(ROUNDS):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + np.uint64(W0)) & LOW, (k1 + np.uint64(W1)) & LOW
    words = np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=1).reshape(-1)
    out[...] = words[:out.size]


@compiled(parallel=True)
def bits_numba(seed, stream, counter, out):
    blocks = (out.size + 3) // 4
    for share in prange((blocks + SHARE - 1) // SHARE):      # each iteration owns a share of out
        first, last = share * SHARE, min(blocks, (share + 1) * SHARE)
        words = np.empty(4 * SHARE, np.uint32)               # whole blocks, so that it vectorises
        for i in range(last - first):
            index = np.uint64(counter) + np.uint64(first + i)
            c0, c1 = index & LOW, index >> SHIFT
            c2, c3 = np.uint64(stream) & LOW, np.uint64(stream) >> SHIFT
            k0, k1 = np.uint64(seed) & LOW, np.uint64(seed) >> SHIFT
            for _ in range(ROUNDS):
                p0, p1 = M0 * c0, M1 * c2
                c0, c1, c2, c3 = ((p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1,
                                  p0 & LOW)
                k0, k1 = (k0 + np.uint64(W0)) & LOW, (k1 + np.uint64(W1)) & LOW
            words[np.uint64(4 * i)], words[np.uint64(4 * i + 1)] = np.uint32(c0), np.uint32(c1)
            words[np.uint64(4 * i + 2)], words[np.uint64(4 * i + 3)] = np.uint32(c2), np.uint32(c3)
        end = min(out.size, 4 * last)
        for i in range(end - 4 * first):                     # a slice takes long to compile
            out[4 * first + i] = words[i]


def bits_cuda(seed, stream, counter, out):
    """``counter`` is an array (1,) in the GPU's memory: see ``capture.py``."""
    launch("philox.bits", blocks_for(out.size, 4 * THREADS), THREADS, seed, stream, counter, out,
           out.size)


# --- uniform(bits, out): the upper 24 bits, so float32 and float64 hold the same numbers ---------

def uniform_numpy(bits, out):
    """Multiples of 2⁻²⁴ in [0, 1)."""
    np.multiply((bits[:out.size] >> np.uint32(8)).astype(F), UNIT, out=out)


@compiled(parallel=True)
def uniform_numba(bits, out):
    for i in prange(out.size):                         # each iteration owns a number
        out[i] = F(bits[i] >> np.uint32(8)) * UNIT


def uniform_cuda(bits, out):
    launch("philox.uniform", blocks_for(out.size, 4 * THREADS), THREADS, bits, out, out.size)


# --- normal(bits, out): Box and Muller 1958, two numbers from two words --------------------------

def normal_numpy(bits, out):
    """Standard normals; ``bits`` has an even number of words, at least as many as ``out``."""
    out[...] = np.stack(box_muller(bits[0::2], bits[1::2]), axis=1).reshape(-1)[:out.size]


@compiled(parallel=True)
def normal_numba(bits, out):
    for i in prange((out.size + 1) // 2):              # each iteration owns two numbers
        a, b = box_muller_compiled(bits[2 * i], bits[2 * i + 1])
        out[2 * i] = a
        if 2 * i + 1 < out.size:
            out[2 * i + 1] = b


def normal_cuda(bits, out):
    launch("philox.normal", blocks_for(out.size, 4 * THREADS), THREADS, bits, out, out.size)


# --- draw_uniform, draw_normal (seed, stream, counter, out): bits and law in one pass ------------

MISSING = {"draw_uniform_numba": "the CPU computes bits, then numbers: two passes cost no more",
           "draw_normal_numba": "the CPU computes bits, then numbers: two passes cost no more"}


def draw_uniform_numpy(seed, stream, counter, out):
    uniform_numpy(random_words(seed, stream, counter, out.size), out)


def draw_uniform_cuda(seed, stream, counter, out):
    launch("philox.draw_uniform", blocks_for(out.size, 4 * THREADS), THREADS, seed, stream, counter,
           out, out.size)


def draw_normal_numpy(seed, stream, counter, out):
    normal_numpy(random_words(seed, stream, counter, out.size), out)


def draw_normal_cuda(seed, stream, counter, out):
    launch("philox.draw_normal", blocks_for(out.size, 4 * THREADS), THREADS, seed, stream, counter,
           out, out.size)


def random_words(seed, stream, counter, n):
    """Random words for n numbers; their count is even."""
    words = np.empty(n + n % 2, np.uint32)
    bits_numpy(seed, stream, counter, words)
    return words


def box_muller(b0, b1):
    """√(−2 ln u) (cos 2πv, sin 2πv), u in (0, 1] from ``b0``, v in [0, 1) from ``b1``; float32.

    The same code is used for arrays and, compiled, for scalars, so the bits agree.
    """
    u = F(b0 >> np.uint32(8)) * UNIT + UNIT
    v = F(b1 >> np.uint32(8)) * UNIT
    # ln u = e ln 2 + 2 artanh((m − 1)/(m + 1)),  u = 2ᵉ m,  √½ ≤ m < √2
    pattern = F(u).view(np.int32)
    e = F(pattern >> 23) - F(126)
    m = np.int32((pattern & 0x007FFFFF) | 0x3F000000).view(F)
    e, m = where(m < SQRT_HALF, e - ONE, e), where(m < SQRT_HALF, m * TWO, m)
    s = (m - ONE) / (m + ONE)
    q = s * s
    log_u = e * LN2 + TWO * (s + s * q * (((L9 * q + L7) * q + L5) * q + L3))
    radius = np.sqrt(-TWO * log_u)
    # 2πv = k π/2 + a with |a| ≤ π/4; the quadrant k swaps and signs sine and cosine
    k = np.floor(FOUR * v + HALF)
    a = (FOUR * v - k) * QUARTER_TURN
    p = a * a
    sine = a + a * p * (((S9 * p + S7) * p + S5) * p + S3)
    cosine = ONE - HALF * p + p * p * (((C10 * p + C8) * p + C6) * p + C4)
    quadrant = np.int32(k) & 3
    odd = (quadrant & 1) == 1
    cos_sign = where((quadrant == 1) | (quadrant == 2), -ONE, ONE)
    sin_sign = where(quadrant >= 2, -ONE, ONE)
    return (radius * cos_sign * where(odd, sine, cosine),
            radius * sin_sign * where(odd, cosine, sine))


box_muller_compiled = compiled(box_muller)
