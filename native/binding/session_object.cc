#include "session_object.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "environment.h"
#include "generation.h"
#include "values.h"

namespace ringside::binding {
namespace {

// Tells a session from any other object: unwrapping a foreign one would read its memory as something else.
constexpr napi_type_tag kSessionTag = {0x1d83b6c92f7e40a5, 0xc4507ae961b8d23f};

constexpr int64_t kMaxLogitsValues = int64_t{1} << 28;  // 1 GiB of fp32

BackgroundCall::Settle failure(const Error& error) {
  return [error](Napi::Env env) { return failed(env, error); };
}

Result<std::vector<std::shared_ptr<Snapshot>>> to_snapshots(Napi::Value value) {
  if (!value.IsArray()) return Error{ErrorKind::kArgumentInvalid, "snapshots", "array", "another type"};
  const auto list = value.As<Napi::Array>();
  std::vector<std::shared_ptr<Snapshot>> snapshots;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    RS_TRY(std::shared_ptr<Snapshot> snapshot, SnapshotObject::of(member(list, std::to_string(i).c_str())));
    snapshots.push_back(std::move(snapshot));
  }
  return snapshots;
}

BackgroundCall::Settle run_sync(SessionCore& core, BackgroundCall& call, const std::vector<int32_t>& prompt,
                                const std::vector<std::shared_ptr<Snapshot>>& snapshots) {
  const auto advanced = [&](int64_t position) {
    core.position.store(position, std::memory_order_relaxed);
    call.post([position](Napi::Env env, Napi::Function on_advanced) { on_advanced.Call({from_count(env, position)}); });
  };
  const auto reused = core.session->sync(prompt, snapshots, core.cancel, advanced);
  if (!reused) return failure(reused.error());
  return [count = reused.value()](Napi::Env env) {
    Napi::Object done = Napi::Object::New(env);
    done.Set("reused", from_count(env, count));
    return succeeded(env, done);
  };
}

BackgroundCall::Settle run_logits(SessionCore& core, const std::vector<int32_t>& tokens) {
  const int64_t rows = core.open.model->info().vocab_rows;
  if (static_cast<int64_t>(tokens.size()) > kMaxLogitsValues / rows) {
    return failure({ErrorKind::kArgumentInvalid, "tokens", "at most " + std::to_string(kMaxLogitsValues / rows),
                    std::to_string(tokens.size())});
  }
  auto logits = core.session->logits(tokens, core.cancel);
  if (!logits) return failure(logits.error());
  // Shared, because a closure is copied and these are megabytes.
  const auto values = std::make_shared<const std::vector<float>>(std::move(logits).value());
  return [values](Napi::Env env) { return succeeded(env, from_floats(env, *values)); };
}

}  // namespace

void SessionCore::remember() {
  position.store(session->position(), std::memory_order_relaxed);
  bytes.store(session->bytes(), std::memory_order_relaxed);
}

Napi::Function SessionObject::define(Napi::Env env) {
  return DefineClass(
      env, "NativeSession",
      {InstanceMethod<&SessionObject::Position>("position"), InstanceMethod<&SessionObject::Bytes>("bytes"),
       InstanceMethod<&SessionObject::Sync>("sync"), InstanceMethod<&SessionObject::Snapshot>("snapshot"),
       InstanceMethod<&SessionObject::Generate>("generate"), InstanceMethod<&SessionObject::Logits>("logits"),
       InstanceMethod<&SessionObject::StateNorms>("stateNorms"), InstanceMethod<&SessionObject::Cancel>("cancel"),
       InstanceMethod<&SessionObject::Close>("close")});
}

Napi::Value SessionObject::create(Napi::Env env, const OpenModel& open, std::unique_ptr<Session> session) {
  auto core = std::make_shared<SessionCore>();
  core->open = open;
  core->session = std::move(session);
  core->remember();
  return construct(env, &Environment::session, std::move(core));
}

SessionObject::SessionObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SessionObject>(info) {
  const auto* core = constructed_from<std::shared_ptr<SessionCore>>(info);
  if (core == nullptr) return;
  core_ = *core;
  closed_ = false;
  info.This().As<Napi::Object>().TypeTag(&kSessionTag);
}

Result<SessionObject*> SessionObject::of(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kSessionTag)) {
    return Error{ErrorKind::kArgumentInvalid, "sessions", "a session", "another value"};
  }
  return Unwrap(value.As<Napi::Object>());
}

SessionObject::~SessionObject() {
  closed_ = true;
  release();
}

Status SessionObject::check_idle() const {
  if (closed_) return closed_error("session");
  if (running_) return busy_error("session");
  return Unit{};
}

