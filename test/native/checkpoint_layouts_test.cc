// Owns: the proof that every published layout is read right: the same tiny model in each, written by an independent
// program, must give the values that program meant, matrix by matrix, and its logits on both backends.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "engine.h"
#include "golden_cases.h"
#include "model/checkpoint.h"
#include "model/checkpoint_lending.h"
#include "reference/forward.h"
#include "reference/load.h"
#include "stored_model.h"
#include "temp_folder.h"

namespace {

using namespace ringside;

struct Layout {
  const char* folder;
  const char* name;
  bool is_coded = true;
  bool is_requantised = false;  // in part
};

constexpr size_t kMatrices = 38;
// Coded weights multiply activations of 8 bits, which a model of two layers has no width to average out.
constexpr double kCodedTolerance = 0.2;
constexpr double kPlainTolerance = 1e-4;

constexpr Layout kLayouts[] = {
    {"bf16", "bf16", false},
    {"fp8", "fp8 (blocks of 128 × 128)"},
    {"pack-quantized", "q4+q8 (compressed-tensors, group 32+64+128+channel)", true, true},
    {"gptq", "q4 (GPTQ, group 32)"},
    {"gptq-v2", "q4 (GPTQ, group 64)"},
    {"gptq-desc-act", "q4 (GPTQ, group 32, desc_act)", true, true},
    {"gptq-8bit", "q4+q8 (GPTQ, group 32+channel)"},
    {"mlx-4bit", "q4+q8 (MLX, group 64+128)"},
    {"mlx-8bit", "q8 (MLX, group 32)"},
};

std::string folder_of(const Layout& layout) { return std::string(RS_GOLDEN_DIR) + "/layouts/" + layout.folder; }

std::unique_ptr<Checkpoint> open(const std::string& folder) {
  auto checkpoint = Checkpoint::open(folder);
  if (checkpoint.ok()) return std::move(checkpoint).value();
  check::fail(__FILE__, __LINE__, checkpoint.error().message());
  return nullptr;
}

// CRC-32 as zlib counts it.
uint32_t crc32(const void* data, size_t length) {
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < length; ++i) {
    crc ^= static_cast<const uint8_t*>(data)[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

struct Expected {
  int64_t rows, cols;
  uint32_t crc;
  bool is_exact;
};

std::map<std::string, Expected> read_expected(const Layout& layout) {
  const std::string path = folder_of(layout) + "/matrices.json";
  const std::string text = file_content(path);
  json::Document document;
  CHECK(document.parse(text, path).ok());
  std::map<std::string, Expected> out;
  const json::Value root = document.root();
  for (auto member = root.begin(); member != root.end(); ++member) {
    std::vector<json::Value> parts;
    for (const json::Value part : *member) parts.push_back(part);
    if (parts.size() != 4) continue;
    out[std::string(member.key())] = {parts[0].as_integer().value_or(0), parts[1].as_integer().value_or(0),
                                      static_cast<uint32_t>(parts[2].as_integer().value_or(0)),
                                      parts[3].as_bool().value_or(false)};
  }
  CHECK_EQ(out.size(), kMatrices);
  return out;
}

std::vector<float> values_of(const Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row)
    matrix.row_to_float(row, &values[static_cast<size_t>(row * matrix.cols)]);
  return values;
}

std::vector<float> read_values(const Checkpoint& checkpoint, const std::string& base, int64_t rows, int64_t cols) {
  const auto matrix = checkpoint.read_matrix(base, rows, cols);
  if (matrix.ok()) return values_of(matrix.value());
  check::fail(__FILE__, __LINE__, matrix.error().message());
  return {};
}

bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST("layouts: each is called by its name") {
  for (const Layout& layout : kLayouts) {
    const auto checkpoint = open(folder_of(layout));
    if (checkpoint != nullptr) CHECK_EQ(checkpoint->layout_name(), std::string(layout.name));
  }
}

TEST("layouts: every matrix has the values that its writer meant, bit for bit") {
  for (const Layout& layout : kLayouts) {
    const auto checkpoint = open(folder_of(layout));
    if (checkpoint == nullptr) continue;
    size_t exact = 0;
    for (const auto& [base, expected] : read_expected(layout)) {
      if (!expected.is_exact) continue;
      const std::vector<float> values = read_values(*checkpoint, base, expected.rows, expected.cols);
      if (crc32(values.data(), values.size() * sizeof(float)) != expected.crc) {
        check::fail(__FILE__, __LINE__, std::string(layout.folder) + ": " + base + " has other values");
      }
      ++exact;
    }
    std::printf("     %s: %zu of %zu matrices\n", layout.folder, exact, kMatrices);
    CHECK(exact >= (std::string(layout.folder) == "gptq-desc-act" ? size_t{12} : kMatrices - 1));
  }
}

TEST("layouts: columns whose groups are out of order are off by half a step of 8 bits at most") {
  for (const Layout& layout : kLayouts) {
    if (!layout.is_requantised) continue;
    const auto checkpoint = open(folder_of(layout));
    const auto stored = SafetensorsFile::open(folder_of(layout) + "/expected.safetensors");
    CHECK(stored.ok());
    if (checkpoint == nullptr || !stored.ok()) continue;
    CHECK(!stored->tensors().empty());
    double squared_error = 0, squared = 0;
    for (const TensorInfo& info : stored->tensors()) {
      std::vector<float> expected(static_cast<size_t>(info.length_bytes) / sizeof(float));
      CHECK(stored->read(info, 0, expected.data(), info.length_bytes).ok());
      const auto matrix = checkpoint->read_matrix(info.name, info.shape[0], info.shape[1]);
      CHECK(matrix.ok());
      if (!matrix.ok()) continue;
      CHECK(matrix->format == WeightFormat::kQ8 && matrix->group_columns == 128 && matrix->offsets.empty());
      const std::vector<float> values = values_of(matrix.value());
      for (size_t i = 0; i < values.size(); ++i) {
        const int64_t row = static_cast<int64_t>(i) / matrix->cols;
        const int64_t group = row * matrix->group_count() + static_cast<int64_t>(i) % matrix->cols / 128;
        const double error = std::fabs(static_cast<double>(values[i]) - expected[i]);
        CHECK(error <= 0.50001 * matrix->scales[static_cast<size_t>(group)]);
        squared_error += error * error;
        squared += static_cast<double>(expected[i]) * expected[i];
      }
    }
    std::printf("     %s: relative error %.5f\n", layout.folder, std::sqrt(squared_error / squared));
    CHECK(squared_error < 1e-4 * squared);
  }
}

TEST("layouts: one zero point off the middle gives every slice of a GPTQ matrix offsets") {
  // A backend learns from the first slice it reads what all of them are like.
  const std::string base = "model.layers.0.attention.dense";
  StoredModel model = StoredModel::read(std::string(RS_GOLDEN_DIR) + "/layouts/gptq");
  std::string& zeros = model.at(base + ".qzeros").bytes;  // [4 groups, 8 words of 8 rows], stored minus one
  std::fill(zeros.begin(), zeros.end(), '\x77');
  for (const bool is_symmetric : {true, false}) {
    if (!is_symmetric) zeros.back() = '\x67';  // the last row's, in the last group
    TempFolder folder;
    model.write(folder.path());
    const auto checkpoint = open(folder.path());
    if (checkpoint == nullptr) continue;
    for (const int64_t first : {0, 32}) {
      Matrix slice;
      CHECK(checkpoint->read_rows(base, 64, 128, first, 32, slice).ok());
      CHECK_EQ(slice.offsets.size(), is_symmetric ? size_t{0} : size_t{32 * 4});
      for (size_t i = 0; i < slice.offsets.size(); ++i) {
        CHECK_EQ(slice.offsets[i], first == 32 && i == 32 * 4 - 1 ? slice.scales[i] : 0.0f);
      }
    }
  }
}

TEST("layouts: a router is never coded, however it is stored") {
  for (const Layout& layout : kLayouts) {
    const auto checkpoint = open(folder_of(layout));
    if (checkpoint == nullptr) continue;
    const auto router = checkpoint->read_matrix("model.layers.1.mlp.gate", 8, 64);
    CHECK(router.ok() && (router->format == WeightFormat::kF32 || router->format == WeightFormat::kBF16));
    CHECK(router.ok() && router->scales.empty() && router->group_columns == 0);
  }
}

TEST("layouts: some rows are those rows of the whole, in memory that held another matrix") {
  for (const Layout& layout : kLayouts) {
    const auto checkpoint = open(folder_of(layout));
    if (checkpoint == nullptr) continue;
    Matrix slice;
    for (const auto& [base, expected] : read_expected(layout)) {
      const auto whole = read_values(*checkpoint, base, expected.rows, expected.cols);
      for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
               {0, expected.rows}, {3, 4}, {expected.rows - 1, 1}, {expected.rows / 2 + 1, 3}, {0, 0}}) {
        const Status status = checkpoint->read_rows(base, expected.rows, expected.cols, first, count, slice);
        if (!status.ok()) check::fail(__FILE__, __LINE__, status.error().message());
        const auto from = whole.begin() + first * expected.cols;
        CHECK_EQ(slice.rows, count);
        CHECK(same_bytes(values_of(slice), std::vector<float>(from, from + count * expected.cols)));
      }
      CHECK(!checkpoint->read_rows(base, expected.rows, expected.cols, 1, expected.rows, slice).ok());
      CHECK(!checkpoint->read_rows(base, expected.rows, expected.cols, -1, 1, slice).ok());
    }
  }
}

