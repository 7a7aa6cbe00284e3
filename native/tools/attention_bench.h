// Owns: the attention kernels alone, at the shape of mini's heads: what they stream in decode and multiply in prefill.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/thread_pool.h"
#include "error.h"

namespace ringside::tools {

struct AttentionRow {
  std::string kernel;
  int64_t rows = 0;    // tokens that one call takes
  double bytes = 0.0;  // read from memory by all calls of a pass
  double operations = 0.0;
  double seconds = 0.0;  // of a pass, the best of several
};

Result<std::vector<AttentionRow>> measure_attention(const cpu::Kernels& kernels, cpu::ThreadPool& pool);

}  // namespace ringside::tools
