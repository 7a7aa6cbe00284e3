// Owns: flash attention with mma.sync, for every card of compute capability 8.0 and newer.
//
// The query heads that share a kv head are rows of one block: 128 rows are 128 / (heads per kv head) tokens. Keys come
// in tiles of 64 absolute positions, ascending from 0, so what a row adds up, and in which order, is decided by its
// position alone; tiles past its own position change neither its maximum nor its sums.

#include "cuda/cuda_call.h"
#include "cuda/kernels/attention_tile.cuh"
#include "cuda/kernels/flash_attention.cuh"

namespace ringside::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kWarpTiles = kBlockRows / kWarps / 16;  // of 16 rows: two, so that a key fragment is used twice
constexpr int kKeys = 64;
constexpr int kKeyTiles = kKeys / 8;
constexpr int kChannelTiles = kHeadDim / 8;
constexpr int kKeyBytes = kKeys * kRowBytes;
constexpr int kQueryBytes = kBlockRows * kRowBytes;
// Queries, then two stages of a tile's keys and values.
constexpr int kSharedBytes = kQueryBytes + 4 * kKeyBytes;

__device__ __forceinline__ void load_queries(const FlashCall& call, const BlockRows& rows, uint32_t to) {
  for (int i = threadIdx.x; i < kBlockRows * kRowVectors; i += kThreads) {
    const int row = i / kRowVectors, vector = i % kRowVectors;
    const bool exists = rows.exists(call, row);
    copy_async(to + tile_offset(row, vector), call.queries + (exists ? rows.offset(call, row) : 0) + vector * 8,
               exists ? 16 : 0);
  }
}

// Keys and values of tile `tile`, whose page begins at `page`. Rows that nothing was written to yet become zero: what
// lies there may be no number, and zero times that is none either.
__device__ __forceinline__ void load_keys(const FlashCall& call, int kv_head, int tile, const bf16* page, uint32_t to) {
  const bf16* from = page + call.layer_at + kv_head * 2 * kPagePart + tile % (kPageTokens / kKeys) * (kKeys * kHeadDim);
  const int rows = call.position + call.rows - tile * kKeys;
#pragma unroll
  for (int i = 0; i < kKeys * kRowVectors / kThreads; ++i) {
    const int row = i * (kThreads / kRowVectors) + threadIdx.x / kRowVectors, vector = threadIdx.x % kRowVectors;
    const int bytes = row < rows ? 16 : 0;
    copy_async(to + tile_offset(row, vector), from + row * kHeadDim + vector * 8, bytes);
    copy_async(to + kKeyBytes + tile_offset(row, vector), from + kPagePart + row * kHeadDim + vector * 8, bytes);
  }
}

// A warp's 32 rows. Register c of a tile: row lane / 4 (+ 8 for c >= 2), column 2 (lane % 4) + c % 2.
struct WarpRows {
  float out[kWarpTiles][kChannelTiles][4];
  float scores[kWarpTiles][kKeyTiles][4];
  float highest[kWarpTiles][2], sum[kWarpTiles][2];  // sum: of this lane's columns

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m) {
#pragma unroll
      for (int i = 0; i < kChannelTiles * 4; ++i) out[m][i / 4][i % 4] = 0.0f;
      highest[m][0] = highest[m][1] = -kInfinity;
      sum[m][0] = sum[m][1] = 0.0f;
    }
  }

  __device__ __forceinline__ void score(uint32_t queries, uint32_t keys) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kWarpTiles * kKeyTiles * 4; ++i) scores[i / (kKeyTiles * 4)][i / 4 % kKeyTiles][i % 4] = 0.0f;
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      uint32_t q[kWarpTiles][4];
#pragma unroll
      for (int m = 0; m < kWarpTiles; ++m)
        load_matrices(q[m], queries + tile_offset(m * 16 + (lane & 15), step * 2 + (lane >> 4)));
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t k[4];
        load_matrices(k, keys + tile_offset(n * 8 + (lane & 7) + ((lane >> 4) << 3), step * 2 + ((lane >> 3) & 1)));
