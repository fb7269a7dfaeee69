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

template <class T, bool WINDOWED>
bool backward(const Problem& p, const float* log_sums, float* dquery, float* const* dkeys, float* const* dscales,
              float* const* dvalues) {
    const Tiling tiling(p, PLANE);
    const i64 tile = tiling.tile_width, ck = p.key_channels, cv = p.value_channels;
    const i64 ck_padded = round_up(ck), cv_padded = round_up(cv), tile_rows = p.batch * tiling.tiles * p.height;
    const i64 query_floats = slots_of<T>(ck) * tile, query_pixel_floats = slots_of<T>(tile) * ck_padded;
    const i64 grad_floats = slots_of<T>(cv) * tile, grad_pixel_floats = slots_of<T>(tile) * cv_padded;
    Buffer query = zeros(tile_rows * query_floats), query_pixels = zeros(tile_rows * query_pixel_floats);
    Buffer grad = zeros(tile_rows * grad_floats), grad_pixels = zeros(tile_rows * grad_pixel_floats);
    const Images<T> keys(p, p.keys, ck, SumOver::channels), key_rows(p, p.keys, ck, SumOver::columns);
    const Images<T> values(p, p.values, cv, SumOver::channels);
    Buffer maximum = zeros(tile_rows * tile), factor = zeros(tile_rows * tile), dot = zeros(tile_rows * tile);
    bool ok = parallel(tile_rows, p.threads, [&](i64 index) {
        const i64 y = index % p.height, item = index / (p.height * tiling.tiles);
        const Borders borders(tiling, p.width, index / p.height % tiling.tiles);
        const float* q = p.query + item * ck * p.height * p.width;
        const float* g = p.grad + item * cv * p.height * p.width;
        pack_rows<T>(q, ck, p.height, p.width, borders.all, tile, 1.f, y, query.get() + index * query_floats);
        pack_rows<T>(g, cv, p.height, p.width, borders.all, tile, .25f, y, grad.get() + index * grad_floats);
        pack_pixels<T>(q, ck, p.height, p.width, borders.all, tile, 1.f, y, query_pixels.get() + index * query_pixel_floats);
        pack_pixels<T>(g, cv, p.height, p.width, borders.all, tile, .25f, y, grad_pixels.get() + index * grad_pixel_floats);
        float* row = maximum.get() + index * tile;
        std::fill_n(row, tile, INFINITE);
        const float* log_sum = log_sums + (item * p.height + y) * p.width;
        std::copy(log_sum + borders.owned.begin, log_sum + borders.owned.end, row + (borders.owned.begin - borders.all.begin));
    });

    auto walk_of = [&](i64 item, i64 t) {
        const i64 first = (item * tiling.tiles + t) * p.height;
        Walk walk{};
        walk.problem = &p;
        walk.item = item;
        walk.tile_width = tile;
        walk.key_block = tiling.key_block;
        const Borders borders(tiling, p.width, t);
        walk.columns = borders.all;
        walk.owned = borders.owned;
        walk.query_rows = {0, p.height};
        walk.query = query.get() + first * query_floats;
        walk.grad = grad.get() + first * grad_floats;
        walk.query_pixels = query_pixels.get() + first * query_pixel_floats;
        walk.grad_pixels = grad_pixels.get() + first * grad_pixel_floats;
        walk.maximum = maximum.get() + first * tile;
        walk.factor = factor.get() + first * tile;
        walk.dot = dot.get() + first * tile;
        return walk;
    };

    // First pass: the mean of the weights' gradients under the weights, per query. A logarithm in 32 bits is too coarse
    // to normalise the weights of a large softmax scale, so their sum is taken again.
    const i64 strips = parts_per_item(p.batch * tiling.tiles, p.height, p.threads, (p.height + STRIP - 1) / STRIP);
    ok = ok && parallel(p.batch * tiling.tiles * strips, p.threads, [&](i64 task) {
        Walk walk = walk_of(task / (tiling.tiles * strips), task / strips % tiling.tiles);
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
    if (!ok) return false;

    // Second pass: by key rows, because the gradients of all levels' keys and values are larger than the query's.
    const i64 parts = parts_per_item(p.batch, tallest_level(p), p.threads), tasks = p.batch * parts;
    const i64 row_floats = rows_of<T>(ck) * tile, query_sum_floats = tiling.tiles * p.height * row_floats;
    Buffer query_sums = zeros(tasks * query_sum_floats);
    std::vector<i64> offset(p.levels * parts + 1);  // in pixels, of every level's and part's key rows with borders
    for (i64 i = 0; i < p.levels * parts; ++i) {
        const i64 level = i / parts, height = p.level_height[level];
        const Range rows = part_of(height, parts, i % parts);
        offset[i + 1] = offset[i] + (rows.size() > 0 ? rows.grown(height).size() * p.level_width[level] + T::ROWS - 1 : 0);
    }
    Buffer key_sums = zeros(p.batch * offset.back() * ck_padded), value_sums = zeros(p.batch * offset.back() * cv_padded);
    ok = parallel(tasks, p.threads, [&](i64 task) {
        const i64 item = task / parts, part = task % parts;
        const Unit<T> unit;
        Scratch<T> scratch(tiling, BACKWARD_PLANES, p.visible);
        for (i64 t = 0; t < tiling.tiles; ++t) {
            Walk walk = walk_of(item, t);
            walk.out = query_sums.get() + task * query_sum_floats + t * p.height * row_floats;
            for (i64 level = 0; level < p.levels; ++level) {
                const i64 pixels = item * offset.back() + offset[level * parts + part];
                walk.key = keys.of(level, item);
                walk.key_rows = key_rows.of(level, item);
                walk.value = values.of(level, item);
                walk.dkey = key_sums.get() + pixels * ck_padded;
                walk.dvalue = value_sums.get() + pixels * cv_padded;
                walk.dscale = dscales[level] + item * p.level_height[level] * p.level_width[level];
                Walker<Pass::gradient, T, WINDOWED>(walk, level, scratch, part_of(p.level_height[level], parts, part));
            }
        }
    });
    if (!ok) return false;

    ok = parallel(p.batch * p.height, p.threads, [&](i64 index) {
        const i64 item = index / p.height, y = index % p.height;
        for (i64 part = 0; part < parts; ++part)
            for (i64 t = 0; t < tiling.tiles; ++t) {
                const Range columns = Borders(tiling, p.width, t).all;
                const float* in = query_sums.get() + (item * parts + part) * query_sum_floats + (t * p.height + y) * row_floats;
                for (i64 c = 0; c < ck; ++c) {
                    float* o = dquery + ((item * ck + c) * p.height + y) * p.width + columns.begin;
                    for (i64 x = 0; x < columns.size(); ++x) o[x] += in[c * tile + x];
                }
            }
    });
    return ok && parallel(p.batch * p.levels, p.threads, [&](i64 index) {
        const i64 item = index / p.levels, level = index % p.levels;
        const i64 height = p.level_height[level], width = p.level_width[level];
        auto add = [&](const float* sums, i64 channels, i64 padded, float* out) {
            for (i64 part = 0; part < parts; ++part) {
                const Range owned = part_of(height, parts, part), rows = owned.grown(height);
                if (owned.size() <= 0) continue;
                const float* in = sums + (item * offset.back() + offset[level * parts + part]) * padded;
                for (i64 y = rows.begin; y < rows.end; ++y, in += width * padded)
                    for (i64 c = 0; c < channels; ++c) {
                        float* o = out + ((item * channels + c) * height + y) * width;
                        for (i64 x = 0; x < width; ++x) o[x] += in[x * padded + c];
                    }
            }
        };
        add(key_sums.get(), ck, ck_padded, dkeys[level]);
        add(value_sums.get(), cv, cv_padded, dvalues[level]);
    });
}

}  // namespace
