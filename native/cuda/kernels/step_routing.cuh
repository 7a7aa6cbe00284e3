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

// A row's scores, and what experts are chosen by, to shared memory: logits are added up from the router's pieces in
// their order.
__device__ __forceinline__ void score_experts(const Step& s, int row, float* scores, float* choices) {
  constexpr int kMostPieces = 3 * kRouterPieces;
  const int experts = s.shape().experts, pieces = router_parts(s) * kRouterPieces;
  const float* bias = s.layer().expert_bias;
  for (int e = threadIdx.x; e < experts; e += kStepThreads) {
    const float* from = s.shape().router_sums + static_cast<int64_t>(row) * pieces * experts + e;
    const float added = bias != nullptr ? bias[e] : 0.0f;
    float part[kMostPieces], sum = 0.0f;
#pragma unroll
    for (int p = 0; p < kMostPieces; ++p) part[p] = p < pieces ? from[p * experts] : 0.0f;
#pragma unroll
    for (int p = 0; p < kMostPieces; ++p) sum += part[p];
    const float score = sigmoid(sum);
    scores[e] = score;
    choices[e] = isnan(score) ? -INFINITY : score + added;  // not a number: a broken model must not break the choice
  }
}

// One warp: a row's experts, ascending, and their weights.
__device__ __forceinline__ void choose_experts(const Step& s, const float* scores, const float* choices,
                                               int16_t* chosen, float* weights) {
  const StepShape& shape = s.shape();
  const int lane = threadIdx.x & 31, experts = shape.experts, per_lane = max(experts / 32, 1);
  float c[kLaneExperts];
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int expert = lane * per_lane + i;
    c[i] = i < per_lane && expert < experts ? choices[expert] : -INFINITY;
  }
  keep_best_groups(shape, per_lane, c);

  uint32_t key[kLaneExperts];  // 0: no expert, or taken
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    key[i] = i < per_lane && lane * per_lane + i < experts ? ordered_bits(c[i]) : 0u;
  }
  int mine = 0;  // of lane k the k-th best
  for (int k = 0; k < shape.chosen; ++k) {
    uint32_t best = 0;
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) best = max(best, key[i]);
    const uint32_t most = __reduce_max_sync(0xffffffffu, best);
    // Of equals the first one.
    const int owner = __ffs(static_cast<int>(__ballot_sync(0xffffffffu, best == most))) - 1;
    int first = 0;
#pragma unroll
    for (int i = kLaneExperts - 1; i >= 0; --i) first = key[i] == most ? i : first;
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) key[i] = lane == owner && first == i ? 0u : key[i];
    const int expert = __shfl_sync(0xffffffffu, lane * per_lane + first, owner);
    mine = lane == k ? expert : mine;
  }

  const float score = lane < shape.chosen ? scores[mine] : 0.0f;
  const float sum = warp_sum(score) + 1e-20f;
  int slot = 0;
  for (int k = 0; k < shape.chosen; ++k) slot += __shfl_sync(0xffffffffu, mine, k) < mine ? 1 : 0;
  if (lane >= shape.chosen) return;
  chosen[slot] = static_cast<int16_t>(mine);
  weights[slot] = __fdividef(score, sum) * shape.routed_scale;
}

// Chooses for all rows and lists the experts of all of them, ascending, with their rows. A row is one block's: every
// block would take longer for all of them than for another barrier.
__device__ __forceinline__ void route_rows(const Step& s) {
  StepControl& control = s.control();
  const int rows = s.call().rows, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, experts = s.shape().experts;
  static_assert(2 * kMaxStepExperts * 4 <= kReductionBytes);
  float* choices = s.scratch() + experts;
  for (int row = s.block; row < rows; row += s.blocks) {
    score_experts(s, row, s.scratch(), choices);
    step_sync();
    if (warp == 0) {
      choose_experts(s, s.scratch(), choices, s.shape().chosen_experts + row * kMaxStepChosen,
                     s.shape().chosen_weights + row * kMaxStepChosen);
    }
    step_sync();
  }
  arrive(s, true);
  for (int e = threadIdx.x; e < experts; e += kStepThreads) control.expert_rows[e] = 0;
  wait(s);
  for (int i = threadIdx.x; i < rows * kMaxStepChosen; i += kStepThreads) {
    const int row = i / kMaxStepChosen, slot = i % kMaxStepChosen;
    if (slot >= s.shape().chosen) continue;
    const int16_t expert = s.shape().chosen_experts[i];
    control.chosen[row][slot] = expert;
    control.weight[row][slot] = s.shape().chosen_weights[i];
    atomicOr(&control.expert_rows[expert], 1u << row);
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
  }
  mbarrier_arrive(&control.routed);
  step_sync();
}

// The same for the only row of a step, whose experts are the list already.
__device__ __forceinline__ void route_row(const Step& s) {
  StepControl& control = s.control();
  const int lane = threadIdx.x & 31, experts = s.shape().experts;
  score_experts(s, 0, s.scratch(), s.scratch() + experts);
  step_sync();
  if (threadIdx.x < 32) {
    choose_experts(s, s.scratch(), s.scratch() + experts, control.chosen[0], control.weight[0]);
    __syncwarp();
    if (lane < s.shape().chosen) {
      const int16_t expert = control.chosen[0][lane];
      control.listed[lane] = expert;
      control.expert_rows[expert] = 1;
    }
  }
  mbarrier_arrive(&control.routed);
  step_sync();
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
