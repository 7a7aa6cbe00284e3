#include "io/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <new>

namespace ringside::json {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Length of the UTF-8 sequence at the start of `bytes`, 0 when it is none (overlong, surrogate, too large, cut off).
size_t utf8_length(std::string_view bytes) {
  const auto byte = [&](size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!tail(1) || !tail(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;
    if (lead == 0xED && byte(1) > 0x9F) return 0;
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;
    if (lead == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// Four hexadecimal digits and nothing else: strtoul would take signs and blanks.
std::optional<uint32_t> hex4(std::string_view digits) {
  if (digits.size() < 4) return std::nullopt;
  uint32_t value = 0;
  for (const char c : digits.substr(0, 4)) {
    uint32_t digit = 0;
    if (is_digit(c)) {
      digit = static_cast<uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint32_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint32_t>(c - 'A' + 10);
    } else {
      return std::nullopt;
    }
    value = value * 16 + digit;
  }
  return value;
}

// Spreads keys for sorting; equal hashes are told apart by the keys themselves, so a chosen collision costs little.
uint64_t spread(std::string_view key) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return hash;
}

}  // namespace

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::kMissing:
      return "nothing";
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "true or false";
    case Kind::kInteger:
      return "an integer";
    case Kind::kNumber:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "a list";
    case Kind::kObject:
      return "an object";
  }
  return "nothing";
}

Reader::Reader(std::string_view text) : text_(text) {
  // A Document keeps offsets in 32 bits.
  if (text.size() >= std::numeric_limits<uint32_t>::max()) fail("the text is longer than 4 GiB");
}

bool Reader::fail(const char* mistake) {
  if (mistake_ == nullptr) mistake_ = mistake;
  return false;
}

Error Reader::error(const std::string& path) const {
  return Error{ErrorKind::kFileMalformed, path, "valid JSON of the right form",
               std::string(mistake_ != nullptr ? mistake_ : "no mistake") + " at byte " + std::to_string(at_)};
}

void Reader::skip_blank() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
    ++at_;
  }
}

Kind Reader::peek() {
  if (failed()) return Kind::kMissing;
  skip_blank();
  if (at_ == text_.size()) return Kind::kMissing;
  switch (text_[at_]) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
    case 'f':
      return Kind::kBool;
    case 'n':
      return Kind::kNull;
    default:
      return text_[at_] == '-' || is_digit(text_[at_]) ? Kind::kNumber : Kind::kMissing;
  }
}

bool Reader::open(char bracket) {
  if (failed()) return false;
  skip_blank();
  if (at_ == text_.size() || text_[at_] != bracket) return fail(bracket == '{' ? "no object" : "no list");
  if (depth_ == kMaxDepth) return fail("values nested too deeply");
  ++at_;
  first_part_[depth_++] = true;
  return true;
}

bool Reader::begin_object() { return open('{'); }
bool Reader::begin_array() { return open('['); }

// Takes the comma before a part, or the bracket after the last one.
bool Reader::next_part(char close) {
  if (failed()) return false;
  if (depth_ == 0) return fail("no open list or object");
  skip_blank();
  if (at_ == text_.size()) return fail("the text ends too early");
  const bool first = first_part_[depth_ - 1];
  if (text_[at_] == close) {
    ++at_;
    --depth_;
    return false;
  }
  if (!first) {
    if (text_[at_] != ',') return fail("no comma or closing bracket");
    ++at_;
  }
  first_part_[depth_ - 1] = false;
  return true;
}

bool Reader::next_item() { return next_part(']'); }

bool Reader::next_member(std::string_view& key) {
  if (!next_part('}')) return false;
  skip_blank();
  if (at_ == text_.size() || text_[at_] != '"') return fail("no key");
  if (!scan_string(key)) return false;
  skip_blank();
  if (at_ == text_.size() || text_[at_] != ':') return fail("no colon after a key");
  ++at_;
  return true;
}

bool Reader::read_string(std::string_view& out) {
  if (failed()) return false;
  skip_blank();
  if (at_ == text_.size() || text_[at_] != '"') return fail("no string");
  return scan_string(out);
}

// Most strings hold no escape and are given as a view of the text.
bool Reader::scan_string(std::string_view& out) {
  const size_t start = ++at_;
  while (at_ < text_.size()) {
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    if (c == '"') {
      out = text_.substr(start, at_ - start);
      string_is_in_text_ = true;
      ++at_;
      return true;
    }
    if (c == '\\') {
      unescaped_.assign(text_, start, at_ - start);
      string_is_in_text_ = false;
      return unescape(out);
    }
    if (c < 0x20) return fail("a control character in a string");
    if (c < 0x80) {
      ++at_;
      continue;
    }
    const size_t length = utf8_length(text_.substr(at_));
    if (length == 0) return fail("invalid UTF-8");
    at_ += length;
  }
  return fail("a string without an end");
}

