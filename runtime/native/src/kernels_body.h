// The kernels, written once over the vectors of simd.h and compiled once per instruction set.

#include "simd.h"

constexpr int PARTS = TILE / W;  // vectors that hold one word of every row of a tile
constexpr int AHEAD = 4096;      // bytes that weights are prefetched ahead

// A share of `Ahead` with every group of columns: all at once would hold up the products.
struct Fetch {
    const char* at;
    const char* end;
    int per;
    Fetch(const Ahead& a, int groups)
        : at((const char*)a.data), end(at + 64 * (size_t)a.lines), per(64 * ((a.lines + groups - 1) / groups)) {}
    void some() {
        for (int i = 0; i < per && at < end; i += 64, at += 64) __builtin_prefetch(at, 0, 2);
    }
};

template <Format F>
struct Traits {
    static constexpr bool small = F == Q4 || F == Q4S || F == Q5;
    static constexpr int shift = F == Q4S ? 8 : F == Q5 ? 16 : F == Q4 ? 0 : 128;
};

// Part s of a tile: the eight words of its rows as unsigned bytes.
template <Format F>
INLINE void unpack(const uint8_t* tile, int s, const uint8_t* table, VU (&w)[8]) {
    const uint8_t* codes = tile + SCALE_BYTES[F] + s * 4 * W;
    if constexpr (F == Q8) {
        for (int j = 0; j < 8; j++) w[j] = load<VU>(codes + 64 * j);
        return;
    }
    for (int j = 0; j < 4; j++) {
        VU n = load<VU>(codes + 64 * j);
        w[j] = n & 0x0f0f0f0fu;
        w[j + 4] = (n >> 4) & 0x0f0f0f0fu;
    }
    if constexpr (F == Q5) {
        VU plane = load<VU>(codes + 256);
        for (int j = 0; j < 4; j++) w[j] |= (plane << (4 - j)) & 0x10101010u;
        w[4] |= plane & 0x10101010u;
        for (int j = 5; j < 8; j++) w[j] |= (plane >> (j - 4)) & 0x10101010u;
    }
    if constexpr (F == Q4C)
        for (int j = 0; j < 8; j++) w[j] = lookup(w[j], table);
}

template <Format F>
INLINE VF product(const VU (&w)[8], VF scale, VF offset, const int8_t* q, const Side& side, VF acc) {
    VI a = {}, b = splat(-Traits<F>::shift * side.codes);
    for (int j = 0; j < 8; j++) {
        int32_t high, low;
        __builtin_memcpy(&high, q + 4 * j, 4);
        __builtin_memcpy(&low, q + GROUP + 4 * j, 4);
        a = dot<Traits<F>::small>(a, w[j], high);
        b = dot<Traits<F>::small>(b, w[j], low);
    }
    acc += to_float((a << 8) + b) * (scale * side.scale);
    if constexpr (F == Q4) acc += offset * side.values;
    return acc;
}

// At most eight tokens: sums stay in registers.
template <Format F, int M>
static void rows_few(const uint8_t* p, int groups, const Activations& x, Fetch fetch,
                     const uint8_t* table, float* out) {
    VF acc[PARTS][M] = {};
    const int8_t* q = x.q;
    const Side* side = x.side;
    for (int g = 0; g < groups; g++) {
        for (int at = 0; at < TILE_BYTES[F]; at += 64) prefetch(p + AHEAD + at);
        fetch.some();
        for (int s = 0; s < PARTS; s++) {
            VU w[8];
            unpack<F>(p, s, table, w);
            VF scale = load_half((const uint16_t*)p + s * W);
            VF offset = F == Q4 ? load_half((const uint16_t*)p + TILE + s * W) : VF{};
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                acc[s][m] = product<F>(w, scale, offset, q + m * PLANES * GROUP, side[m], acc[s][m]);
        }
        p += TILE_BYTES[F];
        q += M * PLANES * GROUP;
        side += M;
    }
    for (int m = 0; m < M; m++)
        for (int s = 0; s < PARTS; s++) store(out + m * TILE + s * W, acc[s][m]);
}

