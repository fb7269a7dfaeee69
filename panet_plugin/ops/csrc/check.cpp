// Compares the kernel with a direct evaluation of the formulas in double precision; meant for the sanitizers.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "pyramid_attention.cpp"

namespace {

struct Size {
    i64 height, width;
};

struct Tensor {
    i64 channels, height, width;
    std::vector<float> data;
    Tensor(i64 batch, i64 c, Size size)
        : channels(c), height(size.height), width(size.width), data(batch * c * height * width) {}
    i64 at(i64 item, i64 c, i64 y, i64 x) const { return ((item * channels + c) * height + y) * width + x; }
};

struct Reference {
    std::vector<double> data;
    explicit Reference(const Tensor& like) : data(like.data.size()) {}
};

bool inside(const Tensor& t, i64 y, i64 x) { return 0 <= y && y < t.height && 0 <= x && x < t.width; }

// Calls visit(index into the query image, index into the key image) for the offsets inside both images.
template <class Visit>
void for_offsets(const Tensor& a, i64 ay, i64 ax, const Tensor& b, i64 by, i64 bx, const Visit& visit) {
    for (i64 dy = -1; dy <= 1; ++dy)
        for (i64 dx = -1; dx <= 1; ++dx)
            if (inside(a, ay + dy, ax + dx) && inside(b, by + dy, bx + dx)) visit(ay + dy, ax + dx, by + dy, bx + dx);
}

double difference(const std::vector<float>& found, const std::vector<double>& expected) {
    double worst = 0, scale = 1e-6;
    for (size_t i = 0; i < found.size(); ++i) {
        // Not max(): a NaN must not be passed over.
        if (const double d = std::fabs(found[i] - expected[i]); !(d <= worst)) worst = d;
        scale = std::max(scale, std::fabs(expected[i]));
    }
    return worst / scale;
}

// For every query along one axis the first key that it sees and the one after the last, as ops/window.py defines them.
struct Table {
    std::vector<i64> begin, end;
    Table(i64 queries, i64 keys, i64 window) {
        for (i64 y = 0; y < queries; ++y) {
            const i64 start = std::max<i64>(std::min(y - window / 2, queries - window), 0);
            const i64 stop = std::min(start + window, queries);
            begin.push_back(std::min((2 * keys * start + queries - 1) / (2 * queries), keys - 1));
            end.push_back(std::max((2 * keys * stop + queries - 1) / (2 * queries), begin.back() + 1));
        }
    }
};

double compare(i64 batch, i64 ck, i64 cv, Size size, const std::vector<Size>& sizes, int threads, bool bfloat16,
               i64 window, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    auto random = [&](i64 channels, Size s) {
        Tensor t(batch, channels, s);
        // Exact in bfloat16, so that scores are: what rounding does to them, the softmax makes arbitrarily large.
        for (float& x : t.data) x = std::round(16 * normal(generator)) / 16;
        return t;
    };
    Tensor query = random(ck, size), grad = random(cv, size);
    Tensor out(batch, cv, size), lse(batch, 1, size), dquery(batch, ck, size);
    std::vector<Tensor> keys, values, scales, dkeys, dvalues, dscales;
    for (Size s : sizes) {
        keys.push_back(random(ck, s));
        values.push_back(random(cv, s));
        scales.push_back(random(1, s));
        dkeys.emplace_back(batch, ck, s);
        dvalues.emplace_back(batch, cv, s);
        dscales.emplace_back(batch, 1, s);
    }

    std::vector<i64> heights, widths;
    for (Size s : sizes) heights.push_back(s.height), widths.push_back(s.width);
    auto pointers = [](std::vector<Tensor>& tensors) {
        std::vector<float*> p;
        for (Tensor& t : tensors) p.push_back(t.data.data());
        return p;
    };
    auto k = pointers(keys), s = pointers(scales), v = pointers(values), dk = pointers(dkeys), ds = pointers(dscales),
         dv = pointers(dvalues);
    const i64 levels = sizes.size();
    std::vector<Table> tables;
    std::vector<const i64*> visible;
    for (Size s : sizes) {
        tables.emplace_back(size.height, s.height, window);
        tables.emplace_back(size.width, s.width, window);
    }
    for (const Table& t : tables) visible.push_back(t.begin.data()), visible.push_back(t.end.data());
    const i64* const* seen = window ? visible.data() : nullptr;
    if (panet_forward(batch, ck, cv, size.height, size.width, levels, heights.data(), widths.data(), seen, threads,
                      bfloat16, query.data.data(), k.data(), s.data(), v.data(), out.data.data(),
                      lse.data.data()) != 0 ||
        panet_backward(batch, ck, cv, size.height, size.width, levels, heights.data(), widths.data(), seen, threads,
                       bfloat16, query.data.data(), k.data(), s.data(), v.data(), grad.data.data(), lse.data.data(),
                       dquery.data.data(), dk.data(), ds.data(), dv.data()) != 0)
        return INFINITE;

    Reference expected(out), dquery_expected(query);
    std::vector<Reference> dk_expected(keys.begin(), keys.end()), dv_expected(values.begin(), values.end()),
        ds_expected(scales.begin(), scales.end());
    struct Pair {
        size_t level;
        i64 y, x;
        double score, weight, dweight;
    };
    for (i64 n = 0; n < batch; ++n)
        for (i64 y = 0; y < size.height; ++y)
            for (i64 x = 0; x < size.width; ++x) {
                std::vector<Pair> pairs;
                double top = -INFINITE, total = 0, mean = 0;
                for (size_t l = 0; l < keys.size(); ++l)
                    for (i64 ky = 0; ky < sizes[l].height; ++ky)
                        for (i64 kx = 0; kx < sizes[l].width; ++kx) {
                            auto sees = [&](const Table& t, i64 q, i64 k) { return t.begin[q] <= k && k < t.end[q]; };
                            if (window && !(sees(tables[2 * l], y, ky) && sees(tables[2 * l + 1], x, kx))) continue;
                            Pair pair{l, ky, kx, 0, 0, 0};
                            for_offsets(query, y, x, keys[l], ky, kx, [&](i64 qy, i64 qx, i64 ly, i64 lx) {
                                for (i64 c = 0; c < ck; ++c)
                                    pair.score += double(query.data[query.at(n, c, qy, qx)]) *
                                                  keys[l].data[keys[l].at(n, c, ly, lx)];
                                for (i64 c = 0; c < cv; ++c)
                                    pair.dweight += .25 * grad.data[grad.at(n, c, qy, qx)] *
                                                    values[l].data[values[l].at(n, c, ly, lx)];
                            });
                            pair.weight = pair.score * scales[l].data[scales[l].at(n, 0, ky, kx)];
                            top = std::max(top, pair.weight);
                            pairs.push_back(pair);
                        }
                for (Pair& pair : pairs) total += pair.weight = std::exp(pair.weight - top);
                for (Pair& pair : pairs) mean += (pair.weight /= total) * pair.dweight;
                for (const Pair& pair : pairs) {
                    const Tensor &key = keys[pair.level], &value = values[pair.level], &scale = scales[pair.level];
                    const double d = pair.weight * (pair.dweight - mean),
                                 a = scale.data[scale.at(n, 0, pair.y, pair.x)];
                    ds_expected[pair.level].data[scale.at(n, 0, pair.y, pair.x)] += d * pair.score;
                    for_offsets(query, y, x, key, pair.y, pair.x, [&](i64 qy, i64 qx, i64 ly, i64 lx) {
                        for (i64 c = 0; c < ck; ++c) {
                            dquery_expected.data[query.at(n, c, qy, qx)] += d * a * key.data[key.at(n, c, ly, lx)];
                            dk_expected[pair.level].data[key.at(n, c, ly, lx)] +=
                                d * a * query.data[query.at(n, c, qy, qx)];
                        }
                        for (i64 c = 0; c < cv; ++c) {
                            expected.data[out.at(n, c, qy, qx)] +=
                                .25 * pair.weight * value.data[value.at(n, c, ly, lx)];
                            dv_expected[pair.level].data[value.at(n, c, ly, lx)] +=
                                .25 * pair.weight * grad.data[grad.at(n, c, qy, qx)];
                        }
                    });
                }
            }
    double worst = std::max(difference(out.data, expected.data), difference(dquery.data, dquery_expected.data));
    for (size_t l = 0; l < keys.size(); ++l)
        for (double d :
             {difference(dkeys[l].data, dk_expected[l].data), difference(dvalues[l].data, dv_expected[l].data),
              difference(dscales[l].data, ds_expected[l].data)})
            if (!(d <= worst)) worst = d;
    return worst;
}

}  // namespace

