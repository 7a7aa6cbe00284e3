// Owns: the loader and the memory of sessions on a device, without a kernel of the model: what is uploaded is what was
// packed, whatever formats meet in a stack; what fails leaves no memory behind.
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/device.h"
#include "cuda/memory_plan.h"
#include "cuda/session.h"
#include "cuda/weights.h"
#include "cuda/workspace.h"
#include "device_data.h"
#include "mini_model.h"
#include "small_model.h"

namespace {

using namespace ringside;
using namespace ringside::cuda;
using ringside::cuda::test::bench_asked;

template <class T>
std::vector<T> download(const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  MUST(cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDefault));
  return values;
}

int64_t free_bytes() {
  size_t free_now = 0;
  size_t total = 0;
  MUST(cudaMemGetInfo(&free_now, &total));
  return static_cast<int64_t>(free_now);
}

Result<std::vector<size_t>> none_on_host(const WeightBytes&) { return std::vector<size_t>(); }

Status load(random_model::Shape& shape, const rs_weight_source& source, int threads, Weights& out,
            const Placement& choose = none_on_host) {
  const rs_load_options options{threads, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
  describe_model(*shape.ready(), out);
  return load_weights(source, options, threads, 0, choose, out);
}

// The stored matrices behind a stack, each packed on its own.
class Expected {
 public:
  Expected(const rs_weight_source& source, WeightForm form) : source_(source), form_(form) {}

  void check(const DeviceMatrix& got, const std::vector<std::string>& bases) {
    CHECK(got.format == form_.format);
    CHECK_EQ(got.group_columns, form_.group_columns);
    CHECK_EQ(got.offsets != nullptr, form_.has_offsets);
    const int64_t parts = static_cast<int64_t>(bases.size());
    const int64_t tiles = got.rows / kTileRows;
    std::vector<uint8_t> blocks(static_cast<size_t>(got.block_bytes()));
    std::vector<float> scales(static_cast<size_t>(got.scale_count())), offsets(scales.size());
    std::vector<rs_matrix> stored(bases.size());
    for (size_t i = 0; i < bases.size(); ++i) {
      rs_error error{};
      CHECK_EQ(
          source_.read_matrix(source_.context, bases[i].c_str(), got.rows / parts, got.columns, &stored[i], &error), 0);
    }
    TilePacker packer;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * got.scale_count() / tiles;
      const TileMemory to{blocks.data() + tile * got.block_bytes() / tiles, scales.data() + first,
                          offsets.data() + first};
      if (parts == 1) {
        packer.pack(stored[0], tile * kTileRows, form_, to);
      } else {
        packer.pack({&stored[0], tile * 8}, {&stored[1], tile * 8}, form_, to);
      }
    }
    for (rs_matrix& matrix : stored) source_.release(source_.context, &matrix);
    CHECK(download(got.blocks, got.block_bytes()) == blocks);
    if (got.scales != nullptr) CHECK(download(got.scales, got.scale_count()) == scales);
    if (got.offsets != nullptr) CHECK(download(got.offsets, got.scale_count()) == offsets);
  }

 private:
  const rs_weight_source& source_;
  WeightForm form_;
};

std::string expert(int64_t e) {
  return e == 16 ? "model.layers.1.mlp.shared_experts." : "model.layers.1.mlp.experts." + std::to_string(e) + ".";
}

void check_mixture(const Weights& weights, const rs_weight_source& source, const WeightForm& form) {
  const DeviceMlp& mlp = weights.model.layers[1].mlp;
  CHECK_EQ(mlp.gate_up.count, 17);
  CHECK_EQ(mlp.down.count, 17);
  Expected expected(source, form);
  for (int64_t e = 0; e < 17; ++e) {
    expected.check(mlp.gate_up.at(e), {expert(e) + "gate_proj", expert(e) + "up_proj"});
    expected.check(mlp.down.at(e), {expert(e) + "down_proj"});
  }
}

