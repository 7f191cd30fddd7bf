#include "model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace mbpm {

namespace {

enum Mode : int { STORE, ADD, SWIGLU };

constexpr size_t CHUNK_BYTES = 24 * 1024;  // weights of a chunk when one token is decoded
constexpr int SERIAL_ROWS = 4;             // rows that one thread norms and rotates alone

}  // namespace

struct LinearStep {
    struct Part {
        Matrix matrix;
        const float* bias;
        float* y;
        int ld, projection, begin;  // begin: its first tile among all parts'
    };
    struct Low {
        const Adapter::Part* parts;  // of the layer
        const float* s;
        int stride, first, last;
    };
    const Kernels* k;
    Activations x;
    Mode mode;
    int parts, tiles, per_chunk, lows;
    Part part[3];
    Low low[MAX_PAIRS];

    void tile(int index, const Part& p, float* out) const {
        k->linear(p.matrix, index, 1, x, out);
        for (int i = 0; i < lows; i++) {
            const auto& b = low[i].parts[p.projection];
            if (b.rank)
                k->expand(b.b + size_t(index) * b.rank * TILE, b.rank, low[i].s + b.offset,
                          low[i].stride, low[i].last - low[i].first, out + low[i].first * TILE);
        }
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
                tile(i, part[0], scratch);
                tile(i, part[1], scratch + size);
                k->swiglu(scratch, scratch + size, int(size), scratch);
            } else {
                const Part& p = part_of(i);
                tile(i - p.begin, p, scratch);
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

namespace {

struct AttendStep {
    const Kernels* k;
    HeadLayout layout;
    size_t block_stride;
    int kv_heads, group;       // group: query heads of a key/value head
    int rows, rows_per;        // rows of the pass, and of a chunk
    int splits, split_keys;    // parts that the keys are cut into
    bool shared;               // all rows have the first cache
    const float* q;            // [rows][ld]
    float* out;                // [rows][heads * d]
    float* partial;            // [rows][kv_heads][splits][group][2 + d]
    int ld;
    int first_position;
    const uint8_t* base[MAX_BATCH];  // the layer in the cache's first block
    int position[MAX_BATCH];

    int limit(int row) const { return (shared ? first_position + row : position[row]) + 1; }

    void compute(int chunk, float* scratch) const {
        const int split = chunk % splits, head = chunk / splits % kv_heads;
        const int row = chunk / splits / kv_heads * rows_per;
        const int end = std::min(row + rows_per, rows), d = layout.d;
        Attend a;
        a.layout = layout;
        a.block_stride = block_stride;
        a.head = base[shared ? 0 : row] + size_t(head) * layout.bytes();
        a.first = split * split_keys;
        a.last = std::min(limit(end - 1), a.first + split_keys);
        a.queries = 0;
        for (int r = row; r < end; r++)
            for (int g = 0; g < group; g++) {
                a.q[a.queries] = q + size_t(r) * ld + size_t(head * group + g) * d;
                a.limit[a.queries++] = limit(r);
            }
        k->attend(a, scratch, scratch + MAX_QUERIES, scratch + 2 * MAX_QUERIES);
    }
    void commit(int chunk, const float* scratch) const {
        const int split = chunk % splits, head = chunk / splits % kv_heads;
        const int row = chunk / splits / kv_heads * rows_per;
        const int end = std::min(row + rows_per, rows), d = layout.d;
        const float *largest = scratch, *sums = scratch + MAX_QUERIES, *mixed = scratch + 2 * MAX_QUERIES;
        for (int r = row, i = 0; r < end; r++)
            for (int g = 0; g < group; g++, i++) {
                if (splits == 1) {
                    float* to = out + size_t(r) * kv_heads * group * d + size_t(head * group + g) * d;
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
        const int d = layout.d;
        for (int r = 0; r < rows; r++)
            for (int h = 0; h < kv_heads; h++)
                for (int g = 0; g < group; g++) {
                    const float* from = partial + ((size_t(r) * kv_heads + h) * splits * group + g) * (2 + d);
                    const size_t step = size_t(group) * (2 + d);
                    float most = from[0], total = 0;
                    for (int s = 1; s < splits; s++) most = std::max(most, from[s * step]);
                    float* to = out + size_t(r) * kv_heads * group * d + size_t(h * group + g) * d;
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

// Work on rows that is committed as it is done.
struct RowStep {
    Model* model;
    void (Model::*f)(int);
    int rows, per_chunk;
    void compute(int, float*) const {}
    void commit(int chunk, const float*) const {
        for (int r = chunk * per_chunk; r < std::min((chunk + 1) * per_chunk, rows); r++) (model->*f)(r);
    }
};

// A x of every active adapter; a chunk is one adapter's rows, or a few of them.
struct ShrinkStep {
    struct Item {
        const Adapter::Shared* shared;
        const float* x;
        const float* gain;
        float* s;
        int stride, rows;
    };
    const Kernels* k;
    int columns, items;
    Item item[MAX_PAIRS];

    void compute(int chunk, float* scratch) const {
        const Item& i = item[chunk];
        k->shrink(i.shared->a, i.shared->rank, columns, i.x, columns, i.rows, i.gain, scratch, i.stride);
    }
    void commit(int chunk, const float* scratch) const {
        const Item& i = item[chunk];
        for (int r = 0; r < i.rows; r++)
            std::memcpy(i.s + size_t(r) * i.stride, scratch + size_t(r) * i.stride,
                        sizeof(float) * size_t(i.shared->rank));
    }
};

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

}  // namespace

Cache::Cache(std::shared_ptr<Model> model, int capacity)
    : block_stride(model->layer_bytes() * size_t(model->shape.layers)),
      model_(std::move(model)),
      capacity_(capacity),
      bytes_(size_t((capacity + KEYS - 1) / KEYS) * block_stride) {}

Cache::~Cache() { model_->quiesce(); }

void Cache::truncate(int length) {
    if (length < 0 || length > length_)
        throw std::invalid_argument("cannot truncate a cache of " + std::to_string(length_) +
                                    " tokens to " + std::to_string(length));
    length_ = length;
}

Adapter::Adapter(std::shared_ptr<Model> model, const std::vector<Pair>& pairs)
    : model_(std::move(model)),
      parts_(size_t(model_->shape.layers) * PROJECTIONS),
      shared_(size_t(model_->shape.layers) * GROUPS) {
    // a slot has room for every projection at its rank class, so that any adapter of that class
    // fits in any slot of it
    int rank = 8;
    for (const auto& p : pairs) rank = std::max(rank, (p.rank + 7) / 8 * 8);
    size_t halves = 0, floats = 0;
    for (int p = 0; p < PROJECTIONS; p++) {
        const Matrix& m = model_->matrix(0, Projection(p));
        halves += size_t(rank) * (size_t(m.columns) + size_t(m.tiles()) * TILE);
        floats += size_t(rank);
    }
    const size_t layers = size_t(model_->shape.layers);
    slot_ = model_->take_slot(layers * (halves * 2 + floats * 4));
    auto* gain = reinterpret_cast<float*>(slot_->data());
    auto* to = reinterpret_cast<uint16_t*>(slot_->data() + layers * floats * 4);

    std::vector<const Pair*> of(layers * PROJECTIONS, nullptr);
    for (const auto& p : pairs) of[size_t(p.layer) * PROJECTIONS + p.projection] = &p;
    auto halve = [&](const float* from, size_t n, float factor) {
        for (size_t i = 0; i < n; i++) *to++ = float_to_half(from[i] * factor);
    };
    // the power of two that brings the largest value into [0.5, 1)
    auto norm = [](const float* from, size_t n) {
        float most = 0;
        for (size_t i = 0; i < n; i++) most = std::max(most, std::fabs(from[i]));
        int e = 0;
        std::frexp(most, &e);
        return e;
    };
    for (size_t layer = 0; layer < layers; layer++) {
        const Pair* const* own = &of[layer * PROJECTIONS];
        for (int g = 0; g < GROUPS; g++) {
            Shared& shared = shared_[layer * GROUPS + size_t(g)];
            shared.a = to;
            shared.gain = gain;
            for (int p = 0; p < PROJECTIONS; p++) {
                if (GROUP_OF[p] != g || !own[p]) continue;
                const Pair& pair = *own[p];
                const Matrix& m = model_->matrix(int(layer), Projection(p));
                const size_t in = size_t(pair.rank) * m.columns, out = size_t(pair.rank) * m.rows;
                const int ea = norm(pair.a, in), eb = norm(pair.b, out);
                Part& part = parts_[layer * PROJECTIONS + size_t(p)];
                part.rank = pair.rank;
                part.offset = shared.rank;
                shared.rank += pair.rank;
                for (int r = 0; r < pair.rank; r++) *gain++ = std::ldexp(pair.gain, ea + eb);
                halve(pair.a, in, std::ldexp(1.0f, -ea));
            }
            for (int p = 0; p < PROJECTIONS; p++) {
                if (GROUP_OF[p] != g || !own[p]) continue;
                const Pair& pair = *own[p];
                const Matrix& m = model_->matrix(int(layer), Projection(p));
                const float factor = std::ldexp(1.0f, -norm(pair.b, size_t(pair.rank) * m.rows));
                parts_[layer * PROJECTIONS + size_t(p)].b = to;
                for (int tile = 0; tile < m.tiles(); tile++)
                    for (int r = 0; r < pair.rank; r++)
                        for (int lane = 0; lane < TILE; lane++) {
                            const int row = tile * TILE + lane;
                            *to++ = row < m.rows
                                        ? float_to_half(pair.b[size_t(row) * pair.rank + r] * factor)
                                        : 0;
                        }
            }
            most_rank_ = std::max(most_rank_, shared.rank);
        }
    }
}

Adapter::~Adapter() {
    model_->quiesce();
    model_->give_slot(std::move(slot_));
}

std::unique_ptr<Bytes> Model::take_slot(size_t bytes) {
    std::lock_guard<std::mutex> lock(slots_mutex_);
    auto found = spare_.find(bytes);
    if (found == spare_.end()) return std::make_unique<Bytes>(bytes);
    auto slot = std::move(found->second);
    spare_.erase(found);
    return slot;
}

void Model::give_slot(std::unique_ptr<Bytes> slot) {
    std::lock_guard<std::mutex> lock(slots_mutex_);
    // one of a kind is kept: who unloads an adapter mostly loads another
    if (spare_.find(slot->size()) == spare_.end()) spare_.emplace(slot->size(), std::move(slot));
}

size_t Model::spare_bytes() const {
    std::lock_guard<std::mutex> lock(slots_mutex_);
    size_t total = 0;
    for (const auto& s : spare_) total += s.first;
    return total;
}

Model::Model(const Shape& s, std::vector<Layer> layers, const float* output_norm,
             const Matrix& embedding, const Matrix& head, const Kernels* kernels, int threads)
    : shape(s),
      layers_(std::move(layers)),
      output_norm_(output_norm),
      embedding_(embedding),
      head_(head),
      k_(kernels),
      pool_(threads) {
    if (s.heads % s.kv_heads || s.head_dim % 16 || s.head_dim > MAX_HEAD ||
        s.heads / s.kv_heads > MAX_QUERIES)
        throw std::invalid_argument("heads of this shape are not supported");
}

void Model::check(const Pass& pass) const {
    const size_t rows = pass.tokens.size();
    if (rows < 1 || rows > MAX_ROWS) throw std::invalid_argument("a pass has 1 to 128 rows");
    if (pass.caches.size() != 1 && (pass.caches.size() != rows || rows > MAX_BATCH))
        throw std::invalid_argument("a pass has one cache, or one for each of at most 16 rows");
    if (pass.active.size() > MAX_PAIRS) throw std::invalid_argument("more than 16 adapters in a pass");
    for (int t : pass.tokens)
        if (t < 0 || t >= shape.vocabulary) throw std::invalid_argument("a token outside the vocabulary");
    const int each = pass.caches.size() == 1 ? int(rows) : 1;
    for (const Cache* c : pass.caches) {
        if (c->model() != this) throw std::invalid_argument("a cache of another engine");
        if (c->length() + each > c->capacity()) throw std::length_error("the cache is full");
        for (const Cache* other : pass.caches)
            if (&other != &c && other == c && pass.caches.size() > 1) {
                int seen = 0;
                for (const Cache* o : pass.caches) seen += o == c;
                if (seen > 1) throw std::invalid_argument("a cache twice in one pass");
            }
    }
    for (const Active& a : pass.active)
        if (a.adapter->model() != this || a.first < 0 || a.last > int(rows) || a.first > a.last)
            throw std::invalid_argument("an adapter of another engine, or for rows that are not there");
    if (pass.hidden_layer >= int(layers_.size())) throw std::invalid_argument("no such layer");
    if (pass.logit_rows < 0 || pass.logit_rows > int(rows)) throw std::invalid_argument("no such rows");
    if (pass.logit_rows && !head_.data) throw std::invalid_argument("only the first layers were loaded");
}

void Model::reserve(int rows, int logit_rows, int ranks) {
    const Shape& s = shape;
    const size_t r = size_t(rows), q = size_t(s.heads) * s.head_dim;
    const size_t widest = size_t(std::max({s.hidden, s.ffn, int(q)}));
    const size_t splits = 64;
    auto need = [&](auto& v, size_t n) {
        if (v.size() < n) {
            pool_.quiesce();
            v.resize(n);
        }
    };
    q_columns_ = int(q) + 2 * s.kv_heads * s.head_dim;
    need(x_, r * s.hidden);
    need(h_, r * s.hidden);
    need(qkv_, r * size_t(q_columns_));
    need(mixed_, r * q);
    need(ffn_, r * s.ffn);
    need(rotation_, r * s.head_dim);
    need(codes_, r * widest * PLANES);
    need(sides_, r * widest / GROUP);
    need(shrunk_, size_t(ranks) * r);
    need(gains_, size_t(ranks));
    need(partial_, size_t(std::min(rows, MAX_BATCH)) * s.heads * splits * (2 + s.head_dim));
    (void)logit_rows;
}

Activations Model::quantised(const float* x, int columns, int rows) {
    norm_in_ = x;
    norm_columns_ = columns;
    rows_ = rows;
    each_row(rows, &Model::quantise_row);
    return {codes_.data(), sides_.data(), rows};
}

void Model::quantise_row(int r) {
    k_->quantise(norm_in_ + size_t(r) * norm_columns_, norm_columns_, rows_,
                 codes_.data() + size_t(r) * PLANES * GROUP, sides_.data() + r);
}

void Model::norm_row(int r) {
    const size_t at = size_t(r) * shape.hidden;
    k_->rms_norm(norm_in_ + at, norm_weight_, shape.hidden, shape.eps, h_.data() + at);
    k_->quantise(h_.data() + at, shape.hidden, rows_,
                 codes_.data() + size_t(r) * PLANES * GROUP, sides_.data() + r);
}

Activations Model::normed(const float* x, const float* weight, int rows) {
    norm_in_ = x;
    norm_weight_ = weight;
    rows_ = rows;
    each_row(rows, &Model::norm_row);
    return {codes_.data(), sides_.data(), rows};
}

void Model::each_row(int rows, void (Model::*f)(int)) {
    if (rows <= SERIAL_ROWS || pool_.threads() == 1) {
        for (int r = 0; r < rows; r++) (this->*f)(r);
        return;
    }
    const int per = 4;
    pool_.run(RowStep{this, f, rows, per}, (rows + per - 1) / per, 0);
}

void Model::shrink(int layer, Group g, const float* x, int columns, const Pass& pass) {
    ShrinkStep step{};
    step.k = k_;
    step.columns = columns;
    size_t at = 0, gains = 0, scratch = 0;
    auto run = [&] {
        // what one row of one adapter takes is not worth waking anybody for
        if (step.items == 1 && step.item[0].rows <= SERIAL_ROWS) {
            const auto& i = step.item[0];
            k_->shrink(i.shared->a, i.shared->rank, columns, i.x, columns, i.rows, i.gain, i.s, i.stride);
        } else if (step.items) {
            pool_.run(step, step.items, scratch);
        }
        step.items = 0;
    };
    for (const Active& a : pass.active) {
        const auto& shared = a.adapter->shared(layer, g);
        const int n = a.last - a.first, stride = a.adapter->most_rank();
        float* s = shrunk_.data() + at;
        at += size_t(stride) * size_t(n);
        if (!shared.rank || !n) continue;
        float* gain = gains_.data() + gains;
        gains += size_t(shared.rank);
        for (int j = 0; j < shared.rank; j++) gain[j] = shared.gain[j] * a.weight;
        const int per = n <= SERIAL_ROWS ? n : 8;
        for (int r = 0; r < n; r += per) {
            step.item[step.items++] = {&shared, x + size_t(a.first + r) * columns, gain,
                                       s + size_t(r) * stride, stride, std::min(per, n - r)};
            scratch = std::max(scratch, size_t(stride) * size_t(per));
            if (step.items == MAX_PAIRS) run();
        }
    }
    run();
}

void Model::linear(int layer, std::initializer_list<Projection> projections, const Activations& x,
                   float* y, int ld, int mode, const Pass& pass) {
    LinearStep step{};
    step.k = k_;
    step.x = x;
    step.mode = Mode(mode);
    size_t row_bytes = 0;
    for (Projection p : projections) {
        auto& part = step.part[step.parts++];
        const Matrix& m = layers_[layer].matrix[p];
        part = {m, p <= V ? layers_[layer].bias[p] : nullptr, y, ld, p, step.tiles};
        row_bytes = std::max(row_bytes, m.row_bytes());
        if (mode == SWIGLU) step.tiles = m.tiles();
        else {
            step.tiles += m.tiles();
            y += m.rows;
        }
    }
    size_t at = 0;
    for (const Active& a : pass.active) {
        const int stride = a.adapter->most_rank();
        step.low[step.lows++] = {a.adapter->parts(layer), shrunk_.data() + at, stride, a.first, a.last};
        at += size_t(stride) * size_t(a.last - a.first);
    }
    run(step, row_bytes * (mode == SWIGLU ? 2 : 1));
}

void Model::run(LinearStep& step, size_t row_bytes) {
    const int tokens = step.x.tokens;
    step.per_chunk = tokens > 8 ? 2 : int(std::max<size_t>(1, CHUNK_BYTES / row_bytes));
    // at least four chunks per thread, so that nobody waits long for the last one
    step.per_chunk = std::max(1, std::min(step.per_chunk, step.tiles / (4 * pool_.threads())));
    const int chunks = (step.tiles + step.per_chunk - 1) / step.per_chunk;
    pool_.run(step, chunks, size_t(step.per_chunk + 1) * tokens * TILE);
}

// Rotary positions, then keys and values into the cache.
void Model::rotate_and_store(int r) {
    const Shape& s = shape;
    const int d = s.head_dim, half = d / 2;
    float* row = qkv_.data() + size_t(r) * q_columns_;
    const float* cosine = rotation_.data() + size_t(r) * d;
    const float* sine = cosine + half;
    const float scale = 1.0f / std::sqrt(float(d));
    for (int h = 0; h < s.heads + s.kv_heads; h++) {
        float* v = row + h * d;
        const float factor = h < s.heads ? scale : 1.0f;
        for (int i = 0; i < half; i++) {
            const float a = v[i] * factor, b = v[i + half] * factor;
            v[i] = a * cosine[i] - b * sine[i];
            v[i + half] = b * cosine[i] + a * sine[i];
        }
        if (!s.wide_keys) k_->hadamard(v, d);
    }
    const bool shared = pass_->caches.size() == 1;
    Cache& cache = *pass_->caches[shared ? 0 : size_t(r)];
    const int position = positions_[size_t(r)], lane = position % KEYS;
    const HeadLayout layout = head_layout();
    uint8_t* block = cache.data() + size_t(position / KEYS) * cache.block_stride +
                     size_t(layer_) * layer_bytes();
    int8_t codes[MAX_HEAD];
    for (int h = 0; h < s.kv_heads; h++, block += layout.bytes()) {
        const float* key = row + (s.heads + h) * d;
        auto* scales = reinterpret_cast<float*>(block + layout.scales_at());
        const size_t at = size_t(lane / TILE) * d * TILE + size_t(lane % TILE);
        if (s.wide_keys) {
            auto* to = reinterpret_cast<uint16_t*>(block) + at;
            for (int i = 0; i < d; i++) to[size_t(i) * TILE] = float_to_half(key[i]);
            scales[lane] = 1.0f;
        } else {
            scales[lane] = k_->round8(key, d, codes);
            auto* to = reinterpret_cast<int8_t*>(block) + at;
            for (int i = 0; i < d; i++) to[size_t(i) * TILE] = codes[i];
        }
        const float* value = row + (s.heads + s.kv_heads + h) * d;
        scales[KEYS + lane] =
            k_->round8(value, d, reinterpret_cast<int8_t*>(block + layout.values_at()) + size_t(lane) * d);
    }
}

void Model::attend(int layer, const Pass& pass) {
    const Shape& s = shape;
    const int rows = int(pass.tokens.size());
    AttendStep a{};
    a.k = k_;
    a.layout = head_layout();
    a.block_stride = pass.caches[0]->block_stride;
    a.kv_heads = s.kv_heads;
    a.group = s.heads / s.kv_heads;
    a.rows = rows;
    a.shared = pass.caches.size() == 1;
    a.rows_per = a.shared ? std::max(1, MAX_QUERIES / a.group) : 1;
    a.q = qkv_.data();
    a.ld = q_columns_;
    a.out = mixed_.data();
    a.partial = partial_.data();
    a.first_position = positions_[0];
    int longest = 0;
    for (size_t i = 0; i < pass.caches.size(); i++) {
        a.base[i] = pass.caches[i]->data() + size_t(layer) * layer_bytes();
        a.position[i] = positions_[i];
    }
    for (int p : positions_) longest = std::max(longest, p + 1);
    const int blocks = (longest + KEYS - 1) / KEYS, row_blocks = (rows + a.rows_per - 1) / a.rows_per;
    // enough chunks for all threads, none of less than two blocks
    const int wanted = 2 * pool_.threads() / (row_blocks * s.kv_heads) + 1;
    a.splits = rows > MAX_BATCH ? 1 : std::max(1, std::min({wanted, blocks / 2, 64}));
    a.split_keys = (blocks + a.splits - 1) / a.splits * KEYS;
    a.splits = (blocks * KEYS + a.split_keys - 1) / a.split_keys;
    pool_.run(a, row_blocks * s.kv_heads * a.splits,
              size_t(MAX_QUERIES) * (2 + s.head_dim));
    if (a.splits > 1) a.merge();
}

void Model::forward(const Pass& pass) {
    std::lock_guard<std::mutex> lock(mutex_);
    check(pass);
    const Shape& s = shape;
    const int rows = int(pass.tokens.size()), d = s.head_dim;
    const bool shared = pass.caches.size() == 1;
    int ranks = 0;
    for (const Active& a : pass.active) ranks += a.adapter->most_rank();
    reserve(rows, pass.logit_rows, ranks);
    pass_ = &pass;
    positions_.resize(size_t(rows));
    for (int r = 0; r < rows; r++)
        positions_[size_t(r)] = shared ? pass.caches[0]->length() + r : pass.caches[size_t(r)]->length();
    for (int r = 0; r < rows; r++) {
        dequantise_row(embedding_, pass.tokens[size_t(r)], x_.data() + size_t(r) * s.hidden);
        float* rotation = rotation_.data() + size_t(r) * d;
        for (int i = 0; i < d / 2; i++) {
            const double angle = positions_[size_t(r)] * std::pow(double(s.theta), -2.0 * i / d);
            rotation[i] = float(std::cos(angle));
            rotation[i + d / 2] = float(std::sin(angle));
        }
    }
    for (int l = 0; l < int(layers_.size()); l++) {
        layer_ = l;
        const Layer& layer = layers_[size_t(l)];
        Activations a = normed(x_.data(), layer.attention_norm, rows);
        shrink(l, QKV, h_.data(), s.hidden, pass);
        linear(l, {Q, K, V}, a, qkv_.data(), q_columns_, STORE, pass);
        each_row(rows, &Model::rotate_and_store);
        attend(l, pass);
        a = quantised(mixed_.data(), s.heads * d, rows);
        shrink(l, OUT, mixed_.data(), s.heads * d, pass);
        linear(l, {O}, a, x_.data(), s.hidden, ADD, pass);
        a = normed(x_.data(), layer.ffn_norm, rows);
        shrink(l, GATE_UP, h_.data(), s.hidden, pass);
        linear(l, {GATE, UP}, a, ffn_.data(), s.ffn, SWIGLU, pass);
        a = quantised(ffn_.data(), s.ffn, rows);
        shrink(l, DOWN_ONLY, ffn_.data(), s.ffn, pass);
        linear(l, {DOWN}, a, x_.data(), s.hidden, ADD, pass);
        if (l == pass.hidden_layer)
            std::memcpy(pass.hidden, x_.data(), sizeof(float) * size_t(rows) * s.hidden);
    }
    for (Cache* c : pass.caches) c->grow(shared ? rows : 1);
    if (pass.logit_rows) {
        const int first = rows - pass.logit_rows;
        LinearStep step{};
        step.k = k_;
        step.x = normed(x_.data() + size_t(first) * s.hidden, output_norm_, pass.logit_rows);
        step.mode = STORE;
        step.parts = 1;
        step.tiles = head_.tiles();
        step.part[0] = {head_, nullptr, pass.logits, s.vocabulary, 0, 0};
        run(step, head_.row_bytes());
    }
    pass_ = nullptr;
}

double Model::bandwidth() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t total = 0;
    const auto began = std::chrono::steady_clock::now();
    for (const Layer& layer : layers_)
        for (const Matrix& m : layer.matrix) {
            const size_t size = m.row_bytes() * size_t(m.tiles()), per = CHUNK_BYTES;
            pool_.run(ReadStep{k_, m.data, size, per}, int((size + per - 1) / per), 2);
            total += size;
        }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    return double(total) / took.count() / 1e9;
}

}  // namespace mbpm
