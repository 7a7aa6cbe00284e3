// Owns: sigmoid scores, group mask and stable top-k.
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
    if (values[i] > first) {
      second = first;
      first = values[i];
    } else if (values[i] > second) {
      second = values[i];
    }
  }
  return count == 1 ? first : first + second;
}

// Index of the largest value, the lowest of equals. Values that are not numbers never win, and 0 is always valid.
int64_t best_index(const float* values, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (values[i] > values[best] || std::isnan(values[best])) best = i;
  }
  return best;
}

}  // namespace

void choose_experts(const RouterShape& shape, const float* logits, const float* bias, float* scratch, int32_t* chosen,
                    float* weights) {
  float* const scores = scratch;                  // s
  float* const choice = scratch + shape.experts;  // c = s + bias
  float* const groups = choice + shape.experts;   // sum of the two largest c
  for (int64_t e = 0; e < shape.experts; ++e) {
    scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    choice[e] = scores[e] + bias[e];
  }
  const int64_t group_experts = shape.experts / shape.groups;
  if (shape.groups_per_token < shape.groups) {
    for (int64_t g = 0; g < shape.groups; ++g)
      groups[g] = sum_of_two_largest(choice + g * group_experts, group_experts);
    // Mask the worst groups one by one; among equals the higher index goes first, so the lower one stays.
    for (int64_t dropped = shape.groups_per_token; dropped < shape.groups; ++dropped) {
      int64_t worst = -1;
      for (int64_t g = 0; g < shape.groups; ++g) {
        if (groups[g] == std::numeric_limits<float>::infinity()) continue;  // masked already
        if (worst < 0 || groups[g] <= groups[worst] || std::isnan(groups[g])) worst = g;
      }
      if (worst < 0) break;
      std::fill_n(choice + worst * group_experts, group_experts, kMasked);
      groups[worst] = std::numeric_limits<float>::infinity();
    }
  }
  float total = 0.0f;
  for (int64_t slot = 0; slot < shape.experts_per_token; ++slot) {
    const int64_t best = best_index(choice, shape.experts);
    chosen[slot] = static_cast<int32_t>(best);
    weights[slot] = scores[best];
    total += scores[best];
    choice[best] = std::numeric_limits<float>::quiet_NaN();  // taken
  }
  for (int64_t slot = 0; slot < shape.experts_per_token; ++slot) {
    weights[slot] = weights[slot] / (total + 1e-20f) * shape.scale;
  }
}

}  // namespace ringside::cpu
