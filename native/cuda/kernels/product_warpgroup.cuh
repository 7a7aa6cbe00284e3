// Owns: products on Hopper: weights become bf16 in the registers of two warpgroups and are A of wgmma, activations are
// B in shared memory, brought there by a third warpgroup that does nothing else. A block lives as long as the card has
// tiles for it; the ring of stages goes on from one tile into the next. Bits: as in product_tile.cuh, the same for
// every number of rows; they may differ from those of mma.sync.
#pragma once

#include "cuda/cuda_call.h"
#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/product.h"
#include "cuda/kernels/product_epilogue.cuh"
#include "cuda/kernels/warpgroup.cuh"

namespace ringside::cuda {

inline constexpr int kWgOutputs = 128;  // of a tile: 64 for each of two warpgroups
inline constexpr int kWgRows = 128;     // most rows of a tile
inline constexpr int kWgThreads = 384;
inline constexpr int kWgStages = 4;
inline constexpr int kWgStepColumns = 128;  // two panels of 64
inline constexpr int kPanelBytes = kWgRows * 128;
inline constexpr int kWgStageBytes = 2 * kPanelBytes;
// A warpgroup's results on their way out: [rows][64 outputs], fp32 at the widest.
inline constexpr int kWgStagedBytes = kWgRows * kStagedPitch<64> * 4;
inline constexpr int kXSumBytes = kWgStages * 4 * kWgRows * 4;  // [stage][group][row] Σ x, for offsets
inline constexpr int kWgStagedAt = kWgStages * kWgStageBytes;
inline constexpr int kXSumAt = kWgStagedAt + 2 * kWgStagedBytes;
inline constexpr int kBarriersAt = kXSumAt + kXSumBytes;
inline constexpr int kWgSharedBytes = kBarriersAt + 2 * kWgStages * 8 + 1024;  // 1,024 to align the ring

#if defined(RS_WARPGROUP_CODE)

// The tiles of this block, in the order in which blocks take them: outputs of a row tile side by side, so that they
// share its rows in L2, and row tiles of an expert share its weights.
struct TileWalk {
  int index, count, out_blocks;

  __device__ explicit TileWalk(const ProductCall& call) {
    out_blocks = (call.w.first.rows + kWgOutputs - 1) / kWgOutputs;
    const int row_tiles =
        call.tiles != nullptr ? *call.tile_count : static_cast<int>((call.rows + call.tile_rows - 1) / call.tile_rows);
    count = row_tiles * out_blocks;
    index = static_cast<int>(blockIdx.x);
  }
  __device__ bool done() const { return index >= count; }
  __device__ void next() { index += static_cast<int>(gridDim.x); }
  __device__ int first_output() const { return index % out_blocks * kWgOutputs; }
  // Of the last tile if there are no more: something that may be read.
  __device__ RowTile rows(const ProductCall& call) const {
    const int tile = min(index, count - 1) / out_blocks;
    if (call.tiles != nullptr) return call.tiles[tile];
    const int first = tile * call.tile_rows;
    return RowTile{0, first, static_cast<int>(min(call.rows - first, static_cast<int64_t>(call.tile_rows)))};
  }
};

// Where the ring is: a slot and how often it was used before.
struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++slot == kWgStages) slot = 0, parity ^= 1;
  }
};

