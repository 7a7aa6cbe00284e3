// Owns: the proof of the slow truth: it gives the stored goldens digit for digit, and hand-made cases of the rules that
// a random model hardly meets.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "check.h"
#include "error.h"
#include "golden_cases.h"
#include "model/backend.h"
#include "model/checkpoint_lending.h"
#include "random_model.h"
#include "reference/forward.h"
#include "reference/load.h"

namespace {

using namespace ringside;

std::unique_ptr<reference::Weights> load(const std::string& folder) {
  auto checkpoint = Checkpoint::open(folder);
  if (!checkpoint) {
    check::fail(__FILE__, __LINE__, checkpoint.error().message());
    return nullptr;
  }
  const PlainConfig config(checkpoint.value()->config());
  WeightLender lender(*checkpoint.value());
  auto weights = reference::load_weights(*config.get(), lender.source(), {});
  if (!weights) {
    check::fail(__FILE__, __LINE__, weights.error().message());
    return nullptr;
  }
  return std::move(weights).value();
}

void check_position(const golden::Case& expected, size_t i, const std::vector<double>& logits) {
  const int32_t best = golden::argmax(logits.data(), logits.size());
  CHECK_EQ(best, expected.argmax[i]);
  double second = -std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (static_cast<int32_t>(id) != best) second = std::max(second, logits[id]);
  }
  CHECK(golden::agrees(logits[static_cast<size_t>(best)] - second, expected.margin[i], 4));
  CHECK(golden::agrees(golden::logprob(logits.data(), logits.size(), expected.following(i)), expected.logprob[i], 9));
}

void check_goldens(const std::string& name) {
  const auto weights = load(std::string(RS_GOLDEN_DIR) + "/" + name);
  if (weights == nullptr) return;
  for (const golden::Case& expected : golden::read_cases(name)) {
    reference::Memory memory = reference::empty_memory(weights->config);
    reference::Forward forward(*weights, memory, nullptr);
    std::vector<double> logits(static_cast<size_t>(weights->config.vocab_rows));
    for (size_t i = 0; i < expected.ids.size(); ++i) {
      CHECK(forward.step(expected.ids[i], logits));
      check_position(expected, i, logits);
    }
    CHECK_EQ(logits.size(), expected.last_logits.size());
    for (size_t id = 0; id < logits.size(); ++id) {
      // The stored logits were fp32 numbers before they were rounded to seven digits.
      CHECK(golden::agrees(static_cast<double>(static_cast<float>(logits[id])), expected.last_logits[id], 7));
    }
    const std::vector<double> norms = reference::state_norms(weights->config, memory);
    CHECK_EQ(norms.size(), expected.state_norm.size());
    for (size_t i = 0; i < norms.size(); ++i) CHECK(golden::agrees(norms[i], expected.state_norm[i], 9));
  }
}

TEST("reference: tiny-tail, every stored digit") { check_goldens("tiny-tail"); }
TEST("reference: tiny-silu, every stored digit") { check_goldens("tiny-silu"); }

TEST("a stored number agrees with what rounds to it and with nothing else") {
  CHECK(golden::agrees(12.61950214, 12.6195021, 9));
  CHECK(!golden::agrees(12.6195022, 12.6195021, 9));
  CHECK(golden::agrees(-0.084667114, -0.08466711, 7));
  CHECK(!golden::agrees(0.08466711, -0.08466711, 7));
  CHECK(!golden::agrees(NAN, 1.0, 7));
}

Config shaped(int32_t layers, int32_t group, int32_t heads, SlopeForm form) {
  Config config{};
  config.layers = layers;
  config.group = group;
  config.heads = heads;
  config.slope_form = form;
  return config;
}

// F(i) of the table in specification section 3.4, read off the head whose base slope is exactly 1/2.
double slope_factor(int32_t layers, int32_t group, int32_t heads, SlopeForm form, int32_t layer) {
  const int32_t half_head = heads == 16 ? 1 : 3;
  return 2.0 * static_cast<double>(shaped(layers, group, heads, form).slope(layer, half_head));
}

