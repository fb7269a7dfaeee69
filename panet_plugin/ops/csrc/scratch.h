// Intermediate results of a thread for the pairs of rows that it has just visited.

#pragma once

#include <cstring>

#include "buffer.h"
#include "operands.h"
#include "platform.h"
#include "tiling.h"
#include "vectors.h"

namespace {

// Matrices of (key columns of a block x query columns of a tile) for a row of queries and a row of keys. Those that
// later rows also need are two planes, used alternately by the rows of a diagonal.
enum class Plane {
    zeros,
    key_products,                  // with the queries, two planes
    weights = key_products + 2,    // of the softmax, two planes
    boxed_weights = weights + 2,   // summed over the offsets in a patch, as an operand
    value_products,                // with the output's gradients, two planes; this and what follows for gradients
    dscores = value_products + 2,  // gradients of the scores, two planes
    boxed_dscores = dscores + 2,   // summed and an operand, too
};

constexpr int FORWARD_PLANES = static_cast<int>(Plane::boxed_weights) + 1;
constexpr int BACKWARD_PLANES = static_cast<int>(Plane::boxed_dscores) + 1;

// Matrices of (rows x columns), all of one size.
class Planes {
  public:
    Planes(i64 rows, i64 columns, int count) : size_(rows * columns), storage_(zeros(size_ * count)) {}
    float* operator[](Plane plane) const { return at(static_cast<int>(plane)); }
    // Of two planes, the one of `row`: that of two rows ago, overwritten in place.
    float* of_row(Plane first, i64 row) const { return at(static_cast<int>(first) + static_cast<int>(row & 1)); }
    void clear(Plane plane) const { std::memset((*this)[plane], 0, size_ * 4); }

  private:
    float* at(int i) const { return storage_.get() + i * size_; }
    i64 size_;
    Buffer storage_;
};

// A window of rows moving down a matrix, with a border of zeros around the matrix. It holds the rows being written
// and the two above them, so that it stays in the first-level cache.
class Window {
  public:
    Window(i64 rows, i64 columns) : ld_(columns + LANES), storage_(zeros((rows + 4) * ld_ + 2 * LANES)) {}
    i64 ld() const { return ld_; }
    // Address of row 0 of the matrix, from which the rows in the window can be reached.
    float* matrix() const { return at(0); }
    void clear(i64 begin, i64 end) { std::memset(at(begin), 0, (end - begin) * ld_ * 4); }
    // Makes `first` the first row to be written; 0 starts a new matrix.
    void move_to(i64 first) {
        const float* kept = at(first - 2);
        first_ = first;
        if (first == 0)
            clear(-2, 0);
        else
            std::memmove(at(first - 2), kept, 2 * ld_ * 4);
    }

  private:
    float* at(i64 row) const { return storage_.get() + LANES + (row - first_ + 2) * ld_; }
    i64 ld_, first_ = 0;
    Buffer storage_;
};

// Pairs of key columns may take one more at either end of a block.
template <class T>
struct Scratch {
    Planes planes;
    Buffer hidden;                         // [key column][query column]: HIDDEN where not seen, else 0
    Window scores, dweights, sums, dsums;  // products, and weights, summed over y
    // Rows of a window: whole register blocks of two or three vectors, or tiles.
    static constexpr i64 ROWS = T::ROWS > 1 ? 32 : 24;
    Scratch(const Tiling& tiling, int count, bool windowed)
        : planes(plane_rows(tiling), tiling.tile_width, count),
          hidden(zeros(windowed ? (tiling.key_block + 4) * tiling.tile_width : 0)),
          scores(ROWS, tiling.tile_width),
          dweights(ROWS, tiling.tile_width),
          sums(ROWS, tiling.tile_width),
          dsums(ROWS, tiling.tile_width) {}

  private:
    // Pairs are held twice, with key columns and with queries in slots, both in whole tiles.
    static i64 plane_rows(const Tiling& tiling) {
        const i64 keys = tiling.key_block + 4, width = tiling.tile_width;
        if (T::ROWS == 1) return keys;
        return slots_of<T>(keys) + (rows_of<T>(keys) * slots_of<T>(width) + width - 1) / width;
    }
};

}  // namespace
