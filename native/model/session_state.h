// Owns: what a session holds: the backend's state, the tokens that led to it, the logits after them and the index over
// them. Must never: let tokens and state differ, whatever failed in between; while a Decoding (session_decoding.h) runs
// the backend may be ahead by its drafts, which settle() cuts off.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "draft_plan.h"
#include "loaded_model.h"
#include "prompt_lookup.h"

namespace ringside {

class SessionSnapshot;

class SessionState {
 public:
  // open() must follow.
  explicit SessionState(std::shared_ptr<const LoadedModel> model)
      : model_(std::move(model)), backend_(model_->backend()) {}
  SessionState(const SessionState&) = delete;
  SessionState& operator=(const SessionState&) = delete;
  ~SessionState() { close(); }

  const std::shared_ptr<const LoadedModel>& model() const { return model_; }
  const rs_backend& backend() const { return backend_; }
  rs_session* handle() const { return handle_; }
  int64_t position() const { return static_cast<int64_t>(tokens_.size()); }
  // Of the tokens held, how many the backend need not read again to go on reading.
  int64_t read_position() const { return std::min(backend_.read_position(handle_), position()); }
  std::span<const int32_t> tokens() const { return tokens_; }
  int64_t bytes() const;
  bool has_logits() const { return has_logits_; }
  std::span<const float> logits() const { return logits_; }  // [vocab_rows], after the last token
  const PromptLookup& lookup() const { return lookup_; }
  LookupHits& hits() { return hits_; }

  // A new state, or that of the snapshot, in place of the old one, which is given up only when the new one is there.
  Status open(const SessionSnapshot* snapshot);
  Status cut(size_t keep);
  // `all` gets the logits of every token, [tokens, vocab_rows], unless it is empty. What the backend's steps wrote is
  // read again first. A cancelled or failed call keeps the tokens that the backend got to, which may be fewer than
  // before it.
  Status extend(std::span<const int32_t> tokens, std::span<float> all, const CancelFlag& cancel,
                const std::function<void(int64_t)>& advanced);

  // Memory for `more` tokens, so that push() cannot fail.
  void reserve(int64_t more);
  // Adds a token that the backend holds already or is about to be given.
  void push(int32_t token) noexcept { tokens_.push_back(token); }
  // Brings the index up to the last token.
  void index() { lookup_.extend(tokens_); }
  // Takes the logits of a row of the backend's last call, which chose ids; settle() must follow with them.
  Status fetch_logits(int64_t row);
  // Cuts off what the backend or the list of tokens has beyond the other; `logits` are those after the last token left,
  // nullptr: nobody knows them.
  Status settle(const float* logits);

 private:
  void close();
  Status go_back(size_t keep);
  Status read_on(std::span<const int32_t> tokens, rs_logits want, float* logits, const CancelFlag& cancel,
                 const std::function<void(int64_t)>& advanced);
  void keep_tokens(size_t count);

  std::shared_ptr<const LoadedModel> model_;
  const rs_backend& backend_;
  rs_session* handle_ = nullptr;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
  bool has_logits_ = false;
  PromptLookup lookup_;  // of a beginning of the tokens
  LookupHits hits_;
};

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

  // Keeps those of the tokens whose state the backend saved.
  Status save(rs_session* session) {
    rs_error error{};
    if (model_->backend().save(session, &handle_, &error) != 0) return to_error(error);
    tokens_.resize(static_cast<size_t>(model_->backend().snapshot_position(handle_)));
    return Unit{};
  }

  Status restore_parts(const uint8_t* state, const void* const* pages) {
    rs_error error{};
    const rs_backend& backend = model_->backend();
    if (backend.import_snapshot(model_->handle(), position(), state, pages, &handle_, &error) != 0)
      return to_error(error);
    return Unit{};
  }

  SnapshotParts parts() const override { return model_->snapshot_parts(); }
  Status export_state(std::span<uint8_t> out) const override;
  Status export_page(int64_t page, std::span<uint8_t> out) const override;
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

// The containers throw when memory runs out; nothing leaves the boundary but values.
template <class Body>
auto guarded(const char* subject, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, subject, "", ""};
  }
}

}  // namespace ringside
