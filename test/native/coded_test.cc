// Owns: products of coded weights and int8 activations against slow arithmetic of its own, on each instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "cpu/kernels/pack.h"
#include "random_model.h"

namespace {

using namespace ringside::cpu;
using random_model::Random;

// A coded matrix as a checkpoint lends it, and packed.
struct Coded {
  rs_matrix stored{};
  std::vector<uint8_t> data;
  std::vector<float> scales;
  std::vector<float> offsets;
  PackedMatrix packed;
  std::vector<uint8_t> memory;

  int64_t code(int64_t row, int64_t column) const {
    if (stored.format == RS_WEIGHT_Q8)
      return static_cast<int8_t>(data[static_cast<size_t>(row * stored.cols + column)]);
    const uint8_t both = data[static_cast<size_t>(row * (stored.cols / 2) + column / 2)];
    return (column % 2 == 0 ? both & 15 : both >> 4) - 8;
  }
  size_t group(int64_t row, int64_t column) const {
    return static_cast<size_t>(row * stored_groups(stored) + column / stored.group_columns);
  }
};

// Tiles begin on a cache line, as in the arena.
void pack(Coded& m) {
  m.stored.data = m.data.data();
  m.stored.scales = m.scales.data();
  m.stored.offsets = m.offsets.empty() ? nullptr : m.offsets.data();
  auto shape = packed_shape("weights", m.stored);
  CHECK(shape.ok());
  m.packed = shape.value();
  m.memory.assign(static_cast<size_t>(packed_bytes(m.packed)) + 64, 0xee);
  uint8_t* tiles = m.memory.data() + (64 - reinterpret_cast<uintptr_t>(m.memory.data()) % 64) % 64;
  for (int64_t tile = 0; tile < m.packed.tile_count(); ++tile) {
    pack_tile(m.stored, tile * kTileRows, m.packed, tiles + tile * m.packed.tile_bytes());
  }
  m.packed.tiles = tiles;
}

// `fill` gives each byte of the codes.
template <class Fill>
Coded coded(Random& random, rs_weight_format format, int64_t rows, int64_t columns, int64_t group, bool has_offsets,
            const Fill& fill) {
  Coded m;
  m.stored.format = format;
  m.stored.rows = rows;
  m.stored.cols = columns;
  m.stored.group_columns = group;
  m.data.resize(static_cast<size_t>(rows * stored_row_bytes(format, columns)));
  for (uint8_t& byte : m.data) byte = static_cast<uint8_t>(fill());
  const auto groups = static_cast<size_t>(rows * stored_groups(m.stored));
  for (size_t i = 0; i < groups; ++i) m.scales.push_back(random.uniform(0.5f, 1.5f));
  for (size_t i = 0; has_offsets && i < groups; ++i) m.offsets.push_back(random.uniform(-4.0f, 4.0f));
  pack(m);
  return m;
}

Coded random_coded(Random& random, rs_weight_format format, int64_t rows, int64_t columns, int64_t group,
                   bool has_offsets) {
  return coded(random, format, rows, columns, group, has_offsets, [&] { return random.below(256); });
}

// Activations and their quantised form in memory of its own.
struct Inputs {
  std::vector<float> x;
  std::vector<int8_t> memory;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  QuantizedRows rows{};
};

Inputs shaped_inputs(const PackedMatrix& w, int64_t rows, int code_bytes = 1) {
  Inputs in;
  in.rows.columns = w.columns;
  in.rows.group_columns = w.group_columns;
  in.rows.groups = w.group_count();
  in.rows.stride = quantized_stride(w.columns, w.group_columns, code_bytes);
  in.rows.low_offset = code_bytes == 2 ? quantized_low_offset(w.columns, w.group_columns) : 0;
  in.memory.assign(static_cast<size_t>(rows * in.rows.stride) + 64, 77);
  in.scales.assign(static_cast<size_t>(rows * in.rows.groups), 77.0f);
  in.sums.assign(in.scales.size(), 77);
  in.rows.values = in.memory.data() + (64 - reinterpret_cast<uintptr_t>(in.memory.data()) % 64) % 64;
  in.rows.scales = in.scales.data();
  in.rows.sums = in.sums.data();
  return in;
}

Inputs inputs(const Kernels& kernels, const PackedMatrix& w, std::vector<float> x, int code_bytes = 1) {
  const auto rows = static_cast<int64_t>(x.size()) / w.columns;
  Inputs in = shaped_inputs(w, rows, code_bytes);
  in.x = std::move(x);
  kernels.quantize_rows(in.x.data(), w.columns, 0, rows, in.rows);
  return in;
}

std::vector<float> random_values(Random& random, int64_t count, float reach = 1.0f) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = random.uniform(-reach, reach);
  return values;
}

