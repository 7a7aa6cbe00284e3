// Owns: the shapes that are measured, by name.
#pragma once

#include <optional>
#include <string>

#include "model/config.h"

namespace ringside::tools {

// "nano", "nano8" (8 layers in groups of 4 at nano's widths), "mini" or "flash".
std::optional<Config> shape_by_name(const std::string& name);

}  // namespace ringside::tools
