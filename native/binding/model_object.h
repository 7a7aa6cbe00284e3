// Owns: NativeModel of src/engine/addonTypes.ts: the JavaScript face of a loaded model.
#pragma once

#include <napi.h>

#include <memory>
#include <string_view>
#include <vector>

#include "../engine.h"
#include "shared_model.h"

namespace ringside::binding {

// What a model object and the sessions opened from it have in common.
struct OpenModel {
  std::shared_ptr<SharedModel> shared = std::make_shared<SharedModel>();
  std::shared_ptr<Model> model;  // empty once closed
};

class ModelObject final : public Napi::ObjectWrap<ModelObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, OpenModel open);
  explicit ModelObject(const Napi::CallbackInfo& info);
  ~ModelObject() override;

 private:
  using Encoding = std::vector<int32_t> (Tokenizer::*)(std::string_view) const;

  Napi::Value Info(const Napi::CallbackInfo& info);
  Napi::Value Encode(const Napi::CallbackInfo& info);
  Napi::Value EncodeWithAdded(const Napi::CallbackInfo& info);
  Napi::Value AddedId(const Napi::CallbackInfo& info);
  Napi::Value Decode(const Napi::CallbackInfo& info);
  Napi::Value OpenSession(const Napi::CallbackInfo& info);
  Napi::Value Parts(const Napi::CallbackInfo& info);
  Napi::Value ImportSnapshot(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Result<const Tokenizer*> tokenizer() const;
  Napi::Value encode(const Napi::CallbackInfo& info, Encoding encoding);
  void close();

  OpenModel open_;
  ModelInfo info_;  // answers after close() too
};

// loadModel() of NativeAddon.
Napi::Value load_model(const Napi::CallbackInfo& info);

}  // namespace ringside::binding
