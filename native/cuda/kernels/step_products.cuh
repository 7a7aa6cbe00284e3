// Owns: products of the step path. A block multiplies its tiles of 16 outputs with all rows; its warps share the
// columns of each piece and add up through shared memory in the order of warps. So a row's bits depend on the row, the
// weights and the matrix's shape alone.
#pragma once

#include "cuda/kernels/step_stream.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

// Where a lane's row of the input begins, in shared or global memory, and where generic addresses may be either. Of a
// row that takes no part `mask` makes zeros: a branch in the innermost loop would cost more than its bytes.
template <bool kShared>
struct InputRow {
  const bf16* first;
  uint32_t mask;
  __device__ const bf16* at(int column) const { return first + column; }
  __device__ void move(int columns) { first += columns; }
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

__device__ __forceinline__ uint4 load_16_bytes(const bf16* p) { return *reinterpret_cast<const uint4*>(p); }

// Loads that stay where they are written, ahead of multiplications.
template <bool kShared>
__device__ __forceinline__ uint4 load_row_16(const InputRow<kShared>& row, int column) {
  if constexpr (kShared) {
    return load_shared_16(shared_address(step_shared()) + row.offset + column * 2);
  } else {
    uint4 v;
    asm volatile("ld.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(row.at(column)));
    return v;
  }
}

// A lane's columns of one block for one row, as pairs.
template <MatrixFormat kFormat, bool kShared, bool kMasked>
__device__ __forceinline__ void load_input(const InputRow<kShared>& row, int column,
                                           uint32_t (&b)[kBlockSteps<kFormat> * 2]) {
  if constexpr (kFormat == MatrixFormat::kBF16) {
    const uint2 v = *reinterpret_cast<const uint2*>(row.at(column));
    b[0] = v.x, b[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < kBlockSteps<kFormat> / 2; ++i) {
      const uint4 v = load_row_16<kShared>(row, column + 8 * i);
      b[4 * i] = v.x, b[4 * i + 1] = v.y, b[4 * i + 2] = v.z, b[4 * i + 3] = v.w;
    }
  }
  if constexpr (kMasked) {
#pragma unroll
    for (uint32_t& pair : b) pair &= row.mask;
  }
}

// Steps kBegin .. kEnd - 1 as constants.
template <int kBegin, int kEnd, class Body>
__device__ __forceinline__ void for_steps(const Body& body) {
  if constexpr (kBegin < kEnd) {
    body(std::integral_constant<int, kBegin>());
    for_steps<kBegin + 1, kEnd>(body);
  }
}

// sum += scale * d; `scale` of outputs l / 4 and l / 4 + 8.
__device__ __forceinline__ void add_scaled(const float (&d)[4], float2 scale, float (&sum)[4]) {
  sum[0] = fmaf(scale.x, d[0], sum[0]);
  sum[1] = fmaf(scale.x, d[1], sum[1]);
  sum[2] = fmaf(scale.y, d[2], sum[2]);
  sum[3] = fmaf(scale.y, d[3], sum[3]);
}

// The blocks of a piece that are this warp's; the piece's scales (and offsets) lie behind its codes. Some blocks are
// under way together, since one waits for its bytes and for each of its multiplications; where fewer are left, the last
// one is multiplied again, by zero. kPasses is 2 where a kQ4 block holds two groups of 32 columns: the half of the
// lanes that has the other one multiplies zeros.
template <MatrixFormat kFormat, bool kShared, bool kMasked, bool kOffsets, int kPasses>
__device__ __forceinline__ void multiply_blocks(const uint8_t* codes, const PieceNote& note, const InputRow<kShared>& x,
                                                float (&sum)[4]) {
  constexpr int kColumns = kBlockColumns<kFormat>, kPairs = kBlockSteps<kFormat> * 2, kSteps = kBlockSteps<kFormat>;
  constexpr bool kHasScales = kFormat != MatrixFormat::kBF16;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int first = warp * note.segment_blocks / kStepWarps;
  const int mine = (warp + 1) * note.segment_blocks / kStepWarps - first, all = note.segments * mine;
  const int blocks = note.segments * note.segment_blocks, shift = note.group_shift;
  const float* scales = reinterpret_cast<const float*>(codes + blocks * kBlockBytes) + lane / 4;
  const float* offsets = scales + (blocks * kColumns >> shift) * 16;
  const int lane_column = note.x_column + lane % 4 * kLaneColumns<kFormat>;
  int block = first, left = mine;
  for (int i = 0; i < all; i += kUnrolledBlocks) {
    uint4 code[kUnrolledBlocks];
    uint32_t b[kUnrolledBlocks][kPairs];
    float2 scale[kUnrolledBlocks][kPasses], offset[kUnrolledBlocks][kPasses];
#pragma unroll
    for (int k = 0; k < kUnrolledBlocks; ++k) {
      code[k] = load_shared_16(shared_address(codes + block * kBlockBytes) + lane * 16);
      load_input<kFormat, kShared, kMasked>(x, lane_column + block * kColumns, b[k]);
      const bool is_one = i + k < all;
      if constexpr (kHasScales) {
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass) {
          const int group = ((block * kColumns >> shift) + pass) * 16;
          scale[k][pass] = {is_one ? scales[group] : 0.0f, is_one ? scales[group + 8] : 0.0f};
          if constexpr (kOffsets) {
            offset[k][pass] = {is_one ? offsets[group] : 0.0f, is_one ? offsets[group + 8] : 0.0f};
          }
        }
      } else {
#pragma unroll
        for (uint32_t& pair : b[k]) pair = is_one ? pair : 0u;
      }
      if (i + k + 1 >= all) continue;
      const bool ends_segment = --left == 0;
      block += ends_segment ? note.segment_blocks - mine + 1 : 1;
      left = ends_segment ? mine : left;
    }
    if constexpr (!kHasScales) {
#pragma unroll
      for (int k = 0; k < kUnrolledBlocks; ++k) {
        uint32_t a[1][4];
        to_fragments<kFormat>(code[k], a);
        mma_m16n8k16(sum, a[0], b[k][0], b[k][1]);
      }
    } else {
      float d[kUnrolledBlocks][kPasses][4], ones_d[kOffsets ? kUnrolledBlocks : 1][kPasses][4];
      const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
      for_steps<0, kSteps>([&](auto step) {
        constexpr int kStep = decltype(step)::value;
#pragma unroll
        for (int k = 0; k < kUnrolledBlocks; ++k) {
          uint32_t a[4];
          to_fragment<kFormat, kStep>(code[k], a);
#pragma unroll
          for (int pass = 0; pass < kPasses; ++pass) {
            const bool is_kept = kPasses == 1 || (lane >> 1 & 1) == pass;
            const uint32_t b0 = is_kept ? b[k][2 * kStep] : 0u, b1 = is_kept ? b[k][2 * kStep + 1] : 0u;
            if constexpr (kStep == 0) {
              mma_m16n8k16_first(d[k][pass], a, b0, b1);
              // Ones as weights: the sum of the rows' columns, in the same places.
              if constexpr (kOffsets) mma_m16n8k16_first(ones_d[k][pass], ones, b0, b1);
            } else {
              mma_m16n8k16(d[k][pass], a, b0, b1);
              if constexpr (kOffsets) mma_m16n8k16(ones_d[k][pass], ones, b0, b1);
            }
          }
        }
      });
#pragma unroll
      for (int k = 0; k < kUnrolledBlocks; ++k) {
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass) {
          add_scaled(d[k][pass], scale[k][pass], sum);
          if constexpr (kOffsets) add_scaled(ones_d[k][pass], offset[k][pass], sum);
        }
      }
    }
  }
}

