// Owns: exact byte-level BPE from a Hugging Face tokenizer.json (specification section 8).
// Must never: recognise an added token inside text; added tokens are put in by id (house invariant 5).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../error.h"

namespace ringside {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // `text` is the whole content of tokenizer.json; `path` only names it in errors.
  static Result<std::unique_ptr<Tokenizer>> parse(std::string_view text, const std::string& path);

  // Number of real ids (added tokens included): ids at or above are padding and must not be sampled.
  virtual int32_t size() const = 0;
  // Plain characters to ids, added tokens off. Invalid UTF-8 is encoded byte by byte, never refused.
  virtual std::vector<int32_t> encode(std::string_view utf8) const = 0;
  // The same with added tokens recognised, as Hugging Face encode does. For tools and goldens only.
  virtual std::vector<int32_t> encode_with_added(std::string_view utf8) const = 0;
  // Id of an added token by its exact content, or -1.
  virtual int32_t added_id(std::string_view content) const = 0;
  // Raw bytes of one id (added tokens give their content; padding ids nothing).
  virtual std::string_view bytes(int32_t id) const = 0;
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;
};

// Turns a stream of token bytes into text that never ends inside a UTF-8 sequence; bytes that cannot become
// valid UTF-8 come out as U+FFFD.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // the part that is complete now
  std::string finish();                      // what is left, replaced
 private:
  std::string held_;
};

}  // namespace ringside
