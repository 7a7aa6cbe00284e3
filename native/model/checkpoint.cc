#include "model/checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <new>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "io/file.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_quantization.h"
#include "model/checkpoint_tensors.h"
#include "model/float_formats.h"
#include "model/generation_config.h"

namespace ringside {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{4} << 20;

using Tensor = CheckpointFiles::Tensor;

// The three tensors of one packed matrix.
struct Packed {
  const Tensor* values;  // ".weight_packed": int32 [rows, cols / 4], a byte a value, lowest byte first, 128 is zero
  const Tensor* scales;  // ".weight_scale": [rows, groups]
  const Tensor* shape;   // ".weight_shape": int64 [2]
};

bool is_float(Dtype dtype) { return dtype == Dtype::kBF16 || dtype == Dtype::kF16 || dtype == Dtype::kF32; }

Status check_float(const TensorInfo& info) {
  if (is_float(info.dtype)) return Unit{};
  return Error{ErrorKind::kTensorDtype, info.name, "BF16, F16 or F32", std::string(dtype_name(info.dtype))};
}

Status check_dtype(const TensorInfo& info, Dtype dtype) {
  if (info.dtype == dtype) return Unit{};
  return Error{ErrorKind::kTensorDtype, info.name, std::string(dtype_name(dtype)), std::string(dtype_name(info.dtype))};
}

Status check_shape(const TensorInfo& info, const Shape& shape) {
  if (info.shape == shape) return Unit{};
  return Error{ErrorKind::kTensorShape, info.name, shape.text(), info.shape.text()};
}

// Reads `count` numbers of a float tensor of any stored width as fp32.
Status read_floats(const Tensor& tensor, int64_t first, int64_t count, std::vector<float>& out) {
  const TensorInfo& info = *tensor.info;
  const int64_t element_bytes = dtype_bytes(info.dtype);
  out.resize(static_cast<size_t>(count));
  // Halves are read into the end of the floats' own memory: each float is written behind the half it is made of.
  char* const to = reinterpret_cast<char*>(out.data()) + count * (4 - element_bytes);
  RS_CHECK(tensor.file->read(info, first * element_bytes, to, count * element_bytes));
  if (info.dtype == Dtype::kF32) return Unit{};
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, to + 2 * i, sizeof half);
    out[static_cast<size_t>(i)] = info.dtype == Dtype::kBF16 ? bf16_to_float(half) : f16_to_float(half);
  }
  return Unit{};
}

Status read_floats(const Tensor& tensor, std::vector<float>& out) {
  return read_floats(tensor, 0, tensor.info->length_bytes / dtype_bytes(tensor.info->dtype), out);
}

// A norm weight, bias or scale that is no number would silently spoil every token.
Status check_finite(const TensorInfo& info, const std::vector<float>& values) {
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return Unit{};
  return Error{ErrorKind::kFileMalformed, info.name, "finite numbers",
               std::to_string(*bad) + " at " + std::to_string(bad - values.begin())};
}

class FolderCheckpoint final : public Checkpoint {
 public:
  FolderCheckpoint(Config config, std::optional<Quantization> quantization, CheckpointFiles files)
      : config_(std::move(config)), quantization_(std::move(quantization)), files_(std::move(files)) {}

  const Config& config() const override { return config_; }
  const std::string& layout_name() const override { return layout_name_; }
  int64_t weight_bytes() const override { return files_.total_bytes(); }

  // Every tensor of the configuration is there and right, and nothing is there beside.
  Status check() {
    std::set<std::string_view> known;
    RS_CHECK(visit_expected_tensors(config_, [&](const ExpectedTensor& tensor) -> Status {
      const Tensor* plain = files_.find(tensor.name);
      if (plain == nullptr && quantization_ && tensor.is_matrix()) return check_packed(tensor, known);
      if (plain == nullptr) {
        return Error{ErrorKind::kTensorMissing, tensor.name, "it with shape " + shape_of(tensor).text(), ""};
      }
      known.insert(plain->info->name);
      return check_plain(tensor, *plain->info);
    }));
    for (const auto& [name, tensor] : files_.tensors()) {
      if (known.contains(name) || is_skipped_tensor(name, config_)) continue;
      return Error{ErrorKind::kTensorUnknown, std::string(name), "a tensor of this architecture",
                   "it in " + tensor.file->path()};
    }
    name_layout();
    return Unit{};
  }

  Result<Matrix> read_matrix(const std::string& base, int64_t rows, int64_t cols) const override {
    Matrix matrix;
    RS_CHECK(read_rows(base, rows, cols, 0, rows, matrix));
    return matrix;
  }

