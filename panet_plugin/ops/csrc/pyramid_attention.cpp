// Pyramid attention with 3x3 patches on a CPU, forward and backward, in memory linear in the pixels.
//
// A block of scores is the (key column x query column) matrix of one query row and one key row. The patch
// sums shift both grids together, so they run along diagonals: the rows (py, ly), (py + 1, ly + 1), ... of
// one diagonal are visited in order, and each product is computed once and shared by the three rows that
// need it. Along x the same sum is a shift by one row and one column inside a block.
//
// Blocks are stored with query columns contiguous: softmax statistics then live in vector lanes.
//
// The operands of the products are float32, or on request, where the processor multiplies these, bfloat16: then two
// neighbours along the dimension that is summed share one slot of 32 bits. Processors with a matrix unit (Intel's AMX)
// multiply these in tiles of 16 x 16. All sums and all else stay float32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#if defined(__GNUC__) && defined(__AVX512BF16__) && defined(__AVX512VL__) && defined(__AVX512BW__) && \
    !defined(PANET_SCALAR)
#define PANET_BFLOAT16 1
#include <immintrin.h>
#else
#define PANET_BFLOAT16 0
#endif

#if PANET_BFLOAT16 && defined(__AMX_BF16__) && defined(__linux__) && !defined(PANET_NO_TILES)
#define PANET_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define PANET_TILES 0
#endif

#if defined(__GNUC__)
#define PANET_INLINE inline __attribute__((always_inline))
#define PANET_UNROLL _Pragma("GCC unroll 32")
#define PANET_RESTRICT __restrict__
#else
#define PANET_INLINE inline
#define PANET_UNROLL
#define PANET_RESTRICT
#endif
// The compiler does not know which memory the matrix unit's instructions read and write.
#define PANET_FENCE asm volatile("" ::: "memory")

namespace {

using i64 = std::int64_t;

// ---------------------------------------------------------------------------------------------- vectors

#if defined(__GNUC__) && !defined(PANET_SCALAR)

#if defined(__AVX512F__)
constexpr int LANES = 16, ACCUMULATORS = 24;
#elif defined(__AVX__)
constexpr int LANES = 8, ACCUMULATORS = 12;
#elif defined(__aarch64__)
constexpr int LANES = 4, ACCUMULATORS = 24;
#else
constexpr int LANES = 4, ACCUMULATORS = 12;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4), may_alias));
typedef float UnalignedVec __attribute__((vector_size(LANES * 4), may_alias, aligned(4)));
typedef std::int32_t IntVec __attribute__((vector_size(LANES * 4), may_alias));

PANET_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
PANET_INLINE Vec load_unaligned(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
PANET_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
PANET_INLINE Vec bits_shifted_left_23(Vec v) { return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(v) << 23); }
PANET_INLINE Vec larger(Vec floor, Vec v) { return floor > v ? floor : v; }  // a NaN in v survives

template <int N>
PANET_INLINE float sum_lanes(const float* p) {
    if constexpr (N == 4) {
        return (p[0] + p[2]) + (p[1] + p[3]);
    } else {
        typedef float Half __attribute__((vector_size(N * 2), may_alias));
        alignas(N * 2) float half[N / 2];
        *reinterpret_cast<Half*>(half) = *reinterpret_cast<const Half*>(p) + *reinterpret_cast<const Half*>(p + N / 2);
        return sum_lanes<N / 2>(half);
    }
}
PANET_INLINE float sum_lanes(Vec v) {
    alignas(LANES * 4) float lanes[LANES];
    store(lanes, v);
    return sum_lanes<LANES>(lanes);
}

#else

constexpr int LANES = 1, ACCUMULATORS = 8;
using Vec = float;
PANET_INLINE Vec load(const float* p) { return *p; }
PANET_INLINE Vec load_unaligned(const float* p) { return *p; }
PANET_INLINE void store(float* p, Vec v) { *p = v; }
PANET_INLINE Vec bits_shifted_left_23(Vec v) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, 4);
    bits <<= 23;
    std::memcpy(&v, &bits, 4);
    return v;
}
PANET_INLINE Vec larger(Vec floor, Vec v) { return floor > v ? floor : v; }
PANET_INLINE float sum_lanes(Vec v) { return v; }

#endif