// Σ x of every group of the rows of one warp, from the stage; eight lanes a row add in one fixed tree.
template <MatrixFormat kFormat, int kGroupColumns>
__device__ void sum_groups(const uint8_t* stage, float* x_sums, int warp, int rows) {
  const int lane = static_cast<int>(threadIdx.x) & 31, c = lane & 7;
  // Four at a time, past `rows` too: what comes of rows that are none is as little read as they are.
#pragma unroll 4
  for (int i = 0; i < (rows > 64 ? 8 : 4); i++) {
    const int row = warp + i * 16 + (lane >> 3) * 4;
    float panel_sum[2][2] = {};  // of half the words, and of the other half; apart only where they are of two groups
#pragma unroll
    for (int panel = 0; panel < 2; panel++) {
      const uint4 v = *reinterpret_cast<const uint4*>(stage + panel * kPanelBytes + row * 128 + ((c ^ (row & 7)) << 4));
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        panel_sum[panel][i / 2] += __uint_as_float(words[i] << 16) + __uint_as_float(words[i] & 0xffff0000u);
      }
    }
    constexpr bool kMixed = kFormat == MatrixFormat::kQ4 && kGroupColumns == 32;
#pragma unroll
    for (int panel = 0; panel < 2; panel++) {
      float low = panel_sum[panel][0], high = panel_sum[panel][1];
      if constexpr (!kMixed) low += high;
#pragma unroll
      for (int distance = 1; distance < (kGroupColumns == 32 && !kMixed ? 4 : 8); distance *= 2) {
        low += __shfl_xor_sync(0xffffffffu, low, distance);
        high += __shfl_xor_sync(0xffffffffu, high, distance);
      }
      panel_sum[panel][0] = low, panel_sum[panel][1] = high;
    }
    if (row < kWgRows) {
      if constexpr (kGroupColumns == 128) {
        if (c == 0) x_sums[row] = panel_sum[0][0] + panel_sum[1][0];
      } else if constexpr (kGroupColumns == 64) {
        if (c < 2) x_sums[c * kWgRows + row] = c == 0 ? panel_sum[0][0] : panel_sum[1][0];
      } else if constexpr (kMixed) {
        const float low = c < 2 ? panel_sum[0][0] : panel_sum[1][0], high = c < 2 ? panel_sum[0][1] : panel_sum[1][1];
        if (c < 4) x_sums[c * kWgRows + row] = c % 2 == 0 ? low : high;
      } else if (c % 4 < 2) {  // lanes 0, 4: the first and the second group of a panel
        const int panel = c % 4;
        x_sums[(panel * 2 + c / 4) * kWgRows + row] = panel == 0 ? panel_sum[0][0] : panel_sum[1][0];
      }
    }
  }
}

// 128 columns of rows warp, warp + 4, … to `stage`, the place of the first of them; lane i has the offset of the i-th.
// Word by word: place[i & 1] is where a lane's word of a panel belongs in row i.
__device__ __forceinline__ void fetch_words(const bf16* x, int64_t offset, int rows, uint32_t stage,
                                            const uint32_t (&place)[2], int lane) {
#pragma unroll 4
  for (int i = 0; i < rows; i++) {
    const bf16* const source = x + lane * 2 + __shfl_sync(0xffffffffu, offset, i);
    const uint32_t to = stage + i * 512 + place[i & 1];
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(source));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to + kPanelBytes), "l"(source + 64));
  }
}

// The same of rows that lie in the order of k already: two rows at once, 16 bytes a lane. An odd last row brings a
// neighbour, whose offset is that of row 0 of x.
__device__ __forceinline__ void fetch_ordered(const bf16* x, int64_t offset, int rows, uint32_t stage, int warp,
                                              int lane) {
  const int chunk = lane & 15, second = lane >> 4;
  const uint32_t to = stage + (chunk >> 3) * kPanelBytes + second * 512 + (((chunk & 7) ^ (warp + second * 4)) << 4);
#pragma unroll 4
  for (int i = 0; i < rows; i += 2) {
    cp_async_16(to + i * 512, x + __shfl_sync(0xffffffffu, offset, i + second) + chunk * 8);
  }
}

