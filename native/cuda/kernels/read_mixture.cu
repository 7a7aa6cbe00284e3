#include <algorithm>
#include <string>

#include "cuda/cuda_call.h"
#include "cuda/kernels/mixture_lists.h"
#include "cuda/kernels/read_mixture.h"
#include "owned_memory.h"

namespace ringside::cuda {
namespace {

constexpr int kSumColumns = 8;  // of a thread: 16 bytes of bf16

// residual[t] += Σ weight * result of each slot, the shared one last. One block a token.
__global__ void sum_slots_kernel(const bf16* results, const int32_t* place, const float* weights, const int32_t* starts,
                                 int experts, int slots, bool shared, int64_t hidden, float* residual) {
  const int64_t row = blockIdx.x;
  const int all = slots + (shared ? 1 : 0);
  for (int64_t c = threadIdx.x * kSumColumns; c < hidden; c += blockDim.x * kSumColumns) {
    float sum[kSumColumns] = {};
    for (int slot = 0; slot < all; slot++) {
      const bool routed = slot < slots;
      const int64_t at = routed ? place[row * slots + slot] : starts[experts] + row;
      const float weight = routed ? weights[row * slots + slot] : 1.0f;
      const uint4 v = __ldg(reinterpret_cast<const uint4*>(results + at * hidden + c));
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        sum[2 * i] = fmaf(weight, __uint_as_float(words[i] << 16), sum[2 * i]);
        sum[2 * i + 1] = fmaf(weight, __uint_as_float(words[i] & 0xffff0000u), sum[2 * i + 1]);
      }
    }
    float4* const out = reinterpret_cast<float4*>(residual + row * hidden + c);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float4 old = out[i];
      out[i] = make_float4(old.x + sum[4 * i], old.y + sum[4 * i + 1], old.z + sum[4 * i + 2], old.w + sum[4 * i + 3]);
    }
  }
}

struct Scratch {
  float* logits;  // [rows, experts]
  MixtureLists lists;
  bf16* ordered;  // [rows, hidden]
  bf16* inner;    // [places, width]
  bf16* results;  // [places, hidden]
  int64_t bytes;
};

// wgmma takes as many rows as a tile has; the tiles of mma.sync are of one size.
int32_t list_tile_rows(const DeviceMatrix& w, const rs_config& config, int64_t rows, bool warpgroups) {
  const int64_t expected = rows * config.experts_per_token / std::max(config.experts, 1);
  if (warpgroups) return 128;
  return expected <= 24 ? 32 : expected <= 128 || w.offsets != nullptr ? 64 : 128;
}

Scratch divide(const DeviceModel& model, int64_t width, int64_t rows, int32_t tile_rows, void* memory) {
  const rs_config& config = model.config;
  const bool shared = model.has_shared != 0;
  const int64_t slots = rows * config.experts_per_token, places = slots + (shared ? rows : 0);
  Scratch s{};
  s.lists.tile_rows = tile_rows;
  s.lists.max_tiles = most_tiles(config, shared, rows, tile_rows);
  Carver carver(static_cast<uint8_t*>(memory));
  carver.take(s.logits, rows * config.experts);
  carver.take(s.lists.chosen, slots);
  carver.take(s.lists.weights, slots);
  carver.take(s.lists.place, slots);
  carver.take(s.lists.counts, config.experts);
  carver.take(s.lists.starts, config.experts + 1);
  carver.take(s.lists.gather, places);
  carver.take(s.lists.tiles, s.lists.max_tiles);
  carver.take(s.lists.tile_count, 1);
  carver.take(s.ordered, rows * config.hidden);
  carver.take(s.inner, places * width);
  carver.take(s.results, places * config.hidden);
  s.bytes = carver.bytes();
  return s;
}

Status check_shape(const rs_config& config, const DeviceLayer& layer) {
  const auto limit = [](const char* subject, int most, int value) {
    return Error{ErrorKind::kArgumentInvalid, subject, "at most " + std::to_string(most), std::to_string(value)};
  };
  if (config.experts > kMostExperts) return limit("experts of a layer", kMostExperts, config.experts);
  if (config.experts_per_token > kMostSlots) return limit("experts of a token", kMostSlots, config.experts_per_token);
  if (config.expert_groups > kMostExpertGroups)
    return limit("groups of experts", kMostExpertGroups, config.expert_groups);
  if (layer.mlp.gate_up.first.columns != config.hidden || layer.mlp.down.first.rows != config.hidden) {
    return Error{ErrorKind::kArgumentInvalid, "hidden size of the experts", std::to_string(config.hidden),
                 std::to_string(layer.mlp.gate_up.first.columns)};
  }
  return Unit{};
}

