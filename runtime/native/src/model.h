// The decoder (llama and qwen2): one forward pass over packed weights, caches and adapters.
#pragma once

#include <array>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "adapter.h"
#include "kernels.h"
#include "pool.h"

namespace mbpm {

constexpr int MAX_ROWS = 128;   // tokens of one pass
constexpr int MAX_BATCH = 16;   // sequences of one pass
constexpr int MAX_PAIRS = 16;   // (row range, adapter) pairs of one pass
constexpr int MAX_SPLITS = 64;  // parts of the keys that attention is cut into

struct Shape {
    int layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary;
    float theta, eps;
    bool wide_keys;  // float16 keys: biases of qwen2 make them uneven
};

struct Layer {
    Matrix matrix[PROJECTIONS];
    const float* attention_norm = nullptr;
    const float* ffn_norm = nullptr;
    const float* bias[3] = {};  // of Q, K and V; null where there is none
};

struct LinearStep;
struct Lows;
struct Kept;

// Keys and values of one sequence: blocks of 64 tokens, each [layers][kv_heads] of HeadLayout.
class Cache {
public:
    Cache(std::shared_ptr<Model> model, int capacity);
    ~Cache();
    int length() const { return length_; }
    int capacity() const { return capacity_; }
    void truncate(int length);
    size_t used_bytes() const { return size_t((most_ + KEYS - 1) / KEYS) * block_stride; }

    const size_t block_stride;
    uint8_t* data() const { return bytes_.data(); }
    void grow(int tokens) {
        length_ += tokens;
        if (length_ > most_) most_ = length_;
    }
    const Model* model() const { return model_.get(); }

private:
    std::shared_ptr<Model> model_;
    const int capacity_;
    int length_ = 0, most_ = 0;
    Bytes bytes_;
};

struct Active {
    const Adapter* adapter;
    float weight;
    int first, last;  // rows it acts on
};

struct Pass {
    std::vector<Cache*> caches;  // one for all rows, or one per row
    std::vector<int> tokens;
    std::vector<Active> active;
    int hidden_layer = -1;
    float* hidden = nullptr;     // [rows][hidden], residual stream after hidden_layer
    int logit_rows = 0;          // the last so many rows
    float* logits = nullptr;     // [logit_rows][vocabulary]
};

class Model {
public:
    Model(const Shape& shape, std::vector<Layer> layers, const float* output_norm,
          const Matrix& embedding, const Matrix& head, const Kernels* kernels, int threads);
    ~Model() { pool_.quiesce(); }

    const Shape shape;
    const Kernels* kernels() const { return k_; }
    int threads() const { return pool_.threads(); }
    HeadLayout head_layout() const { return {shape.head_dim, shape.wide_keys}; }
    size_t layer_bytes() const { return head_layout().bytes() * shape.kv_heads; }
    const Matrix& matrix(int layer, Projection p) const { return layers_[layer].matrix[p]; }
    int in_features(Projection p) const { return layers_[0].matrix[p].columns; }

    // Append rows to their caches. Throws std::invalid_argument for what does not fit.
    void forward(const Pass& pass);
    void quiesce() { pool_.quiesce(); }

    std::unique_ptr<Bytes> take_slot(size_t bytes);
    void give_slot(std::unique_ptr<Bytes> slot);
    size_t spare_bytes() const;

    // GB/s of reading the file's matrices with all threads, at best: the roof of decoding.
    double bandwidth();

private:
    void check(const Pass& pass) const;
    void reserve(int rows, int ranks);
    void embed(const Pass& pass);
    Lows lows_of(const Pass& pass);
    Activations activations(const float* x, const float* norm, int columns, int rows, Group group,
                            const Lows& lows);
    void linear(std::initializer_list<Projection> projections, const Activations& x, float* y, int ld,
                int mode, const Lows& lows);
    void run(LinearStep& step, size_t row_bytes);
    void attend(const Kept& kept, int rows);

    std::vector<Layer> layers_;
    const float* output_norm_;
    Matrix embedding_, head_;
    const Kernels* k_;
    Pool pool_;
    std::mutex mutex_;
    mutable std::mutex slots_mutex_;
    std::multimap<size_t, std::unique_ptr<Bytes>> spare_;

    // scratch of one pass
    std::vector<float> x_, qkv_, q_, mixed_, ffn_, rotation_, shrunk_, partial_;
    std::vector<int8_t> codes_;
    std::vector<Side> sides_;
    std::vector<int> positions_;
};

// Why the engine cannot run a model of this shape, in words; empty where it can.
std::string unsupported(const Shape& shape);

// Row `row` of a matrix as float32 [columns].
void dequantise_row(const Matrix& m, int row, float* out);

// Tiles of a matrix. codes: uint8 0..15 for 4 bits or int8 for 8, [rows, columns]; scale and
// offset float32 [rows, columns / 32]. Throws std::overflow_error where float16 is too small.
void pack(Format format, const uint8_t* codes, const float* scale, const float* offset, int rows,
          int columns, uint8_t* out);

// The best set this processor and system can run, or by name; null where there is none such.
const Kernels* find_kernels(const std::string& name);
std::vector<const Kernels*> usable_kernels();  // best first; the last is portable

}  // namespace mbpm
