// Owns: the classic GPTQ layout, where everything is stored [in, out]: `X.qweight` int32 [in / codes per word, out],
// `X.qzeros` int32 [groups, out / codes per word], `X.scales` [groups, out], `X.g_idx` int32 [in], the group of every
// column. Private to model/.
#pragma once

#include "model/checkpoint_layout.h"
#include "model/checkpoint_quantization.h"

namespace ringside {

Result<std::unique_ptr<CheckpointLayout>> open_gptq(const QuantizationFields& config, const CheckpointFiles& files);

}  // namespace ringside
