// Owns: the product of one tile of outputs and rows with mma.sync, for every card that has no wgmma.
// A warp multiplies its 16-output tiles with all its rows: codes come straight from global memory, a step of 128
// columns ahead, and become bf16 in registers; activations come through a ring of stages in shared memory. Bits: an
// output of a row is a chain over columns, ascending, cut after each group, the same in every shape of tile.
#pragma once

#include "cuda/cuda_call.h"
#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/product.h"
#include "cuda/kernels/product_epilogue.cuh"
#include "cuda/kernels/warpgroup.cuh"

namespace ringside::cuda {

// Warps along outputs and rows; 16-output tiles and 8-row tiles of a warp.
template <int kWarpsOut, int kWarpsRow, int kOutTiles, int kRowTiles>
struct TileShape {
  static constexpr int warps_out = kWarpsOut, warps_row = kWarpsRow, out_tiles = kOutTiles, row_tiles = kRowTiles;
  static constexpr int threads = kWarpsOut * kWarpsRow * 32;
  static constexpr int outputs = kWarpsOut * kOutTiles * 16, rows = kWarpsRow * kRowTiles * 8;
};

inline constexpr int kStepColumns = 128;
inline constexpr int kStages = 3;

// The ring, and after the last step the results; behind them an offset for each row.
template <class Shape>
inline constexpr int kRingBytes = kStages* Shape::rows* kStepColumns * 2;
template <class Shape>
inline constexpr int kStagedBytes = Shape::rows* kStagedPitch<Shape::outputs> * 4;
template <class Shape>
inline constexpr int kRowTableAt = kRingBytes<Shape> > kStagedBytes<Shape> ? kRingBytes<Shape> : kStagedBytes<Shape>;
template <class Shape>
inline constexpr int kTileSharedBytes = kRowTableAt<Shape> + Shape::rows * 4;

// Where chunk c (16 bytes) of row r lies in its row of 16: eight lanes that read together, of two rows (kBF16: four),
// find eight different banks of 16 bytes.
template <MatrixFormat kFormat>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  if constexpr (kFormat == MatrixFormat::kBF16) return chunk ^ ((row & 3) << 1);
  if constexpr (kFormat == MatrixFormat::kQ4) return chunk ^ (row & 1);
  return chunk ^ ((row & 1) << 2);
}

// A step of 128 columns, as loops that unroll: blocks, and in a block parts of 16 bytes of activations a lane.
template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets, class Shape>
struct TileProduct {
  static constexpr int kBlocks = kStepColumns / kBlockColumns<kFormat>;
  static constexpr int kPartSteps = kFormat == MatrixFormat::kBF16 ? 1 : 2;
  static constexpr int kParts = kBlockSteps<kFormat> / kPartSteps;
  static constexpr int kPasses = kBlockPasses<kFormat, kGroupColumns>;
  static constexpr bool kScaled = kFormat != MatrixFormat::kBF16;
  static constexpr int kGroups = kScaled ? kStepColumns / kGroupColumns : 1;
  static constexpr int kM = Shape::out_tiles, kN = Shape::row_tiles;

  uint4 codes[kM][kBlocks];
  float sum[kM][kN][4];
  float group[kM][kN][4];
  float x_sum[kOffsets ? kN : 1][4];
  const uint8_t* block[kM];  // of the next step, this warp's tiles
  const float* scale[kM];
  const float* offset[kM];
  int lane;

