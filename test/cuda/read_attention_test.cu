// Owns: attention of the read path against the recurrence and the softmax in double precision; that bits do not depend
// on where slabs end; and that a slab leaves the session it read as it was.
#include <cmath>
#include <cstring>
#include <string>

#include "check.h"
#include "cuda/kernels/flash_attention.cuh"
#include "cuda/kernels/read_attention.h"
#include "device_data.h"

namespace {

using namespace ringside;
using namespace ringside::cuda;
using namespace ringside::cuda::test;

bool bench_asked = false;
// The runner takes a name as its argument; this one asks for more than a choice of tests.
__attribute__((constructor)) void read_arguments(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) bench_asked |= std::strcmp(argv[i], "--bench") == 0;
}

constexpr int kDim = 128;
constexpr float kEps = 1e-6f;

struct Shape {
  int heads = 2, kv_heads = 1, rotary = 64, silu = 0, layers = 1, layer = 0;
  rs_kv_format kv = RS_KV_BF16;
};

// One layer of a model, as far as attention sees it.
struct Fixture {
  Shape shape;
  DeviceModel model{};
  DeviceLayer layer{};
  std::vector<float> query_norm, key_norm, slopes, inv_freq;
  DeviceBuffer<float> device_query_norm, device_key_norm, device_slopes, device_inv_freq;

  Fixture(const Shape& s, uint32_t seed) : shape(s) {
    query_norm = random_floats(kDim, seed, 0.3f);
    key_norm = random_floats(kDim, seed + 1, 0.3f);
    for (int i = 0; i < kDim; ++i) query_norm[i] += 1.0f, key_norm[i] += 1.0f;
    for (int h = 0; h < s.heads; ++h) slopes.push_back(std::exp2(-8.0f * (h + 1) / s.heads) * 0.9f);
    for (int j = 0; j < s.rotary / 2; ++j)
      inv_freq.push_back(static_cast<float>(std::pow(1e6, -2.0 * j / static_cast<double>(s.rotary))));
    device_query_norm = DeviceBuffer<float>(query_norm);
    device_key_norm = DeviceBuffer<float>(key_norm);
    device_slopes = DeviceBuffer<float>(slopes);
    device_inv_freq = DeviceBuffer<float>(inv_freq);
    model.config.heads = s.heads, model.config.kv_heads = s.kv_heads, model.config.head_dim = kDim;
    model.config.rotary_dim = s.rotary, model.config.rms_eps = kEps, model.config.linear_silu = s.silu;
    model.width = s.heads * kDim, model.kv_width = s.kv_heads * kDim;
    model.inv_freq = device_inv_freq.get();
    layer.kind_index = s.layer;
    layer.query_norm = device_query_norm.get(), layer.key_norm = device_key_norm.get();
    layer.slopes = device_slopes.get();
  }
  int width() const { return shape.heads * kDim; }

  // A head of q or k after silu, norm and rotation.
  std::vector<double> prepared(const bf16* from, const std::vector<float>& norm, int64_t position, bool silu) const {
    std::vector<double> x(kDim), y(kDim);
    double sum = 0.0;
    for (int i = 0; i < kDim; ++i) {
      x[i] = from_bf16(from[i]);
      if (silu) x[i] /= 1.0 + std::exp(-x[i]);
      sum += x[i] * x[i];
    }
    for (int i = 0; i < kDim; ++i) x[i] *= norm[i] / std::sqrt(sum / kDim + kEps);
    y = x;
    const int half = shape.rotary / 2;
    for (int j = 0; j < half; ++j) {
      const double angle = static_cast<float>(position) * inv_freq[j];
      y[j] = x[j] * std::cos(angle) - x[j + half] * std::sin(angle);
      y[j + half] = x[j + half] * std::cos(angle) + x[j] * std::sin(angle);
    }
    return y;
  }
};

// ---------------------------------------------------------------------------------------------------------------------

struct Linear : Fixture {
  std::vector<bf16> qkv;
  int stride;
  DeviceBuffer<bf16> device_qkv;
  DeviceBuffer<uint8_t> scratch;

