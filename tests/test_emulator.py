"""The emulated GPU runs CUDA C as a GPU does, and catches the faults it is there for."""

import signal

import numpy as np
import pytest
from emulated_gpu.emulator import EmulationError, Emulator, available

pytestmark = pytest.mark.skipif(not available(), reason="needs Linux and g++")


@pytest.fixture
def gpu():
    return Emulator()


def run(gpu, code, name, grid, block, **args):
    """Launch the only kernel of a small text; the parameters' types are those of the arguments."""
    kinds = [("float*" if isinstance(a, gpu.xp.ndarray) else "int", name)
             for name, a in args.items()]
    values = [a if isinstance(a, gpu.xp.ndarray) else np.int32(a) for a in args.values()]
    gpu.launch(code, name, kinds, grid, block, values)


def floats(gpu, *shape):
    return gpu.xp.zeros(shape, np.float32)


# --- what works on a GPU -------------------------------------------------------------------------

SUM = """
template <typename T>
__device__ T warp_sum(T v) {
    for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);
    return v;
}
template <typename T>
__global__ void __launch_bounds__(256) sum(const T* __restrict__ x, T* y, int n) {
    __shared__ T of_warp[32];
    int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
    T total = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        total += x[i];
    total = warp_sum(total);
    if (lane == 0) of_warp[warp] = total;
    __syncthreads();
    if (warp == 0) {
        total = warp_sum(lane < blockDim.x / warpSize ? of_warp[lane] : T(0));
        if (lane == 0) y[blockIdx.x] = total;
    }
}
"""


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype, expression", [(np.float32, "sum<float>"), (np.float64,
                                                                           "sum<double>")])
def test_sum_of_a_block(rng, dtype, expression, reverse):
    gpu = Emulator(reverse)
    x, y = rng.integers(-50, 50, 5003).astype(dtype), gpu.xp.empty(7, dtype)
    gpu.launch(SUM, expression, [("const T*", "x"), ("T*", "y"), ("int", "n")], 7, 256,
               (gpu.xp.asarray(x), y, np.int32(x.size)))
    own = [sum(x[s:s + 256].sum() for s in range(b * 256, x.size, 7 * 256)) for b in range(7)]
    np.testing.assert_array_equal(y.get(), own)
    assert gpu.launched == {"sum": 1}


TRANSPOSE = """
__global__ void transpose(const float* x, float* y, int n, int m) {
    __shared__ float tile[16][17];
    int i = blockIdx.y * 16 + threadIdx.y, j = blockIdx.x * 16 + threadIdx.x;
    if (i < n && j < m) tile[threadIdx.y][threadIdx.x] = x[i * m + j];
    __syncthreads();
    int k = blockIdx.x * 16 + threadIdx.y, l = blockIdx.y * 16 + threadIdx.x;
    if (k < m && l < n) y[k * n + l] = tile[threadIdx.x][threadIdx.y];
}
"""


def test_transpose_through_shared_memory(gpu, rng):
    x = rng.normal(size=(37, 53)).astype(np.float32)
    y = gpu.xp.empty((53, 37), np.float32)
    run(gpu, TRANSPOSE, "transpose", (4, 3), (16, 16), x=gpu.xp.asarray(x), y=y, n=37, m=53)
    np.testing.assert_array_equal(y.get(), x.T)


WARP = """
__global__ void warp(int* y) {
    int lane = threadIdx.x;
    y[lane] = __shfl_up_sync(~0u, lane, 3, 8);
    y[32 + lane] = __shfl_sync(~0u, lane, 5, 16);
    y[64 + lane] = (int)__shfl_xor_sync(~0u, (double)lane, 7);
    y[96 + lane] = __popc(__ballot_sync(~0u, lane % 3 == 0));
    if (lane < 4) y[128 + lane] = __shfl_down_sync(0xfu, lane, 1, 4);
    y[160 + lane] = __syncthreads_count(lane > 20) + 100 * __syncthreads_or(lane == 9)
        + 1000 * __syncthreads_and(lane < 31) + 10000 * __any_sync(~0u, lane == 3)
        + 100000 * __all_sync(~0u, lane < 9);
}
"""


