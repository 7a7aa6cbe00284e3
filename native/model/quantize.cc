// Owns: rewriting a checkpoint with 8-bit weights in the layout that the reader knows, tensor by tensor.
// Must never: leave a half-written folder under its final name, or touch the input.
#include <algorithm>
#include <array>
#include <cmath>
#include <new>

#include "io/file.h"
#include "io/json.h"
#include "model/checkpoint.h"
#include "model/float_formats.h"
#include "model/quantize_plan.h"

namespace ringside {
namespace {

constexpr int64_t kMaxCopiedFileBytes = int64_t{64} << 20;
constexpr int kMaxQuantum = 127;

// What goes along unchanged when the input has it.
constexpr const char* kCopiedFiles[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json"};

struct QuantizedMatrix {
  std::vector<uint8_t> bytes;    // [rows, cols], q + 128
  std::vector<uint16_t> scales;  // [rows, groups], bf16
  double error_squares = 0.0;
  double weight_squares = 0.0;
};

// One group: the scale is rounded to bf16 first and the quanta are then chosen for the scale that will be stored.
void quantize_group(const float* weights, size_t count, uint8_t* bytes, uint16_t& scale_bits, QuantizedMatrix& sums) {
  float largest = 0.0f;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[i]));
  scale_bits = float_to_bf16(largest / kMaxQuantum);
  const float scale = bf16_to_float(scale_bits);
  double error_squares = 0.0;
  double weight_squares = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const float steps = scale > 0.0f ? weights[i] / scale : 0.0f;
    const int nearest = static_cast<int>(steps < 0.0f ? steps - 0.5f : steps + 0.5f);
    const int quantum = std::clamp(nearest, -kMaxQuantum, kMaxQuantum);
    bytes[i] = static_cast<uint8_t>(quantum + 128);
    const double error = static_cast<double>(weights[i]) - static_cast<double>(scale) * quantum;
    error_squares += error * error;
    weight_squares += static_cast<double>(weights[i]) * weights[i];
  }
  sums.error_squares += error_squares;
  sums.weight_squares += weight_squares;
}

Result<QuantizedMatrix> quantize_matrix(const Matrix& matrix, int64_t group_columns, const std::string& name) {
  const size_t cols = static_cast<size_t>(matrix.cols);
  const size_t group = static_cast<size_t>(group_columns);
  const size_t groups = cols / group;
  QuantizedMatrix out;
  out.bytes.resize(static_cast<size_t>(matrix.rows) * cols);
  out.scales.resize(static_cast<size_t>(matrix.rows) * groups);
  std::vector<float> row(cols);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    matrix.row_to_float(r, row.data());
    if (!std::all_of(row.begin(), row.end(), [](float weight) { return std::isfinite(weight); })) {
      return Error{ErrorKind::kFileMalformed, name, "finite weights", "another in row " + std::to_string(r)};
    }
    const size_t start = static_cast<size_t>(r);
    for (size_t g = 0; g < groups; ++g) {
      quantize_group(row.data() + g * group, group, out.bytes.data() + start * cols + g * group,
                     out.scales[start * groups + g], out);
    }
  }
  return out;
}

class Quantizer {
 public:
  Quantizer(const Checkpoint& checkpoint, const CheckpointFiles& files, const QuantizeOptions& options)
      : checkpoint_(checkpoint), files_(files), options_(options) {}

  Status write_shard(const ShardPlan& shard, const std::string& folder) {
    RS_TRY(OutputFile file, OutputFile::create(folder + "/" + shard.name));
    RS_CHECK(file.write(0, shard.start.data(), static_cast<int64_t>(shard.start.size())));
    for (const ExpectedTensor& source : shard.sources) {
      RS_CHECK(is_quantized(source) ? write_quantized(source, shard, file) : write_copy(source, shard, file));
      if (options_.progress) options_.progress(done_bytes_, files_.total_bytes());
    }
    return file.commit();
  }

  QuantizeReport take_report() { return std::move(report_); }

 private:
  static Status put(OutputFile& file, const ShardPlan& shard, const std::string& name, const void* data) {
    const TensorInfo& place = *shard.find(name);
    return file.write(place.offset_bytes, data, place.length_bytes);
  }

  Status write_quantized(const ExpectedTensor& source, const ShardPlan& shard, OutputFile& file) {
    RS_TRY(const Matrix matrix, checkpoint_.read_matrix(source.base(), source.rows, source.cols));
    RS_TRY(const QuantizedMatrix quantized, quantize_matrix(matrix, options_.group_columns, source.name));
    const std::array<int64_t, 2> shape = {source.rows, source.cols};
    RS_CHECK(put(file, shard, source.name + "_packed", quantized.bytes.data()));
    RS_CHECK(put(file, shard, source.name + "_scale", quantized.scales.data()));
    RS_CHECK(put(file, shard, source.name + "_shape", shape.data()));
    const double error =
        quantized.weight_squares > 0.0 ? std::sqrt(quantized.error_squares / quantized.weight_squares) : 0.0;
    report_.tensors.push_back({source.name, error});
    done_bytes_ += files_.find(source.name)->info->length_bytes;
    return Unit{};
  }

