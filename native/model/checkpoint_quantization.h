// Owns: the quantization_config of a config.json: which layouts this version reads and which modules it names. Refuses
// everything else by the field's name. Private to model/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../error.h"
#include "model/checkpoint_pattern.h"

namespace ringside {

// A list of plain names and "re:" patterns.
class ModuleList {
 public:
  bool add(std::string_view entry);  // false for a pattern that is not supported
  void seal();                       // call once, after the last add
  bool contains(std::string_view module) const;

 private:
  std::vector<std::string> names_;  // sorted by seal
  std::vector<NamePattern> patterns_;
};

// compressed-tensors, "pack-quantized", 8-bit symmetric integers.
struct Quantization {
  int64_t group_columns = 0;  // 0: one scale a row (strategy "channel")
  ModuleList targets;
  ModuleList ignore;
};

// Nothing when the file has no quantization_config.
Result<std::optional<Quantization>> parse_quantization(const std::string& config_text, const std::string& path);

}  // namespace ringside
