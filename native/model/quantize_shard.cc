#include "model/quantize_shard.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <thread>

#include "model/quantize_fit.h"

namespace ringside {
namespace {

// Large enough that a thread seldom waits for the disk, small enough that hundreds of threads hold little.
constexpr int64_t kSliceWeights = int64_t{1} << 20;
constexpr int64_t kCopyBytes = int64_t{4} << 20;

struct Slice {
  size_t tensor = 0;  // in the plan's sources
  int64_t first_row = 0;
  int64_t rows = 0;
};

// Kept apart for each slice and added up in the end, so that the sums do not depend on who was first.
struct Squares {
  double of_errors = 0.0;
  double of_weights = 0.0;
};

// What a thread uses for one slice after the other.
struct Scratch {
  Matrix matrix;
  std::vector<float> row;
  std::vector<int8_t> codes;
  std::vector<uint8_t> packed;
  std::vector<uint16_t> scales;
};

std::vector<Slice> slices_of(const ShardPlan& shard) {
  std::vector<Slice> slices;
  for (size_t i = 0; i < shard.sources.size(); ++i) {
    const ExpectedTensor& source = shard.sources[i].source;
    const bool is_whole = shard.sources[i].bits == 0;
    const int64_t rows = is_whole ? source.rows : std::max<int64_t>(1, kSliceWeights / source.cols);
    for (int64_t first = 0; first < source.rows; first += rows) {
      slices.push_back({i, first, std::min(rows, source.rows - first)});
    }
  }
  return slices;
}

class ShardWriter {
 public:
  ShardWriter(const ShardJob& job, OutputFile& file)
      : job_(job), file_(file), slices_(slices_of(job.shard)), squares_(slices_.size()) {}

  Status run() {
    std::vector<std::thread> helpers;
    try {
      const size_t wanted = std::min(static_cast<size_t>(job_.threads), slices_.size());
      while (helpers.size() + 1 < wanted) helpers.emplace_back([this] { work(false); });
    } catch (const std::exception&) {
      // Without a thread, or memory for one, there are those that run already. Fewer threads take longer and write the
      // same.
    }
    work(true);
    for (std::thread& helper : helpers) helper.join();
    if (failure_) return *failure_;
    return Unit{};
  }

  std::vector<QuantizeReport::Row> rows() const {
    std::vector<QuantizeReport::Row> rows;
    for (size_t i = 0; i < slices_.size();) {
      const PlannedTensor& tensor = job_.shard.sources[slices_[i].tensor];
      Squares sum;
      for (const size_t first = i; i < slices_.size() && slices_[i].tensor == slices_[first].tensor; ++i) {
        sum.of_errors += squares_[i].of_errors;
        sum.of_weights += squares_[i].of_weights;
      }
      if (tensor.bits == 0) continue;
      rows.push_back({tensor.source.name, sum.of_weights > 0.0 ? std::sqrt(sum.of_errors / sum.of_weights) : 0.0});
    }
    return rows;
  }

 private:
  void work(bool is_caller) {
    try {
      Scratch scratch;
      for (size_t index = next_.fetch_add(1); index < slices_.size() && !stop_; index = next_.fetch_add(1)) {
        const Slice& slice = slices_[index];
        const Status done = write(slice, scratch, squares_[index]);
        if (!done.ok()) return fail(done.error());
        done_weights_ += slice.rows * job_.shard.sources[slice.tensor].source.cols;
        if (is_caller && !job_.progress(done_weights_)) return fail({ErrorKind::kCancelled, "quantize", "", ""});
      }
    } catch (const std::bad_alloc&) {
      fail({ErrorKind::kOutOfMemory, job_.shard.name, "", ""});
    }
  }

  void fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(error);
    stop_ = true;
  }

  Status write(const Slice& slice, Scratch& scratch, Squares& squares) {
    const PlannedTensor& tensor = job_.shard.sources[slice.tensor];
    if (tensor.is_copied) return write_copy(tensor.source);
    if (tensor.bits == 0) return write_floats(tensor.source);
    return write_quantized(tensor, slice, scratch, squares);
  }

  Status write_copy(const ExpectedTensor& source) {
    const CheckpointFiles::Tensor& tensor = *job_.files.find(source.name);
    const TensorInfo& place = *job_.shard.find(source.name);
    std::vector<char> bytes(static_cast<size_t>(std::min(kCopyBytes, place.length_bytes)));
    for (int64_t done = 0; done < place.length_bytes;) {
      const int64_t count = std::min(kCopyBytes, place.length_bytes - done);
      RS_CHECK(tensor.file->read(*tensor.info, done, bytes.data(), count));
      RS_CHECK(file_.write(place.offset_bytes + done, bytes.data(), count));
      done += count;
    }
    return Unit{};
  }

