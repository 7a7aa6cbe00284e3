// Owns: what kernels know of a model and a session: pointers to device memory and numbers, as plain data.
// Must never: own memory itself; weights.h and session.h do.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <vector>

#include "cuda/matrix.h"
#include "model/backend.h"

namespace ringside::cuda {

using bf16 = __nv_bfloat16;

inline constexpr int64_t kHeadDim = 128;     // of every model of the family; others are refused when loaded
inline constexpr int64_t kChunkTokens = 64;  // RS_CHUNK_TOKENS
inline constexpr int64_t kPageTokens = 256;  // RS_PAGE_TOKENS

// An MLP or a stack of them. Tile t of gate_up has the gate's rows 8t..8t+7 as its first eight rows and the same rows
// of up as its last eight: a lane of mma's result holds the gate and the up of the same inner columns.
struct DeviceMlp {
  DeviceStack gate_up;  // each [2 * width, hidden]
  DeviceStack down;     // each [hidden, width]
  int32_t width = 0;
};

struct DeviceLayer {
  int32_t is_softmax = 0;
  int32_t is_dense = 0;     // its MLP
  int32_t kind_index = 0;   // among the layers of its kind of attention
  int32_t is_on_host = 0;   // its experts: mlp then points at pinned memory of the host
  const float* input_norm;  // [hidden]
  const float* post_attention_norm;
  const float* query_norm;   // [128]
  const float* key_norm;     // [128]
  DeviceMatrix qkv;          // linear: [3 * width, hidden]; softmax: [width + 2 * kv_width, hidden]
  DeviceMatrix output_gate;  // linear: [width, hidden]
  DeviceMatrix dense;        // [hidden, width]
  const float* output_norm;  // linear: [width]
  const float* slopes;       // linear: [heads], s of each head
  DeviceMlp mlp;             // dense: one; else the experts and, last, the shared expert (count = experts + 1), or no
                             // shared one (count = experts)
  DeviceMatrix router;       // kBF16 [experts, 2 or 3 * hidden]: W_hi | W_hi and, where the weights have more than
                             // bf16 holds, | W_lo; its input is x_hi | x_lo | x_hi, so products are those of fp32
                             // numbers but for 2^-16
  const float* expert_bias;  // [experts]
};

struct DeviceModel {
  rs_config config;  // its pointers are not for kernels
  int32_t width;     // heads * 128
  int32_t kv_width;  // kv_heads * 128
  int32_t linear_layers, softmax_layers;
  int32_t has_shared;
  rs_kv_format kv_format = RS_KV_BF16;  // of its sessions; never f32
  const float* inv_freq;                // device, [rotary_dim / 2]
  DeviceMatrix embedding;               // [vocab_rows, hidden]
  const float* final_norm;              // [hidden]
  DeviceMatrix lm_head;                 // [vocab_rows, hidden]
  std::vector<DeviceLayer> layers;
};

// What a session remembers (house rule 3a). S: fp32, at the last chunk boundary. The open chunk's rows of k and v are
// after norm and rotation, in fp32; q's scale of 128^-0.5 is applied to q, never to k. A page holds 256 positions of
// all softmax layers: [layer, kv head, keys then values, position, 128] in bf16, or as codes of 8 bits, where 256 fp32
// scales, one for each position, follow the keys and the values of a head.
struct SessionView {
  float* s;               // [linear layers, heads, 128 (k), 128 (v)]
  float* open_k;          // [linear layers, heads, 64, 128]
  float* open_v;          // the same
  uint8_t* const* pages;  // device array of page pointers, one for each 256 positions up to position + rows
  int64_t position;       // tokens held before this call
};

// Numbers, and bytes, of the keys or of the values of one head in a page.
RS_HOST_DEVICE constexpr int64_t page_part_values() { return kPageTokens * kHeadDim; }
RS_HOST_DEVICE constexpr int64_t page_part_bytes(rs_kv_format format) {
  return format == RS_KV_Q8 ? page_part_values() + kPageTokens * 4 : page_part_values() * 2;
}

}  // namespace ringside::cuda
