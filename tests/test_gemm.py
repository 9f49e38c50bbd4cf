"""The matrix product on the CPU: every edge, every transposition, one order of summation."""

import ctypes
import json
import os
import pathlib
import platform
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scratchgen.kernels import gemm_blocks, gemm_chooser, gemm_tile, machine_code
from scratchgen.kernels.compiler import load_numba, processor
from scratchgen.kernels.gemm import matmul_add_numba, matmul_numba
from scratchgen.kernels.gemm_blocks import SUM, gemm
from scratchgen.kernels.gemm_explain import explain

import scratchgen as sg
from scratchgen.engine.backend import kernels

ROOT = pathlib.Path(__file__).parents[1]
CASES = [(transposed_a, transposed_b, add) for transposed_a in (False, True)
         for transposed_b in (False, True) for add in (False, True)]
ROUNDING = {"float32": 1e-6, "float64": 2e-15}         # of a sum of |a||b|, a multiple of k


def factors(m, k, n, dtype, ta=False, tb=False, seed=0):
    """a (m, k) and b (k, n) as arrays in C order, transposed as asked for, and c (m, n)."""
    rng = np.random.default_rng([seed, m, k, n])
    a, b, c = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (m, n)))
    return [np.ascontiguousarray(x, dtype) for x in (a.T if ta else a, b.T if tb else b, c)]


def check(product, m, k, n, dtype, ta, tb, add):
    """The product against NumPy's in float64: within the rounding of each sum."""
    a, b, c = factors(m, k, n, dtype, ta, tb)
    left, right = (a.T if ta else a).astype(np.float64), (b.T if tb else b).astype(np.float64)
    expected = left @ right + (c if add else 0)
    bound = np.abs(left) @ np.abs(right) + np.abs(c)
    if not add:
        c[...] = np.nan                                # whatever is not written shows
    product(a, b, c, ta, tb, add)
    assert (np.abs(c - expected) <= ROUNDING[dtype] * bound + 1e-300).all()


def shapes():
    """Sizes around those of a tile and a panel, for this machine's vector unit."""
    unit = gemm_tile.unit_of(platform.machine(), processor(load_numba())[1])
    rows, width = unit.rows, unit.columns("float32")
    return [(1, 1, 1), (1, 7, 2), (3, 5, 1), (2, 0, 3), (0, 4, 5), (5, 4, 0), (rows, 9, width),
            (rows + 1, 17, width - 1), (2 * rows - 1, 33, width + 1), (rows - 1, 16, 2 * width),
            (41, 64, 3 * width + 5), (5, 100, 4 * width), (200, 31, 3), (300, 47, 1), (1, 50, 200),
            (29, SUM + 3, 37), (3, 2 * SUM + 1, 2)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("ta", "tb", "add"), CASES)
def test_every_edge(ta, tb, add, dtype):
    for m, k, n in shapes():
        check(gemm, m, k, n, dtype, ta, tb, add)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("ta", "tb", "add"), CASES)
def test_over_all_threads(ta, tb, add, dtype):
    """Large enough to be shared, by rows and by columns."""
    def product(a, b, c, ta, tb, add):
        (matmul_add_numba if add else matmul_numba)(a, b, c, ta, tb)
    for m, k, n in ((129, 300, 517), (900, 20, 411), (33, 900, 520)):
        check(product, m, k, n, dtype, ta, tb, add)


@pytest.mark.parametrize("k", [9, SUM + 5])
def test_each_number_is_a_chain_of_fused_multiply_adds(k):
    """Exact rational arithmetic, rounded after each step as the documentation states."""
    a, b, c = factors(2, k, 3, "float32")
    gemm(a, b, c, False, False, False)
    for i in range(2):
        for j in range(3):
            total = None
            for first in range(0, k, SUM):
                chain = np.float32(0)
                for p in range(first, min(k, first + SUM)):
                    chain = nearest(Fraction(float(a[i, p])) * Fraction(float(b[p, j]))
                                    + Fraction(float(chain)))
                total = chain if total is None else total + chain
            assert c[i, j] == total


def nearest(x):
    """The float32 nearest to a rational number, ties to even."""
    candidate = np.float32(float(x))                   # rounded twice: at most one step off
    around = [np.nextafter(candidate, np.float32(s * np.inf)) for s in (-1, 1)]
    return min((candidate, *around),
               key=lambda f: (abs(Fraction(float(f)) - x), int(f.view(np.uint32)) & 1))


