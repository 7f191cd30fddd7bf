// `runtime.native._native.Training`: the trainer's passes on PyTorch tensors. Every shape, stride and
// type is checked here; the kernels trust them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "model.h"

namespace nb = nanobind;
using namespace mbpm;
using namespace nb::literals;

namespace {

using Tensor = nb::ndarray<nb::device::cpu>;
constexpr int64_t MOST = int64_t(1) << 31;

void check(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

bool is(const Tensor& t, nb::dlpack::dtype_code code, int bits) {
    return t.dtype().code == uint8_t(code) && t.dtype().bits == bits && t.dtype().lanes == 1;
}
bool is_wide(const Tensor& t) { return is(t, nb::dlpack::dtype_code::Float, 32); }

// A tensor whose last dimension is dense, seen as rows: all dimensions but the last must be dense
// above each other, with one stride between rows.
template <class T>
struct Rows {
    T* at = nullptr;
    int64_t rows = 0, columns = 0;
    size_t stride = 0;
    bool dense() const { return stride == size_t(columns) || rows <= 1; }
};

template <class T>
Rows<T> rows_of(const Tensor& t) {
    constexpr bool wide = sizeof(T) == 4;
    check(wide ? is_wide(t) : is(t, nb::dlpack::dtype_code::Bfloat, 16), "a tensor of another type");
    check(t.ndim() >= 1, "a tensor without dimensions");
    const size_t last = t.ndim() - 1;
    Rows<T> r{static_cast<T*>(t.data()), 1, int64_t(t.shape(last)), 0};
    check(r.columns < MOST && (r.columns <= 1 || t.stride(last) == 1), "rows that are not dense");
    r.stride = size_t(r.columns);
    for (size_t i = last; i-- > 0;) {
        if (t.shape(i) == 1) continue;
        if (r.rows == 1) {
            check(t.stride(i) >= r.columns, "rows that overlap");
            r.stride = size_t(t.stride(i));
        }
        check(t.stride(i) == int64_t(r.stride) * r.rows, "rows without a common stride");
        r.rows *= int64_t(t.shape(i));
    }
    check(r.rows < MOST, "too many rows");
    return r;
}

template <class T>
Rows<T> dense(const Tensor& t, int64_t rows, int64_t columns) {
    Rows<T> r = rows_of<T>(t);
    check(r.rows == rows && r.columns == columns && r.dense(), "a tensor of another shape");
    return r;
}

const float* vector(const Tensor& t, int64_t n) { return dense<float>(t, 1, n).at; }

// The data of a tensor whose numbers stand one after the other.
const void* contiguous(const Tensor& t) {
    int64_t stride = 1;
    for (size_t i = t.ndim(); i-- > 0; stride *= int64_t(t.shape(i)))
        check(t.shape(i) == 1 || t.stride(i) == stride, "codes or scales that are not dense");
    return t.data();
}

using Maybe = std::optional<Tensor>;

struct Passes {
    const Kernels* kernels;

    template <class T>
    const mbpm::Training<T>& of() const {
        if constexpr (sizeof(T) == 4) return *kernels->training_wide;
        else return *kernels->training;
    }
};

// Calls f with a T* that says in which type the matrices are.
template <class F>
void typed(const Tensor& t, F f) {
    if (is_wide(t)) f(static_cast<float*>(nullptr));
    else f(static_cast<uint16_t*>(nullptr));
}

void dequantise(const Passes& p, Tensor codes, Tensor scale, const Maybe& offset, Tensor out) {
    typed(out, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> to = rows_of<T>(out);
        Coded c{};
        c.nibbles = bool(offset);
        c.groups = int(to.columns / mbpm::GROUP);
        const int64_t groups = to.rows * c.groups;
        check(to.columns % mbpm::GROUP == 0 && to.columns > 0, "columns are no multiple of 32");
        check(is(codes, c.nibbles ? nb::dlpack::dtype_code::UInt : nb::dlpack::dtype_code::Int, 8) &&
                  int64_t(codes.size()) == groups * (c.nibbles ? 16 : 32),
              "codes of another shape");
        auto numbers = [&](const Tensor& t, bool& half) {
            half = is(t, nb::dlpack::dtype_code::Float, 16);
            check((half || is_wide(t)) && int64_t(t.size()) == groups, "scales of another shape");
            return contiguous(t);
        };
        c.codes = static_cast<const uint8_t*>(contiguous(codes));
        c.scale = numbers(scale, c.half_scale);
        if (offset) c.offset = numbers(*offset, c.half_offset);
        nb::gil_scoped_release release;
        p.of<T>().dequantise(c, int(to.rows), to.at, to.stride);
    });
}

void norm(const Passes& p, Tensor x, const Maybe& more, Tensor weight, float eps, Tensor y,
          Tensor inverse, Tensor h, const Maybe& kept) {
    typed(h, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> to = rows_of<T>(h);
        Norm<T> a{};
        a.n = int(to.columns);
        a.eps = eps;
        a.weight = vector(weight, a.n);
        a.x = dense<float>(x, to.rows, a.n).at;
        a.more = more ? dense<T>(*more, to.rows, a.n).at : nullptr;
        a.y = dense<float>(y, to.rows, a.n).at;
        a.inverse = dense<float>(inverse, to.rows, 1).at;
        a.h = to.at;
        a.stride = to.stride;
        a.kept = kept ? dense<T>(*kept, to.rows, a.n).at : nullptr;
        nb::gil_scoped_release release;
        p.of<T>().norm(a, int(to.rows));
    });
}

