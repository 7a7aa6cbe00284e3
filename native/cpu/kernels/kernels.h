// Owns: the table of kernels that exist once per instruction set, and the packed form of a weight matrix they stream.
// Must never: contain inline code with a body that a file compiled for one instruction set would share with another.
//
// Every output element has one order of additions that depends on the shape alone: not on the number of rows, on the
// thread that computes it, or on how a prompt was cut into calls.
#pragma once

#include <cstdint>

namespace ringside::cpu {

inline constexpr int64_t kTileRows = 64;     // outputs that lie side by side in a packed matrix
inline constexpr int64_t kChunkTokens = 64;  // RS_CHUNK_TOKENS
inline constexpr int64_t kPageTokens = 256;  // RS_PAGE_TOKENS: also the key block of attention

enum class PackedFormat : int32_t { kF32, kBF16, kQ8, kQ4 };

// Weights [rows = outputs, columns = inputs], cut into tiles of 64 outputs; missing outputs and columns are zero.
// A tile of kF32 or kBF16 is [columns, 64]. A tile of a coded format is its groups one after the other, each a block:
//   kQ8  codes [group / 4, 64 outputs, 4 columns], signed bytes
//   kQ4  codes [group / 8, 64 outputs, 4 bytes]: byte b holds column 8i + b in its low half and column 8i + 4 + b in
//        its high half, each as code + 8
// then 64 fp32 scales, then 64 fp32 offsets if the matrix has any: weight = code * scale + offset. Sixteen outputs of
// four columns are one vector of the dot-product instructions and one row of an AMX tile.
struct PackedMatrix {
  PackedFormat format = PackedFormat::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t group_columns = 0;  // coded: 32, 64 or 128; else how many products are added before the running sum
  bool has_offsets = false;
  const uint8_t* tiles = nullptr;  // tile t lies at tile_at(t)

  // Inlined always, so that no file's copy of them is ever shared.
  __attribute__((always_inline)) bool is_coded() const {
    return format == PackedFormat::kQ8 || format == PackedFormat::kQ4;
  }
  __attribute__((always_inline)) int64_t tile_count() const { return (rows + kTileRows - 1) / kTileRows; }
  __attribute__((always_inline)) int64_t group_count() const { return (columns + group_columns - 1) / group_columns; }
  // Of one group of a coded tile.
  __attribute__((always_inline)) int64_t code_bytes() const {
    return group_columns * kTileRows / (format == PackedFormat::kQ4 ? 2 : 1);
  }
  __attribute__((always_inline)) int64_t block_bytes() const {
    return code_bytes() + (has_offsets ? 2 : 1) * kTileRows * static_cast<int64_t>(sizeof(float));
  }
  __attribute__((always_inline)) int64_t tile_bytes() const {
    if (is_coded()) return group_count() * block_bytes();
    return columns * kTileRows * (format == PackedFormat::kBF16 ? 2 : 4);
  }
  __attribute__((always_inline)) const uint8_t* tile_at(int64_t tile) const { return tiles + tile * tile_bytes(); }
};

// Activations as the coded kernels read them: x = code * scale, both of the code's row and group. The codes are whole
// numbers up to 127 in one byte or, where `low_offset` is set, up to 127 * 128 in two: code = 128 * value + low value.
// A group's largest magnitude m gives scale = m / limit, and code = x * (limit / m) rounded to the nearest, ties to
// even. A group below 1e-33 is all zero with scale 0; one that holds an infinity or a NaN is all zero with that as its
// scale.
struct QuantizedRows {
  int8_t* values;   // row r at r * stride; zero past the last column up to a whole group
  int64_t stride;   // bytes, a multiple of 64
  float* scales;    // [rows, groups]
  int32_t* sums;    // [rows, groups]: of the group's codes
  int64_t columns;  //
  int64_t group_columns;
  int64_t groups;
  int64_t low_offset;  // bytes from a row's values to its low values, a multiple of 64; 0: there are none
};

// What matmul_coded may write besides its outputs: on AMX sums, dots and widened codes.
inline constexpr int64_t kCodedScratchBytes = int64_t{1} << 15;

struct AttentionKernels;  // attention_kernels.h

struct Kernels {
  const char* isa;

  // Of F32 and BF16 weights: y[r][n] = Σ_k x[r][k] w[tile * 64 + n][k] for 64 outputs n. `panel`: scratch [128, 64].
  void (*matmul_tile)(const PackedMatrix& w, int64_t tile, const float* x, int64_t x_stride, int64_t rows, float* y,
                      int64_t y_stride, float* panel);
  // The same of coded weights, for rows [first_row, first_row + rows) of x, whose groups are the weights'; y points at
  // the first of these rows. Two-byte codes multiply as whole numbers too: 128 * (dot of values) + (dot of low values).
  // Inside a group the products are added as integers, which is exact; then, group after
  // group, y = fma(float(dot), weight scale * x scale, y), and with offsets y = fma(offset, x scale * float(x sum), y).
  // `scratch`: kCodedScratchBytes, at a cache line. `next`: where this thread reads next, if that is known, else null.
  // Of there, as many bytes as the tile has may be called near meanwhile: advice only, on which no result depends.
  void (*matmul_coded)(const PackedMatrix& w, int64_t tile, const QuantizedRows& x, int64_t first_row, int64_t rows,
                       float* y, int64_t y_stride, uint8_t* scratch, const uint8_t* next);
  // Rows [first_row, first_row + rows) of `out` from as many rows at x.
  void (*quantize_rows)(const float* x, int64_t x_stride, int64_t first_row, int64_t rows, const QuantizedRows& out);
  // Columns [first_column, first_column + columns) of one row, from x[0..columns). Starts at a group; ends at one or
  // with the row.
  void (*quantize_columns)(const float* x, int64_t first_column, int64_t columns, int64_t row,
                           const QuantizedRows& out);
  // out = x / sqrt(mean(x²) + eps) * weight; `out` may be `x`. One order of additions on every instruction set.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t count, float* out);
  const AttentionKernels* (*attention)();
  void (*silu)(float* x, int64_t count);                               // x = x sigmoid(x)
  void (*silu_multiply)(float* gate, const float* up, int64_t count);  // gate = silu(gate) up
  void (*sigmoid_gate)(float* x, const float* gate, int64_t count);    // x = x sigmoid(gate)
  void (*add)(const float* x, int64_t count, float* sum);              // sum = sum + x
  // sums[rows[r]] = sums[rows[r]] + weights[r] y[r], row after row, each of 64 columns.
  void (*add_weighted_rows)(const float* y, const int32_t* rows, const float* weights, int64_t count, float* sums);

  // For the roofline: multiply-adds as fast as they go (return their number), and a plain read of memory.
  int64_t (*multiply_peak)(int64_t steps, float* sink);
  int64_t (*multiply_int8_peak)(int64_t steps, int32_t* sink);
  uint64_t (*read_stream)(const void* from, int64_t bytes);
};

const Kernels* plain_kernels();
const Kernels* avx2_kernels();    // null where the build has none
const Kernels* avx512_kernels();  // null where the build has none
const Kernels* avxvnni_kernels();
const Kernels* avx512vnni_kernels();
const Kernels* avx512bf16_kernels();
const Kernels* amx_kernels();
const Kernels* neon_kernels();  // null where the build has none
const Kernels* dotprod_kernels();
const Kernels* i8mm_kernels();

}  // namespace ringside::cpu
