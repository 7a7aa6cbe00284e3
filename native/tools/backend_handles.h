// Owns: sessions and snapshots of the backend table as values that close themselves, for the tools that drive a backend
// without the engine's Session.
#pragma once

#include <cstdint>
#include <memory>

#include "error.h"
#include "model/backend.h"
#include "model/backend_errors.h"

namespace ringside::tools {

template <class T>
struct HandleCloser {
  void (*close)(T*) = nullptr;
  void operator()(T* handle) const { close(handle); }
};
using SessionHandle = std::unique_ptr<rs_session, HandleCloser<rs_session>>;
using SnapshotHandle = std::unique_ptr<rs_snapshot, HandleCloser<rs_snapshot>>;

// nullptr: an empty session.
inline Result<SessionHandle> open_session(const rs_backend& backend, rs_model* model,
                                          const rs_snapshot* from = nullptr) {
  rs_session* session = nullptr;
  rs_error error{};
  const int32_t outcome =
      from == nullptr ? backend.open(model, &session, &error) : backend.restore(model, from, &session, &error);
  if (outcome != 0) return to_error(error);
  return SessionHandle(session, {backend.close});
}

inline Result<SnapshotHandle> save_session(const rs_backend& backend, rs_session* session) {
  rs_snapshot* snapshot = nullptr;
  rs_error error{};
  if (backend.save(session, &snapshot, &error) != 0) return to_error(error);
  return SnapshotHandle(snapshot, {backend.drop});
}

}  // namespace ringside::tools
