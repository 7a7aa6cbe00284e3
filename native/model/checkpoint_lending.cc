#include "checkpoint_lending.h"

#include <algorithm>
#include <new>
#include <utility>

#include "backend_errors.h"

namespace ringside {
namespace {

constexpr int64_t kLargestSpareBytes = int64_t{16} << 20;

}  // namespace

static_assert(static_cast<int32_t>(WeightFormat::kF32) == RS_WEIGHT_F32);
static_assert(static_cast<int32_t>(WeightFormat::kBF16) == RS_WEIGHT_BF16);
static_assert(static_cast<int32_t>(WeightFormat::kQ8) == RS_WEIGHT_Q8);
static_assert(static_cast<int32_t>(WeightFormat::kQ4) == RS_WEIGHT_Q4);
static_assert(static_cast<int32_t>(WeightFormat::kFP8) == RS_WEIGHT_FP8);

PlainConfig::PlainConfig(const Config& c) {
  for (int32_t layer = 0; layer < c.layers; ++layer) {
    for (int32_t head = 0; head < c.heads; ++head) slopes_.push_back(c.slope(layer, head));
  }
  for (int32_t j = 0; j < c.rotary_dim / 2; ++j) inv_freq_.push_back(c.inv_freq(j));
  plain_ = {.vocab_rows = c.vocab_rows,
            .hidden = c.hidden,
            .layers = c.layers,
            .group = c.group,
            .heads = c.heads,
            .kv_heads = c.kv_heads,
            .head_dim = c.head_dim,
            .rotary_dim = c.rotary_dim,
            .dense_width = c.dense_width,
            .expert_width = c.expert_width,
            .shared_width = c.shared_width,
            .experts = c.experts,
            .experts_per_token = c.experts_per_token,
            .expert_groups = c.expert_groups,
            .groups_per_token = c.groups_per_token,
            .dense_layers = c.dense_layers,
            .norm_groups = c.norm_groups,
            .context_tokens = c.context_tokens,
            .rms_eps = c.rms_eps,
            .routed_scale = c.routed_scale,
            .linear_silu = c.linear_silu ? 1 : 0,
            .expert_bias = c.expert_bias ? 1 : 0,
            .slope_form = static_cast<int32_t>(c.slope_form),
            .slopes = slopes_.data(),
            .inv_freq = inv_freq_.data()};
}

int32_t WeightLender::fail(Error failure, rs_error* out) {
  const std::lock_guard lock(mutex_);
  const int32_t code = ringside::fail(out, failure);
  if (!failed_) failure_ = std::move(failure);
  failed_ = true;
  return code;
}

// No exception crosses the table.
template <class Read>
int32_t WeightLender::guarded(const char* name, rs_error* out, Read read) {
  try {
    const Status status = read();
    return status.ok() ? 0 : fail(status.error(), out);
  } catch (const std::bad_alloc&) {
    return fail(Error{ErrorKind::kOutOfMemory, name, "", ""}, out);
  } catch (...) {
    return fail(Error{ErrorKind::kInternal, name, "", ""}, out);
  }
}

int32_t WeightLender::lend(const char* base, int64_t rows, int64_t cols, int64_t first_row, int64_t row_count,
                           rs_matrix* out, rs_error* error) {
  return guarded(base, error, [&]() -> Status {
    std::unique_ptr<Matrix> matrix;
    {
      const std::lock_guard lock(mutex_);
      if (!spare_.empty()) {
        matrix = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    if (matrix == nullptr) matrix = std::make_unique<Matrix>();
    RS_CHECK(checkpoint_.read_rows(base, rows, cols, first_row, row_count, *matrix));
    *out = {.format = static_cast<int32_t>(matrix->format),
            .rows = matrix->rows,
            .cols = matrix->cols,
            .group_columns = matrix->group_columns,
            .data = matrix->data.data(),
            .scales = matrix->scales.empty() ? nullptr : matrix->scales.data(),
            .offsets = matrix->offsets.empty() ? nullptr : matrix->offsets.data(),
            .owner = matrix.get()};
    (void)matrix.release();  // the borrower's until release()
    return Unit{};
  });
}

int32_t WeightLender::read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                                  rs_error* error) {
  return static_cast<WeightLender*>(context)->lend(base, rows, cols, 0, rows, out, error);
}

int32_t WeightLender::read_rows(void* context, const char* base, int64_t rows, int64_t cols, int64_t first_row,
                                int64_t row_count, rs_matrix* out, rs_error* error) {
  return static_cast<WeightLender*>(context)->lend(base, rows, cols, first_row, row_count, out, error);
}

int32_t WeightLender::read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error) {
  auto& lender = *static_cast<WeightLender*>(context);
  return lender.guarded(name, error, [&]() -> Status {
    RS_TRY(const std::vector<float> values, lender.checkpoint_.read_vector(name, length));
    std::copy(values.begin(), values.end(), out);
    return Unit{};
  });
}

void WeightLender::release(void* context, rs_matrix* matrix) {
  auto& lender = *static_cast<WeightLender*>(context);
  std::unique_ptr<Matrix> owned(static_cast<Matrix*>(matrix->owner));
  *matrix = {};
  // One that holds more than a slice goes back to the system: a backend that reads slices never asks for as much again.
  if (owned == nullptr || static_cast<int64_t>(owned->data.capacity()) > kLargestSpareBytes) return;
  try {
    const std::lock_guard lock(lender.mutex_);
    lender.spare_.push_back(std::move(owned));
  } catch (const std::bad_alloc&) {
    // Then it is simply freed.
  }
}

}  // namespace ringside
