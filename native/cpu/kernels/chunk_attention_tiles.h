// Owns: the chunkwise form of linear attention (chunk_attention.h) on AMX. Every fp32 operand is split into two bf16,
// x = high + low to about 2⁻¹⁸ of x, and a product is high·high + high·low + low·high with fp32 sums: near fp32 at a
// third of the speed of bf16, which is still several times that of fp32 vectors. The state itself stays fp32.
// One row goes through the same instructions as 64, in one order for each element: depth ascending, and at each depth
// the three products in the order above.
// Must never: be used for heads whose width is no multiple of 32; chunk_attention.h does these.
#pragma once

#include "cpu/kernels/amx_tiles.h"
#include "cpu/kernels/chunk_attention.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kSplitDepth = 32;
constexpr int64_t kSplitTileBytes = 1024;

// A matrix in two bf16. Rows: [rows][depth]. Tiles: tile (column, depth) of 32 depths and 16 columns at
// column * column_bytes(depth tiles) + depth * 1,024 bytes.
struct Split {
  uint8_t* high;
  uint8_t* low;
};

// One line more than the tiles fill: columns at a whole multiple of 4 KiB would fight for the same places of a cache.
RS_INLINE int64_t column_bytes(int64_t depth_tiles) { return depth_tiles * kSplitTileBytes + 64; }

struct SplitLanes {
  __m512i high;  // bf16 in the upper half of each lane, the lower half zero
  __m512i low;   // bf16 in the upper half of each lane, the lower half anything
};

RS_INLINE SplitLanes split_lanes(__m512 x) {
  const __m512i half_unit = _mm512_set1_epi32(0x8000);
  const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(x), half_unit);
  const __m512i high = _mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000)));
  const __m512 rest = x - _mm512_castsi512_ps(high);
  return {high, _mm512_add_epi32(_mm512_castps_si512(rest), half_unit)};
}

// The pairs (even, odd) of a line from their upper halves.
RS_INLINE __m512i pairs_of(__m512i even, __m512i odd) {
  constexpr int kChoose = 0xd8;  // c ? b : a, bit by bit
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000));
  return _mm512_ternarylogic_epi32(_mm512_srli_epi32(even, 16), odd, upper, kChoose);
}

// [depth, columns] fp32 to tiles; rows from `valid_depth` on count as zero. The rows of a depth tile are taken in four
// streams of eight rows, for memory serves four better than one, and each calls for its next row.
RS_INLINE void split_tiles(const float* from, int64_t stride, int64_t valid_depth, int64_t depth_tiles,
                           int64_t column_tiles, const Split& to) {
  constexpr int64_t kStreamRows = 8;
  for (int64_t depth = 0; depth < depth_tiles; ++depth) {
    for (int64_t turn = 0; turn < kSplitDepth; turn += 2) {
      const int64_t in_stream = turn / kStreamRows * 2;
      const int64_t row_of_tile = turn % kStreamRows / 2 * kStreamRows + in_stream;
      const int64_t row = depth * kSplitDepth + row_of_tile;
      const int64_t ahead_rows = in_stream + 2 < kStreamRows ? 2 : kSplitDepth - in_stream;
      const int64_t line = depth * kSplitTileBytes + row_of_tile / 2 * 64;
      for (int64_t column = 0; column < column_tiles; ++column) {
        const float* at = from + row * stride + column * 16;
        __builtin_prefetch(at + ahead_rows * stride);
        __builtin_prefetch(at + (ahead_rows + 1) * stride);
        const SplitLanes even = split_lanes(row < valid_depth ? load(at) : _mm512_setzero_ps());
        const SplitLanes odd = split_lanes(row + 1 < valid_depth ? load(at + stride) : _mm512_setzero_ps());
        const int64_t offset = column * column_bytes(depth_tiles) + line;
        _mm512_storeu_si512(to.high + offset, pairs_of(even.high, odd.high));
        _mm512_storeu_si512(to.low + offset, pairs_of(even.low, odd.low));
      }
    }
  }
}

// `depth` fp32 (a multiple of 32) to one row.
RS_INLINE void split_row(const float* from, int64_t depth, uint8_t* high, uint8_t* low) {
  for (int64_t k = 0; k < depth; k += 16) {
    const SplitLanes lanes = split_lanes(load(from + k));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + k * 2),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(lanes.high, 16)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low + k * 2),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(lanes.low, 16)));
  }
}

