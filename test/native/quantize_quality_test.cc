// What 4 bits cost a real model: nano quantised anew, against the stored float64 answers of its bf16 weights and
// against the probabilities of the model it was made from. NANO_DIR may name another copy of its weights than the
// shipped one.
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "engine.h"
#include "golden_cases.h"
#include "model/checkpoint.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

std::string nano_folder() {
  const char* folder = std::getenv("NANO_DIR");
  return folder == nullptr || *folder == '\0' ? RS_NANO_DIR : folder;
}

using Logits = std::vector<std::vector<float>>;  // [cases][tokens * vocabulary rows]

Logits logits_of(const std::string& folder, const std::vector<golden::Case>& cases) {
  LoadOptions options;
  options.folder = folder;
  options.backend = "cpu";
  options.kv_format = KvFormat::kF32;
  const auto model = Model::load(options);
  CHECK(model.ok());
  Logits all;
  for (const golden::Case& one : cases) {
    if (!model.ok()) break;
    auto session = Session::open(model.value());
    CHECK(session.ok());
    if (!session.ok()) break;
    CancelFlag cancel;
    auto logits = session.value()->logits(one.ids, cancel);
    CHECK(logits.ok());
    if (logits.ok()) all.push_back(std::move(logits).value());
  }
  return all;
}

std::vector<double> log_probabilities(const float* row, size_t count) {
  double largest = row[0];
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<double>(row[i]));
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(row[i] - largest);
  std::vector<double> out;
  for (size_t i = 0; i < count; ++i) out.push_back(row[i] - largest - std::log(sum));
  return out;
}

struct Quality {
  int64_t positions = 0, same = 0;    // of the stored choices
  int64_t clear = 0, same_clear = 0;  // of those with a margin
  double divergence = 0.0;            // mean KL from the model it was made from
};

Quality quality_of(const Logits& of, const Logits& from, const std::vector<golden::Case>& cases) {
  Quality quality;
  for (size_t c = 0; c < cases.size(); ++c) {
    const size_t rows = of[c].size() / cases[c].ids.size();
    for (size_t i = 0; i < cases[c].ids.size(); ++i) {
      const float* row = of[c].data() + i * rows;
      const bool is_same = golden::argmax(row, rows) == cases[c].argmax[i];
      const bool is_clear = cases[c].margin[i] > 0.05;
      quality.positions += 1;
      quality.same += is_same ? 1 : 0;
      quality.clear += is_clear ? 1 : 0;
      quality.same_clear += is_clear && is_same ? 1 : 0;
      const std::vector<double> q = log_probabilities(row, rows);
      const std::vector<double> p = log_probabilities(from[c].data() + i * rows, rows);
      for (size_t id = 0; id < rows; ++id) quality.divergence += std::exp(p[id]) * (p[id] - q[id]);
    }
  }
  quality.divergence /= static_cast<double>(quality.positions);
  return quality;
}

}  // namespace

TEST("4 bits: what they cost nano, by group width and head") {
  const std::vector<golden::Case> cases = golden::read_cases("nano");
  const Logits from = logits_of(nano_folder(), cases);
  CHECK_EQ(from.size(), cases.size());
  TempFolder folder;
  double divergence_before = 0.0;
  for (const auto& [group, head_bits] : {std::pair{32, 8}, {64, 8}, {128, 8}, {128, 4}}) {
    QuantizeOptions options;
    options.bits = 4;
    options.head_bits = head_bits;
    options.group_columns = group;
    const std::string out = folder / (std::to_string(group) + "-" + std::to_string(head_bits));
    const auto report = quantize_checkpoint(nano_folder(), out, options);
    CHECK(report.ok());
    const Logits logits = logits_of(out, cases);
    CHECK_EQ(logits.size(), from.size());
    if (!report.ok() || logits.size() != from.size()) continue;
    const Quality quality = quality_of(logits, from, cases);
    std::printf(
        "  group %d, head of %d bits: %.1f MB; the stored choice in %lld of %lld positions, in %lld of %lld clear "
        "ones; mean KL %.4f\n",
        group, head_bits, static_cast<double>(report->output_bytes) / 1e6, static_cast<long long>(quality.same),
        static_cast<long long>(quality.positions), static_cast<long long>(quality.same_clear),
        static_cast<long long>(quality.clear), quality.divergence);
    // Finer groups are better, and none of them loses the model.
    CHECK(quality.divergence > divergence_before && quality.divergence < 0.2);
    divergence_before = quality.divergence;
    CHECK(quality.same_clear * 100 >= quality.clear * 85);
  }
}