  Linear(const Shape& s, int rows, uint32_t seed) : Fixture(s, seed), stride(3 * s.heads * kDim + 8) {
    model.linear_layers = s.layers;
    qkv = random_bf16(static_cast<size_t>(rows) * stride, seed + 7, 1.5f);
    device_qkv = DeviceBuffer<bf16>(qkv);
    scratch = DeviceBuffer<uint8_t>(static_cast<size_t>(read_attention_scratch_bytes(model, rows)));
  }

  struct Memory {
    DeviceBuffer<float> s, open_k, open_v;
    int64_t position = 0;
    SessionView view() const { return {s.get(), open_k.get(), open_v.get(), nullptr, position}; }
  };
  Memory memory() const {
    const size_t heads = static_cast<size_t>(shape.layers) * shape.heads;
    return {DeviceBuffer<float>(heads * kDim * kDim), DeviceBuffer<float>(heads * 64 * kDim),
            DeviceBuffer<float>(heads * 64 * kDim), 0};
  }
  Memory empty() const {
    Memory m = memory();
    m.s.upload(std::vector<float>(m.s.count(), 0.0f));
    return m;
  }
  // As after `position` tokens: rows that are open are numbers, the others stay poison.
  Memory filled(int64_t position, uint32_t seed) const {
    Memory m = memory();
    m.s.upload(random_floats(m.s.count(), seed, 3.0f));
    std::vector<float> k = random_floats(m.open_k.count(), seed + 1), v = random_floats(m.open_v.count(), seed + 2);
    for (size_t i = 0; i < k.size(); ++i)
      if (static_cast<int64_t>(i / kDim % 64) >= position % 64) k[i] = v[i] = std::nanf("");
    m.open_k.upload(k);
    m.open_v.upload(v);
    m.position = position;
    return m;
  }

  // Rows first .. first + rows - 1 of qkv.
  std::vector<float> run(const Memory& from, Memory& to, int first, int rows) {
    DeviceBuffer<float> mixed(static_cast<size_t>(rows) * width());
    scratch.poison();
    const ReadAttention call{&model,       &layer, device_qkv.get() + static_cast<int64_t>(first) * stride,
                             stride,       rows,   from.view(),
                             scratch.get()};
    const Status status = read_linear_attention(call, to.view(), mixed.get(), nullptr);
    CHECK(status.ok());
    MUST(cudaDeviceSynchronize());
    to.position = from.position + rows;
    return mixed.download();
  }
};

struct LinearWant {
  std::vector<double> mixed, s, open_k, open_v;  // of the layer
};

LinearWant linear_reference(const Linear& f, const Linear::Memory& from, int rows) {
  const int heads = f.shape.heads, open = static_cast<int>(from.position % 64);
  const int last = static_cast<int>((from.position + rows) / 64 * 64 - from.position);  // the first row left open
  const size_t state = static_cast<size_t>(heads) * kDim * kDim, opens = static_cast<size_t>(heads) * 64 * kDim;
  const std::vector<float> s = from.s.download(), k0 = from.open_k.download(), v0 = from.open_v.download();
  LinearWant want{std::vector<double>(static_cast<size_t>(rows) * f.width()), std::vector<double>(state),
                  std::vector<double>(opens, 0.0), std::vector<double>(opens, 0.0)};
  for (int h = 0; h < heads; ++h) {
    std::vector<double> S(kDim * kDim);
    for (int i = 0; i < kDim * kDim; ++i) S[i] = s[f.shape.layer * state + static_cast<size_t>(h) * kDim * kDim + i];
    const auto keep = [&] {
      for (int i = 0; i < kDim * kDim; ++i) want.s[static_cast<size_t>(h) * kDim * kDim + i] = S[i];
    };
    keep();
    const double decay = std::exp(-static_cast<double>(f.slopes[h]));
    for (int r = -open; r < rows; ++r) {
      std::vector<double> q(kDim, 0.0), k(kDim), v(kDim);
      const int64_t position = from.position + r;
      if (r < 0) {
        for (int i = 0; i < kDim; ++i) {
          const size_t at = f.shape.layer * opens + (static_cast<size_t>(h) * 64 + open + r) * kDim + i;
          k[i] = k0[at], v[i] = v0[at];
        }
      } else {
        const bf16* row = f.qkv.data() + static_cast<size_t>(r) * f.stride + h * kDim;
        q = f.prepared(row, f.query_norm, position, f.shape.silu != 0);
        k = f.prepared(row + f.width(), f.key_norm, position, f.shape.silu != 0);
        for (int i = 0; i < kDim; ++i) {
          v[i] = from_bf16(row[2 * f.width() + i]);
          if (f.shape.silu != 0) v[i] /= 1.0 + std::exp(-v[i]);
        }
      }
      if (r >= last) {
        const size_t at = (static_cast<size_t>(h) * 64 + static_cast<size_t>(position % 64)) * kDim;
        for (int i = 0; i < kDim; ++i) want.open_k[at + i] = k[i], want.open_v[at + i] = v[i];
      }
      for (int a = 0; a < kDim; ++a)
        for (int b = 0; b < kDim; ++b) S[a * kDim + b] = decay * S[a * kDim + b] + k[a] * v[b];
      if (r == last - 1) keep();
      if (r < 0) continue;
      double* out = &want.mixed[static_cast<size_t>(r) * f.width() + h * kDim];
      for (int a = 0; a < kDim; ++a)
        for (int b = 0; b < kDim; ++b) out[b] += q[a] * 0.08838834764831845 * S[a * kDim + b];
    }
  }
  return want;
}