  __device__ void begin(const DeviceMatrix& w, int first_tile) {
    lane = static_cast<int>(threadIdx.x) & 31;
    const int tiles = w.rows / static_cast<int>(kTileRows);
#pragma unroll
    for (int m = 0; m < kM; m++) {
      const int64_t tile = min(first_tile + m, tiles - 1);  // past the end: a copy that nobody stores
      block[m] = w.blocks + tile * (w.columns / kBlockColumns<kFormat>)*kBlockBytes;
      if constexpr (kScaled) {
        scale[m] = w.scales + tile * (w.columns / kGroupColumns) * kTileRows + (lane >> 2);
        if constexpr (kOffsets) offset[m] = w.offsets + tile * (w.columns / kGroupColumns) * kTileRows + (lane >> 2);
      }
#pragma unroll
      for (int b = 0; b < kBlocks; b++) codes[m][b] = load_codes(block[m] + b * kBlockBytes, lane);
      block[m] += kBlocks * kBlockBytes;
#pragma unroll
      for (int n = 0; n < kN; n++) {
        sum[m][n][0] = sum[m][n][1] = sum[m][n][2] = sum[m][n][3] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void load_rows(uint32_t stage, int b, int part, uint32_t (&x)[kN][4]) const {
    const int row = lane >> 2, q = lane & 3;
    int chunk = 4 * b + q;
    if constexpr (kFormat == MatrixFormat::kQ4) chunk = 8 * b + 2 * q + part;
    if constexpr (kFormat == MatrixFormat::kBF16) chunk = 2 * b + (q >> 1);
    const uint32_t at = stage + row * (kStepColumns * 2) + swizzled<kFormat>(row, chunk) * 16;
#pragma unroll
    for (int n = 0; n < kN; n++) {
      if constexpr (kFormat == MatrixFormat::kBF16) {
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                     : "=r"(x[n][0]), "=r"(x[n][1])
                     : "r"(at + (q & 1) * 8 + n * 8 * kStepColumns * 2));
      } else {
        const uint4 v = load_shared_16(at + n * 8 * kStepColumns * 2);
        x[n][0] = v.x, x[n][1] = v.y, x[n][2] = v.z, x[n][3] = v.w;
      }
    }
  }

  template <int kStep>
  __device__ __forceinline__ void multiply(int m, const uint4& c, int pass, bool first, const uint32_t (&x)[kN][4]) {
    constexpr int kAt = kStep % kPartSteps * 2;
    uint32_t a[4];
    to_fragment<kFormat, kStep>(c, a);
    if constexpr (kPasses == 2) keep_group(a, lane, pass);
#pragma unroll
    for (int n = 0; n < kN; n++) {
      if constexpr (!kScaled) {
        mma_m16n8k16(sum[m][n], a, x[n][kAt], x[n][kAt + 1]);
      } else if (first) {
        mma_m16n8k16_first(group[m][n], a, x[n][kAt], x[n][kAt + 1]);
      } else {
        mma_m16n8k16(group[m][n], a, x[n][kAt], x[n][kAt + 1]);
      }
    }
  }

  // Σ x of a group comes from the same instruction with weights of one.
  template <int kStep>
  __device__ __forceinline__ void add_rows(int pass, bool first, const uint32_t (&x)[kN][4]) {
    constexpr int kAt = kStep % kPartSteps * 2;
    uint32_t a[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
    if constexpr (kPasses == 2) keep_group(a, lane, pass);
#pragma unroll
    for (int n = 0; n < kN; n++) {
      if (first) {
        mma_m16n8k16_first(x_sum[n], a, x[n][kAt], x[n][kAt + 1]);
      } else {
        mma_m16n8k16(x_sum[n], a, x[n][kAt], x[n][kAt + 1]);
      }
    }
  }

  template <int kPart>
  __device__ __forceinline__ void part(uint32_t stage, int b, int pass, bool first) {
    uint32_t x[kN][4];
    load_rows(stage, b, kPart, x);
#pragma unroll
    for (int m = 0; m < kM; m++) {
      multiply<kPart * kPartSteps>(m, codes[m][b], pass, first, x);
      if constexpr (kPartSteps == 2) multiply<kPart * kPartSteps + 1>(m, codes[m][b], pass, false, x);
    }
    if constexpr (kOffsets) {
      add_rows<kPart * kPartSteps>(pass, first, x);
      add_rows<kPart * kPartSteps + 1>(pass, false, x);
    }
  }

  __device__ __forceinline__ void flush(int g, const float (&scales)[kM][kGroups][2]) {
#pragma unroll
    for (int m = 0; m < kM; m++) {
#pragma unroll
      for (int n = 0; n < kN; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sum[m][n][i] = fmaf(scales[m][g][i >> 1], group[m][n][i], sum[m][n][i]);
      }
      if constexpr (kOffsets) {
        const float low = __ldg(offset[m] + g * kTileRows), high = __ldg(offset[m] + g * kTileRows + 8);
#pragma unroll
        for (int n = 0; n < kN; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) sum[m][n][i] = fmaf(i < 2 ? low : high, x_sum[n][i], sum[m][n][i]);
        }
      }
    }
  }

  // One step; `stage`: this warp's first row of it. `more`: there is another step, whose codes are fetched meanwhile.
  __device__ __forceinline__ void step(uint32_t stage, bool more) {
    float scales[kM][kGroups][2];
    if constexpr (kScaled) {
#pragma unroll
      for (int m = 0; m < kM; m++) {
#pragma unroll
        for (int g = 0; g < kGroups; g++) {
          scales[m][g][0] = __ldg(scale[m] + g * kTileRows);
          scales[m][g][1] = __ldg(scale[m] + g * kTileRows + 8);
        }
        scale[m] += kGroups * kTileRows;
      }
    }
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
      constexpr int kGroupBlocks =
          kScaled && kGroupColumns > kBlockColumns<kFormat> ? kGroupColumns / kBlockColumns<kFormat> : 1;
#pragma unroll
      for (int pass = 0; pass < kPasses; pass++) {
        const bool first = b % kGroupBlocks == 0;
        part<0>(stage, b, pass, first);
        if constexpr (kParts == 2) part<1>(stage, b, pass, false);
        if constexpr (kScaled) {
          if ((b + 1) % kGroupBlocks == 0) flush((b * kPasses + pass) / kGroupBlocks, scales);
        }
      }
      if (more) {
#pragma unroll
        for (int m = 0; m < kM; m++) codes[m][b] = load_codes(block[m] + b * kBlockBytes, lane);
      }
    }
#pragma unroll
    for (int m = 0; m < kM; m++) {
      block[m] += kBlocks * kBlockBytes;
      if constexpr (kOffsets) offset[m] += kGroups * kTileRows;
    }
  }

  // Results to shared memory as [row][output], `staged` the block's first.
  __device__ void stage_results(float* staged, int first_row, int first_output) const {
    constexpr int kPitch = kStagedPitch<Shape::outputs>;
#pragma unroll
    for (int m = 0; m < kM; m++) {
#pragma unroll
      for (int n = 0; n < kN; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int row = first_row + n * 8 + (lane & 3) * 2 + (i & 1);
          staged[row * kPitch + first_output + m * 16 + (lane >> 2) + (i >> 1) * 8] = sum[m][n][i];
        }
      }
    }
  }
};

