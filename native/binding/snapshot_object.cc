#include <utility>

#include "environment.h"
#include "session_object.h"
#include "values.h"

namespace ringside::binding {
namespace {

// Tells a snapshot from any other object: unwrapping a foreign one would read its memory as something else.
constexpr napi_type_tag kSnapshotTag = {0x7c1f5a3be0d94e62, 0x9b26d8417f3ca50e};

}  // namespace

Napi::Function SnapshotObject::define(Napi::Env env) {
  return DefineClass(
      env, "NativeSnapshot",
      {InstanceMethod<&SnapshotObject::Position>("position"), InstanceMethod<&SnapshotObject::Bytes>("bytes"),
       InstanceMethod<&SnapshotObject::ExportParts>("exportParts"), InstanceMethod<&SnapshotObject::Close>("close")});
}

Napi::Value SnapshotObject::create(Napi::Env env, Held held) {
  return construct(env, &Environment::snapshot, std::move(held));
}

Result<std::shared_ptr<Snapshot>> SnapshotObject::of(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kSnapshotTag)) {
    return Error{ErrorKind::kArgumentInvalid, "snapshots", "a snapshot", "another value"};
  }
  const SnapshotObject* object = Unwrap(value.As<Napi::Object>());
  if (object->held_.snapshot == nullptr) return closed_error("snapshot");
  return object->held_.snapshot;
}

SnapshotObject::SnapshotObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SnapshotObject>(info) {
  const Held* held = constructed_from<Held>(info);
  if (held == nullptr) return;
  held_ = *held;
  position_ = held_.snapshot->position();
  bytes_ = held_.snapshot->bytes();
  info.This().As<Napi::Object>().TypeTag(&kSnapshotTag);
}

SnapshotObject::~SnapshotObject() { close(); }

void SnapshotObject::close() {
  if (held_.snapshot != nullptr) held_.shared->retire(std::exchange(held_.snapshot, nullptr));
  position_ = 0;
  bytes_ = 0;
}

Napi::Value SnapshotObject::Position(const Napi::CallbackInfo& info) { return from_count(info.Env(), position_); }

Napi::Value SnapshotObject::Bytes(const Napi::CallbackInfo& info) { return from_count(info.Env(), bytes_); }

Napi::Value SnapshotObject::ExportParts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "snapshot", [&]() -> Napi::Value {
    if (held_.snapshot == nullptr) return failed(env, closed_error("snapshot"));
    const int64_t count = (position_ + kSnapshotPageTokens - 1) / kSnapshotPageTokens;
    const auto first = to_integer(info[0], "firstPage", 0, count);
    if (!first) return failed(env, first.error());
    const SnapshotParts lengths = held_.snapshot->parts();
    const auto size = [](int64_t bytes) { return static_cast<size_t>(bytes); };
    Napi::Uint8Array state = Napi::Uint8Array::New(env, size(lengths.state_bytes));
    Napi::Uint8Array pages = Napi::Uint8Array::New(env, size((count - first.value()) * lengths.page_bytes));
    if (state.IsEmpty() || pages.IsEmpty()) {
      if (env.IsExceptionPending()) env.GetAndClearPendingException();
      return failed(env, {ErrorKind::kOutOfMemory, "snapshot", "", ""});
    }
    const Status exported = held_.snapshot->export_state({state.Data(), state.ByteLength()});
    if (!exported) return failed(env, exported.error());
    for (int64_t page = first.value(); page < count; ++page) {
      uint8_t* out = pages.Data() + size((page - first.value()) * lengths.page_bytes);
      const Status copied = held_.snapshot->export_page(page, {out, size(lengths.page_bytes)});
      if (!copied) return failed(env, copied.error());
    }
    Napi::Object parts = Napi::Object::New(env);
    parts.Set("state", state);
    parts.Set("pages", pages);
    return succeeded(env, parts);
  });
}

Napi::Value SnapshotObject::Close(const Napi::CallbackInfo& info) {
  close();
  return info.Env().Undefined();
}

}  // namespace ringside::binding
