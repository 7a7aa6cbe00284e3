// Owns: how much scratch the attention kernels need, the most of all tables.
#include "cpu/kernels/attention_kernels.h"

#include <algorithm>

namespace ringside::cpu {

int64_t attention_scratch_bytes(const KvLayout& layout) {
  constexpr int64_t kFloatBytes = 4;
  constexpr int64_t kPairBytes = 2;
  const int64_t channels = layout.channels();
  // Scores, probabilities and partial results of a group of rows. In whole numbers: of half as many, and then a row.
  const int64_t softmax =
      kQueryGroupRows * RS_PAGE_TOKENS * (kFloatBytes + kPairBytes) + kQueryGroupRows * channels * kFloatBytes;
  // Scores of a chunk, and what its rows read from the state; or the weighted keys.
  const int64_t chunk = RS_CHUNK_TOKENS * (RS_CHUNK_TOKENS + channels) * kFloatBytes;
  return std::max(softmax, chunk);
}

}  // namespace ringside::cpu
