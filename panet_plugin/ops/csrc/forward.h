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

template <class T, bool WINDOWED>
bool forward(const Problem& p, float* out, float* log_sums) {
    const Tiling tiling(p, PLANE);
    const i64 strips = parts_per_item(p.batch * tiling.tiles, p.height, p.threads, (p.height + STRIP - 1) / STRIP);
    const i64 tile = tiling.tile_width, tasks = p.batch * tiling.tiles * strips;
    const i64 query_floats = slots_of<T>(p.key_channels) * tile;
    const i64 row_floats = rows_of<T>(p.value_channels) * tile, strip_rows = (p.height + strips - 1) / strips + 2;
    Buffer pasted = zeros(tasks * strip_rows * row_floats);
    const Images<T> keys(p, p.keys, p.key_channels, SumOver::channels);
    const Images<T> values(p, p.values, p.value_channels, SumOver::columns);
    auto task_pasted = [&](i64 task) { return pasted.get() + task * strip_rows * row_floats; };

    bool ok = parallel(tasks, p.threads, [&](i64 task) {
        const i64 item = task / (tiling.tiles * strips), strip = task % strips;
        const Borders borders(tiling, p.width, task / strips % tiling.tiles);
        const Range rows = part_of(p.height, strips, strip), all_rows = rows.grown(p.height);
        Buffer query = zeros(all_rows.size() * query_floats);
        const float* image = p.query + item * p.key_channels * p.height * p.width;
        for (i64 y = all_rows.begin; y < all_rows.end; ++y)
            pack_rows<T>(image, p.key_channels, p.height, p.width, borders.all, tile, 1.f, y,
                         query.get() + (y - all_rows.begin) * query_floats);
        Buffer maximum = zeros(rows.size() * tile), sum = zeros(rows.size() * tile);
        std::fill_n(maximum.get(), rows.size() * tile, -std::numeric_limits<float>::max());
        const Unit<T> unit;
        Scratch<T> scratch(tiling, FORWARD_PLANES, p.visible);

        Walk walk{};
        walk.problem = &p;
        walk.item = item;
        walk.tile_width = tile;
        walk.key_block = tiling.key_block;
        walk.columns = borders.all;
        walk.owned = borders.owned;
        walk.query_rows = rows;
        walk.query = query.get() - all_rows.begin * query_floats;
        walk.maximum = maximum.get() - rows.begin * tile;
        walk.factor = sum.get() - rows.begin * tile;
        walk.first = all_rows.begin;
        walk.out = task_pasted(task);
        for (i64 level = 0; level < p.levels; ++level) {
            walk.key = keys.of(level, item);
            Walker<Pass::statistics, T, WINDOWED>(walk, level, scratch, {0, p.level_height[level]});
        }
        for (i64 y = rows.begin; y < rows.end; ++y) {
            float *top = walk.maximum + y * tile, *total = walk.factor + y * tile;
            for (i64 x = 0; x < tile; ++x) {
                const i64 column = borders.all.begin + x;
                if (borders.owned.begin <= column && column < borders.owned.end) {
                    log_sums[(item * p.height + y) * p.width + column] = top[x] + std::log2(total[x]);
                    total[x] = 1.f / total[x];
                } else {
                    top[x] = INFINITE;
                    total[x] = 0.f;
                }
            }
        }
        for (i64 level = 0; level < p.levels; ++level) {
            walk.key = keys.of(level, item);
            walk.value_rows = values.of(level, item);
            Walker<Pass::output, T, WINDOWED>(walk, level, scratch, {0, p.level_height[level]});
        }
    });
    if (!ok) return false;

    // Borders of neighbouring tasks overlap: add them in a fixed order.
    return parallel(p.batch * p.height, p.threads, [&](i64 index) {
        const i64 item = index / p.height, y = index % p.height;
        for (i64 t = 0; t < tiling.tiles; ++t) {
            const Borders borders(tiling, p.width, t);
            for (i64 strip = 0; strip < strips; ++strip) {
                const Range rows = part_of(p.height, strips, strip).grown(p.height);
                if (y < rows.begin || y >= rows.end) continue;
                const float* in =
                    task_pasted((item * tiling.tiles + t) * strips + strip) + (y - rows.begin) * row_floats;
                for (i64 c = 0; c < p.value_channels; ++c) {
                    float* o = out + ((item * p.value_channels + c) * p.height + y) * p.width + borders.all.begin;
                    for (i64 x = 0; x < borders.all.size(); ++x) o[x] += .25f * in[c * tile + x];
                }
            }
        }
    });
}

}  // namespace
