// The tokenizer against Hugging Face's own results, against the slow definition of BPE, and against hostile text.
#include "model/tokenizer.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>
#include <thread>

#include "check.h"
#include "io/json.h"
#include "model/tokenizer_split.h"
#include "model/unicode.h"
#include "synthetic_tokenizer.h"

using namespace ringside;
using synthetic::Random;

namespace {

using Ids = std::vector<int32_t>;

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::unique_ptr<Tokenizer> parse_or_fail(const std::string& text) {
  Result<std::unique_ptr<Tokenizer>> parsed = Tokenizer::parse(text, "tokenizer.json");
  if (parsed.ok()) return std::move(parsed).value();
  check::fail(__FILE__, __LINE__, parsed.error().message());
  std::exit(1);  // every test here needs one
}

const Tokenizer& nano() {
  static const std::unique_ptr<Tokenizer> tokenizer =
      parse_or_fail(read_text(std::filesystem::path(RS_NANO_DIR) / "tokenizer.json"));
  return *tokenizer;
}

std::string join(const Ids& ids) {
  std::string text;
  for (int32_t id : ids) text += std::to_string(id) + " ";
  return text;
}

void expect_ids(const Ids& actual, const Ids& expected, std::string_view text) {
  if (actual == expected) return;
  check::fail(__FILE__, __LINE__, json::quote(text) + ": " + join(actual) + "is not " + join(expected));
}

Ids ids_of(json::Value list) {
  Ids ids;
  for (json::Value id : list) ids.push_back(static_cast<int32_t>(id.as_integer().value_or(-1)));
  return ids;
}

const std::vector<std::string> kSpellings = {"<|endoftext|>", "<|startoftext|>", "<|role_end|>",  "<role>", "</role>",
                                             "<think>",       "</think>",        "<file path=\"", "</file>"};

// Something of everything that could matter to the split, the merges or the decoder.
std::string random_text(Random& random, size_t pieces) {
  static const std::string source = synthetic::source_text(1 << 16, 1);
  std::string text;
  for (size_t i = 0; i < pieces; ++i) {
    switch (random.below(9)) {
      case 0:
        synthetic::append_code_point(text, static_cast<uint32_t>(random.below(0x110000)));  // surrogates too: invalid
        break;
      case 1:
        synthetic::append_code_point(text, static_cast<uint32_t>(random.below(0x800)));
        break;
      case 2:
        text += static_cast<char>(random.below(256));
        break;
      case 3:
        text.append(random.below(6), " \t\n\r"[random.below(4)]);
        break;
      case 4:
        text += random.pick(kSpellings);
        break;
      case 5:
        text += random.pick(kSpellings).substr(0, random.below(8));
        break;
      case 6:
        text += std::string("'") + "sSdtmlLvVrReE"[random.below(13)] + "lLeE"[random.below(4)];
        break;
      default:
        text += source.substr(random.below(source.size()), random.below(30));
    }
  }
  return text;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = word_end(text, begin);
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

// Processor time, so that other work on the machine does not count.
double seconds_since(std::clock_t start) {
  return static_cast<double>(std::clock() - start) / static_cast<double>(CLOCKS_PER_SEC);
}

std::string shown_bytes(std::string_view bytes) {
  std::string text;
  for (char byte : bytes) {
    char hex[8];
    std::snprintf(hex, sizeof hex, "%02X ", static_cast<uint8_t>(byte));
    text += hex;
  }
  return text;
}

std::string pushed_and_finished(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.push(bytes);
  text += stream.finish();
  CHECK(stream.finish().empty());
  return text;
}

}  // namespace

TEST("ids equal those of Hugging Face, with added tokens and without") {
  const std::string text = read_text(std::filesystem::path(RS_GOLDEN_DIR) / "tokenizer.json");
  json::Document golden;
  CHECK(golden.parse(text, "golden").ok());
  const json::Value cases = golden.root().find("cases");
  CHECK(cases.size() >= 100);
  for (json::Value one : cases) {
    const std::string_view input = one.find("text").as_string();
    expect_ids(nano().encode_with_added(input), ids_of(one.find("ids")), input);
    expect_ids(nano().encode(input), ids_of(one.find("plain")), input);
    CHECK(nano().decode(ids_of(one.find("ids"))) == input);
  }
}

TEST("the vocabulary is read as it stands in the file") {
  CHECK_EQ(nano().size(), 16384);
  for (size_t i = 0; i < kSpellings.size(); ++i) {
    CHECK_EQ(nano().added_id(kSpellings[i]), static_cast<int32_t>(i));
    CHECK_EQ(nano().bytes(static_cast<int32_t>(i)), kSpellings[i]);
  }
  CHECK_EQ(nano().added_id("<rol"), -1);
  CHECK_EQ(nano().added_id(""), -1);
  for (int32_t id : {-1, std::numeric_limits<int32_t>::min(), 16384, std::numeric_limits<int32_t>::max()}) {
    CHECK(nano().bytes(id).empty());
  }
  CHECK_EQ(nano().decode({229, -5, 9, 16384}), " !");
  CHECK(nano().encode("").empty());
}

TEST("words are cut as the split regex cuts them") {
  const std::vector<std::vector<std::string>> cases = {
      {"'s", "leep"},
      {"it", "'S", "x"},
      {"'\xC5\xBF", "x"},  // U+017F is s when case is ignored
      {"'ll", "'VE", "'Re", "'d"},
      {"'l", "'v"},
      {"'\xC5"},
      {"don", "'t"},
      {" return", " x", ";\n", "\tif", " (", "y"},
      {"1", "2", "\xC2\xBD", "a", "3"},
      {" ", "1"},
      {"   ", " foo"},
      {"\n\n", "  ", " foo"},
      {" \r\n \n", "  "},
      {"a",
       "\xE3\x80\x80"
       "b"},              // U+3000 may lead a word as any space may
      {"\xC2\x85", "1"},  // U+0085 is a space
      {"\xEF\xBB\xBF"
       "a"},  // U+FEFF is none: a symbol before letters
      {" \xEF\xBB\xBF!", "1"},
      {"!!!\n\r\n", " ?"},
      {"a", "...\n", "b"},
      {"  ", " \xF0\x9F\x98\x80\n"},
      {"\n", "x"},
      {"\xE4\xB8\xAD\xE6\x96\x87", "\xE3\x80\x82"},
      {"e", "\xCC\x81"},  // a combining mark is no letter
      {"\xFF"
       "abc",
       "\xE2\x82"},  // a byte that is no character is one symbol
      {"a", "\xE2\x82\xC3"},
  };
  for (const std::vector<std::string>& words : cases) {
    std::string text;
    for (const std::string& word : words) text += word;
    std::string shown;
    for (const std::string& word : words_of(text)) shown += "[" + word + "]";
    std::string wanted;
    for (const std::string& word : words) wanted += "[" + word + "]";
    CHECK_EQ(shown, wanted);
  }
}

TEST("the classes are those of Unicode 16") {
  size_t counts[4] = {};
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    ++counts[static_cast<size_t>(char_class(code_point))];
  }
  CHECK_EQ(counts[static_cast<size_t>(CharClass::kLetter)], 141028u);
  CHECK_EQ(counts[static_cast<size_t>(CharClass::kNumber)], 1911u);
  CHECK_EQ(counts[static_cast<size_t>(CharClass::kSpace)], 25u);
  CHECK(char_class(0x1C89) == CharClass::kLetter);  // new in 16.0
  CHECK(char_class(0x088F) == CharClass::kOther);   // new in 17.0
}