// Up to 16 rows times one or four columns. `goes_on`: added to what c holds of the depths before.
template <int kColumns>
RS_INLINE void multiply_split_few(const Split& a, int64_t row_bytes, const Split& b, int64_t column_stride,
                                  int64_t depth_tiles, bool goes_on, float* c, int64_t c_stride) {
  const auto multiply_columns = [&](const uint8_t* tiles) __attribute__((always_inline)) {
    _tile_loadd(6, tiles, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kColumns == 4) {
      _tile_loadd(7, tiles + column_stride, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(6, tiles + 2 * column_stride, 64);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(7, tiles + 3 * column_stride, 64);
      _tile_dpbf16ps(3, 4, 7);
    }
  };
  if (goes_on) {
    _tile_loadd(0, c, c_stride * 4);
    if constexpr (kColumns == 4) {
      _tile_loadd(1, c + 16, c_stride * 4);
      _tile_loadd(2, c + 32, c_stride * 4);
      _tile_loadd(3, c + 48, c_stride * 4);
    }
  } else {
    _tile_zero(0);
    if constexpr (kColumns == 4) {
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int64_t depth = 0; depth < depth_tiles; ++depth) {
    _tile_loadd(4, a.high + depth * 64, row_bytes);
    multiply_columns(b.high + depth * kSplitTileBytes);
    multiply_columns(b.low + depth * kSplitTileBytes);
    _tile_loadd(4, a.low + depth * 64, row_bytes);
    multiply_columns(b.high + depth * kSplitTileBytes);
  }
  _tile_stored(0, c, c_stride * 4);
  if constexpr (kColumns == 4) {
    _tile_stored(1, c + 16, c_stride * 4);
    _tile_stored(2, c + 32, c_stride * 4);
    _tile_stored(3, c + 48, c_stride * 4);
  }
}

// 32 rows times two columns.
RS_INLINE void multiply_split_many(const Split& a, int64_t row_bytes, const Split& b, int64_t column_stride,
                                   int64_t depth_tiles, float* c, int64_t c_stride) {
  const auto multiply_loaded = []() __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  };
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t depth = 0; depth < depth_tiles; ++depth) {
    const uint8_t* const a_high = a.high + depth * 64;
    const uint8_t* const a_low = a.low + depth * 64;
    const uint8_t* const b_high = b.high + depth * kSplitTileBytes;
    const uint8_t* const b_low = b.low + depth * kSplitTileBytes;
    _tile_loadd(4, a_high, row_bytes);
    _tile_loadd(5, a_high + 16 * row_bytes, row_bytes);
    _tile_loadd(6, b_high, 64);
    _tile_loadd(7, b_high + column_stride, 64);
    multiply_loaded();
    _tile_loadd(6, b_low, 64);
    _tile_loadd(7, b_low + column_stride, 64);
    multiply_loaded();
    _tile_loadd(4, a_low, row_bytes);
    _tile_loadd(5, a_low + 16 * row_bytes, row_bytes);
    _tile_loadd(6, b_high, 64);
    _tile_loadd(7, b_high + column_stride, 64);
    multiply_loaded();
  }
  _tile_stored(0, c, c_stride * 4);
  _tile_stored(1, c + 16, c_stride * 4);
  _tile_stored(2, c + 16 * c_stride, c_stride * 4);
  _tile_stored(3, c + 16 * c_stride + 16, c_stride * 4);
}

// c [rows, columns] = a · b, where b [depth, columns] is fp32 and its rows from `valid_depth` on count as zero. `room`
// holds the tiles of b. There is room for rows up to the next 16, or 32 if they are more than 16.
RS_INLINE void multiply_split(const Split& a, int64_t row_bytes, int64_t rows, const float* b, int64_t b_stride,
                              int64_t valid_depth, int64_t depth_tiles, int64_t column_tiles, const Split& room,
                              float* c, int64_t c_stride) {
  // Few rows use each tile once: a depth is multiplied while its tiles are still near.
  const int64_t depth_step = rows <= 16 ? 1 : depth_tiles;
  const int64_t column_stride = column_bytes(depth_step);
  const auto columns_from = [&](int64_t column) {
    return Split{room.high + column * column_stride, room.low + column * column_stride};
  };
  for (int64_t depth = 0; depth < depth_tiles; depth += depth_step) {
    const int64_t first = depth * kSplitDepth;
    split_tiles(b + first * b_stride, b_stride, valid_depth - first, depth_step, column_tiles, room);
    settle_memory();
    if (rows > 16) {
      for (int64_t row = 0; row < rows; row += 32) {
        const Split a_rows{a.high + row * row_bytes, a.low + row * row_bytes};
        for (int64_t column = 0; column < column_tiles; column += 2) {
          multiply_split_many(a_rows, row_bytes, columns_from(column), column_stride, depth_tiles,
                              c + row * c_stride + column * 16, c_stride);
        }
      }
    } else {
      const Split a_depth{a.high + depth * 64, a.low + depth * 64};
      const int64_t in_fours = column_tiles / 4 * 4;
      for (int64_t column = 0; column < in_fours; column += 4) {
        multiply_split_few<4>(a_depth, row_bytes, columns_from(column), column_stride, 1, depth > 0, c + column * 16,
                              c_stride);
      }
      for (int64_t column = in_fours; column < column_tiles; ++column) {
        multiply_split_few<1>(a_depth, row_bytes, columns_from(column), column_stride, 1, depth > 0, c + column * 16,
                              c_stride);
      }
    }
    settle_memory();
  }
}

