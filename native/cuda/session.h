// Owns: what a session remembers (house rule 3a) in device memory: linear states at the last chunk boundary, the open
// chunk's rows, and the key-value pages of the softmax layers.
// Must never: change a page that somebody else also holds.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/memory_plan.h"
#include "cuda/model.h"
#include "cuda/state_copies.h"
#include "cuda/stream.h"

namespace ringside::cuda {

// Keys and values of 256 positions, in device memory or, where only snapshots hold them, in the host's.
struct Page {
  Piece device;
  PinnedMemory host;
};

struct Snapshot;

// The pools from which all sessions of a model take.
struct SessionPools {
  SessionPools(const DeviceModel& model, const MemoryPlan& plan);

  // In device memory. Where that is short, pages that only snapshots hold make room.
  Result<std::shared_ptr<Page>> take_page(const Stream& stream);
  // Into device memory, all of them. The caller holds them too, so none of them makes room for another.
  Status bring_back(const std::vector<std::shared_ptr<Page>>& saved_pages, const Stream& stream);

  const DeviceModel& model;
  PiecePool states;     // S
  PiecePool open_rows;  // k, then v
  PiecePool pages;
  PiecePool tables;  // of page pointers, for a whole context

  std::mutex saved_mutex;              // guards what follows, and where the pages of snapshots lie
  std::vector<const Snapshot*> saved;  // oldest first

 private:
  Result<bool> make_room(const Stream& stream);
};

// S and the open rows: what a slab writes anew and a session then has in exchange for its own.
struct LinearState {
  Piece s;
  Piece open_rows;

  static Result<LinearState> take(SessionPools& pools, const Stream& stream);
  bool is_shared() const { return s.use_count() > 1 || open_rows.use_count() > 1; }
};

struct Session {
  Session(const void* owner, SessionPools& from) : model(owner), pools(&from) {}

  const void* model = nullptr;  // only compared
  SessionPools* pools;
  int64_t position = 0;
  LinearState state;
  // Where the first step began, and the state there, which alone may be saved and reused (house rule 3a). The rows of
  // its open chunk may lie in the same memory as the session's, before those that steps wrote.
  int64_t read_position = 0;
  LinearState read_state;
  std::vector<std::shared_ptr<Page>> pages;
  Piece table;
  size_t table_end = 0;  // entries before this one are in the device's table
  // Of a restored session that nothing was done with yet: its S is on its way.
  std::shared_ptr<Event> arrival;

  SessionView view(const LinearState& of) const;
  SessionView view() const { return view(state); }
  int64_t bytes() const;
  // A slab is through: the session has its state in exchange for its own.
  void advance(int64_t rows, LinearState& slab_state);
  // To a position of its open chunk, or of the open chunk at read_position.
  void cut(int64_t keep_position);
  // Before anything else of the session is queued on the stream.
  Status await(const Stream& stream);
  // Makes the pages of the next `rows` positions exist and belong to this session alone, and known to the device.
  Status prepare_pages(int64_t rows, const Stream& stream);
};

struct Snapshot {
  Snapshot() = default;
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  ~Snapshot();  // in any thread

  const void* model = nullptr;  // only compared
  SessionPools* pools = nullptr;
  int64_t position = 0;
  SavedState s;
  int64_t state_bytes = 0;
  std::vector<std::shared_ptr<Page>> pages;
  int64_t page_bytes = 0;

  // It is filled: from now on its pages may move to the host.
  void enlist(SessionPools& of);
  int64_t bytes() const { return state_bytes + static_cast<int64_t>(pages.size()) * page_bytes; }
};

Status open_session(Session& session, const Stream& stream);
// The last chunk boundary that was read, and back. Neither waits for the copy of S.
Status save_session(const Session& session, StateCopies& copies, const Stream& stream, Snapshot& out);
Status restore_session(const Snapshot& snapshot, StateCopies& copies, const Stream& stream, Session& out);

// Frobenius norm of S as after the last token, [linear layers, heads], in double: it is only looked at.
Status state_norms(Session& session, const Stream& stream, float* out);

}  // namespace ringside::cuda
