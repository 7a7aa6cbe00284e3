// Owns: the session as engine.h promises it: what of a new prompt it can keep, and the calls' arguments.
// Must never: touch the backend's state but through SessionState, which keeps it and the list of tokens together.
#include <algorithm>
#include <string>
#include <utility>

#include "../engine.h"
#include "batch.h"
#include "loaded_model.h"
#include "session_state.h"

namespace ringside {
namespace {

size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t shorter = std::min(a.size(), b.size());
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + static_cast<int64_t>(shorter), b.begin()).first -
                             a.begin());
}

class ModelSession final : public Session {
 public:
  // start() must follow.
  explicit ModelSession(std::shared_ptr<const LoadedModel> model) : model_(model), state_(std::move(model)) {}
  Status start() { return state_.open(nullptr); }

  const LoadedModel& model() const { return *model_; }
  SessionState& state() { return state_; }
  int64_t position() const override { return state_.position(); }
  std::span<const int32_t> tokens() const override { return state_.tokens(); }
  int64_t bytes() const override { return state_.bytes(); }

  Result<int64_t> sync(std::span<const int32_t> prompt, std::span<const std::shared_ptr<Snapshot>> snapshots,
                       CancelFlag& cancel, const std::function<void(int64_t)>& advanced) override {
    return guarded("sync", [&]() -> Result<int64_t> {
      if (prompt.empty()) return Error{ErrorKind::kArgumentInvalid, "prompt", "at least 1 token", "0"};
      RS_CHECK(check_tokens(prompt, 0));
      if (cancel.cancelled()) return Error{ErrorKind::kCancelled, "sync", "", ""};
      RS_TRY(const int64_t reused, keep_prefix(prompt, snapshots));
      RS_CHECK(state_.extend(prompt.subspan(static_cast<size_t>(reused)), {}, cancel, advanced));
      return reused;
    });
  }

  Result<std::shared_ptr<Snapshot>> snapshot() override {
    return guarded("snapshot", [&]() -> Result<std::shared_ptr<Snapshot>> {
      const auto snapshot =
          std::make_shared<SessionSnapshot>(model_, std::vector<int32_t>(tokens().begin(), tokens().end()));
      RS_CHECK(snapshot->save(state_.handle()));
      return std::shared_ptr<Snapshot>(snapshot);
    });
  }

  Result<GenerateResult> generate(const GenerateOptions& options, CancelFlag& cancel,
                                  const std::function<bool(int32_t id)>& sink) override {
    return guarded("generate", [&]() -> Result<GenerateResult> {
      Batch alone(*model_);
      RS_CHECK(alone.add(state_, options, cancel, sink));
      RS_CHECK(alone.run());
      return alone.result(0);
    });
  }

  Result<std::vector<float>> logits(std::span<const int32_t> tokens, CancelFlag& cancel) override {
    if (tokens.empty()) return Error{ErrorKind::kArgumentInvalid, "tokens", "at least 1 token", "0"};
    RS_CHECK(check_tokens(tokens, position()));
    return guarded("logits", [&]() -> Result<std::vector<float>> {
      std::vector<float> all(tokens.size() * static_cast<size_t>(model_->config().vocab_rows));
      RS_CHECK(state_.extend(tokens, all, cancel, {}));
      return all;
    });
  }

  Result<std::vector<float>> state_norms() const override {
    return guarded("state norms", [&]() -> Result<std::vector<float>> {
      const Config& config = model_->config();
      std::vector<float> norms(static_cast<size_t>(config.linear_layers()) * static_cast<size_t>(config.heads));
      rs_error error{};
      if (model_->backend().state_norms(state_.handle(), norms.data(), &error) != 0) return to_error(error);
      return norms;
    });
  }

