// Owns: cutting a stream of bytes where characters end. Equal to a WHATWG TextDecoder in stream mode that keeps the
// byte order mark: each longest part that could have begun a character becomes one U+FFFD.
#include "tokenizer.h"
#include "unicode.h"

namespace ringside {
namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string text;
  text.reserve(held_.size());
  size_t at = 0;
  while (at < held_.size()) {
    const Utf8Step step = utf8_step(held_, at);
    if (step.status == Utf8Status::kIncomplete) break;
    if (step.status == Utf8Status::kValid) {
      text.append(held_, at, step.bytes);
    } else {
      text += kReplacement;
    }
    at += step.bytes;
  }
  held_.erase(0, at);
  return text;
}

std::string Utf8Stream::finish() {
  // What is held could still have become a character, so it is one such part.
  const bool is_empty = held_.empty();
  held_.clear();
  return is_empty ? std::string() : std::string(kReplacement);
}

}  // namespace ringside
