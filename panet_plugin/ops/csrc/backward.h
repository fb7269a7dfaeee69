// The gradients, in two passes: by queries, then by keys.

#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "operands.h"
#include "packing.h"
#include "parallel.h"
#include "platform.h"
#include "problem.h"
#include "scratch.h"
#include "tiling.h"
#include "vectors.h"
#include "walk.h"

namespace {

// Queries and the output's gradients by batch item, tile and row, as operands of sums over channels and over columns;
// and the statistics of the queries' softmax.
template <class T>
class QueryTiles {
  public:
    QueryTiles(const Problem& p, const Tiling& tiling, const float* log_sums)
        : problem_(p),
          tiling_(tiling),
          query_floats_(slots_of<T>(p.key_channels) * tiling.tile_width),
          grad_floats_(slots_of<T>(p.value_channels) * tiling.tile_width),
          query_pixel_floats_(slots_of<T>(tiling.tile_width) * round_up(p.key_channels)),
          grad_pixel_floats_(slots_of<T>(tiling.tile_width) * round_up(p.value_channels)) {
        const i64 rows = p.batch * tiling.tiles * p.height, tile = tiling.tile_width;
        query_ = zeros(rows * query_floats_);
        query_pixels_ = zeros(rows * query_pixel_floats_);
        grad_ = zeros(rows * grad_floats_);
        grad_pixels_ = zeros(rows * grad_pixel_floats_);
        maximum_ = zeros(rows * tile);
        factor_ = zeros(rows * tile);
        dot_ = zeros(rows * tile);
        parallel(rows, p.threads, [&](i64 row) { fill(row, log_sums); });
    }

    // The walk over the queries of a tile; the images of a level are missing.
    Walk walk(i64 item, i64 tile) const {
        const i64 first = (item * tiling_.tiles + tile) * problem_.height;
        const Borders borders(tiling_, problem_.width, tile);
        Walk walk = walk_over(problem_, tiling_, borders, item);
        walk.query_rows = {0, problem_.height};
        walk.query = query_.get() + first * query_floats_;
        walk.grad = grad_.get() + first * grad_floats_;
        walk.query_pixels = query_pixels_.get() + first * query_pixel_floats_;
        walk.grad_pixels = grad_pixels_.get() + first * grad_pixel_floats_;
        walk.maximum = maximum_.get() + first * walk.tile_width;
        walk.factor = factor_.get() + first * walk.tile_width;
        walk.dot = dot_.get() + first * walk.tile_width;
        return walk;
    }

  private:
    void fill(i64 index, const float* log_sums) {
        const i64 height = problem_.height, width = problem_.width, tile = tiling_.tile_width;
        const i64 ck = problem_.key_channels, cv = problem_.value_channels;
        const i64 y = index % height, item = index / (height * tiling_.tiles);
        const Borders borders(tiling_, width, index / height % tiling_.tiles);
        const Range all = borders.all, owned = borders.owned;
        const float* query = problem_.query + item * ck * height * width;
        const float* grad = problem_.grad + item * cv * height * width;
        float* query_pixels = query_pixels_.get() + index * query_pixel_floats_;
        float* grad_pixels = grad_pixels_.get() + index * grad_pixel_floats_;
        pack_rows<T>(query, ck, height, width, all, tile, 1.f, y, query_.get() + index * query_floats_);
        pack_rows<T>(grad, cv, height, width, all, tile, .25f, y, grad_.get() + index * grad_floats_);
        pack_pixels<T>(query, ck, height, width, all, tile, 1.f, y, query_pixels);
        pack_pixels<T>(grad, cv, height, width, all, tile, .25f, y, grad_pixels);
        float* row = maximum_.get() + index * tile;
        std::fill_n(row, tile, INFINITE);
        const float* log_sum = log_sums + (item * height + y) * width;
        std::copy(log_sum + owned.begin, log_sum + owned.end, row + (owned.begin - all.begin));
    }

