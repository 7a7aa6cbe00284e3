// Owns: how much scratch the attention kernels need, the most of all tables.
#include "cpu/kernels/attention_kernels.h"

#include <algorithm>

namespace ringside::cpu {

int64_t attention_scratch_bytes(const KvLayout& layout) {
  constexpr int64_t kFloatBytes = 4;
  constexpr int64_t kPairBytes = 2;
  const int64_t channels = layout.channels();
  // Scores, partial results and probabilities of a group of rows, tiles on their way, and a widened block.
  const int64_t softmax = kQueryGroupRows * RS_PAGE_TOKENS * (kFloatBytes + kPairBytes) +
                          kQueryGroupRows * channels * kFloatBytes + 8 * kKvTileColumns * kKvTileDepth * kPairBytes +
                          2 * RS_PAGE_TOKENS * channels * kPairBytes;
  // Scores of a chunk, and what its rows read from the state; or the weighted keys.
  const int64_t chunk = RS_CHUNK_TOKENS * (RS_CHUNK_TOKENS + channels) * kFloatBytes;
  return std::max(softmax, chunk);
}

}  // namespace ringside::cpu
