// Every set of kernels that this processor runs, beside the portable one, on random shapes.
//
// A program of its own, without Python: `make kernels-arm` builds it for 64-bit ARM and runs it in
// an emulator. Prints a line per set; exit code 1 where a set is wrong, 77 where there is only one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../runtime/native/src/model.h"

using namespace mbpm;

namespace {

std::mt19937 chance(1);
int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(chance); }
std::vector<float> normal(size_t n, float scale = 1.0f) {
    std::normal_distribution<float> d(0.0f, scale);
    std::vector<float> v(n);
    for (float& x : v) x = d(chance);
    return v;
}
std::vector<uint16_t> halves(const std::vector<float>& from) {
    std::vector<uint16_t> to(from.size());
    std::transform(from.begin(), from.end(), to.begin(), float_to_half);
    return to;
}

const Kernels* set = nullptr;
const Kernels* portable = nullptr;
int wrong = 0, looked_at = 0;

void same(const char* what, const std::vector<float>& found, const std::vector<float>& expected, float most) {
    looked_at++;
    float scale = 1e-6f;
    for (float x : expected) scale = std::max(scale, std::fabs(x));
    for (size_t i = 0; i < expected.size(); i++)
        if (!(std::fabs(found[i] - expected[i]) <= most * scale)) {
            std::printf("%s: %s: value %zu of %zu is %g, expected %g\n", set->name, what, i, expected.size(),
                        found[i], expected[i]);
            wrong++;
            return;
        }
}

void linear() {
    for (int f = 0; f < FORMATS; f++) {
        Matrix m;
        m.format = Format(f);
        m.rows = between(1, 70);
        m.columns = GROUP * between(1, 6);
        for (int i = 0; i < 16; i++) m.codebook[i] = int8_t(between(-127, 127));
        const int tokens = between(1, 21);
        std::vector<uint8_t> codes(size_t(m.rows) * m.columns);
        for (auto& c : codes)
            c = uint8_t(m.format == Q8 ? between(-128, 127) : m.format == Q5 ? between(-16, 15) : between(0, 15));
        auto scale = normal(codes.size() / GROUP), offset = normal(codes.size() / GROUP);
        for (auto* v : {&scale, &offset})
            for (float& x : *v) x = half_to_float(float_to_half(x));
        std::vector<uint8_t> tiles(size_t(m.tiles()) * m.row_bytes());
        pack(m.format, codes.data(), scale.data(), offset.data(), m.rows, m.columns, tiles.data());
        m.data = tiles.data();
        const auto x = normal(size_t(tokens) * m.columns);
        std::vector<int8_t> q(x.size() * PLANES);
        std::vector<Side> side(x.size() / GROUP);
        for (int t = 0; t < tokens; t++)
            portable->quantise(x.data() + size_t(t) * m.columns, m.columns, tokens,
                               q.data() + size_t(t) * PLANES * GROUP, side.data() + t);
        std::vector<float> out[2];
        for (int i = 0; i < 2; i++) {
            out[i].resize(size_t(m.tiles()) * TILE * tokens);
            const Ahead ahead{tiles.data(), int(tiles.size() / 64)};
            (i ? portable : set)->linear(m, 0, m.tiles(), {q.data(), side.data(), tokens}, ahead, out[i].data());
        }
        same("linear", out[0], out[1], 1e-5f);
    }
}

void quantise() {
    const int columns = GROUP * between(1, 9);
    auto x = normal(size_t(columns), float(std::pow(10.0, between(-20, 20))));
    if (between(0, 3) == 0) std::fill(x.begin(), x.begin() + GROUP, 0.0f);
    std::vector<int8_t> q(x.size() * PLANES);
    std::vector<Side> side(x.size() / GROUP);
    set->quantise(x.data(), columns, 1, q.data(), side.data());
    for (int g = 0; g < columns / GROUP; g++) {
        std::vector<float> found, expected(x.begin() + g * GROUP, x.begin() + (g + 1) * GROUP);
        int sum = 0;
        for (int i = 0; i < GROUP; i++) {
            const int code = 256 * q[size_t(g) * 64 + size_t(i)] + q[size_t(g) * 64 + GROUP + size_t(i)];
            found.push_back(side[size_t(g)].scale * float(code));
            sum += code;
        }
        same("quantise", found, expected, 0.6f / 32512);
        same("quantise: sums", {float(side[size_t(g)].codes), side[size_t(g)].values},
             {float(sum), side[size_t(g)].scale * float(sum)}, 1e-6f);
    }
}