bool Reader::unescape(std::string_view& out) {
  while (at_ < text_.size()) {
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    if (c == '"') {
      ++at_;
      out = unescaped_;
      return true;
    }
    if (c < 0x20) return fail("a control character in a string");
    if (c != '\\') {
      const size_t length = utf8_length(text_.substr(at_));
      if (length == 0) return fail("invalid UTF-8");
      unescaped_.append(text_, at_, length);
      at_ += length;
      continue;
    }
    if (at_ + 1 >= text_.size()) break;
    const char escape = text_[at_ + 1];
    at_ += 2;
    if (escape == 'u') {
      std::optional<uint32_t> code = hex4(text_.substr(at_));
      if (!code) return fail("a \\u without four hexadecimal digits");
      at_ += 4;
      if (*code >= 0xD800 && *code <= 0xDBFF) {
        const bool paired = text_.substr(at_, 2) == "\\u";
        const std::optional<uint32_t> low = paired ? hex4(text_.substr(at_ + 2)) : std::nullopt;
        if (!low || *low < 0xDC00 || *low > 0xDFFF) return fail("half a surrogate pair");
        code = 0x10000 + ((*code - 0xD800) << 10) + (*low - 0xDC00);
        at_ += 6;
      } else if (*code >= 0xDC00 && *code <= 0xDFFF) {
        return fail("half a surrogate pair");
      }
      append_utf8(unescaped_, *code);
      continue;
    }
    constexpr std::string_view kEscapes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const size_t which = kEscapes.find(escape);
    if (which == std::string_view::npos) return fail("an unknown escape");
    unescaped_ += kMeanings[which];
  }
  return fail("a string without an end");
}

bool Reader::read_number(Number& out) {
  if (failed()) return false;
  skip_blank();
  size_t end = at_;
  const auto digits = [&] {
    const size_t from = end;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    return end > from;
  };
  if (end < text_.size() && text_[end] == '-') ++end;
  const size_t first_digit = end;
  if (!digits()) return fail("no number");
  if (text_[first_digit] == '0' && end > first_digit + 1) return fail("a number with a leading zero");
  bool whole = true;
  if (end < text_.size() && text_[end] == '.') {
    whole = false;
    ++end;
    if (!digits()) return fail("a number without digits after its point");
  }
  if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
    whole = false;
    ++end;
    if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
    if (!digits()) return fail("a number without digits in its exponent");
  }
  const char* from = text_.data() + at_;
  const char* to = text_.data() + end;
  out = Number{};
  if (whole && std::from_chars(from, to, out.integer).ec == std::errc()) {
    out.is_integer = true;
    out.real = static_cast<double>(out.integer);
  } else if (std::from_chars(from, to, out.real).ec != std::errc()) {
    return fail("a number that does not fit a double");
  }
  at_ = end;
  return true;
}

bool Reader::word(std::string_view expected) {
  if (failed()) return false;
  skip_blank();
  if (text_.substr(at_, expected.size()) != expected) return fail("no value");
  at_ += expected.size();
  return true;
}

bool Reader::read_bool(bool& out) {
  out = peek() == Kind::kBool && text_[at_] == 't';
  return word(out ? "true" : "false");
}

bool Reader::read_null() { return word("null"); }

// Recursion is bounded: begin_object and begin_array refuse to go deeper than kMaxDepth.
bool Reader::skip() {
  std::string_view string;
  Number number;
  bool boolean = false;
  switch (peek()) {
    case Kind::kObject:
      begin_object();
      while (next_member(string) && skip()) continue;
      return !failed();
    case Kind::kArray:
      begin_array();
      while (next_item() && skip()) continue;
      return !failed();
    case Kind::kString:
      return read_string(string);
    case Kind::kBool:
      return read_bool(boolean);
    case Kind::kNull:
      return read_null();
    case Kind::kInteger:
    case Kind::kNumber:
      return read_number(number);
    case Kind::kMissing:
      break;
  }
  return fail("no value");
}

bool Reader::finish() {
  if (failed()) return false;
  skip_blank();
  return at_ == text_.size() ? true : fail("more text after the value");
}

Status Document::parse(std::string_view text, const std::string& path) {
  text_ = text;
  nodes_.clear();
  unescaped_.clear();
  try {
    Reader reader(text);
    if (add_value(reader) && reader.finish()) return Unit{};
    nodes_.clear();
    return reader.error(path);
  } catch (const std::bad_alloc&) {
    nodes_ = {};
    return Error{ErrorKind::kOutOfMemory, path, "", ""};
  }
}

bool Document::add_string(Reader& reader, std::string_view string) {
  Node node{};
  node.kind = Kind::kString;
  node.in_text = reader.string_is_in_text();
  node.past = static_cast<uint32_t>(nodes_.size()) + 1;
  node.string.length = static_cast<uint32_t>(string.size());
  if (node.in_text) {
    node.string.offset = static_cast<uint32_t>(string.data() - text_.data());
  } else {
    node.string.offset = static_cast<uint32_t>(unescaped_.size());
    unescaped_ += string;
  }
  nodes_.push_back(node);
  return true;
}

