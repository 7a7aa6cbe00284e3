// Owns: the way of the weights to the device: slices are read and packed by threads of the host and copied while the
// next are packed.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "cuda/device.h"
#include "cuda/lent_rows.h"
#include "cuda/stream.h"
#include "cuda/weight_list.h"

namespace ringside::cuda {
namespace {

// What a thread packs at once: still in its cache when it is copied, and long enough that a copy runs at full speed.
constexpr int64_t kSliceWeights = int64_t{1} << 21;

struct Slice {
  size_t target = 0;
  int64_t entry = 0, first_tile = 0, tiles = 0;
};

// A thread's pinned memory, in turn packed into and copied from.
class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    // Copies of a load that failed may still be on their way out of the memory.
    if (stream_.get() != nullptr) cudaStreamSynchronize(stream_.get());
  }
  Status start(int64_t slot_bytes) {
    RS_CHECK(stream_.create());
    RS_TRY(memory_, PinnedMemory::allocate(slot_bytes * static_cast<int64_t>(kSlots)));
    slot_bytes_ = slot_bytes;
    for (Event& event : copied_) RS_CHECK(event.create(false));
    return Unit{};
  }
  // A slot from which nothing is copied any more.
  Result<uint8_t*> next() {
    slot_ = (slot_ + 1) % kSlots;
    RS_CHECK(copied_[slot_].wait());
    return memory_.data() + static_cast<int64_t>(slot_) * slot_bytes_;
  }
  Status copy(void* to, const void* from, int64_t bytes) {
    if (bytes == 0) return Unit{};
    RS_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_.get()));
    return Unit{};
  }
  // Everything of the slot is on its way.
  Status sent() { return copied_[slot_].record(stream_); }
  Status finish() { return stream_.wait(); }

 private:
  static constexpr size_t kSlots = 3;
  PinnedMemory memory_;
  Stream stream_;
  std::array<Event, kSlots> copied_;
  int64_t slot_bytes_ = 0;
  size_t slot_ = 0;
};

class Uploader {
 public:
  Uploader(const rs_weight_source& source, const rs_load_options& options, int32_t device, const WeightList& list)
      : source_(source), options_(options), device_(device), list_(list) {}

  // Once. Targets whose form turned out too narrow are in too_narrow() after it, with the form that holds all of their
  // matrices; what was uploaded of them is of no use.
  Status run(int threads) {
    cut();
    {
      std::vector<std::jthread> others;
      others.reserve(static_cast<size_t>(threads));
      for (int i = 1; i < threads; ++i) {
        try {
          others.emplace_back([this] { work(false); });
        } catch (const std::system_error&) {
          break;  // fewer will do
        }
      }
      work(true);
    }
    if (failure_) return *failure_;
    return Unit{};
  }
  const std::map<size_t, WeightForm>& too_narrow() const { return too_narrow_; }

 private:
  void cut() {
    for (size_t index = 0; index < list_.targets.size(); ++index) {
      const WeightTarget& target = list_.targets[index];
      const int64_t tiles = target.tiles();
      const int64_t most = std::clamp<int64_t>(kSliceWeights / (target.shape().columns * kTileRows), 1, tiles);
      slot_bytes_ = std::max(slot_bytes_, most * target.tile_bytes());
      for (int64_t entry = 0; entry < target.entries(); ++entry) {
        for (int64_t tile = 0; tile < tiles; tile += most) {
          slices_.push_back({index, entry, tile, std::min(most, tiles - tile)});
        }
      }
    }
    slot_bytes_ = (slot_bytes_ + 4095) / 4096 * 4096;
  }

  void work(bool is_caller) {
    try {
      const Status status = take_slices(is_caller);
      if (!status.ok()) fail(status.error());
    } catch (const std::bad_alloc&) {
      fail({ErrorKind::kOutOfMemory, "weights", "", ""});
    }
  }

