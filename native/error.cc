#include "error.h"

namespace ringside {

const char* error_kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kFileMissing:
      return "file-missing";
    case ErrorKind::kFileUnreadable:
      return "file-unreadable";
    case ErrorKind::kFileTruncated:
      return "file-truncated";
    case ErrorKind::kFileMalformed:
      return "file-malformed";
    case ErrorKind::kFileWriteFailed:
      return "file-write-failed";
    case ErrorKind::kConfigInvalid:
      return "config-invalid";
    case ErrorKind::kArchitectureUnknown:
      return "architecture-unknown";
    case ErrorKind::kTensorMissing:
      return "tensor-missing";
    case ErrorKind::kTensorUnknown:
      return "tensor-unknown";
    case ErrorKind::kTensorShape:
      return "tensor-shape";
    case ErrorKind::kTensorDtype:
      return "tensor-dtype";
    case ErrorKind::kQuantizationUnsupported:
      return "quantization-unsupported";
    case ErrorKind::kTokenizerInvalid:
      return "tokenizer-invalid";
    case ErrorKind::kOutOfMemory:
      return "out-of-memory";
    case ErrorKind::kContextFull:
      return "context-full";
    case ErrorKind::kTokenOutOfRange:
      return "token-out-of-range";
    case ErrorKind::kCancelled:
      return "cancelled";
    case ErrorKind::kArgumentInvalid:
      return "argument-invalid";
    case ErrorKind::kStateInvalid:
      return "state-invalid";
    case ErrorKind::kBackendUnavailable:
      return "backend-unavailable";
    case ErrorKind::kDeviceLost:
      return "device-lost";
    case ErrorKind::kInternal:
      return "internal";
  }
  return "internal";
}

std::string Error::message() const {
  std::string text = error_kind_name(kind);
  if (!subject.empty()) text += ": " + subject;
  if (!expected.empty()) text += ": expected " + expected;
  if (!actual.empty()) text += (expected.empty() ? ": " : ", found ") + actual;
  return text;
}

}  // namespace ringside
