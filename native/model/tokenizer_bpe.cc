// Owns: the merge loop, once for the short words that text is made of and once for words of any length.
#include "tokenizer_bpe.h"

#include <algorithm>
#include <cstddef>
#include <functional>

namespace ringside {

MergeTable::MergeTable(std::span<const Merge> merges, int32_t id_count)
    : first_(static_cast<size_t>(id_count) + 1, 0), entries_(merges.size()) {
  for (const Merge& merge : merges) ++first_[static_cast<size_t>(merge.left) + 1];
  for (size_t id = 1; id < first_.size(); ++id) first_[id] += first_[id - 1];
  std::vector<uint32_t> next(first_.begin(), first_.end() - 1);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    entries_[next[static_cast<size_t>(merge.left)]++] = {merge.right, static_cast<int32_t>(rank), merge.merged};
  }
  for (size_t id = 0; id + 1 < first_.size(); ++id) {
    std::sort(entries_.begin() + first_[id], entries_.begin() + first_[id + 1],
              [](const Entry& a, const Entry& b) { return a.right < b.right; });
  }
}

MergeTable::Found MergeTable::find(int32_t left, int32_t right) const {
  const Entry* begin = entries_.data() + first_[static_cast<size_t>(left)];
  const Entry* end = entries_.data() + first_[static_cast<size_t>(left) + 1];
  const Entry* at =
      std::lower_bound(begin, end, right, [](const Entry& entry, int32_t id) { return entry.right < id; });
  if (at == end || at->right != right) return {kNone, -1};
  return {at->rank, at->merged};
}

namespace {

// Up to this length a scan over all pairs beats a heap.
constexpr size_t kShortBytes = 48;

void merge_short(std::string_view word, const std::array<int32_t, 256>& byte_ids, const MergeTable& merges,
                 std::vector<int32_t>& ids) {
  int32_t symbols[kShortBytes];
  MergeTable::Found pairs[kShortBytes];  // pairs[i]: symbols i and i + 1
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) symbols[i] = byte_ids[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = merges.find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == MergeTable::kNone) break;
    symbols[best] = pairs[best].merged;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(pairs + best + 1, pairs + count - 1, pairs + best);
    --count;
    if (best > 0) pairs[best - 1] = merges.find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) pairs[best] = merges.find(symbols[best], symbols[best + 1]);
  }
  ids.insert(ids.end(), symbols, symbols + count);
}

// The symbols of a long word as a linked list in an array; the place of a symbol is where its first byte stands.
struct Symbol {
  int32_t id;  // -1: merged into the symbol before it
  size_t previous;
  size_t next;
};
constexpr size_t kNowhere = SIZE_MAX;

// A pair that may merge, as one number that orders by rank and then by place. Ranks are below 2^20 and places below
// 2^44, so nothing is cut off.
using Candidate = uint64_t;
constexpr int kPlaceBits = 44;

class LongWord {
 public:
  LongWord(std::string_view word, const std::array<int32_t, 256>& byte_ids, const MergeTable& merges)
      : merges_(merges) {
    symbols_.reserve(word.size());
    for (size_t i = 0; i < word.size(); ++i) {
      symbols_.push_back({byte_ids[static_cast<uint8_t>(word[i])], i == 0 ? kNowhere : i - 1,
                          i + 1 == word.size() ? kNowhere : i + 1});
    }
    for (size_t i = 0; i + 1 < word.size(); ++i) offer(i);
    std::make_heap(candidates_.begin(), candidates_.end(), std::greater<>());
  }

  void merge_all() {
    while (!candidates_.empty()) {
      std::pop_heap(candidates_.begin(), candidates_.end(), std::greater<>());
      const Candidate candidate = candidates_.back();
      candidates_.pop_back();
      const size_t place = candidate & ((Candidate{1} << kPlaceBits) - 1);
      // The pair of a place changes when one of its symbols grows: then the candidate is out of date.
      const MergeTable::Found found = pair_at(place);
      if (found.rank == static_cast<int32_t>(candidate >> kPlaceBits)) merge(place, found.merged);
    }
  }

  void append_to(std::vector<int32_t>& ids) const {
    for (size_t i = 0; i != kNowhere; i = symbols_[i].next) ids.push_back(symbols_[i].id);
  }

 private:
  MergeTable::Found pair_at(size_t place) const {
    const Symbol& symbol = symbols_[place];
    if (symbol.id < 0 || symbol.next == kNowhere) return {MergeTable::kNone, -1};
    return merges_.find(symbol.id, symbols_[symbol.next].id);
  }

  bool offer(size_t place) {
    const MergeTable::Found found = pair_at(place);
    if (found.rank == MergeTable::kNone) return false;
    candidates_.push_back(static_cast<Candidate>(found.rank) << kPlaceBits | place);
    return true;
  }

  void offer_to_heap(size_t place) {
    if (offer(place)) std::push_heap(candidates_.begin(), candidates_.end(), std::greater<>());
  }

  void merge(size_t place, int32_t merged) {
    Symbol& left = symbols_[place];
    Symbol& right = symbols_[left.next];
    left.id = merged;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNowhere) symbols_[left.next].previous = place;
    if (left.previous != kNowhere) offer_to_heap(left.previous);
    offer_to_heap(place);
  }

  const MergeTable& merges_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> candidates_;
};

}  // namespace

void merge_word(std::string_view word, const std::array<int32_t, 256>& byte_ids, const MergeTable& merges,
                std::vector<int32_t>& ids) {
  if (word.size() <= kShortBytes) {
    merge_short(word, byte_ids, merges, ids);
    return;
  }
  LongWord long_word(word, byte_ids, merges);
  long_word.merge_all();
  long_word.append_to(ids);
}

}  // namespace ringside
