// Owns: steps of several sessions (house rule 3a): each session gets the bits it would get alone, and a step that fails
// or is cancelled moves none.
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "backend_model.h"
#include "check.h"
#include "error.h"

namespace {

using backend_model::Bits;
using backend_model::isas;
using backend_model::Model;
using backend_model::same_bits;
using backend_model::Session;
using ringside::ErrorKind;

// One session of a step: where it starts, what it reads, how many tokens each step takes.
struct Line {
  std::vector<int32_t> ids;
  int64_t start;
  int64_t step_tokens;
};

std::vector<Line> lines(int32_t vocab) {
  std::vector<Line> list;
  // Chunks end in the same step, in different steps and inside a step; one session is long.
  constexpr int64_t kStarts[] = {60, 60, 0, 250, 61, 130};
  constexpr int64_t kSteps[] = {1, 1, 3, 9, 5, 1};
  for (size_t i = 0; i < std::size(kStarts); ++i) {
    list.push_back({random_model::tokens(100 + i, kStarts[i] + 20 * kSteps[i], vocab), kStarts[i], kSteps[i]});
  }
  return list;
}

// All lines, 20 steps together; the logits of every position after the start, line by line.
std::vector<Bits> run_together(const rs_backend* backend, Model& model, const std::vector<Line>& list, int64_t vocab,
                               std::vector<Bits>& norms) {
  std::vector<Session> sessions;
  std::vector<Bits> logits;
  for (const Line& line : list) {
    sessions.push_back(model.open());
    if (line.start > 0) {
      CHECK_EQ(sessions.back().extend(line.ids.data(), line.start, RS_LOGITS_NONE, nullptr, nullptr), 0);
    }
    logits.emplace_back(static_cast<size_t>(20 * line.step_tokens * vocab));
  }
  for (int64_t turn = 0; turn < 20; ++turn) {
    std::vector<rs_step> steps;
    for (size_t i = 0; i < list.size(); ++i) {
      const int64_t done = turn * list[i].step_tokens;
      steps.push_back({sessions[i].get(), list[i].ids.data() + list[i].start + done, list[i].step_tokens, RS_LOGITS_ALL,
                       logits[i].data() + done * vocab});
    }
    // The order of the sessions means nothing.
    std::rotate(steps.begin(), steps.begin() + turn % static_cast<int64_t>(steps.size()), steps.end());
    rs_error error{};
    CHECK_EQ(backend->step(model.get(), steps.data(), static_cast<int64_t>(steps.size()), nullptr, &error), 0);
  }
  for (size_t i = 0; i < list.size(); ++i) {
    CHECK_EQ(sessions[i].position(), list[i].start + 20 * list[i].step_tokens);
    norms.push_back(sessions[i].norms(model.norm_count()));
  }
  return logits;
}

struct Weights {
  rs_weight_format format;
  int64_t group_columns;
  bool has_offsets;
};

constexpr Weights kWeights[] = {{RS_WEIGHT_F32, 0, false}, {RS_WEIGHT_BF16, 0, false}, {RS_WEIGHT_Q8, 32, false},
                                {RS_WEIGHT_Q4, 32, false}, {RS_WEIGHT_Q4, 64, true},   {RS_WEIGHT_Q8, 64, true}};

random_model::Source source_of(uint64_t seed, const Weights& weights) {
  return random_model::Source(seed, weights.format, std::max<int64_t>(1, weights.group_columns), weights.has_offsets);
}

// Asks `step` for something wrong and expects this kind; no session moves.
struct Refusals {
  const rs_backend* backend;
  Model& model;
  std::vector<Session*> sessions;

  void expect(ErrorKind kind, const std::vector<rs_step>& steps, const rs_poll* poll = nullptr) {
    std::vector<int64_t> before;
    for (Session* session : sessions) before.push_back(session->position());
    rs_error error{};
    CHECK_EQ(backend->step(model.get(), steps.data(), static_cast<int64_t>(steps.size()), poll, &error), -1);
    CHECK_EQ(error.kind, static_cast<int32_t>(kind));
    for (size_t i = 0; i < sessions.size(); ++i) CHECK_EQ(sessions[i]->position(), before[i]);
  }
};

struct Countdown {  // cancels at the n-th question
  int64_t left;
  int64_t advanced = 0;
  rs_poll poll() {
    return {this, [](void* context) { return static_cast<Countdown*>(context)->left-- <= 0 ? 1 : 0; },
            [](void* context, int64_t) { ++static_cast<Countdown*>(context)->advanced; }};
  }
};

}  // namespace

