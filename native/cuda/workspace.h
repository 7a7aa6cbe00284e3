// Owns: the buffers of the read path, sized once for the longest slab and shared by the sessions of a model.
#pragma once

#include "cuda/device_memory.h"
#include "cuda/model.h"

namespace ringside::cuda {

// Rows of one slab. Fewer on a card that has no room for the buffers of so many; no result depends on it.
inline constexpr int64_t kSlabRows = 4096;
inline constexpr int64_t kLeastSlabRows = 512;
// Rows of logits that are computed at once; of those that are copied at once there are kStepRows.
inline constexpr int64_t kLogitRows = 128;

struct Workspace {
  int64_t rows = 0;
  int64_t qkv_stride = 0;

  int32_t* tokens = nullptr;
  float* residual = nullptr;    // [rows, hidden]
  bf16* normed = nullptr;       // [rows, hidden], or [rows, 3 * hidden] as a mixture reads it
  bf16* qkv = nullptr;          // [rows, qkv_stride]
  bf16* output_gate = nullptr;  // [rows, width]
  float* mixed = nullptr;       // [rows, width]: of linear attention, before norm and gate
  bf16* gated = nullptr;        // [rows, width]: what the dense projection reads
  bf16* inner = nullptr;        // [rows, dense_width]
  uint8_t* scratch = nullptr;   // of attention and mixtures
  float* logits = nullptr;      // [kLogitRows, vocab_rows]

  DeviceMemory memory;
  PinnedMemory host_logits;  // [kStepRows, vocab_rows]

  static int64_t planned_bytes(const DeviceModel& model, int64_t rows);
  static Status allocate(const DeviceModel& model, int64_t rows, Workspace& out);

 private:
  void carve(const DeviceModel& model, Carver& carver);
};

}  // namespace ringside::cuda
