// Owns: the list of tensors of the family (specification section 7) and their way from the checkpoint into tiles: all
// threads read, pack and give back slices of matrices, so that loading costs little more than touching the memory.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/kernels/pack.h"
#include "cpu/weights.h"
#include "model/backend_errors.h"

namespace ringside::cpu {
namespace {

// What a thread reads at once: small enough to be still in its cache when it is packed, large enough that a call to the
// system costs nothing beside it.
constexpr int64_t kReadWeights = int64_t{1} << 20;
// What it takes at once of a matrix as large: neighbours then write to their common huge page at different times, and
// the system clears it once.
constexpr int64_t kSliceWeights = 4 * kReadWeights;

// A matrix and where it goes.
struct Target {
  std::string base;
  int64_t rows = 0;
  int64_t columns = 0;
  PackedMatrix* packed = nullptr;  // nullptr: the embedding, which stays as it is stored
  bool is_router = false;
  uint8_t* memory = nullptr;  // from the first slice on, which tells the format
  rs_matrix first_slice{};    // its shape alone: what it points at was given back
};

struct Slice {
  size_t target = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// Rows of a lent matrix, given back however the reader leaves.
class LentRows {
 public:
  explicit LentRows(const rs_weight_source& source) : source_(source) {}
  ~LentRows() {
    if (is_lent_) source_.release(source_.context, &matrix_);
  }
  LentRows(const LentRows&) = delete;
  LentRows& operator=(const LentRows&) = delete;

  Status read(const Target& target, const Slice& slice) {
    rs_error error{};
    const char* base = target.base.c_str();
    const bool reads_rows = source_.read_rows != nullptr;
    const int32_t code =
        reads_rows ? source_.read_rows(source_.context, base, target.rows, target.columns, slice.first_row, slice.rows,
                                       &matrix_, &error)
                   : source_.read_matrix(source_.context, base, target.rows, target.columns, &matrix_, &error);
    if (code != 0) return to_error(error);
    is_lent_ = true;
    first_row_ = reads_rows ? 0 : slice.first_row;
    return Unit{};
  }
  const rs_matrix& get() const { return matrix_; }
  int64_t first_row() const { return first_row_; }  // of the slice, in get()

 private:
  const rs_weight_source& source_;
  rs_matrix matrix_{};
  int64_t first_row_ = 0;
  bool is_lent_ = false;
};

class WeightLoader {
 public:
  WeightLoader(const Shape& shape, const rs_weight_source& source, const rs_load_options& options, ThreadPool& pool,
               Weights& out)
      : shape_(shape), source_(source), options_(options), pool_(pool), out_(out) {}

  Status load() {
    RS_CHECK(list_matrices());
    // One job a thread, each taking slices in their order, so that the memory is in the order of use too.
    pool_.run(pool_.threads(), [&](int64_t, int worker) { take_slices(worker); });
    if (failure_) return *failure_;
    if (!report(1.0f)) return cancelled();
    return Unit{};
  }

 private:
  // The vectors, which are few and small, are read on the way. Matrices are listed in the order in which a token meets
  // them, and get their memory about in that order.
  Status list_matrices() {
    const rs_config& config = shape_.config;
    add("model.word_embeddings", config.vocab_rows, config.hidden, nullptr);
    out_.layers.resize(static_cast<size_t>(config.layers));
    int64_t linear = 0;
    int64_t softmax = 0;
    for (int64_t i = 0; i < config.layers; ++i) {
      Layer& layer = out_.layers[static_cast<size_t>(i)];
      layer.is_softmax = shape_.is_softmax(i);
      layer.kind_index = layer.is_softmax ? softmax++ : linear++;
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      RS_CHECK(list_attention(i, prefix, layer));
      RS_CHECK(list_feed_forward(i, prefix, layer));
    }
    RS_CHECK(vector("model.norm.weight", config.hidden, out_.final_norm));
    add("lm_head", config.vocab_rows, config.hidden, &out_.lm_head);
    return Unit{};
  }

