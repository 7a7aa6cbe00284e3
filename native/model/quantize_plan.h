// Owns: which tensor of a quantised checkpoint goes into which shard, worked out before a byte is written, because the
// shards' names hold their number. Private to model/.
#pragma once

#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_tensors.h"

namespace ringside {

struct ShardPlan {
  std::string name;                     // "model-00001-of-00003.safetensors"
  std::string start;                    // the bytes before the data
  std::vector<ExpectedTensor> sources;  // what to read, in order
  std::vector<TensorInfo> tensors;      // what to write and where
  int64_t file_bytes = 0;

  const TensorInfo* find(std::string_view name) const;
};

// True for the matrices that become 8-bit.
inline bool is_quantized(const ExpectedTensor& tensor) {
  return tensor.role == TensorRole::kLinear || tensor.role == TensorRole::kEmbedding;
}

// `files` are those of a checked checkpoint of `config`. kArgumentInvalid when a group does not divide a matrix's
// columns or one tensor alone is larger than a shard.
Result<std::vector<ShardPlan>> plan_shards(const Config& config, const CheckpointFiles& files,
                                           const QuantizeOptions& options);

// The text of model.safetensors.index.json.
std::string shard_index_text(const std::vector<ShardPlan>& shards);

}  // namespace ringside
