// Owns: the safetensors container: which tensors a file holds and where. Rules: a header of at most 32 MiB and 131,072
// tensors, plain names, at most 4 dimensions, no tensor twice, data that starts at 0, has no hole and no overlap and
// ends exactly where the file ends. Must never: size an allocation by a number from the header, or let a tensor reach
// past the file's real length.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../error.h"
#include "file.h"

namespace ringside {

constexpr int64_t kMaxSafetensorsHeaderBytes = int64_t{32} << 20;
constexpr size_t kMaxTensors = 131'072;
constexpr size_t kMaxTensorNameBytes = 128;
constexpr size_t kMaxTensorDimensions = 4;

enum class Dtype : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64
};
std::string_view dtype_name(Dtype dtype);  // as the format spells it, "BF16"
int64_t dtype_bytes(Dtype dtype);

// At most kMaxTensorDimensions numbers, held in place: a header of 131,072 tensors must stay cheap.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  bool append(int64_t size);  // false when there is no room
  size_t dimensions() const { return dimensions_; }
  int64_t operator[](size_t i) const { return sizes_[i]; }
  bool operator==(const Shape& other) const = default;
  std::string text() const;  // "[256, 2048]"

 private:
  std::array<int64_t, kMaxTensorDimensions> sizes_{};
  uint8_t dimensions_ = 0;
};

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  int64_t offset_bytes = 0;  // from the start of the file
  int64_t length_bytes = 0;
};

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);
  const std::string& path() const { return file_.path(); }
  std::span<const TensorInfo> tensors() const { return tensors_; }  // in the order of their data
  // Part of one tensor's bytes; the offset counts from the tensor's start.
  Status read(const TensorInfo& tensor, int64_t offset_bytes, void* out, int64_t count_bytes) const;

 private:
  SafetensorsFile(InputFile file, std::vector<TensorInfo> tensors);
  InputFile file_;
  std::vector<TensorInfo> tensors_;
};

// Parses the JSON of a header whose data begins at `data_start_bytes` of a file of `file_bytes`. Apart for fuzzing.
Result<std::vector<TensorInfo>> parse_safetensors_header(std::string_view header, int64_t data_start_bytes,
                                                         int64_t file_bytes, const std::string& path);

// [a-zA-Z0-9_.]{1,128}
bool is_tensor_name(std::string_view name);

// Sets the offsets of `tensors` (dtype, shape and name given) for a file that holds them in this order, widest dtype
// first so that each lies aligned, and returns the bytes that stand before the data.
std::string layout_safetensors(std::vector<TensorInfo>& tensors);

}  // namespace ringside