// Many tokens: a tile is unpacked once, and sums stay in the first-level cache.
template <Format F>
static void rows_many(const uint8_t* p, int groups, const Activations& x, Fetch,
                      const uint8_t* table, float* out) {
    const int tokens = x.tokens;
    __builtin_memset(out, 0, sizeof(float) * TILE * tokens);
    const int8_t* q = x.q;
    const Side* side = x.side;
    for (int g = 0; g < groups; g++) {
        for (int s = 0; s < PARTS; s++) {
            VU w[8];
            unpack<F>(p, s, table, w);
            VF scale = load_half((const uint16_t*)p + s * W);
            VF offset = F == Q4 ? load_half((const uint16_t*)p + TILE + s * W) : VF{};
            float* o = out + s * W;
            int t = 0;
            for (; t + 4 <= tokens; t += 4) {
                VF acc[4];
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    acc[i] = product<F>(w, scale, offset, q + (t + i) * PLANES * GROUP, side[t + i],
                                           load<VF>(o + (t + i) * TILE));
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) store(o + (t + i) * TILE, acc[i]);
            }
            for (; t < tokens; t++)
                store(o + t * TILE, product<F>(w, scale, offset, q + t * PLANES * GROUP, side[t],
                                                  load<VF>(o + t * TILE)));
        }
        p += TILE_BYTES[F];
        q += size_t(tokens) * PLANES * GROUP;
        side += tokens;
    }
}

template <Format F>
static void linear_of(const Matrix& m, int tile, int count, const Activations& x, const Ahead& ahead,
                      float* out) {
    uint8_t table[16];
    for (int i = 0; i < 16; i++) table[i] = (uint8_t)(m.codebook[i] + 128);
    const int groups = m.groups();
    auto* rows = rows_many<F>;
    if (x.tokens == 1) rows = rows_few<F, 1>;
    if constexpr (W > 4) switch (x.tokens) {
        case 2: rows = rows_few<F, 2>; break;
        case 3: rows = rows_few<F, 3>; break;
        case 4: rows = rows_few<F, 4>; break;
        case 5: rows = rows_few<F, 5>; break;
        case 6: rows = rows_few<F, 6>; break;
        case 7: rows = rows_few<F, 7>; break;
        case 8: rows = rows_few<F, 8>; break;
    }
    for (int i = 0; i < count; i++, out += size_t(TILE) * x.tokens)
        rows(m.data + (tile + i) * m.row_bytes(), groups, x, Fetch(ahead, groups), table, out);
}

static void linear(const Matrix& m, int tile, int count, const Activations& x, const Ahead& ahead,
                   float* out) {
    switch (m.format) {
        case Q4: return linear_of<Q4>(m, tile, count, x, ahead, out);
        case Q4S: return linear_of<Q4S>(m, tile, count, x, ahead, out);
        case Q4C: return linear_of<Q4C>(m, tile, count, x, ahead, out);
        case Q5: return linear_of<Q5>(m, tile, count, x, ahead, out);
        default: return linear_of<Q8>(m, tile, count, x, ahead, out);
    }
}

static void quantise(const float* x, int columns, int tokens, int8_t* q, Side* side) {
    const float most_code = 127.0f * 256.0f;
    for (int g = 0; g < columns / GROUP; g++, x += GROUP) {
        VF v[GROUP / W], most = {};
        for (int i = 0; i < GROUP / W; i++) {
            v[i] = load<VF>(x + i * W);
            most = max(most, abs(v[i]));
        }
        const float largest = highest(most), scale = largest / most_code;
        const float inverse = largest > 0 ? most_code / largest : 0.0f;
        int8_t* to = q + size_t(g) * tokens * PLANES * GROUP;
        VI codes = {};
        for (int i = 0; i < GROUP / W; i++) {
            VI c = round_nearest(v[i] * inverse);
            codes += c;
            const VI high = (c + 128) >> 8;
            store_int8(to + i * W, high);
            store_int8(to + GROUP + i * W, c - (high << 8));
        }
        const int32_t s = sum(codes);
        // the sum of what was rounded, not of x: an offset must cancel against the same errors
        side[size_t(g) * tokens] = {scale, s, scale * float(s), 0.0f};
    }
}

