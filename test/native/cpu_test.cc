// Owns: the CPU backend as a whole: agreement with the reference, and equal bits however the work is cut (house rule
// 3a).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "error.h"
#include "model/backend.h"
#include "model/checkpoint.h"
#include "random_model.h"

namespace {

using ringside::ErrorKind;
using Bits = std::vector<float>;

static_assert(RS_WEIGHT_F32 == static_cast<int>(ringside::WeightFormat::kF32));
static_assert(RS_WEIGHT_BF16 == static_cast<int>(ringside::WeightFormat::kBF16));
static_assert(RS_WEIGHT_Q8 == static_cast<int>(ringside::WeightFormat::kQ8));

bool same_bits(const Bits& a, const Bits& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class Session {
 public:
  Session(const rs_backend* backend, rs_session* session, int64_t vocab)
      : backend_(backend), session_(session), vocab_(vocab) {}
  Session(Session&& other) noexcept : backend_(other.backend_), session_(other.session_), vocab_(other.vocab_) {
    other.session_ = nullptr;
  }
  ~Session() {
    if (session_ != nullptr) backend_->close(session_);
  }

  // Logits of every position; feeds `ids` in pieces of the given lengths, the last length repeating.
  Bits feed(const std::vector<int32_t>& ids, const std::vector<int64_t>& lengths) {
    Bits logits(ids.size() * static_cast<size_t>(vocab_));
    size_t piece = 0;
    for (size_t done = 0; done < ids.size();) {
      const size_t count =
          std::min(ids.size() - done, static_cast<size_t>(lengths[std::min(piece, lengths.size() - 1)]));
      float* to = logits.data() + done * static_cast<size_t>(vocab_);
      CHECK_EQ(extend(ids.data() + done, static_cast<int64_t>(count), RS_LOGITS_ALL, to, nullptr), 0);
      done += count;
      ++piece;
    }
    return logits;
  }
  int32_t extend(const int32_t* ids, int64_t count, rs_logits want, float* logits, const rs_poll* poll) {
    error = {};
    return backend_->extend(session_, ids, count, want, logits, poll, &error);
  }
  Bits norms(int64_t count) {
    Bits out(static_cast<size_t>(count));
    CHECK_EQ(backend_->state_norms(session_, out.data(), &error), 0);
    return out;
  }
  int64_t position() const { return backend_->position(session_); }
  int64_t bytes() const { return backend_->session_bytes(session_); }
  int32_t accept(int64_t keep) { return backend_->accept(session_, keep, &error); }
  rs_session* get() { return session_; }

  rs_error error{};

 private:
  const rs_backend* backend_;
  rs_session* session_;
  int64_t vocab_;
};

class Model {
 public:
  Model(const rs_backend* backend, random_model::Shape& shape, random_model::Source& source, int32_t threads = 1,
        const char* isa = "")
      : backend_(backend), vocab_(shape.config.vocab_rows) {
    const rs_load_options options{threads, isa, RS_KV_F32, nullptr, nullptr};
    rs_error error{};
    CHECK_EQ(backend->load(shape.ready(), &source.table, &options, &model_, &error), 0);
    for (int32_t i = 0; i < shape.config.layers; ++i) {
      const bool is_softmax =
          (i + 1) % shape.config.group == 0 || i >= shape.config.layers / shape.config.group * shape.config.group;
      norms_ += is_softmax ? 0 : shape.config.heads;
    }
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() { backend_->unload(model_); }

  Session open() {
    rs_session* session = nullptr;
    rs_error error{};
    CHECK_EQ(backend_->open(model_, &session, &error), 0);
    return Session(backend_, session, vocab_);
  }
  Session restore(const rs_snapshot* snapshot) {
    rs_session* session = nullptr;
    rs_error error{};
    CHECK_EQ(backend_->restore(model_, snapshot, &session, &error), 0);
    return Session(backend_, session, vocab_);
  }
  rs_snapshot* save(Session& session) {
    rs_snapshot* snapshot = nullptr;
    rs_error error{};
    CHECK_EQ(backend_->save(session.get(), &snapshot, &error), 0);
    return snapshot;
  }
  int64_t norm_count() const { return norms_; }
  rs_model* get() { return model_; }

 private:
  const rs_backend* backend_;
  rs_model* model_ = nullptr;
  int64_t vocab_;
  int64_t norms_ = 0;
};

// Largest difference of each row over the standard deviation of the reference's values.
std::vector<double> row_errors(const Bits& got, const Bits& truth, int64_t columns) {
  double squares = 0.0;
  for (const float value : truth) squares += static_cast<double>(value) * value;
  const double deviation = std::sqrt(squares / static_cast<double>(truth.size()));
  std::vector<double> errors(truth.size() / static_cast<size_t>(columns));
  for (size_t i = 0; i < truth.size(); ++i) {
    double& worst = errors[i / static_cast<size_t>(columns)];
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - truth[i]) / deviation);
  }
  return errors;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const auto* table : ringside::cpu::available_kernels()) names.push_back(table->isa);
  return names;
}

void compare_with_reference(random_model::Shape& shape, rs_weight_format format, int64_t count, double bound) {
  random_model::Source source(7, format);
  const std::vector<int32_t> ids = random_model::tokens(3, count, shape.config.vocab_rows);
  Model reference(rs_reference_backend(), shape, source);
  Session truth = reference.open();
  const Bits expected = truth.feed(ids, {count});
  const Bits expected_norms = truth.norms(reference.norm_count());
  for (const std::string& isa : isas()) {
    Model model(rs_cpu_backend(), shape, source, 2, isa.c_str());
    Session session = model.open();
    const Bits logits = session.feed(ids, {count});
    const std::vector<double> errors = row_errors(logits, expected, shape.config.vocab_rows);
    // A near-tie of the router may fall the other way after rounding; that row then differs (specification section 5).
    const auto off = std::count_if(errors.begin(), errors.end(), [&](double error) { return error > bound; });
    const std::vector<double> norm_errors = row_errors(session.norms(model.norm_count()), expected_norms, 1);
    const double norm_error = *std::max_element(norm_errors.begin(), norm_errors.end());
    std::printf("  %s: %d of %d rows off, state norms off by %.1e\n", isa.c_str(), static_cast<int>(off),
                static_cast<int>(errors.size()), norm_error);
    CHECK(static_cast<double>(off) <= 0.03 * static_cast<double>(errors.size()));
    CHECK(norm_error <= bound);
  }
}

constexpr double kRounding = 1e-3;   // of fp32 against float64 over a few layers
constexpr double kInt8Inputs = 0.1;  // of activations in 8 bits, which the reference does not round

}  // namespace

TEST("small random models agree with the reference on every instruction set and weight format") {
  for (const rs_weight_format format : {RS_WEIGHT_F32, RS_WEIGHT_BF16, RS_WEIGHT_Q8}) {
    random_model::Shape shape;
    compare_with_reference(shape, format, 300, format == RS_WEIGHT_Q8 ? kInt8Inputs : kRounding);
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
  compare_with_reference(shape, RS_WEIGHT_BF16, 200, kRounding);

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
  compare_with_reference(narrow, RS_WEIGHT_F32, 150, kRounding);
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
    const rs_load_options options{threads, isa, RS_KV_F32, nullptr, nullptr};
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
  rs_load_options options{1, "", RS_KV_F32, &last, [](void* context, float fraction) {
                            float& before = *static_cast<float*>(context);
                            CHECK(fraction > before);
                            before = fraction;
                            return 0;
                          }};
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
