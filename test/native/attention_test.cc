// Owns: the attention kernels of every instruction set present against slow arithmetic in double: pages of every
// format, masks, merges, rotations; and that a row's bits depend on that row alone.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "cpu/kernels/attention_kernels.h"
#include "random_model.h"

namespace {

using namespace ringside::cpu;
using random_model::Random;

constexpr rs_kv_format kFormats[] = {RS_KV_F32, RS_KV_BF16, RS_KV_Q8};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_values(Random& random, int64_t count, float reach = 1.0f) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = random.uniform(-reach, reach);
  return values;
}

float widened(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

void check_close(double got, double expected, double bound, const std::string& what) {
  if (std::abs(got - expected) <= bound) return;
  check::fail(__FILE__, __LINE__, what + ": " + std::to_string(got) + " is not " + std::to_string(expected));
}

// The value at (column, depth) of one page part with `depths` depths a column, read as attention_kernels.h describes
// it.
double stored(const KvLayout& layout, const uint8_t* part, int64_t column, int64_t depth, int64_t depths) {
  const int64_t tile_depth = layout.format == RS_KV_Q8 ? 64 : 32;
  const int64_t run = layout.format == RS_KV_Q8 ? 4 : layout.format == RS_KV_BF16 ? 2 : 1;
  const int64_t tile = column / 16 * (depths / tile_depth) + depth / tile_depth;
  const int64_t at = tile * 16 * tile_depth + (depth % tile_depth / run * 16 + column % 16) * run + depth % run;
  if (layout.format == RS_KV_BF16) return widened(reinterpret_cast<const uint16_t*>(part)[at]);
  if (layout.format == RS_KV_Q8) return reinterpret_cast<const int8_t*>(part)[at];
  return reinterpret_cast<const float*>(part)[at];
}

double scale_of(const KvLayout& layout, const uint8_t* part, int64_t slot) {
  if (layout.format != RS_KV_Q8) return 1.0;
  return reinterpret_cast<const float*>(part + layout.scales_offset_bytes())[slot];
}

// Keys and values of one head, page after page, and what was stored of them.
struct Context {
  KvLayout layout;
  int64_t positions;
  std::vector<std::vector<uint8_t>> keys, values;  // of each page

  Context(const AttentionKernels& kernels, const KvLayout& layout_of, const std::vector<float>& k,
          const std::vector<float>& v, int64_t piece)
      : layout(layout_of), positions(static_cast<int64_t>(k.size()) / layout_of.head_dim) {
    const auto part = static_cast<size_t>(layout.part_bytes());
    const auto pages = static_cast<size_t>((positions + RS_PAGE_TOKENS - 1) / RS_PAGE_TOKENS);
    keys.assign(pages, std::vector<uint8_t>(part));
    values.assign(pages, std::vector<uint8_t>(part));
    for (int64_t first = 0; first < positions;) {
      const int64_t slot = first % RS_PAGE_TOKENS;
      const int64_t rows = std::min({piece, positions - first, RS_PAGE_TOKENS - slot});
      const auto page = static_cast<size_t>(first / RS_PAGE_TOKENS);
      kernels.append_keys({layout, k.data() + first * layout.head_dim, v.data() + first * layout.head_dim,
                           layout.head_dim, rows, slot, keys[page].data(), values[page].data()});
      first += rows;
    }
  }

  double key(int64_t position, int64_t channel) const {
    const uint8_t* part = keys[static_cast<size_t>(position / RS_PAGE_TOKENS)].data();
    const int64_t slot = position % RS_PAGE_TOKENS;
    return stored(layout, part, slot, channel, layout.channels()) * scale_of(layout, part, slot);
  }
  double value(int64_t position, int64_t channel) const {
    const uint8_t* part = values[static_cast<size_t>(position / RS_PAGE_TOKENS)].data();
    const int64_t slot = position % RS_PAGE_TOKENS;
    return stored(layout, part, channel, slot, RS_PAGE_TOKENS) * scale_of(layout, part, slot);
  }
};

// Query rows that see the first `seen` positions each; [rows, head_dim], divided by the sum.
std::vector<float> attend(const AttentionKernels& kernels, const Context& context, const std::vector<float>& q,
                          const std::vector<int64_t>& seen) {
  const KvLayout& layout = context.layout;
  const int64_t d = layout.head_dim;
  const auto rows = static_cast<int64_t>(seen.size());
  const int64_t padded_rows = (rows + kQueryGroupRows - 1) / kQueryGroupRows * kQueryGroupRows;
  std::vector<uint8_t> queries(static_cast<size_t>(padded_rows * layout.query_bytes()));
  std::vector<uint8_t> scratch(static_cast<size_t>(attention_scratch_bytes(layout)));
  std::vector<float> maximum(seen.size(), -kInfinity), sum(seen.size());
  std::vector<float> mixed(static_cast<size_t>(rows * layout.channels()));
  for (int64_t r = 0; r < rows; r += 3) {
    kernels.gather_queries(layout, q.data() + r * d, r, std::min<int64_t>(3, rows - r), queries.data());
  }
  for (size_t page = 0; page < context.keys.size(); ++page) {
    std::vector<int32_t> limits;
    for (const int64_t positions : seen) {
      const int64_t limit = positions - static_cast<int64_t>(page) * RS_PAGE_TOKENS;
      limits.push_back(static_cast<int32_t>(std::clamp<int64_t>(limit, 0, RS_PAGE_TOKENS)));
    }
    kernels.key_block({layout, queries.data(), rows, limits.data(), context.keys[page].data(),
                       context.values[page].data(), maximum.data(), sum.data(), mixed.data(), scratch.data()});
  }
  std::vector<float> out;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t a = 0; a < d; ++a) {
      out.push_back(mixed[static_cast<size_t>(r * layout.channels() + a)] / sum[static_cast<size_t>(r)]);
    }
  }
  return out;
}

