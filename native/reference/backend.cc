// Owns: the reference behind the backend table, so that everything above it runs on the slow truth too.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "../error.h"
#include "../model/backend_errors.h"
#include "forward.h"
#include "load.h"

namespace ringside::reference {
namespace {

// The table's handles stay incomplete types: a definition of rs_session here would clash with another backend's.
struct Session {
  const Weights* weights;
  Memory memory;
};

const Weights& of(const rs_model* model) { return *reinterpret_cast<const Weights*>(model); }
Session& of(rs_session* session) { return *reinterpret_cast<Session*>(session); }
const Session& of(const rs_session* session) { return *reinterpret_cast<const Session*>(session); }
const Memory& of(const rs_snapshot* snapshot) { return *reinterpret_cast<const Memory*>(snapshot); }

int32_t plan_memory(const rs_config* config, int32_t, int64_t, int32_t, rs_memory_plan* out, rs_error*) {
  const int64_t hidden = config->hidden;
  const int64_t width = static_cast<int64_t>(config->heads) * config->head_dim;
  const int64_t kv_width = static_cast<int64_t>(config->kv_heads) * config->head_dim;
  const int64_t linear = linear_layers(*config);
  const int64_t softmax = config->layers - linear;
  const int64_t moe = std::max(0, config->layers - config->dense_layers);
  int64_t weights = 2 * config->vocab_rows * hidden;
  weights += linear * 5 * width * hidden + softmax * (2 * width + 2 * kv_width) * hidden;
  weights += (config->layers - moe) * 3 * config->dense_width * hidden;
  weights +=
      moe * hidden *
      (config->experts + 3 * (static_cast<int64_t>(config->experts) * config->expert_width + config->shared_width));
  const auto f64 = static_cast<int64_t>(sizeof(double));
  out->weight_bytes = weights * static_cast<int64_t>(sizeof(float));
  out->state_bytes = linear * 2 * (width * config->head_dim + RS_CHUNK_TOKENS * width) * f64;
  out->kv_bytes_per_token = softmax * 2 * kv_width * f64;
  out->scratch_bytes = (config->vocab_rows + config->context_tokens) * f64;
  return 0;
}

int32_t load(const rs_config* config, const rs_weight_source* source, const rs_load_options* options, rs_model** out,
             rs_error* error) {
  return guarded(error, "weights", [&]() -> Status {
    RS_TRY(auto weights, load_weights(*config, *source, *options));
    *out = reinterpret_cast<rs_model*>(weights.release());
    return Unit{};
  });
}

void unload(rs_model* model) { delete &of(model); }
const char* device(const rs_model*) { return "CPU, float64 reference, 1 thread"; }
const char* isa(const rs_model*) { return "plain"; }
int32_t threads(const rs_model*) { return 1; }
int64_t resident_bytes(const rs_model* model) { return weight_bytes(of(model)); }

int32_t open(rs_model* model, rs_session** out, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    *out = reinterpret_cast<rs_session*>(new Session{&of(model), empty_memory(of(model).config)});
    return Unit{};
  });
}

void close(rs_session* session) { delete &of(session); }
int64_t position(const rs_session* session) { return of(session).memory.position; }
int64_t session_bytes(const rs_session* session) { return memory_bytes(of(session).memory); }

Status check_tokens(const Session& session, const int32_t* tokens, int64_t count) {
  const rs_config& config = session.weights->config;
  if (count < 1) return Error{ErrorKind::kArgumentInvalid, "count", ">= 1", std::to_string(count)};
  if (session.memory.position + count > config.context_tokens) {
    return Error{ErrorKind::kContextFull, "tokens", std::to_string(config.context_tokens),
                 std::to_string(session.memory.position + count)};
  }
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] >= 0 && tokens[i] < config.vocab_rows) continue;
    return Error{ErrorKind::kTokenOutOfRange, "token " + std::to_string(i),
                 "0.." + std::to_string(config.vocab_rows - 1), std::to_string(tokens[i])};
  }
  return Unit{};
}

