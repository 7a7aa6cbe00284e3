// Owns: rewriting a checkpoint with 4- or 8-bit weights in the layout that the reader knows, shard by shard.
// Must never: leave a half-written folder under its final name, or touch the input.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "io/file.h"
#include "model/checkpoint.h"
#include "model/quantize_config.h"
#include "model/quantize_plan.h"
#include "model/quantize_shard.h"

namespace ringside {
namespace {

constexpr int64_t kMaxCopiedFileBytes = int64_t{64} << 20;
constexpr int kMaxThreads = 512;
// What goes along unchanged when the input has it.
constexpr const char* kCopiedFiles[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json"};

Status check_options(const QuantizeOptions& options) {
  const auto one_of = [](const char* name, int value, std::initializer_list<int> allowed, const char* words) -> Status {
    if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return Unit{};
    return Error{ErrorKind::kArgumentInvalid, name, words, std::to_string(value)};
  };
  RS_CHECK(one_of("bits", options.bits, {4, 8}, "4 or 8"));
  RS_CHECK(one_of("head bits", options.head_bits, {4, 8}, "4 or 8"));
  RS_CHECK(one_of("group", options.group_columns, {32, 64, 128}, "32, 64 or 128"));
  if (options.head_bits < options.bits) {
    return Error{ErrorKind::kArgumentInvalid, "head bits", "8, as the other matrices have", "4"};
  }
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return Error{ErrorKind::kArgumentInvalid, "threads", "0.." + std::to_string(kMaxThreads),
                 std::to_string(options.threads)};
  }
  return Unit{};
}

Status copy_file(const std::string& in_folder, const std::string& out_folder, const char* name) {
  if (!path_exists(in_folder + "/" + name)) return Unit{};
  RS_TRY(const std::string path, path_inside(in_folder, name));
  RS_TRY(const std::string content, read_text(path, kMaxCopiedFileBytes));
  return write_file(out_folder + "/" + name, content);
}

int64_t weight_count(const ShardPlan& shard) {
  int64_t weights = 0;
  for (const PlannedTensor& tensor : shard.sources) weights += tensor.source.rows * tensor.source.cols;
  return weights;
}

int thread_count(const QuantizeOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

Result<QuantizeReport> write_shards(const Checkpoint& checkpoint, const CheckpointFiles& files,
                                    const std::vector<ShardPlan>& shards, const QuantizeOptions& options,
                                    const std::string& folder) {
  QuantizeReport report;
  report.input_bytes = files.total_bytes();
  report.shards = static_cast<int>(shards.size());
  int64_t all_weights = 0;
  for (const ShardPlan& shard : shards) all_weights += weight_count(shard);
  int64_t weights_before = 0;
  for (const ShardPlan& shard : shards) {
    const ShardJob job{
        checkpoint, files, shard, options.group_columns, thread_count(options), [&](int64_t weights) {
          if (!options.progress) return true;
          const double share = static_cast<double>(weights_before + weights) / static_cast<double>(all_weights);
          return options.progress(std::llround(share * static_cast<double>(report.input_bytes)), report.input_bytes);
        }};
    RS_TRY(OutputFile file, OutputFile::create(folder + "/" + shard.name));
    RS_TRY(std::vector<QuantizeReport::Row> rows, write_shard(job, file));
    RS_CHECK(file.commit());
    std::move(rows.begin(), rows.end(), std::back_inserter(report.tensors));
    report.output_bytes += shard.file_bytes;
    weights_before += weight_count(shard);
  }
  return report;
}

Result<QuantizeReport> quantize_folder(const std::string& in_folder, const std::string& out_folder,
                                       const QuantizeOptions& options) {
  RS_CHECK(check_options(options));
  RS_TRY(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(in_folder));
  RS_TRY(const std::string config_path, path_inside(in_folder, "config.json"));
  RS_TRY(const std::string config_text, read_text(config_path, kMaxCopiedFileBytes));
  RS_TRY(const std::string new_config_text, with_quantization_config(config_text, options, config_path));
  RS_TRY(const CheckpointFiles files, CheckpointFiles::open(in_folder));
  RS_TRY(const std::vector<ShardPlan> shards, plan_shards(checkpoint->config(), files, options));

  RS_TRY(OutputFolder folder, OutputFolder::create(out_folder));
  RS_TRY(QuantizeReport report, write_shards(*checkpoint, files, shards, options, folder.path()));
  RS_CHECK(write_file(folder.path() + "/model.safetensors.index.json", shard_index_text(shards)));
  RS_CHECK(write_file(folder.path() + "/config.json", new_config_text));
  for (const char* name : kCopiedFiles) RS_CHECK(copy_file(in_folder, folder.path(), name));
  RS_CHECK(folder.commit());
  return report;
}

}  // namespace

Result<QuantizeReport> quantize_checkpoint(const std::string& in_folder, const std::string& out_folder,
                                           const QuantizeOptions& options) {
  try {
    return quantize_folder(in_folder, out_folder, options);
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, in_folder, "", ""};
  }
}

}  // namespace ringside