template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1) product_kernel(const ProductCall call) {
#if !defined(RS_WARPGROUP_CODE)  // else product_warpgroup.cuh has it
  extern __shared__ __align__(128) uint8_t shared[];
  constexpr int kRowBytes = kStepColumns * 2, kStageBytes = Shape::rows * kRowBytes, kChunks = kRowBytes / 16;
  const int out_blocks = (call.w.first.rows + Shape::outputs - 1) / Shape::outputs;
  const int tile_index = static_cast<int>(blockIdx.x) / out_blocks;
  const int first_output = static_cast<int>(blockIdx.x) % out_blocks * Shape::outputs;
  RowTile tile{0, tile_index * Shape::rows, 0};
  if (call.tiles != nullptr) {
    if (tile_index >= *call.tile_count) return;
    tile = call.tiles[tile_index];
  } else {
    tile.rows = static_cast<int>(min(call.rows - tile.first, static_cast<int64_t>(Shape::rows)));
  }
  const DeviceMatrix w = call.w.at(tile.matrix);
  const int warp = static_cast<int>(threadIdx.x) / 32, warp_out = warp / Shape::warps_row,
            warp_row = warp % Shape::warps_row * Shape::row_tiles * 8;

  // Offsets of the rows in x, in chunks of 16 bytes.
  uint32_t* row_chunk = reinterpret_cast<uint32_t*>(shared + kRowTableAt<Shape>);
  for (int r = static_cast<int>(threadIdx.x); r < tile.rows; r += Shape::threads) {
    const int64_t row = call.gather != nullptr ? call.gather[tile.first + r] : tile.first + r;
    row_chunk[r] = static_cast<uint32_t>(row * (call.x_stride / 8));
  }
  __syncthreads();
  const uint32_t ring = shared_address(shared);
  const int steps = w.columns / kStepColumns;
  const auto load_stage = [&](int step) {
    if (step < steps) {
#pragma unroll
      for (int i = 0; i < Shape::rows * kChunks / Shape::threads; i++) {
        const int at = i * Shape::threads + static_cast<int>(threadIdx.x), row = at / kChunks, chunk = at % kChunks;
        const bool valid = row < tile.rows;
        const int64_t source = valid ? int64_t{row_chunk[row]} + step * kChunks + chunk : 0;
        cp_async_16(ring + step % kStages * kStageBytes + row * kRowBytes + swizzled<kFormat>(row, chunk) * 16,
                    call.x + source * 8, valid);
      }
    }
    cp_async_commit();
  };
  TileProduct<kFormat, kGroupColumns, kOffsets, Shape> product;
  for (int s = 0; s < kStages - 1; s++) load_stage(s);
  product.begin(w, first_output / static_cast<int>(kTileRows) + warp_out * Shape::out_tiles);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    load_stage(step + kStages - 1);
    product.step(ring + step % kStages * kStageBytes + warp_row * kRowBytes, step + 1 < steps);
  }
  cp_async_wait<0>();
  __syncthreads();
  product.stage_results(reinterpret_cast<float*>(shared), warp_row, warp_out * Shape::out_tiles * 16);
  __syncthreads();
  store_tile<Shape::outputs>(call, tile, first_output, reinterpret_cast<const float*>(shared), Shape::threads);
