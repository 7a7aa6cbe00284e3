#include "tools/bench_options.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tools/bench_shapes.h"

namespace ringside::tools {
namespace {

struct FormatName {
  const char* name;
  int32_t format;
};
// The last three are the harness's words for what comes nearest.
constexpr FormatName kFormats[] = {{"bf16", RS_WEIGHT_BF16}, {"q8", RS_WEIGHT_Q8},   {"q4", RS_WEIGHT_Q4},
                                   {"f16", RS_WEIGHT_BF16},  {"q8_0", RS_WEIGHT_Q8}, {"q4_0", RS_WEIGHT_Q4}};
constexpr FormatName kKvFormats[] = {{"bf16", RS_KV_BF16}, {"f32", RS_KV_F32}, {"q8", RS_KV_Q8}};

template <size_t n>
std::optional<int32_t> format_by_name(const FormatName (&formats)[n], std::string_view name) {
  for (const FormatName& format : formats) {
    if (name == format.name) return format.format;
  }
  return std::nullopt;
}

template <size_t n>
const char* name_of(const FormatName (&formats)[n], int32_t format) {
  for (const FormatName& candidate : formats) {
    if (candidate.format == format) return candidate.name;
  }
  return "";
}

constexpr int64_t kMostTokens = 10'000'000;

std::optional<int64_t> whole_number(std::string_view text, int64_t least, int64_t most = kMostTokens) {
  int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || end != text.data() + text.size() || number < least || number > most) return std::nullopt;
  return number;
}

template <class T>
bool set(std::optional<T> value, T& to) {
  if (value) to = *value;
  return value.has_value();
}

// Numbers with commas between them.
bool set_list(std::string_view text, int64_t least, int64_t most, std::vector<int64_t>& to) {
  to.clear();
  while (true) {
    const size_t comma = text.find(',');
    const std::optional<int64_t> number = whole_number(text.substr(0, comma), least, most);
    if (!number) return false;
    to.push_back(*number);
    if (comma == std::string_view::npos) return true;
    text.remove_prefix(comma + 1);
  }
}

bool set_shape(std::string_view value, std::string& to) {
  // The peer's nano has 8 layers; what stands behind the dash is which of its architectures has the shape.
  if (value.starts_with("nano-")) value = "nano8";
  if (value.starts_with("mini-")) value = "mini";
  to = value;
  return shape_by_name(to).has_value();
}

// One setting by its option's name.
bool set_option(std::string_view name, std::string_view value, BenchOptions& options) {
  if (name == "--backend") return (options.backend = value) == "cpu" || value == "cuda";
  if (name == "--model") return !(options.model = value).empty();
  if (name == "--isa") return !(options.isa = value).empty();
  if (name == "--text") return !(options.text = value).empty();
  if (name == "--shape") return set_shape(value, options.shape);
  if (name == "--depths") return set_list(value, 0, kMostTokens, options.depths);
  if (name == "--threads") return set(whole_number(value, 1), options.threads);
  if (name == "--prompt") return set_list(value, 0, kMostTokens, options.prompts);
  if (name == "--generate") return set(whole_number(value, 0), options.generate);
  if (name == "--reps") return set(whole_number(value, 1), options.reps);
  if (name == "--sequences") return set_list(value, 1, RS_STEP_ROWS, options.sequences);
  if (name == "--tokens") return set(whole_number(value, 2), options.tokens);
  if (name == "--head") return set(whole_number(value, 4, 8), options.head_bits) && options.head_bits % 4 == 0;
  if (name == "--group") {
    return set(whole_number(value, 32, 128), options.group_columns) &&
           (options.group_columns & (options.group_columns - 1)) == 0;
  }
  if (name == "--quant" || name == "--kv") {
    const std::optional<int32_t> format =
        name == "--kv" ? format_by_name(kKvFormats, value) : format_by_name(kFormats, value);
    if (!format) return false;
    if (name == "--kv") options.kv_format = static_cast<rs_kv_format>(*format);
    if (name == "--quant") options.format = static_cast<rs_weight_format>(*format);
    return true;
  }
  return false;
}

// False, and said, when a variable that no option overrides is not understood.
bool read_variables(int argc, char** argv, BenchOptions& options) {
  constexpr struct {
    const char* variable;
    const char* option;
  } kVariables[] = {{"BENCH_SHAPE", "--shape"},   {"BENCH_QUANT", "--quant"},       {"BENCH_THREADS", "--threads"},
                    {"BENCH_PROMPT", "--prompt"}, {"BENCH_GENERATE", "--generate"}, {"BENCH_DEPTHS", "--depths"}};
  for (const auto& [variable, option] : kVariables) {
    const char* value = std::getenv(variable);
    const std::string_view name = option;
    const bool is_given =
        std::any_of(argv, argv + argc, [&](const char* argument) { return name == std::string_view(argument); });
    if (value == nullptr || *value == '\0' || is_given || set_option(name, value, options)) continue;
    std::fprintf(stderr, "%s: \"%s\" is not supported\n", variable, value);
    return false;
  }
  return true;
}

}  // namespace

const char* const kBenchUsage =
    "usage: ringside-tool bench [--shape nano|nano8|mini|flash] [--quant bf16|q8|q4] [--head 4|8] [--group 32|64|128]\n"
    "                           [--model DIR] [--backend cpu|cuda] [--kv bf16|f32|q8] [--threads N] [--isa X]\n"
    "                           [--prompt N,N] [--generate N] [--depths N,N] [--sequences N,N] [--reps N] [--json]\n"
    "       ringside-tool bench --align --model DIR --text FILE [--tokens N] [--kv bf16|f32|q8] [--threads N]\n"
    "                           [--isa X] [--json]\n";

std::optional<BenchOptions> parse_bench_options(int argc, char** argv) {
  BenchOptions options;
  if (!read_variables(argc, argv, options)) return std::nullopt;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      options.json = true;
    } else if (argument == "--align") {
      options.align = true;
    } else if (i + 1 >= argc || !set_option(argument, argv[++i], options)) {
      return std::nullopt;
    }
  }
  if (options.align && (options.model.empty() || options.text.empty())) return std::nullopt;
  return options;
}

const char* format_name(rs_weight_format format) { return name_of(kFormats, format); }
const char* kv_format_name(rs_kv_format format) { return name_of(kKvFormats, format); }

}  // namespace ringside::tools
