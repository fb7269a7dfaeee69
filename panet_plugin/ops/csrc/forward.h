// The output, in two passes: the softmax's statistics, then the pasted values.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "buffer.h"
#include "operands.h"
#include "packing.h"
#include "parallel.h"
#include "platform.h"
#include "problem.h"
#include "scratch.h"
#include "tiling.h"
#include "walk.h"

namespace {

// The output's sums of the tasks: each adds to the rows of a strip of a tile, and to a border of one row.
template <class T>
class PastedStrips {
  public:
    const i64 strips, tasks;  // strips per tile; tasks of all batch items, tiles and strips

    PastedStrips(const Problem& p, const Tiling& tiling)
        : strips(parts_per_item(p.batch * tiling.tiles, p.height, p.threads, (p.height + STRIP - 1) / STRIP)),
          tasks(p.batch * tiling.tiles * strips),
          problem_(p),
          tiling_(tiling),
          row_floats_(rows_of<T>(p.value_channels) * tiling.tile_width),
          strip_floats_(((p.height + strips - 1) / strips + 2) * row_floats_),
          pasted_(zeros(tasks * strip_floats_)) {}
    i64 item(i64 task) const { return task / (tiling_.tiles * strips); }
    i64 tile(i64 task) const { return task / strips % tiling_.tiles; }
    Range rows(i64 task) const { return part_of(problem_.height, strips, task % strips); }
    float* of(i64 task) const { return pasted_.get() + task * strip_floats_; }

    // Adds up one row of the output. Borders of neighboring tasks overlap: the order is fixed.
    void add_row(i64 item, i64 y, float* out) const {
        const Problem& p = problem_;
        for (i64 t = 0; t < tiling_.tiles; ++t) {
            const Borders borders(tiling_, p.width, t);
            for (i64 strip = 0; strip < strips; ++strip) {
                const i64 task = (item * tiling_.tiles + t) * strips + strip;
                const Range all = rows(task).grown(p.height);
                if (y < all.begin || y >= all.end) continue;
                const float* in = of(task) + (y - all.begin) * row_floats_;
                for (i64 c = 0; c < p.value_channels; ++c) {
                    float* o = out + ((item * p.value_channels + c) * p.height + y) * p.width + borders.all.begin;
                    for (i64 x = 0; x < borders.all.size(); ++x) o[x] += .25f * in[c * tiling_.tile_width + x];
                }
            }
        }
    }

  private:
    const Problem& problem_;
    const Tiling& tiling_;
    const i64 row_floats_, strip_floats_;
    Buffer pasted_;
};

// The queries of a strip of a tile with a border of one row, and the statistics of their softmax.
template <class T>
class QueryStrip {
  public:
    QueryStrip(const Problem& p, const Tiling& tiling, i64 item, i64 tile, Range rows)
        : problem_(p),
          tiling_(tiling),
          borders_(tiling, p.width, tile),
          item_(item),
          rows_(rows),
          all_rows_(rows.grown(p.height)),
          query_floats_(slots_of<T>(p.key_channels) * tiling.tile_width),
          query_(zeros(all_rows_.size() * query_floats_)),
          maximum_(zeros(rows.size() * tiling.tile_width)),
          sum_(zeros(rows.size() * tiling.tile_width)) {
        const float* image = p.query + item * p.key_channels * p.height * p.width;
        for (i64 y = all_rows_.begin; y < all_rows_.end; ++y)
            pack_rows<T>(image, p.key_channels, p.height, p.width, borders_.all, tiling.tile_width, 1.f, y,
                         query_.get() + (y - all_rows_.begin) * query_floats_);
        std::fill_n(maximum_.get(), rows.size() * tiling.tile_width, -std::numeric_limits<float>::max());
    }

    // The walk over these queries, which adds to `out`; the images of a level are missing.
    Walk walk(float* out) const {
        Walk walk = walk_over(problem_, tiling_, borders_, item_);
        walk.query_rows = rows_;
        walk.query = query_.get() - all_rows_.begin * query_floats_;
        walk.maximum = maximum_.get() - rows_.begin * tiling_.tile_width;
        walk.factor = sum_.get() - rows_.begin * tiling_.tile_width;
        walk.first = all_rows_.begin;
        walk.out = out;
        return walk;
    }

    // After the first pass: turns sums of exponentials into factors, and returns the normalizers of the image.
    void normalize(float* log_sums) {
        const i64 tile = tiling_.tile_width;
        for (i64 y = rows_.begin; y < rows_.end; ++y) {
            float *top = maximum_.get() + (y - rows_.begin) * tile, *total = sum_.get() + (y - rows_.begin) * tile;
            for (i64 x = 0; x < tile; ++x) {
                const i64 column = borders_.all.begin + x;
                if (borders_.owned.begin <= column && column < borders_.owned.end) {
                    log_sums[(item_ * problem_.height + y) * problem_.width + column] = top[x] + std::log2(total[x]);
                    total[x] = 1.f / total[x];
                } else {
                    top[x] = INFINITE;
                    total[x] = 0.f;
                }
            }
        }
    }

  private:
    const Problem& problem_;
    const Tiling& tiling_;
    const Borders borders_;
    const i64 item_;
    const Range rows_, all_rows_;
    const i64 query_floats_;  // of a row
    Buffer query_, maximum_, sum_;
};

// Both passes over the keys of all levels, for one strip of queries.
template <class T, bool WINDOWED>
void paste_strip(const Problem& p, const Tiling& tiling, QueryStrip<T>& strip, const Images<T>& keys,
                 const Images<T>& values, float* out, float* log_sums) {
    const Unit<T> unit;
    Scratch<T> scratch(tiling, FORWARD_PLANES, p.visible);
    Walk walk = strip.walk(out);
    for (i64 level = 0; level < p.levels; ++level) {
        walk.key = keys.of(level, walk.item);
        Walker<Pass::statistics, T, WINDOWED>(walk, level, scratch, {0, p.level_height[level]});
    }
    strip.normalize(log_sums);
    for (i64 level = 0; level < p.levels; ++level) {
        walk.key = keys.of(level, walk.item);
        walk.value_rows = values.of(level, walk.item);
        Walker<Pass::output, T, WINDOWED>(walk, level, scratch, {0, p.level_height[level]});
    }
}

template <class T, bool WINDOWED>
bool forward(const Problem& p, float* out, float* log_sums) {
    const Tiling tiling(p, PLANE);
    const PastedStrips<T> pasted(p, tiling);
    const Images<T> keys(p, p.keys, p.key_channels, SumOver::channels);
    const Images<T> values(p, p.values, p.value_channels, SumOver::columns);
    const bool ok = parallel(pasted.tasks, p.threads, [&](i64 task) {
        QueryStrip<T> strip(p, tiling, pasted.item(task), pasted.tile(task), pasted.rows(task));
        paste_strip<T, WINDOWED>(p, tiling, strip, keys, values, pasted.of(task), log_sums);
    });
    return ok && parallel(p.batch * p.height, p.threads,
                          [&](i64 index) { pasted.add_row(index / p.height, index % p.height, out); });
}

}  // namespace
