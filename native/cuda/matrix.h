// Owns: the form in which a weight matrix lies in device memory, one for reading a prompt and for single steps.
//
// A matrix [rows, columns] is cut into tiles of 16 rows, and a tile along its columns into blocks of 512 bytes: what
// the 32 lanes of a warp load with 16 bytes each and multiply as the A operand of mma.m16n8k16, without a shuffle.
// Columns of a block: 16 for kBF16, 32 for kQ8 and kFP8, 64 for kQ4. With W = columns of the block / 4, lane l holds,
// of row l / 4 and then of row l / 4 + 8, the W columns that begin at (l % 4) * W, ascending, 8 bytes a row:
//   kBF16  4 numbers
//   kQ8    8 signed bytes;  kFP8  8 e4m3fn bytes
//   kQ4    8 bytes as two little-endian words of 8 codes each; a code c of -8..7 is stored as c + 8; in a word, half
//          byte i (i = 0..3) is column 2i and half byte i + 4 is column 2i + 1, so that (word >> 4i) & 0x000f000f is a
//          pair of neighbours in 16-bit halves
// The order of columns inside mma's k is ours to choose, so the m-th multiplication of a block takes from lane l the
// columns (l % 4) * W + 4m .. + 3 as its k = 2q, 2q+1, 2q+8, 2q+9 (q = l % 4), of weights and of activations alike: a
// lane's activations of a row lie side by side in memory too.
//
// Value = code * scale + offset; scale and offset are of a row's group of 32, 64 or 128 columns.
#pragma once

#include <cstdint>

namespace ringside::cuda {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kBlockBytes = 512;
inline constexpr int64_t kColumnsMultiple = 128;  // of every matrix, so that a step of 128 columns is never partial

enum class MatrixFormat : int32_t { kBF16 = 0, kQ8 = 1, kQ4 = 2, kFP8 = 3 };

// Plain data: kernels take it by value.
struct DeviceMatrix {
  MatrixFormat format = MatrixFormat::kBF16;
  int32_t rows = 0;                 // a multiple of 16
  int32_t columns = 0;              // a multiple of 128
  int32_t group_columns = 0;        // 32, 64 or 128; kBF16: 0, there are no scales
  const uint8_t* blocks = nullptr;  // [rows / 16, columns / block_columns(), 512]
  const float* scales = nullptr;    // [rows / 16, columns / group_columns, 16]
  const float* offsets = nullptr;   // the same shape, or null: all zero

#if defined(__CUDACC__)
#define RS_HOST_DEVICE __host__ __device__
#else
#define RS_HOST_DEVICE
#endif
  RS_HOST_DEVICE int64_t block_columns() const {
    return format == MatrixFormat::kBF16 ? 16 : format == MatrixFormat::kQ4 ? 64 : 32;
  }
  RS_HOST_DEVICE int64_t groups() const { return group_columns == 0 ? 0 : columns / group_columns; }
  RS_HOST_DEVICE int64_t block_bytes() const { return rows / kTileRows * (columns / block_columns()) * kBlockBytes; }
  RS_HOST_DEVICE int64_t scale_count() const { return rows * groups(); }
};

// Matrices of one shape and format behind one another: all experts of a layer. Matrix e begins e * block_bytes() and
// e * scale_count() on.
struct DeviceStack {
  DeviceMatrix first;
  int32_t count = 0;

  RS_HOST_DEVICE DeviceMatrix at(int64_t e) const {
    DeviceMatrix m = first;
    m.blocks += e * first.block_bytes();
    if (m.scales != nullptr) m.scales += e * first.scale_count();
    if (m.offsets != nullptr) m.offsets += e * first.scale_count();
    return m;
  }
};

}  // namespace ringside::cuda
