// Owns: penalties, the mask, temperature, top-p and the one random number of a position.
// Must never: keep state between calls; (seed, position, logits, options) decide the id.
#include "sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace ringside {
namespace {

constexpr float kMaxTemperature = 100.0f;
constexpr float kMaxRepetitionPenalty = 100.0f;
constexpr float kNever = -std::numeric_limits<float>::infinity();

Error invalid(const char* name, const char* expected, float actual) {
  return {ErrorKind::kArgumentInvalid, name, expected, std::to_string(actual)};
}

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose output bits each depend on all input bits.
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// A number in [0, 1) with 53 random bits. The seed is mixed first, so that neighbouring seeds do not give shifted
// streams.
double random_at(uint64_t seed, int64_t position) {
  constexpr uint64_t kGamma = 0x9E3779B97F4A7C15u;
  const uint64_t bits = mix(mix(seed + kGamma) + kGamma * static_cast<uint64_t>(position));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

bool is_allowed(const uint64_t* allowed, size_t id) {
  return allowed == nullptr || (allowed[id / 64] >> (id % 64) & 1) != 0;
}

// What may not be chosen becomes -inf: masked ids, and NaN and both infinities, which no sound forward pass yields.
void close_off(std::span<float> logits, const uint64_t* allowed) {
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!is_allowed(allowed, id) || !std::isfinite(logits[id])) logits[id] = kNever;
  }
}

// Once for each distinct token, however often it was seen (Keskar et al. 2019, as in Hugging Face).
void penalise(std::span<float> logits, std::span<const int32_t> recent, float penalty) {
  if (penalty == 1.0f) return;
  std::vector<bool> seen(logits.size());
  for (int32_t token : recent) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    const size_t id = static_cast<size_t>(token);
    if (seen[id] || logits[id] == kNever) continue;
    seen[id] = true;
    const float penalised = logits[id] > 0.0f ? logits[id] / penalty : logits[id] * penalty;
    // A product beyond the range of fp32 must not forbid the token.
    logits[id] = std::max(penalised, std::numeric_limits<float>::lowest());
  }
}

// The largest finite value, or kNever.
float largest_of(std::span<const float> logits) {
  // Floats of one sign are ordered as their bits are, and of a maximum of whole numbers compilers make vectors. One
  // that is not finite, which no sound pass yields, sends the search back to plain comparisons.
  constexpr int32_t kMagnitude = 0x7fffffff;
  constexpr int32_t kInfinite = 0x7f800000;
  int32_t largest = std::numeric_limits<int32_t>::min();
  int32_t has_other = 0;
  for (const float logit : logits) {
    const auto bits = std::bit_cast<int32_t>(logit);
    largest = std::max(largest, bits ^ (bits >> 31 & kMagnitude));
    has_other |= (bits & kMagnitude) >= kInfinite ? 1 : 0;
  }
  if (has_other == 0 && !logits.empty()) return std::bit_cast<float>(largest ^ (largest >> 31 & kMagnitude));
  float finite = kNever;
  for (const float logit : logits) {
    if (std::isfinite(logit)) finite = std::max(finite, logit);
  }
  return finite;
}

// Weights are whole numbers, so that their sums are exact and do not depend on any order. One in 2^40 is far below what
// can be seen, and 2^24 of the largest still fit a sum.
constexpr double kWeightOfLargest = 0x1p40;

struct Choice {
  uint64_t weight;  // kWeightOfLargest exp((logit - largest logit) / temperature), rounded, above 0
  int32_t id;
};

// The order of top-p: of equal weights the lower id comes first.
bool comes_before(const Choice& a, const Choice& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; }

// In the order of the ids.
std::vector<Choice> weigh(std::span<const float> logits, double largest, double temperature) {
  std::vector<Choice> choices;
  choices.reserve(logits.size());
  const double least = std::log(0.5 / kWeightOfLargest);
  for (size_t id = 0; id < logits.size(); ++id) {
    const double exponent = (logits[id] - largest) / temperature;
    if (!(exponent > least)) continue;
    const auto weight = static_cast<uint64_t>(kWeightOfLargest * std::exp(exponent) + 0.5);
    if (weight > 0) choices.push_back({weight, static_cast<int32_t>(id)});
  }
  return choices;
}

