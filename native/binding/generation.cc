#include "generation.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "token_batches.h"
#include "values.h"

namespace ringside::binding {
namespace {

constexpr int64_t kMaxGeneratedTokens = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;
constexpr uint32_t kMostSessions = 1024;

const char* reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken:
      return "stop-token";
    case StopReason::kTokenLimit:
      return "token-limit";
    case StopReason::kContextFull:
      return "context-full";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "cancelled";
}

BackgroundCall::Settle failure(const Error& error) {
  return [error](Napi::Env env) { return failed(env, error); };
}

Napi::Value from_generated(Napi::Env env, const GenerateResult& result) {
  Napi::Object done = Napi::Object::New(env);
  done.Set("reason", Napi::String::New(env, reason_name(result.reason)));
  done.Set("tokens", from_count(env, result.tokens));
  done.Set("drafted", from_count(env, result.drafted));
  done.Set("accepted", from_count(env, result.accepted));
  return done;
}

// Sends each batch of a session's tokens to JavaScript, with the session's index in front unless it is -1.
TokenBatches batches_of(SessionCore& core, BackgroundCall& call, int64_t index = -1) {
  return {core.open.model->tokenizer(), [&core, &call, index](std::vector<int32_t> ids, std::string text) {
            core.position.store(core.session->position(), std::memory_order_relaxed);
            call.post([index, ids = std::move(ids), text = std::move(text)](Napi::Env env, Napi::Function on_tokens) {
              const Napi::Value batch = from_ids(env, ids);
              const Napi::Value spelled = Napi::String::New(env, text);
              if (index < 0) {
                on_tokens.Call({batch, spelled});
              } else {
                on_tokens.Call({from_count(env, index), batch, spelled});
              }
            });
          }};
}

Result<std::vector<SessionObject*>> to_sessions(Napi::Value value) {
  if (!value.IsArray()) return Error{ErrorKind::kArgumentInvalid, "sessions", "array", "another type"};
  const auto list = value.As<Napi::Array>();
  const uint32_t length = list.Length();
  if (length < 1 || length > kMostSessions) {
    return Error{ErrorKind::kArgumentInvalid, "sessions", "1.." + std::to_string(kMostSessions),
                 std::to_string(length)};
  }
  std::vector<SessionObject*> sessions;
  for (uint32_t i = 0; i < length; ++i) {
    RS_TRY(SessionObject* const session, SessionObject::of(member(list, std::to_string(i).c_str())));
    if (std::ranges::find(sessions, session) != sessions.end()) {
      return Error{ErrorKind::kArgumentInvalid, "sessions", "each session once", "one twice"};
    }
    if (session->core()->open.shared != (i == 0 ? session : sessions[0])->core()->open.shared) {
      return Error{ErrorKind::kArgumentInvalid, "sessions", "sessions of one model", "of another too"};
    }
    sessions.push_back(session);
  }
  return sessions;
}

Result<std::vector<GenerateOptions>> to_options_of(Napi::Value value, size_t count) {
  if (!value.IsArray()) return Error{ErrorKind::kArgumentInvalid, "options", "array", "another type"};
  const auto list = value.As<Napi::Array>();
  if (list.Length() != count) {
    return Error{ErrorKind::kArgumentInvalid, "options", std::to_string(count), std::to_string(list.Length())};
  }
  std::vector<GenerateOptions> options;
  for (size_t i = 0; i < count; ++i) {
    RS_TRY(GenerateOptions one, to_generate_options(member(list, std::to_string(i).c_str())));
    options.push_back(std::move(one));
  }
  return options;
}

}  // namespace

Result<GenerateOptions> to_generate_options(Napi::Value value) {
  RS_TRY(const Napi::Object object, to_object(value, "options"));
  GenerateOptions options;
  RS_TRY(options.max_tokens, to_integer(member(object, "maxTokens"), "maxTokens", 0, kMaxGeneratedTokens));
  RS_TRY(options.stop_tokens, to_id_list(member(object, "stopTokens"), "stopTokens"));
  RS_TRY(options.prompt_lookup, to_truth(member(object, "promptLookup"), "promptLookup"));
  RS_TRY(const Napi::Object sampler, to_object(member(object, "sampler"), "sampler"));
  RS_TRY(const double temperature, to_number(member(sampler, "temperature"), "temperature"));
  RS_TRY(const double top_p, to_number(member(sampler, "topP"), "topP"));
  RS_TRY(const double penalty, to_number(member(sampler, "repetitionPenalty"), "repetitionPenalty"));
  RS_TRY(const int64_t seed, to_integer(member(sampler, "seed"), "seed", 0, kMaxSafeInteger));
  options.sampler = {.temperature = static_cast<float>(temperature),
                     .top_p = static_cast<float>(top_p),
                     .repetition_penalty = static_cast<float>(penalty),
                     .seed = static_cast<uint64_t>(seed)};
  RS_CHECK(check_sampler_options(options.sampler));
  return options;
}

BackgroundCall::Settle run_generate(SessionCore& core, BackgroundCall& call, const GenerateOptions& options) {
  TokenBatches batches = batches_of(core, call);
  const auto generated = core.session->generate(options, core.cancel, [&](int32_t id) {
    batches.add(id);
    return true;
  });
  batches.finish();
  if (!generated) return failure(generated.error());
  return [result = generated.value()](Napi::Env env) { return succeeded(env, from_generated(env, result)); };
}

BackgroundCall::Settle run_together(const std::vector<std::shared_ptr<SessionCore>>& cores, BackgroundCall& call,
                                    const std::vector<GenerateOptions>& options) {
  std::vector<TokenBatches> batches;
  for (size_t i = 0; i < cores.size(); ++i) batches.push_back(batches_of(*cores[i], call, static_cast<int64_t>(i)));
  std::vector<BatchMember> members;
  for (size_t i = 0; i < cores.size(); ++i) {
    members.push_back({cores[i]->session.get(), options[i], &cores[i]->cancel, [&one = batches[i]](int32_t id) {
                         one.add(id);
                         return true;
                       }});
  }
  auto generated = ringside::generate_together(members);
  for (TokenBatches& one : batches) one.finish();
  if (!generated) return failure(generated.error());
  return [results = std::move(generated).value()](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, results.size());
    for (size_t i = 0; i < results.size(); ++i) list.Set(static_cast<uint32_t>(i), from_generated(env, results[i]));
    return succeeded(env, list);
  };
}

Napi::Value generate_together(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto sessions = to_sessions(info[0]);
  if (!sessions) return failed_promise(env, sessions.error());
  auto options = to_options_of(info[1], sessions.value().size());
  if (!options) return failed_promise(env, options.error());
  const auto on_tokens = to_function(info[2], "onTokens");
  if (!on_tokens) return failed_promise(env, on_tokens.error());
  std::vector<std::shared_ptr<SessionCore>> cores;
  for (const SessionObject* session : sessions.value()) {
    // Asked last: reading the arguments may have run JavaScript.
    const Status idle = session->check_idle();
    if (!idle) return failed_promise(env, idle.error());
    cores.push_back(session->core());
  }
  return SessionObject::start(env, on_tokens.value(), sessions.value(),
                              [cores, options = std::move(options).value()](BackgroundCall& call) {
                                return run_together(cores, call, options);
                              });
}

}  // namespace ringside::binding