// The next piece with each eight rows of which one takes part.
template <MatrixFormat kFormat, int kTiles, bool kShared, bool kMasked>
__device__ __forceinline__ void multiply_piece(const uint8_t* codes, const PieceNote& note,
                                               const LaneInput<kTiles, kShared>& x, Sums<kTiles>& sums) {
  constexpr int kSplit = kFormat == MatrixFormat::kQ4 ? 2 : 1;
  constexpr bool kMayHaveOffsets = kFormat == MatrixFormat::kQ8 || kFormat == MatrixFormat::kQ4;
  const auto multiply = [&]<bool kOffsets, int kPasses>() {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (kTiles > 1 && (note.rows >> (8 * t) & 0xff) == 0) continue;
      multiply_blocks<kFormat, kShared, kMasked, kOffsets, kPasses>(codes, note, x.row[t], sums.v[t]);
    }
  };
  const bool split = kSplit == 2 && note.group_shift == 5;
  if (kMayHaveOffsets && note.has_offsets != 0) {
    split ? multiply.template operator()<true, kSplit>() : multiply.template operator()<true, 1>();
  } else {
    split ? multiply.template operator()<false, kSplit>() : multiply.template operator()<false, 1>();
  }
}

// A lane's term on its way into the ring: where its next bytes come from, in the order in which they lie there.
struct TermPieces {
  const uint8_t* codes;
  const float* scales;
  const float* offsets;
  int32_t blocks;  // left
  uint32_t block_shift;
  PieceNote note;
};

