// Owns: the layout of MLX conversions: `X.weight` uint32 [out, in / codes per word] with `X.scales` and `X.biases`
// [out, groups], value = code * scale + bias; the experts of a layer stacked in `mlp.switch_mlp.*`, the router called
// `mlp.gate.gate_proj`. Unquantised conversions have the same names. Private to model/.
#pragma once

#include "model/checkpoint_layout.h"
#include "model/checkpoint_quantization.h"

namespace ringside {

// Whether unquantised files use the names of an MLX conversion.
bool has_mlx_names(const CheckpointFiles& files);

// Without a configuration: an unquantised conversion. `experts` is the length of every stack.
Result<std::unique_ptr<CheckpointLayout>> open_mlx(const std::optional<QuantizationFields>& config, int64_t experts,
                                                   const CheckpointFiles& files);

}  // namespace ringside
