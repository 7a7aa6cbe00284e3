// Owns: the order of a step: all layers in one launch. The warps that multiply of all blocks meet at a barrier after
// each phase; the fetching warp of a block goes through the same phases ahead of them.
#pragma once

#include "cuda/kernels/step_routing.cuh"
#include "cuda/kernels/step_softmax.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

inline constexpr int kHeadHintUnits = 4;  // tiles of lm_head that a block asks for ahead: L2 holds little more

__device__ __forceinline__ void load_layer(const Step& s, int index) {
  if (index >= s.shape().layers) return;
  static_assert(sizeof(DeviceLayer) % 8 == 0);
  const uint64_t* from = reinterpret_cast<const uint64_t*>(s.shape().layer + index);
  uint64_t* to = reinterpret_cast<uint64_t*>(&s.control().layer[index % 3]);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(DeviceLayer) / 8); i += kStepThreads) to[i] = from[i];
}

// The vectors of a layer, which every block reads and nobody has waited for: to L2.
__device__ __forceinline__ void hint_vectors(const Step& s, const Fetch& fetch) {
  const DeviceLayer& layer = s.layer();
  const uint32_t hidden = s.shape().hidden * 4, head = kHeadDim * 4;
  fetch.hint(layer.input_norm, hidden);
  fetch.hint(layer.post_attention_norm, hidden);
  fetch.hint(layer.query_norm, head);
  fetch.hint(layer.key_norm, head);
  if (!layer.is_softmax) fetch.hint(layer.output_norm, s.shape().width * 4);
  if (!layer.is_dense && layer.expert_bias != nullptr) fetch.hint(layer.expert_bias, s.shape().experts * 4);
}

// The fetching warp.
__device__ __forceinline__ void fetch_step(Step s) {
  Fetch fetch(s);
  for (int l = 0; l < s.shape().layers; ++l) {
    s.layer_index = l;
    const bool is_dense = s.layer().is_dense != 0;
    fetch_units(s, Work::kQkv, fetch);
    fetch_units(s, Work::kDense, fetch);
    if (is_dense) {
      fetch_units(s, Work::kDenseInner, fetch);
      fetch_units(s, Work::kDenseDown, fetch);
    } else {
      fetch_units(s, Work::kRouter, fetch);
      // Memory would rest until the experts are chosen.
      if (l + 1 < s.shape().layers) {
        s.layer_index = l + 1;
        if (s.block == l) hint_vectors(s, fetch);
        hint_units(s, Work::kQkv, s.shape().hidden, fetch);
        s.layer_index = l;
      } else if (s.call().wanted != 0) {
        hint_units(s, Work::kHead, kHeadHintUnits, fetch);
      }
    }
    mbarrier_wait(&s.control().routed, l & 1);
    if (!is_dense) {
      fetch_units(s, Work::kExpertInner, fetch);
      fetch_units(s, Work::kExpertDown, fetch);
    }
  }
  if (s.call().wanted != 0) fetch_units(s, Work::kHead, fetch);
}

// Puts a product's two outputs where the next phase looks for them.
struct Finish {
  const Step& s;
  Work work;

