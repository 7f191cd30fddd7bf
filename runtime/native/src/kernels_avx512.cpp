#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mbpm {

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
namespace {
constexpr const char* ISA = "avx512-vnni";
#include "kernels_body.h"
}  // namespace

const Kernels* avx512_kernels() { return &kernels; }
#else
const Kernels* avx512_kernels() { return nullptr; }
#endif

}  // namespace mbpm
