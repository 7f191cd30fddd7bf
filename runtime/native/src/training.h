// Passes over activations that the trainer makes between matrix products (training_body.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace mbpm {

// Quantised rows: groups of 32 columns, w = scale * code + offset.
struct Coded {
    const uint8_t* codes;  // int8 [rows][groups][32], or nibbles [rows][groups][16], low halves first
    const void* scale;     // [rows][groups]
    const void* offset;    // [rows][groups]; null without nibbles
    bool nibbles;
    bool half_scale, half_offset;  // float16, else float32
    int groups;
};

// An RMS norm of rows of n numbers; null where a pass does not need it.
template <class T>
struct Norm {
    int n;
    float eps;
    const float *weight, *x;
    const T* more;
    float *y, *inverse;
    T *h, *kept;
    size_t stride;  // of rows of h
};

// Attention scores p[sequence][head][query][key].
template <class T>
struct Scores {
    T* p;
    int heads, queries, keys;
    const T* mask;
    size_t mask_sequence, mask_query;  // strides; 0 where all sequences share it
    float scale;
};

// T is bfloat16, in uint16_t, or float.
template <class T>
struct Training {
    void (*dequantise)(const Coded&, int rows, T* out, size_t stride);
    void (*norm)(const Norm<T>&, int rows);
    void (*normed)(const Norm<T>&, int rows);
    void (*norm_backward)(const Norm<T>&, T* low, int rows);
    void (*rotate)(T* x, const float* bias, const float* cos, const float* sin, int width, int heads,
                   int d, float turn, int rows);
    void (*swiglu)(const T* gate_up, T* out, size_t stride, int width, int rows);
    void (*swiglu_backward)(const T* grad, size_t stride, const T* gate_up, T* d_gate_up, T* active,
                            int width, int rows);
    void (*softmax)(const Scores<T>&, int sequence, float* scratch);
    void (*softmax_backward)(T* grad, const T* p, int keys, float scale, int rows);
    void (*cross_entropy)(T* logits, const int64_t* targets, float* losses, int n, bool slopes,
                          int rows);
};

}  // namespace mbpm
