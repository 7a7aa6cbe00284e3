// Owns: models whose experts find no room on the device: the same bits, down to the least memory, and how fast they
// are.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "backend_model.h"
#include "backend_steps.h"
#include "check.h"
#include "cuda/loaded.h"
#include "device_data.h"
#include "mini_model.h"
#include "model/backend.h"
#include "small_model.h"

namespace {

using backend_model::Bits;
using backend_model::Model;
using backend_model::same_bits;
using backend_model::Session;
using backend_steps::milliseconds;
using backend_steps::step_through;

constexpr int64_t kVocab = 160;

int64_t host_bytes(rs_model* model) { return reinterpret_cast<ringside::cuda::Loaded*>(model)->weights.host_bytes(); }
int64_t slab_rows(rs_model* model) { return reinterpret_cast<ringside::cuda::Loaded*>(model)->workspace.rows; }

TEST("no limit of device memory changes a bit, on either path, until it is refused with numbers") {
  const rs_backend* backend = rs_cuda_backend();
  for (const rs_weight_format format : {RS_WEIGHT_Q4, RS_WEIGHT_BF16}) {
    random_model::Shape shape = small_model::expert_shape();
    random_model::Source random(11, format, 128, format == RS_WEIGHT_Q4);
    small_model::Source source(random);
    const std::vector<int32_t> ids = random_model::tokens(3, 1500, static_cast<int32_t>(kVocab));
    std::vector<int64_t> on_host;
    std::vector<int64_t> slabs;
    Bits read;
    Bits stepped;
    rs_error error{};
    rs_memory_plan plan{};
    CHECK_EQ(backend->plan_memory(shape.ready(), format, 128, RS_KV_BF16, &plan, &error), 0);
    int64_t limit = 0;
    for (int64_t next = 2 * (plan.weight_bytes + plan.scratch_bytes);; next = next * 31 / 32) {
      const rs_load_options options{0, "", RS_KV_BF16, nullptr, nullptr, limit, 0};
      rs_model* handle = nullptr;
      if (backend->load(shape.ready(), &source.table, &options, &handle, &error) != 0) break;
      Model model(backend, shape, handle);
      limit = next;
      const int64_t bytes = host_bytes(handle);
      const int64_t rows = slab_rows(handle);
      if (!on_host.empty() && on_host.back() == bytes && slabs.back() == rows) continue;
      on_host.push_back(bytes);
      slabs.push_back(rows);
      CHECK_EQ(std::string(backend->device(handle)).ends_with("of experts in memory of the host"), bytes > 0);
      Session session = model.open();
      // Several slabs where slabs are short, a call of so few rows that experts are read where they are, and a third.
      const Bits some = session.feed(ids, {1200, 2, 298});
      const Bits more = step_through(backend, model, session, {ids.begin(), ids.begin() + 40}, {1, 17, 1}, kVocab);
      if (read.empty()) read = some, stepped = more;
      CHECK(same_bits(some, read));
      CHECK(same_bits(more, stepped));
    }
    CHECK_EQ(error.kind, static_cast<int32_t>(ringside::ErrorKind::kOutOfMemory));
    CHECK_EQ(std::string(error.subject), std::string("GPU memory"));
    CHECK(std::string(error.actual).ends_with(" allowed"));
    std::printf("     %zu ways to place it, from %.1f to %.1f MB of experts on the host\n", on_host.size(),
                static_cast<double>(on_host.front()) * 1e-6, static_cast<double>(on_host.back()) * 1e-6);
    CHECK_EQ(on_host.front(), 0);
    CHECK(on_host.size() >= 5);
    CHECK(std::ranges::count_if(on_host, [](int64_t bytes) { return bytes > 0; }) >= 3);
  }
}

// Gigabytes a second of one copy from pinned memory, the best of several.
double bus_rate() {
  constexpr size_t kBytes = size_t{256} << 20;
  ringside::cuda::test::DeviceBuffer<uint8_t> to(kBytes);
  const auto from = ringside::cuda::PinnedMemory::allocate(kBytes);
  CHECK(from.ok());
  double best = 0.0;
  for (int i = 0; i < 5; ++i) {
    const double ms = milliseconds(1, [&] { cudaMemcpy(to.get(), from->data(), kBytes, cudaMemcpyHostToDevice); });
    best = std::max(best, static_cast<double>(kBytes) / ms * 1e-6);
  }
  return best;
}

void bench_within(int64_t most_bytes, double bus) {
  const rs_backend* backend = rs_cuda_backend();
  random_model::Shape shape = mini_model::shape();
  const mini_model::Source source(RS_WEIGHT_Q4);
  const rs_load_options options{0, "", RS_KV_BF16, nullptr, nullptr, most_bytes, -1};
  const std::vector<int32_t> ids = random_model::tokens(1, 16384, 157184);
  rs_error error{};
  rs_model* handle = nullptr;
  const double load_ms =
      milliseconds(1, [&] { CHECK_EQ(backend->load(shape.ready(), &source.table, &options, &handle, &error), 0); });
  if (handle == nullptr) {
    return check::fail(__FILE__, __LINE__, std::string(error.subject) + ": " + error.expected + ", " + error.actual);
  }
  Model model(backend, shape, handle);
  const auto& loaded = *reinterpret_cast<const ringside::cuda::Loaded*>(handle);
  const auto on_host = static_cast<double>(loaded.weights.host_bytes());
  const double of_token = on_host * (shape.config.experts_per_token + 1) / (shape.config.experts + 1);
  const int64_t rows = loaded.workspace.rows;
  std::printf("     within %.1f GB: %s; slabs of %lld, loaded in %.0f ms\n", static_cast<double>(most_bytes) * 1e-9,
              backend->device(handle), static_cast<long long>(rows), load_ms);
  Bits logits(157184);
  const auto share = [&](const char* what, double bytes, double ms) {
    std::printf("     %s, %.1f MB over the bus, %.1f GB/s, %.0f %% of %.1f GB/s\n", what, bytes * 1e-6,
                bytes / ms * 1e-6, bytes / ms * 1e-6 / bus * 100.0, bus);
  };
  for (const int64_t count : {4096, 16384}) {
    const double ms = milliseconds(3, [&] {
      Session session = model.open();
      CHECK_EQ(session.extend(ids.data(), count, RS_LOGITS_LAST, logits.data(), nullptr), 0);
    });
    std::printf("     read %lld: %.1f ms, %.0f tokens/s", static_cast<long long>(count), ms,
                static_cast<double>(count) * 1e3 / ms);
    share("", on_host * static_cast<double>((count + rows - 1) / rows), ms);
  }
  Session session = model.open();
  CHECK_EQ(session.extend(ids.data(), 16, RS_LOGITS_LAST, logits.data(), nullptr), 0);
  const double ms = milliseconds(100, [&] {
    const rs_step step{session.get(), ids.data() + session.position(), 1, RS_LOGITS_LAST, logits.data()};
    CHECK_EQ(backend->step(handle, &step, 1, nullptr, &error), 0);
  });
  std::printf("     step at depth 16: %.3f ms, %.0f tokens/s", ms, 1e3 / ms);
  share("", of_token, ms);
  CHECK(std::isfinite(logits[0]));
}

TEST("--bench the mini shape, 4 bits, within the memory of small cards") {
  if (!ringside::cuda::test::bench_asked()) return;
  const double bus = bus_rate();
  for (const int64_t gigabytes : {12, 8, 6, 4}) bench_within(gigabytes * 1'000'000'000, bus);
}

}  // namespace