def test_warps_and_votes(gpu):
    y, lane = gpu.xp.zeros(192, np.int32), np.arange(32)
    run(gpu, WARP, "warp", 1, 32, y=y)
    y = y.get().reshape(6, 32)
    np.testing.assert_array_equal(y[0], np.where(lane % 8 < 3, lane, lane - 3))
    np.testing.assert_array_equal(y[1], lane // 16 * 16 + 5)
    np.testing.assert_array_equal(y[2], lane ^ 7)
    np.testing.assert_array_equal(y[3], 11)
    np.testing.assert_array_equal(y[4, :4], [1, 2, 3, 3])
    np.testing.assert_array_equal(y[5], 11 + 100 + 10000)


ATOMICS = """
__global__ void histogram(const int* x, unsigned* counts, float* total, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    atomicAdd(&counts[x[i]], 1u);
    atomicAdd(total, (float)x[i]);
    atomicMax(&counts[7], (unsigned)x[i]);
}
"""


def test_atomics(gpu, rng):
    x = rng.integers(0, 7, 1000).astype(np.int32)
    counts, total = gpu.xp.zeros(8, np.uint32), floats(gpu, 1)
    run(gpu, ATOMICS, "histogram", 8, 128, x=gpu.xp.asarray(x), counts=counts, total=total, n=1000)
    np.testing.assert_array_equal(counts.get(), [*np.bincount(x), 6])
    assert total.item() == x.sum()


MMA = """
__global__ void multiply(const float* a, const float* b, const float* c, float* y) {
    int group = threadIdx.x / 4, t = threadIdx.x % 4;
    unsigned fa[4], fb[2];
    float fc[4], fd[4];
    for (int i = 0; i < 4; i++)
        fa[i] = __float_as_uint(a[(group + i % 2 * 8) * 8 + t + i / 2 * 4]);
    for (int i = 0; i < 2; i++) fb[i] = cvt_rna_tf32(b[(t + 4 * i) * 8 + group]);
    for (int i = 0; i < 4; i++) fc[i] = c[(group + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_m16n8k8_tf32(fd, fa, fb, fc);
    for (int i = 0; i < 4; i++) y[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}
"""


def tf32(x, rounded):
    bits = x.view(np.uint32) + np.uint32(0x1000 if rounded else 0)
    return (bits & np.uint32(0xffffe000)).view(np.float32)


def test_tensor_cores(gpu, rng):
    """a is truncated by the tensor core, b rounded before; both keep ten bits of mantissa."""
    a, b, c = (rng.normal(size=s).astype(np.float32) for s in ((16, 8), (8, 8), (16, 8)))
    y = floats(gpu, 16, 8)
    run(gpu, MMA, "multiply", 1, 32, **{n: gpu.xp.asarray(v) for n, v in zip(
        "abc", (a, b, c), strict=True)}, y=y)
    exact = tf32(a, False).astype(np.float64) @ tf32(b, True).astype(np.float64) + c
    np.testing.assert_allclose(y.get(), exact, rtol=0, atol=1e-6)
    assert abs(y.get() - (a @ b + c)).max() > 1e-4


def test_pairs_and_packs(gpu):
    code = """
    __global__ void add(const float* x, float* y, int2 by, double factor) {
        float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x];
        v.x += by.x, v.w += by.y * factor;
        reinterpret_cast<float4*>(y)[threadIdx.x] = v;
    }"""
    y = floats(gpu, 8)
    kinds = [("const float*", "x"), ("float*", "y"), ("int2", "by"), ("double", "factor")]
    pair = np.array([(10, 3)], [("x", np.int32), ("y", np.int32)])
    args = (gpu.xp.arange(8, dtype=np.float32), y, pair, np.float64(100))
    gpu.launch(code, "add", kinds, 1, 2, args)
    np.testing.assert_array_equal(y.get(), [10, 1, 2, 303, 14, 5, 6, 307])
    with pytest.raises(EmulationError, match="address that is not a multiple of 16"):
        gpu.launch(code, "add", kinds, 1, 1, (args[0][1:], *args[1:]))
    with pytest.raises(TypeError, match=r"by is a numpy.ndarray of shape \(2,\); only "):
        gpu.launch(code, "add", kinds, 1, 1, (*args[:2], np.int32([10, 3]), args[3]))


def test_arguments_that_overlap_share_memory(gpu):
    code = """
    __global__ void shift(const float* x, float* y) {
        for (int i = 0; i < 5; i++) y[i] = x[i] + 1;
    }"""
    base = floats(gpu, 6)
    run(gpu, code, "shift", 1, 1, x=base[:5], y=base[1:])
    np.testing.assert_array_equal(base.get(), [0, 1, 2, 3, 4, 5])
    run(gpu, code, "shift", 1, 1, x=base[:5], y=base[:5])
    np.testing.assert_array_equal(base.get(), [1, 2, 3, 4, 5, 5])


# --- faults --------------------------------------------------------------------------------------

DIVERGENT = """
__global__ void wait(float* y) {
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}"""
EXITED = """
__global__ void wait(float* y) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}"""
LANE_EXITED = """
__global__ void wait(float* y) {
    if (threadIdx.x == 37) return;
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}"""
LANE_ELSEWHERE = """
__global__ void wait(float* y) {
    if (threadIdx.x == 37) __syncthreads();
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}"""
NOT_NAMED = """
__global__ void wait(float* y) {
    y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
}"""
NO_PART = """
__global__ void wait(float* y) {
    if (threadIdx.x < 3) y[threadIdx.x] = __shfl_sync(7u, 1.0f, 5);
}"""


@pytest.mark.parametrize("code, message", [
    (DIVERGENT, r"thread \(0, 0, 0\): __syncthreads\(\) is not reached by all threads of the "
                r"block: thread \(40, 0, 0\) waits at line 6 of kernel.cu, in line 4 of kernel.cu"),
    (EXITED, r"thread \(40, 0, 0\) has exited, in line 4"),
    (LANE_EXITED, r"block \(0, 0, 0\), thread \(32, 0, 0\): a collective .* waits for lane 5, "
                  r"which has exited, in line 4"),
    (LANE_ELSEWHERE, r"lane 5, which waits at the barrier in line 3 of kernel.cu, in line 4"),
    (NOT_NAMED, r"lane 16 calls a collective operation whose mask 0xffff does not name it"),
    (NO_PART, r"reads a lane that takes no part in it, in line 3"),
])
def test_threads_that_wait_for_others_in_vain(gpu, code, message):
    y = floats(gpu, 64)
    with pytest.raises(EmulationError, match=message):
        run(gpu, code, "wait", 1, 64, y=y)
    assert not y.get().any()                           # as before the launch


READ = """
__global__ void shift(const float* x, float* y, int by) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i + by];
}"""
WRITE = """
__global__ void shift(const float* x, float* y, int by) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i + by] = x[i];
}"""


def test_reading_outside_an_array(gpu):
    """The end is guarded at once, and in reverse the beginning; else what is read there is NaN."""
    x, y = floats(gpu, 64), floats(gpu, 64)
    with pytest.raises(EmulationError, match=r"kernel shift, block \(1, 0, 0\), thread \(31, 0, 0\)"
                       r": reads 0 bytes behind the end of x \(256 bytes\) in line 4 of kernel.cu"):
        run(gpu, READ, "shift", 2, 32, x=x, y=y, by=1)
    run(gpu, READ, "shift", 2, 32, x=x, y=y, by=-1)
    assert np.isnan(y.get()[0])
    gpu.reverse = True
    with pytest.raises(EmulationError, match=r"thread \(0, 0, 0\): reads 4 bytes in front of x"):
        run(gpu, READ, "shift", 2, 32, x=x, y=y, by=-1)


def test_writing_outside_an_array(gpu):
    x, y = floats(gpu, 64), floats(gpu, 64)
    with pytest.raises(EmulationError, match=r"thread \(31, 0, 0\): writes 0 bytes behind the end "
                       "of y"):
        run(gpu, WRITE, "shift", 2, 32, x=x, y=y, by=1)
    with pytest.raises(EmulationError, match="a thread has written 4 bytes in front of y"):
        run(gpu, WRITE, "shift", 2, 32, x=x, y=y, by=-1)
    y = floats(gpu, 63)                                # four bytes short of sixteen
    with pytest.raises(EmulationError, match="has written 0 bytes behind the end of y"):
        run(gpu, WRITE, "shift", 1, 63, x=x, y=y, by=1)
    with pytest.raises(EmulationError, match="writes 3[0-9]* bytes behind the end of y"):
        run(gpu, WRITE, "shift", 1, 63, x=x, y=y, by=100_000)
    assert not y.get().any()


def test_the_neighbour_of_a_view_is_outside(gpu):
    base = floats(gpu, 100)
    with pytest.raises(EmulationError, match="reads .* behind the end of x"):
        run(gpu, READ, "shift", 1, 64, x=base[:64], y=floats(gpu, 64), by=4)


INNER = """
__global__ void overrun(float* y, int n) {
    __shared__ float tile[4][5];
    tile[threadIdx.x][n] = 1;
    y[threadIdx.x] = tile[0][0];
}"""
LOCAL = """
__global__ void overrun(float* y, int n) {
    float own[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; i++) own[i] += y[i];
    y[0] = own[n / 2];
}"""
DIVISION = """
__global__ void overrun(float* y, int n) {
    y[threadIdx.x] = 7 / (n - 5);
}"""


@pytest.mark.parametrize("code, message", [
    (INNER, r"index 5 is outside an array of type 'float \[5\]', in line 4 of kernel.cu"),
    (LOCAL, r"index 4 is outside an array of type 'float \[4\]', in line 4"),
    (DIVISION, r"an integer division by zero .*, in line 3"),
])
def test_indices_and_divisions(gpu, code, message):
    with pytest.raises(EmulationError, match=message):
        run(gpu, code, "overrun", 1, 2, y=floats(gpu, 8), n=5)


UNSET = """
template <typename T>
__global__ void unset(float* y) {
    __shared__ T value[2][32];
    __shared__ T never, sometimes;
    if (blockIdx.x == 0) sometimes = 1, value[1][3] = 1;
    __syncthreads();
    y[4 * blockIdx.x] = value[1][3];
    y[4 * blockIdx.x + 1] = sometimes;
    y[4 * blockIdx.x + 2] = never;
    y[4 * blockIdx.x + 3] = value[0][31];
}"""


@pytest.mark.parametrize("dtype", ["float", "double", "int", "long long"])
def test_shared_memory_begins_as_poison(gpu, dtype):
    y = floats(gpu, 8)
    run(gpu, UNSET, f"unset<{dtype}>", 2, 1, y=y)
    wrong = ~(abs(y.get()) < 1e9)                      # NaN, or huge
    np.testing.assert_array_equal(wrong, [False, False, *[True] * 6])


RACE = """
__global__ void race(float* y) {
    __shared__ float value;
    value = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = value;
}"""


def test_results_of_a_race_change_with_the_order(gpu):
    y = floats(gpu, 64)
    run(gpu, RACE, "race", 1, 64, y=y)
    first = y.get()
    gpu.reverse = True
    run(gpu, RACE, "race", 1, 64, y=y)
    assert np.all(first == 63) and np.all(y.get() == 0)


def test_blocks_run_in_reverse_too():
    code = "__global__ void last(float* y) { y[0] = blockIdx.x + 10 * blockIdx.y; }"
    for reverse, value in ((False, 43), (True, 0)):
        gpu = Emulator(reverse)
        y = floats(gpu, 1)
        run(gpu, code, "last", (4, 5), 1, y=y)
        assert y.item() == value


def test_errors_of_the_compiler_name_the_line(gpu):
    code = '#line 7 "mine.cu"\n__global__ void wrong(float* y) {\n    y[0] = nothing;\n}'
    with pytest.raises(RuntimeError, match=r"mine.cu:8:.*'?nothing'? was not declared|mine.cu:8"):
        run(gpu, code, "wrong", 1, 1, y=floats(gpu, 1))


def test_limits_of_a_gpu(gpu):
    code = """
    __global__ void big(float* y) {
        __shared__ float a[13000];
        a[threadIdx.x] = 1;
        y[0] = a[0];
    }"""
    with pytest.raises(EmulationError, match="52000 bytes of shared memory"):
        run(gpu, code, "big", 1, 1, y=floats(gpu, 1))
    with pytest.raises(EmulationError, match="at most 1024"):
        run(gpu, RACE, "race", 1, 1025, y=floats(gpu, 1))
    with pytest.raises(TypeError, match="expected an array of the emulated GPU"):
        gpu.launch(RACE, "race", [("float*", "y")], 1, 1, (np.zeros(3, np.float32),))
    with pytest.raises(TypeError, match="expected a NumPy value of 4 bytes, a int"):
        gpu.launch(READ, "shift", [("const float*", "x"), ("float*", "y"), ("int", "by")], 1, 1,
                   (floats(gpu, 3), floats(gpu, 3), np.int64(0)))


def test_an_endless_loop_ends():
    gpu = Emulator(seconds=1)
    code = """
    __global__ void spin(float* y) {
        volatile float* flag = y;
        while (flag[0] == 0) {}
    }"""
    with pytest.raises(EmulationError, match=r"thread \(0, 0, 0\): does not end within 1 s"):
        run(gpu, code, "spin", 1, 2, y=floats(gpu, 1))


ASYNCHRONOUS = """
template <bool WAIT>
__global__ void fetch(const float* x, float* y) {
    __shared__ float own[2][4];
    copy_async_16(own[0], x);
    copy_async_commit();
    copy_async_16(own[1], x + 4);
    copy_async_commit();
    copy_async_wait<WAIT ? 0 : 1>();
    for (int i = 0; i < 8; i++) y[i] = own[i / 4][i % 4];
}
"""


@pytest.mark.parametrize("wait", [True, False])
def test_a_missing_wait_shows_in_reverse(wait):
    gpu = Emulator(reverse=True)
    x, y = gpu.xp.arange(8, dtype=np.float32), floats(gpu, 8)
    run(gpu, ASYNCHRONOUS, f"fetch<{str(wait).lower()}>", 1, 1, x=x, y=y)
    np.testing.assert_array_equal(y.get(), x.get() if wait else [0, 1, 2, 3, *[np.nan] * 4])


def test_handlers_of_signals_are_put_back(gpu):
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(EmulationError):
        run(gpu, READ, "shift", 2, 32, x=floats(gpu, 64), y=floats(gpu, 64), by=1)
    for _ in range(300):                               # the abandoned threads leave nothing behind
        with pytest.raises(EmulationError):
            run(gpu, EXITED, "wait", 1, 64, y=floats(gpu, 64))
    assert signal.getsignal(signal.SIGVTALRM) == before


# --- arrays --------------------------------------------------------------------------------------

def test_no_implicit_conversion(gpu):
    a, host = gpu.xp.asarray([1.0, 2.0, 3.0]), np.ones(3)
    for convert in (np.asarray, np.array, np.ascontiguousarray, np.float64):
        with pytest.raises(TypeError, match="Implicit conversion"):
            convert(a)
    for mix in (lambda: a + host, lambda: host + a, lambda: np.add(a, host),
                lambda: np.add(host, host, out=a), lambda: np.where(a > 0, a, host),
                lambda: a.__setitem__(..., host), lambda: a.__setitem__(..., [1, 2, 3]),
                lambda: np.copyto(a, host), lambda: a[np.array([0, 1])],
                lambda: np.concatenate([a, host]), lambda: gpu.xp.maximum(host, 1)):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(TypeError):
        host += a
    with pytest.raises(TypeError):
        host[...] = a
    assert not hasattr(a, "ctypes") and not isinstance(a, np.ndarray)


def test_everything_computed_is_an_array(gpu):
    xp, host = gpu.xp, np.arange(12.0, dtype=np.float32).reshape(3, 4)
    a = xp.asarray(host)
    for f in (lambda x: x.sum(), lambda x: np.mean(x, axis=1), lambda x: x[1, 2],
              lambda x: np.exp(x[0]) + np.float32(1), lambda x: 2 - x.T, lambda x: x[:, None, ::2],
              lambda x: np.where(x > 3, x, 0), lambda x: np.concatenate([x, x], axis=1),
              lambda x: np.broadcast_to(x[0], (5, 4)), lambda x: np.max(x, keepdims=True),
              lambda x: x @ x.T, lambda x: np.argmax(x, axis=1), lambda x: x.reshape(2, -1),
              lambda x: np.add.reduce(x), lambda x: x * np.float64(2), lambda x: -x % 5,
              lambda x: np.squeeze(x[None]), lambda x: np.pad(x, 1), lambda x: x.astype(np.int32),
              lambda x: np.zeros_like(x), lambda x: x == 3, lambda x: np.isfinite(x).all()):
        result, own = f(a), f(host)
        assert isinstance(result, xp.ndarray)
        assert (result.dtype, result.shape) == (own.dtype, np.shape(own))
        np.testing.assert_array_equal(result.get(), own)
    assert isinstance(a.sum().item(), float) and float(a[0, 1]) == 1 and int(a[1, 0]) == 4
    assert isinstance(np.float64(2) * a, xp.ndarray) and (np.float64(2) * a).dtype == np.float64
    assert bool(a[0, 0] == 0) and not isinstance(np.shape(a), xp.ndarray)
    assert np.result_type(a, np.float64) == np.float64


def test_views_and_memory(gpu):
    xp = gpu.xp
    a = xp.zeros((4, 6), np.float32)
    a[1] += 2
    a[:, 2:4][2] = xp.asarray([5, 6], dtype=np.float32)
    number = a[3, 3]
    number[...] = 9                                    # a single number is a view as well
    xp.add.at(a, (xp.asarray([0, 0]), xp.asarray([5, 5])), 1)
    expected = np.zeros((4, 6))
    expected[1], expected[2, 2:4], expected[3, 3], expected[0, 5] = 2, (5, 6), 9, 2
    np.testing.assert_array_equal(a.get(), expected)
    assert a.base is None and a[1:].base is a and a.T.base is a and a.copy().base is None
    assert a.flags.c_contiguous and not a.T.flags.c_contiguous and a.T.flags["F_CONTIGUOUS"]
    assert a.reshape(-1).data.ptr == a.data.ptr and a[1:].data.ptr == a.data.ptr + 24
    assert xp.may_share_memory(a, a[0]) and not xp.shares_memory(a[0], a[1])
    assert np.isnan(xp.empty(5).get()).all() and xp.empty(5, np.int32).get().min() > 2**30
    assert a.view(np.int32).dtype == np.int32 and xp.ascontiguousarray(a) is a


# --- graphs --------------------------------------------------------------------------------------

def test_capture_and_replay(gpu):
    xp = gpu.xp
    x, y, total = xp.asarray(np.float32([1, 2, 3, 4])), floats(gpu, 4), floats(gpu, 1)
    gpu.begin_capture()
    run(gpu, READ, "shift", 1, 3, x=x, y=y, by=1)
    doubled = 2 * y
    total += doubled[:3].reshape(1, 3).sum()
    y[3] = total[0]
    filled = xp.ones(2, np.float32)
    graph = gpu.end_capture()
    assert graph.kernels == ["shift"]
    assert graph.others == ["multiply", "sum", "add", "setitem", "ones"]
    assert not y.get().any() and total.item() == 0 and np.isnan(doubled.get()).all()
    assert not gpu.launched
    graph.launch()
    np.testing.assert_array_equal(y.get(), [2, 3, 4, 18])
    np.testing.assert_array_equal(doubled.get(), [4, 6, 8, 0])
    np.testing.assert_array_equal(filled.get(), 1)
    x[...] = 1
    memory = doubled.data.ptr
    graph.launch()
    np.testing.assert_array_equal(y.get(), [1, 1, 1, 24])
    np.testing.assert_array_equal(doubled.get(), [2, 2, 2, 36])
    assert doubled.data.ptr == memory and total.item() == 24
    assert gpu.launched == {"shift": 2}


def test_the_host_may_not_wait_during_a_capture(gpu):
    """Nor copy, nor call cuBLAS; a wait makes the whole capture invalid."""
    a = gpu.xp.asarray([1.0, 2.0])
    for wait in (lambda: bool(a[0] > 0), lambda: float(a[0]), a.get, a[0].item, a.tolist,
                 lambda: gpu.xp.asnumpy(a), gpu.synchronize, lambda: a[a > 1],
                 lambda: bool(np.array_equal(a, a))):
        gpu.begin_capture()
        with pytest.raises(EmulationError, match="waits for the GPU"):
            wait()
        with pytest.raises(EmulationError, match="an operation inside has invalidated"):
            gpu.end_capture()
    with gpu.capturing() as captured:
        for copy in (lambda: gpu.xp.asarray(np.ones(2)), lambda: a.set(np.ones(2))):
            with pytest.raises(EmulationError, match="copies from the host"):
                copy()
        for product in (lambda: a @ a, lambda: gpu.xp.dot(a, a), lambda: a.dot(a)):
            with pytest.raises(NotImplementedError, match="cublas during stream capture"):
                product()
        a *= 3
        a[a > 4] = 0                                   # what is written where stays on the GPU
    captured[0].launch()
    np.testing.assert_array_equal(a.get(), [3, 0])


def test_two_streams_need_an_event_between_them(gpu):
    cuda, (a, b) = gpu.xp.cuda, (floats(gpu, 3) for _ in range(2))
    other, event = cuda.Stream(non_blocking=True), cuda.Event()
    with pytest.raises(EmulationError, match="another stream may still use"):
        a.set(np.ones(3, np.float32), stream=other)
    other.wait_event(event)                            # never recorded: it orders nothing
    with pytest.raises(EmulationError, match="another stream may still use"):
        a.set(np.ones(3, np.float32), stream=other)
    event.record()
    other.wait_event(event)
    a.set(np.ones(3, np.float32), stream=other)        # ordered after all work on a
    with pytest.raises(EmulationError, match="another stream may still use"):
        a + b
    other.synchronize()                                # so does a host that waits
    np.testing.assert_array_equal((a + b).get(), 1)
    with pytest.raises(EmulationError, match="another stream may still use"):
        gpu.xp.empty(3, np.float32).set(np.ones(3, np.float32), stream=other)    # memory of a + b


def test_a_graph_does_not_keep_what_it_reads(gpu):
    a, y = floats(gpu, 3) + 1, floats(gpu, 3)
    with gpu.capturing() as captured:
        run(gpu, READ, "shift", 1, 3, x=a, y=y, by=0)
        y *= 2                                         # what is made inside is the graph's own
    captured[0].launch()
    del a
    with pytest.raises(EmulationError, match="uses an array which has been freed"):
        captured[0].launch()