void pointwise() {
    const int n = between(1, 200), d = 16 * between(1, 16);
    const auto x = normal(size_t(n), 3), w = normal(size_t(n));
    std::vector<float> a(x.size()), b(x.size());
    set->rms_norm(x.data(), w.data(), n, 1e-5f, a.data());
    portable->rms_norm(x.data(), w.data(), n, 1e-5f, b.data());
    same("rms_norm", a, b, 1e-5f);
    set->swiglu(x.data(), w.data(), n, a.data());
    portable->swiglu(x.data(), w.data(), n, b.data());
    same("swiglu", a, b, 1e-5f);
    a = b = normal(size_t(d));
    std::vector<int8_t> qa(a.size()), qb(a.size());
    const float sa = set->round8(a.data(), d, qa.data()), sb = portable->round8(b.data(), d, qb.data());
    same("round8: scale", {sa}, {sb}, 1e-6f);
    same("round8", {qa.begin(), qa.end()}, {qb.begin(), qb.end()}, 1.1f / 127);
    set->hadamard(a.data(), d);
    portable->hadamard(b.data(), d);
    same("hadamard", a, b, 1e-5f);
}

void low_rank() {
    const int rank = between(1, 37), columns = GROUP * between(2, 5), tokens = between(1, 9), stride = rank + 3;
    const auto a = halves(normal(size_t(rank) * columns)), b = halves(normal(size_t(rank) * TILE));
    const auto x = normal(size_t(tokens) * columns), gain = normal(size_t(rank));
    std::vector<float> s[2], y[2];
    for (int i = 0; i < 2; i++) {
        s[i].assign(size_t(tokens) * stride, 0.5f);
        y[i].assign(size_t(tokens) * TILE, 1.0f);
        const Kernels* k = i ? portable : set;
        k->shrink(a.data(), rank, columns, x.data(), columns, tokens, gain.data(), s[i].data(), stride);
        k->expand(b.data(), rank, x.data(), stride, tokens, y[i].data());
    }
    same("shrink", s[0], s[1], 1e-5f);
    same("expand", y[0], y[1], 1e-5f);
}

void attend() {
    const bool wide = between(0, 1);
    const int d = 16 * between(1, 8), tokens = between(1, 200), queries = between(1, MAX_QUERIES);
    const HeadLayout layout{d, wide};
    std::vector<uint8_t> memory(layout.bytes() * size_t((tokens + KEYS - 1) / KEYS), 0xff);
    for (int t = 0; t < tokens; t++) {
        uint8_t* block = memory.data() + size_t(t / KEYS) * layout.bytes();
        const size_t lane = size_t(t % KEYS), at = lane / TILE * size_t(d) * TILE + lane % TILE;
        const float scales[2] = {wide ? 1.0f : 0.01f, 0.02f};
        for (size_t i = 0; i < size_t(d); i++) {
            const uint16_t half = float_to_half(normal(1)[0]);
            if (wide) std::memcpy(block + (at + i * TILE) * 2, &half, 2);
            else block[at + i * TILE] = uint8_t(between(-127, 127));
            block[layout.values_at() + lane * size_t(d) + i] = uint8_t(between(-127, 127));
        }
        std::memcpy(block + layout.scales_at() + 4 * lane, &scales[0], 4);
        std::memcpy(block + layout.scales_at() + 4 * (KEYS + lane), &scales[1], 4);
    }
    const auto q = normal(size_t(queries) * d, 1 / std::sqrt(float(d)));
    Attend a{};
    a.layout = layout;
    a.head = memory.data();
    a.block_stride = layout.bytes();
    a.last = tokens;
    a.queries = queries;
    for (int i = 0; i < queries; i++) a.q[i] = q.data() + size_t(i) * d, a.limit[i] = between(1, tokens);
    std::vector<float> mixed[2];
    for (int i = 0; i < 2; i++) {
        float largest[MAX_QUERIES], sums[MAX_QUERIES];
        mixed[i].resize(size_t(queries) * d);
        (i ? portable : set)->attend(a, largest, sums, mixed[i].data());
        for (size_t j = 0; j < mixed[i].size(); j++) mixed[i][j] /= sums[j / size_t(d)];
    }
    same("attend", mixed[0], mixed[1], 1e-4f);
}

void read() {
    std::vector<uint8_t> bytes(size_t(between(1, 999)));
    for (auto& b : bytes) b = uint8_t(between(0, 255));
    set->read(bytes.data(), bytes.size());  // the sum depends on the width: only that it stays inside
}

}  // namespace

int main() {
    const auto sets = usable_kernels();
    portable = sets.back();
    for (const Kernels* k : sets) {
        if (k == portable) continue;
        set = k;
        looked_at = 0;
        const int before = wrong;
        for (int i = 0; i < 60; i++) linear(), quantise(), pointwise(), low_rank(), attend(), read();
        std::printf("%s: %d comparisons with the portable kernels, %d wrong\n", k->name, looked_at, wrong - before);
    }
    if (sets.size() == 1) return std::printf("only portable kernels run here\n"), 77;
    return wrong ? 1 : 0;
}
