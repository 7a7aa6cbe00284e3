// Owns: NativeSession and NativeSnapshot of src/engine/addonTypes.ts, and the state machine open → running → closed.
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "../engine.h"
#include "background_call.h"
#include "model_object.h"

namespace ringside::binding {

// What the JavaScript object and its running call share. The two numbers are the last ones known: JavaScript asks for
// them while the worker changes the session.
struct SessionCore {
  OpenModel open;
  std::shared_ptr<Session> session;
  CancelFlag cancel;
  std::atomic<int64_t> position{0};
  std::atomic<int64_t> bytes{0};

  void remember();  // on the thread that has the turn
};

class SessionObject final : public Napi::ObjectWrap<SessionObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, const OpenModel& open, std::unique_ptr<Session> session);
  explicit SessionObject(const Napi::CallbackInfo& info);
  ~SessionObject() override;

  // The session behind a JavaScript value.
  static Result<SessionObject*> of(Napi::Value value);
  // Runs `work`, which may use the cores of `sessions`, on a thread of its own when their model is free. All are of one
  // model and idle.
  using Work = std::function<BackgroundCall::Settle(BackgroundCall&)>;
  static Napi::Value start(Napi::Env env, Napi::Function callback, const std::vector<SessionObject*>& sessions,
                           Work work);
  Status check_idle() const;
  const std::shared_ptr<SessionCore>& core() const { return core_; }

 private:
  Napi::Value Position(const Napi::CallbackInfo& info);
  Napi::Value Bytes(const Napi::CallbackInfo& info);
  Napi::Value Sync(const Napi::CallbackInfo& info);
  Napi::Value Snapshot(const Napi::CallbackInfo& info);
  Napi::Value Generate(const Napi::CallbackInfo& info);
  Napi::Value Logits(const Napi::CallbackInfo& info);
  Napi::Value StateNorms(const Napi::CallbackInfo& info);
  Napi::Value Cancel(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  void cancel();
  void release();

  std::shared_ptr<SessionCore> core_;
  bool running_ = false;
  bool closed_ = true;
};

class SnapshotObject final : public Napi::ObjectWrap<SnapshotObject> {
 public:
  struct Held {
    std::shared_ptr<SharedModel> shared;
    std::shared_ptr<Snapshot> snapshot;  // empty once closed
  };
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, Held held);
  // The snapshot behind a JavaScript value.
  static Result<std::shared_ptr<Snapshot>> of(Napi::Value value);
  explicit SnapshotObject(const Napi::CallbackInfo& info);
  ~SnapshotObject() override;

 private:
  Napi::Value Position(const Napi::CallbackInfo& info);
  Napi::Value Bytes(const Napi::CallbackInfo& info);
  Napi::Value ExportParts(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  void close();

  Held held_;
  int64_t position_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace ringside::binding
