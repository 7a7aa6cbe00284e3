// Owns: how weights reach a block's shared memory ahead of their use, and how blocks wait for one another.
//
// One warp fetches pieces into a ring of bytes; the warps that multiply take them in the same order. The ring does not
// stop at the barriers between phases, so memory goes on delivering while blocks wait.
#pragma once

#include "cuda/kernels/step_tables.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

// In builds for tests a wait that never ends stops the launch instead of the machine.
struct HangGuard {
#if defined(RS_STEP_GUARD) && defined(__CUDA_ARCH__)
  long long begin;
  __device__ HangGuard() : begin(clock64()) {}
  __device__ void check() const {
    if (clock64() - begin > (1ll << 30)) __trap();
  }
#else
  __device__ void check() const {}
#endif
};

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier))
               : "memory");
}
__device__ __forceinline__ bool mbarrier_is_past(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
#if __CUDA_ARCH__ >= 900
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
#else
  asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
#endif
  return done != 0;
}
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  HangGuard guard;
  while (!mbarrier_is_past(barrier, parity)) guard.check();
}

// Among the warps that multiply; the fetching warp is never part of it.
__device__ __forceinline__ void step_sync() { asm volatile("bar.sync 1, %0;" ::"n"(kStepThreads) : "memory"); }

// Arrivals at `full`: one, beside the count of bytes; or one more of each lane, behind its copies.
__device__ __forceinline__ uint32_t full_arrivals() {
#if __CUDA_ARCH__ >= 900
  return 1;
#else
  return 33;
#endif
}

// The fetching warp's side of the ring. All lanes call everything together.
class Fetch {
 public:
  __device__ explicit Fetch(const Step& s)
      : ring_(shared_address(s.ring())), capacity_(s.call().ring_bytes), free_(capacity_), lane_(threadIdx.x & 31) {
#if __CUDA_ARCH__ >= 900
    // A token reads its weights once: they leave L2 first, so that activations, norms and code stay.
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_));
#endif
  }

  // Opens a piece of `bytes`, a multiple of 16; copies of all its bytes follow, then close().
  __device__ void open(uint32_t bytes) {
    const uint32_t footprint = (bytes + 127) / 128 * 128;
    uint32_t lost = 0;  // the end of the ring, where the piece does not fit
    bool wraps = false;
    for (;;) {
      if (oldest_ == next_) head_ = 0;
      wraps = head_ + footprint > capacity_;
      lost = wraps ? capacity_ - head_ : 0;
      if (free_ >= footprint + lost && next_ - oldest_ < kStepStages) break;
      const uint32_t slot = oldest_ % kStepStages;
      mbarrier_wait(&control().empty[slot], oldest_ / kStepStages & 1);
      free_ += control().stage_footprint[slot];
      oldest_++;
    }
    if (wraps) head_ = 0;
    at_ = head_;
    head_ += footprint;
    free_ -= footprint + lost;
    const uint32_t slot = next_ % kStepStages;
    __syncwarp();
    if (lane_ == 0) {
      control().stage_offset[slot] = at_;
      control().stage_footprint[slot] = footprint + lost;
#if __CUDA_ARCH__ >= 900
      asm volatile(
          "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&control().full[slot])),
          "r"(bytes)
          : "memory");
#endif
    }
    __syncwarp();
  }

  // Between open() and close(): what the piece is, as lane `owner` knows it.
  __device__ void note(const PieceNote& note, uint32_t owner) {
    if (lane_ == owner) control().note[next_ % kStepStages] = note;
    __syncwarp();
  }

  // All lanes know `bytes`, and lane `owner` where they come from.
  __device__ void copy(const void* from, uint32_t bytes, uint32_t owner = 0) {
    if (bytes == 0) return;
    const uint32_t to = ring_ + at_;
#if __CUDA_ARCH__ >= 900
    if (lane_ == owner) {
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], "
          "%4;" ::"r"(to),
          "l"(from), "r"(bytes), "r"(shared_address(&control().full[next_ % kStepStages])), "l"(policy_)
          : "memory");
    }
#else
    const uint8_t* bytes_from = reinterpret_cast<const uint8_t*>(
        __shfl_sync(0xffffffffu, reinterpret_cast<unsigned long long>(from), static_cast<int>(owner)));
    for (uint32_t i = lane_ * 16; i < bytes; i += 512) cp_async_16(to + i, bytes_from + i);
#endif
    at_ += bytes;
  }

  // The arrival comes last, behind what open() and note() wrote; copies may end before it or after.
  __device__ void close() {
#if __CUDA_ARCH__ < 900
    asm volatile(
        "cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(&control().full[next_ % kStepStages]))
        : "memory");
#endif
    __syncwarp();
    if (lane_ == 0) mbarrier_arrive(&control().full[next_ % kStepStages]);
    next_++;
  }

  // Asks for bytes that will be copied later, so that they come from L2 then.
  __device__ void hint(const void* from, uint32_t bytes) const {
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0 && bytes != 0) {
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
    }
#else
    const uint8_t* bytes_from = static_cast<const uint8_t*>(from);
    for (uint32_t i = lane_ * 128; i < bytes; i += 32 * 128) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(bytes_from + i));
    }
#endif
  }

 private:
  __device__ static StepControl& control() { return *reinterpret_cast<StepControl*>(step_shared()); }

  uint64_t policy_ = 0;
  uint32_t ring_, capacity_, free_, head_ = 0, at_ = 0, next_ = 0, oldest_ = 0, lane_;
};

// A multiplying warp's side.
class Taker {
 public:
  // The next piece, when it is there.
  __device__ uint8_t* wait(const Step& s) const {
    const uint32_t slot = next_ % kStepStages;
    mbarrier_wait(&s.control().full[slot], next_ / kStepStages & 1);
    return s.ring() + s.control().stage_offset[slot];
  }
  // Of the next piece; after wait().
  __device__ PieceNote note(const Step& s) const { return s.control().note[next_ % kStepStages]; }
  __device__ void release(const Step& s) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) mbarrier_arrive(&s.control().empty[next_ % kStepStages]);
    next_++;
  }

 private:
  uint32_t next_ = 0;
};

// Waits until the multiplying warps of all blocks are here; what they wrote before is then seen by all.
class GridBarrier {
 public:
  __device__ GridBarrier(uint32_t* arrivals, uint32_t blocks) : arrivals_(arrivals), blocks_(blocks) {}

  __device__ void wait() {
    step_sync();
    target_ += blocks_;
    if (threadIdx.x == 0) {
      asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrivals_) : "memory");
      uint32_t seen;
      HangGuard guard;
      do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrivals_) : "memory");
        guard.check();
      } while (seen < target_);
    }
    step_sync();
  }

  // The last block to leave clears the counters for the next launch.
  __device__ void leave() {
    step_sync();
    if (threadIdx.x == 0 && atomicAdd(arrivals_ + 1, 1u) == blocks_ - 1) {
      arrivals_[0] = 0;
      arrivals_[1] = 0;
    }
  }

 private:
  uint32_t* arrivals_;
  uint32_t blocks_, target_ = 0;
};

#endif  // __CUDACC__

}  // namespace ringside::cuda
