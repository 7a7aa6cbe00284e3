// Owns: the bench command: its options, its timings and its rows. Prompts and generated tokens are random: a model with
// random weights left to its own choice would soon repeat one token and one set of experts.
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "model/loaded_model.h"
#include "tools/bench_model.h"
#include "tools/commands.h"
#include "tools/roofline.h"

namespace ringside::tools {
namespace {

constexpr const char* kUsage =
    "usage: ringside-tool bench [--shape nano|nano8|mini|flash] [--model DIR] [--quant bf16|q8] [--threads N] [--isa "
    "X]\n"
    "                           [--prompt N] [--generate N] [--depths N,N] [--reps N] [--json]\n";
constexpr int64_t kLargestRoofline = int64_t{1} << 30;

struct Request {
  std::string shape = "nano";
  std::string model;
  std::string quant = "q8";
  std::string isa;
  int64_t threads = 0;
  int64_t prompt = 512;
  int64_t generate = 64;
  int64_t reps = 3;
  std::vector<int64_t> depths = {0, 4096};
  bool json = false;
};

struct Row {
  std::string test;
  int64_t depth = 0;
  std::vector<double> reps;    // tokens a second
  double tok_s = 0.0;          // their median
  std::optional<double> gb_s;  // decode: bytes that must be read
  double roofline_pct = 0.0;
  int64_t rss_bytes = 0;
};

std::optional<int64_t> whole_number(std::string_view text, int64_t least) {
  int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || end != text.data() + text.size() || number < least || number > 10'000'000) {
    return std::nullopt;
  }
  return number;
}

bool set_number(std::string_view text, int64_t least, int64_t& to) {
  const std::optional<int64_t> number = whole_number(text, least);
  if (number) to = *number;
  return number.has_value();
}

bool set_depths(std::string_view text, std::vector<int64_t>& to) {
  to.clear();
  while (true) {
    const size_t comma = text.find(',');
    const std::optional<int64_t> depth = whole_number(text.substr(0, comma), 0);
    if (!depth) return false;
    to.push_back(*depth);
    if (comma == std::string_view::npos) return true;
    text.remove_prefix(comma + 1);
  }
}

// One setting by its option's name. The harness's own words for shapes and formats are understood too.
bool set_option(std::string_view name, std::string_view value, Request& request) {
  if (name == "--model") return !(request.model = value).empty();
  if (name == "--isa") return !(request.isa = value).empty();
  if (name == "--threads") return set_number(value, 1, request.threads);
  if (name == "--prompt") return set_number(value, 0, request.prompt);
  if (name == "--generate") return set_number(value, 0, request.generate);
  if (name == "--reps") return set_number(value, 1, request.reps);
  if (name == "--depths") return set_depths(value, request.depths);
  if (name == "--shape") {
    if (value.starts_with("nano-")) value = "nano8";  // the peer's nano has 8 layers
    if (value.starts_with("mini-")) value = "mini";
    request.shape = value;
    return shape_by_name(request.shape).has_value();
  }
  if (name == "--quant") {
    if (value == "q8_0") value = "q8";
    if (value == "f16") value = "bf16";
    request.quant = value;
    return value == "q8" || value == "bf16";
  }
  return false;
}

std::optional<Request> parse_arguments(int argc, char** argv) {
  Request request;
  constexpr struct {
    const char* variable;
    const char* option;
  } kVariables[] = {{"BENCH_SHAPE", "--shape"},   {"BENCH_QUANT", "--quant"},       {"BENCH_THREADS", "--threads"},
                    {"BENCH_PROMPT", "--prompt"}, {"BENCH_GENERATE", "--generate"}, {"BENCH_DEPTHS", "--depths"}};
  const auto is_given = [&](std::string_view option) {
    return std::any_of(argv, argv + argc, [&](const char* argument) { return option == argument; });
  };
  for (const auto& [variable, option] : kVariables) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0' || is_given(option)) continue;
    if (set_option(option, value, request)) continue;
    std::fprintf(stderr, "%s: \"%s\" is not supported\n", variable, value);
    return std::nullopt;
  }
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      request.json = true;
    } else if (i + 1 >= argc || !set_option(argument, argv[++i], request)) {
      return std::nullopt;
    }
  }
  return request;
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  if (file >> total_pages >> resident_pages) return resident_pages * 4096;
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<int64_t>(usage.ru_maxrss) * 1024 : 0;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
}