// Keeps a product rounded where the compiler would fuse it with a following subtraction: the score subtracted from
// itself must give exactly 0, however large the softmax scale.
PANET_INLINE Vec rounded(Vec v) {
#if defined(PANET_SCALAR) || !defined(__GNUC__)
    volatile float kept = v;
    return kept;
#elif defined(__x86_64__)
    asm("" : "+v"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
    return v;
}

// A slot of an operand holds TERMS numbers that are neighbours along the dimension a product sums over. Slots come in
// whole SLOTS and the rows of a product in whole ROWS, filled up with zeros.
struct Single {
    static constexpr i64 TERMS = 1, SLOTS = 1, ROWS = 1;
    static PANET_INLINE float slot(float x, float) { return x; }
    static PANET_INLINE Vec multiply_add(Vec sum, float a, Vec b) { return sum + a * b; }
};

#if PANET_BFLOAT16

struct BFloat16Pair {
    static constexpr i64 TERMS = 2, SLOTS = 1, ROWS = 1;
    static PANET_INLINE float slot(float low, float high) {
        return _mm_cvtss_f32((__m128)_mm_cvtneps_pbh(_mm_setr_ps(low, high, 0.f, 0.f)));
    }
    static PANET_INLINE Vec multiply_add(Vec sum, float a, Vec b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
    }
    // One slot per lane.
    static PANET_INLINE Vec slots(Vec low, Vec high) {
        alignas(64) static constexpr std::int16_t interleaved[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,
                                                                     21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                     11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        return (Vec)_mm512_permutexvar_epi16(_mm512_load_si512(interleaved), (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    // Neighbouring lanes share a slot.
    static PANET_INLINE void store_lanes(float* p, Vec v) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
    }
};

#endif

#if PANET_TILES

struct BFloat16Tile : BFloat16Pair {
    static constexpr i64 SLOTS = 16, ROWS = 16;
};

// Asks the kernel for the registers of the matrix unit, once per process.
bool has_tiles() {
    constexpr long request_permission = 0x1023, tile_data = 18;
    static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return granted;
}

#endif

// Prepares the calling thread for products of T as long as it lives.
template <class T>
struct Unit {
    Unit() {}
};

#if PANET_TILES

template <>
struct Unit<BFloat16Tile> {
    Unit() {
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shapes;
        _tile_loadconfig(&shapes);
    }
    ~Unit() { _tile_release(); }
};

#endif

template <class T>
constexpr i64 slots_of(i64 terms) {
    return ((terms + T::TERMS - 1) / T::TERMS + T::SLOTS - 1) / T::SLOTS * T::SLOTS;
}

template <class T>
constexpr i64 rows_of(i64 rows) {
    return (rows + T::ROWS - 1) / T::ROWS * T::ROWS;
}

constexpr float INFINITE = std::numeric_limits<float>::infinity();
constexpr float LOG2_E = 1.44269504088896341f;

// 2^x for x <= about 90, exactly 0 below 2^-80: weights that small cannot matter, and keeping them out of the
// products avoids denormal numbers, which are slow. The exponent's bias is moved by 47 to get that zero for free;
// the polynomial (exact at 0, relative error 1.1e-7 on [-1/2, 1/2]) is scaled by 2^47 in return.
PANET_INLINE Vec exp2_or_zero(Vec x) {
    constexpr float two47 = 140737488355328.f, rounder = 12582912.f + 80.f;
    x = larger(Vec{} - 80.f, x);
    const Vec whole = x + rounder;
    const Vec f = x - (whole - rounder);
    Vec p = f * (0.001326472731307149f * two47) + 0.009671512991189957f * two47;
    p = p * f + 0.05550733581185341f * two47;
    p = p * f + 0.24022242426872253f * two47;
    p = p * f + 0.6931470036506653f * two47;
    p = p * f + two47;
    return p * bits_shifted_left_23(whole);
}

constexpr i64 round_up(i64 n) { return (n + LANES - 1) / LANES * LANES; }

struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float, Free>;

Buffer zeros(i64 count) {
    constexpr i64 alignment = 64;
    float* p = nullptr;
    const i64 bytes = (count * 4 + alignment) / alignment * alignment;
    if (posix_memalign(reinterpret_cast<void**>(&p), alignment, bytes) != 0) throw std::bad_alloc();
    std::memset(p, 0, bytes);
    return Buffer(p);
}

// --------------------------------------------------------------------------------------------- products
//
// C (rows x columns) = A (rows x depth) B (depth x columns) for small matrices: columns in vectors, slots of A
// broadcast; strides and depth are in slots. A register block holds ROWS x VECS accumulators.

constexpr int max_rows(int vecs) { return std::min(ACCUMULATORS / vecs, 12); }

struct Operands {
    const float* a;
    i64 row_stride, depth_stride;  // of a
    const float* b;
    i64 ldb;
    int depth;
};

// Scores of one row pair: keeps the product and adds those of the two previous rows of the diagonal.
struct SumOfThree {
    float *product, *sum;
    const float *previous, *before;  // `before` may be `product`
    i64 ld, sum_ld;
    static constexpr bool unit_row_stride = true;
    PANET_INLINE void operator()(i64 row, i64 column, Vec c) const {
        const i64 at = row * ld + column;
        store(sum + row * sum_ld + column, load(before + at) + load(previous + at) + c);
        store(product + at, c);
    }
};

struct Accumulate {
    float* c;
    i64 ld;
    static constexpr bool unit_row_stride = false;  // the depth is contiguous instead
    PANET_INLINE void operator()(i64 row, i64 column, Vec v) const {
        float* p = c + row * ld + column;
        store(p, load(p) + v);
    }
};

// Fetches the part of C that a register block will add to.
template <int ROWS, int VECS>
PANET_INLINE void prefetch(const Accumulate& sink, i64 row, i64 column) {
#if defined(__GNUC__)
    PANET_UNROLL for (int i = 0; i < ROWS; ++i)
        PANET_UNROLL for (int j = 0; j < VECS; ++j)
            __builtin_prefetch(sink.c + (row + i) * sink.ld + column + j * LANES, 1);
#endif
}
template <int ROWS, int VECS>
PANET_INLINE void prefetch(const SumOfThree&, i64, i64) {}

template <class T, int ROWS, int VECS, class Sink>
PANET_INLINE void register_block(const Operands& o, const Sink& sink, i64 row, i64 column) {
    Vec acc[ROWS][VECS] = {};
    const i64 row_stride = Sink::unit_row_stride ? 1 : o.row_stride;
    const i64 depth_stride = Sink::unit_row_stride ? o.depth_stride : 1;
    const float* PANET_RESTRICT a = o.a + row * row_stride;
    const float* PANET_RESTRICT b = o.b + column;
    prefetch<ROWS, VECS>(sink, row, column);
    for (int k = 0; k < o.depth; ++k, a += depth_stride, b += o.ldb) {
        Vec bv[VECS];
        PANET_UNROLL for (int j = 0; j < VECS; ++j) bv[j] = load(b + j * LANES);
        PANET_UNROLL for (int i = 0; i < ROWS; ++i) {
            const float x = a[i * row_stride];
            PANET_UNROLL for (int j = 0; j < VECS; ++j) acc[i][j] = T::multiply_add(acc[i][j], x, bv[j]);
        }
    }
    PANET_UNROLL for (int i = 0; i < ROWS; ++i)
        PANET_UNROLL for (int j = 0; j < VECS; ++j) sink(row + i, column + j * LANES, acc[i][j]);
}

template <class T, int ROWS, int VECS, class Sink>
void row_block(int rows, const Operands& o, const Sink& sink, i64 row, i64 column) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            register_block<T, ROWS, VECS>(o, sink, row, column);
        else
            row_block<T, ROWS - 1, VECS>(rows, o, sink, row, column);
    }
}

template <class T, int VECS, class Sink>
void column_panel(const Operands& o, const Sink& sink, i64 begin, i64 end, i64 column) {
    constexpr int most = max_rows(VECS);
    for (i64 left = (end - begin + most - 1) / most; left > 0; --left) {
        const int rows = static_cast<int>((end - begin + left - 1) / left);
        row_block<T, most, VECS>(rows, o, sink, begin, column);
        begin += rows;
    }
}

#if PANET_TILES

// Tiles 0 to 3 hold sums, 4 a part of A, 5 to 7 parts of B.
template <int TILES>
PANET_INLINE void multiply_tiles(const Operands& o, i64 row, i64 column) {
    const float *a = o.a + row * o.row_stride, *b = o.b + column;
    const i64 a_bytes = 4 * o.row_stride, b_bytes = 4 * o.ldb;
    for (int k = 0; k < o.depth; k += 16, a += 16, b += 16 * o.ldb) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(5, b, b_bytes);
        _tile_dpbf16ps(0, 4, 5);
        if constexpr (TILES > 1) {
            _tile_loadd(6, b + 16, b_bytes);
            _tile_dpbf16ps(1, 4, 6);
        }
        if constexpr (TILES > 2) {
            _tile_loadd(7, b + 32, b_bytes);
            _tile_dpbf16ps(2, 4, 7);
        }
        if constexpr (TILES > 3) {
            _tile_loadd(5, b + 48, b_bytes);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
}

template <int TILES>
PANET_INLINE void load_tiles(const float* c, i64 bytes) {
    _tile_loadd(0, c, bytes);
    if constexpr (TILES > 1) _tile_loadd(1, c + 16, bytes);
    if constexpr (TILES > 2) _tile_loadd(2, c + 32, bytes);
    if constexpr (TILES > 3) _tile_loadd(3, c + 48, bytes);
}

template <int TILES>
PANET_INLINE void store_tiles(float* c, i64 bytes) {
    _tile_stored(0, c, bytes);
    if constexpr (TILES > 1) _tile_stored(1, c + 16, bytes);
    if constexpr (TILES > 2) _tile_stored(2, c + 32, bytes);
    if constexpr (TILES > 3) _tile_stored(3, c + 48, bytes);
}

template <int TILES>
PANET_INLINE void tile_block(const Operands& o, const SumOfThree& sink, i64 row, i64 end, i64 column) {
    alignas(64) float products[16 * TILES * 16];
    _tile_zero(0);
    if constexpr (TILES > 1) _tile_zero(1);
    if constexpr (TILES > 2) _tile_zero(2);
    if constexpr (TILES > 3) _tile_zero(3);
    multiply_tiles<TILES>(o, row, column);
    store_tiles<TILES>(products, TILES * 64);
    for (i64 i = 0; i < std::min<i64>(16, end - row); ++i)
        PANET_UNROLL for (int j = 0; j < TILES; ++j)
            sink(row + i, column + j * 16, load(products + (i * TILES + j) * 16));
}

template <int TILES>
PANET_INLINE void tile_block(const Operands& o, const Accumulate& sink, i64 row, i64, i64 column) {
    float* c = sink.c + row * sink.ld + column;
    load_tiles<TILES>(c, 4 * sink.ld);
    multiply_tiles<TILES>(o, row, column);
    store_tiles<TILES>(c, 4 * sink.ld);
}

// Also reads rows of A, and adds to rows of C, beyond the last one up to a multiple of 16.
template <class Sink>
void multiply(BFloat16Tile, const Operands& o, const Sink& sink, i64 row_begin, i64 row_end, i64 columns) {
    PANET_FENCE;
    for (i64 row = row_begin; row < row_end; row += 16)
        for (i64 column = 0, left = columns / 16; left > 0;) {
            const i64 now = std::min<i64>(left, 4);
            if (now == 4) tile_block<4>(o, sink, row, row_end, column);
            if (now == 3) tile_block<3>(o, sink, row, row_end, column);
            if (now == 2) tile_block<2>(o, sink, row, row_end, column);
            if (now == 1) tile_block<1>(o, sink, row, row_end, column);
            left -= now;
            column += now * 16;
        }
    PANET_FENCE;
}

#endif

template <class T, class Sink>
void multiply(T, const Operands& o, const Sink& sink, i64 row_begin, i64 row_end, i64 columns) {
    i64 vecs = columns / LANES, column = 0;
    for (i64 panels = (vecs + 3) / 4; panels > 0; --panels) {
        const i64 now = (vecs + panels - 1) / panels;
        if (now == 4) column_panel<T, 4>(o, sink, row_begin, row_end, column);
        if (now == 3) column_panel<T, 3>(o, sink, row_begin, row_end, column);
        if (now == 2) column_panel<T, 2>(o, sink, row_begin, row_end, column);
        if (now == 1) column_panel<T, 1>(o, sink, row_begin, row_end, column);
        vecs -= now;
        column += now * LANES;
    }
}

// ----------------------------------------------------------------------------------------------- tiling

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

// Which keys of a level the queries see: those in both the range of rows of a query's row and the range of columns of
// its column. From one column to the next neither end of a range moves back.
struct Sight {
    const i64 *row_begin, *row_end, *column_begin, *column_end;  // per row or column of queries

    Sight(const Problem& p, i64 level)
        : row_begin(p.visible[4 * level]), row_end(p.visible[4 * level + 1]), column_begin(p.visible[4 * level + 2]),
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
    // The most keys that queries as many as `columns` see side by side.
    i64 reach(i64 width, i64 columns) const {
        i64 most = 0;
        for (i64 x = 0; x < width; ++x) most = std::max(most, column_end[std::min(x + columns, width) - 1] - column_begin[x]);
        return most;
    }
};

// How query columns are cut into tiles and key columns into blocks. Both pay for a border of one: a tile of
// queries also by rounding up to vectors. With a window, tiles of many queries also pay for keys that few of them see,
// and narrow ones for products that wait for their operands.
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

// Parts per batch item, at least `least`, that keep all threads busy; every part pays for a border of one row on each side.
i64 parts_per_item(i64 items, i64 rows, int threads, i64 least = 1) {
    const i64 most = std::max<i64>(1, rows / 8);
    i64 parts = least;
    while (parts < most && items * parts % threads != 0 && items * parts < 4 * threads) ++parts;
    return parts;
}

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

// Runs task(index) for every index. An exception must not leave an OpenMP region: it becomes a return code.
template <class Task>
bool parallel(i64 count, int threads, const Task& task) {
    bool ok = true;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && count > 1)
    for (i64 i = 0; i < count; ++i) {
        try {
            task(i);
        } catch (const std::bad_alloc&) {
#pragma omp atomic write
            ok = false;
        }
    }
    (void)threads;
    return ok;
}

// Keys or values as operands of sums over channels, [channel slot][row][column] or in tiles [row][column][channel slot],
// or over columns, [channel][row][column slot]; of all levels and batch items. Float32 is both without a copy. Tiles are
// read beyond the end.
enum class SumOver { channels, columns };

template <class T>
class Images {
  public:
    Images(const Problem& p, const float* const* images, i64 channels, SumOver over) : images_(images) {
        for (i64 level = 0; level < p.levels; ++level) {
            const i64 height = p.level_height[level], width = p.level_width[level];
            size_.push_back(over == SumOver::channels ? slots_of<T>(channels) * (height * width + T::ROWS - 1)
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
                            out[i * slots] = T::slot(in[c * pixels + i], c + 1 < channels ? in[(c + 1) * pixels + i] : 0.f);
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

// ---------------------------------------------------------------------------------------------- walking

enum class Pass { statistics, output, dot, gradient };

// Everything one walk over a set of row pairs reads and writes. Query-side arrays are those of one tile and
// start at query row 0 (or `first`, where said).
struct Walk {
    const Problem* problem;
    i64 item, tile_width, key_block;
    Range columns, owned, query_rows;  // of the tile with its borders and without; owned query rows
    const float *query, *grad;                  // [row][channel slot][column]
    const float *query_pixels, *grad_pixels;    // [row][column slot][channel]
    const float *key, *value;                   // of the level, to be summed over channels
    const float *key_rows, *value_rows;         // and over columns
    // Per query, [row][column]: weights are 2^(score - maximum) * factor; maximum is +inf where the column is not owned.
    float *maximum, *factor, *dot;
    i64 first;                                  // first row of out
    float* out;                                 // [row - first][channel][column]: output or gradient of the query
    float *dkey, *dvalue, *dscale;              // of the level: [row - grown key row][column][channel]; (h, w)
};

// Matrices of (rows x columns), all of one size.
class Planes {
  public:
    Planes(i64 rows, i64 columns, int count) : size_(rows * columns), storage_(zeros(size_ * count)) {}
    float* operator[](int i) const { return storage_.get() + i * size_; }
    void clear(int i) const { std::memset((*this)[i], 0, size_ * 4); }

  private:
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

// Planes: 0 zeros; then rings of two of products with the keys (1) and of weights (3), and the boxed weights (5);
// for the gradients the same of products with the values (6) and of the scores' gradients (8, 10). Pairs of key
// columns may take one more at either end of a block. `hidden` is HIDDEN where a query does not see a key, else 0.
template <class T>
struct Scratch {
    Planes planes, hidden;
    Window scores, dweights, sums, dsums;
    // Rows of a window: whole register blocks of two or three vectors, or tiles.
    static constexpr i64 ROWS = T::ROWS > 1 ? 32 : 24;
    Scratch(const Tiling& tiling, int count, bool windowed)
        : planes(plane_rows(tiling), tiling.tile_width, count),
          hidden(tiling.key_block + 4, tiling.tile_width, windowed ? 1 : 0), scores(ROWS, tiling.tile_width),
          dweights(ROWS, tiling.tile_width), sums(ROWS, tiling.tile_width), dsums(ROWS, tiling.tile_width) {}

  private:
    // Pairs are held twice, with key columns and with queries in slots, both in whole tiles.
    static i64 plane_rows(const Tiling& tiling) {
        const i64 keys = tiling.key_block + 4, width = tiling.tile_width;
        if (T::ROWS == 1) return keys;
        return slots_of<T>(keys) + (rows_of<T>(keys) * slots_of<T>(width) + width - 1) / width;
    }
};

PANET_INLINE Vec diagonal(const float* p, i64 ld) {
    return load_unaligned(p - ld - 1) + load(p) + load_unaligned(p + ld + 1);
}

// In the place of scores that a query does not see: weighs exactly 0 beside any real score, and is none to other keys.
constexpr float HIDDEN = -1e30f;

// Chosen and not added, so that what is not finite stays where it is seen.
template <bool WINDOWED>
PANET_INLINE Vec seen(const float* hidden, Vec v, float otherwise) {
    if constexpr (!WINDOWED) return v;
    return load(hidden) < 0.f ? Vec{} + otherwise : v;
}

// Maximum and sum of exponentials, one query per lane, over ROWS keys.
template <bool WINDOWED, int ROWS>
PANET_INLINE void update_statistics(const float* scores, i64 ld, const float* hidden, i64 hidden_ld, const float* scale,
                                    float* maximum, float* sum) {
    Vec t[ROWS];
    Vec top = load(maximum);
    const Vec old = top;
    PANET_UNROLL for (int r = 0; r < ROWS; ++r) {
        t[r] = rounded(diagonal(scores + r * ld, ld) * (scale[r] * LOG2_E));
        t[r] = seen<WINDOWED>(hidden + r * hidden_ld, t[r], HIDDEN);
        top = larger(t[r], top);
    }
    Vec total = load(sum) * exp2_or_zero(old - top);
    PANET_UNROLL for (int r = 0; r < ROWS; ++r) total += exp2_or_zero(t[r] - top);
    store(maximum, top);
    store(sum, total);
}

// Adds a row to those of the two previous query rows of the diagonal; `before` may be where the row itself is kept.
struct Sums {
    const float *previous, *before;
    float* sum;
    PANET_INLINE Vec two(i64 x) const { return load(before + x) + load(previous + x); }
    void of_two(i64 width) const {
        for (i64 x = 0; x < width; x += LANES) store(sum + x, two(x));
    }
};

// Weights of one key for a row of queries.
template <bool WINDOWED>
void weigh(const float* score, i64 ld, const float* hidden, float scale, const float* maximum, const float* factor,
           i64 width, float* weights, Sums sums) {
    for (i64 x = 0; x < width; x += LANES) {
        const Vec two = sums.two(x), t = seen<WINDOWED>(hidden + x, rounded(diagonal(score + x, ld) * scale), HIDDEN);
        const Vec weight = exp2_or_zero(t - load(maximum + x)) * load(factor + x);
        store(weights + x, weight);
        store(sums.sum + x, two + weight);
    }
}

// The same and the gradients of the scores; returns the gradient of the key's scale.
template <bool WINDOWED>
float differentiate(const float* score, const float* dweight, i64 ld, const float* hidden, float scale,
                    const float* maximum, const float* factor, const float* dot, i64 width, float* weights,
                    float* dscores, Sums sums, Sums dsums) {
    Vec dscale = {};
    for (i64 x = 0; x < width; x += LANES) {
        const Vec two = sums.two(x), dtwo = dsums.two(x);
        const Vec s = seen<WINDOWED>(hidden + x, diagonal(score + x, ld), 0.f);
        const Vec t = seen<WINDOWED>(hidden + x, rounded(s * (scale * LOG2_E)), HIDDEN);
        const Vec weight = exp2_or_zero(t - load(maximum + x)) * load(factor + x);
        const Vec slope = diagonal(dweight + x, ld) - load(dot + x);
        const Vec d = seen<WINDOWED>(hidden + x, weight * slope, 0.f), scaled = d * scale;
        dscale += d * s;
        store(weights + x, weight);
        store(dscores + x, scaled);
        store(sums.sum + x, two + weight);
        store(dsums.sum + x, dtwo + scaled);
    }
    return sum_lanes(dscale);
}

template <Pass PASS, class T, bool WINDOWED>
class Walker {
  public:
    Walker(const Walk& walk, i64 level, Scratch<T>& scratch, Range key_rows)
        : w_(walk), p_(*walk.problem), s_(scratch), level_(level) {
        height_ = p_.level_height[level];
        width_ = p_.level_width[level];
        scale_ = p_.scales[level] + w_.item * height_ * width_;
        key_rows_ = key_rows;
        if (key_rows.size() <= 0) return;
        Range columns{0, width_};
        if constexpr (WINDOWED) columns = Sight(p_, level).columns(w_.owned);
        const i64 blocks = (columns.size() + w_.key_block - 1) / w_.key_block;
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
            s_.planes.clear(5);
            if (PASS == Pass::gradient) s_.planes.clear(10);
        }
        Range shifts{key_rows_.begin - (w_.query_rows.end - 1), key_rows_.end - w_.query_rows.begin};
        if constexpr (WINDOWED) {
            const Range seen = Sight(p_, level_).shifts(w_.query_rows);
            shifts = {std::max(shifts.begin, seen.begin), std::min(shifts.end, seen.end)};
        }
        for (i64 shift = shifts.begin; shift < shifts.end; ++shift) {
            const Range rows{std::max(w_.query_rows.begin, key_rows_.begin - shift),
                             std::min(w_.query_rows.end, key_rows_.end - shift)};
            if constexpr (!WINDOWED) {
                if (rows.size() > 0) diagonal_of(shift, rows);
            } else {
                const Sight sight(p_, level_);
                for (i64 begin = rows.begin, end; begin < rows.end; begin = end + 1) {
                    for (end = begin; end < rows.end && sight.row(end, end + shift);) ++end;
                    if (begin < end) diagonal_of(shift, {begin, end});
                }
            }
        }
    }

    // Pairs of rows (query, query + shift) with weights in the given rows of queries.
    void diagonal_of(i64 shift, Range rows) {
        const Range queries = w_.query_rows.grown(p_.height), keys = key_rows_.grown(height_);
        first_ = rows.begin;
        last_ = rows.end - 1;
        begin_ = std::max({first_ - 1, queries.begin, keys.begin - shift});
        end_ = std::min({last_ + 1, queries.end - 1, keys.end - 1 - shift});
        for (i64 row = begin_; row <= end_ + (has_box ? 2 : 1); ++row) step(row, shift);
    }

    // Notes which queries of the tile do not see which keys of the block.
    void hide() {
        const Sight sight(p_, level_);
        for (i64 r = 0; r < columns_.size(); ++r)
            for (i64 x = 0; x < w_.tile_width; ++x)
                s_.hidden[0][r * w_.tile_width + x] =
                    x < w_.columns.size() && sight.column(w_.columns.begin + x, columns_.begin + r) ? 0.f : HIDDEN;
    }

    // The keys of the block, of begin..end, that queries of a vector see.
    Range seen_by(i64 x, Range keys) const {
        if constexpr (!WINDOWED) return keys;
        if (x >= w_.columns.size()) return {keys.begin, keys.begin};
        const i64 first = w_.columns.begin + x, last = std::min(first + LANES, w_.columns.end);
        const Range all = Sight(p_, level_).columns({first, last});
        const i64 begin = std::max(keys.begin, all.begin - columns_.begin);
        return {begin, std::max(begin, std::min(keys.end, all.end - columns_.begin))};
    }

    // Products of query row `row`, weights of the row before, pasted values of the one before that: a row of weights
    // needs the products of both its neighbours. Cut into windows of key columns, each stage one column behind.
    void step(i64 row, i64 shift) {
        const bool weights = first_ <= row - 1 && row - 1 <= last_, box = has_box && begin_ <= row - 2;
        const i64 columns = columns_.size();
        for (i64 begin = 0, done = 0, boxed = 0;; begin += Scratch<T>::ROWS) {
            const i64 end = std::min(begin + Scratch<T>::ROWS, columns), ready = end == columns ? columns : end - 1;
            products(row, row + shift, begin, end, s_.scores, 1, w_.query, p_.key_channels, w_.key);
            if constexpr (has_grad)
                products(row, row + shift, begin, end, s_.dweights, 6, w_.grad, p_.value_channels, w_.value);
            if constexpr (PASS == Pass::statistics) {
                if (weights) statistics(row - 1, row - 1 + shift, done, ready);
            } else if constexpr (PASS == Pass::dot) {
                if (weights) dot(row - 1, row - 1 + shift, done, ready);
            } else if (weights || box) {
                if constexpr (PASS == Pass::output) output(weights, row - 1, row - 1 + shift, done, ready);
                if constexpr (PASS == Pass::gradient) gradient(weights, row - 1, row - 1 + shift, done, ready);
                const i64 finished = ready == columns ? columns : ready - 1;
                sum_diagonals(s_.sums, s_.planes[5], boxed, finished);
                if constexpr (PASS == Pass::gradient) sum_diagonals(s_.dsums, s_.planes[10], boxed, finished);
                boxed = finished;
            }
            done = ready;
            if (end == columns) break;
        }
        if constexpr (PASS == Pass::output) {
            if (box) add_to_queries(w_.value_rows, p_.value_channels, row - 2, row - 2 + shift, s_.planes[5]);
        }
        if constexpr (PASS == Pass::gradient) {
            if (!box) return;
            add_to_keys(s_.planes[5], w_.grad_pixels, p_.value_channels, row - 2, row - 2 + shift, w_.dvalue);
            add_to_keys(s_.planes[10], w_.query_pixels, p_.key_channels, row - 2, row - 2 + shift, w_.dkey);
            add_to_queries(w_.key_rows, p_.key_channels, row - 2, row - 2 + shift, s_.planes[10]);
        }
    }

    // Of a ring of two planes, the one of `row`: that of two rows ago, overwritten in place.
    float* ring(int base, i64 row) const { return s_.planes[base + static_cast<int>(row & 1)]; }
    const float* product_plane(int base, i64 row) const {
        return begin_ <= row && row <= end_ ? ring(base, row) : s_.planes[0];
    }
    const float* weight_plane(int base, i64 row) const {
        return first_ <= row && row <= last_ ? ring(base, row) : s_.planes[0];
    }

    void products(i64 row, i64 key_row, i64 begin, i64 end, Window& window, int base, const float* queries,
                  i64 channels, const float* keys) {
        const i64 width = w_.tile_width;
        window.move_to(begin);
        float* sum = window.matrix();
        const float *previous = product_plane(base, row - 1), *before = product_plane(base, row - 2);
        if (row <= end_) {
            const i64 depth = slots_of<T>(channels);
            const i64 pixel = key_row * width_ + columns_.begin;
            const bool tiles = T::ROWS > 1;
            multiply(T{},
                     {tiles ? keys + pixel * depth : keys + pixel, tiles ? depth : 1, tiles ? 1 : height_ * width_,
                      queries + row * depth * width, width, static_cast<int>(depth)},
                     SumOfThree{ring(base, row), sum, previous, before, width, window.ld()}, begin, end, width);
        } else {
            for (i64 r = begin; r < end; ++r)
                for (i64 x = 0; x < width; x += LANES)
                    store(sum + r * window.ld() + x, load(before + r * width + x) + load(previous + r * width + x));
        }
        if (end == columns_.size()) window.clear(end, end + 1);
    }

    void statistics(i64 query_row, i64 key_row, i64 begin, i64 end) {
        const float* scale = scale_ + key_row * width_ + columns_.begin;
        const float* scores = s_.scores.matrix();
        const i64 ld = s_.scores.ld(), query = query_row * w_.tile_width;
        const i64 width = w_.tile_width;
        const float* hidden = s_.hidden[0];
        for (i64 x = 0; x < width; x += LANES) {
            float *maximum = w_.maximum + query + x, *sum = w_.factor + query + x;
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
        const float *scores = s_.scores.matrix(), *dweights = s_.dweights.matrix();
        const i64 ld = s_.scores.ld(), query = query_row * w_.tile_width;
        for (i64 x = 0; x < w_.tile_width; x += LANES) {
            const Vec maximum = load(w_.maximum + query + x);
            Vec sum = load(w_.factor + query + x), dot = load(w_.dot + query + x);
            const Range keys = seen_by(x, {std::max(begin, owned_.begin), std::min(end, owned_.end)});
            for (i64 r = keys.begin; r < keys.end; ++r) {
                const float* hidden = s_.hidden[0] + r * w_.tile_width + x;
                const Vec score = rounded(diagonal(scores + r * ld + x, ld) * (scale[r] * LOG2_E));
                const Vec weight = exp2_or_zero(seen<WINDOWED>(hidden, score, HIDDEN) - maximum);
                sum += weight;
                dot += seen<WINDOWED>(hidden, weight * diagonal(dweights + r * ld + x, ld), 0.f);
            }
            store(w_.factor + query + x, sum);
            store(w_.dot + query + x, dot);
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
        const float *previous = weight_plane(3, query_row - 1), *before = weight_plane(3, query_row - 2);
        const float *maximum = w_.maximum + query_row * w_.tile_width, *factor = w_.factor + query_row * w_.tile_width;
        const i64 width = w_.tile_width, ld = s_.scores.ld();
        for_owned(s_.sums, begin, end, [&](i64 r, float* sum) {
            const Sums sums{previous + r * width, before + r * width, sum};
            if (!weights) return sums.of_two(width);
            weigh<WINDOWED>(s_.scores.matrix() + r * ld, ld, s_.hidden[0] + r * width, scales[r] * LOG2_E, maximum,
                            factor, width, ring(3, query_row) + r * width, sums);
        });
    }

    void gradient(bool weights, i64 query_row, i64 key_row, i64 begin, i64 end) {
        const float* scales = scale_ + key_row * width_ + columns_.begin;
        float* dscales = w_.dscale + key_row * width_ + columns_.begin;
        const float *previous = weight_plane(3, query_row - 1), *before = weight_plane(3, query_row - 2);
        const float *dprevious = weight_plane(8, query_row - 1), *dbefore = weight_plane(8, query_row - 2);
        const i64 width = w_.tile_width, query = query_row * width, ld = s_.scores.ld();
        for_owned(s_.dsums, begin, end, [](i64, float*) {});
        for_owned(s_.sums, begin, end, [&](i64 r, float* sum) {
            const Sums sums{previous + r * width, before + r * width, sum};
            const Sums dsums{dprevious + r * width, dbefore + r * width, s_.dsums.matrix() + r * ld};
            if (!weights) return sums.of_two(width), dsums.of_two(width);
            dscales[r] += differentiate<WINDOWED>(
                s_.scores.matrix() + r * ld, s_.dweights.matrix() + r * ld, ld, s_.hidden[0] + r * width, scales[r],
                w_.maximum + query, w_.factor + query, w_.dot + query, width, ring(3, query_row) + r * width,
                ring(8, query_row) + r * width, sums, dsums);
        });
    }

    // Makes operands of rows begin..end of a plane: with key columns in slots, [column slot][query]; of pairs, for the
    // gradients, also with queries in slots, [key column][query slot]. Only the last row may be without a neighbour.
    void sum_diagonals(const Window& from, float* plane, i64 begin, i64 end) {
        const i64 ld = from.ld(), width = w_.tile_width;
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
        return T::TERMS == 1 ? plane : plane + slots_of<T>(columns_.size()) * w_.tile_width;
    }

    // Adds keys or values times a boxed plane, to be summed over the key columns, to one row of queries.
    void add_to_queries(const float* rows, i64 channels, i64 query_row, i64 key_row, const float* plane) {
        const i64 width = w_.tile_width, slots = slots_of<T>(width_);
        multiply(T{}, {rows + key_row * slots + columns_.begin / T::TERMS, height_ * slots, 1, plane, width,
                     static_cast<int>(slots_of<T>(columns_.size()))},
                    Accumulate{w_.out + (query_row - w_.first) * rows_of<T>(channels) * width, width}, 0, channels, width);
    }

    // Adds a boxed plane times queries or the output's gradients, to be summed over the queries, to one row of keys.
    void add_to_keys(float* plane, const float* pixels, i64 channels, i64 query_row, i64 key_row, float* out) {
        const i64 padded = round_up(channels), slots = slots_of<T>(w_.tile_width);
        const i64 row = (key_row - key_rows_.grown(height_).begin) * width_ + columns_.begin;
        multiply(T{}, {queries_in_slots(plane), slots, 1, pixels + query_row * slots * padded, padded,
                     static_cast<int>(slots_of<T>(w_.columns.size()))},
                    Accumulate{out + row * padded, padded}, 0, columns_.size(), padded);
    }

    const Walk& w_;
    const Problem& p_;
    Scratch<T>& s_;
    i64 level_, height_, width_;
    const float* scale_;
    Range key_rows_;         // owned rows of the level
    Range columns_, owned_;  // the block's columns with borders; the owned ones, counted from columns_.begin
    i64 first_, last_;       // query rows with weights on the current diagonal (inclusive)
    i64 begin_, end_;        // query rows with products and pasted values (inclusive)
};

// ---------------------------------------------------------------------------------------------- drivers

i64 tallest_level(const Problem& p) { return *std::max_element(p.level_height, p.level_height + p.levels); }

// Measured: larger planes (in floats) and strips of more query rows than these are slower, outgrowing the caches.
constexpr i64 PLANE = 20000, STRIP = 64;

constexpr int FORWARD_PLANES = 6, BACKWARD_PLANES = 11;

struct Borders {
    Range owned, all;
    Borders(const Tiling& tiling, i64 width, i64 tile) : owned(tiling.columns(width, tile)), all(owned.grown(width)) {}
};

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
                const float* in = task_pasted((item * tiling.tiles + t) * strips + strip) + (y - rows.begin) * row_floats;
                for (i64 c = 0; c < p.value_channels; ++c) {
                    float* o = out + ((item * p.value_channels + c) * p.height + y) * p.width + borders.all.begin;
                    for (i64 x = 0; x < borders.all.size(); ++x) o[x] += .25f * in[c * tile + x];
                }
            }
        }
    });
}

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
// the base-2 logarithms of the softmax's denominators. Without effect on processors that cannot, `bfloat16` rounds the
// operands of the products. `visible` is null, or points to four tables per level: for every row of queries the first
// row of keys that it sees and the one after the last, and the same for every column. Returns 0, or 1 when memory ran
// out.
extern "C" {

int panet_has_bfloat16() { return PANET_BFLOAT16; }

int panet_forward(i64 batch, i64 key_channels, i64 value_channels, i64 height, i64 width, i64 levels,
                  const i64* level_height, const i64* level_width, const i64* const* visible, int threads, int bfloat16,
                  const float* query, const float* const* keys, const float* const* scales, const float* const* values,
                  float* out, float* log_sums) {
    const Problem p{batch, key_channels, value_channels, height, width, levels, level_height, level_width,
                    threads, query, nullptr, keys, scales, values, visible};
    return run(bfloat16, visible, [&](auto kind, auto windowed) {
        return forward<decltype(kind), windowed>(p, out, log_sums);
    });
}

int panet_backward(i64 batch, i64 key_channels, i64 value_channels, i64 height, i64 width, i64 levels,
                   const i64* level_height, const i64* level_width, const i64* const* visible, int threads,
                   int bfloat16, const float* query, const float* const* keys, const float* const* scales,
                   const float* const* values, const float* grad, const float* log_sums, float* dquery,
                   float* const* dkeys, float* const* dscales, float* const* dvalues) {
    const Problem p{batch, key_channels, value_channels, height, width, levels, level_height, level_width,
                    threads, query, grad, keys, scales, values, visible};
    return run(bfloat16, visible, [&](auto kind, auto windowed) {
        return backward<decltype(kind), windowed>(p, log_sums, dquery, dkeys, dscales, dvalues);
    });
}
}