// The third warpgroup: rows of x into the ring, in the order of k.
template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets>
__device__ void fill_ring(const ProductCall& call, uint8_t* shared, uint32_t full, uint32_t empty) {
  constexpr int kAhead = 2;  // stages under way; the one before them is handed over
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32 & 3;
  const int steps = call.w.first.columns / kWgStepColumns;
  const int word = ordered_word(kFormat, lane);
  // Row warp + 4i: its last three bits are warp or warp + 4.
  const uint32_t place[2] = {static_cast<uint32_t>((word / 4 ^ warp) * 16 + word % 4 * 4),
                             static_cast<uint32_t>((word / 4 ^ (warp + 4)) * 16 + word % 4 * 4)};
  const uint32_t ring = shared_address(shared);
  RingPlace fill, hand;
  int rows_of[kAhead + 1] = {};  // of the stages under way
  int under_way = 0;
  const auto hand_over = [&](int rows) {
    if constexpr (kOffsets) {
      __syncwarp();
      sum_groups<kFormat, kGroupColumns>(shared + hand.slot * kWgStageBytes,
                                         reinterpret_cast<float*>(shared + kXSumAt) + hand.slot * 4 * kWgRows, warp,
                                         rows);
    }
    fence_for_wgmma();
    barrier_arrive(full + hand.slot * 8);
    hand.next();
  };
  TileWalk walk(call);
  if (walk.done()) return;
  const int my_row = warp + 4 * lane;
  // Of row warp + 4 * lane, in x.
  const auto source_row = [&](const RowTile& tile) {
    if (my_row >= tile.rows) return 0;
    return call.gather != nullptr ? call.gather[tile.first + my_row] : tile.first + my_row;
  };
  RowTile tile = walk.rows(call);
  int row = source_row(tile);
  while (!walk.done()) {
    const int64_t offset = row * call.x_stride;
    const int my_rows = (tile.rows - warp + 3) / 4, rows = tile.rows;
    walk.next();
    tile = walk.rows(call);  // of the next tile, so that nobody waits for it then
    for (int step = 0; step < steps; step++) {
      barrier_wait(empty + fill.slot * 8, fill.parity ^ 1);
      const uint32_t stage = ring + fill.slot * kWgStageBytes + warp * 128;
      const bf16* const x = call.x + step * kWgStepColumns;
      if (call.x_ordered) {
        fetch_ordered(x, offset, my_rows, stage, warp, lane);
      } else {
        fetch_words(x, offset, my_rows, stage, place, lane);
      }
      cp_async_commit();
      fill.next();
      rows_of[2] = rows_of[1], rows_of[1] = rows_of[0], rows_of[0] = rows;
      if (step == 0) row = source_row(tile);
      if (++under_way > kAhead) {
        cp_async_wait<kAhead>();
        hand_over(rows_of[2]);
        under_way--;
      }
    }
  }
  cp_async_wait<0>();
  if (under_way == 2) hand_over(rows_of[1]);
  if (under_way >= 1) hand_over(rows_of[0]);
}

// A warp's weights: a stream of its blocks, a step ahead of the multiplication, on into the next tile.
template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets>
struct WeightStream {
  static constexpr bool kScaled = kFormat != MatrixFormat::kBF16;
  static constexpr int kBlocks = kWgStepColumns / kBlockColumns<kFormat>;
  static constexpr int kGroups = kScaled ? kWgStepColumns / kGroupColumns : 1;
  uint4 codes[kBlocks];
  float scales[kGroups][2];
  const uint8_t* block;  // of the step that is fetched next
  const float* scale;
  const float* offset;       // of the step that is multiplied next
  const float* next_offset;  // of the next tile

  __device__ void aim(const ProductCall& call, const TileWalk& walk, int matrix, int warp, int lane) {
    const DeviceMatrix& w = call.w.first;
    const int tile = min(walk.first_output() / 16 + warp, w.rows / 16 - 1);
    block = w.blocks + matrix * w.block_bytes() + int64_t{tile} * (w.columns / kBlockColumns<kFormat>)*kBlockBytes;
    if constexpr (kScaled) {
      const int64_t at = matrix * w.scale_count() + int64_t{tile} * (w.columns / kGroupColumns) * 16 + (lane >> 2);
      scale = w.scales + at;
      if constexpr (kOffsets) next_offset = w.offsets + at;
    }
  }
  __device__ __forceinline__ void fetch_block(int b, int lane) { codes[b] = load_codes(block + b * kBlockBytes, lane); }
  __device__ __forceinline__ void fetch_scales() {
    if constexpr (kScaled) {
#pragma unroll
      for (int g = 0; g < kGroups; g++) scales[g][0] = __ldg(scale + g * 16), scales[g][1] = __ldg(scale + g * 16 + 8);
    }
  }
  __device__ __forceinline__ void next_step() {
    block += kBlocks * kBlockBytes;
    if constexpr (kScaled) scale += kGroups * 16;
  }
};

