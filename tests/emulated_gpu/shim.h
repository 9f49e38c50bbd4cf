// CUDA C for g++: definitions of the types and functions that are built into NVRTC. Every thread is
// a fiber of machine.cpp, which also implements barriers; here the collective operations of a warp
// are built on one primitive.
#pragma once
#define EMULATED 1

typedef __SIZE_TYPE__ size_t;

// --- functions of machine.cpp --------------------------------------------------------------------

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern "C" {
// Set before a thread continues: all threads run on one CPU thread.
extern uint3 emulated_thread, emulated_block;
extern dim3 emulated_block_size, emulated_grid_size;

enum Barrier { PLAIN, OR, AND, COUNT };
int emulated_barrier(int kind, int predicate, const char* file, int line);

// The lanes of the mask wait for each other here. The last one calls operation(payloads, mask),
// which reads and writes what each lane's payload points to (null for a lane that is not there).
typedef void (*Operation)(void** payloads, unsigned mask);
void emulated_collective(Operation, void* payload, unsigned mask, const char* file, int line);
int emulated_lane();
void emulated_copy(void* to, const void* from, const char* file, int line);
void emulated_copy_commit();
void emulated_copy_wait(int left);
[[noreturn]] void emulated_fail(const char* text, const char* file, int line);
}

#define threadIdx emulated_thread
#define blockIdx emulated_block
#define blockDim emulated_block_size
#define gridDim emulated_grid_size
static const int warpSize = 32;

// --- keywords ------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// In .bss, which machine.cpp fills with poison; "used", or g++ would see that nobody has set an
// uninitialised variable and take it for zero.
#define __shared__ static __attribute__((used))
// Dynamic shared memory: as large as the launch must ask for.
#define DYNAMIC_SHARED(name, size) __shared__ char name[size]
// CUDA allows it after __shared__; g++ does not, but allows this attribute.
#define alignas(n) __attribute__((aligned(n)))
// The source position of a call, as the default of its last two parameters.
#define PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// --- vectors -------------------------------------------------------------------------------------

#define VECTORS(T, name, align2, align4)                                                     \
    struct alignas(align2) name##2 { T x, y; };                                              \
    struct alignas(align4) name##4 { T x, y, z, w; };                                        \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                               \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(float, float, 8, 16)
VECTORS(double, double, 16, 16)
VECTORS(int, int, 8, 16)
VECTORS(unsigned, uint, 8, 16)
VECTORS(long long, longlong, 16, 16)
VECTORS(unsigned long long, ulonglong, 16, 16)
VECTORS(short, short, 4, 8)
VECTORS(unsigned short, ushort, 4, 8)
VECTORS(signed char, char, 2, 4)
VECTORS(unsigned char, uchar, 2, 4)
#undef VECTORS
struct float3 { float x, y, z; };
struct int3 { int x, y, z; };
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

// --- barriers, fences ----------------------------------------------------------------------------

inline void __syncthreads(PLACE) { emulated_barrier(PLAIN, 0, file, line); }
inline int __syncthreads_or(int p, PLACE) { return emulated_barrier(OR, p, file, line); }
inline int __syncthreads_and(int p, PLACE) { return emulated_barrier(AND, p, file, line); }
inline int __syncthreads_count(int p, PLACE) { return emulated_barrier(COUNT, p, file, line); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __trap(PLACE) { emulated_fail("__trap()", file, line); }
extern "C" int printf(const char*, ...);
#define assert(condition) ((condition) ? (void)0 : emulated_fail(#condition " is false", __FILE__, \
                                                                 __LINE__))

// --- within a warp -------------------------------------------------------------------------------

namespace emulated {

inline void nothing(void**, unsigned) {}

template <typename T>
struct Shuffle {
    T value, result;
    int from;
    const char* file;
    int line;
};

template <typename T>
void shuffle(void** payloads, unsigned mask) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        auto to = (Shuffle<T>*)payloads[lane];
        if (!(mask >> to->from & 1))
            emulated_fail("a shuffle reads a lane that takes no part in it", to->file, to->line);
        to->result = ((Shuffle<T>*)payloads[to->from])->value;
    }
}

template <typename T>
T exchange(unsigned mask, T value, int from, const char* file, int line) {
    Shuffle<T> payload = {value, value, from, file, line};
    emulated_collective(shuffle<T>, &payload, mask, file, line);
    return payload.result;
}

struct Vote {
    int predicate;
    unsigned ballot;
};

