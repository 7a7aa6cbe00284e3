// Owns: the worker threads of one model. Splits a region of numbered jobs over them and the calling thread.
// Must never: change a result by the number of threads: jobs write disjoint outputs, and nothing is summed across them;
// spin while no call runs on the model.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "cpu/cores.h"
#include "error.h"

namespace ringside::cpu {

class ThreadPool {
 public:
  ThreadPool() = default;
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // `threads` includes the caller of run(). The others have a lower priority than the caller, so that whoever else
  // needs their cores gets them. Called once.
  Status start(int threads);
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Where the share of `worker` begins when so many jobs are run; it ends where the next one's begins.
  int64_t share_begin(int64_t jobs, int worker) const { return jobs * worker / threads(); }

  // While one lives, the workers spin between regions instead of parking, which makes a region cost about a
  // microsecond. One for each call on the model. May be nested.
  class Awake {
   public:
    explicit Awake(ThreadPool& pool);
    ~Awake() { pool_.awake_.fetch_sub(1, std::memory_order_relaxed); }
    Awake(const Awake&) = delete;
    Awake& operator=(const Awake&) = delete;

   private:
    ThreadPool& pool_;
  };

  // Calls body(job, worker) once for each job of [0, jobs); worker 0 is the caller. Returns when all are done. A single
  // job runs on the caller without waking anybody; so do all jobs of a run inside a job, on the worker of that job.
  // One thread at a time may call this from outside. Neighbouring jobs mostly go to one worker, in ascending order.
  template <class Body>
  void run(int64_t jobs, const Body& body) {
    if (jobs <= 1 || workers_.empty() || inside_.pool == this) {
      const int worker = inside_.pool == this ? inside_.worker : 0;
      for (int64_t job = 0; job < jobs; ++job) body(job, worker);
      return;
    }
    run_region(
        jobs, [](const void* context, int64_t job, int worker) { (*static_cast<const Body*>(context))(job, worker); },
        &body);
  }

 private:
  using Call = void (*)(const void* context, int64_t job, int worker);

  // The jobs that a worker was given and nobody has taken yet: first in the low half, end in the high half. The worker
  // takes from the front; who has none left takes from the back, one by one. So a worker that lost its core holds up
  // one job and no more.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};
  };
  struct Inside {
    const ThreadPool* pool = nullptr;
    int worker = 0;
  };

  void run_region(int64_t jobs, Call call, const void* context);
  void work(int worker);
  void take_jobs(int worker);

  // Of this word the low half counts the workers inside the region, kOpen says that more may enter, and the rest
  // numbers the regions. A region closes as soon as its jobs are taken, so a worker that slept through it is never
  // waited for. One word, because each further one would cost a trip between two cores a region.
  static constexpr uint64_t kInsideMask = 0xffffffff;
  static constexpr uint64_t kOpen = uint64_t{1} << 32;
  static constexpr uint64_t kNextRegion = uint64_t{1} << 33;

  static thread_local Inside inside_;  // the job that this thread is in

  alignas(64) std::atomic<uint64_t> region_{0};
  alignas(64) std::atomic<uint32_t> awake_{0};  // living Awakes; workers park on this word while it is 0
  std::atomic<bool> quit_{false};
  alignas(64) Call call_ = nullptr;
  const void* context_ = nullptr;
  std::unique_ptr<Share[]> shares_;  // [threads]
  std::vector<std::thread> workers_;
};

}  // namespace ringside::cpu
