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
  static_assert(sizeof(DeviceLayer) / 8 <= kStepThreads);
  const int i = threadIdx.x;
  if (i < static_cast<int>(sizeof(DeviceLayer) / 8)) to[i] = from[i];
}

// The vectors of a layer, which every block reads and nobody has waited for: to L2.
__device__ __forceinline__ void hint_vectors(const Step& s) {
  const DeviceLayer& layer = s.layer();
  const uint32_t hidden = s.shape().hidden * 4, head = kHeadDim * 4;
  Fetch::hint(layer.input_norm, hidden);
  Fetch::hint(layer.post_attention_norm, hidden);
  Fetch::hint(layer.query_norm, head);
  Fetch::hint(layer.key_norm, head);
  if (!layer.is_softmax) Fetch::hint(layer.output_norm, s.shape().width * 4);
  if (!layer.is_dense && layer.expert_bias != nullptr) Fetch::hint(layer.expert_bias, s.shape().experts * 4);
}

// Asks for what comes behind the experts: memory would rest until they are chosen.
__device__ __forceinline__ void hint_next_layer(Step s) {
  const int layer = s.layer_index++;
  if (s.layer_index < s.shape().layers) {
    if (s.block == layer && (threadIdx.x & 31) == 0) hint_vectors(s);
    hint_units(s, Work::kQkv, 32);
  } else if (s.call().wanted != 0) {
    hint_units(s, Work::kHead, kHeadHintUnits);
  }
}

// The phase behind `work`; at the end of a layer `s` goes on to the next one. kNone is behind the last.
__device__ __forceinline__ Work next_work(Step& s, Work work) {
  const bool is_dense = s.layer().is_dense != 0;
  switch (work) {
    case Work::kQkv:
      return Work::kDense;
    case Work::kDense:
      return is_dense ? Work::kDenseInner : Work::kRouter;
    case Work::kRouter:
      return Work::kExpertInner;
    case Work::kExpertInner:
      return Work::kExpertDown;
    case Work::kDenseInner:
      return Work::kDenseDown;
    case Work::kHead:
      return Work::kNone;
    default:
      if (++s.layer_index < s.shape().layers) return Work::kQkv;
      return s.call().wanted != 0 ? Work::kHead : Work::kNone;
  }
}

// The fetching warp. One copy of the code for all phases, as on the other side: what a layer runs has to fit the caches
// of instructions, or it comes from memory through the same queues as the weights.
__device__ __forceinline__ void fetch_step(Step s) {
  Fetch fetch(s);
  for (Work work = Work::kQkv; work != Work::kNone; work = next_work(s, work)) {
    const bool chooses = work == Work::kExpertInner;
    const uint32_t parity = s.layer_index & 1;
    if (chooses) hint_next_layer(s);
    fetch_units(s, work, chooses, parity, fetch);
    if (work == Work::kDenseDown) mbarrier_wait(&s.control().routed, parity);
  }
}

// Whether a phase's inputs are those of norm_step_rows, still to be scaled.
__device__ __forceinline__ bool reads_norm(Work work) {
  return work != Work::kDense && work != Work::kExpertDown && work != Work::kDenseDown;
}

