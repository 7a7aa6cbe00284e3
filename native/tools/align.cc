#include "tools/align.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "model/tap.h"
#include "tools/backend_handles.h"

namespace ringside::tools {
namespace {

constexpr int64_t kSequences = 4;
// Steps between the starts of the batch's sequences: odd, so that chunks end in different steps.
constexpr int64_t kStagger = 5;

// What a model showed while it read: the residual at each point, and the choices of the routers.
class Recording {
 public:
  Recording(const Config& config, rs_model* model, void (*set_tap)(rs_model*, const Tap*))
      : model_(model),
        set_tap_(set_tap),
        residuals_(static_cast<size_t>(2 * config.layers + 1)),
        experts_(static_cast<size_t>(config.layers)) {
    tap_.context = this;
    tap_.residual = [](void* context, int32_t layer, TapPoint point, const float* rows, int64_t count, int64_t hidden) {
      const int32_t after = point == TapPoint::kEmbedding ? 0 : point == TapPoint::kAttention ? 1 : 2;
      std::vector<float>& to = static_cast<Recording*>(context)->residuals_[static_cast<size_t>(2 * layer + after)];
      to.insert(to.end(), rows, rows + count * hidden);
    };
    tap_.routed = [](void* context, int32_t layer, const int32_t* experts, int64_t count, int64_t slots) {
      std::vector<int32_t>& to = static_cast<Recording*>(context)->experts_[static_cast<size_t>(layer)];
      to.insert(to.end(), experts, experts + count * slots);
    };
    set_tap_(model_, &tap_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() { stop(); }
  void stop() { set_tap_(model_, nullptr); }

  // After the embedding, then after attention and after the MLP of each layer: [tokens, hidden] each.
  const std::vector<std::vector<float>>& residuals() const { return residuals_; }
  // [layers]: [tokens, experts_per_token], empty in dense layers.
  const std::vector<std::vector<int32_t>>& experts() const { return experts_; }

 private:
  rs_model* model_;
  void (*set_tap_)(rs_model*, const Tap*);
  std::vector<std::vector<float>> residuals_;
  std::vector<std::vector<int32_t>> experts_;
  Tap tap_;
};

// Relative root mean square of the difference between what was added to two residuals; without `before`, of the
// residuals themselves.
double relative_error(const std::vector<float>& truth, const std::vector<float>& fast,
                      const std::vector<float>* truth_before, const std::vector<float>* fast_before) {
  double difference = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double t = static_cast<double>(truth[i]) - (truth_before ? static_cast<double>((*truth_before)[i]) : 0.0);
    const double f = static_cast<double>(fast[i]) - (fast_before ? static_cast<double>((*fast_before)[i]) : 0.0);
    difference += (t - f) * (t - f);
    size += t * t;
  }
  return size > 0.0 ? std::sqrt(difference / size) : 0.0;
}

double shared_choices(const std::vector<int32_t>& truth, const std::vector<int32_t>& fast, size_t slots) {
  if (truth.empty()) return 1.0;
  int64_t shared = 0;
  for (size_t row = 0; row < truth.size(); row += slots) {
    const std::span chosen(truth.data() + row, slots);
    for (size_t slot = 0; slot < slots; ++slot) shared += std::count(chosen.begin(), chosen.end(), fast[row + slot]);
  }
  return static_cast<double>(shared) / static_cast<double>(truth.size());
}

Result<std::vector<AlignedLayer>> compare_layers(const Config& config, int64_t tokens, const Recording& truth,
                                                 const Recording& fast) {
  for (const Recording* recording : {&truth, &fast}) {
    for (const std::vector<float>& rows : recording->residuals()) {
      if (rows.size() == static_cast<size_t>(tokens * config.hidden)) continue;
      return Error{ErrorKind::kInternal, "residuals shown to the tap", std::to_string(tokens * config.hidden),
                   std::to_string(rows.size())};
    }
  }
  std::vector<AlignedLayer> layers;
  for (int32_t i = 0; i < config.layers; ++i) {
    const auto at = static_cast<size_t>(i);
    const std::vector<float>* t = &truth.residuals()[2 * at];
    const std::vector<float>* f = &fast.residuals()[2 * at];
    if (truth.experts()[at].size() != fast.experts()[at].size()) {
      return Error{ErrorKind::kInternal, "router choices shown to the tap", std::to_string(truth.experts()[at].size()),
                   std::to_string(fast.experts()[at].size())};
    }
    layers.push_back(
        {config.is_softmax(i), relative_error(t[1], f[1], &t[0], &f[0]), relative_error(t[2], f[2], &t[1], &f[1]),
         relative_error(t[2], f[2], nullptr, nullptr),
         shared_choices(truth.experts()[at], fast.experts()[at], static_cast<size_t>(config.experts_per_token))});
  }
  return layers;
}

class Aligner {
 public:
  Aligner(const LoadedModel& fast, const LoadedModel& reference, const std::vector<int32_t>& ids)
      : fast_(fast),
        reference_(reference),
        ids_(ids),
        tokens_(static_cast<int64_t>(ids.size()) - 1),
        rows_(fast.config().vocab_rows) {}

