// Owns: which tokens a session holds, what of a new prompt it can keep, and the decode loop.
// Must never: let its list of tokens and the backend's state differ, whatever failed in between.
#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "../engine.h"
#include "loaded_model.h"

namespace ringside {
namespace {

constexpr size_t kPenaltyTokens = 256;

// The containers throw when memory runs out; nothing leaves the boundary but values.
template <class Body>
auto guarded(const char* subject, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, subject, "", ""};
  }
}

// Made empty and then filled: were the backend's snapshot there first, it would be lost when memory runs out in
// between.
class SessionSnapshot final : public Snapshot {
 public:
  SessionSnapshot(std::shared_ptr<const LoadedModel> model, std::vector<int32_t> tokens)
      : model_(std::move(model)), tokens_(std::move(tokens)) {}
  SessionSnapshot(const SessionSnapshot&) = delete;
  SessionSnapshot& operator=(const SessionSnapshot&) = delete;
  ~SessionSnapshot() override {
    if (handle_ != nullptr) model_->backend().drop(handle_);
  }

  Status save(rs_session* session) {
    rs_error error{};
    if (model_->backend().save(session, &handle_, &error) != 0) return to_error(error);
    return Unit{};
  }

  int64_t position() const override { return static_cast<int64_t>(tokens_.size()); }
  int64_t bytes() const override {
    return model_->backend().snapshot_bytes(handle_) + static_cast<int64_t>(tokens_.size() * sizeof(int32_t));
  }
  std::span<const int32_t> tokens() const override { return tokens_; }
  const LoadedModel* model() const { return model_.get(); }
  const rs_snapshot* handle() const { return handle_; }

 private:
  std::shared_ptr<const LoadedModel> model_;
  rs_snapshot* handle_ = nullptr;
  std::vector<int32_t> tokens_;
};

// What a running call of the backend asks and tells.
struct Poll {
  const CancelFlag* cancel;
  const std::function<void(int64_t)>* advanced;

  rs_poll table() {
    const auto told = [](void* context, int64_t position) { (*static_cast<Poll*>(context)->advanced)(position); };
    const auto asked = [](void* context) -> int32_t {
      return static_cast<Poll*>(context)->cancel->cancelled() ? 1 : 0;
    };
    return {this, asked, advanced != nullptr && *advanced ? +told : nullptr};
  }
};

size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t shorter = std::min(a.size(), b.size());
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + static_cast<int64_t>(shorter), b.begin()).first -
                             a.begin());
}

class ModelSession final : public Session {
 public:
  // start() must follow.
  explicit ModelSession(std::shared_ptr<const LoadedModel> model)
      : model_(std::move(model)), backend_(model_->backend()) {}
  ModelSession(const ModelSession&) = delete;
  ModelSession& operator=(const ModelSession&) = delete;
  ~ModelSession() override { close(); }
  Status start() { return replace(nullptr); }

  int64_t position() const override { return static_cast<int64_t>(tokens_.size()); }
  std::span<const int32_t> tokens() const override { return tokens_; }
  int64_t bytes() const override {
    return backend_.session_bytes(handle_) + static_cast<int64_t>(tokens_.capacity() * sizeof(int32_t));
  }

  Result<int64_t> sync(std::span<const int32_t> prompt, std::span<const std::shared_ptr<Snapshot>> snapshots,
                       CancelFlag& cancel, const std::function<void(int64_t)>& advanced) override {
    return guarded("sync", [&]() -> Result<int64_t> {
      if (prompt.empty()) return Error{ErrorKind::kArgumentInvalid, "prompt", "at least 1 token", "0"};
      RS_CHECK(check_tokens(prompt, 0));
      if (cancel.cancelled()) return Error{ErrorKind::kCancelled, "sync", "", ""};
      RS_TRY(const int64_t reused, keep_prefix(prompt, snapshots));
      logits_.resize(static_cast<size_t>(model_->config().vocab_rows));
      has_logits_ = false;
      RS_CHECK(extend(prompt.subspan(static_cast<size_t>(reused)), RS_LOGITS_LAST, logits_, cancel, &advanced));
      has_logits_ = true;
      return reused;
    });
  }

  Result<std::shared_ptr<Snapshot>> snapshot() override {
    return guarded("snapshot", [&]() -> Result<std::shared_ptr<Snapshot>> {
      const int64_t boundary = position() / RS_CHUNK_TOKENS * RS_CHUNK_TOKENS;
      const auto snapshot =
          std::make_shared<SessionSnapshot>(model_, std::vector<int32_t>(tokens_.begin(), tokens_.begin() + boundary));
      RS_CHECK(snapshot->save(handle_));
      return std::shared_ptr<Snapshot>(snapshot);
    });
  }

  Result<GenerateResult> generate(const GenerateOptions& options, CancelFlag& cancel,
                                  const std::function<bool(int32_t id)>& sink) override {
    return guarded("generate", [&] { return decode(options, cancel, sink); });
  }

  Result<std::vector<float>> logits(std::span<const int32_t> tokens, CancelFlag& cancel) override {
    if (tokens.empty()) return Error{ErrorKind::kArgumentInvalid, "tokens", "at least 1 token", "0"};
    RS_CHECK(check_tokens(tokens, position()));
    return guarded("logits", [&]() -> Result<std::vector<float>> {
      const auto rows = static_cast<size_t>(model_->config().vocab_rows);
      std::vector<float> all(tokens.size() * rows);
      has_logits_ = false;
      RS_CHECK(extend(tokens, RS_LOGITS_ALL, all, cancel, nullptr));
      logits_.assign(all.end() - static_cast<int64_t>(rows), all.end());
      has_logits_ = true;
      return all;
    });
  }

