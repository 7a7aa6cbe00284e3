// Owns: the loops that measure what a core can do at best: multiply-adds in fp32 and of bytes, and reading memory.
#pragma once

#include "cpu/kernels/kernels.h"
#if defined(__AMX_INT8__)
#include "cpu/kernels/matmul_coded_amx.h"
#elif defined(__AVX2__)
#include "cpu/kernels/dot_products_x86.h"
#else
#include "cpu/kernels/matmul_coded.h"
#endif
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

int64_t multiply_peak(int64_t steps, float* sink) {
  constexpr int kChains = 12;  // more than latency times throughput of every core we know
  Vec sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = broadcast(sink[0] + static_cast<float>(c));
  const Vec a = broadcast(0.999f);
  const Vec b = broadcast(0.001f);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = fma(sums[c], a, b);
  }
  Vec total = Vec{};
  for (int c = 0; c < kChains; ++c) total += sums[c];
  float lanes[kLanes];
  store(lanes, total);
  sink[0] = lanes[0];
  return steps * kChains * kLanes;
}

#if defined(__AMX_INT8__)

int64_t multiply_int8_peak(int64_t steps, int32_t* sink) {
  alignas(64) int32_t dots[kDotTileInts];
  configure_tiles(kAmxRows, 64);
  _tile_zero(2);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(3);
  _tile_zero(7);
  for (int64_t step = 0; step < steps; ++step) {  // four chains hide the latency of each
    _tile_dpbssd(0, 2, 4);
    _tile_dpbssd(1, 2, 5);
    _tile_dpbssd(3, 2, 6);
    _tile_dpbssd(7, 2, 4);
  }
  _tile_stored(0, dots, 64);
  _tile_release();
  settle_tile_memory();
  sink[0] += dots[0];
  return steps * 4 * kDotTileInts * 64;
}

#elif defined(__AVX2__)

int64_t multiply_int8_peak(int64_t steps, int32_t* sink) {
  constexpr int kChains = 10;
  Ints sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = broadcast_ints(c);
  const Ints codes = broadcast_ints(sink[0] & 0x0f0f0f0f);
  Ints values = broadcast_ints(sink[0] | 0x01010101);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 10
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+v"(values));  // else products that are all alike would be multiplied once
      sums[c] = add_products(sums[c], codes, values);
    }
  }
  for (int c = 1; c < kChains; ++c) sums[0] = add(sums[0], sums[c]);
  int32_t lanes[kLanes];
  __builtin_memcpy(lanes, &sums[0], sizeof lanes);
  sink[0] = lanes[0];
  return steps * kChains * kLanes * 4;
}

#else

// Without instructions of its own, the product of a group is the best there is.
int64_t multiply_int8_peak(int64_t steps, int32_t* sink) {
  PackedMatrix w;
  w.format = PackedFormat::kQ8;
  w.group_columns = 32;
  uint8_t codes[32 * kTileRows] = {};
  int8_t x[32] = {};
  int32_t dots[kTileRows];
  for (int64_t step = 0; step < steps; ++step) {
    codes[0] = static_cast<uint8_t>(sink[0]);
    x[0] = static_cast<int8_t>(step);
    dot_group(w, codes, x, dots);
    sink[0] += dots[0];
  }
  return steps * w.group_columns * kTileRows;
}

#endif

// The fastest pattern that was found: four streams, each called for a kibibyte ahead.
uint64_t read_stream(const void* from, int64_t bytes) {
  typedef uint64_t Words __attribute__((vector_size(sizeof(Vec))));
  constexpr int kStreams = 4;
  constexpr int64_t kLineBytes = 64;
  constexpr int64_t kAheadBytes = 1024;
  const char* p = static_cast<const char*>(from);
  const int64_t stream_bytes = bytes / kStreams / kLineBytes * kLineBytes;
  Words sums[kStreams] = {};
  for (int64_t i = 0; i < stream_bytes; i += kLineBytes) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const char* line = p + s * stream_bytes + i;
      __builtin_prefetch(line + kAheadBytes);
#pragma GCC unroll 4
      for (unsigned at = 0; at < kLineBytes; at += sizeof(Words)) {
        Words words;
        __builtin_memcpy(&words, line + at, sizeof(Words));
        sums[s] ^= words;
      }
    }
  }
  const Words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  uint64_t result = 0;
  for (unsigned i = 0; i < sizeof(Words) / sizeof(uint64_t); ++i) result ^= all[i];
  return result;
}

}  // namespace
}  // namespace ringside::cpu