  Status take_slices(bool is_caller) {
    RS_CHECK(use_device(device_));
    Staging staging;
    RS_CHECK(staging.start(slot_bytes_));
    TilePacker packer;
    for (size_t next = next_++; next < slices_.size() && !stop_; next = next_++) {
      RS_CHECK(send(slices_[next], packer, staging));
      const float fraction = static_cast<float>(++done_) / static_cast<float>(slices_.size());
      const bool goes_on = !is_caller || options_.progress == nullptr || fraction >= 1.0f ||
                           options_.progress(options_.progress_context, fraction) == 0;
      if (!goes_on) return Error{ErrorKind::kCancelled, "load", "", ""};
    }
    return staging.finish();
  }

  void fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(error);
    stop_ = true;
  }

  Status send(const Slice& slice, TilePacker& packer, Staging& staging) {
    const WeightTarget& target = list_.targets[slice.target];
    const int64_t parts = target.parts();
    const int64_t part_rows = kTileRows / parts;  // of a tile
    std::array<std::optional<LentRows>, 2> lent;
    for (int64_t part = 0; part < parts; ++part) {
      const std::string& base = target.bases[static_cast<size_t>(slice.entry * parts + part)];
      LentRows& rows = lent[static_cast<size_t>(part)].emplace(source_);
      RS_CHECK(rows.read(base, target.rows, target.columns, slice.first_tile * part_rows, slice.tiles * part_rows));
      RS_CHECK(check_codes(base, rows.get(), rows.first_row(), slice.tiles * part_rows));
      RS_TRY(const bool fits, admit(slice.target, base, rows.get()));
      if (!fits) return Unit{};
    }
    const TileMemory end = place_of(target, slice);
    if (target.is_on_host) {
      pack(target, slice, *lent[0], *lent[static_cast<size_t>(parts - 1)], packer, end);
      return Unit{};
    }
    RS_TRY(uint8_t* const slot, staging.next());
    const int64_t scale_bytes = slice.tiles * target.tile_scales() * static_cast<int64_t>(sizeof(float));
    const int64_t block_bytes = slice.tiles * target.tile_block_bytes();
    auto* const scales = reinterpret_cast<float*>(slot + block_bytes);
    float* const offsets = target.form.has_offsets ? scales + slice.tiles * target.tile_scales() : nullptr;
    pack(target, slice, *lent[0], *lent[static_cast<size_t>(parts - 1)], packer, {slot, scales, offsets});
    RS_CHECK(staging.copy(end.blocks, slot, block_bytes));
    RS_CHECK(staging.copy(end.scales, scales, scale_bytes));
    if (offsets != nullptr) RS_CHECK(staging.copy(end.offsets, offsets, scale_bytes));
    return staging.sent();
  }

  // Where a slice lies in the end.
  static TileMemory place_of(const WeightTarget& target, const Slice& slice) {
    const int64_t tile = slice.entry * target.tiles() + slice.first_tile;
    const int64_t scales = tile * target.tile_scales();
    return {target.blocks + tile * target.tile_block_bytes(), target.scales + scales,
            target.form.has_offsets ? target.offsets + scales : nullptr};
  }

  static void pack(const WeightTarget& target, const Slice& slice, const LentRows& first_part,
                   const LentRows& last_part, TilePacker& packer, const TileMemory& slice_memory) {
    const int64_t parts = target.parts();
    const int64_t part_rows = kTileRows / parts;
    for (int64_t tile = 0; tile < slice.tiles; ++tile) {
      const int64_t first = tile * target.tile_scales();
      const TileMemory to{slice_memory.blocks + tile * target.tile_block_bytes(), slice_memory.scales + first,
                          slice_memory.offsets == nullptr ? nullptr : slice_memory.offsets + first};
      const int64_t row = first_part.first_row() + tile * part_rows;
      if (target.kind == WeightTarget::Kind::kRouter) {
        packer.pack_router(first_part.get(), row, target.has_low, to);
      } else {
        const int64_t other_row = last_part.first_row() + tile * part_rows + (parts == 2 ? 0 : kTileRows / 2);
        packer.pack({&first_part.get(), row}, {&last_part.get(), other_row}, target.form, to);
      }
    }
  }

  // Whether the target's form holds what was read. If not, the form that would hold both is noted; the target's own
  // stays as it is while threads pack into it.
  Result<bool> admit(size_t index, const std::string& base, const rs_matrix& stored) {
    const WeightTarget& target = list_.targets[index];
    if (target.kind == WeightTarget::Kind::kRouter) return true;
    RS_TRY(const WeightForm form, weight_form(base, stored));
    const std::lock_guard lock(mutex_);
    if (widest(target.form, form) == target.form) return true;
    WeightForm& wider = too_narrow_.emplace(index, target.form).first->second;
    wider = widest(wider, form);
    return false;
  }

  const rs_weight_source& source_;
  const rs_load_options& options_;
  int32_t device_;
  const WeightList& list_;
  std::vector<Slice> slices_;
  int64_t slot_bytes_ = 0;
  std::atomic<size_t> next_{0}, done_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;                         // guards what follows
  std::map<size_t, WeightForm> too_narrow_;  // by target
  std::optional<Error> failure_;
};

