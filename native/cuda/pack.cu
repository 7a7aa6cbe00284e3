#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "cuda/pack.h"

namespace ringside::cuda {
namespace {

constexpr int64_t kHalfRows = kTileRows / 2;
constexpr int64_t kRunBytes = 32;   // of a row in a block: four lanes
constexpr int64_t kLaneBytes = 16;  // of both rows of a lane
constexpr int64_t kLaneRowBytes = 8;

float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Nearest, ties to even.
uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float fp8_to_float(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int fraction = code & 7;
  if ((code & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                        : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

struct Fp8Table {
  float values[256];
  Fp8Table() {
    for (int code = 0; code < 256; ++code) values[code] = fp8_to_float(static_cast<uint8_t>(code));
  }
};

int64_t row_bytes(MatrixFormat format, int64_t columns) {
  return format == MatrixFormat::kBF16 ? 2 * columns : format == MatrixFormat::kQ4 ? columns / 2 : columns;
}

MatrixFormat own_format(int32_t stored) {
  switch (stored) {
    case RS_WEIGHT_Q8:
      return MatrixFormat::kQ8;
    case RS_WEIGHT_Q4:
      return MatrixFormat::kQ4;
    case RS_WEIGHT_FP8:
      return MatrixFormat::kFP8;
    default:
      return MatrixFormat::kBF16;
  }
}

int64_t stored_groups(const rs_matrix& stored) {
  return (stored.cols + stored.group_columns - 1) / stored.group_columns;
}

// Half byte j of a stored word is column j. Even columns go to the low half of the word, odd ones to the high half.
uint32_t unzip_codes(uint32_t word) {
  const auto gather = [](uint32_t even) {
    even &= 0x0f0f0f0fu;
    even = (even | even >> 4) & 0x00ff00ffu;
    return (even | even >> 8) & 0xffffu;
  };
  return gather(word) | gather(word >> 4) << 16;
}

// The row's bytes from column 0 on, into its places of the tile's blocks: 8 bytes a lane, in runs of four lanes.
void scatter_row(const uint8_t* row, int64_t bytes, bool is_q4, int64_t row_of_half, int half, uint8_t* blocks) {
  uint8_t* to = blocks + row_of_half * 4 * kLaneBytes + half * kLaneRowBytes;
  for (int64_t at = 0; at < bytes; at += kRunBytes, to += kBlockBytes) {
    for (int64_t lane = 0; lane < 4; ++lane) {
      uint64_t codes;
      std::memcpy(&codes, row + at + lane * kLaneRowBytes, sizeof codes);
      if (is_q4) {
        codes =
            uint64_t{unzip_codes(static_cast<uint32_t>(codes >> 32))} << 32 | unzip_codes(static_cast<uint32_t>(codes));
      }
      std::memcpy(to + lane * kLaneBytes, &codes, sizeof codes);
    }
  }
}

// Scales (or offsets) of eight rows to [group, 16]; a stored group may hold several of ours.
void scatter_groups(const rs_matrix& stored, const float* from, int64_t first_row, int64_t group_columns, int half,
                    float* to) {
  const int64_t groups = stored.cols / group_columns;
  for (int64_t group = 0; group < groups; ++group) {
    float* sixteen = to + group * kTileRows + half * kHalfRows;
    if (from == nullptr) {
      std::fill_n(sixteen, kHalfRows, 0.0f);
      continue;
    }
    const float* column = from + first_row * stored_groups(stored) + group * group_columns / stored.group_columns;
    for (int64_t row = 0; row < kHalfRows; ++row) sixteen[row] = column[row * stored_groups(stored)];
  }
}

}  // namespace

void row_to_float(const rs_matrix& stored, int64_t row, float* out) {
  static const Fp8Table fp8;
  const int64_t begin = row * stored.cols;
  if (stored.format == RS_WEIGHT_F32) {
    std::memcpy(out, static_cast<const float*>(stored.data) + begin, static_cast<size_t>(stored.cols) * sizeof(float));
    return;
  }
  if (stored.format == RS_WEIGHT_BF16) {
    const uint16_t* halves = static_cast<const uint16_t*>(stored.data) + begin;
    std::transform(halves, halves + stored.cols, out, bf16_to_float);
    return;
  }
  const auto* bytes = static_cast<const uint8_t*>(stored.data);
  for (int64_t column = 0; column < stored.cols; ++column) {
    const int64_t group = row * stored_groups(stored) + column / stored.group_columns;
    const int64_t at = begin + column;
    const float code = stored.format == RS_WEIGHT_Q8   ? static_cast<float>(static_cast<int8_t>(bytes[at]))
                       : stored.format == RS_WEIGHT_Q4 ? static_cast<float>((bytes[at / 2] >> (at % 2 * 4) & 15) - 8)
                                                       : fp8.values[bytes[at]];
    out[column] = code * stored.scales[group] + (stored.offsets == nullptr ? 0.0f : stored.offsets[group]);
  }
}

Result<WeightForm> weight_form(const std::string& name, const rs_matrix& stored) {
  if (stored.format < RS_WEIGHT_F32 || stored.format > RS_WEIGHT_FP8) {
    return Error{ErrorKind::kTensorDtype, name, "a format of rs_weight_format", std::to_string(stored.format)};
  }
  WeightForm form;
  form.format = own_format(stored.format);
  if (form.format == MatrixFormat::kBF16) return form;
  form.has_offsets = stored.offsets != nullptr;
  if (stored.group_columns >= stored.cols) form.group_columns = 128;
  for (const int32_t columns : {32, 64, 128}) {
    if (stored.group_columns < stored.cols && stored.group_columns % columns == 0) form.group_columns = columns;
  }
  if (form.group_columns != 0) return form;
  return Error{ErrorKind::kQuantizationUnsupported, name, "groups of a multiple of 32 columns",
               std::to_string(stored.group_columns)};
}

Result<DeviceMatrix> device_form(const std::string& name, const rs_matrix& stored) {
  if (stored.rows < 1 || stored.rows % kTileRows != 0 || stored.cols < 1 || stored.cols % kColumnsMultiple != 0 ||
      stored.rows > INT32_MAX || stored.cols > INT32_MAX) {
    return Error{ErrorKind::kTensorShape, name, "rows in multiples of 16 and columns of 128",
                 "[" + std::to_string(stored.rows) + ", " + std::to_string(stored.cols) + "]"};
  }
  RS_TRY(const WeightForm form, weight_form(name, stored));
  DeviceMatrix matrix;
  matrix.format = form.format;
  matrix.rows = static_cast<int32_t>(stored.rows);
  matrix.columns = static_cast<int32_t>(stored.cols);
  matrix.group_columns = form.group_columns;
  return matrix;
}

WeightForm widest(const WeightForm& a, const WeightForm& b) {
  if (a == b) return a;
  if (a.format == MatrixFormat::kBF16 || b.format == MatrixFormat::kBF16) return {};
  // A code of four bits is a code of eight; one of FP8 is neither.
  const bool is_fp8 = a.format == MatrixFormat::kFP8;
  if (is_fp8 != (b.format == MatrixFormat::kFP8)) return {};
  const MatrixFormat format = a.format == b.format ? a.format : MatrixFormat::kQ8;
  return {format, std::min(a.group_columns, b.group_columns), a.has_offsets || b.has_offsets};
}

const uint8_t* TilePacker::row_in(const rs_matrix& stored, int64_t row, MatrixFormat format) {
  const bool is_float = stored.format == RS_WEIGHT_F32;
  if (!is_float && own_format(stored.format) == format) {
    return static_cast<const uint8_t*>(stored.data) + row * row_bytes(format, stored.cols);
  }
  const auto columns = static_cast<size_t>(stored.cols);
  converted_.resize(static_cast<size_t>(row_bytes(format, stored.cols)));
  if (format == MatrixFormat::kQ8) {  // from kQ4
    const auto* pairs = static_cast<const uint8_t*>(stored.data) + row * stored.cols / 2;
    for (size_t i = 0; i < columns; ++i) {
      converted_[i] = static_cast<uint8_t>(static_cast<int8_t>((pairs[i / 2] >> (i % 2 * 4) & 15) - 8));
    }
    return converted_.data();
  }
  values_.resize(columns);
  row_to_float(stored, row, values_.data());
  for (size_t i = 0; i < columns; ++i) {
    const uint16_t half = float_to_bf16(values_[i]);
    std::memcpy(converted_.data() + 2 * i, &half, sizeof half);
  }
  return converted_.data();
}

void TilePacker::pack_half(const rs_matrix& stored, int64_t first_row, const WeightForm& form, int half,
                           const TileMemory& to) {
  const int64_t bytes = row_bytes(form.format, stored.cols);
  for (int64_t row = 0; row < kHalfRows; ++row) {
    scatter_row(row_in(stored, first_row + row, form.format), bytes, form.format == MatrixFormat::kQ4, row, half,
                to.blocks);
  }
  if (form.group_columns == 0) return;
  scatter_groups(stored, stored.scales, first_row, form.group_columns, half, to.scales);
  if (form.has_offsets) scatter_groups(stored, stored.offsets, first_row, form.group_columns, half, to.offsets);
}

void TilePacker::pack_router_half(const rs_matrix& stored, int64_t first_row, bool has_low, int half,
                                  const TileMemory& to) {
  const auto columns = static_cast<size_t>(stored.cols);
  values_.resize(columns);
  converted_.resize(columns * sizeof(uint16_t) * 3);
  for (int64_t row = 0; row < kHalfRows; ++row) {
    row_to_float(stored, first_row + row, values_.data());
    for (size_t i = 0; i < columns; ++i) {
      const uint16_t high = float_to_bf16(values_[i]);
      const uint16_t low = float_to_bf16(values_[i] - bf16_to_float(high));
      std::memcpy(converted_.data() + 2 * i, &high, sizeof high);
      std::memcpy(converted_.data() + 2 * (columns + i), &high, sizeof high);
      std::memcpy(converted_.data() + 2 * (2 * columns + i), &low, sizeof low);
    }
    const int64_t bytes = row_bytes(MatrixFormat::kBF16, stored.cols) * (has_low ? 3 : 2);
    scatter_row(converted_.data(), bytes, false, row, half, to.blocks);
  }
}

void pack_blocks(const rs_matrix& stored, const WeightForm& form, uint8_t* blocks, float* scales, float* offsets) {
  TilePacker packer;
  const int64_t tile_bytes = row_bytes(form.format, stored.cols) * kTileRows;
  const int64_t tile_scales = form.group_columns == 0 ? 0 : stored.cols / form.group_columns * kTileRows;
  for (int64_t tile = 0; tile < stored.rows / kTileRows; ++tile) {
    packer.pack(stored, tile * kTileRows, form,
                {blocks + tile * tile_bytes, scales == nullptr ? nullptr : scales + tile * tile_scales,
                 offsets == nullptr ? nullptr : offsets + tile * tile_scales});
  }
}

}  // namespace ringside::cuda
