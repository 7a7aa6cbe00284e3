// Owns: the elementwise functions with an exponential in them.
// Each element is computed by the same vector code wherever it lies, so a row's bits do not depend on its neighbours.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

// Calls body(Vec a, Vec b) on whole vectors and on a padded copy of the rest; writes the result over `a`.
template <class Body>
RS_INLINE void for_each_vector(float* a, const float* b, int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(a + i, body(load(a + i), load(b + i)));
  if (i == count) return;
  float rest_a[kLanes] = {};
  float rest_b[kLanes] = {};
  for (int64_t j = i; j < count; ++j) {
    rest_a[j - i] = a[j];
    rest_b[j - i] = b[j];
  }
  store(rest_a, body(load(rest_a), load(rest_b)));
  for (int64_t j = i; j < count; ++j) a[j] = rest_a[j - i];
}

void silu(float* x, int64_t count) {
  for_each_vector(x, x, count, [](Vec a, Vec) { return a * sigmoid(a); });
}

void silu_multiply(float* gate, const float* up, int64_t count) {
  for_each_vector(gate, up, count, [](Vec a, Vec b) { return a * sigmoid(a) * b; });
}

void sigmoid_gate(float* x, const float* gate, int64_t count) {
  for_each_vector(x, gate, count, [](Vec a, Vec b) { return a * sigmoid(b); });
}

}  // namespace
}  // namespace ringside::cpu
