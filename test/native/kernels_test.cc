// Owns: every kernel against slow scalar arithmetic in double, over odd sizes and on each instruction set present.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/rope.h"
#include "cpu/kernels/router.h"
#include "random_model.h"

namespace {

using namespace ringside::cpu;
using random_model::Random;

std::vector<float> random_values(Random& random, int64_t count, float reach = 1.0f) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = random.uniform(-reach, reach);
  return values;
}

void check_close(double got, double expected, double bound, const std::string& what) {
  if (std::abs(got - expected) <= bound * std::max(1.0, std::abs(expected))) return;
  check::fail(__FILE__, __LINE__, what + ": " + std::to_string(got) + " is not " + std::to_string(expected));
}

// A packed matrix that owns its tiles, and the values it stands for.
struct Packed {
  PackedMatrix matrix;
  std::vector<uint8_t> tiles;
  std::vector<double> values;  // [rows, columns]
};

Packed random_matrix(Random& random, rs_weight_format format, int64_t rows, int64_t columns) {
  Packed packed;
  std::vector<float> f32;
  std::vector<uint16_t> bf16;
  for (int64_t i = 0; i < rows * columns; ++i) {
    f32.push_back(random.uniform(-1.0f, 1.0f));
    bf16.push_back(random_model::bf16_of(f32.back()));
    const uint32_t bits = static_cast<uint32_t>(bf16.back()) << 16;
    float rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    packed.values.push_back(format == RS_WEIGHT_BF16 ? rounded : f32.back());
  }
  rs_matrix stored{};
  stored.format = format;
  stored.rows = rows;
  stored.cols = columns;
  stored.data = format == RS_WEIGHT_F32 ? static_cast<const void*>(f32.data()) : bf16.data();
  packed.matrix = packed_shape_unquantized(stored);
  packed.tiles.resize(static_cast<size_t>(packed_bytes(packed.matrix)));
  for (int64_t tile = 0; tile < packed.matrix.tile_count(); ++tile) {
    pack_tile(stored, tile * kTileRows, packed.matrix, packed.tiles.data() + tile * packed.matrix.tile_bytes());
  }
  packed.matrix.tiles = packed.tiles.data();
  return packed;
}

// y [rows, padded outputs] of all tiles.
std::vector<float> multiply(const Kernels& kernels, const PackedMatrix& w, const std::vector<float>& x, int64_t rows) {
  const int64_t stride = w.tile_count() * kTileRows;
  std::vector<float> y(static_cast<size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
  std::vector<float> panel(static_cast<size_t>(kUnscaledGroupColumns * kTileRows));
  for (int64_t tile = 0; tile < w.tile_count(); ++tile) {
    kernels.matmul_tile(w, tile, x.data(), w.columns, rows, y.data() + tile * kTileRows, stride, panel.data());
  }
  return y;
}

constexpr int64_t kOddSizes[] = {1, 7, 63, 64, 65, 130, 500};

}  // namespace

TEST("products of unquantised matrices of every size are right, and rows do not depend on their company") {
  Random random(1);
  for (const rs_weight_format format : {RS_WEIGHT_F32, RS_WEIGHT_BF16}) {
    for (const int64_t outputs : kOddSizes) {
      for (const int64_t columns : kOddSizes) {
        const Packed w = random_matrix(random, format, outputs, columns);
        const int64_t rows = 23;
        const std::vector<float> x = random_values(random, rows * columns);
        for (const Kernels* kernels : available_kernels()) {
          const std::vector<float> y = multiply(*kernels, w.matrix, x, rows);
          const int64_t stride = w.matrix.tile_count() * kTileRows;
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t n = 0; n < outputs; ++n) {
              double sum = 0.0;
              double size = 0.0;
              for (int64_t k = 0; k < columns; ++k) {
                const double product = static_cast<double>(x[static_cast<size_t>(r * columns + k)]) *
                                       w.values[static_cast<size_t>(n * columns + k)];
                sum += product;
                size += std::abs(product);
              }
              check_close(y[static_cast<size_t>(r * stride + n)] / (size + 1e-9), sum / (size + 1e-9), 2e-6,
                          kernels->isa);
            }
          }
          for (const int64_t part : {1, 2, 5, 9}) {
            const std::vector<float> first(x.begin(), x.begin() + part * columns);
            const std::vector<float> alone = multiply(*kernels, w.matrix, first, part);
            CHECK(std::memcmp(alone.data(), y.data(), alone.size() * sizeof(float)) == 0);
          }
        }
      }
    }
  }
}

