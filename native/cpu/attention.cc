// Owns: the two kinds of attention (specification sections 3 and 4): `qkv` in, `mixed` out.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/forward.h"

namespace ringside::cpu {
namespace {

// Rows of a segment whose keys one job stores.
constexpr int64_t kAppendRows = 16;

int64_t key_blocks(const Segment& segment) { return (segment.first_position + segment.rows - 1) / kPageTokens + 1; }

int64_t pieces(int64_t count, int64_t of) { return (count + of - 1) / of; }

// The segment that job number `job` belongs to when each has jobs(segment) of them; `job` becomes its number there.
template <class Jobs>
const Segment& segment_of(std::span<const Segment> segments, const Jobs& jobs, int64_t& job) {
  size_t index = 0;
  while (job >= jobs(segments[index])) job -= jobs(segments[index++]);
  return segments[index];
}

template <class Jobs>
int64_t total(std::span<const Segment> segments, const Jobs& jobs) {
  int64_t sum = 0;
  for (const Segment& segment : segments) sum += jobs(segment);
  return sum;
}

}  // namespace

// The heads of one row, to be normed, rotated by the row's position and scaled.
HeadRotation Forward::rotation_of(int64_t row, float* x, int64_t heads, const std::vector<float>& weight,
                                  float scale) const {
  const int64_t half = config_.rotary_dim / 2;
  return {x,
          heads,
          config_.head_dim,
          weight.data(),
          config_.rms_eps,
          work_.cosines + row * half,
          work_.sines + row * half,
          half,
          scale};
}

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
  uint8_t* scratch = parallel_.space(worker).attention;
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
      attention_.rotate_heads(rotation_of(row + r, q, 1, layer.query_norm, query_scale));
      attention_.rotate_heads(rotation_of(row + r, k, 1, layer.key_norm, 1.0f));
      for (int64_t a = 0; a < d; ++a) k_columns[a * kChunkTokens + local + r] = k[a];
      std::copy_n(v, d, v_rows + (local + r) * d);
    }
    attention_.chunk_read({work_.qkv + row * stride + head * d, stride, k_columns, v_rows, s, decay, local, count, d,
                           work_.mixed + row * width + head * d, width, scratch});
    row += count;
    local += count;
    if (local == kChunkTokens) {
      float* next = segment.spare->s(index, head);
      attention_.chunk_commit({k_columns, v_rows, s, decay, d, next, scratch});
      s = next;
      open = segment.spare;
      local = 0;
    }
  }
}

// --- Softmax layers: grouped-query attention to the keys and values in pages.

void Forward::softmax_attention(const Layer& layer) {
  append_keys(layer);
  attend_by_blocks(layer);
  attend_by_rows(layer);
}

void Forward::append_keys(const Layer& layer) {
  const auto jobs = [](const Segment& segment) { return pieces(segment.rows, kAppendRows); };
  parallel_.jobs(total(segments_, jobs), [&](int64_t job, int) {
    const Segment& segment = segment_of(segments_, jobs, job);
    const int64_t first = job * kAppendRows;
    append_keys(layer, segment, first, std::min(kAppendRows, segment.rows - first));
  });
}

// Norms, rotates and scales the queries of some rows in place, and stores their keys and values.
void Forward::append_keys(const Layer& layer, const Segment& segment, int64_t first_row, int64_t rows) {
  const int64_t d = config_.head_dim;
  const float query_scale = 1.0f / std::sqrt(static_cast<float>(d));
  const int64_t stride = shape_.attention_width + 2 * shape_.kv_width;
  float* const first = work_.qkv + (segment.first_row + first_row) * stride;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = segment.first_row + first_row + r;
    float* q = first + r * stride;
    attention_.rotate_heads(rotation_of(row, q, config_.heads, layer.query_norm, query_scale));
    attention_.rotate_heads(rotation_of(row, q + shape_.attention_width, config_.kv_heads, layer.key_norm, 1.0f));
  }
  for (int64_t r = 0; r < rows;) {
    const int64_t position = segment.first_position + first_row + r;
    const int64_t slot = position % kPageTokens;
    const int64_t count = std::min(rows - r, kPageTokens - slot);
    const Page& page = *segment.session->pages[static_cast<size_t>(position / kPageTokens)];
    for (int64_t head = 0; head < config_.kv_heads; ++head) {
      const float* k = first + r * stride + shape_.attention_width + head * d;
      attention_.append_keys({page.layout(), k, k + shape_.kv_width, stride, count, slot,
                              page.keys(layer.kind_index, head), page.values(layer.kind_index, head)});
    }
    r += count;
  }
}

