// Owns: encoding and decoding with the tables of a tokenizer.json; the cache of words that repeat.
// Must never: let what is cached, or which thread asks, change an id.
#include "tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <span>
#include <utility>

#include "tokenizer_bpe.h"
#include "tokenizer_file.h"
#include "tokenizer_split.h"

namespace ringside {
namespace {

// One slot a hash value: a word that repeats is found again, and no text can make the cache grow.
class WordCache {
 public:
  WordCache() : slots_(kSlots) {}

  // The ids of `word`, appended to `ids`; false when the word is not held.
  bool append(std::string_view word, std::vector<int32_t>& ids) const {
    const Slot& slot = slots_[slot_of(word)];
    if (slot.word_bytes != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) return false;
    ids.insert(ids.end(), slot.ids, slot.ids + slot.id_count);
    return true;
  }

  void keep(std::string_view word, std::span<const int32_t> ids) {
    if (!holds(word) || ids.size() > kMaxIds) return;
    Slot& slot = slots_[slot_of(word)];
    slot.word_bytes = static_cast<uint8_t>(word.size());
    slot.id_count = static_cast<uint8_t>(ids.size());
    std::copy(word.begin(), word.end(), slot.word);
    std::copy(ids.begin(), ids.end(), slot.ids);
  }

  static bool holds(std::string_view word) { return word.size() <= kMaxWordBytes; }

 private:
  static constexpr size_t kSlotBits = 14;
  static constexpr size_t kSlots = size_t{1} << kSlotBits;
  static constexpr size_t kMaxWordBytes = 30;
  static constexpr size_t kMaxIds = 8;
  struct Slot {  // 64 bytes, a cache line
    uint8_t word_bytes = 0;
    uint8_t id_count = 0;
    char word[kMaxWordBytes] = {};
    int32_t ids[kMaxIds] = {};
  };

  static size_t slot_of(std::string_view word) {
    uint64_t hash = word.size();
    while (word.size() >= 8) {
      uint64_t eight;
      std::memcpy(&eight, word.data(), 8);
      hash = (hash ^ eight) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 32;
      word.remove_prefix(8);
    }
    uint64_t rest = 0;
    std::memcpy(&rest, word.data(), word.size());
    return (hash ^ rest) * 0x9E3779B97F4A7C15u >> (64 - kSlotBits);
  }

  std::vector<Slot> slots_;
};

// Finds added tokens in text: the leftmost, of those the longest.
class AddedTokens {
 public:
  void add(const AddedToken& token) { by_first_[static_cast<uint8_t>(token.content.front())].push_back(token); }

  void finish() {
    for (auto& tokens : by_first_) {
      std::sort(tokens.begin(), tokens.end(),
                [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
    }
  }

  // Calls plain(part) and token(id) in the order of the text.
  template <class Plain, class Token>
  void split(std::string_view text, Plain plain, Token token) const {
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      const AddedToken* found = longest_at(text.substr(at));
      if (found == nullptr) {
        ++at;
        continue;
      }
      if (at > begin) plain(text.substr(begin, at - begin));
      token(found->id);
      at += found->content.size();
      begin = at;
    }
    if (begin < text.size()) plain(text.substr(begin));
  }

 private:
  const AddedToken* longest_at(std::string_view text) const {
    for (const AddedToken& token : by_first_[static_cast<uint8_t>(text.front())]) {
      if (text.starts_with(token.content)) return &token;
    }
    return nullptr;
  }

  std::array<std::vector<AddedToken>, 256> by_first_;  // longest first
};

class BytePairTokenizer final : public Tokenizer {
 public:
  explicit BytePairTokenizer(TokenizerFile file)
      : tokens_(std::move(file.tokens)),
        byte_ids_(file.byte_ids),
        merges_(file.merges, static_cast<int32_t>(tokens_.size())),
        added_(std::move(file.added)) {
    for (const AddedToken& token : added_) (token.is_normalized ? normalized_ : verbatim_).add(token);
    normalized_.finish();
    verbatim_.finish();
  }

  int32_t size() const override { return static_cast<int32_t>(tokens_.size()); }

  std::vector<int32_t> encode(std::string_view utf8) const override {
    std::vector<int32_t> ids;
    ids.reserve(utf8.size() / 3 + 1);
    append_plain(utf8, ids);
    return ids;
  }

  std::vector<int32_t> encode_with_added(std::string_view utf8) const override {
    std::vector<int32_t> ids;
    auto token = [&](int32_t id) { ids.push_back(id); };
    auto plain = [&](std::string_view part) { append_plain(part, ids); };
    verbatim_.split(
        utf8, [&](std::string_view part) { normalized_.split(part, plain, token); }, token);
    return ids;
  }

  int32_t added_id(std::string_view content) const override {
    for (const AddedToken& token : added_) {
      if (token.content == content) return token.id;
    }
    return -1;
  }

  std::string_view bytes(int32_t id) const override {
    if (id < 0 || id >= size()) return {};
    return tokens_[static_cast<size_t>(id)];
  }

  std::string decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    for (int32_t id : ids) text += bytes(id);
    return text;
  }

 private:
  void append_plain(std::string_view text, std::vector<int32_t>& ids) const {
    // The cache serves one caller at a time; another one at the same moment does without instead of waiting.
    std::unique_lock<std::mutex> lock(cache_mutex_, std::try_to_lock);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = word_end(text, begin);
      append_word(text.substr(begin, end - begin), lock.owns_lock(), ids);
      begin = end;
    }
  }

  void append_word(std::string_view word, bool use_cache, std::vector<int32_t>& ids) const {
    if (word.size() == 1) {
      ids.push_back(byte_ids_[static_cast<uint8_t>(word.front())]);
      return;
    }
    const bool cached = use_cache && WordCache::holds(word);
    if (cached && cache_.append(word, ids)) return;
    const size_t first = ids.size();
    merge_word(word, byte_ids_, merges_, ids);
    if (cached) cache_.keep(word, std::span<const int32_t>(ids).subspan(first));
  }

  std::vector<std::string> tokens_;
  std::array<int32_t, 256> byte_ids_;
  MergeTable merges_;
  std::vector<AddedToken> added_;
  AddedTokens verbatim_;
  AddedTokens normalized_;
  mutable std::mutex cache_mutex_;
  mutable WordCache cache_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::parse(std::string_view text, const std::string& path) {
  RS_TRY(TokenizerFile file, read_tokenizer_file(text, path));
  return std::unique_ptr<Tokenizer>(std::make_unique<BytePairTokenizer>(std::move(file)));
}

}  // namespace ringside
