// Owns: the CPU backend as a whole: agreement with the reference, and equal bits however the work is cut (house rule
// 3a).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "backend_model.h"
#include "check.h"
#include "cpu/model.h"
#include "error.h"
#include "model/backend.h"
#include "model/checkpoint.h"
#include "random_model.h"

namespace {

using backend_model::Bits;
using backend_model::isas;
using backend_model::Model;
using backend_model::row_errors;
using backend_model::same_bits;
using backend_model::Session;
using ringside::ErrorKind;

ringside::cpu::Model& of(rs_model* model) { return *reinterpret_cast<ringside::cpu::Model*>(model); }

static_assert(RS_WEIGHT_F32 == static_cast<int>(ringside::WeightFormat::kF32));
static_assert(RS_WEIGHT_BF16 == static_cast<int>(ringside::WeightFormat::kBF16));
static_assert(RS_WEIGHT_Q8 == static_cast<int>(ringside::WeightFormat::kQ8));

// How far a row may be off, in standard deviations of the logits, and how many rows may be off further: a near-tie of
// the router may fall the other way after rounding, and that row then differs (specification section 5).
struct Bound {
  double error;
  double share;
};
constexpr Bound kRounding = {1e-3, 0.03};  // of fp32 against float64 over a few layers
constexpr Bound kInt8Inputs = {0.3, 0.1};  // of activations in 8 bits, which the reference does not round

struct WeightForm {
  rs_weight_format format;
  int64_t group_columns;
  bool has_offsets;
};
constexpr WeightForm kWeightForms[] = {{RS_WEIGHT_F32, 32, false}, {RS_WEIGHT_BF16, 32, false},
                                       {RS_WEIGHT_Q8, 32, false},  {RS_WEIGHT_Q8, 64, true},
                                       {RS_WEIGHT_Q4, 32, false},  {RS_WEIGHT_Q4, 64, true}};

void compare_with_reference(random_model::Shape& shape, const WeightForm& form, int64_t count, const Bound& bound) {
  random_model::Source source(7, form.format, form.group_columns, form.has_offsets);
  const std::vector<int32_t> ids = random_model::tokens(3, count, shape.config.vocab_rows);
  Model reference(rs_reference_backend(), shape, source);
  Session truth = reference.open();
  const Bits expected = truth.feed(ids, {count});
  const Bits expected_norms = truth.norms(reference.norm_count());
  for (const std::string& isa : isas()) {
    Model model(rs_cpu_backend(), shape, source, 2, isa.c_str());
    Session session = model.open();
    const Bits logits = session.feed(ids, {count});
    std::vector<double> errors = row_errors(logits, expected, shape.config.vocab_rows);
    std::sort(errors.begin(), errors.end());
    const auto off = std::count_if(errors.begin(), errors.end(), [&](double error) { return error > bound.error; });
    const std::vector<double> norm_errors = row_errors(session.norms(model.norm_count()), expected_norms, 1);
    const double norm_error = *std::max_element(norm_errors.begin(), norm_errors.end());
    std::printf("  %s, format %d: off by %.1e in the median row, %d of %d rows further off than %.0e, norms by %.1e\n",
                isa.c_str(), static_cast<int>(form.format), errors[errors.size() / 2], static_cast<int>(off),
                static_cast<int>(errors.size()), bound.error, norm_error);
    CHECK(static_cast<double>(off) <= bound.share * static_cast<double>(errors.size()));
    CHECK(norm_error <= bound.error);
  }
}

}  // namespace

TEST("small random models agree with the reference on every instruction set and weight format") {
  for (const WeightForm& form : kWeightForms) {
    random_model::Shape shape;
    compare_with_reference(shape, form, 300, form.format >= RS_WEIGHT_Q8 ? kInt8Inputs : kRounding);
  }
}

TEST("odd shapes agree with the reference: silu, one norm group, heads of no power of two, a tail of softmax layers") {
  random_model::Shape shape;
  shape.config.layers = 5;
  shape.config.heads = 6;
  shape.config.kv_heads = 3;
  shape.config.norm_groups = 1;
  shape.config.linear_silu = 1;
  shape.config.expert_bias = 0;
  compare_with_reference(shape, kWeightForms[1], 200, kRounding);

  random_model::Shape narrow;  // no size is a whole number of vectors
  narrow.config.hidden = 36;
  narrow.config.head_dim = 10;
  narrow.config.rotary_dim = 6;
  narrow.config.dense_width = 50;
  narrow.config.expert_width = 7;
  narrow.config.shared_width = 0;
  narrow.config.experts = 4;
  narrow.config.experts_per_token = 1;
  narrow.config.expert_groups = 1;
  narrow.config.groups_per_token = 1;
  compare_with_reference(narrow, kWeightForms[0], 150, kRounding);
}