  // A router or a vector whose bytes mean nothing outside their layout.
  Status write_floats(const ExpectedTensor& source) {
    std::vector<float> values;
    if (source.is_matrix()) {
      RS_TRY(const Matrix matrix, job_.checkpoint.read_matrix(source.base(), source.rows, source.cols));
      values.resize(static_cast<size_t>(source.rows * source.cols));
      for (int64_t row = 0; row < source.rows; ++row) matrix.row_to_float(row, values.data() + row * source.cols);
    } else {
      RS_TRY(values, job_.checkpoint.read_vector(source.name, source.cols));
    }
    const TensorInfo& place = *job_.shard.find(source.name);
    return file_.write(place.offset_bytes, values.data(), place.length_bytes);
  }

  Status write_quantized(const PlannedTensor& tensor, const Slice& slice, Scratch& scratch, Squares& squares) {
    const ExpectedTensor& source = tensor.source;
    RS_CHECK(job_.checkpoint.read_rows(source.base(), source.rows, source.cols, slice.first_row, slice.rows,
                                       scratch.matrix));
    const size_t cols = static_cast<size_t>(source.cols);
    const size_t groups = cols / static_cast<size_t>(job_.group_columns);
    const size_t row_bytes = cols * static_cast<size_t>(tensor.bits) / 8;
    scratch.row.resize(cols);
    scratch.codes.resize(cols);
    scratch.packed.resize(static_cast<size_t>(slice.rows) * row_bytes);
    scratch.scales.resize(static_cast<size_t>(slice.rows) * groups);
    for (int64_t r = 0; r < slice.rows; ++r) {
      scratch.matrix.row_to_float(r, scratch.row.data());
      RS_CHECK(fit_row(tensor, slice.first_row + r, scratch, scratch.scales.data() + static_cast<size_t>(r) * groups,
                       squares));
      pack_row(scratch.codes, tensor.bits, scratch.packed.data() + static_cast<size_t>(r) * row_bytes);
    }
    RS_CHECK(put(source.name + "_packed", slice.first_row * static_cast<int64_t>(row_bytes), scratch.packed.data(),
                 slice.rows * static_cast<int64_t>(row_bytes)));
    const int64_t scale_bytes = static_cast<int64_t>(groups * sizeof(uint16_t));
    RS_CHECK(
        put(source.name + "_scale", slice.first_row * scale_bytes, scratch.scales.data(), slice.rows * scale_bytes));
    if (slice.first_row != 0) return Unit{};
    const std::array<int64_t, 2> shape = {source.rows, source.cols};
    return put(source.name + "_shape", 0, shape.data(), sizeof shape);
  }

  Status put(const std::string& name, int64_t offset_bytes, const void* data, int64_t count_bytes) {
    return file_.write(job_.shard.find(name)->offset_bytes + offset_bytes, data, count_bytes);
  }

  Status fit_row(const PlannedTensor& tensor, int64_t row, Scratch& scratch, uint16_t* scales, Squares& squares) const {
    double weight_squares = 0.0;
    for (const float weight : scratch.row) weight_squares += static_cast<double>(weight) * weight;
    // A sum of squares of floats cannot leave a double, so that only a weight that is no number makes it one.
    if (!std::isfinite(weight_squares)) {
      return Error{ErrorKind::kFileMalformed, tensor.source.name, "finite weights",
                   "another in row " + std::to_string(row)};
    }
    const size_t group = static_cast<size_t>(job_.group_columns);
    for (size_t first = 0; first < scratch.row.size(); first += group) {
      const std::span<const float> weights(scratch.row.data() + first, group);
      int8_t* codes = scratch.codes.data() + first;
      const GroupFit fit = tensor.bits == 4 ? fit_4_bits(weights, codes) : fit_8_bits(weights, codes);
      *scales++ = fit.scale_bits;
      squares.of_errors += fit.error_squares;
    }
    squares.of_weights += weight_squares;
    return Unit{};
  }

  // Each code plus half its range, the first in the lowest bits.
  static void pack_row(const std::vector<int8_t>& codes, int bits, uint8_t* out) {
    if (bits == 8) {
      for (size_t i = 0; i < codes.size(); ++i) out[i] = static_cast<uint8_t>(codes[i] + 128);
      return;
    }
    for (size_t i = 0; i < codes.size(); i += 2) {
      out[i / 2] = static_cast<uint8_t>((codes[i] + 8) | ((codes[i + 1] + 8) << 4));
    }
  }

  const ShardJob& job_;
  OutputFile& file_;
  const std::vector<Slice> slices_;
  std::vector<Squares> squares_;
  std::atomic<size_t> next_{0};
  std::atomic<int64_t> done_weights_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::optional<Error> failure_;
};

}  // namespace

Result<std::vector<QuantizeReport::Row>> write_shard(const ShardJob& job, OutputFile& file) {
  RS_CHECK(file.write(0, job.shard.start.data(), static_cast<int64_t>(job.shard.start.size())));
  ShardWriter writer(job, file);
  RS_CHECK(writer.run());
  return writer.rows();
}

}  // namespace ringside
