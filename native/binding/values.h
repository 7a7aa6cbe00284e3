// Owns: turning JavaScript values into plain ones and back. Every argument is checked here, whatever TypeScript
// promised; what is wrong becomes an Error value, never a JavaScript exception.
#pragma once

#include <napi.h>

#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "../engine.h"

namespace ringside::binding {

// {ok: true, value} and {ok: false, error: {kind, subject, expected, actual}} of src/engine/addonTypes.ts.
Napi::Value succeeded(Napi::Env env, Napi::Value value);
Napi::Value failed(Napi::Env env, const Error& error);
// A promise that is settled already.
Napi::Value failed_promise(Napi::Env env, const Error& error);

Error closed_error(const char* subject);
Error busy_error(const char* subject);

Result<std::string> to_text(Napi::Value value, const char* name);
Result<int64_t> to_integer(Napi::Value value, const char* name, int64_t least, int64_t most);
Result<double> to_number(Napi::Value value, const char* name);
Result<bool> to_truth(Napi::Value value, const char* name);
Result<Napi::Object> to_object(Napi::Value value, const char* name);
Result<Napi::Function> to_function(Napi::Value value, const char* name);
Result<std::vector<int32_t>> to_ids(Napi::Value value, const char* name);        // an Int32Array
Result<std::span<const uint8_t>> to_bytes(Napi::Value value, const char* name);  // a Uint8Array, lent
Result<std::vector<int32_t>> to_id_list(Napi::Value value, const char* name);    // an array of numbers
// Undefined when a getter threw; the exception is dropped.
Napi::Value member(Napi::Object object, const char* name);

Napi::Value from_ids(Napi::Env env, const std::vector<int32_t>& ids);
Napi::Value from_floats(Napi::Env env, const std::vector<float>& values);
Napi::Value from_count(Napi::Env env, int64_t count);
Napi::Value from_info(Napi::Env env, const ModelInfo& info);

// Runs the native part of a synchronous method: no C++ exception may reach Node.
template <class Body>
Napi::Value guarded(Napi::Env env, const char* subject, Body body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return failed(env, {ErrorKind::kOutOfMemory, subject, "", ""});
  } catch (...) {
    return failed(env, {ErrorKind::kInternal, subject, "", ""});
  }
}

}  // namespace ringside::binding