TEST("sessions that step together get the bits of each alone, on every instruction set, weight and key-value format") {
  random_model::Shape shape;
  const int64_t vocab = shape.config.vocab_rows;
  const std::vector<Line> list = lines(shape.config.vocab_rows);
  for (const Weights& weights : kWeights) {
    random_model::Source source = source_of(21, weights);
    for (const std::string& isa : isas()) {
      for (const rs_kv_format kv_format : {RS_KV_BF16, RS_KV_F32, RS_KV_Q8}) {
        Model together(rs_cpu_backend(), shape, source, 1 + kv_format, isa.c_str(), kv_format);
        Model alone(rs_cpu_backend(), shape, source, 3, isa.c_str(), kv_format);
        std::vector<Bits> norms;
        const std::vector<Bits> logits = run_together(rs_cpu_backend(), together, list, vocab, norms);
        for (size_t i = 0; i < list.size(); ++i) {
          Session session = alone.open();
          const Bits whole = session.feed(list[i].ids, {static_cast<int64_t>(list[i].ids.size())});
          CHECK(same_bits(logits[i], Bits(whole.begin() + list[i].start * vocab, whole.end())));
          CHECK(same_bits(norms[i], session.norms(alone.norm_count())));
        }
      }
    }
  }
}

TEST("the reference steps several sessions as each alone") {
  random_model::Shape shape;
  const int64_t vocab = shape.config.vocab_rows;
  const std::vector<Line> list = lines(shape.config.vocab_rows);
  random_model::Source source(22, RS_WEIGHT_F32);
  Model model(rs_reference_backend(), shape, source);
  std::vector<Bits> norms;
  const std::vector<Bits> logits = run_together(rs_reference_backend(), model, list, vocab, norms);
  for (size_t i = 0; i < list.size(); ++i) {
    Session session = model.open();
    const Bits whole = session.feed(list[i].ids, {static_cast<int64_t>(list[i].ids.size())});
    CHECK(same_bits(logits[i], Bits(whole.begin() + list[i].start * vocab, whole.end())));
    CHECK(same_bits(norms[i], session.norms(model.norm_count())));
  }
}

TEST("a step writes the logits that each session wants and no others") {
  random_model::Shape shape;
  const int64_t vocab = shape.config.vocab_rows;
  random_model::Source source(23, RS_WEIGHT_Q4);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(24, 10, shape.config.vocab_rows);
  Session whole = model.open();
  const Bits expected = whole.feed(ids, {10});
  Session none = model.open();
  Session last = model.open();
  Session all = model.open();
  Bits untouched(1, -7.0f);
  Bits last_logits(static_cast<size_t>(vocab + 1), -7.0f);
  Bits all_logits(static_cast<size_t>(10 * vocab + 1), -7.0f);
  const std::vector<rs_step> steps = {{none.get(), ids.data(), 10, RS_LOGITS_NONE, untouched.data()},
                                      {all.get(), ids.data(), 10, RS_LOGITS_ALL, all_logits.data()},
                                      {last.get(), ids.data(), 10, RS_LOGITS_LAST, last_logits.data()}};
  rs_error error{};
  CHECK_EQ(rs_cpu_backend()->step(model.get(), steps.data(), 3, nullptr, &error), 0);
  CHECK_EQ(untouched.back(), -7.0f);
  CHECK_EQ(last_logits.back(), -7.0f);
  CHECK_EQ(all_logits.back(), -7.0f);
  last_logits.pop_back();
  all_logits.pop_back();
  CHECK(same_bits(all_logits, expected));
  CHECK(same_bits(last_logits, Bits(expected.end() - vocab, expected.end())));
}

TEST("drafts that a step read and accept cut off leave no trace") {
  random_model::Shape shape;
  const int64_t vocab = shape.config.vocab_rows;
  for (const Weights& weights : kWeights) {
    random_model::Source source = source_of(25, weights);
    Model model(rs_cpu_backend(), shape, source, 2, "", RS_KV_BF16);
    const std::vector<int32_t> ids = random_model::tokens(26, 400, shape.config.vocab_rows);
    Session whole = model.open();
    const Bits expected = whole.feed(ids, {400});
    Session session = model.open();
    Session other = model.open();  // reads on undisturbed beside the drafts of the first
    (void)session.feed(std::vector<int32_t>(ids.begin(), ids.begin() + 200), {200});
    random_model::Random random(27);
    for (int64_t at = 200; at < 330;) {
      const int64_t room = std::clamp<int64_t>(62 - at % 64, 0, 8);  // drafts that do not end the chunk
      std::vector<int32_t> rows = random_model::tokens(static_cast<uint64_t>(at), 1 + room, shape.config.vocab_rows);
      const int64_t right = random.below(room + 1);  // so many drafts turn out right
      std::copy_n(ids.begin() + at, 1 + right, rows.begin());
      Bits logits(static_cast<size_t>((1 + room) * vocab));
      const std::vector<rs_step> steps = {{session.get(), rows.data(), 1 + room, RS_LOGITS_ALL, logits.data()},
                                          {other.get(), ids.data() + other.position(), 1, RS_LOGITS_NONE, nullptr}};
      rs_error error{};
      CHECK_EQ(rs_cpu_backend()->step(model.get(), steps.data(), 2, nullptr, &error), 0);
      logits.resize(static_cast<size_t>((1 + right) * vocab));
      CHECK(same_bits(logits, Bits(expected.begin() + at * vocab, expected.begin() + (at + 1 + right) * vocab)));
      at += 1 + right;
      if (right < room) CHECK_EQ(session.accept(at), 0);
    }
    const int64_t at = session.position();
    const Bits rest = session.feed(std::vector<int32_t>(ids.begin() + at, ids.end()), {70});
    CHECK(same_bits(rest, Bits(expected.begin() + at * vocab, expected.end())));
    const int64_t there = other.position();
    const Bits beside = other.feed(std::vector<int32_t>(ids.begin() + there, ids.end()), {70});
    CHECK(same_bits(beside, Bits(expected.begin() + there * vocab, expected.end())));
  }
}

