// Scores, weights and gradients of one row of pairs, from products summed over y: here the sum over x is taken.

#pragma once

#include "platform.h"
#include "vectors.h"

namespace {

PANET_INLINE Vec diagonal(const float* p, i64 ld) {
    return load_unaligned(p - ld - 1) + load(p) + load_unaligned(p + ld + 1);
}

// Replaces scores that a query does not see: its weight is exactly 0 beside any real score.
constexpr float HIDDEN = -1e30f;

// Selected instead of added, so that nonfinite scores stay visible where a query sees them.
template <bool WINDOWED>
PANET_INLINE Vec seen(const float* hidden, Vec v, float otherwise) {
    if constexpr (!WINDOWED) return v;
    return load(hidden) < 0.f ? Vec{} + otherwise : v;
}

// Maximum and sum of exponentials, one query per lane, over ROWS keys.
template <bool WINDOWED, int ROWS>
PANET_INLINE void update_statistics(const float* scores, i64 ld, const float* hidden, i64 hidden_ld, const float* scale,
                                    float* maximum, float* sum) {
    Vec t[ROWS];
    Vec top = load(maximum);
    const Vec old = top;
    PANET_UNROLL
    for (int r = 0; r < ROWS; ++r) {
        t[r] = rounded(diagonal(scores + r * ld, ld) * (scale[r] * LOG2_E));
        t[r] = seen<WINDOWED>(hidden + r * hidden_ld, t[r], HIDDEN);
        top = larger(t[r], top);
    }
    Vec total = load(sum) * exp2_or_zero(old - top);
    PANET_UNROLL
    for (int r = 0; r < ROWS; ++r) total += exp2_or_zero(t[r] - top);
    store(maximum, top);
    store(sum, total);
}

// Adds a row to those of the two previous query rows of the diagonal; `before` may be where the row itself is kept.
struct Sums {
    const float *previous, *before;
    float* sum;
    PANET_INLINE Vec two(i64 x) const { return load(before + x) + load(previous + x); }
    void of_two(i64 width) const {
        for (i64 x = 0; x < width; x += LANES) store(sum + x, two(x));
    }
};

// Weights of one key for a row of queries.
template <bool WINDOWED>
void weigh(const float* score, i64 ld, const float* hidden, float scale, const float* maximum, const float* factor,
           i64 width, float* weights, Sums sums) {
    for (i64 x = 0; x < width; x += LANES) {
        const Vec two = sums.two(x), t = seen<WINDOWED>(hidden + x, rounded(diagonal(score + x, ld) * scale), HIDDEN);
        const Vec weight = exp2_or_zero(t - load(maximum + x)) * load(factor + x);
        store(weights + x, weight);
        store(sums.sum + x, two + weight);
    }
}

// The same and the gradients of the scores; returns the gradient of the key's scale.
template <bool WINDOWED>
float differentiate(const float* score, const float* dweight, i64 ld, const float* hidden, float scale,
                    const float* maximum, const float* factor, const float* dot, i64 width, float* weights,
                    float* dscores, Sums sums, Sums dsums) {
    Vec dscale = {};
    for (i64 x = 0; x < width; x += LANES) {
        const Vec two = sums.two(x), dtwo = dsums.two(x);
        const Vec s = seen<WINDOWED>(hidden + x, diagonal(score + x, ld), 0.f);
        const Vec t = seen<WINDOWED>(hidden + x, rounded(s * (scale * LOG2_E)), HIDDEN);
        const Vec weight = exp2_or_zero(t - load(maximum + x)) * load(factor + x);
        const Vec slope = diagonal(dweight + x, ld) - load(dot + x);
        const Vec d = seen<WINDOWED>(hidden + x, weight * slope, 0.f), scaled = d * scale;
        dscale += d * s;
        store(weights + x, weight);
        store(dscores + x, scaled);
        store(sums.sum + x, two + weight);
        store(dsums.sum + x, dtwo + scaled);
    }
    return sum_lanes(dscale);
}

}  // namespace
