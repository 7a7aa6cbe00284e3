// Owns: penalties, the mask, temperature, top-p and the one random number of a position.
// Must never: keep state between calls; (seed, position, logits, options) decide the id.
#include "sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
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

struct Choice {
  double weight;  // exp((logit - largest logit) / temperature), in [0, 1]
  int32_t id;
};

// A heap keeps the largest on top; of equal weights that shall be the lower id.
bool comes_after(const Choice& a, const Choice& b) { return a.weight != b.weight ? a.weight < b.weight : a.id > b.id; }

std::vector<Choice> weigh(std::span<const float> logits, double largest, double temperature) {
  std::vector<Choice> choices;
  for (size_t id = 0; id < logits.size(); ++id) {
    const double weight = std::exp((logits[id] - largest) / temperature);
    if (weight > 0.0) choices.push_back({weight, static_cast<int32_t>(id)});
  }
  return choices;
}

double sum_of(std::span<const Choice> choices) {
  double sum = 0.0;
  for (const Choice& choice : choices) sum += choice.weight;
  return sum;
}

// Moves the smallest set of most probable choices whose share reaches top_p to the end of `choices`, the most probable
// one last, and returns where it begins. Only the set is sorted: the rest stays a heap.
std::span<Choice> nucleus(std::vector<Choice>& choices, float top_p) {
  const double wanted = top_p * sum_of(choices);
  std::make_heap(choices.begin(), choices.end(), comes_after);
  auto begin = choices.end();
  for (double held = 0.0; held < wanted && begin != choices.begin();) {
    std::pop_heap(choices.begin(), begin, comes_after);
    --begin;
    held += begin->weight;
  }
  return {begin, choices.end()};
}

int32_t draw(std::span<const Choice> choices, double random) {
  double left = random * sum_of(choices);
  for (const Choice& choice : choices) {
    left -= choice.weight;
    if (left < 0.0) return choice.id;
  }
  return choices.back().id;  // rounding used the whole sum up
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
  const std::span<const Choice> candidates = options.top_p < 1.0f ? nucleus(choices, options.top_p) : choices;
  return draw(candidates, random_at(options.seed, position));
}

}  // namespace ringside
