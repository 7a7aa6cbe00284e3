// Owns: the two kinds of attention (specification sections 3 and 4): `qkv` in, `mixed` out.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/forward.h"

namespace ringside::cpu {
namespace {

void scale(float* x, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

}  // namespace

// --- Linear layers: o = q S with S decaying.

void Forward::linear_attention(const Layer& layer) {
  const auto segments = static_cast<int64_t>(segments_.size());
  parallel_.jobs(segments * config_.heads, [&](int64_t job, int worker) {
    linear_head(layer, segments_[static_cast<size_t>(job / config_.heads)], job % config_.heads, worker);
  });
}

// All rows of one head of a segment, chunk by chunk. A full chunk's state goes to the spare, never over the session's
// own.
void Forward::linear_head(const Layer& layer, const Segment& segment, int64_t head, int worker) {
  const int64_t d = config_.head_dim;
  const int64_t width = shape_.attention_width;
  const int64_t stride = 3 * width;
  const float query_scale = 1.0f / std::sqrt(static_cast<float>(d));
  const float* decay = layer.decay.data() + head * (kChunkTokens + 1);
  const int64_t index = layer.kind_index;
  WorkerSpace& space = parallel_.space(worker);
  const LinearState* open = &segment.session->state;
  const float* s = open->s(index, head);
  int64_t local = segment.first_position % kChunkTokens;
  const int64_t end = segment.first_row + segment.rows;
  for (int64_t row = segment.first_row; row < end;) {
    if (parallel_.stopped(worker)) return;
    const int64_t count = std::min(kChunkTokens - local, end - row);
    float* k_columns = open->k_columns(index, head);
    float* v_rows = open->v(index, head);
    for (int64_t r = 0; r < count; ++r) {
      float* q = work_.qkv + (row + r) * stride + head * d;
      float* k = q + width;
      float* v = k + width;
      if (config_.linear_silu != 0) {
        for (float* x : {q, k, v}) kernels_.silu(x, d);
      }
      norm_and_rotate(q, layer.query_norm, row + r);
      norm_and_rotate(k, layer.key_norm, row + r);
      scale(q, query_scale, d);
      for (int64_t a = 0; a < d; ++a) k_columns[a * kChunkTokens + local + r] = k[a];
      std::copy_n(v, d, v_rows + (local + r) * d);
    }
    kernels_.chunk_read({work_.qkv + row * stride + head * d, stride, k_columns, v_rows, s, decay, local, count, d,
                         work_.mixed + row * width + head * d, width, space.chunk_scores, space.chunk_state});
    row += count;
    local += count;
    if (local == kChunkTokens) {
      float* next = segment.spare->s(index, head);
      kernels_.chunk_commit({k_columns, v_rows, s, decay, d, next, space.chunk_keys});
      s = next;
      open = segment.spare;
      local = 0;
    }
  }
}

// --- Softmax layers: grouped-query attention to the keys and values in pages.

void Forward::softmax_attention(const Layer& layer) {
  for (const Segment& segment : segments_) {
    parallel_.rows(segment.rows, [&](int64_t row, int) { append_keys(layer, segment, row); });
    if (segment.rows <= kSplitRows) {
      attend_by_blocks(layer, segment);
    } else {
      attend_by_rows(layer, segment);
    }
  }
}

// Norms, rotates and scales the queries of one row of a segment in place, and stores its keys and values.
void Forward::append_keys(const Layer& layer, const Segment& segment, int64_t segment_row) {
  const int64_t row = segment.first_row + segment_row;
  const int64_t position = segment.first_position + segment_row;
  const int64_t d = config_.head_dim;
  const float query_scale = 1.0f / std::sqrt(static_cast<float>(d));
  float* q = work_.qkv + row * (shape_.attention_width + 2 * shape_.kv_width);
  for (int64_t head = 0; head < config_.heads; ++head) norm_and_rotate(q + head * d, layer.query_norm, row);
  scale(q, query_scale, shape_.attention_width);
  const Page& page = *segment.session->pages[static_cast<size_t>(position / kPageTokens)];
  const int64_t slot = position % kPageTokens;
  for (int64_t head = 0; head < config_.kv_heads; ++head) {
    float* k = q + shape_.attention_width + head * d;
    const float* v = k + shape_.kv_width;
    norm_and_rotate(k, layer.key_norm, row);
    float* k_columns = page.k_columns(layer.kind_index, head);
    float* v_row = page.v(layer.kind_index, head) + slot * d;
    for (int64_t a = 0; a < d; ++a) k_columns[a * kPageTokens + slot] = k[a];
    for (int64_t a = 0; a < d; ++a) v_row[a] = v[a];
  }
}

// Query row t * queries_per_kv + h of the worker is the segment's token first_row + t, head h of the kv head.
void Forward::gather_queries(const Segment& segment, int64_t kv_head, int64_t first_row, int64_t rows,
                             WorkerSpace& space) {
  const int64_t width = config_.heads / config_.kv_heads * config_.head_dim;
  const int64_t stride = shape_.attention_width + 2 * shape_.kv_width;
  for (int64_t t = 0; t < rows; ++t) {
    std::copy_n(work_.qkv + (segment.first_row + first_row + t) * stride + kv_head * width, width,
                space.query + t * width);
  }
}

// Partial attention of the gathered queries to one absolute block of 256 keys. Rows before the block get limit 0.
void Forward::read_key_block(const Layer& layer, const Segment& segment, int64_t kv_head, int64_t block,
                             int64_t first_row, int64_t rows, WorkerSpace& space, float* maximum, float* sum,
                             float* mixed) {
  const int64_t queries_per_kv = config_.heads / config_.kv_heads;
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t seen = segment.first_position + first_row + t + 1 - block * kPageTokens;
    const auto limit = static_cast<int32_t>(std::clamp<int64_t>(seen, 0, kPageTokens));
    std::fill_n(space.limits + t * queries_per_kv, queries_per_kv, limit);
  }
  const Page& page = *segment.session->pages[static_cast<size_t>(block)];
  kernels_.key_block({space.query, rows * queries_per_kv, config_.head_dim, space.limits,
                      page.k_columns(layer.kind_index, kv_head), page.v(layer.kind_index, kv_head), maximum, sum, mixed,
                      space.scores});
}

// Prefill: a job reads all key blocks for the queries of a few tokens.
void Forward::attend_by_rows(const Layer& layer, const Segment& segment) {
  const int64_t d = config_.head_dim;
  const int64_t queries_per_kv = config_.heads / config_.kv_heads;
  const int64_t job_rows = std::max<int64_t>(1, kQueryRows / queries_per_kv);
  const int64_t row_jobs = (segment.rows + job_rows - 1) / job_rows;
  parallel_.jobs(config_.kv_heads * row_jobs, [&](int64_t job, int worker) {
    const int64_t kv_head = job / row_jobs;
    const int64_t first_row = job % row_jobs * job_rows;
    const int64_t rows = std::min(job_rows, segment.rows - first_row);
    const int64_t queries = rows * queries_per_kv;
    WorkerSpace& space = parallel_.space(worker);
    gather_queries(segment, kv_head, first_row, rows, space);
    std::fill_n(space.maximum, queries, -std::numeric_limits<float>::infinity());
    std::fill_n(space.sum, queries, 0.0f);
    std::fill_n(space.mixed, queries * d, 0.0f);
    const int64_t blocks = (segment.first_position + first_row + rows - 1) / kPageTokens + 1;
    for (int64_t block = 0; block < blocks; ++block) {
      if (parallel_.stopped(worker)) return;
      read_key_block(layer, segment, kv_head, block, first_row, rows, space, space.block_maximum, space.block_sum,
                     space.block_mixed);
      for (int64_t q = 0; q < queries; ++q) {
        if (space.limits[q] == 0) continue;
        kernels_.merge_key_block(space.maximum + q, space.sum + q, space.mixed + q * d, space.block_maximum[q],
                                 space.block_sum[q], space.block_mixed + q * d, d);
      }
    }
    for (int64_t q = 0; q < queries; ++q) {
      float* out = work_.mixed + (segment.first_row + first_row + q / queries_per_kv) * shape_.attention_width +
                   (kv_head * queries_per_kv + q % queries_per_kv) * d;
      for (int64_t a = 0; a < d; ++a) out[a] = space.mixed[q * d + a] / space.sum[q];
    }
  });
}

// Decode: a job reads one key block; the blocks are merged afterwards, in the same ascending order.
void Forward::attend_by_blocks(const Layer& layer, const Segment& segment) {
  const int64_t d = config_.head_dim;
  const int64_t queries_per_kv = config_.heads / config_.kv_heads;
  const int64_t queries = segment.rows * queries_per_kv;  // of one kv head
  const int64_t blocks = (segment.first_position + segment.rows - 1) / kPageTokens + 1;
  const auto partial = [&](int64_t kv_head, int64_t block) { return (kv_head * blocks + block) * queries; };
  parallel_.jobs(config_.kv_heads * blocks, [&](int64_t job, int worker) {
    const int64_t kv_head = job / blocks;
    const int64_t block = job % blocks;
    const int64_t at = partial(kv_head, block);
    WorkerSpace& space = parallel_.space(worker);
    gather_queries(segment, kv_head, 0, segment.rows, space);
    read_key_block(layer, segment, kv_head, block, 0, segment.rows, space, work_.partial_maximum + at,
                   work_.partial_sum + at, work_.partial_mixed + at * d);
  });
  parallel_.rows(config_.heads * segment.rows, [&](int64_t query, int) {
    const int64_t row = query / config_.heads;
    const int64_t head = query % config_.heads;
    const int64_t q = row * queries_per_kv + head % queries_per_kv;
    float* out = work_.mixed + (segment.first_row + row) * shape_.attention_width + head * d;
    float maximum = -std::numeric_limits<float>::infinity();
    float sum = 0.0f;
    std::fill_n(out, d, 0.0f);
    for (int64_t block = 0; block <= (segment.first_position + row) / kPageTokens; ++block) {
      const int64_t at = partial(head / queries_per_kv, block) + q;
      kernels_.merge_key_block(&maximum, &sum, out, work_.partial_maximum[at], work_.partial_sum[at],
                               work_.partial_mixed + at * d, d);
    }
    for (int64_t a = 0; a < d; ++a) out[a] /= sum;
  });
}

}  // namespace ringside::cpu
