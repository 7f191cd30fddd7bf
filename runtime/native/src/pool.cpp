#include "pool.h"

#include <chrono>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mbpm {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto SPIN = std::chrono::microseconds(200);  // how long a helper waits awake

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads)
    : threads_(threads < 1 ? 1 : threads), lines_(new Line[size_t(threads_)]), states_(4096) {
    helpers_.reserve(size_t(threads_));
    // a helper looks at `threads_` when there is work, not before
    try {
        for (int i = 1; i < threads_; i++) helpers_.emplace_back([this, i] { helper(i); });
    } catch (const std::system_error&) {
        threads_ = int(helpers_.size()) + 1;
    }
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_.store(true);
    }
    wake_.notify_all();
    for (auto& t : helpers_) t.join();
}

void Pool::quiesce() {
    for (int i = 1; i < threads_; i++)
        while (lines_[i].busy.load()) std::this_thread::yield();
}

void Pool::reserve(int chunks, size_t scratch_floats) {
    if (lines_[0].scratch.size() >= scratch_floats && states_.size() >= size_t(chunks)) return;
    quiesce();
    // the caller's own comes last: should memory end before, the next call tries again
    for (int i = threads_ - 1; i >= 0; i--)
        if (lines_[i].scratch.size() < scratch_floats) lines_[i].scratch.resize(scratch_floats);
    if (states_.size() < size_t(chunks)) {
        std::vector<std::atomic<uint64_t>> more(size_t(chunks) * 2);
        states_.swap(more);
    }
}

void Pool::begin(int chunks) {
    // a helper that reads the job while it is written sees this and reads again
    writing_.store(epoch_.load(std::memory_order_relaxed) + 1);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    job_.chunks = chunks;
}

void Pool::finish() {
    const uint64_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
    const int chunks = job_.chunks;
    for (int i = 0; i < threads_; i++)
        lines_[i].next.store(epoch << 32 | uint64_t(range_begin(i, chunks)));
    epoch_.store(epoch);
    if (threads_ > 1 && asleep_.load() > 0) {
        { std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
    const auto began = Clock::now();
    work(0, epoch, job_);
    const auto worked = Clock::now();
    // others hold what is left: give them the time that a chunk takes, then do it ourselves
    const auto patience = (worked - began) / 2 + std::chrono::microseconds(3);
    bool waited = false;
    for (int c = 0; c < chunks; c++)
        for (uint64_t s; (s = states_[c].load(std::memory_order_acquire)) != (epoch << 1 | 1);) {
            if (!waited && Clock::now() - worked < patience) {
                relax();
                continue;
            }
            waited = true;
            if (s == epoch << 1) std::this_thread::yield();  // who commits is let finish
            else compute(0, epoch, job_, c);
        }
}

// The next chunk of a thread's range, or -1.
int Pool::take(int from, uint64_t epoch, int chunks) {
    auto& next = lines_[from].next;
    uint64_t now = next.load();
    const auto end = uint64_t(range_end(from, chunks));
    while (now >> 32 == (epoch & 0xffffffff) && (now & 0xffffffff) < end)
        if (next.compare_exchange_weak(now, now + 1)) return int(now & 0xffffffff);
    return -1;
}

void Pool::work(int self, uint64_t epoch, const Job& job) {
    for (int k = 0; k < threads_; k++) {
        const int from = (self + k) % threads_;
        for (int c; (c = take(from, epoch, job.chunks)) >= 0;) compute(self, epoch, job, c);
    }
}

void Pool::compute(int self, uint64_t epoch, const Job& job, int chunk) {
    float* scratch = lines_[self].scratch.data();
    job.compute(job.step, chunk, scratch);
    // 2 * epoch: somebody commits; 2 * epoch + 1: it is committed
    uint64_t state = states_[chunk].load(std::memory_order_relaxed);
    while (state < epoch << 1)
        if (states_[chunk].compare_exchange_weak(state, epoch << 1)) {
            job.commit(job.step, chunk, scratch);
            states_[chunk].store(epoch << 1 | 1, std::memory_order_release);
            return;
        }
}

void Pool::helper(int self) {
    auto& line = lines_[self];
    Job job;
    uint64_t done = 0;
    auto since = Clock::now();
    for (int spins = 0;; spins++) {
        if (epoch_.load() == done) {
            if (spins % 64) {
                relax();
                continue;
            }
            if (Clock::now() - since < SPIN) continue;
            std::unique_lock<std::mutex> lock(mutex_);
            asleep_.fetch_add(1);
            wake_.wait(lock, [&] { return stop_.load() || epoch_.load() != done; });
            asleep_.fetch_sub(1);
            if (stop_.load()) return;
        }
        line.busy.store(true);
        const uint64_t epoch = epoch_.load();
        // a sequence lock: the job may be written meanwhile, in the language's terms a race, and what
        // was copied of it then is dropped below without a look
        std::memcpy(&job, &job_, sizeof job);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (writing_.load() == epoch) {
            done = epoch;
            work(self, epoch, job);
            since = Clock::now();
        }
        line.busy.store(false);
        spins = 0;
    }
}

}  // namespace mbpm
