// Owns: flash attention with wgmma, for Hopper.
//
// As in flash_attention.cu a block is the 128 rows of the query heads that share a kv head, and keys come in absolute
// tiles, here of 128. One warpgroup brings keys and values, two multiply, 64 rows each: while the tensor cores add the
// values of one tile, the warps turn the scores of the next into weights.
#include "cuda/cuda_call.h"
#include "cuda/kernels/attention_tile.cuh"
#include "cuda/kernels/flash_attention.cuh"
#include "cuda/kernels/warpgroup.cuh"

namespace ringside::cuda {
namespace {

constexpr int kConsumers = 2;
constexpr int kGroupThreads = 128;  // of a warpgroup
constexpr int kThreads = (kConsumers + 1) * kGroupThreads;
constexpr int kStages = 2;
// What wgmma reads is cut into panels of 64 channels: 128 rows of 128 bytes each.
constexpr int kPanelBytes = 128 * 128;
constexpr int kPartBytes = 2 * kPanelBytes;
constexpr int kKeysAt = kPartBytes;
constexpr int kValuesAt = kKeysAt + kStages * kPartBytes;
constexpr int kBarriersAt = kValuesAt + kStages * kPartBytes;
constexpr int kSharedBytes = kBarriersAt + 64 + 1024;  // 1,024 to align the panels

#if defined(RS_WARPGROUP_CODE)

constexpr int kConsumerRows = kBlockRows / kConsumers;
constexpr int kKeys = 128;

__device__ __forceinline__ uint32_t panel_offset(int row, int vector) {
  return static_cast<uint32_t>(vector / 8 * kPanelBytes + row * 128 + (((vector & 7) ^ (row & 7)) << 4));
}

// Keys and values, each a ring of two: `full` when they are there, `empty` when both consumers have done with them.
struct Rings {
  uint32_t barriers;
  __device__ __forceinline__ uint32_t full(int is_value, int tile) const {
    return barriers + (is_value * kStages + tile % kStages) * 8;
  }
  __device__ __forceinline__ uint32_t empty(int is_value, int tile) const { return full(is_value, tile) + 32; }
  __device__ __forceinline__ static int parity(int tile) { return tile / kStages & 1; }
};

// The order in which consumers want the parts, and so the producer brings them: K0, K1, V0, K2, V1, …, V of the last.
struct Part {
  int is_value, tile;
  __device__ __forceinline__ Part(int index, int tiles)
      : is_value(index == 2 * tiles - 1 || (index > 0 && index % 2 == 0)),
        tile(index == 2 * tiles - 1 ? tiles - 1
             : is_value             ? index / 2 - 1
                                    : (index + 1) / 2) {}
};

// Whether the phase of that parity is complete, without waiting.
__device__ __forceinline__ bool barrier_passed(uint32_t barrier, uint32_t parity) {
  uint32_t passed;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(passed)
               : "r"(barrier), "r"(parity)
               : "memory");
  return passed != 0;
}

__device__ __forceinline__ void produce(const FlashCall& call, const BlockRows& rows, uint32_t shared,
                                        const Rings& rings, int tiles) {
  const int thread = threadIdx.x % kGroupThreads, vector = thread % kRowVectors, first_row = thread / kRowVectors;
  constexpr int kRowStep = kGroupThreads / kRowVectors;
#pragma unroll 4
  for (int row = first_row; row < kBlockRows; row += kRowStep) {
    const bool exists = rows.exists(call, row);
    copy_async(shared + panel_offset(row, vector), call.queries + (exists ? rows.offset(call, row) : 0) + vector * 8,
               exists ? 16 : 0);
  }
  int handed = 0;
  const auto hand_over = [&] {
    const Part part(handed++, tiles);
    fence_for_wgmma();
    barrier_arrive(rings.full(part.is_value, part.tile));
  };
  const int keys_end = call.position + call.rows;
  for (int index = 0; index < 2 * tiles; ++index) {
    const Part part(index, tiles);
    const int first_key = part.tile * kKeys;
    const bf16* from = call.pages[first_key / kPageTokens] + call.layer_at +
                       (rows.kv_head * 2 + part.is_value) * kPagePart + first_key % kPageTokens * kHeadDim + vector * 8;
    const uint32_t to =
        shared + (part.is_value ? kValuesAt : kKeysAt) + static_cast<uint32_t>(part.tile % kStages * kPartBytes);
    const uint32_t empty = rings.empty(part.is_value, part.tile);
    if (part.tile >= kStages && !barrier_passed(empty, Rings::parity(part.tile) ^ 1)) {
      // While the slower consumer holds the stage, the faster one must not want for a part that is there.
      wait_copies<0>();
      while (handed < index) hand_over();
      barrier_wait(empty, Rings::parity(part.tile) ^ 1);
    }
    // Rows that nothing was written to yet become zero: what lies there may be no number.
#pragma unroll
    for (int i = 0; i < kKeys / kRowStep; ++i) {
      const int row = i * kRowStep + first_row;
      copy_async(to + panel_offset(row, vector), from + row * kHeadDim, first_key + row < keys_end ? 16 : 0);
    }
    commit_copies();
    if (handed + 2 > index) continue;  // two parts stay under way
    wait_copies<2>();
    hand_over();
  }
  wait_copies<0>();
  while (handed < 2 * tiles) hand_over();
}

// B of which the columns lie side by side and rows of 64 of them follow one another: values, keys being the rows.
__device__ __forceinline__ uint64_t value_operand(uint32_t shared) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) | uint64_t{kPanelBytes / 16} << 16 | uint64_t{64} << 32 |
         uint64_t{1} << 62;
}

