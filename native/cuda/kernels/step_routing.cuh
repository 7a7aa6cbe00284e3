// Owns: the choice of experts for the rows of a step (specification section 5). Every block makes it for itself from
// the router's sums: that is cheaper than another barrier.
#pragma once

#include "cuda/kernels/step_rows.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

inline constexpr int kLaneExperts = kMaxStepExperts / 32;

// The order of floats as that of unsigned numbers.
__device__ __forceinline__ uint32_t ordered_bits(float v) {
  const uint32_t bits = __float_as_uint(v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Sets c of experts outside the kept groups to -inf. A group is `lanes` neighbouring lanes.
__device__ __forceinline__ void keep_best_groups(const StepShape& shape, int per_lane, float (&c)[kLaneExperts]) {
  const int lane = threadIdx.x & 31, lanes = shape.experts / shape.expert_groups / per_lane;
  float first = -INFINITY, second = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    if (i >= per_lane) continue;
    second = fmaxf(second, fminf(first, c[i]));
    first = fmaxf(first, c[i]);
  }
  for (int step = 1; step < lanes; step *= 2) {
    const float other_first = __shfl_xor_sync(0xffffffffu, first, step);
    const float other_second = __shfl_xor_sync(0xffffffffu, second, step);
    second = fmaxf(fminf(first, other_first), fmaxf(second, other_second));
    first = fmaxf(first, other_first);
  }
  const float score = shape.experts == shape.expert_groups ? first : first + second;
  const int group = lane / lanes;
  int better = 0;
  for (int g = 0; g < shape.expert_groups; ++g) {
    const float other = __shfl_sync(0xffffffffu, score, g * lanes);
    better += other > score || (other == score && g < group) ? 1 : 0;
  }
  if (better < shape.groups_kept) return;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) c[i] = -INFINITY;
}

// Scores of `count` rows from `first`, and what experts are chosen by, to shared memory: logits are added up from the
// router's pieces in their order.
template <bool kOneRow>
__device__ __forceinline__ void score_experts(const Step& s, int first, int count, float* scores, float* choices) {
  const int experts = s.shape().experts, pieces = router_parts(s) * kRouterPieces;
  const int64_t stride = static_cast<int64_t>(s.call().rows) * experts;
  const float* bias = s.layer().expert_bias;
  for (int i = threadIdx.x; i < count * experts; i += kStepThreads) {
    const float* from = s.shape().router_sums + static_cast<int64_t>(first) * experts + i;
    const float added = bias != nullptr ? bias[kOneRow ? i : i % experts] : 0.0f;
    float sum = 0.0f;
#pragma unroll 8
    for (int p = 0; p < pieces; ++p) sum += from[p * stride];
    const float score = sigmoid(sum);
    scores[i] = score;
    choices[i] = isnan(score) ? -INFINITY : score + added;  // not a number: a broken model must not break the choice
  }
}

// One warp, one row: its experts, ascending, and their weights.
__device__ __forceinline__ void choose_experts(const Step& s, int row, const float* scores, const float* choices) {
  const StepShape& shape = s.shape();
  const int lane = threadIdx.x & 31, experts = shape.experts, per_lane = max(experts / 32, 1);
  float score[kLaneExperts], c[kLaneExperts];
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int expert = lane * per_lane + i;
    const bool is_one = i < per_lane && expert < experts;
    score[i] = is_one ? scores[expert] : 0.0f;
    c[i] = is_one ? choices[expert] : -INFINITY;
  }
  keep_best_groups(shape, per_lane, c);

  uint32_t taken = 0, key[kLaneExperts];  // 0: no expert, or taken
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    key[i] = i < per_lane && lane * per_lane + i < experts ? ordered_bits(c[i]) : 0u;
  }
  for (int k = 0; k < shape.chosen; ++k) {
    uint32_t best = 0;
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) best = max(best, key[i]);
    const uint32_t most = __reduce_max_sync(0xffffffffu, best);
    // Of equals the first one.
    if (lane != __ffs(static_cast<int>(__ballot_sync(0xffffffffu, best == most))) - 1) continue;
    uint32_t first = 0;
#pragma unroll
    for (int i = kLaneExperts - 1; i >= 0; --i) first = key[i] == most ? i : first;
    taken |= 1u << first;
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) key[i] = first == static_cast<uint32_t>(i) ? 0u : key[i];
  }

  float sum = 0.0f;
  int count = __popc(taken), before = count;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) sum += taken >> i & 1 ? score[i] : 0.0f;
  sum = warp_sum(sum) + 1e-20f;
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, before, step);
    if (lane >= step) before += other;
  }
  before -= count;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    if ((taken >> i & 1) == 0) continue;
    const int slot = before + __popc(taken & ((1u << i) - 1));
    s.control().chosen[row][slot] = static_cast<int16_t>(lane * per_lane + i);
    s.control().weight[row][slot] = score[i] / sum * shape.routed_scale;
  }
}

// Chooses for all rows and lists the experts of all of them, ascending, with their rows.
__device__ __forceinline__ void route_rows(const Step& s) {
  StepControl& control = s.control();
  const int rows = s.call().rows, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, experts = s.shape().experts;
  static_assert(2 * kStepWarps * kMaxStepExperts * 4 <= kReductionBytes);
  float* choices = s.scratch() + kStepWarps * experts;
  for (int e = threadIdx.x; e < experts; e += kStepThreads) control.expert_rows[e] = 0;
  for (int first = 0; first < rows; first += kStepWarps) {
    score_experts<false>(s, first, min(kStepWarps, rows - first), s.scratch(), choices);
    step_sync();
    if (first + warp < rows) choose_experts(s, first + warp, s.scratch() + warp * experts, choices + warp * experts);
    step_sync();
  }
  step_sync();
  for (int i = threadIdx.x; i < rows * s.shape().chosen; i += kStepThreads) {
    const int row = i / s.shape().chosen;
    atomicOr(&control.expert_rows[control.chosen[row][i % s.shape().chosen]], 1u << row);
  }
  step_sync();
  if (warp == 0) {
    int count = 0;
    for (int first = 0; first < experts; first += 32) {
      const int e = first + lane;
      const bool used = e < experts && control.expert_rows[e] != 0;
      const uint32_t mask = __ballot_sync(0xffffffffu, used);
      if (used) control.listed[count + __popc(mask & ((1u << lane) - 1))] = static_cast<int16_t>(e);
      count += __popc(mask);
    }
    if (lane == 0) control.listed_count = count;
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&control.routed);
  }
  step_sync();
}

// The same for the only row of a step, whose experts are the list already.
__device__ __forceinline__ void route_row(const Step& s) {
  StepControl& control = s.control();
  const int lane = threadIdx.x & 31, experts = s.shape().experts;
  score_experts<true>(s, 0, 1, s.scratch(), s.scratch() + experts);
  step_sync();
  if (threadIdx.x < 32) {
    choose_experts(s, 0, s.scratch(), s.scratch() + experts);
    __syncwarp();
    if (lane < s.shape().chosen) {
      const int16_t expert = control.chosen[0][lane];
      control.listed[lane] = expert;
      control.expert_rows[expert] = 1;
    }
    if (lane == 0) control.listed_count = s.shape().chosen;
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&control.routed);
  }
  step_sync();
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
