// Owns: the roofline command and its measurements.
#include "tools/roofline.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"
#include "io/json.h"
#include "model/backend.h"
#include "tools/commands.h"

namespace ringside::tools {
namespace {

constexpr int64_t kDefaultReadBytes = int64_t{1} << 30;  // beyond the caches of most machines
constexpr int64_t kSliceBytes = int64_t{1} << 20;
constexpr int kTries = 5;  // the best counts: others may use the machine meanwhile
constexpr double kTrySeconds = 0.1;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Work per second of `pass`, which returns how much it did; repeated until a try is long enough to be timed.
template <class Pass>
double best_rate(const Pass& pass) {
  double best = 0.0;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    double work = 0.0;
    double seconds = 0.0;
    do {
      work += pass();
      seconds = seconds_since(start);
    } while (seconds < kTrySeconds);
    best = std::max(best, work / seconds);
  }
  return best;
}

double measure_read(const cpu::Kernels& kernels, cpu::ThreadPool& pool, const cpu::MappedMemory& block) {
  const int64_t slices = (block.bytes() + kSliceBytes - 1) / kSliceBytes;
  pool.run(slices, [&](int64_t slice, int) {  // pages that were never written are all one page of zeros
    const int64_t at = slice * kSliceBytes;
    std::memset(block.data() + at, static_cast<int>(slice & 0x7f),
                static_cast<size_t>(std::min(kSliceBytes, block.bytes() - at)));
  });
  std::atomic<uint64_t> sink{0};
  const double rate = best_rate([&] {
    pool.run(slices, [&](int64_t slice, int) {
      const int64_t at = slice * kSliceBytes;
      sink.fetch_xor(kernels.read_stream(block.data() + at, std::min(kSliceBytes, block.bytes() - at)));
    });
    return static_cast<double>(block.bytes());
  });
  return rate / 1e9;
}

// `peak(steps)` returns its multiply-adds.
template <class Peak>
double measure_multiply(cpu::ThreadPool& pool, int64_t steps, const Peak& peak) {
  const int64_t jobs = pool.threads() * 8;
  std::atomic<int64_t> operations{0};
  const double rate = best_rate([&] {
    operations.store(0);
    pool.run(jobs, [&](int64_t job, int) { operations.fetch_add(2 * peak(steps, job)); });
    return static_cast<double>(operations.load());
  });
  return rate / 1e12;
}

}  // namespace

Result<Roofline> measure_roofline(int threads, const std::string& isa, int64_t read_bytes) {
  if (threads < 0 || threads > RS_MAX_THREADS) {
    return Error{ErrorKind::kArgumentInvalid, "threads", "0.." + std::to_string(RS_MAX_THREADS),
                 std::to_string(threads)};
  }
  RS_TRY(const cpu::Kernels* kernels, cpu::choose_kernels(isa));
  cpu::ThreadPool pool;
  RS_CHECK(pool.start(threads == 0 ? cpu::physical_cores() : threads));
  RS_TRY(const cpu::MappedMemory block, cpu::MappedMemory::allocate(read_bytes, "block to read"));
  Roofline roofline;
  roofline.threads = pool.threads();
  roofline.isa = kernels->isa;
  roofline.device = cpu::processor_name();
  roofline.read_gb_s = measure_read(*kernels, pool, block);
  roofline.fp32_tflops = measure_multiply(pool, 100'000, [&](int64_t steps, int64_t job) {
    float sink = static_cast<float>(job);
    return kernels->multiply_peak(steps, &sink);
  });
  roofline.int8_tops = measure_multiply(pool, 20'000, [&](int64_t steps, int64_t job) {
    auto sink = static_cast<int32_t>(job);
    return kernels->multiply_int8_peak(steps, &sink);
  });
  return roofline;
}

int run_roofline(int argc, char** argv) {
  int threads = 0;
  bool json = false;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      json = true;
      continue;
    }
    const std::string_view value = argument == "--threads" && i + 1 < argc ? argv[++i] : "";
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), threads);
    if (code != std::errc() || end != value.data() + value.size() || threads < 1) {
      std::fprintf(stderr, "usage: ringside-tool roofline [--threads N] [--json]\n");
      return 2;
    }
  }
  const Result<Roofline> roofline = measure_roofline(threads, "", kDefaultReadBytes);
  if (!roofline) {
    std::fprintf(stderr, "%s\n", roofline.error().message().c_str());
    return 1;
  }
  if (json) {
    std::printf(
        "{\"read_gb_s\":%.2f,\"fp32_tflops\":%.4f,\"int8_tops\":%.3f,\"threads\":%d,\"isa\":%s,\"device\":%s}\n",
        roofline->read_gb_s, roofline->fp32_tflops, roofline->int8_tops, roofline->threads,
        json::quote(roofline->isa).c_str(), json::quote(roofline->device).c_str());
  } else {
    std::printf(
        "%s, %s, %d threads\nread      %8.1f GB/s\nmultiply  %8.3f TFLOP/s (fp32)\nmultiply  %8.3f TOP/s (int8)\n",
        roofline->device.c_str(), roofline->isa.c_str(), roofline->threads, roofline->read_gb_s, roofline->fp32_tflops,
        roofline->int8_tops);
  }
  return 0;
}

}  // namespace ringside::tools
