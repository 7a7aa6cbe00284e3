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
       InstanceMethod<&SnapshotObject::Close>("close")});
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

Napi::Value SnapshotObject::Close(const Napi::CallbackInfo& info) {
  close();
  return info.Env().Undefined();
}

}  // namespace ringside::binding
