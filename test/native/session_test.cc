// Owns: what a session promises to its caller: which tokens it keeps, that no cut of the calls changes a bit (house
// rule 3a), and that a cancel, a bad token or a full context leave it in order. Runs on the tiny model with trailing
// softmax.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "engine.h"
#include "golden_cases.h"
#include "random_model.h"
#include "synthetic_tokenizer.h"
#include "temp_folder.h"

namespace {

using namespace ringside;
using Ids = std::vector<int32_t>;

const std::string kTiny = std::string(RS_GOLDEN_DIR) + "/tiny-tail";
constexpr int32_t kVocab = 512;
const std::function<void(int64_t)> kSilent = [](int64_t) {};

std::shared_ptr<Model> load(const std::string& folder, const std::string& backend = "cpu") {
  LoadOptions options;
  options.folder = folder;
  options.backend = backend;
  auto model = Model::load(options);
  if (model.ok()) return std::move(model).value();
  check::fail(__FILE__, __LINE__, model.error().message());
  std::exit(1);  // every test here needs one
}

const std::shared_ptr<Model>& tiny() {
  static const std::shared_ptr<Model> model = load(kTiny);
  return model;
}

std::unique_ptr<Session> open(const std::shared_ptr<Model>& model = tiny()) {
  auto session = Session::open(model);
  CHECK(session.ok());
  return session.ok() ? std::move(session).value() : nullptr;
}

Ids random_ids(uint64_t seed, int64_t count) { return random_model::tokens(seed, count, kVocab); }
Ids first(const Ids& ids, size_t count) { return {ids.begin(), ids.begin() + static_cast<int64_t>(count)}; }
Ids operator+(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Ids held(const Session& session) { return {session.tokens().begin(), session.tokens().end()}; }

int64_t sync(Session& session, const Ids& prompt, const std::vector<std::shared_ptr<Snapshot>>& snapshots = {}) {
  CancelFlag cancel;
  const auto reused = session.sync(prompt, snapshots, cancel, kSilent);
  if (!reused.ok()) {
    check::fail(__FILE__, __LINE__, reused.error().message());
    return -1;
  }
  CHECK(held(session) == prompt);
  return reused.value();
}

std::shared_ptr<Snapshot> snapshot(Session& session) {
  auto saved = session.snapshot();
  CHECK(saved.ok());
  return saved.ok() ? std::move(saved).value() : nullptr;
}

struct Generated {
  Ids ids;
  StopReason reason = StopReason::kCancelled;
};

Generated generate(Session& session, int64_t max_tokens, const SamplerOptions& sampler = {}, const Ids& stops = {}) {
  Generated out;
  CancelFlag cancel;
  const auto done = session.generate({max_tokens, sampler, stops}, cancel, [&](int32_t id) {
    out.ids.push_back(id);
    return true;
  });
  CHECK(done.ok());
  if (!done.ok()) return out;
  CHECK_EQ(done.value().tokens, static_cast<int64_t>(out.ids.size()));
  out.reason = done.value().reason;
  return out;
}

std::vector<float> logits(Session& session, const Ids& ids) {
  CancelFlag cancel;
  auto out = session.logits(ids, cancel);
  CHECK(out.ok());
  return out.ok() ? std::move(out).value() : std::vector<float>();
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> norms(const Session& session) {
  auto out = session.state_norms();
  CHECK(out.ok());
  return out.ok() ? std::move(out).value() : std::vector<float>();
}

// Two sessions are equal when they hold the same tokens and all that follows has the same bits.
void check_equal(Session& a, Session& b) {
  CHECK(held(a) == held(b));
  CHECK(same_bits(norms(a), norms(b)));
  const Ids more = random_ids(99, 70);
  CHECK(same_bits(logits(a, more), logits(b, more)));
}

// A copy of the tiny model with one setting of config.json changed.
void copy_tiny(const TempFolder& folder, const std::string& setting, const std::string& value) {
  std::filesystem::copy_file(kTiny + "/model.safetensors", folder / "model.safetensors");
  std::string config = file_content(kTiny + "/config.json");
  const size_t at = config.find("\"" + setting + "\": ");
  CHECK(at != std::string::npos);
  const size_t from = config.find(": ", at) + 2;
  config.replace(from, config.find_first_of(",\n}", from) - from, value);
  put_file(folder / "config.json", config);
}

TEST("load: what the model says about itself") {
  const ModelInfo& info = tiny()->info();
  CHECK_EQ(info.folder, kTiny);
  CHECK_EQ(info.layout, std::string("bf16"));
  CHECK_EQ(info.backend, std::string("cpu"));
  CHECK_EQ(info.vocab_rows, kVocab);
  CHECK_EQ(info.vocab, kVocab);  // no tokenizer.json
  CHECK(tiny()->tokenizer() == nullptr);
  CHECK_EQ(info.layers, 7);
  CHECK_EQ(info.linear_layers, 4);
  CHECK_EQ(info.heads, 4);
  CHECK_EQ(info.context_tokens, 32768);
  CHECK(info.threads >= 1);
  CHECK(info.weight_file_bytes > 1'000'000 && info.weight_resident_bytes > 0);
  CHECK(info.state_bytes > 0 && info.kv_bytes_per_token > 0);
  CHECK(info.stop_tokens == (Ids{0}));
  CHECK_EQ(load(kTiny, "auto")->info().backend, std::string("cpu"));
  CHECK_EQ(load(kTiny, "reference")->info().backend, std::string("reference"));
}

TEST("load: wrong options and folders are refused by kind") {
  const auto refusal = [](const std::function<void(LoadOptions&)>& change) {
    LoadOptions options;
    options.folder = kTiny;
    change(options);
    const auto model = Model::load(options);
    CHECK(!model.ok());
    return model.ok() ? Error{} : model.error();
  };
  CHECK(refusal([](auto& o) { o.folder = ""; }).kind == ErrorKind::kArgumentInvalid);
  CHECK(refusal([](auto& o) { o.folder = kTiny + "/none"; }).kind == ErrorKind::kFileMissing);
  CHECK(refusal([](auto& o) { o.backend = "gpu"; }).kind == ErrorKind::kArgumentInvalid);
  CHECK(refusal([](auto& o) { o.backend = "cuda"; }).kind == ErrorKind::kBackendUnavailable);
  CHECK(refusal([](auto& o) { o.isa = "sse9"; }).kind == ErrorKind::kArgumentInvalid);
  CHECK(refusal([](auto& o) { o.threads = -1; }).kind == ErrorKind::kArgumentInvalid);
  CHECK_EQ(refusal([](auto& o) { o.threads = 5000; }).actual, std::string("5000"));
  CHECK(refusal([](auto& o) { o.progress = [](float) { return false; }; }).kind == ErrorKind::kCancelled);
  float last = -1.0f;
  LoadOptions options;
  options.folder = kTiny;
  options.progress = [&](float fraction) {
    CHECK(fraction >= last && fraction <= 1.0f);
    last = fraction;
    return true;
  };
  CHECK(Model::load(options).ok());
  CHECK(last > 0.5f);
}

TEST("load: a tokenizer with more ids than the embedding has rows is refused") {
  TempFolder folder;
  std::filesystem::copy_file(kTiny + "/model.safetensors", folder / "model.safetensors");
  std::filesystem::copy_file(kTiny + "/config.json", folder / "config.json");
  synthetic::Options too_many;
  for (int i = 0; i < 257; ++i) too_many.added.push_back(std::to_string(i) + "#");
  put_file(folder / "tokenizer.json", synthetic::tokenizer_json({}, too_many));
  LoadOptions options;
  options.folder = folder.path();
  const auto model = Model::load(options);
  CHECK(!model.ok() && model.error().kind == ErrorKind::kTokenizerInvalid);
}

TEST("the slope form is chosen when loading, and it matters") {
  LoadOptions options;
  options.folder = kTiny;
  const Ids ids = random_ids(1, 40);
  std::vector<std::vector<float>> found;
  for (const SlopeForm form : {SlopeForm::kA, SlopeForm::kB, SlopeForm::kC}) {
    options.slope_form = form;
    auto model = Model::load(options);
    CHECK(model.ok());
    if (!model.ok()) return;
    found.push_back(logits(*open(model.value()), ids));
  }
  CHECK(same_bits(found[0], logits(*open(), ids)));
  CHECK(!same_bits(found[0], found[1]));
  CHECK(!same_bits(found[1], found[2]));
}

TEST("sync: own tokens that are a prefix of the prompt are kept") {
  const Ids ids = random_ids(2, 500);
  const auto session = open();
  CHECK_EQ(sync(*session, first(ids, 100)), 0);
  CHECK_EQ(sync(*session, first(ids, 101)), 100);
  CHECK_EQ(sync(*session, ids), 101);
  const auto straight = open();
  sync(*straight, ids);
  check_equal(*session, *straight);
}

TEST("sync: the last token is always read again, so that logits exist") {
  const Ids ids = random_ids(3, 100);
  const auto session = open();
  sync(*session, ids);
  CHECK_EQ(sync(*session, ids), 99);
  CHECK_EQ(sync(*session, first(ids, 70)), 69);
  CHECK_EQ(generate(*session, 1).ids.size(), size_t{1});
  // At a chunk boundary there is nothing to go back to.
  CHECK_EQ(sync(*session, first(ids, 64)), 0);
  CHECK_EQ(sync(*session, first(ids, 64)), 0);
  const auto straight = open();
  sync(*straight, first(ids, 64));
  check_equal(*session, *straight);
}

TEST("sync: a prompt that parts from the session inside the open chunk keeps what is common") {
  const Ids ids = random_ids(4, 120);
  const auto session = open();
  sync(*session, ids);
  const Ids other = first(ids, 90) + random_ids(5, 200);
  CHECK_EQ(sync(*session, other), 90);
  const auto straight = open();
  sync(*straight, other);
  check_equal(*session, *straight);
}

TEST("sync: the longest snapshot that is a prefix wins, and the rest is read") {
  const Ids ids = random_ids(6, 700);
  const auto session = open();
  sync(*session, first(ids, 200));
  const auto at_192 = snapshot(*session);
  CHECK_EQ(at_192->position(), int64_t{192});
  CHECK(at_192->bytes() > 0);
  sync(*session, first(ids, 500));
  const auto at_448 = snapshot(*session);
  CHECK_EQ(at_448->position(), int64_t{448});
  CHECK(std::equal(at_448->tokens().begin(), at_448->tokens().end(), ids.begin()));
  sync(*session, first(ids, 300) + random_ids(7, 300));
  const auto of_another_line = snapshot(*session);

  const Ids prompt = first(ids, 460) + random_ids(8, 40);
  CHECK_EQ(sync(*session, prompt, {at_192, of_another_line, at_448}), 448);
  const auto straight = open();
  sync(*straight, prompt);
  check_equal(*session, *straight);
  CHECK_EQ(sync(*session, first(ids, 450), {at_192}), 192);
  // The snapshot is the whole prompt: one token must be left to read, so it is of no use.
  sync(*session, random_ids(9, 10));
  CHECK_EQ(sync(*session, first(ids, 192), {at_192}), 0);
  // The session's own tokens go further than the snapshot.
  sync(*session, first(ids, 300), {at_192});
  CHECK_EQ(sync(*session, first(ids, 320), {at_192}), 300);
}

TEST("sync: a snapshot of another model is passed over") {
  const Ids ids = random_ids(10, 200);
  const auto other = load(kTiny);
  const auto foreign = open(other);
  sync(*foreign, ids);
  const auto saved = snapshot(*foreign);
  const auto session = open();
  CHECK_EQ(sync(*session, ids, {saved, nullptr}), 0);
}

TEST("a snapshot outlives its session and the caller's model") {
  const Ids ids = random_ids(11, 150);
  std::shared_ptr<Snapshot> saved;
  std::unique_ptr<Session> second;
  {
    const auto model = load(kTiny);
    const auto session = open(model);
    sync(*session, ids);
    saved = snapshot(*session);
    second = open(model);
  }
  CHECK_EQ(sync(*second, ids, {saved}), 128);
  const auto straight = open();
  sync(*straight, ids);
  check_equal(*second, *straight);
}

// Lengths around a chunk and beyond a slab and a page.
TEST("no split of the calls changes a bit") {
  for (const size_t length : {1u, 63u, 64u, 65u, 500u, 4097u}) {
    const Ids ids = random_ids(12, static_cast<int64_t>(length));
    const auto whole = open();
    const std::vector<float> expected = logits(*whole, ids);
    const std::vector<float> expected_norms = norms(*whole);
    random_model::Random random(length);
    for (const int64_t longest : {int64_t{1}, int64_t{7}, int64_t{64}, int64_t{129}, int64_t{1000}}) {
      if (longest == 1 && length > 500) continue;
      const auto session = open();
      std::vector<float> found;
      for (size_t done = 0; done < length;) {
        const size_t count = std::min(length - done, static_cast<size_t>(1 + random.below(longest)));
        const Ids piece(ids.begin() + static_cast<int64_t>(done), ids.begin() + static_cast<int64_t>(done + count));
        const std::vector<float> part = logits(*session, piece);
        found.insert(found.end(), part.begin(), part.end());
        done += count;
      }
      CHECK(same_bits(found, expected));
      CHECK(same_bits(norms(*session), expected_norms));
    }
  }
}

TEST("restore and extend equals an uninterrupted run, wherever it is cut") {
  const Ids ids = random_ids(13, 700);
  const auto straight = open();
  const std::vector<float> expected = logits(*straight, ids);
  for (const size_t cut : {64u, 65u, 127u, 256u, 300u, 640u}) {
    const auto session = open();
    sync(*session, first(ids, cut));
    const auto saved = snapshot(*session);
    const auto resumed = open();
    sync(*resumed, random_ids(14, 90));
    const Ids prompt = first(ids, static_cast<size_t>(saved->position()) + 1);
    CHECK_EQ(sync(*resumed, prompt, {saved}), saved->position());
    const Ids rest(ids.begin() + static_cast<int64_t>(prompt.size()), ids.end());
    const std::vector<float> end = logits(*resumed, rest);
    CHECK(std::equal(end.rbegin(), end.rend(), expected.rbegin()));
    CHECK(same_bits(norms(*resumed), norms(*straight)));
  }
}

TEST("decoding gives the bits of reading") {
  const Ids ids = random_ids(15, 130);
  const auto decoded = open();
  sync(*decoded, ids);
  const Generated out = generate(*decoded, 200);
  CHECK(out.reason == StopReason::kTokenLimit);
  CHECK(held(*decoded) == ids + out.ids);
  const auto read = open();
  sync(*read, ids + out.ids);
  check_equal(*decoded, *read);
}

TEST("generate: greedy picks the best id, and going on equals one longer call") {
  const Ids ids = random_ids(16, 90);
  const auto once = open();
  sync(*once, ids);
  const Ids all = generate(*once, 40).ids;
  const auto twice = open();
  sync(*twice, ids);
  const Ids begun = generate(*twice, 13).ids;
  CHECK(begun + generate(*twice, 27).ids == all);
  const auto step = open();
  const std::vector<float> row = logits(*step, ids);
  CHECK_EQ(all[0], golden::argmax(&row[89 * kVocab], kVocab));
  CHECK(generate(*step, 40).ids == all);
  CHECK(generate(*step, 0).ids.empty());
}

TEST("generate: sampled tokens depend on the seed and the position alone") {
  const SamplerOptions sampler{0.9f, 0.95f, 1.1f, 42};
  const Ids ids = random_ids(17, 200);
  const auto straight = open();
  sync(*straight, ids);
  const Ids all = generate(*straight, 60, sampler).ids;
  for (const size_t cut : {1u, 30u, 59u}) {
    const auto session = open();
    for (const size_t part : {64u, 65u, 130u}) sync(*session, first(ids, part));
    sync(*session, ids);
    CHECK(generate(*session, static_cast<int64_t>(cut), sampler).ids == first(all, cut));
    // The rest from a prompt that ends with what was generated, as after a restart.
    const auto resumed = open();
    sync(*resumed, ids + first(all, cut));
    CHECK(first(all, cut) + generate(*resumed, static_cast<int64_t>(60 - cut), sampler).ids == all);
  }
  SamplerOptions other = sampler;
  other.seed = 43;
  const auto session = open();
  sync(*session, ids);
  CHECK(generate(*session, 60, other).ids != all);
}

TEST("generate: the penalty looks at the last 256 tokens of the session") {
  const SamplerOptions penalised{0.0f, 1.0f, 100.0f, 0};
  const auto session = open();
  const auto choice = [&](const Ids& prompt, const SamplerOptions& sampler) {
    sync(*session, prompt);
    return generate(*session, 1, sampler).ids.at(0);
  };
  int compared = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    // A prompt whose best next id stands in it once, so far back that only the window decides about the penalty.
    for (const size_t distance : {256u, 257u}) {
      Ids prompt = random_ids(seed, 300);
      const int32_t best = choice(prompt, {});
      std::ranges::replace(prompt, best, best == 7 ? 8 : 7);
      prompt[300 - distance] = best;
      if (choice(prompt, {}) != best) continue;  // the change changed the best id too
      CHECK_EQ(choice(prompt, penalised) == best, distance == 257u);
      ++compared;
    }
  }
  CHECK(compared >= 10);
}

TEST("generate: a stop token is neither given out, fed nor counted") {
  const Ids ids = random_ids(19, 100);
  const auto session = open();
  sync(*session, ids);
  const Ids all = generate(*session, 30).ids;
  size_t at = 1;
  while (at + 1 < all.size() && std::find(all.begin(), all.begin() + static_cast<int64_t>(at), all[at]) !=
                                    all.begin() + static_cast<int64_t>(at)) {
    ++at;
  }
  sync(*session, ids);
  const Generated out = generate(*session, 30, {}, {all[at]});
  CHECK(out.reason == StopReason::kStopToken);
  CHECK(out.ids == first(all, at));
  CHECK(held(*session) == ids + out.ids);
  // The model's own stop token needs no option.
  TempFolder folder;
  copy_tiny(folder, "eos_token_id", std::to_string(all[at]));
  const auto stopping = open(load(folder.path()));
  sync(*stopping, ids);
  CHECK(generate(*stopping, 30).reason == StopReason::kStopToken);
  CHECK(held(*stopping) == ids + first(all, at));
}

TEST("generate: ids that the tokenizer does not have are never chosen") {
  TempFolder folder;
  copy_tiny(folder, "pad_token_id", "1");
  put_file(folder / "tokenizer.json", synthetic::tokenizer_json({}));
  const auto model = load(folder.path());
  CHECK_EQ(model->info().vocab, 256);
  CHECK(model->tokenizer() != nullptr);
  const auto session = open(model);
  sync(*session, random_ids(20, 50));
  int64_t beyond = 0;
  for (const int32_t id : generate(*session, 300, {5.0f, 1.0f, 1.0f, 1}).ids) beyond += id >= 256 ? 1 : 0;
  CHECK_EQ(beyond, 0);
  const auto padded = open();
  sync(*padded, random_ids(20, 50));
  for (const int32_t id : generate(*padded, 300, {5.0f, 1.0f, 1.0f, 1}).ids) beyond += id >= 256 ? 1 : 0;
  CHECK(beyond > 0);
}

TEST("generate: needs a prompt, and checks its options") {
  const auto session = open();
  CancelFlag cancel;
  const auto kind = [&](const GenerateOptions& options) {
    const auto done = session->generate(options, cancel, [](int32_t) { return true; });
    return done.ok() ? ErrorKind::kInternal : done.error().kind;
  };
  CHECK(kind({4, {}, {}}) == ErrorKind::kStateInvalid);
  sync(*session, {1, 2, 3});
  CHECK(kind({-1, {}, {}}) == ErrorKind::kArgumentInvalid);
  CHECK(kind({4, {-1.0f, 1.0f, 1.0f, 0}, {}}) == ErrorKind::kArgumentInvalid);
  CHECK(kind({4, {1.0f, 0.0f, 1.0f, 0}, {}}) == ErrorKind::kArgumentInvalid);
}

TEST("generate: a sink that has enough stops it") {
  const auto session = open();
  sync(*session, random_ids(21, 80));
  CancelFlag cancel;
  int64_t seen = 0;
  const auto done = session->generate({50, {}, {}}, cancel, [&](int32_t) { return ++seen < 3; });
  CHECK(done.ok() && done.value().reason == StopReason::kCancelled && done.value().tokens == 3);
  CHECK_EQ(session->position(), int64_t{82});
}

TEST("cancel: generate ends within a token and the session goes on") {
  const Ids ids = random_ids(22, 80);
  const auto session = open();
  sync(*session, ids);
  CancelFlag cancel;
  Ids seen;
  const auto done = session->generate({50, {}, {}}, cancel, [&](int32_t id) {
    seen.push_back(id);
    if (seen.size() == 5) cancel.cancel();
    return true;
  });
  CHECK(done.ok() && done.value().reason == StopReason::kCancelled && done.value().tokens == 5);
  CHECK(session->position() >= 84 && session->position() <= 85);
  CHECK(held(*session) == first(ids + seen, static_cast<size_t>(session->position())));
  const auto straight = open();
  sync(*straight, held(*session));
  check_equal(*session, *straight);
}

void check_cancelled_sync(const std::shared_ptr<Model>& model) {
  const Ids ids = random_ids(23, 30'000);  // several slabs, however large they are
  const auto session = open(model);
  CancelFlag cancel;
  int64_t last = 0;
  const auto done = session->sync(ids, {}, cancel, [&](int64_t position) {
    CHECK(position > last);
    last = position;
    if (position >= 500) cancel.cancel();
  });
  CHECK(!done.ok() && done.error().kind == ErrorKind::kCancelled);
  CHECK(session->position() >= 500 && session->position() < 30'000);
  CHECK(held(*session) == first(ids, static_cast<size_t>(session->position())));
  const auto nothing_yet = session->generate({1, {}, {}}, cancel, [](int32_t) { return true; });
  CHECK(!nothing_yet.ok() && nothing_yet.error().kind == ErrorKind::kStateInvalid);
  // What was read is not read again.
  const int64_t reached = session->position();
  const Ids more = first(ids, static_cast<size_t>(reached) + 500);
  CHECK_EQ(sync(*session, more), reached);
  const auto straight = open(model);
  sync(*straight, more);
  check_equal(*session, *straight);
}

TEST("cancel: sync keeps what was read, on the CPU") { check_cancelled_sync(tiny()); }
TEST("cancel: sync keeps what was read, on the reference") { check_cancelled_sync(load(kTiny, "reference")); }

TEST("cancel: a flag that is set before the call changes nothing") {
  const auto session = open();
  sync(*session, random_ids(24, 30));
  const Ids before = held(*session);
  CancelFlag cancel;
  cancel.cancel();
  CHECK(!session->sync(random_ids(25, 10), {}, cancel, kSilent).ok());
  CHECK(held(*session) == before);
  CHECK_EQ(generate(*session, 3).ids.size(), size_t{3});
}

TEST("context: what does not fit is refused with the numbers before anything is read") {
  TempFolder folder;
  copy_tiny(folder, "max_position_embeddings", "200");
  const auto model = load(folder.path());
  const auto session = open(model);
  sync(*session, random_ids(26, 150));
  CancelFlag cancel;
  const auto full = session->sync(random_ids(26, 201), {}, cancel, kSilent);
  CHECK(!full.ok() && full.error().kind == ErrorKind::kContextFull);
  if (!full.ok()) CHECK_EQ(full.error().actual, std::string("201"));
  if (!full.ok()) CHECK(full.error().expected.find("200") != std::string::npos);
  CHECK_EQ(session->position(), int64_t{150});
  CHECK(!session->logits(random_ids(27, 51), cancel).ok());
  const Generated out = generate(*session, 1000);
  CHECK(out.reason == StopReason::kContextFull);
  CHECK_EQ(out.ids.size(), size_t{50});
  CHECK_EQ(session->position(), int64_t{200});
  CHECK(generate(*session, 1).reason == StopReason::kContextFull);
}

TEST("tokens: ids outside the vocabulary are refused and named") {
  const auto session = open();
  sync(*session, random_ids(28, 70));
  CancelFlag cancel;
  for (const int32_t bad : {-1, kVocab, 2'000'000'000}) {
    const auto refused = session->sync(Ids{1, 2, bad}, {}, cancel, kSilent);
    CHECK(!refused.ok() && refused.error().kind == ErrorKind::kTokenOutOfRange);
    if (!refused.ok()) CHECK_EQ(refused.error().actual, std::to_string(bad));
    const auto unread = session->logits(Ids{bad}, cancel);
    CHECK(!unread.ok() && unread.error().kind == ErrorKind::kTokenOutOfRange);
  }
  CHECK(!session->sync(Ids{}, {}, cancel, kSilent).ok());
  CHECK(!session->logits(Ids{}, cancel).ok());
  CHECK_EQ(session->position(), int64_t{70});
  CHECK(held(*session) == random_ids(28, 70));
}

TEST("the CPU and the reference agree through the engine") {
  const Ids ids = random_ids(29, 150);
  LoadOptions options;
  options.folder = kTiny;
  options.kv_format = KvFormat::kF32;
  auto model = Model::load(options);
  CHECK(model.ok());
  if (!model.ok()) return;
  const std::vector<float> fast = logits(*open(model.value()), ids);
  const std::vector<float> slow = logits(*open(load(kTiny, "reference")), ids);
  double worst = 0.0;
  for (size_t i = 0; i < fast.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(fast[i]) - static_cast<double>(slow[i])));
  }
  CHECK(worst < 1e-3);
}

}  // namespace