    const Problem& problem_;
    const Tiling& tiling_;
    const i64 query_floats_, grad_floats_, query_pixel_floats_, grad_pixel_floats_;  // of a row of a tile
    Buffer query_, query_pixels_, grad_, grad_pixels_, maximum_, factor_, dot_;
};

// First pass: the mean of the weights' gradients under the weights, per query. A logarithm in 32 bits is too coarse
// to normalize the weights of a large softmax scale, so their sum is taken again.
template <class T, bool WINDOWED>
bool take_means(const Problem& p, const Tiling& tiling, const QueryTiles<T>& queries, const Images<T>& keys,
                const Images<T>& values) {
    const i64 tile = tiling.tile_width;
    const i64 strips = parts_per_item(p.batch * tiling.tiles, p.height, p.threads, (p.height + STRIP - 1) / STRIP);
    return parallel(p.batch * tiling.tiles * strips, p.threads, [&](i64 task) {
        Walk walk = queries.walk(task / (tiling.tiles * strips), task / strips % tiling.tiles);
        walk.query_rows = part_of(p.height, strips, task % strips);
        const Unit<T> unit;
        Scratch<T> scratch(tiling, BACKWARD_PLANES, p.visible);
        for (i64 level = 0; level < p.levels; ++level) {
            walk.key = keys.of(level, walk.item);
            walk.value = values.of(level, walk.item);
            Walker<Pass::dot, T, WINDOWED>(walk, level, scratch, {0, p.level_height[level]});
        }
        for (i64 i = walk.query_rows.begin * tile; i < walk.query_rows.end * tile; ++i) {
            if (walk.factor[i] == 0.f) continue;  // not an owned column
            walk.factor[i] = 1.f / walk.factor[i];
            walk.dot[i] *= walk.factor[i];
        }
    });
}

// What the tasks of the second pass add up, each for a part of the key rows of every level: gradients of all queries,
// and of the keys and values of its rows and a border of one.
template <class T>
class PartialSums {
  public:
    const i64 parts;  // per batch item

    PartialSums(const Problem& p, const Tiling& tiling)
        : parts(parts_per_item(p.batch, tallest_level(p), p.threads)),
          problem_(p),
          tiling_(tiling),
          row_floats_(rows_of<T>(p.key_channels) * tiling.tile_width),
          query_(zeros(p.batch * parts * tiling.tiles * p.height * row_floats_)),
          offset_(p.levels * parts + 1) {
        for (i64 i = 0; i < p.levels * parts; ++i) {
            const i64 level = i / parts, height = p.level_height[level];
            const Range rows = part_of(height, parts, i % parts);
            const i64 pixels = rows.grown(height).size() * p.level_width[level] + T::ROWS - 1;
            offset_[i + 1] = offset_[i] + (rows.size() > 0 ? pixels : 0);
        }
        keys_ = zeros(p.batch * offset_.back() * round_up(p.key_channels));
        values_ = zeros(p.batch * offset_.back() * round_up(p.value_channels));
    }
    float* query(i64 item, i64 part, i64 tile) const {
        return query_.get() + ((item * parts + part) * tiling_.tiles + tile) * problem_.height * row_floats_;
    }
    float* keys(i64 item, i64 level, i64 part) const {
        return keys_.get() + pixel(item, level, part) * round_up(problem_.key_channels);
    }
    float* values(i64 item, i64 level, i64 part) const {
        return values_.get() + pixel(item, level, part) * round_up(problem_.value_channels);
    }
    i64 row_floats() const { return row_floats_; }  // of the query's gradients

  private:
    i64 pixel(i64 item, i64 level, i64 part) const { return item * offset_.back() + offset_[level * parts + part]; }

