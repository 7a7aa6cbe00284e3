// Owns: embedding, norms and gates of the read path against double precision, over odd numbers of rows and every width
// that a kernel treats differently.
#include <cmath>
#include <cstring>

#include "check.h"
#include "cuda/kernels/read_rows.h"
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

constexpr float kEps = 1e-6f;

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void check_embedding(MatrixFormat format, int columns, int group_columns, bool offsets, uint32_t seed) {
  constexpr int kVocabulary = 112;
  const HostMatrix host = random_matrix(format, kVocabulary, columns, group_columns, offsets, seed);
  const DeviceStackData data = upload(host);
  DeviceModel model{};
  model.embedding = data.matrix();
  std::mt19937 random(seed);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 77; ++i) tokens.push_back(static_cast<int32_t>(random() % kVocabulary));
  tokens[0] = 0, tokens[1] = kVocabulary - 1;
  const DeviceBuffer<int32_t> ids(tokens);
  DeviceBuffer<float> residual(tokens.size() * columns);
  CHECK(embed_rows(model, ids.get(), static_cast<int64_t>(tokens.size()), residual.get(), nullptr).ok());
  const std::vector<float> got = residual.download();
  std::vector<double> want;
  for (const int32_t token : tokens)
    want.insert(want.end(), host.values.begin() + static_cast<int64_t>(token) * columns,
                host.values.begin() + static_cast<int64_t>(token + 1) * columns);
  CHECK(relative_error(got, want) < 1e-7);
}

TEST("embedding rows come out of every format") {
  check_embedding(MatrixFormat::kBF16, 128, 0, false, 1);
  check_embedding(MatrixFormat::kBF16, 2048, 0, false, 2);
  uint32_t seed = 10;
  for (const MatrixFormat format : {MatrixFormat::kQ8, MatrixFormat::kQ4, MatrixFormat::kFP8})
    for (const int group : {32, 64, 128})
      for (const bool offsets : {false, true})
        for (const int columns : {128, 640, 4224}) check_embedding(format, columns, group, offsets, ++seed);
}

// The norm of a row, times its weight.
std::vector<double> normed(const float* row, const float* weight, int width) {
  double sum = 0.0;
  for (int i = 0; i < width; ++i) sum += static_cast<double>(row[i]) * row[i];
  std::vector<double> out(static_cast<size_t>(width));
  for (int i = 0; i < width; ++i) out[i] = row[i] / std::sqrt(sum / width + kEps) * weight[i];
  return out;
}

void check_norm(int hidden, int rows, uint32_t seed) {
  const std::vector<float> residual = random_floats(static_cast<size_t>(rows) * hidden, seed, 3.0f);
  const std::vector<float> weight = random_floats(static_cast<size_t>(hidden), seed + 1);
  const DeviceBuffer<float> device_residual(residual), device_weight(weight);
  const int stride = hidden + 8, split_stride = 3 * hidden + 16;
  DeviceBuffer<bf16> out(static_cast<size_t>(rows) * stride), split(static_cast<size_t>(rows) * split_stride);
  CHECK(norm_rows(device_residual.get(), device_weight.get(), kEps, hidden, rows, out.get(), stride, nullptr).ok());
  CHECK(norm_rows_split(device_residual.get(), device_weight.get(), kEps, hidden, rows, split.get(), split_stride,
                        nullptr)
            .ok());
  const std::vector<bf16> got = out.download(), got_split = split.download();
  double off = 0.0, off_split = 0.0, size = 0.0;
  bool parts_agree = true;
  for (int r = 0; r < rows; ++r) {
    const std::vector<double> want = normed(&residual[static_cast<size_t>(r) * hidden], weight.data(), hidden);
    const bf16* one = &got[static_cast<size_t>(r) * stride];
    const bf16* three = &got_split[static_cast<size_t>(r) * split_stride];
    for (int i = 0; i < hidden; ++i) {
      const float high = from_bf16(three[i]);
      off += std::pow(from_bf16(one[i]) - want[i], 2), size += want[i] * want[i];
      off_split += std::pow(static_cast<double>(high) + from_bf16(three[hidden + i]) - want[i], 2);
      parts_agree &= high == from_bf16(three[2 * hidden + i]) && high == from_bf16(one[i]);
    }
  }
  CHECK(std::sqrt(off / size) < 3e-3);
  CHECK(std::sqrt(off_split / size) < 1e-5);
  CHECK(parts_agree);
}

TEST("norms, plain and split, of every width") {
  uint32_t seed = 40;
  for (const int hidden : {128, 384, 2048, 4096, 8192, 8320, 16384, 32768})
    for (const int rows : {1, 7, 65}) check_norm(hidden, rows, seed += 5);
}

TEST("a norm wider than a block holds is refused") {
  const Status status = norm_rows(nullptr, nullptr, kEps, 32768 + 128, 1, nullptr, 0, nullptr);
  CHECK(!status.ok());
  if (!status.ok()) CHECK(status.error().kind == ErrorKind::kArgumentInvalid);
}

struct GateCase {
  int width, groups, rows;
};