Napi::Value SessionObject::start(Napi::Env env, Napi::Function callback, const std::vector<SessionObject*>& sessions,
                                 Work work) {
  std::vector<std::shared_ptr<SessionCore>> cores;
  for (SessionObject* session : sessions) {
    // Cancels come from this thread too, so none that is meant for this call can be lost here.
    session->core_->cancel.clear();
    session->running_ = true;
    session->Ref();
    cores.push_back(session->core_);
  }
  // Shared, because a closure is copied.
  const auto place = std::make_shared<Place>(cores[0]->open.shared);
  const auto run = [cores, place, work = std::move(work)](BackgroundCall& call) mutable -> BackgroundCall::Settle {
    SharedModel& shared = *cores[0]->open.shared;
    // One that goes on needs the turn; those that were cancelled meanwhile end then.
    const auto is_cancelled = [](const auto& core) { return core->cancel.cancelled(); };
    // The work may hold the last reference to a snapshot, which only the thread that has the turn may free.
    if (!place->enter([&] { return std::ranges::all_of(cores, is_cancelled); })) {
      shared.retire(std::make_shared<Work>(std::exchange(work, nullptr)));
      return failure({ErrorKind::kCancelled, "call", "", ""});
    }
    const Turn turn(shared);
    const Work mine = std::exchange(work, nullptr);
    const BackgroundCall::Settle settle = mine(call);
    for (const auto& core : cores) core->remember();
    return settle;
  };
  const auto cancel = [cores] {
    for (const auto& core : cores) core->cancel.cancel();
    cores[0]->open.shared->wake();
  };
  const auto ended = [sessions] {
    for (SessionObject* session : sessions) {
      session->running_ = false;
      if (session->closed_) session->release();
      session->Unref();
    }
  };
  return BackgroundCall::start(env, callback, {.run = run, .cancel = cancel, .ended = ended});
}

// Frees the session and its share of the model, but never under a running call.
void SessionObject::release() {
  if (core_ == nullptr || running_) return;
  const std::shared_ptr<SharedModel> shared = core_->open.shared;
  if (core_->session != nullptr) shared->retire(std::exchange(core_->session, nullptr));
  if (core_->open.model != nullptr) shared->retire(std::exchange(core_->open.model, nullptr));
  core_->position = 0;
  core_->bytes = 0;
}

void SessionObject::cancel() {
  if (!running_) return;
  core_->cancel.cancel();
  core_->open.shared->wake();
}

Napi::Value SessionObject::Position(const Napi::CallbackInfo& info) {
  return from_count(info.Env(), core_->position.load(std::memory_order_relaxed));
}

Napi::Value SessionObject::Bytes(const Napi::CallbackInfo& info) {
  return from_count(info.Env(), core_->bytes.load(std::memory_order_relaxed));
}

Napi::Value SessionObject::Sync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Status idle = check_idle();
  if (!idle) return failed_promise(env, idle.error());
  auto prompt = to_ids(info[0], "tokens");
  if (!prompt) return failed_promise(env, prompt.error());
  auto snapshots = to_snapshots(info[1]);
  if (!snapshots) return failed_promise(env, snapshots.error());
  const auto on_advanced = to_function(info[2], "onAdvanced");
  if (!on_advanced) return failed_promise(env, on_advanced.error());
  return start(env, on_advanced.value(), {this},
               [core = core_, prompt = std::move(prompt).value(), snapshots = std::move(snapshots).value()](
                   BackgroundCall& call) { return run_sync(*core, call, prompt, snapshots); });
}

Napi::Value SessionObject::Generate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Status idle = check_idle();
  if (!idle) return failed_promise(env, idle.error());
  auto options = to_generate_options(info[0]);
  if (!options) return failed_promise(env, options.error());
  const auto on_tokens = to_function(info[1], "onTokens");
  if (!on_tokens) return failed_promise(env, on_tokens.error());
  return start(env, on_tokens.value(), {this},
               [core = core_, options = std::move(options).value()](BackgroundCall& call) {
                 return run_generate(*core, call, options);
               });
}

Napi::Value SessionObject::Logits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Status idle = check_idle();
  if (!idle) return failed_promise(env, idle.error());
  auto tokens = to_ids(info[0], "tokens");
  if (!tokens) return failed_promise(env, tokens.error());
  return start(env, Napi::Function(), {this}, [core = core_, tokens = std::move(tokens).value()](BackgroundCall&) {
    return run_logits(*core, tokens);
  });
}

Napi::Value SessionObject::Snapshot(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "snapshot", [&]() -> Napi::Value {
    const Status idle = check_idle();
    if (!idle) return failed(env, idle.error());
    if (!core_->open.shared->try_enter()) return failed(env, busy_error("model"));
    const Turn turn(*core_->open.shared);
    auto snapshot = core_->session->snapshot();
    if (!snapshot) return failed(env, snapshot.error());
    return succeeded(env, SnapshotObject::create(env, {core_->open.shared, std::move(snapshot).value()}));
  });
}

Napi::Value SessionObject::StateNorms(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "state norms", [&]() -> Napi::Value {
    const Status idle = check_idle();
    if (!idle) return failed(env, idle.error());
    if (!core_->open.shared->try_enter()) return failed(env, busy_error("model"));
    const Turn turn(*core_->open.shared);
    const auto norms = core_->session->state_norms();
    if (!norms) return failed(env, norms.error());
    return succeeded(env, from_floats(env, norms.value()));
  });
}

Napi::Value SessionObject::Cancel(const Napi::CallbackInfo& info) {
  cancel();
  return info.Env().Undefined();
}

// A running call goes on to its end; the session is freed after it.
Napi::Value SessionObject::Close(const Napi::CallbackInfo& info) {
  closed_ = true;
  release();
  return info.Env().Undefined();
}

}  // namespace ringside::binding
