// Owns: what the tests of sessions on the GPU share: a small model, reading and stepping, and what a restored session
// must give.
#pragma once

#include <memory>
#include <vector>

#include "backend_model.h"
#include "check.h"
#include "model/backend.h"
#include "small_model.h"

namespace session_cases {

using backend_model::Bits;
using backend_model::Model;
using backend_model::same_bits;
using backend_model::Session;
using Ids = std::vector<int32_t>;

inline constexpr int64_t kVocab = 160;

inline const rs_backend* cuda() { return rs_cuda_backend(); }

// A model on the device and its weights.
struct Small {
  random_model::Shape shape = small_model::shape();
  random_model::Source random{11, RS_WEIGHT_Q8, 128};
  small_model::Source source{random};
  rs_error error{};
  std::unique_ptr<Model> model;

  Small() { CHECK_EQ(load(), 0); }
  int32_t load() {
    const rs_load_options options{2, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
    rs_model* handle = nullptr;
    if (cuda()->load(shape.ready(), &source.table, &options, &handle, &error) != 0) return error.kind;
    model = std::make_unique<Model>(cuda(), shape, handle);
    return 0;
  }
};

inline Ids ids_of(int64_t count, uint64_t seed) {
  return random_model::tokens(seed, count, static_cast<int32_t>(kVocab));
}

inline void read(Session& session, const Ids& ids, int64_t begin, int64_t end) {
  if (begin == end) return;
  CHECK_EQ(session.extend(ids.data() + begin, end - begin, RS_LOGITS_NONE, nullptr, nullptr), 0);
}

inline Bits read_all(Session& session, const Ids& ids, int64_t begin) {
  return session.feed(Ids(ids.begin() + begin, ids.end()), {static_cast<int64_t>(ids.size())});
}

inline int32_t step(Model& model, Session& session, const int32_t* ids, int64_t count, float* logits = nullptr) {
  const rs_step step{session.get(), ids, count, logits == nullptr ? RS_LOGITS_NONE : RS_LOGITS_LAST, logits};
  session.error = {};
  return cuda()->step(model.get(), &step, 1, nullptr, &session.error);
}

inline Bits tail(const Bits& logits, int64_t position) {
  return Bits(logits.begin() + position * kVocab, logits.end());
}

// Goes on from a snapshot as an uninterrupted reader does.
inline void check_restores(Model& model, const rs_snapshot* snapshot, const Ids& ids, const Bits& logits,
                           const Bits& norms) {
  Session restored = model.restore(snapshot);
  const int64_t position = restored.position();
  CHECK_EQ(position, cuda()->snapshot_position(snapshot));
  CHECK_EQ(cuda()->read_position(restored.get()), position);
  CHECK(same_bits(read_all(restored, ids, position), tail(logits, position)));
  CHECK(same_bits(restored.norms(model.norm_count()), norms));
}

}  // namespace session_cases
