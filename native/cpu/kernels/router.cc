// Owns: the group mask and the stable choice of the best.
#include "cpu/kernels/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ringside::cpu {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

float sum_of_two_largest(const float* values, int64_t count) {
  float first = kMasked;
  float second = kMasked;
  for (int64_t i = 0; i < count; ++i) {
    second = std::max(second, std::min(first, values[i]));
    first = std::max(first, values[i]);
  }
  return first + second;
}

// Masks the worst groups one by one; among equals the higher index goes first, so the lower one stays.
void mask_groups(const RouterShape& shape, float* choice, float* groups) {
  const int64_t group_experts = shape.experts / shape.groups;
  for (int64_t g = 0; g < shape.groups; ++g) groups[g] = sum_of_two_largest(choice + g * group_experts, group_experts);
  for (int64_t dropped = shape.groups_per_token; dropped < shape.groups; ++dropped) {
    int64_t worst = -1;
    for (int64_t g = 0; g < shape.groups; ++g) {
      if (groups[g] == std::numeric_limits<float>::infinity()) continue;  // masked already
      if (worst < 0 || groups[g] <= groups[worst] || std::isnan(groups[g])) worst = g;
    }
    if (worst < 0) return;
    std::fill_n(choice + worst * group_experts, group_experts, kMasked);
    groups[worst] = std::numeric_limits<float>::infinity();
  }
}

}  // namespace

void choose_experts(const RouterShape& shape, const float* scores, const float* bias, float* scratch, int32_t* chosen,
                    float* weights) {
  float* const choice = scratch;                  // c = s + bias
  float* const groups = scratch + shape.experts;  // sum of the two largest c
  for (int64_t e = 0; e < shape.experts; ++e) choice[e] = scores[e] + bias[e];
  if (shape.groups_per_token < shape.groups) mask_groups(shape, choice, groups);

  // The best so far, best first; an equal of a later expert stands behind. What is no number is never chosen, and where
  // too little is left the slots keep the experts they begin with.
  const int64_t slots = shape.experts_per_token;
  float* const best = weights;
  for (int64_t slot = 0; slot < slots; ++slot) {
    best[slot] = kMasked;
    chosen[slot] = static_cast<int32_t>(slot);
  }
  for (int64_t e = 0; e < shape.experts; ++e) {
    if (!(choice[e] > best[slots - 1])) continue;
    int64_t slot = slots - 1;
    for (; slot > 0 && choice[e] > best[slot - 1]; --slot) {
      best[slot] = best[slot - 1];
      chosen[slot] = chosen[slot - 1];
    }
    best[slot] = choice[e];
    chosen[slot] = static_cast<int32_t>(e);
  }

  std::sort(chosen, chosen + slots);
  float total = 0.0f;
  for (int64_t slot = 0; slot < slots; ++slot) total += scores[chosen[slot]];
  for (int64_t slot = 0; slot < slots; ++slot) {
    weights[slot] = scores[chosen[slot]] / (total + 1e-20f) * shape.scale;
  }
}

}  // namespace ringside::cpu
