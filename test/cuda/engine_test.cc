// Owns: the engine over the CUDA backend, as engine.h promises it: that generated tokens are read again before anything
// builds on them (house rule 3a), and that ids chosen on the device change no text. Needs libringside_cuda.so beside
// the program and, in NANO_DIR, the embedded model.
#include "engine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "random_model.h"

namespace {

using namespace ringside;
using Ids = std::vector<int32_t>;

const std::shared_ptr<Model>& nano() {
  static const std::shared_ptr<Model> model = [] {
    const char* const folder = std::getenv("NANO_DIR");
    LoadOptions options;
    options.folder = folder == nullptr ? "media/nano" : folder;
    options.backend = "cuda";
    auto loaded = Model::load(options);
    if (!loaded.ok()) check::fail(__FILE__, __LINE__, loaded.error().message());
    return loaded.ok() ? std::move(loaded).value() : nullptr;
  }();
  return model;
}

Ids random_ids(uint64_t seed, int64_t count) { return random_model::tokens(seed, count, 2000); }
Ids operator+(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Ids held(const Session& session) { return {session.tokens().begin(), session.tokens().end()}; }

std::unique_ptr<Session> open() {
  auto session = Session::open(nano());
  CHECK(session.ok());
  return session.ok() ? std::move(session).value() : nullptr;
}

int64_t sync(Session& session, const Ids& prompt, const std::vector<std::shared_ptr<Snapshot>>& snapshots = {}) {
  CancelFlag cancel;
  const auto reused = session.sync(prompt, snapshots, cancel, {});
  if (!reused.ok()) check::fail(__FILE__, __LINE__, reused.error().message());
  CHECK(held(session) == prompt);
  return reused.ok() ? reused.value() : -1;
}

GenerateOptions options(int64_t tokens, bool lookup = true, float temperature = 0.0f) {
  GenerateOptions out;
  out.max_tokens = tokens;
  out.sampler.temperature = temperature;
  out.sampler.top_p = temperature == 0.0f ? 1.0f : 0.95f;
  out.sampler.seed = 7;
  out.prompt_lookup = lookup;
  return out;
}

// At most `stop_after` of them are taken.
Ids generate(Session& session, const GenerateOptions& how, size_t stop_after = 1000) {
  Ids ids;
  CancelFlag cancel;
  const auto done = session.generate(how, cancel, [&](int32_t id) {
    ids.push_back(id);
    return ids.size() < stop_after;
  });
  if (!done.ok()) check::fail(__FILE__, __LINE__, done.error().message());
  return ids;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> logits(Session& session, const Ids& ids) {
  CancelFlag cancel;
  auto out = session.logits(ids, cancel);
  CHECK(out.ok());
  return out.ok() ? std::move(out).value() : std::vector<float>();
}

// That the session goes on as one does which has only ever read.
void check_only_read(Session& session) {
  const auto straight = open();
  sync(*straight, held(session));
  const Ids more = random_ids(99, 70);
  CHECK(same_bits(logits(session, more), logits(*straight, more)));
  CHECK(same_bits(session.state_norms().value(), straight->state_norms().value()));
}

TEST("a prompt that goes on behind generated tokens has the bits of one that was only read") {
  if (nano() == nullptr) return;
  for (const int64_t length : {1, 60, 64, 200}) {
    for (const int64_t generated : {1, 5, 100}) {
      const auto session = open();
      const Ids prompt = random_ids(static_cast<uint64_t>(length), length);
      sync(*session, prompt);
      generate(*session, options(generated));
      const Ids more = held(*session) + random_ids(5, 20);
      CHECK_EQ(sync(*session, more), length);
      check_only_read(*session);
      generate(*session, options(generated));
      check_only_read(*session);  // logits() reads again too
    }
  }
}

TEST("an answer that is left out of the next prompt costs no reading, however long it was") {
  if (nano() == nullptr) return;
  const auto session = open();
  const Ids prompt = random_ids(1, 200);
  sync(*session, prompt);
  generate(*session, options(150));
  CHECK_EQ(sync(*session, prompt + random_ids(2, 30)), 200);
  check_only_read(*session);
}

TEST("a snapshot behind generated tokens stands where reading ended, and serves as one that was only read") {
  if (nano() == nullptr) return;
  const auto session = open();
  const Ids prompt = random_ids(3, 200);
  sync(*session, prompt);
  generate(*session, options(150));
  const auto saved = session->snapshot();
  CHECK(saved.ok());
  if (!saved.ok()) return;
  CHECK_EQ(saved.value()->position(), int64_t{192});
  CHECK(std::ranges::equal(saved.value()->tokens(), std::span(prompt).first(192)));
  const auto other = open();
  CHECK_EQ(sync(*other, prompt, {saved.value()}), 192);
  check_only_read(*other);
}

TEST("generating goes on where it ended, and neither drafts nor company change an id") {
  if (nano() == nullptr) return;
  for (const float temperature : {0.0f, 0.8f}) {
    const Ids prompt = random_ids(4, 150);
    const auto whole = open();
    sync(*whole, prompt);
    const Ids ids = generate(*whole, options(120, false, temperature));
    const auto parts = open();
    sync(*parts, prompt);
    Ids found = generate(*parts, options(50, true, temperature));
    found = found + generate(*parts, options(1000, true, temperature), ids.size() - found.size());
    CHECK(found == ids);
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<Ids> texts(5);
    std::vector<CancelFlag> cancels(5);
    std::vector<BatchMember> members;
    for (size_t i = 0; i < 5; ++i) {
      sessions.push_back(open());
      sync(*sessions[i], i == 2 ? prompt : random_ids(10 + i, 40 + 30 * static_cast<int64_t>(i)));
      // Members that want ids beside members that want logits.
      const float own = i % 2 == 0 ? temperature : 0.8f - temperature;
      members.push_back({sessions[i].get(), options(120, i % 2 == 0, own), &cancels[i], [&texts, i](int32_t id) {
                           texts[i].push_back(id);
                           return true;
                         }});
    }
    const auto done = generate_together(members);
    CHECK(done.ok());
    CHECK(texts[2] == ids);
    for (size_t i = 0; i < 5; ++i) {
      const auto alone = open();
      sync(*alone, i == 2 ? prompt : random_ids(10 + i, 40 + 30 * static_cast<int64_t>(i)));
      CHECK(generate(*alone, members[i].options) == texts[i]);
      check_only_read(*alone);
    }
  }
}

}  // namespace
