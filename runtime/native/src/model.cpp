#include "model.h"

#include <chrono>
#include <cmath>
#include <stdexcept>

#include "steps.h"

namespace mbpm {

namespace {

constexpr size_t CHUNK_BYTES = 24 * 1024;  // weights of a chunk when one token is decoded
constexpr size_t READ_BYTES = 256 * 1024;  // of a chunk of the bandwidth probe
constexpr int PROBES = 9;                  // times that it reads everything: the best counts

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

std::unique_ptr<Bytes> Model::take_slot(size_t bytes) {
    std::lock_guard<std::mutex> lock(slots_mutex_);
    auto found = spare_.find(bytes);
    if (found == spare_.end()) return std::make_unique<Bytes>(bytes, true);
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
    const std::string reason = unsupported(s);
    if (!reason.empty()) throw std::invalid_argument(reason);
}

std::string unsupported(const Shape& s) {
    auto said = [](const char* what, int is, const std::string& expected) {
        return std::string(what) + " is " + std::to_string(is) + " (expected " + expected + ")";
    };
    if (s.head_dim < 1 || s.head_dim % 16 || s.head_dim > MAX_HEAD)
        return said("the size of a head", s.head_dim, "a multiple of 16 up to " + std::to_string(MAX_HEAD));
    if (s.kv_heads < 1 || s.heads < 1 || s.heads % s.kv_heads || s.heads / s.kv_heads > MAX_QUERIES)
        return said("the number of query heads", s.heads,
                    "1 to " + std::to_string(MAX_QUERIES) + " for each of the " + std::to_string(s.kv_heads) +
                        " key/value heads");
    for (auto [what, n] : {std::pair<const char*, int>{"the hidden size", s.hidden},
                           {"the size of the feed-forward layer", s.ffn},
                           {"the size of all heads", s.heads * s.head_dim}})
        if (n < GROUP || n % GROUP) return said(what, n, "a multiple of " + std::to_string(GROUP));
    return "";
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
        if (std::count(pass.caches.begin(), pass.caches.end(), c) > 1)
            throw std::invalid_argument("a cache twice in one pass");
    }
    for (const Active& a : pass.active)
        if (a.adapter->model() != this || a.first < 0 || a.last > int(rows) || a.first > a.last)
            throw std::invalid_argument("an adapter of another engine, or for rows that are not there");
    if (pass.hidden && (pass.hidden_layer < 0 || pass.hidden_layer >= int(layers_.size()))) throw std::invalid_argument("no such layer");
    if (pass.logit_rows < 0 || pass.logit_rows > int(rows)) throw std::invalid_argument("no such rows");
    if (pass.logit_rows && !head_.data) throw std::invalid_argument("only the first layers were loaded");
}

void Model::reserve(int rows, int ranks) {
    const Shape& s = shape;
    const size_t r = size_t(rows), q = size_t(s.heads) * s.head_dim;
    const size_t widest = size_t(std::max({s.hidden, s.ffn, int(q)}));
    auto need = [&](auto& v, size_t n) {
        if (v.size() < n) {
            pool_.quiesce();
            v.resize(n);
        }
    };
    need(positions_, r);
    need(x_, r * s.hidden);
    need(qkv_, r * (q + 2 * size_t(s.kv_heads) * s.head_dim));
    need(q_, r * q);
    need(mixed_, r * q);
    need(ffn_, r * s.ffn);
    need(rotation_, r * s.head_dim);
    need(codes_, r * widest * PLANES);
    need(sides_, r * widest / GROUP);
    need(shrunk_, size_t(ranks) * r);
    need(partial_, size_t(std::min(rows, MAX_BATCH)) * s.heads * MAX_SPLITS * (2 + s.head_dim));
}

Lows Model::lows_of(const Pass& pass) {
    Lows lows{};
    float* s = shrunk_.data();
    for (const Active& a : pass.active) {
        if (a.first == a.last) continue;
        const int stride = a.adapter->most_rank();
        lows.low[lows.count++] = {a.adapter, s, a.weight, stride, a.first, a.last};
        s += size_t(stride) * size_t(a.last - a.first);
    }
    return lows;
}

Activations Model::activations(const float* x, const float* norm, int columns, int rows, Group group,
                               const Lows& lows) {
    const RowStep step{k_, x, norm, shape.eps, columns, rows, codes_.data(), sides_.data(), group, lows};
    pool_.run(step, (rows + ROWS_PER - 1) / ROWS_PER, step.scratch_floats());
    return {codes_.data(), sides_.data(), rows};
}

void Model::linear(std::initializer_list<Projection> projections, const Activations& x, float* y, int ld,
                   int mode, const Lows& lows) {
    LinearStep step{};
    step.k = k_;
    step.x = x;
    step.mode = Mode(mode);
    step.lows = lows;
    const Layer& layer = layers_[size_t(lows.layer)];
    size_t row_bytes = 0;
    for (Projection p : projections) {
        const Matrix& m = layer.matrix[p];
        step.part[step.parts++] = {m, p <= V ? layer.bias[p] : nullptr, y, ld, p, step.tiles};
        row_bytes = std::max(row_bytes, m.row_bytes());
        if (mode == SWIGLU) step.tiles = m.tiles();
        else {
            step.tiles += m.tiles();
            y += m.rows;
        }
    }
    const Group group = GROUP_OF[*projections.begin()];
    step.next_group = Group((group + 1) % GROUPS);
    step.next_layer = lows.layer + (group + 1) / GROUPS;
    step.next_columns = in_features(step.next_group == OUT         ? O
                                    : step.next_group == DOWN_ONLY ? DOWN
                                                                   : Q);
    if (step.next_layer < int(layers_.size()))
        for (int i = 0; i < lows.count; i++)
            step.next_lines += size_t(lows.low[i].adapter->shared(step.next_layer, step.next_group).rank) *
                               size_t(step.next_columns) * 2 / 64;
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

void Model::attend(const Kept& kept, int rows) {
    const Shape& s = shape;
    AttendStep a{};
    a.k = k_;
    a.kept = kept;
    a.kv_heads = s.kv_heads;
    a.group = s.heads / s.kv_heads;
    a.rows = rows;
    a.rows_per = kept.shared ? std::max(1, MAX_QUERIES / a.group) : 1;
    a.q = q_.data();
    a.out = mixed_.data();
    a.partial = partial_.data();
    int longest = 0;
    for (int r = 0; r < rows; r++) longest = std::max(longest, kept.at(r) + 1);
    const int blocks = (longest + KEYS - 1) / KEYS, row_blocks = (rows + a.rows_per - 1) / a.rows_per;
    // enough chunks for all threads, none of less than two blocks
    const int wanted = 2 * pool_.threads() / (row_blocks * s.kv_heads) + 1;
    a.splits = rows > MAX_BATCH ? 1 : std::max(1, std::min({wanted, blocks / 2, MAX_SPLITS}));
    a.split_keys = (blocks + a.splits - 1) / a.splits * KEYS;
    a.splits = (blocks * KEYS + a.split_keys - 1) / a.split_keys;
    pool_.run(a, row_blocks * s.kv_heads * a.splits, size_t(MAX_QUERIES) * (2 + s.head_dim));
    if (a.splits > 1) a.merge();
}

// Rows of the embedding, their positions, and the angles that turn keys and queries there.
void Model::embed(const Pass& pass) {
    const int d = shape.head_dim;
    const bool shared = pass.caches.size() == 1;
    for (size_t r = 0; r < pass.tokens.size(); r++) {
        positions_[r] = shared ? pass.caches[0]->length() + int(r) : pass.caches[r]->length();
        dequantise_row(embedding_, pass.tokens[r], x_.data() + r * size_t(shape.hidden));
        float* rotation = rotation_.data() + r * size_t(d);
        for (int i = 0; i < d / 2; i++) {
            const double angle = positions_[r] * std::pow(double(shape.theta), -2.0 * i / d);
            rotation[i] = float(std::cos(angle));
            rotation[i + d / 2] = float(std::sin(angle));
        }
    }
}

void Model::forward(const Pass& pass) {
    std::lock_guard<std::mutex> lock(mutex_);
    check(pass);
    const Shape& s = shape;
    const int rows = int(pass.tokens.size()), q = s.heads * s.head_dim, all = q + 2 * s.kv_heads * s.head_dim;
    const bool shared = pass.caches.size() == 1;
    int ranks = 0;
    for (const Active& a : pass.active) ranks += a.adapter->most_rank();
    reserve(rows, ranks);
    embed(pass);
    Lows lows = lows_of(pass);
    Kept kept{head_layout(), pass.caches[0]->block_stride, shared, positions_[0], {}, {}};
    float* x = x_.data();
    for (int l = 0; l < int(layers_.size()); l++) {
        const Layer& layer = layers_[size_t(l)];
        lows.layer = l;
        for (size_t i = 0; i < pass.caches.size(); i++) {
            kept.base[i] = pass.caches[i]->data() + size_t(l) * layer_bytes();
            kept.position[i] = positions_[i];
        }
        Activations a = activations(x, layer.attention_norm, s.hidden, rows, QKV, lows);
        linear({Q, K, V}, a, qkv_.data(), all, STORE, lows);
        const StoreStep store{k_, kept, rows, s.heads, s.kv_heads, qkv_.data(), rotation_.data(), q_.data()};
        pool_.run(store, (rows + ROWS_PER - 1) / ROWS_PER, store.scratch_floats());
        attend(kept, rows);
        a = activations(mixed_.data(), nullptr, q, rows, OUT, lows);
        linear({O}, a, x, s.hidden, ADD, lows);
        a = activations(x, layer.ffn_norm, s.hidden, rows, GATE_UP, lows);
        linear({GATE, UP}, a, ffn_.data(), s.ffn, SWIGLU, lows);
        a = activations(ffn_.data(), nullptr, s.ffn, rows, DOWN_ONLY, lows);
        linear({DOWN}, a, x, s.hidden, ADD, lows);
        if (l == pass.hidden_layer) std::memcpy(pass.hidden, x, sizeof(float) * size_t(rows) * s.hidden);
    }
    for (Cache* c : pass.caches) c->grow(shared ? rows : 1);
    if (pass.logit_rows) {
        const int first = rows - pass.logit_rows;
        LinearStep step{};
        step.k = k_;
        step.x = activations(x + size_t(first) * s.hidden, output_norm_, s.hidden, pass.logit_rows, QKV, Lows{});
        step.mode = STORE;
        step.parts = 1;
        step.tiles = head_.tiles();
        step.part[0] = {head_, nullptr, pass.logits, s.vocabulary, 0, 0};
        run(step, head_.row_bytes());
    }
}

double Model::bandwidth() {
    std::lock_guard<std::mutex> lock(mutex_);
    // one step over all that the file holds between the first matrix and the last: what a step costs
    // is not the memory's
    const uint8_t *first = embedding_.data, *end = first;
    auto holds = [&](const Matrix& m) {
        first = std::min(first, m.data);
        end = std::max(end, m.data + m.row_bytes() * size_t(m.tiles()));
    };
    holds(embedding_);
    for (const Layer& layer : layers_)
        for (const Matrix& m : layer.matrix) holds(m);
    if (head_.data) holds(head_);
    const size_t size = size_t(end - first);
    double best = 0;
    for (int pass = 0; pass < PROBES; pass++) {
        const auto began = std::chrono::steady_clock::now();
        pool_.run(ReadStep{k_, first, size, READ_BYTES}, int((size + READ_BYTES - 1) / READ_BYTES), 2);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
        best = std::max(best, double(size) / took.count() / 1e9);
    }
    return best;
}

}  // namespace mbpm
