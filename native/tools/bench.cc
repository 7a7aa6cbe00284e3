// Owns: the bench command: from timings to rows with their share of this machine's roofline.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "model/backend_library.h"
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

// What the rows are held against, and its words for people and for programs.
struct Limits {
  double bytes_s = 0.0;       // moved to or from memory at best
  double operations_s = 0.0;  // multiplications and additions, counted apart, of the kind that the model needs
  std::string text, json;
};

__attribute__((format(printf, 2, 3))) void append(std::string& out, const char* format, ...) {
  char text[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  out += text;
}

void append_limits_json(Limits& limits) {
  append(limits.json, ",\"limit_gb_s\":%.2f,\"limit_tops\":%.4f", limits.bytes_s / 1e9, limits.operations_s / 1e12);
}

Result<Limits> processor_limits(const BenchModel& model, const BenchOptions& options) {
  // A model that fits a cache is measured against that cache: the block read is as large as the weights.
  const int64_t block_bytes = std::min(kLargestRoofline, model.backend().weight_bytes(model.handle()));
  RS_TRY(const Roofline roofline, measure_roofline(static_cast<int>(options.threads), options.isa, block_bytes));
  const bool has_integers = model.weights().coded && roofline.int8_tops > 0.0;
  Limits limits;
  limits.bytes_s = roofline.read_gb_s * 1e9;
  limits.operations_s = (has_integers ? roofline.int8_tops : roofline.fp32_tflops) * 1e12;
  append(limits.text, "read %.1f GB/s, int8 %.2f TOPS, fp32 %.3f TFLOP/s", roofline.read_gb_s, roofline.int8_tops,
         roofline.fp32_tflops);
  append(limits.json, ",\"read_gb_s\":%.2f,\"int8_tops\":%.3f,\"fp32_tflops\":%.4f", roofline.read_gb_s,
         roofline.int8_tops, roofline.fp32_tflops);
  append_limits_json(limits);
  return limits;
}

// A card is held against the speed of a copy, which reads and writes, and the GPU's engine multiplies in bf16 whatever
// the weights are stored as.
Result<Limits> card_limits() {
  RS_TRY(const rs_device_rates rates, measure_cuda_rates());
  Limits limits;
  limits.bytes_s = rates.copy_bytes_s;
  limits.operations_s = rates.bf16_flops;
  const double copy_gb_s = rates.copy_bytes_s / 1e9;
  const double read_gb_s = rates.read_bytes_s / 1e9;
  const double bf16_tflops = rates.bf16_flops / 1e12;
  append(limits.text, "copy %.0f GB/s, read %.0f GB/s, bf16 %.0f TFLOP/s", copy_gb_s, read_gb_s, bf16_tflops);
  append(limits.json, ",\"copy_gb_s\":%.1f,\"read_gb_s\":%.1f,\"bf16_tflops\":%.1f", copy_gb_s, read_gb_s, bf16_tflops);
  append_limits_json(limits);
  return limits;
}

// A row against the limits.
struct Share {
  double bytes = 0.0;       // that one pass must read
  double operations = 0.0;  // of a prompt
  std::optional<double> gb_s, tops;
  double roofline_pct = 0.0;
};

// Steps are measured against reading what must be read; prompts against that and the multiplications, whichever takes
// longer.
Share share_of(const BenchRow& row, const BenchModel& model, const BenchOptions& options, const Limits& limits) {
  const Config& config = model.config();
  const double tok_s = row.median_tok_s();
  const auto tokens = static_cast<double>(row.tokens);
  const auto depth = static_cast<double>(row.depth);
  const auto sequences = static_cast<double>(row.sequences);
  const bool is_prompt = row.kind == BenchKind::kPrompt;
  const double kv_tokens = is_prompt ? depth : depth + tokens / 2.0;
  Share share;
  share.bytes = pass_bytes(config, model.weights(), row.distinct_experts, sequences, kv_tokens, options.kv_format);
  const double pass_seconds = (is_prompt ? tokens : sequences) / tok_s;
  const double read_seconds = share.bytes / limits.bytes_s;
  double least_seconds = read_seconds;
  if (is_prompt) {
    share.operations = prompt_operations(config, tokens, depth);
    least_seconds = std::max(read_seconds, share.operations / limits.operations_s);
    share.tops = share.operations / pass_seconds / 1e12;
  } else {
    share.gb_s = share.bytes / pass_seconds / 1e9;
  }
  share.roofline_pct = 100.0 * least_seconds / pass_seconds;
  return share;
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
  if (!row.choice_us.empty()) append(out, ",\"choice_us\":%.1f", median(row.choice_us));
  append(out, ",\"rss_bytes\":%lld,\"rss_anonymous_bytes\":%lld", static_cast<long long>(row.memory.resident_bytes),
         static_cast<long long>(row.memory.anonymous_bytes));
  append(out, ",\"rss_file_bytes\":%lld,\"peak_rss_bytes\":%lld", static_cast<long long>(row.memory.file_bytes),
         static_cast<long long>(row.memory.peak_bytes));
  out += ",\"reps\":[";
  for (size_t i = 0; i < row.tok_s.size(); ++i) append(out, "%s%.2f", i == 0 ? "" : ",", row.tok_s[i]);
  return out + "]";
}

// What all rows of a run have in common.
std::string setting_json(const BenchModel& model, const BenchOptions& options, const Limits& limits) {
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
  return out + limits.json;
}

void print_table(const std::vector<BenchRow>& rows, const std::vector<Share>& shares, const Limits& limits,
                 const std::string& device) {
  std::printf("%s; measured: %s\n", device.c_str(), limits.text.c_str());
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
  // A card's limits come first: its memory may be full later.
  std::optional<Limits> limits;
  if (options.backend == "cuda") {
    RS_TRY(limits, card_limits());
  }
  RS_TRY(const std::unique_ptr<BenchModel> model, load_bench_model(options));
  // The source of random weights is gone; a checkpoint's peak while loading counts.
  if (options.model.empty()) forget_peak_memory();
  RS_TRY(const std::vector<BenchRow> rows, run_bench_rows(*model, options));
  if (!limits) {
    RS_TRY(limits, processor_limits(*model, options));
  }
  std::vector<Share> shares;
  for (const BenchRow& row : rows) shares.push_back(share_of(row, *model, options, *limits));
  if (!options.json) {
    print_table(rows, shares, *limits, model->backend().device(model->handle()));
    return Unit{};
  }
  const std::string setting = setting_json(*model, options, *limits);
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