// Runs prompts and single steps on one model; every repetition starts from the same snapshot.
class Bench {
 public:
  Bench(const BenchModel& model, const Request& request)
      : model_(model),
        backend_(model.backend()),
        request_(request),
        logits_(static_cast<size_t>(model.config().vocab_rows)) {}

  Result<std::vector<Row>> run() {
    RS_CHECK(warm_up());
    std::vector<Row> rows;
    for (const int64_t depth : request_.depths) {
      RS_TRY(Holder<rs_snapshot> start, snapshot_at(depth));
      if (request_.prompt > 0) {
        RS_TRY(Row row, measure("pp", request_.prompt, depth, start.get()));
        rows.push_back(std::move(row));
      }
      if (request_.generate > 0) {
        RS_TRY(Row row, measure("tg", request_.generate, depth, start.get()));
        rows.push_back(std::move(row));
      }
    }
    return rows;
  }

 private:
  template <class T>
  struct Closer {
    void (*close)(T*) = nullptr;
    void operator()(T* handle) const { close(handle); }
  };
  template <class T>
  using Holder = std::unique_ptr<T, Closer<T>>;

  Result<Holder<rs_session>> open(const rs_snapshot* from) {
    rs_session* session = nullptr;
    rs_error error{};
    const int32_t outcome = from == nullptr ? backend_.open(model_.handle(), &session, &error)
                                            : backend_.restore(model_.handle(), from, &session, &error);
    if (outcome != 0) return to_error(error);
    return Holder<rs_session>(session, {backend_.close});
  }

  Status extend(rs_session* session, int64_t count, rs_logits want) {
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (int32_t& id : ids) {
      seed_ = seed_ * 6364136223846793005ull + 1442695040888963407ull;
      id = static_cast<int32_t>((seed_ >> 33) % static_cast<uint64_t>(model_.config().vocab_rows));
    }
    rs_error error{};
    if (backend_.extend(session, ids.data(), count, want, logits_.data(), nullptr, &error) != 0) return to_error(error);
    return Unit{};
  }

  Status warm_up() {
    RS_TRY(Holder<rs_session> session, open(nullptr));
    return extend(session.get(), std::max<int64_t>(64, std::min<int64_t>(request_.prompt, 512)), RS_LOGITS_LAST);
  }

  Result<Holder<rs_snapshot>> snapshot_at(int64_t depth) {
    RS_TRY(Holder<rs_session> session, open(nullptr));
    if (depth > 0) RS_CHECK(extend(session.get(), depth, RS_LOGITS_NONE));
    rs_snapshot* snapshot = nullptr;
    rs_error error{};
    if (backend_.save(session.get(), &snapshot, &error) != 0) return to_error(error);
    return Holder<rs_snapshot>(snapshot, {backend_.drop});
  }

  Result<Row> measure(const char* kind, int64_t tokens, int64_t depth, const rs_snapshot* start) {
    const bool is_prompt = std::string_view(kind) == "pp";
    Row row;
    row.test = kind + std::to_string(tokens);
    row.depth = depth;
    for (int64_t rep = 0; rep < request_.reps; ++rep) {
      RS_TRY(Holder<rs_session> session, open(start));
      // A snapshot stands at a chunk boundary; the rest of an odd depth is read again, untimed.
      const int64_t missing = depth - backend_.position(session.get());
      if (missing > 0) RS_CHECK(extend(session.get(), missing, RS_LOGITS_NONE));
      const auto begin = std::chrono::steady_clock::now();
      if (is_prompt) {
        RS_CHECK(extend(session.get(), tokens, RS_LOGITS_LAST));
      } else {
        for (int64_t i = 0; i < tokens; ++i) RS_CHECK(extend(session.get(), 1, RS_LOGITS_LAST));
      }
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      row.reps.push_back(static_cast<double>(tokens) / seconds);
      row.rss_bytes = resident_bytes();
    }
    row.tok_s = median(row.reps);
    return row;
  }

  const BenchModel& model_;
  const rs_backend& backend_;
  const Request& request_;
  std::vector<float> logits_;
  uint64_t seed_ = 1;
};