  Status read_rows(const std::string& base, int64_t rows, int64_t cols, int64_t first_row, int64_t row_count,
                   Matrix& out) const override {
    try {
      RS_CHECK(check_rows(base, rows, first_row, row_count));
      out.rows = row_count;
      out.cols = cols;
      out.offsets.clear();
      if (const Tensor* plain = files_.find(base + ".weight")) return read_plain(*plain, rows, first_row, out);
      RS_TRY(const Packed packed, find_packed(base));
      return read_packed(packed, rows, first_row, out);
    } catch (const std::bad_alloc&) {
      return Error{ErrorKind::kOutOfMemory, base, std::to_string(row_count) + " × " + std::to_string(cols) + " weights",
                   ""};
    }
  }

  Result<std::vector<float>> read_vector(const std::string& name, int64_t length) const override {
    try {
      const Tensor* tensor = files_.find(name);
      if (tensor == nullptr) return Error{ErrorKind::kTensorMissing, name, "", ""};
      RS_CHECK(check_float(*tensor->info));
      RS_CHECK(check_shape(*tensor->info, {length}));
      std::vector<float> values;
      RS_CHECK(read_floats(*tensor, values));
      RS_CHECK(check_finite(*tensor->info, values));
      return values;
    } catch (const std::bad_alloc&) {
      return Error{ErrorKind::kOutOfMemory, name, std::to_string(length) + " values", ""};
    }
  }

 private:
  static Shape shape_of(const ExpectedTensor& tensor) {
    return tensor.is_matrix() ? Shape{tensor.rows, tensor.cols} : Shape{tensor.cols};
  }

  bool is_targeted(const ExpectedTensor& tensor) const {
    if (tensor.role == TensorRole::kRouter) return false;
    const char* type = tensor.role == TensorRole::kEmbedding ? "Embedding" : "Linear";
    return quantization_->targets.contains(type) || quantization_->targets.contains(tensor.base());
  }

  Status check_plain(const ExpectedTensor& expected, const TensorInfo& info) {
    RS_CHECK(check_float(info));
    RS_CHECK(check_shape(info, shape_of(expected)));
    if (!expected.is_matrix()) return Unit{};
    plain_dtypes_.insert(info.dtype);
    if (quantization_ && is_targeted(expected) && !quantization_->ignore.contains(expected.base())) {
      return Error{ErrorKind::kTensorMissing, expected.base() + ".weight_packed",
                   "it, because quantization_config targets the module and does not ignore it", expected.name};
    }
    return Unit{};
  }

  Status check_packed(const ExpectedTensor& expected, std::set<std::string_view>& known) {
    const std::string base = expected.base();
    RS_TRY(const Packed packed, find_packed(base));
    if (expected.role == TensorRole::kRouter || quantization_->ignore.contains(base)) {
      return Error{ErrorKind::kQuantizationUnsupported, base,
                   expected.role == TensorRole::kRouter ? "a router that is not quantised"
                                                        : "a plain weight, because quantization_config ignores it",
                   "weight_packed"};
    }
    RS_CHECK(check_packed_shapes(packed, expected.rows, expected.cols));
    std::array<int64_t, 2> shape;
    RS_CHECK(packed.shape->file->read(*packed.shape->info, 0, shape.data(), sizeof shape));
    if (shape[0] != expected.rows || shape[1] != expected.cols) {
      return Error{ErrorKind::kTensorShape, packed.shape->info->name, Shape{expected.rows, expected.cols}.text(),
                   Shape{shape[0], shape[1]}.text()};
    }
    for (const Tensor* part : {packed.values, packed.scales, packed.shape}) known.insert(part->info->name);
    has_packed_ = true;
    return Unit{};
  }

  Result<Packed> find_packed(const std::string& base) const {
    const auto find = [&](const char* suffix) -> Result<const Tensor*> {
      const Tensor* tensor = files_.find(base + suffix);
      if (tensor == nullptr) return Error{ErrorKind::kTensorMissing, base + suffix, "", ""};
      return tensor;
    };
    // A folder without quantised weights should hear about the name it lacks.
    if (!quantization_) return Error{ErrorKind::kTensorMissing, base + ".weight", "", ""};
    Packed packed{};
    RS_TRY(packed.values, find(".weight_packed"));
    RS_TRY(packed.scales, find(".weight_scale"));
    RS_TRY(packed.shape, find(".weight_shape"));
    return packed;
  }

  int64_t group_columns(int64_t cols) const {
    return quantization_->group_columns == 0 ? cols : quantization_->group_columns;
  }

  Status check_packed_shapes(const Packed& packed, int64_t rows, int64_t cols) const {
    RS_CHECK(check_dtype(*packed.values->info, Dtype::kI32));
    RS_CHECK(check_float(*packed.scales->info));
    RS_CHECK(check_dtype(*packed.shape->info, Dtype::kI64));
    RS_CHECK(check_shape(*packed.shape->info, {2}));
    if (cols % 4 != 0 || cols % group_columns(cols) != 0) {
      return Error{ErrorKind::kQuantizationUnsupported, packed.values->info->name,
                   "columns in whole groups of " + std::to_string(group_columns(cols)) + " and whole words of 4",
                   std::to_string(cols) + " columns"};
    }
    RS_CHECK(check_shape(*packed.values->info, {rows, cols / 4}));
    return check_shape(*packed.scales->info, {rows, cols / group_columns(cols)});
  }