TEST("slopes: the table of forms A, B and C") {
  struct Row {
    int32_t layers, group, heads, layer;
    double a, b, c;
  };
  const Row rows[] = {
      {20, 5, 16, 0, 1.00001, 1.052641579, 1.00001},          {20, 5, 16, 1, 0.947378421, 1.00001, 1.00001},
      {20, 5, 16, 8, 0.578957368, 0.631588947, 0.631588947},  {20, 5, 16, 17, 0.105273158, 0.157904737, 0.157904737},
      {20, 5, 16, 18, 0.052641579, 0.105273158, 0.105273158}, {32, 8, 32, 0, 1.00001, 1.032268065, 1.00001},
      {32, 8, 32, 1, 0.967751935, 1.00001, 1.00001},          {32, 8, 32, 29, 0.064526129, 0.096784194, 0.096784194},
      {32, 8, 32, 30, 0.032268065, 0.064526129, 0.064526129}, {1, 2, 16, 0, 1.00001, 1.00001, 1.00001},
  };
  for (const Row& row : rows) {
    const auto factor = [&](SlopeForm form) { return slope_factor(row.layers, row.group, row.heads, form, row.layer); };
    // The slopes are fp32 numbers: seven digits.
    CHECK(std::fabs(factor(SlopeForm::kA) - row.a) < 1.2e-7);
    CHECK(std::fabs(factor(SlopeForm::kB) - row.b) < 1.2e-7);
    CHECK(std::fabs(factor(SlopeForm::kC) - row.c) < 1.2e-7);
  }
}

TEST("slopes: base series for powers of two and for other counts") {
  const double mini[] = {0.70710678, 0.5,     0.35355339, 0.25,     0.17677670, 0.125,     0.08838835, 0.0625,
                         0.04419417, 0.03125, 0.02209709, 0.015625, 0.01104854, 0.0078125, 0.00552427, 0.00390625};
  const Config config = shaped(20, 5, 16, SlopeForm::kA);
  for (int32_t head = 0; head < 16; ++head) {
    CHECK(std::fabs(static_cast<double>(config.slope(0, head)) / 1.00001 - mini[head]) < 5e-9 + 1e-7 * mini[head]);
  }
  // Six heads: the four slopes of 4, then every second one of 8.
  const double six[] = {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125};
  const Config odd = shaped(6, 3, 6, SlopeForm::kA);
  for (int32_t head = 0; head < 6; ++head) {
    CHECK(std::fabs(static_cast<double>(odd.slope(0, head)) / 1.00001 - six[head]) < 1e-7 * six[head]);
  }
  CHECK(std::fabs(std::exp(-static_cast<double>(config.slope(0, 0))) - 0.493065) < 5e-7);
  CHECK(std::fabs(std::exp(-static_cast<double>(config.slope(18, 15))) - 0.999794) < 5e-7);
}

TEST("slopes: the reference's own, rounded, are those of the configuration") {
  for (const int32_t heads : {1, 4, 6, 16, 32}) {
    for (const SlopeForm form : {SlopeForm::kA, SlopeForm::kB, SlopeForm::kC}) {
      const Config config = shaped(7, 3, heads, form);
      rs_config plain{};
      plain.layers = 7;
      plain.heads = heads;
      plain.slope_form = static_cast<int32_t>(form);
      for (int32_t layer = 0; layer < 7; ++layer) {
        for (int32_t head = 0; head < heads; ++head) {
          const double own = reference::slope(plain, layer, head);
          CHECK(std::fabs(own - static_cast<double>(config.slope(layer, head))) <= 6.1e-8 * own);
        }
      }
    }
  }
}