static void rms_norm(const float* x, const float* weight, int n, float eps, float* y) {
    VF squares = {};
    int i = 0;
    for (; i + W <= n; i += W) squares += load<VF>(x + i) * load<VF>(x + i);
    float total = sum(squares);
    for (; i < n; i++) total += x[i] * x[i];
    const float factor = 1.0f / __builtin_sqrtf(total / n + eps);
    for (i = 0; i + W <= n; i += W) store(y + i, load<VF>(x + i) * factor * load<VF>(weight + i));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
}

// 1 / sigmoid(x); e^-x overflows below -88, where what is divided by it is zero anyway
INLINE VF sigmoid_divisor(VF x) { return exp(-max(x, splat(-87.0f))) + 1.0f; }

INLINE VF silu_times(VF gate, VF up) { return gate / sigmoid_divisor(gate) * up; }

static void swiglu(const float* gate, const float* up, int n, float* y) {
    int i = 0;
    for (; i + W <= n; i += W) store(y + i, silu_times(load<VF>(gate + i), load<VF>(up + i)));
    if (i < n) {
        float a[W] = {}, b[W] = {};
        for (int j = i; j < n; j++) a[j - i] = gate[j], b[j - i] = up[j];
        store(a, silu_times(load<VF>(a), load<VF>(b)));
        for (int j = i; j < n; j++) y[j] = a[j - i];
    }
}

template <int R>
static void shrink_rows(const uint16_t* a, int columns, const float* x, const float* gain, float* s) {
    VF acc[R] = {};
    for (int k = 0; k < columns; k += TILE, a += R * TILE)
        for (int part = 0; part < TILE; part += W) {
            VF v = load<VF>(x + k + part);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) acc[r] += load_half(a + r * TILE + part) * v;
        }
    for (int r = 0; r < R; r++) s[r] = sum(acc[r]) * gain[r];
}

static void shrink(const uint16_t* a, int rank, int columns, const float* x, int ld, int tokens,
                   const float* gain, float* s, int stride) {
    constexpr decltype(&shrink_rows<1>) of[SHRINK] = {
        shrink_rows<1>, shrink_rows<2>, shrink_rows<3>, shrink_rows<4>,
        shrink_rows<5>, shrink_rows<6>, shrink_rows<7>, shrink_rows<8>};
    for (int r = 0; r < rank; r += SHRINK, a += SHRINK * columns)
        for (int t = 0; t < tokens; t++)
            of[(rank - r < SHRINK ? rank - r : SHRINK) - 1](a, columns, x + size_t(t) * ld, gain + r,
                                                           s + size_t(t) * stride + r);
}

static void expand_one(const uint16_t* b, int rank, const float* s, float* y) {
    for (int part = 0; part < PARTS; part++, b += W, y += W) {
        VF even = load<VF>(y), odd = {};
        int j = 0;
        for (; j + 2 <= rank; j += 2) {
            even += load_half(b + j * TILE) * s[j];
            odd += load_half(b + (j + 1) * TILE) * s[j + 1];
        }
        if (j < rank) even += load_half(b + j * TILE) * s[j];
        store(y, even + odd);
    }
}

