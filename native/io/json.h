// Owns: strict JSON (RFC 8259) with bounded depth, without exceptions. A Reader pulls one value after another and keeps
// nothing; a Document keeps a whole text in 16 bytes a value. Refused: duplicate keys (Document), control characters,
// invalid UTF-8, lone surrogates, numbers beyond a double, anything after the value.
// Must never: size anything by what the text claims; memory follows the length of the text alone.
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../error.h"

namespace ringside::json {

constexpr int kMaxDepth = 32;

enum class Kind : uint8_t { kMissing, kNull, kBool, kInteger, kNumber, kString, kArray, kObject };
const char* kind_name(Kind kind);  // "an object", …

// An integer keeps all its bits when it fits 64 of them; anything else is a double only.
struct Number {
  bool is_integer = false;
  int64_t integer = 0;
  double real = 0.0;
};

// Walks over a text in order. The first mistake is kept: from then on every call returns false or nothing, so a caller
// checks error() once, after its loops.
class Reader {
 public:
  explicit Reader(std::string_view text);

  Kind peek();  // of the value that comes next; a number of any sort is kNumber; kMissing when there is none
  bool begin_object();
  bool next_member(std::string_view& key);  // false after the last one. `key` is valid until the next call
  bool begin_array();
  bool next_item();                         // false after the last one
  bool read_string(std::string_view& out);  // valid until the next call
  bool read_number(Number& out);
  bool read_bool(bool& out);
  bool read_null();
  bool skip();    // any value, checked like one that is read
  bool finish();  // true when nothing but blank space is left

  bool failed() const { return mistake_ != nullptr; }
  // kFileMalformed with the place; call when failed().
  Error error(const std::string& path) const;
  // For callers that find a mistake of meaning: stops here with these words, which must be a literal.
  bool fail(const char* mistake);
  // True when the string or key read last stands in the text itself, not in this reader's buffer.
  bool string_is_in_text() const { return string_is_in_text_; }

 private:
  void skip_blank();
  bool open(char bracket);
  bool next_part(char close);
  bool scan_string(std::string_view& out);
  bool unescape(std::string_view& out);
  bool word(std::string_view expected);

  std::string_view text_;
  size_t at_ = 0;
  const char* mistake_ = nullptr;
  bool first_part_[kMaxDepth] = {};
  int depth_ = 0;
  std::string unescaped_;
  bool string_is_in_text_ = true;
};

class Document;

// A value of a Document, as cheap as a pointer. A value that is not there has kind kMissing and answers like null.
class Value {
 public:
  Value() = default;
  Kind kind() const;
  bool is_missing() const { return kind() == Kind::kMissing; }
  bool is_null() const { return kind() == Kind::kNull || is_missing(); }
  bool is_object() const { return kind() == Kind::kObject; }
  bool is_array() const { return kind() == Kind::kArray; }
  bool is_string() const { return kind() == Kind::kString; }

  std::optional<bool> as_bool() const;
  std::optional<int64_t> as_integer() const;  // never a number written with a fraction or an exponent
  std::optional<double> as_number() const;    // integers too
  std::string_view as_string() const;         // empty when it is none
  Value find(std::string_view key) const;     // linear in the members; missing when there is none

  size_t size() const;  // items of an array, members of an object; 0 for all else

  // Items of an array, or the values of an object's members; key() is empty for an array.
  class Iterator {
   public:
    using difference_type = std::ptrdiff_t;
    using value_type = Value;
    Iterator() = default;
    Value operator*() const { return Value(document_, keyed_ ? node_ + 1 : node_); }
    std::string_view key() const;
    Iterator& operator++();
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    bool operator==(const Iterator& other) const { return node_ == other.node_; }

   private:
    friend class Value;
    Iterator(const Document* document, uint32_t node, bool keyed) : document_(document), node_(node), keyed_(keyed) {}
    const Document* document_ = nullptr;
    uint32_t node_ = 0;
    bool keyed_ = false;
  };
  Iterator begin() const;
  Iterator end() const;

 private:
  friend class Document;
  friend class Iterator;
  Value(const Document* document, uint32_t node) : document_(document), node_(node) {}
  const Document* document_ = nullptr;
  uint32_t node_ = 0;
};

// A parsed text. Strings without escapes are views of `text`, which must outlive the document; values point into the
// document, which must therefore not move.
class Document {
 public:
  // `path` names the text in errors.
  Status parse(std::string_view text, const std::string& path);
  Value root() const { return nodes_.empty() ? Value() : Value(this, 0); }

 private:
  friend class Value;
  friend class Value::Iterator;
  // A container is followed by its parts; a member is its key's node and then its value's.
  struct Text {
    uint32_t offset, length;
  };
  struct Node {
    Kind kind;
    bool in_text;   // kString: a view of the text, else of unescaped_
    uint32_t past;  // index of the node after this value and all its parts
    union {
      int64_t integer;
      double real;
      bool boolean;
      uint32_t count;
      Text string;
    };
  };
  static_assert(sizeof(Node) == 16);

  bool add_value(Reader& reader);
  bool add_string(Reader& reader, std::string_view string);
  bool add_object(Reader& reader);
  bool keys_are_unique(uint32_t object) const;
  std::string_view string_of(const Node& node) const;

  std::string_view text_;
  std::vector<Node> nodes_;
  std::string unescaped_;
};

// `text` as a JSON string with its quotes.
std::string quote(std::string_view text);

}  // namespace ringside::json