// Query row t * queries_per_kv + h of the worker is the segment's token first_row + t, head h of the kv head.
void Forward::gather_queries(const Segment& segment, int64_t kv_head, int64_t first_row, int64_t rows,
                             WorkerSpace& space) {
  const int64_t queries_per_kv = config_.heads / config_.kv_heads;
  const int64_t stride = shape_.attention_width + 2 * shape_.kv_width;
  for (int64_t t = 0; t < rows; ++t) {
    const float* q = work_.qkv + (segment.first_row + first_row + t) * stride;
    attention_.gather_queries(model_.kv_layout(), q + kv_head * queries_per_kv * config_.head_dim, t * queries_per_kv,
                              queries_per_kv, space.queries);
  }
}

// Merges the attention of the gathered queries to one absolute block of 256 keys into what they have of the blocks
// before. Rows before the block get limit 0.
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
  attention_.key_block({page.layout(), space.queries, rows * queries_per_kv, space.limits,
                        page.keys(layer.kind_index, kv_head), page.values(layer.kind_index, kv_head), maximum, sum,
                        mixed, space.attention});
}

// Prefill: a job reads all key blocks for the queries of a few tokens.
void Forward::attend_by_rows(const Layer& layer) {
  const int64_t job_rows = std::max<int64_t>(1, kQueryRows / (config_.heads / config_.kv_heads));
  const auto jobs = [&](const Segment& segment) {
    return segment.rows <= kSplitRows ? 0 : config_.kv_heads * pieces(segment.rows, job_rows);
  };
  parallel_.jobs(total(segments_, jobs), [&](int64_t job, int worker) {
    const Segment& segment = segment_of(segments_, jobs, job);
    // The last rows read the most keys, so they go first and the threads finish together.
    const int64_t piece = pieces(segment.rows, job_rows) - 1 - job / config_.kv_heads;
    const int64_t first_row = piece * job_rows;
    attend_rows(layer, segment, job % config_.kv_heads, first_row, std::min(job_rows, segment.rows - first_row),
                worker);
  });
}

void Forward::attend_rows(const Layer& layer, const Segment& segment, int64_t kv_head, int64_t first_row, int64_t rows,
                          int worker) {
  const int64_t d = config_.head_dim;
  const int64_t channels = model_.kv_layout().channels();
  const int64_t queries_per_kv = config_.heads / config_.kv_heads;
  const int64_t queries = rows * queries_per_kv;
  WorkerSpace& space = parallel_.space(worker);
  gather_queries(segment, kv_head, first_row, rows, space);
  std::fill_n(space.maximum, queries, -std::numeric_limits<float>::infinity());
  std::fill_n(space.sum, queries, 0.0f);
  std::fill_n(space.mixed, queries * channels, 0.0f);
  const int64_t blocks = (segment.first_position + first_row + rows - 1) / kPageTokens + 1;
  for (int64_t block = 0; block < blocks; ++block) {
    if (parallel_.stopped(worker)) return;
    read_key_block(layer, segment, kv_head, block, first_row, rows, space, space.maximum, space.sum, space.mixed);
  }
  for (int64_t q = 0; q < queries; ++q) {
    float* out = work_.mixed + (segment.first_row + first_row + q / queries_per_kv) * shape_.attention_width +
                 (kv_head * queries_per_kv + q % queries_per_kv) * d;
    for (int64_t a = 0; a < d; ++a) out[a] = space.mixed[q * channels + a] / space.sum[q];
  }
}