// Softmax over the stored keys, in double.
std::vector<double> attend_slowly(const Context& context, const std::vector<double>& q, int64_t seen) {
  const int64_t d = context.layout.head_dim;
  std::vector<double> weights;
  double top = -1e300;
  for (int64_t j = 0; j < seen; ++j) {
    double score = 0.0;
    for (int64_t a = 0; a < d; ++a) score += q[static_cast<size_t>(a)] * context.key(j, a);
    weights.push_back(score);
    top = std::max(top, score);
  }
  double total = 0.0;
  for (double& weight : weights) total += weight = std::exp(weight - top);
  std::vector<double> out(static_cast<size_t>(d));
  for (int64_t j = 0; j < seen; ++j) {
    for (int64_t a = 0; a < d; ++a) {
      out[static_cast<size_t>(a)] += weights[static_cast<size_t>(j)] / total * context.value(j, a);
    }
  }
  return out;
}

uint16_t bf16_of(float value) { return random_model::bf16_of(value); }

// Products in bf16 round the queries, which the slow form does too, and the probabilities, which is the error left.
bool multiplies_bf16(const AttentionKernels& kernels, rs_kv_format format) {
  const std::string isa = kernels.isa;
  return format == RS_KV_BF16 && (isa == "avx512bf16" || isa == "amx");
}

bool same_bits(const std::vector<float>& a, const float* b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0;
}

std::vector<const AttentionKernels*> tables() {
  std::vector<const AttentionKernels*> out;
  for (const Kernels* kernels : available_kernels()) {
    if (std::find(out.begin(), out.end(), kernels->attention()) == out.end()) out.push_back(kernels->attention());
  }
  return out;
}

}  // namespace