static void expand(const uint16_t* b, int rank, const float* s, int stride, int tokens, float* y) {
    int t = 0;
    for (; t + 4 <= tokens; t += 4, s += 4 * size_t(stride), y += 4 * TILE)
        for (int part = 0; part < PARTS; part++) {
            const uint16_t* from = b + part * W;
            float* to = y + part * W;
            VF acc[4];
            for (int i = 0; i < 4; i++) acc[i] = load<VF>(to + i * TILE);
            for (int j = 0; j < rank; j++) {
                VF w = load_half(from + j * TILE);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) acc[i] += w * s[size_t(i) * stride + j];
            }
            for (int i = 0; i < 4; i++) store(to + i * TILE, acc[i]);
        }
    for (; t < tokens; t++, s += stride, y += TILE) expand_one(b, rank, s, y);
}

// Scores of N queries with the 64 keys of a block; `tiles` of 16 keys are looked at.
template <int N, bool Wide>
INLINE void score(const uint8_t* keys, const float* scales, int d, int tiles, const float* q,
                  float* out) {
    for (int tile = 0; tile < tiles; tile++)
        for (int s = 0; s < PARTS; s++) {
            VF acc[N] = {};
            const size_t at = size_t(tile) * d * TILE + s * W;
            for (int k = 0; k < d; k++) {
                VF v;
                if constexpr (Wide) v = load_half((const uint16_t*)keys + at + size_t(k) * TILE);
                else v = load_int8((const int8_t*)keys + at + size_t(k) * TILE);
#pragma GCC unroll 4
                for (int i = 0; i < N; i++) acc[i] += v * q[i * d + k];
            }
            VF scale = load<VF>(scales + tile * TILE + s * W);
            for (int i = 0; i < N; i++)
                store(out + i * KEYS + tile * TILE + s * W, acc[i] * scale);
        }
}

// mixed[N][d] += p[N][tokens] times values[tokens][d]
template <int N, int V>
INLINE void mix(const int8_t* values, int d, int from, int tokens, const float* p, float* mixed) {
    VF acc[N][V];
    for (int i = 0; i < N; i++)
        for (int v = 0; v < V; v++) acc[i][v] = load<VF>(mixed + i * d + from + v * W);
    for (int t = 0; t < tokens; t++) {
        VF x[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) x[v] = load_int8(values + size_t(t) * d + from + v * W);
#pragma GCC unroll 4
        for (int i = 0; i < N; i++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) acc[i][v] += x[v] * p[i * KEYS + t];
    }
    for (int i = 0; i < N; i++)
        for (int v = 0; v < V; v++) store(mixed + i * d + from + v * W, acc[i][v]);
}

template <int N>
static void attend_block(const Attend& a, const uint8_t* block, int position, const int* limit,
                         const float* q, float* largest, float* sums, float* mixed) {
    const int d = a.layout.d;
    int seen = a.last - position;
    seen = seen < KEYS ? seen : KEYS;
    const float* scales = (const float*)(block + a.layout.scales_at());
    const int tiles = (seen + TILE - 1) / TILE;
    float p[N * KEYS];
    if (a.layout.wide_keys) score<N, true>(block, scales, d, tiles, q, p);
    else score<N, false>(block, scales, d, tiles, q, p);
    for (int i = 0; i < N; i++) {
        float* row = p + i * KEYS;
        int n = limit[i] - position;
        n = n < seen ? n : seen;
        if (n < 0) n = 0;
        for (int t = n; t < tiles * TILE; t++) row[t] = -__builtin_inff();
        VF most = splat(largest[i]);
        for (int t = 0; t < tiles * TILE; t += W) most = max(most, load<VF>(row + t));
        const float m = highest(most);
        if (n == 0) {
            for (int t = 0; t < tiles * TILE; t++) row[t] = 0.0f;
            continue;
        }
        VF total = {};
        for (int t = 0; t < tiles * TILE; t += W) {
            VF e = exp(load<VF>(row + t) - m);
            total += e;
            // what stands behind the last value is not initialised
            VF scaled = e * load<VF>(scales + KEYS + t);
            store(row + t, e > 0.0f ? scaled : VF{});
        }
        const float shrunk = largest[i] == m ? 1.0f : exp(splat(largest[i] - m))[0];
        largest[i] = m;
        sums[i] = sums[i] * shrunk + sum(total);
        if (shrunk != 1.0f)
            for (int k = 0; k < d; k += W)
                store(mixed + i * d + k, load<VF>(mixed + i * d + k) * shrunk);
    }
    const int8_t* values = (const int8_t*)(block + a.layout.values_at());
    constexpr int V = W == 16 ? 4 : 2;
    int k = 0;
    for (; k + V * W <= d; k += V * W) mix<N, V>(values, d, k, seen, p, mixed);
    for (; k < d; k += W) mix<N, 1>(values, d, k, seen, p, mixed);
}

