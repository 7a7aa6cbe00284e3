// Owns: a GPU backend for tests of the engine process: the CPU's, which loses its device when it is told to. As after a
// sticky error of CUDA, every later call of the process fails too.
// Must never: ship. The product's own backend reads no such file.
//
// RINGSIDE_FAULTS names a file with a line for each loss to come, "load 1" or "extend 3" or "step 2": the call of that
// name, counted from the start of the process, that loses the device. The line is taken out when it has come true, so
// that the next process meets the next line.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>

#include "error.h"
#include "model/backend.h"

namespace {

bool is_lost = false;
std::map<std::string, int> calls;

// The first line of the file, and what follows it.
std::string take_line(const char* path, std::string& rest) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  rest.assign(std::istreambuf_iterator<char>(file), {});
  return line;
}

// Whether this call finds the device lost.
bool lose(const char* name, rs_error* error) {
  const char* const path = std::getenv("RINGSIDE_FAULTS");
  if (path != nullptr && !is_lost) {
    std::string rest;
    std::istringstream line(take_line(path, rest));
    std::string wanted;
    int call = 0;
    line >> wanted >> call;
    if (++calls[name] == call && wanted == name) {
      is_lost = true;
      std::ofstream(path) << rest;
    }
  }
  if (is_lost) {
    error->kind = static_cast<int32_t>(ringside::ErrorKind::kDeviceLost);
    std::snprintf(error->subject, sizeof error->subject, "%s", name);
    std::snprintf(error->actual, sizeof error->actual, "an injected fault");
  }
  return is_lost;
}

int32_t load(const rs_config* config, const rs_weight_source* source, const rs_load_options* options, rs_model** out,
             rs_error* error) {
  return lose("load", error) ? -1 : rs_cpu_backend()->load(config, source, options, out, error);
}

int32_t extend(rs_session* session, const int32_t* tokens, int64_t count, rs_logits want, float* logits,
               const rs_poll* poll, rs_error* error) {
  if (lose("extend", error)) return -1;
  return rs_cpu_backend()->extend(session, tokens, count, want, logits, poll, error);
}

int32_t step(rs_model* model, const rs_step* steps, int64_t count, const rs_poll* poll, rs_error* error) {
  return lose("step", error) ? -1 : rs_cpu_backend()->step(model, steps, count, poll, error);
}

int32_t save(rs_session* session, rs_snapshot** out, rs_error* error) {
  return lose("save", error) ? -1 : rs_cpu_backend()->save(session, out, error);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const rs_backend* rs_cuda_backend(void) {
  static const rs_backend table = [] {
    rs_backend failing = *rs_cpu_backend();
    failing.name = "cuda";
    failing.load = load;
    failing.extend = extend;
    failing.step = step;
    failing.save = save;
    return failing;
  }();
  return &table;
}
