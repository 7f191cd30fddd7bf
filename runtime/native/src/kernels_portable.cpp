// Any processor: what every other set is compared with where it is too wide to reason about.
#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mbpm {

namespace {
constexpr const char* ISA = "portable";
#include "kernels_body.h"
}  // namespace

const Kernels* portable_kernels() { return &kernels; }

float half_to_float(uint16_t h) {
    uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
    float f;
    __builtin_memcpy(&f, &magnitude, 4);
    f *= 0x1p112f;
    if ((h & 0x7c00) == 0x7c00) f = (h & 0x3ff) ? __builtin_nanf("") : __builtin_inff();
    return h & 0x8000 ? -f : f;
}

uint16_t float_to_half(float f) {
    uint32_t u;
    __builtin_memcpy(&u, &f, 4);
    const uint16_t sign = (u >> 16) & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return sign | 0x7e00;
    if (u >= 0x477ff000) return sign | 0x7c00;
    float magnitude;
    __builtin_memcpy(&magnitude, &u, 4);
    if (u < 0x38800000) {  // subnormal: the addition rounds at the right bit
        float shifted = magnitude + 0.5f;
        __builtin_memcpy(&u, &shifted, 4);
        return sign | uint16_t(u - 0x3f000000);
    }
    u += 0xfff + ((u >> 13) & 1);
    return sign | uint16_t((u - 0x38000000) >> 13);
}

}  // namespace mbpm
