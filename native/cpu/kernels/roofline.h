// Owns: the two loops that measure what a core can do at best: fp32 multiply-adds, and reading memory.
#pragma once

#include "cpu/kernels/kernels.h"
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

uint64_t read_stream(const void* from, int64_t bytes) {
  typedef uint64_t Words __attribute__((vector_size(sizeof(Vec))));
  constexpr int kStreams = 4;
  const char* p = static_cast<const char*>(from);
  Words sums[kStreams] = {};
  for (int64_t i = 0; i + kStreams * static_cast<int64_t>(sizeof(Words)) <= bytes; i += kStreams * sizeof(Words)) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      Words words;
      __builtin_memcpy(&words, p + i + s * sizeof(Words), sizeof(Words));
      sums[s] ^= words;
    }
  }
  const Words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  uint64_t result = 0;
  for (unsigned i = 0; i < sizeof(Words) / sizeof(uint64_t); ++i) result ^= all[i];
  return result;
}

}  // namespace
}  // namespace ringside::cpu
