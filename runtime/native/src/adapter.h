// Low-rank adapters in memory, and the memory they lie in.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mbpm {

class Model;

enum Projection : int { Q, K, V, O, GATE, UP, DOWN, PROJECTIONS };
enum Group : int { QKV, OUT, GATE_UP, DOWN_ONLY, GROUPS };
constexpr Group GROUP_OF[PROJECTIONS] = {QKV, QKV, QKV, OUT, GATE_UP, GATE_UP, DOWN_ONLY};

// Bytes that take no memory before they are touched, zero unless `large`: in pages of 2 MB where
// there are such, for what is read from end to end.
class Bytes {
public:
    explicit Bytes(size_t size, bool large = false) : data_(get(size ? size : 1, large)), size_(size) {
        if (!data_) throw std::bad_alloc();
    }
    ~Bytes() { std::free(data_); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

private:
    static uint8_t* get(size_t size, bool large) {
#if defined(__linux__)
        constexpr size_t PAGE = 2 << 20;
        if (large && size >= PAGE) {
            void* p = std::aligned_alloc(PAGE, (size + PAGE - 1) / PAGE * PAGE);
            // the rest of a page would be memory that nobody uses
            if (p) madvise(p, size / PAGE * PAGE, MADV_HUGEPAGE);
            return static_cast<uint8_t*>(p);
        }
#endif
        (void)large;
        return static_cast<uint8_t*>(std::calloc(size, 1));
    }
    uint8_t* data_;
    size_t size_;
};

// One low-rank pair of an adapter file: y += gain * B (A x).
struct Pair {
    int layer;
    Projection projection;
    int rank;
    const float* a;  // [rank, in]
    const float* b;  // [out, rank]
    float gain;
};

// An adapter in a slot: of every group float16 A, the ranks of its projections one after the other
// (in blocks, `shrink_at`), and of every projection float16 B in tiles [out / 16][rank][16].
class Adapter {
public:
    struct Part {
        const uint16_t* b = nullptr;
        int rank = 0, offset = 0;  // where its ranks begin among the group's
    };
    struct Shared {
        const uint16_t* a = nullptr;
        const float* gain = nullptr;
        int rank = 0;
    };
    Adapter(std::shared_ptr<Model> model, const std::vector<Pair>& pairs);
    ~Adapter();
    size_t bytes() const { return slot_->size(); }
    const Part* parts(int layer) const { return &parts_[size_t(layer) * PROJECTIONS]; }
    const Shared& shared(int layer, Group g) const { return shared_[size_t(layer) * GROUPS + g]; }
    int most_rank() const { return most_rank_; }
    const Model* model() const { return model_.get(); }

private:
    std::shared_ptr<Model> model_;
    std::vector<Part> parts_;
    std::vector<Shared> shared_;
    std::unique_ptr<Bytes> slot_;
    int most_rank_ = 0;
};

}  // namespace mbpm