  Status list_attention(int64_t index, const std::string& prefix, Layer& layer) {
    const rs_config& config = shape_.config;
    const int64_t width = shape_.attention_width;
    const std::string attention = prefix + "attention.";
    RS_CHECK(vector(prefix + "input_layernorm.weight", config.hidden, layer.input_norm));
    RS_CHECK(vector(prefix + "post_attention_layernorm.weight", config.hidden, layer.post_attention_norm));
    RS_CHECK(vector(attention + "query_layernorm.weight", config.head_dim, layer.query_norm));
    RS_CHECK(vector(attention + "key_layernorm.weight", config.head_dim, layer.key_norm));
    add(attention + "query_key_value", shape_.qkv_width(index), config.hidden, &layer.qkv);
    if (!layer.is_softmax) {
      add(attention + "g_proj", width, config.hidden, &layer.output_gate);
      RS_CHECK(vector(attention + "g_norm.weight", width, layer.output_norm));
      list_decay(index, layer);
    }
    add(attention + "dense", config.hidden, width, &layer.dense);
    return Unit{};
  }

  void list_decay(int64_t index, Layer& layer) const {
    const int64_t heads = shape_.config.heads;
    layer.decay.reserve(static_cast<size_t>(heads * (kChunkTokens + 1)));
    for (int64_t head = 0; head < heads; ++head) {
      const double slope = shape_.slopes[static_cast<size_t>(index * heads + head)];
      for (int64_t n = 0; n <= kChunkTokens; ++n) {
        layer.decay.push_back(static_cast<float>(std::exp(-slope * static_cast<double>(n))));
      }
    }
  }

  Status list_feed_forward(int64_t index, const std::string& prefix, Layer& layer) {
    const rs_config& config = shape_.config;
    const std::string mlp_prefix = prefix + "mlp.";
    if (shape_.is_dense(index)) {
      add_mlp(mlp_prefix, config.dense_width, layer.always);
      return Unit{};
    }
    add(mlp_prefix + "gate", config.experts, config.hidden, &layer.router);
    // A router is multiplied in fp32 whatever it is stored in: close scores decide which experts run.
    targets_.back().is_router = true;
    layer.expert_bias.assign(static_cast<size_t>(config.experts), 0.0f);
    if (config.expert_bias != 0) RS_CHECK(vector(mlp_prefix + "gate.expert_bias", config.experts, layer.expert_bias));
    layer.experts.resize(static_cast<size_t>(config.experts));
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      add_mlp(mlp_prefix + "experts." + std::to_string(e) + ".", config.expert_width, layer.experts[e]);
    }
    if (config.shared_width > 0) add_mlp(mlp_prefix + "shared_experts.", config.shared_width, layer.always);
    return Unit{};
  }

  void add_mlp(const std::string& prefix, int64_t width, Mlp& to) {
    add(prefix + "gate_proj", width, shape_.config.hidden, &to.gate);
    add(prefix + "up_proj", width, shape_.config.hidden, &to.up);
    add(prefix + "down_proj", shape_.config.hidden, width, &to.down);
  }

  // A multiple of a tile's.
  static int64_t rows_of(int64_t weights, int64_t columns) {
    return std::max<int64_t>(1, weights / columns / kTileRows) * kTileRows;
  }

  void add(std::string base, int64_t rows, int64_t columns, PackedMatrix* to) {
    const int64_t slice_rows = rows_of(kSliceWeights, columns);
    for (int64_t first = 0; first < rows; first += slice_rows) {
      slices_.push_back({targets_.size(), first, std::min(slice_rows, rows - first)});
    }
    Target target;
    target.base = std::move(base);
    target.rows = rows;
    target.columns = columns;
    target.packed = to;
    targets_.push_back(std::move(target));
  }

  Status vector(const std::string& name, int64_t length, std::vector<float>& to) {
    to.assign(static_cast<size_t>(length), 0.0f);
    rs_error error{};
    if (source_.read_vector(source_.context, name.c_str(), length, to.data(), &error) != 0) return to_error(error);
    return Unit{};
  }

  void take_slices(int worker) {
    for (size_t next = next_.fetch_add(1); next < slices_.size() && !stop_; next = next_.fetch_add(1)) {
      run(slices_[next], worker);
    }
  }

  void run(const Slice& slice, int worker) {
    Target& target = targets_[slice.target];
    try {
      const int64_t most_rows = rows_of(kReadWeights, target.columns);
      for (int64_t row = 0; row < slice.rows && !stop_; row += most_rows) {
        const Slice part{slice.target, slice.first_row + row, std::min(most_rows, slice.rows - row)};
        const Status loaded = load_slice(part, target, worker);
        if (!loaded.ok()) return fail(loaded.error());
      }
    } catch (const std::bad_alloc&) {
      return fail({ErrorKind::kOutOfMemory, target.base, "", ""});
    }
    const size_t done = done_.fetch_add(1) + 1;
    // The last of all is reported when every thread is through.
    const float fraction = static_cast<float>(done) / static_cast<float>(slices_.size());
    if (worker == 0 && fraction < 1.0f && !report(fraction)) fail(cancelled());
  }

