// Owns: that neither prompt lookup nor company changes a token (house rule 3a): generations with drafts and in a batch
// are compared with those alone and without, in everything that can be seen of a session afterwards.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "engine.h"
#include "io/file.h"
#include "model/loaded_model.h"
#include "random_model.h"
#include "stored_model.h"
#include "temp_folder.h"

namespace {

using namespace ringside;
using Ids = std::vector<int32_t>;

constexpr int32_t kVocab = 12;
const std::string kTiny = std::string(RS_GOLDEN_DIR) + "/tiny-tail";
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

// The tiny model with so few ids that what it says repeats itself, as random weights do not by themselves.
void write_few_words(const std::string& folder, int64_t context_tokens = 32768) {
  StoredModel model = StoredModel::read(kTiny);
  CHECK(model.edit_config("\"vocab_size\": 512", "\"vocab_size\": " + std::to_string(kVocab)));
  CHECK(model.edit_config("\"max_position_embeddings\": 32768",
                          "\"max_position_embeddings\": " + std::to_string(context_tokens)));
  CHECK(model.edit_config("\"eos_token_id\": 0", "\"eos_token_id\": 11"));
  for (const char* name : {"model.word_embeddings.weight", "lm_head.weight"}) {
    StoredTensor& tensor = model.at(name);
    const size_t bytes = tensor.bytes.size() / static_cast<size_t>(tensor.info.shape[0]) * kVocab;
    tensor.info.shape = {kVocab, tensor.info.shape[1]};
    tensor.info.length_bytes = static_cast<int64_t>(bytes);
    tensor.bytes.resize(bytes);
  }
  // The stop token is as likely as the one before it, which wins when the likeliest is taken: nothing ends by itself.
  std::string& head = model.at("lm_head.weight").bytes;
  const size_t row_bytes = head.size() / kVocab;
  head.replace(head.size() - row_bytes, row_bytes, head, head.size() - 2 * row_bytes, row_bytes);
  model.write(folder);
}

std::shared_ptr<Model> load_few_words(const std::string& backend = "cpu", int64_t context_tokens = 32768) {
  TempFolder folder;
  write_few_words(folder.path(), context_tokens);
  return load(folder.path(), backend);
}

const std::shared_ptr<Model>& tiny() {
  static const std::shared_ptr<Model> model = load_few_words();
  return model;
}

// Drafts are tried as far as they may go, whatever they cost and bring here: measured again before each pass, a pass of
// one row is taken to last a year.
void make_drafts_pay(const Model& model) {
  PassCosts& costs = dynamic_cast<const LoadedModel&>(model).pass_costs();
  for (int i = 0; i < 3; ++i) costs.add(1, 3e7);
  for (int64_t rows = 2; rows <= RS_STEP_ROWS; rows *= 2) costs.add(rows, 1e-3);
}

struct Question {
  Ids prompt;
  GenerateOptions options;
  int64_t cancel_after = -1;  // tokens; -1: never
  int64_t sink_takes = -1;
};

// All that can be seen of a generation: what came out, and what the session is afterwards.
struct Seen {
  Ids ids;
  GenerateResult result;
  Ids held;
  std::vector<float> norms, following;  // following: logits of two more tokens
  Ids going_on;                         // a second generate()
};

bool same(const Seen& a, const Seen& b) {
  const auto bits = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
  };
  return a.ids == b.ids && a.result.reason == b.result.reason && a.result.tokens == b.result.tokens &&
         a.held == b.held && bits(a.norms, b.norms) && bits(a.following, b.following) && a.going_on == b.going_on;
}

class Asked {
 public:
  Asked(const std::shared_ptr<Model>& model, const Question& question) : model_(model), question_(question) {
    session_ = std::move(Session::open(model)).value();
    CHECK(session_->sync(question.prompt, {}, cancel_, kSilent).ok());
  }

  BatchMember member() {
    return {session_.get(), question_.options, &cancel_, [this](int32_t id) { return take(id); }};
  }

  void generate_alone() {
    const auto done = session_->generate(question_.options, cancel_, [this](int32_t id) { return take(id); });
    CHECK(done.ok());
    if (done.ok()) seen.result = done.value();
  }

  const Seen& look() {
    seen.held.assign(session_->tokens().begin(), session_->tokens().end());
    cancel_.clear();
    GenerateOptions more = question_.options;
    more.max_tokens = 5;
    const auto goes_on = session_->generate(more, cancel_, [this](int32_t id) {
      seen.going_on.push_back(id);
      return true;
    });
    CHECK(goes_on.ok());
    seen.norms = session_->state_norms().value();
    const Ids two = {3, 4};
    auto logits = session_->logits(two, cancel_);
    if (logits.ok()) seen.following = std::move(logits).value();
    return seen;
  }

  Seen seen;

