#include <algorithm>
#include <cmath>

#include "cuda/cuda_call.h"
#include "cuda/kernels/mixture_lists.h"

namespace ringside::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kChoiceWarps = 4;  // tokens of a block

// Unsigned numbers in the order of the floats. What is no number comes before every number and is 1; 0 is left for
// "taken" and "in a group that was not chosen".
__device__ __forceinline__ uint32_t order_key(float value) {
  if (value != value) return 1u;
  const uint32_t bits = __float_as_uint(value == 0.0f ? 0.0f : value);  // -0 and 0 are a tie
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct ChoiceShape {
  int experts, slots, groups, groups_per_token;
  float scale;
};

// Zero the keys of all groups but the best; a group's score is the sum of its two largest c. One warp.
__device__ void mask_groups(const ChoiceShape& shape, const float* choice, uint32_t* keys, int lane) {
  const int group_experts = shape.experts / shape.groups;
  float largest = -INFINITY, second = -INFINITY;
  for (int i = 0; lane < shape.groups && i < group_experts; i++) {
    // Lanes begin at different experts, so that they meet different banks.
    const float c = choice[lane * group_experts + (i + lane) % group_experts];
    if (c > largest) {
      second = largest;
      largest = c;
    } else if (c > second) {
      second = c;
    }
  }
  const uint32_t score = lane < shape.groups ? order_key(group_experts == 1 ? largest : largest + second) : 0u;
  int better = 0;
  for (int g = 0; g < shape.groups; g++) {
    const uint32_t other = __shfl_sync(kAll, score, g);
    better += other > score || (other == score && g < lane);
  }
  const unsigned kept = __ballot_sync(kAll, lane < shape.groups && better < shape.groups_per_token);
  for (int e = lane; e < shape.experts; e += 32) {
    if ((kept >> (e / group_experts) & 1u) == 0u) keys[e] = 0u;
  }
  __syncwarp();
}

// Specification section 5, one warp a token. Shared memory of a warp: s, c and the keys of c.
__global__ void __launch_bounds__(kChoiceWarps * 32)
    choose_kernel(ChoiceShape shape, const float* logits, const float* bias, int64_t rows, int32_t* chosen,
                  float* weights) {
  extern __shared__ float shared_floats[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kChoiceWarps + warp;
  if (row >= rows) return;
  float* const score = shared_floats + warp * shape.experts * 3;
  float* const choice = score + shape.experts;
  uint32_t* const keys = reinterpret_cast<uint32_t*>(choice + shape.experts);
  for (int e = lane; e < shape.experts; e += 32) {
    const float s = 1.0f / (1.0f + expf(-logits[row * shape.experts + e]));
    score[e] = s;
    choice[e] = bias != nullptr ? s + bias[e] : s;
    keys[e] = order_key(choice[e]);
  }
  __syncwarp();
  if (shape.groups_per_token < shape.groups) mask_groups(shape, choice, keys, lane);

  int mine = 0;  // lane i: the i-th choice
  for (int slot = 0; slot < shape.slots; slot++) {
    uint32_t best = 0u;
    int best_expert = shape.experts;
    for (int e = lane; e < shape.experts; e += 32) {
      if (keys[e] > best) best = keys[e], best_expert = e;
    }
    const uint32_t most = __reduce_max_sync(kAll, best);
    const int expert =
        static_cast<int>(__reduce_min_sync(kAll, static_cast<unsigned>(best == most ? best_expert : shape.experts)));
    if (lane == slot) mine = expert;
    if (lane == expert % 32 && expert < shape.experts) keys[expert] = 0u;
    __syncwarp();
  }
  // A lane's place among the slots is the number of smaller experts.
  int place = 0;
  for (int slot = 0; slot < shape.slots; slot++) place += __shfl_sync(kAll, mine, slot) < mine;
  const bool has_slot = lane < shape.slots;
  if (has_slot) keys[place] = static_cast<uint32_t>(mine);
  __syncwarp();
  float total = 0.0f;
  for (int slot = 0; slot < shape.slots; slot++) total += score[keys[slot]];
  if (has_slot) {
    const int expert = static_cast<int>(keys[lane]);
    chosen[row * shape.slots + lane] = expert;
    weights[row * shape.slots + lane] = score[expert] / (total + 1e-20f) * shape.scale;
  }
}

// `place` gets the slot's number in its expert's list; which token comes first there is left to chance, and no result
// depends on it.
__global__ void count_kernel(const int32_t* chosen, int64_t slots, int32_t* counts, int32_t* place) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < slots) place[i] = atomicAdd(counts + chosen[i], 1);
}

