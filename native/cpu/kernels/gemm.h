// Owns: C[r][n] = Σ_k A[r][k] B[k][n] with k ascending in one chain of multiply-adds per element, the inner loop of
// every kernel here. The register tile changes with the number of rows; the chain of an element never does.
#pragma once

#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

// Tried at 512 to 4096: the processor time of a decode step fell by a third from none to 4096.
constexpr int kPrefetchBytes = 4096;

template <class T>
struct Operands {
  const float* a;
  int64_t a_stride;
  const T* b;
  int64_t b_stride;
  int64_t depth;
};

// `put(row, column, sums)` receives each finished vector (or single float at an odd edge).
template <int kRows, int kVecs, class T, class Put>
RS_INLINE void gemm_tile(const Operands<T>& in, int64_t row, int64_t column, const Put& put) {
  Vec sums[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) sums[r][v] = Vec{};
  }
  const float* a = in.a + row * in.a_stride;
  const T* b = in.b + column;
  for (int64_t k = 0; k < in.depth; ++k, b += in.b_stride) {
    if constexpr (kRows == 1) {
      // One row waits for memory, and the hardware looks ahead no further than a page.
#pragma GCC unroll 8
      for (unsigned at = 0; at < kVecs * kLanes * sizeof(T); at += 64) {
        __builtin_prefetch(reinterpret_cast<const char*>(b) + kPrefetchBytes + at);
      }
    }
    Vec columns[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) columns[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec x = broadcast(a[r * in.a_stride + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sums[r][v] = fma(x, columns[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) put(row + r, column + v * kLanes, sums[r][v]);
  }
}

template <int kVecs, class T, class Put>
RS_INLINE void gemm_columns(const Operands<T>& in, int64_t rows, int64_t column, const Put& put) {
  int64_t row = 0;
  for (; row + kManyRows <= rows; row += kManyRows) gemm_tile<kManyRows, kVecs>(in, row, column, put);
  for (; row + 2 <= rows; row += 2) gemm_tile<2, kVecs>(in, row, column, put);
  if (row < rows) gemm_tile<1, kVecs>(in, row, column, put);
}

template <class T, class Put>
RS_INLINE void gemm(const Operands<T>& in, int64_t rows, int64_t columns, const Put& put) {
  int64_t column = 0;
  if (rows == 1) {  // a wide tile: one row has no other independent chains to hide the latency of an addition
    for (; column + kOneRowVecs * kLanes <= columns; column += kOneRowVecs * kLanes) {
      gemm_tile<1, kOneRowVecs>(in, 0, column, put);
    }
  }
  for (; column + kManyVecs * kLanes <= columns; column += kManyVecs * kLanes) {
    gemm_columns<kManyVecs>(in, rows, column, put);
  }
  for (; column + kLanes <= columns; column += kLanes) gemm_columns<1>(in, rows, column, put);
  for (; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      float sum = 0.0f;
      for (int64_t k = 0; k < in.depth; ++k) {
        sum = fma(in.a[row * in.a_stride + k], widen(in.b[k * in.b_stride + column]), sum);
      }
      put(row, column, sum);
    }
  }
}

// Widens to fp32; exact, so a kernel may read widened or stored values and give the same bits.
template <class T>
RS_INLINE void widen_panel(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = widen(from[i]);
}

}  // namespace
}  // namespace ringside::cpu