TEST("no cut of the calls and no thread count changes a bit") {
  for (const std::string& isa : isas()) {
    random_model::Shape shape;
    random_model::Source source(11, RS_WEIGHT_Q8);
    Model one(rs_cpu_backend(), shape, source, 1, isa.c_str());
    Model two(rs_cpu_backend(), shape, source, 2, isa.c_str());
    for (const int64_t length : {1, 63, 64, 65, 500, 4097}) {
      if (length > 500 && isa != isas().back()) continue;
      const std::vector<int32_t> ids =
          random_model::tokens(static_cast<uint64_t>(length), length, shape.config.vocab_rows);
      Session whole = one.open();
      const Bits expected = whole.feed(ids, {length});
      const Bits expected_norms = whole.norms(one.norm_count());
      random_model::Random random(static_cast<uint64_t>(length));
      std::vector<int64_t> random_cuts;
      for (int i = 0; i < 100; ++i) random_cuts.push_back(1 + random.below(i % 2 == 0 ? 9 : 200));
      const std::vector<std::vector<int64_t>> cuts = {{length},          {1},        {7}, {64}, {1, 63, 65},
                                                      {100, 1, 64, 300}, random_cuts};
      for (size_t cut = 0; cut < cuts.size(); ++cut) {
        if (length > 500 && cuts[cut].back() < 64) continue;  // thousands of single steps prove no more than 500
        Model& model = cut % 2 == 0 ? two : one;
        Session session = model.open();
        CHECK(same_bits(session.feed(ids, cuts[cut]), expected));
        CHECK(same_bits(session.norms(model.norm_count()), expected_norms));
        CHECK_EQ(session.position(), length);
      }
    }
  }
}

TEST("no slab, thread count or cut changes a bit, whatever the format of weights, keys and values") {
  random_model::Shape shape;
  constexpr int64_t kTokens = check::kSanitized ? 320 : 700;
  const std::vector<int32_t> ids = random_model::tokens(41, kTokens, shape.config.vocab_rows);
  for (const WeightForm& form : kWeightForms) {
    random_model::Source source(42, form.format, form.group_columns, form.has_offsets);
    for (const std::string& isa : isas()) {
      for (const rs_kv_format kv_format : {RS_KV_BF16, RS_KV_F32, RS_KV_Q8}) {
        Model one(rs_cpu_backend(), shape, source, 1, isa.c_str(), kv_format);
        Session whole = one.open();
        const Bits expected = whole.feed(ids, {kTokens});
        const Bits expected_norms = whole.norms(one.norm_count());
        for (const int64_t slab : {700, 256, 100, 17}) {
          if (check::kSanitized && slab > 100) continue;
          const auto threads = static_cast<int32_t>(2 + slab % 3);
          Model other(rs_cpu_backend(), shape, source, threads, isa.c_str(), kv_format);
          of(other.get()).pace = {slab, slab, slab};
          Session session = other.open();
          CHECK(same_bits(session.feed(ids, {slab == 17 ? 300 : kTokens}), expected));
          CHECK(same_bits(session.norms(other.norm_count()), expected_norms));
        }
      }
    }
  }
}

TEST("many rows of few experts, wide and narrow, get the bits of single rows") {
  // Experts beyond one block of rows, widths that are no whole tiles, and more jobs than threads.
  random_model::Shape shape;
  shape.config.hidden = 96;
  shape.config.layers = 2;
  shape.config.group = 2;
  shape.config.dense_layers = 0;
  shape.config.expert_width = 200;
  shape.config.shared_width = 72;
  shape.config.experts = 2;
  shape.config.experts_per_token = 2;
  shape.config.expert_groups = 1;
  shape.config.groups_per_token = 1;
  const std::vector<int32_t> ids = random_model::tokens(43, 2300, shape.config.vocab_rows);
  const auto vocab = static_cast<int64_t>(shape.config.vocab_rows);
  for (const WeightForm& form : kWeightForms) {
    random_model::Source source(44, form.format, form.group_columns, form.has_offsets);
    Model model(rs_cpu_backend(), shape, source, 2);
    of(model.get()).pace = {2300, 2300, 2300};
    Session whole = model.open();
    const Bits expected = whole.feed(ids, {2300});
    Session session = model.open();
    const Bits parts = session.feed(ids, {2200, 1, 1, 1, 1, 30, 66});
    CHECK(same_bits(Bits(parts.begin() + 2200 * vocab, parts.end()),
                    Bits(expected.begin() + 2200 * vocab, expected.end())));
    CHECK(same_bits(parts, expected));
  }
}

