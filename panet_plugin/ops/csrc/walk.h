// The walk along the diagonals.

#pragma once

#include <algorithm>
#include <type_traits>

#include "operands.h"
#include "platform.h"
#include "problem.h"
#include "products.h"
#include "scratch.h"
#include "softmax.h"
#include "tiles.h"
#include "tiling.h"
#include "vectors.h"

namespace {

enum class Pass { statistics, output, dot, gradient };

// Everything one walk over a set of row pairs reads and writes. Query-side arrays are those of one tile and
// start at query row 0, or at `first` if noted.
struct Walk {
    const Problem* problem;
    i64 item, tile_width, key_block;
    Range columns, owned, query_rows;         // of the tile with its borders and without; owned query rows
    const float *query, *grad;                // [row][channel slot][column]
    const float *query_pixels, *grad_pixels;  // [row][column slot][channel]
    const float *key, *value;                 // of the level, to be summed over channels
    const float *key_rows, *value_rows;       // and over columns
    // Per query, [row][column]: weights are 2^(score - maximum) * factor; maximum is +inf in columns not owned.
    float *maximum, *factor, *dot;
    i64 first;                      // first row of out
    float* out;                     // [row - first][channel][column]: output or gradient of the query
    float *dkey, *dvalue, *dscale;  // of the level: [row - grown key row][column][channel]; (h, w)
};

// A walk over a tile of queries; the arrays that it reads and writes are missing.
Walk walk_over(const Problem& problem, const Tiling& tiling, const Borders& borders, i64 item) {
    Walk walk{};
    walk.problem = &problem;
    walk.item = item;
    walk.tile_width = tiling.tile_width;
    walk.key_block = tiling.key_block;
    walk.columns = borders.all;
    walk.owned = borders.owned;
    return walk;
}

template <Pass PASS, class T, bool WINDOWED>
class Walker {
  public:
    Walker(const Walk& walk, i64 level, Scratch<T>& scratch, Range key_rows)
        : walk_(walk), problem_(*walk.problem), scratch_(scratch), level_(level) {
        height_ = problem_.level_height[level];
        width_ = problem_.level_width[level];
        scale_ = problem_.scales[level] + walk_.item * height_ * width_;
        key_rows_ = key_rows;
        if (key_rows.size() <= 0) return;
        Range columns{0, width_};
        if constexpr (WINDOWED) columns = Sight(problem_, level).columns(walk_.owned);
        const i64 blocks = (columns.size() + walk_.key_block - 1) / walk_.key_block;
        for (i64 i = 0; i < blocks; ++i) {
            const Range part = part_of(columns.size(), blocks, i);
            block({columns.begin + part.begin, columns.begin + part.end});
        }
    }

  private:
    static constexpr bool has_grad = PASS == Pass::dot || PASS == Pass::gradient;
    static constexpr bool has_box = PASS == Pass::output || PASS == Pass::gradient;

    void block(Range owned) {
        columns_ = owned.grown(width_);
        columns_.begin -= columns_.begin % T::TERMS;
        owned_ = {owned.begin - columns_.begin, owned.end - columns_.begin};
        if constexpr (WINDOWED) hide();
        if constexpr (T::ROWS > 1 && has_box) {
            // What fills up tiles stays zero.
            scratch_.planes.clear(Plane::boxed_weights);
            if (PASS == Pass::gradient) scratch_.planes.clear(Plane::boxed_dscores);
        }
        Range shifts{key_rows_.begin - (walk_.query_rows.end - 1), key_rows_.end - walk_.query_rows.begin};
        if constexpr (WINDOWED) {
            const Range seen = Sight(problem_, level_).shifts(walk_.query_rows);
            shifts = {std::max(shifts.begin, seen.begin), std::min(shifts.end, seen.end)};
        }
        for (i64 shift = shifts.begin; shift < shifts.end; ++shift) {
            const Range rows{std::max(walk_.query_rows.begin, key_rows_.begin - shift),
                             std::min(walk_.query_rows.end, key_rows_.end - shift)};
            if constexpr (!WINDOWED) {
                if (rows.size() > 0) diagonal_of(shift, rows);
            } else {
                const Sight sight(problem_, level_);
                for (i64 begin = rows.begin, end; begin < rows.end; begin = end + 1) {
                    for (end = begin; end < rows.end && sight.row(end, end + shift);) ++end;
                    if (begin < end) diagonal_of(shift, {begin, end});
                }
            }
        }
    }

    // Pairs of rows (query, query + shift) with weights in the given rows of queries.
    void diagonal_of(i64 shift, Range rows) {
        const Range queries = walk_.query_rows.grown(problem_.height), keys = key_rows_.grown(height_);
        first_ = rows.begin;
        last_ = rows.end - 1;
        begin_ = std::max({first_ - 1, queries.begin, keys.begin - shift});
        end_ = std::min({last_ + 1, queries.end - 1, keys.end - 1 - shift});
        for (i64 row = begin_; row <= end_ + (has_box ? 2 : 1); ++row) step(row, shift);
    }

