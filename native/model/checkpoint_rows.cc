// Owns: the bounds of a slice of rows, the same for every layout.
#include <string>

#include "model/checkpoint.h"

namespace ringside {

Status Checkpoint::check_rows(const std::string& base, int64_t rows, int64_t first_row, int64_t row_count) {
  if (first_row >= 0 && row_count >= 0 && first_row <= rows && row_count <= rows - first_row) return Unit{};
  return Error{ErrorKind::kArgumentInvalid, base, "rows within " + std::to_string(rows),
               std::to_string(first_row) + " + " + std::to_string(row_count)};
}

}  // namespace ringside
