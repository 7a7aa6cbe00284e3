// Owns: the worker threads of one model. Splits a region of numbered jobs over them and the calling thread.
// Must never: change a result by the number of threads: jobs write disjoint outputs, and nothing is summed across them.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "error.h"

namespace ringside::cpu {

// Physical cores that this process may run on; at least 1.
int physical_cores();

class ThreadPool {
 public:
  ThreadPool() = default;
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // `threads` includes the caller of run(). Called once.
  Status start(int threads);
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(job, worker) once for each job of [0, jobs); worker 0 is the caller. Returns when all are done.
  // A single job runs on the caller without waking anybody.
  template <class Body>
  void run(int64_t jobs, const Body& body) {
    if (jobs <= 1 || workers_.empty()) {
      for (int64_t job = 0; job < jobs; ++job) body(job, 0);
      return;
    }
    run_region(
        jobs, [](const void* context, int64_t job, int worker) { (*static_cast<const Body*>(context))(job, worker); },
        &body);
  }

 private:
  using Call = void (*)(const void* context, int64_t job, int worker);
  void run_region(int64_t jobs, Call call, const void* context);
  void work(int worker);
  void take_jobs(int worker);

  // Low half: workers inside the region. kOpen: workers may still enter. A region closes as soon as its jobs are
  // taken, so a worker that slept through it is never waited for.
  static constexpr uint64_t kOpen = uint64_t{1} << 32;
  static constexpr uint64_t kInsideMask = kOpen - 1;

  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int64_t> next_job_{0};
  alignas(64) std::atomic<uint32_t> region_{0};  // workers park on this word
  int64_t jobs_ = 0;
  Call call_ = nullptr;
  const void* context_ = nullptr;
  std::atomic<bool> quit_{false};
  std::vector<std::thread> workers_;
};

}  // namespace ringside::cpu
