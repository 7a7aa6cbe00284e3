#include "tools/bench_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>

#include "model/sampler.h"
#include "model/tap.h"
#include "tools/backend_handles.h"
#include "tools/bench_cost.h"

namespace ringside::tools {
namespace {

// Counts the experts that passes really use, by watching the routers.
class ExpertCounter {
 public:
  ExpertCounter(rs_model* model, const Config& config)
      : model_(model), experts_(config.experts), seen_(static_cast<size_t>(config.layers * config.experts)) {
    tap_.context = this;
    tap_.routed = [](void* context, int32_t layer, const int32_t* experts, int64_t count, int64_t slots) {
      static_cast<ExpertCounter*>(context)->see(layer, std::span(experts, static_cast<size_t>(count * slots)));
    };
    set_cpu_tap(model_, &tap_);
  }
  ExpertCounter(const ExpertCounter&) = delete;
  ExpertCounter& operator=(const ExpertCounter&) = delete;
  ~ExpertCounter() { set_cpu_tap(model_, nullptr); }

  // Distinct experts since the last take.
  int64_t take() {
    const int64_t count = std::count(seen_.begin(), seen_.end(), uint8_t{1});
    std::fill(seen_.begin(), seen_.end(), uint8_t{0});
    return count;
  }

 private:
  void see(int32_t layer, std::span<const int32_t> experts) {
    uint8_t* row = seen_.data() + static_cast<int64_t>(layer) * experts_;
    for (const int32_t expert : experts) row[expert] = 1;
  }

