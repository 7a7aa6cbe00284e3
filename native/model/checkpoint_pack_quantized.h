// Owns: compressed-tensors "pack-quantized": `X.weight_packed` int32 [out, in / codes per word], `X.weight_scale`
// [out, groups], `X.weight_shape`, and where a group asks for them `X.weight_zero_point`, packed down the rows, and
// `X.weight_g_idx`, the group of every column. Private to model/.
#pragma once

#include "model/checkpoint_layout.h"
#include "model/checkpoint_quantization.h"

namespace ringside {

Result<std::unique_ptr<CheckpointLayout>> open_pack_quantized(const QuantizationFields& config,
                                                              const CheckpointFiles& files);

}  // namespace ringside