  __device__ void add_to_residual(int number, int row, int o, float low, float high) const {
    float* to = s.shape().residual + static_cast<int64_t>(row) * s.shape().hidden + number * 16 + o;
    // Nobody else adds to them; but so nobody waits for what was there.
    atomicAdd(to, low);
    atomicAdd(to + 8, high);
  }
  __device__ void put_inner(int row, int column, float weight, float gate, float up) const {
    s.shape().inner[static_cast<int64_t>(row) * s.shape().inner_columns + column] =
        __float2bfloat16(weight * silu(gate) * up);
  }
  __device__ void finish_router(int number, int row, int o, float low, float high) const {
    const int units = router_units(s);
    if (number >= units) {
      put_inner(row, s.shape().chosen * s.shape().expert_width + (number - units) * 8 + o, 1.0f, low, high);
      return;
    }
    const int tiles = s.shape().experts / 16;
    float* to = s.shape().router_sums +
                (static_cast<int64_t>(number / tiles) * s.call().rows + row) * s.shape().experts + number % tiles * 16 +
                o;
    to[0] = low;
    to[8] = high;
  }
  __device__ void finish_expert(int number, int row, int o, float gate, float up) const {
    const int tiles = inner_tiles(s), expert = s.control().listed[number / tiles];
    if ((s.control().expert_rows[expert] >> row & 1) == 0) return;
    int slot = s.call().rows == 1 ? number / tiles : 0;
    while (s.control().chosen[row][slot] != expert) ++slot;
    // The expert's weight goes into its input of down: the sum over slots is then one product.
    put_inner(row, slot * s.shape().expert_width + number % tiles * 8 + o, s.control().weight[row][slot], gate, up);
  }
  __device__ void finish_qkv(int number, int row, int o, float low, float high) const {
    const int tiles = s.layer().qkv.rows / 16;
    float* to = number < tiles
                    ? s.shape().qkv + static_cast<int64_t>(row) * 3 * s.shape().width + number * 16 + o
                    : s.shape().gate + static_cast<int64_t>(row) * s.shape().width + (number - tiles) * 16 + o;
    to[0] = low;
    to[8] = high;
  }
  __device__ void finish_head(int number, int row, int o, float low, float high) const {
    if ((s.call().wanted >> row & 1) == 0) return;
    float* to = s.call().logits + static_cast<int64_t>(row) * s.shape().vocab_rows + number * 16 + o;
    to[0] = low;
    to[8] = high;
  }

  __device__ void operator()(int number, int row, int o, float low, float high) const {
    switch (work) {
      case Work::kQkv:
        return finish_qkv(number, row, o, low, high);
      case Work::kRouter:
        return finish_router(number, row, o, low, high);
      case Work::kExpertInner:
        return finish_expert(number, row, o, low, high);
      case Work::kDenseInner:
        return put_inner(row, number * 8 + o, 1.0f, low, high);
      case Work::kHead:
        return finish_head(number, row, o, low, high);
      default:
        return add_to_residual(number, row, o, low, high);
    }
  }
};

// The multiplying warps. kShared: every block prepares the inputs of products for itself, in its shared memory; else
// a block prepares one row for all, and blocks wait once more.
template <int kTiles, bool kShared, int kAtOnce>
class Multiply {
 public:
  static constexpr bool kOneRow = kShared && kAtOnce == 1;  // as the host chooses

  __device__ explicit Multiply(const Step& s)
      : s_(s),
        x_(kShared ? reinterpret_cast<bf16*>(reinterpret_cast<uint8_t*>(s.scratch()) + kReductionBytes) : s.shape().x),
        // In shared memory rows are shifted by half the banks, so that lanes of two rows do not meet.
        stride_(kShared ? s.shape().x_columns + 32 : s.shape().x_columns),
        barrier_(s.shape().arrivals, s.blocks) {}

  __device__ void run() {
    begin_rows(s_);
    meet();
    for (int l = 0; l < s_.shape().layers; ++l) {
      s_.layer_index = l;
      norm(s_.layer().input_norm, false);
      attend();
      norm(s_.layer().post_attention_norm, s_.layer().is_dense == 0);
      feed_forward();
      meet();
    }
    if (s_.call().wanted != 0) {
      norm(s_.shape().final_norm, false);
      multiply(Work::kHead);
    }
    stamp();
    barrier_.leave();
  }

 private:
  __device__ void stamp() {
    if (s_.call().stamps != nullptr && s_.block == 0 && threadIdx.x == 0) s_.call().stamps[phase_] = clock64();
    phase_++;
  }
  __device__ __noinline__ void meet() {
    stamp();
    barrier_.wait();
    stamp();
  }

  // Rows that this block prepares, and where.
  __device__ int first_prepared() const { return kShared ? 0 : min(s_.block, s_.call().rows - 1); }
  __device__ int prepared() const { return kShared ? s_.call().rows : s_.block < s_.call().rows ? 1 : 0; }
  __device__ bf16* prepared_rows() const { return x_ + first_prepared() * (kShared ? 0 : stride_); }
  __device__ void share_inputs() {
    if (!kShared) meet();
  }

