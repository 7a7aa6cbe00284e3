// Owns: packing. Runs once at load, so it is written for one pass over memory and nothing more.
#include "cpu/kernels/pack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/kernels/pack_words.h"
#include "model/float_formats.h"

namespace ringside::cpu {
namespace {

// Transposes up to 64 rows of `columns` elements into [columns, 64], in strips that stay in the first-level cache.
template <class T>
void transpose_rows(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to) {
  constexpr int64_t kStrip = 64;
  for (int64_t start = 0; start < columns; start += kStrip) {
    const int64_t end = std::min(columns, start + kStrip);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = start; column < end; ++column)
        to[column * kTileRows + row] = from[row * from_stride + column];
    }
    for (int64_t row = rows; row < kTileRows; ++row) {
      for (int64_t column = start; column < end; ++column) to[column * kTileRows + row] = T{};
    }
  }
}

struct Fp8Table {
  float values[256];
  Fp8Table() {
    for (int code = 0; code < 256; ++code) values[code] = fp8_to_float(static_cast<uint8_t>(code));
  }
};

// The largest group that the kernels know and that lies inside the stored ones; 0: none.
int64_t kernel_group_columns(int64_t stored_columns, int64_t columns) {
  if (stored_columns >= columns) return columns <= 32 ? 32 : columns <= 64 ? 64 : 128;
  for (const int64_t size : {128, 64, 32}) {
    if (stored_columns % size == 0) return size;
  }
  return 0;
}

// Four codes of eight columns in the order of the file (even column in the low half) to the order of the tiles.
uint32_t interleave_halves(uint32_t stored) {
  const auto spread = [](uint32_t two) {
    two = (two | two << 8) & 0x00ff00ffu;
    return (two | two << 4) & 0x0f0f0f0fu;
  };
  return spread(stored & 0xffffu) | spread(stored >> 16) << 4;
}

// The codes of one group of one row, four bytes for each place of the tile that `put` is asked to fill.
void pack_q4_row(const uint8_t* from, int64_t columns, int64_t group_columns, uint8_t* to) {
  int64_t column = 0;
  for (; column + 8 <= columns; column += 8, to += 4 * kTileRows) {
    uint32_t stored;
    std::memcpy(&stored, from + column / 2, sizeof stored);
    stored = interleave_halves(stored);
    std::memcpy(to, &stored, sizeof stored);
  }
  for (; column < group_columns; column += 8, to += 4 * kTileRows) {
    uint32_t stored = 0x88888888u;  // code 0
    if (column < columns) std::memcpy(&stored, from + column / 2, static_cast<size_t>(columns - column) / 2);
    stored = interleave_halves(stored);
    std::memcpy(to, &stored, sizeof stored);
  }
}

void pack_q8_row(const int8_t* from, int64_t columns, int64_t group_columns, uint8_t* to) {
  int64_t column = 0;
  for (; column + 4 <= columns; column += 4, to += 4 * kTileRows) std::memcpy(to, from + column, 4);
  for (; column < group_columns; column += 4, to += 4 * kTileRows) {
    std::memset(to, 0, 4);
    if (column < columns) std::memcpy(to, from + column, static_cast<size_t>(columns - column));
  }
}

// One group of values to signed bytes: what quantised checkpoints do, at load. A value that is no number makes the
// scale none.
float quantize_to_bytes(const float* values, int64_t columns, int8_t* codes) {
  float magnitude = 0.0f;
  bool is_number = true;
  for (int64_t i = 0; i < columns; ++i) {
    is_number = is_number && std::isfinite(values[i]);
    magnitude = std::max(magnitude, std::fabs(values[i]));
  }
  std::fill_n(codes, columns, int8_t{0});
  if (!is_number) return std::numeric_limits<float>::quiet_NaN();
  const float scale = magnitude / 127.0f;
  if (scale < std::numeric_limits<float>::min()) return 0.0f;
  for (int64_t i = 0; i < columns; ++i) codes[i] = static_cast<int8_t>(std::lrint(values[i] / scale));
  return scale;
}

void set_output(const PackedMatrix& shape, uint8_t* block, int64_t output, float scale, float offset) {
  auto* scales = reinterpret_cast<float*>(block + shape.code_bytes());
  scales[output] = scale;
  if (shape.has_offsets) scales[kTileRows + output] = offset;
}

