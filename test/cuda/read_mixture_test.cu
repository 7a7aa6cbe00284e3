// The mixture-of-experts layer of the read path against its specification in double precision: the choice with its ties
// and groups, and the sum of the chosen experts.
#include <cinttypes>
#include <numeric>
#include <string>

#include "check.h"
#include "cuda/cuda_call.h"
#include "cuda/kernels/mixture_lists.h"
#include "cuda/kernels/read_mixture.h"
#include "device_data.h"

namespace ringside::cuda::test {
namespace {

void check_ok(const Status& status, const std::string& what) {
  if (!status.ok()) check::fail(__FILE__, __LINE__, what + ": " + status.error().message());
}

rs_config small_config() {
  rs_config c{};
  c.hidden = 256, c.experts = 16, c.experts_per_token = 4, c.expert_groups = 4, c.groups_per_token = 2;
  c.expert_width = c.shared_width = 128, c.routed_scale = 2.5f, c.expert_bias = 1;
  return c;
}

// Specification section 5, steps 2 to 5. Experts ascending.
void choose(const rs_config& c, const float* logits, const float* bias, int32_t* chosen, double* weights) {
  std::vector<float> score(c.experts), choice(c.experts);
  for (int e = 0; e < c.experts; e++) {
    score[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    choice[e] = score[e] + (bias != nullptr ? bias[e] : 0.0f);
  }
  const int group_experts = c.experts / c.expert_groups;
  std::vector<float> group_score;
  for (int g = 0; g < c.expert_groups; g++) {
    std::vector<float> of_group(choice.begin() + g * group_experts, choice.begin() + (g + 1) * group_experts);
    std::sort(of_group.rbegin(), of_group.rend());
    group_score.push_back(group_experts == 1 ? of_group[0] : of_group[0] + of_group[1]);
  }
  const auto best_first = [](const std::vector<float>& values) {
    std::vector<int> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
    return order;
  };
  const std::vector<int> groups = best_first(group_score);
  for (int g = c.groups_per_token; g < c.expert_groups; g++) {
    for (int i = 0; i < group_experts; i++) choice[groups[g] * group_experts + i] = -INFINITY;
  }
  std::vector<int> experts = best_first(choice);
  experts.resize(c.experts_per_token);
  std::sort(experts.begin(), experts.end());
  double total = 1e-20;
  for (const int e : experts) total += score[e];
  for (int s = 0; s < c.experts_per_token; s++) {
    chosen[s] = experts[s];
    weights[s] = score[experts[s]] / total * c.routed_scale;
  }
}

struct ListMemory {
  DeviceBuffer<int32_t> chosen, place, counts, starts, gather, tile_count;
  DeviceBuffer<float> weights;
  DeviceBuffer<RowTile> tiles;
  MixtureLists lists;
  ListMemory(const rs_config& c, bool shared, int64_t rows, int tile_rows)
      : chosen(rows * c.experts_per_token),
        place(rows * c.experts_per_token),
        counts(c.experts),
        starts(c.experts + 1),
        gather(rows * (c.experts_per_token + 1)),
        tile_count(1),
        weights(rows * c.experts_per_token),
        tiles(most_tiles(c, shared, rows, tile_rows)) {
    lists = MixtureLists{chosen.get(), weights.get(),    place.get(),
                         counts.get(), starts.get(),     gather.get(),
                         tiles.get(),  tile_count.get(), most_tiles(c, shared, rows, tile_rows),
                         tile_rows};
  }
};

TEST("the choice is the specification's, ties and groups and all") {
  struct Shape {
    int experts, slots, groups, groups_per_token;
  };
  for (const Shape& shape : {Shape{256, 8, 8, 4}, Shape{16, 4, 4, 2}, Shape{40, 3, 1, 1}, Shape{8, 8, 8, 8},
                             Shape{512, 10, 32, 5}, Shape{96, 32, 3, 2}}) {
    rs_config c = small_config();
    c.experts = shape.experts, c.experts_per_token = shape.slots, c.expert_groups = shape.groups;
    c.groups_per_token = shape.groups_per_token;
    const int64_t rows = 203;
    std::vector<float> logits = random_floats(rows * c.experts, std::random_device{}(), 2.0f);
    for (int64_t r = 0; r < rows; r += 2) {  // half of the rows with few different numbers: full of ties
      for (int e = 0; e < c.experts; e++) {
        logits[r * c.experts + e] = std::round(logits[r * c.experts + e]) * (r % 4 == 0 ? 0.5f : 0.0f);
      }
    }
    const std::vector<float> bias = random_floats(c.experts, 7, 0.2f), none;
    for (const std::vector<float>& b : {bias, none}) {
      ListMemory memory(c, false, rows, 64);
      const DeviceBuffer<float> device_logits(logits), device_bias(bias);
      check_ok(
          choose_experts(c, device_logits.get(), b.empty() ? nullptr : device_bias.get(), rows, memory.lists, nullptr),
          "choice");
      const std::vector<int32_t> chosen = memory.chosen.download();
      const std::vector<float> weights = memory.weights.download();
      std::vector<int32_t> want(c.experts_per_token);
      std::vector<double> want_weights(c.experts_per_token);
      for (int64_t r = 0; r < rows; r++) {
        choose(c, logits.data() + r * c.experts, b.empty() ? nullptr : b.data(), want.data(), want_weights.data());
        for (int s = 0; s < c.experts_per_token; s++) {
          CHECK_EQ(chosen[r * c.experts_per_token + s], want[s]);
          CHECK(std::abs(weights[r * c.experts_per_token + s] - want_weights[s]) < 1e-5);
        }
      }
    }
  }
}

TEST("numbers that are none still choose experts that exist") {
  const rs_config c = small_config();
  const std::vector<float> logits(c.experts * 3, NAN);
  ListMemory memory(c, true, 3, 32);
  const DeviceBuffer<float> device_logits(logits);
  check_ok(choose_experts(c, device_logits.get(), nullptr, 3, memory.lists, nullptr), "choice");
  const std::vector<int32_t> chosen = memory.chosen.download();
  for (size_t i = 0; i < chosen.size(); i++) {
    CHECK(chosen[i] >= 0 && chosen[i] < c.experts);
    if (i % c.experts_per_token != 0) CHECK(chosen[i] > chosen[i - 1]);
  }
}

TEST("every slot of every token is in its expert's list once, and tiles cover the lists") {
  for (const int64_t rows : {1, 5, 64, 1000}) {
    for (const bool shared : {false, true}) {
      const rs_config c = small_config();
      ListMemory memory(c, shared, rows, 32);
      std::vector<int32_t> chosen;
      std::mt19937 random(static_cast<uint32_t>(rows));
      for (int64_t r = 0; r < rows; r++) {  // expert 0 has every token, expert 15 none
        chosen.push_back(0);
        const int first = 1 + static_cast<int>(random() % 11);
        for (int s = 0; s < 3; s++) chosen.push_back(first + s);
      }
      memory.chosen.upload(chosen);
      check_ok(build_lists(c, shared, rows, memory.lists, nullptr), "lists");
      const std::vector<int32_t> place = memory.place.download(), starts = memory.starts.download(),
                                 gather = memory.gather.download();
      const int64_t places = rows * (c.experts_per_token + shared);
      std::vector<int> list_of(places, -1);
      const auto take = [&](int64_t at, int list, int64_t row) {
        CHECK(at >= 0 && at < places);
        if (at < 0 || at >= places) return;
        CHECK_EQ(list_of[at], -1);
        list_of[at] = list;
        CHECK_EQ(gather[at], row);
      };
      for (int64_t i = 0; i < rows * c.experts_per_token; i++) take(place[i], chosen[i], i / c.experts_per_token);
      for (int64_t r = 0; shared && r < rows; r++) take(starts[c.experts] + r, c.experts, r);
      const std::vector<RowTile> tiles = memory.tiles.download();
      const int count = memory.tile_count.download()[0];
      CHECK(count <= memory.lists.max_tiles);
      int64_t covered = 0;
      for (int t = 0; t < count; t++) {
        CHECK_EQ(tiles[t].first, covered);
        CHECK(tiles[t].rows >= 0 && tiles[t].rows <= 32);
        for (int i = 0; i < tiles[t].rows; i++) CHECK_EQ(list_of[covered++], tiles[t].matrix);
      }
      CHECK_EQ(covered, places);
    }
  }
}

// A layer on both sides.
struct Layer {
  rs_config config = small_config();
  std::vector<HostMatrix> gate, up, down;
  std::vector<double> router;  // [experts, hidden]
  DeviceStackData gate_up_data, down_data, router_data;
  DeviceBuffer<float> bias;
  DeviceModel model{};
  std::vector<float> host_bias;

  Layer(MatrixFormat format, int group, bool offsets, bool shared, bool router_low, uint32_t seed) {
    const int count = config.experts + shared;
    std::vector<HostMatrix> gate_up;
    for (int e = 0; e < count; e++) {
      gate.push_back(random_matrix(format, config.expert_width, config.hidden, group, offsets, seed++));
      up.push_back(random_matrix(format, config.expert_width, config.hidden, group, offsets, seed++));
      down.push_back(random_matrix(format, config.hidden, config.expert_width, group, offsets, seed++));
      gate_up.push_back(interleave(gate.back(), up.back()));
    }
    gate_up_data = upload(gate_up);
    down_data = upload(down);
    host_bias = random_floats(config.experts, seed++, 0.1f);
    bias = DeviceBuffer<float>(host_bias);
    HostMatrix wide{MatrixFormat::kBF16, config.experts, config.hidden * (router_low ? 3 : 2), 0, {}, {}, {}, {}, {}};
    const std::vector<float> w = random_floats(config.experts * config.hidden, seed++, 0.06f);
    for (int e = 0; e < config.experts; e++) {
      const float* row = w.data() + e * config.hidden;
      for (int part = 0; part < (router_low ? 3 : 2); part++) {
        for (int k = 0; k < config.hidden; k++) {
          const bf16 high = to_bf16(row[k]);
          wide.numbers.push_back(part < 2 ? high : to_bf16(row[k] - from_bf16(high)));
        }
      }
      for (int k = 0; k < config.hidden; k++) router.push_back(router_low ? row[k] : from_bf16(to_bf16(row[k])));
    }
    router_data = upload(wide);
    model.config = config;
    model.has_shared = shared;
    DeviceLayer layer{};
    layer.mlp = DeviceMlp{gate_up_data.stack, down_data.stack, config.expert_width};
    layer.router = router_data.matrix();
    layer.expert_bias = bias.get();
    model.layers.push_back(layer);
  }
};

// Rows [x_hi | x_lo | x_hi] of fp32 numbers.
std::vector<bf16> split_rows(const std::vector<float>& x, int64_t hidden) {
  std::vector<bf16> out;
  for (size_t r = 0; r < x.size(); r += hidden) {
    for (int part = 0; part < 3; part++) {
      for (int64_t k = 0; k < hidden; k++) {
        const bf16 high = to_bf16(x[r + k]);
        out.push_back(part == 1 ? to_bf16(x[r + k] - from_bf16(high)) : high);
      }
    }
  }
  return out;
}

struct Mixture {
  std::vector<float> residual, weights;
  std::vector<int32_t> chosen;
};

Mixture run_layer(const Layer& layer, const DeviceBuffer<bf16>& x, int64_t first, int64_t rows,
                  const std::vector<float>& before) {
  const int64_t hidden = layer.config.hidden, slots = layer.config.experts_per_token;
  DeviceBuffer<float> residual(before), weights(rows * slots);
  DeviceBuffer<int32_t> chosen(rows * slots);
  DeviceBuffer<uint8_t> scratch(read_mixture_scratch_bytes(layer.model, rows));
  check_ok(read_mixture(layer.model, layer.model.layers[0], ReadRows{x.get() + first * 3 * hidden, 3 * hidden, rows},
                        residual.get(), chosen.get(), weights.get(), scratch.get(), nullptr),
           "mixture");
  return Mixture{residual.download(), weights.download(), chosen.download()};
}

// Σ weights of the device times experts in double precision, plus the shared expert, plus `before`.
std::vector<double> mixture_reference(const Layer& layer, const std::vector<float>& x, const Mixture& got,
                                      const std::vector<float>& before) {
  const int hidden = layer.config.hidden, width = layer.config.expert_width, slots = layer.config.experts_per_token;
  std::vector<double> out(before.begin(), before.end());
  const auto add = [&](int64_t row, int expert, double weight) {
    std::vector<double> inner(width);
    for (int n = 0; n < width; n++) {
      double g = 0.0, u = 0.0;
      for (int k = 0; k < hidden; k++) {
        const double v = from_bf16(to_bf16(x[row * hidden + k]));
        g += v * layer.gate[expert].values[n * hidden + k];
        u += v * layer.up[expert].values[n * hidden + k];
      }
      inner[n] = g / (1.0 + std::exp(-g)) * u;
    }
    for (int n = 0; n < hidden; n++) {
      double sum = 0.0;
      for (int k = 0; k < width; k++) sum += inner[k] * layer.down[expert].values[n * width + k];
      out[row * hidden + n] += weight * sum;
    }
  };
  for (int64_t row = 0; row * hidden < static_cast<int64_t>(x.size()); row++) {
    for (int s = 0; s < slots; s++) add(row, got.chosen[row * slots + s], got.weights[row * slots + s]);
    if (layer.model.has_shared) add(row, layer.config.experts, 1.0);
  }
  return out;
}

void check_choice(const Layer& layer, const std::vector<float>& x, const Mixture& got) {
  const rs_config& c = layer.config;
  std::vector<float> logits(c.experts);
  std::vector<int32_t> want(c.experts_per_token);
  std::vector<double> weights(c.experts_per_token);
  int64_t different = 0, rows = static_cast<int64_t>(x.size()) / c.hidden;
  for (int64_t row = 0; row < rows; row++) {
    for (int e = 0; e < c.experts; e++) {
      double sum = 0.0;
      for (int k = 0; k < c.hidden; k++) sum += x[row * c.hidden + k] * layer.router[e * c.hidden + k];
      logits[e] = static_cast<float>(sum);
    }
    choose(c, logits.data(), layer.host_bias.data(), want.data(), weights.data());
    if (!std::equal(want.begin(), want.end(), got.chosen.begin() + row * c.experts_per_token)) {
      different++;
      continue;
    }
    for (int s = 0; s < c.experts_per_token; s++) {
      CHECK(std::abs(weights[s] - got.weights[row * c.experts_per_token + s]) < 2e-4);
    }
  }
  CHECK(different * 100 <= rows);  // logits are right to 1e-5; a near tie may fall the other way
}

TEST("a mixture is the weighted sum of its experts and the shared one") {
  uint32_t seed = std::random_device{}();
  std::printf("  seed %" PRIu32 "\n", seed);
  for (const bool shared : {true, false}) {
    for (const MatrixFormat format : {MatrixFormat::kQ8, MatrixFormat::kQ4, MatrixFormat::kFP8}) {
      const bool offsets = format == MatrixFormat::kQ4 && !shared;
      const Layer layer(format, offsets ? 64 : 128, offsets, shared, format != MatrixFormat::kQ4, seed += 1000);
      for (const int64_t rows : {1, 7, 65, 200, 500}) {
        const int64_t hidden = layer.config.hidden;
        const std::vector<float> x = random_floats(rows * hidden, seed++),
                                 before = random_floats(rows * hidden, seed++);
        const DeviceBuffer<bf16> device_x(split_rows(x, hidden));
        const Mixture got = run_layer(layer, device_x, 0, rows, before);
        check_choice(layer, x, got);
        std::vector<double> want = mixture_reference(layer, x, got, before);
        std::vector<float> change = got.residual;
        for (size_t i = 0; i < change.size(); i++) change[i] -= before[i], want[i] -= before[i];
        const double off = relative_error(change, want);
        if (!(off < 4e-3)) check::fail(__FILE__, __LINE__, std::to_string(rows) + " rows: " + std::to_string(off));
      }
    }
  }
}

TEST("the bits of a token's mixture do not depend on the other tokens") {
  const Layer layer(MatrixFormat::kQ8, 128, false, true, true, 77);
  const int64_t hidden = layer.config.hidden, rows = 700;
  const std::vector<float> x = random_floats(rows * hidden, 78), before = random_floats(rows * hidden, 79);
  const DeviceBuffer<bf16> device_x(split_rows(x, hidden));
  const Mixture all = run_layer(layer, device_x, 0, rows, before);
  for (int repeat = 0; repeat < 3; repeat++) {
    const Mixture again = run_layer(layer, device_x, 0, rows, before);
    CHECK(std::memcmp(all.residual.data(), again.residual.data(), all.residual.size() * 4) == 0);
  }
  for (int64_t first = 0, count = 1; first < rows; first += count, count = std::min(count * 3, rows - first)) {
    const std::vector<float> part(before.begin() + first * hidden, before.begin() + (first + count) * hidden);
    const Mixture some = run_layer(layer, device_x, first, count, part);
    CHECK(std::memcmp(all.residual.data() + first * hidden, some.residual.data(), some.residual.size() * 4) == 0);
    if (count == 0) break;
  }
}

TEST("a failing call inside a mixture comes back as an error") {
  const Layer layer(MatrixFormat::kQ8, 128, false, true, true, 87);
  const DeviceBuffer<bf16> x(split_rows(random_floats(layer.config.hidden, 88), layer.config.hidden));
  DeviceBuffer<float> residual(layer.config.hidden);
  DeviceBuffer<uint8_t> scratch(read_mixture_scratch_bytes(layer.model, 1));
  for (int call = 1;; call++) {
    fail_call(call, cudaErrorLaunchFailure);
    const int64_t made = calls_made();
    const Status status =
        read_mixture(layer.model, layer.model.layers[0], ReadRows{x.get(), 3 * layer.config.hidden, 1}, residual.get(),
                     nullptr, nullptr, scratch.get(), nullptr);
    const bool failed = calls_made() - made >= call;
    CHECK_EQ(status.ok(), !failed);
    fail_call(0, cudaSuccess);
    if (!failed) break;
  }
  MUST(cudaDeviceSynchronize());
}

// The exact mini shape, every expert with weights of its own: 0.8 GB a layer in 8 bits.
struct MiniLayer {
  DeviceStackData gate_up, down, router;
  DeviceBuffer<float> bias;
  DeviceModel model{};
  MiniLayer(MatrixFormat format, int group) {
    rs_config& c = model.config;
    c = small_config();
    c.hidden = 2048, c.experts = 256, c.experts_per_token = 8, c.expert_groups = 8, c.groups_per_token = 4;
    c.expert_width = c.shared_width = 512;
    gate_up = random_stack(format, 1024, 2048, group, false, 257, 91);
    down = random_stack(format, 2048, 512, group, false, 257, 92);
    HostMatrix wide = random_matrix(MatrixFormat::kBF16, 256, 4096, 0, false, 93);
    router = upload(wide);
    bias = DeviceBuffer<float>(random_floats(256, 94, 0.01f));
    model.has_shared = 1;
    DeviceLayer layer{};
    layer.mlp = DeviceMlp{gate_up.stack, down.stack, 512};
    layer.router = router.matrix(), layer.expert_bias = bias.get();
    model.layers.push_back(layer);
  }
};

void time_grouped(const MiniLayer& mini, const MixtureLists& lists, const bf16* x, int64_t rows, int tile_rows) {
  const rs_config& c = mini.model.config;
  const int64_t places = rows * 9;
  DeviceBuffer<bf16> inner(places * 512), out(places * 2048);
  ProductCall gate_up{}, down{};
  gate_up.w = mini.gate_up.stack, gate_up.x = x, gate_up.x_stride = 3 * c.hidden, gate_up.rows = places;
  gate_up.tiles = lists.tiles, gate_up.tile_count = lists.tile_count, gate_up.max_tiles = lists.max_tiles;
  gate_up.tile_rows = tile_rows, gate_up.gather = lists.gather, gate_up.epilogue = Epilogue::kSiluBF16;
  gate_up.out = inner.get(), gate_up.out_stride = 512;
  down = gate_up;
  down.w = mini.down.stack, down.x = inner.get(), down.x_stride = 512, down.gather = nullptr;
  down.epilogue = Epilogue::kStoreBF16, down.out = out.get(), down.out_stride = 2048;
  const Result<bool> wanted = products_want_order();
  const bool ordered = wanted.ok() && wanted.value();  // time does not depend on which numbers come
  gate_up.x_ordered = gate_up.out_ordered = down.x_ordered = ordered;
  gate_up.out_order = mini.down.stack.first.format;
  const double up_ms = median_ms(20, [&](int) { check_ok(launch_product(gate_up, nullptr), "gate_up"); });
  const double down_ms = median_ms(20, [&](int) { check_ok(launch_product(down, nullptr), "down"); });
  const double up_work = 2.0 * places * 1024 * 2048, down_work = 2.0 * places * 512 * 2048;
  std::printf("  %5" PRId64 " rows, tile %3d: gate_up %.3f ms %4.0f TFLOP/s, down %.3f ms %4.0f TFLOP/s\n", rows,
              tile_rows, up_ms, up_work / up_ms / 1e9, down_ms, down_work / down_ms / 1e9);
}

void time_mixture(const MiniLayer& mini, const char* name, int64_t rows) {
  const rs_config& c = mini.model.config;
  const std::vector<float> x = random_floats(rows * c.hidden, 95);
  const DeviceBuffer<bf16> device_x(split_rows(x, c.hidden));
  DeviceBuffer<float> residual(random_floats(rows * c.hidden, 96));
  DeviceBuffer<uint8_t> scratch(read_mixture_scratch_bytes(mini.model, rows));
  ListMemory memory(c, true, rows, 32);
  const ReadRows read{device_x.get(), 3 * c.hidden, rows};
  const DeviceLayer& layer = mini.model.layers[0];
  const double ms = median_ms(20, [&](int) {
    check_ok(read_mixture(mini.model, layer, read, residual.get(), memory.chosen.get(), memory.weights.get(),
                          scratch.get(), nullptr),
             "mixture");
  });
  const double work = 2.0 * rows * 9 * (1024.0 * 2048 + 512.0 * 2048);
  std::printf("  %s %5" PRId64 " rows: mixture %.3f ms, %.0f TFLOP/s of the experts\n", name, rows, ms,
              work / ms / 1e9);
  DeviceBuffer<float> logits(rows * c.experts);
  const double router_ms = median_ms(
      20, [&](int) { check_ok(multiply_rows(layer.router, read, logits.get(), c.experts, nullptr), "router"); });
  const double choice_ms = median_ms(20, [&](int) {
    check_ok(choose_experts(c, logits.get(), layer.expert_bias, rows, memory.lists, nullptr), "choice");
  });
  const double list_ms =
      median_ms(20, [&](int) { check_ok(build_lists(c, true, rows, memory.lists, nullptr), "lists"); });
  std::printf("  router %.3f ms, choice %.3f ms, lists %.3f ms\n", router_ms, choice_ms, list_ms);
  for (const int tile_rows : {32, 64, 128}) {
    ListMemory cut(c, true, rows, tile_rows);
    cut.lists.chosen = memory.chosen.get();
    check_ok(build_lists(c, true, rows, cut.lists, nullptr), "lists");
    time_grouped(mini, cut.lists, device_x.get(), rows, tile_rows);
  }
}

TEST("--bench mixture of the mini shape") {
  if (!bench_asked()) return;
  {
    const MiniLayer q8(MatrixFormat::kQ8, 128);
    for (const int64_t rows : {4096, 512}) time_mixture(q8, "q8 group 128", rows);
  }
  const MiniLayer q4(MatrixFormat::kQ4, 128);
  time_mixture(q4, "q4 group 128", 4096);
}

}  // namespace
}  // namespace ringside::cuda::test
