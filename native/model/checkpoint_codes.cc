#include "model/checkpoint_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "model/checkpoint_reads.h"

namespace ringside {
namespace {

constexpr int64_t kRequantisedColumns = 128;
// A word is 4 bytes, so a tile of 64 × 16 words touches 64 lines to write and 16 to read.
constexpr size_t kTileRows = 64;
constexpr size_t kTileWords = 16;
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

int64_t bytes_of(WeightFormat format, int64_t values) {
  switch (format) {
    case WeightFormat::kF32:
      return values * 4;
    case WeightFormat::kBF16:
      return values * 2;
    case WeightFormat::kQ4:
      return values / 2;
    case WeightFormat::kQ8:
    case WeightFormat::kFP8:
      return values;
  }
  return 0;
}

void unpack_row(const Matrix& matrix, size_t row, int8_t* out) {
  const size_t cols = static_cast<size_t>(matrix.cols);
  if (matrix.format == WeightFormat::kQ8) {
    std::memcpy(out, matrix.data.data() + row * cols, cols);
    return;
  }
  const uint8_t* pairs = matrix.data.data() + row * cols / 2;
  for (size_t i = 0; i < cols / 2; ++i) {
    out[2 * i] = static_cast<int8_t>((pairs[i] & 15) - 8);
    out[2 * i + 1] = static_cast<int8_t>((pairs[i] >> 4) - 8);
  }
}

void quantise_group(const float* values, size_t count, uint8_t* codes, float& scale) {
  float largest = 0.0f;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  scale = largest / 127.0f;
  const float divisor = scale == 0.0f ? 1.0f : scale;
  for (size_t i = 0; i < count; ++i) {
    // The sum has no room for a fraction, so the addition rounds to the nearest whole number, which its low bits hold.
    const float sum = values[i] / divisor + kRounder;
    codes[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(sum));
  }
}

}  // namespace

void shape_matrix(Matrix& out, WeightFormat format, const RowSlice& slice, int64_t group_columns) {
  out.format = format;
  out.rows = slice.row_count;
  out.cols = slice.cols;
  out.group_columns = group_columns;
  out.data.resize(static_cast<size_t>(bytes_of(format, slice.row_count * slice.cols)));
  out.scales.clear();
  out.offsets.clear();
}

void shape_coded(Matrix& out, int bits, const RowSlice& slice, int64_t group_columns) {
  shape_matrix(out, bits == 4 ? WeightFormat::kQ4 : WeightFormat::kQ8, slice, group_columns);
}

void sign_codes(Matrix& out) {
  // 128 + q becomes q in two's complement; four-bit codes are kept as code + 8, as they are stored.
  if (out.format != WeightFormat::kQ8) return;
  for (uint8_t& byte : out.data) byte ^= 0x80;
}

void transpose_codes(const std::vector<uint32_t>& words, Matrix& out) {
  const size_t rows = static_cast<size_t>(out.rows);
  const size_t row_words = rows == 0 ? 0 : words.size() / rows;
  const uint32_t flip = out.format == WeightFormat::kQ8 ? 0x80808080u : 0;
  uint8_t* to = out.data.data();
  for (size_t first_row = 0; first_row < rows; first_row += kTileRows) {
    const size_t past_row = std::min(rows, first_row + kTileRows);
    for (size_t first_word = 0; first_word < row_words; first_word += kTileWords) {
      const size_t past_word = std::min(row_words, first_word + kTileWords);
      for (size_t row = first_row; row < past_row; ++row) {
        for (size_t word = first_word; word < past_word; ++word) {
          const uint32_t codes = words[word * rows + row] ^ flip;
          std::memcpy(to + (row * row_words + word) * sizeof codes, &codes, sizeof codes);
        }
      }
    }
  }
}

void requantise(const std::vector<int32_t>& group_of, Matrix& matrix) {
  const size_t rows = static_cast<size_t>(matrix.rows);
  const size_t cols = static_cast<size_t>(matrix.cols);
  const size_t groups = static_cast<size_t>(matrix.group_count());
  const size_t wide = static_cast<size_t>(kRequantisedColumns);
  const size_t wide_groups = (cols + wide - 1) / wide;
  WeightBytes codes(rows * cols);
  std::vector<float> scales(rows * wide_groups);
  std::vector<int8_t> row_codes(cols);
  std::vector<float> values(cols);
  const std::vector<float> no_offsets(groups, 0.0f);
  for (size_t row = 0; row < rows; ++row) {
    unpack_row(matrix, row, row_codes.data());
    const float* row_scales = &matrix.scales[row * groups];
    const float* row_offsets = matrix.offsets.empty() ? no_offsets.data() : &matrix.offsets[row * groups];
    // Exact for scales of 16 bits: code, zero point and scale have fewer bits together than a float.
    for (size_t column = 0; column < cols; ++column) {
      const int32_t group = group_of[column];
      values[column] = static_cast<float>(row_codes[column]) * row_scales[group] + row_offsets[group];
    }
    for (size_t g = 0; g < wide_groups; ++g) {
      quantise_group(&values[g * wide], std::min(wide, cols - g * wide), &codes[row * cols + g * wide],
                     scales[row * wide_groups + g]);
    }
  }
  matrix.format = WeightFormat::kQ8;
  matrix.group_columns = kRequantisedColumns;
  matrix.data = std::move(codes);
  matrix.scales = std::move(scales);
  matrix.offsets.clear();
}

bool is_in_order(const std::vector<int32_t>& group_of, int64_t group_columns) {
  for (size_t column = 0; column < group_of.size(); ++column) {
    if (group_of[column] != static_cast<int64_t>(column) / group_columns) return false;
  }
  return true;
}

Result<std::vector<int32_t>> read_group_of(const CheckpointFiles::Tensor& tensor, int64_t groups) {
  const TensorInfo& info = *tensor.info;
  std::vector<int32_t> group_of(static_cast<size_t>(info.shape[0]));
  RS_CHECK(tensor.file->read(info, 0, group_of.data(), info.length_bytes));
  const auto bad = std::find_if(group_of.begin(), group_of.end(), [&](int32_t g) { return g < 0 || g >= groups; });
  if (bad == group_of.end()) return group_of;
  return Error{ErrorKind::kFileMalformed, info.name, "groups of 0 to " + std::to_string(groups - 1),
               std::to_string(*bad) + " at " + std::to_string(bad - group_of.begin())};
}

void dequantise(Matrix& matrix) {
  if (matrix.format == WeightFormat::kF32 || matrix.format == WeightFormat::kBF16) return;
  WeightBytes values(static_cast<size_t>(bytes_of(WeightFormat::kF32, matrix.rows * matrix.cols)));
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  for (int64_t r = 0; r < matrix.rows; ++r) {
    matrix.row_to_float(r, row.data());
    std::memcpy(values.data() + static_cast<size_t>(r) * row.size() * sizeof(float), row.data(),
                row.size() * sizeof(float));
  }
  matrix.format = WeightFormat::kF32;
  matrix.group_columns = 0;
  matrix.data = std::move(values);
  matrix.scales.clear();
  matrix.offsets.clear();
}

}  // namespace ringside
