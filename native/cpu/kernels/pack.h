// Owns: the one-time rearrangement of a row-major weight matrix into the tiles that the kernels stream.
#pragma once

#include "cpu/kernels/kernels.h"
#include "model/backend.h"

namespace ringside::cpu {

// Columns added up before the running sum, where no scale asks for a group: short chains round less.
inline constexpr int64_t kUnscaledGroupColumns = 128;

// Bytes of the packed tiles and scales of a matrix of this shape.
int64_t packed_tile_bytes(const PackedMatrix& shape);
int64_t packed_scale_bytes(const PackedMatrix& shape);

// The packed form's shape for a matrix as it is stored; `tiles` and `scales` are left empty.
PackedMatrix packed_shape(rs_weight_format format, int64_t rows, int64_t columns, int64_t group_columns);

// Fills tile number `tile` of `tiles` and `scales`, both laid out as `shape` says.
void pack_tile(const rs_matrix& from, const PackedMatrix& shape, int64_t tile, uint8_t* tiles, float* scales);

}  // namespace ringside::cpu
