// Owns: memory of the device and memory of the host that the device reaches, given back when dropped, and pools of
// equal pieces, because an allocation makes the device wait and is far too slow for a page or a snapshot. Must never:
// be asked for a piece by a launched kernel's caller that has not ordered its work on the model's stream: a piece that
// came back may still be read by work queued there.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/cuda_call.h"
#include "error.h"
#include "owned_memory.h"

namespace ringside::cuda {

struct DeviceBytes {
  static Result<uint8_t*> take(int64_t bytes);
  static void give_back(uint8_t* data, int64_t bytes);
};
using DeviceMemory = OwnedMemory<DeviceBytes>;

// Of the host. The device copies from and to pinned memory by itself at the speed of the bus, and kernels read it where
// it is.
struct HostPages {
  static Result<uint8_t*> take(int64_t bytes);
  static void give_back(uint8_t* data, int64_t bytes);  // pinned or not
};
using HostMemory = OwnedMemory<HostPages>;
// Once, and best when the memory has been written: threads of the host touch its pages many times faster than the
// driver does.
Status pin(const HostMemory& memory);

struct PinnedPages {
  static Result<uint8_t*> take(int64_t bytes);
  static void give_back(uint8_t* data, int64_t bytes) { HostPages::give_back(data, bytes); }
};
using PinnedMemory = OwnedMemory<PinnedPages>;

// A piece belongs to all who hold it and comes back to its pool with the last of them, from any thread.
using Piece = std::shared_ptr<uint8_t>;

// Its blocks are given back when the pool goes; every piece must have come back before.
class PiecePool {
 public:
  PiecePool(int64_t piece_bytes, int64_t block_bytes);
  PiecePool(const PiecePool&) = delete;
  PiecePool& operator=(const PiecePool&) = delete;
  int64_t piece_bytes() const { return piece_bytes_; }
  // All zero when the work queued on `stream` before this has run.
  Result<Piece> take(cudaStream_t stream);

 private:
  Result<uint8_t*> take_free();

  int64_t piece_bytes_;
  int64_t pieces_of_block_;
  std::mutex mutex_;  // guards what follows
  std::vector<DeviceMemory> blocks_;
  std::vector<uint8_t*> free_;
};

}  // namespace ringside::cuda
