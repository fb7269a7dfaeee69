// The kinds of operands of the products: float32, and pairs of bfloat16 for vectors and for the matrix unit.

#pragma once

#include "platform.h"
#include "vectors.h"

namespace {

// A slot of an operand holds TERMS numbers that are neighbors along the dimension a product sums over. Slots come in
// whole SLOTS and the rows of a product in whole ROWS, filled up with zeros.
struct Single {
    static constexpr i64 TERMS = 1, SLOTS = 1, ROWS = 1;
    static PANET_INLINE float slot(float x, float) { return x; }
    static PANET_INLINE Vec multiply_add(Vec sum, float a, Vec b) { return sum + a * b; }
};

#if PANET_BFLOAT16

struct BFloat16Pair {
    static constexpr i64 TERMS = 2, SLOTS = 1, ROWS = 1;
    static PANET_INLINE float slot(float low, float high) {
        return _mm_cvtss_f32((__m128)_mm_cvtneps_pbh(_mm_setr_ps(low, high, 0.f, 0.f)));
    }
    static PANET_INLINE Vec multiply_add(Vec sum, float a, Vec b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
    }
    // One slot per lane.
    static PANET_INLINE Vec slots(Vec low, Vec high) {
        alignas(64) static constexpr std::int16_t interleaved[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                     21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                     11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        return (Vec)_mm512_permutexvar_epi16(_mm512_load_si512(interleaved), (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    // Neighboring lanes share a slot.
    static PANET_INLINE void store_lanes(float* p, Vec v) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
    }
};

#endif

#if PANET_TILES

struct BFloat16Tile : BFloat16Pair {
    static constexpr i64 SLOTS = 16, ROWS = 16;
};

// Asks the kernel for the registers of the matrix unit, once per process.
bool has_tiles() {
    constexpr long request_permission = 0x1023, tile_data = 18;
    static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return granted;
}

#endif

// Prepares the calling thread for products of T as long as it lives.
template <class T>
struct Unit {
    Unit() {}
};

#if PANET_TILES

template <>
struct Unit<BFloat16Tile> {
    Unit() {
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shapes;
        _tile_loadconfig(&shapes);
    }
    ~Unit() { _tile_release(); }
};

#endif

template <class T>
constexpr i64 slots_of(i64 terms) {
    return ((terms + T::TERMS - 1) / T::TERMS + T::SLOTS - 1) / T::SLOTS * T::SLOTS;
}

template <class T>
constexpr i64 rows_of(i64 rows) {
    return (rows + T::ROWS - 1) / T::ROWS * T::ROWS;
}

}  // namespace
