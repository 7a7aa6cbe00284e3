// Owns: matrices stored as numbers: `X.weight` in BF16, F16 or F32. Private to model/.
#pragma once

#include "model/checkpoint_layout.h"
#include "model/checkpoint_reads.h"

namespace ringside {

// For matrices that a quantised layout leaves as they are. `tensor` holds `shape`, of which the last two dimensions are
// rows and columns.
Status check_plain(const ExpectedTensor& expected, const CheckpointFiles::Tensor& tensor, const Shape& shape,
                   LayoutSummary& summary, KnownTensors& known);
// `stack_row`: the row of the tensor at which this matrix begins.
Status read_plain(const CheckpointFiles::Tensor& tensor, int64_t stack_row, const RowSlice& slice, Matrix& out);

class PlainLayout final : public CheckpointLayout {
 public:
  explicit PlainLayout(const CheckpointFiles& files) : files_(files) {}
  Status check(const ExpectedTensor& matrix, KnownTensors& known) override;
  Status read(const RowSlice& slice, Matrix& out) const override;
  std::string name() const override { return summary_.plain_name(); }

 private:
  const CheckpointFiles& files_;
  LayoutSummary summary_;
};

}  // namespace ringside
