// Owns: turning the text of a tokenizer.json into checked tables, or into an error that names the field.
// Must never: accept a setting that the tokenizer does not implement, because ids would then differ in silence.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../error.h"
#include "tokenizer_bpe.h"

namespace ringside {

struct AddedToken {
  int32_t id;
  std::string content;
  bool is_normalized;  // Hugging Face looks for these only in what the others left over
};

struct TokenizerFile {
  std::vector<std::string> tokens;  // raw bytes by id; empty where no token has the id
  std::array<int32_t, 256> byte_ids;
  std::vector<Merge> merges;  // by rank
  std::vector<AddedToken> added;
};

Result<TokenizerFile> read_tokenizer_file(std::string_view text, const std::string& path);

}  // namespace ringside
