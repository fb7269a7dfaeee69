// Products of small matrices, C (rows x columns) = A (rows x depth) B (depth x columns): columns in vectors, slots of A
// broadcast; strides and depth are in slots. A register block holds ROWS x VECS accumulators.

#pragma once

#include <algorithm>

#include "operands.h"
#include "platform.h"
#include "vectors.h"

namespace {

constexpr int max_rows(int vecs) { return std::min(ACCUMULATORS / vecs, 12); }

struct Operands {
    const float* a;
    i64 row_stride, depth_stride;  // of a
    const float* b;
    i64 ldb;
    int depth;
};

// Scores of one row pair: keeps the product and adds those of the two previous rows of the diagonal.
struct SumOfThree {
    float *product, *sum;
    const float *previous, *before;  // `before` may be `product`
    i64 ld, sum_ld;
    static constexpr bool unit_row_stride = true;
    PANET_INLINE void operator()(i64 row, i64 column, Vec c) const {
        const i64 at = row * ld + column;
        store(sum + row * sum_ld + column, load(before + at) + load(previous + at) + c);
        store(product + at, c);
    }
};

struct Accumulate {
    float* c;
    i64 ld;
    static constexpr bool unit_row_stride = false;  // the depth is contiguous instead
    PANET_INLINE void operator()(i64 row, i64 column, Vec v) const {
        float* p = c + row * ld + column;
        store(p, load(p) + v);
    }
};

// Fetches the part of C that a register block will add to.
template <int ROWS, int VECS>
PANET_INLINE void prefetch(const Accumulate& sink, i64 row, i64 column) {
#if defined(__GNUC__)
    PANET_UNROLL
    for (int i = 0; i < ROWS; ++i) {
        PANET_UNROLL
        for (int j = 0; j < VECS; ++j) __builtin_prefetch(sink.c + (row + i) * sink.ld + column + j * LANES, 1);
    }
#endif
}
template <int ROWS, int VECS>
PANET_INLINE void prefetch(const SumOfThree&, i64, i64) {}

template <class T, int ROWS, int VECS, class Sink>
PANET_INLINE void register_block(const Operands& o, const Sink& sink, i64 row, i64 column) {
    Vec acc[ROWS][VECS] = {};
    const i64 row_stride = Sink::unit_row_stride ? 1 : o.row_stride;
    const i64 depth_stride = Sink::unit_row_stride ? o.depth_stride : 1;
    const float* PANET_RESTRICT a = o.a + row * row_stride;
    const float* PANET_RESTRICT b = o.b + column;
    prefetch<ROWS, VECS>(sink, row, column);
    for (int k = 0; k < o.depth; ++k, a += depth_stride, b += o.ldb) {
        Vec bv[VECS];
        PANET_UNROLL
        for (int j = 0; j < VECS; ++j) bv[j] = load(b + j * LANES);
        PANET_UNROLL
        for (int i = 0; i < ROWS; ++i) {
            const float x = a[i * row_stride];
            PANET_UNROLL
            for (int j = 0; j < VECS; ++j) acc[i][j] = T::multiply_add(acc[i][j], x, bv[j]);
        }
    }
    PANET_UNROLL
    for (int i = 0; i < ROWS; ++i) {
        PANET_UNROLL
        for (int j = 0; j < VECS; ++j) sink(row + i, column + j * LANES, acc[i][j]);
    }
}

template <class T, int ROWS, int VECS, class Sink>
void row_block(int rows, const Operands& o, const Sink& sink, i64 row, i64 column) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            register_block<T, ROWS, VECS>(o, sink, row, column);
        else
            row_block<T, ROWS - 1, VECS>(rows, o, sink, row, column);
    }
}

template <class T, int VECS, class Sink>
void column_panel(const Operands& o, const Sink& sink, i64 begin, i64 end, i64 column) {
    constexpr int most = max_rows(VECS);
    for (i64 left = (end - begin + most - 1) / most; left > 0; --left) {
        const int rows = static_cast<int>((end - begin + left - 1) / left);
        row_block<T, most, VECS>(rows, o, sink, begin, column);
        begin += rows;
    }
}

template <class T, class Sink>
void multiply(T, const Operands& o, const Sink& sink, i64 row_begin, i64 row_end, i64 columns) {
    i64 vecs = columns / LANES, column = 0;
    for (i64 panels = (vecs + 3) / 4; panels > 0; --panels) {
        const i64 now = (vecs + panels - 1) / panels;
        if (now == 4) column_panel<T, 4>(o, sink, row_begin, row_end, column);
        if (now == 3) column_panel<T, 3>(o, sink, row_begin, row_end, column);
        if (now == 2) column_panel<T, 2>(o, sink, row_begin, row_end, column);
        if (now == 1) column_panel<T, 1>(o, sink, row_begin, row_end, column);
        vecs -= now;
        column += now * LANES;
    }
}

}  // namespace