// Memory for everything.
Status place(WeightList& list, const std::vector<size_t>& host_layers, Weights& out) {
  float* vectors = nullptr;
  const auto cut_resident = [&](Carver carver) {
    for (WeightTarget& target : list.targets) {
      if (!target.is_on_host) place_target(target, carver);
    }
    carver.take(vectors, static_cast<int64_t>(list.floats.size()));
    return carver.bytes();
  };
  for (DeviceLayer& layer : out.model.layers) layer.is_on_host = 0;
  for (const size_t layer : host_layers) out.model.layers[layer].is_on_host = 1;
  for (WeightTarget& target : list.targets) {
    target.is_on_host =
        target.expert_layer >= 0 && out.model.layers[static_cast<size_t>(target.expert_layer)].is_on_host != 0;
    if (!target.is_on_host) continue;
    RS_TRY(HostMemory memory, HostMemory::allocate(target.bytes()));
    Carver carver(memory.data());
    place_target(target, carver);
    out.host_memory.push_back(std::move(memory));
  }
  RS_TRY(out.memory, DeviceMemory::allocate(cut_resident(Carver(nullptr))));
  cut_resident(Carver(out.memory.data()));
  RS_CUDA(cudaMemcpy(vectors, list.floats.data(), list.floats.size() * sizeof(float), cudaMemcpyHostToDevice));
  for (const WeightList::Vector& vector : list.vectors) *vector.to = vectors + vector.begin;
  return Unit{};
}

}  // namespace

Status load_weights(const rs_weight_source& source, const rs_load_options& options, int threads, int32_t device,
                    const Placement& choose, Weights& out) {
  WeightList list;
  RS_CHECK(list_weights(source, out, list));
  for (bool is_wide_enough = false; !is_wide_enough;) {
    RS_TRY(const std::vector<size_t> host_layers, choose(list.bytes()));
    RS_CHECK(place(list, host_layers, out));
    Uploader uploader(source, options, device, list);
    RS_CHECK(uploader.run(threads));
    for (const HostMemory& memory : out.host_memory) RS_CHECK(pin(memory));
    is_wide_enough = uploader.too_narrow().empty();
    // Few checkpoints mix formats in a layer's experts, so all of it once more is soon enough.
    for (const auto& [index, form] : uploader.too_narrow()) list.targets[index].form = form;
    if (!is_wide_enough) out.memory = {}, out.host_memory.clear();
  }
  if (options.progress == nullptr || options.progress(options.progress_context, 1.0f) == 0) return Unit{};
  return Error{ErrorKind::kCancelled, "load", "", ""};
}

}  // namespace ringside::cuda