std::vector<int32_t> softmax_layers(int32_t layers, int32_t group) {
  rs_config config{};
  config.layers = layers;
  config.group = group;
  std::vector<int32_t> found;
  for (int32_t layer = 0; layer < layers; ++layer) {
    if (reference::is_softmax(config, layer)) found.push_back(layer);
  }
  CHECK_EQ(reference::linear_layers(config), layers - static_cast<int32_t>(found.size()));
  return found;
}

TEST("layers: the last of each group is softmax, and so is a trailing incomplete group") {
  CHECK(softmax_layers(20, 5) == (std::vector<int32_t>{4, 9, 14, 19}));
  CHECK(softmax_layers(32, 8) == (std::vector<int32_t>{7, 15, 23, 31}));
  CHECK(softmax_layers(7, 3) == (std::vector<int32_t>{2, 5, 6}));
  CHECK(softmax_layers(8, 3) == (std::vector<int32_t>{2, 5, 6, 7}));
  CHECK(softmax_layers(2, 3) == (std::vector<int32_t>{0, 1}));
}

rs_config router_shape(int32_t experts, int32_t groups, int32_t kept_groups, int32_t chosen) {
  rs_config config{};
  config.experts = experts;
  config.expert_groups = groups;
  config.groups_per_token = kept_groups;
  config.experts_per_token = chosen;
  config.routed_scale = 2.5f;
  return config;
}

TEST("router: equal scores go to the lower index, for groups and for experts") {
  const auto chosen = reference::route(router_shape(8, 4, 2, 3), std::vector<double>(8, 0.0), {});
  CHECK(chosen.experts == (std::vector<int32_t>{0, 1, 2}));
  for (const double weight : chosen.weights) CHECK(std::fabs(weight - 2.5 / 3.0) < 1e-15);
}

TEST("router: a group is scored by its two largest, and closed groups stay closed") {
  // Group 1 has the largest single expert, but groups 0 and 2 have the larger pairs.
  const std::vector<double> logits = {1.0, 1.0, 3.0, -9.0, 1.1, 1.1, -9.0, -9.0};
  const auto chosen = reference::route(router_shape(8, 4, 2, 2), logits, {});
  CHECK(chosen.experts == (std::vector<int32_t>{4, 5}));
  // With every c of the open group below zero a mask of 0 would let the closed ones in; -inf does not.
  const std::vector<float> bias = {-2.0f, -2.0f, -3.0f, -3.0f, -3.0f, -3.0f, -3.0f, -3.0f};
  const auto low = reference::route(router_shape(8, 4, 1, 2), std::vector<double>(8, 0.0), bias);
  CHECK(low.experts == (std::vector<int32_t>{0, 1}));
}

TEST("router: the bias chooses and does not weigh") {
  const std::vector<double> logits = {0.0, 2.0, 1.0, -1.0};
  const std::vector<float> bias = {0.0f, -1.0f, 0.0f, 0.6f};
  const auto chosen = reference::route(router_shape(4, 1, 1, 2), logits, bias);
  CHECK(chosen.experts == (std::vector<int32_t>{3, 2}));
  const auto s = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
  CHECK(std::fabs(chosen.weights[0] - 2.5 * s(-1.0) / (s(-1.0) + s(1.0))) < 1e-15);
  CHECK(std::fabs(std::accumulate(chosen.weights.begin(), chosen.weights.end(), 0.0) - 2.5) < 1e-14);
}

TEST("softmax: large scores do not overflow") {
  std::vector<double> scores = {1000.0, 1000.0, -1000.0};
  reference::softmax(scores);
  CHECK_EQ(scores[0], 0.5);
  CHECK_EQ(scores[1], 0.5);
  CHECK_EQ(scores[2], 0.0);
}

