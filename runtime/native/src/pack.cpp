// Weights into tiles, and single rows out of them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model.h"

namespace mbpm {

namespace {

uint16_t half(float f) {
    const uint16_t h = float_to_half(f);
    if ((h & 0x7c00) == 0x7c00) throw std::overflow_error("a scale does not fit float16");
    return h;
}

constexpr int SHIFT[FORMATS] = {0, 8, 0, 16, 128};

}  // namespace

void pack(Format format, const uint8_t* codes, const float* scale, const float* offset, int rows,
          int columns, uint8_t* out) {
    const int groups = columns / GROUP;
    const bool bytes = format == Q8 || format == Q5;
    std::memset(out, 0, size_t((rows + TILE - 1) / TILE) * groups * TILE_BYTES[format]);
    for (int row = 0; row < rows; row++)
        for (int g = 0; g < groups; g++) {
            uint8_t* block = out + (size_t(row / TILE) * groups + g) * TILE_BYTES[format];
            const int lane = row % TILE;
            const size_t at = size_t(row) * groups + g;
            uint16_t h = half(scale[at]);
            std::memcpy(block + 2 * lane, &h, 2);
            if (format == Q4) {
                h = half(offset[at]);
                std::memcpy(block + 32 + 2 * lane, &h, 2);
            }
            uint8_t* to = block + SCALE_BYTES[format] + 4 * lane;
            const uint8_t* from = codes + size_t(row) * columns + size_t(g) * GROUP;
            for (int k = 0; k < GROUP; k++) {
                const int word = k / 4, byte = k % 4;
                const uint8_t q = bytes ? uint8_t(int(int8_t(from[k])) + SHIFT[format]) : from[k];
                if (format == Q8) {
                    to[64 * word + byte] = q;
                    continue;
                }
                to[64 * (word % 4) + byte] |= uint8_t((q & 15) << (word < 4 ? 0 : 4));
                if (format == Q5) to[256 + byte] |= uint8_t((q >> 4) << word);
            }
        }
}

void dequantise_row(const Matrix& m, int row, float* out) {
    const int lane = row % TILE;
    for (int g = 0; g < m.groups(); g++) {
        const uint8_t* block = m.data + (row / TILE) * m.row_bytes() + size_t(g) * TILE_BYTES[m.format];
        uint16_t h;
        std::memcpy(&h, block + 2 * lane, 2);
        const float scale = half_to_float(h);
        float offset = 0;
        if (m.format == Q4) {
            std::memcpy(&h, block + 32 + 2 * lane, 2);
            offset = half_to_float(h);
        }
        const uint8_t* from = block + SCALE_BYTES[m.format] + 4 * lane;
        for (int k = 0; k < GROUP; k++) {
            const int word = k / 4, byte = k % 4;
            int q;
            if (m.format == Q8) {
                q = from[64 * word + byte];
            } else {
                q = (from[64 * (word % 4) + byte] >> (word < 4 ? 0 : 4)) & 15;
                if (m.format == Q5) q |= ((from[256 + byte] >> word) & 1) << 4;
            }
            q = m.format == Q4C ? m.codebook[q] : q - SHIFT[m.format];
            out[g * GROUP + k] = scale * float(q) + offset;
        }
    }
}

}  // namespace mbpm
