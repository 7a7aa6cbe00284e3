// Owns: the kernels command: each kernel alone, against what this machine can do at best.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels/pack.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"
#include "io/json.h"
#include "tools/attention_bench.h"
#include "tools/commands.h"
#include "tools/roofline.h"

namespace ringside::tools {
namespace {

constexpr int64_t kColumns = 2048;
constexpr int64_t kGroupColumns = 128;
constexpr int64_t kFewRows = 8;  // up to here the weights come from memory, as in decode
constexpr int64_t kStreamedBytes = int64_t{256} << 20;
constexpr int64_t kPanelBytes = cpu::kUnscaledGroupColumns * cpu::kTileRows * 4;  // what matmul_tile widens into
constexpr int64_t kOutputs = 2048;                                                // of products of more rows
constexpr int64_t kRowKernelRows = 8192;
constexpr int kTries = 5;  // the best counts: others may use the machine meanwhile
constexpr double kTrySeconds = 0.1;

struct KernelRow {
  std::string kernel;
  int64_t rows = 0;
  double bytes = 0.0;  // that must be read
  double operations = 0.0;
  double seconds = 0.0;
  double limit_seconds = 0.0;
};

template <class Pass>
double best_seconds(const Pass& pass) {
  double best = 1e9;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    int passes = 0;
    double seconds = 0.0;
    do {
      pass();
      ++passes;
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    } while (seconds < kTrySeconds);
    best = std::min(best, seconds / passes);
  }
  return best;
}

class Bench {
 public:
  Bench(const cpu::Kernels& kernels, cpu::ThreadPool& pool, const Roofline& roofline)
      : kernels_(kernels), pool_(pool), roofline_(roofline) {}

  Result<std::vector<KernelRow>> run() {
    for (const cpu::PackedFormat format : {cpu::PackedFormat::kQ4, cpu::PackedFormat::kQ8}) {
      for (const int64_t rows : {1, 8, 64, 512}) RS_CHECK(product(format, rows));
    }
    for (const cpu::PackedFormat format : {cpu::PackedFormat::kBF16, cpu::PackedFormat::kF32}) {
      for (const int64_t rows : {1, 512}) RS_CHECK(product(format, rows));
    }
    RS_CHECK(row_kernels());
    RS_CHECK(attention());
    return std::move(rows_);
  }

 private:
  static const char* name_of(cpu::PackedFormat format) {
    switch (format) {
      case cpu::PackedFormat::kF32:
        return "matmul f32";
      case cpu::PackedFormat::kBF16:
        return "matmul bf16";
      case cpu::PackedFormat::kQ8:
        return "matmul q8";
      case cpu::PackedFormat::kQ4:
        return "matmul q4";
    }
    return "";
  }

  // Any bytes do for codes and floats of small numbers; scales are 1.
  void fill(const cpu::PackedMatrix& w, uint8_t* tiles) {
    pool_.run(w.tile_count(), [&](int64_t tile, int) {
      uint8_t* at = tiles + tile * w.tile_bytes();
      std::memset(at, 0x3c, static_cast<size_t>(w.tile_bytes()));
      for (int64_t group = 0; w.is_coded() && group < w.group_count(); ++group) {
        auto* scales = reinterpret_cast<float*>(at + group * w.block_bytes() + w.code_bytes());
        std::fill_n(scales, cpu::kTileRows, 1.0f);
      }
    });
  }

  Result<cpu::MappedMemory> codes_of(const std::vector<float>& x, int64_t rows, cpu::QuantizedRows& out) {
    out.columns = kColumns;
    out.group_columns = kGroupColumns;
    out.groups = kColumns / kGroupColumns;
    out.stride = cpu::quantized_stride(kColumns, kGroupColumns, 1);
    out.low_offset = 0;
    const int64_t factors = rows * out.groups * static_cast<int64_t>(sizeof(float));
    RS_TRY(cpu::MappedMemory memory, cpu::MappedMemory::allocate(rows * out.stride + 2 * factors, "activations"));
    out.values = reinterpret_cast<int8_t*>(memory.data());
    out.scales = reinterpret_cast<float*>(memory.data() + rows * out.stride);
    out.sums = reinterpret_cast<int32_t*>(memory.data() + rows * out.stride + factors);
    if (!x.empty()) kernels_.quantize_rows(x.data(), kColumns, 0, rows, out);
    return memory;
  }

