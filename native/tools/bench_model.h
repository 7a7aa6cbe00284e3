// Owns: the model a benchmark runs: random weights of a known shape, or a checkpoint, loaded into the CPU backend.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "error.h"
#include "model/backend.h"
#include "model/config.h"

namespace ringside::tools {

// "nano", "nano8" (8 layers in groups of 4 at nano's widths), "mini" or "flash".
std::optional<Config> shape_by_name(const std::string& name);

class BenchModel {
 public:
  virtual ~BenchModel() = default;
  virtual const Config& config() const = 0;
  virtual const rs_backend& backend() const = 0;
  virtual rs_model* handle() const = 0;
};

Result<std::unique_ptr<BenchModel>> random_model(const Config& config, rs_weight_format format, int threads,
                                                 const std::string& isa);
Result<std::unique_ptr<BenchModel>> checkpoint_model(const std::string& folder, int threads, const std::string& isa);

// What one token costs, in the counting of specification section 11.
struct TokenCost {
  double total_parameters;
  double active_parameters;       // that one generated token uses: its row of the embedding, the head, its experts
  double read_parameters;         // the same without embedding and head: what one prompt token uses
  double state_bytes;             // linear states
  double cache_bytes_per_token;   // keys and values of one position
  double linear_attention_flops;  // of one prompt token
  double softmax_flops_per_key;   // of one prompt token and one key
};
TokenCost token_cost(const Config& config);

}  // namespace ringside::tools
