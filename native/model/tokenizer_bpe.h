// Owns: merging the bytes of one word into ids: always the pair with the lowest rank, of equal ones the leftmost.
// Must never: cost more than O(n log n) for a word of n bytes, whatever the text and whatever the merges.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ringside {

struct Merge {
  int32_t left;    // id
  int32_t right;   // id
  int32_t merged;  // id
};

class MergeTable {
 public:
  struct Found {
    int32_t rank;  // kNone: the pair does not merge
    int32_t merged;
  };
  static constexpr int32_t kNone = INT32_MAX;

  // `merges` in the order of their ranks; all ids are in [0, id_count) and no pair stands twice.
  MergeTable(std::span<const Merge> merges, int32_t id_count);
  Found find(int32_t left, int32_t right) const;

 private:
  struct Entry {
    int32_t right;
    int32_t rank;
    int32_t merged;
  };
  // Entries of one left id lie together, ascending by right id, and are found by halving: unlike a hash table, no
  // choice of merges in a file makes that slow.
  std::vector<uint32_t> first_;  // [id_count + 1]
  std::vector<Entry> entries_;
};

// Appends the ids of `word` to `ids`. `byte_ids` are the ids of the 256 single bytes.
void merge_word(std::string_view word, const std::array<int32_t, 256>& byte_ids, const MergeTable& merges,
                std::vector<int32_t>& ids);

}  // namespace ringside
