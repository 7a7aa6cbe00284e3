// Owns: filling one output file: its tensors cut into slices of rows, which threads read, fit and write in any order.
// Private to model/.
// Must never: hold more of a matrix than a slice per thread.
#pragma once

#include "io/file.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/quantize_plan.h"

namespace ringside {

struct ShardJob {
  const Checkpoint& checkpoint;
  const CheckpointFiles& files;
  const ShardPlan& shard;
  int group_columns;
  int threads;
  // Weights of the shard that are through; on the caller's thread. False stops with kCancelled.
  std::function<bool(int64_t done_weights)> progress;
};

// Writes all tensors of the shard into `file` and returns the error of each quantised one, in the plan's order. The
// result does not depend on the threads.
Result<std::vector<QuantizeReport::Row>> write_shard(const ShardJob& job, OutputFile& file);

}  // namespace ringside
