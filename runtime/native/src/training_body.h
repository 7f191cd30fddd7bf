// Passes over activations for the trainer, each reading and writing its numbers once. Included by
// kernels_body.h, and compiled once per instruction set; T is bfloat16 (in uint16_t) or float, the
// type that matrices are multiplied in. Sums and exponentials are float.

typedef uint16_t VH __attribute__((vector_size(2 * W)));
typedef uint8_t VB __attribute__((vector_size(W)));
typedef int8_t VC __attribute__((vector_size(W)));

INLINE VF get(const float* p) { return load<VF>(p); }
INLINE VF get(const uint16_t* p) {
#if defined(__AVX512F__)  // GCC 12 widens in two halves
    return (VF)((VI)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)) << 16);
#else
    return (VF)(__builtin_convertvector(load<VH>(p), VI) << 16);
#endif
}
INLINE void put(float* p, VF v) { store(p, v); }
INLINE void put(uint16_t* p, VF v) {  // to nearest, ties to even
    const VU b = (VU)v, rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)rounded));
#else
    store(p, __builtin_convertvector(rounded, VH));
#endif
}
// The first n < W numbers, and zeros; back to where they came from.
template <class T>
INLINE VF get(const T* p, int n) {
    T some[W] = {};
    for (int i = 0; i < n; i++) some[i] = p[i];
    return get(some);
}
template <class T>
INLINE void put(T* p, VF v, int n) {
    T some[W];
    put(some, v);
    for (int i = 0; i < n; i++) p[i] = some[i];
}
// f(vector, how many numbers) for every W of n numbers
template <class F>
INLINE void each(int n, F f) {
    int i = 0;
    for (; i + W <= n; i += W) f(i, W);
    if (i < n) f(i, n - i);
}
template <class T>
INLINE VF some(const T* p, int n) { return n == W ? get(p) : get(p, n); }
template <class T>
INLINE void set(T* p, VF v, int n) { n == W ? put(p, v) : put(p, v, n); }

INLINE VF exponential(VF x) {  // NaN stays NaN
    const VF e = exp(x);
    return x == x ? e : x;
}

// table[lane] of every lane
INLINE VH picked(VH table, VH lanes) {
#if defined(__clang__)
    VH result;
    for (int i = 0; i < W; i++) result[i] = table[lanes[i]];
    return result;
#else
    return __builtin_shuffle(table, lanes);
#endif
}

// The first n <= W of scales or offsets.
INLINE void numbers(const void* p, bool half, size_t at, int n, float* to) {
    if (!half) {
        set(to, some((const float*)p + at, n), n);
        return;
    }
    uint16_t h[W] = {};
    __builtin_memcpy(h, (const uint16_t*)p + at, 2 * size_t(n));
    store(to, load_half(h));
}

template <class T>
static void dequantise_rows(const Coded& c, int rows, T* out, size_t stride) {
    for (int r = 0; r < rows; r++)
        for (int first = 0; first < c.groups; first += W) {
            const int count = c.groups - first < W ? c.groups - first : W;
            const size_t at = size_t(r) * c.groups + first;
            T* to = out + size_t(r) * stride + size_t(first) * GROUP;
            float scale[W], offset[W] = {};
            numbers(c.scale, c.half_scale, at, count, scale);
            if (c.nibbles) numbers(c.offset, c.half_offset, at, count, offset);
            for (int g = 0; g < count; g++, to += GROUP) {
                if (!c.nibbles) {
                    const int8_t* q = (const int8_t*)c.codes + (at + g) * GROUP;
                    for (int i = 0; i < GROUP; i += W)
                        put(to + i, to_float(__builtin_convertvector(load<VC>(q + i), VI)) * scale[g]);
                    continue;
                }
                const uint8_t* q = c.codes + (at + g) * (GROUP / 2);
                if constexpr (W == 16 && sizeof(T) == 2) {  // all sixteen values fit one vector
                    VI every;
                    for (int i = 0; i < W; i++) every[i] = i;
                    T values[W];
                    put(values, to_float(every) * scale[g] + offset[g]);
                    const VH table = load<VH>(values), pair = __builtin_convertvector(load<VB>(q), VH);
                    store(to, picked(table, pair & 15));
                    store(to + W, picked(table, pair >> 4));
                    continue;
                }
                for (int i = 0; i < GROUP / 2; i += W) {
                    const VI pair = __builtin_convertvector(load<VB>(q + i), VI);
                    put(to + i, to_float(pair & 15) * scale[g] + offset[g]);
                    put(to + GROUP / 2 + i, to_float(pair >> 4) * scale[g] + offset[g]);
                }
            }
        }
}

