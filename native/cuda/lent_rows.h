// Owns: rows of a matrix on loan from a weight source, given back however their reader leaves.
#pragma once

#include <string>

#include "error.h"
#include "model/backend.h"
#include "model/backend_errors.h"

namespace ringside::cuda {

class LentRows {
 public:
  explicit LentRows(const rs_weight_source& source) : source_(source) {}
  ~LentRows() {
    if (is_lent_) source_.release(source_.context, &matrix_);
  }
  LentRows(const LentRows&) = delete;
  LentRows& operator=(const LentRows&) = delete;

  // Once. Of the matrix [rows, columns].
  Status read(const std::string& base, int64_t rows, int64_t columns, int64_t first_row, int64_t row_count) {
    rs_error error{};
    const bool reads_rows = source_.read_rows != nullptr;
    const int32_t code =
        reads_rows
            ? source_.read_rows(source_.context, base.c_str(), rows, columns, first_row, row_count, &matrix_, &error)
            : source_.read_matrix(source_.context, base.c_str(), rows, columns, &matrix_, &error);
    if (code != 0) return to_error(error);
    is_lent_ = true;
    first_row_ = reads_rows ? 0 : first_row;
    return Unit{};
  }
  const rs_matrix& get() const { return matrix_; }
  int64_t first_row() const { return first_row_; }  // of the rows asked for, in get()

 private:
  const rs_weight_source& source_;
  rs_matrix matrix_{};
  int64_t first_row_ = 0;
  bool is_lent_ = false;
};

}  // namespace ringside::cuda
