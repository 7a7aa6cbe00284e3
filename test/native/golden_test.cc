// Owns: the CPU backend against the stored goldens, through the engine's boundary, on every instruction set of this
// machine.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "engine.h"
#include "golden_cases.h"

namespace {

using namespace ringside;

constexpr double kLogprobTolerance = 2e-3;

std::shared_ptr<Model> load(const std::string& folder, const std::string& isa, KvFormat kv_format) {
  LoadOptions options;
  options.kv_format = kv_format;
  options.folder = folder;
  options.backend = "cpu";
  options.isa = isa;
  auto model = Model::load(options);
  if (model.ok()) return std::move(model).value();
  if (!isa.empty() && model.error().kind == ErrorKind::kBackendUnavailable) {
    std::printf("     %s: not on this machine\n", isa.c_str());
  } else {
    check::fail(__FILE__, __LINE__, model.error().message());
  }
  return nullptr;
}

// Logits of every position, [ids, vocab_rows]; empty after a failure.
std::vector<float> logits_of(Session& session, const std::vector<int32_t>& ids) {
  CancelFlag cancel;
  auto logits = session.logits(ids, cancel);
  if (logits.ok()) return std::move(logits).value();
  check::fail(__FILE__, __LINE__, logits.error().message());
  return {};
}

struct Agreement {
  int64_t positions = 0;  // whose stored margin is over the threshold
  int64_t same = 0;
  double worst_logprob = 0.0;
};

// `each` sees the session after each case.
template <class Each>
Agreement compare(const std::shared_ptr<Model>& model, const std::string& golden_name, double margin, Each each) {
  Agreement agreement;
  const auto rows = static_cast<size_t>(model->info().vocab_rows);
  for (const golden::Case& expected : golden::read_cases(golden_name)) {
    auto session = Session::open(model);
    CHECK(session.ok());
    if (!session.ok()) return agreement;
    const std::vector<float> logits = logits_of(*session.value(), expected.ids);
    if (logits.empty()) return agreement;
    for (size_t i = 0; i < expected.ids.size(); ++i) {
      const float* row = &logits[i * rows];
      const double error = golden::logprob(row, rows, expected.following(i)) - expected.logprob[i];
      agreement.worst_logprob = std::max(agreement.worst_logprob, std::fabs(error));
      if (expected.margin[i] <= margin) continue;
      agreement.positions += 1;
      agreement.same += golden::argmax(row, rows) == expected.argmax[i] ? 1 : 0;
    }
    each(expected, *session.value());
  }
  CHECK(agreement.positions > 0);
  return agreement;
}

void check_norms(const golden::Case& expected, const Session& session) {
  const auto norms = session.state_norms();
  CHECK(norms.ok());
  if (!norms.ok()) return;
  CHECK_EQ(norms.value().size(), expected.state_norm.size());
  for (size_t i = 0; i < norms.value().size(); ++i) {
    const double error = static_cast<double>(norms.value()[i]) - expected.state_norm[i];
    CHECK(std::fabs(error) < 1e-5 * expected.state_norm[i]);
  }
}

void check_tiny(const std::string& name) {
  for (const char* isa : {"plain", "avx2", "avx512", "neon"}) {
    // Rounding keys and values to bf16 moves log-probabilities of so small a model by 0.01 to 0.1.
    const auto model = load(std::string(RS_GOLDEN_DIR) + "/" + name, isa, KvFormat::kF32);
    if (model == nullptr) continue;
    CHECK_EQ(model->info().isa, std::string(isa));
    const Agreement agreement = compare(model, name, 1e-3, check_norms);
    CHECK_EQ(agreement.same, agreement.positions);
    CHECK(agreement.worst_logprob < kLogprobTolerance);
    std::printf("     %s: %lld positions, logprobs off by at most %.1e\n", isa,
                static_cast<long long>(agreement.positions), agreement.worst_logprob);
  }
}

TEST("goldens: tiny-tail on the CPU") { check_tiny("tiny-tail"); }
TEST("goldens: tiny-silu on the CPU") { check_tiny("tiny-silu"); }

void nothing_more(const golden::Case&, const Session&) {}

TEST("goldens: the shipped 8-bit nano agrees in at least 99 of 100 clear positions") {
  constexpr const char* kNames[] = {"bf16", "f32", "8-bit"};
  for (const KvFormat format : {KvFormat::kBF16, KvFormat::kF32, KvFormat::kQ8}) {
    const auto model = load(RS_NANO_DIR, "", format);
    if (model == nullptr) return;
    const Agreement agreement = compare(model, "nano", 0.05, nothing_more);
    if (format == KvFormat::kBF16) CHECK(agreement.same * 100 >= agreement.positions * 99);
    std::printf("     %s, %s, %s keys and values: %lld of %lld positions, logprobs off by at most %.1e\n",
                model->info().layout.c_str(), model->info().isa.c_str(), kNames[static_cast<size_t>(format)],
                static_cast<long long>(agreement.same), static_cast<long long>(agreement.positions),
                agreement.worst_logprob);
  }
}

TEST("goldens: the bf16 nano agrees in every clear position") {
  const char* folder = std::getenv("NANO_DIR");
  if (folder == nullptr || *folder == '\0') {
    std::printf("     NANO_DIR is not set: nothing was compared\n");
    return;
  }
  const auto model = load(folder, "", KvFormat::kF32);
  if (model == nullptr) return;
  const Agreement agreement = compare(model, "nano", 0.01, check_norms);
  CHECK_EQ(agreement.same, agreement.positions);
  std::printf("     %s, %s: %lld of %lld positions, logprobs off by at most %.1e\n", model->info().layout.c_str(),
              model->info().isa.c_str(), static_cast<long long>(agreement.same),
              static_cast<long long>(agreement.positions), agreement.worst_logprob);
}

}  // namespace
