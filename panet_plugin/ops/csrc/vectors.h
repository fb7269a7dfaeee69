// Vectors of float32, or single numbers where the compiler has none.

#pragma once

#include <cstring>
#include <limits>

#include "platform.h"

namespace {

#if defined(__GNUC__) && !defined(PANET_SCALAR)

#if defined(__AVX512F__)
constexpr int LANES = 16, ACCUMULATORS = 24;
#elif defined(__AVX__)
constexpr int LANES = 8, ACCUMULATORS = 12;
#elif defined(__aarch64__)
constexpr int LANES = 4, ACCUMULATORS = 24;
#else
constexpr int LANES = 4, ACCUMULATORS = 12;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4), may_alias));
typedef float UnalignedVec __attribute__((vector_size(LANES * 4), may_alias, aligned(4)));
typedef std::int32_t IntVec __attribute__((vector_size(LANES * 4), may_alias));

PANET_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
PANET_INLINE Vec load_unaligned(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
PANET_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
PANET_INLINE Vec bits_shifted_left_23(Vec v) { return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(v) << 23); }
PANET_INLINE Vec larger(Vec floor, Vec v) { return floor > v ? floor : v; }  // a NaN in v survives

template <int N>
PANET_INLINE float sum_lanes(const float* p) {
    if constexpr (N == 4) {
        return (p[0] + p[2]) + (p[1] + p[3]);
    } else {
        typedef float Half __attribute__((vector_size(N * 2), may_alias));
        alignas(N * 2) float half[N / 2];
        *reinterpret_cast<Half*>(half) = *reinterpret_cast<const Half*>(p) + *reinterpret_cast<const Half*>(p + N / 2);
        return sum_lanes<N / 2>(half);
    }
}
PANET_INLINE float sum_lanes(Vec v) {
    alignas(LANES * 4) float lanes[LANES];
    store(lanes, v);
    return sum_lanes<LANES>(lanes);
}

#else

constexpr int LANES = 1, ACCUMULATORS = 8;
using Vec = float;
PANET_INLINE Vec load(const float* p) { return *p; }
PANET_INLINE Vec load_unaligned(const float* p) { return *p; }
PANET_INLINE void store(float* p, Vec v) { *p = v; }
PANET_INLINE Vec bits_shifted_left_23(Vec v) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, 4);
    bits <<= 23;
    std::memcpy(&v, &bits, 4);
    return v;
}
PANET_INLINE Vec larger(Vec floor, Vec v) { return floor > v ? floor : v; }
PANET_INLINE float sum_lanes(Vec v) { return v; }

#endif

// Keeps a product rounded where the compiler would fuse it with a following subtraction: the score subtracted from
// itself must give exactly 0, however large the softmax scale.
PANET_INLINE Vec rounded(Vec v) {
#if defined(PANET_SCALAR) || !defined(__GNUC__)
    volatile float kept = v;
    return kept;
#elif defined(__x86_64__)
    asm("" : "+v"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
    return v;
}

constexpr float INFINITE = std::numeric_limits<float>::infinity();
constexpr float LOG2_E = 1.44269504088896341f;

// 2^x for x <= about 90, exactly 0 below 2^-80: weights that small cannot matter, and keeping them out of the
// products avoids denormal numbers, which are slow. The exponent's bias is moved by 47 to get that zero for free;
// the polynomial (exact at 0, relative error 1.1e-7 on [-1/2, 1/2]) is scaled by 2^47 in return.
PANET_INLINE Vec exp2_or_zero(Vec x) {
    constexpr float two47 = 140737488355328.f, rounder = 12582912.f + 80.f;
    x = larger(Vec{} - 80.f, x);
    const Vec whole = x + rounder;
    const Vec f = x - (whole - rounder);
    Vec p = f * (0.001326472731307149f * two47) + 0.009671512991189957f * two47;
    p = p * f + 0.05550733581185341f * two47;
    p = p * f + 0.24022242426872253f * two47;
    p = p * f + 0.6931470036506653f * two47;
    p = p * f + two47;
    return p * bits_shifted_left_23(whole);
}

constexpr i64 round_up(i64 n) { return (n + LANES - 1) / LANES * LANES; }

}  // namespace