template <int kRows, bool kOffsets>
__device__ __forceinline__ void flush_group(float (&sum)[kRows / 2], const float (&group)[kRows / 2],
                                            const float* scales, const float* offset, const float* x_sums, int lane) {
#pragma unroll
  for (int i = 0; i < kRows / 2; i++) sum[i] = fmaf(scales[i >> 1 & 1], group[i], sum[i]);
  if constexpr (kOffsets) {
    const float low = __ldg(offset), high = __ldg(offset + 8);
#pragma unroll
    for (int n = 0; n < kRows / 8; n++) {
      const float2 x = *reinterpret_cast<const float2*>(x_sums + n * 8 + (lane & 3) * 2);
      sum[4 * n] = fmaf(low, x.x, sum[4 * n]), sum[4 * n + 1] = fmaf(low, x.y, sum[4 * n + 1]);
      sum[4 * n + 2] = fmaf(high, x.x, sum[4 * n + 2]), sum[4 * n + 3] = fmaf(high, x.y, sum[4 * n + 3]);
    }
  }
}

// A step of 128 columns as batches of multiplications: 64 columns, or a group of 32.
template <MatrixFormat kFormat, int kGroupColumns>
struct Batches {
  static constexpr bool kScaled = kFormat != MatrixFormat::kBF16;
  static constexpr int kPasses = kBlockPasses<kFormat, kGroupColumns>;
  static constexpr int kColumns = kPasses == 1 && kScaled && kGroupColumns < 64 ? kGroupColumns : 64;
  static constexpr int kCount = kWgStepColumns / kColumns * kPasses;
  static constexpr int kBlocks = kColumns / kBlockColumns<kFormat>;  // of one batch
  static constexpr int kSteps = kColumns / 16;
  static constexpr int kOfGroup = kScaled && kPasses == 1 ? kGroupColumns / kColumns : 1;
};

// The A operands of a batch.
template <MatrixFormat kFormat, int kGroupColumns, class Codes>
__device__ __forceinline__ void make_batch(const Codes& codes, int batch, int lane,
                                           uint32_t (&a)[Batches<kFormat, kGroupColumns>::kSteps][4]) {
  using B = Batches<kFormat, kGroupColumns>;
#pragma unroll
  for (int b = 0; b < B::kBlocks; b++) {
    uint32_t made[kBlockSteps<kFormat>][4];
    to_fragments<kFormat>(codes[batch / B::kPasses * B::kBlocks + b], made);
#pragma unroll
    for (int s = 0; s < kBlockSteps<kFormat>; s++) {
      if constexpr (B::kPasses == 2) keep_group(made[s], lane, batch % 2);
#pragma unroll
      for (int i = 0; i < 4; i++) a[b * kBlockSteps<kFormat> + s][i] = made[s][i];
    }
  }
}

