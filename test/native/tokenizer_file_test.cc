// Every way in which a tokenizer.json can be wrong is refused with the field's name. The shapes of past attacks on
// other engines' tokenizers are among them: indices below zero, counts and lengths beyond their type, wrong types,
// missing bytes.
#include <cstdlib>

#include "check.h"
#include "model/tokenizer.h"
#include "synthetic_tokenizer.h"

using namespace ringside;
using synthetic::Random;

namespace {

// Ids: 0-255 bytes, 256 "ab", 257 "abc", 258 "<x>", 259 "<y>".
std::string valid() { return synthetic::tokenizer_json({{"a", "b"}, {"ab", "c"}}, {.added = {"<x>", "<y>"}}); }

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) {
    check::fail(__FILE__, __LINE__, from + " is not in the valid file");
    return text;
  }
  return text.replace(at, from.size(), to);
}

struct Case {
  std::string from;
  std::string to;
  std::string field;  // must stand in the error's subject
};

void expect_refusal(const std::string& text, const std::string& field, const std::string& change,
                    ErrorKind kind = ErrorKind::kTokenizerInvalid) {
  const auto parsed = Tokenizer::parse(text, "some/tokenizer.json");
  if (parsed.ok()) {
    check::fail(__FILE__, __LINE__, "accepted: " + change);
    return;
  }
  const Error& error = parsed.error();
  if (error.kind != kind || error.subject.find(field) == std::string::npos ||
      error.subject.find("some/tokenizer.json") == std::string::npos || error.message().size() > 1000) {
    check::fail(__FILE__, __LINE__, change + ": " + error.message());
  }
}

void expect_refusals(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    expect_refusal(replaced(valid(), one.from, one.to), one.field, one.from + " as " + one.to.substr(0, 80));
  }
}

}  // namespace

TEST("the valid file is accepted, in both spellings of merges") {
  for (bool merges_as_strings : {false, true}) {
    const auto parsed =
        Tokenizer::parse(synthetic::tokenizer_json({{"a", "b"}, {"ab", "c"}},
                                                   {.added = {"<x>", "<y>"}, .merges_as_strings = merges_as_strings}),
                         "tokenizer.json");
    CHECK(parsed.ok());
    if (parsed.ok()) CHECK(parsed.value()->encode("abcab") == (std::vector<int32_t>{257, 256}));
  }
}

TEST("what does not change ids may be there") {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"truncation\":null", "\"truncation\":{\"max_length\":512}"},
           {"\"decoder\":null", "\"decoder\":{\"type\":\"ByteLevel\"}"},
           {"\"post_processor\":null", "\"post_processor\":{\"type\":\"ByteLevel\",\"trim_offsets\":false}"},
           {"\"unk_token\":null", "\"unk_token\":\"<x>\""},
           {"\"dropout\":null,", ""},
           {"\"continuing_subword_prefix\":null", "\"continuing_subword_prefix\":\"\""},
           {"\"ignore_merges\":false,", ""},
           {"\"normalized\":false", "\"normalized\":true"},
           {"\"id\":259", "\"id\":700"},  // ids in between are padding
       }) {
    const auto parsed = Tokenizer::parse(replaced(valid(), from, to), "tokenizer.json");
    if (!parsed.ok()) check::fail(__FILE__, __LINE__, to + ": " + parsed.error().message());
  }
}