inline void vote(void** payloads, unsigned mask) {
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && ((Vote*)payloads[lane])->predicate) ballot |= 1u << lane;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) ((Vote*)payloads[lane])->ballot = ballot;
}

}  // namespace emulated

inline void __syncwarp(unsigned mask = 0xffffffffu, PLACE) {
    emulated_collective(emulated::nothing, nullptr, mask, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, PLACE) {
    emulated::Vote v = {predicate, 0};
    emulated_collective(emulated::vote, &v, mask, file, line);
    return v.ballot;
}
inline int __any_sync(unsigned mask, int predicate, PLACE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, PLACE) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}

// A lane whose source would lie outside its segment of ``width`` lanes gets its own value.
#define SHUFFLES(T)                                                                          \
    inline T __shfl_sync(unsigned mask, T v, int from, int width = 32, PLACE) {              \
        int lane = emulated_lane(), first = lane & -width;                                   \
        return emulated::exchange<T>(mask, v, first + (from & (width - 1)), file, line);     \
    }                                                                                        \
    inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, PLACE) {        \
        int lane = emulated_lane(), from = lane - (int)by;                                   \
        return emulated::exchange<T>(mask, v, from < (lane & -width) ? lane : from, file,    \
                                     line);                                                  \
    }                                                                                        \
    inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, PLACE) {      \
        int lane = emulated_lane(), from = lane + (int)by;                                   \
        return emulated::exchange<T>(mask, v, from >= (lane & -width) + width ? lane : from, \
                                     file, line);                                            \
    }                                                                                        \
    inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, PLACE) {          \
        int lane = emulated_lane(), from = lane ^ with;                                      \
        return emulated::exchange<T>(mask, v, from >= (lane & -width) + width ? lane : from, \
                                     file, line);                                            \
    }
SHUFFLES(int)
SHUFFLES(unsigned)
SHUFFLES(long)
SHUFFLES(unsigned long)
SHUFFLES(long long)
SHUFFLES(unsigned long long)
SHUFFLES(float)
SHUFFLES(double)
#undef SHUFFLES

// --- atomic operations: no other thread runs meanwhile -------------------------------------------

#define ATOMIC(name, T, expression)                                                          \
    inline T name(T* p, T v) {                                                               \
        T old = *p;                                                                          \
        *p = expression;                                                                     \
        return old;                                                                          \
    }
#define ATOMICS(T)                                                                           \
    ATOMIC(atomicMax, T, old > v ? old : v)                                                  \
    ATOMIC(atomicMin, T, old < v ? old : v)                                                  \
    ATOMIC(atomicAnd, T, old & v)                                                            \
    ATOMIC(atomicOr, T, old | v)                                                             \
    ATOMIC(atomicXor, T, old ^ v)                                                            \
    ATOMIC(atomicExch, T, v)                                                                 \
    inline T atomicCAS(T* p, T expected, T v) {                                              \
        T old = *p;                                                                          \
        if (old == expected) *p = v;                                                         \
        return old;                                                                          \
    }
ATOMICS(int)
ATOMICS(unsigned)
ATOMICS(unsigned long long)
ATOMIC(atomicMax, long long, old > v ? old : v)
ATOMIC(atomicMin, long long, old < v ? old : v)
ATOMIC(atomicExch, float, v)
ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)v))
ATOMIC(atomicAdd, unsigned, old + v)
ATOMIC(atomicAdd, unsigned long long, old + v)
ATOMIC(atomicAdd, float, old + v)
ATOMIC(atomicAdd, double, old + v)
ATOMIC(atomicSub, int, (int)((unsigned)old - (unsigned)v))
ATOMIC(atomicSub, unsigned, old - v)
ATOMIC(atomicInc, unsigned, old >= v ? 0 : old + 1)
ATOMIC(atomicDec, unsigned, old == 0 || old > v ? v : old - 1)
#undef ATOMICS
#undef ATOMIC

template <typename T>
inline T __ldg(const T* p) { return *p; }

// --- bits ----------------------------------------------------------------------------------------

namespace emulated {
template <typename To, typename From>
inline To bits_as(From v) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    __builtin_memcpy(&result, &v, sizeof v);
    return result;
}
}  // namespace emulated