// One step. While the tensor cores have a batch, the next one is made bf16, that of the next step too: `a` comes with
// the first batch of this step and leaves with that of the next.
template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets, int kRows>
__device__ __forceinline__ void multiply_step(
    WeightStream<kFormat, kGroupColumns, kOffsets>& w, uint32_t stage, const float* x_sums, float (&sum)[kRows / 2],
    float (&group)[kRows / 2], const float (&scales)[WeightStream<kFormat, kGroupColumns, kOffsets>::kGroups][2],
    uint32_t (&a)[2][Batches<kFormat, kGroupColumns>::kSteps][4], int lane) {
  using B = Batches<kFormat, kGroupColumns>;
  static_assert(B::kCount % 2 == 0);
#pragma unroll
  for (int batch = 0; batch < B::kCount; batch++) {
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < B::kSteps; s++) {
      const int column = batch / B::kPasses * B::kColumns + s * 16;
      const uint64_t b = wgmma_operand(stage + column / 64 * kPanelBytes + column % 64 * 2);
      if constexpr (B::kScaled) {
        wgmma<kRows>(group, a[batch & 1][s], b, batch % B::kOfGroup == 0 && s == 0 ? 0 : 1);
      } else {
        wgmma<kRows>(sum, a[batch & 1][s], b, 1);
      }
    }
    wgmma_commit();
    wgmma_wait<1>();  // the batch before, whose operands the next one replaces
    const int next = (batch + 1) % B::kCount;
    make_batch<kFormat, kGroupColumns>(w.codes, next, lane, a[next & 1]);
    if (next != 0 && next % B::kPasses == B::kPasses - 1) {
#pragma unroll
      for (int b = 0; b < B::kBlocks; b++) w.fetch_block(next / B::kPasses * B::kBlocks + b, lane);
    }
    if constexpr (B::kScaled) {
      if ((batch + 1) % B::kOfGroup == 0) {
        wgmma_wait<0>();
        hold_results(group);
        const int g = batch / B::kOfGroup;
        flush_group<kRows, kOffsets>(sum, group, scales[g], w.offset + g * 16, x_sums + g * kWgRows, lane);
      }
    }
  }
  if constexpr (!B::kScaled) {
    wgmma_wait<0>();
    hold_results(sum);
  }
}

// Results of a warpgroup out of registers: bf16 by stmatrix, turned, so that a row's outputs lie side by side.
template <int kRows>
__device__ __forceinline__ void store_bf16(const ProductCall& call, const RowTile& tile, int first_output,
                                           uint8_t* staged, const float (&sum)[kRows / 2], int group) {
  const int thread = static_cast<int>(threadIdx.x) & 127, warp = thread / 32, lane = thread & 31;
  const bool silu = call.epilogue == Epilogue::kSiluBF16;
  constexpr int kPitch = 144;  // bytes: 64 outputs and one chunk more, so that eight rows meet eight banks
  const uint32_t at = shared_address(staged) + (silu ? warp * 16 : warp * 32);
#pragma unroll
  for (int n = 0; n < kRows / 8; n += 2) {
    const float(&s)[kRows / 2] = sum;
    if (silu) {
      const uint32_t r0 = pack_bf16(silu_times(s[4 * n], s[4 * n + 2]), silu_times(s[4 * n + 1], s[4 * n + 3]));
      const uint32_t r1 = pack_bf16(silu_times(s[4 * n + 4], s[4 * n + 6]), silu_times(s[4 * n + 5], s[4 * n + 7]));
      // Two matrices; the other two lanes' addresses repeat them.
      const int row = n * 8 + (lane & 15);
      store_transposed(at + row * kPitch, r0, r1, r0, r1);
    } else {
      const int row = n * 8 + (lane >> 4) * 8 + (lane & 7);
      store_transposed(at + row * kPitch + (lane >> 3 & 1) * 16, pack_bf16(s[4 * n], s[4 * n + 1]),
                       pack_bf16(s[4 * n + 2], s[4 * n + 3]), pack_bf16(s[4 * n + 4], s[4 * n + 5]),
                       pack_bf16(s[4 * n + 6], s[4 * n + 7]));
    }
  }
  warpgroup_sync(1 + group);
  if (silu && call.out_ordered) {
    // Word by word to where the product that reads this wants it; a warpgroup has half of a panel of 64 columns.
    const int panel_first = first_output / 128 * 64, half = group * 16;
    for (int i = thread; i < tile.rows * 16; i += 128) {
      const int row = i / 16, word = i % 16;
      if (first_output / 2 + word * 2 >= call.w.first.rows / 2) continue;
      bf16* const out = static_cast<bf16*>(call.out) + (tile.first + row) * call.out_stride + panel_first;
      reinterpret_cast<uint32_t*>(out)[ordered_word(call.out_order, half + word)] =
          *reinterpret_cast<const uint32_t*>(staged + row * kPitch + word * 4);
    }
    return;
  }
  const int chunks = silu ? 4 : 8, out_first = silu ? first_output / 2 : first_output;
  const int out_end = silu ? call.w.first.rows / 2 : call.w.first.rows;
  for (int i = thread; i < tile.rows * chunks; i += 128) {
    const int row = i / chunks, chunk = i % chunks;
    if (out_first + chunk * 8 >= out_end) continue;
    bf16* const out = static_cast<bf16*>(call.out) + (tile.first + row) * call.out_stride + out_first + chunk * 8;
    *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(staged + row * kPitch + chunk * 16);
  }
}

