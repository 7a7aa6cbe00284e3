// Owns: what the phases of the step kernel know: the model's shape, the call, the workspace, and which pieces of which
// weights a block multiplies in each phase. The warp that fetches weights and the warps that multiply walk the same
// list, so it is written once.
#pragma once

#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/step.h"

namespace ringside::cuda {

inline constexpr int kStepWarps = 8;  // of a block that multiply; one more fetches weights
inline constexpr int kStepThreads = kStepWarps * 32;
inline constexpr int kStepBlockThreads = kStepThreads + 32;
inline constexpr int kStepStages = 32;         // pieces of weights under way, at most
inline constexpr int kStageCodeBytes = 32768;  // codes of one piece
inline constexpr int kReductionBytes = 16384;  // where warps add up their parts of a tile
inline constexpr int kMaxStepExperts = 256;
inline constexpr int kMaxStepChosen = 16;
inline constexpr int kRouterPieces = 4;  // of hidden: router products are spread over blocks
inline constexpr int kStateSlices = 8;   // of a head's 128 value columns, each for another block
inline constexpr int kSliceColumns = 128 / kStateSlices;

// A model and the workspace, the same for every step. Rows are those of the step.
struct StepShape {
  int32_t hidden, width, kv_width, heads, kv_heads, layers, experts, chosen, expert_groups, groups_kept, expert_width,
      dense_width, has_shared, vocab_rows, norm_groups, rotary_half, linear_silu, inner_columns;
  rs_kv_format kv_format;
  float eps, routed_scale;
  const DeviceLayer* layer;  // device array
  DeviceMatrix embedding, lm_head;
  const float* final_norm;
  const float* inv_freq;