bool Document::add_object(Reader& reader) {
  const uint32_t index = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back(Node{Kind::kObject, false, 0, {0}});
  reader.begin_object();
  uint32_t count = 0;
  std::string_view key;
  while (reader.next_member(key)) {
    add_string(reader, key);
    if (!add_value(reader)) return false;
    ++count;
  }
  if (reader.failed()) return false;
  nodes_[index].count = count;
  nodes_[index].past = static_cast<uint32_t>(nodes_.size());
  return keys_are_unique(index) ? true : reader.fail("an object with the same key twice");
}

bool Document::add_value(Reader& reader) {
  const uint32_t index = static_cast<uint32_t>(nodes_.size());
  Node node{};
  node.kind = reader.peek();
  node.past = index + 1;
  switch (node.kind) {
    case Kind::kObject:
      return add_object(reader);
    case Kind::kArray: {
      nodes_.push_back(node);
      reader.begin_array();
      uint32_t count = 0;
      while (reader.next_item()) {
        if (!add_value(reader)) return false;
        ++count;
      }
      nodes_[index].count = count;
      nodes_[index].past = static_cast<uint32_t>(nodes_.size());
      return !reader.failed();
    }
    case Kind::kString: {
      std::string_view string;
      return reader.read_string(string) && add_string(reader, string);
    }
    case Kind::kInteger:
    case Kind::kNumber: {
      Number number;
      if (!reader.read_number(number)) return false;
      node.kind = number.is_integer ? Kind::kInteger : Kind::kNumber;
      if (number.is_integer) {
        node.integer = number.integer;
      } else {
        node.real = number.real;
      }
      break;
    }
    case Kind::kBool: {
      bool boolean = false;
      if (!reader.read_bool(boolean)) return false;
      node.boolean = boolean;
      break;
    }
    case Kind::kNull:
      if (!reader.read_null()) return false;
      break;
    case Kind::kMissing:
      return reader.fail("no value");
  }
  nodes_.push_back(node);
  return true;
}

bool Document::keys_are_unique(uint32_t object) const {
  const uint32_t past = nodes_[object].past;
  std::vector<std::pair<uint64_t, uint32_t>> keys;
  keys.reserve(nodes_[object].count);
  for (uint32_t key = object + 1; key < past; key = nodes_[key + 1].past) {
    keys.emplace_back(spread(string_of(nodes_[key])), key);
  }
  const auto before = [this](const auto& a, const auto& b) {
    if (a.first != b.first) return a.first < b.first;
    return string_of(nodes_[a.second]) < string_of(nodes_[b.second]);
  };
  std::sort(keys.begin(), keys.end(), before);
  return std::adjacent_find(keys.begin(), keys.end(), [&](const auto& a, const auto& b) { return !before(a, b); }) ==
         keys.end();
}

std::string_view Document::string_of(const Node& node) const {
  return (node.in_text ? text_ : std::string_view(unescaped_)).substr(node.string.offset, node.string.length);
}

Kind Value::kind() const { return document_ == nullptr ? Kind::kMissing : document_->nodes_[node_].kind; }

std::optional<bool> Value::as_bool() const {
  if (kind() != Kind::kBool) return std::nullopt;
  return document_->nodes_[node_].boolean;
}

std::optional<int64_t> Value::as_integer() const {
  if (kind() != Kind::kInteger) return std::nullopt;
  return document_->nodes_[node_].integer;
}

std::optional<double> Value::as_number() const {
  if (kind() == Kind::kInteger) return static_cast<double>(document_->nodes_[node_].integer);
  if (kind() == Kind::kNumber) return document_->nodes_[node_].real;
  return std::nullopt;
}

std::string_view Value::as_string() const {
  return is_string() ? document_->string_of(document_->nodes_[node_]) : std::string_view();
}

Value Value::find(std::string_view key) const {
  if (!is_object()) return Value();
  for (auto member = begin(); member != end(); ++member) {
    if (member.key() == key) return *member;
  }
  return Value();
}

size_t Value::size() const { return is_array() || is_object() ? document_->nodes_[node_].count : 0; }

Value::Iterator Value::begin() const {
  return is_array() || is_object() ? Iterator(document_, node_ + 1, is_object()) : Iterator();
}

Value::Iterator Value::end() const {
  return is_array() || is_object() ? Iterator(document_, document_->nodes_[node_].past, is_object()) : Iterator();
}

std::string_view Value::Iterator::key() const {
  return keyed_ ? document_->string_of(document_->nodes_[node_]) : std::string_view();
}

Value::Iterator& Value::Iterator::operator++() {
  node_ = document_->nodes_[keyed_ ? node_ + 1 : node_].past;
  return *this;
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace ringside::json
