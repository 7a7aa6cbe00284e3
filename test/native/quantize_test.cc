// Quantising: the bytes that are written, the error that is allowed, a folder that appears whole or not at all, and the
// patterns that name modules.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "check.h"
#include "failing_calls.h"
#include "io/json.h"
#include "model/checkpoint.h"
#include "model/checkpoint_pattern.h"
#include "model/checkpoint_tensors.h"
#include "model/float_formats.h"
#include "model/quantize_config.h"
#include "model/quantize_fit.h"
#include "stored_model.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

const std::string kGolden = RS_GOLDEN_DIR "/tiny-tail";

template <class T>
std::string outcome(const Result<T>& result) {
  return result.ok() ? "accepted" : error_kind_name(result.error().kind);
}

QuantizeOptions group_of(int columns, int64_t shard_bytes = 45'000'000) {
  QuantizeOptions options;
  options.group_columns = columns;
  options.shard_bytes = shard_bytes;
  return options;
}

QuantizeOptions four_bits(int columns, int head_bits, int threads = 0) {
  QuantizeOptions options = group_of(columns);
  options.bits = 4;
  options.head_bits = head_bits;
  options.threads = threads;
  return options;
}

std::vector<std::string> weight_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  }
  return files;
}

// The stored bytes of one tensor of a sharded folder, through the container alone.
std::string stored_bytes(const std::string& folder, const std::string& name) {
  for (const std::string& path : weight_files(folder)) {
    const auto file = SafetensorsFile::open(path);
    if (!file.ok()) continue;
    for (const TensorInfo& info : file->tensors()) {
      if (info.name != name) continue;
      std::string bytes(static_cast<size_t>(info.length_bytes), '\0');
      return file->read(info, 0, bytes.data(), info.length_bytes).ok() ? bytes : "unreadable";
    }
  }
  return "absent";
}

// Of one matrix in two folders: the root of the mean squared difference by that of the first one's values.
double distance(const std::string& exact_folder, const std::string& other_folder, const std::string& base, int64_t rows,
                int64_t cols) {
  const auto a = Checkpoint::open(exact_folder);
  const auto b = Checkpoint::open(other_folder);
  if (!a.ok() || !b.ok()) return -1.0;
  const auto exact = a.value()->read_matrix(base, rows, cols);
  const auto other = b.value()->read_matrix(base, rows, cols);
  if (!exact.ok() || !other.ok()) return -1.0;
  std::vector<float> x(static_cast<size_t>(cols)), y(x.size());
  double difference = 0.0, squares = 0.0;
  for (int64_t row = 0; row < rows; ++row) {
    exact->row_to_float(row, x.data());
    other->row_to_float(row, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      difference += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
      squares += static_cast<double>(x[i]) * x[i];
    }
  }
  return std::sqrt(difference / squares);
}

void put_bf16(std::string& bytes, size_t index, uint16_t bits) { std::memcpy(bytes.data() + 2 * index, &bits, 2); }

}  // namespace