// y = x + more; inverse = 1 / sqrt(mean(y^2) + eps); h = y * inverse * weight; kept = y
template <class T>
static void norm_rows(const Norm<T>& a, int rows) {
    for (int r = 0; r < rows; r++) {
        const float* x = a.x + size_t(r) * a.n;
        const T* more = a.more ? a.more + size_t(r) * a.n : nullptr;
        float* y = a.y + size_t(r) * a.n;
        VF squares = {};
        each(a.n, [&](int i, int n) {
            VF v = some(x + i, n);
            if (more) v += some(more + i, n);
            set(y + i, v, n);
            squares += v * v;
        });
        const float inverse = 1.0f / __builtin_sqrtf(sum(squares) / float(a.n) + a.eps);
        a.inverse[r] = inverse;
        T* h = a.h + size_t(r) * a.stride;
        T* kept = a.kept ? a.kept + size_t(r) * a.n : nullptr;
        each(a.n, [&](int i, int n) {
            const VF v = some(y + i, n);
            set(h + i, v * inverse * some(a.weight + i, n), n);
            if (kept) set(kept + i, v, n);
        });
    }
}

// h = kept * inverse * weight, as norm_rows made it
template <class T>
static void normed_rows(const Norm<T>& a, int rows) {
    for (int r = 0; r < rows; r++)
        each(a.n, [&](int i, int n) {
            const VF v = some(a.kept + size_t(r) * a.n + i, n) * a.inverse[r];
            set(a.h + size_t(r) * a.stride + i, v * some(a.weight + i, n), n);
        });
}

// y = x + the gradient of `kept` where h has the gradient h; low = y
template <class T>
static void norm_backward_rows(const Norm<T>& a, T* low, int rows) {
    for (int r = 0; r < rows; r++) {
        const T* h = a.h + size_t(r) * a.stride;
        const T* kept = a.kept + size_t(r) * a.n;
        const float inverse = a.inverse[r];
        VF along = {};
        each(a.n, [&](int i, int n) {
            along += some(h + i, n) * some(a.weight + i, n) * some(kept + i, n);
        });
        const float share = sum(along) * inverse * inverse / float(a.n);
        each(a.n, [&](int i, int n) {
            const VF g = some(h + i, n) * some(a.weight + i, n) - some(kept + i, n) * share;
            const VF v = some(a.x + size_t(r) * a.n + i, n) + g * inverse;
            set(a.y + size_t(r) * a.n + i, v, n);
            if (low) set(low + size_t(r) * a.n + i, v, n);
        });
    }
}

// Adds a bias to rows of `width` numbers, and rotates the first `heads` heads of d; `turn` is 1 or -1.
template <class T>
static void rotate_rows(T* x, const float* bias, const float* cos, const float* sin, int width,
                        int heads, int d, float turn, int rows) {
    const int half = d / 2;
    for (int r = 0; r < rows; r++) {
        T* row = x + size_t(r) * width;
        if (bias)
            each(width, [&](int i, int n) { set(row + i, some(row + i, n) + some(bias + i, n), n); });
        for (int head = 0; head < heads; head++) {
            T* first = row + head * d;
            each(half, [&](int i, int n) {
                const VF c = some(cos + size_t(r) * half + i, n);
                const VF s = some(sin + size_t(r) * half + i, n) * turn;
                const VF a = some(first + i, n), b = some(first + half + i, n);
                set(first + i, a * c - b * s, n);
                set(first + half + i, b * c + a * s, n);
            });
        }
    }
}

INLINE VF sigmoid(VF x) { return 1.0f / sigmoid_divisor(x); }

// out = silu(gate) * up, of rows [gate, up]
template <class T>
static void swiglu_rows(const T* gate_up, T* out, size_t stride, int width, int rows) {
    for (int r = 0; r < rows; r++) {
        const T* row = gate_up + size_t(r) * 2 * width;
        each(width, [&](int i, int n) {
            const VF g = some(row + i, n);
            set(out + size_t(r) * stride + i, g * sigmoid(g) * some(row + width + i, n), n);
        });
    }
}

