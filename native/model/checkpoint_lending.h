// Owns: a checkpoint in the words of the backend table: its configuration as plain numbers, its tensors lent one by one
// to any number of threads. The memory of a matrix that came back is lent again: a fresh block of that size would cost
// more page faults than the reading does.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "../error.h"
#include "backend.h"
#include "checkpoint.h"
#include "config.h"

namespace ringside {

// The table's copy of a Config, with the two arrays it points at.
class PlainConfig {
 public:
  explicit PlainConfig(const Config& config);
  PlainConfig(const PlainConfig&) = delete;
  PlainConfig& operator=(const PlainConfig&) = delete;
  const rs_config* get() const { return &plain_; }

 private:
  std::vector<float> slopes_, inv_freq_;
  rs_config plain_;
};

class WeightLender {
 public:
  // The checkpoint must outlive the lender, and every lent matrix must be given back before the lender goes.
  explicit WeightLender(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  WeightLender(const WeightLender&) = delete;
  WeightLender& operator=(const WeightLender&) = delete;
  rs_weight_source source() { return {this, read_matrix, release, read_vector, read_rows}; }
  // The first failure, whole: the table's own error cuts long paths. nullptr: none. For the time after the load.
  const Error* failure() const { return failed_ ? &failure_ : nullptr; }

 private:
  static int32_t read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                             rs_error* error);
  static int32_t read_rows(void* context, const char* base, int64_t rows, int64_t cols, int64_t first_row,
                           int64_t row_count, rs_matrix* out, rs_error* error);
  static int32_t read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error);
  static void release(void* context, rs_matrix* matrix);
  template <class Read>
  int32_t guarded(const char* name, rs_error* out, Read read);
  int32_t fail(Error failure, rs_error* out);
  int32_t lend(const char* base, int64_t rows, int64_t cols, int64_t first_row, int64_t row_count, rs_matrix* out,
               rs_error* error);

  const Checkpoint& checkpoint_;
  std::mutex mutex_;                            // guards what follows
  std::vector<std::unique_ptr<Matrix>> spare_;  // given back, to be filled again
  Error failure_;
  bool failed_ = false;
};

}  // namespace ringside
