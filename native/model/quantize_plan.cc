#include "model/quantize_plan.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "io/json.h"

namespace ringside {
namespace {

// At least what one tensor's entry takes in a header beside its name: two sizes, two offsets and the words around them.
constexpr int64_t kEntryBytes = 128;
// At least what stands in a header beside its entries: the length, the metadata, the padding.
constexpr int64_t kHeaderBytes = 64;

TensorInfo output(std::string name, Dtype dtype, Shape shape) {
  TensorInfo info;
  info.name = std::move(name);
  info.dtype = dtype;
  info.shape = shape;
  return info;
}

std::vector<TensorInfo> outputs_of(const ExpectedTensor& source, const CheckpointFiles& files, int64_t group_columns) {
  if (!is_quantized(source)) {
    const TensorInfo& info = *files.find(source.name)->info;
    return {output(info.name, info.dtype, info.shape)};
  }
  return {output(source.name + "_packed", Dtype::kI32, {source.rows, source.cols / 4}),
          output(source.name + "_scale", Dtype::kBF16, {source.rows, source.cols / group_columns}),
          output(source.name + "_shape", Dtype::kI64, {2})};
}

// An upper bound of what the tensors add to a file.
int64_t bytes_of(const std::vector<TensorInfo>& tensors) {
  int64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) {
    int64_t data_bytes = dtype_bytes(tensor.dtype);
    for (size_t i = 0; i < tensor.shape.dimensions(); ++i) data_bytes *= tensor.shape[i];
    bytes += data_bytes + kEntryBytes + static_cast<int64_t>(tensor.name.size());
  }
  return bytes;
}

}  // namespace

const TensorInfo* ShardPlan::find(std::string_view name_wanted) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TensorInfo& tensor) { return tensor.name == name_wanted; });
  return found == tensors.end() ? nullptr : &*found;
}

Result<std::vector<ShardPlan>> plan_shards(const Config& config, const CheckpointFiles& files,
                                           const QuantizeOptions& options) {
  std::vector<ShardPlan> shards(1);
  int64_t shard_bytes = kHeaderBytes;
  RS_CHECK(visit_expected_tensors(config, [&](const ExpectedTensor& source) -> Status {
    if (is_quantized(source) && source.cols % options.group_columns != 0) {
      return Error{ErrorKind::kArgumentInvalid, "group",
                   "a divisor of the " + std::to_string(source.cols) + " columns of " + source.name,
                   std::to_string(options.group_columns)};
    }
    std::vector<TensorInfo> tensors = outputs_of(source, files, options.group_columns);
    const int64_t bytes = bytes_of(tensors);
    if (kHeaderBytes + bytes > options.shard_bytes) {
      return Error{ErrorKind::kArgumentInvalid, "shard bytes",
                   "at least " + std::to_string(kHeaderBytes + bytes) + " for " + source.name,
                   std::to_string(options.shard_bytes)};
    }
    if (shard_bytes + bytes > options.shard_bytes) {
      shards.emplace_back();
      shard_bytes = kHeaderBytes;
    }
    shard_bytes += bytes;
    shards.back().sources.push_back(source);
    std::move(tensors.begin(), tensors.end(), std::back_inserter(shards.back().tensors));
    return Unit{};
  }));
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shards[i].name = name;
    shards[i].start = layout_safetensors(shards[i].tensors);
    const TensorInfo& last = shards[i].tensors.back();
    shards[i].file_bytes = last.offset_bytes + last.length_bytes;
  }
  return shards;
}

std::string shard_index_text(const std::vector<ShardPlan>& shards) {
  std::map<std::string_view, std::string_view> places;
  int64_t total_bytes = 0;
  for (const ShardPlan& shard : shards) {
    for (const TensorInfo& tensor : shard.tensors) {
      places.emplace(tensor.name, shard.name);
      total_bytes += tensor.length_bytes;
    }
  }
  std::string text =
      "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total_bytes) + "\n  },\n  \"weight_map\": {";
  const char* separator = "\n    ";
  for (const auto& [tensor, shard] : places) {
    text += separator + json::quote(tensor) + ": " + json::quote(shard);
    separator = ",\n    ";
  }
  return text + "\n  }\n}\n";
}

}  // namespace ringside
