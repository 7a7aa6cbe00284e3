#include "model/quantize_plan.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>

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

int bits_of(const ExpectedTensor& tensor, const QuantizeOptions& options) {
  if (tensor.role == TensorRole::kEmbedding || tensor.name == "lm_head.weight") return options.head_bits;
  return tensor.role == TensorRole::kLinear ? options.bits : 0;
}

std::vector<TensorInfo> outputs_of(const PlannedTensor& planned, const CheckpointFiles& files, int64_t group_columns) {
  const ExpectedTensor& source = planned.source;
  if (planned.is_copied) {
    const TensorInfo& info = *files.find(source.name)->info;
    return {output(info.name, info.dtype, info.shape)};
  }
  if (planned.bits == 0) {
    return {
        output(source.name, Dtype::kF32, source.is_matrix() ? Shape{source.rows, source.cols} : Shape{source.cols})};
  }
  const int64_t codes_per_word = 32 / planned.bits;
  return {output(source.name + "_packed", Dtype::kI32, {source.rows, source.cols / codes_per_word}),
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
  const auto place =
      std::lower_bound(by_name.begin(), by_name.end(), name_wanted,
                       [&](size_t index, std::string_view wanted) { return tensors[index].name < wanted; });
  return place != by_name.end() && tensors[*place].name == name_wanted ? &tensors[*place] : nullptr;
}

bool is_stored_plain(const ExpectedTensor& tensor, const CheckpointFiles& files) {
  const CheckpointFiles::Tensor* stored = files.find(tensor.name);
  if (stored == nullptr) return false;
  const Dtype dtype = stored->info->dtype;
  return dtype == Dtype::kBF16 || dtype == Dtype::kF16 || dtype == Dtype::kF32;
}

Result<std::vector<ShardPlan>> plan_shards(const Config& config, const CheckpointFiles& files,
                                           const QuantizeOptions& options) {
  std::vector<ShardPlan> shards(1);
  int64_t shard_bytes = kHeaderBytes;
  RS_CHECK(visit_expected_tensors(config, [&](const ExpectedTensor& source) -> Status {
    PlannedTensor planned{source, bits_of(source, options), false};
    planned.is_copied = planned.bits == 0 && is_stored_plain(source, files);
    if (planned.bits != 0 && source.cols % options.group_columns != 0) {
      return Error{ErrorKind::kArgumentInvalid, "group",
                   "a divisor of the " + std::to_string(source.cols) + " columns of " + source.name,
                   std::to_string(options.group_columns)};
    }
    std::vector<TensorInfo> tensors = outputs_of(planned, files, options.group_columns);
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
    shards.back().sources.push_back(std::move(planned));
    std::move(tensors.begin(), tensors.end(), std::back_inserter(shards.back().tensors));
    return Unit{};
  }));
  for (size_t i = 0; i < shards.size(); ++i) {
    ShardPlan& shard = shards[i];
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shard.name = name;
    shard.start = layout_safetensors(shard.tensors);
    shard.by_name.resize(shard.tensors.size());
    std::iota(shard.by_name.begin(), shard.by_name.end(), size_t{0});
    std::sort(shard.by_name.begin(), shard.by_name.end(),
              [&](size_t a, size_t b) { return shard.tensors[a].name < shard.tensors[b].name; });
    const TensorInfo& last = shard.tensors.back();
    shard.file_bytes = last.offset_bytes + last.length_bytes;
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
