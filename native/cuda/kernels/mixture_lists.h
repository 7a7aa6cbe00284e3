// Owns: which experts each token takes, and the lists of tokens of each expert that come of it, all on the device.
#pragma once

#include "cuda/kernels/product.h"

namespace ringside::cuda {

inline constexpr int kMostExperts = 1024;     // the lists are cut by one block, a thread an expert
inline constexpr int kMostSlots = 32;         // of a token: a warp sorts them, a lane a slot
inline constexpr int kMostExpertGroups = 32;  // likewise

// The slots of all tokens, ordered by expert: list 0, 1, … of the experts and last that of the shared one, which has
// every token. All arrays are device memory.
struct MixtureLists {
  int32_t* chosen;  // [rows, slots] experts of a token, ascending
  float* weights;   // [rows, slots]
  int32_t* place;   // [rows, slots] where the slot is in the lists; the shared one of token t is at shared_first + t
  int32_t* counts;  // [experts]
  int32_t* starts;  // [experts + 1]
  int32_t* gather;  // [rows * (slots + shared)] the token at each place
  RowTile* tiles;   // [max_tiles]
  int32_t* tile_count;  // [1]
  int32_t max_tiles, tile_rows;
};

int32_t most_tiles(const rs_config& config, bool shared, int64_t rows, int32_t tile_rows);

// logits [rows, experts] fp32; bias [experts] or null.
Status choose_experts(const rs_config& config, const float* logits, const float* bias, int64_t rows,
                      const MixtureLists& lists, cudaStream_t stream);
// Lists, places and tiles from `chosen`.
Status build_lists(const rs_config& config, bool shared, int64_t rows, const MixtureLists& lists, cudaStream_t stream);

}  // namespace ringside::cuda
