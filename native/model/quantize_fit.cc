#include "model/quantize_fit.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/float_formats.h"

namespace ringside {
namespace {

constexpr int kMax8 = 127;
constexpr int kLow4 = -8;
constexpr int kHigh4 = 7;

// The largest weight falls on step kFirstReach * kReachGrowth^k of the kReaches scales that are tried. Short of 8 steps
// nothing is cut off; far beyond it a heavy tail is.
constexpr int kReaches = 22;
constexpr float kFirstReach = 6.8f;
constexpr float kReachGrowth = 1.05f;
constexpr int kMaxTurns = 8;

// Four floats that every machine's compiler keeps in one register, so that the search is fast without an instruction
// set of its own and gives the same bits everywhere.
typedef float Lanes __attribute__((vector_size(16)));

struct Sums {
  float weight_code = 0.0f;  // Σ weight * code
  float code_code = 0.0f;    // Σ code²
};

// The codes nearest to weight * steps, as floats: adding and taking away 1.5 * 2^23 rounds to an integer.
inline Lanes nearest_codes(Lanes weights, float steps) {
  constexpr float kRound = 12582912.0f;
  constexpr Lanes kLow = {kLow4, kLow4, kLow4, kLow4};
  constexpr Lanes kHigh = {kHigh4, kHigh4, kHigh4, kHigh4};
  Lanes codes = weights * steps;
  codes = codes < kLow ? kLow : codes;
  codes = codes > kHigh ? kHigh : codes;
  return (codes + kRound) - kRound;
}

inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

inline float sum_of(Lanes lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

Sums sums_for(std::span<const float> weights, float steps) {
  Lanes weight_code[4] = {};
  Lanes code_code[4] = {};
  for (size_t i = 0; i < weights.size(); i += kFitLanes) {
    for (size_t part = 0; part < 4; ++part) {
      const Lanes w = load(weights.data() + i + 4 * part);
      const Lanes codes = nearest_codes(w, steps);
      weight_code[part] += w * codes;
      code_code[part] += codes * codes;
    }
  }
  return {sum_of((weight_code[0] + weight_code[1]) + (weight_code[2] + weight_code[3])),
          sum_of((code_code[0] + code_code[1]) + (code_code[2] + code_code[3]))};
}

// The weights times a power of two that brings the largest near 1: squares of very large or small weights would leave
// the range of a float. The scale is stored for the weights as they are.
class Normalized {
 public:
  static constexpr size_t kMaxColumns = 128;

  explicit Normalized(std::span<const float> weights) : count_(weights.size()) {
    for (const float weight : weights) {
      if (std::fabs(weight) > std::fabs(largest_)) largest_ = weight;
    }
    if (largest_ == 0.0f) return;
    std::frexp(largest_, &exponent_);
    largest_ = std::ldexp(largest_, -exponent_);
    // Two factors, because one power of two may be beyond a float where the product is not.
    const float first = std::ldexp(1.0f, -exponent_ / 2);
    const float second = std::ldexp(1.0f, -exponent_ - (-exponent_ / 2));
    for (size_t i = 0; i < count_; ++i) {
      values_[i] = weights[i] * first * second;
      squares_ += static_cast<double>(values_[i]) * values_[i];
    }
  }

  std::span<const float> values() const { return {values_, count_}; }
  float largest() const { return largest_; }  // with its sign
  double squares() const { return squares_; }

  // The bf16 to store for `scale`, and what it is in these units. 0 when it is too small to be stored.
  uint16_t store(float scale, float& stored) const {
    uint16_t bits = float_to_bf16(std::ldexp(scale, exponent_));
    // The value of the outermost code must stay finite.
    while (!std::isfinite(bf16_to_float(bits) * kLow4)) bits = static_cast<uint16_t>(bits - 1);
    stored = std::ldexp(bf16_to_float(bits), -exponent_);
    return bits;
  }
  double error_in_weights(double error_squares) const {
    return std::ldexp(std::max(0.0, error_squares), 2 * exponent_);
  }

 private:
  float values_[kMaxColumns] = {};
  size_t count_;
  float largest_ = 0.0f;
  int exponent_ = 0;
  double squares_ = 0.0;
};

// Keeps the best scale offered; every scale is judged as it will be stored.
class BestScale {
 public:
  explicit BestScale(const Normalized& weights) : weights_(weights), error_(weights.squares()) {}

  // Returns the least-squares scale of the codes that `scale` leads to, or 0 when `scale` is no better than the best.
  float offer(float scale) {
    float stored = 0.0f;
    const uint16_t bits = weights_.store(scale, stored);
    const float steps = 1.0f / stored;
    if (stored == 0.0f || !std::isfinite(steps)) return 0.0f;
    const Sums sums = sums_for(weights_.values(), steps);
    const double s = stored;
    const double error = weights_.squares() - 2.0 * s * sums.weight_code + s * s * sums.code_code;
    if (error >= error_ || sums.code_code == 0.0f) return 0.0f;
    error_ = error;
    bits_ = bits;
    steps_ = steps;
    return sums.weight_code / sums.code_code;
  }

  GroupFit take(int8_t* codes) const {
    const std::span<const float> values = weights_.values();
    for (size_t i = 0; i < values.size(); i += 4) {
      const Lanes nearest = nearest_codes(load(values.data() + i), steps_);
      for (size_t lane = 0; lane < 4; ++lane) codes[i + lane] = static_cast<int8_t>(nearest[lane]);
    }
    return {bits_, weights_.error_in_weights(error_)};
  }

 private:
  const Normalized& weights_;
  double error_;
  uint16_t bits_ = 0;
  float steps_ = 0.0f;
};

// The scale among those tried that leaves the least once it is made the least-squares scale of its codes, which is
// where (Σ weight * code)² / Σ code² is largest.
float search_scale(const Normalized& weights) {
  float best_gain = 0.0f;
  float best_scale = 0.0f;
  float reach = kFirstReach;
  for (int k = 0; k < kReaches; ++k, reach *= kReachGrowth) {
    // The largest weight falls on the negative side, which has one code more.
    const Sums sums = sums_for(weights.values(), -reach / weights.largest());
    if (sums.code_code == 0.0f) continue;
    const float gain = sums.weight_code * sums.weight_code / sums.code_code;
    if (gain <= best_gain) continue;
    best_gain = gain;
    best_scale = sums.weight_code / sums.code_code;
  }
  return best_scale;
}

}  // namespace

GroupFit fit_8_bits(std::span<const float> weights, int8_t* codes) {
  float largest = 0.0f;
  for (const float weight : weights) largest = std::max(largest, std::fabs(weight));
  GroupFit fit;
  // The scale is rounded first and the codes are then chosen for the scale that will be stored.
  fit.scale_bits = float_to_bf16(largest / kMax8);
  const float scale = bf16_to_float(fit.scale_bits);
  for (size_t i = 0; i < weights.size(); ++i) {
    const float steps = scale > 0.0f ? weights[i] / scale : 0.0f;
    const int nearest = static_cast<int>(steps < 0.0f ? steps - 0.5f : steps + 0.5f);
    const int code = std::clamp(nearest, -kMax8, kMax8);
    codes[i] = static_cast<int8_t>(code);
    const double error = static_cast<double>(weights[i]) - static_cast<double>(scale) * code;
    fit.error_squares += error * error;
  }
  return fit;
}

GroupFit fit_4_bits(std::span<const float> weights, int8_t* codes) {
  const Normalized normalized(weights);
  BestScale best(normalized);
  if (normalized.largest() != 0.0f) {
    // Rounding to the scale that spans the largest weight is the second start: seldom better, but never beaten by it.
    for (float scale : {search_scale(normalized), std::fabs(normalized.largest()) / kHigh4}) {
      for (int turn = 0; turn < kMaxTurns && scale != 0.0f; ++turn) scale = best.offer(scale);
    }
  }
  return best.take(codes);
}

}  // namespace ringside