void check_gate(const GateCase& c, uint32_t seed) {
  const int stride = c.width + 24, group_width = c.width / c.groups;
  const std::vector<float> mixed = random_floats(static_cast<size_t>(c.rows) * c.width, seed, 2.0f);
  const std::vector<bf16> gate = random_bf16(static_cast<size_t>(c.rows) * stride, seed + 1, 4.0f);
  const std::vector<float> weight = random_floats(static_cast<size_t>(c.width), seed + 2);
  const DeviceBuffer<float> device_mixed(mixed), device_weight(weight);
  const DeviceBuffer<bf16> device_gate(gate);
  DeviceBuffer<bf16> out(static_cast<size_t>(c.rows) * c.width);
  CHECK(gate_rows(device_mixed.get(), device_gate.get(), stride, device_weight.get(), kEps, c.groups, c.width, c.rows,
                  out.get(), c.width, nullptr)
            .ok());
  std::vector<double> want;
  for (int r = 0; r < c.rows; ++r)
    for (int g = 0; g < c.groups; ++g) {
      const int first = g * group_width;
      const std::vector<double> x =
          normed(&mixed[static_cast<size_t>(r) * c.width + first], &weight[static_cast<size_t>(first)], group_width);
      for (int i = 0; i < group_width; ++i)
        want.push_back(x[i] / (1.0 + std::exp(-from_bf16(gate[static_cast<size_t>(r) * stride + first + i]))));
    }
  const std::vector<bf16> all = out.download();
  CHECK(relative_error(all, want) < 3e-3);
  // The last row alone.
  DeviceBuffer<bf16> alone(static_cast<size_t>(c.width));
  const int64_t last = c.rows - 1;
  CHECK(gate_rows(device_mixed.get() + last * c.width, device_gate.get() + last * stride, stride, device_weight.get(),
                  kEps, c.groups, c.width, 1, alone.get(), c.width, nullptr)
            .ok());
  CHECK(same_bits(alone.download(), std::vector<bf16>(all.end() - c.width, all.end())));
}

TEST("grouped norms times gates, of every group") {
  uint32_t seed = 90;
  const std::vector<GateCase> cases = {{128, 1, 1},   {256, 2, 7},   {2048, 4, 65}, {4096, 4, 9},  {2048, 1, 33},
                                       {4096, 1, 20}, {384, 3, 129}, {640, 2, 5},   {3072, 2, 64}, {2560, 1, 3}};
  for (const GateCase& c : cases) check_gate(c, seed += 7);
}

TEST("groups that no warp can hold, or that vectors do not divide, are refused") {
  CHECK(!gate_rows(nullptr, nullptr, 0, nullptr, kEps, 1, 4224, 1, nullptr, 0, nullptr).ok());
  CHECK(!gate_rows(nullptr, nullptr, 0, nullptr, kEps, 3, 128, 1, nullptr, 0, nullptr).ok());
}

// 4,096 rows of mini. Buffers rotate, so that the cache holds none of them.
TEST("--bench") {
  if (!bench_asked) return;
  constexpr int kRows = 4096, kHidden = 2048, kSets = 4;
  constexpr size_t kCount = static_cast<size_t>(kRows) * kHidden;
  std::vector<DeviceBuffer<float>> residual;
  std::vector<DeviceBuffer<bf16>> out, gate;
  for (int i = 0; i < kSets; ++i) {
    residual.emplace_back(kCount), out.emplace_back(3 * kCount), gate.emplace_back(kCount);
    random_floats_kernel<<<1024, 256>>>(residual.back().get(), kCount, 5 + i, -1.0f, 1.0f);
    random_floats_kernel<<<1024, 256>>>(reinterpret_cast<float*>(gate.back().get()), kCount / 2, 9 + i, -1.0f, 1.0f);
  }
  const DeviceBuffer<float> weight(random_floats(kHidden, 3));
  const auto print = [](const char* name, double ms, double bytes) {
    std::printf("  %s: %.4f ms, %.0f GB/s, %.0f %% of 3.0 TB/s\n", name, ms, bytes / ms * 1e-6,
                bytes / ms * 1e-6 / 30.0);
  };
  print("norm",
        median_ms(40,
                  [&](int i) {
                    (void)norm_rows(residual[i % kSets].get(), weight.get(), kEps, kHidden, kRows, out[i % kSets].get(),
                                    kHidden, nullptr);
                  }),
        6.0 * kCount);
  print("norm, split",
        median_ms(40,
                  [&](int i) {
                    (void)norm_rows_split(residual[i % kSets].get(), weight.get(), kEps, kHidden, kRows,
                                          out[i % kSets].get(), 3 * kHidden, nullptr);
                  }),
        10.0 * kCount);
  print("gate",
        median_ms(40,
                  [&](int i) {
                    (void)gate_rows(residual[i % kSets].get(), gate[i % kSets].get(), kHidden, weight.get(), kEps, 4,
                                    kHidden, kRows, out[i % kSets].get(), kHidden, nullptr);
                  }),
        8.0 * kCount);
  const DeviceStackData table = random_stack(MatrixFormat::kQ8, 157184, kHidden, 128, false, 1, 4);
  DeviceModel model{};
  model.embedding = table.matrix();
  std::mt19937 random(1);
  std::vector<int32_t> tokens(kRows);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 157184);
  const DeviceBuffer<int32_t> ids(tokens);
  print("embedding, 8-bit",
        median_ms(40, [&](int i) { (void)embed_rows(model, ids.get(), kRows, residual[i % kSets].get(), nullptr); }),
        5.0 * kCount);
}

}  // namespace