    // Notes which queries of the tile do not see which keys of the block.
    void hide() {
        const Sight sight(problem_, level_);
        for (i64 r = 0; r < columns_.size(); ++r)
            for (i64 x = 0; x < walk_.tile_width; ++x)
                scratch_.hidden.get()[r * walk_.tile_width + x] =
                    x < walk_.columns.size() && sight.column(walk_.columns.begin + x, columns_.begin + r) ? 0.f
                                                                                                          : HIDDEN;
    }

    // The keys of the block, of begin..end, that queries of a vector see.
    Range seen_by(i64 x, Range keys) const {
        if constexpr (!WINDOWED) return keys;
        if (x >= walk_.columns.size()) return {keys.begin, keys.begin};
        const i64 first = walk_.columns.begin + x, last = std::min(first + LANES, walk_.columns.end);
        const Range all = Sight(problem_, level_).columns({first, last});
        const i64 begin = std::max(keys.begin, all.begin - columns_.begin);
        return {begin, std::max(begin, std::min(keys.end, all.end - columns_.begin))};
    }

    // Products of query row `row`, weights of the row before, pasted values of the one before that: a row of weights
    // needs the products of both its neighbors. Cut into windows of key columns, each stage one column behind.
    void step(i64 row, i64 shift) {
        const bool weights = first_ <= row - 1 && row - 1 <= last_, box = has_box && begin_ <= row - 2;
        const i64 columns = columns_.size();
        for (i64 begin = 0, done = 0, boxed = 0;; begin += Scratch<T>::ROWS) {
            const i64 end = std::min(begin + Scratch<T>::ROWS, columns), ready = end == columns ? columns : end - 1;
            products(row, row + shift, begin, end, scratch_.scores, Plane::key_products, walk_.query,
                     problem_.key_channels, walk_.key);
            if constexpr (has_grad)
                products(row, row + shift, begin, end, scratch_.dweights, Plane::value_products, walk_.grad,
                         problem_.value_channels, walk_.value);
            if constexpr (PASS == Pass::statistics) {
                if (weights) statistics(row - 1, row - 1 + shift, done, ready);
            } else if constexpr (PASS == Pass::dot) {
                if (weights) dot(row - 1, row - 1 + shift, done, ready);
            } else if (weights || box) {
                if constexpr (PASS == Pass::output) output(weights, row - 1, row - 1 + shift, done, ready);
                if constexpr (PASS == Pass::gradient) gradient(weights, row - 1, row - 1 + shift, done, ready);
                const i64 finished = ready == columns ? columns : ready - 1;
                sum_diagonals(scratch_.sums, scratch_.planes[Plane::boxed_weights], boxed, finished);
                if constexpr (PASS == Pass::gradient)
                    sum_diagonals(scratch_.dsums, scratch_.planes[Plane::boxed_dscores], boxed, finished);
                boxed = finished;
            }
            done = ready;
            if (end == columns) break;
        }
        if constexpr (PASS == Pass::output) {
            if (box)
                add_to_queries(walk_.value_rows, problem_.value_channels, row - 2, row - 2 + shift,
                               scratch_.planes[Plane::boxed_weights]);
        }
        if constexpr (PASS == Pass::gradient) {
            if (!box) return;
            add_to_keys(scratch_.planes[Plane::boxed_weights], walk_.grad_pixels, problem_.value_channels, row - 2,
                        row - 2 + shift, walk_.dvalue);
            add_to_keys(scratch_.planes[Plane::boxed_dscores], walk_.query_pixels, problem_.key_channels, row - 2,
                        row - 2 + shift, walk_.dkey);
            add_to_queries(walk_.key_rows, problem_.key_channels, row - 2, row - 2 + shift,
                           scratch_.planes[Plane::boxed_dscores]);
        }
    }

    // Zeros for rows without products or weights.
    const float* products_of(Plane plane, i64 row) const {
        return begin_ <= row && row <= end_ ? scratch_.planes.of_row(plane, row) : scratch_.planes[Plane::zeros];
    }
    const float* weights_of(Plane plane, i64 row) const {
        return first_ <= row && row <= last_ ? scratch_.planes.of_row(plane, row) : scratch_.planes[Plane::zeros];
    }

