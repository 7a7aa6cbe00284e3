#include <string>

#include "cuda/cuda_call.h"
#include "cuda/kernels/product.h"
#include "cuda/kernels/read_products.h"

namespace ringside::cuda {
namespace {

// About what every card has that this is built for; fewer blocks than that and some of it waits.
constexpr int64_t kMultiprocessors = 132;

Error argument_error(const char* subject, std::string expected, std::string actual) {
  return Error{ErrorKind::kArgumentInvalid, subject, std::move(expected), std::move(actual)};
}

Status check_call(const ProductCall& call) {
  const DeviceMatrix& w = call.w.first;
  if (w.rows <= 0 || w.rows % kTileRows != 0 || w.columns <= 0 || w.columns % kColumnsMultiple != 0) {
    return argument_error("matrix of a product", "rows a multiple of 16 and columns of 128",
                          std::to_string(w.rows) + " x " + std::to_string(w.columns));
  }
  const bool scaled = w.format != MatrixFormat::kBF16;
  const bool group_known = w.group_columns == 32 || w.group_columns == 64 || w.group_columns == 128;
  if (scaled ? !group_known || w.scales == nullptr : w.group_columns != 0) {
    return argument_error("group of a product's matrix", scaled ? "32, 64 or 128 columns" : "none",
                          std::to_string(w.group_columns));
  }
  if (w.offsets != nullptr && !(w.format == MatrixFormat::kQ8 || w.format == MatrixFormat::kQ4)) {
    return argument_error("offsets of a product's matrix", "8-bit or 4-bit codes",
                          w.format == MatrixFormat::kFP8 ? "fp8" : "bf16");
  }
  const bool wide = call.epilogue == Epilogue::kStoreF32 || call.epilogue == Epilogue::kAddF32;
  if (call.x_stride % 8 != 0 || call.out_stride % (wide ? 4 : 8) != 0) {  // 16 bytes are stored at once
    return argument_error("strides of a product", wide ? "multiples of 8 and 4" : "multiples of 8",
                          std::to_string(call.x_stride) + " and " + std::to_string(call.out_stride));
  }
  return Unit{};
}

Status multiply(const DeviceMatrix& w, const ReadRows& x, Epilogue epilogue, void* out, int64_t out_stride,
                cudaStream_t stream) {
  RS_TRY(const bool warpgroups, products_want_order());
  ProductCall call{};
  call.w = DeviceStack{w, 1};
  call.x = x.values;
  call.x_stride = x.stride;
  call.x_ordered = x.ordered;
  call.rows = x.count;
  call.tile_rows = product_tile_rows(w, x.count, warpgroups);
  call.epilogue = epilogue;
  call.out = out;
  call.out_stride = out_stride;
  return launch_product(call, stream);
}

}  // namespace

int32_t product_tile_rows(const DeviceMatrix& w, int64_t rows, bool warpgroups) {
  if (rows <= 32) return 32;
  const int64_t blocks = (rows + 127) / 128 * ((w.rows + 127) / 128);
  return rows <= 64 || blocks < kMultiprocessors || (w.offsets != nullptr && !warpgroups) ? 64 : 128;
}

Status launch_product(const ProductCall& call, cudaStream_t stream) {
  if (call.rows == 0) return Unit{};
  RS_CHECK(check_call(call));
  switch (call.w.first.format) {
    case MatrixFormat::kBF16:
      return launch_product_of<MatrixFormat::kBF16>(call, stream);
    case MatrixFormat::kQ8:
      return launch_product_of<MatrixFormat::kQ8>(call, stream);
    case MatrixFormat::kQ4:
      return launch_product_of<MatrixFormat::kQ4>(call, stream);
    case MatrixFormat::kFP8:
      return launch_product_of<MatrixFormat::kFP8>(call, stream);
  }
  return argument_error("format of a product's matrix", "bf16, 8-bit, 4-bit or fp8",
                        std::to_string(static_cast<int>(call.w.first.format)));
}

Status multiply_rows(const DeviceMatrix& w, const ReadRows& x, bf16* out, int64_t out_stride, cudaStream_t stream) {
  return multiply(w, x, Epilogue::kStoreBF16, out, out_stride, stream);
}

Status multiply_rows(const DeviceMatrix& w, const ReadRows& x, float* out, int64_t out_stride, cudaStream_t stream) {
  return multiply(w, x, Epilogue::kStoreF32, out, out_stride, stream);
}

Status add_product(const DeviceMatrix& w, const ReadRows& x, float* sum, int64_t sum_stride, cudaStream_t stream) {
  return multiply(w, x, Epilogue::kAddF32, sum, sum_stride, stream);
}

Status multiply_inner(const DeviceMatrix& gate_up, const ReadRows& x, bf16* out, int64_t out_stride,
                      cudaStream_t stream) {
  return multiply(gate_up, x, Epilogue::kSiluBF16, out, out_stride, stream);
}

}  // namespace ringside::cuda