TEST("layouts: several threads read at once") {
  for (const Layout& layout : kLayouts) {
    const auto checkpoint = open(folder_of(layout));
    if (checkpoint == nullptr) continue;
    const auto expected = read_expected(layout);
    std::map<std::string, std::vector<float>> alone;
    for (const auto& [base, size] : expected) alone[base] = read_values(*checkpoint, base, size.rows, size.cols);
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        Matrix matrix;
        for (const auto& [base, size] : expected) {
          const Status status = checkpoint->read_rows(base, size.rows, size.cols, 0, size.rows, matrix);
          if (!status.ok() || !same_bytes(values_of(matrix), alone[base])) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK_EQ(wrong.load(), 0);
  }
}

TEST("layouts: the reference gives the writer's logits in every layout") {
  for (const Layout& layout : kLayouts) {
    const auto checkpoint = open(folder_of(layout));
    if (checkpoint == nullptr) continue;
    const PlainConfig config(checkpoint->config());
    WeightLender lender(*checkpoint);
    const auto weights = reference::load_weights(*config.get(), lender.source(), {});
    CHECK(weights.ok());
    if (!weights.ok()) continue;
    double worst = 0;
    for (const golden::Case& expected : golden::read_cases(std::string("layouts/") + layout.folder)) {
      reference::Memory memory = reference::empty_memory(weights.value()->config);
      reference::Forward forward(*weights.value(), memory, nullptr);
      std::vector<double> logits(static_cast<size_t>(weights.value()->config.vocab_rows));
      for (size_t i = 0; i < expected.ids.size(); ++i) {
        CHECK(forward.step(expected.ids[i], logits));
        const double logprob = golden::logprob(logits.data(), logits.size(), expected.following(i));
        worst = std::max(worst, std::fabs(logprob - expected.logprob[i]));
        if (!layout.is_requantised) CHECK(golden::agrees(logprob, expected.logprob[i], 8));
      }
      CHECK_EQ(logits.size(), expected.last_logits.size());
      for (size_t id = 0; id < logits.size(); ++id) {
        if (!layout.is_requantised) CHECK(golden::agrees(logits[id], expected.last_logits[id], 6));
      }
      const std::vector<double> norms = reference::state_norms(weights.value()->config, memory);
      CHECK_EQ(norms.size(), expected.state_norm.size());
      for (size_t i = 0; i < norms.size() && !layout.is_requantised; ++i) {
        CHECK(golden::agrees(norms[i], expected.state_norm[i], 8));
      }
    }
    std::printf("     %s: logprobs off by at most %.1e\n", layout.folder, worst);
    CHECK(worst < (layout.is_requantised ? kCodedTolerance : 1e-6));
  }
}

TEST("layouts: the CPU gives the writer's logits in every layout") {
  for (const Layout& layout : kLayouts) {
    LoadOptions options;
    options.folder = folder_of(layout);
    options.backend = "cpu";
    options.kv_format = KvFormat::kF32;
    const auto model = Model::load(options);
    if (!model.ok()) {
      check::fail(__FILE__, __LINE__, std::string(layout.folder) + ": " + model.error().message());
      continue;
    }
    CHECK_EQ(model.value()->info().layout, std::string(layout.name));
    const size_t rows = static_cast<size_t>(model.value()->info().vocab_rows);
    const double tolerance = layout.is_coded ? kCodedTolerance : kPlainTolerance;
    double worst = 0;
    int64_t clear = 0, same = 0;
    for (const golden::Case& expected : golden::read_cases(std::string("layouts/") + layout.folder)) {
      const auto session = Session::open(model.value());
      CHECK(session.ok());
      if (!session.ok()) break;
      CancelFlag cancel;
      const auto logits = session.value()->logits(expected.ids, cancel);
      CHECK(logits.ok());
      for (size_t i = 0; logits.ok() && i < expected.ids.size(); ++i) {
        const float* row = &logits.value()[i * rows];
        worst = std::max(worst, std::fabs(golden::logprob(row, rows, expected.following(i)) - expected.logprob[i]));
        if (expected.margin[i] < 2 * tolerance) continue;
        clear += 1;
        same += golden::argmax(row, rows) == expected.argmax[i] ? 1 : 0;
      }
    }
    std::printf("     %s: logprobs off by at most %.1e, %lld of %lld clear positions\n", layout.folder, worst,
                static_cast<long long>(same), static_cast<long long>(clear));
    CHECK(worst < tolerance);
    CHECK(clear > 30);
    CHECK_EQ(same, clear);
  }
}