TEST("any bytes come back from their ids, and the words of a text do not depend on each other") {
  constexpr uint64_t kSeed = 20261124;
  std::printf("  seed %llu\n", static_cast<unsigned long long>(kSeed));
  Random random(kSeed);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random_text(random, random.below(12));
    const Ids ids = nano().encode(text);
    if (nano().decode(ids) != text) check::fail(__FILE__, __LINE__, json::quote(text));
    if (nano().decode(nano().encode_with_added(text)) != text) check::fail(__FILE__, __LINE__, json::quote(text));
    Ids joined;
    for (const std::string& word : words_of(text)) {
      for (int32_t id : nano().encode(word)) joined.push_back(id);
    }
    expect_ids(ids, joined, text);
  }
}

TEST("spellings of added tokens in plain text never become those tokens") {
  Random random(7);
  size_t spelled = 0;
  for (int i = 0; i < 100000; ++i) {
    std::string text;
    for (size_t part = 0, parts = 1 + random.below(6); part < parts; ++part) {
      text += random.pick(kSpellings);
      if (random.below(2) == 0) text += random_text(random, 1);
    }
    for (int32_t id : nano().encode(text)) CHECK(id >= static_cast<int32_t>(kSpellings.size()));
    for (int32_t id : nano().encode_with_added(text)) spelled += id < static_cast<int32_t>(kSpellings.size());
  }
  CHECK(spelled >= 100000);
}