// Decode is measured against reading what must be read, prefill against the multiplications that must be done.
void add_rooflines(const BenchModel& model, const Request& request, const Roofline& roofline, std::vector<Row>& rows) {
  const TokenCost cost = token_cost(model.config());
  const auto resident = static_cast<double>(model.backend().weight_bytes(model.handle()));
  const double weight_bytes = resident * cost.active_parameters / cost.total_parameters;
  for (Row& row : rows) {
    if (row.test.starts_with("tg")) {
      const double depth = static_cast<double>(row.depth) + static_cast<double>(request.generate) / 2.0;
      const double bytes = weight_bytes + cost.state_bytes + depth * cost.cache_bytes_per_token;
      row.gb_s = bytes * row.tok_s / 1e9;
      row.roofline_pct = 100.0 * *row.gb_s / roofline.read_gb_s;
    } else {
      const double keys = static_cast<double>(row.depth) + static_cast<double>(request.prompt) / 2.0;
      const double flops = 2.0 * cost.read_parameters + cost.linear_attention_flops + keys * cost.softmax_flops_per_key;
      row.roofline_pct = 100.0 * flops * row.tok_s / (roofline.fp32_tflops * 1e12);
    }
  }
}

void print_json(const std::vector<Row>& rows, const std::string& device) {
  std::string out = "[";
  char text[128];
  for (const Row& row : rows) {
    if (out.size() > 1) out += ",\n ";
    out += "{\"test\":" + json::quote(row.test) + ",\"depth\":" + std::to_string(row.depth);
    std::snprintf(text, sizeof text, ",\"tok_s\":%.2f", row.tok_s);
    out += text;
    if (row.gb_s) {
      std::snprintf(text, sizeof text, ",\"gb_s\":%.3f", *row.gb_s);
      out += text;
    }
    std::snprintf(text, sizeof text, ",\"roofline_pct\":%.1f,\"rss_bytes\":%lld", row.roofline_pct,
                  static_cast<long long>(row.rss_bytes));
    out += text;
    out += ",\"backend\":\"cpu\",\"device\":" + json::quote(device) + ",\"reps\":[";
    for (size_t i = 0; i < row.reps.size(); ++i) {
      std::snprintf(text, sizeof text, "%s%.2f", i == 0 ? "" : ",", row.reps[i]);
      out += text;
    }
    out += "]}";
  }
  std::printf("%s]\n", out.c_str());
}

void print_table(const std::vector<Row>& rows, const Roofline& roofline, const std::string& device) {
  std::printf("%s; %.1f GB/s, %.3f TFLOP/s measured\n", device.c_str(), roofline.read_gb_s, roofline.fp32_tflops);
  std::printf("%-8s %8s %12s %10s %10s %10s\n", "test", "depth", "tok/s", "GB/s", "roofline", "memory");
  for (const Row& row : rows) {
    char gb_s[32] = "";
    if (row.gb_s) std::snprintf(gb_s, sizeof gb_s, "%.2f", *row.gb_s);
    std::printf("%-8s %8lld %12.1f %10s %9.1f%% %7.0f MB\n", row.test.c_str(), static_cast<long long>(row.depth),
                row.tok_s, gb_s, row.roofline_pct, static_cast<double>(row.rss_bytes) / 1e6);
  }
}

Status run(const Request& request) {
  const int threads = static_cast<int>(request.threads);
  std::unique_ptr<BenchModel> model;
  if (request.model.empty()) {
    const std::optional<Config> config = shape_by_name(request.shape);
    RS_TRY(model, random_model(*config, request.quant == "q8" ? RS_WEIGHT_Q8 : RS_WEIGHT_BF16, threads, request.isa));
  } else {
    RS_TRY(model, checkpoint_model(request.model, threads, request.isa));
  }
  const std::string device = model->backend().device(model->handle());
  std::vector<Row> rows;
  { RS_TRY(rows, Bench(*model, request).run()); }
  // A model that fits a cache is measured against that cache: the block read is as large as the weights.
  const int64_t block_bytes = std::min(kLargestRoofline, model->backend().weight_bytes(model->handle()));
  RS_TRY(const Roofline roofline, measure_roofline(threads, request.isa, block_bytes));
  add_rooflines(*model, request, roofline, rows);
  if (request.json) {
    print_json(rows, device);
  } else {
    print_table(rows, roofline, device);
  }
  return Unit{};
}

}  // namespace

int run_bench(int argc, char** argv) {
  const std::optional<Request> request = parse_arguments(argc, argv);
  if (!request) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const Status status = run(*request);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().message().c_str());
  return 1;
}

}  // namespace ringside::tools