TEST("wrong steps are refused by kind and move nobody") {
  for (const rs_backend* backend : {rs_cpu_backend(), rs_reference_backend()}) {
    random_model::Shape shape;
    shape.config.context_tokens = 80;
    random_model::Source source(28, RS_WEIGHT_F32);
    Model model(backend, shape, source);
    Model stranger(backend, shape, source);
    Session a = model.open();
    Session b = model.open();
    Session foreign = stranger.open();
    const std::vector<int32_t> ids = random_model::tokens(29, 80, shape.config.vocab_rows);
    CHECK_EQ(a.extend(ids.data(), 70, RS_LOGITS_NONE, nullptr, nullptr), 0);
    const std::vector<int32_t> bad = {1, 2, shape.config.vocab_rows};
    const auto part = [&](Session& session, int64_t count) {
      return rs_step{session.get(), ids.data(), count, RS_LOGITS_NONE, nullptr};
    };
    Refusals refusals{backend, model, {&a, &b, &foreign}};
    refusals.expect(ErrorKind::kArgumentInvalid, {});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(b, 1), part(a, 0)});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(b, -1)});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(b, 65)});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(b, 60), part(a, 5)});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(b, INT64_MAX), part(a, INT64_MAX)});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(a, 1), part(b, 1), part(a, 1)});
    refusals.expect(ErrorKind::kArgumentInvalid, {part(a, 1), part(foreign, 1)});
    refusals.expect(ErrorKind::kContextFull, {part(b, 1), part(a, 11)});
    refusals.expect(ErrorKind::kTokenOutOfRange, {part(a, 1), {b.get(), bad.data(), 3, RS_LOGITS_NONE, nullptr}});
    const std::vector<rs_step> good = {part(a, 10), part(b, 54)};  // exactly what is allowed
    rs_error error{};
    CHECK_EQ(backend->step(model.get(), good.data(), 2, nullptr, &error), 0);
    CHECK_EQ(a.position(), 80);
    CHECK_EQ(b.position(), 54);
  }
}

TEST("a cancelled step moves nobody, and what follows has the bits of a run without it") {
  for (const rs_backend* backend : {rs_cpu_backend(), rs_reference_backend()}) {
    random_model::Shape shape;
    const int64_t vocab = shape.config.vocab_rows;
    random_model::Source source(30, RS_WEIGHT_F32);
    Model model(backend, shape, source, 2);
    const std::vector<int32_t> ids = random_model::tokens(31, 200, shape.config.vocab_rows);
    Session whole = model.open();
    const Bits expected = whole.feed(ids, {200});
    const Bits expected_norms = whole.norms(model.norm_count());
    int cancelled = 0;
    for (int64_t round = 0; round < 12; ++round) {
      Session a = model.open();
      Session b = model.open();
      (void)a.feed(std::vector<int32_t>(ids.begin(), ids.begin() + 60), {60});
      (void)b.feed(std::vector<int32_t>(ids.begin(), ids.begin() + 120), {120});
      Bits discarded(static_cast<size_t>(64 * vocab));
      const std::vector<rs_step> steps = {{a.get(), ids.data() + 60, 30, RS_LOGITS_ALL, discarded.data()},
                                          {b.get(), ids.data() + 120, 30, RS_LOGITS_NONE, nullptr}};
      Countdown countdown{round * round};
      const rs_poll poll = countdown.poll();
      rs_error error{};
      const int32_t outcome = backend->step(model.get(), steps.data(), 2, &poll, &error);
      CHECK_EQ(countdown.advanced, 0);
      if (outcome != 0) {
        ++cancelled;
        CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kCancelled));
        CHECK_EQ(a.position(), 60);
        CHECK_EQ(b.position(), 120);
      }
      for (Session* session : {&a, &b}) {
        const int64_t at = session->position();
        const Bits rest = session->feed(std::vector<int32_t>(ids.begin() + at, ids.end()), {33});
        CHECK(same_bits(rest, Bits(expected.begin() + at * vocab, expected.end())));
        CHECK(same_bits(session->norms(model.norm_count()), expected_norms));
      }
    }
    CHECK(cancelled >= 1);
  }
}
