// Threads that share the chunks of one step after the other.
//
// A step's chunks are dealt out as one contiguous range per thread; who is done takes from others.
// A chunk is computed into the thread's own memory and then committed, once, by whoever finishes it
// first. So nobody waits for a thread that the system took off its core while it computed a chunk:
// the caller computes that chunk again, and what the sleeper would have written is dropped. Only one
// inside `commit`, which copies, is waited for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace mbpm {

constexpr size_t MAX_STEP = 1536;  // bytes of a step's description

class Pool {
public:
    explicit Pool(int threads);  // fewer where the system gives no more
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }

    // Run step.compute(chunk, scratch) for all chunks, each followed by one step.commit(chunk,
    // scratch). `Step` is copied to the threads. A late thread may still be inside `compute` after
    // this returns: whatever `compute` reads has to live until `quiesce`.
    template <class Step>
    void run(const Step& step, int chunks, size_t scratch_floats) {
        static_assert(std::is_trivially_copyable_v<Step> && sizeof(Step) <= MAX_STEP);
        reserve(chunks, scratch_floats);
        if (chunks == 1 || threads_ == 1) {  // not worth waking anybody for
            float* scratch = lines_[0].scratch.data();
            for (int c = 0; c < chunks; c++) step.compute(c, scratch), step.commit(c, scratch);
            return;
        }
        begin(chunks);
        std::memcpy(job_.step, &step, sizeof(Step));
        job_.compute = [](const void* s, int chunk, float* scratch) {
            static_cast<const Step*>(s)->compute(chunk, scratch);
        };
        job_.commit = [](const void* s, int chunk, float* scratch) {
            static_cast<const Step*>(s)->commit(chunk, scratch);
        };
        finish();
    }

    // Wait until no helper is inside a step: before memory that steps read is given back.
    void quiesce();

private:
    struct Job {
        alignas(64) unsigned char step[MAX_STEP];
        void (*compute)(const void*, int, float*);
        void (*commit)(const void*, int, float*);
        int chunks;
    };
    struct alignas(64) Line {
        std::atomic<uint64_t> next{0};     // epoch << 32 | next chunk of this thread's range
        std::atomic<bool> busy{false};     // a helper that may be inside a step
        std::vector<float> scratch;
    };

    void reserve(int chunks, size_t scratch_floats);
    void begin(int chunks);
    void finish();
    void helper(int self);
    void work(int self, uint64_t epoch, const Job& job);
    void compute(int self, uint64_t epoch, const Job& job, int chunk);
    int take(int from, uint64_t epoch, int chunks);
    int range_end(int thread, int chunks) const { return int(int64_t(chunks) * (thread + 1) / threads_); }
    int range_begin(int thread, int chunks) const { return int(int64_t(chunks) * thread / threads_); }

    int threads_;
    Job job_;
    std::unique_ptr<Line[]> lines_;
    std::vector<std::atomic<uint64_t>> states_;  // per chunk: epoch << 1 | committed
    alignas(64) std::atomic<uint64_t> writing_{0};
    alignas(64) std::atomic<uint64_t> epoch_{0};
    alignas(64) std::atomic<int> asleep_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> helpers_;
};

}  // namespace mbpm