  Status product(cpu::PackedFormat format, int64_t rows) {
    cpu::PackedMatrix w;
    w.format = format;
    w.columns = kColumns;
    w.group_columns = kGroupColumns;
    w.rows = rows <= kFewRows ? kStreamedBytes / w.tile_bytes() * cpu::kTileRows : kOutputs;
    RS_TRY(const cpu::MappedMemory weights, cpu::MappedMemory::allocate(cpu::packed_bytes(w), "weights"));
    fill(w, weights.data());
    w.tiles = weights.data();
    std::vector<float> x(static_cast<size_t>(rows * kColumns));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 101) - 50.0f;
    cpu::QuantizedRows codes{};
    RS_TRY(const cpu::MappedMemory code_memory, codes_of(x, rows, codes));
    const int64_t y_stride = w.tile_count() * cpu::kTileRows;
    RS_TRY(const cpu::MappedMemory y, cpu::MappedMemory::allocate(rows * y_stride * 4, "outputs"));
    const int64_t scratch_bytes = std::max(cpu::kCodedScratchBytes, kPanelBytes);
    RS_TRY(const cpu::MappedMemory scratch, cpu::MappedMemory::allocate(scratch_bytes * pool_.threads(), "scratch"));
    auto* outputs = reinterpret_cast<float*>(y.data());
    KernelRow row{name_of(format),
                  rows,
                  static_cast<double>(cpu::packed_bytes(w)),
                  2.0 * static_cast<double>(rows * w.columns * w.rows),
                  0.0,
                  0.0};
    row.seconds = best_seconds([&] {
      pool_.run(w.tile_count(), [&](int64_t tile, int worker) {
        uint8_t* space = scratch.data() + worker * scratch_bytes;
        float* to = outputs + tile * cpu::kTileRows;
        if (w.is_coded()) {
          const uint8_t* next = tile + 1 < w.tile_count() ? w.tile_at(tile + 1) : nullptr;
          kernels_.matmul_coded(w, tile, codes, 0, rows, to, y_stride, space, next);
        } else {
          kernels_.matmul_tile(w, tile, x.data(), kColumns, rows, to, y_stride, reinterpret_cast<float*>(space));
        }
      });
    });
    // The weights of many rows stay in a cache, so only their operations limit them.
    const double read_seconds = rows <= kFewRows ? row.bytes / (roofline_.read_gb_s * 1e9) : 0.0;
    const double peak = w.is_coded() ? roofline_.int8_tops : roofline_.fp32_tflops;
    row.limit_seconds = std::max(read_seconds, row.operations / (peak * 1e12));
    rows_.push_back(row);
    return Unit{};
  }

  // Kernels of single rows, over more rows than the caches hold.
  Status row_kernels() {
    const int64_t bytes = kRowKernelRows * kColumns * static_cast<int64_t>(sizeof(float));
    RS_TRY(const cpu::MappedMemory memory, cpu::MappedMemory::allocate(bytes, "rows"));
    RS_TRY(const cpu::MappedMemory outputs, cpu::MappedMemory::allocate(bytes, "outputs"));
    auto* x = reinterpret_cast<float*>(memory.data());
    auto* y = reinterpret_cast<float*>(outputs.data());
    for (int64_t i = 0; i < kRowKernelRows * kColumns; ++i) x[i] = static_cast<float>(i % 101) - 50.0f;
    cpu::QuantizedRows codes{};
    RS_TRY(const cpu::MappedMemory code_memory, codes_of({}, kRowKernelRows, codes));
    const std::vector<float> weight(static_cast<size_t>(kColumns), 1.0f);
    const auto measure = [&](const char* name, const auto& body) {
      KernelRow row{name, kRowKernelRows, static_cast<double>(bytes), 0.0, 0.0, 0.0};
      row.seconds = best_seconds([&] { pool_.run(kRowKernelRows, [&](int64_t r, int) { body(r); }); });
      row.limit_seconds = row.bytes / (roofline_.read_gb_s * 1e9);
      rows_.push_back(row);
    };
    measure("quantise", [&](int64_t r) { kernels_.quantize_rows(x + r * kColumns, kColumns, r, 1, codes); });
    measure("rms norm",
            [&](int64_t r) { kernels_.rms_norm(x + r * kColumns, weight.data(), 1e-6f, kColumns, y + r * kColumns); });
    return Unit{};
  }

