// Owns: the table of attention kernels that exist once per instruction set, and the layout of keys and values in a
// page. Must never: contain inline code with a body that a file compiled for one instruction set would share with
// another.
//
// A row's result depends on that row and the keys it may see: never on the rows beside it, nor on how calls were cut.
#pragma once

#include <cstdint>

#include "model/backend.h"

namespace ringside::cpu {

inline constexpr int64_t kKvTileColumns = 16;
inline constexpr int64_t kKvGroupTiles = 4;  // columns of tiles that are read side by side

// Where the keys or values of 256 positions of one head lie: in tiles of 16 columns, the operand of one AMX
// instruction. In a tile of keys a column is a position and the depth are channels; in a tile of values a column is a
// channel and the depth are positions. A tile is 16 lines, each some depths of all columns:
//   bf16  two depths a line, the pair of a column side by side, as vdpbf16ps and tdpbf16ps read it: depth 32
//   q8    four depths a line, the quad of a column side by side, as the byte products read it: depth 64
//   f32   two depths a line, 16 columns of the first, then of the second: depth 32
// and the tiles are
//   keys    [256 / 16 position tiles][channels / depth]
//   values  [channels / 16 channel tiles][256 / depth]
// A row that reads everything follows four columns of tiles at a time: as many streams as memory serves best. q8 ends
// with 256 fp32 scales, one for each position. Missing channels are zero.
struct KvLayout {
  rs_kv_format format;
  int64_t head_dim;

  // Inlined always, so that no file's copy of them is ever shared.
  __attribute__((always_inline)) int64_t channels() const {
    constexpr int64_t kGroupColumns = kKvGroupTiles * kKvTileColumns;
    return (head_dim + kGroupColumns - 1) / kGroupColumns * kGroupColumns;
  }
  __attribute__((always_inline)) int64_t value_bytes() const {
    return format == RS_KV_F32 ? 4 : format == RS_KV_BF16 ? 2 : 1;
  }
  __attribute__((always_inline)) int64_t tile_depth() const { return format == RS_KV_Q8 ? 64 : 32; }
  __attribute__((always_inline)) int64_t tile_bytes() const { return kKvTileColumns * tile_depth() * value_bytes(); }
  __attribute__((always_inline)) int64_t scales_offset_bytes() const {
    return channels() * RS_PAGE_TOKENS * value_bytes();
  }
  // Of the keys, or of the values.
  __attribute__((always_inline)) int64_t part_bytes() const {
    return scales_offset_bytes() + (format == RS_KV_Q8 ? RS_PAGE_TOKENS * 4 : 0);
  }
  // Of one gathered query.
  __attribute__((always_inline)) int64_t query_bytes() const { return channels() * 4; }
};

// Some heads of one row: x = rope(rmsnorm(x) * weight) * scale, in place.
struct HeadRotation {
  float* x;  // [heads, head_dim]
  int64_t heads;
  int64_t head_dim;
  const float* weight;  // [head_dim]
  float eps;
  const float* cosines;  // [half]
  const float* sines;    // [half]
  int64_t half;          // channel pairs (j, j + half) are turned, the rest passes
  float scale;
};

// Rows of k and v of one kv head that go to consecutive positions of a page.
struct KeyAppend {
  KvLayout layout;
  const float* k;  // [rows, head_dim]
  const float* v;
  int64_t stride;
  int64_t rows;
  int64_t first_slot;  // position of the first row in the page
  uint8_t* keys;       // page parts
  uint8_t* values;
};

// Softmax attention of query rows to one absolute block of 256 keys, merged into what the blocks before it gave.
struct KeyBlock {
  KvLayout layout;
  const uint8_t* queries;  // as gather_queries left them
  int64_t rows;
  const int32_t* limits;  // [rows]: keys of the block that the row may see, ascending from the block's first
  const uint8_t* keys;    // page parts
  const uint8_t* values;
  float* maximum;  // [rows]: -infinity where there was no block before
  float* sum;      // [rows]
  float* out;      // [rows, channels], not yet divided by the sum
  uint8_t* scratch;
};

// The rows of one chunk of one head that read the state (specification section 3.5).
struct ChunkRead {
  const float* q;          // [rows, head_dim], normed, rotated and scaled
  int64_t q_stride;        //
  const float* k_columns;  // [head_dim, 64]: the chunk's keys, transposed
  const float* v;          // [64, head_dim]
  const float* state;      // S [head_dim (key), head_dim (value)] at the chunk's start
  const float* decay;      // exp(-s n), n = 0..64
  int64_t first;           // local index of the first row
  int64_t rows;
  int64_t head_dim;
  float* out;  // [rows, head_dim]
  int64_t out_stride;
  uint8_t* scratch;
};

// S' = exp(-64 s) S + Σ_j exp(-s (63 - j)) k_jᵀ v_j for a full chunk. `next_state` may be `state`.
struct ChunkCommit {
  const float* k_columns;  // [head_dim, 64]
  const float* v;          // [64, head_dim]
  const float* state;      // [head_dim, head_dim]
  const float* decay;      // exp(-s n), n = 0..64
  int64_t head_dim;
  float* next_state;  // [head_dim, head_dim]
  uint8_t* scratch;
};

struct AttentionKernels {
  const char* isa;

  void (*rotate_heads)(const HeadRotation& heads);
  void (*append_keys)(const KeyAppend& append);
  // Brings `count` query rows [count, head_dim] that lie one after the other into the form of key_block, as its rows
  // first_row and following.
  void (*gather_queries)(const KvLayout& layout, const float* q, int64_t first_row, int64_t count, uint8_t* queries);
  void (*key_block)(const KeyBlock& block);
  // Adds one block's partial result of one row to what the blocks before it gave.
  void (*merge_key_block)(float* maximum, float* sum, float* out, float block_maximum, float block_sum,
                          const float* block_out, int64_t channels);
  void (*chunk_read)(const ChunkRead& chunk);
  void (*chunk_commit)(const ChunkCommit& chunk);
};

// Query rows that go through a key block together. The queries of a key block lie in room for a multiple of so many.
inline constexpr int64_t kQueryGroupRows = 32;

// Bytes of `scratch` that every kernel of the table needs for heads of this width.
int64_t attention_scratch_bytes(const KvLayout& layout);

const AttentionKernels* plain_attention();
// Null where the build has none.
const AttentionKernels* avx2_attention();
const AttentionKernels* avx512_attention();
const AttentionKernels* avx512bf16_attention();
const AttentionKernels* amx_attention();
const AttentionKernels* neon_attention();

}  // namespace ringside::cpu