inline int __float_as_int(float v) { return emulated::bits_as<int>(v); }
inline unsigned __float_as_uint(float v) { return emulated::bits_as<unsigned>(v); }
inline float __int_as_float(int v) { return emulated::bits_as<float>(v); }
inline float __uint_as_float(unsigned v) { return emulated::bits_as<float>(v); }
inline long long __double_as_longlong(double v) { return emulated::bits_as<long long>(v); }
inline double __longlong_as_double(long long v) { return emulated::bits_as<double>(v); }
inline int __double2hiint(double v) { return (int)(__double_as_longlong(v) >> 32); }
inline int __double2loint(double v) { return (int)__double_as_longlong(v); }

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ typedef unsigned __int128 Wide;
    return (Wide)a * b >> 64;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) {
    unsigned result = 0;
    for (int i = 0; i < 32; i++) result |= (v >> i & 1) << (31 - i);
    return result;
}

// --- arithmetic ----------------------------------------------------------------------------------

#define ONE(name)                                                                            \
    extern "C" double name(double) noexcept;                                                 \
    extern "C" float name##f(float) noexcept;                                                \
    inline float name(float x) { return name##f(x); }
#define TWO(name)                                                                            \
    extern "C" double name(double, double) noexcept;                                         \
    extern "C" float name##f(float, float) noexcept;                                         \
    inline float name(float x, float y) { return name##f(x, y); }
ONE(exp) ONE(exp2) ONE(expm1) ONE(log) ONE(log2) ONE(log10) ONE(log1p) ONE(sqrt) ONE(cbrt)
ONE(sin) ONE(cos) ONE(tan) ONE(asin) ONE(acos) ONE(atan) ONE(sinh) ONE(cosh) ONE(tanh)
ONE(asinh) ONE(acosh) ONE(atanh) ONE(erf) ONE(erfc) ONE(lgamma) ONE(tgamma)
ONE(fabs) ONE(floor) ONE(ceil) ONE(trunc) ONE(round) ONE(rint) ONE(nearbyint)
TWO(pow) TWO(fmod) TWO(fmax) TWO(fmin) TWO(fdim) TWO(hypot) TWO(atan2) TWO(copysign)
TWO(nextafter) TWO(remainder) ONE(exp10)
#undef ONE
#undef TWO
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
extern "C" double ldexp(double, int) noexcept;
extern "C" float ldexpf(float, int) noexcept;
inline float ldexp(float x, int n) { return ldexpf(x, n); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rcbrt(float x) { return 1.0f / cbrtf(x); }
inline double rcbrt(double x) { return 1.0 / cbrt(x); }
inline float rsqrtf(float x) { return rsqrt(x); }
inline void sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline void sincos(double x, double* s, double* c) noexcept { *s = sin(x), *c = cos(x); }
inline void sincos(float x, float* s, float* c) { sincosf(x, s, c); }

#define PREDICATES(T)                                                                        \
    inline bool isnan(T x) { return __builtin_isnan(x); }                                    \
    inline bool isinf(T x) { return __builtin_isinf(x); }                                    \
    inline bool isfinite(T x) { return __builtin_isfinite(x); }                              \
    inline bool signbit(T x) { return __builtin_signbit(x); }
PREDICATES(float)
PREDICATES(double)
#undef PREDICATES

// Exactly the pairs that CUDA defines: for others (int and long long) it reports an ambiguous call.
#define LESSER_AND_GREATER(A, B, T)                                                          \
    inline T min(A a, B b) { return (T)a < (T)b ? (T)a : (T)b; }                             \
    inline T max(A a, B b) { return (T)a > (T)b ? (T)a : (T)b; }
#define INTEGERS(S)                                                                          \
    LESSER_AND_GREATER(S, S, S)                                                              \
    LESSER_AND_GREATER(unsigned S, unsigned S, unsigned S)                                   \
    LESSER_AND_GREATER(S, unsigned S, unsigned S)                                            \
    LESSER_AND_GREATER(unsigned S, S, unsigned S)
INTEGERS(int)
INTEGERS(long)
INTEGERS(long long)
#undef INTEGERS
#undef LESSER_AND_GREATER
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin((double)a, b); }
inline double max(float a, double b) { return fmax((double)a, b); }
inline double min(double a, float b) { return fmin(a, (double)b); }
inline double max(double a, float b) { return fmax(a, (double)b); }
extern "C" int abs(int) noexcept;
inline long long llabs(long long x) { return x < 0 ? -x : x; }
inline long abs(long x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

// Each rounded separately; the file is compiled without fused operations anyway.
#define ROUNDED(T, letter)                                                                   \
    inline T __##letter##add_rn(T a, T b) { return a + b; }                                  \
    inline T __##letter##mul_rn(T a, T b) { return a * b; }
ROUNDED(float, f)
ROUNDED(double, d)
#undef ROUNDED
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// The GPU's fast, less accurate versions; here they are exact.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __double2int_rn(double x) { return (int)rint(x); }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }
inline int __float2int_rz(float x) { return (int)x; }

// --- tensor cores --------------------------------------------------------------------------------

// Rounds to TF32's ten bits of mantissa, ties away from zero; infinities and NaN stay.
inline unsigned cvt_rna_tf32(float v) {
    unsigned bits = __float_as_uint(v);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
    return bits & 0xffffe000u;
}

namespace emulated {

struct Mma {
    const unsigned *a, *b;
    const float* c;
    float d[4];
};

// The number of ten bits of mantissa that a tensor core sees.
inline double tf32(unsigned bits) { return (double)__uint_as_float(bits & 0xffffe000u); }

// D = A B + C, A 16×8, B 8×8, C and D 16×8; lane = 4 group + t. A lane holds of A the rows group
// and group + 8 in columns t, then both in column t + 4; of B rows t and t + 4 of column group; of
// C and D columns 2t and 2t + 1 of row group, then of row group + 8.
inline void mma(void** payloads, unsigned) {
    double a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
        auto own = (Mma*)payloads[lane];
        int group = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[group + i % 2 * 8][t + i / 2 * 4] = tf32(own->a[i]);
        for (int i = 0; i < 2; i++) b[t + 4 * i][group] = tf32(own->b[i]);
    }
    for (int lane = 0; lane < 32; lane++) {
        auto own = (Mma*)payloads[lane];
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = own->c[i];
            for (int k = 0; k < 8; k++) sum += a[row][k] * b[k][column];
            own->d[i] = (float)sum;
        }
    }
}

}  // namespace emulated

inline void mma_m16n8k8_tf32(float d[4], const unsigned a[4], const unsigned b[2],
                             const float c[4], PLACE) {
    emulated::Mma own = {a, b, c, {}};
    emulated_collective(emulated::mma, &own, 0xffffffffu, file, line);
    for (int i = 0; i < 4; i++) d[i] = own.d[i];
}

// --- wgmma: from the values in shared memory at the call, in each thread for itself ---------------

// A number of a tile in shared memory, at ``address`` before the swizzle "128 bytes".
inline double swizzled(const char* address) {
    size_t at = (size_t)address;
    return emulated::tf32(*(const unsigned*)(at ^ at / 128 % 8 * 16));
}

// d += a b: 64 rows of a, COLUMNS rows of b, eight k; a row of a tile has 128 bytes.
template <int COLUMNS>
inline void multiply_eight(float (&d)[COLUMNS / 2], const float* a, const float* b) {
    int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    for (int i = 0; i < COLUMNS / 2; i++) {
        int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        double sum = d[i];
        for (int k = 0; k < 8; k++)
            sum += swizzled((const char*)a + row * 128 + k * 4)
                   * swizzled((const char*)b + column * 128 + k * 4);
        d[i] = (float)sum;
    }
}
inline void fence_shared() {}
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int N>
inline void wgmma_wait() {}

// --- copies from global to shared memory, that are done at the wait ------------------------------

inline void copy_async_16(void* shared, const void* global, PLACE) {
    emulated_copy(shared, global, file, line);
}
inline void copy_async_commit() { emulated_copy_commit(); }
template <int N>
inline void copy_async_wait() { emulated_copy_wait(N); }

// --- how machine.cpp calls a kernel --------------------------------------------------------------

namespace emulated {

template <int...>
struct Numbers {};

template <typename... P, int... I>
inline void spread(void (*kernel)(P...), void** arguments, Numbers<I...>) {
    kernel(*(P*)arguments[I]...);
}

template <typename... P>
inline void call(void (*kernel)(P...), void** arguments) {
    spread(kernel, arguments, Numbers<__integer_pack(sizeof...(P))...>());
}

// The bytes of every parameter, then -1.
template <typename... P>
inline const int* sizes(void (*)(P...)) {
    static const int each[] = {(int)sizeof(P)..., -1};
    return each;
}

}  // namespace emulated

// The shared variables are all that lies in .bss, between two symbols that the linker provides.
#define EMULATED_KERNEL(...)                                                                 \
    extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];             \
    extern "C" {                                                                             \
    void emulated_entry(void** arguments) { emulated::call(&__VA_ARGS__, arguments); }       \
    const int* emulated_sizes() { return emulated::sizes(&__VA_ARGS__); }                    \
    char* emulated_shared() { return __bss_start; }                                          \
    long emulated_shared_bytes() { return _end - __bss_start; }                              \
    }
