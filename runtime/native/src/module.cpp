// The Python module `runtime.native._native`. Shapes, dtypes and bounds are checked here or by the
// caller named in each comment; everything below trusts them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "model.h"

namespace nb = nanobind;
using namespace mbpm;
using namespace nb::literals;

namespace {

using Blob = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Out2 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Of this module; runtime/native/__init__.py asks for the same. Raise both with every change of what is
// called from Python.
constexpr int INTERFACE = 1;

constexpr const char* FORMAT_NAMES[FORMATS] = {"q4", "q4s", "q4c", "q5", "q8"};

Format format_of(const std::string& name) {
    for (int f = 0; f < FORMATS; f++)
        if (name == FORMAT_NAMES[f]) return Format(f);
    throw std::invalid_argument("no format `" + name + "`");
}

// A matrix inside the mapped file; its end is checked.
Matrix matrix_in(const Blob& file, const std::string& format, int64_t rows, int64_t columns,
                 int64_t at, const std::vector<int>& codebook) {
    Matrix m;
    m.format = format_of(format);
    if (rows < 1 || columns < 1 || rows > 1 << 24 || columns > 1 << 20 || columns % mbpm::GROUP)
        throw std::invalid_argument("a matrix of impossible shape");
    m.rows = int(rows);
    m.columns = int(columns);
    const uint64_t size = uint64_t(m.tiles()) * m.row_bytes();
    if (at < 0 || uint64_t(at) > file.size() || size > file.size() - uint64_t(at))
        throw std::invalid_argument("a matrix ends after the file does");
    m.data = file.data() + at;
    if (m.format == Q4C) {
        if (codebook.size() != 16) throw std::invalid_argument("a codebook needs 16 values");
        for (int i = 0; i < 16; i++) {
            if (codebook[size_t(i)] < -127 || codebook[size_t(i)] > 127)
                throw std::invalid_argument("a codebook's values are -127 to 127");
            m.codebook[i] = int8_t(codebook[size_t(i)]);
        }
    }
    return m;
}

const float* vector_in(const Blob& file, int64_t at, int64_t n) {
    if (at < 0 || at % 4 || n < 1 || uint64_t(at) > file.size() || uint64_t(n) * 4 > file.size() - uint64_t(at))
        throw std::invalid_argument("a vector ends after the file does");
    return reinterpret_cast<const float*>(file.data() + at);
}

using MatrixAt = std::tuple<std::string, int64_t, int64_t, int64_t, std::vector<int>>;
using LayerAt = std::tuple<std::vector<MatrixAt>, std::vector<int64_t>>;

// A model and the mapping it reads.
struct Base {
    Blob file;
    std::shared_ptr<Model> model;
};

Shape shape_of(nb::dict config) {
    auto integer = [&](const char* key) { return nb::cast<int>(config[key]); };
    return {integer("layers"),     integer("hidden_size"), integer("ffn_size"),
            integer("heads"),      integer("kv_heads"),    integer("head_dim"),
            integer("vocab_size"), nb::cast<float>(config["rope_theta"]),
            nb::cast<float>(config["norm_eps"]), nb::cast<bool>(config["qkv_bias"])};
}

std::shared_ptr<Base> make_base(Blob file, nb::dict config, const std::vector<LayerAt>& layers,
                                int64_t output_norm, const MatrixAt& embedding,
                                const std::optional<MatrixAt>& head, const std::string& isa,
                                int threads) {
    Shape s = shape_of(config);
    s.layers = int(layers.size());
#if defined(__GLIBC__)
    // reading a tokenizer frees tens of megabytes, which the C library keeps: give them back
    // before the weights need room
    malloc_trim(0);
#endif
    const Kernels* kernels = find_kernels(isa);
    if (!kernels) throw std::invalid_argument("this processor or build has no `" + isa + "` kernels");
    auto get = [&](const MatrixAt& m) {
        return matrix_in(file, std::get<0>(m), std::get<1>(m), std::get<2>(m), std::get<3>(m), std::get<4>(m));
    };
    const int64_t q = int64_t(s.heads) * s.head_dim, kv = int64_t(s.kv_heads) * s.head_dim;
    const int64_t shapes[PROJECTIONS][2] = {{q, s.hidden},     {kv, s.hidden},    {kv, s.hidden},
                                            {s.hidden, q},     {s.ffn, s.hidden}, {s.ffn, s.hidden},
                                            {s.hidden, s.ffn}};
    std::vector<Layer> made;
    for (const auto& [matrices, vectors] : layers) {
        Layer layer;
        if (matrices.size() != PROJECTIONS || vectors.size() != 5)
            throw std::invalid_argument("a layer has seven matrices and five vectors");
        for (int p = 0; p < PROJECTIONS; p++) {
            layer.matrix[p] = get(matrices[size_t(p)]);
            if (layer.matrix[p].rows != shapes[p][0] || layer.matrix[p].columns != shapes[p][1])
                throw std::invalid_argument("a matrix of another shape than the model's");
        }
        layer.attention_norm = vector_in(file, vectors[0], s.hidden);
        layer.ffn_norm = vector_in(file, vectors[1], s.hidden);
        for (int b = 0; b < 3; b++)
            if (vectors[size_t(2 + b)] >= 0)
                layer.bias[b] = vector_in(file, vectors[size_t(2 + b)], b == 0 ? q : kv);
        made.push_back(layer);
    }
    const Matrix table = get(embedding);
    Matrix top;
    if (head) top = get(*head);
    if (table.rows != s.vocabulary || table.columns != s.hidden ||
        (head && (top.rows != s.vocabulary || top.columns != s.hidden)))
        throw std::invalid_argument("an embedding of another shape than the model's");
    auto model = std::make_shared<Model>(s, std::move(made), vector_in(file, output_norm, s.hidden),
                                         table, top, kernels, threads);
    return std::shared_ptr<Base>(new Base{file, model});
}

// What a pass reads keeps the mapping alive, and waits for helpers before it goes: without holding
// up the interpreter.
template <class T>
struct Held {
    std::shared_ptr<Base> base;
    std::unique_ptr<T> own;
    ~Held() {
        nb::gil_scoped_release release;
        own.reset();
    }
};
using Sequence = Held<Cache>;
using Slot = Held<Adapter>;

std::shared_ptr<Slot> make_adapter(std::shared_ptr<Base> base,
                                   const std::vector<std::tuple<int, int, Table, Table, float>>& pairs) {
    std::vector<Pair> made;
    const Model& model = *base->model;
    for (const auto& [layer, projection, a, b, gain] : pairs) {
        if (projection < 0 || projection >= PROJECTIONS || layer < 0)
            throw std::invalid_argument("an adapter for a module that is not there");
        if (layer >= model.shape.layers) continue;  // only the first layers are loaded
        const Matrix& m = model.matrix(layer, Projection(projection));
        const size_t rank = a.shape(0);
        if (rank < 1 || rank > 4096 || a.shape(1) != size_t(m.columns) ||
            b.shape(0) != size_t(m.rows) || b.shape(1) != rank)
            throw std::invalid_argument("an adapter of another shape than its module");
        made.push_back({layer, Projection(projection), int(rank), a.data(), b.data(), gain});
    }
    nb::gil_scoped_release release;
    auto own = std::make_unique<Adapter>(base->model, made);
    return std::shared_ptr<Slot>(new Slot{std::move(base), std::move(own)});
}

void forward(Base& base, const std::vector<Sequence*>& sequences, const std::vector<int>& tokens,
             const std::vector<std::tuple<Slot*, float, int, int>>& active,
             std::optional<Out2> logits, int hidden_layer, std::optional<Out2> hidden) {
    Pass pass;
    for (Sequence* s : sequences) pass.caches.push_back(s->own.get());
    pass.tokens = tokens;
    for (const auto& [slot, weight, first, last] : active)
        pass.active.push_back({slot->own.get(), weight, first, last});
    if (logits) {
        if (logits->shape(1) != size_t(base.model->shape.vocabulary)) throw std::invalid_argument("logits of another width");
        pass.logits = logits->data();
        pass.logit_rows = int(logits->shape(0));
    }
    if (hidden) {
        if (hidden->shape(0) != tokens.size() || hidden->shape(1) != size_t(base.model->shape.hidden))
            throw std::invalid_argument("hidden states of another shape");
        pass.hidden = hidden->data();
        pass.hidden_layer = hidden_layer;
    }
    nb::gil_scoped_release release;
    base.model->forward(pass);
}

// Single kernels, for the tests: float32 in and out, whatever the instruction set.
const Kernels& kernels(const std::string& isa) {
    const Kernels* k = find_kernels(isa);
    if (!k) throw std::invalid_argument("no `" + isa + "` kernels here");
    return *k;
}

using Result = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

Result result(size_t rows, size_t columns, float** data) {
    auto* memory = new float[std::max<size_t>(1, rows * columns)]();
    *data = memory;
    nb::capsule owner(memory, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Result(memory, {rows, columns}, owner);
}

Result test_linear(const std::string& isa, Blob tiles, const std::string& format, int rows,
                   int columns, const std::vector<int>& codebook, Table x) {
    const Kernels& k = kernels(isa);
    const Matrix m = matrix_in(tiles, format, rows, columns, 0, codebook);
    const int tokens = int(x.shape(0));
    if (x.shape(1) != size_t(columns) || tokens < 1)
        throw std::invalid_argument("x of another width");
    std::vector<int8_t> q(size_t(tokens) * columns * PLANES);
    std::vector<Side> side(size_t(tokens) * m.groups());
    for (int t = 0; t < tokens; t++)
        k.quantise(x.data() + size_t(t) * columns, columns, tokens,
                   q.data() + size_t(t) * PLANES * mbpm::GROUP, side.data() + t);
    std::vector<float> out(size_t(m.tiles()) * TILE * tokens);
    k.linear(m, 0, m.tiles(), {q.data(), side.data(), tokens}, {}, out.data());
    float* to;
    Result y = result(size_t(tokens), size_t(rows), &to);
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++)
            to[size_t(t) * rows + r] = out[(size_t(r / TILE) * tokens + t) * TILE + r % TILE];
    return y;
}

Result test_low_rank(const std::string& isa, Table a, Table b, Table x, Vector gain) {
    const Kernels& k = kernels(isa);
    const int rank = int(a.shape(0)), in = int(a.shape(1)), out = int(b.shape(0)), tokens = int(x.shape(0));
    if (in % mbpm::GROUP || int(x.shape(1)) != in || int(b.shape(1)) != rank || int(gain.size()) != rank)
        throw std::invalid_argument("shapes that do not match");
    std::vector<uint16_t> ah(size_t(rank) * in), bh(size_t((out + 15) / 16) * rank * TILE);
    for (int r = 0; r < rank; r++)
        for (int c = 0; c < in; c++) ah[shrink_at(rank, in, r, c)] = float_to_half(a.data()[size_t(r) * in + c]);
    for (int r = 0; r < out; r++)
        for (int j = 0; j < rank; j++)
            bh[(size_t(r / TILE) * rank + j) * TILE + r % TILE] = float_to_half(b.data()[size_t(r) * rank + j]);
    std::vector<float> s(size_t(tokens) * rank), y(size_t((out + 15) / 16) * TILE * tokens);
    k.shrink(ah.data(), rank, in, x.data(), in, tokens, gain.data(), s.data(), rank);
    float* to;
    Result result_ = result(size_t(tokens), size_t(out), &to);
    for (int tile = 0; tile < (out + 15) / 16; tile++) {
        float* part = y.data() + size_t(tile) * TILE * tokens;
        k.expand(bh.data() + size_t(tile) * rank * TILE, rank, s.data(), rank, tokens, part);
        for (int t = 0; t < tokens; t++)
            for (int l = 0; l < TILE && tile * TILE + l < out; l++)
                to[size_t(t) * out + tile * TILE + l] = part[t * TILE + l];
    }
    return result_;
}

// Attention of queries [n, d] over keys and values [tokens, d]; query i sees limit[i] keys.
Result test_attend(const std::string& isa, Table q, Table keys, Table values,
                   const std::vector<int>& limit, bool wide) {
    const Kernels& k = kernels(isa);
    const int d = int(q.shape(1)), n = int(q.shape(0)), tokens = int(keys.shape(0));
    if (n > MAX_QUERIES || d % 16 || d > MAX_HEAD || int(limit.size()) != n || int(keys.shape(1)) != d ||
        values.shape(0) != keys.shape(0) || int(values.shape(1)) != d || tokens < 1)
        throw std::invalid_argument("shapes that do not match");
    const HeadLayout layout{d, wide};
    std::vector<uint8_t> memory(layout.bytes() * size_t((tokens + KEYS - 1) / KEYS), 0xff);
    Attend a{};
    a.layout = layout;
    a.head = memory.data();
    a.block_stride = layout.bytes();
    a.last = tokens;
    a.queries = n;
    std::vector<float> turned(q.data(), q.data() + q.size());
    std::vector<float> key(size_t(d), 0.0f);
    std::vector<int8_t> codes(size_t(d), 0);
    for (int i = 0; i < n; i++) {
        if (limit[size_t(i)] < 1 || limit[size_t(i)] > tokens) throw std::invalid_argument("a limit out of range");
        if (!wide) k.hadamard(turned.data() + size_t(i) * d, d);
        a.q[i] = turned.data() + size_t(i) * d;
        a.limit[i] = limit[size_t(i)];
    }
    for (int t = 0; t < tokens; t++) {
        uint8_t* block = memory.data() + size_t(t / KEYS) * layout.bytes();
        const int lane = t % KEYS;
        const size_t at = size_t(lane / TILE) * d * TILE + size_t(lane % TILE);
        float scales[2] = {1.0f, 0.0f};
        std::copy(keys.data() + size_t(t) * d, keys.data() + size_t(t + 1) * d, key.begin());
        if (wide)
            for (int i = 0; i < d; i++) {
                const uint16_t h = float_to_half(key[size_t(i)]);
                std::memcpy(block + (at + size_t(i) * TILE) * 2, &h, 2);
            }
        else {
            k.hadamard(key.data(), d);
            scales[0] = k.round8(key.data(), d, codes.data());
            for (int i = 0; i < d; i++) block[at + size_t(i) * TILE] = uint8_t(codes[size_t(i)]);
        }
        scales[1] = k.round8(values.data() + size_t(t) * d, d,
                             reinterpret_cast<int8_t*>(block + layout.values_at()) + size_t(lane) * d);
        std::memcpy(block + layout.scales_at() + 4 * lane, &scales[0], 4);
        std::memcpy(block + layout.scales_at() + 4 * (KEYS + lane), &scales[1], 4);
    }
    float largest[MAX_QUERIES], sums[MAX_QUERIES];
    std::vector<float> mixed(size_t(n) * d);
    k.attend(a, largest, sums, mixed.data());
    float* to;
    Result y = result(size_t(n), size_t(d), &to);
    for (int i = 0; i < n * d; i++) to[i] = mixed[size_t(i)] / sums[i / d];
    return y;
}

Result test_pointwise(const std::string& isa, const std::string& what, Table x, Table w, float eps) {
    const Kernels& k = kernels(isa);
    const size_t rows = x.shape(0), n = x.shape(1);
    float* to;
    Result y = result(rows, n, &to);
    for (size_t r = 0; r < rows; r++) {
        const float* v = x.data() + r * n;
        if (what == "rms_norm") k.rms_norm(v, w.data(), int(n), eps, to + r * n);
        else if (what == "swiglu") k.swiglu(v, w.data() + r * n, int(n), to + r * n);
        else if (what == "hadamard") {
            std::copy(v, v + n, to + r * n);
            k.hadamard(to + r * n, int(n));
        } else throw std::invalid_argument("no such kernel");
    }
    return y;
}

nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> pack_codes(
    const std::string& format, nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> codes,
    Table scale, std::optional<Table> offset) {
    const Format f = format_of(format);
    const size_t rows = codes.shape(0), columns = codes.shape(1);
    if (columns % mbpm::GROUP || !columns || !rows || rows > 1 << 24 || columns > 1 << 20 || scale.shape(0) != rows ||
        scale.shape(1) != columns / mbpm::GROUP || (f == Q4) != bool(offset) ||
        (offset && (offset->shape(0) != rows || offset->shape(1) != columns / mbpm::GROUP)))
        throw std::invalid_argument("codes, scales and offsets of shapes that do not match");
    Matrix m;
    m.format = f;
    m.rows = int(rows);
    m.columns = int(columns);
    const size_t size = size_t(m.tiles()) * m.row_bytes();
    auto* memory = new uint8_t[size];
    nb::capsule owner(memory, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
    {
        nb::gil_scoped_release release;
        pack(f, codes.data(), scale.data(), offset ? offset->data() : nullptr, int(rows), int(columns), memory);
    }
    return {memory, {size}, owner};
}

Result unpack_rows(Blob tiles, const std::string& format, int rows, int columns,
                   const std::vector<int>& codebook) {
    const Matrix m = matrix_in(tiles, format, rows, columns, 0, codebook);
    float* to;
    Result y = result(size_t(rows), size_t(columns), &to);
    for (int r = 0; r < rows; r++) dequantise_row(m, r, to + size_t(r) * columns);
    return y;
}

}  // namespace

void bind_training(nb::module_& m);  // training.cpp

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // the trainer keeps its passes until the interpreter ends
    bind_training(m);
    m.attr("INTERFACE") = INTERFACE;
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Kernels* k : usable_kernels()) names.push_back(k->name);
        return names;
    });
    m.def("pack", &pack_codes, "format"_a, "codes"_a, "scale"_a, "offset"_a.none());
    m.def("unpack", &unpack_rows, "tiles"_a, "format"_a, "rows"_a, "columns"_a, "codebook"_a);
    m.def("linear", &test_linear);
    m.def("low_rank", &test_low_rank);
    m.def("attend", &test_attend);
    m.def("pointwise", &test_pointwise);

    m.def("unsupported", [](nb::dict config) { return unsupported(shape_of(config)); });

    nb::class_<Base>(m, "Base")
        .def_prop_ro("threads", [](Base& b) { return b.model->threads(); })
        .def_prop_ro("isa", [](Base& b) { return std::string(b.model->kernels()->name); })
        .def_prop_ro("spare_bytes", [](Base& b) { return b.model->spare_bytes(); })
        .def("bandwidth", [](Base& b) { return b.model->bandwidth(); }, nb::call_guard<nb::gil_scoped_release>());
    m.def("base", &make_base, "file"_a, "config"_a, "layers"_a, "output_norm"_a, "embedding"_a,
          "head"_a.none(), "isa"_a, "threads"_a);
    nb::class_<Sequence>(m, "Cache")
        .def_prop_ro("length", [](Sequence& s) { return s.own->length(); })
        .def_prop_ro("capacity", [](Sequence& s) { return s.own->capacity(); })
        .def_prop_ro("used_bytes", [](Sequence& s) { return s.own->used_bytes(); })
        .def("truncate", [](Sequence& s, int length) { s.own->truncate(length); });
    m.def("cache", [](std::shared_ptr<Base> base, int capacity) {
        if (capacity < 1) throw std::invalid_argument("a cache holds at least one token");
        auto own = std::make_unique<Cache>(base->model, capacity);
        return std::shared_ptr<Sequence>(new Sequence{std::move(base), std::move(own)});
    });
    nb::class_<Slot>(m, "Slot").def_prop_ro("bytes", [](Slot& s) { return s.own->bytes(); });
    m.def("adapter", &make_adapter);
    m.def("forward", &forward, "base"_a, "sequences"_a, "tokens"_a, "active"_a, "logits"_a.none(),
          "hidden_layer"_a, "hidden"_a.none());
}