TEST("pages keep keys and values to the precision of their format, however they are appended") {
  for (const int64_t d : {16, 33, 128, 256}) {
    for (const rs_kv_format format : kFormats) {
      Random random(static_cast<uint64_t>(d));
      const int64_t positions = 300;
      const std::vector<float> k = random_values(random, positions * d, 3.0f);
      const std::vector<float> v = random_values(random, positions * d);
      for (const AttentionKernels* kernels : tables()) {
        const Context context(*kernels, {format, d}, k, v, 300);
        const double bound = format == RS_KV_F32 ? 0.0 : format == RS_KV_BF16 ? 1.0 / 256 : 0.5 / 127 + 1e-6;
        for (int64_t i = 0; i < positions * d; ++i) {
          const auto at = static_cast<size_t>(i);
          const double reach = format == RS_KV_Q8 ? 3.0 : std::abs(k[at]);
          check_close(context.key(i / d, i % d), k[at], bound * reach, kernels->isa);
          check_close(context.value(i / d, i % d), v[at], format == RS_KV_Q8 ? bound : bound * std::abs(v[at]),
                      kernels->isa);
        }
        const Context pieces(*kernels, {format, d}, k, v, 7);
        CHECK(pieces.keys == context.keys);
        CHECK(pieces.values == context.values);
      }
    }
  }
}

TEST("values at the ends of a format's range are stored as finite numbers") {
  const int64_t d = 32;
  std::vector<float> extremes(static_cast<size_t>(d), 0.0f);
  extremes[0] = std::numeric_limits<float>::max();
  extremes[1] = -std::numeric_limits<float>::max();
  extremes[2] = std::numeric_limits<float>::denorm_min();
  for (const rs_kv_format format : kFormats) {
    for (const AttentionKernels* kernels : tables()) {
      const Context context(*kernels, {format, d}, extremes, extremes, 1);
      const Context zeros(*kernels, {format, d}, std::vector<float>(extremes.size()), extremes, 1);
      for (int64_t a = 0; a < d; ++a) {
        CHECK(std::isfinite(context.key(0, a)));
        CHECK(std::isfinite(context.value(0, a)));
        CHECK_EQ(zeros.key(0, a), 0.0);
      }
    }
  }
}

TEST("attention over pages equals softmax over all keys, and rows do not depend on their company") {
  for (const int64_t d : {16, 40, 64, 128, 256}) {
    for (const int64_t positions : {1, 15, 17, 255, 256, 257, 600}) {
      for (const rs_kv_format format : kFormats) {
        Random random(static_cast<uint64_t>(d * 1000 + positions));
        const int64_t rows = 45;
        const std::vector<float> q = random_values(random, rows * d, 3.0f / std::sqrt(static_cast<float>(d)));
        const std::vector<float> k = random_values(random, positions * d, 3.0f);
        const std::vector<float> v = random_values(random, positions * d);
        std::vector<int64_t> seen;
        for (int64_t r = 0; r < rows; ++r) seen.push_back(std::max<int64_t>(1, positions - (rows - 1 - r) * 3));
        for (const AttentionKernels* kernels : tables()) {
          const Context context(*kernels, {format, d}, k, v, 64);
          const std::vector<float> together = attend(*kernels, context, q, seen);
          const bool rounds = multiplies_bf16(*kernels, format);
          for (const int64_t r : {int64_t{0}, rows / 2, rows - 1}) {
            std::vector<double> query;
            for (int64_t a = 0; a < d; ++a) {
              const float value = q[static_cast<size_t>(r * d + a)];
              query.push_back(rounds ? widened(bf16_of(value)) : value);
            }
            const std::vector<double> expected = attend_slowly(context, query, seen[static_cast<size_t>(r)]);
            for (int64_t a = 0; a < d; ++a) {
              check_close(together[static_cast<size_t>(r * d + a)], expected[static_cast<size_t>(a)],
                          rounds               ? 4e-3
                          : format == RS_KV_Q8 ? 2e-4
                                               : 1e-5,
                          kernels->isa);
            }
          }
          for (const int64_t part : {1, 2, 4, 7, 16, 17, 32, 33}) {
            for (int64_t first = 0; first < rows; first += part == 1 ? 11 : part) {
              const int64_t last = std::min(rows, first + part);
              const std::vector<float> queries(q.begin() + first * d, q.begin() + last * d);
              const std::vector<int64_t> limits(seen.begin() + first, seen.begin() + last);
              const std::vector<float> alone = attend(*kernels, context, queries, limits);
              CHECK(same_bits(alone, together.data() + first * d));
            }
          }
        }
      }
    }
  }
}