// y [rows, padded outputs] of the rows from `first`.
std::vector<float> multiply(const Kernels& kernels, const PackedMatrix& w, const QuantizedRows& x, int64_t first,
                            int64_t rows) {
  const int64_t stride = w.tile_count() * kTileRows + 5;
  std::vector<float> y(static_cast<size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
  const auto scratch_bytes = static_cast<size_t>(kCodedScratchBytes);
  std::vector<uint8_t> memory(scratch_bytes + 128, 0xab);
  uint8_t* scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  std::vector<uint8_t> guard(scratch + scratch_bytes, memory.data() + memory.size());
  for (int64_t tile = 0; tile < w.tile_count(); ++tile) {
    kernels.matmul_coded(w, tile, x, first, rows, y.data() + tile * kTileRows, stride, scratch,
                         tile + 1 < w.tile_count() ? w.tile_at(tile + 1) : nullptr);
  }
  CHECK(std::equal(guard.begin(), guard.end(), scratch + scratch_bytes));
  std::vector<float> out;
  for (int64_t r = 0; r < rows; ++r) {
    CHECK(std::isnan(y[static_cast<size_t>(r * stride + stride - 1)]));  // nothing beyond the tiles was written
    out.insert(out.end(), y.begin() + r * stride, y.begin() + (r + 1) * stride - 5);
  }
  return out;
}

int64_t x_code(const QuantizedRows& x, int64_t row, int64_t column) {
  const int8_t* value = x.values + row * x.stride + column;
  return x.low_offset == 0 ? value[0] : 128 * int64_t{value[0]} + value[x.low_offset];
}

// The chain of the contract in scalar fp32; `fused` as the instruction set has it.
float expected_output(const Coded& m, const Inputs& in, int64_t row, int64_t output, bool fused) {
  const PackedMatrix& w = m.packed;
  const auto add = [fused](float a, float b, float c) {
    if (fused) return std::fma(a, b, c);
    volatile float product = a * b;
    return product + c;
  };
  float sum = 0.0f;
  for (int64_t g = 0; g < in.rows.groups; ++g) {
    int64_t dot = 0;
    int64_t x_sum = 0;
    const int64_t end = std::min(w.columns, (g + 1) * w.group_columns);
    for (int64_t k = g * w.group_columns; k < end; ++k) {
      const int64_t value = x_code(in.rows, row, k);
      dot += m.code(output, k) * value;
      x_sum += value;
    }
    const float x_scale = in.rows.scales[row * in.rows.groups + g];
    const size_t at = m.group(output, g * w.group_columns);
    sum = add(static_cast<float>(dot), m.scales[at] * x_scale, sum);
    if (m.stored.offsets != nullptr) sum = add(m.offsets[at], x_scale * static_cast<float>(x_sum), sum);
  }
  return sum;
}

bool is_fused(const Kernels& kernels) { return std::string(kernels.isa) != "plain"; }

void check_product(const Coded& m, const Kernels& kernels, const Inputs& in, int64_t rows) {
  const int64_t stride = m.packed.tile_count() * kTileRows;
  const std::vector<float> y = multiply(kernels, m.packed, in.rows, 0, rows);
  int wrong = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < stride; ++n) {
      const float expected = n < m.stored.rows ? expected_output(m, in, r, n, is_fused(kernels)) : 0.0f;
      const float got = y[static_cast<size_t>(r * stride + n)];
      if (std::memcmp(&got, &expected, sizeof got) == 0 || got == expected) continue;
      if (wrong++ == 0) {
        check::fail(__FILE__, __LINE__,
                    std::string(kernels.isa) + ", output " + std::to_string(n) + " of row " + std::to_string(r) +
                        " of " + std::to_string(rows) + ", [" + std::to_string(m.stored.rows) + ", " +
                        std::to_string(m.stored.cols) + "] in groups of " + std::to_string(m.packed.group_columns) +
                        ": " + std::to_string(got) + " is not " + std::to_string(expected));
      }
    }
  }
}