TEST("quantize: an example worked out by hand, byte by byte") {
  StoredModel model = StoredModel::read(kGolden);
  const std::string base = "model.layers.0.attention.dense";
  std::string& weights = model.at(base + ".weight").bytes;
  weights.assign(weights.size(), '\0');
  // Row 0, first group: the largest weight is 127, so the scale is 1.
  const uint16_t first[] = {0x42FE, 0xC2FE, 0x3ECD, 0x3FCD, 0xBFC0, 0x4049};  // 127, -127, 0.4, 1.6, -1.5, 3.14
  for (size_t i = 0; i < 6; ++i) put_bf16(weights, i, first[i]);
  // Row 0, second group: 1.5 / 127 is stored as 0x3C42 = 0.01184082. 0.57421875 is 48.49 of these steps, but would be
  // 48.62 of the unrounded ones.
  put_bf16(weights, 32, 0x3FC0);
  put_bf16(weights, 33, 0x3F13);
  put_bf16(weights, 34, 0xBF13);
  TempFolder folder;
  model.write(folder.path());
  const auto report = quantize_checkpoint(folder.path(), folder / "out", group_of(32));
  CHECK(report.ok());
  if (!report.ok()) return;

  const std::string packed = stored_bytes(folder / "out", base + ".weight_packed");
  CHECK_EQ(packed.size(), 64u * 64u);
  const uint8_t row[] = {255, 1, 128, 130, 126, 131, 128, 128};
  CHECK(std::memcmp(packed.data(), row, sizeof row) == 0);
  int32_t word = 0;
  std::memcpy(&word, packed.data(), 4);
  CHECK_EQ(static_cast<uint32_t>(word), 0x828001FFu);
  const uint8_t second[] = {255, 176, 80, 128};
  CHECK(std::memcmp(packed.data() + 32, second, sizeof second) == 0);
  const std::string scales = stored_bytes(folder / "out", base + ".weight_scale");
  CHECK_EQ(scales.size(), 64u * 2u * 2u);
  CHECK(scales.substr(0, 6) == std::string("\x80\x3F\x42\x3C\x00\x00", 6));
  const int64_t shape[] = {64, 64};
  CHECK(stored_bytes(folder / "out", base + ".weight_shape") == std::string(reinterpret_cast<const char*>(shape), 16));
  CHECK_EQ(stored_bytes(folder / "out", base + ".weight"), "absent");
}

