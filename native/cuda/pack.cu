#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>

#include "cuda/pack.h"
#include "model/float_formats.h"

namespace ringside::cuda {
namespace {

constexpr int64_t kHalfRows = kTileRows / 2;
constexpr int64_t kRunBytes = 32;  // of a row in a block: four lanes

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

// Sixteen bytes of a row. unzip(): half byte j of a stored word of 32 bits is column j; even columns go to the low half
// of the word, odd ones to the high half.
#if defined(__SSE2__)
using RowBytes = __m128i;

RowBytes load(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

RowBytes unzip(RowBytes words) {
  const auto pairs = [](__m128i codes) {  // of neighbouring bytes, into the lower one
    codes = _mm_and_si128(codes, _mm_set1_epi8(0x0f));
    return _mm_and_si128(_mm_or_si128(codes, _mm_srli_epi16(codes, 4)), _mm_set1_epi16(0x00ff));
  };
  const __m128i halves = _mm_packus_epi16(pairs(words), pairs(_mm_srli_epi16(words, 4)));
  return _mm_unpacklo_epi16(halves, _mm_srli_si128(halves, 8));
}

// Eight bytes of each in turn.
void put_in_turn(RowBytes a, RowBytes b, uint8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_unpacklo_epi64(a, b));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to) + 1, _mm_unpackhi_epi64(a, b));
}
#else
using RowBytes = std::array<uint64_t, 2>;

RowBytes load(const uint8_t* from) {
  RowBytes bytes;
  std::memcpy(bytes.data(), from, sizeof bytes);
  return bytes;
}

RowBytes unzip(RowBytes words) {
  const auto gather = [](uint64_t even) {
    even &= 0x0f0f0f0f0f0f0f0fu;
    even = (even | even >> 4) & 0x00ff00ff00ff00ffu;
    return (even | even >> 8) & 0x0000ffff0000ffffu;
  };
  for (uint64_t& two : words) two = gather(two) | gather(two >> 4) << 16;
  return words;
}

void put_in_turn(RowBytes a, RowBytes b, uint8_t* to) {
  const std::array<uint64_t, 4> turns = {a[0], b[0], a[1], b[1]};
  std::memcpy(to, turns.data(), sizeof turns);
}
#endif

using TileRowPointers = std::array<const uint8_t*, kTileRows>;

// Every row's bytes, 8 a lane, into the blocks one after the other: a lane holds row l / 4 and then row l / 4 + 8.
template <bool kIsQ4>
void interleave_rows(const TileRowPointers& rows, int64_t row_bytes, uint8_t* blocks) {
  for (int64_t at = 0; at < row_bytes; at += kRunBytes, blocks += kBlockBytes) {
    for (size_t row = 0; row < kHalfRows; ++row) {
      for (int64_t part = 0; part < kRunBytes; part += 16) {
        RowBytes upper = load(rows[row] + at + part), lower = load(rows[row + kHalfRows] + at + part);
        if constexpr (kIsQ4) upper = unzip(upper), lower = unzip(lower);
        put_in_turn(upper, lower, blocks + 2 * (static_cast<int64_t>(row) * kRunBytes + part));
      }
    }
  }
}

