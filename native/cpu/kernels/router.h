// Owns: the choice of experts of one token (specification section 5), in fp32, ties to the lower index.
#pragma once

#include <cstdint>

namespace ringside::cpu {

struct RouterShape {
  int64_t experts;
  int64_t experts_per_token;
  int64_t groups;
  int64_t groups_per_token;
  float scale;
};

// `scores` [experts]: the sigmoids of the router's logits. `bias` [experts] steers the choice only. Writes the chosen
// experts, ascending, and their weights. `scratch`: [experts + groups].
void choose_experts(const RouterShape& shape, const float* scores, const float* bias, float* scratch, int32_t* chosen,
                    float* weights);

}  // namespace ringside::cpu
