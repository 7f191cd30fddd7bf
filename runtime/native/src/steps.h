// The steps of a pass, as the pool runs them: `compute` reads what the steps before left and writes
// to its own scratch alone, `commit` copies from there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model.h"

namespace mbpm {

constexpr int ROWS_PER = 4;  // rows of a chunk, where a step works row by row

// An adapter that takes part, and where its A x stands.
struct Low {
    const Adapter* adapter;
    float* s;  // [last - first][stride]
    float weight;
    int stride, first, last;
};

struct Lows {
    int layer, count;
    Low low[MAX_PAIRS];
};

// Activations in 16 bits, normed before where there is a norm, and A x of every active adapter.
struct RowStep {
    const Kernels* k;
    const float* x;       // [rows][columns]
    const float* weight;  // of the norm, or null
    float eps;
    int columns, rows;
    int8_t* q;
    Side* side;
    Group group;
    Lows lows;

    int groups() const { return columns / GROUP; }
    size_t scratch_floats() const {
        size_t low = 0;
        for (int i = 0; i < lows.count; i++) low += size_t(lows.low[i].stride);
        return ROWS_PER * (size_t(columns) + size_t(groups()) * (PLANES * GROUP + sizeof(Side)) / 4 + low);
    }
    struct Scratch {
        float* x;
        int8_t* q;
        Side* side;
        float* s;
    };
    Scratch divided(float* scratch) const {
        Scratch at{};
        at.x = scratch;
        at.q = reinterpret_cast<int8_t*>(at.x + ROWS_PER * columns);
        at.side = reinterpret_cast<Side*>(at.q + ROWS_PER * groups() * PLANES * GROUP);
        at.s = reinterpret_cast<float*>(at.side + ROWS_PER * groups());
        return at;
    }
    // f(low, its first row here, rows, scratch)
    template <class F>
    void each_low(int first, int n, float* s, F f) const {
        for (int i = 0; i < lows.count; i++) {
            const Low& low = lows.low[i];
            const int from = std::max(low.first, first), to = std::min(low.last, first + n);
            const auto& shared = low.adapter->shared(lows.layer, group);
            if (from >= to || !shared.rank) continue;
            f(low, shared, from, to - from, s);
            s += size_t(to - from) * low.stride;
        }
    }

    void compute(int chunk, float* scratch) const {
        const int first = chunk * ROWS_PER, n = std::min(ROWS_PER, rows - first);
        const Scratch to = divided(scratch);
        const float* v = x + size_t(first) * columns;
        if (weight) {
            for (int r = 0; r < n; r++) {
                const size_t at = size_t(r) * columns;
                k->rms_norm(v + at, weight, columns, eps, to.x + at);
            }
            v = to.x;
        }
        for (int r = 0; r < n; r++)
            k->quantise(v + size_t(r) * columns, columns, n, to.q + r * PLANES * GROUP, to.side + r);
        each_low(first, n, to.s, [&](const Low& low, const auto& shared, int from, int count, float* s) {
            k->shrink(shared.a, shared.rank, columns, v + size_t(from - first) * columns, columns, count,
                      shared.gain, s, low.stride);
            for (int t = 0; t < count; t++)
                for (int j = 0; j < shared.rank; j++) s[size_t(t) * low.stride + j] *= low.weight;
        });
    }
    void commit(int chunk, float* scratch) const {
        const int first = chunk * ROWS_PER, n = std::min(ROWS_PER, rows - first);
        const Scratch from = divided(scratch);
        const size_t codes = size_t(PLANES) * GROUP;
        for (int g = 0; g < groups(); g++) {
            const size_t to = size_t(g) * rows + first, at = size_t(g) * n;
            std::memcpy(q + to * codes, from.q + at * codes, size_t(n) * codes);
            std::memcpy(side + to, from.side + at, sizeof(Side) * size_t(n));
        }
        each_low(first, n, from.s, [&](const Low& low, const auto&, int row, int count, const float* s) {
            std::memcpy(low.s + size_t(row - low.first) * low.stride, s,
                        sizeof(float) * size_t(count) * low.stride);
        });
    }
};

enum Mode : int { STORE, ADD, SWIGLU };

// Matrices times activations, and B (A x) of every active adapter.
struct LinearStep {
    struct Part {
        Matrix matrix;
        const float* bias;
        float* y;
        int ld, projection, begin;  // begin: its first tile among all parts'
    };
    const Kernels* k;
    Activations x;
    Mode mode;
    int parts, tiles, per_chunk;
    Part part[3];
    Lows lows;
    // which A the next step reads, its columns, and lines of 64 bytes of all adapters together
    Group next_group;
    int next_layer, next_columns;
    size_t next_lines;