void pack_fp8_row(const rs_matrix& stored, int64_t row, const PackedMatrix& shape, int64_t output, uint8_t* tile) {
  std::vector<float> values(static_cast<size_t>(stored.cols));
  row_to_float(stored, row, values.data());
  int8_t codes[128];  // the largest group
  for (int64_t group = 0; group < shape.group_count(); ++group, tile += shape.block_bytes()) {
    const int64_t first = group * shape.group_columns;
    const int64_t columns = std::min(shape.group_columns, stored.cols - first);
    const float scale = quantize_to_bytes(values.data() + first, columns, codes);
    pack_q8_row(codes, columns, shape.group_columns, tile + 4 * output);
    set_output(shape, tile, output, scale, 0.0f);
  }
}

void pack_coded_row(const rs_matrix& stored, int64_t row, const PackedMatrix& shape, int64_t output, uint8_t* tile) {
  const auto* from = static_cast<const uint8_t*>(stored.data) + row * stored_row_bytes(stored.format, stored.cols);
  const int64_t groups = stored_groups(stored);
  for (int64_t group = 0; group < shape.group_count(); ++group, tile += shape.block_bytes()) {
    const int64_t first = group * shape.group_columns;
    const int64_t columns = std::min(shape.group_columns, stored.cols - first);
    if (shape.format == PackedFormat::kQ4) {
      pack_q4_row(from + first / 2, columns, shape.group_columns, tile + 4 * output);
    } else {
      pack_q8_row(reinterpret_cast<const int8_t*>(from) + first, columns, shape.group_columns, tile + 4 * output);
    }
    const int64_t at = row * groups + first / stored.group_columns;
    set_output(shape, tile, output, stored.scales[at], stored.offsets == nullptr ? 0.0f : stored.offsets[at]);
  }
}

void clear_output(const PackedMatrix& shape, int64_t output, uint8_t* tile) {
  for (int64_t group = 0; group < shape.group_count(); ++group, tile += shape.block_bytes()) {
    if (shape.format == PackedFormat::kQ4) {
      pack_q4_row(nullptr, 0, shape.group_columns, tile + 4 * output);
    } else {
      pack_q8_row(nullptr, 0, shape.group_columns, tile + 4 * output);
    }
    set_output(shape, tile, output, 0.0f, 0.0f);
  }
}

PackWords choose_pack_words() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return pack_words_avx2;
#endif
  return pack_words;
}

// A tile without missing outputs or columns, whose codes are only moved.
void pack_whole_tile(const rs_matrix& stored, int64_t first_row, const PackedMatrix& shape, uint8_t* tile) {
  static const PackWords kPackWords = choose_pack_words();
  const bool is_q4 = shape.format == PackedFormat::kQ4;
  const int64_t row_bytes = stored_row_bytes(stored.format, stored.cols);
  const auto* from = static_cast<const uint8_t*>(stored.data) + first_row * row_bytes;
  const int64_t groups = stored_groups(stored);
  const int64_t group_row_bytes = shape.code_bytes() / kTileRows;
  for (int64_t group = 0; group < shape.group_count(); ++group, from += group_row_bytes, tile += shape.block_bytes()) {
    kPackWords(from, row_bytes, group_row_bytes / 4, is_q4, tile);
    const int64_t first = first_row * groups + group * shape.group_columns / stored.group_columns;
    for (int64_t r = 0; r < kTileRows; ++r) {
      const int64_t at = first + r * groups;
      set_output(shape, tile, r, stored.scales[at], stored.offsets == nullptr ? 0.0f : stored.offsets[at]);
    }
  }
}

// kF32 from any format.
void pack_floats(const rs_matrix& stored, int64_t first_row, int64_t rows, float* tile) {
  std::vector<float> values(static_cast<size_t>(rows * stored.cols));
  for (int64_t r = 0; r < rows; ++r) row_to_float(stored, first_row + r, values.data() + r * stored.cols);
  transpose_rows(values.data(), stored.cols, rows, stored.cols, tile);
}

}  // namespace

Result<PackedMatrix> packed_shape(const std::string& name, const rs_matrix& stored) {
  PackedMatrix shape = packed_shape_unquantized(stored);
  if (stored.format == RS_WEIGHT_F32 || stored.format == RS_WEIGHT_BF16) return shape;
  if (stored.group_columns < 1) {
    return Error{ErrorKind::kQuantizationUnsupported, name, "groups of at least 1 column",
                 std::to_string(stored.group_columns)};
  }
  shape.has_offsets = stored.offsets != nullptr;
  switch (stored.format) {
    case RS_WEIGHT_Q8:
    case RS_WEIGHT_Q4:
      shape.format = stored.format == RS_WEIGHT_Q8 ? PackedFormat::kQ8 : PackedFormat::kQ4;
      shape.group_columns = kernel_group_columns(stored.group_columns, stored.cols);
      break;
    case RS_WEIGHT_FP8:  // the offset is part of the values that are quantised anew
      shape.format = PackedFormat::kQ8;
      shape.has_offsets = false;
      shape.group_columns = kernel_group_columns(stored.cols, stored.cols);
      break;
    default:
      return Error{ErrorKind::kQuantizationUnsupported, name, "F32, BF16, Q8, Q4 or FP8",
                   std::to_string(stored.format)};
  }
  if (shape.group_columns == 0) {
    return Error{ErrorKind::kQuantizationUnsupported, name, "groups of a multiple of 32 columns or of the whole row",
                 std::to_string(stored.group_columns)};
  }
  return shape;
}