 private:
  bool take(int32_t id) {
    seen.ids.push_back(id);
    if (question_.options.prompt_lookup) make_drafts_pay(*model_);
    const auto count = static_cast<int64_t>(seen.ids.size());
    if (count == question_.cancel_after) cancel_.cancel();
    return count != question_.sink_takes;
  }

  std::shared_ptr<Model> model_;
  Question question_;
  std::unique_ptr<Session> session_;
  CancelFlag cancel_;
};

Seen alone(const std::shared_ptr<Model>& model, Question question, bool prompt_lookup) {
  question.options.prompt_lookup = prompt_lookup;
  Asked asked(model, question);
  asked.generate_alone();
  return asked.look();
}

// Text that repeats itself, so that drafts are right as well as wrong.
Ids repeating(random_model::Random& random, int64_t count, int32_t vocab) {
  Ids block;
  for (int64_t i = 8 + random.below(60); i > 0; --i) block.push_back(static_cast<int32_t>(random.below(vocab)));
  Ids ids;
  while (static_cast<int64_t>(ids.size()) < count) {
    for (const int32_t id : block) {
      ids.push_back(random.below(20) == 0 ? static_cast<int32_t>(random.below(vocab)) : id);
    }
  }
  ids.resize(static_cast<size_t>(count));
  return ids;
}

Question question_of(uint64_t seed, int64_t longest_prompt = 200, int64_t most_tokens = 90) {
  random_model::Random random(seed);
  Question question;
  question.prompt = repeating(random, 10 + random.below(longest_prompt), kVocab);
  question.options.max_tokens = random.below(8) == 0 ? random.below(4) : 1 + random.below(most_tokens);
  SamplerOptions& sampler = question.options.sampler;
  sampler.seed = seed;
  if (random.below(3) > 0) sampler.temperature = random.uniform(0.05f, 1.0f);
  if (random.below(2) > 0) sampler.top_p = random.uniform(0.3f, 1.0f);
  if (random.below(3) == 0) sampler.repetition_penalty = random.uniform(1.0f, 1.4f);
  if (random.below(4) == 0) {
    question.options.stop_tokens.push_back(static_cast<int32_t>(random.below(kVocab)));
  }
  if (random.below(5) == 0) question.cancel_after = 1 + random.below(40);
  if (random.below(5) == 0) question.sink_takes = 1 + random.below(40);
  return question;
}

TEST("lookup: no token, reason or bit of state differs with it, over many seeds and options") {
  constexpr int kSeeds = check::kSanitized ? 60 : 300;
  int64_t drafted = 0, accepted = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question question = question_of(seed);
    const Seen with = alone(tiny(), question, true);
    const Seen without = alone(tiny(), question, false);
    CHECK(same(with, without));
    CHECK_EQ(without.result.drafted, 0);
    CHECK(with.result.accepted <= with.result.drafted && with.result.accepted <= with.result.tokens);
    drafted += with.result.drafted;
    accepted += with.result.accepted;
  }
  // The comparison is worth something only when drafts were both taken and cut off.
  CHECK(accepted > kSeeds);
  CHECK(drafted - accepted > 10 * kSeeds);
}

TEST("lookup: the same on the reference") {
  const auto model = load_few_words("reference");
  int64_t accepted = 0;
  for (uint64_t seed = 1000; seed < 1012; ++seed) {
    const Question question = question_of(seed, 80, 40);
    const Seen with = alone(model, question, true);
    CHECK(same(with, alone(model, question, false)));
    accepted += with.result.accepted;
  }
  CHECK(accepted > 0);
}

// A model in a loop: nearly all drafts are right, so they run into every limit there is.
Question looping(int64_t prompt_tokens) {
  Question question;
  for (int64_t i = 0; i < prompt_tokens; ++i) question.prompt.push_back(static_cast<int32_t>(2 + i % 5));
  question.options.sampler.repetition_penalty = 1.0f;
  return question;
}

TEST("lookup: every place in a chunk, every limit of tokens, every moment to stop") {
  for (int64_t prompt_tokens = 60; prompt_tokens < 60 + 66; prompt_tokens += check::kSanitized ? 5 : 1) {
    Question question = looping(prompt_tokens);
    question.options.max_tokens = 3 + prompt_tokens % 70;
    CHECK(same(alone(tiny(), question, true), alone(tiny(), question, false)));
  }
  Question question = looping(100);
  question.options.max_tokens = 200;
  const Seen all = alone(tiny(), question, false);
  CHECK(all.ids.size() >= 100);
  for (int64_t count = 1; count < 90; count += 1 + count / 12) {
    Question stopping = question;
    stopping.sink_takes = count;
    CHECK(same(alone(tiny(), stopping, true), alone(tiny(), stopping, false)));
    Question cancelled = question;
    cancelled.cancel_after = count;
    CHECK(same(alone(tiny(), cancelled, true), alone(tiny(), cancelled, false)));
    Question limited = question;
    limited.options.max_tokens = count;
    CHECK(same(alone(tiny(), limited, true), alone(tiny(), limited, false)));
    Question stopped = question;
    stopped.options.stop_tokens = {all.ids[static_cast<size_t>(count)]};
    CHECK(same(alone(tiny(), stopped, true), alone(tiny(), stopped, false)));
  }
}