// Scales (or offsets) of eight rows to [group, 16]; a stored group may hold several of ours.
void scatter_groups(const rs_matrix& stored, const float* from, int64_t first_row, int64_t group_columns, float* to) {
  const int64_t groups = stored.cols / group_columns;
  const int64_t stride = stored_groups(stored);
  const int64_t shared_by = std::max<int64_t>(1, std::min(stored.group_columns, stored.cols) / group_columns);
  for (int64_t group = 0; group < groups; ++group, to += kTileRows) {
    const float* column = from == nullptr ? nullptr : from + first_row * stride + group / shared_by;
    for (int64_t row = 0; row < kHalfRows; ++row) to[row] = column == nullptr ? 0.0f : column[row * stride];
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
  if (form.has_offsets && form.format == MatrixFormat::kFP8) {
    return Error{ErrorKind::kQuantizationUnsupported, name, "fp8 without offsets on a GPU", "offsets"};
  }
  if (stored.group_columns >= stored.cols) form.group_columns = 128;
  for (const int32_t columns : {32, 64, 128}) {
    if (stored.group_columns < stored.cols && stored.group_columns % columns == 0) form.group_columns = columns;
  }
  if (form.group_columns != 0) return form;
  return Error{ErrorKind::kQuantizationUnsupported, name, "groups of a multiple of 32 columns",
               std::to_string(stored.group_columns)};
}

Status check_codes(const std::string& name, const rs_matrix& stored, int64_t first_row, int64_t rows) {
  if (stored.format != RS_WEIGHT_FP8) return Unit{};
  const auto* const codes = static_cast<const uint8_t*>(stored.data) + first_row * stored.cols;
  const int64_t count = rows * stored.cols;
  // All bits but the sign set. Collected without an exit, so that many codes are looked at at once.
  uint8_t has_nan = 0;
  for (int64_t i = 0; i < count; ++i) has_nan |= static_cast<uint8_t>((codes[i] & 0x7f) == 0x7f ? 1 : 0);
  if (has_nan == 0) return Unit{};
  return Error{ErrorKind::kTensorDtype, name, "finite numbers", "NaN"};
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

// The row's bytes in `format`: where they are stored, or converted.
const uint8_t* TilePacker::row_in(const rs_matrix& stored, int64_t row, MatrixFormat format, uint8_t* converted) {
  if (stored.format != RS_WEIGHT_F32 && own_format(stored.format) == format) {
    return static_cast<const uint8_t*>(stored.data) + row * row_bytes(format, stored.cols);
  }
  const auto columns = static_cast<size_t>(stored.cols);
  if (format == MatrixFormat::kQ8) {  // from kQ4
    const auto* pairs = static_cast<const uint8_t*>(stored.data) + row * stored.cols / 2;
    for (size_t i = 0; i < columns; ++i) {
      converted[i] = static_cast<uint8_t>(static_cast<int8_t>((pairs[i / 2] >> (i % 2 * 4) & 15) - 8));
    }
    return converted;
  }
  values_.resize(columns);
  row_to_float(stored, row, values_.data());
  for (size_t i = 0; i < columns; ++i) {
    const uint16_t half = float_to_bf16(values_[i]);
    std::memcpy(converted + 2 * i, &half, sizeof half);
  }
  return converted;
}

void TilePacker::pack(const HalfTile& first, const HalfTile& second, const WeightForm& form, const TileMemory& to) {
  const int64_t bytes = row_bytes(form.format, first.stored->cols);
  converted_.resize(static_cast<size_t>(kTileRows * bytes));
  TileRowPointers rows;
  for (int64_t row = 0; row < kTileRows; ++row) {
    const HalfTile& half = row < kHalfRows ? first : second;
    rows[static_cast<size_t>(row)] =
        row_in(*half.stored, half.first_row + row % kHalfRows, form.format, converted_.data() + row * bytes);
  }
  if (form.format == MatrixFormat::kQ4) {
    interleave_rows<true>(rows, bytes, to.blocks);
  } else {
    interleave_rows<false>(rows, bytes, to.blocks);
  }
  if (form.group_columns == 0) return;
  for (const HalfTile* half : {&first, &second}) {
    const rs_matrix& stored = *half->stored;
    const int64_t at = half == &first ? 0 : kHalfRows;
    scatter_groups(stored, stored.scales, half->first_row, form.group_columns, to.scales + at);
    if (!form.has_offsets) continue;
    scatter_groups(stored, stored.offsets, half->first_row, form.group_columns, to.offsets + at);
  }
}

void TilePacker::pack_router(const rs_matrix& stored, int64_t first_row, bool has_low, const TileMemory& to) {
  const auto columns = static_cast<size_t>(stored.cols);
  const int64_t bytes = row_bytes(MatrixFormat::kBF16, stored.cols) * (has_low ? 3 : 2);
  const auto stride = columns * sizeof(uint16_t) * 3;
  values_.resize(columns);
  converted_.resize(stride * kTileRows);
  TileRowPointers rows;
  for (size_t row = 0; row < rows.size(); ++row) {
    uint8_t* const parts = converted_.data() + row * stride;
    rows[row] = parts;
    row_to_float(stored, first_row + static_cast<int64_t>(row), values_.data());
    for (size_t i = 0; i < columns; ++i) {
      const uint16_t high = float_to_bf16(values_[i]);
      const uint16_t low = float_to_bf16(values_[i] - bf16_to_float(high));
      std::memcpy(parts + 2 * i, &high, sizeof high);
      std::memcpy(parts + 2 * (columns + i), &high, sizeof high);
      std::memcpy(parts + 2 * (2 * columns + i), &low, sizeof low);
    }
  }
  interleave_rows<false>(rows, bytes, to.blocks);
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