    void tile(int index, const Part& p, const Ahead& meanwhile, float* out) const {
        // the products take longer than it takes to fetch what is added to them
        for (int i = 0; i < lows.count; i++) {
            const auto& part = lows.low[i].adapter->parts(lows.layer)[p.projection];
            const auto* b = reinterpret_cast<const char*>(part.b + size_t(index) * part.rank * TILE);
            for (int at = 0; at < part.rank * TILE * 2; at += 64) __builtin_prefetch(b + at);
        }
        k->linear(p.matrix, index, 1, x, meanwhile, out);
        for (int i = 0; i < lows.count; i++) {
            const Low& low = lows.low[i];
            const auto& b = low.adapter->parts(lows.layer)[p.projection];
            if (b.rank)
                k->expand(b.b + size_t(index) * b.rank * TILE, b.rank, low.s + b.offset, low.stride,
                          low.last - low.first, out + low.first * TILE);
        }
    }
    // What one of all products fetches meanwhile: its share of the A that the next step reads.
    Ahead ahead(int product, int products) const {
        if (!next_lines) return {};  // after the last layer there is no next one to ask for
        const size_t from = next_lines * size_t(product) / size_t(products);
        const size_t to = next_lines * size_t(product + 1) / size_t(products);
        size_t begin = 0;
        for (int i = 0; i < lows.count; i++) {
            const auto& next = lows.low[i].adapter->shared(next_layer, next_group);
            const size_t end = begin + size_t(next.rank) * next_columns * 2 / 64;
            if (from < end) return {next.a + (from - begin) * 32, int(std::min(to, end) - from)};
            begin = end;
        }
        return {};
    }
    const Part& part_of(int index) const {
        int i = 0;
        while (i + 1 < parts && index >= part[i + 1].begin) i++;
        return part[i];
    }
    void compute(int chunk, float* scratch) const {
        const size_t size = size_t(x.tokens) * TILE;
        const int end = std::min((chunk + 1) * per_chunk, tiles);
        for (int i = chunk * per_chunk; i < end; i++, scratch += size) {
            if (mode == SWIGLU) {
                tile(i, part[0], ahead(2 * i, 2 * tiles), scratch);
                tile(i, part[1], ahead(2 * i + 1, 2 * tiles), scratch + size);
                k->swiglu(scratch, scratch + size, int(size), scratch);
            } else {
                const Part& p = part_of(i);
                tile(i - p.begin, p, ahead(i, tiles), scratch);
            }
        }
    }
    void commit(int chunk, const float* scratch) const {
        const size_t size = size_t(x.tokens) * TILE;
        const int end = std::min((chunk + 1) * per_chunk, tiles);
        for (int i = chunk * per_chunk; i < end; i++, scratch += size) {
            const Part& p = mode == SWIGLU ? part[0] : part_of(i);
            const int row = (mode == SWIGLU ? i : i - p.begin) * TILE;
            const int n = std::min(TILE, p.matrix.rows - row);
            for (int t = 0; t < x.tokens; t++) {
                float* y = p.y + size_t(t) * p.ld + row;
                const float* from = scratch + t * TILE;
                if (mode == ADD)
                    for (int j = 0; j < n; j++) y[j] += from[j];
                else if (p.bias)
                    for (int j = 0; j < n; j++) y[j] = from[j] + p.bias[row + j];
                else
                    std::memcpy(y, from, sizeof(float) * size_t(n));
            }
        }
    }
};

// Where the keys and values of a pass's rows stand, in one layer.
struct Kept {
    HeadLayout layout;
    size_t block_stride;
    bool shared;                // all rows have the first cache
    int first_position;
    uint8_t* base[MAX_BATCH];   // the layer in the cache's first block
    int position[MAX_BATCH];

