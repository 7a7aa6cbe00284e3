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
  // Scores of a chunk and two products in fp32; scores, queries and one operand once more in two halves, that one as
  // tiles with a line to spare for each column.
  const int64_t tokens = RS_CHUNK_TOKENS;
  const int64_t widest = std::max(channels, tokens);
  const int64_t largest_operand = widest * widest + widest * kKvTileColumns;
  const int64_t chunk =
      (2 * tokens * tokens + 3 * tokens * channels + largest_operand) * kFloatBytes + channels * channels * kFloatBytes;
  return std::max(softmax, chunk);
}

}  // namespace ringside::cpu
