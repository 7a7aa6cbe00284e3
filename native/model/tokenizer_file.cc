// Owns: the checks on a tokenizer.json, field by field. Only what changes ids is looked at; padding, truncation, the
// decoder and the post-processor (a template, which the product writes itself) are settings of library calls and are
// left alone.
#include "tokenizer_file.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "../io/json.h"
#include "tokenizer.h"
#include "tokenizer_split.h"
#include "unicode.h"

namespace ringside {
namespace {

// The largest member of the family has 157,184 ids, a file of 7.7 MB and a longest token of 154 characters.
constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr int64_t kMaxIds = int64_t{1} << 20;
constexpr size_t kMaxAdded = 4096;
constexpr size_t kMaxTokenBytes = 1024;
// Ids without a token are padding in the middle of the vocabulary: a few happen, many mean that the file is damaged.
constexpr int64_t kMaxHoles = 1024;

// The byte of a character of GPT-2's alphabet, or nothing. Printable Latin-1 stands for itself; the other 68 bytes are,
// in order, the characters from U+0100.
std::optional<uint8_t> byte_of_character(uint32_t code_point) {
  static const std::array<int16_t, 0x144> bytes = [] {
    std::array<int16_t, 0x144> table;
    table.fill(-1);
    int16_t shifted = 0x100;
    for (int16_t byte = 0; byte < 256; ++byte) {
      const bool stands_for_itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      table[static_cast<size_t>(stands_for_itself ? byte : shifted++)] = byte;
    }
    return table;
  }();
  if (code_point >= bytes.size() || bytes[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(bytes[code_point]);
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  std::string bytes;
  for (size_t at = 0; at < spelling.size();) {
    const Utf8Step step = utf8_step(spelling, at);
    const auto byte = step.status == Utf8Status::kValid ? byte_of_character(step.code_point) : std::nullopt;
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    at += step.bytes;
  }
  return bytes;
}

// A string of the file for an error: short, and never cut inside a character.
std::string shown(std::string_view string) {
  constexpr size_t kShownBytes = 120;
  return json::quote(Utf8Stream().push(string.substr(0, kShownBytes)));
}

// A value of the file as it is written there, when that is short.
std::string describe(json::Value value) {
  if (value.kind() == json::Kind::kBool) return *value.as_bool() ? "true" : "false";
  if (value.kind() == json::Kind::kInteger) return std::to_string(*value.as_integer());
  if (value.is_string()) return shown(value.as_string());
  return json::kind_name(value.kind());
}

class FileReader {
 public:
  explicit FileReader(const std::string& path) : path_(path) {}

  Result<TokenizerFile> read(json::Value root) {
    RS_CHECK(check_settings(root));
    RS_CHECK(read_added(root.find("added_tokens")));
    RS_CHECK(read_vocabulary(root.find("model").find("vocab")));
    RS_CHECK(check_vocabulary());
    RS_CHECK(find_bytes());
    RS_CHECK(read_merges(root.find("model").find("merges")));
    RS_CHECK(check_merges());
    return std::move(file_);
  }

 private:
  struct Entry {
    std::string_view spelling;
    int32_t id;
  };

  Error invalid(const std::string& field, std::string expected, std::string actual) const {
    return {ErrorKind::kTokenizerInvalid, path_ + ": " + field, std::move(expected), std::move(actual)};
  }

  // A field that changes ids must hold the one value that the tokenizer implements; `wanted` is that value as JSON.
  Status must_be(json::Value parent, const std::string& parent_name, const char* name, const char* wanted) const {
    const std::string actual = describe(parent.find(name));
    if (actual == wanted) return Unit{};
    return invalid(parent_name.empty() ? name : parent_name + "." + name, wanted, actual);
  }

  // The same for what may also be absent or, where it is a string, empty.
  Status must_be_off(json::Value parent, const char* name) const {
    const json::Value value = parent.find(name);
    const bool is_off = value.is_null() || value.as_bool() == false || (value.is_string() && value.as_string().empty());
    if (is_off) return Unit{};
    return invalid(std::string("model.") + name, "null, false or an empty string", describe(value));
  }

  Status check_settings(json::Value root) const {
    RS_CHECK(must_be(root, "", "version", "\"1.0\""));
    if (!root.find("normalizer").is_null()) return invalid("normalizer", "null", describe(root.find("normalizer")));
    RS_CHECK(check_pre_tokenizer(root.find("pre_tokenizer")));
    const json::Value model = root.find("model");
    RS_CHECK(must_be(model, "model", "type", "\"BPE\""));
    for (const char* name :
         {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"}) {
      RS_CHECK(must_be_off(model, name));
    }
    return Unit{};
  }

  Status check_pre_tokenizer(json::Value pre) const {
    const std::string name = "pre_tokenizer";
    RS_CHECK(must_be(pre, name, "type", "\"Sequence\""));
    const json::Value steps = pre.find("pretokenizers");
    if (!steps.is_array() || steps.size() != 2) {
      return invalid(name + ".pretokenizers", "[Split, ByteLevel]",
                     steps.is_array() ? std::to_string(steps.size()) + " steps" : describe(steps));
    }
    auto step = steps.begin();
    const json::Value split = *step++;
    const json::Value byte_level = *step;
    const std::string split_name = name + ".pretokenizers[0]";
    RS_CHECK(must_be(split, split_name, "type", "\"Split\""));
    RS_CHECK(must_be(split, split_name, "behavior", "\"Isolated\""));
    RS_CHECK(must_be(split, split_name, "invert", "false"));
    const json::Value regex = split.find("pattern").find("Regex");
    if (regex.as_string() != kSplitRegex) {
      return invalid(split_name + ".pattern.Regex", json::quote(kSplitRegex), describe(regex));
    }
    const std::string byte_level_name = name + ".pretokenizers[1]";
    RS_CHECK(must_be(byte_level, byte_level_name, "type", "\"ByteLevel\""));
    RS_CHECK(must_be(byte_level, byte_level_name, "add_prefix_space", "false"));
    return must_be(byte_level, byte_level_name, "use_regex", "false");
  }

  Result<int32_t> id_of(json::Value value, const std::string& field) const {
    const std::optional<int64_t> id = value.as_integer();
    if (id && *id >= 0 && *id < kMaxIds) return static_cast<int32_t>(*id);
    return invalid(field, "an integer from 0 to " + std::to_string(kMaxIds - 1), describe(value));
  }

  // Gives an id its bytes. An id belongs to one token.
  Status place(int32_t id, std::string bytes, const std::string& field) {
    if (bytes.empty() || bytes.size() > kMaxTokenBytes) {
      return invalid(field, "1 to " + std::to_string(kMaxTokenBytes) + " bytes", std::to_string(bytes.size()));
    }
    const size_t index = static_cast<size_t>(id);
    if (index >= file_.tokens.size()) file_.tokens.resize(index + 1);
    if (!file_.tokens[index].empty()) return invalid(field, "an id of its own", std::to_string(id));
    file_.tokens[index] = std::move(bytes);
    return Unit{};
  }

  bool is_added(int32_t id) const {
    return static_cast<size_t>(id) < is_added_.size() && is_added_[static_cast<size_t>(id)];
  }

  Status read_added(json::Value added) {
    if (added.is_null()) return Unit{};
    if (!added.is_array() || added.size() > kMaxAdded) {
      return invalid("added_tokens", "a list of at most " + std::to_string(kMaxAdded) + " tokens",
                     added.is_array() ? std::to_string(added.size()) : describe(added));
    }
    for (json::Value token : added) {
      const std::string field = "added_tokens[" + std::to_string(file_.added.size()) + "]";
      RS_TRY(const int32_t id, id_of(token.find("id"), field + ".id"));
      const std::string content(token.find("content").as_string());
      RS_CHECK(place(id, content, field));
      for (const char* name : {"single_word", "lstrip", "rstrip"}) RS_CHECK(must_be(token, field, name, "false"));
      const std::optional<bool> is_normalized = token.find("normalized").as_bool();
      if (!is_normalized) return invalid(field + ".normalized", "a boolean", describe(token.find("normalized")));
      file_.added.push_back({id, content, *is_normalized});
    }
    is_added_.resize(file_.tokens.size());
    for (const AddedToken& token : file_.added) is_added_[static_cast<size_t>(token.id)] = true;
    return Unit{};
  }

  Status read_vocabulary(json::Value vocabulary) {
    const size_t count = vocabulary.size();
    if (!vocabulary.is_object() || count == 0 || count > static_cast<size_t>(kMaxIds)) {
      return invalid("model.vocab", "an object of 1 to " + std::to_string(kMaxIds) + " tokens",
                     vocabulary.is_object() ? std::to_string(count) : describe(vocabulary));
    }
    vocabulary_.reserve(count);
    for (auto member = vocabulary.begin(); member != vocabulary.end(); ++member) {
      const std::string_view spelling = member.key();
      const std::string field = "model.vocab[" + shown(spelling) + "]";
      RS_TRY(const int32_t id, id_of(*member, field));
      vocabulary_.push_back({spelling, id});
      // Added tokens may stand in the vocabulary too. They are written as they are, not in the alphabet of bytes.
      if (is_added(id)) {
        const std::string& content = file_.tokens[static_cast<size_t>(id)];
        if (spelling != content)
          return invalid(field, "id " + std::to_string(id) + " for " + shown(content), "another token");
        continue;
      }
      std::optional<std::string> bytes = bytes_of_spelling(spelling);
      if (!bytes) return invalid(field, "characters of the byte-level alphabet", "another character");
      RS_CHECK(place(id, *std::move(bytes), field));
    }
    std::sort(vocabulary_.begin(), vocabulary_.end(),
              [](const Entry& a, const Entry& b) { return a.spelling < b.spelling; });
    return Unit{};
  }

  // Id of a token by its spelling, or -1.
  int32_t find_spelling(std::string_view spelling) const {
    const auto at =
        std::lower_bound(vocabulary_.begin(), vocabulary_.end(), spelling,
                         [](const Entry& entry, std::string_view wanted) { return entry.spelling < wanted; });
    return at != vocabulary_.end() && at->spelling == spelling ? at->id : -1;
  }

  Status check_vocabulary() const {
    std::vector<std::string_view> contents;
    for (const AddedToken& token : file_.added) {
      contents.push_back(token.content);
      const int32_t id = find_spelling(token.content);
      if (id >= 0 && id != token.id) {
        return invalid("added_tokens", "id " + std::to_string(id) + " for " + shown(token.content),
                       std::to_string(token.id));
      }
    }
    std::sort(contents.begin(), contents.end());
    const auto twice = std::adjacent_find(contents.begin(), contents.end());
    if (twice != contents.end()) return invalid("added_tokens", "each content once", shown(*twice) + " twice");
    const auto holes =
        std::count_if(file_.tokens.begin(), file_.tokens.end(), [](const auto& token) { return token.empty(); });
    if (holes > kMaxHoles) {
      return invalid("model.vocab", "at most " + std::to_string(kMaxHoles) + " ids without a token",
                     std::to_string(holes));
    }
    return Unit{};
  }

  Status find_bytes() {
    file_.byte_ids.fill(-1);
    for (size_t id = 0; id < file_.tokens.size(); ++id) {
      const std::string& token = file_.tokens[id];
      if (token.size() == 1 && !is_added(static_cast<int32_t>(id))) {
        file_.byte_ids[static_cast<uint8_t>(token.front())] = static_cast<int32_t>(id);
      }
    }
    const auto missing = std::find(file_.byte_ids.begin(), file_.byte_ids.end(), -1);
    if (missing == file_.byte_ids.end()) return Unit{};
    return invalid("model.vocab", "a token, no added one, for each of the 256 bytes",
                   "none for byte " + std::to_string(missing - file_.byte_ids.begin()));
  }

  // A merge is written as ["a", "b"] or, by older versions of the library, as "a b".
  static std::optional<std::pair<std::string_view, std::string_view>> halves_of(json::Value merge) {
    if (merge.is_string()) {
      const std::string_view both = merge.as_string();
      const size_t space = both.find(' ');
      if (space == std::string_view::npos) return std::nullopt;
      return std::pair(both.substr(0, space), both.substr(space + 1));
    }
    if (!merge.is_array() || merge.size() != 2) return std::nullopt;
    auto half = merge.begin();
    const json::Value left = *half++;
    const json::Value right = *half;
    return std::pair(left.as_string(), right.as_string());
  }

  Status read_merges(json::Value merges) {
    if (!merges.is_array() || merges.size() > static_cast<size_t>(kMaxIds)) {
      return invalid("model.merges", "a list of at most " + std::to_string(kMaxIds) + " pairs",
                     merges.is_array() ? std::to_string(merges.size()) : describe(merges));
    }
    file_.merges.reserve(merges.size());
    std::string merged;
    for (json::Value merge : merges) {
      const auto halves = halves_of(merge);
      if (!halves) return invalid(merge_field(file_.merges.size()), "two tokens", describe(merge));
      merged.assign(halves->first).append(halves->second);
      const int32_t left = find_spelling(halves->first);
      const int32_t right = find_spelling(halves->second);
      const int32_t id = find_spelling(merged);
      for (const auto& [part, spelling] : {std::pair(left, halves->first), {right, halves->second}, {id, merged}}) {
        // A merge that led to an added token would let plain text spell it.
        if (part < 0 || is_added(part)) {
          return invalid(merge_field(file_.merges.size()), "tokens of the vocabulary, no added ones", shown(spelling));
        }
      }
      file_.merges.push_back({left, right, id});
    }
    return Unit{};
  }

  Status check_merges() const {
    std::vector<std::pair<int32_t, int32_t>> pairs;
    pairs.reserve(file_.merges.size());
    for (const Merge& merge : file_.merges) pairs.emplace_back(merge.left, merge.right);
    std::sort(pairs.begin(), pairs.end());
    const auto twice = std::adjacent_find(pairs.begin(), pairs.end());
    if (twice == pairs.end()) return Unit{};
    return invalid("model.merges", "each pair once",
                   "ids " + std::to_string(twice->first) + " and " + std::to_string(twice->second) + " twice");
  }

  static std::string merge_field(size_t rank) { return "model.merges[" + std::to_string(rank) + "]"; }

  const std::string& path_;
  TokenizerFile file_;
  std::vector<bool> is_added_;     // by id; shorter than the vocabulary
  std::vector<Entry> vocabulary_;  // by spelling
};

}  // namespace

Result<TokenizerFile> read_tokenizer_file(std::string_view text, const std::string& path) {
  if (text.size() > kMaxFileBytes) {
    return Error{ErrorKind::kTokenizerInvalid, path, "at most " + std::to_string(kMaxFileBytes) + " bytes",
                 std::to_string(text.size())};
  }
  json::Document document;
  RS_CHECK(document.parse(text, path));
  return FileReader(path).read(document.root());
}

}  // namespace ringside
