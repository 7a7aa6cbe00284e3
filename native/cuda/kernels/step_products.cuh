// Owns: products of the step path. A block multiplies its tiles of 16 outputs with all rows; its warps share the
// columns of each piece and add up through shared memory in the order of warps. So a row's bits depend on the row, the
// weights and the matrix's shape alone.
#pragma once

#include "cuda/kernels/step_stream.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

// Where a lane's row of the input begins, in shared or global memory. A row that takes no part stands at another one's
// place with a mask of zeros: a branch in the innermost loop would cost more than its bytes.
template <bool kShared>
struct InputRow {
  const bf16* global;
  uint32_t mask;
  __device__ const bf16* at(int column) const { return global + column; }
  __device__ void move(int columns) { global += columns; }
};
template <>
struct InputRow<true> {
  int32_t offset;  // in a block's shared memory, in bytes
  uint32_t mask;
  __device__ const bf16* at(int column) const { return reinterpret_cast<const bf16*>(step_shared() + offset) + column; }
  __device__ void move(int columns) { offset += columns * 2; }
};

// A lane's rows of the input: row 8 * t + l / 4 of each eight rows t.
template <int kTiles, bool kShared>
struct LaneInput {
  InputRow<kShared> row[kTiles];
};

template <int kTiles>
struct Sums {
  float v[kTiles][4];
};

__device__ __forceinline__ uint2 load_8_bytes(const bf16* p) { return *reinterpret_cast<const uint2*>(p); }
__device__ __forceinline__ uint4 load_16_bytes(const bf16* p) { return *reinterpret_cast<const uint4*>(p); }

// A lane's columns of one block for one row, as pairs.
template <MatrixFormat kFormat, bool kShared>
__device__ __forceinline__ void load_input(const InputRow<kShared>& row, int column,
                                           uint32_t (&b)[kBlockSteps<kFormat> * 2]) {
  if constexpr (kFormat == MatrixFormat::kBF16) {
    const uint2 v = load_8_bytes(row.at(column));
    b[0] = v.x, b[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < kBlockSteps<kFormat> / 2; ++i) {
      const uint4 v = load_16_bytes(row.at(column + 8 * i));
      b[4 * i] = v.x, b[4 * i + 1] = v.y, b[4 * i + 2] = v.z, b[4 * i + 3] = v.w;
    }
  }
#pragma unroll
  for (uint32_t& pair : b) pair &= row.mask;
}

// Adds a block's product with eight rows, scaled; `scale` and `offset` of outputs l / 4 and l / 4 + 8.
template <MatrixFormat kFormat, bool kOffsets>
__device__ __forceinline__ void multiply_block(const uint32_t (&a)[kBlockSteps<kFormat>][4],
                                               const uint32_t (&b)[kBlockSteps<kFormat> * 2], float2 scale,
                                               float2 offset, float (&sum)[4]) {
  float d[4];
  mma_m16n8k16_first(d, a[0], b[0], b[1]);
#pragma unroll
  for (int m = 1; m < kBlockSteps<kFormat>; ++m) mma_m16n8k16(d, a[m], b[2 * m], b[2 * m + 1]);
  sum[0] = fmaf(scale.x, d[0], sum[0]);
  sum[1] = fmaf(scale.x, d[1], sum[1]);
  sum[2] = fmaf(scale.y, d[2], sum[2]);
  sum[3] = fmaf(scale.y, d[3], sum[3]);
  if constexpr (kOffsets) {
    // Ones as weights: the sum of the rows' columns, in the same places.
    const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
    mma_m16n8k16_first(d, ones, b[0], b[1]);
#pragma unroll
    for (int m = 1; m < kBlockSteps<kFormat>; ++m) mma_m16n8k16(d, ones, b[2 * m], b[2 * m + 1]);
    sum[0] = fmaf(offset.x, d[0], sum[0]);
    sum[1] = fmaf(offset.x, d[1], sum[1]);
    sum[2] = fmaf(offset.y, d[2], sum[2]);
    sum[3] = fmaf(offset.y, d[3], sum[3]);
  }
}