// The table over a random model: what every backend owes its callers.
class TableSession {
 public:
  TableSession() {
    rs_load_options options{};
    CHECK_EQ(table.load(shape.ready(), &source.table, &options, &model, &error), 0);
    CHECK_EQ(table.open(model, &session, &error), 0);
  }
  ~TableSession() {
    table.close(session);
    table.unload(model);
  }
  std::vector<float> feed(const std::vector<int32_t>& ids) {
    std::vector<float> logits(ids.size() * static_cast<size_t>(shape.config.vocab_rows));
    CHECK_EQ(table.extend(session, ids.data(), static_cast<int64_t>(ids.size()), RS_LOGITS_ALL, logits.data(), nullptr,
                          &error),
             0);
    return logits;
  }
  std::vector<float> norms() {
    std::vector<float> out(static_cast<size_t>(reference::linear_layers(shape.config) * shape.config.heads));
    CHECK_EQ(table.state_norms(session, out.data(), &error), 0);
    return out;
  }

  const rs_backend& table = *rs_reference_backend();
  random_model::Shape shape;
  random_model::Source source{11, RS_WEIGHT_F32};
  rs_model* model = nullptr;
  rs_session* session = nullptr;
  rs_error error{};
};

std::vector<int32_t> part(const std::vector<int32_t>& ids, size_t from, size_t to) {
  return {ids.begin() + static_cast<int64_t>(from), ids.begin() + static_cast<int64_t>(to)};
}

bool ends_with(const std::vector<float>& all, const std::vector<float>& end) {
  return std::equal(end.rbegin(), end.rend(), all.rbegin());
}

TEST("table: rows cut off the open chunk leave no trace") {
  const auto ids = random_model::tokens(1, 300, 97);
  TableSession straight;
  const auto all = straight.feed(ids);
  for (const int64_t keep : {int64_t{256}, int64_t{257}, int64_t{270}, int64_t{299}}) {
    TableSession cut;
    cut.feed(part(ids, 0, static_cast<size_t>(keep)));
    cut.feed(random_model::tokens(2, std::min<int64_t>(9, 319 - keep), 97));
    CHECK_EQ(cut.table.accept(cut.session, keep, &cut.error), 0);
    CHECK_EQ(cut.table.position(cut.session), keep);
    CHECK(ends_with(all, cut.feed(part(ids, static_cast<size_t>(keep), 300))));
    CHECK(cut.norms() == straight.norms());
  }
  CHECK_EQ(straight.table.accept(straight.session, 255, &straight.error), -1);
  CHECK_EQ(straight.error.kind, static_cast<int32_t>(ErrorKind::kArgumentInvalid));
  CHECK_EQ(straight.table.accept(straight.session, 301, &straight.error), -1);
}

TEST("table: a restored snapshot goes on as if nothing had happened, and does not disturb the first session") {
  const auto ids = random_model::tokens(3, 300, 97);
  TableSession straight;
  const auto all = straight.feed(ids);
  TableSession saved;
  saved.feed(part(ids, 0, 150));
  rs_snapshot* snapshot = nullptr;
  CHECK_EQ(saved.table.save(saved.session, &snapshot, &saved.error), 0);
  CHECK_EQ(saved.table.snapshot_position(snapshot), int64_t{128});
  CHECK(saved.table.snapshot_bytes(snapshot) > 0);
  // Both write to the page that they share.
  rs_session* second = nullptr;
  CHECK_EQ(saved.table.restore(saved.model, snapshot, &second, &saved.error), 0);
  saved.table.drop(snapshot);
  std::swap(saved.session, second);
  const auto others = random_model::tokens(4, 60, 97);
  saved.feed(others);
  std::swap(saved.session, second);
  CHECK(ends_with(all, saved.feed(part(ids, 150, 300))));
  saved.table.close(second);
}

