// The decoder (llama and qwen2): one forward pass over packed weights, caches and adapters.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace mbpm {

constexpr int MAX_ROWS = 128;   // tokens of one pass
constexpr int MAX_BATCH = 16;   // sequences of one pass
constexpr int MAX_PAIRS = 16;   // (row range, adapter) pairs of one pass

enum Projection : int { Q, K, V, O, GATE, UP, DOWN, PROJECTIONS };
enum Group : int { QKV, OUT, GATE_UP, DOWN_ONLY, GROUPS };
constexpr Group GROUP_OF[PROJECTIONS] = {QKV, QKV, QKV, OUT, GATE_UP, GATE_UP, DOWN_ONLY};

struct Shape {
    int layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary;
    float theta, eps;
    bool wide_keys;
};

struct Layer {
    Matrix matrix[PROJECTIONS];
    const float* attention_norm = nullptr;
    const float* ffn_norm = nullptr;
    const float* bias[3] = {};  // of Q, K and V; null where there is none
};

// Zeroed bytes that take no memory before they are touched.
class Bytes {
public:
    explicit Bytes(size_t size) : data_(static_cast<uint8_t*>(std::calloc(size ? size : 1, 1))), size_(size) {
        if (!data_) throw std::bad_alloc();
    }
    ~Bytes() { std::free(data_); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

private:
    uint8_t* data_;
    size_t size_;
};

class Model;
struct LinearStep;

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

// One low-rank pair of an adapter file: y += gain * B (A x).
struct Pair {
    int layer;
    Projection projection;
    int rank;
    const float* a;  // [rank, in]
    const float* b;  // [out, rank]
    float gain;
};

// An adapter in a slot: float16 A [rank][in] of a group's projections one after the other, and
// float16 B in tiles [out / 16][rank][16].
class Adapter {
public:
    struct Part {
        const uint16_t* b = nullptr;
        int rank = 0, offset = 0;  // where its ranks begin among the group's
    };
    struct Shared {
        const uint16_t* a = nullptr;
        const float* gain = nullptr;
        int rank = 0;
    };
    Adapter(std::shared_ptr<Model> model, const std::vector<Pair>& pairs);
    ~Adapter();
    size_t bytes() const { return slot_->size(); }
    const Part* parts(int layer) const { return &parts_[size_t(layer) * PROJECTIONS]; }
    const Shared& shared(int layer, Group g) const { return shared_[size_t(layer) * GROUPS + g]; }
    int most_rank() const { return most_rank_; }
    const Model* model() const { return model_.get(); }

private:
    std::shared_ptr<Model> model_;
    std::vector<Part> parts_;
    std::vector<Shared> shared_;
    std::unique_ptr<Bytes> slot_;
    int most_rank_ = 0;
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

    // GB/s of reading the weights of the layers with all threads: the roof of decoding.
    double bandwidth();

private:
    void check(const Pass& pass) const;
    void reserve(int rows, int logit_rows, int ranks);
    Activations quantised(const float* x, int columns, int rows);
    Activations normed(const float* x, const float* weight, int rows);
    void quantise_row(int row);
    void norm_row(int row);
    void rotate_and_store(int row);
    void each_row(int rows, void (Model::*f)(int));
    void shrink(int layer, Group g, const float* x, int columns, const Pass& pass);
    void linear(int layer, std::initializer_list<Projection> projections, const Activations& x,
                float* y, int ld, int mode, const Pass& pass);
    void run(LinearStep& step, size_t row_bytes);
    void attend(int layer, const Pass& pass);

    std::vector<Layer> layers_;
    const float* output_norm_;
    Matrix embedding_, head_;
    const Kernels* k_;
    Pool pool_;
    std::mutex mutex_;
    mutable std::mutex slots_mutex_;
    std::multimap<size_t, std::unique_ptr<Bytes>> spare_;

    // scratch of one pass
    int rows_ = 0, q_columns_ = 0;
    std::vector<float> x_, h_, qkv_, mixed_, ffn_, rotation_, shrunk_, partial_, gains_;
    std::vector<int8_t> codes_;
    std::vector<Side> sides_;
    const Pass* pass_ = nullptr;
    int layer_ = 0;
    std::vector<int> positions_;
    const float* norm_in_ = nullptr;
    const float* norm_weight_ = nullptr;
    int norm_columns_ = 0;
};

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
