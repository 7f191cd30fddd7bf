// Vectors of W lanes for the instruction set a file is compiled for. Included by
// kernels_body.h inside a namespace of its own: nothing here may be shared between files that
// are compiled for different processors.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float VF __attribute__((vector_size(4 * W)));
typedef int32_t VI __attribute__((vector_size(4 * W)));
typedef uint32_t VU __attribute__((vector_size(4 * W)));  // 4W unsigned bytes

#define INLINE static inline __attribute__((always_inline))

template <class V, class T>
INLINE V load(const T* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T>
INLINE void store(T* p, V v) {
    __builtin_memcpy(p, &v, sizeof v);
}
INLINE VF splat(float x) { return VF{} + x; }
INLINE VI splat(int32_t x) { return VI{} + x; }
INLINE VF to_float(VI v) { return __builtin_convertvector(v, VF); }
INLINE VF bits(VI v) { return (VF)v; }
INLINE VF max(VF a, VF b) { return a > b ? a : b; }
INLINE VF abs(VF a) { return (VF)((VI)a & 0x7fffffff); }

// v[i ^ by] in lane i
template <class V>
INLINE V turned(V v, int by) {
#if defined(__clang__)
    V result = v;
    for (int i = 0; i < W; i++) result[i] = v[i ^ by];
    return result;
#else
    VI lanes;
    for (int i = 0; i < W; i++) lanes[i] = i ^ by;
    return __builtin_shuffle(v, lanes);
#endif
}
INLINE float sum(VF v) {
    for (int by = W / 2; by; by /= 2) v += turned(v, by);
    return v[0];
}
INLINE int32_t sum(VI v) {
    for (int by = W / 2; by; by /= 2) v += turned(v, by);
    return v[0];
}
INLINE float highest(VF v) {
    for (int by = W / 2; by; by /= 2) v = max(v, turned(v, by));
    return v[0];
}

// W float16 -> float
INLINE VF load_half(const uint16_t* p) {
#if defined(__AVX512F__)
    return (VF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__)
    return (VF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#elif defined(__aarch64__)
    return (VF)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
    VU h;
    for (int i = 0; i < W; i++) h[i] = p[i];
    // exact: the exponent is moved by a multiplication, which also handles subnormals
    VF magnitude = (VF)((h & 0x7fff) << 13) * 0x1p112f;
    VU special = (VU)((h & 0x7c00) == 0x7c00) & 0x7f800000u;
    return (VF)((VU)magnitude | ((h & 0x8000) << 16) | special);
#endif
}

// W int8 -> float
INLINE VF load_int8(const int8_t* p) {
#if defined(__AVX512F__)
    return (VF)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
    return (VF)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
    VI v;
    for (int i = 0; i < W; i++) v[i] = p[i];
    return to_float(v);
#endif
}

INLINE VI round_nearest(VF v) {
    // adding 1.5 * 2^23 leaves the integer in the low bits, rounded to even
    return (VI)(v + 12582912.0f) - 0x4b400000;
}

// W int32 of -128..127 -> int8
INLINE void store_int8(int8_t* p, VI v) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)v));
#else
    for (int i = 0; i < W; i++) p[i] = (int8_t)v[i];
#endif
}

// acc + the sums of four products of unsigned bytes of w and the signed bytes of x; exact.
// `Small`: w is at most 127, so that two products fit 16 bits.
template <bool Small>
INLINE VI dot(VI acc, VU w, int32_t x) {
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
    return (VI)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(x));
#elif defined(__AVXVNNI__)
    return (VI)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, _mm256_set1_epi32(x));
#elif defined(__AVX2__)
    __m256i xs = _mm256_set1_epi32(x);
    if (Small) {
        __m256i pairs = _mm256_maddubs_epi16((__m256i)w, xs);
        return acc + (VI)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    __m256i even = _mm256_madd_epi16(_mm256_and_si256((__m256i)w, _mm256_set1_epi16(255)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(xs, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16((__m256i)w, 8), _mm256_srai_epi16(xs, 8));
    return acc + (VI)_mm256_add_epi32(even, odd);
#elif defined(__ARM_FEATURE_DOTPROD)
    int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(x));
    if (Small) return (VI)vdotq_s32((int32x4_t)acc, vreinterpretq_s8_u32((uint32x4_t)w), xs);
    int8x16_t ws = vreinterpretq_s8_u8(
        veorq_u8(vreinterpretq_u8_u32((uint32x4_t)w), vdupq_n_u8(128)));
    int32x4_t sums = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(1), xs);
    return (VI)vaddq_s32(vdotq_s32((int32x4_t)acc, ws, xs), vshlq_n_s32(sums, 7));
#else
    VI v = (VI)w;
    return acc + (v & 255) * (int32_t)(int8_t)x + ((VI)(w >> 8) & 255) * (int32_t)(int8_t)(x >> 8) +
           ((VI)(w >> 16) & 255) * (int32_t)(int8_t)(x >> 16) +
           (VI)(w >> 24) * (int32_t)(int8_t)(x >> 24);
#endif
}

// table[nibble] of every byte; nibbles are 0..15
INLINE VU lookup(VU nibbles, const uint8_t* table) {
#if defined(__AVX512BW__)
    __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table));
    return (VU)_mm512_shuffle_epi8(t, (__m512i)nibbles);
#elif defined(__AVX2__)
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
    return (VU)_mm256_shuffle_epi8(t, (__m256i)nibbles);
#elif defined(__aarch64__)
    return (VU)vreinterpretq_u32_u8(
        vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_u32((uint32x4_t)nibbles)));
#else
    uint8_t b[4 * W];
    store(b, nibbles);
    for (int i = 0; i < 4 * W; i++) b[i] = table[b[i]];
    return load<VU>(b);
#endif
}

INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

// e^x for x <= 88: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes expf); 0 below -87
INLINE VF exp(VF x) {
    VI tiny = x < -87.0f;
    x = max(x, splat(-87.0f));
    VI n = round_nearest(x * 1.44269504088896341f);
    VF f = to_float(n);
    x = x - f * 0.693359375f + f * 2.12194440e-4f;
    VF y = splat(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    VF result = (VF)((VI)y + (n << 23));
    return tiny ? VF{} : result;
}