TEST("lookup: a context that fills up inside a draft") {
  for (const int64_t limit : {200, 191, 192, 193, 255, 256}) {
    const auto model = load_few_words("cpu", limit);
    Question question = looping(130);
    question.options.max_tokens = 1000;
    const Seen with = alone(model, question, true);
    CHECK(same(with, alone(model, question, false)));
    CHECK(with.result.reason == StopReason::kContextFull);
    CHECK(with.result.accepted > 0);
    CHECK_EQ(static_cast<int64_t>(with.held.size()), limit);
  }
}

TEST("lookup: switching it on and off between calls, and going back, keeps index and tokens together") {
  random_model::Random random(77);
  const Ids ids = repeating(random, 400, kVocab);
  auto with = std::move(Session::open(tiny())).value();
  auto without = std::move(Session::open(tiny())).value();
  std::vector<std::shared_ptr<Snapshot>> snapshots;
  CancelFlag cancel;
  for (int round = 0; round < 40; ++round) {
    Ids prompt(ids.begin(), ids.begin() + 60 + random.below(340));
    prompt.push_back(static_cast<int32_t>(random.below(kVocab)));
    CHECK(with->sync(prompt, snapshots, cancel, kSilent).ok());
    CHECK(without->sync(prompt, snapshots, cancel, kSilent).ok());
    if (round % 7 == 3) snapshots.push_back(std::move(with->snapshot()).value());
    GenerateOptions options;
    options.max_tokens = random.below(60);
    Ids found, expected;
    options.prompt_lookup = round % 3 != 0;
    CHECK(with->generate(options, cancel,
                         [&](int32_t id) {
                           make_drafts_pay(*tiny());
                           found.push_back(id);
                           return true;
                         })
              .ok());
    options.prompt_lookup = false;
    CHECK(without
              ->generate(options, cancel,
                         [&](int32_t id) {
                           expected.push_back(id);
                           return true;
                         })
              .ok());
    CHECK(found == expected);
    CHECK(std::ranges::equal(with->tokens(), without->tokens()));
  }
}

TEST("lookup: the index counts as memory of the session") {
  random_model::Random random(5);
  Question question;
  question.prompt = repeating(random, 3000, kVocab);
  question.options.max_tokens = 1;
  CancelFlag cancel;
  auto session = std::move(Session::open(tiny())).value();
  CHECK(session->sync(question.prompt, {}, cancel, kSilent).ok());
  const int64_t before = session->bytes();
  CHECK(session->generate(question.options, cancel, [](int32_t) { return true; }).ok());
  CHECK(session->bytes() >= before + 3000 * 16 && session->bytes() <= before + 3000 * 64);
}

std::vector<Seen> together(const std::shared_ptr<Model>& model, const std::vector<Question>& questions) {
  std::vector<std::unique_ptr<Asked>> asked;
  std::vector<BatchMember> members;
  for (const Question& question : questions) {
    asked.push_back(std::make_unique<Asked>(model, question));
    members.push_back(asked.back()->member());
  }
  const auto results = generate_together(members);
  CHECK(results.ok());
  std::vector<Seen> seen;
  for (size_t i = 0; i < questions.size() && results.ok(); ++i) {
    asked[i]->seen.result = results.value()[i];
    seen.push_back(asked[i]->look());
  }
  return seen;
}

void check_together(const std::shared_ptr<Model>& model, const std::vector<Question>& questions) {
  const std::vector<Seen> seen = together(model, questions);
  CHECK_EQ(seen.size(), questions.size());
  for (size_t i = 0; i < seen.size(); ++i) CHECK(same(seen[i], alone(model, questions[i], false)));
}

TEST("batch: each member gets what it would get alone, whatever the others do") {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    random_model::Random random(seed);
    std::vector<Question> questions;
    for (int64_t i = 1 + random.below(12); i > 0; --i) {
      Question question = question_of(5000 + seed * 100 + static_cast<uint64_t>(i));
      question.options.prompt_lookup = random.below(2) == 0;
      questions.push_back(question);
    }
    check_together(tiny(), questions);
  }
}

TEST("batch: the same on the reference") {
  const auto model = load_few_words("reference");
  check_together(model, {question_of(1, 60, 20), question_of(2, 60, 20), question_of(3, 60, 20)});
}