TEST("a setting that would change ids is refused") {
  expect_refusals({
      {"\"version\":\"1.0\"", "\"version\":\"2.0\"", "version"},
      {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", "normalizer"},
      {"\"type\":\"Sequence\"", "\"type\":\"Whitespace\"", "pre_tokenizer.type"},
      {"\"pretokenizers\":[", "\"pretokenizers\":[{\"type\":\"Digits\"},", "pre_tokenizer.pretokenizers"},
      {"\"pretokenizers\":[", "\"pretokenizers\":7,\"other\":[", "pre_tokenizer.pretokenizers"},
      {"\"type\":\"Split\"", "\"type\":\"Punctuation\"", "pretokenizers[0].type"},
      {"|ll|ve|re)", "|ll|ve)", "pretokenizers[0].pattern.Regex"},
      {"{\"Regex\":", "{\"String\":", "pretokenizers[0].pattern.Regex"},
      {"\"Isolated\"", "\"Removed\"", "pretokenizers[0].behavior"},
      {"\"invert\":false", "\"invert\":true", "pretokenizers[0].invert"},
      {"\"ByteLevel\"", "\"Metaspace\"", "pretokenizers[1].type"},
      {"\"add_prefix_space\":false", "\"add_prefix_space\":true", "pretokenizers[1].add_prefix_space"},
      {"\"use_regex\":false", "\"use_regex\":true", "pretokenizers[1].use_regex"},
      {",\"trim_offsets\":true,\"use_regex\":false", "", "pretokenizers[1].use_regex"},
      {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "model.type"},
      {"\"dropout\":null", "\"dropout\":0.1", "model.dropout"},
      {"\"continuing_subword_prefix\":null", "\"continuing_subword_prefix\":\"##\"", "model.continuing_subword_prefix"},
      {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "model.end_of_word_suffix"},
      {"\"byte_fallback\":false", "\"byte_fallback\":true", "model.byte_fallback"},
      {"\"ignore_merges\":false", "\"ignore_merges\":true", "model.ignore_merges"},
      {"\"ignore_merges\":false", "\"ignore_merges\":[]", "model.ignore_merges"},
  });
}

TEST("an id that is none is refused, whatever its shape") {
  for (const char* id : {"-1", "1048576", "4294967296", "9223372036854775807", "18446744073709551616", "1.0", "1e2",
                         "\"7\"", "null", "true", "[]", "{}", "-9223372036854775808"}) {
    expect_refusal(replaced(valid(), "\"abc\":257", std::string("\"abc\":") + id), "model.vocab[\"abc\"]", id);
    expect_refusal(replaced(valid(), "\"id\":258", std::string("\"id\":") + id), "added_tokens[0].id", id);
  }
}

TEST("a vocabulary or list that contradicts itself is refused") {
  expect_refusals({
      {"\"abc\":257", "\"abc\":256", "model.vocab[\"abc\"]"},
      {"\"abc\":257", "\"abc\":258", "model.vocab[\"abc\"]"},  // an added token's id
      {"\"abc\":257", "\"a c\":257", "model.vocab[\"a c\"]"},  // a plain space is not in the alphabet
      {"\"abc\":257", "\"\xE4\xB8\xAD\":257", "model.vocab"},
      {"\"abc\":257", "\"\":257", "model.vocab[\"\"]"},
      {"\"abc\":257", "\"" + std::string(1025, 'a') + "\":257", "model.vocab"},
      {"\"abc\":257", "\"abc\":257,\"<x>\":260", "added_tokens"},
      {"\"a\":97,", "", "model.vocab"},  // a byte without a token
      {"\"a\":97,", "\"aaa\":97,", "model.vocab"},
      {"\"id\":259", "\"id\":258", "added_tokens[1]"},
      {"\"content\":\"<y>\"", "\"content\":\"<x>\"", "added_tokens"},
      {"\"content\":\"<y>\"", "\"content\":\"\"", "added_tokens[1]"},
      {"\"content\":\"<y>\"", "\"content\":7", "added_tokens[1]"},
      {"\"content\":\"<y>\"", "\"content\":\"" + std::string(1025, 'y') + "\"", "added_tokens[1]"},
      {"\"single_word\":false", "\"single_word\":true", "added_tokens[0].single_word"},
      {"\"lstrip\":false", "\"lstrip\":true", "added_tokens[0].lstrip"},
      {"\"rstrip\":false", "\"rstrip\":null", "added_tokens[0].rstrip"},
      {"\"normalized\":false", "\"normalized\":0", "added_tokens[0].normalized"},
      {"\"added_tokens\":[", "\"added_tokens\":7,\"other\":[", "added_tokens"},
      {"\"id\":259", "\"id\":2000", "model.vocab"},  // more padding than a tokenizer has
  });
}

TEST("a merge of tokens that are not there is refused") {
  expect_refusals({
      {"[\"ab\",\"c\"]", "[\"ab\",\"q\"]", "model.merges[1]"},  // "abq" is no token
      {"[\"ab\",\"c\"]", "[\"ax\",\"c\"]", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "[\"ab\"]", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "[\"ab\",\"c\",\"d\"]", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "[97,98]", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "\"abc\"", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "\"ab  c\"", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "\"\"", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "null", "model.merges[1]"},
      {"[\"ab\",\"c\"]", "[\"a\",\"b\"]", "model.merges"},  // twice
      {"\"merges\":[", "\"merges\":{},\"other\":[", "model.merges"},
      {"\"merges\":[", "\"other\":[", "model.merges"},
      {"\"vocab\":{", "\"vocab\":[],\"other\":{", "model.vocab"},
      {"\"vocab\":{", "\"vocab\":{},\"other\":{", "model.vocab"},
      {"\"model\":{", "\"model\":7,\"other\":{", "model.type"},
  });
}

TEST("a merge that would let plain text spell an added token is refused") {
  const std::string text = replaced(valid(), "\"abc\":257", "\"abc\":257,\"<x>\":258,\"<x\":260");
  CHECK(Tokenizer::parse(text, "tokenizer.json").ok());
  expect_refusal(replaced(text, "[\"ab\",\"c\"]", "[\"<x\",\">\"]"), "model.merges[1]", "a merge into <x>");
  expect_refusal(replaced(text, "[\"ab\",\"c\"]", "[\"<x>\",\"c\"]"), "model.merges[1]", "a merge of <x>");
  // As a token of one byte an added token would take the byte's place.
  expect_refusal(replaced(valid(), "\"id\":258,\"content\":\"<x>\"", "\"id\":97,\"content\":\"a\""), "model.vocab",
                 "an added byte");
}

TEST("a file that is cut off, garbled or no JSON is refused") {
  const std::string text = valid();
  for (size_t length = 0; length < text.size(); ++length) {
    if (Tokenizer::parse(std::string_view(text).substr(0, length), "t").ok()) {
      check::fail(__FILE__, __LINE__, "accepted the first " + std::to_string(length) + " bytes");
    }
  }
  for (const char* other : {"", "null", "[]", "7", "\"x\"", "{}", "{\"version\":\"1.0\"}", "\xFF\xFE{}"}) {
    CHECK(!Tokenizer::parse(other, "t").ok());
  }
  expect_refusal(text + " ]", "", "text after the end", ErrorKind::kFileMalformed);
  expect_refusal(replaced(text, "\"abc\":257", "\"ab\":257"), "", "a key twice", ErrorKind::kFileMalformed);
  expect_refusal(std::string((size_t{64} << 20) + 1, ' '), "", "a file of more than 64 MiB");
}

TEST("damage at random is refused or harmless") {
  constexpr uint64_t kSeed = 99;
  std::printf("  seed %llu\n", static_cast<unsigned long long>(kSeed));
  Random random(kSeed);
  const std::string text = valid();
  size_t refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = text;
    for (size_t changes = 1 + random.below(3); changes > 0; --changes) {
      const size_t at = random.below(damaged.size());
      switch (random.below(3)) {
        case 0:
          damaged[at] = static_cast<char>(random.below(256));
          break;
        case 1:
          damaged.erase(at, 1 + random.below(8));
          break;
        default:
          damaged.insert(at, damaged.substr(random.below(damaged.size()), random.below(12)));
      }
      if (damaged.empty()) damaged.push_back('{');
    }
    const auto parsed = Tokenizer::parse(damaged, "t");
    refused += !parsed.ok();
    if (!parsed.ok()) continue;
    const std::string sample = "abcabc <x> \xFF\n";
    CHECK(parsed.value()->decode(parsed.value()->encode(sample)) == sample);
    CHECK(parsed.value()->decode(parsed.value()->encode_with_added(sample)) == sample);
  }
  CHECK(refused > 2000);
}