  Result<Alignment> run() {
    Alignment out;
    out.tokens = tokens_;
    {
      Recording truth(fast_.config(), reference_.handle(), set_reference_tap);
      RS_CHECK(read_at_once(reference_, truth_));
      Recording seen(fast_.config(), fast_.handle(), set_cpu_tap);
      RS_CHECK(read_at_once(fast_, prefill_));
      RS_TRY(out.layers, compare_layers(fast_.config(), tokens_, truth, seen));
    }
    AlignedPath prefill{.name = "chunked prefill"};
    for (int64_t i = 0; i < tokens_; ++i) add(i, prefill_.data() + i * rows_, prefill);
    AlignedPath steps{.name = "step decode"};
    RS_CHECK(read_by_steps(steps));
    AlignedPath batch{.name = "batched decode"};
    RS_CHECK(read_in_batch(batch));
    for (AlignedPath* path : {&prefill, &steps, &batch}) {
      finish(*path);
      out.paths.push_back(std::move(*path));
    }
    return out;
  }

 private:
  // Logits of every position in one call.
  Status read_at_once(const LoadedModel& model, std::vector<float>& logits) {
    logits.resize(static_cast<size_t>(tokens_ * rows_));
    RS_TRY(const SessionHandle session, open_session(model.backend(), model.handle()));
    rs_error error{};
    if (model.backend().extend(session.get(), ids_.data(), tokens_, RS_LOGITS_ALL, logits.data(), nullptr, &error) !=
        0) {
      return to_error(error);
    }
    return Unit{};
  }

  Status read_by_steps(AlignedPath& path) {
    const rs_backend& backend = fast_.backend();
    RS_TRY(const SessionHandle session, open_session(backend, fast_.handle()));
    std::vector<float> logits(static_cast<size_t>(rows_));
    for (int64_t i = 0; i < tokens_; ++i) {
      rs_error error{};
      if (backend.extend(session.get(), &ids_[static_cast<size_t>(i)], 1, RS_LOGITS_LAST, logits.data(), nullptr,
                         &error) != 0) {
        return to_error(error);
      }
      add(i, logits.data(), path);
    }
    return Unit{};
  }

  // Several sessions read the same tokens, each a few steps behind the one before.
  Status read_in_batch(AlignedPath& path) {
    const rs_backend& backend = fast_.backend();
    std::vector<SessionHandle> sessions;
    for (int64_t s = 0; s < kSequences; ++s) {
      RS_TRY(SessionHandle session, open_session(backend, fast_.handle()));
      sessions.push_back(std::move(session));
    }
    std::vector<float> logits(static_cast<size_t>(kSequences * rows_));
    for (int64_t time = 0; time < tokens_ + (kSequences - 1) * kStagger; ++time) {
      std::vector<rs_step> steps;
      std::vector<int64_t> positions;
      for (int64_t s = 0; s < kSequences; ++s) {
        const int64_t position = time - s * kStagger;
        if (position < 0 || position >= tokens_) continue;
        float* row = logits.data() + static_cast<int64_t>(steps.size()) * rows_;
        steps.push_back(
            {sessions[static_cast<size_t>(s)].get(), &ids_[static_cast<size_t>(position)], 1, RS_LOGITS_LAST, row});
        positions.push_back(position);
      }
      rs_error error{};
      if (backend.step(fast_.handle(), steps.data(), static_cast<int64_t>(steps.size()), nullptr, &error) != 0) {
        return to_error(error);
      }
      for (size_t i = 0; i < steps.size(); ++i) add(positions[i], steps[i].logits, path);
    }
    return Unit{};
  }

  void add(int64_t position, const float* logits, AlignedPath& path) const {
    const auto usable = static_cast<size_t>(fast_.info().vocab);  // what lies behind is padding
    const float* truth = truth_.data() + position * rows_;
    add_position(std::span(truth, usable), std::span(logits, usable), ids_[static_cast<size_t>(position) + 1], path);
    const auto bytes = static_cast<size_t>(rows_) * sizeof(float);
    if (std::memcmp(logits, prefill_.data() + position * rows_, bytes) != 0) path.different_rows += 1;
  }

  const LoadedModel& fast_;
  const LoadedModel& reference_;
  const std::vector<int32_t>& ids_;
  const int64_t tokens_;
  const int64_t rows_;          // of the vocabulary
  std::vector<float> truth_;    // [tokens, rows]
  std::vector<float> prefill_;  // [tokens, rows]
};

}  // namespace

bool Alignment::is_identical() const {
  return std::all_of(paths.begin(), paths.end(), [](const AlignedPath& path) { return path.different_rows == 0; });
}

Result<Alignment> align(const LoadedModel& fast, const LoadedModel& reference, const std::vector<int32_t>& ids) {
  const Config& expected = fast.config();
  const Config& found = reference.config();
  if (expected.layers != found.layers || expected.hidden != found.hidden || expected.vocab_rows != found.vocab_rows) {
    return Error{ErrorKind::kArgumentInvalid, "reference model", "the shape of " + fast.info().folder,
                 reference.info().folder};
  }
  if (ids.size() < 2) return Error{ErrorKind::kArgumentInvalid, "tokens", "at least 2", std::to_string(ids.size())};
  for (const int32_t id : ids) {
    if (id >= 0 && id < fast.info().vocab) continue;
    return Error{ErrorKind::kTokenOutOfRange, "token", "0.." + std::to_string(fast.info().vocab - 1),
                 std::to_string(id)};
  }
  return Aligner(fast, reference, ids).run();
}

}  // namespace ringside::tools
