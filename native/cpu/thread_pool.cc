// Owns: parking, waking and joining of the workers, and the sharing out of a region's jobs.
#include "cpu/thread_pool.h"

#include <chrono>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread.h>
#include <sys/qos.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

namespace ringside::cpu {
namespace {

// About 100 µs: longer than what the caller does alone between two regions. From there on a spinning thread offers its
// core to others at every turn, because somebody with a job may be waiting for it.
constexpr int kSpinsBeforeYield = 2000;

// How long a worker stays up after a call has returned. The calls of one answer follow each other closely; this covers
// the choice of the next token and keeps an idle engine from using the processor.
constexpr std::chrono::microseconds kGrace{200};

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void spin(int& spins) {
  if (++spins < kSpinsBeforeYield) {
    pause_briefly();
  } else {
    std::this_thread::yield();
  }
}

// A worker that may not be lowered works all the same, so nobody is told.
void lower_priority() {
#if defined(__linux__)
  constexpr int kNicer = 5;
  const auto id = static_cast<id_t>(syscall(SYS_gettid));
  (void)setpriority(PRIO_PROCESS, id, getpriority(PRIO_PROCESS, id) + kNicer);
#elif defined(__APPLE__)
  (void)pthread_set_qos_class_self_np(QOS_CLASS_DEFAULT, -5);
#elif defined(_WIN32)
  (void)SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_BELOW_NORMAL);
#endif
}

}  // namespace

thread_local ThreadPool::Inside ThreadPool::inside_;

Status ThreadPool::start(int threads) {
  shares_ = std::make_unique<Share[]>(static_cast<size_t>(threads));
  try {
    for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { work(worker); });
  } catch (const std::system_error&) {
    return Error{ErrorKind::kOutOfMemory, "worker threads", std::to_string(threads),
                 std::to_string(workers_.size() + 1)};
  }
  return Unit{};
}

ThreadPool::~ThreadPool() {
  quit_.store(true);
  const Awake awake(*this);
  for (std::thread& worker : workers_) worker.join();
}

ThreadPool::Awake::Awake(ThreadPool& pool) : pool_(pool) {
  if (pool.awake_.fetch_add(1) == 0) pool.awake_.notify_all();  // costs no system call while nobody is parked
}

void ThreadPool::take_jobs(int worker) {
  const int count = threads();
  const Inside outer = std::exchange(inside_, Inside{this, worker});
  for (int next = 0; next < count; ++next) {
    const bool is_own = next == 0;
    std::atomic<uint64_t>& left = shares_[static_cast<size_t>((worker + next) % count)].left;
    uint64_t range = left.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t first = range & 0xffffffff;
      const uint64_t end = range >> 32;
      if (first >= end) break;
      const uint64_t rest = is_own ? range + 1 : range - (uint64_t{1} << 32);
      if (!left.compare_exchange_weak(range, rest, std::memory_order_relaxed)) continue;
      call_(context_, static_cast<int64_t>(is_own ? first : end - 1), worker);
      range = left.load(std::memory_order_relaxed);
    }
  }
  inside_ = outer;
}

void ThreadPool::run_region(int64_t jobs, Call call, const void* context) {
  std::optional<Awake> awake;
  if (awake_.load(std::memory_order_relaxed) == 0) awake.emplace(*this);
  for (int worker = 0; worker < threads(); ++worker) {
    const auto first = static_cast<uint64_t>(share_begin(jobs, worker));
    const auto end = static_cast<uint64_t>(share_begin(jobs, worker + 1));
    shares_[static_cast<size_t>(worker)].left.store(first | end << 32, std::memory_order_relaxed);
  }
  call_ = call;
  context_ = context;
  // Nobody is inside and the last region is closed, so nobody else writes this word now.
  region_.store((region_.load(std::memory_order_relaxed) & ~kInsideMask) + kNextRegion + kOpen,
                std::memory_order_release);
  take_jobs(0);
  region_.fetch_sub(kOpen, std::memory_order_acq_rel);
  int spins = 0;
  while ((region_.load(std::memory_order_acquire) & kInsideMask) != 0) spin(spins);
}

void ThreadPool::work(int worker) {
  lower_priority();
  uint64_t seen = 0;  // the last region entered
  while (!quit_.load(std::memory_order_relaxed)) {
    uint64_t region = region_.load(std::memory_order_acquire);
    int spins = 0;
    std::chrono::steady_clock::time_point asleep_at{};
    while ((region & kOpen) == 0 || region / kNextRegion == seen) {
      if (awake_.load(std::memory_order_relaxed) != 0) {
        if (quit_.load(std::memory_order_relaxed)) return;
        asleep_at = {};
        spin(spins);
      } else {
        const auto now = std::chrono::steady_clock::now();
        if (asleep_at.time_since_epoch().count() == 0) asleep_at = now + kGrace;
        if (now >= asleep_at) awake_.wait(0);
        pause_briefly();
      }
      region = region_.load(std::memory_order_acquire);
    }
    if (!region_.compare_exchange_strong(region, region + 1, std::memory_order_acq_rel)) continue;
    seen = region / kNextRegion;
    take_jobs(worker);
    region_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace ringside::cpu
