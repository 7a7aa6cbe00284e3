// Owns: what the readers of all layouts ask of a stored tensor: is it there, has it this dtype and shape, give me these
// of its values. Private to model/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../error.h"
#include "io/safetensors.h"
#include "model/checkpoint_files.h"

namespace ringside {

// kTensorMissing when there is none.
Result<const CheckpointFiles::Tensor*> find_tensor(const CheckpointFiles& files, const std::string& name);

Status check_float(const TensorInfo& info);  // BF16, F16 or F32
Status check_dtype(const TensorInfo& info, Dtype dtype);
Status check_shape(const TensorInfo& info, const Shape& shape);
// A norm weight, bias or scale that is no number would silently spoil every token.
Status check_finite(const TensorInfo& info, const std::vector<float>& values);

// `count` values of a float tensor of any stored width, from element `first` on.
Status read_floats(const CheckpointFiles::Tensor& tensor, int64_t first, int64_t count, std::vector<float>& out);

// A part of every line of a tensor [lines, width]: the elements [first, first + count) of each, one line after the
// other.
struct LinePart {
  int64_t lines, width, first, count;
};
Status read_words(const CheckpointFiles::Tensor& tensor, const LinePart& part, std::vector<uint32_t>& out);
Status read_floats(const CheckpointFiles::Tensor& tensor, const LinePart& part, std::vector<float>& out);

}  // namespace ringside