    const Problem& problem_;
    const Tiling& tiling_;
    const i64 row_floats_;
    Buffer query_, keys_, values_;
    std::vector<i64> offset_;  // in pixels, of every level's and part's key rows with borders
};

// Second pass: by key rows, because the gradients of all levels' keys and values are larger than the query's.
template <class T, bool WINDOWED>
bool take_gradients(const Problem& p, const Tiling& tiling, const QueryTiles<T>& queries, const Images<T>& keys,
                    const Images<T>& key_rows, const Images<T>& values, const PartialSums<T>& sums,
                    float* const* dscales) {
    return parallel(p.batch * sums.parts, p.threads, [&](i64 task) {
        const i64 item = task / sums.parts, part = task % sums.parts;
        const Unit<T> unit;
        Scratch<T> scratch(tiling, BACKWARD_PLANES, p.visible);
        for (i64 t = 0; t < tiling.tiles; ++t) {
            Walk walk = queries.walk(item, t);
            walk.out = sums.query(item, part, t);
            for (i64 level = 0; level < p.levels; ++level) {
                const i64 height = p.level_height[level];
                walk.key = keys.of(level, item);
                walk.key_rows = key_rows.of(level, item);
                walk.value = values.of(level, item);
                walk.dkey = sums.keys(item, level, part);
                walk.dvalue = sums.values(item, level, part);
                walk.dscale = dscales[level] + item * height * p.level_width[level];
                Walker<Pass::gradient, T, WINDOWED>(walk, level, scratch, part_of(height, sums.parts, part));
            }
        }
    });
}

// Adds up the parts and the overlapping tiles, in a fixed order.
template <class T>
bool add_query_sums(const Problem& p, const Tiling& tiling, const PartialSums<T>& sums, float* dquery) {
    const i64 channels = p.key_channels, tile = tiling.tile_width;
    return parallel(p.batch * p.height, p.threads, [&](i64 index) {
        const i64 item = index / p.height, y = index % p.height;
        for (i64 part = 0; part < sums.parts; ++part)
            for (i64 t = 0; t < tiling.tiles; ++t) {
                const Range columns = Borders(tiling, p.width, t).all;
                const float* in = sums.query(item, part, t) + y * sums.row_floats();
                for (i64 c = 0; c < channels; ++c) {
                    float* o = dquery + ((item * channels + c) * p.height + y) * p.width + columns.begin;
                    for (i64 x = 0; x < columns.size(); ++x) o[x] += in[c * tile + x];
                }
            }
    });
}

// Adds `rows` of a part, [row][column][channel], to an image of (channels, height, width).
void add_key_rows(const float* in, i64 channels, i64 height, i64 width, Range rows, float* out) {
    const i64 padded = round_up(channels);
    for (i64 y = rows.begin; y < rows.end; ++y, in += width * padded)
        for (i64 c = 0; c < channels; ++c) {
            float* o = out + (c * height + y) * width;
            for (i64 x = 0; x < width; ++x) o[x] += in[x * padded + c];
        }
}

// Adds up the parts, whose borders overlap, in a fixed order.
template <class T>
bool add_key_sums(const Problem& p, const PartialSums<T>& sums, float* const* dkeys, float* const* dvalues) {
    return parallel(p.batch * p.levels, p.threads, [&](i64 index) {
        const i64 item = index / p.levels, level = index % p.levels;
        const i64 height = p.level_height[level], width = p.level_width[level];
        float* dkey = dkeys[level] + item * p.key_channels * height * width;
        float* dvalue = dvalues[level] + item * p.value_channels * height * width;
        for (i64 part = 0; part < sums.parts; ++part) {
            const Range owned = part_of(height, sums.parts, part), rows = owned.grown(height);
            if (owned.size() <= 0) continue;
            add_key_rows(sums.keys(item, level, part), p.key_channels, height, width, rows, dkey);
            add_key_rows(sums.values(item, level, part), p.value_channels, height, width, rows, dvalue);
        }
    });
}

template <class T, bool WINDOWED>
bool backward(const Problem& p, const float* log_sums, float* dquery, float* const* dkeys, float* const* dscales,
              float* const* dvalues) {
    const Tiling tiling(p, PLANE);
    const QueryTiles<T> queries(p, tiling, log_sums);
    const Images<T> keys(p, p.keys, p.key_channels, SumOver::channels);
    const Images<T> key_rows(p, p.keys, p.key_channels, SumOver::columns);
    const Images<T> values(p, p.values, p.value_channels, SumOver::channels);
    if (!take_means<T, WINDOWED>(p, tiling, queries, keys, values)) return false;
    const PartialSums<T> sums(p, tiling);
    return take_gradients<T, WINDOWED>(p, tiling, queries, keys, key_rows, values, sums, dscales) &&
           add_query_sums(p, tiling, sums, dquery) && add_key_sums(p, sums, dkeys, dvalues);
}

}  // namespace