template <int kRows>
__device__ __forceinline__ void store_f32(const ProductCall& call, const RowTile& tile, int first_output,
                                          uint8_t* staged, const float (&sum)[kRows / 2], int group) {
  constexpr int kPitch = kStagedPitch<64>;
  const int thread = static_cast<int>(threadIdx.x) & 127, warp = thread / 32, lane = thread & 31;
  float* const to = reinterpret_cast<float*>(staged);
#pragma unroll
  for (int i = 0; i < kRows / 2; i++) {
    const int row = i / 4 * 8 + (lane & 3) * 2 + (i & 1);
    to[row * kPitch + warp * 16 + (lane >> 2) + (i >> 1 & 1) * 8] = sum[i];
  }
  warpgroup_sync(1 + group);
  const int output = thread % 16 * 4;
  if (first_output + output >= call.w.first.rows) return;
  float* const out = static_cast<float*>(call.out) + tile.first * call.out_stride + first_output + output;
  const bool add = call.epilogue == Epilogue::kAddF32;
  constexpr int kAtOnce = 4;  // rows read before the first is written
  for (int first = thread / 16; first < tile.rows; first += 8 * kAtOnce) {
    float4 old[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      const int row = first + i * 8;
      if (add && row < tile.rows) old[i] = *reinterpret_cast<const float4*>(out + row * call.out_stride);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      const int row = first + i * 8;
      if (row >= tile.rows) break;
      float4 v = *reinterpret_cast<const float4*>(to + row * kPitch + output);
      if (add) v = make_float4(old[i].x + v.x, old[i].y + v.y, old[i].z + v.z, old[i].w + v.w);
      *reinterpret_cast<float4*>(out + row * call.out_stride) = v;
    }
  }
}

// One tile of one warpgroup, kRows the rows of it and up to 15 (garbage that nobody stores).
template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets, int kRows>
__device__ __forceinline__ void multiply_tile(const ProductCall& call, const TileWalk& walk, const RowTile& tile,
                                              WeightStream<kFormat, kGroupColumns, kOffsets>& w,
                                              uint32_t (&a)[2][Batches<kFormat, kGroupColumns>::kSteps][4],
                                              uint8_t* shared, uint32_t full, uint32_t empty, RingPlace& place,
                                              int next_matrix, int group_index, int warp) {
  using Stream = WeightStream<kFormat, kGroupColumns, kOffsets>;
  const int lane = static_cast<int>(threadIdx.x) & 31, steps = call.w.first.columns / kWgStepColumns;
  float sum[kRows / 2], group[kRows / 2];
#pragma unroll
  for (int i = 0; i < kRows / 2; i++) sum[i] = 0.0f;
  if constexpr (kOffsets) w.offset = w.next_offset;
  const uint32_t ring = shared_address(shared);
  for (int step = 0; step < steps; step++) {
    if (step + 1 == steps) {
      TileWalk next = walk;
      next.next();
      w.aim(call, next, next_matrix, warp, lane);
    }
    float scales[Stream::kGroups][2];
#pragma unroll
    for (int g = 0; g < Stream::kGroups; g++) scales[g][0] = w.scales[g][0], scales[g][1] = w.scales[g][1];
    w.fetch_scales();
    using B = Batches<kFormat, kGroupColumns>;
    if constexpr (B::kPasses == 1) {
#pragma unroll
      for (int b = 0; b < B::kBlocks; b++) w.fetch_block(b, lane);
    }
    barrier_wait(full + place.slot * 8, place.parity);
    multiply_step<kFormat, kGroupColumns, kOffsets, kRows>(
        w, ring + place.slot * kWgStageBytes,
        reinterpret_cast<const float*>(shared + kXSumAt) + place.slot * 4 * kWgRows, sum, group, scales, a, lane);
    // wgmma has read the stage for all lanes together, but each lane reads the sums of x by itself.
    if (kOffsets || lane == 0) barrier_arrive(empty + place.slot * 8);
    place.next();
    w.next_step();
    if constexpr (kOffsets) w.offset += Stream::kGroups * 16;
  }
  uint8_t* const staged = shared + kWgStagedAt + group_index * kWgStagedBytes;
  const int first_output = walk.first_output() + group_index * 64;
  warpgroup_sync(1 + group_index);  // the results of the tile before have left
  if (call.epilogue == Epilogue::kStoreF32 || call.epilogue == Epilogue::kAddF32) {
    store_f32<kRows>(call, tile, first_output, staged, sum, group_index);
  } else {
    store_bf16<kRows>(call, tile, first_output, staged, sum, group_index);
  }
}

