#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mbpm {

#if defined(__AVXVNNI__)
namespace {
constexpr const char* ISA = "avx2-vnni";
#include "kernels_body.h"
}  // namespace

const Kernels* avx_vnni_kernels() { return &kernels; }
#else
const Kernels* avx_vnni_kernels() { return nullptr; }
#endif

}  // namespace mbpm