uint64_t sum_of(std::span<const Choice> choices) {
  uint64_t sum = 0;
  for (const Choice& choice : choices) sum += choice.weight;
  return sum;
}

// Buckets of weights that differ by less than one part in 64, in ascending order: the exponent and the first six bits
// of the fraction of a float, counted from those of the weight 1.
size_t bucket_of(uint64_t weight) {
  constexpr uint32_t kOne = std::bit_cast<uint32_t>(1.0f) >> 17;
  return (std::bit_cast<uint32_t>(static_cast<float>(weight)) >> 17) - kOne;
}

// The last one of the smallest set of most probable choices whose share reaches top_p. Only the bucket in which that
// happens is looked at more closely, and halved until one choice is left: no sort, however flat the choices are.
Choice last_of_nucleus(std::span<const Choice> choices, float top_p) {
  const double wanted = top_p * static_cast<double>(sum_of(choices));
  std::vector<uint64_t> sums(bucket_of(static_cast<uint64_t>(kWeightOfLargest)) + 1);
  for (const Choice& choice : choices) sums[bucket_of(choice.weight)] += choice.weight;
  uint64_t held = 0;
  size_t bucket = sums.size() - 1;
  while (bucket > 0 && static_cast<double>(held + sums[bucket]) < wanted) held += sums[bucket--];
  std::vector<Choice> undecided;
  for (const Choice& choice : choices) {
    if (bucket_of(choice.weight) == bucket) undecided.push_back(choice);
  }
  auto begin = undecided.begin();
  auto end = undecided.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, comes_before);
    const uint64_t with_upper = held + sum_of({begin, middle});
    if (static_cast<double>(with_upper) >= wanted) {
      end = middle;
    } else {
      held = with_upper;
      begin = middle;
    }
  }
  return *begin;
}

int32_t draw(std::span<const Choice> choices, double random) {
  uint64_t left = static_cast<uint64_t>(random * static_cast<double>(sum_of(choices)));
  for (const Choice& choice : choices) {
    if (left < choice.weight) return choice.id;
    left -= choice.weight;
  }
  return choices.back().id;  // the product was rounded up to the whole sum
}

}  // namespace

// The comparisons are written so that NaN fails them.
Status check_sampler_options(const SamplerOptions& options) {
  if (!(options.temperature >= 0.0f && options.temperature <= kMaxTemperature)) {
    return invalid("temperature", "a number from 0 to 100", options.temperature);
  }
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f)) {
    return invalid("top_p", "a number above 0 and at most 1", options.top_p);
  }
  if (!(options.repetition_penalty >= 1.0f && options.repetition_penalty <= kMaxRepetitionPenalty)) {
    return invalid("repetition_penalty", "a number from 1 to 100", options.repetition_penalty);
  }
  return Unit{};
}

int32_t likeliest(std::span<const float> logits) {
  // In parts, so that the place of the largest is looked for in one of them alone.
  constexpr size_t kPart = 4096;
  float largest = kNever;
  size_t begin = 0;
  for (size_t at = 0; at < logits.size(); at += kPart) {
    const float of_part = largest_of(logits.subspan(at, std::min(kPart, logits.size() - at)));
    if (!(of_part > largest)) continue;
    largest = of_part;
    begin = at;
  }
  if (largest == kNever) return -1;
  return static_cast<int32_t>(std::ranges::find(logits.subspan(begin), largest) - logits.begin());
}

int32_t sample(std::span<float> logits, std::span<const int32_t> recent, const uint64_t* allowed, int64_t position,
               const SamplerOptions& options) {
  if (logits.empty()) return -1;
  close_off(logits, allowed);
  penalise(logits, recent, options.repetition_penalty);
  if (options.temperature == 0.0f) return likeliest(logits);
  const float largest = largest_of(logits);
  if (largest == kNever) return -1;
  std::vector<Choice> choices = weigh(logits, largest, options.temperature);
  if (options.top_p < 1.0f) {
    const Choice last = last_of_nucleus(choices, options.top_p);
    std::erase_if(choices, [&](const Choice& choice) { return comes_before(last, choice); });
  }
  return draw(choices, random_at(options.seed, position));
}

}  // namespace ringside
