// Owns: loading: from a checkpoint folder to weights inside the backend that was asked for.
#include "../engine.h"

#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include "../io/file.h"
#include "backend_library.h"
#include "checkpoint.h"
#include "checkpoint_lending.h"
#include "loaded_model.h"

namespace ringside {
namespace {

// The tokenizer of the released models is 8 MB long.
constexpr int64_t kTokenizerLimitBytes = int64_t{64} << 20;
static_assert(kMaxThreads == RS_MAX_THREADS, "the boundary and the backends agree");

Result<const rs_backend*> choose_backend(const std::string& name) {
  if (name == "auto" || name == "cpu") return rs_cpu_backend();
  if (name == "reference") return rs_reference_backend();
  if (name == "cuda") return open_cuda_backend();
  return Error{ErrorKind::kArgumentInvalid, "backend", "auto, cpu, cuda or reference", name};
}

// Why a model that could be on a GPU is not; for people, behind the name of the processor. It must stay short: the
// name of a device is.
std::string without_gpu(const Error& error) {
  constexpr size_t kMostBytes = 140;
  std::string text = ", not on a GPU (" + error.subject;
  if (!error.expected.empty()) text += ": " + error.expected;
  if (text.size() + error.actual.size() <= kMostBytes) text += ", found " + error.actual;
  return text + ")";
}

Status check_options(const LoadOptions& options) {
  if (options.folder.empty()) return Error{ErrorKind::kArgumentInvalid, "folder", "a path", ""};
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return Error{ErrorKind::kArgumentInvalid, "threads", "0.." + std::to_string(kMaxThreads),
                 std::to_string(options.threads)};
  }
  if (options.device_memory_bytes < 0 || options.device_memory_bytes > kMaxDeviceMemoryBytes) {
    return Error{ErrorKind::kArgumentInvalid, "deviceMemoryBytes",
                 "0 (what is free).." + std::to_string(kMaxDeviceMemoryBytes),
                 std::to_string(options.device_memory_bytes)};
  }
  if (options.device_index < -1 || options.device_index >= kMaxDevices) {
    return Error{ErrorKind::kArgumentInvalid, "device",
                 "-1 (the one with most free memory).." + std::to_string(kMaxDevices - 1),
                 std::to_string(options.device_index)};
  }
  return Unit{};
}

int32_t report_progress(void* context, float fraction) {
  return (*static_cast<const std::function<bool(float)>*>(context))(fraction) ? 0 : 1;
}

Result<std::unique_ptr<Tokenizer>> read_tokenizer(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  if (!path_exists(path)) return std::unique_ptr<Tokenizer>();
  RS_TRY(const std::string inside, path_inside(folder, "tokenizer.json"));
  RS_TRY(const std::string text, read_text(inside, kTokenizerLimitBytes));
  return Tokenizer::parse(text, path);
}

// An id is a row of the embedding and of the logits: a tokenizer with more of them would name rows that are not there.
Status check_vocabulary(const Config& config, const Tokenizer* tokenizer, const std::string& folder) {
  const std::string rows = std::to_string(config.vocab_rows);
  if (tokenizer != nullptr && tokenizer->size() > config.vocab_rows) {
    return Error{ErrorKind::kTokenizerInvalid, folder + "/tokenizer.json", "at most " + rows + " ids (vocab_size)",
                 std::to_string(tokenizer->size())};
  }
  return Unit{};
}

}  // namespace

Result<std::shared_ptr<Model>> Model::load(const LoadOptions& options) {
  try {
    return LoadedModel::load(options);
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, options.folder, "", ""};
  }
}

Result<std::shared_ptr<Model>> LoadedModel::load(const LoadOptions& options) {
  RS_CHECK(check_options(options));
  // Who names an instruction set means the processor.
  const bool is_auto = options.backend == "auto" && options.isa.empty();
  RS_TRY(const rs_backend* backend, choose_backend(options.backend));
  RS_TRY(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(options.folder));
  if (!is_auto) {
    RS_TRY(std::shared_ptr<LoadedModel> model, load(options, *backend, *checkpoint));
    return std::shared_ptr<Model>(std::move(model));
  }
  // A GPU where there is one that takes the model. What is wrong with the checkpoint the processor will find too.
  Result<const rs_backend*> cuda = open_cuda_backend();
  std::optional<Error> reason;
  if (cuda.ok()) {
    Result<std::shared_ptr<LoadedModel>> model = load(options, *cuda.value(), *checkpoint);
    if (model.ok()) return std::shared_ptr<Model>(std::move(model).value());
    // After a lost device the process has to end; the next one may load the model on the processor.
    const ErrorKind kind = model.error().kind;
    if (kind == ErrorKind::kCancelled || kind == ErrorKind::kDeviceLost) return model.error();
    reason = model.error();
  } else {
    reason = cuda.error();
  }
  RS_TRY(std::shared_ptr<LoadedModel> model, load(options, *backend, *checkpoint));
  model->info_.device += without_gpu(*reason);
  return std::shared_ptr<Model>(std::move(model));
}

Result<std::shared_ptr<LoadedModel>> LoadedModel::load(const LoadOptions& options, const rs_backend& backend,
                                                       const Checkpoint& checkpoint) {
  Config config = checkpoint.config();
  config.slope_form = options.slope_form;
  std::shared_ptr<LoadedModel> model(new LoadedModel(backend, std::move(config)));
  RS_TRY(model->tokenizer_, read_tokenizer(options.folder));
  RS_CHECK(check_vocabulary(model->config_, model->tokenizer_.get(), options.folder));

  const PlainConfig plain(model->config_);
  rs_error error{};
  rs_memory_plan plan{};
  if (backend.plan_memory(plain.get(), RS_WEIGHT_F32, 0, static_cast<int32_t>(options.kv_format), &plan, &error) != 0)
    return to_error(error);
  WeightLender lender(checkpoint);
  const rs_weight_source source = lender.source();
  rs_load_options load_options{options.threads,
                               options.isa.c_str(),
                               static_cast<int32_t>(options.kv_format),
                               nullptr,
                               nullptr,
                               options.device_memory_bytes,
                               options.device_index};
  if (options.progress) {
    load_options.progress_context = const_cast<std::function<bool(float)>*>(&options.progress);
    load_options.progress = report_progress;
  }
  if (backend.load(plain.get(), &source, &load_options, &model->handle_, &error) != 0) {
    model->handle_ = nullptr;
    return lender.failure() != nullptr ? *lender.failure() : to_error(error);
  }

  const Config& held = model->config_;
  rs_model* handle = model->handle_;
  model->info_ = {.folder = options.folder,
                  .layout = checkpoint.layout_name(),
                  .backend = backend.name,
                  .device = backend.device(handle),
                  .isa = backend.isa(handle),
                  .threads = backend.threads(handle),
                  .vocab = model->tokenizer_ ? model->tokenizer_->size() : held.vocab_rows,
                  .vocab_rows = held.vocab_rows,
                  .layers = held.layers,
                  .linear_layers = held.linear_layers(),
                  .heads = held.heads,
                  .context_tokens = held.context_tokens,
                  .weight_file_bytes = checkpoint.weight_bytes(),
                  .weight_resident_bytes = backend.weight_bytes(handle),
                  .state_bytes = plan.state_bytes,
                  .kv_bytes_per_token = plan.kv_bytes_per_token,
                  .stop_tokens = held.stop_tokens};
  return model;
}

LoadedModel::~LoadedModel() {
  if (handle_ != nullptr) backend_.unload(handle_);
}

}  // namespace ringside
