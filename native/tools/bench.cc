// Owns: the bench command: from timings to rows with their share of this machine's roofline.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "tools/align.h"
#include "tools/bench_cost.h"
#include "tools/bench_model.h"
#include "tools/bench_options.h"
#include "tools/bench_run.h"
#include "tools/commands.h"
#include "tools/roofline.h"

namespace ringside::tools {
namespace {

constexpr int64_t kLargestRoofline = int64_t{1} << 30;

// A row against the roofline.
struct Share {
  double bytes = 0.0;       // that one pass must read
  double operations = 0.0;  // of a prompt
  std::optional<double> gb_s, tops;
  double roofline_pct = 0.0;
};

// Steps are measured against reading what must be read; prompts against that and the multiplications, whichever takes
// longer.
Share share_of(const BenchRow& row, const BenchModel& model, const BenchOptions& options, const Roofline& roofline) {
  const Config& config = model.config();
  const StoredWeights weights = stored_weights(model.handle());
  const double tok_s = row.median_tok_s();
  const auto tokens = static_cast<double>(row.tokens);
  const auto depth = static_cast<double>(row.depth);
  const auto sequences = static_cast<double>(row.sequences);
  const bool is_prompt = row.kind == BenchKind::kPrompt;
  const double kv_tokens = is_prompt ? depth : depth + tokens / 2.0;
  Share share;
  share.bytes = pass_bytes(config, weights, row.distinct_experts, sequences, kv_tokens, options.kv_format);
  const double pass_seconds = (is_prompt ? tokens : sequences) / tok_s;
  const double read_seconds = share.bytes / (roofline.read_gb_s * 1e9);
  double least_seconds = read_seconds;
  if (is_prompt) {
    share.operations = prompt_operations(config, tokens, depth);
    const double peak = weights.coded && roofline.int8_tops > 0.0 ? roofline.int8_tops : roofline.fp32_tflops;
    least_seconds = std::max(read_seconds, share.operations / (peak * 1e12));
    share.tops = share.operations / pass_seconds / 1e12;
  } else {
    share.gb_s = share.bytes / pass_seconds / 1e9;
  }
  share.roofline_pct = 100.0 * least_seconds / pass_seconds;
  return share;
}

__attribute__((format(printf, 2, 3))) void append(std::string& out, const char* format, ...) {
  char text[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  out += text;
}

std::string row_json(const BenchRow& row, const Share& share) {
  std::string out = "\"test\":" + json::quote(row.test);
  append(out, ",\"depth\":%lld,\"tok_s\":%.2f", static_cast<long long>(row.depth), row.median_tok_s());
  if (share.gb_s) append(out, ",\"gb_s\":%.3f", *share.gb_s);
  if (share.tops) append(out, ",\"tops\":%.4f,\"operations\":%.0f", *share.tops, share.operations);
  append(out, ",\"roofline_pct\":%.1f,\"bytes\":%.0f,\"distinct_experts\":%.1f", share.roofline_pct, share.bytes,
         row.distinct_experts);
  if (row.sequences > 1) {
    append(out, ",\"sequences\":%lld,\"to_one\":%.3f", static_cast<long long>(row.sequences), median(row.to_one));
  }
  append(out, ",\"rss_bytes\":%lld,\"rss_anonymous_bytes\":%lld", static_cast<long long>(row.memory.resident_bytes),
         static_cast<long long>(row.memory.anonymous_bytes));
  append(out, ",\"rss_file_bytes\":%lld,\"peak_rss_bytes\":%lld", static_cast<long long>(row.memory.file_bytes),
         static_cast<long long>(row.memory.peak_bytes));
  out += ",\"reps\":[";
  for (size_t i = 0; i < row.tok_s.size(); ++i) append(out, "%s%.2f", i == 0 ? "" : ",", row.tok_s[i]);
  return out + "]";
}

// What all rows of a run have in common.
std::string setting_json(const BenchModel& model, const BenchOptions& options, const Roofline& roofline) {
  const rs_backend& backend = model.backend();
  std::string out = ",\"backend\":" + json::quote(backend.name) +
                    ",\"device\":" + json::quote(backend.device(model.handle())) +
                    ",\"isa\":" + json::quote(backend.isa(model.handle())) +
                    ",\"kv\":" + json::quote(kv_format_name(options.kv_format));
  append(out, ",\"threads\":%d", backend.threads(model.handle()));
  if (options.model.empty()) {
    out += ",\"shape\":" + json::quote(options.shape) + ",\"quant\":" + json::quote(format_name(options.format));
    if (options.format == RS_WEIGHT_Q4) append(out, ",\"head_bits\":%lld", static_cast<long long>(options.head_bits));
  }
  append(out, ",\"read_gb_s\":%.2f,\"int8_tops\":%.3f,\"fp32_tflops\":%.4f", roofline.read_gb_s, roofline.int8_tops,
         roofline.fp32_tflops);
  return out;
}

void print_table(const std::vector<BenchRow>& rows, const std::vector<Share>& shares, const Roofline& roofline,
                 const std::string& device) {
  std::printf("%s; measured: read %.1f GB/s, int8 %.2f TOPS, fp32 %.3f TFLOP/s\n", device.c_str(), roofline.read_gb_s,
              roofline.int8_tops, roofline.fp32_tflops);
  std::printf("%-9s %7s %10s %9s %9s %9s %10s %9s %10s %10s\n", "test", "depth", "tok/s", "to one", "GB/s", "TOPS",
              "MB", "experts", "roofline", "own memory");
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto text = [](std::optional<double> value, int digits) {
      char out[32] = "";
      if (value) std::snprintf(out, sizeof out, "%.*f", digits, *value);
      return std::string(out);
    };
    const BenchRow& row = rows[i];
    const std::optional<double> to_one = row.to_one.empty() ? std::nullopt : std::optional(median(row.to_one));
    std::printf("%-9s %7lld %10.1f %9s %9s %9s %10.1f %9.1f %9.1f%% %7.0f MB\n", row.test.c_str(),
                static_cast<long long>(row.depth), row.median_tok_s(), text(to_one, 2).c_str(),
                text(shares[i].gb_s, 2).c_str(), text(shares[i].tops, 3).c_str(), shares[i].bytes / 1e6,
                row.distinct_experts, shares[i].roofline_pct, static_cast<double>(row.memory.anonymous_bytes) / 1e6);
  }
}

Status run(const BenchOptions& options) {
  RS_TRY(const std::unique_ptr<BenchModel> model, load_bench_model(options));
  // The source of random weights is gone; a checkpoint's peak while loading counts.
  if (options.model.empty()) forget_peak_memory();
  RS_TRY(const std::vector<BenchRow> rows, run_bench_rows(*model, options));
  // A model that fits a cache is measured against that cache: the block read is as large as the weights.
  const int64_t block_bytes = std::min(kLargestRoofline, model->backend().weight_bytes(model->handle()));
  RS_TRY(const Roofline roofline, measure_roofline(static_cast<int>(options.threads), options.isa, block_bytes));
  std::vector<Share> shares;
  for (const BenchRow& row : rows) shares.push_back(share_of(row, *model, options, roofline));
  if (!options.json) {
    print_table(rows, shares, roofline, model->backend().device(model->handle()));
    return Unit{};
  }
  const std::string setting = setting_json(*model, options, roofline);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::printf("%s{%s%s}", i == 0 ? "[" : ",\n ", row_json(rows[i], shares[i]).c_str(), setting.c_str());
  }
  std::printf("%s]\n", rows.empty() ? "[" : "");
  return Unit{};
}

}  // namespace

int run_bench(int argc, char** argv) {
  const std::optional<BenchOptions> options = parse_bench_options(argc, argv);
  if (!options) {
    std::fputs(kBenchUsage, stderr);
    return 2;
  }
  if (options->align) return run_align(*options);
  const Status status = run(*options);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().message().c_str());
  return 1;
}

}  // namespace ringside::tools