TEST("the vector instruction sets give equal products") {
  Random random(2);
  const Packed w = random_matrix(random, RS_WEIGHT_BF16, 130, 256);
  const std::vector<float> x = random_values(random, 40 * 256);
  std::vector<float> before;
  for (const Kernels* kernels : available_kernels()) {
    if (std::string(kernels->isa) == "plain") continue;  // rounds product and sum apart
    const std::vector<float> y = multiply(*kernels, w.matrix, x, 40);
    if (!before.empty()) CHECK(std::memcmp(before.data(), y.data(), y.size() * sizeof(float)) == 0);
    before = y;
  }
}

TEST("silu, gated silu and the sigmoid gate are right from tails to far out") {
  for (const int64_t count : {1, 3, 7, 16, 63, 65, 500}) {
    Random random(static_cast<uint64_t>(count));
    std::vector<float> x = random_values(random, count, 20.0f);
    x[0] = 95.0f;
    x.back() = -95.0f;
    const std::vector<float> other = random_values(random, count);
    const auto sigmoid = [](double value) { return 1.0 / (1.0 + std::exp(-value)); };
    for (const Kernels* kernels : available_kernels()) {
      std::vector<float> silu = x;
      std::vector<float> gated = x;
      std::vector<float> gate = other;
      kernels->silu(silu.data(), count);
      kernels->silu_multiply(gated.data(), other.data(), count);
      kernels->sigmoid_gate(gate.data(), x.data(), count);
      for (size_t i = 0; i < x.size(); ++i) {
        check_close(silu[i], x[i] * sigmoid(x[i]), 1e-6, kernels->isa);
        check_close(gated[i], x[i] * sigmoid(x[i]) * other[i], 1e-6, kernels->isa);
        check_close(gate[i], other[i] * sigmoid(x[i]), 1e-6, kernels->isa);
      }
    }
  }
}

TEST("the exponential keeps its digits over the range that attention uses") {
  for (const Kernels* kernels : available_kernels()) {
    std::vector<float> x;
    for (float value = -80.0f; value <= 40.0f; value += 0.037f) x.push_back(value);
    // sigmoid(x) / (1 - sigmoid(x)) would lose digits; x sigmoid(x) of very negative x is x e^x.
    std::vector<float> silu = x;
    kernels->silu(silu.data(), static_cast<int64_t>(silu.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = x[i] / (1.0 + std::exp(-static_cast<double>(x[i])));
      CHECK(std::abs(silu[i] - expected) <= 4e-7 * std::abs(expected) + 1e-44);
    }
  }
}

TEST("RMS norm of odd widths is right and may work in place") {
  for (const int64_t count : kOddSizes) {
    Random random(static_cast<uint64_t>(count));
    const std::vector<float> x = random_values(random, count, 3.0f);
    const std::vector<float> weight = random_values(random, count);
    double squares = 0.0;
    for (const float value : x) squares += static_cast<double>(value) * value;
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(count) + 1e-6);
    std::vector<float> first;
    for (const Kernels* kernels : available_kernels()) {
      std::vector<float> out = x;
      kernels->rms_norm(out.data(), weight.data(), 1e-6f, count, out.data());
      for (size_t i = 0; i < x.size(); ++i) check_close(out[i], x[i] * inverse * weight[i], 1e-6, kernels->isa);
      if (first.empty()) first = out;
      CHECK(std::memcmp(first.data(), out.data(), out.size() * sizeof(float)) == 0);
    }
  }
}

TEST("the angles of positions are fp32 products with exact cosines") {
  const std::vector<float> inv_freq = {1.0f, 0.31622776f, 0.1f, 0.0031622776f};
  for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{4097}, int64_t{131071}}) {
    std::vector<float> cosines(4), sines(4);
    rope_angles(position, inv_freq.data(), 4, cosines.data(), sines.data());
    for (size_t j = 0; j < 4; ++j) {
      const double angle = static_cast<float>(position) * inv_freq[j];
      check_close(cosines[j], std::cos(angle), 1e-7, "cosine");
      check_close(sines[j], std::sin(angle), 1e-7, "sine");
    }
  }
}

