// Four bits: that the fitted groups beat plain rounding and by how much, which bytes are written, which matrices keep
// eight bits, that every layout may be the input, and that little memory is used.
#include "model/quantize_fit.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "check.h"
#include "io/json.h"
#include "model/checkpoint.h"
#include "model/checkpoint_tensors.h"
#include "model/float_formats.h"
#include "stored_model.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

const std::string kGolden = RS_GOLDEN_DIR "/tiny-tail";

QuantizeOptions four_bits(int columns, int head_bits, int threads = 0) {
  QuantizeOptions options;
  options.bits = 4;
  options.head_bits = head_bits;
  options.group_columns = columns;
  options.threads = threads;
  return options;
}

double squared_error(const std::vector<float>& weights, size_t first, size_t count, const int8_t* codes, double scale) {
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const double error = weights[first + i] - codes[i] * scale;
    sum += error * error;
  }
  return sum;
}

// Round to nearest with the scale that puts the largest magnitude on the outermost code, as most quantisers do.
double rounding_error(const std::vector<float>& weights, size_t first, size_t count) {
  float largest = 0.0f;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[first + i]));
  const float scale = bf16_to_float(float_to_bf16(largest / 7.0f));
  std::vector<int8_t> codes(count);
  for (size_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int8_t>(std::clamp(std::nearbyint(weights[first + i] / scale), -8.0f, 7.0f));
  }
  return squared_error(weights, first, count, codes.data(), scale);
}

std::vector<float> random_weights(const char* kind, size_t count) {
  std::mt19937 random(20);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::student_t_distribution<float> heavy(3.0f);
  std::vector<float> weights(count);
  for (float& weight : weights) weight = std::strcmp(kind, "gaussian") == 0 ? normal(random) : 0.02f * heavy(random);
  return weights;
}

// As the reader takes them apart: the codes of one row, and the scales.
std::vector<int> codes_of(const Matrix& matrix, int64_t row) {
  std::vector<int> codes;
  for (int64_t c = 0; c < matrix.cols; ++c) {
    const uint8_t byte = matrix.data[static_cast<size_t>((row * matrix.cols + c) / 2)];
    codes.push_back((c % 2 == 0 ? byte & 15 : byte >> 4) - 8);
  }
  return codes;
}

std::vector<std::string> contents_of(const std::string& folder) {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    all.push_back(entry.path().filename().string() + ":" + file_content(entry.path().string()));
  }
  std::sort(all.begin(), all.end());
  return all;
}

// The sanitizer keeps freed memory, so that no peak says anything.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

int64_t status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size())) * 1024;
  }
  return -1;
}

}  // namespace

TEST("fit: less error than rounding on bell-shaped and heavy-tailed weights, at every group width") {
  for (const char* kind : {"gaussian", "heavy-tailed"}) {
    const std::vector<float> weights = random_weights(kind, 1 << 18);
    for (const size_t group : {32u, 64u, 128u}) {
      double fitted = 0.0, rounded = 0.0, squares = 0.0;
      std::vector<int8_t> codes(group);
      for (size_t first = 0; first < weights.size(); first += group) {
        const GroupFit fit = fit_4_bits({weights.data() + first, group}, codes.data());
        const double error = squared_error(weights, first, group, codes.data(), bf16_to_float(fit.scale_bits));
        CHECK(std::fabs(error - fit.error_squares) <= 1e-3 * error);
        CHECK(std::all_of(codes.begin(), codes.end(), [](int8_t code) { return code >= -8 && code <= 7; }));
        const double plain = rounding_error(weights, first, group);
        CHECK(error <= 1.0001 * plain);
        fitted += error;
        rounded += plain;
        for (size_t i = 0; i < group; ++i) squares += static_cast<double>(weights[first + i]) * weights[first + i];
      }
      std::printf("  %s, group %zu: relative RMS error %.4f fitted, %.4f rounded, ratio %.3f\n", kind, group,
                  std::sqrt(fitted / squares), std::sqrt(rounded / squares), std::sqrt(fitted / rounded));
      CHECK(fitted < 0.78 * rounded);
    }
  }
}

