// Owns: activations to int8 with one scale a group, in the same arithmetic on every instruction set.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kLargestGroupColumns = 128;
constexpr float kSmallestMagnitude = 1e-33f;  // below, limit / magnitude or magnitude / limit would lose precision
constexpr float kLargestCode = 127.0f;
constexpr float kLargestWideCode = 127.0f * 128.0f;

// What lies in a group: its largest magnitude, compared as integers, so that an infinity or a NaN is the largest.
RS_INLINE float largest_magnitude(const float* x, int64_t columns) {
  Lanes largest = {};
  for (int64_t i = 0; i < columns; i += kLanes) {
    const Lanes bits = (Lanes)load(x + i) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  int32_t lanes[kLanes];
  __builtin_memcpy(lanes, &largest, sizeof lanes);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  }
  float magnitude;
  __builtin_memcpy(&magnitude, lanes, sizeof magnitude);
  return magnitude;
}

// A whole number of vectors. `low`: null for codes of one byte.
RS_INLINE void quantize_group(const float* x, int64_t columns, int8_t* values, int8_t* low, float* scale,
                              int32_t* sum) {
  const float magnitude = largest_magnitude(x, columns);
  const bool is_finite = magnitude <= __FLT_MAX__;
  if (!is_finite || magnitude < kSmallestMagnitude) {
    __builtin_memset(values, 0, static_cast<unsigned long>(columns));
    if (low != nullptr) __builtin_memset(low, 0, static_cast<unsigned long>(columns));
    *scale = is_finite ? 0.0f : magnitude;
    *sum = 0;
    return;
  }
  const float limit = low == nullptr ? kLargestCode : kLargestWideCode;
  *scale = magnitude / limit;
  const Vec inverse = broadcast(limit / magnitude);
  // Adding 1.5·2²³ rounds to the nearest whole number and leaves it in the low bits.
  const Vec magic = broadcast(12582912.0f);
  Lanes total = {};
  for (int64_t i = 0; i < columns; i += kLanes) {
    const Lanes codes = (Lanes)(load(x + i) * inverse + magic) - 0x4b400000;
    total += codes;
    if (low == nullptr) {
      store_bytes(values + i, codes);
    } else {
      const Lanes high = (codes + 64) >> 7;
      store_bytes(values + i, high);
      store_bytes(low + i, codes - (high << 7));
    }
  }
  int32_t lanes[kLanes];
  __builtin_memcpy(lanes, &total, sizeof lanes);
  int32_t all = 0;
  for (int i = 0; i < kLanes; ++i) all += lanes[i];
  *sum = all;
}

void quantize_columns(const float* x, int64_t first_column, int64_t columns, int64_t row, const QuantizedRows& out) {
  const int64_t size = out.group_columns;
  for (int64_t at = 0; at < columns; at += size) {
    const int64_t group = (first_column + at) / size;
    int8_t* values = out.values + row * out.stride + group * size;
    int8_t* low = out.low_offset == 0 ? nullptr : values + out.low_offset;
    float* scale = out.scales + row * out.groups + group;
    int32_t* sum = out.sums + row * out.groups + group;
    if (columns - at >= size) {
      quantize_group(x + at, size, values, low, scale, sum);
    } else {
      float rest[kLargestGroupColumns] = {};
      for (int64_t i = at; i < columns; ++i) rest[i - at] = x[i];
      quantize_group(rest, size, values, low, scale, sum);
    }
  }
}

void quantize_rows(const float* x, int64_t x_stride, int64_t first_row, int64_t rows, const QuantizedRows& out) {
  for (int64_t r = 0; r < rows; ++r) quantize_columns(x + r * x_stride, 0, out.columns, first_row + r, out);
}

}  // namespace
}  // namespace ringside::cpu
