// Owns: random weights of a shape, lent to a backend tensor by tensor. Codes come from one block of random numbers,
// each tensor from its own place in it, so that lending a model needs no memory of the model's size; the backend's
// packed copies are all different memory. Must never: route tokens to a few experts only, or let tokens grow alike:
// such a model would read less than a real one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/backend.h"
#include "model/config.h"

namespace ringside::tools {

class RandomWeights {
 public:
  // Routers are bf16, as published. Where the format is coded, the embeddings have 8 bits and the head `head_bits`.
  RandomWeights(const Config& config, rs_weight_format format, int64_t head_bits, int64_t group_columns);
  rs_weight_source source() { return {this, read_matrix, release, read_vector, read_rows}; }

 private:
  struct Lent;

  static int32_t read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                             rs_error* error);
  static int32_t read_rows(void* context, const char* base, int64_t rows, int64_t cols, int64_t first_row,
                           int64_t row_count, rs_matrix* out, rs_error* error);
  static int32_t read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error);
  static void release(void* context, rs_matrix* matrix);

  rs_weight_format format_of(const std::string& base) const;
  // The same tensor has the same values however its rows are asked for.
  void lend(const std::string& base, int64_t cols, int64_t first_row, int64_t row_count, rs_matrix* out) const;

  rs_weight_format format_;
  int64_t head_bits_;
  int64_t group_columns_;
  std::vector<uint8_t> q8_;  // codes -127..127
  std::vector<uint8_t> q4_;  // two codes -7..7 a byte, each + 8: symmetric, so that products have no common part
};

}  // namespace ringside::tools