TEST("every format arrives as it was packed, on one thread and on several") {
  for (const int32_t format : {RS_WEIGHT_F32, RS_WEIGHT_BF16, RS_WEIGHT_Q8, RS_WEIGHT_Q4, RS_WEIGHT_FP8}) {
    for (const int threads : {1, 5}) {
      random_model::Shape shape = small_model::shape();
      random_model::Source random(7, static_cast<rs_weight_format>(format), 64, format == RS_WEIGHT_Q4);
      small_model::Source source(random);
      Weights weights;
      const Status loaded = load(shape, source.table, threads, weights);
      CHECK(loaded.ok());
      if (!loaded.ok()) return check::fail(__FILE__, __LINE__, loaded.error().message());
      rs_matrix one{};
      one.format = format;
      one.cols = 256;
      one.group_columns = 64;
      one.offsets = format == RS_WEIGHT_Q4 ? weights.slopes.data() : nullptr;  // any: only whether there are some
      const WeightForm form = weight_form("", one).value();
      check_mixture(weights, source.table, form);
      Expected expected(source.table, form);
      const DeviceModel& model = weights.model;
      expected.check(model.embedding, {"model.word_embeddings"});
      expected.check(model.lm_head, {"lm_head"});
      expected.check(model.layers[0].mlp.gate_up.at(0), {"model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"});
      expected.check(model.layers[0].output_gate, {"model.layers.0.attention.g_proj"});
      expected.check(model.layers[2].qkv, {"model.layers.2.attention.query_key_value"});
      CHECK_EQ(model.layers[1].router.columns, format == RS_WEIGHT_BF16 || format >= RS_WEIGHT_Q8 ? 512 : 768);
      std::vector<float> bias(16);
      rs_error error{};
      source.table.read_vector(source.table.context, "model.layers.1.mlp.gate.expert_bias", 16, bias.data(), &error);
      CHECK(download(model.layers[1].expert_bias, 16) == bias);
      CHECK(download(model.layers[1].slopes, 2) ==
            std::vector<float>(shape.slopes.begin() + 2, shape.slopes.begin() + 4));
      CHECK(download(model.inv_freq, 32) == shape.inv_freq);
      CHECK_EQ(planned_weight_bytes(model, format, 64) <= weights.bytes() + 4096, true);
    }
  }
}

TEST("a stack is brought to the widest of its experts' forms, wherever the wide one stands") {
  random_model::Source q4(1, RS_WEIGHT_Q4, 128), q8(2, RS_WEIGHT_Q8, 32, true), floats(3, RS_WEIGHT_BF16);
  for (const int64_t wide : {int64_t{0}, int64_t{5}, int64_t{16}}) {
    for (random_model::Source* other : {&q8, &floats}) {
      random_model::Shape shape = small_model::shape();
      small_model::Source source([&](const std::string& base) -> random_model::Source& {
        return base.starts_with(expert(wide)) ? *other : q4;
      });
      Weights weights;
      CHECK(load(shape, source.table, 3, weights).ok());
      check_mixture(weights, source.table,
                    other == &q8 ? WeightForm{MatrixFormat::kQ8, 32, true} : WeightForm{MatrixFormat::kBF16, 0, false});
    }
  }
}

TEST("a load whose Nth call fails gives all its memory back") {
  random_model::Shape shape = small_model::shape();
  random_model::Source random(7, RS_WEIGHT_Q8, 128);
  small_model::Source source(random);
  {
    Weights first;
    CHECK(load(shape, source.table, 2, first).ok());
  }
  const int64_t baseline = free_bytes();
  int failed = 0;
  for (int64_t n = 1;; ++n) {
    Weights weights;
    fail_call(n, cudaErrorMemoryAllocation);
    const int64_t before = calls_made();
    const Status loaded = load(shape, source.table, 2, weights);
    const bool was_reached = calls_made() - before >= n;
    fail_call(0, cudaSuccess);
    CHECK_EQ(loaded.ok(), !was_reached);
    if (!was_reached) break;
    ++failed;
    CHECK(loaded.error().kind == ErrorKind::kOutOfMemory);
    weights = Weights{};
    CHECK_EQ(free_bytes(), baseline);
  }
  CHECK(failed > 20);
}

TEST("loading stops when it is told to, and hears how far it is") {
  random_model::Shape shape = small_model::shape();
  random_model::Source random(7, RS_WEIGHT_Q8, 128);
  small_model::Source source(random);
  std::vector<float> heard;
  const auto listen = [](void* context, float fraction) -> int32_t {
    auto& list = *static_cast<std::vector<float>*>(context);
    list.push_back(fraction);
    return list.size() == 3 ? 1 : 0;
  };
  Weights weights;
  describe_model(*shape.ready(), weights);
  const rs_load_options options{1, "", RS_KV_BF16, &heard, listen, 0, -1};
  const Status loaded = load_weights(source.table, options, 1, 0, none_on_host, weights);
  CHECK(!loaded.ok() && loaded.error().kind == ErrorKind::kCancelled);
  CHECK_EQ(heard.size(), size_t{3});
  CHECK(heard[0] < heard[1] && heard[1] < heard[2]);
}

