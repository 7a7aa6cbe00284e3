#include "cpu/inspect.h"

namespace ringside {

const cpu::Model& cpu::inspect(const rs_model* model) { return *reinterpret_cast<const Model*>(model); }

void set_cpu_tap(rs_model* model, const Tap* tap) { reinterpret_cast<cpu::Model*>(model)->tap = tap; }

}  // namespace ringside
