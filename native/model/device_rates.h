// What a GPU can do at best, measured by the backend's library itself: the limits that a benchmark holds its rows
// against. Plain C, as everything that crosses the line to that library.
#pragma once

#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rs_device_rates {
  double copy_bytes_s; /* a copy within the device's memory, bytes read and bytes written counted both */
  double read_bytes_s; /* reading alone */
  double bf16_flops;   /* products of bf16 numbers, added in fp32; multiplications and additions counted apart */
} rs_device_rates;

/* Takes about 2 GB of device memory and half a second. */
int32_t rs_cuda_rates(rs_device_rates* out, rs_error* error);

#ifdef __cplusplus
}
#endif