TEST("experts that stay on the host are packed as those on the device, and their other weights are where they were") {
  random_model::Shape shape = small_model::shape();
  random_model::Source q4(1, RS_WEIGHT_Q4, 128), q8(2, RS_WEIGHT_Q8, 32, true);
  // One expert is wider than the rest, so the choice is asked for again.
  small_model::Source source(
      [&](const std::string& base) -> random_model::Source& { return base.starts_with(expert(5)) ? q8 : q4; });
  int asked = 0;
  std::vector<WeightBytes> sizes;
  Weights weights;
  const Status loaded = load(shape, source.table, 3, weights, [&](const WeightBytes& bytes) {
    ++asked;
    sizes.push_back(bytes);
    return Result<std::vector<size_t>>(std::vector<size_t>{1, 3});
  });
  CHECK(loaded.ok());
  if (!loaded.ok()) return check::fail(__FILE__, __LINE__, loaded.error().message());
  CHECK_EQ(asked, 2);
  CHECK(sizes[1].experts[0].bytes() > sizes[0].experts[0].bytes());
  CHECK_EQ(sizes[1].experts.size(), size_t{3});
  CHECK_EQ(weights.host_bytes(), sizes[1].experts[0].bytes() + sizes[1].experts[2].bytes());
  CHECK_EQ(weights.memory.bytes() <= sizes[1].resident + sizes[1].experts[1].bytes(), true);
  for (const size_t layer : {size_t{1}, size_t{2}, size_t{3}}) {
    cudaPointerAttributes at{};
    MUST(cudaPointerGetAttributes(&at, weights.model.layers[layer].mlp.down.first.blocks));
    CHECK(at.type == (layer == 2 ? cudaMemoryTypeDevice : cudaMemoryTypeHost));
    CHECK_EQ(at.devicePointer == weights.model.layers[layer].mlp.down.first.blocks, true);
    CHECK_EQ(weights.model.layers[layer].is_on_host, layer == 2 ? 0 : 1);
  }
  check_mixture(weights, source.table, WeightForm{MatrixFormat::kQ8, 32, true});
}

// Sizes of a model whose layers each have experts of 100 MB.
WeightBytes sizes_of(size_t layers) {
  WeightBytes bytes;
  bytes.resident = 50'000'000;
  for (size_t i = 0; i < layers; ++i) bytes.experts.push_back({i + 1, 60'000'000, 40'000'000});
  return bytes;
}

