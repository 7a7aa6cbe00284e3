// Owns: a mixture-of-experts layer of the read path (specification section 5): choice, grouping, products, sum.
#pragma once

#include "cuda/expert_stream.h"
#include "cuda/kernels/read_products.h"

namespace ringside::cuda {

int64_t read_mixture_scratch_bytes(const DeviceModel& model, int64_t rows);

// residual[r] += Σ_slots weight * expert(x[r]) + shared(x[r]). `x`: rows [x_hi | x_lo | x_hi] of 3 * hidden numbers;
// the experts read x_hi. Slots of a token add in the order of their expert, the shared one last.
// `experts` brings those that are on the host; null: all are on the device.
// `chosen` and `weights`, if not null, get [rows, experts_per_token] (device memory), experts ascending.
Status read_mixture(const DeviceModel& model, const DeviceLayer& layer, const ReadRows& x, float* residual,
                    int32_t* chosen, float* weights, void* scratch, cudaStream_t stream,
                    ExpertStream* experts = nullptr);

}  // namespace ringside::cuda