#endif
}

template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets, class Shape>
Status launch_tiles(const ProductCall& call, cudaStream_t stream) {
  const auto kernel = product_kernel<kFormat, kGroupColumns, kOffsets, Shape>;
  constexpr int kSharedBytes = kTileSharedBytes<Shape>;
  RS_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int64_t out_blocks = (call.w.first.rows + Shape::outputs - 1) / Shape::outputs;
  const int64_t tiles = call.tiles != nullptr ? call.max_tiles : (call.rows + Shape::rows - 1) / Shape::rows;
  kernel<<<static_cast<unsigned>(out_blocks * tiles), Shape::threads, kSharedBytes, stream>>>(call);
  RS_LAUNCHED();
  return Unit{};
}

// Rows of a tile decide the shape. With offsets the sums of the rows take registers too, so the largest shape is out.
template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets>
Status launch_rows(const ProductCall& call, cudaStream_t stream) {
  if (call.tile_rows <= 32) return launch_tiles<kFormat, kGroupColumns, kOffsets, TileShape<4, 1, 1, 4>>(call, stream);
  if constexpr (!kOffsets) {
    if (call.tile_rows > 64) return launch_tiles<kFormat, kGroupColumns, false, TileShape<4, 2, 2, 8>>(call, stream);
  }
  return launch_tiles<kFormat, kGroupColumns, kOffsets, TileShape<4, 2, 2, 4>>(call, stream);
}

}  // namespace ringside::cuda