  __device__ __noinline__ void norm(const float* weight, bool split) {
    norm_step_rows<kAtOnce>(s_.shape().residual, weight, s_.shape().eps, s_.shape().hidden, first_prepared(),
                            prepared(), split, prepared_rows(), stride_, s_.control().sums);
    share_inputs();
  }

  __device__ void attend() {
    const bool is_softmax = s_.layer().is_softmax != 0;
    if (!is_softmax) hint_linear_attention(s_);
    multiply(Work::kQkv);
    meet();
    if (is_softmax) {
      attend_pages<kOneRow ? 1 : kMaxQueryTiles>(s_, s_.scratch());
      meet();
      merge_pages(s_, s_.scratch());
      meet();
      round_step_rows(s_, first_prepared(), prepared(), prepared_rows(), stride_);
    } else {
      linear_attention(s_, s_.scratch());
      meet();
      gate_step_rows<kAtOnce == 1>(s_, first_prepared(), prepared(), prepared_rows(), stride_, s_.control().sums);
    }
    share_inputs();
    multiply(Work::kDense);
    meet();
  }

  __device__ void feed_forward() {
    const StepShape& shape = s_.shape();
    const bool is_dense = s_.layer().is_dense != 0;
    multiply(is_dense ? Work::kDenseInner : Work::kRouter);
    meet();
    load_layer(s_, s_.layer_index + 2);
    if (is_dense) {
      step_sync();
      if (threadIdx.x == 0) mbarrier_arrive(&s_.control().routed);
    } else {
      kOneRow ? route_row(s_) : route_rows(s_);
      multiply(Work::kExpertInner);
      meet();
    }
    if (kShared) {
      const int columns = is_dense ? shape.dense_width : (shape.chosen + shape.has_shared) * shape.expert_width;
      copy_inner_rows<kOneRow>(s_, columns, x_, stride_);
    }
    multiply(is_dense ? Work::kDenseDown : Work::kExpertDown, true);
  }

  // One copy of the code for all phases: the kernel must fit the instruction caches.
  __device__ __noinline__ void multiply(Work work, bool reads_inner = false) {
    Inputs x = {x_, stride_};
    if (!kShared && reads_inner) x = {s_.shape().inner, s_.shape().inner_columns};
    multiply_units<kTiles, kShared, kOneRow>(s_, work, x, s_.scratch(), taker_, Finish{s_, work});
  }

  Step s_;
  bf16* x_;
  int64_t stride_;
  Taker taker_;
  GridBarrier barrier_;
  int phase_ = 0;
};

template <class T>
__device__ __forceinline__ void copy_words(const T& from, T& to) {
  static_assert(sizeof(T) % 4 == 0);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(T) / 4); i += kStepBlockThreads) {
    reinterpret_cast<uint32_t*>(&to)[i] = reinterpret_cast<const uint32_t*>(&from)[i];
  }
}

template <int kTiles, bool kShared, int kAtOnce>
__global__ void __launch_bounds__(kStepBlockThreads, 1)
    step_kernel(const __grid_constant__ StepShape shape, const __grid_constant__ StepCall call) {
  const Step s{static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(gridDim.x), 0};
  StepControl& control = s.control();
  copy_words(shape, control.shape);
  copy_words(call, control.call);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStepStages; ++i) {
      mbarrier_init(&control.full[i], full_arrivals());
      mbarrier_init(&control.empty[i], kStepWarps);
    }
    mbarrier_init(&control.routed, 1);
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }
  __syncthreads();
  if (threadIdx.x < kStepThreads) {
    load_layer(s, 0);
    load_layer(s, 1);
    for (int p = 0; p < call.part_count; ++p) {
      const StepPart& part = call.parts[p];
      if (static_cast<int>(threadIdx.x) < part.rows) {
        control.row_position[part.first_row + threadIdx.x] = static_cast<int32_t>(part.session.position + threadIdx.x);
      }
    }
  }
  __syncthreads();
  if (threadIdx.x >= kStepThreads) {
    fetch_step(s);
  } else {
    Multiply<kTiles, kShared, kAtOnce>(s).run();
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