def test_the_order_of_the_sum_does_not_depend_on_the_blocks(monkeypatch):
    """Any way to share C, one row or one column of it alone: the same bits."""
    m, k, n = 45, 700, 139
    a, b, c = factors(m, k, n, "float32")
    gemm(a, b, c, False, False, False)
    part = np.empty_like(c)
    for parts in ((1, 1), (3, 1), (1, 4), (2, 2)):
        for t in range(parts[0] * parts[1]):
            gemm_blocks.gemm_share(t, *parts, a, b, part, False, False, False)
        assert np.array_equal(part, c)
    for i in range(0, m, 7):
        gemm(a[i:i + 1], b, part[i:i + 1], False, False, False)
    assert np.array_equal(part[::7], c[::7])
    column = np.empty((m, 1), np.float32)
    gemm(a, np.ascontiguousarray(b[:, 5:6]), column, False, False, False)   # by the transpose
    assert np.array_equal(column[:, 0], c[:, 5])
    matmul_numba(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), part, True, True)
    assert np.array_equal(part, c)


def test_rows_may_lie_apart_and_nothing_beside_them_is_touched():
    m, k, n = 19, 23, 41
    a, b, c = factors(m, k, n, "float32")
    wide = [np.full((x.shape[0] + 2, x.shape[1] + 5), np.nan, np.float32) for x in (a, b, c)]
    views = [w[1:-1, 2:-3] for w in wide]
    for view, x in zip(views, (a, b, c), strict=True):
        view[...] = x
    gemm(*views, False, False, False)
    gemm(a, b, c, False, False, False)
    assert np.array_equal(views[2], c)
    wide[2][1:-1, 2:-3] = np.nan
    assert np.isnan(wide[2]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_infinity_and_denormals_stay_in_their_rows_and_columns(dtype):
    m, k, n = 17, 40, 45
    a, b, c = factors(m, k, n, dtype)
    a[3, 5], b[7, 44], b[9, 0] = np.nan, np.inf, 0
    a[4, 9] = np.inf                                   # inf · 0
    a[6] = np.finfo(dtype).smallest_subnormal * 3
    gemm(a, b, c, False, False, False)
    with np.errstate(invalid="ignore"):
        expected = a @ b
    assert np.array_equal(np.isnan(c), np.isnan(expected))
    assert np.array_equal(np.isinf(c), np.isinf(expected))
    assert np.isnan(c[3]).all() and np.isnan(c[4, 0]) and not np.isnan(c[5]).any()
    assert np.abs(c[6, :44]).max() > 0


def test_no_number_outside_of_the_factors_is_read():
    """Factors at the end of a page, behind which nothing may be read."""
    import mmap
    page = mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mprotect"):
        pytest.skip("no mprotect on this system")
    for m, k, n in ((3, 5, 7), (15, 33, 20), (2, 40, 33), (40, 6, 1)):
        for ta, tb, _ in CASES[::2]:
            a, b, c = factors(m, k, n, "float32", ta, tb)
            guarded = []
            for x in (a, b):
                size = -(-x.nbytes // page) * page
                memory = mmap.mmap(-1, size + page)
                start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
                assert libc.mprotect(ctypes.c_void_p(start + size), page, 0) == 0
                view = np.frombuffer(memory, np.float32, x.size, size - x.nbytes).reshape(x.shape)
                view[...] = x
                guarded.append((memory, start, view))
            expected = (a.T if ta else a) @ (b.T if tb else b)
            gemm(guarded[0][2], guarded[1][2], c, ta, tb, False)
            np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-5)
            for _, start, view in guarded:             # readable again, for whoever frees it
                size = -(-view.nbytes // page) * page
                libc.mprotect(ctypes.c_void_p(start + size), page, 3)


# --- other processors ----------------------------------------------------------------------------

DIGEST = """
import hashlib, json, numpy as np
import platform
from scratchgen.kernels import gemm_tile
from scratchgen.kernels.compiler import load_numba, processor
from scratchgen.kernels.gemm import matmul_numba
digest = hashlib.sha256()
for dtype in (np.float32, np.float64):
    for m, k, n in ((45, 70, 139), (7, 1100, 33), (100, 20, 1), (2, 3, 65)):
        for ta in (False, True):
            for tb in (False, True):
                rng = np.random.default_rng(m)
                a = rng.standard_normal((k, m) if ta else (m, k)).astype(dtype)
                b = rng.standard_normal((n, k) if tb else (k, n)).astype(dtype)
                c = np.empty((m, n), dtype)
                matmul_numba(a, b, c, ta, tb)
                digest.update(c.tobytes())
unit = gemm_tile.unit_of(platform.machine(), processor(load_numba())[1])
print(json.dumps([unit.name, digest.hexdigest()]))
"""
PROCESSORS = {"this one": {}, "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES":
                                       "+avx2,+fma,+avx,+sse4.2,+ssse3,+bmi2"},
              "portable": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}}


def digest_on(processor, folder):
    environment = {**os.environ, **PROCESSORS[processor],
                   "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if folder is not None:                             # else the cache of this machine
        environment["NUMBA_CACHE_DIR"] = str(folder)
    done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, text=True,
                          capture_output=True, check=True, timeout=300)
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="for x86 processors")
@pytest.mark.parametrize("other", ["avx2", pytest.param("portable", marks=pytest.mark.long)])
def test_other_vector_units_make_the_same_bits(tmp_path, other):
    """Compiled for AVX2, and for a processor without fused multiply-adds, which calls the C
    library's ``fma``."""
    name, digest = digest_on(other, tmp_path)
    assert name == other and digest == digest_on("this one", None)[1]


