#include "tools/bench_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "model/backend_errors.h"

namespace ringside::tools {
namespace {

// Standard deviation of the codes: uniform in -127..127 and in -7..7, with what would be -128 and -8 taken as 0.
constexpr double kQ8Spread = 73.6;
constexpr double kQ4Spread = 4.18;
// What attention and experts add to a token is small beside its embedding of unit size (MiniMax-Text-01 weighs the
// residual by as much). Tokens that are drowned in what all have in common would be routed to the same experts.
constexpr double kResidualScale = 3.5565588;
constexpr int64_t kPlaces = int64_t{1} << 18;  // where a tensor may begin in the block
constexpr int64_t kPlaceBytes = 64;
constexpr int64_t kPlacesBytes = kPlaces * kPlaceBytes;

// splitmix64: any number gives its own stream.
struct Random {
  uint64_t state;
  uint64_t next() {
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  float uniform() { return static_cast<float>(next() >> 40) / static_cast<float>(1 << 24); }  // [0, 1)
};

uint64_t hash_of(const std::string& text) {
  uint64_t hash = 1469598103934665603ull;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  return hash;
}

std::vector<uint8_t> random_bytes(int64_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(static_cast<size_t>((count + 7) / 8 * 8));
  Random random{seed};
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = random.next();
    std::memcpy(bytes.data() + i, &word, sizeof word);
  }
  return bytes;
}

uint16_t bf16_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Standard deviation of a tensor's values.
double spread_of(const std::string& base, int64_t cols) {
  if (base.ends_with("word_embeddings")) return 1.0;
  const double kept = 1.0 / std::sqrt(static_cast<double>(cols));  // as large out as in
  return base.ends_with("down_proj") || base.ends_with("attention.dense") ? kept / kResidualScale : kept;
}

}  // namespace

struct RandomWeights::Lent {
  std::vector<float> scales;
  std::vector<uint16_t> halves;
};

RandomWeights::RandomWeights(const Config& config, rs_weight_format format, int64_t head_bits, int64_t group_columns)
    : format_(format), head_bits_(head_bits), group_columns_(group_columns) {
  if (format == RS_WEIGHT_BF16) return;
  const int64_t hidden = config.hidden;
  const int64_t vocabulary = config.vocab_rows * hidden;
  const int64_t widest = std::max({int64_t{3} * config.heads * config.head_dim, int64_t{config.dense_width},
                                   int64_t{config.expert_width}, int64_t{config.shared_width}});
  q8_ = random_bytes(vocabulary + widest * hidden + kPlacesBytes, 1);
  for (uint8_t& code : q8_) code = code == 0x80 ? 0 : code;
  if (format != RS_WEIGHT_Q4) return;
  q4_ = random_bytes((head_bits == 4 ? vocabulary : widest * hidden) / 2 + kPlacesBytes, 2);
  for (uint8_t& pair : q4_) {
    const int low = pair & 15;
    const int high = pair >> 4;
    pair = static_cast<uint8_t>((low == 0 ? 8 : low) | (high == 0 ? 8 : high) << 4);
  }
}

rs_weight_format RandomWeights::format_of(const std::string& base) const {
  if (format_ == RS_WEIGHT_BF16 || base.ends_with("mlp.gate")) return RS_WEIGHT_BF16;
  if (format_ != RS_WEIGHT_Q4 || base.ends_with("word_embeddings")) return RS_WEIGHT_Q8;
  return base == "lm_head" && head_bits_ == 8 ? RS_WEIGHT_Q8 : RS_WEIGHT_Q4;
}

void RandomWeights::lend(const std::string& base, int64_t cols, int64_t first_row, int64_t row_count,
                         rs_matrix* out) const {
  const rs_weight_format format = format_of(base);
  const double spread = spread_of(base, cols);
  const uint64_t hash = hash_of(base);
  auto lent = std::make_unique<Lent>();
  *out = {format, row_count, cols, 0, nullptr, nullptr, nullptr, nullptr};
  if (format == RS_WEIGHT_BF16) {
    const float reach = static_cast<float>(spread * std::sqrt(3.0));  // of a uniform distribution
    lent->halves.resize(static_cast<size_t>(row_count * cols));
    for (int64_t r = 0; r < row_count; ++r) {
      Random random{hash ^ static_cast<uint64_t>(first_row + r) << 32};
      for (int64_t c = 0; c < cols; ++c) {
        lent->halves[static_cast<size_t>(r * cols + c)] = bf16_of(reach * (2.0f * random.uniform() - 1.0f));
      }
    }
    out->data = lent->halves.data();
  } else {
    const bool is_q4 = format == RS_WEIGHT_Q4;
    const int64_t groups = (cols + group_columns_ - 1) / group_columns_;
    const float scale = static_cast<float>(spread / (is_q4 ? kQ4Spread : kQ8Spread));
    lent->scales.reserve(static_cast<size_t>(row_count * groups));
    for (int64_t r = 0; r < row_count; ++r) {
      Random random{hash ^ static_cast<uint64_t>(first_row + r) << 32};
      for (int64_t g = 0; g < groups; ++g) lent->scales.push_back(scale * (0.75f + 0.5f * random.uniform()));
    }
    out->group_columns = group_columns_;
    out->scales = lent->scales.data();
    const int64_t place = static_cast<int64_t>(hash % kPlaces) * kPlaceBytes;
    out->data = (is_q4 ? q4_.data() : q8_.data()) + place + first_row * cols / (is_q4 ? 2 : 1);
  }
  out->owner = lent.release();
}

int32_t RandomWeights::read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                                   rs_error* error) {
  return read_rows(context, base, rows, cols, 0, rows, out, error);
}

int32_t RandomWeights::read_rows(void* context, const char* base, int64_t, int64_t cols, int64_t first_row,
                                 int64_t row_count, rs_matrix* out, rs_error* error) {
  return guarded(error, base, [&]() -> Status {
    static_cast<const RandomWeights*>(context)->lend(base, cols, first_row, row_count, out);
    return Unit{};
  });
}

int32_t RandomWeights::read_vector(void*, const char* name, int64_t length, float* out, rs_error*) {
  std::fill_n(out, length, std::string(name).ends_with("expert_bias") ? 0.0f : 1.0f);
  return 0;
}

void RandomWeights::release(void*, rs_matrix* matrix) {
  delete static_cast<Lent*>(matrix->owner);
  *matrix = {};
}

}  // namespace ringside::tools
