// Owns: errors and exceptions at the edge of the backend table, on either side of it: values inside, plain C outside;
// and the check of a step, which is the same for every backend.
// Must never be needed by the table itself: backend.h stays plain C.
#pragma once

#include <cstdio>
#include <new>
#include <string>

#include "../error.h"
#include "backend.h"

namespace ringside {

inline Error to_error(const rs_error& error) {
  return Error{static_cast<ErrorKind>(error.kind), error.subject, error.expected, error.actual};
}

inline int32_t fail(rs_error* out, const Error& error) {
  if (out == nullptr) return -1;
  out->kind = static_cast<int32_t>(error.kind);
  std::snprintf(out->subject, sizeof out->subject, "%s", error.subject.c_str());
  std::snprintf(out->expected, sizeof out->expected, "%s", error.expected.c_str());
  std::snprintf(out->actual, sizeof out->actual, "%s", error.actual.c_str());
  return -1;
}

inline Error another_models_session(const std::string& step) {
  return Error{ErrorKind::kArgumentInvalid, step, "a session of the model", "another's"};
}

// Before anything is touched: that `count` tokens fit behind `position` and are all rows of the embedding.
inline Status check_tokens(const rs_config& config, int64_t position, const int32_t* tokens, int64_t count) {
  if (count < 1) return Error{ErrorKind::kArgumentInvalid, "count", ">= 1", std::to_string(count)};
  if (count > config.context_tokens - position) {
    return Error{ErrorKind::kContextFull, "tokens", std::to_string(config.context_tokens),
                 std::to_string(position) + " + " + std::to_string(count)};
  }
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] >= 0 && tokens[i] < config.vocab_rows) continue;
    return Error{ErrorKind::kTokenOutOfRange, "token " + std::to_string(i),
                 "0.." + std::to_string(config.vocab_rows - 1), std::to_string(tokens[i])};
  }
  return Unit{};
}

// That only rows of the open chunk would be cut off.
inline Status check_keep_position(int64_t position, int64_t keep_position) {
  const int64_t boundary = position / RS_CHUNK_TOKENS * RS_CHUNK_TOKENS;
  if (keep_position >= boundary && keep_position <= position) return Unit{};
  return Error{ErrorKind::kArgumentInvalid, "keep position", std::to_string(boundary) + ".." + std::to_string(position),
               std::to_string(keep_position)};
}

// Before anything is touched: every part of a step, alone and together. `check_part(step, name)` knows the backend's
// sessions: that this one belongs to the model, and that its tokens fit.
template <class CheckPart>
Status check_steps(const rs_step* steps, int64_t count, const CheckPart& check_part) {
  if (count < 1) return Error{ErrorKind::kArgumentInvalid, "steps", ">= 1", std::to_string(count)};
  int64_t rows = 0;
  for (int64_t i = 0; i < count; ++i) {
    const std::string name = "step " + std::to_string(i);
    for (int64_t j = 0; j < i; ++j) {
      if (steps[j].session != steps[i].session) continue;
      return Error{ErrorKind::kArgumentInvalid, name, "each session once", "the session of step " + std::to_string(j)};
    }
    if (steps[i].count > RS_STEP_ROWS - rows) {
      return Error{ErrorKind::kArgumentInvalid, "rows of the steps", "<= " + std::to_string(RS_STEP_ROWS),
                   std::to_string(rows) + " + " + std::to_string(steps[i].count)};
    }
    RS_CHECK(check_part(steps[i], name));
    rows += steps[i].count;
  }
  return Unit{};
}

// Runs `body`, which returns a Status, and turns its error into C. The standard containers throw when memory runs out;
// nothing may cross the table.
template <class Body>
int32_t guarded(rs_error* error, const char* subject, const Body& body) {
  try {
    const Status status = body();
    return status.ok() ? 0 : fail(error, status.error());
  } catch (const std::bad_alloc&) {
    return fail(error, Error{ErrorKind::kOutOfMemory, subject, "", ""});
  } catch (...) {
    return fail(error, Error{ErrorKind::kInternal, subject, "", ""});
  }
}

}  // namespace ringside