// The blocks of a piece that are this warp's; the piece's scales (and offsets) lie behind its codes. kPasses is 2 where
// a kQ4 block holds two groups of 32 columns: the half of the lanes that has the other one multiplies zeros.
template <MatrixFormat kFormat, int kTiles, bool kShared, bool kOffsets, int kPasses>
__device__ __forceinline__ void multiply_blocks(const uint8_t* codes, int block_count, int group_shift, int x_column,
                                                const LaneInput<kTiles, kShared>& x, uint32_t active,
                                                Sums<kTiles>& sums) {
  constexpr int kColumns = kBlockColumns<kFormat>, kPairs = kBlockSteps<kFormat> * 2;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int first = warp * block_count / kStepWarps, last = (warp + 1) * block_count / kStepWarps;
  const float* scales = reinterpret_cast<const float*>(codes + block_count * kBlockBytes) + lane / 4;
  const float* offsets = scales + (block_count * kColumns >> group_shift) * 16;
  const int lane_column = x_column + lane % 4 * kLaneColumns<kFormat>;
#pragma unroll(kTiles == 1 ? 4 : 1)
  for (int block = first; block < last; ++block) {
    const uint4 code = *(reinterpret_cast<const uint4*>(codes + block * kBlockBytes) + lane);
    uint32_t a[kBlockSteps<kFormat>][4];
    to_fragments<kFormat>(code, a);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (kTiles > 1 && (active >> t & 1) == 0) continue;
      uint32_t b[kPairs];
      load_input<kFormat, kShared>(x.row[t], lane_column + block * kColumns, b);
      if constexpr (kFormat == MatrixFormat::kBF16) {
        mma_m16n8k16(sums.v[t], a[0], b[0], b[1]);
      } else {
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass) {
          const int group = ((block * kColumns >> group_shift) + pass) * 16;
          const float2 scale = {scales[group], scales[group + 8]};
          float2 offset = {0.0f, 0.0f};
          if constexpr (kOffsets) offset = {offsets[group], offsets[group + 8]};
          uint32_t kept[kPairs];
#pragma unroll
          for (int i = 0; i < kPairs; ++i) kept[i] = kPasses == 1 || (lane >> 1 & 1) == pass ? b[i] : 0u;
          multiply_block<kFormat, kOffsets>(a, kept, scale, offset, sums.v[t]);
        }
      }
    }
  }
}

template <MatrixFormat kFormat, int kTiles, bool kShared>
__device__ __forceinline__ void multiply_piece(const uint8_t* codes, int block_count, int group_shift, bool has_offsets,
                                               int x_column, const LaneInput<kTiles, kShared>& x, uint32_t active,
                                               Sums<kTiles>& sums) {
  constexpr int kSplit = kFormat == MatrixFormat::kQ4 ? 2 : 1;
  constexpr bool kMayHaveOffsets = kFormat == MatrixFormat::kQ8 || kFormat == MatrixFormat::kQ4;
  const auto multiply = [&]<bool kOffsets, int kPasses>() {
    multiply_blocks<kFormat, kTiles, kShared, kOffsets, kPasses>(codes, block_count, group_shift, x_column, x, active,
                                                                 sums);
  };
  const bool split = kSplit == 2 && group_shift == 5;
  if (kMayHaveOffsets && has_offsets) {
    split ? multiply.template operator()<true, kSplit>() : multiply.template operator()<true, 1>();
  } else {
    split ? multiply.template operator()<false, kSplit>() : multiply.template operator()<false, 1>();
  }
}

// Bytes of a piece of a matrix, in the order in which they lie in the ring.
struct PieceBytes {
  const uint8_t* codes;
  const float* scales;
  const float* offsets;
  uint32_t code_bytes, scale_bytes, offset_bytes;
  __device__ uint32_t all() const { return code_bytes + scale_bytes + offset_bytes; }
};

__device__ __forceinline__ PieceBytes piece_bytes(const DeviceMatrix& m, int tile, int first_column, int columns) {
  const int to_blocks = block_shift(m), to_groups = group_shift(m);
  PieceBytes p{};
  p.codes =
      m.blocks + (static_cast<int64_t>(tile) * (m.columns >> to_blocks) + (first_column >> to_blocks)) * kBlockBytes;
  p.code_bytes = (columns >> to_blocks) * static_cast<uint32_t>(kBlockBytes);
  if (m.group_columns == 0) return p;
  const int64_t at = (static_cast<int64_t>(tile) * (m.columns >> to_groups) + (first_column >> to_groups)) * 16;
  p.scales = m.scales + at;
  p.scale_bytes = (columns >> to_groups) * 64;
  if (m.offsets != nullptr) {
    p.offsets = m.offsets + at;
    p.offset_bytes = p.scale_bytes;
  }
  return p;
}

// A lane's term on its way into the ring.
struct TermPieces {
  PieceBytes piece;  // the next one
  PieceNote note;
  int32_t columns, step;  // left, and of a piece
  uint32_t group_shift, block_shift;
};