  float* residual;     // [rows, hidden]
  float* qkv;          // [rows, 3 * width]
  float* gate;         // [rows, width]
  float* mixed;        // [rows, width]
  float* router_sums;  // [router pieces, rows, experts]
  bf16* inner;         // [rows, inner_columns]: slot after slot, the shared expert last
  bf16* x;             // [rows, x_columns]: inputs of products, where they do not lie in shared memory
  int32_t x_columns;   // of the widest input
  float2* rotation;    // [rows, rotary_half]: cosine, sine
  float* partial_o;    // [rows, heads, splits, 128] of softmax attention
  float2* partial_ml;  // [rows, heads, splits]: largest exponent, sum
  uint32_t* arrivals;  // of blocks at the barriers of a launch, and those that left it
};

struct StepCall {
  int32_t rows, part_count;
  int32_t splits;         // most of a part: stride of partial_o
  uint32_t wanted;        // bit r: logits of row r
  float* logits;          // [rows, vocab_rows]
  uint64_t* stamps;       // null, or [phases] times of block 0
  int32_t scratch_bytes;  // of shared memory, before the ring
  int32_t ring_bytes;
  int32_t tokens[kStepRows];
  StepPart parts[kStepRows];
};

// What the multiplying warps need to know of a piece; the fetching warp has worked it out anyway.
struct PieceNote {
  MatrixFormat format;
  int32_t blocks, group_shift, has_offsets;
  int32_t x_column;  // where its columns begin in the input
  uint32_t rows;     // that take part
  int32_t ends_term, ends_unit;
};

// The start of a block's shared memory.
struct StepControl {
  uint64_t full[kStepStages];   // a piece is there
  uint64_t empty[kStepStages];  // every warp has read it
  uint64_t routed;              // experts of the layer are chosen
  PieceNote note[kStepStages];
  uint32_t stage_offset[kStepStages], stage_footprint[kStepStages];
  StepShape shape;  // copies: parameters of a kernel are slow to read through a pointer
  StepCall call;
  DeviceLayer layer[3];  // this one and the two after it
  int32_t row_position[kStepRows];
  float sums[kStepRows * kStepWarps];
  int16_t chosen[kStepRows][kMaxStepChosen];  // ascending
  float weight[kStepRows][kMaxStepChosen];
  uint32_t expert_rows[kMaxStepExperts];  // bit r: row r chose the expert
  int16_t listed[kMaxStepExperts];        // experts that some row chose, ascending
  int32_t listed_count;
};

RS_HOST_DEVICE constexpr int64_t step_control_bytes() {
  return (static_cast<int64_t>(sizeof(StepControl)) + 127) / 128 * 128;
}

// What a phase multiplies.
enum class Work : int32_t { kQkv, kDense, kRouter, kExpertInner, kDenseInner, kExpertDown, kDenseDown, kHead };

// A part of a sum of products: 16 outputs times columns [first_column, first_column + columns) of a matrix.
struct Term {
  DeviceMatrix matrix;
  int32_t tile, first_column, columns;
  int32_t x_column;  // where these columns begin in the input
  uint32_t rows;     // that take part
};

#if defined(__CUDACC__)

// Logarithms of a matrix's columns of a block and of a group: divisions are slow where one warp waits for each.
__device__ __forceinline__ int block_shift(const DeviceMatrix& m) {
  return m.format == MatrixFormat::kBF16 ? 4 : m.format == MatrixFormat::kQ4 ? 6 : 5;
}
__device__ __forceinline__ int group_shift(const DeviceMatrix& m) { return 31 - __clz(m.group_columns | 1); }

// DeviceStack::at() without its divisions.
__device__ __forceinline__ DeviceMatrix stacked(const DeviceStack& stack, int e) {
  DeviceMatrix m = stack.first;
  m.blocks += static_cast<int64_t>(e) * (m.rows / 16 * (m.columns >> block_shift(m))) * kBlockBytes;
  if (m.group_columns == 0) return m;
  const int64_t scales = static_cast<int64_t>(e) * (m.rows * (m.columns >> group_shift(m)));
  m.scales += scales;
  if (m.offsets != nullptr) m.offsets += scales;
  return m;
}

// Columns of a piece: what is fetched and multiplied at once.
__device__ __forceinline__ int piece_columns(const DeviceMatrix& m) {
  return kStageCodeBytes / static_cast<int>(kBlockBytes) << block_shift(m);
}

// A block's shared memory. Asked for by name, so that the compiler knows that it is shared memory.
__device__ __forceinline__ uint8_t* step_shared() {
  extern __shared__ __align__(128) uint8_t shared[];
  return shared;
}

struct Step {
  int32_t block, blocks;
  int32_t layer_index;

