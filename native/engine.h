// The boundary of the native engine: a loaded model and sessions over it, tokens in, tokens out; no tensor in sight.
// Native code knows nothing of JavaScript, VS Code, prompts, repositories or the network (house invariant 1).
// A Model and its Sessions belong to one caller thread at a time; cancel() alone may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "error.h"
#include "model/config.h"
#include "model/sampler.h"
#include "model/tokenizer.h"

namespace ringside {

inline constexpr int kMaxThreads = 512;
inline constexpr int kSnapshotPageTokens = 256;  // positions of one page of a snapshot's bytes
inline constexpr int kMaxDevices = 64;
inline constexpr int64_t kMaxDeviceMemoryBytes = int64_t{1} << 50;

// How keys and values of the softmax layers are kept: 2, 4 or 1 bytes each.
enum class KvFormat : int32_t { kBF16 = 0, kF32 = 1, kQ8 = 2 };

struct LoadOptions {
  std::string folder;
  // "cpu", "cuda", "reference", or "auto": a GPU where one takes the model, else the processor, and why, in `device`.
  std::string backend = "auto";
  std::string isa;  // "": best of this machine
  int threads = 0;  // 0: physical cores
  KvFormat kv_format = KvFormat::kBF16;
  int64_t device_memory_bytes = 0;  // the most that a model takes of a GPU's memory, its sessions included; 0: all free
  int device_index = -1;            // of a GPU, from 0; -1: the one with most free memory
  SlopeForm slope_form = SlopeForm::kA;
  std::function<bool(float fraction)> progress;  // false: stop loading
};

struct ModelInfo {
  std::string folder, layout, backend, device, isa;
  int threads = 0;
  int32_t vocab = 0;  // usable ids
  int32_t vocab_rows = 0;
  int32_t layers = 0, linear_layers = 0, heads = 0;
  int32_t context_tokens = 0;
  int64_t weight_file_bytes = 0, weight_resident_bytes = 0, state_bytes = 0, kv_bytes_per_token = 0;
  std::vector<int32_t> stop_tokens;
};

// Set from any thread; polled inside a chunk.
class CancelFlag {
 public:
  void cancel() { flag_.store(true, std::memory_order_relaxed); }
  void clear() { flag_.store(false, std::memory_order_relaxed); }
  bool cancelled() const { return flag_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> flag_{false};
};

// How long the parts of a snapshot's bytes are; both 0: the model's backend has none.
struct SnapshotParts {
  int64_t state_bytes = 0;
  int64_t page_bytes = 0;  // of 256 positions
};

class Model {
 public:
  virtual ~Model() = default;
  static Result<std::shared_ptr<Model>> load(const LoadOptions& options);
  virtual const ModelInfo& info() const = 0;
  // nullptr: the folder has no tokenizer.json. Such a model maps ids to ids; text needs a tokenizer.
  virtual const Tokenizer* tokenizer() const = 0;
  virtual SnapshotParts snapshot_parts() const = 0;
};

// An in-memory state at a chunk boundary together with the tokens that led to it. Dropping it frees its memory.
class Snapshot {
 public:
  virtual ~Snapshot() = default;
  virtual int64_t position() const = 0;
  virtual int64_t bytes() const = 0;
  virtual std::span<const int32_t> tokens() const = 0;

  virtual SnapshotParts parts() const = 0;  // as of its model
  // A snapshot as bytes, for a file. They serve a model that was loaded from the same checkpoint in the same way on the
  // same build and kind of machine, and no other. Both may run beside any call of the model.
  virtual Status export_state(std::span<uint8_t> out) const = 0;               // [SnapshotParts::state_bytes]
  virtual Status export_page(int64_t page, std::span<uint8_t> out) const = 0;  // [SnapshotParts::page_bytes]
  // Back from the bytes: one of `pages` for each begun 256 tokens. kBackendUnavailable where the backend has no such
  // bytes, kTokenOutOfRange, kArgumentInvalid for other lengths, kFileMalformed for numbers that are not finite.
  static Result<std::shared_ptr<Snapshot>> from_parts(std::shared_ptr<Model> model, std::vector<int32_t> tokens,
                                                      std::span<const uint8_t> state,
                                                      std::span<const std::span<const uint8_t>> pages);
};

enum class StopReason : int32_t { kStopToken, kTokenLimit, kContextFull, kCancelled };

struct GenerateOptions {
  int64_t max_tokens = 0;
  SamplerOptions sampler;
  std::vector<int32_t> stop_tokens;  // in addition to the model's own
  // Drafts tokens from earlier occurrences of the last ones and checks them in one pass. Changes no token.
  bool prompt_lookup = true;
};
struct GenerateResult {
  StopReason reason = StopReason::kTokenLimit;
  int64_t tokens = 0;                 // generated, a stop token not counted
  int64_t drafted = 0, accepted = 0;  // by prompt lookup
};

class Session {
 public:
  virtual ~Session() = default;
  static Result<std::unique_ptr<Session>> open(std::shared_ptr<Model> model);
  virtual int64_t position() const = 0;  // tokens held
  virtual std::span<const int32_t> tokens() const = 0;
  virtual int64_t bytes() const = 0;

  // Makes the session hold exactly `prompt`: keeps its own tokens when they are a prefix of it, else restores the best
  // of `snapshots` (longest that is a prefix), else starts anew; then reads the rest. Returns the number of tokens that
  // were not read again. `advanced(position)` is called after each slab. At least the last token is always read, so
  // that logits for the next token exist. After a cancel the tokens read so far are kept. On a GPU generated tokens
  // are read again.
  virtual Result<int64_t> sync(std::span<const int32_t> prompt, std::span<const std::shared_ptr<Snapshot>> snapshots,
                               CancelFlag& cancel, const std::function<void(int64_t)>& advanced) = 0;
  // Snapshot at the last chunk boundary at or before the current position; on a GPU, where reading and generating
  // differ in the last bits, at or before the last token that was read and not generated.
  virtual Result<std::shared_ptr<Snapshot>> snapshot() = 0;
  // Continues from the last token of sync(). `sink` gets each new id at once; false stops.
  virtual Result<GenerateResult> generate(const GenerateOptions& options, CancelFlag& cancel,
                                          const std::function<bool(int32_t id)>& sink) = 0;
  // Feeds `tokens` and returns logits [count, vocab_rows]; for tools and tests.
  virtual Result<std::vector<float>> logits(std::span<const int32_t> tokens, CancelFlag& cancel) = 0;
  virtual Result<std::vector<float>> state_norms() const = 0;  // [linear layers, heads]
};

// One of several sessions of one model that generate together.
struct BatchMember {
  Session* session = nullptr;
  GenerateOptions options;
  CancelFlag* cancel = nullptr;
  std::function<bool(int32_t id)> sink;  // as of Session::generate
};
// Each pass over the weights takes one token (or one checked draft) of every member that still runs; each member gets
// exactly the tokens it would get alone. Results in the members' order. A failure ends the whole batch.
Result<std::vector<GenerateResult>> generate_together(std::span<BatchMember> members);

}  // namespace ringside
