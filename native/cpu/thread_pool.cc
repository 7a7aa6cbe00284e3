// Owns: parking, waking and joining of the workers, and the count of physical cores.
#include "cpu/thread_pool.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#ifdef __linux__
#include <sched.h>
#endif

namespace ringside::cpu {
namespace {

// About 30 µs: longer than the serial work between two regions of a decode step, far shorter than a scheduler tick,
// so an idle engine costs no processor time.
constexpr int kSpins = 1000;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int physical_cores() {
  const int logical = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#ifdef __linux__
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return logical;
  std::set<std::string> cores;  // hyper-threads of one core list the same siblings
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) return logical;
    cores.insert(siblings);
  }
  return std::max(1, static_cast<int>(cores.size()));
#else
  return logical;
#endif
}

Status ThreadPool::start(int threads) {
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
  region_.fetch_add(1);
  region_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::take_jobs(int worker) {
  for (;;) {
    const int64_t job = next_job_.fetch_add(1, std::memory_order_relaxed);
    if (job >= jobs_) return;
    call_(context_, job, worker);
  }
}

void ThreadPool::run_region(int64_t jobs, Call call, const void* context) {
  jobs_ = jobs;
  call_ = call;
  context_ = context;
  next_job_.store(0, std::memory_order_relaxed);
  gate_.store(kOpen, std::memory_order_release);
  region_.fetch_add(1);
  region_.notify_all();  // costs no system call while nobody is parked
  take_jobs(0);
  gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (gate_.load(std::memory_order_acquire) & kInsideMask) != 0; ++spins) {
    if (spins < kSpins) {
      pause_briefly();
    } else {
      std::this_thread::yield();  // a worker lost its core in the middle of a job
    }
  }
}

void ThreadPool::work(int worker) {
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; region_.load(std::memory_order_acquire) == seen; ++spins) {
      if (spins < kSpins) {
        pause_briefly();
      } else {
        region_.wait(seen);
      }
    }
    seen = region_.load(std::memory_order_acquire);
    if (quit_.load()) return;
    uint64_t gate = gate_.load(std::memory_order_acquire);
    while ((gate & kOpen) != 0) {
      if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
      take_jobs(worker);
      gate_.fetch_sub(1, std::memory_order_acq_rel);
      break;
    }
  }
}

}  // namespace ringside::cpu