TEST("batch: more members than a step has rows are served in turns") {
  std::vector<Question> questions;
  for (uint64_t i = 0; i < 150; ++i) {
    Question question = question_of(9000 + i, 30, 12);
    question.options.prompt_lookup = i % 2 == 0;
    questions.push_back(question);
  }
  check_together(tiny(), questions);
}

TEST("batch: one that is cancelled in the middle of a pass leaves the others alone") {
  const Question question = looping(100);
  Question longer = question;
  longer.options.max_tokens = 60;
  longer.options.prompt_lookup = false;
  Asked cancelled(tiny(), longer);
  Asked other(tiny(), longer);
  CancelFlag flag;
  BatchMember first = cancelled.member();
  first.cancel = &flag;
  BatchMember second = other.member();
  int64_t count = 0;
  // Set after this member asked for its pass, so that the pass itself is stopped.
  second.sink = [&, sink = second.sink](int32_t id) {
    if (++count == 10) flag.cancel();
    return sink(id);
  };
  std::vector<BatchMember> members = {first, second};
  const auto results = generate_together(members);
  CHECK(results.ok());
  if (!results.ok()) return;
  CHECK(results.value()[0].reason == StopReason::kCancelled);
  CHECK_EQ(results.value()[0].tokens, 10);
  CHECK_EQ(results.value()[1].tokens, 60);
  other.seen.result = results.value()[1];
  CHECK(same(other.look(), alone(tiny(), longer, false)));
  // As when its sink had had enough: the token given out last is not in it.
  Question stopped = longer;
  stopped.sink_takes = 10;
  cancelled.seen.result = results.value()[0];
  CHECK(same(cancelled.look(), alone(tiny(), stopped, false)));
}

TEST("batch: what cannot be a batch is refused, and changes nothing") {
  const auto other_model = load_few_words();
  const Question question = looping(70);
  Asked one(tiny(), question), two(tiny(), question), foreign(other_model, question);
  const auto kind = [](std::vector<BatchMember> members) {
    const auto results = generate_together(members);
    CHECK(!results.ok());
    return results.ok() ? ErrorKind::kInternal : results.error().kind;
  };
  CHECK(kind({one.member(), one.member()}) == ErrorKind::kArgumentInvalid);
  CHECK(kind({one.member(), foreign.member()}) == ErrorKind::kArgumentInvalid);
  BatchMember nothing = two.member();
  nothing.session = nullptr;
  CHECK(kind({one.member(), nothing}) == ErrorKind::kArgumentInvalid);
  nothing = two.member();
  nothing.cancel = nullptr;
  CHECK(kind({nothing}) == ErrorKind::kArgumentInvalid);
  nothing = two.member();
  nothing.sink = nullptr;
  CHECK(kind({nothing}) == ErrorKind::kArgumentInvalid);
  nothing = two.member();
  nothing.options.max_tokens = -1;
  CHECK(kind({one.member(), nothing}) == ErrorKind::kArgumentInvalid);
  const auto unread = std::move(Session::open(tiny())).value();
  nothing = two.member();
  nothing.session = unread.get();
  CHECK(kind({one.member(), nothing}) == ErrorKind::kStateInvalid);
  CHECK(generate_together({}).ok());
  CHECK(same(one.look(), two.look()));
}

// The embedded model on a prompt in its own format, which asks for code that stands in it.
TEST("lookup: the embedded model quotes code with the same tokens, faster in passes") {
  if (!path_exists(std::string(RS_NANO_DIR) + "/config.json")) return;
  const auto model = load(RS_NANO_DIR);
  const Tokenizer& tokenizer = *model->tokenizer();
  const std::string folder = std::string(RS_GOLDEN_DIR) + "/../workbench/workspace/src/";
  std::string text =
      "<role>SYSTEM</role>You answer questions about the repository below. Name the file and quote the code "
      "exactly.\ndetailed thinking on<|role_end|><role>HUMAN</role># Repository workspace\n\n";
  for (const char* name : {"currency.ts", "orders.ts", "taxes.ts", "shipping.ts"}) {
    text += "<file path=\"src/" + std::string(name) + "\">\n" + file_content(folder + name) + "</file>\n\n";
  }
  text += "Show me the code of includedTax.<|role_end|><role>ASSISTANT</role><think>\n\n</think>\n\n";
  for (const float temperature : {0.0f, 0.3f, 1.0f}) {
    if (check::kSanitized && temperature > 0.0f) continue;
    Question question;
    question.prompt = tokenizer.encode_with_added(text);
    question.options.max_tokens = 110;
    question.options.sampler.temperature = temperature;
    question.options.sampler.seed = 4;
    const Seen with = alone(model, question, true);
    CHECK(same(with, alone(model, question, false)));
    if (temperature == 0.0f) CHECK(with.result.accepted > 20);
  }
}

}  // namespace
