// Owns: a backend's models and sessions for the native tests, closed when they go out of scope; and how results of two
// of them are compared.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "model/backend.h"
#include "random_model.h"

namespace backend_model {

using Bits = std::vector<float>;

inline bool same_bits(const Bits& a, const Bits& b) {
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
        const char* isa = "", rs_kv_format kv_format = RS_KV_F32)
      : Model(backend, shape, nullptr) {
    const rs_load_options options{threads, isa, kv_format, nullptr, nullptr, 0, -1};
    rs_error error{};
    CHECK_EQ(backend->load(shape.ready(), &source.table, &options, &model_, &error), 0);
  }
  // A model that was loaded before, which this unloads.
  Model(const rs_backend* backend, const random_model::Shape& shape, rs_model* loaded)
      : backend_(backend), model_(loaded), vocab_(shape.config.vocab_rows) {
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
inline std::vector<double> row_errors(const Bits& got, const Bits& truth, int64_t columns) {
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

inline std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const auto* table : ringside::cpu::available_kernels()) names.push_back(table->isa);
  return names;
}

}  // namespace backend_model
