// The problem, and which keys a query sees.

#pragma once

#include <algorithm>
#include <limits>

#include "platform.h"

namespace {

struct Range {
    i64 begin, end;
    i64 size() const { return end - begin; }
    Range grown(i64 limit) const { return {std::max<i64>(begin - 1, 0), std::min(end + 1, limit)}; }
};

// Part `index` of `parts` nearly equal parts of 0..size.
Range part_of(i64 size, i64 parts, i64 index) { return {size * index / parts, size * (index + 1) / parts}; }

struct Problem {
    i64 batch, key_channels, value_channels, height, width, levels;
    const i64 *level_height, *level_width;
    int threads;
    const float *query, *grad;
    const float *const *keys, *const *scales, *const *values;
    const i64* const* visible;  // see Sight; null without a window
};

i64 tallest_level(const Problem& p) { return *std::max_element(p.level_height, p.level_height + p.levels); }

// Which keys of a level the queries see: those in both the range of rows of a query's row and the range of columns of
// its column. From one column to the next neither end of a range moves back.
struct Sight {
    const i64 *row_begin, *row_end, *column_begin, *column_end;  // per row or column of queries

    Sight(const Problem& p, i64 level)
        : row_begin(p.visible[4 * level]),
          row_end(p.visible[4 * level + 1]),
          column_begin(p.visible[4 * level + 2]),
          column_end(p.visible[4 * level + 3]) {}
    bool row(i64 query, i64 key) const { return row_begin[query] <= key && key < row_end[query]; }
    bool column(i64 query, i64 key) const { return column_begin[query] <= key && key < column_end[query]; }
    Range columns(Range queries) const { return {column_begin[queries.begin], column_end[queries.end - 1]}; }
    // Keys minus queries, of all pairs of rows.
    Range shifts(Range queries) const {
        Range all{std::numeric_limits<i64>::max(), std::numeric_limits<i64>::min()};
        for (i64 y = queries.begin; y < queries.end; ++y)
            all = {std::min(all.begin, row_begin[y] - y), std::max(all.end, row_end[y] - y)};
        return all;
    }
    // Maximum number of keys in a row that `columns` neighboring queries see.
    i64 reach(i64 width, i64 columns) const {
        i64 most = 0;
        for (i64 x = 0; x < width; ++x)
            most = std::max(most, column_end[std::min(x + columns, width) - 1] - column_begin[x]);
        return most;
    }
};

}  // namespace
