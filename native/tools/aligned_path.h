// Owns: how far one way of reading is from the reference, over all positions of a text.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace ringside::tools {

// One way of reading, against the reference, over all positions.
struct AlignedPath {
  std::string name;
  int64_t positions = 0;
  double mean_dp = 0.0;        // |difference of the probability of the token that follows|
  double max_dp = 0.0;         //
  double share_over = 0.0;     // of positions where it is over 0.8
  double mean_kl = 0.0;        // KL(reference || path)
  double max_kl = 0.0;         //
  double top1 = 0.0;           // share of positions whose likeliest token is the reference's
  int64_t different_rows = 0;  // of logits, in any bit, from those of the first path
};

// One position's logits, the reference's and the path's, and the token that follows: into the path's sums, of which
// finish() makes means when all are in.
void add_position(std::span<const float> truth, std::span<const float> fast, int32_t chosen, AlignedPath& path);
void finish(AlignedPath& path);

}  // namespace ringside::tools