PackedMatrix packed_shape_unquantized(const rs_matrix& stored) {
  PackedMatrix shape;
  shape.format = stored.format == RS_WEIGHT_BF16 ? PackedFormat::kBF16 : PackedFormat::kF32;
  shape.rows = stored.rows;
  shape.columns = stored.cols;
  shape.group_columns = kUnscaledGroupColumns;
  return shape;
}

void pack_tile(const rs_matrix& stored, int64_t first_row, const PackedMatrix& shape, uint8_t* tile) {
  const int64_t rows = std::min(kTileRows, stored.rows - first_row);
  if (shape.format == PackedFormat::kF32) {
    return pack_floats(stored, first_row, rows, reinterpret_cast<float*>(tile));
  }
  if (shape.format == PackedFormat::kBF16) {
    return transpose_rows(static_cast<const uint16_t*>(stored.data) + first_row * stored.cols, stored.cols, rows,
                          stored.cols, reinterpret_cast<uint16_t*>(tile));
  }
  if (stored.format != RS_WEIGHT_FP8 && rows == kTileRows && stored.cols % shape.group_columns == 0) {
    return pack_whole_tile(stored, first_row, shape, tile);
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (stored.format == RS_WEIGHT_FP8) {
      pack_fp8_row(stored, first_row + r, shape, r, tile);
    } else {
      pack_coded_row(stored, first_row + r, shape, r, tile);
    }
  }
  for (int64_t r = rows; r < kTileRows; ++r) clear_output(shape, r, tile);
}

int64_t stored_row_bytes(int32_t format, int64_t columns) {
  if (format == RS_WEIGHT_F32) return columns * 4;
  if (format == RS_WEIGHT_BF16) return columns * 2;
  return format == RS_WEIGHT_Q4 ? columns / 2 : columns;
}

int64_t stored_groups(const rs_matrix& stored) {
  if (stored.format == RS_WEIGHT_F32 || stored.format == RS_WEIGHT_BF16) return 0;
  return (stored.cols + stored.group_columns - 1) / stored.group_columns;
}

void row_to_float(const rs_matrix& stored, int64_t row, float* out) {
  static const Fp8Table kFp8;
  const auto* from = static_cast<const uint8_t*>(stored.data) + row * stored_row_bytes(stored.format, stored.cols);
  if (stored.format == RS_WEIGHT_F32) {
    std::memcpy(out, from, static_cast<size_t>(stored.cols) * sizeof(float));
    return;
  }
  if (stored.format == RS_WEIGHT_BF16) {
    const auto* halves = reinterpret_cast<const uint16_t*>(from);
    for (int64_t c = 0; c < stored.cols; ++c) out[c] = std::bit_cast<float>(uint32_t{halves[c]} << 16);
    return;
  }
  const int64_t first_group = row * stored_groups(stored);
  for (int64_t c = 0; c < stored.cols; ++c) {
    float code = 0.0f;
    if (stored.format == RS_WEIGHT_Q8) code = static_cast<float>(static_cast<int8_t>(from[c]));
    if (stored.format == RS_WEIGHT_Q4) code = static_cast<float>((from[c / 2] >> (c % 2 * 4) & 15) - 8);
    if (stored.format == RS_WEIGHT_FP8) code = kFp8.values[from[c]];
    const int64_t at = first_group + c / stored.group_columns;
    out[c] = code * stored.scales[at] + (stored.offsets == nullptr ? 0.0f : stored.offsets[at]);
  }
}

int64_t quantized_low_offset(int64_t columns, int64_t group_columns) {
  return ((columns + group_columns - 1) / group_columns * group_columns + 63) / 64 * 64;
}

int64_t quantized_stride(int64_t columns, int64_t group_columns, int code_bytes) {
  return (quantized_low_offset(columns, group_columns) * code_bytes / 64 | 1) * 64;
}

}  // namespace ringside::cpu