#define RS_EIGHT(x, i)                                                                                        \
  "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), "+f"(x[i + 6]), \
      "+f"(x[i + 7])
#define RS_SIXTY_FOUR(x)                                                                                               \
  RS_EIGHT(x, 0), RS_EIGHT(x, 8), RS_EIGHT(x, 16), RS_EIGHT(x, 24), RS_EIGHT(x, 32), RS_EIGHT(x, 40), RS_EIGHT(x, 48), \
      RS_EIGHT(x, 56)
#define RS_RESULTS                                                                                             \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "  \
  "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"

// scores (64 rows, 128 keys) = queries * keys, plus scores if `add` is not 0.
__device__ __forceinline__ void multiply_keys(float (&scores)[64], uint64_t queries, uint64_t keys, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " RS_RESULTS ", %64, %65, p, 1, 1, 0, 0;\n}"
      : RS_SIXTY_FOUR(scores)
      : "l"(queries), "l"(keys), "r"(add));
}
// out (64 rows, 128 channels) += weights * values
__device__ __forceinline__ void multiply_values(float (&out)[64], const uint32_t (&weights)[4], uint64_t values) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " RS_RESULTS
               ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : RS_SIXTY_FOUR(out)
               : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(values));
}

// 64 rows of a warpgroup, 16 of a warp. Number 4n + c of a lane: row lane / 4 (+ 8 for c >= 2), column 8n + 2 (lane %
// 4)
// + c % 2.
struct ConsumerRows {
  float out[64], scores[64];
  uint32_t weights[kKeys / 16][4];
  float highest[2], sum[2], shrink[2];
  bool higher;

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 64; ++i) out[i] = 0.0f;
    highest[0] = highest[1] = -kInfinity;
    sum[0] = sum[1] = 0.0f;
  }

  __device__ __forceinline__ void start_scores(uint32_t queries, uint32_t keys) {
    hold_results(scores);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const uint32_t at = step / 4 * kPanelBytes + step % 4 * 32;
      multiply_keys(scores, wgmma_operand(queries + at), wgmma_operand(keys + at), step != 0);
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void start_values(uint32_t values) {
    hold_results(out);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step)
      multiply_values(out, weights[step], value_operand(values + step * 16 * 128));
    wgmma_commit();
  }

  __device__ __forceinline__ void hold_weights() {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) asm volatile("" : "+r"(weights[i / 4][i % 4])::"memory");
  }

  // `last[h]`: the last key of the tile that the row may see.
  __device__ __forceinline__ void mask(const int (&last)[2]) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; ++i)
      if (i / 4 * 8 + column + i % 2 > last[i / 2 % 2]) scores[i] = -kInfinity;
  }

  // Scores become weights relative to the highest score so far.
  __device__ __forceinline__ void weigh() {
    higher = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top = highest[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) top = fmaxf(top, fmaxf(scores[4 * n + 2 * h], scores[4 * n + 2 * h + 1]));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      higher |= top != highest[h];
      shrink[h] = power_of_two(highest[h] - top);
      highest[h] = top;
      float added = 0.0f;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int c = 2 * h; c < 2 * h + 2; ++c) added += scores[4 * n + c] = power_of_two(scores[4 * n + c] - top);
      sum[h] = fmaf(sum[h], shrink[h], added);
    }
  }

  // Where no row of the warp found a higher score all factors are 1. That is the rule in long contexts.
  __device__ __forceinline__ void rescale() {
    if (!__any_sync(0xffffffffu, higher)) return;
#pragma unroll
    for (int i = 0; i < 64; ++i) out[i] *= shrink[i / 2 % 2];
  }

  // Two neighbouring tiles of results are A of the next product as they lie.
  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) weights[i / 4][i % 4] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
  }

  // Divides by the sums and leaves the rows as bf16 in the warpgroup's panels, at their own place.
  __device__ __forceinline__ void finish(uint8_t* panels, int first_row) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float total = sum[h];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float scale = 1.0f / total;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n)
        *reinterpret_cast<uint32_t*>(panels + panel_offset(first_row + lane / 4 + 8 * h, n) + lane % 4 * 4) =
            pack_bf16(out[4 * n + 2 * h] * scale, out[4 * n + 2 * h + 1] * scale);
    }
  }
};

