// Owns: the table of the kernels as the including file's instruction set compiles them.
#pragma once

#include "cpu/kernels/activation.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/matmul.h"
#if defined(__AVX2__)
#include "cpu/kernels/matmul_coded_x86.h"
#else
#include "cpu/kernels/matmul_coded.h"
#endif
#include "cpu/kernels/norm.h"
#include "cpu/kernels/quantize_rows.h"
#include "cpu/kernels/roofline.h"
#include "cpu/kernels/weighted_rows.h"

namespace ringside::cpu {
namespace {

constexpr Kernels kernel_table(const char* isa, const AttentionKernels* (*attention)()) {
  return {
      .isa = isa,
      .matmul_tile = matmul_tile,
      .matmul_coded = matmul_coded,
      .quantize_rows = quantize_rows,
      .quantize_columns = quantize_columns,
      .rms_norm = rms_norm,
      .attention = attention,
      .silu = silu,
      .silu_multiply = silu_multiply,
      .sigmoid_gate = sigmoid_gate,
      .add = add,
      .add_weighted_rows = add_weighted_rows,
      .multiply_peak = multiply_peak,
      .multiply_int8_peak = multiply_int8_peak,
      .read_stream = read_stream,
  };
}

}  // namespace
}  // namespace ringside::cpu
