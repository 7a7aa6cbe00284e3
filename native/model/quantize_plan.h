// Owns: which tensor of a quantised checkpoint goes into which shard, worked out before a byte is written, because the
// shards' names hold their number. Private to model/.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_tensors.h"

namespace ringside {

// What becomes of one tensor of the input.
struct PlannedTensor {
  ExpectedTensor source;
  int bits = 0;            // 0: not quantised
  bool is_copied = false;  // its bytes go along as they are
};

struct ShardPlan {
  std::string name;                    // "model-00001-of-00003.safetensors"
  std::string start;                   // the bytes before the data
  std::vector<PlannedTensor> sources;  // what to read, in order
  std::vector<TensorInfo> tensors;     // what to write and where
  std::vector<size_t> by_name;         // indices of `tensors`, sorted by name
  int64_t file_bytes = 0;

  const TensorInfo* find(std::string_view name) const;
};

// `files` are those of a checked checkpoint of `config`. kArgumentInvalid when a group does not divide a matrix's
// columns or one tensor alone is larger than a shard.
Result<std::vector<ShardPlan>> plan_shards(const Config& config, const CheckpointFiles& files,
                                           const QuantizeOptions& options);

// True for a tensor that stands in the files under its own name as BF16, F16 or F32.
bool is_stored_plain(const ExpectedTensor& tensor, const CheckpointFiles& files);

// The text of model.safetensors.index.json.
std::string shard_index_text(const std::vector<ShardPlan>& shards);

}  // namespace ringside