__device__ __forceinline__ void consume(const FlashCall& call, const BlockRows& rows, uint8_t* shared, int group,
                                        const Rings& rings, int tiles) {
  const int lane = threadIdx.x % 32, warp_row = group * kConsumerRows + threadIdx.x % kGroupThreads / 32 * 16;
  const uint32_t base = shared_address(shared), queries = base + group * kConsumerRows * 128;
  const int first_position = call.position + rows.first_token;
  const int position[2] = {call.position + rows.token(warp_row + lane / 4),
                           call.position + rows.token(warp_row + lane / 4 + 8)};
  const auto release = [&](int is_value, int tile) {
    if (lane == 0) barrier_arrive(rings.empty(is_value, tile));
  };
  const auto part_at = [&](int at, int tile) { return base + at + tile % kStages * kPartBytes; };
  ConsumerRows own;
  own.clear();
  const auto weigh = [&](int tile) {
    if (tile * kKeys + kKeys - 1 > first_position) {
      const int last[2] = {position[0] - tile * kKeys, position[1] - tile * kKeys};
      own.mask(last);
    }
    own.weigh();
  };
  barrier_wait(rings.full(0, 0), 0);
  own.start_scores(queries, part_at(kKeysAt, 0));
  wgmma_wait<0>();
  hold_results(own.scores);
  release(0, 0);
  weigh(0);
  own.pack_weights();
  for (int tile = 1; tile < tiles; ++tile) {
    barrier_wait(rings.full(0, tile), Rings::parity(tile));
    own.start_scores(queries, part_at(kKeysAt, tile));
    barrier_wait(rings.full(1, tile - 1), Rings::parity(tile - 1));
    own.start_values(part_at(kValuesAt, tile - 1));
    wgmma_wait<1>();
    hold_results(own.scores);
    release(0, tile);
    weigh(tile);
    wgmma_wait<0>();
    hold_results(own.out);
    own.hold_weights();
    release(1, tile - 1);
    own.rescale();
    own.pack_weights();
  }
  barrier_wait(rings.full(1, tiles - 1), Rings::parity(tiles - 1));
  own.start_values(part_at(kValuesAt, tiles - 1));
  wgmma_wait<0>();
  hold_results(own.out);
  own.hold_weights();

  // The warpgroup has done with its queries: their place takes its result.
  warpgroup_sync(4 + group);
  own.finish(shared, warp_row);
  __syncwarp();
#pragma unroll 4
  for (int i = lane; i < 16 * kRowVectors; i += 32) {
    const int row = warp_row + i / kRowVectors, vector = i % kRowVectors;
    if (rows.exists(call, row))
      *reinterpret_cast<uint4*>(call.mixed + rows.offset(call, row) + vector * 8) =
          *reinterpret_cast<const uint4*>(shared + panel_offset(row, vector));
  }
}

#endif  // RS_WARPGROUP_CODE

__global__ void __launch_bounds__(kThreads, 1) flash_attention_hopper(const FlashCall call) {
#if defined(RS_WARPGROUP_CODE)
  extern __shared__ uint8_t unaligned[];
  uint8_t* shared = unaligned + (-shared_address(unaligned) & 1023u);
  const Rings rings{shared_address(shared) + kBarriersAt};
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < 2 * kStages; ++i) {
      barrier_init(rings.barriers + i * 8, kGroupThreads);
      barrier_init(rings.barriers + i * 8 + 32, kConsumers * 4);  // a lane of each warp
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const BlockRows rows(call);
  const int last_position = call.position + min(rows.first_token + rows.tokens, call.rows) - 1;
  const int tiles = last_position / kKeys + 1;
  const int group = threadIdx.x / kGroupThreads;
  if (group == kConsumers) {
    leave_registers<40>();
    produce(call, rows, shared_address(shared), rings, tiles);
  } else {
    take_registers<232>();
    consume(call, rows, shared, group, rings, tiles);
  }
#endif
}

}  // namespace

Status run_flash_attention_hopper(const FlashCall& call, cudaStream_t stream) {
  RS_CUDA(cudaFuncSetAttribute(flash_attention_hopper, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int tokens = kBlockRows / (call.heads / call.kv_heads);
  const dim3 grid(call.kv_heads, (call.rows + tokens - 1) / tokens);
  flash_attention_hopper<<<grid, kThreads, kSharedBytes, stream>>>(call);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
