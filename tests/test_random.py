"""Philox 4×32-10 and the laws made from its bits."""

import json
import math

import numpy as np
import pytest
from scratchgen.kernels import philox

import scratchgen as sg
from scratchgen.engine.backend import kernels
from scratchgen.errors import UserError

# Random123, the authors' own distribution (Salmon et al. 2011), file kat_vectors, philox4x32 10:
# counter words, key words, result words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_published_known_answers(counter, key, answer, backend):
    c, k = words(counter), words(key)
    stream = sg.Stream(seed=k[0] | k[1] << 32, name=c[2] | c[3] << 32, counter=c[0] | c[1] << 32)
    assert stream.bits(4).tolist() == words(answer)


def test_draws_are_a_function_of_seed_stream_and_counter(backend):
    a = sg.Stream(5, "eps")
    first, second = a.bits(10), a.bits(10)
    assert a.counter == 6                                        # two blocks of four, and a half
    np.testing.assert_array_equal(sg.Stream(5, "eps", counter=3).bits(10), second)
    a.counter = 0
    np.testing.assert_array_equal(a.bits(10), first)
    np.testing.assert_array_equal(sg.Stream(5, "eps").bits(40)[:10], first)
    assert not np.array_equal(first, second)


def test_counter_wraps_around(backend):
    last = sg.Stream(1, "x", counter=2**64 - 1)
    both = last.bits(8)
    assert last.counter == 1
    np.testing.assert_array_equal(both[4:], sg.Stream(1, "x").bits(4))


def test_streams_and_seeds_differ(backend):
    draws = [sg.Stream(seed, name).bits(64) for seed in (0, 1, 2**40) for name in ("a", "b", 7)]
    assert len({d.tobytes() for d in draws}) == 9
    bits = [np.unpackbits(d.view(np.uint8)) for d in draws]
    for i in range(9):
        for j in range(i):            # 2048 fair coins: 5 standard deviations are 113
            assert abs(np.sum(bits[i] == bits[j]) - 1024) < 113


def test_names_have_fixed_numbers():
    """A change would silently change every run; the number below is from sha256sum."""
    assert sg.Stream(0, "eps").number == 11060136882270267847
    assert sg.Stream(0, 12).number == sg.Stream(0, np.int64(12)).number == 12


def test_state_is_json_and_restores_every_stream(backend):
    streams = sg.Streams(9)
    streams["corruption"].normal((3, 5))
    streams["eps"].bits(3)
    state = json.loads(json.dumps(streams.state()))
    expected = [streams["corruption"].bits(5), streams["eps"].uniform(7), streams["new"].bits(2)]
    other = sg.Streams(1)
    other["eps"].bits(100)
    other.restore(state)
    for a, b in zip([other["corruption"].bits(5), other["eps"].uniform(7), other["new"].bits(2)],
                    expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_permutation(backend):
    stream = sg.Stream(3, "shuffle")
    for n in (0, 1, 2, 17, 1000):
        order = stream.permutation(n)
        assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(n))
    assert not np.array_equal(stream.permutation(1000), stream.permutation(1000))
    counts = np.zeros((3, 3))
    for _ in range(3000):
        counts[np.arange(3), stream.permutation(3)] += 1
    assert np.all(np.abs(counts - 1000) < 5 * math.sqrt(3000 * 2 / 9))


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_shapes_and_precisions(law, backend):
    def draw(shape, dtype=np.float32):
        return getattr(sg.Stream(4, "shape"), law)(shape, dtype)

    flat = draw(105)
    assert flat.dtype == np.float32 and flat.shape == (105,)
    np.testing.assert_array_equal(draw((3, 5, 7)).ravel(), flat)
    np.testing.assert_array_equal(draw((3, 5, 7), np.float64).ravel(), flat.astype(np.float64))
    assert draw((0, 3)).shape == (0, 3) and draw(()).shape == ()