namespace {

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Choice choose(const RouterShape& shape, const std::vector<float>& logits, const std::vector<float>& bias) {
  Choice choice;
  choice.experts.resize(static_cast<size_t>(shape.experts_per_token));
  choice.weights.resize(static_cast<size_t>(shape.experts_per_token));
  std::vector<float> scores(logits.size());
  std::transform(logits.begin(), logits.end(), scores.begin(), [](float x) { return 1.0f / (1.0f + std::exp(-x)); });
  std::vector<float> scratch(static_cast<size_t>(shape.experts + shape.groups));
  choose_experts(shape, scores.data(), bias.data(), scratch.data(), choice.experts.data(), choice.weights.data());
  return choice;
}

}  // namespace

TEST("the router keeps the best groups by their two best experts, and takes weights from s, not c") {
  const RouterShape shape{8, 2, 4, 2, 2.5f};
  // Groups {0,1} {2,3} {4,5} {6,7}. Expert 4 is the best of all, but its group's sum of two is the third.
  const std::vector<float> logits = {1.0f, 0.9f, 0.8f, 0.7f, 2.0f, -9.0f, -8.0f, -8.0f};
  const std::vector<float> no_bias(8, 0.0f);
  const Choice plain = choose(shape, logits, no_bias);
  CHECK_EQ(plain.experts[0], 0);
  CHECK_EQ(plain.experts[1], 1);
  const double s0 = 1.0 / (1.0 + std::exp(-1.0));
  const double s1 = 1.0 / (1.0 + std::exp(-0.9));
  check_close(plain.weights[0], s0 / (s0 + s1) * 2.5, 1e-6, "weight");
  check_close(plain.weights[0] + plain.weights[1], 2.5, 1e-6, "sum of weights");

  std::vector<float> bias(8, 0.0f);
  bias[6] = bias[7] = 5.0f;  // steers the choice only
  const Choice steered = choose(shape, logits, bias);
  CHECK_EQ(steered.experts[0], 6);
  CHECK_EQ(steered.experts[1], 7);
  check_close(steered.weights[0], 1.25, 1e-6, "equal scores share the weight");
}

TEST("a masked group stays out even where every bias is negative") {
  const RouterShape shape{8, 3, 4, 2, 1.0f};
  const std::vector<float> bias(8, -3.0f);  // every c is below 0: a mask of 0 would win
  const Choice choice = choose(shape, {3.0f, 2.5f, -1.0f, -2.0f, -5.0f, -5.0f, -5.0f, -5.0f}, bias);
  CHECK_EQ(choice.experts[0], 0);
  CHECK_EQ(choice.experts[1], 1);
  CHECK_EQ(choice.experts[2], 2);
}

TEST("ties go to the lower index, among groups too") {
  const RouterShape shape{8, 4, 4, 2, 1.0f};
  const Choice choice = choose(shape, std::vector<float>(8, 0.5f), std::vector<float>(8, 0.0f));
  for (int32_t slot = 0; slot < 4; ++slot) CHECK_EQ(choice.experts[static_cast<size_t>(slot)], slot);
}

TEST("logits that are no numbers still give experts that exist") {
  const RouterShape shape{8, 4, 4, 2, 1.0f};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Choice& choice : {choose(shape, std::vector<float>(8, nan), std::vector<float>(8, 0.0f)),
                               choose(shape, {nan, 1, nan, 2, nan, nan, 3, 4}, std::vector<float>(8, 0.0f))}) {
    for (const int32_t expert : choice.experts) CHECK(expert >= 0 && expert < 8);
  }
}

TEST("an instruction set is found by name or refused") {
  CHECK_EQ(std::string(choose_kernels("plain").value()->isa), std::string("plain"));
  const Kernels* chosen = choose_kernels("").value();
  CHECK(runs_by_default(*chosen));
  bool is_better = false;  // what is better than the chosen one must be asked for by name
  for (const Kernels* table : available_kernels()) {
    if (is_better) CHECK(!runs_by_default(*table));
    is_better = is_better || table == chosen;
  }
  for (const char* name : {"dotprod", "i8mm"}) {
    if (const auto asked = choose_kernels(name); asked.ok())
      CHECK_EQ(std::string(asked.value()->isa), std::string(name));
  }
  const auto refused = choose_kernels("sse9");
  CHECK(!refused.ok());
  CHECK(refused.error().kind == ringside::ErrorKind::kArgumentInvalid);
  CHECK(refused.error().expected.find("avx512vnni") != std::string::npos);
  const auto elsewhere = choose_kernels(
#if defined(__x86_64__)
      "dotprod"
#else
      "avx2"
#endif
  );
  CHECK(!elsewhere.ok());
  CHECK(elsewhere.error().kind == ringside::ErrorKind::kBackendUnavailable);
}
