// Division of the work: queries into tiles, keys into blocks, and both into parts for the threads.

#pragma once

#include <algorithm>
#include <limits>

#include "platform.h"
#include "problem.h"
#include "vectors.h"

namespace {

// Measured: larger planes (in floats) and strips of more query rows than these are slower, outgrowing the caches.
constexpr i64 PLANE = 20000, STRIP = 64;

// Division of query columns into tiles and of key columns into blocks. Both have the cost of a border of one, tiles of
// queries also that of rounding up to vectors. With a window, wide tiles have the cost of keys that few of them see,
// and narrow ones that of products that wait for their operands.
struct Tiling {
    i64 tiles, tile_width /* with borders, in whole vectors */, key_block /* without borders */;

    Tiling(const Problem& p, i64 plane_floats) {
        const i64 width = p.width;
        double best = std::numeric_limits<double>::infinity();
        i64 measured = -1, keys = 0;
        for (i64 n = 1; n <= std::max<i64>(1, width / 8); ++n) {
            const i64 owned = (width + n - 1) / n, t = round_up(owned + (n > 2 ? 2 : n - 1));
            if (p.visible && t == measured) continue;  // narrower tiles of the same vectors
            measured = t;
            keys = 0;
            for (i64 level = 0; level < p.levels; ++level)
                keys = std::max(keys, p.visible ? Sight(p, level).reach(width, owned) : p.level_width[level]);
            const i64 room = std::max<i64>(plane_floats / t - 2, 8), blocks = (keys + room - 1) / room;
            const i64 block = (keys + blocks - 1) / blocks;
            double cost = double(t * n) / width * (blocks > 1 ? (block + 2.) / block : 1.);
            if (p.visible) cost *= (keys + 2.) * (t == LANES ? 1.25 : t == 2 * LANES ? 1.1 : 1.);
            if (cost < best - 1e-9) best = cost, tiles = n, tile_width = t, key_block = block;
        }
    }
    Range columns(i64 width, i64 tile) const { return part_of(width, tiles, tile); }
};

struct Borders {
    Range owned, all;
    Borders(const Tiling& tiling, i64 width, i64 tile) : owned(tiling.columns(width, tile)), all(owned.grown(width)) {}
};

// Parts per batch item, at least `least`, that keep all threads busy; every part pays for a border of one row on each
// side.
i64 parts_per_item(i64 items, i64 rows, int threads, i64 least = 1) {
    const i64 most = std::max<i64>(1, rows / 8);
    i64 parts = least;
    while (parts < most && items * parts % threads != 0 && items * parts < 4 * threads) ++parts;
    return parts;
}

}  // namespace
