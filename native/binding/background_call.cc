#include "background_call.h"

#include <memory>
#include <new>
#include <system_error>
#include <utility>

#include "values.h"

namespace ringside::binding {
namespace {

BackgroundCall::Settle failure(ErrorKind kind) {
  return [kind](Napi::Env env) { return failed(env, {kind, "call", "", ""}); };
}

}  // namespace

Napi::Value BackgroundCall::start(Napi::Env env, Napi::Function callback, Job job) {
  // Owned by its message queue: finalise() deletes it.
  auto* call = new BackgroundCall(env, std::move(job));
  napi_value promise = nullptr;
  napi_create_promise(env, &call->deferred_, &promise);
  const napi_value function = callback.IsEmpty() ? nullptr : static_cast<napi_value>(callback);
  const napi_status status =
      napi_create_threadsafe_function(env, function, nullptr, Napi::String::New(env, "ringside call"), 0, 1, call,
                                      finalise, call, deliver, &call->queue_);
  if (status != napi_ok) {
    call->settle(failure(ErrorKind::kInternal));
    delete call;
    return Napi::Value(env, promise);
  }
  // Hooks run last in, first out: this one stops and joins the worker before Node tears the queue down under it.
  napi_add_env_cleanup_hook(env, end_environment, call);
  try {
    call->worker_ = std::thread([call] { call->run(); });
  } catch (const std::system_error&) {
    call->settle(failure(ErrorKind::kOutOfMemory));
    napi_release_threadsafe_function(call->queue_, napi_tsfn_release);
  }
  return Napi::Value(env, promise);
}

void BackgroundCall::post(Message message) {
  auto owned = std::make_unique<Message>(std::move(message));
  // Refused only when the environment ends; then nobody is left to tell.
  if (napi_call_threadsafe_function(queue_, owned.get(), napi_tsfn_nonblocking) == napi_ok) (void)owned.release();
}

void BackgroundCall::run() {
  try {
    Settle value;
    try {
      value = job_.run(*this);
    } catch (const std::bad_alloc&) {
      value = failure(ErrorKind::kOutOfMemory);
    } catch (...) {
      value = failure(ErrorKind::kInternal);
    }
    post([this, value = std::move(value)](Napi::Env, Napi::Function) { settle(value); });
  } catch (...) {
    // Not even the message could be made: the promise stays open, which is all that is left without memory.
  }
  napi_release_threadsafe_function(queue_, napi_tsfn_release);
}

void BackgroundCall::settle(const Settle& value) {
  if (job_.ended) job_.ended();
  Napi::Value result = value(env_);
  // For example a result that is larger than an ArrayBuffer may be.
  if (env_.IsExceptionPending()) {
    env_.GetAndClearPendingException();
    result = failed(env_, {ErrorKind::kOutOfMemory, "result", "", ""});
  }
  napi_resolve_deferred(env_, deferred_, result);
}

// Node calls this without an environment for what is left in the queue when the environment ends.
void BackgroundCall::deliver(napi_env env, napi_value callback, void*, void* data) {
  const std::unique_ptr<Message> message(static_cast<Message*>(data));
  if (env == nullptr) return;
  (*message)(Napi::Env(env), Napi::Function(env, callback));
  // What a JavaScript callback throws is its author's error; Node by itself would only print a warning.
  napi_value thrown = nullptr;
  bool has_thrown = false;
  if (napi_is_exception_pending(env, &has_thrown) != napi_ok || !has_thrown) return;
  if (napi_get_and_clear_last_exception(env, &thrown) == napi_ok) napi_fatal_exception(env, thrown);
}

void BackgroundCall::end_environment(void* self) {
  auto* call = static_cast<BackgroundCall*>(self);
  call->environment_ended_ = true;
  call->job_.cancel();
  if (call->worker_.joinable()) call->worker_.join();
}

void BackgroundCall::finalise(napi_env env, void* self, void*) {
  auto* call = static_cast<BackgroundCall*>(self);
  if (!call->environment_ended_) napi_remove_env_cleanup_hook(env, end_environment, call);
  if (call->worker_.joinable()) call->worker_.join();
  delete call;
}

}  // namespace ringside::binding
