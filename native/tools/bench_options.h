// Owns: what a benchmark is asked to do: options, the variables of the side-by-side harness, and defaults.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/backend.h"

namespace ringside::tools {

struct BenchOptions {
  std::string shape = "nano";
  std::string model;            // a checkpoint folder; empty: random weights of `shape`
  std::string backend = "cpu";  // or "cuda"
  rs_weight_format format = RS_WEIGHT_Q8;
  int64_t head_bits = 8;  // of the output matrix where the rest has 4
  int64_t group_columns = 128;
  rs_kv_format kv_format = RS_KV_BF16;
  std::string isa;
  int64_t threads = 0;                   // 0: physical cores
  std::vector<int64_t> prompts = {512};  // a row each
  int64_t generate = 64;
  std::vector<int64_t> sequences = {1};  // above 1: rows of so many sequences in one step, beside those of one
  int64_t reps = 3;
  std::vector<int64_t> depths = {0, 4096};
  bool json = false;
  // The alignment report.
  bool align = false;
  std::string text;  // a file whose tokens are read
  int64_t tokens = 256;
};

extern const char* const kBenchUsage;

// Nothing, after a line on stderr where a variable is wrong, when the arguments make no sense. An option wins over the
// harness's variable of the same meaning; the harness's own words for shapes and formats are understood in both.
std::optional<BenchOptions> parse_bench_options(int argc, char** argv);

const char* format_name(rs_weight_format format);  // "q4"
const char* kv_format_name(rs_kv_format format);   // "bf16"

}  // namespace ringside::tools