    void products(i64 row, i64 key_row, i64 begin, i64 end, Window& window, Plane plane, const float* queries,
                  i64 channels, const float* keys) {
        const i64 width = walk_.tile_width;
        window.move_to(begin);
        float* sum = window.matrix();
        const float *previous = products_of(plane, row - 1), *before = products_of(plane, row - 2);
        if (row <= end_) {
            const i64 depth = slots_of<T>(channels);
            const i64 pixel = key_row * width_ + columns_.begin;
            const bool tiles = T::ROWS > 1;
            multiply(T{},
                     {tiles ? keys + pixel * depth : keys + pixel, tiles ? depth : 1, tiles ? 1 : height_ * width_,
                      queries + row * depth * width, width, static_cast<int>(depth)},
                     SumOfThree{scratch_.planes.of_row(plane, row), sum, previous, before, width, window.ld()}, begin,
                     end, width);
        } else {
            for (i64 r = begin; r < end; ++r)
                for (i64 x = 0; x < width; x += LANES)
                    store(sum + r * window.ld() + x, load(before + r * width + x) + load(previous + r * width + x));
        }
        if (end == columns_.size()) window.clear(end, end + 1);
    }

    void statistics(i64 query_row, i64 key_row, i64 begin, i64 end) {
        const float* scale = scale_ + key_row * width_ + columns_.begin;
        const float* scores = scratch_.scores.matrix();
        const i64 ld = scratch_.scores.ld(), query = query_row * walk_.tile_width;
        const i64 width = walk_.tile_width;
        const float* hidden = scratch_.hidden.get();
        for (i64 x = 0; x < width; x += LANES) {
            float *maximum = walk_.maximum + query + x, *sum = walk_.factor + query + x;
            const Range keys = seen_by(x, {std::max(begin, owned_.begin), std::min(end, owned_.end)});
            auto update = [&](i64 r, auto rows) {
                update_statistics<WINDOWED, rows>(scores + r * ld + x, ld, hidden + r * width + x, width, scale + r,
                                                  maximum, sum);
            };
            i64 r = keys.begin;
            for (; r + 8 <= keys.end; r += 8) update(r, std::integral_constant<int, 8>{});
            for (; r + 3 <= keys.end; r += 3) update(r, std::integral_constant<int, 3>{});
            for (; r < keys.end; ++r) update(r, std::integral_constant<int, 1>{});
        }
    }

    void dot(i64 query_row, i64 key_row, i64 begin, i64 end) {
        const float* scale = scale_ + key_row * width_ + columns_.begin;
        const float *scores = scratch_.scores.matrix(), *dweights = scratch_.dweights.matrix();
        const i64 ld = scratch_.scores.ld(), query = query_row * walk_.tile_width;
        for (i64 x = 0; x < walk_.tile_width; x += LANES) {
            const Vec maximum = load(walk_.maximum + query + x);
            Vec sum = load(walk_.factor + query + x), dot = load(walk_.dot + query + x);
            const Range keys = seen_by(x, {std::max(begin, owned_.begin), std::min(end, owned_.end)});
            for (i64 r = keys.begin; r < keys.end; ++r) {
                const float* hidden = scratch_.hidden.get() + r * walk_.tile_width + x;
                const Vec score = rounded(diagonal(scores + r * ld + x, ld) * (scale[r] * LOG2_E));
                const Vec weight = exp2_or_zero(seen<WINDOWED>(hidden, score, HIDDEN) - maximum);
                sum += weight;
                dot += seen<WINDOWED>(hidden, weight * diagonal(dweights + r * ld + x, ld), 0.f);
            }
            store(walk_.factor + query + x, sum);
            store(walk_.dot + query + x, dot);
        }
    }

    // Moves the window on and calls body(key column, its row in the window) for the owned ones; others become zero.
    template <class Body>
    void for_owned(Window& window, i64 begin, i64 end, const Body& body) {
        window.move_to(begin);
        const i64 from = std::min(std::max(begin, owned_.begin), end), to = std::max(std::min(end, owned_.end), from);
        window.clear(begin, from);
        window.clear(to, end == columns_.size() ? end + 1 : end);
        for (i64 r = from; r < to; ++r) body(r, window.matrix() + r * window.ld());
    }

    void output(bool weights, i64 query_row, i64 key_row, i64 begin, i64 end) {
        const float* scales = scale_ + key_row * width_ + columns_.begin;
        const float *previous = weights_of(Plane::weights, query_row - 1),
                    *before = weights_of(Plane::weights, query_row - 2);
        const float *maximum = walk_.maximum + query_row * walk_.tile_width,
                    *factor = walk_.factor + query_row * walk_.tile_width;
        const i64 width = walk_.tile_width, ld = scratch_.scores.ld();
        for_owned(scratch_.sums, begin, end, [&](i64 r, float* sum) {
            const Sums sums{previous + r * width, before + r * width, sum};
            if (!weights) return sums.of_two(width);
            weigh<WINDOWED>(scratch_.scores.matrix() + r * ld, ld, scratch_.hidden.get() + r * width,
                            scales[r] * LOG2_E, maximum, factor, width,
                            scratch_.planes.of_row(Plane::weights, query_row) + r * width, sums);
        });
    }

