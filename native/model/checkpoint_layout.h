// Owns: what the readers of the stored layouts have in common. A layout knows which tensors hold a matrix and how; the
// checkpoint knows which matrices there are. Private to model/.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "../error.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_tensors.h"

namespace ringside {

// The rows [first_row, first_row + row_count) of the matrix [rows, cols] that the architecture calls `base`.
struct RowSlice {
  const std::string& base;
  int64_t rows;
  int64_t cols;
  int64_t first_row;
  int64_t row_count;
};

// Names of tensors that belong to the model; what is in the files beside them is refused.
using KnownTensors = std::set<std::string_view>;

// What was met while the tensors were checked, as words for people. Routers are left out: they say nothing about size.
class LayoutSummary {
 public:
  void add_plain(const ExpectedTensor& tensor, Dtype dtype);
  void add_coded(const ExpectedTensor& tensor, int bits, int64_t group_columns);  // 0 columns: one group a row
  bool has_coded() const { return !bits_.empty(); }
  std::string plain_name() const;                        // "bf16", "bf16+f32"
  std::string coded_name(const std::string& how) const;  // "q4+q8 (`how`, group 32+128+channel)"

 private:
  std::set<Dtype> dtypes_;
  std::set<int> bits_;
  std::set<int64_t> groups_;
  bool by_channel_ = false;
};

class CheckpointLayout {
 public:
  virtual ~CheckpointLayout() = default;
  // Presence, dtype and shape of all tensors that hold this matrix; their names go into `known`.
  virtual Status check(const ExpectedTensor& matrix, KnownTensors& known) = 0;
  // May be called from several threads at once; `out` is written whole, its memory used again.
  virtual Status read(const RowSlice& slice, Matrix& out) const = 0;
  virtual std::string name() const = 0;  // after every check
};

// The layout that config.json's `quantization_config` or `quantization` names. `files` must outlive it.
// kQuantizationUnsupported names the field that this version does not read.
Result<std::unique_ptr<CheckpointLayout>> open_layout(const std::string& config_text, const std::string& config_path,
                                                      const Config& config, const CheckpointFiles& files);

}  // namespace ringside
