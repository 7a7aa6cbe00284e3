#include "model/checkpoint_plain.h"

#include <cstring>

#include "model/checkpoint_codes.h"

namespace ringside {

using Tensor = CheckpointFiles::Tensor;

Status check_plain(const ExpectedTensor& expected, const Tensor& tensor, const Shape& shape, LayoutSummary& summary,
                   KnownTensors& known) {
  RS_CHECK(check_float(*tensor.info));
  RS_CHECK(check_shape(*tensor.info, shape));
  summary.add_plain(expected, tensor.info->dtype);
  known.insert(tensor.info->name);
  return Unit{};
}

Status read_plain(const Tensor& tensor, int64_t stack_row, const RowSlice& slice, Matrix& out) {
  const TensorInfo& info = *tensor.info;
  RS_CHECK(check_float(info));
  const int64_t first = (stack_row + slice.first_row) * slice.cols;
  if (info.dtype == Dtype::kF16) {
    // No backend multiplies fp16; fp32 holds it exactly.
    std::vector<float> values;
    RS_CHECK(read_floats(tensor, first, slice.row_count * slice.cols, values));
    shape_matrix(out, WeightFormat::kF32, slice, 0);
    std::memcpy(out.data.data(), values.data(), out.data.size());
    return Unit{};
  }
  shape_matrix(out, info.dtype == Dtype::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32, slice, 0);
  return tensor.file->read(info, first * dtype_bytes(info.dtype), out.data.data(),
                           static_cast<int64_t>(out.data.size()));
}

Status PlainLayout::check(const ExpectedTensor& expected, KnownTensors& known) {
  const Shape shape{expected.rows, expected.cols};
  const Tensor* tensor = files_.find(expected.name);
  if (tensor == nullptr) {
    return Error{ErrorKind::kTensorMissing, expected.name, "it with shape " + shape.text(), ""};
  }
  return check_plain(expected, *tensor, shape, summary_, known);
}

Status PlainLayout::read(const RowSlice& slice, Matrix& out) const {
  RS_TRY(const Tensor* tensor, find_tensor(files_, slice.base + ".weight"));
  RS_CHECK(check_shape(*tensor->info, {slice.rows, slice.cols}));
  return read_plain(*tensor, 0, slice, out);
}

}  // namespace ringside