TEST("blocks computed apart and merged in ascending order give the bits of one pass") {
  const int64_t d = 64;
  const int64_t positions = 900;
  for (const rs_kv_format format : kFormats) {
    Random random(5);
    const std::vector<float> q = random_values(random, d, 0.5f);
    const std::vector<float> k = random_values(random, positions * d, 3.0f);
    const std::vector<float> v = random_values(random, positions * d);
    for (const AttentionKernels* kernels : tables()) {
      const KvLayout layout{format, d};
      const Context context(*kernels, layout, k, v, positions);
      const std::vector<float> expected = attend(*kernels, context, q, {positions});
      std::vector<uint8_t> queries(static_cast<size_t>(kQueryGroupRows * layout.query_bytes()));
      std::vector<uint8_t> scratch(static_cast<size_t>(attention_scratch_bytes(layout)));
      kernels->gather_queries(layout, q.data(), 0, 1, queries.data());
      float maximum = -kInfinity;
      float sum = 0.0f;
      std::vector<float> mixed(static_cast<size_t>(layout.channels()));
      for (size_t page = 0; page < context.keys.size(); ++page) {
        const auto limit = static_cast<int32_t>(
            std::min<int64_t>(RS_PAGE_TOKENS, positions - static_cast<int64_t>(page) * RS_PAGE_TOKENS));
        float block_maximum = -kInfinity;
        float block_sum = 0.0f;
        std::vector<float> block_mixed(mixed.size());
        kernels->key_block({layout, queries.data(), 1, &limit, context.keys[page].data(), context.values[page].data(),
                            &block_maximum, &block_sum, block_mixed.data(), scratch.data()});
        kernels->merge_key_block(&maximum, &sum, mixed.data(), block_maximum, block_sum, block_mixed.data(),
                                 layout.channels());
      }
      for (float& value : mixed) value /= sum;
      CHECK(same_bits(expected, mixed.data()));
    }
  }
}

TEST("a key or value that is no number reaches the rows that see it and no others") {
  const int64_t d = 48;
  const int64_t positions = 40;
  for (const rs_kv_format format : kFormats) {
    for (const float poison : {kNan, kInfinity, -kInfinity}) {
      for (const bool in_values : {false, true}) {
        Random random(9);
        std::vector<float> k = random_values(random, positions * d);
        std::vector<float> v = random_values(random, positions * d);
        (in_values ? v : k)[static_cast<size_t>(35 * d + 3)] = poison;
        const std::vector<float> q = random_values(random, 3 * d);
        for (const AttentionKernels* kernels : tables()) {
          const Context context(*kernels, {format, d}, k, v, positions);
          const std::vector<float> out = attend(*kernels, context, q, {35, 36, 40});
          for (int64_t a = 0; a < d; ++a) {
            CHECK(std::isfinite(out[static_cast<size_t>(a)]));
            CHECK(std::isnan(out[static_cast<size_t>(d + a)]));
            CHECK(std::isnan(out[static_cast<size_t>(2 * d + a)]));
          }
        }
      }
    }
  }
}