TEST("a slab takes a few seconds, within its limits, and takes a short rest along") {
  ringside::cpu::SlabPace pace;
  CHECK_EQ(pace.next, 512);
  CHECK_EQ(pace.rows(100), 100);
  CHECK_EQ(pace.rows(640), 640);
  CHECK_EQ(pace.rows(641), 512);
  pace.took(512, 0.1);
  CHECK_EQ(pace.next, 1024);  // never more than twice at once
  pace.took(100, 0.001);
  CHECK_EQ(pace.next, 1024);  // a short one says nothing
  pace.took(1024, 3.2);
  CHECK_EQ(pace.next, 1280);
  for (int i = 0; i < 10; ++i) pace.took(pace.next, 1e-3);
  CHECK_EQ(pace.next, pace.most);
  CHECK_EQ(pace.rows(pace.most + 1), pace.most);
  pace.took(pace.next, 60.0);
  CHECK_EQ(pace.next, 512);
  pace.took(512, 0.0);
  CHECK_EQ(pace.next, 512);
}

TEST("what a pass needs besides weights and session stays small beside them") {
  random_model::Shape mini;  // Ring-mini-linear-2.0
  mini.config.vocab_rows = 157184;
  mini.config.hidden = 2048;
  mini.config.layers = 20;
  mini.config.group = 5;
  mini.config.heads = 16;
  mini.config.kv_heads = 4;
  mini.config.head_dim = 128;
  mini.config.rotary_dim = 64;
  mini.config.dense_width = 5120;
  mini.config.expert_width = 512;
  mini.config.shared_width = 512;
  mini.config.experts = 256;
  mini.config.experts_per_token = 8;
  mini.config.expert_groups = 8;
  mini.config.groups_per_token = 4;
  mini.config.context_tokens = 32768;
  rs_memory_plan plan{};
  rs_error error{};
  CHECK_EQ(rs_cpu_backend()->plan_memory(mini.ready(), RS_WEIGHT_Q4, 32, RS_KV_BF16, &plan, &error), 0);
  std::printf("  mini, 4 bits: scratch %.0f MB, state %.0f MB, %.1f KB of keys and values a token\n",
              static_cast<double>(plan.scratch_bytes) / 1e6, static_cast<double>(plan.state_bytes) / 1e6,
              static_cast<double>(plan.kv_bytes_per_token) / 1e3);
  const ringside::cpu::Shape shape(*mini.ready());
  ringside::cpu::InputForms forms;
  forms.groups_of_32 = true;
  CHECK(ringside::cpu::Workspace::planned_bytes(shape, 2, forms) < 350'000'000);
  CHECK(plan.scratch_bytes + 2 * plan.state_bytes + 32768 * plan.kv_bytes_per_token < 1'200'000'000);
}

TEST("decoding after a long prompt gives the bits of reading") {
  random_model::Shape shape;
  random_model::Source source(12, RS_WEIGHT_BF16);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(5, 1200, shape.config.vocab_rows);
  Session whole = model.open();
  const Bits expected = whole.feed(ids, {1200});
  Session session = model.open();
  CHECK(same_bits(session.feed(ids, {1000, 1, 1, 1, 8, 9, 3, 1}), expected));
}

TEST("only wanted logits are written") {
  random_model::Shape shape;
  random_model::Source source(13, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source, 2);
  const auto vocab = static_cast<size_t>(shape.config.vocab_rows);
  const std::vector<int32_t> ids = random_model::tokens(6, 700, shape.config.vocab_rows);
  Session whole = model.open();
  const Bits all = whole.feed(ids, {700});
  Session session = model.open();
  CHECK_EQ(session.extend(ids.data(), 600, RS_LOGITS_NONE, nullptr, nullptr), 0);
  Bits last(vocab + 1, -7.0f);
  CHECK_EQ(session.extend(ids.data() + 600, 100, RS_LOGITS_LAST, last.data(), nullptr), 0);
  CHECK_EQ(last.back(), -7.0f);
  last.pop_back();
  CHECK(same_bits(last, Bits(all.end() - static_cast<std::ptrdiff_t>(vocab), all.end())));
}

TEST("restoring a snapshot and going on equals an uninterrupted run, and neither line disturbs the other") {
  random_model::Shape shape;
  random_model::Source source(14, RS_WEIGHT_Q8);
  Model model(rs_cpu_backend(), shape, source, 2);
  const auto vocab = static_cast<size_t>(shape.config.vocab_rows);
  for (const int64_t cut : {30, 64, 200, 256, 300, 700}) {
    const std::vector<int32_t> ids = random_model::tokens(8, 900, shape.config.vocab_rows);
    Session whole = model.open();
    const Bits expected = whole.feed(ids, {900});
    const Bits expected_norms = whole.norms(model.norm_count());

    Session first = model.open();
    (void)first.feed(std::vector<int32_t>(ids.begin(), ids.begin() + cut), {cut});
    rs_snapshot* snapshot = model.save(first);
    const int64_t boundary = cut / 64 * 64;
    CHECK_EQ(rs_cpu_backend()->snapshot_position(snapshot), boundary);
    CHECK(rs_cpu_backend()->snapshot_bytes(snapshot) > 0);

    // The first session goes on along other tokens before the snapshot is used, and along its own afterwards.
    Session other = model.restore(snapshot);
    CHECK_EQ(other.position(), boundary);
    (void)other.feed(random_model::tokens(9, 400, shape.config.vocab_rows), {150});
    const std::vector<int32_t> rest(ids.begin() + boundary, ids.end());
    const Bits expected_rest(expected.begin() + boundary * static_cast<int64_t>(vocab), expected.end());
    Session second = model.restore(snapshot);
    CHECK(same_bits(second.feed(rest, {77}), expected_rest));
    CHECK(same_bits(second.norms(model.norm_count()), expected_norms));
    const Bits tail = first.feed(std::vector<int32_t>(ids.begin() + cut, ids.end()), {50});
    CHECK(same_bits(tail, Bits(expected.begin() + cut * static_cast<int64_t>(vocab), expected.end())));
    rs_cpu_backend()->drop(snapshot);
  }
}

TEST("a snapshot belongs to its model") {
  random_model::Shape shape;
  random_model::Source source(14, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source);
  Model other(rs_cpu_backend(), shape, source);
  Session session = model.open();
  rs_snapshot* snapshot = model.save(session);
  rs_session* restored = nullptr;
  rs_error error{};
  CHECK_EQ(rs_cpu_backend()->restore(other.get(), snapshot, &restored, &error), -1);
  CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kStateInvalid));
  rs_cpu_backend()->drop(snapshot);
}