  __device__ StepControl& control() const { return *reinterpret_cast<StepControl*>(step_shared()); }
  __device__ const StepShape& shape() const { return control().shape; }
  __device__ const StepCall& call() const { return control().call; }
  __device__ const DeviceLayer& layer() const { return control().layer[layer_index % 3]; }
  __device__ float* scratch() const { return reinterpret_cast<float*>(step_shared() + step_control_bytes()); }
  __device__ uint8_t* ring() const { return step_shared() + step_control_bytes() + call().scratch_bytes; }
  __device__ uint32_t all_rows() const { return call().rows == 32 ? 0xffffffffu : (1u << call().rows) - 1; }
};

// How many of `count` units are this block's: block, block + blocks, …
__device__ __forceinline__ int share(int count, int block, int blocks) {
  return block < count ? (count - block - 1) / blocks + 1 : 0;
}

// Router pieces begin with block 0, the shared expert's tiles with the last block, so that few blocks have both.
__device__ __forceinline__ int router_parts(const Step& s) {
  return s.layer().router.columns > 2 * s.shape().hidden ? 3 : 2;
}
__device__ __forceinline__ int router_units(const Step& s) {
  return s.shape().experts / 16 * router_parts(s) * kRouterPieces;
}
__device__ __forceinline__ int inner_tiles(const Step& s) { return s.layer().mlp.gate_up.first.rows / 16; }

__device__ __forceinline__ int unit_count(const Step& s, Work work) {
  const DeviceLayer& layer = s.layer();
  switch (work) {
    case Work::kQkv:
      return share((layer.qkv.rows + (layer.is_softmax ? 0 : layer.output_gate.rows)) / 16, s.block, s.blocks);
    case Work::kDense:
      return share(layer.dense.rows / 16, s.block, s.blocks);
    case Work::kRouter:
      return share(router_units(s), s.block, s.blocks) +
             (s.shape().has_shared ? share(inner_tiles(s), s.blocks - 1 - s.block, s.blocks) : 0);
    case Work::kExpertInner:
      return share(s.control().listed_count * inner_tiles(s), s.block, s.blocks);
    case Work::kDenseInner:
      return share(inner_tiles(s), s.block, s.blocks);
    case Work::kExpertDown:
    case Work::kDenseDown:
      return share(s.shape().hidden / 16, s.block, s.blocks);
    default:
      return share(s.shape().lm_head.rows / 16, s.block, s.blocks);
  }
}

// Terms of one unit's sum.
__device__ __forceinline__ int term_count(const Step& s, Work work) {
  return work == Work::kExpertDown ? s.control().listed_count + s.shape().has_shared : 1;
}

// The number of unit i of this block among all of its kind. Of kRouter, those of the shared expert follow the router's.
__device__ __forceinline__ int unit_number(const Step& s, Work work, int i) {
  if (work == Work::kRouter) {
    const int routers = share(router_units(s), s.block, s.blocks);
    if (i >= routers) return router_units(s) + s.blocks - 1 - s.block + (i - routers) * s.blocks;
  }
  return s.block + i * s.blocks;
}

__device__ __forceinline__ Term whole_tile(const DeviceMatrix& m, int tile, uint32_t rows) {
  return {m, tile, 0, m.columns, 0, rows};
}

__device__ __forceinline__ Term router_term(const Step& s, int number) {
  const DeviceLayer& layer = s.layer();
  const int units = router_units(s);
  if (number >= units) return whole_tile(stacked(layer.mlp.gate_up, s.shape().experts), number - units, s.all_rows());
  const int tiles = s.shape().experts / 16, piece = number / tiles, columns = s.shape().hidden / kRouterPieces;
  // The input is x_hi | x_lo, and the third part of the columns reads x_hi again.
  const int part = piece / kRouterPieces, inside = piece % kRouterPieces * columns;
  return {layer.router, number % tiles, piece * columns, columns, (part == 1 ? s.shape().hidden : 0) + inside,
          s.all_rows()};
}

__device__ __forceinline__ Term term_of(const Step& s, Work work, int number, int term) {
  const DeviceLayer& layer = s.layer();
  switch (work) {
    case Work::kQkv: {
      const int tiles = layer.qkv.rows / 16;
      return number < tiles ? whole_tile(layer.qkv, number, s.all_rows())
                            : whole_tile(layer.output_gate, number - tiles, s.all_rows());
    }
    case Work::kDense:
      return whole_tile(layer.dense, number, s.all_rows());
    case Work::kRouter:
      return router_term(s, number);
    case Work::kExpertInner: {
      const int tiles = inner_tiles(s), expert = s.control().listed[number / tiles];
      return whole_tile(stacked(layer.mlp.gate_up, expert), number % tiles, s.control().expert_rows[expert]);
    }
    case Work::kDenseInner:
      return whole_tile(layer.mlp.gate_up.first, number, s.all_rows());
    case Work::kExpertDown: {
      if (term == s.control().listed_count) {
        return whole_tile(stacked(layer.mlp.down, s.shape().experts), number, s.all_rows());
      }
      const int expert = s.control().listed[term];
      return whole_tile(stacked(layer.mlp.down, expert), number, s.control().expert_rows[expert]);
    }
    case Work::kDenseDown:
      return whole_tile(layer.mlp.down.first, number, s.all_rows());
    default:
      return whole_tile(s.shape().lm_head, number, s.call().wanted);
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
