#include "model/checkpoint_reads.h"

#include <algorithm>
#include <cmath>

#include "model/float_formats.h"

namespace ringside {
namespace {

using Tensor = CheckpointFiles::Tensor;

Status read_lines(const Tensor& tensor, const LinePart& part, int64_t element_bytes, void* out) {
  const int64_t count_bytes = part.count * element_bytes;
  if (part.count == part.width) return tensor.file->read(*tensor.info, 0, out, part.lines * count_bytes);
  auto* to = static_cast<uint8_t*>(out);
  for (int64_t line = 0; line < part.lines; ++line) {
    const int64_t from = (line * part.width + part.first) * element_bytes;
    RS_CHECK(tensor.file->read(*tensor.info, from, to + line * count_bytes, count_bytes));
  }
  return Unit{};
}

void widen(Dtype dtype, const std::vector<uint16_t>& halves, std::vector<float>& out) {
  std::transform(halves.begin(), halves.end(), out.begin(), dtype == Dtype::kBF16 ? bf16_to_float : f16_to_float);
}

}  // namespace

Result<const Tensor*> find_tensor(const CheckpointFiles& files, const std::string& name) {
  const Tensor* tensor = files.find(name);
  if (tensor == nullptr) return Error{ErrorKind::kTensorMissing, name, "", ""};
  return tensor;
}

Status check_float(const TensorInfo& info) {
  if (info.dtype == Dtype::kBF16 || info.dtype == Dtype::kF16 || info.dtype == Dtype::kF32) return Unit{};
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

Status check_finite(const TensorInfo& info, const std::vector<float>& values) {
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return Unit{};
  return Error{ErrorKind::kFileMalformed, info.name, "finite numbers",
               std::to_string(*bad) + " at " + std::to_string(bad - values.begin())};
}

Status read_floats(const Tensor& tensor, int64_t first, int64_t count, std::vector<float>& out) {
  const TensorInfo& info = *tensor.info;
  const int64_t width = dtype_bytes(info.dtype);
  out.resize(static_cast<size_t>(count));
  if (info.dtype == Dtype::kF32) return tensor.file->read(info, first * width, out.data(), count * width);
  std::vector<uint16_t> halves(out.size());
  RS_CHECK(tensor.file->read(info, first * width, halves.data(), count * width));
  widen(info.dtype, halves, out);
  return Unit{};
}

Status read_words(const Tensor& tensor, const LinePart& part, std::vector<uint32_t>& out) {
  out.resize(static_cast<size_t>(part.lines * part.count));
  return read_lines(tensor, part, sizeof(uint32_t), out.data());
}

Status read_floats(const Tensor& tensor, const LinePart& part, std::vector<float>& out) {
  out.resize(static_cast<size_t>(part.lines * part.count));
  if (tensor.info->dtype == Dtype::kF32) return read_lines(tensor, part, sizeof(float), out.data());
  std::vector<uint16_t> halves(out.size());
  RS_CHECK(read_lines(tensor, part, sizeof(uint16_t), halves.data()));
  widen(tensor.info->dtype, halves, out);
  return Unit{};
}

}  // namespace ringside
