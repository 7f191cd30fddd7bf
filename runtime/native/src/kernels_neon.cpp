#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mbpm {

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
namespace {
constexpr const char* ISA = "neon-dotprod";
#include "kernels_body.h"
}  // namespace

const Kernels* neon_kernels() { return &kernels; }
#else
const Kernels* neon_kernels() { return nullptr; }
#endif

}  // namespace mbpm