TEST("fit: what four bits can say exactly is said exactly, whatever its size and sign") {
  for (const float scale : {0.5f, -0.5f, 0x1p-100f, 0x1.8p110f}) {
    float weights[32];
    for (int i = 0; i < 32; ++i) weights[i] = static_cast<float>(i % 16 - 8) * scale;
    int8_t codes[32];
    const GroupFit fit = fit_4_bits(weights, codes);
    CHECK_EQ(fit.error_squares, 0.0);
    for (int i = 0; i < 32; ++i) CHECK(codes[i] * bf16_to_float(fit.scale_bits) == weights[i]);
  }
  int8_t codes[32];
  const float zeros[32] = {};
  CHECK_EQ(fit_4_bits(zeros, codes).scale_bits, uint16_t{0});
  CHECK(std::all_of(codes, codes + 32, [](int8_t code) { return code == 0; }));
  // The smallest bf16 and the largest: nothing becomes infinite, and nothing is divided by zero.
  for (const uint16_t extreme : {uint16_t{0x0001}, uint16_t{0x7F7F}, uint16_t{0xFF7F}}) {
    float weights[32] = {bf16_to_float(extreme)};
    weights[1] = 0.9f * weights[0];
    const GroupFit fit = fit_4_bits(weights, codes);
    CHECK(std::isfinite(8.0f * std::fabs(bf16_to_float(fit.scale_bits))));
    for (const int8_t code : codes) CHECK(std::isfinite(code * bf16_to_float(fit.scale_bits)));
    CHECK(fit.error_squares >= 0.0 && std::isfinite(fit.error_squares));
  }
}

TEST("4 bits: the first column of a word is in its lowest bits, each code plus 8") {
  StoredModel model = StoredModel::read(kGolden);
  const std::string base = "model.layers.0.attention.dense";
  std::string& weights = model.at(base + ".weight").bytes;
  weights.assign(weights.size(), '\0');
  for (int i = 0; i < 32; ++i) {
    const uint16_t bits = float_to_bf16(static_cast<float>(i % 16 - 8) * 0.25f);
    std::memcpy(weights.data() + 2 * i, &bits, 2);
  }
  TempFolder folder;
  model.write(folder.path());
  CHECK(quantize_checkpoint(folder.path(), folder / "out", four_bits(32, 8)).ok());
  const auto file = SafetensorsFile::open(folder / "out/model-00001-of-00001.safetensors");
  CHECK(file.ok());
  if (!file.ok()) return;
  for (const TensorInfo& info : file->tensors()) {
    uint8_t bytes[16];
    if (info.name == base + ".weight_packed") {
      CHECK(info.dtype == Dtype::kI32 && info.shape == Shape({64, 8}));
      CHECK(file->read(info, 0, bytes, sizeof bytes).ok());
      const uint8_t expected[] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE};
      CHECK(std::memcmp(bytes, expected, 8) == 0 && std::memcmp(bytes + 8, expected, 8) == 0);
    }
    if (info.name == base + ".weight_scale") {
      CHECK(info.dtype == Dtype::kBF16 && info.shape == Shape({64, 2}));
      CHECK(file->read(info, 0, bytes, 4).ok());
      CHECK(bytes[0] == 0x80 && bytes[1] == 0x3E && bytes[2] == 0 && bytes[3] == 0);  // 0.25, and zeros
    }
  }
  const auto checkpoint = Checkpoint::open(folder / "out");
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  const std::vector<int> codes = codes_of(checkpoint.value()->read_matrix(base, 64, 64).value(), 0);
  for (int i = 0; i < 64; ++i) CHECK_EQ(codes[static_cast<size_t>(i)], i < 32 ? i % 16 - 8 : 0);
}