namespace {

// The definition: of all neighbours take the pair with the lowest rank, of equal ones the leftmost, until none merges.
std::vector<std::string> merge_naively(const std::string& word, const synthetic::Merges& merges) {
  std::vector<std::string> symbols;
  for (char byte : word) symbols.emplace_back(1, byte);
  for (;;) {
    size_t best_rank = merges.size();
    size_t best_place = 0;
    for (size_t place = 0; place + 1 < symbols.size(); ++place) {
      const auto pair = std::pair(symbols[place], symbols[place + 1]);
      const size_t rank = static_cast<size_t>(std::find(merges.begin(), merges.end(), pair) - merges.begin());
      if (rank < best_rank) {
        best_rank = rank;
        best_place = place;
      }
    }
    if (best_rank == merges.size()) return symbols;
    symbols[best_place] += symbols[best_place + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best_place) + 1);
  }
}

// Merges over three letters, in an order in which a token may be used before the merge that makes it, and with tokens
// that several merges make.
synthetic::Merges random_merges(Random& random, size_t count) {
  std::vector<std::string> tokens = {"a", "b", "c"};
  std::set<std::pair<std::string, std::string>> pairs;
  while (pairs.size() < count) {
    const std::string left = random.pick(tokens);
    const std::string right = random.pick(tokens);
    if (left.size() + right.size() > 9) continue;
    if (pairs.insert({left, right}).second) tokens.push_back(left + right);
  }
  synthetic::Merges merges(pairs.begin(), pairs.end());
  for (size_t i = merges.size() - 1; i > 0; --i) std::swap(merges[i], merges[random.below(i + 1)]);
  return merges;
}

}  // namespace

TEST("merging equals the slow definition, for short words and for long ones") {
  Random random(11);
  for (int round = 0; round < 40; ++round) {
    const synthetic::Merges merges = random_merges(random, 2 + random.below(60));
    const auto tokenizer = parse_or_fail(synthetic::tokenizer_json(merges, {.merges_as_strings = round % 2 == 1}));
    for (int i = 0; i < 150; ++i) {
      std::string word;
      for (size_t letters = 1 + random.below(i % 10 == 0 ? 150 : 30); letters > 0; --letters)
        word += "abc"[random.below(3)];
      std::vector<std::string> actual;
      for (int32_t id : tokenizer->encode(word)) actual.emplace_back(tokenizer->bytes(id));
      CHECK(actual == merge_naively(word, merges));
    }
  }
}

TEST("of added tokens the leftmost and then the longest is taken") {
  const auto tokenizer = parse_or_fail(synthetic::tokenizer_json({}, {.added = {"<a", "<a>", "<a><b>", "b><"}}));
  expect_ids(tokenizer->encode_with_added("<a><b><a"), {258, 256}, "<a><b><a");
  expect_ids(tokenizer->encode_with_added("<ab><a>"), {256, 259, 97, 62}, "<ab><a>");
  expect_ids(tokenizer->encode("<a>"), {60, 97, 62}, "<a>");
}

TEST("one endless word, of whatever kind, takes no more than its share of time") {
  constexpr size_t kBytes = 1 << 20;
  const auto deep = parse_or_fail(synthetic::tokenizer_json([] {
    synthetic::Merges merges;
    for (size_t length = 1; length <= 256; length *= 2)
      merges.emplace_back(std::string(length, 'a'), std::string(length, 'a'));
    return merges;
  }()));
  for (const char* unit : {"a", " ", "\n", "!", "1", "\xE4\xB8\xAD", "\xFF", "' ", "aA", "\r \n", " \xC2\xA0"}) {
    std::string text;
    while (text.size() < kBytes) text += unit;
    const auto start = std::clock();
    const Ids ids = nano().encode(text);
    std::printf("  1 MiB of %s: %zu tokens, %.3f s\n", shown_bytes(unit).c_str(), ids.size(), seconds_since(start));
    CHECK(nano().decode(ids) == text);
    CHECK(deep->decode(deep->encode(text)) == text);
  }
}

TEST("threads that encode at once get the same ids") {
  const std::string text = synthetic::source_text(200000, 5);
  const Ids expected = nano().encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&result, &text] {
      for (int i = 0; i < 3; ++i) result = nano().encode(text);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) CHECK(result == expected);
}

