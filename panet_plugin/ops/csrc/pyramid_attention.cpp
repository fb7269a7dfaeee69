// Pyramid attention with 3x3 patches on a CPU, forward and backward, in memory linear in the pixels.
//
// A block of scores is the (key column x query column) matrix of one query row and one key row. The patch
// sums shift both grids together, so they run along diagonals: the rows (py, ly), (py + 1, ly + 1), ... of
// one diagonal are visited in order, and each product is computed once and shared by the three rows that
// need it. Along x the same sum is a shift by one row and one column inside a block.
//
// Blocks are stored with query columns contiguous: softmax statistics then live in vector lanes.
//
// The operands of the products are float32 or, on request and if the processor supports it, bfloat16: then two
// neighbors along the dimension that is summed share one slot of 32 bits. Processors with a matrix unit (Intel's AMX)
// multiply these in tiles of 16 x 16. All sums and all else stay float32.
//
// Everything is one translation unit in unnamed namespaces, so that functions can be inlined.

#include <new>
#include <type_traits>

#include "backward.h"
#include "forward.h"
#include "operands.h"
#include "platform.h"
#include "problem.h"

namespace {

// Runs task(kind of operands, whether there is a window); an exception must not reach C.
template <class Task>
int run(bool bfloat16, bool windowed, const Task& task) {
    auto with = [&](auto kind) {
        return (windowed ? task(kind, std::true_type{}) : task(kind, std::false_type{})) ? 0 : 1;
    };
    try {
#if PANET_TILES
        if (bfloat16 && has_tiles()) return with(BFloat16Tile{});
#endif
#if PANET_BFLOAT16
        if (bfloat16) return with(BFloat16Pair{});
#endif
        (void)bfloat16;
        return with(Single{});
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // namespace

// All tensors are contiguous float32 in (N, C, H, W) order; outputs and gradients must arrive zeroed. `log_sums` are
// the base-2 logarithms of the softmax's denominators. `bfloat16` rounds the operands of the products, if the processor
// supports it. `visible` is null, or points to four tables per level: for every row of queries the first row of keys
// that it sees and the end, and the same for every column. Returns 0, or 1 if memory ran out.
extern "C" {

int panet_has_bfloat16() { return PANET_BFLOAT16; }

int panet_forward(i64 batch, i64 key_channels, i64 value_channels, i64 height, i64 width, i64 levels,
                  const i64* level_height, const i64* level_width, const i64* const* visible, int threads, int bfloat16,
                  const float* query, const float* const* keys, const float* const* scales, const float* const* values,
                  float* out, float* log_sums) {
    const Problem p{batch,   key_channels, value_channels, height, width,  levels, level_height, level_width,
                    threads, query,        nullptr,        keys,   scales, values, visible};
    return run(bfloat16, visible,
               [&](auto kind, auto windowed) { return forward<decltype(kind), windowed>(p, out, log_sums); });
}

int panet_backward(i64 batch, i64 key_channels, i64 value_channels, i64 height, i64 width, i64 levels,
                   const i64* level_height, const i64* level_width, const i64* const* visible, int threads,
                   int bfloat16, const float* query, const float* const* keys, const float* const* scales,
                   const float* const* values, const float* grad, const float* log_sums, float* dquery,
                   float* const* dkeys, float* const* dscales, float* const* dvalues) {
    const Problem p{batch,   key_channels, value_channels, height, width,  levels, level_height, level_width,
                    threads, query,        grad,           keys,   scales, values, visible};
    return run(bfloat16, visible, [&](auto kind, auto windowed) {
        return backward<decltype(kind), windowed>(p, log_sums, dquery, dkeys, dscales, dvalues);
    });
}
}
