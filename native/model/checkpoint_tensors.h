// Owns: the tensor list of the architecture (specification section 7): what a checkpoint must hold, and what it may
// hold beside that. Private to model/.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "../error.h"
#include "config.h"

namespace ringside {

enum class TensorRole {
  kEmbedding,  // a matrix that is looked up, not multiplied
  kLinear,     // a matrix that may be stored quantised
  kRouter,     // a matrix that is read unquantised, however it is stored: it decides which experts run
  kVector,     // norm weights and expert_bias, rows = 1
};

struct ExpectedTensor {
  std::string name;  // with ".weight"
  TensorRole role;
  int64_t rows;
  int64_t cols;

  bool is_matrix() const { return role != TensorRole::kVector; }
  // The name without ".weight".
  std::string base() const { return name.substr(0, name.size() - std::string_view(".weight").size()); }
};

// Whether a matrix of this name without ".weight" is a router.
bool is_router_base(std::string_view base);

// Calls `visit` for every tensor in the order of the network and stops at the first error. Nothing is collected: the
// number of tensors comes from a file.
Status visit_expected_tensors(const Config& config, const std::function<Status(const ExpectedTensor&)>& visit);

// Tensors that loaders pass over: slopes, inverse frequencies, value heads, multi-token prediction layers.
bool is_skipped_tensor(std::string_view name, const Config& config);

}  // namespace ringside
