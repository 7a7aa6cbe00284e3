// Owns: the FP8 layout of the family's own converter (specification section 7.1): `X.weight` in e4m3fn and
// `X.weight_scale_inv` with one scale for every block of 128 × 128. Private to model/.
#pragma once

#include "model/checkpoint_layout.h"
#include "model/checkpoint_quantization.h"

namespace ringside {

Result<std::unique_ptr<CheckpointLayout>> open_fp8(const QuantizationFields& config, const CheckpointFiles& files);

}  // namespace ringside