  Status write_copy(const ExpectedTensor& source, const ShardPlan& shard, OutputFile& file) {
    const CheckpointFiles::Tensor& tensor = *files_.find(source.name);
    std::vector<char> bytes(static_cast<size_t>(tensor.info->length_bytes));
    RS_CHECK(tensor.file->read(*tensor.info, 0, bytes.data(), tensor.info->length_bytes));
    done_bytes_ += tensor.info->length_bytes;
    return put(file, shard, source.name, bytes.data());
  }

  const Checkpoint& checkpoint_;
  const CheckpointFiles& files_;
  const QuantizeOptions& options_;
  QuantizeReport report_;
  int64_t done_bytes_ = 0;
};

std::string quantization_config_text(int group_columns) {
  return "{\n"
         "    \"quant_method\": \"compressed-tensors\",\n"
         "    \"format\": \"pack-quantized\",\n"
         "    \"quantization_status\": \"compressed\",\n"
         "    \"config_groups\": {\n"
         "      \"group_0\": {\n"
         "        \"targets\": [\"Linear\", \"Embedding\"],\n"
         "        \"weights\": {\n"
         "          \"num_bits\": 8,\n"
         "          \"type\": \"int\",\n"
         "          \"symmetric\": true,\n"
         "          \"strategy\": \"group\",\n"
         "          \"group_size\": " +
         std::to_string(group_columns) +
         ",\n"
         "          \"dynamic\": false\n"
         "        },\n"
         "        \"input_activations\": null,\n"
         "        \"output_activations\": null\n"
         "      }\n"
         "    },\n"
         "    \"kv_cache_scheme\": null,\n"
         "    \"ignore\": [\"re:.*\\\\.mlp\\\\.gate$\"]\n"
         "  }";
}

// Puts one more member behind the last one and leaves every other byte as it is. `text` was parsed before, so that it
// ends in the brace of an object that has members.
std::string with_quantization_config(const std::string& text, int group_columns) {
  const size_t brace = text.find_last_of('}');
  const size_t last = text.find_last_not_of(" \t\r\n", brace - 1);
  return text.substr(0, last + 1) + ",\n  \"quantization_config\": " + quantization_config_text(group_columns) + "\n" +
         text.substr(brace);
}

Status check_options(const QuantizeOptions& options) {
  if (options.bits != 8) return Error{ErrorKind::kArgumentInvalid, "bits", "8", std::to_string(options.bits)};
  const int group = options.group_columns;
  if (group == 32 || group == 64 || group == 128) return Unit{};
  return Error{ErrorKind::kArgumentInvalid, "group", "32, 64 or 128", std::to_string(group)};
}

Status copy_file(const std::string& in_folder, const std::string& out_folder, const char* name) {
  if (!path_exists(in_folder + "/" + name)) return Unit{};
  RS_TRY(const std::string path, path_inside(in_folder, name));
  RS_TRY(const std::string content, read_text(path, kMaxCopiedFileBytes));
  return write_file(out_folder + "/" + name, content);
}

Result<QuantizeReport> quantize_folder(const std::string& in_folder, const std::string& out_folder,
                                       const QuantizeOptions& options) {
  RS_CHECK(check_options(options));
  RS_TRY(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(in_folder));
  RS_TRY(const std::string config_path, path_inside(in_folder, "config.json"));
  RS_TRY(const std::string config_text, read_text(config_path, kMaxCopiedFileBytes));
  json::Document config;
  RS_CHECK(config.parse(config_text, config_path));
  const json::Value quantization = config.root().find("quantization_config");
  if (!quantization.is_missing()) {
    // A null means no quantisation, but a second member of the name would make the new file unreadable.
    return Error{ErrorKind::kArgumentInvalid, config_path + ": quantization_config",
                 "no such member, as in a checkpoint that is not quantised yet",
                 quantization.is_null() ? "null" : checkpoint->layout_name()};
  }
  RS_TRY(const CheckpointFiles files, CheckpointFiles::open(in_folder));
  RS_TRY(const std::vector<ShardPlan> shards, plan_shards(checkpoint->config(), files, options));

  RS_TRY(OutputFolder folder, OutputFolder::create(out_folder));
  Quantizer quantizer(*checkpoint, files, options);
  int64_t output_bytes = 0;
  for (const ShardPlan& shard : shards) {
    RS_CHECK(quantizer.write_shard(shard, folder.path()));
    output_bytes += shard.file_bytes;
  }
  RS_CHECK(write_file(folder.path() + "/model.safetensors.index.json", shard_index_text(shards)));
  RS_CHECK(write_file(folder.path() + "/config.json", with_quantization_config(config_text, options.group_columns)));
  for (const char* name : kCopiedFiles) RS_CHECK(copy_file(in_folder, folder.path(), name));
  RS_CHECK(folder.commit());

  QuantizeReport report = quantizer.take_report();
  report.input_bytes = files.total_bytes();
  report.output_bytes = output_bytes;
  report.shards = static_cast<int>(shards.size());
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
