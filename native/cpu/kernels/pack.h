// Owns: the one-time rearrangement of a row-major weight matrix into the tiles that the kernels stream.
#pragma once

#include <string>

#include "cpu/kernels/kernels.h"
#include "error.h"
#include "model/backend.h"

namespace ringside::cpu {

// Columns added up before the running sum, where no scale asks for a group: short chains round less.
inline constexpr int64_t kUnscaledGroupColumns = 128;

// The packed form of a matrix as it is stored; `tiles` is left empty. FP8 becomes kQ8 with groups of 128. Stored groups
// are cut into the largest of 32, 64 and 128 columns that divides them, and one group over the whole row into any;
// other groups are refused, the error naming `name`.
Result<PackedMatrix> packed_shape(const std::string& name, const rs_matrix& stored);

// The same for fp32 activations, whatever the stored format: BF16 stays, everything else becomes kF32.
PackedMatrix packed_shape_unquantized(const rs_matrix& stored);

inline int64_t packed_bytes(const PackedMatrix& shape) { return shape.tile_count() * shape.tile_bytes(); }

// Fills one tile from the rows [first_row, first_row + 64) of `stored`, or as many as there are.
void pack_tile(const rs_matrix& stored, int64_t first_row, const PackedMatrix& shape, uint8_t* tile);

// One dequantised row into out[cols].
void row_to_float(const rs_matrix& stored, int64_t row, float* out);

// Bytes of one row's elements, without scales.
int64_t stored_row_bytes(int32_t format, int64_t columns);
// Groups of a row; 0 for F32 and BF16.
int64_t stored_groups(const rs_matrix& stored);

// The stride of QuantizedRows whose codes have one or two bytes: an odd number of cache lines, so that a column of many
// rows does not fall into few sets of a cache. Low values begin at quantized_low_offset.
int64_t quantized_low_offset(int64_t columns, int64_t group_columns);
int64_t quantized_stride(int64_t columns, int64_t group_columns, int code_bytes);

}  // namespace ringside::cpu
