// Owns: errors and exceptions at the edge of the backend table, on either side of it: values inside, plain C outside.
// Must never be needed by the table itself: backend.h stays plain C.
#pragma once

#include <cstdio>
#include <new>

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