constexpr rs_weight_format kFormats[] = {RS_WEIGHT_Q8, RS_WEIGHT_Q4};

}  // namespace

TEST("coded products of every format, group and odd size are the contract's chain to the bit") {
  Random random(1);
  for (const rs_weight_format format : kFormats) {
    for (const int64_t group : {32, 64, 128}) {
      for (const bool has_offsets : {false, true}) {
        for (const int64_t outputs : {1, 63, 64, 130}) {
          for (const int64_t columns : {2, 34, 128, 514}) {
            const Coded m = random_coded(random, format, outputs, columns, group, has_offsets);
            for (const int64_t rows : {1, 3, 8, 35}) {
              const std::vector<float> x = random_values(random, rows * columns);
              for (const Kernels* kernels : available_kernels()) {
                for (const int code_bytes : {1, 2}) {
                  check_product(m, *kernels, inputs(*kernels, m.packed, x, code_bytes), rows);
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST("any number of rows gives a row the same bits, wherever it begins") {
  Random random(2);
  for (const rs_weight_format format : kFormats) {
    for (const int64_t group : {32, 128}) {
      const Coded m = random_coded(random, format, 70, 300, group, format == RS_WEIGHT_Q4);
      const std::vector<float> x = random_values(random, 150 * 300);
      for (const Kernels* kernels : available_kernels()) {
        const Inputs in = inputs(*kernels, m.packed, x, group == 32 ? 1 : 2);
        const std::vector<float> all = multiply(*kernels, m.packed, in.rows, 0, 150);
        for (int64_t rows = 1; rows <= 70; ++rows) {
          const int64_t first = random.below(150 - rows);
          const std::vector<float> part = multiply(*kernels, m.packed, in.rows, first, rows);
          CHECK(std::memcmp(part.data(), all.data() + first * 128, part.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST("the extremes of codes and values do not overflow") {
  Random random(3);
  for (const rs_weight_format format : kFormats) {
    for (const int fill : {0x00, 0x80, 0x7f, 0xff, 0x88}) {  // -128 and -8 among them
      const Coded m = coded(random, format, 64, 256, 128, false, [&] { return fill; });
      for (const float sign : {1.0f, -1.0f}) {
        std::vector<float> x(40 * 256, sign);
        for (const Kernels* kernels : available_kernels()) {
          for (const int code_bytes : {1, 2}) {
            const Inputs in = inputs(*kernels, m.packed, x, code_bytes);
            CHECK_EQ(static_cast<int>(in.rows.values[5]), static_cast<int>(sign) * 127);
            check_product(m, *kernels, in, 40);
            check_product(m, *kernels, in, 1);
          }
        }
      }
    }
  }
}

TEST("values that are no numbers spoil their own rows only, tiny scales vanish") {
  Random random(4);
  Coded m = random_coded(random, RS_WEIGHT_Q4, 64, 256, 64, false);
  for (size_t i = 0; i < m.scales.size(); i += 2) m.scales[i] = 1e-42f;
  pack(m);
  std::vector<float> x = random_values(random, 40 * 256);
  const std::vector<float> sound = x;
  x[3 * 256 + 70] = std::numeric_limits<float>::quiet_NaN();
  x[5 * 256 + 200] = std::numeric_limits<float>::infinity();
  x[6 * 256] = -std::numeric_limits<float>::infinity();
  std::fill_n(x.begin() + 7 * 256, 256, 0.0f);
  std::fill_n(x.begin() + 8 * 256, 256, 1e-41f);
  for (const Kernels* kernels : available_kernels()) {
    const Inputs in = inputs(*kernels, m.packed, x);
    const std::vector<float> y = multiply(*kernels, m.packed, in.rows, 0, 40);
    const Inputs whole = inputs(*kernels, m.packed, sound);
    const std::vector<float> expected = multiply(*kernels, m.packed, whole.rows, 0, 40);
    for (size_t r = 0; r < 40; ++r) {
      for (size_t n = 0; n < 64; ++n) {
        const float got = y[r * 64 + n];
        if (r == 3 || r == 5 || r == 6) {
          CHECK(std::isnan(got));
        } else if (r == 7 || r == 8) {
          CHECK_EQ(got, 0.0f);
        } else {
          CHECK_EQ(got, expected[r * 64 + n]);
        }
      }
    }
  }
}

namespace {

void check_codes(const Inputs& in, const std::vector<float>& x, int64_t row, float limit) {
  const int64_t columns = in.rows.columns;
  const int64_t group = in.rows.group_columns;
  for (int64_t g = 0; g < in.rows.groups; ++g) {
    float largest = 0.0f;
    const int64_t end = std::min(columns, (g + 1) * group);
    for (int64_t k = g * group; k < end; ++k) {
      largest = std::max(largest, std::fabs(x[static_cast<size_t>(row * columns + k)]));
    }
    CHECK_EQ(in.rows.scales[row * in.rows.groups + g], largest / limit);
    int64_t sum = 0;
    for (int64_t k = g * group; k < (g + 1) * group; ++k) {
      const int64_t code = x_code(in.rows, row, k);
      sum += code;
      const float scaled = k < end ? x[static_cast<size_t>(row * columns + k)] * (limit / largest) : 0.0f;
      CHECK_EQ(static_cast<float>(code), std::nearbyint(scaled));
    }
    CHECK_EQ(in.rows.sums[row * in.rows.groups + g], sum);
  }
}

void check_quantized(Random& random, int64_t group, int64_t columns, int code_bytes) {
  constexpr int64_t kRows = 3;
  PackedMatrix shape;
  shape.columns = columns;
  shape.group_columns = group;
  const std::vector<float> x = random_values(random, kRows * columns, 5.0f);
  Inputs first;
  for (const Kernels* kernels : available_kernels()) {
    Inputs in = inputs(*kernels, shape, x, code_bytes);
    Inputs parts = shaped_inputs(shape, kRows, code_bytes);
    for (int64_t r = 0; r < kRows; ++r) {
      check_codes(in, x, r, code_bytes == 1 ? 127.0f : 127.0f * 128.0f);
      for (int64_t column = 0; column < columns; column += group) {
        kernels->quantize_columns(x.data() + r * columns + column, column, std::min(group, columns - column), r,
                                  parts.rows);
      }
      for (int64_t k = 0; k < in.rows.groups * group; ++k) CHECK_EQ(x_code(parts.rows, r, k), x_code(in.rows, r, k));
    }
    CHECK(parts.scales == in.scales && parts.sums == in.sums);
    if (first.x.empty()) first = std::move(in);
    CHECK(first.scales == parts.scales && first.sums == parts.sums);
  }
}

}  // namespace

TEST("activations are rounded to the nearest code, alike on every instruction set, in parts and whole") {
  Random random(5);
  for (const int64_t group : {32, 64, 128}) {
    for (const int64_t columns : {1, 31, 32, 33, 100, 128, 500}) {
      for (const int code_bytes : {1, 2}) check_quantized(random, group, columns, code_bytes);
    }
  }
}

TEST("stored groups are cut to fit, a scale for the whole row is repeated, others are refused by name") {
  Random random(6);
  const std::vector<std::vector<int64_t>> cases = {{256, 128}, {192, 64}, {96, 32}, {500, 128}, {1000, 128}};
  for (const auto& expected : cases) {
    for (const rs_weight_format format : kFormats) {
      const Coded m = random_coded(random, format, 65, 500, expected[0], true);
      CHECK_EQ(m.packed.group_columns, expected[1]);
      const std::vector<float> x = random_values(random, 2 * 500);
      for (const Kernels* kernels : available_kernels()) {
        check_product(m, *kernels, inputs(*kernels, m.packed, x), 2);
      }
    }
  }
  rs_matrix odd{};
  odd.format = RS_WEIGHT_Q4;
  odd.rows = 64;
  odd.cols = 256;
  odd.group_columns = 48;
  const auto refused = packed_shape("model.layers.3.attention.dense", odd);
  CHECK(!refused.ok());
  CHECK(refused.error().kind == ringside::ErrorKind::kQuantizationUnsupported);
  CHECK_EQ(refused.error().subject, std::string("model.layers.3.attention.dense"));
  CHECK_EQ(refused.error().actual, std::string("48"));
  odd.format = 9;
  odd.group_columns = 64;
  CHECK(!packed_shape("x", odd).ok());
}

TEST("FP8 becomes 8-bit codes within half a step of the group's largest value") {
  Random random(7);
  rs_matrix stored{};
  std::vector<uint8_t> data;
  std::vector<float> scales;
  stored.format = RS_WEIGHT_FP8;
  stored.rows = 70;
  stored.cols = 300;
  stored.group_columns = 128;
  for (int64_t i = 0; i < 70 * 300; ++i) data.push_back(static_cast<uint8_t>(random.below(256) & ~1));  // never NaN
  for (int64_t i = 0; i < 70 * 3; ++i) scales.push_back(random.uniform(0.001f, 0.002f));
  data[5 * 300 + 7] = 0x7f;  // NaN
  stored.data = data.data();
  stored.scales = scales.data();
  const PackedMatrix shape = packed_shape("weights", stored).value();
  CHECK(shape.format == PackedFormat::kQ8);
  CHECK_EQ(shape.group_columns, 128);
  std::vector<uint8_t> tiles(static_cast<size_t>(packed_bytes(shape)));
  for (int64_t tile = 0; tile < 2; ++tile) {
    pack_tile(stored, tile * kTileRows, shape, tiles.data() + tile * shape.tile_bytes());
  }
  for (int64_t row = 0; row < 70; ++row) {
    std::vector<float> values(300);
    row_to_float(stored, row, values.data());
    for (int64_t group = 0; group < 3; ++group) {
      const uint8_t* block = tiles.data() + row / 64 * shape.tile_bytes() + group * shape.block_bytes();
      float scale;
      std::memcpy(&scale, block + shape.code_bytes() + row % 64 * 4, sizeof scale);
      if (row == 5 && group == 0) {
        CHECK(std::isnan(scale));
        continue;
      }
      for (int64_t k = group * 128; k < std::min<int64_t>(300, group * 128 + 128); ++k) {
        const int64_t at = k % 128;
        const auto code = static_cast<int8_t>(block[at / 4 * 256 + row % 64 * 4 + at % 4]);
        CHECK(std::abs(static_cast<double>(code) * scale - values[static_cast<size_t>(k)]) <= 0.5001 * scale);
      }
    }
  }
  // e4m3: sign, four bits of exponent with bias 7, three of fraction.
  const std::vector<uint8_t> codes = {0x00, 0x01, 0x08, 0x38, 0xb9, 0x7e};
  const std::vector<float> one = {1.0f};
  const rs_matrix row{RS_WEIGHT_FP8, 1, 6, 6, codes.data(), one.data(), nullptr, nullptr};
  std::vector<float> out(6);
  row_to_float(row, 0, out.data());
  const std::vector<float> expected = {0.0f, 0.001953125f, 0.015625f, 1.0f, -1.125f, 448.0f};
  CHECK(out == expected);
}