void normed(const Passes& p, Tensor kept, Tensor inverse, Tensor weight, Tensor h) {
    typed(h, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> to = rows_of<T>(h);
        Norm<T> a{};
        a.n = int(to.columns);
        a.weight = vector(weight, a.n);
        a.inverse = dense<float>(inverse, to.rows, 1).at;
        a.kept = dense<T>(kept, to.rows, a.n).at;
        a.h = to.at;
        a.stride = to.stride;
        nb::gil_scoped_release release;
        p.of<T>().normed(a, int(to.rows));
    });
}

void norm_backward(const Passes& p, Tensor h, Tensor kept, Tensor inverse, Tensor weight, Tensor x,
                   Tensor y, const Maybe& low) {
    typed(h, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> from = rows_of<T>(h);
        Norm<T> a{};
        a.n = int(from.columns);
        a.weight = vector(weight, a.n);
        a.x = dense<float>(x, from.rows, a.n).at;
        a.y = dense<float>(y, from.rows, a.n).at;
        a.inverse = dense<float>(inverse, from.rows, 1).at;
        a.kept = dense<T>(kept, from.rows, a.n).at;
        a.h = from.at;
        a.stride = from.stride;
        T* lower = low ? dense<T>(*low, from.rows, a.n).at : nullptr;
        nb::gil_scoped_release release;
        p.of<T>().norm_backward(a, lower, int(from.rows));
    });
}

void rotate(const Passes& p, Tensor x, const Maybe& bias, Tensor cos, Tensor sin, int heads, int d,
            float turn) {
    typed(x, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> rows = rows_of<T>(x);
        check(rows.dense() && d > 0 && d % 2 == 0 && heads >= 0 && int64_t(heads) * d <= rows.columns,
              "heads of another shape");
        const float* b = bias ? vector(*bias, rows.columns) : nullptr;
        const float* c = dense<float>(cos, rows.rows, d / 2).at;
        const float* s = dense<float>(sin, rows.rows, d / 2).at;
        nb::gil_scoped_release release;
        p.of<T>().rotate(rows.at, b, c, s, int(rows.columns), heads, d, turn, int(rows.rows));
    });
}

void swiglu(const Passes& p, Tensor gate_up, Tensor out) {
    typed(out, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> to = rows_of<T>(out);
        const T* from = dense<T>(gate_up, to.rows, 2 * to.columns).at;
        nb::gil_scoped_release release;
        p.of<T>().swiglu(from, to.at, to.stride, int(to.columns), int(to.rows));
    });
}

void swiglu_backward(const Passes& p, Tensor grad, Tensor gate_up, Tensor d_gate_up, Tensor active) {
    typed(grad, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> g = rows_of<T>(grad);
        const T* from = dense<T>(gate_up, g.rows, 2 * g.columns).at;
        T* to = dense<T>(d_gate_up, g.rows, 2 * g.columns).at;
        T* made = dense<T>(active, g.rows, g.columns).at;
        nb::gil_scoped_release release;
        p.of<T>().swiglu_backward(g.at, g.stride, from, to, made, int(g.columns), int(g.rows));
    });
}

