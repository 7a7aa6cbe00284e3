// Owns: the arithmetic of the roofline: what a pass over the model must read and must compute at least.
// Must never: count what an engine reads or computes in addition; a share of the roofline would flatter it then.
#pragma once

#include <cstdint>

#include "error.h"
#include "model/backend.h"
#include "model/config.h"

namespace ringside::tools {

// Bytes as a backend holds them: as they are stored, scales and offsets included.
struct StoredWeights {
  double expert_bytes = 0.0;  // one routed expert, the mean of all
  double other_bytes = 0.0;   // what every pass reads: attention, routers, dense and shared MLPs, and the head
  bool coded = false;         // products of integers
};
// Looks at one row of each matrix, and of one expert a layer: those of a layer are of one form.
Result<StoredWeights> stored_weights(const Config& config, const rs_weight_source& source);

// Distinct experts, of all layers together, that a pass of `rows` tokens reads where tokens are routed evenly and apart
// from each other.
double even_experts(const Config& config, double rows);

// Keys and values of one position in the format in which they are kept, without its scales.
double kv_bytes_per_token(const Config& config, rs_kv_format format);

// Reading weights with `distinct_experts` (of all layers together), S, and keys and values of `kv_tokens` positions,
// for `sequences` sequences in one pass.
double pass_bytes(const Config& config, const StoredWeights& weights, double distinct_experts, double sequences,
                  double kv_tokens, rs_kv_format format);

// Multiplications and additions, counted apart, of reading `tokens` at `depth` and computing the last one's logits:
// matrices, linear attention in chunks of 64 and softmax attention as in specification section 11.
double prompt_operations(const Config& config, double tokens, double depth);

}  // namespace ringside::tools
