// Owns: reading the weights of a checkpoint folder, tensor by tensor, whatever layout they are stored in.
// Must never: know a backend, or trust a size from a file before it was compared with the file's length.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "../error.h"
#include "config.h"

namespace ringside {

// How the values of a Matrix are held in memory.
enum class WeightFormat : int32_t {
  kF32 = 0,   // float[rows * cols]
  kBF16 = 1,  // uint16_t[rows * cols]
  kQ8 = 2,    // int8_t[rows * cols]
  kQ4 = 3,    // uint8_t[rows * cols / 2]: codes -8..7 stored as code + 8, the even column in the low half; cols is even
  kFP8 = 4,   // uint8_t[rows * cols], e4m3fn
};

// Bytes that are not set when they are made: gigabytes of weights pass through them, each written once by a read.
template <class T>
struct UninitializedAllocator : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  template <class U>
  void construct(U* at) noexcept {
    ::new (static_cast<void*>(at)) U;
  }
  template <class U, class... Arguments>
  void construct(U* at, Arguments&&... arguments) {
    ::new (static_cast<void*>(at)) U(std::forward<Arguments>(arguments)...);
  }
};
using WeightBytes = std::vector<uint8_t, UninitializedAllocator<uint8_t>>;

// One linear weight [rows = out, cols = in], row-major, y = x · Wᵀ. Owns its memory. In the coded formats (kQ8, kQ4,
// kFP8) value = code * scale + offset, both of the code's row and group; the last group of a row may be shorter.
struct Matrix {
  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group_columns = 0;   // columns that share one scale
  WeightBytes data;            // in `format`
  std::vector<float> scales;   // [rows, group_count()]; empty for kF32 and kBF16
  std::vector<float> offsets;  // the same shape, or empty: all zero

  int64_t group_count() const { return group_columns == 0 ? 0 : (cols + group_columns - 1) / group_columns; }

  // Dequantised row into out[cols].
  void row_to_float(int64_t row, float* out) const;
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  // Opens a folder: config.json, generation_config.json (optional), model.safetensors or
  // model.safetensors.index.json with its shards; quantization_config decides the layout. Every tensor the
  // config calls for is checked here for presence, dtype and shape, unknown ones are refused outside the skip
  // list of specification section 7, so later reads fail on I/O and on values that are no numbers alone.
  static Result<std::unique_ptr<Checkpoint>> open(const std::string& folder);

  virtual const Config& config() const = 0;
  // "bf16", "q8 (compressed-tensors, group 128)", "q4 (GPTQ, group 128, desc_act)": for people.
  virtual const std::string& layout_name() const = 0;
  // Bytes of all tensors in the files.
  virtual int64_t weight_bytes() const = 0;
  // `base` is the tensor name without ".weight", for example "model.layers.3.attention.dense".
  // Codes, scales and zero points come out as stored, but for two cases: a router is kF32 or kBF16 whatever its file
  // holds, and columns whose groups are out of order (GPTQ desc_act, actorder "group") come out as kQ8 in groups of
  // 128, rounded from their exact values.
  virtual Result<Matrix> read_matrix(const std::string& base, int64_t rows, int64_t cols) const = 0;
  // The rows [first_row, first_row + row_count) of that matrix into `out`, whose memory is used again. This and
  // read_matrix may be called from several threads at once.
  virtual Status read_rows(const std::string& base, int64_t rows, int64_t cols, int64_t first_row, int64_t row_count,
                           Matrix& out) const = 0;
  // A vector parameter (norm weights, expert_bias) as fp32, full tensor name.
  virtual Result<std::vector<float>> read_vector(const std::string& name, int64_t length) const = 0;
};

struct QuantizeOptions {
  int bits = 8;                      // 4 or 8, of the matrices
  int head_bits = 8;                 // 4 or 8, of lm_head and the embedding; never less than `bits`
  int group_columns = 128;           // 32, 64 or 128
  int threads = 0;                   // 0: as many as the machine runs at once
  int64_t shard_bytes = 45'000'000;  // no weight file is larger
  // After each piece of work, on the caller's thread; false stops. May be empty.
  std::function<bool(int64_t done_bytes, int64_t total_bytes)> progress;
};
struct QuantizeReport {
  struct Row {
    std::string tensor;
    double relative_rms_error;
  };
  int64_t input_bytes = 0, output_bytes = 0;
  int shards = 0;
  std::vector<Row> tensors;
};
// Rewrites a checkpoint folder of any layout as compressed-tensors "pack-quantized", in slices of matrices and on
// several threads; norms, router (mlp.gate) and expert_bias keep their bytes, or their values as fp32 where the layout
// stores them in another way; config.json gets a new quantization_config; tokenizer and generation files are copied.
// `out_folder` appears complete or not at all.
Result<QuantizeReport> quantize_checkpoint(const std::string& in_folder, const std::string& out_folder,
                                           const QuantizeOptions& options);

}  // namespace ringside