  rs_model* model_;
  int64_t experts_;
  std::vector<uint8_t> seen_;  // [layers, experts]
  Tap tap_;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class Bench {
 public:
  Bench(const BenchModel& model, const BenchOptions& options)
      : model_(model),
        backend_(model.backend()),
        options_(options),
        vocabulary_(model.config().vocab_rows),
        fillers_(static_cast<size_t>(*std::ranges::max_element(options.sequences))),
        starts_(fillers_.size()),
        logits_(static_cast<size_t>(vocabulary_) * fillers_.size()) {
    if (model.backend().name == rs_cpu_backend()->name) counter_.emplace(model.handle(), model.config());
  }

  Result<std::vector<BenchRow>> run() {
    RS_TRY(SessionHandle session, open_session(backend_, model_.handle()));
    RS_CHECK(extend(session.get(), std::clamp<int64_t>(options_.prompts.front(), 64, 512), RS_LOGITS_LAST));
    RS_CHECK(generate(std::span(&session, 1), 4));
    session.reset();
    std::vector<BenchRow> rows;
    for (const int64_t depth : options_.depths) {
      for (size_t i = 0; i < fillers_.size(); ++i) RS_CHECK(fill(i, depth));
      std::vector<BenchRow> of_depth = rows_at(depth);
      // Repetitions take turns, so that what the machine does meanwhile falls on all rows alike.
      for (int64_t rep = 0; rep < options_.reps; ++rep) {
        double one_tok_s = 0.0;
        for (BenchRow& row : of_depth) {
          RS_CHECK(repeat(row));
          if (row.kind == BenchKind::kGenerate) one_tok_s = row.tok_s.back();
          if (row.kind == BenchKind::kGenerateTogether) row.to_one.push_back(row.tok_s.back() / one_tok_s);
        }
      }
      std::move(of_depth.begin(), of_depth.end(), std::back_inserter(rows));
    }
    return rows;
  }

 private:
  std::vector<BenchRow> rows_at(int64_t depth) const {
    std::vector<BenchRow> rows;
    const auto add = [&](BenchKind kind, const std::string& test, int64_t tokens, int64_t sequences) {
      BenchRow row;
      row.kind = kind;
      row.test = test;
      row.tokens = tokens;
      row.depth = depth;
      row.sequences = sequences;
      rows.push_back(std::move(row));
    };
    for (const int64_t prompt : options_.prompts) {
      if (prompt > 0) add(BenchKind::kPrompt, "pp" + std::to_string(prompt), prompt, 1);
    }
    if (options_.generate == 0) return rows;
    const std::string generate = "tg" + std::to_string(options_.generate);
    add(BenchKind::kGenerate, generate, options_.generate, 1);
    for (const int64_t sequences : options_.sequences) {
      if (sequences == 1) continue;
      add(BenchKind::kGenerateTogether, generate + "x" + std::to_string(sequences), options_.generate, sequences);
    }
    return rows;
  }

  int32_t random_token() {
    seed_ = seed_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<int32_t>((seed_ >> 33) % static_cast<uint64_t>(vocabulary_));
  }

  Status extend(rs_session* session, int64_t count, rs_logits want) {
    std::vector<int32_t> ids(static_cast<size_t>(count));
    std::generate(ids.begin(), ids.end(), [this] { return random_token(); });
    rs_error error{};
    if (backend_.extend(session, ids.data(), count, want, logits_.data(), nullptr, &error) != 0) return to_error(error);
    return Unit{};
  }

  // Each token's greedy choice is made, as in real use, and not followed.
  void choose(int64_t row) {
    chosen_ ^= likeliest(std::span(logits_.data() + row * vocabulary_, static_cast<size_t>(vocabulary_)));
  }

  // `count` tokens of each session, one step a token, as the engine generates: a backend that chooses is asked to.
  // Returns the seconds of the host's choices.
  Result<double> generate(std::span<const SessionHandle> sessions, int64_t count) {
    const bool chooses = backend_.step_likeliest != nullptr;
    double choice_seconds = 0.0;
    std::vector<int32_t> ids(sessions.size());
    std::vector<int32_t> likeliest_ids(sessions.size());
    std::vector<rs_step> steps;
    std::vector<int32_t*> chosen;
    for (size_t i = 0; i < sessions.size(); ++i) {
      steps.push_back({sessions[i].get(), &ids[i], 1, chooses ? RS_LOGITS_NONE : RS_LOGITS_LAST,
                       chooses ? nullptr : logits_.data() + static_cast<int64_t>(i) * vocabulary_});
      chosen.push_back(&likeliest_ids[i]);
    }
    const auto rows = static_cast<int64_t>(steps.size());
    for (int64_t step = 0; step < count; ++step) {
      rs_error error{};
      std::generate(ids.begin(), ids.end(), [this] { return random_token(); });
      const int32_t code = chooses ? backend_.step_likeliest(model_.handle(), steps.data(), chosen.data(), rows,
                                                             static_cast<int32_t>(vocabulary_), nullptr, &error)
                                   : backend_.step(model_.handle(), steps.data(), rows, nullptr, &error);
      if (code != 0) return to_error(error);
      const auto begin = std::chrono::steady_clock::now();
      for (int64_t i = 0; !chooses && i < rows; ++i) choose(i);
      choice_seconds += seconds_since(begin);
      if (counter_) generated_experts_ += counter_->take();
    }
    return choice_seconds;
  }

  // Brings sequence i to a depth, going on from the depth before if that was smaller, and keeps a snapshot of it. Each
  // sequence has tokens of its own: shared pages of keys would be read once for all.
  Status fill(size_t i, int64_t depth) {
    if (!fillers_[i] || backend_.position(fillers_[i].get()) > depth) {
      RS_TRY(fillers_[i], open_session(backend_, model_.handle()));
    }
    rs_session* filler = fillers_[i].get();
    const int64_t missing = depth - backend_.position(filler);
    if (missing > 0) RS_CHECK(extend(filler, missing, RS_LOGITS_NONE));
    RS_TRY(starts_[i], save_session(backend_, filler));
    return Unit{};
  }

  // A session at the depth of sequence i.
  Result<SessionHandle> start(size_t i, int64_t depth) {
    RS_TRY(SessionHandle session, open_session(backend_, model_.handle(), starts_[i].get()));
    // A snapshot stands at a chunk boundary; the rest of an odd depth is read again, untimed.
    const int64_t missing = depth - backend_.position(session.get());
    if (missing > 0) RS_CHECK(extend(session.get(), missing, RS_LOGITS_NONE));
    return session;
  }

  Status repeat(BenchRow& row) {
    std::vector<SessionHandle> sessions;
    for (size_t i = 0; i < static_cast<size_t>(row.sequences); ++i) {
      RS_TRY(SessionHandle session, start(i, row.depth));
      sessions.push_back(std::move(session));
    }
    if (counter_) counter_->take();
    generated_experts_ = 0;
    const bool is_prompt = row.kind == BenchKind::kPrompt;
    const auto begin = std::chrono::steady_clock::now();
    double choice_seconds = 0.0;
    if (is_prompt) {
      RS_CHECK(extend(sessions[0].get(), row.tokens, RS_LOGITS_LAST));
    } else {
      RS_TRY(choice_seconds, generate(sessions, row.tokens));
    }
    const double seconds = seconds_since(begin);
    double experts = even_experts(model_.config(), static_cast<double>(is_prompt ? row.tokens : row.sequences));
    if (counter_) {
      experts = is_prompt ? static_cast<double>(counter_->take())
                          : static_cast<double>(generated_experts_) / static_cast<double>(row.tokens);
    }
    if (!is_prompt) row.choice_us.push_back(choice_seconds / static_cast<double>(row.tokens) * 1e6);
    const auto done = static_cast<double>(row.tok_s.size());
    row.distinct_experts = (row.distinct_experts * done + experts) / (done + 1.0);
    row.tok_s.push_back(static_cast<double>(row.tokens * row.sequences) / seconds);
    row.memory = process_memory();
    return Unit{};
  }

  const BenchModel& model_;
  const rs_backend& backend_;
  const BenchOptions& options_;
  const int64_t vocabulary_;
  std::optional<ExpertCounter> counter_;  // of the CPU backend alone
  std::vector<SessionHandle> fillers_;    // [sequences]: at the depth filled last
  std::vector<SnapshotHandle> starts_;    // [sequences]
  std::vector<float> logits_;             // [sequences, vocabulary]
  uint64_t seed_ = 1;
  int32_t chosen_ = 0;
  int64_t generated_experts_ = 0;  // of a row's steps so far
};

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
}

double BenchRow::median_tok_s() const { return median(tok_s); }

Result<std::vector<BenchRow>> run_bench_rows(const BenchModel& model, const BenchOptions& options) {
  return Bench(model, options).run();
}

}  // namespace ringside::tools