 private:
  Status check_tokens(std::span<const int32_t> tokens, int64_t held) const {
    const Config& config = model_->config();
    const int64_t wanted = held + static_cast<int64_t>(tokens.size());
    if (wanted > config.context_tokens) {
      return Error{ErrorKind::kContextFull, "tokens", "at most " + std::to_string(config.context_tokens),
                   std::to_string(wanted)};
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] >= 0 && tokens[i] < config.vocab_rows) continue;
      return Error{ErrorKind::kTokenOutOfRange, "token " + std::to_string(i),
                   "0.." + std::to_string(config.vocab_rows - 1), std::to_string(tokens[i])};
    }
    return Unit{};
  }

  // Leaves the session at the longest prefix of the prompt that needs no reading, at least one token short of it.
  Result<int64_t> keep_prefix(std::span<const int32_t> prompt, std::span<const std::shared_ptr<Snapshot>> snapshots) {
    const size_t most = prompt.size() - 1;
    // A recurrent state cannot be rewound further than to the start of the open chunk; what steps wrote is no state to
    // read on from.
    const auto read = static_cast<size_t>(state_.read_position());
    const size_t boundary = read / RS_CHUNK_TOKENS * RS_CHUNK_TOKENS;
    const size_t own = std::min(common_prefix(tokens().first(read), prompt), most);
    const SessionSnapshot* best = best_snapshot(prompt.first(most), snapshots);
    const size_t saved = best != nullptr ? best->tokens().size() : 0;
    if (own >= boundary && own >= saved) {
      RS_CHECK(state_.cut(own));
      return static_cast<int64_t>(own);
    }
    RS_CHECK(state_.open(best));
    return static_cast<int64_t>(saved);
  }

  const SessionSnapshot* best_snapshot(std::span<const int32_t> prompt,
                                       std::span<const std::shared_ptr<Snapshot>> snapshots) const {
    const SessionSnapshot* best = nullptr;
    for (const std::shared_ptr<Snapshot>& snapshot : snapshots) {
      const auto* candidate = dynamic_cast<const SessionSnapshot*>(snapshot.get());
      // A snapshot of another model is no error: snapshots are a cache.
      if (candidate == nullptr || candidate->model() != model_.get()) continue;
      const std::span<const int32_t> tokens = candidate->tokens();
      if (best != nullptr && best->tokens().size() >= tokens.size()) continue;
      if (common_prefix(tokens, prompt) == tokens.size()) best = candidate;
    }
    return best;
  }

  std::shared_ptr<const LoadedModel> model_;
  SessionState state_;
};

}  // namespace

Result<std::unique_ptr<Session>> Session::open(std::shared_ptr<Model> model) {
  const auto loaded = std::dynamic_pointer_cast<const LoadedModel>(model);
  if (loaded == nullptr) return Error{ErrorKind::kArgumentInvalid, "model", "a loaded model", "none"};
  return guarded("session", [&]() -> Result<std::unique_ptr<Session>> {
    auto session = std::make_unique<ModelSession>(loaded);
    RS_CHECK(session->start());
    return std::unique_ptr<Session>(std::move(session));
  });
}

Result<std::vector<GenerateResult>> generate_together(std::span<BatchMember> members) {
  return guarded("generate", [&]() -> Result<std::vector<GenerateResult>> {
    std::vector<ModelSession*> sessions;
    for (size_t i = 0; i < members.size(); ++i) {
      const auto wrong = [i](const char* expected, const char* actual) -> Error {
        return {ErrorKind::kArgumentInvalid, "member " + std::to_string(i), expected, actual};
      };
      auto* session = dynamic_cast<ModelSession*>(members[i].session);
      if (session == nullptr || members[i].cancel == nullptr || !members[i].sink) {
        return wrong("a session, a cancel flag and a sink", "less");
      }
      if (std::ranges::find(sessions, session) != sessions.end()) return wrong("a session of its own", "a shared one");
      if (&session->model() != &(i == 0 ? session : sessions[0])->model()) {
        return wrong("a session of the same model", "one of another");
      }
      sessions.push_back(session);
    }
    if (sessions.empty()) return std::vector<GenerateResult>();
    Batch batch(sessions[0]->model());
    for (size_t i = 0; i < members.size(); ++i) {
      RS_CHECK(batch.add(sessions[i]->state(), members[i].options, *members[i].cancel, members[i].sink));
    }
    RS_CHECK(batch.run());
    std::vector<GenerateResult> results;
    for (size_t i = 0; i < members.size(); ++i) results.push_back(batch.result(i));
    return results;
  });
}

}  // namespace ringside