__device__ __forceinline__ TermPieces term_pieces(const Step& s, Work work, int number, int term) {
  const Term t = term_of(s, work, number, term);
  const int to_blocks = block_shift(t.matrix), to_groups = group_shift(t.matrix);
  const int64_t at = static_cast<int64_t>(t.tile) * t.matrix.columns + t.first_column;
  TermPieces p{};
  p.codes = t.matrix.blocks + (at >> to_blocks) * kBlockBytes;
  if (t.matrix.group_columns != 0) {
    p.scales = t.matrix.scales + (at >> to_groups) * 16;
    if (t.matrix.offsets != nullptr) p.offsets = t.matrix.offsets + (at >> to_groups) * 16;
  }
  p.blocks = t.columns >> to_blocks, p.block_shift = to_blocks;
  p.note = {t.matrix.format,
            to_groups,
            t.matrix.offsets != nullptr,
            t.x_column,
            0,
            0,
            t.rows,
            static_cast<uint32_t>(number) * 8};
  return p;
}

// How many terms of a sum can be one piece: equal ones that follow one another in every row's input, as with one row.
__device__ __forceinline__ int merged_terms(const Step& s, Work work, int blocks) {
  return work == Work::kExpertDown && s.call().rows == 1 && blocks <= kSegmentBlocks ? max(kMergedBlocks / blocks, 1)
                                                                                     : 1;
}

// Moves a term of one row's experts, worked out for expert 0, to the expert in its place of the list.
__device__ __forceinline__ void add_expert(const Step& s, Work work, int term, TermPieces& p) {
  const bool is_inner = work == Work::kExpertInner;
  const DeviceStack& stack = is_inner ? s.layer().mlp.gate_up : s.layer().mlp.down;
  const int place = is_inner ? static_cast<int>(p.note.number / 8) / inner_tiles(s) : term;
  const int expert = place < s.control().listed_count ? s.control().listed[place] : s.shape().experts;
  const int64_t values = static_cast<int64_t>(stack.first.rows) * stack.first.columns * expert;
  p.codes += values / 16 >> p.block_shift << 9;
  if (p.scales != nullptr) p.scales += values >> p.note.group_shift;
  if (p.offsets != nullptr) p.offsets += values >> p.note.group_shift;
}

