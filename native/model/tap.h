// Owns: the one way in which a tool watches a forward pass from within, the same for every backend. It is no part of
// the backend table: it is set on a loaded model by the functions below, and costs one comparison a layer while unset.
// Must never: change what it is shown.
#pragma once

#include <cstdint>

#include "backend.h"

namespace ringside {

enum class TapPoint : int32_t { kEmbedding, kAttention, kMlp };

// Rows come in the order in which the pass holds them: tokens ascending, sessions of a step in the order of the steps.
// What one module added to the residual is the difference between two points.
struct Tap {
  void* context = nullptr;
  // The residual [count, hidden] at a point of a layer; kEmbedding: before layer 0. May be null.
  void (*residual)(void* context, int32_t layer, TapPoint point, const float* rows, int64_t count,
                   int64_t hidden) = nullptr;
  // The experts [count, experts_per_token] that a layer's router chose, in any order within a row. May be null.
  void (*routed)(void* context, int32_t layer, const int32_t* experts, int64_t count, int64_t slots) = nullptr;
};

// The tap must outlive its use; nullptr: none. Not while a call on the model runs.
void set_cpu_tap(rs_model* model, const Tap* tap);
void set_reference_tap(rs_model* model, const Tap* tap);

}  // namespace ringside
