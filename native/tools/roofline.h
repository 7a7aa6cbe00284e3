// Owns: what this machine can do at best, measured: reading memory and multiplying, on a number of threads.
#pragma once

#include <cstdint>
#include <string>

#include "error.h"

namespace ringside::tools {

struct Roofline {
  double read_gb_s = 0.0;    // 1e9 bytes a second
  double int8_tops = 0.0;    // products of 8-bit integers, multiply and add counted apart
  double fp32_tflops = 0.0;  // multiply and add counted apart
  int threads = 0;
  std::string isa;
  std::string device;
};

// Reads a block of `read_bytes` again and again: below the size of a cache this measures the cache.
// threads 0: physical cores; isa "": the best.
Result<Roofline> measure_roofline(int threads, const std::string& isa, int64_t read_bytes);

}  // namespace ringside::tools
