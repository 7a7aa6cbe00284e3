#include "model_object.h"

#include <atomic>
#include <string>
#include <utility>

#include "background_call.h"
#include "environment.h"
#include "session_object.h"
#include "values.h"

namespace ringside::binding {
namespace {

// A model has thousands of tensors; nobody sees more than a hundred steps.
constexpr float kProgressStep = 0.01f;

Result<SlopeForm> to_slope_form(Napi::Value value) {
  const auto form = to_text(value, "slopeForm");
  if (!form) return form.error();
  if (form.value() == "A") return SlopeForm::kA;
  if (form.value() == "B") return SlopeForm::kB;
  if (form.value() == "C") return SlopeForm::kC;
  return Error{ErrorKind::kArgumentInvalid, "slopeForm", "A, B or C", form.value()};
}

Result<KvFormat> to_kv_format(Napi::Value value) {
  RS_TRY(const std::string format, to_text(value, "kvFormat"));
  if (format == "bf16") return KvFormat::kBF16;
  if (format == "f32") return KvFormat::kF32;
  if (format == "q8") return KvFormat::kQ8;
  return Error{ErrorKind::kArgumentInvalid, "kvFormat", "bf16, f32 or q8", format};
}

Result<LoadOptions> to_load_options(Napi::Value value) {
  RS_TRY(const Napi::Object object, to_object(value, "options"));
  LoadOptions options;
  RS_TRY(options.folder, to_text(member(object, "folder"), "folder"));
  RS_TRY(options.backend, to_text(member(object, "backend"), "backend"));
  RS_TRY(options.isa, to_text(member(object, "isa"), "isa"));
  RS_TRY(const int64_t threads, to_integer(member(object, "threads"), "threads", 0, kMaxThreads));
  options.threads = static_cast<int>(threads);
  RS_TRY(options.slope_form, to_slope_form(member(object, "slopeForm")));
  RS_TRY(options.kv_format, to_kv_format(member(object, "kvFormat")));
  const Napi::Value memory = member(object, "deviceMemoryBytes");
  if (!memory.IsUndefined()) {
    RS_TRY(options.device_memory_bytes, to_integer(memory, "deviceMemoryBytes", 0, kMaxDeviceMemoryBytes));
  }
  const Napi::Value device = member(object, "device");
  if (!device.IsUndefined()) {
    RS_TRY(const int64_t index, to_integer(device, "device", -1, kMaxDevices - 1));
    options.device_index = static_cast<int>(index);
  }
  // A path with a NUL would name another file than the caller sees.
  if (options.folder.find('\0') != std::string::npos) {
    return Error{ErrorKind::kArgumentInvalid, "folder", "a path without NUL",
                 options.folder.substr(0, options.folder.find('\0'))};
  }
  return options;
}

// Runs of whole pages, each a Uint8Array, in their order.
Result<std::vector<std::span<const uint8_t>>> to_pages(Napi::Value value, int64_t page_bytes) {
  if (!value.IsArray()) return Error{ErrorKind::kArgumentInvalid, "pages", "array", "another type"};
  const auto list = value.As<Napi::Array>();
  const auto length = static_cast<size_t>(page_bytes);
  std::vector<std::span<const uint8_t>> pages;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    RS_TRY(const std::span<const uint8_t> run, to_bytes(member(list, std::to_string(i).c_str()), "pages"));
    if (length == 0 || run.size() % length != 0) {
      return Error{ErrorKind::kArgumentInvalid, "pages", "whole pages of " + std::to_string(length) + " bytes",
                   std::to_string(run.size())};
    }
    for (size_t begin = 0; begin < run.size(); begin += length) pages.push_back(run.subspan(begin, length));
  }
  return pages;
}

BackgroundCall::Settle run_load(LoadOptions options, const CancelFlag& cancel, BackgroundCall& call) {
  float told = -1.0f;
  options.progress = [&](float fraction) {
    if (fraction - told >= kProgressStep || fraction >= 1.0f) {
      told = fraction;
      call.post([fraction](Napi::Env env, Napi::Function on_progress) {
        on_progress.Call({Napi::Number::New(env, static_cast<double>(fraction))});
      });
    }
    return !cancel.cancelled();
  };
  auto model = Model::load(options);
  if (!model) {
    return [error = model.error()](Napi::Env env) { return failed(env, error); };
  }
  OpenModel open;
  open.model = std::move(model).value();
  return [open = std::move(open)](Napi::Env env) { return succeeded(env, ModelObject::create(env, open)); };
}

}  // namespace

Napi::Value load_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto options = to_load_options(info[0]);
  if (!options) return failed_promise(env, options.error());
  const auto on_progress = to_function(info[1], "onProgress");
  if (!on_progress) return failed_promise(env, on_progress.error());
  const auto cancel = std::make_shared<CancelFlag>();
  return BackgroundCall::start(env, *on_progress.operator->(),
                               {.run = [options = std::move(options).value(),
                                        cancel](BackgroundCall& call) { return run_load(options, *cancel, call); },
                                .cancel = [cancel] { cancel->cancel(); },
                                .ended = nullptr});
}