__device__ __forceinline__ TermPieces term_pieces(const Step& s, Work work, int number, int term, bool is_last) {
  const Term t = term_of(s, work, number, term);
  TermPieces p;
  p.step = piece_columns(t.matrix);
  p.columns = t.columns;
  p.block_shift = block_shift(t.matrix), p.group_shift = group_shift(t.matrix);
  p.piece = piece_bytes(t.matrix, t.tile, t.first_column, min(p.step, t.columns));
  const bool ends_term = p.columns <= p.step;
  p.note = {t.matrix.format,
            static_cast<int32_t>(p.piece.code_bytes / kBlockBytes),
            static_cast<int32_t>(p.group_shift),
            t.matrix.offsets != nullptr,
            t.x_column,
            t.rows,
            ends_term,
            ends_term && is_last};
  return p;
}

// The piece behind the last one.
__device__ __forceinline__ void next_piece(TermPieces& p, bool is_last) {
  p.columns -= p.step;
  p.note.x_column += p.step;
  p.note.ends_term = p.columns <= p.step;
  p.note.ends_unit = p.columns <= p.step && is_last;
  p.piece.codes += p.piece.code_bytes;
  p.piece.scales += p.piece.scale_bytes / 4;
  p.piece.offsets += p.piece.offset_bytes / 4;
  const int columns = min(p.step, p.columns);
  p.note.blocks = columns >> p.block_shift;
  p.piece.code_bytes = static_cast<uint32_t>(p.note.blocks) * kBlockBytes;
  if (p.piece.scale_bytes != 0) p.piece.scale_bytes = (columns >> p.group_shift) * 64;
  if (p.piece.offset_bytes != 0) p.piece.offset_bytes = p.piece.scale_bytes;
}

// Everything this block will multiply in a phase, fetched in the order of multiply_units. Each lane works out another
// term: one after the other would take the warp longer than memory takes to deliver them.
// One copy of its code, as of all that follows it in several phases: what a layer runs has to fit the caches of
// instructions, or it comes from memory through the same queues as the weights.
__device__ __noinline__ void fetch_units(const Step& s, Work work, Fetch& lent) {
  Fetch fetch = lent;  // in registers
  const int lane = threadIdx.x & 31, terms = term_count(s, work), all = unit_count(s, work) * terms;
  for (int first = 0; first < all; first += 32) {
    const int mine = min(first + lane, all - 1), unit = terms == 1 ? mine : mine / terms, term = mine - unit * terms;
    const bool is_last = term == terms - 1;
    TermPieces p = term_pieces(s, work, unit_number(s, work, unit), term, is_last);
    for (int owner = 0; owner < min(32, all - first); ++owner) {
      for (bool more = true; more;) {
        const uint32_t code_bytes = __shfl_sync(0xffffffffu, p.piece.code_bytes, owner);
        const uint32_t scale_bytes = __shfl_sync(0xffffffffu, p.piece.scale_bytes, owner);
        const uint32_t offset_bytes = __shfl_sync(0xffffffffu, p.piece.offset_bytes, owner);
        more = __shfl_sync(0xffffffffu, p.note.ends_term, owner) == 0;
        fetch.open(code_bytes + scale_bytes + offset_bytes);
        fetch.note(p.note, owner);
        fetch.copy(p.piece.codes, code_bytes, owner);
        fetch.copy(p.piece.scales, scale_bytes, owner);
        fetch.copy(p.piece.offsets, offset_bytes, owner);
        fetch.close();
        if (more && lane == owner) next_piece(p, is_last);
      }
    }
  }
  lent = fetch;
}

// The first of the same pieces, only as far as L2.
__device__ __noinline__ void hint_units(const Step& s, Work work, int most_units, const Fetch& fetch) {
  const int units = min(unit_count(s, work), most_units);
  for (int i = 0; i < units; ++i) {
    const Term term = term_of(s, work, unit_number(s, work, i), 0);
    const PieceBytes piece = piece_bytes(term.matrix, term.tile, term.first_column, term.columns);
    fetch.hint(piece.codes, piece.code_bytes);
    fetch.hint(piece.scales, piece.scale_bytes);
    fetch.hint(piece.offsets, piece.offset_bytes);
  }
}

// The groups of eight rows that any row of `rows` is in.
template <int kTiles>
__device__ __forceinline__ uint32_t active_tiles(uint32_t rows) {
  uint32_t active = 0;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) active |= (rows >> (8 * t) & 0xff) != 0 ? 1u << t : 0u;
  return active;
}