  Status attention() {
    RS_TRY(const std::vector<AttentionRow> measured, measure_attention(kernels_, pool_));
    // Tiles multiply half as many bf16 as bytes.
    const double peak = std::string(kernels_.isa) == "amx" ? roofline_.int8_tops / 2 : roofline_.fp32_tflops;
    for (const AttentionRow& row : measured) {
      const double read_seconds = row.bytes / (roofline_.read_gb_s * 1e9);
      rows_.push_back({row.kernel, row.rows, row.bytes, row.operations, row.seconds,
                       std::max(read_seconds, row.operations / (peak * 1e12))});
    }
    return Unit{};
  }

  const cpu::Kernels& kernels_;
  cpu::ThreadPool& pool_;
  const Roofline& roofline_;
  std::vector<KernelRow> rows_;
};

void print(const Roofline& roofline, const std::vector<KernelRow>& rows, bool as_json) {
  if (!as_json) {
    std::printf("%s, %s, %d threads; read %.1f GB/s, int8 %.2f TOPS, fp32 %.3f TFLOP/s\n", roofline.device.c_str(),
                roofline.isa.c_str(), roofline.threads, roofline.read_gb_s, roofline.int8_tops, roofline.fp32_tflops);
    std::printf("%-14s %6s %10s %9s %9s\n", "kernel", "rows", "GB/s", "TOPS", "of limit");
  } else {
    std::printf("{\"device\":%s,\"isa\":%s,\"threads\":%d,\"read_gb_s\":%.2f,\"int8_tops\":%.3f,\"fp32_tflops\":%.4f,",
                json::quote(roofline.device).c_str(), json::quote(roofline.isa).c_str(), roofline.threads,
                roofline.read_gb_s, roofline.int8_tops, roofline.fp32_tflops);
    std::printf("\"kernels\":[");
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const KernelRow& row = rows[i];
    const double gb_s = row.bytes / row.seconds / 1e9;
    const double tops = row.operations / row.seconds / 1e12;
    const double percent = 100.0 * row.limit_seconds / row.seconds;
    if (as_json) {
      std::printf("%s{\"kernel\":%s,\"rows\":%lld,\"gb_s\":%.2f,\"tops\":%.4f,\"limit_pct\":%.1f}", i == 0 ? "" : ",",
                  json::quote(row.kernel).c_str(), static_cast<long long>(row.rows), gb_s, tops, percent);
    } else {
      std::printf("%-14s %6lld %10.2f %9.3f %8.0f%%\n", row.kernel.c_str(), static_cast<long long>(row.rows), gb_s,
                  tops, percent);
    }
  }
  if (as_json) std::printf("]}\n");
}

Status measure(int threads, const std::string& isa, bool as_json) {
  RS_TRY(const Roofline roofline, measure_roofline(threads, isa, kStreamedBytes));
  RS_TRY(const cpu::Kernels* kernels, cpu::choose_kernels(isa));
  cpu::ThreadPool pool;
  RS_CHECK(pool.start(roofline.threads));
  RS_TRY(const std::vector<KernelRow> rows, Bench(*kernels, pool, roofline).run());
  print(roofline, rows, as_json);
  return Unit{};
}

}  // namespace

int run_kernels(int argc, char** argv) {
  int threads = 0;
  std::string isa;
  bool as_json = false;
  bool is_usage_right = true;
  for (int i = 0; i < argc && is_usage_right; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      as_json = true;
    } else if (argument == "--isa" && i + 1 < argc) {
      isa = argv[++i];
    } else if (argument == "--threads" && i + 1 < argc) {
      const std::string_view value = argv[++i];
      const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), threads);
      is_usage_right = code == std::errc() && end == value.data() + value.size() && threads >= 1;
    } else {
      is_usage_right = false;
    }
  }
  if (!is_usage_right) {
    std::fprintf(stderr, "usage: ringside-tool kernels [--isa NAME] [--threads N] [--json]\n");
    return 2;
  }
  const Status status = measure(threads, isa, as_json);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().message().c_str());
  return 1;
}

}  // namespace ringside::tools
