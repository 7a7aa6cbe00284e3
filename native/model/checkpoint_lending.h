// Owns: a checkpoint in the words of the backend table: its configuration as plain numbers, its tensors lent one by
// one.
#pragma once

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
  // The checkpoint must outlive the lender.
  explicit WeightLender(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  WeightLender(const WeightLender&) = delete;
  WeightLender& operator=(const WeightLender&) = delete;
  rs_weight_source source() { return {this, read_matrix, release, read_vector}; }
  // The last failure, whole: the table's own error cuts long paths. nullptr: none.
  const Error* failure() const { return failed_ ? &failure_ : nullptr; }

 private:
  static int32_t read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                             rs_error* error);
  static int32_t read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error);
  static void release(void* context, rs_matrix* matrix);
  template <class Read>
  int32_t guarded(const char* name, rs_error* out, Read read);

  const Checkpoint& checkpoint_;
  Error failure_;
  bool failed_ = false;
};

}  // namespace ringside
