// Owns: what a session promises when memory runs out: an error value and not an exception, a session that holds what it
// says, and nothing lost.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "allocation_counter.h"
#include "check.h"
#include "engine.h"
#include "model/prompt_lookup.h"
#include "random_model.h"

namespace {

using namespace ringside;
using Ids = std::vector<int32_t>;

constexpr int kAttempts = 2000;  // far more allocations than a call of the tiny model makes
const std::function<void(int64_t)> kSilent = [](int64_t) {};

Ids random_ids(uint64_t seed, int64_t count) { return random_model::tokens(seed, count, 512); }

// One thread, so that the failing allocation is the session's own.
std::shared_ptr<Model> load_tiny(const std::string& backend) {
  LoadOptions options;
  options.folder = std::string(RS_GOLDEN_DIR) + "/tiny-tail";
  options.backend = backend;
  options.threads = 1;
  auto model = Model::load(options);
  CHECK(model.ok());
  return model.ok() ? std::move(model).value() : nullptr;
}

// The logits after `prompt` and one more token; empty after a failure.
std::vector<float> logits_after(Session& session, const Ids& prompt) {
  CancelFlag cancel;
  const auto reused = session.sync(prompt, {}, cancel, kSilent);
  CHECK(reused.ok());
  const int32_t next[] = {7};
  auto logits = session.logits(next, cancel);
  CHECK(logits.ok());
  return logits.ok() ? std::move(logits).value() : std::vector<float>();
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::unique_ptr<Session> session_with(const std::shared_ptr<Model>& model, const Ids& prompt) {
  auto session = Session::open(model);
  CHECK(session.ok());
  CancelFlag cancel;
  CHECK(session.value()->sync(prompt, {}, cancel, kSilent).ok());
  return std::move(session).value();
}

// Makes the 1st, 2nd, … allocation of `call` fail until it succeeds. `call` returns whether it did and sets the kind of
// its error.
template <class Call>
void fail_each_allocation(const Call& call) {
  int nth = 1;
  for (; nth < kAttempts; ++nth) {
    ErrorKind kind = ErrorKind::kOutOfMemory;
    if (call(nth, kind)) break;
    CHECK_EQ(std::string(error_kind_name(kind)), "out-of-memory");
  }
  CHECK(nth > 1 && nth < kAttempts);
}

void check_failing_restore(const std::string& backend) {
  const auto model = load_tiny(backend);
  const Ids own = random_ids(1, 66);
  Ids own_and_more = own;
  own_and_more.push_back(3);
  const Ids other = random_ids(2, 130);
  const std::shared_ptr<Snapshot> saved = session_with(model, other)->snapshot().value();
  CHECK_EQ(saved->position(), 128);
  const std::vector<float> expected = logits_after(*session_with(model, own), own_and_more);
  fail_each_allocation([&](int nth, ErrorKind& kind) {
    const std::unique_ptr<Session> session = session_with(model, own);
    CancelFlag cancel;
    allocation::fail_in = nth;
    const auto reused = session->sync(other, std::span(&saved, 1), cancel, kSilent);
    allocation::fail_in = 0;
    if (!reused.ok()) kind = reused.error().kind;
    // Whichever tokens it holds now, they and its state belong together.
    CHECK(same_bits(logits_after(*session, own_and_more), expected));
    return reused.ok();
  });
}

}  // namespace

TEST("memory: a restore that runs out of it leaves a session whose tokens are those of its state, on the CPU") {
  check_failing_restore("cpu");
}

TEST("memory: the same on the reference") { check_failing_restore("reference"); }

TEST("memory: opening a session and taking a snapshot lose nothing") {
  const auto model = load_tiny("cpu");
  const std::unique_ptr<Session> session = session_with(model, random_ids(3, 70));
  const size_t held_bytes = allocation::held_bytes;
  fail_each_allocation([&](int nth, ErrorKind& kind) {
    allocation::fail_in = nth;
    const auto opened = Session::open(model);
    allocation::fail_in = 0;
    if (!opened.ok()) kind = opened.error().kind;
    return opened.ok();
  });
  CHECK_EQ(allocation::held_bytes, held_bytes);
  fail_each_allocation([&](int nth, ErrorKind& kind) {
    allocation::fail_in = nth;
    const auto saved = session->snapshot();
    allocation::fail_in = 0;
    if (!saved.ok()) kind = saved.error().kind;
    return saved.ok();
  });
  CHECK_EQ(allocation::held_bytes, held_bytes);
}

// A prompt that is full of repetitions, so that drafts are tried, and long enough for passes in two chunks.
TEST("memory: generate returns what it can and goes on afterwards") {
  const auto model = load_tiny("cpu");
  Ids prompt = random_ids(4, 20);
  for (int i = 0; i < 100; ++i) prompt.push_back(prompt[static_cast<size_t>(i) % 20]);
  for (const bool prompt_lookup : {true, false}) {
    GenerateOptions options;
    options.max_tokens = 12;
    options.prompt_lookup = prompt_lookup;
    const auto generate = [&](Session& session, Ids& ids) {
      CancelFlag cancel;
      return session.generate(options, cancel, [&](int32_t id) {
        ids.push_back(id);
        return true;
      });
    };
    Ids expected;
    CHECK(generate(*session_with(model, prompt), expected).ok());
    fail_each_allocation([&](int nth, ErrorKind& kind) {
      const std::unique_ptr<Session> session = session_with(model, prompt);
      Ids ids;
      allocation::fail_in = nth;
      const auto generated = generate(*session, ids);
      allocation::fail_in = 0;
      if (!generated.ok()) kind = generated.error().kind;
      // What it holds is the prompt and what it gave out, but for the token that was not fed.
      const size_t more = session->tokens().size() - prompt.size();
      CHECK(more <= ids.size() && more + 1 >= ids.size());
      CHECK(std::ranges::equal(session->tokens().last(more), std::span(ids).first(more)));
      // It goes on where it stopped, and the same question again is answered alike.
      Ids rest(ids.begin(), ids.begin() + static_cast<int64_t>(more));
      GenerateOptions remaining = options;
      remaining.max_tokens -= static_cast<int64_t>(more);
      CancelFlag cancel;
      const auto went_on = session->generate(remaining, cancel, [&](int32_t id) {
        rest.push_back(id);
        return true;
      });
      CHECK(went_on.ok() && rest == expected);
      Ids again;
      CHECK(session->sync(prompt, {}, cancel, kSilent).ok());
      CHECK(generate(*session, again).ok());
      CHECK(again == expected);
      return generated.ok();
    });
  }
}

TEST("memory: members of a batch that runs out of it are left as sessions that go on") {
  const auto model = load_tiny("cpu");
  std::vector<Ids> prompts, expected(3);
  for (uint64_t i = 0; i < 3; ++i) prompts.push_back(random_ids(i, 60 + static_cast<int64_t>(i)));
  GenerateOptions options;
  options.max_tokens = 4;
  for (size_t i = 0; i < 3; ++i) {
    CancelFlag cancel;
    const auto sink = [&, i](int32_t id) {
      expected[i].push_back(id);
      return true;
    };
    CHECK(session_with(model, prompts[i])->generate(options, cancel, sink).ok());
  }
  fail_each_allocation([&](int nth, ErrorKind& kind) {
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<BatchMember> members;
    CancelFlag cancel;
    for (const Ids& prompt : prompts) {
      sessions.push_back(session_with(model, prompt));
      members.push_back({sessions.back().get(), options, &cancel, [](int32_t) { return true; }});
    }
    allocation::fail_in = nth;
    const auto generated = generate_together(members);
    allocation::fail_in = 0;
    if (!generated.ok()) kind = generated.error().kind;
    for (size_t i = 0; i < 3; ++i) {
      const Ids begun(sessions[i]->tokens().begin() + static_cast<int64_t>(prompts[i].size()),
                      sessions[i]->tokens().end());
      CHECK(std::equal(begun.begin(), begun.end(), expected[i].begin()));
      const auto rest =
          sessions[i]->generate({4 - static_cast<int64_t>(begun.size()), {}, {}}, cancel, [](int32_t) { return true; });
      CHECK(rest.ok());
      CHECK(std::ranges::equal(sessions[i]->tokens().subspan(prompts[i].size()), expected[i]));
    }
    return generated.ok();
  });
}

TEST("memory: an index over tokens that got none is the one before") {
  Ids ids = random_ids(5, 3000);
  std::copy_n(ids.begin(), 50, ids.end() - 50);
  fail_each_allocation([&](int nth, ErrorKind&) {
    PromptLookup lookup;
    lookup.extend(std::span(ids).first(200));
    bool succeeded = true;
    allocation::fail_in = nth;
    try {
      lookup.extend(ids);
    } catch (const std::bad_alloc&) {
      succeeded = false;
    }
    allocation::fail_in = 0;
    CHECK_EQ(lookup.held(), succeeded ? int64_t{3000} : int64_t{200});
    lookup.cut(ids, 150);
    lookup.extend(ids);
    CHECK_EQ(lookup.match().next, 50);
    CHECK_EQ(lookup.match().length, 50);
    return succeeded;
  });
}