// Puts a product's two outputs where the next phase looks for them.
template <bool kOneRow>
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
    float* to = s.shape().router_sums + (static_cast<int64_t>(row) * units + number) * 16 + o;
    to[0] = low;
    to[8] = high;
  }
  __device__ void finish_expert(int number, int row, int o, float gate, float up) const {
    const uint32_t tiles = inner_tiles(s), place = static_cast<uint32_t>(number) / tiles;
    if (kOneRow) return put_inner(row, number * 8 + o, s.control().weight[row][place], gate, up);
    const int expert = s.control().listed[place];
    int slot = 0;
    while (s.control().chosen[row][slot] != expert) ++slot;
    // The expert's weight goes into its input of down: the sum over slots is then one product.
    put_inner(row, slot * s.shape().expert_width + (number - static_cast<int>(place * tiles)) * 8 + o,
              s.control().weight[row][slot], gate, up);
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
    if (reads_norm(work)) low *= s.control().row_scale[row], high *= s.control().row_scale[row];
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

  // One loop, so that each phase's code is there once and nothing is handed over in memory.
  __device__ __forceinline__ static void run(Step s) {
    Taker taker;
    begin_rows(s);
    arrive(s, false);
    for (Work work = Work::kQkv; work != Work::kNone; work = next_work(s, work)) {
      prepare(s, work);
      const bool stages = !kShared && work == Work::kExpertDown && StagedTerms::fits(s, s.call().staged_values);
      const bool one_warp = multiply_units<kTiles, kShared, kOneRow>(
          s, work, inputs(s, work), stages ? room(s) : nullptr, s.scratch(), taker, Finish<kOneRow>{s, work});
      arrive(s, one_warp);
    }
    leave_grid(s);
  }

 private:
  // Rows that this block prepares, and where.
  __device__ static int first_prepared(const Step& s) { return kShared ? 0 : min(s.block, s.call().rows - 1); }
  __device__ static int prepared(const Step& s) { return kShared ? s.call().rows : s.block < s.call().rows ? 1 : 0; }
  __device__ static bf16* room(const Step& s) {
    return reinterpret_cast<bf16*>(reinterpret_cast<uint8_t*>(s.scratch()) + kReductionBytes);
  }
  __device__ static bf16* x(const Step& s) { return kShared ? room(s) : s.shape().x; }
  // In shared memory rows are shifted by half the banks, so that lanes of two rows do not meet.
  __device__ static int stride(const Step& s) { return kShared ? s.shape().x_columns + 32 : s.shape().x_columns; }
  __device__ static bf16* prepared_rows(const Step& s) {
    return x(s) + (kShared ? 0 : first_prepared(s) * static_cast<int64_t>(stride(s)));
  }

  __device__ static bool are_staged(const Step& s, int columns) {
    return !kShared && s.call().rows * (columns + 32) <= s.call().staged_values;
  }
  // After rows of `columns` were prepared: copies them into shared memory, if other blocks did it and there is room.
  __device__ __forceinline__ static void share_inputs(const Step& s, int columns) {
    if constexpr (!kShared) {
      arrive(s, false);
      wait(s);
      const int rows = s.call().rows;
      if (static_cast<int>(threadIdx.x) < rows) s.control().row_scale[threadIdx.x] = s.shape().row_scale[threadIdx.x];
      if (!are_staged(s, columns)) return;
      stage_rows(x(s), stride(s), rows, columns, room(s), columns + 32);
      cp_async_wait<0>();
      step_sync();
    }
  }

  // Waits for the phase before and makes the input of this one.
  __device__ __forceinline__ static void prepare(const Step& s, Work work) {
    if (work == Work::kDense) {
      attend(s);
    } else if (work == Work::kExpertInner) {
      load_layer(s, s.layer_index + 2);
      wait(s);
      kOneRow ? route_row(s) : route_rows(s);
    } else if (work == Work::kExpertDown || work == Work::kDenseDown) {
      copy_inner(s, work == Work::kDenseDown);
    } else {
      norm(s, work);
    }
  }

  __device__ __forceinline__ static void norm(const Step& s, Work work) {
    const bool is_first = work == Work::kQkv;
    const float* weight = work == Work::kHead ? s.shape().final_norm
                          : is_first          ? s.layer().input_norm
                                              : s.layer().post_attention_norm;
    if (is_first && !s.layer().is_softmax) hint_linear_attention(s);
    const NormWeights weights(weight, s.shape().hidden);
    wait(s);
    norm_step_rows<kAtOnce>(s.shape().residual, weights, weight, s.shape().eps, s.shape().hidden, first_prepared(s),
                            prepared(s), work == Work::kRouter, prepared_rows(s), stride(s), s.control().sums,
                            kShared ? s.control().row_scale : s.shape().row_scale);
    share_inputs(s, s.shape().hidden);
  }

  __device__ __forceinline__ static void attend(const Step& s) {
    if (s.layer().is_softmax) {
      wait(s);
      attend_pages<kOneRow ? 1 : kMaxQueryTiles>(s, s.scratch());
      arrive(s, false);
      wait(s);
      merge_pages(s, s.scratch());
      arrive(s, false);
      wait(s);
      round_step_rows(s, first_prepared(s), prepared(s), prepared_rows(s), stride(s));
    } else {
      const bool one_warp = linear_attention(s, s.scratch(), [&] { wait(s); });
      arrive(s, one_warp);
      const GateInputs held(s, first_prepared(s));
      wait(s);
      gate_step_rows(s, held, first_prepared(s), prepared(s), prepared_rows(s), stride(s), s.control().sums);
    }
    share_inputs(s, s.shape().width);
  }

  __device__ __forceinline__ static void copy_inner(const Step& s, bool is_dense) {
    if (is_dense) load_layer(s, s.layer_index + 2);
    wait(s);
    if (is_dense) mbarrier_arrive(&s.control().routed);
    if (!kShared) return;
    const int columns =
        is_dense ? s.shape().dense_width : (s.shape().chosen + s.shape().has_shared) * s.shape().expert_width;
    copy_inner_rows<kOneRow>(s, columns, x(s), stride(s));
  }

  // Where a phase's products find their inputs.
  __device__ static Inputs inputs(const Step& s, Work work) {
    if (kShared) return {x(s), stride(s)};
    if (work == Work::kDenseDown || work == Work::kExpertDown) return {s.shape().inner, s.shape().inner_columns};
    const int columns = work == Work::kDense ? s.shape().width : s.shape().hidden;
    // The router reads what rounding took away as well.
    if (work != Work::kRouter && are_staged(s, columns)) return {room(s), columns + 32};
    return {x(s), stride(s)};
  }
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
    mbarrier_init(&control.routed, kStepThreads);
    control.arrivals_wanted = control.stamp_count = 0;
    control.listed_count = call.rows == 1 ? shape.chosen : 0;  // the only row's experts are as many as places
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
    Multiply<kTiles, kShared, kAtOnce>::run(s);
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