Napi::Function ModelObject::define(Napi::Env env) {
  return DefineClass(
      env, "NativeModel",
      {InstanceMethod<&ModelObject::Info>("info"), InstanceMethod<&ModelObject::Encode>("encode"),
       InstanceMethod<&ModelObject::EncodeWithAdded>("encodeWithAdded"),
       InstanceMethod<&ModelObject::AddedId>("addedId"), InstanceMethod<&ModelObject::Decode>("decode"),
       InstanceMethod<&ModelObject::OpenSession>("openSession"), InstanceMethod<&ModelObject::Parts>("snapshotParts"),
       InstanceMethod<&ModelObject::ImportSnapshot>("importSnapshot"), InstanceMethod<&ModelObject::Close>("close")});
}

Napi::Value ModelObject::create(Napi::Env env, OpenModel open) {
  return construct(env, &Environment::model, std::move(open));
}

ModelObject::ModelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelObject>(info) {
  const OpenModel* open = constructed_from<OpenModel>(info);
  if (open == nullptr) return;
  open_ = *open;
  info_ = open_.model->info();
}

ModelObject::~ModelObject() { close(); }

void ModelObject::close() {
  if (open_.model != nullptr) open_.shared->retire(std::exchange(open_.model, nullptr));
}

Result<const Tokenizer*> ModelObject::tokenizer() const {
  if (open_.model == nullptr) return closed_error("model");
  const Tokenizer* tokenizer = open_.model->tokenizer();
  if (tokenizer == nullptr) return Error{ErrorKind::kFileMissing, info_.folder + "/tokenizer.json", "", ""};
  return tokenizer;
}

Napi::Value ModelObject::Info(const Napi::CallbackInfo& info) { return from_info(info.Env(), info_); }

Napi::Value ModelObject::encode(const Napi::CallbackInfo& info, Encoding encoding) {
  const Napi::Env env = info.Env();
  return guarded(env, "text", [&]() -> Napi::Value {
    const auto tokens = tokenizer();
    if (!tokens) return failed(env, tokens.error());
    const auto text = to_text(info[0], "text");
    if (!text) return failed(env, text.error());
    return succeeded(env, from_ids(env, (tokens.value()->*encoding)(text.value())));
  });
}

Napi::Value ModelObject::Encode(const Napi::CallbackInfo& info) { return encode(info, &Tokenizer::encode); }

Napi::Value ModelObject::EncodeWithAdded(const Napi::CallbackInfo& info) {
  return encode(info, &Tokenizer::encode_with_added);
}

// -1 for whatever is no added token of an open model, a wrong argument included.
Napi::Value ModelObject::AddedId(const Napi::CallbackInfo& info) {
  const auto tokens = tokenizer();
  const auto content = to_text(info[0], "content");
  return from_count(info.Env(), tokens && content ? tokens.value()->added_id(content.value()) : -1);
}

Napi::Value ModelObject::Decode(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "ids", [&]() -> Napi::Value {
    const auto tokens = tokenizer();
    if (!tokens) return failed(env, tokens.error());
    const auto ids = to_ids(info[0], "ids");
    if (!ids) return failed(env, ids.error());
    for (const int32_t id : ids.value()) {
      if (id >= 0 && id < info_.vocab_rows) continue;
      return failed(
          env, {ErrorKind::kTokenOutOfRange, "ids", "0.." + std::to_string(info_.vocab_rows - 1), std::to_string(id)});
    }
    return succeeded(env, Napi::String::New(env, tokens.value()->decode(ids.value())));
  });
}

Napi::Value ModelObject::OpenSession(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "session", [&]() -> Napi::Value {
    if (open_.model == nullptr) return failed(env, closed_error("model"));
    // A synchronous call cannot wait for another session's turn without blocking JavaScript.
    if (!open_.shared->try_enter()) return failed(env, busy_error("model"));
    const Turn turn(*open_.shared);
    auto session = Session::open(open_.model);
    if (!session) return failed(env, session.error());
    return succeeded(env, SessionObject::create(env, open_, std::move(session).value()));
  });
}

Napi::Value ModelObject::Parts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const SnapshotParts lengths = open_.model == nullptr ? SnapshotParts() : open_.model->snapshot_parts();
  Napi::Object parts = Napi::Object::New(env);
  parts.Set("stateBytes", from_count(env, lengths.state_bytes));
  parts.Set("pageBytes", from_count(env, lengths.page_bytes));
  return parts;
}

Napi::Value ModelObject::ImportSnapshot(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "snapshot", [&]() -> Napi::Value {
    if (open_.model == nullptr) return failed(env, closed_error("model"));
    auto tokens = to_ids(info[0], "tokens");
    if (!tokens) return failed(env, tokens.error());
    const auto state = to_bytes(info[1], "state");
    if (!state) return failed(env, state.error());
    const auto pages = to_pages(info[2], open_.model->snapshot_parts().page_bytes);
    if (!pages) return failed(env, pages.error());
    // A synchronous call cannot wait for another session's turn without blocking JavaScript.
    if (!open_.shared->try_enter()) return failed(env, busy_error("model"));
    const Turn turn(*open_.shared);
    auto snapshot = Snapshot::from_parts(open_.model, std::move(tokens).value(), state.value(), pages.value());
    if (!snapshot) return failed(env, snapshot.error());
    return succeeded(env, SnapshotObject::create(env, {open_.shared, std::move(snapshot).value()}));
  });
}

Napi::Value ModelObject::Close(const Napi::CallbackInfo& info) {
  close();
  return info.Env().Undefined();
}

}  // namespace ringside::binding