// Everything this block will multiply in a phase, in order. Each lane works out another term: one after the other would
// take the warp longer than memory takes to deliver them. With one row that is done before its experts are known.
__device__ __forceinline__ void fetch_units(const Step& s, Work work, bool waits, uint32_t parity, Fetch& fetch) {
  const int lane = threadIdx.x & 31;
  const bool is_expert = work == Work::kExpertInner || work == Work::kExpertDown, is_one_row = s.call().rows == 1;
  if (waits && !is_one_row) mbarrier_wait(&s.control().routed, parity);
  const int terms = term_count(s, work), all = unit_count(s, work) * terms;
  if (all == 0) {
    fetch.open(0);
    fetch.note({MatrixFormat::kBF16, 0, 0, 0, 0, 0, 0, kEndsPhase}, 0);
    fetch.close();
  }
  for (int first = 0; first < max(all, 1); first += 32) {
    const int mine = max(min(first + lane, all - 1), 0), unit = terms == 1 ? mine : mine / terms;
    const int term = mine - unit * terms;
    TermPieces p = term_pieces(s, work, unit_number(s, work, unit), term);
    p.note.number |= term == terms - 1 ? kEndsUnit : 0u;
    if (is_expert && is_one_row) {
      if (waits && first == 0) mbarrier_wait(&s.control().routed, parity);
      add_expert(s, work, term, p);
    }
    for (int owner = 0; owner < min(32, all - first);) {
      int blocks = __shfl_sync(0xffffffffu, p.blocks, owner);
      const uint32_t number = __shfl_sync(0xffffffffu, p.note.number, owner);
      const uint32_t to_columns = __shfl_sync(0xffffffffu, p.block_shift, owner);
      const uint32_t group_shift = __shfl_sync(0xffffffffu, p.note.group_shift, owner);
      const bool has_scales = __shfl_sync(0xffffffffu, p.scales != nullptr, owner);
      const bool has_offsets = __shfl_sync(0xffffffffu, p.offsets != nullptr, owner);
      int owners = merged_terms(s, work, blocks);
      if (owners > 1) owners = min(min(owners, terms - (first + owner) % terms), min(32, all - first) - owner);
      const int last_owner = owner + owners - 1;
      const bool ends_unit =
          owners > 1 ? __shfl_sync(0xffffffffu, p.note.number & kEndsUnit, last_owner) != 0 : (number & kEndsUnit) != 0;
      while (blocks > 0) {
        const int segments = owners > 1                 ? owners
                             : blocks >= kSegmentBlocks ? min(blocks / kSegmentBlocks, s.call().piece_segments)
                                                        : 1;
        const int segment_blocks = min(blocks, kSegmentBlocks), taken = owners > 1 ? blocks : segments * segment_blocks;
        const uint32_t code_bytes = taken * static_cast<uint32_t>(kBlockBytes);
        const uint32_t group_bytes = (static_cast<uint32_t>(taken) << to_columns >> group_shift) * 64;
        const uint32_t scale_bytes = has_scales ? group_bytes : 0, offset_bytes = has_offsets ? group_bytes : 0;
        blocks -= taken;
        PieceNote note = p.note;
        note.segments = segments, note.segment_blocks = segment_blocks;
        const bool ends_term = blocks == 0, ends_all = ends_term && ends_unit;
        note.number = (number & ~7u) | (ends_term ? kEndsTerm : 0) | (ends_all ? kEndsUnit : 0) |
                      (ends_all && first + last_owner == all - 1 ? kEndsPhase : 0);
        fetch.open((code_bytes + scale_bytes + offset_bytes) * owners);
        fetch.note(note, owner);
        for (int o = owner; o <= last_owner; ++o) fetch.copy(p.codes, code_bytes, o);
        for (int o = owner; has_scales && o <= last_owner; ++o) fetch.copy(p.scales, scale_bytes, o);
        for (int o = owner; has_offsets && o <= last_owner; ++o) fetch.copy(p.offsets, offset_bytes, o);
        fetch.close();
        if (lane == owner) {
          p.codes += code_bytes, p.scales += scale_bytes / 4, p.offsets += offset_bytes / 4;
          p.note.x_column += taken << to_columns;
        }
      }
      owner += owners;
    }
  }
}

// The first of the same pieces, only as far as L2. Lanes work out a unit each.
__device__ __forceinline__ void hint_units(const Step& s, Work work, int most_units) {
  const int unit = threadIdx.x & 31;
  if (unit >= min(unit_count(s, work), most_units)) return;
  const TermPieces p = term_pieces(s, work, unit_number(s, work, unit), 0);
  const uint32_t groups = (p.blocks << p.block_shift >> p.note.group_shift) * 64;
  Fetch::hint(p.codes, p.blocks * static_cast<uint32_t>(kBlockBytes));
  if (p.scales != nullptr) Fetch::hint(p.scales, groups);
  if (p.offsets != nullptr) Fetch::hint(p.offsets, groups);
}