TEST("accept cuts rows off the open chunk as if they had never been read") {
  random_model::Shape shape;
  random_model::Source source(15, RS_WEIGHT_Q8);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(10, 400, shape.config.vocab_rows);
  const std::vector<int32_t> drafts = random_model::tokens(11, 40, shape.config.vocab_rows);
  Session whole = model.open();
  const Bits expected = whole.feed(ids, {400});
  const auto vocab = static_cast<int64_t>(shape.config.vocab_rows);

  Session session = model.open();
  (void)session.feed(std::vector<int32_t>(ids.begin(), ids.begin() + 263), {263});
  (void)session.feed(drafts, {13});  // ends inside the chunk that begins at 256
  CHECK_EQ(session.accept(255), -1);
  CHECK_EQ(session.error.kind, static_cast<int32_t>(ErrorKind::kArgumentInvalid));
  CHECK_EQ(session.accept(304), -1);
  CHECK_EQ(session.accept(263), 0);
  CHECK_EQ(session.position(), 263);
  const Bits rest = session.feed(std::vector<int32_t>(ids.begin() + 263, ids.end()), {137});
  CHECK(same_bits(rest, Bits(expected.begin() + 263 * vocab, expected.end())));
}

namespace {

struct Countdown {  // cancels at the n-th question
  int64_t left;
  int64_t last_advanced = 0;
  rs_poll poll() {
    return {this, [](void* context) { return static_cast<Countdown*>(context)->left-- <= 0 ? 1 : 0; },
            [](void* context, int64_t position) { static_cast<Countdown*>(context)->last_advanced = position; }};
  }
};

}  // namespace

