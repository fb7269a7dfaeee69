// Products by the matrix unit, in tiles of 16 x 16.

#pragma once

#include <algorithm>

#include "operands.h"
#include "platform.h"
#include "products.h"
#include "vectors.h"

#if PANET_TILES

namespace {

// Tiles 0 to 3 hold sums, 4 a part of A, 5 to 7 parts of B.
template <int TILES>
PANET_INLINE void multiply_tiles(const Operands& o, i64 row, i64 column) {
    const float *a = o.a + row * o.row_stride, *b = o.b + column;
    const i64 a_bytes = 4 * o.row_stride, b_bytes = 4 * o.ldb;
    for (int k = 0; k < o.depth; k += 16, a += 16, b += 16 * o.ldb) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(5, b, b_bytes);
        _tile_dpbf16ps(0, 4, 5);
        if constexpr (TILES > 1) {
            _tile_loadd(6, b + 16, b_bytes);
            _tile_dpbf16ps(1, 4, 6);
        }
        if constexpr (TILES > 2) {
            _tile_loadd(7, b + 32, b_bytes);
            _tile_dpbf16ps(2, 4, 7);
        }
        if constexpr (TILES > 3) {
            _tile_loadd(5, b + 48, b_bytes);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
}

template <int TILES>
PANET_INLINE void load_tiles(const float* c, i64 bytes) {
    _tile_loadd(0, c, bytes);
    if constexpr (TILES > 1) _tile_loadd(1, c + 16, bytes);
    if constexpr (TILES > 2) _tile_loadd(2, c + 32, bytes);
    if constexpr (TILES > 3) _tile_loadd(3, c + 48, bytes);
}

template <int TILES>
PANET_INLINE void store_tiles(float* c, i64 bytes) {
    _tile_stored(0, c, bytes);
    if constexpr (TILES > 1) _tile_stored(1, c + 16, bytes);
    if constexpr (TILES > 2) _tile_stored(2, c + 32, bytes);
    if constexpr (TILES > 3) _tile_stored(3, c + 48, bytes);
}

template <int TILES>
PANET_INLINE void tile_block(const Operands& o, const SumOfThree& sink, i64 row, i64 end, i64 column) {
    alignas(64) float products[16 * TILES * 16];
    _tile_zero(0);
    if constexpr (TILES > 1) _tile_zero(1);
    if constexpr (TILES > 2) _tile_zero(2);
    if constexpr (TILES > 3) _tile_zero(3);
    multiply_tiles<TILES>(o, row, column);
    store_tiles<TILES>(products, TILES * 64);
    for (i64 i = 0; i < std::min<i64>(16, end - row); ++i) {
        PANET_UNROLL
        for (int j = 0; j < TILES; ++j) sink(row + i, column + j * 16, load(products + (i * TILES + j) * 16));
    }
}

template <int TILES>
PANET_INLINE void tile_block(const Operands& o, const Accumulate& sink, i64 row, i64, i64 column) {
    float* c = sink.c + row * sink.ld + column;
    load_tiles<TILES>(c, 4 * sink.ld);
    multiply_tiles<TILES>(o, row, column);
    store_tiles<TILES>(c, 4 * sink.ld);
}

// Also reads rows of A, and adds to rows of C, beyond the last one up to a multiple of 16.
template <class Sink>
void multiply(BFloat16Tile, const Operands& o, const Sink& sink, i64 row_begin, i64 row_end, i64 columns) {
    PANET_FENCE;
    for (i64 row = row_begin; row < row_end; row += 16)
        for (i64 column = 0, left = columns / 16; left > 0;) {
            const i64 now = std::min<i64>(left, 4);
            if (now == 4) tile_block<4>(o, sink, row, row_end, column);
            if (now == 3) tile_block<3>(o, sink, row, row_end, column);
            if (now == 2) tile_block<2>(o, sink, row, row_end, column);
            if (now == 1) tile_block<1>(o, sink, row, row_end, column);
            left -= now;
            column += now * 16;
        }
    PANET_FENCE;
}

}  // namespace

#endif
