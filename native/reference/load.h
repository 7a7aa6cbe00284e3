// Owns: pulling the weights of the reference from the checkpoint, one tensor at a time, into plain fp32 arrays.
#pragma once

#include <memory>

#include "../error.h"
#include "forward.h"

namespace ringside::reference {

Result<std::unique_ptr<Weights>> load_weights(const rs_config& config, const rs_weight_source& source,
                                              const rs_load_options& options);
int64_t weight_bytes(const Weights& weights);

}  // namespace ringside::reference
