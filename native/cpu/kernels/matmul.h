// Owns: the product of fp32 activations with one tile of F32 or BF16 weights.
// Order per element: within a group of columns one ascending chain, then the groups ascending.
#pragma once

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/kernels.h"

namespace ringside::cpu {
namespace {

// Up to this many rows the weights are widened on the way through; above, widening once into a panel is cheaper.
constexpr int64_t kDirectRows = 8;

template <class T>
RS_INLINE void multiply_group(const Operands<T>& in, int64_t rows, bool is_first, float* y, int64_t y_stride) {
  gemm(in, rows, kTileRows, [=](int64_t r, int64_t n, auto sum) {
    float* to = y + r * y_stride + n;
    store(to, is_first ? sum : sum + load_as<decltype(sum)>(to));
  });
}

template <class T>
void matmul_tile_of(const PackedMatrix& w, int64_t tile, const float* x, int64_t x_stride, int64_t rows, float* y,
                    int64_t y_stride, float* panel) {
  const T* weights = reinterpret_cast<const T*>(w.tiles + tile * w.tile_bytes());
  const int64_t groups = w.group_count();
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t column = group * w.group_columns;
    const int64_t left = w.columns - column;
    const int64_t depth = left < w.group_columns ? left : w.group_columns;
    const T* from = weights + column * kTileRows;
    if (rows <= kDirectRows || sizeof(T) == sizeof(float)) {
      multiply_group(Operands<T>{x + column, x_stride, from, kTileRows, depth}, rows, group == 0, y, y_stride);
    } else {
      widen_panel(from, depth * kTileRows, panel);
      multiply_group(Operands<float>{x + column, x_stride, panel, kTileRows, depth}, rows, group == 0, y, y_stride);
    }
  }
}

void matmul_tile(const PackedMatrix& w, int64_t tile, const float* x, int64_t x_stride, int64_t rows, float* y,
                 int64_t y_stride, float* panel) {
  if (w.format == PackedFormat::kF32) matmul_tile_of<float>(w, tile, x, x_stride, rows, y, y_stride, panel);
  if (w.format == PackedFormat::kBF16) matmul_tile_of<uint16_t>(w, tile, x, x_stride, rows, y, y_stride, panel);
}

}  // namespace
}  // namespace ringside::cpu