TEST("4 bits: head and embedding keep 8 unless told, routers their bytes; the report tells the true error") {
  TempFolder folder;
  const auto before = Checkpoint::open(kGolden);
  for (const int head_bits : {8, 4}) {
    const std::string out = folder / std::to_string(head_bits);
    const auto report = quantize_checkpoint(kGolden, out, four_bits(32, head_bits));
    const auto after = Checkpoint::open(out);
    CHECK(report.ok() && after.ok());
    if (!report.ok() || !after.ok()) continue;
    std::printf("  %s: %lld bytes to %lld\n", after.value()->layout_name().c_str(),
                static_cast<long long>(report->input_bytes), static_cast<long long>(report->output_bytes));
    size_t matrices = 0;
    const Status walked = visit_expected_tensors(before.value()->config(), [&](const ExpectedTensor& tensor) -> Status {
      if (!tensor.is_matrix()) return Unit{};
      RS_TRY(const Matrix exact, before.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
      RS_TRY(const Matrix quantized, after.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
      if (tensor.role == TensorRole::kRouter) {
        CHECK(quantized.format == WeightFormat::kBF16 && quantized.data == exact.data);
        return Unit{};
      }
      const bool is_head = tensor.role == TensorRole::kEmbedding || tensor.name == "lm_head.weight";
      CHECK(quantized.format == (is_head && head_bits == 8 ? WeightFormat::kQ8 : WeightFormat::kQ4));
      double error = 0.0, squares = 0.0;
      std::vector<float> a(static_cast<size_t>(tensor.cols)), b(a.size());
      for (int64_t row = 0; row < tensor.rows; ++row) {
        exact.row_to_float(row, a.data());
        quantized.row_to_float(row, b.data());
        for (size_t i = 0; i < a.size(); ++i) {
          error += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
          squares += static_cast<double>(a[i]) * a[i];
        }
      }
      const QuantizeReport::Row& row = report->tensors[matrices++];
      CHECK_EQ(row.tensor, tensor.name);
      CHECK(std::fabs(row.relative_rms_error - std::sqrt(error / squares)) < 1e-4);
      return Unit{};
    });
    CHECK(walked.ok());
    CHECK_EQ(matrices, report->tensors.size());
  }
}

TEST("4 bits: the number of threads and of shards changes no tensor") {
  TempFolder folder;
  for (const int threads : {1, 2, 7}) {
    const std::string out = folder / std::to_string(threads);
    CHECK(quantize_checkpoint(kGolden, out, four_bits(32, 8, threads)).ok());
    CHECK(contents_of(out) == contents_of(folder / "1"));
  }
}

TEST("4 bits: every layout may be the input") {
  TempFolder folder;
  for (const char* layout :
       {"bf16", "fp8", "gptq", "gptq-8bit", "gptq-desc-act", "gptq-v2", "mlx-4bit", "mlx-8bit", "pack-quantized"}) {
    const std::string in = std::string(RS_GOLDEN_DIR "/layouts/") + layout;
    const std::string out = folder / layout;
    const auto report = quantize_checkpoint(in, out, four_bits(32, 8));
    CHECK(report.ok());
    if (!report.ok()) std::printf("  %s: %s\n", layout, report.error().message().c_str());
    const auto before = Checkpoint::open(in);
    const auto after = Checkpoint::open(out);
    CHECK(before.ok() && after.ok());
    if (!before.ok() || !after.ok()) continue;
    const Status walked = visit_expected_tensors(before.value()->config(), [&](const ExpectedTensor& tensor) -> Status {
      if (tensor.is_matrix()) {
        if (tensor.role != TensorRole::kRouter) return Unit{};
        RS_TRY(const Matrix a, before.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
        RS_TRY(const Matrix b, after.value()->read_matrix(tensor.base(), tensor.rows, tensor.cols));
        std::vector<float> x(static_cast<size_t>(tensor.cols)), y(x.size());
        for (int64_t row = 0; row < tensor.rows; ++row) {
          a.row_to_float(row, x.data());
          b.row_to_float(row, y.data());
          CHECK(x == y);
        }
        return Unit{};
      }
      RS_TRY(const auto a, before.value()->read_vector(tensor.name, tensor.cols));
      RS_TRY(const auto b, after.value()->read_vector(tensor.name, tensor.cols));
      CHECK(a == b);
      return Unit{};
    });
    CHECK(walked.ok());
  }
}

TEST("4 bits: a matrix of 77 MB passes through a few of memory") {
  constexpr int64_t kRows = 600'000;
  TempFolder folder;
  {
    StoredModel model = StoredModel::read(kGolden);
    CHECK(model.edit_config("\"vocab_size\": 512", "\"vocab_size\": " + std::to_string(kRows)));
    for (const char* name : {"model.word_embeddings.weight", "lm_head.weight"}) {
      StoredTensor& tensor = model.at(name);
      const std::string few = tensor.bytes;
      tensor.bytes.clear();
      while (static_cast<int64_t>(tensor.bytes.size()) < kRows * 128) tensor.bytes += few;
      tensor.bytes.resize(static_cast<size_t>(kRows * 128));
      tensor.info.shape = {kRows, 64};
      tensor.info.length_bytes = kRows * 128;
    }
    model.write(folder.path());
  }
  // A process of its own, because the peak is counted for a whole process.
  const pid_t child = ::fork();
  if (child == 0) {
    std::ofstream("/proc/self/clear_refs") << "5";
    const int64_t before = status_bytes("VmHWM:");
    QuantizeOptions options = four_bits(32, 8, 2);
    options.shard_bytes = 100'000'000;
    const bool quantized = quantize_checkpoint(folder.path(), folder / "out", options).ok();
    const int64_t grown = status_bytes("VmHWM:") - before;
    std::printf("  peak memory grew by %.1f MB\n", static_cast<double>(grown) / 1e6);
    std::fflush(stdout);
    ::_exit(quantized && (kIsSanitized || grown < 24'000'000) ? 0 : 1);
  }
  int outcome = -1;
  CHECK_EQ(::waitpid(child, &outcome, 0), child);
  CHECK_EQ(outcome, 0);
}
