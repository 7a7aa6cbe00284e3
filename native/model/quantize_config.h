// Owns: the config.json of a quantised checkpoint: the input's text with what said how the input was quantised taken
// out and what says how the output is put in. Private to model/. Must never: change any other byte, which may be a
// field that this version does not know.
#pragma once

#include <string>
#include <string_view>

#include "model/checkpoint.h"

namespace ringside {

// `text` is an object with members that was parsed before. kFileMalformed when the result would not be read back.
Result<std::string> with_quantization_config(std::string_view text, const QuantizeOptions& options,
                                             const std::string& path);

}  // namespace ringside
