// Owns: a snapshot as bytes and back, checked against the model before the backend sees them.
#include <string>
#include <utility>
#include <vector>

#include "../engine.h"
#include "loaded_model.h"
#include "session_state.h"

namespace ringside {
namespace {

Error no_parts(const LoadedModel& model) {
  return {ErrorKind::kBackendUnavailable, model.info().backend, "snapshots as bytes", "none"};
}

Status check_length(const char* name, size_t found, int64_t expected) {
  if (static_cast<int64_t>(found) == expected) return Unit{};
  return Error{ErrorKind::kArgumentInvalid, name, std::to_string(expected) + " bytes", std::to_string(found)};
}

Status check_tokens(const Config& config, const std::vector<int32_t>& tokens) {
  if (tokens.size() % RS_CHUNK_TOKENS != 0 || tokens.size() > static_cast<size_t>(config.context_tokens)) {
    return Error{ErrorKind::kArgumentInvalid, "tokens", "a multiple of 64 inside the context",
                 std::to_string(tokens.size())};
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < config.vocab_rows) continue;
    return Error{ErrorKind::kTokenOutOfRange, "token " + std::to_string(i),
                 "0.." + std::to_string(config.vocab_rows - 1), std::to_string(tokens[i])};
  }
  return Unit{};
}

}  // namespace

Status SessionSnapshot::export_state(std::span<uint8_t> out) const {
  if (model_->backend().import_snapshot == nullptr) return no_parts(*model_);
  RS_CHECK(check_length("state", out.size(), model_->snapshot_parts().state_bytes));
  rs_error error{};
  if (model_->backend().export_state(handle_, out.data(), &error) != 0) return to_error(error);
  return Unit{};
}

Status SessionSnapshot::export_page(int64_t page, std::span<uint8_t> out) const {
  if (model_->backend().import_snapshot == nullptr) return no_parts(*model_);
  RS_CHECK(check_length("page", out.size(), model_->snapshot_parts().page_bytes));
  rs_error error{};
  if (model_->backend().export_page(handle_, page, out.data(), &error) != 0) return to_error(error);
  return Unit{};
}

Result<std::shared_ptr<Snapshot>> Snapshot::from_parts(std::shared_ptr<Model> model, std::vector<int32_t> tokens,
                                                       std::span<const uint8_t> state,
                                                       std::span<const std::span<const uint8_t>> pages) {
  const auto loaded = std::dynamic_pointer_cast<const LoadedModel>(model);
  if (loaded == nullptr) return Error{ErrorKind::kArgumentInvalid, "model", "a loaded model", "none"};
  if (loaded->backend().import_snapshot == nullptr) return no_parts(*loaded);
  return guarded("snapshot", [&]() -> Result<std::shared_ptr<Snapshot>> {
    const SnapshotParts parts = loaded->snapshot_parts();
    RS_CHECK(check_tokens(loaded->config(), tokens));
    RS_CHECK(check_length("state", state.size(), parts.state_bytes));
    const size_t wanted = (tokens.size() + RS_PAGE_TOKENS - 1) / RS_PAGE_TOKENS;
    if (pages.size() != wanted) {
      return Error{ErrorKind::kArgumentInvalid, "pages", std::to_string(wanted), std::to_string(pages.size())};
    }
    std::vector<const void*> addresses;
    for (const std::span<const uint8_t> page : pages) {
      RS_CHECK(check_length("page", page.size(), parts.page_bytes));
      addresses.push_back(page.data());
    }
    const auto snapshot = std::make_shared<SessionSnapshot>(loaded, std::move(tokens));
    RS_CHECK(snapshot->restore_parts(state.data(), addresses.data()));
    return std::shared_ptr<Snapshot>(snapshot);
  });
}

}  // namespace ringside