// The next piece, whatever it is.
template <int kTiles, bool kShared, bool kMasked>
__device__ __forceinline__ void multiply_next(const PieceNote& note, const uint8_t* piece,
                                              const LaneInput<kTiles, kShared>& x, Sums<kTiles>& sums) {
  switch (note.format) {
    case MatrixFormat::kBF16:
      return multiply_piece<MatrixFormat::kBF16, kTiles, kShared, kMasked>(piece, note, x, sums);
    case MatrixFormat::kQ8:
      return multiply_piece<MatrixFormat::kQ8, kTiles, kShared, kMasked>(piece, note, x, sums);
    case MatrixFormat::kQ4:
      return multiply_piece<MatrixFormat::kQ4, kTiles, kShared, kMasked>(piece, note, x, sums);
    default:
      return multiply_piece<MatrixFormat::kFP8, kTiles, kShared, kMasked>(piece, note, x, sums);
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
      lane.row[t].first = begin;
    }
    lane.row[t].mask = row < rows ? 0xffffffffu : 0u;
  }
  return lane;
}

template <int kTiles>
__device__ __forceinline__ void clear(Sums<kTiles>& sums) {
#pragma unroll
  for (int t = 0; t < kTiles; ++t) sums.v[t][0] = sums.v[t][1] = sums.v[t][2] = sums.v[t][3] = 0.0f;
}

// Inputs of kExpertDown where rows' slots are too many for shared memory: each warp copies its own columns of a term's
// rows some terms ahead, so that nobody waits for L2.
class StagedTerms {
 public:
  static constexpr int kStages = 4;

  __device__ void begin(const Step& s, bf16* room) {
    terms_ = term_count(s, Work::kExpertDown);
    copied_ = taken_ = slot_ = 0;
    const int warp = threadIdx.x >> 5, shift = block_shift(s.layer().mlp.down.first);
    const int blocks = s.shape().expert_width >> shift;
    first_ = (warp * blocks / kStepWarps) << shift;
    columns_ = (((warp + 1) * blocks / kStepWarps) << shift) - first_;
    room_ = room + warp * kStages * stage_values(s);
    for (int i = 0; i < kStages - 1; ++i) copy(s);
  }

  // Values of a warp's stage: the most columns that a warp has, of every row.
  __device__ static int stage_values(const Step& s) { return row_values(s) * s.call().rows; }
  __device__ static int row_values(const Step& s) {
    const int shift = block_shift(s.layer().mlp.down.first), blocks = s.shape().expert_width >> shift;
    return ((blocks + kStepWarps - 1) / kStepWarps) << shift;
  }
  __device__ static bool fits(const Step& s, int64_t values) {
    return row_values(s) <= 256 && s.shape().expert_width >> block_shift(s.layer().mlp.down.first) <= kSegmentBlocks &&
           static_cast<int64_t>(kStepWarps) * kStages * stage_values(s) <= values;
  }

  // Where row 0 of the next term would begin, if this warp had its first columns too; rows are row_values() apart.
  __device__ const bf16* next(const Step& s) {
    copy(s);
    cp_async_wait<kStages - 1>();
    __syncwarp();
    return room_ + taken_++ % kStages * stage_values(s) - first_;
  }

 private:
  __device__ void copy(const Step& s) {
    const int lane = threadIdx.x & 31;
    if (copied_ < terms_) {
      const bool is_shared = copied_ == s.control().listed_count;
      const uint32_t rows = is_shared ? s.all_rows() : s.control().expert_rows[s.control().listed[copied_]];
      const uint32_t to = shared_address(room_ + copied_ % kStages * stage_values(s));
      for (uint32_t left = rows; left != 0; left &= left - 1) {
        const int row = __ffs(static_cast<int>(left)) - 1, slot = __shfl_sync(0xffffffffu, slot_, row);
        if (lane * 8 >= columns_) continue;
        cp_async_16(to + (row * row_values(s) + lane * 8) * 2, s.shape().inner +
                                                                   static_cast<int64_t>(row) * s.shape().inner_columns +
                                                                   slot * s.shape().expert_width + first_ + lane * 8);
      }
      slot_ += rows >> lane & 1;
    }
    cp_async_commit();
    copied_++;
  }

  int terms_, first_, columns_, copied_, taken_, slot_;  // slot_: of the row of this lane's number
  bf16* room_;
};