static void attend(const Attend& a, float* largest, float* sums, float* mixed) {
    const int d = a.layout.d;
    float q[MAX_QUERIES * MAX_HEAD];
    for (int i = 0; i < a.queries; i++) {
        __builtin_memcpy(q + i * d, a.q[i], sizeof(float) * d);
        largest[i] = -1e30f;
        sums[i] = 0;
    }
    __builtin_memset(mixed, 0, sizeof(float) * a.queries * d);
    for (int position = a.first; position < a.last; position += KEYS) {
        const uint8_t* block = a.head + (position / KEYS) * a.block_stride;
        for (int i = 0; i < a.queries;) {
            const int n = a.queries - i >= 4 ? 4 : a.queries - i;
            auto* f = n == 4   ? attend_block<4>
                      : n == 3 ? attend_block<3>
                      : n == 2 ? attend_block<2>
                               : attend_block<1>;
            f(a, block, position, a.limit + i, q + i * d, largest + i, sums + i, mixed + i * d);
            i += n;
        }
    }
}

template <int H>
INLINE VF butterfly(VF v) {
    VI sign;
    for (int i = 0; i < W; i++) sign[i] = (i & H) ? (int)0x80000000 : 0;
    return (VF)((VI)v ^ sign) + turned(v, H);
}

static void hadamard(float* x, int d) {
    const int size = d & -d;
    const float factor = 1.0f / __builtin_sqrtf((float)size);
    for (float* block = x; block < x + d; block += size) {
        for (int i = 0; i + W <= size; i += W) {
            VF v = load<VF>(block + i);
            v = butterfly<1>(v);
            v = butterfly<2>(v);
            if constexpr (W > 4) v = butterfly<4>(v);
            if constexpr (W > 8) v = butterfly<8>(v);
            store(block + i, v * factor);
        }
        for (int h = W; h < size; h *= 2)
            for (int i = 0; i < size; i += 2 * h)
                for (int j = i; j < i + h; j += W) {
                    VF a = load<VF>(block + j), b = load<VF>(block + j + h);
                    store(block + j, a + b);
                    store(block + j + h, a - b);
                }
    }
}

static float round8(const float* x, int d, int8_t* q) {
    VF most = {};
    for (int i = 0; i < d; i += W) most = max(most, abs(load<VF>(x + i)));
    const float largest = highest(most);
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (int i = 0; i < d; i += W) store_int8(q + i, round_nearest(load<VF>(x + i) * inverse));
    return largest / 127.0f;
}

static uint64_t read(const uint8_t* data, size_t bytes) {
    VU a = {}, b = {};
    for (size_t i = 0; i + 8 * W <= bytes; i += 8 * W) {
        if (i % 64 == 0) prefetch(data + i + AHEAD);
        if (W == 16) prefetch(data + i + AHEAD + 64);
        a += load<VU>(data + i);
        b += load<VU>(data + i + 4 * W);
    }
    a += b;
    uint64_t total = 0;
    for (int i = 0; i < W; i++) total += a[i];
    return total;
}

#include "training_body.h"

static const Kernels kernels = {ISA,    linear,   quantise, rms_norm, swiglu,
                                shrink, expand,   attend,   hadamard, round8,
                                read,   &training<uint16_t>, &training<float>};
