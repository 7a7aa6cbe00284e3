// Owns: packing. Runs once at load, so it is written for one pass over memory and nothing more.
#include "cpu/kernels/pack.h"

#include <algorithm>
#include <cstring>

namespace ringside::cpu {
namespace {

int64_t element_bytes(PackedFormat format) {
  switch (format) {
    case PackedFormat::kF32:
      return 4;
    case PackedFormat::kBF16:
      return 2;
    case PackedFormat::kQ8:
      return 1;
  }
  return 0;
}

// Transposes up to 64 rows of `columns` elements into [columns, 64], in strips that stay in the first-level cache.
template <class T>
void transpose_rows(const T* from, int64_t rows, int64_t columns, T* to) {
  constexpr int64_t kStrip = 64;
  for (int64_t start = 0; start < columns; start += kStrip) {
    const int64_t end = std::min(columns, start + kStrip);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = start; column < end; ++column) to[column * kTileRows + row] = from[row * columns + column];
    }
    for (int64_t row = rows; row < kTileRows; ++row) {
      for (int64_t column = start; column < end; ++column) to[column * kTileRows + row] = T{};
    }
  }
}

template <class T>
void pack_tile_of(const rs_matrix& from, int64_t tile, uint8_t* tiles) {
  const int64_t first = tile * kTileRows;
  const int64_t rows = std::min(kTileRows, from.rows - first);
  transpose_rows(static_cast<const T*>(from.data) + first * from.cols, rows, from.cols,
                 reinterpret_cast<T*>(tiles) + first * from.cols);
}

}  // namespace

int64_t packed_tile_bytes(const PackedMatrix& shape) {
  return shape.tile_count() * kTileRows * shape.columns * element_bytes(shape.format);
}

int64_t packed_scale_bytes(const PackedMatrix& shape) {
  if (shape.format != PackedFormat::kQ8) return 0;
  return shape.tile_count() * kTileRows * shape.group_count() * static_cast<int64_t>(sizeof(float));
}

PackedMatrix packed_shape(rs_weight_format format, int64_t rows, int64_t columns, int64_t group_columns) {
  PackedMatrix shape;
  shape.rows = rows;
  shape.columns = columns;
  shape.group_columns = kUnscaledGroupColumns;
  if (format == RS_WEIGHT_BF16) shape.format = PackedFormat::kBF16;
  if (format == RS_WEIGHT_Q8) {
    shape.format = PackedFormat::kQ8;
    shape.group_columns = group_columns;
  }
  return shape;
}

void pack_tile(const rs_matrix& from, const PackedMatrix& shape, int64_t tile, uint8_t* tiles, float* scales) {
  switch (shape.format) {
    case PackedFormat::kF32:
      return pack_tile_of<float>(from, tile, tiles);
    case PackedFormat::kBF16:
      return pack_tile_of<uint16_t>(from, tile, tiles);
    case PackedFormat::kQ8:
      break;
  }
  pack_tile_of<int8_t>(from, tile, tiles);
  const int64_t first = tile * kTileRows;
  const int64_t groups = shape.group_count();
  transpose_rows(from.scales + first * groups, std::min(kTileRows, from.rows - first), groups, scales + first * groups);
}

}  // namespace ringside::cpu