TEST("quantize: the round trip is off by half a step at most, and the rest keeps its bytes") {
  for (const bool wide_head : {false, true}) {
    TempFolder folder;
    StoredModel model = StoredModel::read(kGolden);
    if (wide_head) {
      // The same model with one matrix in fp32.
      StoredTensor& head = model.at("lm_head.weight");
      std::string wide;
      for (size_t i = 0; i < head.bytes.size(); i += 2) wide += std::string(2, '\0') + head.bytes.substr(i, 2);
      head.bytes = wide;
      head.info.dtype = Dtype::kF32;
    }
    model.write(folder.path());
    const auto report = quantize_checkpoint(folder.path(), folder / "out", group_of(32));
    CHECK(report.ok());
    const auto before = Checkpoint::open(folder.path());
    const auto after = Checkpoint::open(folder / "out");
    CHECK(before.ok() && after.ok());
    if (!report.ok() || !before.ok() || !after.ok()) continue;
    CHECK_EQ(after.value()->layout_name(), "q8 (compressed-tensors, group 32)");

    size_t matrices = 0;
    const Status walked = visit_expected_tensors(before.value()->config(), [&](const ExpectedTensor& tensor) -> Status {
      if (tensor.role == TensorRole::kVector || tensor.role == TensorRole::kRouter) {
        CHECK(stored_bytes(folder / "out", tensor.name) == model.at(tensor.name).bytes);
        return Unit{};
      }
      RS_TRY(const Matrix exact, before.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
      RS_TRY(const Matrix quantized, after.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
      CHECK(quantized.format == WeightFormat::kQ8);
      std::vector<float> a(static_cast<size_t>(tensor.cols)), b(a.size());
      for (int64_t row = 0; row < tensor.rows; ++row) {
        exact.row_to_float(row, a.data());
        quantized.row_to_float(row, b.data());
        for (size_t i = 0; i < a.size(); ++i) {
          const float scale = quantized.scales[static_cast<size_t>(row * tensor.cols / 32) + i / 32];
          CHECK(std::fabs(a[i] - b[i]) <= 0.500001f * scale);
        }
      }
      const QuantizeReport::Row& row = report->tensors[matrices++];
      CHECK_EQ(row.tensor, tensor.name);
      CHECK(row.relative_rms_error > 0.0 && row.relative_rms_error < 0.01);
      return Unit{};
    });
    CHECK(walked.ok());
    CHECK_EQ(matrices, report->tensors.size());
    CHECK_EQ(report->output_bytes,
             static_cast<int64_t>(std::filesystem::file_size(folder / "out/model-00001-of-00001.safetensors")));
  }
}

TEST("quantize: no shard is larger than asked, and the index tells the truth") {
  TempFolder folder;
  for (const int64_t limit : {40'000, 100'000, 200'000}) {
    const std::string out = folder / std::to_string(limit);
    const auto report = quantize_checkpoint(kGolden, out, group_of(32, limit));
    CHECK(report.ok());
    if (!report.ok()) continue;
    const std::vector<std::string> files = weight_files(out);
    CHECK_EQ(static_cast<int>(files.size()), report->shards);
    CHECK(report->shards >= 500'000 / limit);
    for (const std::string& file : files) CHECK(static_cast<int64_t>(std::filesystem::file_size(file)) <= limit);
    // Opening compares the index with the shards, tensor by tensor.
    CHECK(Checkpoint::open(out).ok());
    json::Document index;
    const std::string text = file_content(out + "/model.safetensors.index.json");
    CHECK(index.parse(text, "index").ok());
    // 230 tensors, of which each quantised matrix became three.
    CHECK_EQ(index.root().find("weight_map").size(), 230 + 2 * report->tensors.size());
    for (const char* name : {"lm_head.weight_packed", "model.layers.6.mlp.experts.7.up_proj.weight_scale"}) {
      CHECK(stored_bytes(out, name) == stored_bytes(folder / "40000", name));
    }
  }
  const auto small = quantize_checkpoint(kGolden, folder / "small", group_of(32, 30'000));
  CHECK_EQ(outcome(small), "argument-invalid");
  CHECK(small.error().expected.find("word_embeddings") != std::string::npos);
  CHECK(!std::filesystem::exists(folder / "small"));
}

TEST("quantize: config.json gains one member and keeps every other byte; the other files come along") {
  TempFolder folder;
  StoredModel model = StoredModel::read(kGolden);
  CHECK(model.edit_config("\"vocab_size\"", "\"unknown \\u00e9\": [1.50, {\"x\": null}],\n \"vocab_size\""));
  model.write(folder.path());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    put_file(folder / name, std::string("{\"eos_token_id\": [0, 2], \"é\": \"") + name + "\"}\n");
  }
  put_file(folder / "notes.txt", "not part of a model");
  CHECK(quantize_checkpoint(folder.path(), folder / "out", group_of(32)).ok());
  const std::string before = file_content(folder / "config.json");
  const std::string after = file_content(folder / "out/config.json");
  const size_t last = before.find_last_not_of(" \n", before.rfind('}') - 1);
  CHECK(after.starts_with(before.substr(0, last + 1)));
  json::Document document;
  CHECK(document.parse(after, "config.json").ok());
  CHECK_EQ(document.root().find("quantization_config").find("quant_method").as_string(), "compressed-tensors");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    CHECK(file_content(folder / "out/" + name) == file_content(folder / name));
  }
  CHECK(!std::filesystem::exists(folder / "out/notes.txt"));
  CHECK(Checkpoint::open(folder / "out").value()->config().stop_tokens == std::vector<int32_t>({0, 2}));
}

TEST("quantize: what is refused leaves nothing behind") {
  TempFolder folder;
  StoredModel::read(kGolden).write(folder / "");
  std::filesystem::create_directory(folder / "full");
  put_file(folder / "full/file", "x");
  const size_t entries = entries_in(folder.path());
  const auto refused = [&](const std::string& in, const std::string& out, QuantizeOptions options) {
    const std::string got = outcome(quantize_checkpoint(in, out, options));
    CHECK_EQ(entries_in(folder.path()), entries);
    return got;
  };
  for (const auto& [bits, head_bits, threads] : {std::array{3, 8, 0}, {16, 8, 0}, {4, 5, 0}, {8, 4, 0}, {4, 8, 513}}) {
    QuantizeOptions odd = group_of(32);
    odd.bits = bits;
    odd.head_bits = head_bits;
    odd.threads = threads;
    CHECK_EQ(refused(folder.path(), folder / "out", odd), "argument-invalid");
  }
  QuantizeOptions stopped = group_of(32, 100'000);
  int calls = 0;
  stopped.progress = [&](int64_t done_bytes, int64_t total_bytes) {
    CHECK(done_bytes > 0 && done_bytes <= total_bytes);
    return ++calls < 3;
  };
  CHECK_EQ(refused(folder.path(), folder / "out", stopped), "cancelled");
  CHECK_EQ(calls, 3);
  CHECK_EQ(refused(folder.path(), folder / "out", group_of(16)), "argument-invalid");
  CHECK_EQ(refused(folder.path(), folder / "out", group_of(0)), "argument-invalid");
  CHECK_EQ(refused(folder.path(), folder / "out", group_of(128)), "argument-invalid");              // 64 columns
  CHECK_EQ(refused(RS_GOLDEN_DIR "/tiny-silu", folder / "out", group_of(32)), "argument-invalid");  // 24 columns
  CHECK_EQ(refused(folder.path(), folder / "full", group_of(32)), "argument-invalid");
  CHECK_EQ(refused(folder.path(), folder / "config.json", group_of(32)), "argument-invalid");
  CHECK_EQ(refused(folder.path(), folder.path(), group_of(32)), "argument-invalid");
  CHECK_EQ(refused(folder.path(), folder / "none/out", group_of(32)), "file-write-failed");
  CHECK_EQ(refused(folder / "none", folder / "out", group_of(32)), "file-missing");
  CHECK_EQ(file_content(folder / "full/file"), "x");
}

TEST("quantize: a quantised checkpoint becomes another; an empty folder may be filled") {
  TempFolder folder;
  std::filesystem::create_directory(folder / "once");
  CHECK(quantize_checkpoint(kGolden, folder / "once", group_of(32)).ok());
  CHECK_EQ(outcome(quantize_checkpoint(folder / "once", folder / "twice", four_bits(32, 8))), "accepted");
  const auto checkpoint = Checkpoint::open(folder / "twice");
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  const auto dense = checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 64);
  CHECK(dense.ok() && dense->format == WeightFormat::kQ4 && dense->group_columns == 32);
  // What went through 8 bits differs little from what did not.
  CHECK(quantize_checkpoint(kGolden, folder / "direct", four_bits(32, 8)).ok());
  const double direct = distance(kGolden, folder / "direct", "model.layers.0.attention.dense", 64, 64);
  const double twice = distance(kGolden, folder / "twice", "model.layers.0.attention.dense", 64, 64);
  std::printf("  relative error of 4 bits: %.4f from bf16, %.4f by way of 8 bits\n", direct, twice);
  CHECK(direct > 0.0 && twice < 1.02 * direct);
  CHECK_EQ(entries_in(folder.path()), 3u);
}

TEST("quantize: what said how the input was quantised makes way, and every other byte of config.json stays") {
  const char* member = "\"quantization_config\": {\"a\": [1, {\"b\": \"}],\\\"\"}]}";
  for (const std::string before :
       {"{@, \"x\": 1}", "{\n  \"x\": [2, \"quantization\"],\n  @\n}",
        "{ \"x\": {\"quantization\": 1},@ ,\"y\": \"\\\\\" }", "{@,@2, \"x\": 1, \"y\":2}", "{\"x\": 1,@2,@}"}) {
    std::string text = before;
    const auto put = [&](const std::string& mark, const std::string& with) {
      const size_t at = text.find(mark);
      if (at != std::string::npos) text.replace(at, mark.size(), with);
    };
    put("@2", "\"quantization\" : null");
    put("@", member);
    const auto result = with_quantization_config(text, four_bits(32, 8), "config.json");
    CHECK(result.ok());
    if (!result.ok()) continue;
    json::Document document;
    CHECK(document.parse(result.value(), "result").ok());
    const json::Value root = document.root();
    CHECK(root.find("quantization").is_missing());
    CHECK_EQ(root.find("quantization_config").find("config_groups").size(), 2u);
    json::Document old;
    CHECK(old.parse(text, "text").ok());
    size_t others = 0;
    for (auto it = old.root().begin(); it != old.root().end(); ++it) {
      if (it.key().starts_with("quantization")) continue;
      ++others;
      CHECK(root.find(it.key()).kind() == (*it).kind());
    }
    CHECK_EQ(root.size(), others + 1);
  }
  // Spelled in another way, the member would stand there twice.
  CHECK_EQ(outcome(with_quantization_config("{\"quantization\\u005fconfig\": null, \"x\": 1}", four_bits(32, 8),
                                            "config.json")),
           "file-malformed");
}

TEST("quantize: a weight that is no number is refused by its tensor") {
  TempFolder folder;
  StoredModel model = StoredModel::read(kGolden);
  put_bf16(model.at("model.layers.2.mlp.experts.3.up_proj.weight").bytes, 77, 0x7FC0);
  model.write(folder.path());
  const auto result = quantize_checkpoint(folder.path(), folder / "out", group_of(32));
  CHECK_EQ(outcome(result), "file-malformed");
  CHECK_EQ(result.error().subject, "model.layers.2.mlp.experts.3.up_proj.weight");
  CHECK(!std::filesystem::exists(folder / "out"));
}

TEST("quantize: zeros and the smallest numbers stay what they are, or become zero") {
  TempFolder folder;
  StoredModel model = StoredModel::read(kGolden);
  const std::string base = "model.layers.0.attention.dense";
  std::string& weights = model.at(base + ".weight").bytes;
  weights.assign(weights.size(), '\0');
  put_bf16(weights, 1, 0x0001);   // the smallest bf16
  put_bf16(weights, 64, 0x7F7F);  // the largest
  model.write(folder.path());
  CHECK(quantize_checkpoint(folder.path(), folder / "out", group_of(32)).ok());
  const auto checkpoint = Checkpoint::open(folder / "out");
  const auto matrix = checkpoint.value()->read_matrix(base, 64, 64);
  CHECK(matrix.ok());
  float row[64];
  matrix->row_to_float(0, row);
  CHECK(row[0] == 0.0f && row[1] == 0.0f);
  matrix->row_to_float(1, row);
  CHECK(std::isfinite(row[0]) && row[0] > 3.3e38f && row[1] == 0.0f);
}

TEST("quantize: whichever call fails, the folder is not there and nothing lies beside it") {
  TempFolder folder;
  StoredModel::read(kGolden).write(folder.path());
  put_file(folder / "tokenizer.json", "{}");
  std::filesystem::create_directory(folder / "place");
  const std::string out = folder / "place/out";
  int nth = 1;
  int failures = 0;
  for (; nth < 20'000; nth += nth < 60 ? 1 : 13) {
    std::string got;
    bool failed = false;
    {
      FailingCalls calls(nth, ENOSPC);
      got = outcome(quantize_checkpoint(folder.path(), out, group_of(32, 200'000)));
      failed = calls.has_failed();
    }
    if (got == "accepted") {
      CHECK(Checkpoint::open(out).ok());
      std::filesystem::remove_all(out);
      if (!failed) break;
      continue;  // the close of a file that was only read
    }
    ++failures;
    CHECK(got == "file-write-failed" || got == "file-unreadable");
    // Only after the rename may it be there, and then whole.
    if (std::filesystem::exists(out)) {
      CHECK(Checkpoint::open(out).ok());
      std::filesystem::remove_all(out);
    }
    CHECK_EQ(entries_in(folder / "place"), 0u);
  }
  std::printf("  %d calls, %d failures tried\n", nth, failures);
  CHECK(failures > 100 && nth < 20'000);
}

TEST("quantize: the last calls, where files get their names") {
  TempFolder folder;
  const std::string out = folder / "out";
  int renames = 0;
  for (int nth = 1; nth < 100; ++nth) {
    static int countdown;
    countdown = nth;
    const FileCalls real = file_calls();
    file_calls().rename = [](const char* from, const char* to) {
      errno = EIO;
      return --countdown == 0 ? -1 : std::rename(from, to);
    };
    const auto result = quantize_checkpoint(kGolden, out, group_of(32));
    file_calls() = real;
    if (result.ok()) break;
    ++renames;
    CHECK_EQ(outcome(result), "file-write-failed");
    CHECK_EQ(entries_in(folder.path()), 0u);
  }
  CHECK_EQ(renames, 4);  // one shard, the index, config.json, the folder
}

TEST("patterns: names match as they would in the library that wrote them") {
  struct Case {
    const char* pattern;
    const char* name;
    bool matches;
  };
  const std::vector<Case> cases = {
      {".*lm_head", "lm_head", true},
      {".*lm_head", "lm_head.weight", true},
      {".*lm_head$", "lm_head.weight", false},
      {"lm_head", "model.lm_head", false},
      {".*mlp.gate$", "model.layers.3.mlp.gate", true},
      {".*mlp.gate$", "model.layers.3.mlp.gate_proj", false},
      {".*\\.mlp\\.gate$", "model.layers.3xmlp.gate", false},
      {"model\\.layers\\.\\d+\\.(attention|mlp)\\..*", "model.layers.12.mlp.gate", true},
      {"model\\.layers\\.\\d+\\.(?:attention|mlp)\\..*", "model.layers..mlp.gate", false},
      {"^model.layers.[0-3]\\.", "model.layers.3.x", true},
      {"^model.layers.[^0-3]\\.", "model.layers.3.x", false},
      {"[]a]b?c", "]c", true},
      {"[a-]+$", "a-a", true},
      {"a|b|cd$", "cd", true},
      {"a|b|cd$", "ce", false},
      {"(a|b)*c", "ababc", true},
      {"(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false},
      {"(a|a?)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", false},
      {"(a+)?b", "b", true},
      {"a+?b", "aab", true},
      {"\\w+\\W\\D\\S", "a_9.xy", true},
      {"\\s?[\\d_]+$", "12_3", true},
      {"", "anything", true},
      {"$", "", true},
      {"a$b", "ab", false},
  };
  for (const Case& c : cases) {
    const auto pattern = NamePattern::compile(c.pattern);
    if (!pattern || pattern->matches(c.name) != c.matches) check::fail(__FILE__, __LINE__, c.pattern);
  }
  for (const char* pattern : {"(",     ")",        "a)",    "[",   "[a",
                              "*",     "+a",       "a**",   "a+*", "a{2}",
                              "(?=a)", "(?P<x>a)", "\\",    "\\b", "\\1",
                              "[\\",   "[\\b]",    "[z-a]", "a|*", "((((((((((((((((((a))))))))))))))))))"}) {
    if (NamePattern::compile(pattern)) check::fail(__FILE__, __LINE__, pattern);
  }
}

TEST("the model that is shipped: packed, in files small enough, complete") {
  const std::string nano = RS_NANO_DIR;
  const auto checkpoint = Checkpoint::open(nano);
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  CHECK_EQ(checkpoint.value()->layout_name(), "q8 (compressed-tensors, group 128)");
  CHECK(checkpoint.value()->config().stop_tokens == std::vector<int32_t>({0, 2}));
  for (const std::string& file : weight_files(nano)) CHECK(std::filesystem::file_size(file) <= 45'000'000);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    CHECK(std::filesystem::file_size(nano + "/" + name) > 0);
  }
  const Status walked =
      visit_expected_tensors(checkpoint.value()->config(), [&](const ExpectedTensor& tensor) -> Status {
        if (!tensor.is_matrix()) {
          RS_TRY(const auto vector, checkpoint.value()->read_vector(tensor.name, tensor.cols));
          CHECK_EQ(static_cast<int64_t>(vector.size()), tensor.cols);
          return Unit{};
        }
        RS_TRY(const Matrix matrix, checkpoint.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
        CHECK(matrix.format == (tensor.role == TensorRole::kRouter ? WeightFormat::kBF16 : WeightFormat::kQ8));
        return Unit{};
      });
  CHECK(walked.ok());
}