// Decode: the segments of few rows, as many together as there is room for their partial results.
void Forward::attend_by_blocks(const Layer& layer) {
  size_t begin = 0;
  while (begin < segments_.size()) {
    size_t end = begin;
    int64_t room = work_.partial_rows;
    while (end < segments_.size()) {
      const Segment& segment = segments_[end];
      const int64_t wants = segment.rows <= kSplitRows ? key_blocks(segment) * segment.rows * config_.heads : 0;
      if (wants > room) break;  // never the first: there is room for one
      room -= wants;
      ++end;
    }
    attend_by_blocks(layer, segments_.subspan(begin, end - begin));
    begin = end;
  }
}

// A job reads one key block; the blocks are merged afterwards, in the same ascending order.
void Forward::attend_by_blocks(const Layer& layer, std::span<const Segment> segments) {
  const int64_t d = config_.head_dim;
  const int64_t channels = model_.kv_layout().channels();
  const int64_t queries_per_kv = config_.heads / config_.kv_heads;
  const auto small_rows = [](const Segment& segment) { return segment.rows <= kSplitRows ? segment.rows : 0; };
  // Partial results: [segment][key block][kv head][row, head of the kv head].
  const auto partial_of = [&](const Segment& segment, int64_t block, int64_t kv_head) {
    const auto before = segments.first(static_cast<size_t>(&segment - segments.data()));
    const int64_t at = total(before, [&](const Segment& other) { return key_blocks(other) * small_rows(other); });
    return (at + block * segment.rows) * config_.heads + kv_head * segment.rows * queries_per_kv;
  };
  // Neighbours in memory follow each other: the kv heads of one block.
  const auto block_jobs = [&](const Segment& segment) {
    return small_rows(segment) == 0 ? 0 : key_blocks(segment) * config_.kv_heads;
  };
  parallel_.jobs(total(segments, block_jobs), [&](int64_t job, int worker) {
    const Segment& segment = segment_of(segments, block_jobs, job);
    const int64_t block = job / config_.kv_heads;
    const int64_t kv_head = job % config_.kv_heads;
    const int64_t at = partial_of(segment, block, kv_head);
    const int64_t queries = segment.rows * queries_per_kv;
    WorkerSpace& space = parallel_.space(worker);
    gather_queries(segment, kv_head, 0, segment.rows, space);
    std::fill_n(work_.partial_maximum + at, queries, -std::numeric_limits<float>::infinity());
    std::fill_n(work_.partial_sum + at, queries, 0.0f);
    std::fill_n(work_.partial_mixed + at * channels, queries * channels, 0.0f);
    read_key_block(layer, segment, kv_head, block, 0, segment.rows, space, work_.partial_maximum + at,
                   work_.partial_sum + at, work_.partial_mixed + at * channels);
  });
  const auto merges = [&](const Segment& segment) { return small_rows(segment) * config_.heads; };
  parallel_.jobs(total(segments, merges), [&](int64_t job, int worker) {
    const Segment& segment = segment_of(segments, merges, job);
    const int64_t row = job / config_.heads;
    const int64_t head = job % config_.heads;
    float maximum = -std::numeric_limits<float>::infinity();
    float sum = 0.0f;
    float* mixed = parallel_.space(worker).mixed;
    std::fill_n(mixed, channels, 0.0f);
    for (int64_t block = 0; block <= (segment.first_position + row) / kPageTokens; ++block) {
      const int64_t at =
          partial_of(segment, block, head / queries_per_kv) + row * queries_per_kv + head % queries_per_kv;
      attention_.merge_key_block(&maximum, &sum, mixed, work_.partial_maximum[at], work_.partial_sum[at],
                                 work_.partial_mixed + at * channels, channels);
    }
    float* out = work_.mixed + (segment.first_row + row) * shape_.attention_width + head * d;
    for (int64_t a = 0; a < d; ++a) out[a] = mixed[a] / sum;
  });
}

}  // namespace ringside::cpu
