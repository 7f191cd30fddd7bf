// What the processor-specific files offer, and the data they work on.
//
// A matrix is cut into tiles of 16 rows x 32 columns. A tile is one block of bytes: 16 float16
// scales, for Q4 16 float16 offsets, then codes as unsigned bytes or nibbles (README.md beside
// this folder). Word j of row l holds columns 4j..4j+3, so that one 64-byte vector is 16 rows of
// four columns and a dot product needs no sum across lanes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "training.h"

namespace mbpm {

constexpr int TILE = 16;         // rows of a tile
constexpr int GROUP = 32;        // columns of a tile: one scale per row
constexpr int PLANES = 2;        // 8-bit halves of an activation
constexpr int KEYS = 64;         // tokens of a block of keys and values
constexpr int MAX_HEAD = 256;    // largest head size
constexpr int MAX_QUERIES = 16;  // queries that one call of `attend` answers
constexpr int SHRINK = 8;        // ranks that one pass over an activation computes

enum Format : int {
    Q4 = 0,   // nibbles, w = scale * q + offset
    Q4S = 1,  // nibbles, w = scale * (q - 8)
    Q4C = 2,  // nibbles, w = scale * codebook[q]
    Q5 = 3,   // nibbles and a plane of fifth bits, w = scale * (q - 16)
    Q8 = 4,   // bytes, w = scale * (q - 128)
    FORMATS = 5,
};

constexpr int TILE_BYTES[FORMATS] = {64 + 256, 32 + 256, 32 + 256, 32 + 256 + 64, 32 + 512};
constexpr int SCALE_BYTES[FORMATS] = {64, 32, 32, 32, 32};

// [rows, columns] in tiles: [ceil(rows / 16)][columns / 32] blocks of TILE_BYTES[format].
struct Matrix {
    const uint8_t* data = nullptr;
    Format format = Q4;
    int rows = 0, columns = 0;
    int8_t codebook[16] = {};
    int tiles() const { return (rows + TILE - 1) / TILE; }
    int groups() const { return columns / GROUP; }
    size_t row_bytes() const { return size_t(groups()) * TILE_BYTES[format]; }
};

// What belongs to 32 activations of one token: x = scale * q.
struct Side {
    float scale;
    int32_t codes;  // sum of q
    float values;   // scale * codes
    float unused;
};

// Activations of `tokens` tokens in 16 bits, q = 256 * first plane + second plane:
// int8 [groups][tokens][2][32], side [groups][tokens]. The second plane costs no bytes of weights
// and takes the error of rounding activations away.
struct Activations {
    const int8_t* q = nullptr;
    const Side* side = nullptr;
    int tokens = 0;
};

// Lines of 64 bytes that a later step reads, fetched from memory while a product is computed.
struct Ahead {
    const void* data = nullptr;
    int lines = 0;
};

// Keys and values of one key/value head, in blocks of KEYS tokens:
//   keys    int8 or float16 [KEYS / 16][d][16]
//   values  int8 [KEYS][d]
//   scales  float [KEYS] of keys, float [KEYS] of values
struct HeadLayout {
    int d;
    bool wide_keys;  // float16, scale 1
    size_t keys_bytes() const { return size_t(KEYS) * d * (wide_keys ? 2 : 1); }
    size_t values_at() const { return keys_bytes(); }
    size_t scales_at() const { return values_at() + size_t(KEYS) * d; }
    size_t bytes() const { return scales_at() + 2 * KEYS * sizeof(float); }
};

struct Attend {
    HeadLayout layout;
    const uint8_t* head;   // the head's first block
    size_t block_stride;   // bytes from one block to the next
    int first, last;       // keys [first, last) are looked at; `first` is a multiple of KEYS
    int queries;           // at most MAX_QUERIES
    const float* q[MAX_QUERIES];   // [d] each, scaled by 1 / sqrt(d)
    int limit[MAX_QUERIES];        // keys that query may see
};

// Functions of one instruction set. Pointers need no alignment.
struct Kernels {
    const char* name;
    // out[tiles][tokens][16] = rows of tiles [tile, tile + count) times every token's activations
    void (*linear)(const Matrix&, int tile, int count, const Activations&, const Ahead&, float* out);
    // one token's x[columns] into q[g * tokens * 64 ...] and side[g * tokens]
    void (*quantise)(const float* x, int columns, int tokens, int8_t* q, Side* side);
    void (*rms_norm)(const float* x, const float* weight, int n, float eps, float* y);
    // y[i] = silu(gate[i]) * up[i]
    void (*swiglu)(const float* gate, const float* up, int n, float* y);
    // s[tokens][stride], s[t][j] = gain[j] * sum_k a[j][k] x[t][k], a float16 in blocks of SHRINK
    // ranks (the last of fewer), each [columns / 16][ranks][16]
    void (*shrink)(const uint16_t* a, int rank, int columns, const float* x, int ld, int tokens,
                   const float* gain, float* s, int stride);
    // y[tokens][16] += sum_j s[t][j] b[j][16], b float16 [rank][16]
    void (*expand)(const uint16_t* b, int rank, const float* s, int stride, int tokens, float* y);
    // largest[queries], sums[queries], mixed[queries][d] of a softmax that was not divided yet
    void (*attend)(const Attend&, float* largest, float* sums, float* mixed);
    // x[d] to H x / sqrt(2^m), 2^m the largest power of two in d, block by block
    void (*hadamard)(float* x, int d);
    // x[d] to int8 with scale max|x| / 127
    float (*round8)(const float* x, int d, int8_t* q);
    // sum of 64-byte words: the read bandwidth probe
    uint64_t (*read)(const uint8_t* data, size_t bytes);
    const Training<uint16_t>* training;    // on bfloat16
    const Training<float>* training_wide;  // on float32
};

// Where a[rank][columns] of a low-rank pair is kept, as `shrink` reads it.
inline size_t shrink_at(int ranks, int columns, int rank, int column) {
    const int block = rank / SHRINK * SHRINK, n = ranks - block < SHRINK ? ranks - block : SHRINK;
    return size_t(block) * columns + (size_t(column / TILE) * n + (rank - block)) * TILE + column % TILE;
}

// Null where the build has no such instructions, whatever this processor can do.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx_vnni_kernels();
const Kernels* avx512_kernels();
const Kernels* neon_kernels();

// float16 <-> float32, exact up and round-to-nearest-even down; infinity where it does not fit.
float half_to_float(uint16_t h);
uint16_t float_to_half(float f);

}  // namespace mbpm