  static Status read_plain(const Tensor& tensor, int64_t rows, int64_t first_row, Matrix& out) {
    const TensorInfo& info = *tensor.info;
    RS_CHECK(check_float(info));
    RS_CHECK(check_shape(info, {rows, out.cols}));
    out.group_columns = 0;
    out.scales.clear();
    const int64_t first = first_row * out.cols;
    const int64_t count = out.rows * out.cols;
    if (info.dtype == Dtype::kF16) {
      // No backend multiplies fp16; fp32 holds it exactly.
      std::vector<float> values;
      RS_CHECK(read_floats(tensor, first, count, values));
      out.format = WeightFormat::kF32;
      out.data.resize(values.size() * sizeof(float));
      std::memcpy(out.data.data(), values.data(), out.data.size());
      return Unit{};
    }
    out.format = info.dtype == Dtype::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
    const int64_t element_bytes = dtype_bytes(info.dtype);
    out.data.resize(static_cast<size_t>(count * element_bytes));
    return tensor.file->read(info, first * element_bytes, out.data.data(), count * element_bytes);
  }

  Status read_packed(const Packed& packed, int64_t rows, int64_t first_row, Matrix& out) const {
    RS_CHECK(check_packed_shapes(packed, rows, out.cols));
    out.format = WeightFormat::kQ8;
    out.group_columns = group_columns(out.cols);
    const int64_t groups = out.group_count();
    RS_CHECK(read_floats(*packed.scales, first_row * groups, out.rows * groups, out.scales));
    RS_CHECK(check_finite(*packed.scales->info, out.scales));
    const int64_t bytes = out.rows * out.cols;
    out.data.resize(static_cast<size_t>(bytes));
    RS_CHECK(packed.values->file->read(*packed.values->info, first_row * out.cols, out.data.data(), bytes));
    // Little-endian words hold their four values in the order of their bytes; 128 + q becomes q in two's complement.
    for (uint8_t& byte : out.data) byte ^= 0x80;
    return Unit{};
  }

  void name_layout() {
    std::string plain;
    for (const Dtype dtype : plain_dtypes_) {
      if (!plain.empty()) plain += '+';
      plain += dtype == Dtype::kBF16 ? "bf16" : dtype == Dtype::kF16 ? "f16" : "f32";
    }
    if (!has_packed_) {
      layout_name_ = plain;
      return;
    }
    const int64_t group = quantization_->group_columns;
    layout_name_ = "q8 (compressed-tensors, " + (group == 0 ? "channel" : "group " + std::to_string(group)) + ")";
  }

  Config config_;
  std::optional<Quantization> quantization_;
  CheckpointFiles files_;
  std::set<Dtype> plain_dtypes_;  // of the matrices that are not packed
  bool has_packed_ = false;
  std::string layout_name_;
};

Result<std::unique_ptr<Checkpoint>> open_folder(const std::string& folder) {
  RS_TRY(const std::string config_path, path_inside(folder, "config.json"));
  RS_TRY(const std::string config_text, read_text(config_path, kMaxConfigBytes));
  RS_TRY(Config config, parse_config(config_text, config_path));
  RS_TRY(auto quantization, parse_quantization(config_text, config_path));
  if (path_exists(folder + "/generation_config.json")) {
    RS_TRY(const std::string path, path_inside(folder, "generation_config.json"));
    RS_TRY(const std::string text, read_text(path, kMaxConfigBytes));
    RS_CHECK(add_generation_config(text, path, config));
  }
  RS_TRY(CheckpointFiles files, CheckpointFiles::open(folder));
  auto checkpoint = std::make_unique<FolderCheckpoint>(std::move(config), std::move(quantization), std::move(files));
  RS_CHECK(checkpoint->check());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace

void Matrix::row_to_float(int64_t row, float* out) const {
  const size_t width = static_cast<size_t>(cols);
  const size_t start = static_cast<size_t>(row) * width;
  if (format == WeightFormat::kF32) {
    std::memcpy(out, data.data() + start * sizeof(float), width * sizeof(float));
  } else if (format == WeightFormat::kBF16) {
    for (size_t i = 0; i < width; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, data.data() + (start + i) * sizeof bits, sizeof bits);
      out[i] = bf16_to_float(bits);
    }
  } else {
    const size_t group = static_cast<size_t>(group_columns);
    const float* row_scales = scales.data() + static_cast<size_t>(row) * (width / group);
    for (size_t i = 0; i < width; ++i) {
      out[i] = static_cast<float>(static_cast<int8_t>(data[start + i])) * row_scales[i / group];
    }
  }
}

Result<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::string& folder) {
  try {
    return open_folder(folder);
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, folder, "", ""};
  }
}

}  // namespace ringside
