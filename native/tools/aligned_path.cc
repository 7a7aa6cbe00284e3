#include "tools/aligned_path.h"

#include <algorithm>
#include <cmath>

namespace ringside::tools {
namespace {

constexpr double kLargeDp = 0.8;  // the paper's

// Logarithm of Σ exp(logits).
double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

int64_t best_of(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

}  // namespace

void add_position(std::span<const float> truth, std::span<const float> fast, int32_t chosen, AlignedPath& path) {
  const double truth_sum = log_sum_exp(truth);
  const double fast_sum = log_sum_exp(fast);
  double kl = 0.0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double log_p = static_cast<double>(truth[i]) - truth_sum;
    kl += std::exp(log_p) * (log_p - (static_cast<double>(fast[i]) - fast_sum));
  }
  const auto at = static_cast<size_t>(chosen);
  const double dp = std::fabs(std::exp(static_cast<double>(truth[at]) - truth_sum) -
                              std::exp(static_cast<double>(fast[at]) - fast_sum));
  path.positions += 1;
  path.mean_dp += dp;
  path.max_dp = std::max(path.max_dp, dp);
  path.share_over += dp > kLargeDp ? 1.0 : 0.0;
  path.mean_kl += kl;
  path.max_kl = std::max(path.max_kl, kl);
  path.top1 += best_of(truth) == best_of(fast) ? 1.0 : 0.0;
}

void finish(AlignedPath& path) {
  const auto positions = static_cast<double>(std::max<int64_t>(1, path.positions));
  for (double* sum : {&path.mean_dp, &path.share_over, &path.mean_kl, &path.top1}) *sum /= positions;
}

}  // namespace ringside::tools
