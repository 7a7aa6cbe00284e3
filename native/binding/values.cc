#include "values.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace ringside::binding {
namespace {

constexpr uint32_t kListLimit = 1u << 16;

Error wrong(const char* name, const std::string& expected, const std::string& actual) {
  return {ErrorKind::kArgumentInvalid, name, expected, actual};
}

std::string type_of(Napi::Value value) {
  if (value.IsEmpty() || value.IsUndefined()) return "undefined";
  if (value.IsNull()) return "null";
  if (value.IsBoolean()) return "boolean";
  if (value.IsNumber()) return "number";
  if (value.IsString()) return "string";
  if (value.IsSymbol()) return "symbol";
  if (value.IsFunction()) return "function";
  if (value.IsArray()) return "array";
  if (value.IsTypedArray()) return "typed array";
  return "object";
}

}  // namespace

Napi::Value succeeded(Napi::Env env, Napi::Value value) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("ok", Napi::Boolean::New(env, true));
  result.Set("value", value);
  return result;
}

Napi::Value failed(Napi::Env env, const Error& error) {
  Napi::Object fields = Napi::Object::New(env);
  fields.Set("kind", Napi::String::New(env, error_kind_name(error.kind)));
  fields.Set("subject", Napi::String::New(env, error.subject));
  fields.Set("expected", Napi::String::New(env, error.expected));
  fields.Set("actual", Napi::String::New(env, error.actual));
  Napi::Object result = Napi::Object::New(env);
  result.Set("ok", Napi::Boolean::New(env, false));
  result.Set("error", fields);
  return result;
}

Napi::Value failed_promise(Napi::Env env, const Error& error) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Resolve(failed(env, error));
  return deferred.Promise();
}

Error closed_error(const char* subject) { return {ErrorKind::kStateInvalid, subject, "open", "closed"}; }
Error busy_error(const char* subject) { return {ErrorKind::kStateInvalid, subject, "idle", "running"}; }

Result<std::string> to_text(Napi::Value value, const char* name) {
  if (!value.IsString()) return wrong(name, "string", type_of(value));
  return value.As<Napi::String>().Utf8Value();
}

Result<int64_t> to_integer(Napi::Value value, const char* name, int64_t least, int64_t most) {
  const std::string range = "integer " + std::to_string(least) + ".." + std::to_string(most);
  if (!value.IsNumber()) return wrong(name, range, type_of(value));
  const double number = value.As<Napi::Number>().DoubleValue();
  // NaN fails both comparisons.
  const bool fits = number >= static_cast<double>(least) && number <= static_cast<double>(most);
  if (!fits || number != std::floor(number)) return wrong(name, range, std::to_string(number));
  return static_cast<int64_t>(number);
}

Result<double> to_number(Napi::Value value, const char* name) {
  if (!value.IsNumber()) return wrong(name, "number", type_of(value));
  return value.As<Napi::Number>().DoubleValue();
}

Result<bool> to_truth(Napi::Value value, const char* name) {
  if (!value.IsBoolean()) return wrong(name, "boolean", type_of(value));
  return value.As<Napi::Boolean>().Value();
}

Result<Napi::Object> to_object(Napi::Value value, const char* name) {
  if (!value.IsObject()) return wrong(name, "object", type_of(value));
  return value.As<Napi::Object>();
}

Result<Napi::Function> to_function(Napi::Value value, const char* name) {
  if (!value.IsFunction()) return wrong(name, "function", type_of(value));
  return value.As<Napi::Function>();
}

Result<std::vector<int32_t>> to_ids(Napi::Value value, const char* name) {
  if (!value.IsTypedArray()) return wrong(name, "Int32Array", type_of(value));
  if (value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    return wrong(name, "Int32Array", "typed array of another kind");
  }
  const auto ids = value.As<Napi::Int32Array>();
  const int32_t* data = ids.Data();
  return data == nullptr ? std::vector<int32_t>() : std::vector<int32_t>(data, data + ids.ElementLength());
}

Result<std::span<const uint8_t>> to_bytes(Napi::Value value, const char* name) {
  if (!value.IsTypedArray()) return wrong(name, "Uint8Array", type_of(value));
  if (value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    return wrong(name, "Uint8Array", "typed array of another kind");
  }
  const auto bytes = value.As<Napi::Uint8Array>();
  return std::span<const uint8_t>(bytes.Data(), bytes.ByteLength());
}

Result<std::vector<int32_t>> to_id_list(Napi::Value value, const char* name) {
  if (!value.IsArray()) return wrong(name, "array", type_of(value));
  const auto list = value.As<Napi::Array>();
  const uint32_t length = list.Length();
  if (length > kListLimit) return wrong(name, "at most " + std::to_string(kListLimit), std::to_string(length));
  std::vector<int32_t> ids;
  for (uint32_t i = 0; i < length; ++i) {
    const Napi::Value item = member(list, std::to_string(i).c_str());
    RS_TRY(const int64_t id, to_integer(item, name, 0, std::numeric_limits<int32_t>::max()));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

Napi::Value member(Napi::Object object, const char* name) {
  const Napi::Env env = object.Env();
  const Napi::Value value = object.Get(name);
  if (env.IsExceptionPending()) {
    env.GetAndClearPendingException();
    return env.Undefined();
  }
  return value;
}

Napi::Value from_ids(Napi::Env env, const std::vector<int32_t>& ids) {
  Napi::Int32Array array = Napi::Int32Array::New(env, ids.size());
  if (!ids.empty() && !array.IsEmpty()) std::memcpy(array.Data(), ids.data(), ids.size() * sizeof(int32_t));
  return array;
}

Napi::Value from_floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  if (!values.empty() && !array.IsEmpty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

Napi::Value from_count(Napi::Env env, int64_t count) { return Napi::Number::New(env, static_cast<double>(count)); }

Napi::Value from_info(Napi::Env env, const ModelInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  const auto text = [&](const char* name, const std::string& value) {
    object.Set(name, Napi::String::New(env, value));
  };
  const auto count = [&](const char* name, int64_t value) { object.Set(name, from_count(env, value)); };
  text("folder", info.folder);
  text("layout", info.layout);
  text("backend", info.backend);
  text("device", info.device);
  text("isa", info.isa);
  count("threads", info.threads);
  count("vocab", info.vocab);
  count("vocabRows", info.vocab_rows);
  count("layers", info.layers);
  count("linearLayers", info.linear_layers);
  count("heads", info.heads);
  count("contextTokens", info.context_tokens);
  count("weightFileBytes", info.weight_file_bytes);
  count("weightResidentBytes", info.weight_resident_bytes);
  count("stateBytes", info.state_bytes);
  count("kvBytesPerToken", info.kv_bytes_per_token);
  Napi::Array stop_tokens = Napi::Array::New(env, info.stop_tokens.size());
  for (size_t i = 0; i < info.stop_tokens.size(); ++i) {
    stop_tokens.Set(static_cast<uint32_t>(i), from_count(env, info.stop_tokens[i]));
  }
  object.Set("stopTokens", stop_tokens);
  return object;
}

}  // namespace ringside::binding