def test_the_tiles_compile_for_arm():
    """Not run here: only the machine code for NEON is produced, with its fused multiply-add."""
    from llvmlite import binding
    unit = gemm_tile.UNITS["neon"]
    code = machine_code.compile_object(unit, "aarch64-unknown-linux-gnu", "cortex-a72", "")
    assert code[:4] == b"\x7fELF" and code[18] == 183                     # EM_AARCH64
    machine = binding.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(
        cpu="cortex-a72", opt=2)
    module = binding.parse_assembly(gemm_tile.module_text(unit, "aarch64-unknown-linux-gnu"))
    assert "fmla" in machine.emit_assembly(module)


@pytest.mark.parametrize(("machine", "features", "name"), [
    ("x86_64", "+avx512f,+avx512vl,+avx2,+fma", "avx512"),
    ("x86_64", "+avx2,+fma,-avx512f", "avx2"),
    ("x86_64", "+avx2,-fma", "portable"), ("x86_64", "", "portable"), ("arm64", "+neon", "neon")])
def test_the_unit_of_a_processor(machine, features, name):
    assert gemm_tile.unit_of(machine, features).name == name


def test_a_damaged_file_of_machine_code_is_compiled_anew(tmp_path):
    path = tmp_path / "code.o"
    machine_code.write_checked(path, b"machine code")
    assert machine_code.read_checked(path) == b"machine code"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert machine_code.read_checked(path) is None
    assert machine_code.read_checked(tmp_path / "none") is None
    assert machine_code.read_checked(None) is None
    machine_code.write_checked(tmp_path / "no folder" / "code.o", b"")       # no error


@pytest.mark.parametrize(("size", "tb", "parts"), [
    ((100, 500, 784), False, ["(100, 784) (784, 500) float32", "share the columns", "1 chain of"]),
    ((784, 500, 100), True, ["share the rows", "transposed"]),
    ((100, 20, 500), False, ["as its transpose"]), ((4, 8, 2), False, ["one thread"]),
    ((128, 784, 3000), False, ["3 chains of"]), ((0, 8, 2), False, ["nothing to compute"])])
def test_explanations_on_the_cpu(size, tb, parts, monkeypatch):
    monkeypatch.setattr(load_numba(), "get_num_threads", lambda: 2)
    text = explain(*size, tb=tb, device="cpu")
    assert all(part in text for part in parts) and "\n" not in text, text


def test_small_products_use_one_thread():
    load_numba()
    assert gemm_blocks.shares(10, 10, 10, 4, 8) == (1, 1)
    assert gemm_blocks.shares(784, 1000, 20, 4, 2) == (2, 1)               # a short sum: by rows
    assert gemm_blocks.shares(20, 1000, 784, 4, 2) == (1, 2)               # few rows: by columns


def dense_gradients(dtype):
    """The output and the gradients of a dense layer, and a batch of products."""
    rng = np.random.default_rng(3)
    x, w, b = (sg.tensor(rng.standard_normal(size).astype(dtype), requires_grad=True)
               for size in ((37, 300), (300, 41), (41,)))
    y = sg.dense(x, w, b, "tanh")
    (y * y).sum().backward()
    each = sg.matmul(x.data.reshape(37, 3, 100), w.data[:100]).data
    return [y.data, x.grad.data, w.grad.data, b.grad.data, each]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blas_on_request(dtype, monkeypatch):
    """Equal within rounding, by ``np.matmul``, and only inside the block."""
    from scratchgen.kernels import gemm as kernel
    calls, ours = [], dense_gradients(dtype)
    versions = {name: getattr(kernel, name) for name in ("matmul_numpy", "matmul_each_numpy")}
    for name in versions:
        def counted(*arguments, name=name):
            calls.append(name)
            versions[name](*arguments)
        monkeypatch.setattr(kernel, name, counted)
    monkeypatch.setattr(sys.modules["scratchgen.ops.dense"], "gemm_kernels", kernels("gemm"))
    with sg.use_gemm("blas"):
        blas = dense_gradients(dtype)
    assert calls.count("matmul_numpy") == 3 and calls.count("matmul_each_numpy") == 1
    for a, b in zip(ours, blas, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=300 * ROUNDING[dtype])
    again = dense_gradients(dtype)
    assert len(calls) == 4
    assert [a.tobytes() for a in again] == [a.tobytes() for a in ours]


def test_blas_is_for_the_cpu():
    with sg.use_gemm("blas"), pytest.raises(sg.UserError, match="'blas' is for the CPU"):
        gemm_chooser.choose(9, 9, 9, np.float32)