#pragma unroll
        for (int m = 0; m < kWarpTiles; ++m) {
          multiply_add(scores[m][n], q[m], k[0], k[1]);
          multiply_add(scores[m][n + 1], q[m], k[2], k[3]);
        }
      }
    }
  }

  // `last[m][h]`: the last key of the tile that the row may see.
  __device__ __forceinline__ void mask(const int (&last)[kWarpTiles][2]) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          if (n * 8 + column + c % 2 > last[m][c / 2]) scores[m][n][c] = -kInfinity;
  }

  // Scores become weights relative to the highest score so far; what was added up is brought to the same measure.
  __device__ __forceinline__ void weigh() {
    float shrink[kWarpTiles][2];
    bool higher = false;
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float top = highest[m][h];
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) top = fmaxf(top, fmaxf(scores[m][n][2 * h], scores[m][n][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        higher |= top != highest[m][h];
        shrink[m][h] = power_of_two(highest[m][h] - top);
        highest[m][h] = top;
        float added = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
          for (int c = 2 * h; c < 2 * h + 2; ++c) added += scores[m][n][c] = power_of_two(scores[m][n][c] - top);
        sum[m][h] = fmaf(sum[m][h], shrink[m][h], added);
      }
    // Where no row of the warp found a higher score all factors are 1. That is the rule in long contexts.
    if (!__any_sync(0xffffffffu, higher)) return;
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
      for (int n = 0; n < kChannelTiles; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) out[m][n][c] *= shrink[m][c / 2];
  }

  __device__ __forceinline__ void add_values(uint32_t values) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      uint32_t p[kWarpTiles][4];
#pragma unroll
      for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          p[m][i] = pack_bf16(scores[m][2 * step + i / 2][i % 2 * 2], scores[m][2 * step + i / 2][i % 2 * 2 + 1]);
#pragma unroll
      for (int n = 0; n < kChannelTiles; n += 2) {
        uint32_t v[4];
        load_matrices_transposed(v, values + tile_offset(step * 16 + (lane & 15), n + (lane >> 4)));
#pragma unroll
        for (int m = 0; m < kWarpTiles; ++m) {
          multiply_add(out[m][n], p[m], v[0], v[1]);
          multiply_add(out[m][n + 1], p[m], v[2], v[3]);
        }
      }
    }
  }

  // Divides by the sums and leaves the rows as bf16 in the tile at `to`.
  __device__ __forceinline__ void finish(uint8_t* to) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float total = sum[m][h];
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        const float scale = 1.0f / total;
#pragma unroll
        for (int n = 0; n < kChannelTiles; ++n)
          *reinterpret_cast<uint32_t*>(to + tile_offset(m * 16 + h * 8 + lane / 4, n) + lane % 4 * 4) =
              pack_bf16(out[m][n][2 * h] * scale, out[m][n][2 * h + 1] * scale);
      }
  }
};

__device__ __forceinline__ void store_rows(const FlashCall& call, const BlockRows& rows, int warp,
                                           const uint8_t* queries) {
  const int lane = threadIdx.x % 32;
#pragma unroll 4
  for (int i = lane; i < kWarpTiles * 16 * kRowVectors; i += 32) {
    const int row = warp * kWarpTiles * 16 + i / kRowVectors, vector = i % kRowVectors;
    if (rows.exists(call, row))
      *reinterpret_cast<uint4*>(call.mixed + rows.offset(call, row) + vector * 8) =
          *reinterpret_cast<const uint4*>(queries + tile_offset(row, vector));
  }
}

__global__ void __launch_bounds__(kThreads, 2) flash_attention(const FlashCall call) {
  extern __shared__ __align__(128) uint8_t shared[];
  const uint32_t queries = shared_address(shared), stages = queries + kQueryBytes;
  const BlockRows rows(call);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_position = call.position + rows.first_token;
  const int last_position = call.position + min(rows.first_token + rows.tokens, call.rows) - 1;
  const int tiles = last_position / kKeys + 1;
  load_queries(call, rows, queries);
  load_keys(call, rows.kv_head, 0, call.pages[0], stages);
  commit_copies();
  // The pointer is asked for a tile before it is needed.
  constexpr int kTilesOfPage = kPageTokens / kKeys;
  const bf16* page = call.pages[min(1, tiles - 1) / kTilesOfPage];
  int position[kWarpTiles][2];
#pragma unroll
  for (int i = 0; i < kWarpTiles * 2; ++i)
    position[i / 2][i % 2] = call.position + rows.token((warp * kWarpTiles + i / 2) * 16 + i % 2 * 8 + lane / 4);
  WarpRows own;
  own.clear();
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<0>();
    __syncthreads();  // the tile is there, and nobody reads the other stage any more
    const uint32_t keys = stages + tile % 2 * 2 * kKeyBytes;
    if (tile + 1 < tiles) {
      load_keys(call, rows.kv_head, tile + 1, page, stages + (tile + 1) % 2 * 2 * kKeyBytes);
      page = call.pages[min(tile + 2, tiles - 1) / kTilesOfPage];
    }
    commit_copies();
    own.score(queries + warp * kWarpTiles * 16 * kRowBytes, keys);
    if (tile * kKeys + kKeys - 1 > first_position) {
      int last[kWarpTiles][2];
#pragma unroll
      for (int i = 0; i < kWarpTiles * 2; ++i) last[i / 2][i % 2] = position[i / 2][i % 2] - tile * kKeys;
      own.mask(last);
    }
    own.weigh();
    own.add_values(keys + kKeyBytes);
  }
  // A warp's queries are its own, so their place can take its result.
  __syncwarp();
  own.finish(shared + warp * kWarpTiles * 16 * kRowBytes);
  __syncwarp();
  store_rows(call, rows, warp, shared);
}

}  // namespace

Status run_flash_attention(const FlashCall& call, cudaStream_t stream) {
  RS_CUDA(cudaFuncSetAttribute(flash_attention, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int tokens = kBlockRows / (call.heads / call.kv_heads);
  const dim3 grid(call.kv_heads, (call.rows + tokens - 1) / tokens);
  flash_attention<<<grid, kThreads, kSharedBytes, stream>>>(call);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