TEST("a model is planned with as few experts on the host as will do, and the longest slab beside them") {
  random_model::Shape shape = small_model::shape();
  Weights weights;
  describe_model(*shape.ready(), weights);
  const WeightBytes bytes = sizes_of(10);
  const auto plan_within = [&](int64_t device_bytes) {
    return plan_memory(weights.model, bytes, {device_bytes, int64_t{1} << 40, true});
  };
  const MemoryPlan whole = plan_within(int64_t{1} << 40).value();
  CHECK_EQ(whole.slab_rows, kSlabRows);
  CHECK(whole.host_layers.empty());
  CHECK_EQ(whole.weight_bytes, 1'050'000'000);
  CHECK_EQ(whole.gate_up_buffer_bytes + whole.down_buffer_bytes, 0);
  CHECK_EQ(plan_within(whole.needed_bytes()).value().slab_rows, kSlabRows);
  // A shorter slab before any expert leaves.
  const MemoryPlan shorter = plan_within(whole.needed_bytes() - 1).value();
  CHECK(shorter.slab_rows < kSlabRows && shorter.host_layers.empty());
  // The buffers take as much as one layer.
  const MemoryPlan few = plan_within(whole.needed_bytes() - 250'000'000).value();
  CHECK(few.host_layers == std::vector<size_t>({3, 5, 8, 10}));
  CHECK_EQ(few.slab_rows, kSlabRows);
  CHECK_EQ(few.host_bytes, 400'000'000);
  CHECK_EQ(few.gate_up_buffer_bytes, 60'000'000);
  CHECK_EQ(few.down_buffer_bytes, 40'000'000);
  CHECK(few.needed_bytes() <= whole.needed_bytes() - 250'000'000);
  const int64_t least = whole.needed_bytes() - 900'000'000;
  const MemoryPlan most = plan_within(least).value();
  CHECK_EQ(most.host_layers.size(), size_t{10});
  CHECK_EQ(plan_within(least - 1).value().slab_rows < kSlabRows, true);
}

TEST("a model that does not fit is refused with both numbers, of the device or of the host") {
  random_model::Shape shape = small_model::shape();
  Weights weights;
  describe_model(*shape.ready(), weights);
  WeightBytes bytes = sizes_of(10);
  const auto refusal = [&](const MemoryLimits& limits) {
    const Result<MemoryPlan> plan = plan_memory(weights.model, bytes, limits);
    CHECK(!plan.ok() && plan.error().kind == ErrorKind::kOutOfMemory);
    return plan.ok() ? Error{} : plan.error();
  };
  const Error device = refusal({100'000'000, int64_t{1} << 40, false});
  CHECK_EQ(device.subject, std::string("GPU memory"));
  CHECK(device.expected.ends_with(" GB needed, with all experts on the host"));
  CHECK_EQ(device.actual, std::string("0.10 GB free"));
  CHECK_EQ(refusal({100'000'000, int64_t{1} << 40, true}).actual, std::string("0.10 GB allowed"));
  const Error host = refusal({600'000'000, 300'000'000, true});
  CHECK_EQ(host.subject, std::string("the experts that the GPU has no room for"));
  CHECK_EQ(host.actual, std::string("0.30 GB free"));
  bytes.experts.clear();
  bytes.resident = int64_t{1} << 50;
  const Error dense = refusal({100'000'000, int64_t{1} << 40, false});
  CHECK(dense.expected.ends_with(" GB needed"));
}

TEST("devices are counted from 0, and how much memory is free is asked without taking any") {
  int count = 0;
  MUST(cudaGetDeviceCount(&count));
  CHECK_EQ(choose_device(0).value(), 0);
  CHECK(choose_device(-1).value() < count);
  const Result<int32_t> missing = choose_device(count);
  CHECK(!missing.ok() && missing.error().kind == ErrorKind::kArgumentInvalid);
  CHECK(use_device(0).ok());
  const int64_t before = free_bytes();
  const Result<FreeMemory> memory = device_memory(0);
  CHECK(memory.ok());
  CHECK_EQ(memory->free_bytes, before);
  CHECK(memory->total_bytes > memory->free_bytes);
  CHECK_EQ(free_bytes(), before);
  CHECK(host_memory().ok() && host_memory()->free_bytes > 0);
  const MemoryLimits chosen = memory_limits(0, 1'000'000'000).value();
  CHECK(chosen.is_chosen && chosen.device_bytes == 1'000'000'000);
  CHECK(!memory_limits(0, 0).value().is_chosen);
  CHECK(memory_limits(0, 0).value().device_bytes < before);
}

struct Memory {
  random_model::Shape shape = small_model::shape();
  Weights weights;
  Stream stream;
  std::unique_ptr<SessionPools> pools;
  StateCopies copies;

  Memory() {
    describe_model(*shape.ready(), weights);
    CHECK(stream.create().ok());
    pools = std::make_unique<SessionPools>(weights.model, plan_sessions(weights.model));
    CHECK(copies.create(pools->states.piece_bytes()).ok());
  }
  std::unique_ptr<Session> open() {
    auto session = std::make_unique<Session>(this, *pools);
    CHECK(open_session(*session, stream).ok());
    return session;
  }
  void fill(const Piece& piece, int value, int64_t bytes) {
    MUST(cudaMemsetAsync(piece.get(), value, static_cast<size_t>(bytes), stream.get()));
  }
  std::vector<uint8_t> content(const Piece& piece, int64_t bytes) {
    CHECK(stream.wait().ok());
    return download(piece.get(), bytes);
  }
  std::vector<uint8_t*> table(const Session& session) {
    CHECK(stream.wait().ok());
    return download(reinterpret_cast<uint8_t* const*>(session.table.get()), static_cast<int64_t>(session.pages.size()));
  }
};

std::vector<uint8_t*> pointers(const std::vector<std::shared_ptr<Page>>& pages) {
  std::vector<uint8_t*> list;
  for (const std::shared_ptr<Page>& page : pages) list.push_back(page->device.get());
  return list;
}

TEST("a snapshot shares pages until one of its holders writes") {
  Memory memory;
  const int64_t page_bytes = memory.pools->pages.piece_bytes();
  auto session = memory.open();
  CHECK(memory.content(session->state.s, 64) == std::vector<uint8_t>(64, 0));
  CHECK(session->prepare_pages(300, memory.stream).ok());
  CHECK_EQ(session->pages.size(), size_t{2});
  CHECK(memory.table(*session) == pointers(session->pages));
  memory.fill(session->pages[1]->device, 7, page_bytes);
  memory.fill(session->state.s, 9, memory.pools->states.piece_bytes());
  session->position = session->read_position = 300;
  Snapshot snapshot;
  CHECK(save_session(*session, memory.copies, memory.stream, snapshot).ok());
  CHECK_EQ(snapshot.position, 256);
  CHECK_EQ(snapshot.pages.size(), size_t{1});
  session->position = session->read_position = 321;
  Snapshot later;
  CHECK(save_session(*session, memory.copies, memory.stream, later).ok());
  CHECK_EQ(later.position, 320);
  CHECK_EQ(later.pages.size(), size_t{2});
  CHECK(later.s.wait().ok());
  memory.fill(session->state.s, 1, memory.pools->states.piece_bytes());
  Session restored(&memory, *memory.pools);
  CHECK(restore_session(later, memory.copies, memory.stream, restored).ok());
  CHECK_EQ(restored.position, 320);
  CHECK(restored.await(memory.stream).ok());
  CHECK(memory.content(restored.state.s, 64) == std::vector<uint8_t>(64, 9));
  CHECK(restored.prepare_pages(1, memory.stream).ok());
  CHECK(restored.pages[0] == session->pages[0]);
  CHECK(restored.pages[1] != session->pages[1]);
  CHECK(memory.content(restored.pages[1]->device, page_bytes) ==
        std::vector<uint8_t>(static_cast<size_t>(page_bytes), 7));
  CHECK(memory.table(restored) == pointers(restored.pages));
  CHECK(session->prepare_pages(200, memory.stream).ok());
  CHECK_EQ(session->pages.size(), size_t{3});
  CHECK(session->pages[1] != later.pages[1]);
  CHECK(memory.table(*session) == pointers(session->pages));
}

TEST("pieces that came back are taken again, and are zero") {
  Memory memory;
  auto session = memory.open();
  CHECK(session->prepare_pages(256, memory.stream).ok());
  uint8_t* const page = session->pages[0]->device.get();
  memory.fill(session->pages[0]->device, 3, memory.pools->pages.piece_bytes());
  session.reset();
  const Result<Piece> again = memory.pools->pages.take(memory.stream.get());
  CHECK(again.ok());
  CHECK_EQ(static_cast<void*>(again.value().get()), static_cast<void*>(page));
  CHECK(memory.content(again.value(), 32) == std::vector<uint8_t>(32, 0));
}

TEST("--bench upload of the mini shape") {
  if (!bench_asked()) return;
  random_model::Shape shape = mini_model::shape();
  test::DeviceBuffer<uint8_t> to(size_t{256} << 20);
  const Result<PinnedMemory> from = PinnedMemory::allocate(int64_t{256} << 20);
  CHECK(from.ok());
  double bus = 0.0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    MUST(cudaMemcpy(to.get(), from.value().data(), to.bytes(), cudaMemcpyHostToDevice));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    bus = std::max(bus, static_cast<double>(to.bytes()) / took.count() * 1e-9);
  }
  for (const rs_weight_format format : {RS_WEIGHT_Q8, RS_WEIGHT_Q4}) {
    const mini_model::Source source(format);
    for (const int threads : {4, 8, 16}) {
      std::vector<double> seconds;
      double gigabytes = 0.0;
      for (int round = 0; round < 5; ++round) {
        Weights weights;
        const auto start = std::chrono::steady_clock::now();
        CHECK(load(shape, source.table, threads, weights).ok());
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        seconds.push_back(took.count());
        gigabytes = static_cast<double>(weights.bytes()) * 1e-9;
      }
      std::ranges::sort(seconds);
      const double rate = gigabytes / seconds[2];
      std::printf("     %d bits, %2d threads: %.2f GB in %.0f ms (%.0f to %.0f), %.1f GB/s, %.0f %% of %.1f GB/s\n",
                  format == RS_WEIGHT_Q8 ? 8 : 4, threads, gigabytes, seconds[2] * 1e3, seconds.front() * 1e3,
                  seconds.back() * 1e3, rate, rate / bus * 100.0, bus);
    }
  }
}

}  // namespace
