// Owns: what every attention kernel on AMX does around its tile instructions.
// Must never: rely on the tile configuration that other code left.
#pragma once

#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

// The intrinsics do not tell the compiler which memory they read and write.
RS_INLINE void settle_memory() { asm volatile("" ::: "memory"); }

// All tiles: `rows` of 64 bytes for the operands that have a row for each query, 16 for keys and values.
RS_INLINE void configure_tiles(int64_t rows) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
  } configuration;
  for (int tile = 0; tile < 8; ++tile) configuration.rows[tile] = tile < 6 ? static_cast<uint8_t>(rows) : 16;
  settle_memory();
  _tile_loadconfig(&configuration);
}

}  // namespace
}  // namespace ringside::cpu
