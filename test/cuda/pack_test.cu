// Owns: the packed form against a reading of matrix.h written down once more, from the kernels' side: which number a
// lane multiplies in which step. Needs no device.
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/pack.h"
#include "cuda/weights.h"
#include "random_model.h"
#include "small_model.h"

namespace {

using namespace ringside;
using namespace ringside::cuda;
using random_model::Random;

struct Stored {
  rs_matrix matrix{};
  std::vector<uint8_t> bytes;
  std::vector<float> scales, offsets;

  Stored(uint64_t seed, int32_t format, int64_t rows, int64_t cols, int64_t group_columns, bool has_offsets) {
    Random random(seed);
    const int64_t bits = format == RS_WEIGHT_F32 ? 32 : format == RS_WEIGHT_BF16 ? 16 : format == RS_WEIGHT_Q4 ? 4 : 8;
    bytes.resize(static_cast<size_t>(rows * cols * bits / 8));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
    if (bits >= 16) {
      // Numbers of a moderate size instead of any bits, which would be infinite at times.
      for (int64_t i = 0; i < rows * cols; ++i) {
        const float value = random.uniform(-2.0f, 2.0f);
        const uint16_t half = random_model::bf16_of(value);
        if (bits == 32) std::memcpy(&bytes[static_cast<size_t>(4 * i)], &value, 4);
        if (bits == 16) std::memcpy(&bytes[static_cast<size_t>(2 * i)], &half, 2);
      }
    }
    for (uint8_t& byte : bytes) {
      if (format == RS_WEIGHT_FP8 && (byte & 0x7f) == 0x7f) byte = 0x30;  // not a number
    }
    const int64_t groups = bits >= 16 ? 0 : (cols + group_columns - 1) / group_columns;
    for (int64_t i = 0; i < rows * groups; ++i) {
      scales.push_back(random.uniform(0.5f, 1.5f));
      if (has_offsets) offsets.push_back(random.uniform(-1.0f, 1.0f));
    }
    matrix = rs_matrix{format, rows, cols, group_columns, bytes.data(), nullptr, nullptr, nullptr};
    if (groups > 0) matrix.scales = scales.data();
    if (has_offsets) matrix.offsets = offsets.data();
  }
  std::vector<float> row(int64_t index) const {
    std::vector<float> values(static_cast<size_t>(matrix.cols));
    row_to_float(matrix, index, values.data());
    return values;
  }
};

float fp8_value(uint8_t code) {
  const float magnitude = (code >> 3 & 15) == 0 ? std::ldexp(static_cast<float>(code & 7), -9)
                                                : std::ldexp(static_cast<float>(8 + (code & 7)), (code >> 3 & 15) - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// The codes that lane `lane` of a warp holds after its 16-byte load of a block: [2 rows][W].
std::vector<float> lane_codes(const uint8_t* block, MatrixFormat format, int lane) {
  std::vector<float> codes;
  for (int row = 0; row < 2; ++row) {
    const uint8_t* at = block + lane * 16 + row * 8;
    if (format == MatrixFormat::kBF16) {
      for (int i = 0; i < 4; ++i) {
        uint16_t half;
        std::memcpy(&half, at + 2 * i, 2);
        codes.push_back(std::bit_cast<float>(uint32_t{half} << 16));
      }
    } else if (format == MatrixFormat::kQ4) {
      for (int word_index = 0; word_index < 2; ++word_index) {
        uint32_t word;
        std::memcpy(&word, at + 4 * word_index, 4);
        for (int pair = 0; pair < 4; ++pair) {
          const uint32_t halves = word >> (4 * pair) & 0x000f000fu;
          codes.push_back(static_cast<float>(halves & 0xffff) - 8.0f);
          codes.push_back(static_cast<float>(halves >> 16) - 8.0f);
        }
      }
    } else {
      for (int i = 0; i < 8; ++i) {
        codes.push_back(format == MatrixFormat::kQ8 ? static_cast<float>(static_cast<int8_t>(at[i]))
                                                    : fp8_value(at[i]));
      }
    }
  }
  return codes;
}

// A packed matrix in host memory, poisoned before it is packed.
struct Packed {
  DeviceMatrix matrix;
  std::vector<uint8_t> blocks;
  std::vector<float> scales, offsets;

  Packed(int64_t rows, int64_t columns, const WeightForm& form) {
    matrix.format = form.format;
    matrix.rows = static_cast<int32_t>(rows);
    matrix.columns = static_cast<int32_t>(columns);
    matrix.group_columns = form.group_columns;
    blocks.assign(static_cast<size_t>(matrix.block_bytes()), 0xee);
    scales.assign(static_cast<size_t>(matrix.scale_count()), NAN);
    if (form.has_offsets) offsets = scales;
    matrix.blocks = blocks.data();
    if (form.group_columns > 0) matrix.scales = scales.data();
    if (form.has_offsets) matrix.offsets = offsets.data();
  }

  // [rows, columns], as the 32 lanes of a warp see them block by block.
  std::vector<std::vector<float>> values() const {
    const int64_t columns = matrix.columns;
    std::vector<std::vector<float>> out(static_cast<size_t>(matrix.rows),
                                        std::vector<float>(static_cast<size_t>(columns), NAN));
    const int64_t block_columns = matrix.block_columns();
    const int64_t blocks_of_tile = columns / block_columns;
    for (int64_t tile = 0; tile < matrix.rows / kTileRows; ++tile) {
      for (int64_t block = 0; block < blocks_of_tile; ++block) {
        const uint8_t* at = matrix.blocks + (tile * blocks_of_tile + block) * kBlockBytes;
        for (int lane = 0; lane < 32; ++lane)
          put(tile, block * block_columns, lane_codes(at, matrix.format, lane), lane, out);
      }
    }
    return out;
  }

 private:
  void put(int64_t tile, int64_t first_column, const std::vector<float>& codes, int lane,
           std::vector<std::vector<float>>& out) const {
    const int64_t width = matrix.block_columns() / 4;
    for (int64_t i = 0; i < 2 * width; ++i) {
      const int64_t row_of_tile = lane / 4 + 8 * (i / width);
      const int64_t column = first_column + lane % 4 * width + i % width;
      float value = codes[static_cast<size_t>(i)];
      if (matrix.scales != nullptr) {
        const int64_t group = (tile * matrix.groups() + column / matrix.group_columns) * kTileRows + row_of_tile;
        value = value * matrix.scales[group] + (matrix.offsets == nullptr ? 0.0f : matrix.offsets[group]);
      }
      out[static_cast<size_t>(tile * kTileRows + row_of_tile)][static_cast<size_t>(column)] = value;
    }
  }
};

float rounded(float value) { return std::bit_cast<float>(uint32_t{random_model::bf16_of(value)} << 16); }

void check_rows(const Stored& stored, const WeightForm& form) {
  Packed packed(stored.matrix.rows, stored.matrix.cols, form);
  pack_blocks(stored.matrix, form, packed.blocks.data(), packed.scales.data(), packed.offsets.data());
  const std::vector<std::vector<float>> values = packed.values();
  const bool is_rounded = form.format == MatrixFormat::kBF16;
  for (int64_t row = 0; row < stored.matrix.rows; ++row) {
    const std::vector<float> truth = stored.row(row);
    for (size_t column = 0; column < truth.size(); ++column) {
      CHECK_EQ(values[static_cast<size_t>(row)][column], is_rounded ? rounded(truth[column]) : truth[column]);
    }
  }
}

TEST("packed blocks hold every number in the place where its lane looks for it") {
  uint64_t seed = 1;
  for (const int32_t format : {RS_WEIGHT_F32, RS_WEIGHT_BF16, RS_WEIGHT_Q8, RS_WEIGHT_Q4, RS_WEIGHT_FP8}) {
    for (const int64_t group : {32, 64, 128, 96, 384}) {
      for (const bool has_offsets : {false, true}) {
        const bool is_shifted = has_offsets && (format == RS_WEIGHT_Q8 || format == RS_WEIGHT_Q4);
        const Stored stored(++seed, format, 48, 384, group, is_shifted);
        const Result<WeightForm> form = weight_form("w", stored.matrix);
        CHECK(form.ok());
        if (form.ok()) check_rows(stored, form.value());
      }
    }
  }
}

TEST("a matrix is brought to a wider form without a change of its values") {
  const Stored q4(1, RS_WEIGHT_Q4, 32, 256, 128, false);
  const Stored q8(2, RS_WEIGHT_Q8, 32, 256, 32, true);
  const Stored fp8(3, RS_WEIGHT_FP8, 32, 256, 128, false);
  const WeightForm q4_form = weight_form("a", q4.matrix).value();
  const WeightForm q8_form = weight_form("b", q8.matrix).value();
  const WeightForm both = widest(q4_form, q8_form);
  CHECK(both == (WeightForm{MatrixFormat::kQ8, 32, true}));
  CHECK(widest(q8_form, q4_form) == both);
  check_rows(q4, both);
  check_rows(q8, both);
  const WeightForm floats = widest(both, weight_form("c", fp8.matrix).value());
  CHECK(floats == WeightForm{});
  for (const Stored* stored : {&q4, &q8, &fp8}) check_rows(*stored, floats);
}

TEST("gate and up share a tile by halves") {
  const Stored gate(1, RS_WEIGHT_Q4, 16, 128, 64, false);
  const Stored up(2, RS_WEIGHT_Q4, 16, 128, 64, false);
  const WeightForm form = weight_form("w", gate.matrix).value();
  Packed packed(32, 128, form);
  TilePacker packer;
  for (int64_t tile = 0; tile < 2; ++tile) {
    const TileMemory to{packed.blocks.data() + tile * 128 / 64 * kBlockBytes,
                        packed.scales.data() + tile * 2 * kTileRows, nullptr};
    packer.pack({&gate.matrix, 8 * tile}, {&up.matrix, 8 * tile}, form, to);
  }
  const std::vector<std::vector<float>> values = packed.values();
  for (int64_t row = 0; row < 16; ++row) {
    const auto at = static_cast<size_t>(row / 8 * 16 + row % 8);
    CHECK(values[at] == gate.row(row));
    CHECK(values[at + 8] == up.row(row));
  }
}

TEST("a router's halves add up to its fp32 weights") {
  for (const int32_t format : {RS_WEIGHT_F32, RS_WEIGHT_BF16}) {
    const bool has_low = format == RS_WEIGHT_F32;
    const Stored stored(7, format, 16, 128, 0, false);
    Packed packed(16, has_low ? 384 : 256, WeightForm{});
    TilePacker packer;
    packer.pack_router(stored.matrix, 0, has_low, {packed.blocks.data(), nullptr, nullptr});
    const std::vector<std::vector<float>> values = packed.values();
    for (size_t row = 0; row < 16; ++row) {
      const std::vector<float> truth = stored.row(static_cast<int64_t>(row));
      for (size_t column = 0; column < 128; ++column) {
        CHECK_EQ(values[row][column], values[row][128 + column]);
        const float low = has_low ? values[row][256 + column] : 0.0f;
        CHECK(std::fabs(values[row][column] + low - truth[column]) <= std::fabs(truth[column]) * 0x1p-16f);
      }
    }
  }
}

TEST("what tiles cannot hold is refused by name") {
  const Stored narrow(1, RS_WEIGHT_Q8, 16, 64, 32, false);
  const Stored short_tile(1, RS_WEIGHT_Q8, 24, 128, 32, false);
  const Stored odd_group(1, RS_WEIGHT_Q8, 16, 128, 48, false);
  for (const Stored* stored : {&narrow, &short_tile, &odd_group}) {
    const Result<DeviceMatrix> form = device_form("model.layers.3.x", stored->matrix);
    CHECK(!form.ok());
    if (!form.ok()) CHECK_EQ(form.error().subject, std::string("model.layers.3.x"));
  }
}

TEST("fp8 codes that are no numbers are refused by name, and fp8 with offsets") {
  Stored stored(1, RS_WEIGHT_FP8, 32, 128, 128, false);
  for (uint8_t& code : stored.bytes) code &= 0xbf;
  CHECK(check_codes("x", stored.matrix, 0, 32).ok());
  for (const uint8_t nan : {0x7f, 0xff}) {
    stored.bytes[17 * 128 + 5] = nan;
    CHECK(check_codes("x", stored.matrix, 0, 16).ok());
    const Status refused = check_codes("model.layers.3.x", stored.matrix, 16, 16);
    CHECK(!refused.ok() && refused.error().kind == ErrorKind::kTensorDtype);
    if (!refused.ok()) CHECK_EQ(refused.error().subject, std::string("model.layers.3.x"));
  }
  const Stored shifted(1, RS_WEIGHT_FP8, 16, 128, 128, true);
  const Result<WeightForm> form = weight_form("model.layers.3.x", shifted.matrix);
  CHECK(!form.ok() && form.error().kind == ErrorKind::kQuantizationUnsupported);
}

TEST("shapes that the kernels do not take are refused by the name of what is wrong") {
  rs_config good = small_model::shape().config;
  CHECK(check_shape(good).ok());
  const auto refuses = [&](const char* name, auto change) {
    rs_config config = good;
    change(config);
    const Status refused = check_shape(config);
    CHECK(!refused.ok() && refused.error().kind == ErrorKind::kConfigInvalid);
    CHECK_EQ(refused.ok() ? std::string() : refused.error().subject, std::string(name));
  };
  refuses("head_dim", [](rs_config& c) { c.head_dim = 64; });
  refuses("rotary_dim", [](rs_config& c) { c.rotary_dim = 40; });
  refuses("rotary_dim", [](rs_config& c) { c.rotary_dim = 256; });
  refuses("num_key_value_heads", [](rs_config& c) { c.kv_heads = 0; });
  refuses("num_attention_heads / num_key_value_heads", [](rs_config& c) { c.heads = 129, c.norm_groups = 129; });
  refuses("group_norm_size", [](rs_config& c) { c.norm_groups = 3; });
  refuses("channels of a group of group_norm_size", [](rs_config& c) { c.norm_groups = 64; });
  refuses("channels of a group of group_norm_size", [](rs_config& c) { c.heads = 64, c.norm_groups = 1; });
  refuses("hidden_size", [](rs_config& c) { c.hidden = 320; });
  refuses("hidden_size", [](rs_config& c) { c.hidden = 65536; });
  refuses("vocab_size", [](rs_config& c) { c.vocab_rows = 100; });
  refuses("intermediate_size", [](rs_config& c) { c.dense_width = 100; });
  refuses("num_experts", [](rs_config& c) { c.experts = 24; });
  refuses("moe_intermediate_size", [](rs_config& c) { c.expert_width = c.shared_width = 100; });
  refuses("moe_shared_expert_intermediate_size", [](rs_config& c) { c.shared_width = 256; });
  refuses("n_group", [](rs_config& c) { c.expert_groups = 3; });
  refuses("topk_group", [](rs_config& c) { c.groups_per_token = 5; });
  refuses("num_experts_per_tok", [](rs_config& c) { c.experts_per_token = 9; });
}

}  // namespace