ProductCall grouped(const DeviceStack& w, const Scratch& s, int64_t places) {
  ProductCall call{};
  call.w = w;
  call.rows = places;
  call.tiles = s.lists.tiles;
  call.tile_count = s.lists.tile_count;
  call.max_tiles = s.lists.max_tiles;
  call.tile_rows = s.lists.tile_rows;
  return call;
}

// Where a part of the layer's experts can be read.
Result<DeviceStack> take(ExpertStream* experts, ExpertStream::Part part, const DeviceLayer& layer,
                         cudaStream_t stream) {
  if (experts != nullptr) return experts->take(part, layer, stream);
  return part == ExpertStream::kGateUp ? layer.mlp.gate_up : layer.mlp.down;
}

Status give_back(ExpertStream* experts, ExpertStream::Part part, const DeviceLayer& layer, cudaStream_t stream) {
  return experts == nullptr ? Status(Unit{}) : experts->give_back(part, layer, stream);
}

Status multiply_experts(const DeviceLayer& layer, const ReadRows& x, const Scratch& s, int64_t places,
                        ExpertStream* experts, cudaStream_t stream) {
  RS_TRY(const bool ordered, products_want_order());
  RS_TRY(const DeviceStack gate_up_weights, take(experts, ExpertStream::kGateUp, layer, stream));
  ProductCall gate_up = grouped(gate_up_weights, s, places);
  gate_up.x = x.values;
  gate_up.x_stride = x.stride;
  if (ordered) {  // once here, not in every tile of every expert
    const int64_t hidden = layer.mlp.gate_up.first.columns;
    RS_CHECK(order_rows(layer.mlp.gate_up.first.format, x, hidden, s.ordered, hidden, stream));
    gate_up.x = s.ordered;
    gate_up.x_stride = hidden;
  }
  gate_up.x_ordered = gate_up.out_ordered = ordered;
  gate_up.out_order = layer.mlp.down.first.format;
  gate_up.gather = s.lists.gather;
  gate_up.epilogue = Epilogue::kSiluBF16;
  gate_up.out = s.inner;
  gate_up.out_stride = layer.mlp.width;
  RS_CHECK(launch_product(gate_up, stream));
  RS_CHECK(give_back(experts, ExpertStream::kGateUp, layer, stream));
  RS_TRY(const DeviceStack down_weights, take(experts, ExpertStream::kDown, layer, stream));
  ProductCall down = grouped(down_weights, s, places);
  down.x = s.inner;
  down.x_stride = layer.mlp.width;
  down.x_ordered = ordered;
  down.epilogue = Epilogue::kStoreBF16;
  down.out = s.results;
  down.out_stride = layer.mlp.down.first.rows;
  RS_CHECK(launch_product(down, stream));
  return give_back(experts, ExpertStream::kDown, layer, stream);
}

}  // namespace

int64_t read_mixture_scratch_bytes(const DeviceModel& model, int64_t rows) {
  int64_t bytes = 0;
  for (const DeviceLayer& layer : model.layers) {
    if (layer.is_dense != 0) continue;
    // Fewer rows may take smaller tiles and so need more of them.
    bytes = std::max(bytes, divide(model, layer.mlp.width, rows, 32, nullptr).bytes);
  }
  return bytes;
}

Status read_mixture(const DeviceModel& model, const DeviceLayer& layer, const ReadRows& x, float* residual,
                    int32_t* chosen, float* weights, void* scratch, cudaStream_t stream, ExpertStream* experts) {
  if (x.count == 0) return Unit{};
  const rs_config& config = model.config;
  RS_CHECK(check_shape(config, layer));
  const bool shared = model.has_shared != 0;
  const int64_t slots = x.count * config.experts_per_token, places = slots + (shared ? x.count : 0);
  RS_TRY(const bool warpgroups, products_want_order());
  const int32_t tile_rows = list_tile_rows(layer.mlp.gate_up.first, config, x.count, warpgroups);
  Scratch s = divide(model, layer.mlp.width, x.count, tile_rows, scratch);
  if (chosen != nullptr) s.lists.chosen = chosen;
  if (weights != nullptr) s.lists.weights = weights;

  RS_CHECK(multiply_rows(layer.router, x, s.logits, config.experts, stream));
  RS_CHECK(choose_experts(config, s.logits, layer.expert_bias, x.count, s.lists, stream));
  RS_CHECK(build_lists(config, shared, x.count, s.lists, stream));
  RS_CHECK(multiply_experts(layer, x, s, places, experts, stream));
  const int threads = static_cast<int>(std::clamp<int64_t>(config.hidden / kSumColumns, 32, 256));
  sum_slots_kernel<<<static_cast<unsigned>(x.count), threads, 0, stream>>>(
      s.results, s.lists.place, s.lists.weights, s.lists.starts, config.experts, config.experts_per_token, shared,
      config.hidden, residual);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