int main() {
    struct Case {
        i64 batch, key_channels, value_channels;
        Size size;
        std::vector<Size> levels;
        int threads;
    };
    const Case cases[] = {
        {1, 1, 1, {1, 1}, {{1, 1}}, 1},
        {1, 3, 5, {1, 2}, {{1, 2}, {1, 1}}, 2},
        {2, 2, 3, {1, 37}, {{1, 37}, {1, 33}}, 2},
        {1, 7, 4, {33, 1}, {{33, 1}, {29, 1}, {3, 2}}, 2},
        {2, 17, 33, {5, 6}, {{5, 6}, {4, 5}, {2, 3}}, 1},
        {1, 4, 9, {17, 18}, {{17, 18}, {15, 16}}, 3},
        {3, 2, 2, {24, 7}, {{24, 7}, {21, 6}}, 4},
        {1, 2, 2, {2, 300}, {{2, 300}, {1, 270}}, 2},  // several tiles of queries
        {1, 1, 3, {3, 40}, {{2, 700}}, 2},             // several blocks of keys
        {1, 32, 64, {9, 20}, {{9, 20}, {8, 18}}, 2},
    };
    for (int bfloat16 = 0; bfloat16 <= panet_has_bfloat16(); ++bfloat16) {
        unsigned seed = 0;
        double worst = 0;
        for (i64 window : {0, 1, 4, 9, 31})
            for (const Case& c : cases) {
                const double d = compare(c.batch, c.key_channels, c.value_channels, c.size, c.levels, c.threads,
                                         bfloat16, window, ++seed);
                if (!(d < (bfloat16 ? 1e-2 : 1e-4))) {
                    std::printf("case %u differs by %g of its scale, bfloat16 %d, window %d\n", seed, d, bfloat16,
                                int(window));
                    return 1;
                }
                worst = std::max(worst, d);
            }
        std::printf("%u cases agree within %.1e of their scale, %d lanes%s\n", seed, worst, LANES,
                    bfloat16 ? ", bfloat16" : "");
    }
    return 0;
}
