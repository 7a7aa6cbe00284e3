// Owns: how a finished tile of a product leaves shared memory, whichever instructions made it.
#pragma once

#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/product.h"

namespace ringside::cuda {

// A row of results in shared memory, in numbers: four more than the outputs, so that the lanes of a fragment, eight
// outputs of four row pairs, write to 32 different banks.
template <int kOutputs>
inline constexpr int kStagedPitch = kOutputs + 4;

__device__ __forceinline__ float silu_times(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

// Four results, outputs `output` .. + 3 of a row, to where the call wants them.
__device__ __forceinline__ void store_four(const ProductCall& call, int64_t row, int output, float4 v) {
  if (call.epilogue == Epilogue::kStoreBF16) {
    bf16* out = static_cast<bf16*>(call.out) + row * call.out_stride + output;
    *reinterpret_cast<uint2*>(out) = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
    return;
  }
  float4* out = reinterpret_cast<float4*>(static_cast<float*>(call.out) + row * call.out_stride + output);
  if (call.epilogue == Epilogue::kAddF32) {
    const float4 old = *out;
    v = make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w);
  }
  *out = v;
}

// The rows of `tile` from staged [row][kStagedPitch<kOutputs>], by all `threads` of the block.
template <int kOutputs>
__device__ void store_tile(const ProductCall& call, const RowTile& tile, int first_output, const float* staged,
                           int threads) {
  constexpr int kPitch = kStagedPitch<kOutputs>;
  const int outputs = min(kOutputs, call.w.first.rows - first_output);
  if (call.epilogue != Epilogue::kSiluBF16) {
    for (int i = static_cast<int>(threadIdx.x); i < tile.rows * (kOutputs / 4); i += threads) {
      const int row = i / (kOutputs / 4), output = i % (kOutputs / 4) * 4;
      if (output >= outputs) continue;
      store_four(call, tile.first + row, first_output + output,
                 *reinterpret_cast<const float4*>(staged + row * kPitch + output));
    }
    return;
  }
  // Eight outputs of gate, then eight of up: four inner columns from two quads.
  for (int i = static_cast<int>(threadIdx.x); i < tile.rows * (kOutputs / 8); i += threads) {
    const int row = i / (kOutputs / 8), inner = i % (kOutputs / 8) * 4, output = inner / 8 * 16 + inner % 8;
    if (output >= outputs) continue;
    const float4 gate = *reinterpret_cast<const float4*>(staged + row * kPitch + output);
    const float4 up = *reinterpret_cast<const float4*>(staged + row * kPitch + output + 8);
    bf16* out = static_cast<bf16*>(call.out) + (tile.first + row) * call.out_stride + first_output / 2 + inner;
    *reinterpret_cast<uint2*>(out) = make_uint2(pack_bf16(silu_times(gate.x, up.x), silu_times(gate.y, up.y)),
                                                pack_bf16(silu_times(gate.z, up.z), silu_times(gate.w, up.w)));
  }
}

}  // namespace ringside::cuda
