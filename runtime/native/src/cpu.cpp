// Which kernels this processor and this system can run.
#include "model.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace mbpm {

namespace {

#if defined(__x86_64__)
struct Features {
    bool avx2 = false, avx_vnni = false, avx512 = false;
    Features() {
        unsigned a, b, c, d;
        if (!__get_cpuid(1, &a, &b, &c, &d)) return;
        const bool saves = c & bit_OSXSAVE, fma = c & bit_FMA, half = c & bit_F16C;
        if (!saves) return;
        unsigned low, high;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        const bool ymm = (low & 0x06) == 0x06, zmm = (low & 0xe6) == 0xe6;  // saved by the system
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
        const unsigned most = a;
        avx2 = ymm && fma && half && (b & bit_AVX2);
        avx512 = avx2 && zmm && (b & bit_AVX512F) && (b & bit_AVX512BW) && (b & bit_AVX512DQ) &&
                 (b & bit_AVX512VL) && (c & bit_AVX512VNNI);
        if (most >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) avx_vnni = avx2 && (a & (1u << 4));
    }
};
#endif

}  // namespace

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> found;
    auto add = [&](bool can, const Kernels* k) {
        if (can && k) found.push_back(k);
    };
#if defined(__x86_64__)
    static const Features cpu;
    add(cpu.avx512, avx512_kernels());
    add(cpu.avx_vnni, avx_vnni_kernels());
    add(cpu.avx2, avx2_kernels());
#endif
#if defined(__aarch64__) && defined(__linux__)
    add(getauxval(AT_HWCAP) & (1ul << 20), neon_kernels());  // HWCAP_ASIMDDP
#else
    add(true, neon_kernels());
#endif
    add(true, portable_kernels());
    return found;
}

const Kernels* find_kernels(const std::string& name) {
    for (const Kernels* k : usable_kernels())
        if (name.empty() || name == k->name) return k;
    return nullptr;
}

}  // namespace mbpm
