// Owns: the weight files of one checkpoint folder, a single model.safetensors or the shards of its index, as one set of
// named tensors. Private to model/.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace ringside {

class CheckpointFiles {
 public:
  struct Tensor {
    const SafetensorsFile* file;
    const TensorInfo* info;
  };

  static Result<CheckpointFiles> open(const std::string& folder);
  // Pointers into it stay good when it moves; a copy would leave them behind.
  CheckpointFiles(CheckpointFiles&&) = default;
  CheckpointFiles& operator=(CheckpointFiles&&) = default;
  CheckpointFiles(const CheckpointFiles&) = delete;

  const Tensor* find(std::string_view name) const;
  // Sorted by name. A map and not a hash table: names come from the file and could be chosen to collide.
  const std::map<std::string_view, Tensor>& tensors() const { return tensors_; }
  int64_t total_bytes() const { return total_bytes_; }

 private:
  CheckpointFiles() = default;
  Status add(const std::string& folder, const std::string& name);
  void list_tensors();

  std::vector<SafetensorsFile> files_;
  std::map<std::string_view, Tensor> tensors_;
  size_t tensor_count_ = 0;
  int64_t total_bytes_ = 0;
};

}  // namespace ringside