TEST("the real vocabulary size works; its speed is printed") {
  constexpr size_t kMerges = 156635;  // 157184 ids less 256 bytes and the added tokens of the real vocabulary
  const std::string text = synthetic::tokenizer_json(synthetic::merges_of_size(kMerges), {.added = kSpellings});
  auto start = std::clock();
  const auto tokenizer = parse_or_fail(text);
  std::printf("  %d ids: tokenizer.json of %zu bytes read in %.3f s\n", tokenizer->size(), text.size(),
              seconds_since(start));
  CHECK_EQ(tokenizer->size(), static_cast<int32_t>(256 + kMerges + kSpellings.size()));
  std::string own_source;
  for (const auto& file : std::filesystem::directory_iterator(std::filesystem::path(__FILE__).parent_path())) {
    own_source += read_text(file.path());
  }
  for (const auto& [name, input] :
       {std::pair("made source", synthetic::source_text(4 << 20, 3)), {"own source", own_source}}) {
    start = std::clock();
    const Ids ids = tokenizer->encode(input);
    const double seconds = seconds_since(start);
    std::printf("  %s: %zu bytes, %.2f bytes a token, %.1f MB/s\n", name, input.size(),
                static_cast<double>(input.size()) / static_cast<double>(ids.size()),
                static_cast<double>(input.size()) / 1e6 / seconds);
    CHECK(tokenizer->decode(ids) == input);
  }
}

namespace {

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.status != Utf8Status::kValid) return false;
    at += step.bytes;
  }
  return true;
}

}  // namespace

TEST("a UTF-8 stream gives what a WHATWG decoder gives, however it is split") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\x41", "\x41"},
      {"\xC3\xA9", "\xC3\xA9"},
      {"\xC3", "\xEF\xBF\xBD"},
      {"\xC3\x41", "\xEF\xBF\xBD\x41"},
      {"\x80", "\xEF\xBF\xBD"},
      {"\xE2\x82\xAC", "\xE2\x82\xAC"},
      {"\xE2\x82", "\xEF\xBF\xBD"},
      {"\xE2\x82\x41", "\xEF\xBF\xBD\x41"},
      {"\xE2\x41", "\xEF\xBF\xBD\x41"},
      {"\xE0\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},
      {"\xF0\x9F\x98", "\xEF\xBF\xBD"},
      {"\xF0\x9F\x41", "\xEF\xBF\xBD\x41"},
      {"\xF0\x80\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xF5\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xFF\xFE", "\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xEF\xBB\xBF\x41", "\xEF\xBB\xBF\x41"},
      {"\xE2\x82\xE2\x82\xAC", "\xEF\xBF\xBD\xE2\x82\xAC"},
      {"\xF0\x9F\xF0\x9F\x98\x80", "\xEF\xBF\xBD\xF0\x9F\x98\x80"},
      {"\xC3\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9"},
      {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
      {"\xED\x9F\xBF", "\xED\x9F\xBF"},
      {"\xEE\x80\x80", "\xEE\x80\x80"},
      {"\xF1\x80\x80\x80", "\xF1\x80\x80\x80"},
  };
  for (const auto& [bytes, expected] : cases) {
    const std::string text = "x" + bytes + "\xC3\xA9";  // as text goes on, an unfinished part must not swallow it
    for (size_t first = 0; first <= text.size(); ++first) {
      for (size_t second = first; second <= text.size(); ++second) {
        Utf8Stream stream;
        std::string actual;
        for (const std::string_view part :
             {std::string_view(text).substr(0, first), std::string_view(text).substr(first, second - first),
              std::string_view(text).substr(second)}) {
          const std::string complete = stream.push(part);
          CHECK(is_valid_utf8(complete));
          actual += complete;
        }
        actual += stream.finish();
        CHECK_EQ(shown_bytes(actual), shown_bytes("x" + expected + "\xC3\xA9"));
      }
    }
    CHECK_EQ(shown_bytes(pushed_and_finished(bytes)), shown_bytes(expected));
  }
}

TEST("tokens of any text, streamed one by one, give the text") {
  Random random(13);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(random, random.below(10));
    const std::string expected = pushed_and_finished(text);
    Utf8Stream stream;
    std::string actual;
    for (int32_t id : nano().encode(text)) actual += stream.push(nano().bytes(id));
    actual += stream.finish();
    CHECK_EQ(shown_bytes(actual), shown_bytes(expected));
  }
}