    void gradient(bool weights, i64 query_row, i64 key_row, i64 begin, i64 end) {
        const float* scales = scale_ + key_row * width_ + columns_.begin;
        float* dscales = walk_.dscale + key_row * width_ + columns_.begin;
        const float *previous = weights_of(Plane::weights, query_row - 1),
                    *before = weights_of(Plane::weights, query_row - 2);
        const float *dprevious = weights_of(Plane::dscores, query_row - 1),
                    *dbefore = weights_of(Plane::dscores, query_row - 2);
        const i64 width = walk_.tile_width, query = query_row * width, ld = scratch_.scores.ld();
        for_owned(scratch_.dsums, begin, end, [](i64, float*) {});
        for_owned(scratch_.sums, begin, end, [&](i64 r, float* sum) {
            const Sums sums{previous + r * width, before + r * width, sum};
            const Sums dsums{dprevious + r * width, dbefore + r * width, scratch_.dsums.matrix() + r * ld};
            if (!weights) return sums.of_two(width), dsums.of_two(width);
            dscales[r] += differentiate<WINDOWED>(
                scratch_.scores.matrix() + r * ld, scratch_.dweights.matrix() + r * ld, ld,
                scratch_.hidden.get() + r * width, scales[r], walk_.maximum + query, walk_.factor + query,
                walk_.dot + query, width, scratch_.planes.of_row(Plane::weights, query_row) + r * width,
                scratch_.planes.of_row(Plane::dscores, query_row) + r * width, sums, dsums);
        });
    }

    // Makes operands of rows begin..end of a plane: with key columns in slots, [column slot][query]; of pairs, for the
    // gradients, also with queries in slots, [key column][query slot]. Only the last row may be without a neighbor.
    void sum_diagonals(const Window& from, float* plane, i64 begin, i64 end) {
        const i64 ld = from.ld(), width = walk_.tile_width;
        for (i64 r = begin; r < end; r += T::TERMS)
            for (i64 x = 0; x < width; x += LANES) {
                const float* p = from.matrix() + r * ld + x;
                float* by_keys = plane + r / T::TERMS * width + x;
                const Vec low = diagonal(p, ld);
                if constexpr (T::TERMS == 1) {
                    store(by_keys, low);
                } else {
                    const Vec high = r + 1 < end ? diagonal(p + ld, ld) : Vec{};
                    store(by_keys, T::slots(low, high));
                    if constexpr (PASS == Pass::gradient) {
                        const i64 slots = slots_of<T>(width);
                        float* by_queries = queries_in_slots(plane) + r * slots + x / T::TERMS;
                        T::store_lanes(by_queries, low);
                        if (r + 1 < end) T::store_lanes(by_queries + slots, high);
                    }
                }
            }
    }
    // Single numbers are both.
    float* queries_in_slots(float* plane) const {
        return T::TERMS == 1 ? plane : plane + slots_of<T>(columns_.size()) * walk_.tile_width;
    }

    // Adds keys or values times a boxed plane, to be summed over the key columns, to one row of queries.
    void add_to_queries(const float* rows, i64 channels, i64 query_row, i64 key_row, const float* plane) {
        const i64 width = walk_.tile_width, slots = slots_of<T>(width_);
        multiply(T{},
                 {rows + key_row * slots + columns_.begin / T::TERMS, height_ * slots, 1, plane, width,
                  static_cast<int>(slots_of<T>(columns_.size()))},
                 Accumulate{walk_.out + (query_row - walk_.first) * rows_of<T>(channels) * width, width}, 0, channels,
                 width);
    }

    // Adds a boxed plane times queries or the output's gradients, to be summed over the queries, to one row of keys.
    void add_to_keys(float* plane, const float* pixels, i64 channels, i64 query_row, i64 key_row, float* out) {
        const i64 padded = round_up(channels), slots = slots_of<T>(walk_.tile_width);
        const i64 row = (key_row - key_rows_.grown(height_).begin) * width_ + columns_.begin;
        multiply(T{},
                 {queries_in_slots(plane), slots, 1, pixels + query_row * slots * padded, padded,
                  static_cast<int>(slots_of<T>(walk_.columns.size()))},
                 Accumulate{out + row * padded, padded}, 0, columns_.size(), padded);
    }

    const Walk& walk_;
    const Problem& problem_;
    Scratch<T>& scratch_;
    i64 level_, height_, width_;
    const float* scale_;
    Range key_rows_;         // owned rows of the level
    Range columns_, owned_;  // the block's columns with borders; the owned ones, counted from columns_.begin
    i64 first_, last_;       // query rows with weights on the current diagonal (inclusive)
    i64 begin_, end_;        // query rows with products and pasted values (inclusive)
};

}  // namespace
