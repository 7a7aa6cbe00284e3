// The one error type of the native engine and the Result that carries it.
// Every failure is a value; nothing in native/ aborts or lets an exception reach its caller.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace ringside {

// Names are part of the protocol: src/protocol/errors.ts lists the same words.
enum class ErrorKind : int32_t {
  kFileMissing,
  kFileUnreadable,
  kFileTruncated,
  kFileMalformed,
  kFileWriteFailed,
  kConfigInvalid,
  kArchitectureUnknown,
  kTensorMissing,
  kTensorUnknown,
  kTensorShape,
  kTensorDtype,
  kQuantizationUnsupported,
  kTokenizerInvalid,
  kOutOfMemory,
  kContextFull,
  kTokenOutOfRange,
  kCancelled,
  kArgumentInvalid,
  kStateInvalid,
  kBackendUnavailable,
  kDeviceLost,  // no further call on it can succeed in this process: end the process
  kInternal,
};

// "file-missing", "tensor-shape", … the spelling used on the wire.
const char* error_kind_name(ErrorKind kind);

struct Error {
  ErrorKind kind = ErrorKind::kInternal;
  std::string subject;   // the file, tensor, field or argument that is wrong
  std::string expected;  // the limit or the value that was needed; may be empty
  std::string actual;    // the value that was found; may be empty

  // One English sentence for native tools and tests; the product words errors from the fields.
  std::string message() const;
};

struct Unit {};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : held_(std::in_place_index<1>, std::move(error)) {}
  bool ok() const { return held_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return *std::get_if<0>(&held_); }
  const T& value() const& { return *std::get_if<0>(&held_); }
  T&& value() && { return std::move(*std::get_if<0>(&held_)); }
  T& operator*() & { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const { return *std::get_if<1>(&held_); }

 private:
  std::variant<T, Error> held_;
};

using Status = Result<Unit>;

// Evaluates `expr`, returns its error from the enclosing function, else binds its value.
#define RS_CONCAT_(a, b) a##b
#define RS_CONCAT(a, b) RS_CONCAT_(a, b)
#define RS_TRY_AS_(tmp, lhs, expr)   \
  auto tmp = (expr);                 \
  if (!tmp.ok()) return tmp.error(); \
  lhs = std::move(tmp).value()
#define RS_TRY(lhs, expr) RS_TRY_AS_(RS_CONCAT(rs_result_, __LINE__), lhs, expr)
#define RS_CHECK(expr)                               \
  do {                                               \
    auto rs_status_ = (expr);                        \
    if (!rs_status_.ok()) return rs_status_.error(); \
  } while (0)

}  // namespace ringside
