// Images as operands of products.

#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "operands.h"
#include "parallel.h"
#include "platform.h"
#include "problem.h"
#include "vectors.h"

namespace {

// One row of a query tile, or any other range of an image's columns: [channel slot][column], columns padded with zeros.
template <class T>
void pack_rows(const float* image, i64 channels, i64 height, i64 width, Range columns, i64 tile_width, float factor,
               i64 row, float* out) {
    for (i64 c = 0; c < channels; c += T::TERMS, out += tile_width) {
        const float* in = image + (c * height + row) * width + columns.begin;
        const bool more = c + 1 < channels;
        for (i64 x = 0; x < columns.size(); ++x)
            out[x] = T::slot(factor * in[x], more ? factor * in[height * width + x] : 0.f);
        std::fill(out + columns.size(), out + tile_width, 0.f);
    }
}

// The same as [column slot][channel], both padded.
template <class T>
void pack_pixels(const float* image, i64 channels, i64 height, i64 width, Range columns, i64 tile_width, float factor,
                 i64 row, float* out) {
    const i64 padded = round_up(channels);
    std::fill(out, out + slots_of<T>(tile_width) * padded, 0.f);
    for (i64 c = 0; c < channels; ++c) {
        const float* in = image + (c * height + row) * width + columns.begin;
        for (i64 x = 0; x < columns.size(); x += T::TERMS)
            out[x / T::TERMS * padded + c] = T::slot(factor * in[x], x + 1 < columns.size() ? factor * in[x + 1] : 0.f);
    }
}

// Keys or values as operands of sums over channels, [channel slot][row][column] or in tiles [row][column][channel
// slot], or over columns, [channel][row][column slot]; of all levels and batch items. Float32 is both without a copy.
// Tiles are read beyond the end.
enum class SumOver { channels, columns };

template <class T>
class Images {
  public:
    Images(const Problem& p, const float* const* images, i64 channels, SumOver over) : images_(images) {
        for (i64 level = 0; level < p.levels; ++level) {
            const i64 height = p.level_height[level], width = p.level_width[level];
            size_.push_back(over == SumOver::channels
                                ? slots_of<T>(channels) * (height * width + T::ROWS - 1)
                                : rows_of<T>(channels) * height * slots_of<T>(width) + T::SLOTS - 1);
            if constexpr (T::TERMS > 1) packed_.push_back(zeros(p.batch * size_.back()));
        }
        if constexpr (T::TERMS > 1)
            parallel(p.batch * p.levels, p.threads, [&](i64 index) {
                const i64 item = index / p.levels, level = index % p.levels;
                const i64 height = p.level_height[level], width = p.level_width[level];
                const float* in = images[level] + item * channels * height * width;
                float* out = packed_[level].get() + item * size_[level];
                if (over == SumOver::channels && T::ROWS > 1) {
                    const i64 pixels = height * width, slots = slots_of<T>(channels);
                    for (i64 c = 0; c < channels; c += T::TERMS, ++out)
                        for (i64 i = 0; i < pixels; ++i)
                            out[i * slots] =
                                T::slot(in[c * pixels + i], c + 1 < channels ? in[(c + 1) * pixels + i] : 0.f);
                } else if (over == SumOver::channels) {
                    pack_rows<T>(in, channels, 1, height * width, {0, height * width}, height * width, 1.f, 0, out);
                } else {
                    for (i64 row = 0; row < channels * height; ++row, in += width, out += slots_of<T>(width))
                        for (i64 x = 0; x < width; x += T::TERMS)
                            out[x / T::TERMS] = T::slot(in[x], x + 1 < width ? in[x + 1] : 0.f);
                }
            });
    }
    const float* of(i64 level, i64 item) const {
        return (T::TERMS > 1 ? packed_[level].get() : images_[level]) + item * size_[level];
    }

  private:
    const float* const* images_;
    std::vector<i64> size_;
    std::vector<Buffer> packed_;
};

}  // namespace
