#include "model/checkpoint.h"

#include <cstring>
#include <new>
#include <utility>

#include "io/file.h"
#include "model/checkpoint_codes.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_layout.h"
#include "model/checkpoint_reads.h"
#include "model/checkpoint_tensors.h"
#include "model/float_formats.h"
#include "model/generation_config.h"

namespace ringside {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{4} << 20;

class FolderCheckpoint final : public Checkpoint {
 public:
  FolderCheckpoint(Config config, CheckpointFiles files) : config_(std::move(config)), files_(std::move(files)) {}

  // The layout refers to the files, which stay where they are from here on.
  Status open(const std::string& config_text, const std::string& config_path) {
    RS_TRY(layout_, open_layout(config_text, config_path, config_, files_));
    RS_CHECK(check());
    layout_name_ = layout_->name();
    return Unit{};
  }

  const Config& config() const override { return config_; }
  const std::string& layout_name() const override { return layout_name_; }
  int64_t weight_bytes() const override { return files_.total_bytes(); }

  Result<Matrix> read_matrix(const std::string& base, int64_t rows, int64_t cols) const override {
    Matrix matrix;
    RS_CHECK(read_rows(base, rows, cols, 0, rows, matrix));
    return matrix;
  }

  Status read_rows(const std::string& base, int64_t rows, int64_t cols, int64_t first_row, int64_t row_count,
                   Matrix& out) const override {
    if (first_row < 0 || row_count < 0 || first_row > rows || row_count > rows - first_row) {
      return Error{ErrorKind::kArgumentInvalid, base, "rows within " + std::to_string(rows),
                   std::to_string(first_row) + " + " + std::to_string(row_count)};
    }
    try {
      RS_CHECK(layout_->read({base, rows, cols, first_row, row_count}, out));
      if (is_router_base(base)) dequantise(out);
      return Unit{};
    } catch (const std::bad_alloc&) {
      return Error{ErrorKind::kOutOfMemory, base, std::to_string(row_count) + " × " + std::to_string(cols) + " weights",
                   ""};
    }
  }

  Result<std::vector<float>> read_vector(const std::string& name, int64_t length) const override {
    try {
      RS_TRY(const CheckpointFiles::Tensor* tensor, find_tensor(files_, name));
      RS_CHECK(check_float(*tensor->info));
      RS_CHECK(check_shape(*tensor->info, {length}));
      std::vector<float> values;
      RS_CHECK(read_floats(*tensor, 0, length, values));
      RS_CHECK(check_finite(*tensor->info, values));
      return values;
    } catch (const std::bad_alloc&) {
      return Error{ErrorKind::kOutOfMemory, name, std::to_string(length) + " values", ""};
    }
  }

 private:
  // Every tensor of the configuration is there and right, and nothing is there beside.
  Status check() {
    KnownTensors known;
    RS_CHECK(visit_expected_tensors(config_, [&](const ExpectedTensor& tensor) -> Status {
      return tensor.is_matrix() ? layout_->check(tensor, known) : check_vector(tensor, known);
    }));
    for (const auto& [name, tensor] : files_.tensors()) {
      if (known.contains(name) || is_skipped_tensor(name, config_)) continue;
      return Error{ErrorKind::kTensorUnknown, std::string(name), "a tensor of this architecture",
                   "it in " + tensor.file->path()};
    }
    return Unit{};
  }

  Status check_vector(const ExpectedTensor& expected, KnownTensors& known) const {
    const CheckpointFiles::Tensor* tensor = files_.find(expected.name);
    const Shape shape{expected.cols};
    if (tensor == nullptr) {
      return Error{ErrorKind::kTensorMissing, expected.name, "it with shape " + shape.text(), ""};
    }
    known.insert(tensor->info->name);
    RS_CHECK(check_float(*tensor->info));
    return check_shape(*tensor->info, shape);
  }

  Config config_;
  CheckpointFiles files_;
  std::unique_ptr<CheckpointLayout> layout_;
  std::string layout_name_;
};

Result<std::unique_ptr<Checkpoint>> open_folder(const std::string& folder) {
  RS_TRY(const std::string config_path, path_inside(folder, "config.json"));
  RS_TRY(const std::string config_text, read_text(config_path, kMaxConfigBytes));
  RS_TRY(Config config, parse_config(config_text, config_path));
  if (path_exists(folder + "/generation_config.json")) {
    RS_TRY(const std::string path, path_inside(folder, "generation_config.json"));
    RS_TRY(const std::string text, read_text(path, kMaxConfigBytes));
    RS_CHECK(add_generation_config(text, path, config));
  }
  RS_TRY(CheckpointFiles files, CheckpointFiles::open(folder));
  auto checkpoint = std::make_unique<FolderCheckpoint>(std::move(config), std::move(files));
  RS_CHECK(checkpoint->open(config_text, config_path));
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace

void Matrix::row_to_float(int64_t row, float* out) const {
  const size_t width = static_cast<size_t>(cols);
  const size_t start = static_cast<size_t>(row) * width;
  if (format == WeightFormat::kF32) {
    std::memcpy(out, data.data() + start * sizeof(float), width * sizeof(float));
    return;
  }
  if (format == WeightFormat::kBF16) {
    for (size_t i = 0; i < width; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, data.data() + (start + i) * sizeof bits, sizeof bits);
      out[i] = bf16_to_float(bits);
    }
    return;
  }
  const size_t group = static_cast<size_t>(group_columns);
  const size_t first_group = static_cast<size_t>(row * group_count());
  for (size_t i = 0; i < width; ++i) {
    const size_t at = start + i;
    const size_t g = first_group + i / group;
    float code = 0.0f;
    if (format == WeightFormat::kQ8) code = static_cast<float>(static_cast<int8_t>(data[at]));
    if (format == WeightFormat::kQ4) code = static_cast<float>(((data[at / 2] >> (at % 2 * 4)) & 15) - 8);
    if (format == WeightFormat::kFP8) code = fp8_to_float(data[at]);
    const double offset = offsets.empty() ? 0.0 : static_cast<double>(offsets[g]);
    // The product is exact in double, so the value is rounded once.
    out[i] = static_cast<float>(static_cast<double>(code) * static_cast<double>(scales[g]) + offset);
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
