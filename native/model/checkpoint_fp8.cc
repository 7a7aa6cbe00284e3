#include "model/checkpoint_fp8.h"

#include <algorithm>

#include "model/checkpoint_codes.h"
#include "model/checkpoint_plain.h"

namespace ringside {
namespace {

using Tensor = CheckpointFiles::Tensor;

constexpr int64_t kBlock = 128;

int64_t blocks(int64_t length) { return (length + kBlock - 1) / kBlock; }

struct Parts {
  const Tensor* weight;
  const Tensor* scales;  // nullptr: stored as numbers
};

// Which modules are quantised is told by the tensors alone: converters and engines differ in what they leave out.
class Fp8Layout final : public CheckpointLayout {
 public:
  explicit Fp8Layout(const CheckpointFiles& files) : files_(files) {}

  Status check(const ExpectedTensor& expected, KnownTensors& known) override {
    RS_TRY(const Parts parts, find(expected.base()));
    const Shape shape{expected.rows, expected.cols};
    if (parts.scales == nullptr) return check_plain(expected, *parts.weight, shape, summary_, known);
    RS_CHECK(check_shapes(parts, expected.rows, expected.cols));
    known.insert(parts.weight->info->name);
    known.insert(parts.scales->info->name);
    has_fp8_ = true;
    return Unit{};
  }

  Status read(const RowSlice& slice, Matrix& out) const override {
    RS_TRY(const Parts parts, find(slice.base));
    RS_CHECK(check_shape(*parts.weight->info, {slice.rows, slice.cols}));
    if (parts.scales == nullptr) return read_plain(*parts.weight, 0, slice, out);
    RS_CHECK(check_shapes(parts, slice.rows, slice.cols));
    shape_matrix(out, WeightFormat::kFP8, slice, kBlock);
    RS_CHECK(parts.weight->file->read(*parts.weight->info, slice.first_row * slice.cols, out.data.data(),
                                      static_cast<int64_t>(out.data.size())));
    RS_CHECK(check_codes(*parts.weight->info, slice.first_row * slice.cols, out.data));
    return read_scales(*parts.scales, slice, out.scales);
  }

  std::string name() const override { return has_fp8_ ? "fp8 (blocks of 128 × 128)" : summary_.plain_name(); }

 private:
  Result<Parts> find(const std::string& base) const {
    Parts parts{};
    RS_TRY(parts.weight, find_tensor(files_, base + ".weight"));
    parts.scales = files_.find(base + ".weight_scale_inv");
    if (parts.scales == nullptr && parts.weight->info->dtype == Dtype::kF8E4M3) {
      return Error{ErrorKind::kTensorMissing, base + ".weight_scale_inv", "", ""};
    }
    return parts;
  }

  static Status check_shapes(const Parts& parts, int64_t rows, int64_t cols) {
    RS_CHECK(check_dtype(*parts.weight->info, Dtype::kF8E4M3));
    RS_CHECK(check_shape(*parts.weight->info, {rows, cols}));
    RS_CHECK(check_float(*parts.scales->info));
    return check_shape(*parts.scales->info, {blocks(rows), blocks(cols)});
  }

  // All bits but the sign set is the one spelling of "no number".
  static Status check_codes(const TensorInfo& info, int64_t first, const WeightBytes& codes) {
    const auto is_nan = [](uint8_t code) { return (code & 0x7F) == 0x7F; };
    // Counted and not searched, as a loop without an exit is many times faster.
    uint8_t has_nan = 0;
    for (const uint8_t code : codes) has_nan |= is_nan(code) ? 1 : 0;
    if (has_nan == 0) return Unit{};
    const auto bad = std::find_if(codes.begin(), codes.end(), is_nan);
    return Error{ErrorKind::kFileMalformed, info.name, "finite numbers",
                 "NaN at " + std::to_string(first + (bad - codes.begin()))};
  }

  // A Matrix has a scale for every row: the rows of a block share theirs.
  static Status read_scales(const Tensor& tensor, const RowSlice& slice, std::vector<float>& out) {
    const int64_t width = blocks(slice.cols);
    const int64_t first_block = slice.first_row / kBlock;
    const int64_t block_rows =
        slice.row_count == 0 ? 0 : (slice.first_row + slice.row_count - 1) / kBlock - first_block + 1;
    std::vector<float> scales;
    RS_CHECK(read_floats(tensor, first_block * width, block_rows * width, scales));
    RS_CHECK(check_finite(*tensor.info, scales));
    out.resize(static_cast<size_t>(slice.row_count * width));
    for (int64_t row = 0; row < slice.row_count; ++row) {
      const int64_t block = (slice.first_row + row) / kBlock - first_block;
      std::copy_n(scales.begin() + block * width, width, out.begin() + row * width);
    }
    return Unit{};
  }

  const CheckpointFiles& files_;
  LayoutSummary summary_;
  bool has_fp8_ = false;
};

Status check_config(const QuantizationFields& config) {
  RS_TRY([[maybe_unused]] const auto format, config.one_of("fmt", {"e4m3"}, "e4m3"));
  RS_TRY([[maybe_unused]] const auto scheme, config.one_of("activation_scheme", {"dynamic"}, "dynamic"));
  const json::Value size = config.find("weight_block_size");
  std::string actual;
  for (const json::Value part : size) {
    actual += (actual.empty() ? "" : " × ") + std::to_string(part.as_integer().value_or(-1));
    if (actual.size() > 64) break;
  }
  if (size.is_array() && actual == "128 × 128") return Unit{};
  return config.unsupported("weight_block_size", "128 × 128", size.is_array() ? actual : json::kind_name(size.kind()));
}

}  // namespace

Result<std::unique_ptr<CheckpointLayout>> open_fp8(const QuantizationFields& config, const CheckpointFiles& files) {
  RS_CHECK(check_config(config));
  return std::unique_ptr<CheckpointLayout>(new Fp8Layout(files));
}

}  // namespace ringside