    int at(int row) const { return shared ? first_position + row : position[row]; }
    uint8_t* layer(int row) const { return base[shared ? 0 : row]; }
};

// Rotary positions; queries are left for attention, keys and values go into the cache.
struct StoreStep {
    const Kernels* k;
    Kept kept;
    int rows, heads, kv_heads;
    const float* qkv;       // [rows][(heads + 2 kv_heads) d]
    const float* rotation;  // [rows][d]: cosines, sines
    float* q;               // [rows][heads d], scaled and turned

    // of a row: q, then per key/value head two scales, d key codes and d value codes
    size_t head_floats() const { return 2 + size_t(kept.layout.d) * (kept.layout.wide_keys ? 3 : 2) / 4; }
    size_t row_floats() const { return size_t(heads) * kept.layout.d + kv_heads * head_floats(); }
    size_t scratch_floats() const { return ROWS_PER * row_floats() + MAX_HEAD; }

    void turn(const float* v, const float* cosine, float factor, float* to) const {
        const int half = kept.layout.d / 2;
        for (int i = 0; i < half; i++) {
            const float a = v[i] * factor, b = v[i + half] * factor;
            to[i] = a * cosine[i] - b * cosine[half + i];
            to[i + half] = b * cosine[i] + a * cosine[half + i];
        }
        if (!kept.layout.wide_keys) k->hadamard(to, kept.layout.d);
    }
    void compute(int chunk, float* scratch) const {
        const int d = kept.layout.d, end = std::min((chunk + 1) * ROWS_PER, rows);
        float* turned = scratch + ROWS_PER * row_floats();
        for (int r = chunk * ROWS_PER; r < end; r++, scratch += row_floats()) {
            const float *from = qkv + size_t(r) * (heads + 2 * kv_heads) * d, *c = rotation + size_t(r) * d;
            for (int h = 0; h < heads; h++) turn(from + h * d, c, 1.0f / std::sqrt(float(d)), scratch + h * d);
            float* head = scratch + heads * d;
            for (int h = 0; h < kv_heads; h++, head += head_floats()) {
                auto* codes = reinterpret_cast<int8_t*>(head + 2);
                turn(from + (heads + h) * d, c, 1.0f, turned);
                if (kept.layout.wide_keys) {
                    head[0] = 1.0f;
                    for (int i = 0; i < d; i++) {
                        const uint16_t half = float_to_half(turned[i]);
                        std::memcpy(codes + 2 * i, &half, 2);
                    }
                    codes += d;
                } else {
                    head[0] = k->round8(turned, d, codes);
                }
                head[1] = k->round8(from + (heads + kv_heads + h) * d, d, codes + d);
            }
        }
    }
    void commit(int chunk, const float* scratch) const {
        const HeadLayout& layout = kept.layout;
        const int d = layout.d, end = std::min((chunk + 1) * ROWS_PER, rows);
        const size_t width = layout.wide_keys ? 2 : 1;
        for (int r = chunk * ROWS_PER; r < end; r++, scratch += row_floats()) {
            std::memcpy(q + size_t(r) * heads * d, scratch, sizeof(float) * size_t(heads) * d);
            const int position = kept.at(r), lane = position % KEYS;
            uint8_t* block = kept.layer(r) + size_t(position / KEYS) * kept.block_stride;
            const size_t at = size_t(lane / TILE) * d * TILE + size_t(lane % TILE);
            const float* head = scratch + heads * d;
            for (int h = 0; h < kv_heads; h++, head += head_floats(), block += layout.bytes()) {
                const auto* codes = reinterpret_cast<const uint8_t*>(head + 2);
                if (layout.wide_keys)
                    for (int i = 0; i < d; i++) std::memcpy(block + (at + size_t(i) * TILE) * 2, codes + 2 * i, 2);
                else
                    for (int i = 0; i < d; i++) block[at + size_t(i) * TILE] = codes[i];
                std::memcpy(block + layout.values_at() + size_t(lane) * d, codes + d * width, size_t(d));
                auto* scales = reinterpret_cast<float*>(block + layout.scales_at());
                scales[lane] = head[0];
                scales[KEYS + lane] = head[1];
            }
        }
    }
};

// Attention of all rows, cut by rows, key/value heads and, where the rows are few, by keys.
struct AttendStep {
    const Kernels* k;
    Kept kept;
    int kv_heads, group;     // group: query heads of a key/value head
    int rows, rows_per;      // rows of the pass, and of a chunk
    int splits, split_keys;  // parts that the keys are cut into
    const float* q;          // [rows][heads d]
    float* out;              // [rows][heads d]
    float* partial;          // [rows][kv_heads][splits][group][2 + d]