  bool report(float fraction) const {
    return options_.progress == nullptr || options_.progress(options_.progress_context, fraction) == 0;
  }
  static Error cancelled() { return {ErrorKind::kCancelled, "load", "", ""}; }

  void fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(error);
    stop_ = true;
  }

  Status load_slice(const Slice& slice, Target& target, int worker) {
    LentRows lent(source_);
    RS_CHECK(lent.read(target, slice));
    RS_CHECK(place(lent.get(), target, worker));
    if (target.packed == nullptr) {
      copy_rows(lent, slice);
      return Unit{};
    }
    const PackedMatrix& packed = *target.packed;
    for (int64_t row = 0; row < slice.rows; row += kTileRows) {
      const int64_t tile = (slice.first_row + row) / kTileRows;
      pack_tile(lent.get(), lent.first_row() + row, packed, target.memory + tile * packed.tile_bytes());
    }
    return Unit{};
  }

  // The first slice of a matrix tells its format, and with it how much memory the whole takes.
  Status place(const rs_matrix& slice, Target& target, int worker) {
    const std::lock_guard lock(mutex_);
    if (target.memory != nullptr) {
      const rs_matrix& first = target.first_slice;
      const bool is_alike = slice.format == first.format && slice.group_columns == first.group_columns &&
                            (slice.offsets == nullptr) == (first.offsets == nullptr);
      if (is_alike) return Unit{};
      return Error{ErrorKind::kInternal, target.base, "slices of one format", "of two"};
    }
    rs_matrix whole = slice;
    whole.rows = target.rows;
    if (target.packed == nullptr) {
      RS_CHECK(place_embedding(whole, target, worker));
    } else {
      if (target.is_router) {
        *target.packed = packed_shape_unquantized(whole);
      } else {
        RS_TRY(*target.packed, packed_shape(target.base, whole));
      }
      RS_TRY(target.memory, out_.arena.allocate(packed_bytes(*target.packed), "weights", worker));
      target.packed->tiles = target.memory;
    }
    target.first_slice = slice;
    return Unit{};
  }

  Status place_embedding(rs_matrix whole, Target& target, int worker) {
    const int64_t scale_bytes = whole.rows * stored_groups(whole) * static_cast<int64_t>(sizeof(float));
    RS_TRY(target.memory,
           out_.arena.allocate(whole.rows * stored_row_bytes(whole.format, whole.cols), "weights", worker));
    whole.data = target.memory;
    for (const float** part : {&whole.scales, &whole.offsets}) {
      if (*part == nullptr) continue;
      RS_TRY(uint8_t * memory, out_.arena.allocate(scale_bytes, "weights", worker));
      *part = reinterpret_cast<const float*>(memory);
    }
    whole.owner = nullptr;
    out_.embedding.stored = whole;
    return Unit{};
  }

  void copy_rows(const LentRows& lent, const Slice& slice) const {
    const rs_matrix& from = lent.get();
    const rs_matrix& to = out_.embedding.stored;
    const auto copy = [&](const void* source, const void* target, int64_t row_bytes) {
      if (source == nullptr || target == nullptr) return;
      // The arena's memory is the model's own; the embedding points at it as at something that is only read.
      std::memcpy(static_cast<uint8_t*>(const_cast<void*>(target)) + slice.first_row * row_bytes,
                  static_cast<const uint8_t*>(source) + lent.first_row() * row_bytes,
                  static_cast<size_t>(slice.rows * row_bytes));
    };
    const int64_t scale_bytes = stored_groups(to) * static_cast<int64_t>(sizeof(float));
    copy(from.data, to.data, stored_row_bytes(to.format, to.cols));
    copy(from.scales, to.scales, scale_bytes);
    copy(from.offsets, to.offsets, scale_bytes);
  }

  const Shape& shape_;
  const rs_weight_source& source_;
  const rs_load_options& options_;
  ThreadPool& pool_;
  Weights& out_;
  std::vector<Target> targets_;
  std::vector<Slice> slices_;
  std::atomic<size_t> next_{0};
  std::atomic<size_t> done_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards the arena, the targets' places and the failure
  std::optional<Error> failure_;
};

}  // namespace

Status load_weights(const Shape& shape, const rs_weight_source& source, const rs_load_options& options,
                    ThreadPool& pool, Weights& out) {
  return WeightLoader(shape, source, options, pool, out).load();
}

}  // namespace ringside::cpu