#endif  // RS_WARPGROUP_CODE

template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets>
__global__ void __launch_bounds__(kWgThreads, 1) warpgroup_kernel(const __grid_constant__ ProductCall call) {
#if defined(RS_WARPGROUP_CODE)
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  const uint32_t full = shared_address(shared + kBarriersAt), empty = full + kWgStages * 8;
  const int group_index = static_cast<int>(threadIdx.x) / 128;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kWgStages; s++) {
      barrier_init(full + s * 8, 128);                  // the threads that fill
      barrier_init(empty + s * 8, kOffsets ? 256 : 8);  // the threads, or the warps, that multiply
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (group_index == 2) {
    leave_registers<56>();
    fill_ring<kFormat, kGroupColumns, kOffsets>(call, shared, full, empty);
  } else {
    take_registers<224>();
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) & 31;
    using Stream = WeightStream<kFormat, kGroupColumns, kOffsets>;
    Stream w{};
    uint32_t a[2][Batches<kFormat, kGroupColumns>::kSteps][4];
    RingPlace place;
    TileWalk walk(call);
    RowTile tile{}, next_tile{};
    if (!walk.done()) {
      next_tile = walk.rows(call);
      w.aim(call, walk, next_tile.matrix, warp, lane);
#pragma unroll
      for (int b = 0; b < Stream::kBlocks; b++) w.fetch_block(b, lane);
      w.fetch_scales();
      w.next_step();
      make_batch<kFormat, kGroupColumns>(w.codes, 0, lane, a[0]);
    }
    for (; !walk.done(); walk.next()) {
      tile = next_tile;
      TileWalk next = walk;
      next.next();
      next_tile = next.rows(call);
#define RS_TILE(most)                                                                                         \
  if (tile.rows <= most) {                                                                                    \
    multiply_tile<kFormat, kGroupColumns, kOffsets, most>(call, walk, tile, w, a, shared, full, empty, place, \
                                                          next_tile.matrix, group_index, warp);               \
    continue;                                                                                                 \
  }
      RS_TILE(16) RS_TILE(32) RS_TILE(64) RS_TILE(80) RS_TILE(96) RS_TILE(128)
#undef RS_TILE
    }
  }
#endif
}

template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets>
Status launch_warpgroups(const ProductCall& call, int multiprocessors, cudaStream_t stream) {
  const auto kernel = warpgroup_kernel<kFormat, kGroupColumns, kOffsets>;
  RS_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWgSharedBytes));
  const int64_t out_blocks = (call.w.first.rows + kWgOutputs - 1) / kWgOutputs;
  const int64_t row_tiles = call.tiles != nullptr ? call.max_tiles : (call.rows + call.tile_rows - 1) / call.tile_rows;
  const int64_t blocks = out_blocks * row_tiles < multiprocessors ? out_blocks * row_tiles : multiprocessors;
  kernel<<<static_cast<unsigned>(blocks), kWgThreads, kWgSharedBytes, stream>>>(call);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
