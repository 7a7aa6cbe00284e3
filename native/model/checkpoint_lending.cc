#include "checkpoint_lending.h"

#include <algorithm>
#include <new>
#include <utility>

#include "backend_errors.h"

namespace ringside {

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

// No exception crosses the table.
template <class Read>
int32_t WeightLender::guarded(const char* name, rs_error* out, Read read) {
  try {
    const Status status = read();
    if (status.ok()) return 0;
    failure_ = status.error();
  } catch (const std::bad_alloc&) {
    failure_ = Error{ErrorKind::kOutOfMemory, name, "", ""};
  } catch (...) {
    failure_ = Error{ErrorKind::kInternal, name, "", ""};
  }
  failed_ = true;
  return fail(out, failure_);
}

int32_t WeightLender::read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                                  rs_error* error) {
  auto& lender = *static_cast<WeightLender*>(context);
  return lender.guarded(base, error, [&]() -> Status {
    RS_TRY(Matrix matrix, lender.checkpoint_.read_matrix(base, rows, cols));
    auto* owner = new Matrix(std::move(matrix));
    *out = {.format = static_cast<int32_t>(owner->format),
            .rows = owner->rows,
            .cols = owner->cols,
            .group_columns = owner->group_columns,
            .data = owner->data.data(),
            .scales = owner->scales.empty() ? nullptr : owner->scales.data(),
            .offsets = owner->offsets.empty() ? nullptr : owner->offsets.data(),
            .owner = owner};
    return Unit{};
  });
}

int32_t WeightLender::read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error) {
  auto& lender = *static_cast<WeightLender*>(context);
  return lender.guarded(name, error, [&]() -> Status {
    RS_TRY(const std::vector<float> values, lender.checkpoint_.read_vector(name, length));
    std::copy(values.begin(), values.end(), out);
    return Unit{};
  });
}

void WeightLender::release(void*, rs_matrix* matrix) {
  delete static_cast<Matrix*>(matrix->owner);
  *matrix = {};
}

}  // namespace ringside