    int limit(int row) const { return kept.at(row) + 1; }
    size_t row(int r) const { return size_t(r) * kv_heads * group * kept.layout.d; }

    void compute(int chunk, float* scratch) const {
        const int split = chunk % splits, head = chunk / splits % kv_heads;
        const int first = chunk / splits / kv_heads * rows_per;
        const int end = std::min(first + rows_per, rows);
        Attend a;
        a.layout = kept.layout;
        a.block_stride = kept.block_stride;
        a.head = kept.layer(first) + size_t(head) * kept.layout.bytes();
        a.first = split * split_keys;
        a.last = std::min(limit(end - 1), a.first + split_keys);
        a.queries = 0;
        for (int r = first; r < end; r++)
            for (int g = 0; g < group; g++) {
                a.q[a.queries] = q + row(r) + size_t(head * group + g) * kept.layout.d;
                a.limit[a.queries++] = limit(r);
            }
        k->attend(a, scratch, scratch + MAX_QUERIES, scratch + 2 * MAX_QUERIES);
    }
    void commit(int chunk, const float* scratch) const {
        const int split = chunk % splits, head = chunk / splits % kv_heads;
        const int first = chunk / splits / kv_heads * rows_per;
        const int end = std::min(first + rows_per, rows), d = kept.layout.d;
        const float *largest = scratch, *sums = scratch + MAX_QUERIES, *mixed = scratch + 2 * MAX_QUERIES;
        for (int r = first, i = 0; r < end; r++)
            for (int g = 0; g < group; g++, i++) {
                if (splits == 1) {
                    float* to = out + row(r) + size_t(head * group + g) * d;
                    const float factor = 1.0f / sums[i];
                    for (int j = 0; j < d; j++) to[j] = mixed[i * d + j] * factor;
                    continue;
                }
                float* to = partial + (((size_t(r) * kv_heads + head) * splits + split) * group + g) * (2 + d);
                to[0] = largest[i];
                to[1] = sums[i];
                std::memcpy(to + 2, mixed + i * d, sizeof(float) * d);
            }
    }
    void merge() const {
        const int d = kept.layout.d;
        for (int r = 0; r < rows; r++)
            for (int h = 0; h < kv_heads; h++)
                for (int g = 0; g < group; g++) {
                    const float* from = partial + ((size_t(r) * kv_heads + h) * splits * group + g) * (2 + d);
                    const size_t step = size_t(group) * (2 + d);
                    float most = from[0], total = 0;
                    for (int s = 1; s < splits; s++) most = std::max(most, from[s * step]);
                    float* to = out + row(r) + size_t(h * group + g) * d;
                    std::memset(to, 0, sizeof(float) * d);
                    for (int s = 0; s < splits; s++) {
                        const float* p = from + s * step;
                        if (p[1] == 0.0f) continue;
                        const float w = std::exp(p[0] - most);
                        total += w * p[1];
                        for (int j = 0; j < d; j++) to[j] += w * p[2 + j];
                    }
                    for (int j = 0; j < d; j++) to[j] /= total;
                }
    }
};

// The bandwidth probe.
struct ReadStep {
    const Kernels* k;
    const uint8_t* data;
    size_t size, per_chunk;
    void compute(int chunk, float* scratch) const {
        const size_t from = size_t(chunk) * per_chunk;
        const uint64_t sum = k->read(data + from, std::min(per_chunk, size - from));
        std::memcpy(scratch, &sum, sizeof sum);
    }
    void commit(int, const float*) const {}
};

}  // namespace mbpm