TEST("a cancelled call leaves a position it had passed, and going on gives the bits of an uninterrupted run") {
  random_model::Shape shape;
  random_model::Source source(16, RS_WEIGHT_Q8);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(12, 1500, shape.config.vocab_rows);
  Session whole = model.open();
  const Bits expected = whole.feed(ids, {1500});
  const Bits expected_norms = whole.norms(model.norm_count());
  const auto vocab = static_cast<int64_t>(shape.config.vocab_rows);
  random_model::Random random(17);
  int cancelled = 0;
  for (int round = 0; round < 30; ++round) {
    Session session = model.open();
    const int64_t start = random.below(200);
    if (start > 0) (void)session.feed(std::vector<int32_t>(ids.begin(), ids.begin() + start), {start});
    Countdown countdown{random.below(round < 5 ? 3 : 600)};
    const rs_poll poll = countdown.poll();
    Bits discarded(static_cast<size_t>((1500 - start) * vocab));
    const int32_t outcome = session.extend(ids.data() + start, 1500 - start, RS_LOGITS_ALL, discarded.data(), &poll);
    const int64_t kept = session.position();
    if (outcome != 0) {
      ++cancelled;
      CHECK_EQ(session.error.kind, static_cast<int32_t>(ErrorKind::kCancelled));
      CHECK(kept == std::max(start, countdown.last_advanced));
    }
    if (kept == 1500) continue;
    const Bits rest = session.feed(std::vector<int32_t>(ids.begin() + kept, ids.end()), {97});
    CHECK(same_bits(rest, Bits(expected.begin() + kept * vocab, expected.end())));
    CHECK(same_bits(session.norms(model.norm_count()), expected_norms));
  }
  CHECK(cancelled >= 10);
}

TEST("bad arguments are refused by kind and leave the session alone") {
  random_model::Shape shape;
  shape.config.context_tokens = 100;
  random_model::Source source(18, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source);
  Session session = model.open();
  const std::vector<int32_t> ids = random_model::tokens(13, 101, shape.config.vocab_rows);
  const auto refused = [&](const std::vector<int32_t>& given, ErrorKind kind) {
    CHECK_EQ(session.extend(given.data(), static_cast<int64_t>(given.size()), RS_LOGITS_NONE, nullptr, nullptr), -1);
    CHECK_EQ(session.error.kind, static_cast<int32_t>(kind));
    CHECK_EQ(session.position(), 0);
  };
  refused({}, ErrorKind::kArgumentInvalid);
  refused(ids, ErrorKind::kContextFull);
  refused({0, shape.config.vocab_rows}, ErrorKind::kTokenOutOfRange);
  refused({-1}, ErrorKind::kTokenOutOfRange);

  const auto load_refused = [&](int32_t threads, const char* isa, ErrorKind kind) {
    const rs_load_options options{threads, isa, RS_KV_F32, nullptr, nullptr, 0, -1};
    rs_model* loaded = nullptr;
    rs_error error{};
    CHECK_EQ(rs_cpu_backend()->load(shape.ready(), &source.table, &options, &loaded, &error), -1);
    CHECK_EQ(error.kind, static_cast<int32_t>(kind));
    CHECK(loaded == nullptr);
  };
  load_refused(1, "avx1024", ErrorKind::kArgumentInvalid);
  load_refused(-1, "", ErrorKind::kArgumentInvalid);
  load_refused(100000, "", ErrorKind::kArgumentInvalid);
}

TEST("loading reports progress up to 1 and stops when told to") {
  random_model::Shape shape;
  random_model::Source source(19, RS_WEIGHT_BF16);
  float last = 0.0f;
  rs_load_options options{1,
                          "",
                          RS_KV_F32,
                          &last,
                          [](void* context, float fraction) {
                            float& before = *static_cast<float*>(context);
                            CHECK(fraction > before);
                            before = fraction;
                            return 0;
                          },
                          0,
                          -1};
  rs_model* model = nullptr;
  rs_error error{};
  CHECK_EQ(rs_cpu_backend()->load(shape.ready(), &source.table, &options, &model, &error), 0);
  CHECK_EQ(last, 1.0f);
  CHECK(rs_cpu_backend()->weight_bytes(model) > 0);
  rs_memory_plan plan{};
  CHECK_EQ(rs_cpu_backend()->plan_memory(shape.ready(), RS_WEIGHT_BF16, 0, RS_KV_F32, &plan, &error), 0);
  // The arena rounds each matrix up to a cache line.
  CHECK(std::abs(static_cast<double>(plan.weight_bytes - rs_cpu_backend()->weight_bytes(model))) <
        0.02 * static_cast<double>(plan.weight_bytes));
  rs_cpu_backend()->unload(model);

  options.progress = [](void*, float fraction) { return fraction > 0.5f ? 1 : 0; };
  model = nullptr;
  CHECK_EQ(rs_cpu_backend()->load(shape.ready(), &source.table, &options, &model, &error), -1);
  CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kCancelled));
}
