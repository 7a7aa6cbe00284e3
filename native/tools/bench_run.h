// Owns: the timings: prompts, single steps and steps of several sequences, at each depth. Prompts and generated tokens
// are random: a model with random weights left to its own choice would soon repeat one token and one set of experts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "error.h"
#include "tools/bench_model.h"
#include "tools/bench_options.h"
#include "tools/process_memory.h"

namespace ringside::tools {

enum class BenchKind { kPrompt, kGenerate, kGenerateTogether };

struct BenchRow {
  BenchKind kind = BenchKind::kPrompt;
  std::string test;  // "pp512", "tg64", "tg64x8"
  int64_t tokens = 0;
  int64_t depth = 0;
  int64_t sequences = 1;
  std::vector<double> tok_s;  // of each repetition, all sequences together
  // Read by one pass (a step; a prompt counts as one), all layers together, mean: counted where the backend shows its
  // routers' choices, else those of even routing.
  double distinct_experts = 0.0;
  std::vector<double> to_one;     // kGenerateTogether: ratio to the single sequence of the same repetition
  std::vector<double> choice_us;  // the host's part in tok_s: the greedy choices of one step, a repetition each
  ProcessMemory memory;           // after the last repetition
  double median_tok_s() const;
};

Result<std::vector<BenchRow>> run_bench_rows(const BenchModel& model, const BenchOptions& options);

double median(std::vector<double> values);

}  // namespace ringside::tools
