// Owns: saved linear states in pinned host memory, and the stream on which they travel beside the model's own.
// Must never: make the model's stream wait for a copy, but where its next work reads what the copy brings.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/stream.h"

namespace ringside::cuda {

// S in pinned host memory, which goes back with its last holder, from any thread.
struct SavedState {
  Piece memory;
  std::shared_ptr<Event> end;  // of the copy that fills it; nullptr: it is full

  Status wait() const { return end == nullptr ? Status(Unit{}) : end->wait(); }
};

class StateCopies {
 public:
  StateCopies() = default;
  StateCopies(const StateCopies&) = delete;
  StateCopies& operator=(const StateCopies&) = delete;
  ~StateCopies();

  Status create(int64_t state_bytes);
  // S as it is when the work queued on `stream` so far is through. Nobody waits: until the copy is through, nobody may
  // write to `s`, which is shared meanwhile.
  Result<SavedState> save(const Piece& s, const Stream& stream);
  // The same of S in ordinary memory.
  Result<SavedState> keep(const void* s);
  // The way back, into `s` as `stream` has left it. Who reads `s` waits for the event.
  Result<std::shared_ptr<Event>> restore(const SavedState& saved, const Piece& s, const Stream& stream);
  // Lets go of what copies that are through have held.
  Status settle();

 private:
  struct Copy {
    Piece device, host;
    std::shared_ptr<Event> end;
  };

  Result<Piece> take_host_memory();
  Status queue(Copy& copy, cudaMemcpyKind way, const Stream& stream);

  int64_t state_bytes_ = 0;
  Stream stream_;
  Event begin_;
  std::mutex mutex_;  // guards the two lists that follow
  std::vector<PinnedMemory> memory_;
  std::vector<uint8_t*> free_;
  std::deque<Copy> copies_;  // perhaps under way, in their order
};

}  // namespace ringside::cuda