// `active` becomes what swiglu_rows gave, d_gate_up the gradient given that of it, `grad`.
template <class T>
static void swiglu_backward_rows(const T* grad, size_t stride, const T* gate_up, T* d_gate_up,
                                 T* active, int width, int rows) {
    for (int r = 0; r < rows; r++) {
        const T* row = gate_up + size_t(r) * 2 * width;
        T* to = d_gate_up + size_t(r) * 2 * width;
        each(width, [&](int i, int n) {
            const VF g = some(row + i, n), up = some(row + width + i, n);
            const VF d = some(grad + size_t(r) * stride + i, n);
            const VF s = sigmoid(g), silu = g * s;
            set(active + size_t(r) * width + i, silu * up, n);
            set(to + width + i, d * silu, n);
            set(to + i, d * up * (s + silu * (1.0f - s)), n);
        });
    }
}

// Softmax of scale * scores where the mask is zero; what it is not becomes zero.
template <class T>
static void softmax_rows(const Scores<T>& a, int sequence, float* scratch) {
    const int keys = a.keys;
    for (int t = 0; t < a.queries; t++) {
        const T* mask = a.mask + size_t(sequence) * a.mask_sequence + size_t(t) * a.mask_query;
        int last = keys;  // behind it nothing is seen
        while (last > 1 && mask[last - 1] != T(0)) last--;
        last = last + W - 1 - (last + W - 1) % W;  // whole vectors where they fit
        last = last < keys ? last : keys;
        for (int head = 0; head < a.heads; head++) {
            T* row = a.p + ((size_t(sequence) * a.heads + head) * a.queries + t) * keys;
            VF most = splat(-__builtin_inff());
            each(last, [&](int i, int n) {
                VF v = some(row + i, n) * a.scale + some(mask + i, n);
                set(scratch + i, v, n);
                if (n < W)
                    for (int j = n; j < W; j++) v[j] = -__builtin_inff();
                most = max(most, v);
            });
            const float largest = highest(most);
            VF total = {};
            each(last, [&](int i, int n) {
                VF e = exponential(some(scratch + i, n) - largest);
                set(scratch + i, e, n);
                if (n < W)
                    for (int j = n; j < W; j++) e[j] = 0;
                total += e;
            });
            const float share = 1.0f / sum(total);
            each(last, [&](int i, int n) { set(row + i, some(scratch + i, n) * share, n); });
            for (int i = last; i < keys; i++) row[i] = 0;
        }
    }
}

// grad becomes the gradient of the scores, given that of p = softmax(scale * scores)
template <class T>
static void softmax_backward_rows(T* grad, const T* p, int keys, float scale, int rows) {
    for (int r = 0; r < rows; r++) {
        T* g = grad + size_t(r) * keys;
        const T* q = p + size_t(r) * keys;
        VF along = {};
        each(keys, [&](int i, int n) { along += some(g + i, n) * some(q + i, n); });
        const float mean = sum(along);
        each(keys, [&](int i, int n) {
            set(g + i, (some(g + i, n) - mean) * some(q + i, n) * scale, n);
        });
    }
}

// losses = log(sum(exp(logits))) - logits[target]; where wanted, logits become softmax - one-hot
template <class T>
static void cross_entropy_rows(T* logits, const int64_t* targets, float* losses, int n, bool slopes,
                               int rows) {
    for (int r = 0; r < rows; r++) {
        T* row = logits + size_t(r) * n;
        VF most = splat(-__builtin_inff());
        each(n, [&](int i, int count) {
            VF v = some(row + i, count);
            if (count < W)
                for (int j = count; j < W; j++) v[j] = -__builtin_inff();
            most = max(most, v);
        });
        const float largest = highest(most);
        VF total = {};
        each(n, [&](int i, int count) {
            VF e = exponential(some(row + i, count) - largest);
            if (count < W)
                for (int j = count; j < W; j++) e[j] = 0;
            total += e;
        });
        const float normaliser = largest + __builtin_logf(sum(total));
        T* hit = row + targets[r];
        const float target = some(hit, 1)[0];
        losses[r] = normaliser - target;
        if (!slopes) continue;
        each(n, [&](int i, int count) { set(row + i, exponential(some(row + i, count) - normaliser), count); });
        put(hit, exponential(splat(target - normaliser)) - 1.0f, 1);
    }
}

template <class T>
static const Training<T> training = {
    dequantise_rows<T>, norm_rows<T>, normed_rows<T>, norm_backward_rows<T>, rotate_rows<T>, swiglu_rows<T>,
    swiglu_backward_rows<T>, softmax_rows<T>, softmax_backward_rows<T>, cross_entropy_rows<T>};