template <class T>
std::vector<T> part_of(const std::vector<T>& all, int layers, int layer) {
  const size_t count = all.size() / layers;
  return std::vector<T>(all.begin() + count * layer, all.begin() + count * (layer + 1));
}

// Rows of an open chunk, the others left out.
std::vector<float> open_rows(const std::vector<float>& all, int count) {
  std::vector<float> out;
  for (size_t i = 0; i < all.size(); ++i)
    if (static_cast<int>(i / kDim % 64) < count) out.push_back(all[i]);
  return out;
}
std::vector<double> open_rows(const std::vector<double>& all, int count) {
  std::vector<double> out;
  for (size_t i = 0; i < all.size(); ++i)
    if (static_cast<int>(i / kDim % 64) < count) out.push_back(all[i]);
  return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void check_linear(const Shape& shape, int64_t position, int rows, uint32_t seed) {
  Linear f(shape, rows, seed);
  const Linear::Memory from = f.filled(position, seed + 20);
  const std::vector<float> s = from.s.download(), k = from.open_k.download(), v = from.open_v.download();
  Linear::Memory to = f.memory();
  const std::vector<float> untouched = to.s.download();
  const std::vector<float> mixed = f.run(from, to, 0, rows);
  const LinearWant want = linear_reference(f, from, rows);
  const double error = relative_error(mixed, want.mixed);
  const std::vector<float> next_s = to.s.download();
  const double s_error = relative_error(part_of(next_s, shape.layers, shape.layer), want.s);
  std::printf("  position %lld rows %d heads %d rotary %d: o %.2e, S %.2e\n", static_cast<long long>(position), rows,
              shape.heads, shape.rotary, error, s_error);
  CHECK(error < 5e-3);
  CHECK(s_error < 3e-3);
  const int open = static_cast<int>((position + rows) % 64);
  const auto open_error = [&](const DeviceBuffer<float>& got, const std::vector<double>& expected) {
    return open == 0 ? 0.0
                     : relative_error(open_rows(part_of(got.download(), shape.layers, shape.layer), open),
                                      open_rows(expected, open));
  };
  CHECK(open_error(to.open_k, want.open_k) < 2e-6);
  CHECK(open_error(to.open_v, want.open_v) < 1e-6);
  CHECK(same_bits(from.s.download(), s) && same_bits(from.open_k.download(), k));
  CHECK(same_bits(from.open_v.download(), v));
  for (int layer = 0; layer < shape.layers; ++layer)
    if (layer != shape.layer)
      CHECK(same_bits(part_of(next_s, shape.layers, layer), part_of(untouched, shape.layers, layer)));
}

TEST("linear attention is the recurrence, whatever is open before and after") {
  uint32_t seed = 100;
  for (const int rows : {1, 2, 7, 63, 64, 65, 130, 200, 333})
    for (const int64_t position : {0, 1, 63, 64, 100}) check_linear({}, position, rows, seed += 31);
}

TEST("linear attention with other heads, rotations, silu and layers") {
  check_linear({.heads = 16}, 37, 150, 1);
  check_linear({.heads = 20, .rotary = 128}, 60, 100, 2);
  check_linear({.heads = 32, .layers = 2, .layer = 1}, 5, 190, 3);
  check_linear({.heads = 3, .rotary = 16, .layers = 3, .layer = 1}, 64, 129, 4);
  check_linear({.heads = 2, .silu = 1}, 10, 77, 5);
}

TEST("linear attention at far positions, where angles are large") {
  check_linear({}, 65600, 150, 11);
  check_linear({.heads = 4}, 131000, 100, 12);
}

TEST("linear attention: ends of slabs change no bit") {
  for (const int heads : {3, 18}) {
    constexpr int kRows = 500;
    Linear f({.heads = heads}, kRows, 77);
    const Linear::Memory empty = f.empty();
    Linear::Memory whole = f.memory();
    const std::vector<float> mixed = f.run(empty, whole, 0, kRows);
    const std::vector<float> s = whole.s.download();
    const std::vector<float> k = open_rows(whole.open_k.download(), kRows % 64);
    const std::vector<float> v = open_rows(whole.open_v.download(), kRows % 64);
    const std::vector<std::vector<int>> splits = {{1, 499}, {63, 1, 1, 435}, {64, 436}, {200, 7, 121, 172}, {450, 50}};
    for (const std::vector<int>& split : splits) {
      Linear::Memory now = f.empty();
      std::vector<float> pieces;
      int first = 0;
      for (const int rows : split) {
        Linear::Memory next = f.memory();
        const std::vector<float> piece = f.run(now, next, first, rows);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
        now = std::move(next);
        first += rows;
      }
      CHECK(same_bits(pieces, mixed));
      CHECK(same_bits(now.s.download(), s));
      CHECK(same_bits(open_rows(now.open_k.download(), kRows % 64), k));
      CHECK(same_bits(open_rows(now.open_v.download(), kRows % 64), v));
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

struct Softmax : Fixture {
  std::vector<bf16> qkv;
  int stride;
  DeviceBuffer<bf16> device_qkv;
  DeviceBuffer<uint8_t> scratch, pool;
  DeviceBuffer<uint8_t*> pages;
  std::vector<uint8_t*> page_list;
  int64_t part_bytes;

  Softmax(const Shape& s, int64_t tokens, int rows, uint32_t seed)
      : Fixture(s, seed), stride((s.heads + 2 * s.kv_heads) * kDim + 8) {
    model.softmax_layers = s.layers, model.kv_format = s.kv;
    model.config.context_tokens = static_cast<int32_t>(tokens);
    qkv = random_bf16(static_cast<size_t>(rows) * stride, seed + 7, 1.5f);
    device_qkv = DeviceBuffer<bf16>(qkv);
    scratch = DeviceBuffer<uint8_t>(static_cast<size_t>(read_attention_scratch_bytes(model, rows)));
    const int64_t count = (tokens + kPageTokens - 1) / kPageTokens;
    part_bytes = page_part_bytes(s.kv);
    const int64_t page_bytes = static_cast<int64_t>(s.layers) * s.kv_heads * 2 * part_bytes;
    pool = DeviceBuffer<uint8_t>(static_cast<size_t>(count * page_bytes));
    // Pages of a session lie anywhere.
    for (int64_t i = 0; i < count; ++i) page_list.push_back(pool.get() + (count - 1 - i) * page_bytes);
    pages = DeviceBuffer<uint8_t*>(page_list);
  }
  bool has_codes() const { return shape.kv == RS_KV_Q8; }
  // Where the pool has the key or the value of a position; `scale`: its scale.
  int64_t row_at(int64_t position, int kv_head, int is_value, bool scale = false) const {
    const int64_t slot = position % kPageTokens, part = (shape.layer * shape.kv_heads + kv_head) * 2 + is_value;
    return page_list[static_cast<size_t>(position / kPageTokens)] - pool.get() + part * part_bytes +
           (scale ? page_part_values() + 4 * slot : slot * row_bytes());
  }
  int64_t row_bytes() const { return has_codes() ? kDim : 2 * kDim; }
  // The kernel of this card, or the one of every card with the queries that the call left in scratch.
  std::vector<bf16> run(int64_t position, int first, int rows, bool portable) {
    DeviceBuffer<bf16> mixed(static_cast<size_t>(rows) * width());
    scratch.poison();
    CHECK(read_softmax_attention(attention_call(position, first, rows), mixed.get(), nullptr).ok());
    if (portable) {
      mixed.poison();
      CHECK(run_flash_attention(flash_call(position, rows, mixed.get()), nullptr).ok());
    }
    MUST(cudaDeviceSynchronize());
    return mixed.download();
  }
  ReadAttention attention_call(int64_t position, int first, int rows) const {
    const bf16* from = device_qkv.get() + static_cast<int64_t>(first) * stride;
    const SessionView session{nullptr, nullptr, nullptr, pages.get(), position};
    return {&model, &layer, from, stride, rows, session, scratch.get()};
  }
  // Of codes the flash kernels read a copy as bf16, which the call before left in scratch, behind its table.
  FlashCall flash_call(int64_t position, int rows, bf16* mixed) const {
    const size_t table_at = (static_cast<size_t>(rows) * width() * sizeof(bf16) + 255) / 256 * 256;
    return {.queries = reinterpret_cast<const bf16*>(scratch.get()),
            .mixed = mixed,
            .pages = has_codes() ? reinterpret_cast<bf16* const*>(scratch.get() + table_at)
                                 : reinterpret_cast<bf16* const*>(pages.get()),
            .layer_at = has_codes() ? 0 : shape.layer * shape.kv_heads * 2 * page_part_values(),
            .position = static_cast<int>(position),
            .rows = rows,
            .heads = shape.heads,
            .kv_heads = shape.kv_heads};
  }
  // Key or value of a position, from the pages.
  std::vector<float> held(const std::vector<uint8_t>& all, int64_t position, int kv_head, int is_value) const {
    const uint8_t* row = &all[static_cast<size_t>(row_at(position, kv_head, is_value))];
    std::vector<float> out(kDim);
    if (has_codes()) {
      float scale = 0.0f;
      std::memcpy(&scale, &all[static_cast<size_t>(row_at(position, kv_head, is_value, true))], 4);
      for (int i = 0; i < kDim; ++i) out[i] = static_cast<float>(static_cast<int8_t>(row[i])) * scale;
    } else {
      for (int i = 0; i < kDim; ++i) out[i] = from_bf16(reinterpret_cast<const bf16*>(row)[i]);
    }
    return out;
  }
};

// Random keys and values for the positions before `position`, of this layer alone.
void fill_pages(Softmax& f, int64_t position, uint32_t seed) {
  std::vector<uint8_t> all = f.pool.download();
  std::mt19937 random(seed);
  const std::vector<bf16> values = random_bf16(1 << 16, seed);
  for (int64_t p = 0; p < position; ++p)
    for (int part = 0; part < 2 * f.shape.kv_heads; ++part) {
      uint8_t* row = &all[static_cast<size_t>(f.row_at(p, part / 2, part % 2))];
      const bf16* from = values.data() + random() % ((1 << 16) - kDim);
      if (!f.has_codes()) {
        std::memcpy(row, from, kDim * sizeof(bf16));
        continue;
      }
      const float scale = 0.02f + 0.01f * static_cast<float>(random() % 3);
      std::memcpy(&all[static_cast<size_t>(f.row_at(p, part / 2, part % 2, true))], &scale, 4);
      for (int i = 0; i < kDim; ++i) row[i] = static_cast<uint8_t>(static_cast<int8_t>(from_bf16(from[i]) * 28.0f));
    }
  f.pool.upload(all);
}

// From keys and values as the pages hold them after the call; that those are right is checked beside.
std::vector<double> softmax_reference(const Softmax& f, int64_t position, int rows, double& key_error) {
  const std::vector<uint8_t> all = f.pool.download();
  const int group = f.shape.heads / f.shape.kv_heads;
  std::vector<double> out(static_cast<size_t>(rows) * f.width());
  double off = 0.0, size = 0.0;
  for (int kv = 0; kv < f.shape.kv_heads; ++kv) {
    std::vector<std::vector<float>> k, v;
    for (int64_t p = 0; p < position + rows; ++p)
      k.push_back(f.held(all, p, kv, 0)), v.push_back(f.held(all, p, kv, 1));
    for (int r = 0; r < rows; ++r) {
      const bf16* row = f.qkv.data() + static_cast<size_t>(r) * f.stride;
      const std::vector<double> key = f.prepared(row + f.width() + kv * kDim, f.key_norm, position + r, false);
      for (int i = 0; i < kDim; ++i) {
        const double value = from_bf16(row[f.width() + (f.shape.kv_heads + kv) * kDim + i]);
        off += std::pow(k[position + r][i] - key[i], 2) + std::pow(v[position + r][i] - value, 2);
        size += key[i] * key[i] + value * value;
      }
      for (int h = kv * group; h < (kv + 1) * group; ++h) {
        const std::vector<double> q = f.prepared(row + h * kDim, f.query_norm, position + r, false);
        std::vector<double> score(static_cast<size_t>(position + r + 1));
        double top = -1e300, sum = 0.0;
        for (size_t j = 0; j < score.size(); ++j) {
          for (int i = 0; i < kDim; ++i) score[j] += q[i] * k[j][i];
          top = std::max(top, score[j] *= 0.08838834764831845);
        }
        double* to = &out[static_cast<size_t>(r) * f.width() + h * kDim];
        for (size_t j = 0; j < score.size(); ++j) {
          const double weight = std::exp(score[j] - top);
          sum += weight;
          for (int i = 0; i < kDim; ++i) to[i] += weight * v[j][i];
        }
        for (int i = 0; i < kDim; ++i) to[i] /= sum;
      }
    }
  }
  key_error = std::sqrt(off / size);
  return out;
}

void check_softmax(const Shape& shape, int64_t position, int rows, uint32_t seed) {
  Softmax f(shape, position + rows, rows, seed);
  fill_pages(f, position, seed + 3);
  const std::vector<uint8_t> before = f.pool.download();
  const std::vector<bf16> mixed = f.run(position, 0, rows, false), portable = f.run(position, 0, rows, true);
  double key_error = 0.0;
  const std::vector<double> want = softmax_reference(f, position, rows, key_error);
  const double error = relative_error(mixed, want), portable_error = relative_error(portable, want);
  std::printf("  %s, position %lld rows %d heads %d / %d: o %.2e, with mma.sync %.2e, keys %.2e\n",
              f.has_codes() ? "8 bits" : "bf16", static_cast<long long>(position), rows, shape.heads, shape.kv_heads,
              error, portable_error, key_error);
  CHECK(error < 6e-3);
  CHECK(portable_error < 6e-3);
  // Half a step of 1 / 127 of the largest of 128 numbers, or of bf16.
  CHECK(key_error < (f.has_codes() ? 1e-2 : 3e-3));
  // Nothing but the rows' keys and values of this layer was written.
  std::vector<uint8_t> after = f.pool.download();
  const auto take_back = [&](int64_t at, int64_t bytes) {
    std::copy(before.begin() + at, before.begin() + at + bytes, after.begin() + at);
  };
  for (int64_t p = position; p < position + rows; ++p)
    for (int part = 0; part < 2 * shape.kv_heads; ++part) {
      take_back(f.row_at(p, part / 2, part % 2), f.row_bytes());
      if (f.has_codes()) take_back(f.row_at(p, part / 2, part % 2, true), 4);
    }
  CHECK(same_bits(before, after));
}

TEST("softmax attention is the softmax, over odd numbers of rows and keys") {
  uint32_t seed = 500;
  for (const int rows : {1, 2, 7, 31, 63, 64, 65, 130, 200, 333})
    for (const int64_t position : {0, 1, 63, 200})
      for (const rs_kv_format kv : {RS_KV_BF16, RS_KV_Q8})
        check_softmax({.heads = 4, .kv = kv}, position, rows, seed += 31);
}

TEST("softmax attention with other heads, rotations and layers") {
  check_softmax({.heads = 16, .kv_heads = 4}, 300, 150, 1);
  check_softmax({.heads = 8, .kv_heads = 1, .rotary = 128}, 60, 100, 2);
  check_softmax({.heads = 4, .kv_heads = 4, .layers = 2, .layer = 1}, 5, 290, 3);
  check_softmax({.heads = 6, .kv_heads = 2, .rotary = 16, .layers = 3, .layer = 1}, 256, 129, 4);
  check_softmax({.heads = 32, .kv_heads = 2}, 20, 77, 5);
  check_softmax({.heads = 6, .kv_heads = 2, .rotary = 16, .layers = 3, .layer = 1, .kv = RS_KV_Q8}, 256, 129, 6);
}

TEST("softmax attention at far positions") {
  check_softmax({.heads = 4}, 65611, 20, 11);
  check_softmax({.heads = 2}, 131000, 9, 12);
  check_softmax({.heads = 4, .kv = RS_KV_Q8}, 65611, 20, 13);
}

TEST("softmax attention: ends of slabs change no bit") {
  for (const int round : {0, 1, 2}) {
    const bool portable = round == 1;
    const int kv_heads = portable ? 1 : 3;
    constexpr int kRows = 700;
    const Shape shape{.heads = 2 * kv_heads, .kv_heads = kv_heads, .kv = round == 2 ? RS_KV_Q8 : RS_KV_BF16};
    Softmax whole(shape, kRows, kRows, 9);
    const std::vector<bf16> mixed = whole.run(0, 0, kRows, portable);
    const std::vector<uint8_t> held = whole.pool.download();
    const std::vector<std::vector<int>> splits = {{1, 699}, {63, 1, 1, 635}, {64, 636}, {200, 7, 121, 372}, {650, 50}};
    for (const std::vector<int>& split : splits) {
      Softmax f(shape, kRows, kRows, 9);
      std::vector<bf16> pieces;
      int first = 0;
      for (const int rows : split) {
        const std::vector<bf16> piece = f.run(first, first, rows, portable);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
        first += rows;
      }
      CHECK(same_bits(pieces, mixed));
      CHECK(same_bits(f.pool.download(), held));
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

// Keys and values as norms leave them, of about 1, in pages of bf16; where they hold codes, the same bits as codes and
// as scales do for a timing.
__global__ void random_numbers(bf16* out, size_t count) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + 77u;
    x = (x ^ x >> 15) * 2246822519u;
    out[i] = __float2bfloat16_rn((static_cast<float>((x ^ x >> 13) >> 8) / 16777216.0f - 0.5f) * 3.46f);
  }
}

// Mini: 16 heads, 4 kv heads. 4,096 rows a slab.
TEST("--bench") {
  if (!bench_asked) return;
  for (const int heads : {16, 32}) {
    for (const int rows : {512, 4096}) {
      Linear f({.heads = heads}, rows, 1);
      const Linear::Memory from = f.filled(1000, 2);
      Linear::Memory to = f.memory();
      DeviceBuffer<float> mixed(static_cast<size_t>(rows) * f.width());
      const ReadAttention call{&f.model, &f.layer, f.device_qkv.get(), f.stride, rows, from.view(), f.scratch.get()};
      const double ms = median_ms(30, [&](int) { (void)read_linear_attention(call, to.view(), mixed.get(), nullptr); });
      std::printf("  linear, %d heads, %d rows: %.3f ms\n", heads, rows, ms);
    }
  }
  struct Timing {
    int64_t position;
    rs_kv_format kv;
  };
  for (const auto [position, kv] :
       {Timing{0, RS_KV_BF16}, Timing{28672, RS_KV_BF16}, Timing{126976, RS_KV_BF16}, Timing{126976, RS_KV_Q8}}) {
    constexpr int kRows = 4096;
    Softmax f({.heads = 16, .kv_heads = 4, .kv = kv}, position + kRows, kRows, 1);
    random_numbers<<<1024, 256>>>(reinterpret_cast<bf16*>(f.pool.get()), f.pool.count() / 2);
    DeviceBuffer<bf16> mixed(static_cast<size_t>(kRows) * f.width());
    const ReadAttention call = f.attention_call(position, 0, kRows);
    const double tflop = 4.0 * 128 * 16 * kRows * (position + kRows / 2.0) * 1e-12;
    const auto print = [&](const char* name, double ms) {
      std::printf("  %s, %d rows to %lld keys%s: %.3f ms, %.0f TFLOP/s\n", name, kRows,
                  static_cast<long long>(position + kRows), f.has_codes() ? " of 8 bits" : "", ms, tflop / ms * 1e3);
    };
    print("softmax", median_ms(20, [&](int) { (void)read_softmax_attention(call, mixed.get(), nullptr); }));
    const FlashCall flash = f.flash_call(position, kRows, mixed.get());
    print("of it, mma.sync", median_ms(10, [&](int) { (void)run_flash_attention(flash, nullptr); }));
  }
}

}  // namespace
