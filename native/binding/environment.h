// Owns: what one JavaScript environment (the main thread or a worker) has of this addon. There is no global state.
#pragma once

#include <napi.h>

namespace ringside::binding {

struct Environment {
  Napi::FunctionReference model;
  Napi::FunctionReference session;
  Napi::FunctionReference snapshot;
};

// The constructors are not exported: an object is made from a native one, handed over as an External.
template <class Native>
Napi::Object construct(Napi::Env env, Napi::FunctionReference Environment::*constructor, Native native) {
  return (env.GetInstanceData<Environment>()->*constructor).New({Napi::External<Native>::New(env, &native)});
}

// The native value a constructor was called with; nullptr and a pending TypeError when JavaScript called it.
template <class Native>
Native* constructed_from(const Napi::CallbackInfo& info) {
  if (info.Length() == 1 && info[0].IsExternal()) return info[0].As<Napi::External<Native>>().Data();
  Napi::TypeError::New(info.Env(), "Illegal constructor").ThrowAsJavaScriptException();
  return nullptr;
}

}  // namespace ringside::binding