// scores [B, H, T, S]; mask [B or 1, 1, T, S], of any strides but the last
void softmax(const Passes& p, Tensor scores, Tensor mask, float scale) {
    typed(scores, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> rows = rows_of<T>(scores);
        check(scores.ndim() == 4 && rows.dense() && rows.columns > 0, "scores of another shape");
        check(mask.ndim() == 4 && mask.dtype() == scores.dtype() && mask.shape(1) == 1 &&
                  (mask.shape(0) == 1 || mask.shape(0) == scores.shape(0)) &&
                  mask.shape(2) == scores.shape(2) && mask.shape(3) == scores.shape(3) &&
                  (mask.shape(3) == 1 || mask.stride(3) == 1),
              "a mask of another shape");
        Scores<T> a{rows.at, int(scores.shape(1)), int(scores.shape(2)), int(rows.columns),
                    static_cast<const T*>(mask.data()),
                    mask.shape(0) == 1 ? 0 : size_t(mask.stride(0)), size_t(mask.stride(2)), scale};
        nb::gil_scoped_release release;
        std::vector<float> scratch(size_t(rows.columns));
        for (int b = 0; b < int(scores.shape(0)); b++) p.of<T>().softmax(a, b, scratch.data());
    });
}

void softmax_backward(const Passes& p, Tensor grad, Tensor probabilities, float scale) {
    typed(grad, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> g = rows_of<T>(grad);
        check(g.dense(), "rows that are not dense");
        const T* from = dense<T>(probabilities, g.rows, g.columns).at;
        nb::gil_scoped_release release;
        p.of<T>().softmax_backward(g.at, from, int(g.columns), scale, int(g.rows));
    });
}

void cross_entropy(const Passes& p, Tensor logits, Tensor targets, Tensor losses, bool slopes) {
    typed(logits, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Rows<T> rows = rows_of<T>(logits);
        check(rows.dense() && rows.columns > 0, "logits of another shape");
        check(is(targets, nb::dlpack::dtype_code::Int, 64) && targets.ndim() == 1 &&
                  int64_t(targets.shape(0)) == rows.rows && (rows.rows <= 1 || targets.stride(0) == 1),
              "targets of another shape");
        float* to = dense<float>(losses, 1, rows.rows).at;
        const auto* which = static_cast<const int64_t*>(targets.data());
        for (int64_t i = 0; i < rows.rows; i++)
            check(which[i] >= 0 && which[i] < rows.columns, "a target outside the vocabulary");
        nb::gil_scoped_release release;
        p.of<T>().cross_entropy(rows.at, which, to, int(rows.columns), slopes, int(rows.rows));
    });
}

}  // namespace

void bind_training(nb::module_& m) {
    nb::class_<Passes>(m, "Training")
        .def("__init__",
             [](Passes* p, const std::string& isa) {
                 const Kernels* kernels = find_kernels(isa);
                 if (!kernels) throw std::invalid_argument("no `" + isa + "` kernels here");
                 new (p) Passes{kernels};
             })
        .def("dequantise", &dequantise, "codes"_a, "scale"_a, "offset"_a.none(), "out"_a)
        .def("norm", &norm, "x"_a, "more"_a.none(), "weight"_a, "eps"_a, "y"_a, "inverse"_a, "h"_a,
             "kept"_a.none())
        .def("normed", &normed)
        .def("norm_backward", &norm_backward, "h"_a, "kept"_a, "inverse"_a, "weight"_a, "x"_a, "y"_a,
             "low"_a.none())
        .def("rotate", &rotate, "x"_a, "bias"_a.none(), "cos"_a, "sin"_a, "heads"_a, "d"_a, "turn"_a)
        .def("swiglu", &swiglu)
        .def("swiglu_backward", &swiglu_backward)
        .def("softmax", &softmax)
        .def("softmax_backward", &softmax_backward)
        .def("cross_entropy", &cross_entropy);
}
