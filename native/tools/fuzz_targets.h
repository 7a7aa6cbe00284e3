// Owns: one function for each parser that reads foreign bytes: it hands the bytes over, checks what must hold for
// whatever was accepted, and returns the parser's verdict. libFuzzer calls them with inputs of its own making
// (fuzz_entry.cc), the corpus test with the stored ones.
#pragma once

#include <string_view>

#include "error.h"

namespace ringside::tools {

// A property that must hold for every input; a broken one ends the process, which is what a fuzzer looks for.
inline void must_hold(bool condition) {
  if (!condition) __builtin_trap();
}

Status fuzz_safetensors(std::string_view bytes);  // a whole .safetensors file
Status fuzz_config(std::string_view bytes);       // the text of config.json, and of generation_config.json
Status fuzz_tokenizer(std::string_view bytes);    // the text of tokenizer.json
Status fuzz_encode(std::string_view bytes);       // any text through the shipped tokenizer
// A checkpoint folder of a fixed small shape: JSON members to add to its config.json, a zero byte, model.safetensors.
Status fuzz_checkpoint(std::string_view bytes);

}  // namespace ringside::tools