int32_t extend(rs_session* handle, const int32_t* tokens, int64_t count, rs_logits want, float* logits,
               const rs_poll* poll, rs_error* error) {
  Session& session = of(handle);
  const int32_t outcome = guarded(error, "session", [&]() -> Status {
    RS_CHECK(check_tokens(session, tokens, count));
    Forward forward(*session.weights, session.memory, poll);
    const auto rows = static_cast<size_t>(session.weights->config.vocab_rows);
    std::vector<double> row(want == RS_LOGITS_NONE ? 0 : rows);
    for (int64_t i = 0; i < count; ++i) {
      const bool wanted = want == RS_LOGITS_ALL || (want == RS_LOGITS_LAST && i == count - 1);
      if (!forward.step(tokens[i], wanted ? std::span(row) : std::span<double>())) {
        return Error{ErrorKind::kCancelled, "extend", "", ""};
      }
      if (wanted) {
        float* to = want == RS_LOGITS_ALL ? logits + i * static_cast<int64_t>(rows) : logits;
        std::transform(row.begin(), row.end(), to, [](double value) { return static_cast<float>(value); });
      }
      const int64_t reached = session.memory.position;
      if (poll != nullptr && poll->advanced != nullptr && (reached % RS_CHUNK_TOKENS == 0 || i == count - 1)) {
        poll->advanced(poll->context, reached);
      }
    }
    return Unit{};
  });
  // A step that ran out of memory leaves rows of a token that was never counted.
  if (outcome != 0) rewind(*session.weights, session.memory, session.memory.position);
  return outcome;
}

// One session after the other. Pages are copied before a write while a copy of the memory shares them, so the copies
// made at the start are all that undoing takes.
int32_t step(rs_model* model, const rs_step* steps, int64_t count, const rs_poll* poll, rs_error* error) {
  return guarded(error, "step", [&]() -> Status {
    RS_CHECK(check_steps(steps, count, [&](const rs_step& part, const std::string& name) -> Status {
      const Session& session = of(part.session);
      if (session.weights != &of(model)) return another_models_session(name);
      return check_tokens(session, part.tokens, part.count);
    }));
    std::vector<Memory> before;
    before.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) before.push_back(of(steps[i].session).memory);
    const rs_poll silent{poll == nullptr ? nullptr : poll->context, poll == nullptr ? nullptr : poll->cancelled,
                         nullptr};
    for (int64_t i = 0; i < count; ++i) {
      const rs_step& part = steps[i];
      rs_error failure{};
      if (extend(part.session, part.tokens, part.count, part.want, part.logits, &silent, &failure) == 0) continue;
      for (int64_t j = 0; j < count; ++j) of(steps[j].session).memory = std::move(before[static_cast<size_t>(j)]);
      return to_error(failure);
    }
    return Unit{};
  });
}

int32_t accept(rs_session* handle, int64_t keep, rs_error* error) {
  Session& session = of(handle);
  const Status kept = check_keep_position(session.memory.position, keep);
  if (!kept.ok()) return fail(error, kept.error());
  rewind(*session.weights, session.memory, keep);
  return 0;
}

int32_t save(rs_session* session, rs_snapshot** out, rs_error* error) {
  return guarded(error, "snapshot", [&]() -> Status {
    *out = reinterpret_cast<rs_snapshot*>(new Memory(at_boundary(of(session).memory)));
    return Unit{};
  });
}

int32_t restore(rs_model* model, const rs_snapshot* snapshot, rs_session** out, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    *out = reinterpret_cast<rs_session*>(new Session{&of(model), of(snapshot)});
    return Unit{};
  });
}

int64_t snapshot_position(const rs_snapshot* snapshot) { return of(snapshot).position; }
int64_t snapshot_bytes(const rs_snapshot* snapshot) { return memory_bytes(of(snapshot)); }
void drop(rs_snapshot* snapshot) { delete &of(snapshot); }

int32_t norms(const rs_session* session, float* out, rs_error* error) {
  return guarded(error, "state norms", [&]() -> Status {
    const Session& read = of(session);
    for (double norm : state_norms(read.weights->config, read.memory)) *out++ = static_cast<float>(norm);
    return Unit{};
  });
}

constexpr rs_backend kBackend = {
    .version = RS_BACKEND_VERSION,
    .name = "reference",
    .plan_memory = plan_memory,
    .load = load,
    .unload = unload,
    .device = device,
    .isa = isa,
    .threads = threads,
    .weight_bytes = resident_bytes,
    .open = open,
    .close = close,
    .position = position,
    .session_bytes = session_bytes,
    .extend = extend,
    .step = step,
    .accept = accept,
    .save = save,
    .restore = restore,
    .snapshot_position = snapshot_position,
    .snapshot_bytes = snapshot_bytes,
    .drop = drop,
    .state_norms = norms,
    .read_position = position,
    .step_likeliest = nullptr,
    .likeliest_logits = nullptr,
    .state_part_bytes = nullptr,
    .page_part_bytes = nullptr,
    .export_state = nullptr,
    .export_page = nullptr,
    .import_snapshot = nullptr,
};

}  // namespace
}  // namespace ringside::reference

void ringside::set_reference_tap(rs_model* model, const Tap* tap) {
  reinterpret_cast<reference::Weights*>(model)->tap = tap;
}

const rs_backend* rs_reference_backend(void) { return &ringside::reference::kBackend; }
