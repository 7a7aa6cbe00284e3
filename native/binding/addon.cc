// Owns: what the .node file exports, src/engine/addonTypes.ts word for word. Node-API is spoken in binding/ alone.
#include <napi.h>

#include "environment.h"
#include "generation.h"
#include "model_object.h"
#include "session_object.h"

namespace ringside::binding {
namespace {

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  // Deleted with the environment.
  auto* environment = new Environment;
  environment->model = Napi::Persistent(ModelObject::define(env));
  environment->session = Napi::Persistent(SessionObject::define(env));
  environment->snapshot = Napi::Persistent(SnapshotObject::define(env));
  env.SetInstanceData(environment);
  exports.Set("loadModel", Napi::Function::New<load_model>(env, "loadModel"));
  exports.Set("generateTogether", Napi::Function::New<generate_together>(env, "generateTogether"));
  return exports;
}

}  // namespace
}  // namespace ringside::binding

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return ringside::binding::initialise(env, exports); }

NODE_API_MODULE(ringside, Init)
