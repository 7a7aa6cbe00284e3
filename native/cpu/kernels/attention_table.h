// Owns: the table of the attention kernels as the including file's instruction set compiles them, all in fp32.
#pragma once

#include "cpu/kernels/chunk_attention.h"
#include "cpu/kernels/kv_append.h"
#include "cpu/kernels/softmax_attention.h"

namespace ringside::cpu {
namespace {

void key_block_widened(const KeyBlock& block) {
  switch (block.layout.format) {
    case RS_KV_F32:
      return key_block_in_f32<RS_KV_F32>(block);
    case RS_KV_BF16:
      return key_block_in_f32<RS_KV_BF16>(block);
    case RS_KV_Q8:
      return key_block_in_f32<RS_KV_Q8>(block);
  }
}

constexpr AttentionKernels attention_table(const char* isa) {
  return {
      .isa = isa,
      .rotate_heads = rotate_heads,
      .append_keys = append_keys,
      .gather_queries = gather_queries_f32,
      .key_block = key_block_widened,
      .merge_key_block = merge_key_block,
      .chunk_read = chunk_read,
      .chunk_commit = chunk_commit,
  };
}

}  // namespace
}  // namespace ringside::cpu
