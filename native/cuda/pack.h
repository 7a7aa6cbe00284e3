// Owns: the one-time rearrangement of stored weights into the blocks that matrix.h describes. Host code alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/matrix.h"
#include "error.h"
#include "model/backend.h"

namespace ringside::cuda {

// The form of a matrix in device memory; its pointers are left empty. F32 becomes BF16, every other format stays.
// Stored groups are cut into the largest of 32, 64 and 128 columns that divides them, and one group over the whole row
// into 128; other groups, and numbers of rows or columns that tiles and steps do not divide, are refused, the error
// naming `name`.
Result<DeviceMatrix> device_form(const std::string& name, const rs_matrix& stored);

// Whether a stored matrix has offsets is part of its form too, but DeviceMatrix says it with a pointer.
struct WeightForm {
  MatrixFormat format = MatrixFormat::kBF16;
  int32_t group_columns = 0;
  bool has_offsets = false;

  bool operator==(const WeightForm&) const = default;
};
Result<WeightForm> weight_form(const std::string& name, const rs_matrix& stored);
// Whether the codes of these rows are numbers: the kernels have none for NaN of fp8.
Status check_codes(const std::string& name, const rs_matrix& stored, int64_t first_row, int64_t rows);
// The narrowest form that holds the values of both: as they are, but for those that only kBF16 can hold side by side.
WeightForm widest(const WeightForm& a, const WeightForm& b);

// Where a tile of 16 rows goes: matrix.h gives the shapes of its three parts.
struct TileMemory {
  uint8_t* blocks = nullptr;
  float* scales = nullptr;   // null for kBF16
  float* offsets = nullptr;  // null where the form has none
};

// The eight rows of half a tile, from `first_row` of a stored matrix on.
struct HalfTile {
  const rs_matrix* stored;
  int64_t first_row;
};

// Packs rows into tiles. Keeps the memory in which rows of another format are converted, so it is one thread's.
class TilePacker {
 public:
  // Rows 0..7 and 8..15 of a tile. `form` holds the values of both: it is their weight_form or a wider one.
  void pack(const HalfTile& first, const HalfTile& second, const WeightForm& form, const TileMemory& to);
  void pack(const rs_matrix& stored, int64_t first_row, const WeightForm& form, const TileMemory& to) {
    pack({&stored, first_row}, {&stored, first_row + kTileRows / 2}, form, to);
  }
  // A tile of a router, kBF16 of 2 (with `has_low`: 3) times stored.cols columns: W_hi | W_hi | W_lo, where W_hi + W_lo
  // is W to 2^-16.
  void pack_router(const rs_matrix& stored, int64_t first_row, bool has_low, const TileMemory& to);

 private:
  const uint8_t* row_in(const rs_matrix& stored, int64_t row, MatrixFormat format, uint8_t* converted);

  std::vector<float> values_;
  std::vector<uint8_t> converted_;
};

// A whole matrix: `blocks`, `scales` and `offsets` as DeviceMatrix of `form` points at them.
void pack_blocks(const rs_matrix& stored, const WeightForm& form, uint8_t* blocks, float* scales, float* offsets);

// One dequantised row into out[cols].
void row_to_float(const rs_matrix& stored, int64_t row, float* out);

}  // namespace ringside::cuda
