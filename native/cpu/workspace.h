// Owns: every buffer that one slab of a forward pass writes besides the session, allocated once per model.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/input_forms.h"
#include "cpu/memory.h"
#include "cpu/weights.h"

namespace ringside::cpu {

inline constexpr int64_t kSlabRows = 4096;     // most tokens of one pass through the layers
inline constexpr int64_t kBlockRows = 1024;    // most rows of one matrix product job
inline constexpr int64_t kInnerColumns = 128;  // of an MLP's width that one job computes: whole groups of any size
inline constexpr int64_t kSplitRows = 8;       // up to here attention is shared out by key blocks, above by rows
inline constexpr int64_t kQueryRows = 256;  // query rows (tokens × heads of one kv head) that read a key block together

// Rows of one job of a product with so many columns: the inputs of a job should stay in a core's second cache while the
// tiles pass by.
inline int64_t block_rows(int64_t columns) {
  constexpr int64_t kCachedBytes = int64_t{1} << 20;
  return std::clamp<int64_t>(kCachedBytes / columns / 64 * 64, 128, kBlockRows);
}

// Rows of activations quantised for the coded matrices that multiply them, once for each size of group among these.
struct QuantizedInput {
  QuantizedRows groups_of_32, groups_of_64, groups_of_128;  // shaped for the widest rows

  // The buffer as the inputs of `w`.
  QuantizedRows rows_for(const PackedMatrix& w) const { return rows_for(w.group_columns, w.columns); }
  QuantizedRows rows_for(int64_t group_columns, int64_t columns) const {
    QuantizedRows rows = group_columns == 32 ? groups_of_32 : group_columns == 64 ? groups_of_64 : groups_of_128;
    rows.columns = columns;
    rows.groups = (columns + group_columns - 1) / group_columns;
    return rows;
  }
};

// Inputs of matrix products in the forms that the matrices read.
struct Activations {
  float* values = nullptr;  // row r at r * stride
  int64_t stride = 0;       // floats
  QuantizedInput codes;

  // Fills the coded forms of columns [first_column, first_column + columns) of a row of `width`, from x[0..columns).
  void quantize(const Kernels& kernels, const InputForms& forms, int64_t row, int64_t width, const float* x,
                int64_t first_column, int64_t columns) const {
    const auto fill = [&](bool is_read, int64_t group_columns) {
      if (is_read) kernels.quantize_columns(x, first_column, columns, row, codes.rows_for(group_columns, width));
    };
    fill(forms.groups_of_32, 32);
    fill(forms.groups_of_64, 64);
    fill(forms.groups_of_128, 128);
  }
};

// Scratch of one thread.
struct WorkerSpace {
  float* panel;          // [128, 64]: weights widened to fp32
  uint8_t* coded;        // kCodedScratchBytes
  float* tile;           // [1024, 64]: outputs of a tile on their way elsewhere
  float* gate;           // [1024, 128]
  float* up;             // [1024, 128]
  float* mlp_sum;        // [4096, 64]: outputs of an MLP's tile, summed over experts
  Activations gathered;  // [block_rows(hidden), hidden]: the inputs of one expert
  uint8_t* queries;      // [query rows], as the attention kernels keep them
  float* maximum;        // [query rows]
  float* sum;            // [query rows]
  float* mixed;          // [query rows, channels]
  int32_t* limits;       // [query rows]
  uint8_t* attention;    // attention_scratch_bytes
  float* router;         // [2 experts + groups]: scores and scratch of the choice
};

struct Workspace {
  static Result<Unit> allocate(const Shape& shape, int threads, const InputForms& forms, Workspace& out);
  // Of a model whose matrices, the routers apart, read these forms. Buffers are touched only as far as slabs are long.
  static int64_t planned_bytes(const Shape& shape, int threads, const InputForms& forms);

  int64_t query_rows = 0;    // capacity of the worker's query buffers
  int64_t partial_rows = 0;  // capacity of the partial results

  float* residual;             // [4096, hidden]
  float* cosines;              // [4096, rotary_dim / 2]
  float* sines;                // [4096, rotary_dim / 2]
  float* normed;               // [4096, hidden]
  QuantizedInput input_codes;  // [4096, widest of hidden and attention_width]: of `normed` or `mixed`, the later one

  // The buffers of attention and of the MLP are never used at the same time and share their memory.
  float* qkv;          // [4096, widest qkv]
  float* output_gate;  // [4096, attention_width]
  float* mixed;        // [4096, attention_width]: what attention read
  // Partial attention of up to 8 tokens to every key block of the context, or of more tokens to fewer blocks; only
  // touched as far as the context goes.
  float* partial_maximum;  // [key blocks, 8 * heads]
  float* partial_sum;      // [key blocks, 8 * heads]
  float* partial_mixed;    // [key blocks, 8 * heads, channels]

  float* router_logits;       // [4096, experts]
  float* expert_weights;      // [4096, experts_per_token]
  int32_t* chosen;            // [4096, experts_per_token]
  int32_t* gathered_token;    // [4096 * experts_per_token]: token of a row of the experts, which lie sorted
  float* gathered_weight;     // [4096 * experts_per_token]: its weight
  QuantizedInput head_codes;  // [4096, hidden]: of `normed` before the output head

  Activations expert_inner;  // [4096 * experts_per_token, expert_width]: silu(gate) · up
  Activations always_inner;  // [4096, widest dense or shared MLP]
  std::vector<WorkerSpace> workers;

 private:
  void carve(const Shape& shape, const InputForms& forms, Carver& carver);
  void carve_attention(const Shape& shape, Carver& carver);
  void carve_mlp(const Shape& shape, const InputForms& forms, Carver& carver);
  void carve_worker(const Shape& shape, const InputForms& forms, WorkerSpace& worker, Carver& carver) const;
  MappedMemory memory_;
};

}  // namespace ringside::cpu
