#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mbpm {

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
namespace {
constexpr const char* ISA = "avx2";
#include "kernels_body.h"
}  // namespace

const Kernels* avx2_kernels() { return &kernels; }
#else
const Kernels* avx2_kernels() { return nullptr; }
#endif

}  // namespace mbpm
