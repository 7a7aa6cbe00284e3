// Owns: choosing one token from fp32 logits. Randomness depends on (seed, position) only; ties go to the lower id
// (house section 3a), so a sampled text does not depend on batching or on how calls were split.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "../error.h"

namespace ringside {

struct SamplerOptions {
  float temperature = 0.0f;         // 0: greedy
  float top_p = 1.0f;               // (0, 1]
  float repetition_penalty = 1.0f;  // >= 1; divides positive and multiplies negative logits of seen tokens
  uint64_t seed = 0;
};
Status check_sampler_options(const SamplerOptions& options);

// What sample() returns without a penalty, a mask and a temperature, many times faster and without changing `logits`.
int32_t likeliest(std::span<const float> logits);

// `logits` is [usable ids]; it is changed in place. `recent` are the tokens that the penalty looks at.
// `allowed` is an optional bit mask, one bit an id, lowest bit first; nullptr: all. `position` is the absolute
// position the new token will take. Returns an id with its bit set; -1 when nothing is allowed or no logit is finite.
int32_t sample(std::span<float> logits, std::span<const int32_t> recent, const uint64_t* allowed, int64_t position,
               const SamplerOptions& options);

}  // namespace ringside
