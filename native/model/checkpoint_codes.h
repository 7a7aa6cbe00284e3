// Owns: how integer codes of the file become codes of a Matrix. Every packed layout holds unsigned codes in 32-bit
// words, the lowest bits first, which in memory is one byte a value (8 bits) or two values a byte (4 bits, the even
// column in the low half). Private to model/.
#pragma once

#include <cstdint>
#include <vector>

#include "../error.h"
#include "model/checkpoint.h"
#include "model/checkpoint_layout.h"

namespace ringside {

constexpr int64_t codes_per_word(int bits) { return 32 / bits; }
// Stored codes are unsigned: this one is zero in a symmetric file, and what a Matrix's signed codes are shifted by.
constexpr int middle_code(int bits) { return 1 << (bits - 1); }

// Gives `out` its shape, and memory for its values that holds nothing of use yet; scales and offsets are empty.
void shape_matrix(Matrix& out, WeightFormat format, const RowSlice& slice, int64_t group_columns);
// The same for codes of 4 or 8 bits.
void shape_coded(Matrix& out, int bits, const RowSlice& slice, int64_t group_columns);

// `out.data` holds the file's words of every row: makes them the codes of its format.
void sign_codes(Matrix& out);
// The same from the words of a matrix stored [in / codes per word, out].
void transpose_codes(const std::vector<uint32_t>& words, Matrix& out);

// value = (code - zero) * scale: the offset of a group whose zero point is the unsigned code `zero`.
inline float offset_of_zero(int zero, int bits, float scale) {
  return static_cast<float>(middle_code(bits) - zero) * scale;
}

// Turns a coded matrix in whose rows column c belongs to group `group_of[c]` into kQ8 in groups of 128 columns, every
// code rounded from the exact value: off by at most half a step of 1/127 of the group's largest value.
void requantise(const std::vector<int32_t>& group_of, Matrix& matrix);
// Every column in the group of its place.
bool is_in_order(const std::vector<int32_t>& group_of, int64_t group_columns);
// The group of every column as the file stores it; kFileMalformed for one that is not in [0, groups).
Result<std::vector<int32_t>> read_group_of(const CheckpointFiles::Tensor& tensor, int64_t groups);

// kF32 in place of any coded format.
void dequantise(Matrix& matrix);

}  // namespace ringside