// The next piece, whatever it is.
template <int kTiles, bool kShared>
__device__ __forceinline__ void multiply_next(const PieceNote& note, const uint8_t* piece,
                                              const LaneInput<kTiles, kShared>& x, Sums<kTiles>& sums) {
  const uint32_t active = active_tiles<kTiles>(note.rows);
  const bool has_offsets = note.has_offsets != 0;
  switch (note.format) {
    case MatrixFormat::kBF16:
      return multiply_piece<MatrixFormat::kBF16, kTiles, kShared>(piece, note.blocks, note.group_shift, false,
                                                                  note.x_column, x, active, sums);
    case MatrixFormat::kQ8:
      return multiply_piece<MatrixFormat::kQ8, kTiles, kShared>(piece, note.blocks, note.group_shift, has_offsets,
                                                                note.x_column, x, active, sums);
    case MatrixFormat::kQ4:
      return multiply_piece<MatrixFormat::kQ4, kTiles, kShared>(piece, note.blocks, note.group_shift, has_offsets,
                                                                note.x_column, x, active, sums);
    default:
      return multiply_piece<MatrixFormat::kFP8, kTiles, kShared>(piece, note.blocks, note.group_shift, has_offsets,
                                                                 note.x_column, x, active, sums);
  }
}

// The inputs of a phase: row r at values + r * stride.
struct Inputs {
  const bf16* values;
  int64_t stride;
};

template <int kTiles, bool kShared>
__device__ __forceinline__ LaneInput<kTiles, kShared> lane_input(const Inputs& x, int rows) {
  LaneInput<kTiles, kShared> lane;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int row = t * 8 + (threadIdx.x & 31) / 4;
    const bf16* begin = x.values + min(row, rows - 1) * x.stride;
    if constexpr (kShared) {
      lane.row[t].offset = static_cast<int32_t>(shared_address(begin) - shared_address(step_shared()));
    } else {
      lane.row[t].global = begin;
    }
    lane.row[t].mask = row < rows ? 0xffffffffu : 0u;
  }
  return lane;
}

// One unit: the pieces up to the end of its sum. Of kExpertDown a row reads slot after slot, in the order of its
// experts: its input moves on with every term that it takes part in.
template <int kTiles, bool kShared>
__device__ __forceinline__ Sums<kTiles> multiply_unit(const Step& s, int term_columns,
                                                      const LaneInput<kTiles, kShared>& x, Taker& taker) {
  Sums<kTiles> sums;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) sums.v[t][0] = sums.v[t][1] = sums.v[t][2] = sums.v[t][3] = 0.0f;
  LaneInput<kTiles, kShared> next = x;
  for (;;) {
    const uint8_t* piece = taker.wait(s);
    const PieceNote note = taker.note(s);
    LaneInput<kTiles, kShared> at = x;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if ((note.rows >> (8 * t + (threadIdx.x & 31) / 4) & 1) == 0) {
        at.row[t].mask = 0;
      } else {
        at.row[t] = next.row[t];
        if (note.ends_term) next.row[t].move(term_columns);
      }
    }
    multiply_next<kTiles, kShared>(note, piece, at, sums);
    taker.release(s);
    if (note.ends_unit) return sums;
  }
}

// Multiplies this block's units of a phase and hands each result to `finish(number, row, o, low, high)`: outputs o and
// o + 8 of the unit's tile, o < 8. `reduction`: kReductionBytes of shared memory.
// kOneRow: the step has no other, which spares divisions.
template <int kTiles, bool kShared, bool kOneRow, class Finish>
__device__ __forceinline__ void multiply_units(const Step& s, Work work, const Inputs& x, float* reduction,
                                               Taker& taker, const Finish& finish) {
  const int rows = kOneRow ? 1 : s.call().rows, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int units = unit_count(s, work), tile_floats = kStepWarps * rows * 16;
  const int round = kReductionBytes / 4 / tile_floats;
  const LaneInput<kTiles, kShared> lane_x = lane_input<kTiles, kShared>(x, rows);
  for (int first = 0; first < units; first += round) {
    const int count = min(round, units - first);
    for (int i = 0; i < count; ++i) {
      const Sums<kTiles> sums = multiply_unit<kTiles, kShared>(s, s.shape().expert_width, lane_x, taker);
      float* out = reduction + i * tile_floats + warp * rows * 16 + lane / 4;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int row = t * 8 + lane % 4 * 2 + j;
          if (row < rows) out[row * 16] = sums.v[t][j], out[row * 16 + 8] = sums.v[t][2 + j];
        }
      }
    }
    step_sync();
    for (int i = threadIdx.x; i < count * rows * 8; i += kStepThreads) {
      const int o = i % 8, row = i / 8 % rows, unit = i / 8 / rows;
      const float* from = reduction + unit * tile_floats + row * 16 + o;
      float low = 0.0f, high = 0.0f;
#pragma unroll
      for (int w = 0; w < kStepWarps; ++w) low += from[w * rows * 16], high += from[w * rows * 16 + 8];
      finish(unit_number(s, work, first + unit), row, o, low, high);
    }
    step_sync();
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
