// Owns: the table of kernels that exist once per instruction set, and the packed form of a weight matrix they stream.
// Must never: contain inline code with a body that a file compiled for one instruction set would share with another.
//
// Every output element has one order of additions that depends on the shape alone: not on the number of rows, on the
// thread that computes it, or on how a prompt was cut into calls.
#pragma once

#include <cstdint>

namespace ringside::cpu {

inline constexpr int64_t kTileRows = 64;     // outputs that lie side by side in a packed matrix
inline constexpr int64_t kChunkTokens = 64;  // RS_CHUNK_TOKENS
inline constexpr int64_t kPageTokens = 256;  // RS_PAGE_TOKENS: also the key block of attention

enum class PackedFormat : int32_t { kF32, kBF16, kQ8 };

// Weights [rows = outputs, columns = inputs], cut into tiles of 64 outputs, the last one filled up with zeros.
struct PackedMatrix {
  PackedFormat format = PackedFormat::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t group_columns = 0;      // columns added up before the scale is applied; the last group may be shorter
  const void* tiles = nullptr;    // [tiles, columns, 64] in `format`
  const float* scales = nullptr;  // kQ8: [tiles, groups, 64]

  // Inlined always, so that no file's copy of them is ever shared.
  __attribute__((always_inline)) int64_t tile_count() const { return (rows + kTileRows - 1) / kTileRows; }
  __attribute__((always_inline)) int64_t group_count() const { return (columns + group_columns - 1) / group_columns; }
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
  float* scores;      // scratch [64, 64]
  float* from_state;  // scratch [64, head_dim]
};

// S' = exp(-64 s) S + Σ_j exp(-s (63 - j)) k_jᵀ v_j for a full chunk. `next_state` may be `state`.
struct ChunkCommit {
  const float* k_columns;  // [head_dim, 64]
  const float* v;          // [64, head_dim]
  const float* state;      // [head_dim, head_dim]
  const float* decay;      // exp(-s n), n = 0..64
  int64_t head_dim;
  float* next_state;  // [head_dim, head_dim]
  float* weighted;    // scratch [head_dim, 64]
};

// Softmax attention of query rows to one absolute block of 256 keys; a partial result, not yet divided.
struct KeyBlock {
  const float* q;  // [rows, head_dim], scaled
  int64_t rows;
  int64_t head_dim;
  const int32_t* limits;   // [rows]: keys of the block that the row may see, ascending from the block's first
  const float* k_columns;  // [head_dim, 256]
  const float* v;          // [256, head_dim]
  float* maximum;          // [rows]
  float* sum;              // [rows]
  float* out;              // [rows, head_dim]
  float* scores;           // scratch [rows, 256]
};

struct Kernels {
  const char* isa;

  // y[r][n] = Σ_k x[r][k] w[tile * 64 + n][k] for 64 outputs n. `panel`: scratch [group_columns, 64].
  void (*matmul_tile)(const PackedMatrix& w, int64_t tile, const float* x, int64_t x_stride, int64_t rows, float* y,
                      int64_t y_stride, float* panel);
  void (*chunk_read)(const ChunkRead& chunk);
  void (*chunk_commit)(const ChunkCommit& chunk);
  void (*key_block)(const KeyBlock& block);
  // Adds one block's partial result of one row to what the blocks before it gave.
  void (*merge_key_block)(float* maximum, float* sum, float* out, float block_maximum, float block_sum,
                          const float* block_out, int64_t head_dim);
  void (*silu)(float* x, int64_t count);                               // x = x sigmoid(x)
  void (*silu_multiply)(float* gate, const float* up, int64_t count);  // gate = silu(gate) up
  void (*sigmoid_gate)(float* x, const float* gate, int64_t count);    // x = x sigmoid(gate)

  // For the roofline: multiply-adds as fast as they go (returns their number), and a plain read of memory.
  int64_t (*multiply_peak)(int64_t steps, float* sink);
  uint64_t (*read_stream)(const void* from, int64_t bytes);
};

const Kernels* plain_kernels();
const Kernels* avx2_kernels();    // null where the build has none
const Kernels* avx512_kernels();  // null where the build has none

}  // namespace ringside::cpu