// Adds up the warps' parts of `results` results and hands each to `finish(number, row, o, low, high)`: outputs o and
// o + 8 of the unit's tile, o < 8.
inline constexpr int kResultFloats = kStepWarps * 16, kResults = kReductionBytes / 4 / kResultFloats;
template <bool kOneRow, class Finish>
__device__ __forceinline__ void finish_results(const Step& s, int results, const float* reduction,
                                               const Finish& finish) {
  step_sync();
  for (int i = threadIdx.x; i < results * 8; i += kStepThreads) {
    const int o = i % 8, result = s.control().result[i / 8];
    const float* from = reduction + i / 8 * kResultFloats + o;
    float low = 0.0f, high = 0.0f;
#pragma unroll
    for (int w = 0; w < kStepWarps; ++w) low += from[w * 16], high += from[w * 16 + 8];
    finish(result / 32, kOneRow ? 0 : result % 32, o, low, high);
  }
}

// Multiplies the pieces of a phase, as they come, and finishes their results. `reduction`: kReductionBytes of shared
// memory, free until the next block-wide wait. `room`: null, or for the inputs of kExpertDown. Of that a row reads slot
// after slot, in the order of its experts: its input moves on with every term that it takes part in. kOneRow: the step
// has no other, and the terms' notes say where. True if the first warp alone wrote results since a block-wide wait.
template <int kTiles, bool kShared, bool kOneRow, class Finish>
__device__ __forceinline__ bool multiply_units(const Step& s, Work work, const Inputs& input, bf16* room,
                                               float* reduction, Taker& taker, const Finish& finish) {
  const int rows = kOneRow ? 1 : s.call().rows, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const LaneInput<kTiles, kShared> x = lane_input<kTiles, kShared>(input, rows);
  LaneInput<kTiles, kShared> next = x;
  StagedTerms staged{};
  Sums<kTiles> sums;
  clear(sums);
  if (!kShared && room != nullptr) staged.begin(s, room);
  for (int results = 0;;) {
    const bf16* first_staged = !kShared && room != nullptr ? staged.next(s) : nullptr;
    const uint8_t* piece = taker.wait(s);
    const PieceNote note = taker.note(s);
    if constexpr (kOneRow) {
      multiply_next<kTiles, kShared, false>(note, piece, x, sums);
    } else {
      LaneInput<kTiles, kShared> at = x;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = 8 * t + lane / 4;
        if ((note.rows >> row & 1) == 0) {
          at.row[t].mask = 0;
        } else {
          at.row[t] = next.row[t];
          if ((note.number & kEndsTerm) != 0) next.row[t].move(s.shape().expert_width);
        }
        if constexpr (!kShared) {
          if (room != nullptr) at.row[t].first = first_staged + min(row, rows - 1) * StagedTerms::row_values(s);
        }
      }
      multiply_next<kTiles, kShared, true>(note, piece, at, sums);
    }
    taker.release(s);
    if ((note.number & kEndsUnit) != 0) {
      const uint32_t taking = kOneRow ? 1u : work == Work::kExpertDown ? s.all_rows() : note.rows;
      if (results + __popc(taking) > kResults) {
        finish_results<kOneRow>(s, results, reduction, finish);
        step_sync();
        results = 0;
      }
      float* out = reduction + results * kResultFloats + warp * 16 + lane / 4;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int row = t * 8 + lane % 4 * 2 + j;
          if (kOneRow ? row != 0 : (taking >> row & 1) == 0) continue;
          float* to = out + (kOneRow ? 0 : __popc(taking & ((1u << row) - 1)) * kResultFloats);
          to[0] = sums.v[t][j], to[8] = sums.v[t][2 + j];
        }
      }
      if (warp == 0 && (taking >> lane & 1) != 0) {
        s.control().result[results + __popc(taking & ((1u << lane) - 1))] =
            static_cast<int32_t>(note.number / 8) * 32 + lane;
      }
      results += __popc(taking);
      clear(sums);
      next = x;
      if (!kShared && room != nullptr && (note.number & kEndsPhase) == 0) staged.begin(s, room);
    }
    if ((note.number & kEndsPhase) != 0) {
      finish_results<kOneRow>(s, results, reduction, finish);
      return results * 8 <= 32;
    }
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
