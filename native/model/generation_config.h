// Owns: the one thing taken from generation_config.json, its stop tokens. Private to model/.
#pragma once

#include <string>

#include "../error.h"
#include "config.h"

namespace ringside {

// Adds eos_token_id (a number or a list) of the text of generation_config.json to config.stop_tokens, which stays
// sorted and without repeats. `path` only names the file in errors.
Status add_generation_config(const std::string& text, const std::string& path, Config& config);

}  // namespace ringside
