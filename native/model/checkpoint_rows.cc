// Owns: reading some rows of a matrix from a layout that can only read all of them.

#include <string>
#include <vector>

#include "model/checkpoint.h"

namespace ringside {
namespace {

// A row is `elements_per_row` elements; those of the wanted rows move to the front and the rest is cut off.
template <class T>
void keep_rows(std::vector<T>& of, int64_t elements_per_row, int64_t first_row, int64_t row_count) {
  if (of.empty()) return;
  of.erase(of.begin(), of.begin() + first_row * elements_per_row);
  of.resize(static_cast<size_t>(row_count * elements_per_row));
}

}  // namespace

Status Checkpoint::read_rows(const std::string& base, int64_t rows, int64_t cols, int64_t first_row, int64_t row_count,
                             Matrix& out) const {
  if (first_row < 0 || row_count < 0 || first_row > rows || row_count > rows - first_row) {
    return Error{ErrorKind::kArgumentInvalid, base, "rows within " + std::to_string(rows),
                 std::to_string(first_row) + " + " + std::to_string(row_count)};
  }
  RS_TRY(Matrix whole, read_matrix(base, rows, cols));
  if (row_count != rows) {
    keep_rows(whole.data, static_cast<int64_t>(whole.data.size()) / rows, first_row, row_count);
    keep_rows(whole.scales, whole.group_count(), first_row, row_count);
    keep_rows(whole.offsets, whole.group_count(), first_row, row_count);
    whole.rows = row_count;
  }
  out = std::move(whole);
  return Unit{};
}

}  // namespace ringside
