// Owns: the CUDA backend against the stored goldens of a real, trained model. The folders of the checkpoint and of the
// goldens come from the environment: NANO_DIR, and GOLDEN_DIR if test/golden is not below the current folder.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "model/backend.h"
#include "model/checkpoint.h"
#include "model/checkpoint_lending.h"

#define RS_GOLDEN_DIR golden_folder()
inline std::string golden_folder() {
  const char* folder = std::getenv("GOLDEN_DIR");
  return folder == nullptr ? "test/golden" : folder;
}
#include "golden_cases.h"

namespace {

using namespace ringside;

std::string nano_folder() {
  const char* folder = std::getenv("NANO_DIR");
  return folder == nullptr ? "media/nano" : folder;
}

struct Nano {
  const rs_backend& backend = *rs_cuda_backend();
  std::unique_ptr<Checkpoint> checkpoint;
  rs_model* model = nullptr;
  int64_t vocab = 0;

  Nano() {
    Result<std::unique_ptr<Checkpoint>> opened = Checkpoint::open(nano_folder());
    if (!opened.ok()) {
      check::fail(__FILE__, __LINE__, opened.error().message());
      return;
    }
    checkpoint = std::move(opened).value();
    vocab = checkpoint->config().vocab_rows;
    const PlainConfig plain(checkpoint->config());
    WeightLender lender(*checkpoint);
    const rs_weight_source source = lender.source();
    const rs_load_options options{0, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
    rs_error error{};
    if (backend.load(plain.get(), &source, &options, &model, &error) == 0) return;
    model = nullptr;
    check::fail(__FILE__, __LINE__, std::string(error.subject) + ": " + error.expected + ", " + error.actual);
  }
  ~Nano() {
    if (model != nullptr) backend.unload(model);
  }
};

struct Agreement {
  int64_t positions = 0;  // whose stored margin is over the threshold
  int64_t same = 0;
  double error_sum = 0.0;
  double worst = 0.0;
  int64_t count = 0;

  void add(const golden::Case& expected, const std::vector<float>& logits, int64_t vocab, double margin) {
    const auto columns = static_cast<size_t>(vocab);
    for (size_t i = 0; i < expected.ids.size(); ++i) {
      const float* row = &logits[i * columns];
      const double error = std::fabs(golden::logprob(row, columns, expected.following(i)) - expected.logprob[i]);
      error_sum += error;
      worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
      ++count;
      if (expected.margin[i] <= margin) continue;
      ++positions;
      same += golden::argmax(row, columns) == expected.argmax[i] ? 1 : 0;
    }
  }
  void report(const char* what) const {
    std::printf("     %s: %lld of %lld clear positions, log-probabilities off by %.4f on average, %.3f at most\n", what,
                static_cast<long long>(same), static_cast<long long>(positions), error_sum / static_cast<double>(count),
                worst);
    CHECK(positions > 0);
    CHECK(same * 100 >= positions * 99);
    // The goldens are of bf16 weights: rounding these to eight bits alone moves log-probabilities by 0.0294 on average,
    // as the CPU engine shows, whose own arithmetic adds next to nothing. What the GPU's bf16 activations may add is a
    // tenth.
    CHECK(error_sum / static_cast<double>(count) < 0.0324);
  }
};

TEST("goldens: nano agrees in at least 99 of 100 clear positions, read and stepped") {
  const Nano nano;
  if (nano.model == nullptr) return;
  std::printf("     %s, %s\n", nano.backend.device(nano.model), nano.checkpoint->layout_name().c_str());
  Agreement read;
  Agreement stepped;
  for (const golden::Case& expected : golden::read_cases("nano")) {
    const auto count = static_cast<int64_t>(expected.ids.size());
    std::vector<float> logits(expected.ids.size() * static_cast<size_t>(nano.vocab), NAN);
    rs_error error{};
    rs_session* session = nullptr;
    CHECK_EQ(nano.backend.open(nano.model, &session, &error), 0);
    CHECK_EQ(nano.backend.extend(session, expected.ids.data(), count, RS_LOGITS_ALL, logits.data(), nullptr, &error),
             0);
    read.add(expected, logits, nano.vocab, 0.05);
    nano.backend.close(session);
    CHECK_EQ(nano.backend.open(nano.model, &session, &error), 0);
    for (int64_t done = 0; done < count; done += 7) {
      const rs_step step{session, expected.ids.data() + done, std::min<int64_t>(7, count - done), RS_LOGITS_ALL,
                         logits.data() + done * nano.vocab};
      CHECK_EQ(nano.backend.step(nano.model, &step, 1, nullptr, &error), 0);
    }
    stepped.add(expected, logits, nano.vocab, 0.05);
    nano.backend.close(session);
  }
  read.report("read");
  stepped.report("stepped");
}

}  // namespace
