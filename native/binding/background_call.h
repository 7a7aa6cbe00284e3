// Owns: one long call on a thread of its own: its promise, its messages to JavaScript, and its end when the environment
// ends. Must never: let a Node-API value cross to the worker; only plain data in closures does.
#pragma once

#include <napi.h>

#include <functional>
#include <thread>
#include <utility>

#include "../error.h"

namespace ringside::binding {

class BackgroundCall {
 public:
  // Makes the promise's value, on the JavaScript thread.
  using Settle = std::function<Napi::Value(Napi::Env)>;
  // Uses the call's JavaScript callback, on the JavaScript thread.
  using Message = std::function<void(Napi::Env, Napi::Function callback)>;
  struct Job {
    std::function<Settle(BackgroundCall&)> run;  // on the worker thread
    std::function<void()> cancel;                // JavaScript thread: the environment ends, run() must return soon
    std::function<void()> ended;                 // JavaScript thread: before the promise settles
  };

  // Returns the promise. `callback` may be empty when run() posts nothing.
  static Napi::Value start(Napi::Env env, Napi::Function callback, Job job);
  // From the worker. Messages arrive in order and before the promise settles; none waits for JavaScript.
  void post(Message message);

  BackgroundCall(const BackgroundCall&) = delete;
  BackgroundCall& operator=(const BackgroundCall&) = delete;

 private:
  BackgroundCall(Napi::Env env, Job job) : env_(env), job_(std::move(job)) {}
  ~BackgroundCall() = default;
  void run();
  void settle(const Settle& value);
  static void deliver(napi_env env, napi_value callback, void* context, void* data);
  static void end_environment(void* self);
  static void finalise(napi_env env, void* self, void* hint);

  Napi::Env env_;
  napi_deferred deferred_ = nullptr;
  Job job_;
  napi_threadsafe_function queue_ = nullptr;
  std::thread worker_;
  bool environment_ended_ = false;
};

}  // namespace ringside::binding
