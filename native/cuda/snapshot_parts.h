// Owns: a snapshot's way to plain bytes and back: S, and its pages one by one.
// Must never: touch the model's stream when it exports; other calls may run meanwhile.
#pragma once

#include "cuda/loaded.h"

namespace ringside::cuda {

// out: [states' piece_bytes]. Waits for the copy of S, if that is still under way.
Status export_state(const Snapshot& snapshot, void* out);
// out: [pages' piece_bytes].
Status export_page(const Snapshot& snapshot, int64_t page, void* out);
// kFileMalformed where the numbers are not finite. `pages`: one for each begun 256 positions.
Status import_snapshot(Loaded& loaded, int64_t position, const void* state, const void* const* pages, Snapshot& out);

}  // namespace ringside::cuda
