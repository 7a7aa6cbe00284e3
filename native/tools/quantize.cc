// Owns: the quantize command: its options, its progress line and its report.
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "io/json.h"
#include "model/checkpoint.h"
#include "tools/commands.h"

namespace ringside::tools {
namespace {

constexpr const char* kUsage =
    "usage: ringside-tool quantize IN OUT --bits 4|8 [--head-bits 4|8] [--group 32|64|128] [--threads N] [--shard-mb "
    "N] "
    "[--json]\n";
constexpr int64_t kMegabyte = 1'000'000;
// A checkpoint this large has matrices that fill a default shard alone, and would become hundreds of files.
constexpr int64_t kLargeCheckpointBytes = 1'000 * kMegabyte;
constexpr int64_t kLargeShardBytes = 4'000 * kMegabyte;

struct Request {
  std::string in;
  std::string out;
  QuantizeOptions options;
  bool chooses_shard_bytes = true;
  bool json = false;
};

std::optional<int64_t> positive(std::string_view text) {
  int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || end != text.data() + text.size() || number < 1 || number > 1'000'000) return std::nullopt;
  return number;
}

// False for an option that there is not.
bool set_number(std::string_view option, int64_t number, Request& request) {
  const int small = static_cast<int>(number);
  if (option == "--bits") {
    request.options.bits = small;
  } else if (option == "--head-bits") {
    request.options.head_bits = small;
  } else if (option == "--group") {
    request.options.group_columns = small;
  } else if (option == "--threads") {
    request.options.threads = small;
  } else if (option == "--shard-mb") {
    request.options.shard_bytes = number * kMegabyte;
    request.chooses_shard_bytes = false;
  } else {
    return false;
  }
  return true;
}

// Nothing when the arguments make no sense; what exactly the numbers may be is decided by the job itself.
std::optional<Request> parse_arguments(int argc, char** argv) {
  Request request;
  bool has_bits = false;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      request.json = true;
    } else if (argument.starts_with("--")) {
      const std::optional<int64_t> number = i + 1 < argc ? positive(argv[++i]) : std::nullopt;
      if (!number || !set_number(argument, *number, request)) return std::nullopt;
      has_bits = has_bits || argument == "--bits";
    } else if (!argument.starts_with("-") && request.in.empty()) {
      request.in = argument;
    } else if (!argument.starts_with("-") && request.out.empty()) {
      request.out = argument;
    } else {
      return std::nullopt;
    }
  }
  if (!has_bits || request.out.empty()) return std::nullopt;
  return request;
}

Result<QuantizeReport> run(Request& request) {
  if (request.chooses_shard_bytes) {
    RS_TRY(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(request.in));
    if (checkpoint->weight_bytes() > kLargeCheckpointBytes) request.options.shard_bytes = kLargeShardBytes;
  }
  return quantize_checkpoint(request.in, request.out, request.options);
}

volatile std::sig_atomic_t interrupted = 0;
void on_signal(int) { interrupted = 1; }

std::string exact(double number) {
  char text[32];
  const auto [end, code] = std::to_chars(text, text + sizeof text, number);
  return code == std::errc() ? std::string(text, end) : "0";
}

void print_json(const QuantizeReport& report) {
  std::string out = "{\"inputBytes\":" + std::to_string(report.input_bytes) +
                    ",\"outputBytes\":" + std::to_string(report.output_bytes) +
                    ",\"shards\":" + std::to_string(report.shards) + ",\"tensors\":[";
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    out += (i > 0 ? ",{\"tensor\":" : "{\"tensor\":") + json::quote(report.tensors[i].tensor) +
           ",\"relativeRmsError\":" + exact(report.tensors[i].relative_rms_error) + "}";
  }
  std::printf("%s]}\n", out.c_str());
}

void print_text(const QuantizeReport& report) {
  const QuantizeReport::Row* worst = nullptr;
  double sum = 0.0;
  for (const QuantizeReport::Row& row : report.tensors) {
    sum += row.relative_rms_error;
    if (worst == nullptr || row.relative_rms_error > worst->relative_rms_error) worst = &row;
  }
  std::printf("%.1f MB to %.1f MB in %d files\n", static_cast<double>(report.input_bytes) / 1e6,
              static_cast<double>(report.output_bytes) / 1e6, report.shards);
  if (worst == nullptr) return;
  std::printf("relative RMS error: mean %.5f, worst %.5f (%s)\n", sum / static_cast<double>(report.tensors.size()),
              worst->relative_rms_error, worst->tensor.c_str());
}

}  // namespace

int run_quantize(int argc, char** argv) {
  std::optional<Request> request = parse_arguments(argc, argv);
  if (!request) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const bool shows_progress = ::isatty(STDERR_FILENO) == 1;
  // A signal that ended the process at once would leave the unfinished folder behind.
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  request->options.progress = [&](int64_t done_bytes, int64_t total_bytes) {
    if (shows_progress) {
      std::fprintf(stderr, "\rquantizing %3.0f %%",
                   100.0 * static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
    }
    return interrupted == 0;
  };
  const Result<QuantizeReport> report = run(*request);
  if (shows_progress) std::fputs("\n", stderr);
  if (!report.ok()) {
    std::fprintf(stderr, "%s\n", report.error().message().c_str());
    return 1;
  }
  request->json ? print_json(report.value()) : print_text(report.value());
  return 0;
}

}  // namespace ringside::tools
