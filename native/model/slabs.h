// Owns: how a call that reads many tokens is cut into slabs, and what each of them gives; the same for every backend
// that computes several tokens at once. No result depends on the cuts.
#pragma once

#include <algorithm>

#include "backend.h"
#include "backend_errors.h"

namespace ringside {

struct SlabCut {
  const int32_t* tokens;
  int64_t rows;
  int64_t wanted;  // of the last rows, whose logits go to
  float* logits;
  bool is_last;
};

// Calls `read(SlabCut)`, which returns a Status, for one slab after another, of `most_rows(tokens left)` at most. After
// each the poll, if there is one, is told of `position()`.
template <class MostRows, class Read, class Position>
Status read_in_slabs(const int32_t* tokens, int64_t count, rs_logits want, float* logits, int64_t vocab_rows,
                     const rs_poll* poll, const MostRows& most_rows, const Read& read, const Position& position) {
  for (int64_t done = 0; done < count;) {
    const int64_t rows = std::min(most_rows(count - done), count - done);
    const bool is_last = done + rows == count;
    const int64_t wanted = want == RS_LOGITS_ALL ? rows : want == RS_LOGITS_LAST && is_last ? 1 : 0;
    float* const to = want == RS_LOGITS_ALL ? logits + done * vocab_rows : logits;
    RS_CHECK(read(SlabCut{tokens + done, rows, wanted, to, is_last}));
    done += rows;
    if (poll != nullptr && poll->advanced != nullptr) poll->advanced(poll->context, position());
  }
  return Unit{};
}

}  // namespace ringside