// Cuts the next piece off the scratch that begins at `at`.
RS_INLINE uint8_t* take_bytes(uint8_t*& at, int64_t bytes) {
  uint8_t* const piece = at;
  at += (bytes + 63) / 64 * 64;
  return piece;
}
RS_INLINE float* take_floats(uint8_t*& at, int64_t count) {
  return reinterpret_cast<float*>(take_bytes(at, count * 4));
}
RS_INLINE Split take_rows(uint8_t*& at, int64_t rows, int64_t depth) {
  uint8_t* const high = take_bytes(at, rows * depth * 2);
  return {high, take_bytes(at, rows * depth * 2)};
}
RS_INLINE Split take_tiles(uint8_t*& at, int64_t columns, int64_t depth) {
  const int64_t bytes = columns / 16 * column_bytes(depth / kSplitDepth);
  uint8_t* const high = take_bytes(at, bytes);
  return {high, take_bytes(at, bytes)};
}

void chunk_read_tiles(const ChunkRead& chunk) {
  const int64_t d = chunk.head_dim;
  if (d % kSplitDepth != 0) return chunk_read(chunk);
  constexpr int64_t kTokens = RS_CHUNK_TOKENS;
  uint8_t* at = chunk.scratch;
  float* const scores = take_floats(at, kTokens * kTokens);
  float* const from_state = take_floats(at, kTokens * d);
  float* const from_chunk = take_floats(at, kTokens * d);
  const Split weights = take_rows(at, kTokens, kTokens);
  const Split q = take_rows(at, kTokens, d);
  // For the state [d, d], the keys [d, 64] and the values [64, d] in turn.
  const int64_t widest = d > kTokens ? d : kTokens;
  const Split room = take_tiles(at, widest, widest);
  const int64_t keys = chunk.first + chunk.rows;
  const int64_t d_depths = d / kSplitDepth;
  const int64_t d_columns = d / 16;
  const int64_t key_depths = (keys + kSplitDepth - 1) / kSplitDepth;
  const int64_t key_columns = chunk.rows <= 16 ? (keys + 15) / 16 : 2 * key_depths;

  for (int64_t r = 0; r < chunk.rows; ++r) {
    split_row(chunk.q + r * chunk.q_stride, d, q.high + r * d * 2, q.low + r * d * 2);
  }
  configure_tiles(chunk.rows < 16 ? chunk.rows : 16);
  multiply_split(q, d * 2, chunk.rows, chunk.state, d, d, d_depths, d_columns, room, from_state, d);
  multiply_split(q, d * 2, chunk.rows, chunk.k_columns, kTokens, d, d_depths, key_columns, room, scores, kTokens);
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const int64_t i = chunk.first + r;
    float* row = scores + r * kTokens;
    for (int64_t j = 0; j <= i; ++j) row[j] *= chunk.decay[i - j];
    for (int64_t j = i + 1; j < key_depths * kSplitDepth; ++j) row[j] = 0.0f;
    split_row(row, key_depths * kSplitDepth, weights.high + r * kTokens * 2, weights.low + r * kTokens * 2);
  }
  multiply_split(weights, kTokens * 2, chunk.rows, chunk.v, d, keys, key_depths, d_columns, room, from_chunk, d);
  _tile_release();
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const __m512 decay = broadcast(chunk.decay[chunk.first + r + 1]);
    for (int64_t b = 0; b < d; b += 16) {
      store(chunk.out + r * chunk.out_stride + b,
            fma(decay, load(from_state + r * d + b), load(from_chunk + r * d + b)));
    }
  }
}

void chunk_commit_tiles(const ChunkCommit& chunk) {
  const int64_t d = chunk.head_dim;
  if (d % kSplitDepth != 0) return chunk_commit(chunk);
  constexpr int64_t kTokens = RS_CHUNK_TOKENS;
  uint8_t* at = chunk.scratch;
  float* const added = take_floats(at, d * d);
  const Split weighted = take_rows(at, d, kTokens);
  const Split v = take_tiles(at, d, kTokens);
  alignas(64) float fading[kTokens];
  for (int64_t j = 0; j < kTokens; ++j) fading[j] = chunk.decay[kTokens - 1 - j];
  for (int64_t a = 0; a < d; ++a) {
    alignas(64) float row[kTokens];
    for (int64_t j = 0; j < kTokens; j += 16) {
      store(row + j, load(chunk.k_columns + a * kTokens + j) * load(fading + j));
    }
    split_row(row, kTokens, weighted.high + a * kTokens * 2, weighted.low + a * kTokens * 2);
  }
  const int64_t depths = kTokens / kSplitDepth;
  configure_tiles(16);
  multiply_split(weighted, kTokens * 2, d, chunk.v, d, kTokens, depths, d / 16, v, added, d);
  _tile_release();
  const __m512 decay = broadcast(chunk.decay[kTokens]);
  for (int64_t i = 0; i < d * d; i += 16) {
    store(chunk.next_state + i, fma(decay, load(chunk.state + i), load(added + i)));
  }
}

}  // namespace
}  // namespace ringside::cpu