def test_bad_seeds_are_refused():
    for seed in (-1, 2**64, 1.5, "7"):
        with pytest.raises(UserError, match="seed=0"):
            sg.Stream(seed, "x")
    with pytest.raises(UserError, match="seed"):
        sg.Streams(-3)
    with pytest.raises(UserError, match="name -1"):
        sg.Stream(0, -1)


# --- laws: within 5 standard errors of the exact moments, and Kolmogorov's distance --------------

N = 200_000


def moments_agree(x, exact):
    """E xᵏ for k = 1 … within 5 standard errors, whose variance is E x²ᵏ − (E xᵏ)²."""
    for k in range(1, len(exact) // 2 + 1):
        error = math.sqrt((exact[2 * k - 1] - exact[k - 1] ** 2) / len(x))
        assert abs(np.mean(x**k) - exact[k - 1]) < 5 * error


def kolmogorov(x, cdf):
    """sup |empirical − exact distribution function| · √n; above 2.0 with probability 7e-4."""
    values = cdf(np.sort(x))
    steps = np.arange(len(x) + 1) / len(x)
    return max(np.max(steps[1:] - values), np.max(values - steps[:-1])) * math.sqrt(len(x))


def test_uniform_law(backend):
    x = sg.Stream(1, "law").uniform(N).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert np.array_equal(x * 2**24, np.floor(x * 2**24))
    moments_agree(x, [1 / (k + 1) for k in range(1, 9)])
    assert kolmogorov(x, lambda u: u) < 2
    assert abs(np.mean((x[1:] - 0.5) * (x[:-1] - 0.5))) < 5 / 12 / math.sqrt(N)


def test_normal_law(backend):
    x = sg.Stream(2, "law").normal(N).astype(np.float64)
    moments_agree(x, [0, 1, 0, 3, 0, 15, 0, 105])
    assert kolmogorov(x, lambda v: 0.5 * (1 + np.vectorize(math.erf)(v / math.sqrt(2)))) < 2
    for lag in (1, 2):                                           # the pair of one draw, and others
        assert abs(np.mean(x[lag:] * x[:-lag])) < 5 / math.sqrt(N)
        assert abs(np.mean((x[lag:]**2 - 1) * (x[:-lag]**2 - 1))) < 5 * 2 / math.sqrt(N)
    assert np.all(np.isfinite(x)) and np.max(np.abs(x)) <= math.sqrt(2 * 24 * math.log(2)) + 1e-6


def test_box_muller_is_its_formula():
    """Against float64, over all exponents of u and all angles: at most 4e-7 beside the radius."""
    bits = sg.Stream(3, "box").bits(200_000)
    b0 = np.concatenate([bits[::2] >> (np.arange(100_000, dtype=np.uint32) % 25),
                         np.uint32([0, 255, 256, 2**32 - 1])])
    b1 = np.concatenate([bits[1::2], np.uint32([0, 2**32 - 1, 2**31, 2**30])])
    u, v = ((b0 >> 8) + 1.0) / 2**24, (b1 >> 8) / 2**24
    radius = np.sqrt(-2 * np.log(u))
    a, b = philox.box_muller(b0, b1)
    assert a.dtype == b.dtype == np.float32
    for found, exact in ((a, np.cos), (b, np.sin)):
        error = np.abs(found - radius * exact(2 * np.pi * v))
        assert np.max(error) <= 4e-7 * 5.8 and np.all(error <= 4e-7 * np.maximum(radius, 1e-3))


def test_extreme_bits_give_finite_normals(backend):
    out = np.empty(4, np.float32)
    bits = np.uint32([0, 0, 2**32 - 1, 2**32 - 1])
    kernels("philox").normal(bits, out)
    assert np.all(np.isfinite(out)) and abs(out[0] - math.sqrt(48 * math.log(2))) < 1e-5
    assert abs(out[2]) == abs(out[3]) == 0                       # u = 1: the radius is 0
