// Owns: every buffer that one slab of a forward pass writes besides the session, allocated once per model.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/memory.h"
#include "cpu/weights.h"

namespace ringside::cpu {

inline constexpr int64_t kSlabRows = 512;   // tokens of one pass through the layers
inline constexpr int64_t kBlockRows = 256;  // rows of one matrix product job
inline constexpr int64_t kSplitRows = 8;    // up to here attention is shared out by key blocks, above by rows
inline constexpr int64_t kQueryRows = 256;  // query rows (tokens × heads of one kv head) that read a key block together

// Rows of activations quantised for the coded matrices that multiply them, once for each size of group among these.
struct QuantizedInput {
  QuantizedRows groups_of_32, groups_of_64, groups_of_128;  // shaped for the widest rows

  // The buffer as the inputs of `w`.
  QuantizedRows rows_for(const PackedMatrix& w) const {
    QuantizedRows rows = w.group_columns == 32 ? groups_of_32 : w.group_columns == 64 ? groups_of_64 : groups_of_128;
    rows.columns = w.columns;
    rows.groups = w.group_count();
    return rows;
  }
};

// Scratch of one thread.
struct WorkerSpace {
  float* panel;        // [128, 64]: weights widened to fp32
  uint8_t* coded;      // coded_scratch_bytes of the widest input
  float* edge;         // [256, 64]: outputs of a tile that is not full
  uint8_t* queries;    // [query rows], as the attention kernels keep them
  float* maximum;      // [query rows]
  float* sum;          // [query rows]
  float* mixed;        // [query rows, channels]
  int32_t* limits;     // [query rows]
  uint8_t* attention;  // attention_scratch_bytes
  float* router;       // [2 experts + groups]
};

struct Workspace {
  static Result<Unit> allocate(const Shape& shape, int threads, Workspace& out);
  static int64_t planned_bytes(const Shape& shape, int threads);

  int64_t query_rows = 0;    // capacity of the worker's query buffers
  int64_t partial_rows = 0;  // capacity of the partial results

  float* residual;          // [512, hidden]
  float* normed;            // [512, hidden]
  float* projected;         // [512, hidden]
  float* qkv;               // [512, widest qkv]
  float* output_gate;       // [512, attention_width]
  float* mixed;             // [512, attention_width]: what attention read
  float* cosines;           // [512, rotary_dim / 2]
  float* sines;             // [512, rotary_dim / 2]
  float* router_logits;     // [512, experts]
  float* expert_weights;    // [512, experts_per_token]
  int32_t* chosen;          // [512, experts_per_token]
  int32_t* expert_row;      // [512, experts_per_token]: row of the slot among the gathered rows
  int32_t* gathered_token;  // [512 * experts_per_token]: token of a gathered row
  float* gathered;          // [512 * experts_per_token, hidden]: inputs of the experts, then their outputs
  float* expert_gate;       // [512 * experts_per_token, expert_width]
  float* expert_up;         // the same
  float* always_gate;       // [512, widest dense or shared MLP]
  float* always_up;         // the same
  // Partial attention of up to 8 tokens to every key block of the context, or of more tokens to fewer blocks; only
  // touched as far as the context goes.
  float* partial_maximum;            // [key blocks, 8 * heads]
  float* partial_sum;                // [key blocks, 8 * heads]
  float* partial_mixed;              // [key blocks, 8 * heads, channels]
  QuantizedInput normed_codes;       // of the buffers without _codes, row by row
  QuantizedInput mixed_codes;        //
  QuantizedInput gathered_codes;     //
  QuantizedInput expert_gate_codes;  //
  QuantizedInput always_gate_codes;  //
  std::vector<WorkerSpace> workers;

 private:
  void carve(const Shape& shape, Carver& carver);
  MappedMemory memory_;
};

}  // namespace ringside::cpu
