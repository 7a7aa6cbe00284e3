// Owns: what tools may learn of a model that the CPU backend has loaded. Never used by the engine itself.
#pragma once

#include "cpu/model.h"
#include "model/tap.h"

namespace ringside::cpu {

const Model& inspect(const rs_model* model);

}  // namespace ringside::cpu