  Result<std::vector<float>> state_norms() const override {
    return guarded("state norms", [&]() -> Result<std::vector<float>> {
      const Config& config = model_->config();
      std::vector<float> norms(static_cast<size_t>(config.linear_layers()) * static_cast<size_t>(config.heads));
      rs_error error{};
      if (backend_.state_norms(handle_, norms.data(), &error) != 0) return to_error(error);
      return norms;
    });
  }

 private:
  Result<GenerateResult> decode(const GenerateOptions& options, CancelFlag& cancel,
                                const std::function<bool(int32_t id)>& sink) {
    RS_CHECK(check_sampler_options(options.sampler));
    if (options.max_tokens < 0) {
      return Error{ErrorKind::kArgumentInvalid, "max_tokens", ">= 0", std::to_string(options.max_tokens)};
    }
    if (!has_logits_) return Error{ErrorKind::kStateInvalid, "session", "a prompt that was read", "none"};
    GenerateResult result;
    std::vector<float> next(logits_.size());
    while (result.tokens < options.max_tokens) {
      if (cancel.cancelled()) return stopped(result, StopReason::kCancelled);
      if (position() >= model_->config().context_tokens) return stopped(result, StopReason::kContextFull);
      const int32_t id = choose(options.sampler);
      if (id < 0) return Error{ErrorKind::kInternal, "logits", "a finite value", "none"};
      if (is_stop(id, options)) return stopped(result, StopReason::kStopToken);
      result.tokens += 1;
      if (!sink(id)) return stopped(result, StopReason::kCancelled);
      // Fed even when it is the last one: the session then holds all that was generated and can go on.
      const Status fed = extend(std::span(&id, 1), RS_LOGITS_LAST, next, cancel, nullptr);
      if (!fed.ok() && fed.error().kind == ErrorKind::kCancelled) return stopped(result, StopReason::kCancelled);
      RS_CHECK(fed);
      logits_.swap(next);
    }
    return stopped(result, StopReason::kTokenLimit);
  }

  static GenerateResult stopped(GenerateResult result, StopReason reason) {
    result.reason = reason;
    return result;
  }

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
    // A recurrent state cannot be rewound further than to the start of the open chunk.
    const size_t boundary = tokens_.size() / RS_CHUNK_TOKENS * RS_CHUNK_TOKENS;
    const size_t own = std::min(common_prefix(tokens_, prompt), most);
    const SessionSnapshot* best = best_snapshot(prompt.first(most), snapshots);
    const size_t saved = best != nullptr ? best->tokens().size() : 0;
    if (own >= boundary && own >= saved) {
      RS_CHECK(cut(own));
      return static_cast<int64_t>(own);
    }
    RS_CHECK(replace(best));
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

  Status cut(size_t keep) {
    if (keep == tokens_.size()) return Unit{};
    has_logits_ = false;
    rs_error error{};
    if (backend_.accept(handle_, static_cast<int64_t>(keep), &error) != 0) return to_error(error);
    tokens_.resize(keep);
    return Unit{};
  }

  // The old state is given up only when the new one and its tokens are there: copying them may fail.
  Status replace(const SessionSnapshot* snapshot) {
    std::vector<int32_t> tokens;
    if (snapshot != nullptr) tokens.assign(snapshot->tokens().begin(), snapshot->tokens().end());
    rs_error error{};
    rs_session* handle = nullptr;
    const int32_t outcome = snapshot != nullptr
                                ? backend_.restore(model_->handle(), snapshot->handle(), &handle, &error)
                                : backend_.open(model_->handle(), &handle, &error);
    if (outcome != 0) return to_error(error);
    close();
    handle_ = handle;
    tokens_.swap(tokens);
    has_logits_ = false;
    return Unit{};
  }

  void close() {
    if (handle_ != nullptr) backend_.close(std::exchange(handle_, nullptr));
  }

  Status extend(std::span<const int32_t> tokens, rs_logits want, std::vector<float>& out, const CancelFlag& cancel,
                const std::function<void(int64_t)>* advanced) {
    const size_t before = tokens_.size();
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    Poll poll{&cancel, advanced};
    const rs_poll table = poll.table();
    rs_error error{};
    const int32_t outcome =
        backend_.extend(handle_, tokens.data(), static_cast<int64_t>(tokens.size()), want, out.data(), &table, &error);
    if (outcome == 0) return Unit{};
    tokens_.resize(static_cast<size_t>(backend_.position(handle_)));
    // The logits of the last token still hold when nothing was added to it.
    if (tokens_.size() != before) has_logits_ = false;
    return to_error(error);
  }

  // The model's padding rows have no token: they are left out of the choice. logits_ stays as it is for a second call.
  int32_t choose(const SamplerOptions& sampler) {
    choice_.assign(logits_.begin(), logits_.begin() + model_->info().vocab);
    const size_t recent = std::min(tokens_.size(), kPenaltyTokens);
    return sample(choice_, std::span(tokens_).last(recent), nullptr, position(), sampler);
  }

  bool is_stop(int32_t id, const GenerateOptions& options) const {
    const auto holds = [id](const std::vector<int32_t>& list) { return std::ranges::find(list, id) != list.end(); };
    return holds(model_->info().stop_tokens) || holds(options.stop_tokens);
  }

  std::shared_ptr<const LoadedModel> model_;
  const rs_backend& backend_;
  rs_session* handle_ = nullptr;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;  // [vocab_rows], of the last token, when has_logits_
  std::vector<float> choice_;  // the sampler's copy
  bool has_logits_ = false;
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

}  // namespace ringside