// One block: where each list begins, and its tiles. A list is cut into equal parts, whole eights of rows, so that the
// last tile is not a small rest.
__global__ void __launch_bounds__(kMostExperts) cut_kernel(MixtureLists lists, int experts, int shared_rows) {
  __shared__ int ends[kMostExperts], tile_ends[kMostExperts];
  const int list = static_cast<int>(threadIdx.x), count = list < experts ? lists.counts[list] : 0;
  const int tiles = (count + lists.tile_rows - 1) / lists.tile_rows;
  ends[list] = count;
  tile_ends[list] = tiles;
  __syncthreads();
  for (int distance = 1; distance < kMostExperts; distance *= 2) {
    const int before = list >= distance ? ends[list - distance] : 0;
    const int tiles_before = list >= distance ? tile_ends[list - distance] : 0;
    __syncthreads();
    ends[list] += before;
    tile_ends[list] += tiles_before;
    __syncthreads();
  }
  if (list < experts) lists.starts[list] = ends[list] - count;
  if (tiles > 0) {
    const int part = ((count + tiles - 1) / tiles + 7) / 8 * 8;
    for (int t = 0; t < tiles; t++) {
      const int first = min(t * part, count);
      lists.tiles[tile_ends[list] - tiles + t] = RowTile{list, ends[list] - count + first, min(part, count - first)};
    }
  }
  const int all = ends[kMostExperts - 1], all_tiles = tile_ends[kMostExperts - 1];
  const int shared_tiles = (shared_rows + lists.tile_rows - 1) / lists.tile_rows;
  for (int t = list; t < shared_tiles; t += kMostExperts) {
    const int first = t * lists.tile_rows;
    lists.tiles[all_tiles + t] = RowTile{experts, all + first, min(lists.tile_rows, shared_rows - first)};
  }
  if (list == 0) {
    lists.starts[experts] = all;
    *lists.tile_count = all_tiles + shared_tiles;
  }
}

__global__ void scatter_kernel(MixtureLists lists, int experts, int slots, int shared, int64_t rows) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, row = i / (slots + shared);
  if (row >= rows) return;
  const int slot = static_cast<int>(i % (slots + shared));
  int32_t place = lists.starts[experts] + static_cast<int32_t>(row);
  if (slot < slots) {
    int32_t& at = lists.place[row * slots + slot];
    place = lists.starts[lists.chosen[row * slots + slot]] + at;
    at = place;
  }
  lists.gather[place] = static_cast<int32_t>(row);
}

unsigned blocks_for(int64_t threads, int64_t block_threads) {
  return static_cast<unsigned>((threads + block_threads - 1) / block_threads);
}

}  // namespace

int32_t most_tiles(const rs_config& config, bool shared, int64_t rows, int32_t tile_rows) {
  const int64_t slots = rows * config.experts_per_token;
  const int64_t of_experts = slots / tile_rows + std::min<int64_t>(config.experts, slots);
  return static_cast<int32_t>(of_experts + (shared ? (rows + tile_rows - 1) / tile_rows : 0));
}

Status choose_experts(const rs_config& config, const float* logits, const float* bias, int64_t rows,
                      const MixtureLists& lists, cudaStream_t stream) {
  const ChoiceShape shape{config.experts, config.experts_per_token, config.expert_groups, config.groups_per_token,
                          config.routed_scale};
  const size_t shared_bytes = sizeof(float) * 3 * kChoiceWarps * config.experts;
  choose_kernel<<<blocks_for(rows, kChoiceWarps), kChoiceWarps * 32, shared_bytes, stream>>>(
      shape, logits, bias, rows, lists.chosen, lists.weights);
  RS_LAUNCHED();
  return Unit{};
}

Status build_lists(const rs_config& config, bool shared, int64_t rows, const MixtureLists& lists, cudaStream_t stream) {
  const int64_t slots = rows * config.experts_per_token;
  RS_CUDA(cudaMemsetAsync(lists.counts, 0, sizeof(int32_t) * config.experts, stream));
  count_kernel<<<blocks_for(slots, 256), 256, 0, stream>>>(lists.chosen, slots, lists.counts, lists.place);
  RS_LAUNCHED();
  cut_kernel<<<1, kMostExperts, 0, stream>>>(lists, config.experts, shared ? static_cast<int>(rows) : 0);
  RS_LAUNCHED();
  scatter_kernel<<<blocks_for(slots + (shared ? rows : 0), 256), 256, 0, stream>>>(
      lists, config.experts, config.experts_per_token, shared ? 1 : 0, rows);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