TEST("table: a cancel in the middle of a token leaves the session at the token before") {
  TableSession straight;
  const auto ids = random_model::tokens(5, 900, 97);
  const auto all = straight.feed(ids);
  TableSession stopped;
  int32_t questions = 0;
  rs_poll poll{&questions, [](void* context) -> int32_t { return ++*static_cast<int32_t*>(context) >= 3 ? 1 : 0; },
               nullptr};
  std::vector<float> logits(97);
  CHECK_EQ(stopped.table.extend(stopped.session, ids.data(), 900, RS_LOGITS_LAST, logits.data(), &poll, &stopped.error),
           -1);
  CHECK_EQ(stopped.error.kind, static_cast<int32_t>(ErrorKind::kCancelled));
  const int64_t reached = stopped.table.position(stopped.session);
  CHECK(reached > 0 && reached < 900);
  CHECK(ends_with(all, stopped.feed(part(ids, static_cast<size_t>(reached), 900))));
  CHECK(stopped.norms() == straight.norms());
}

TEST("table: bad tokens and a full context are refused before anything is read") {
  TableSession one;
  float logits[97];
  const auto kind_of = [&](std::vector<int32_t> ids) {
    one.error = {};
    CHECK_EQ(one.table.extend(one.session, ids.data(), static_cast<int64_t>(ids.size()), RS_LOGITS_LAST, logits,
                              nullptr, &one.error),
             -1);
    return static_cast<ErrorKind>(one.error.kind);
  };
  CHECK(kind_of({1, 97}) == ErrorKind::kTokenOutOfRange);
  CHECK_EQ(std::string(one.error.actual), "97");
  CHECK(kind_of({-1}) == ErrorKind::kTokenOutOfRange);
  CHECK(kind_of(std::vector<int32_t>(8193, 1)) == ErrorKind::kContextFull);
  CHECK(kind_of({}) == ErrorKind::kArgumentInvalid);
  CHECK_EQ(one.table.position(one.session), int64_t{0});
}

TEST("load: a format that nobody knows and a cancel are errors, not crashes") {
  const rs_backend& table = *rs_reference_backend();
  random_model::Shape shape;
  random_model::Source source(1, RS_WEIGHT_BF16);
  rs_error error{};
  rs_model* model = nullptr;
  rs_load_options cancelled{0, "", RS_KV_BF16, nullptr, [](void*, float) -> int32_t { return 1; }, 0, -1};
  CHECK_EQ(table.load(shape.ready(), &source.table, &cancelled, &model, &error), -1);
  CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kCancelled));

  rs_weight_source odd = source.table;
  static decltype(odd.read_matrix) inner;
  inner = odd.read_matrix;
  odd.read_matrix = [](void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out, rs_error* why) {
    const int32_t outcome = inner(context, base, rows, cols, out, why);
    out->format = 77;
    return outcome;
  };
  rs_load_options plain{};
  CHECK_EQ(table.load(shape.ready(), &odd, &plain, &model, &error), -1);
  CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kTensorDtype));
  CHECK_EQ(std::string(error.actual), "77");
}

TEST("load: 8-bit weights are their values times their scales") {
  random_model::Shape shape;
  random_model::Source source(9, RS_WEIGHT_Q8, 16);
  const auto weights = reference::load_weights(*shape.ready(), source.table, {});
  CHECK(weights.ok());
  if (!weights) return;
  const reference::Weight& dense = weights.value()->layers[0].dense;
  rs_matrix matrix{};
  rs_error error{};
  CHECK_EQ(source.table.read_matrix(source.table.context, "model.layers.0.attention.dense", dense.rows, dense.cols,
                                    &matrix, &error),
           0);
  CHECK_EQ(matrix.format, static_cast<int32_t>(RS_WEIGHT_Q8));
  const auto* q = static_cast<const int8_t*>(matrix.data);
  for (int64_t row = 0; row < dense.rows; ++row) {
    for (int64_t col = 0; col < dense.cols; ++col) {
      const float scale = matrix.scales[row * (dense.cols / matrix.group_columns) + col / matrix.group_columns];
      CHECK_EQ(dense.values[static_cast<size_t>(row * dense.cols + col)],
               static_cast<float>(q[row * dense.cols + col]) * scale);
    }
  }
  source.table.release(source.table.context, &matrix);
}

}  // namespace