TEST("heads are normed, rotated and scaled, odd widths too") {
  for (const int64_t d : {10, 16, 33, 128, 250}) {
    for (const int64_t half : {int64_t{0}, d / 4, d / 2}) {
      Random random(static_cast<uint64_t>(d + half));
      const int64_t heads = 3;
      const std::vector<float> before = random_values(random, heads * d, 4.0f);
      const std::vector<float> weight = random_values(random, d);
      const std::vector<float> cosines = random_values(random, half);
      const std::vector<float> sines = random_values(random, half);
      for (const AttentionKernels* kernels : tables()) {
        std::vector<float> x = before;
        kernels->rotate_heads({x.data(), heads, d, weight.data(), 1e-6f, cosines.data(), sines.data(), half, 0.25f});
        for (int64_t head = 0; head < heads; ++head) {
          const float* from = before.data() + head * d;
          double squares = 0.0;
          for (int64_t a = 0; a < d; ++a) squares += static_cast<double>(from[a]) * from[a];
          const double factor = 0.25 / std::sqrt(squares / static_cast<double>(d) + 1e-6);
          const auto normed = [&](int64_t a) { return from[a] * factor * weight[static_cast<size_t>(a)]; };
          for (int64_t a = 0; a < d; ++a) {
            double expected = normed(a);
            const auto j = static_cast<size_t>(a < half ? a : a - half);
            if (a < half) expected = normed(a) * cosines[j] - normed(a + half) * sines[j];
            if (a >= half && a < 2 * half) expected = normed(a) * cosines[j] + normed(a - half) * sines[j];
            check_close(x[static_cast<size_t>(head * d + a)], expected, 1e-6, kernels->isa);
          }
        }
      }
    }
  }
}

TEST("a chunk read in any pieces and its new state equal the recurrence") {
  for (const int64_t d : {10, 16, 65, 128}) {
    Random random(static_cast<uint64_t>(d));
    const auto n = static_cast<size_t>(d);
    const double slope = 0.3;
    std::vector<float> decay;
    for (int i = 0; i <= RS_CHUNK_TOKENS; ++i) decay.push_back(static_cast<float>(std::exp(-slope * i)));
    const std::vector<float> state = random_values(random, d * d);
    const std::vector<float> q = random_values(random, RS_CHUNK_TOKENS * d);
    const std::vector<float> k = random_values(random, RS_CHUNK_TOKENS * d);
    const std::vector<float> v = random_values(random, RS_CHUNK_TOKENS * d);
    std::vector<float> k_columns(n * RS_CHUNK_TOKENS);
    for (size_t i = 0; i < RS_CHUNK_TOKENS; ++i) {
      for (size_t a = 0; a < n; ++a) k_columns[a * RS_CHUNK_TOKENS + i] = k[i * n + a];
    }
    std::vector<double> s(state.begin(), state.end());
    std::vector<double> expected;
    for (size_t i = 0; i < RS_CHUNK_TOKENS; ++i) {
      for (size_t a = 0; a < n; ++a) {
        for (size_t b = 0; b < n; ++b) {
          s[a * n + b] = s[a * n + b] * std::exp(-slope) + static_cast<double>(k[i * n + a]) * v[i * n + b];
        }
      }
      for (size_t b = 0; b < n; ++b) {
        double sum = 0.0;
        for (size_t a = 0; a < n; ++a) sum += q[i * n + a] * s[a * n + b];
        expected.push_back(sum);
      }
    }
    std::vector<uint8_t> scratch(static_cast<size_t>(attention_scratch_bytes({RS_KV_F32, d})));
    for (const AttentionKernels* kernels : tables()) {
      std::vector<float> whole;
      for (const int64_t piece : {64, 1, 7, 33}) {
        std::vector<float> out(RS_CHUNK_TOKENS * n);
        for (int64_t first = 0; first < RS_CHUNK_TOKENS; first += piece) {
          const int64_t rows = std::min(piece, RS_CHUNK_TOKENS - first);
          kernels->chunk_read({q.data() + first * d, d, k_columns.data(), v.data(), state.data(), decay.data(), first,
                               rows, d, out.data() + first * d, d, scratch.data()});
        }
        if (whole.empty()) {
          whole = out;
          for (size_t i = 0; i < out.size(); ++i)
            check_close(out[i], expected[i], 1e-4 * std::max(1.0, std::abs(expected[i])), kernels->isa);
        }
        CHECK(std::memcmp(whole.data(), out.data(), out.size() * sizeof(float)) == 0);
      }
      std::vector<float> next = state;  // in place
      kernels->chunk_commit({k_columns.data(), v.data(), next.data(), decay.data(), d, next.data(), scratch.data()});
      for (size_t i = 0; i < next.size(); ++i)
        check_close(next[i], s[i], 3e-5 * std::max(1.0, std::abs(s[i])), kernels->isa);
    }
  }
}
