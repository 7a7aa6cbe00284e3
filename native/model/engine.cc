// Owns: loading: from a checkpoint folder to weights inside the backend that was asked for.
#include "../engine.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <utility>

#include "../io/file.h"
#include "checkpoint.h"
#include "loaded_model.h"

namespace ringside {
namespace {

static_assert(static_cast<int32_t>(WeightFormat::kF32) == RS_WEIGHT_F32);
static_assert(static_cast<int32_t>(WeightFormat::kBF16) == RS_WEIGHT_BF16);
static_assert(static_cast<int32_t>(WeightFormat::kQ8) == RS_WEIGHT_Q8);

// The tokenizer of the released models is 8 MB long.
constexpr int64_t kTokenizerLimitBytes = int64_t{64} << 20;
constexpr int kThreadLimit = 1024;

Result<const rs_backend*> choose_backend(const std::string& name) {
  if (name == "auto" || name == "cpu") return rs_cpu_backend();
  if (name == "reference") return rs_reference_backend();
  if (name == "cuda") return Error{ErrorKind::kBackendUnavailable, "backend", "auto, cpu or reference", name};
  return Error{ErrorKind::kArgumentInvalid, "backend", "auto, cpu or reference", name};
}

Status check_options(const LoadOptions& options) {
  if (options.folder.empty()) return Error{ErrorKind::kArgumentInvalid, "folder", "a path", ""};
  if (options.threads < 0 || options.threads > kThreadLimit) {
    return Error{ErrorKind::kArgumentInvalid, "threads", "0.." + std::to_string(kThreadLimit),
                 std::to_string(options.threads)};
  }
  const std::string& isa = options.isa;
  if (!isa.empty() && isa != "plain" && isa != "avx2" && isa != "avx512") {
    return Error{ErrorKind::kArgumentInvalid, "isa", "plain, avx2 or avx512", isa};
  }
  return Unit{};
}

// The table's plain copy of a Config, and the two arrays it points at.
struct BackendConfig {
  explicit BackendConfig(const Config& c) {
    for (int32_t layer = 0; layer < c.layers; ++layer) {
      for (int32_t head = 0; head < c.heads; ++head) slopes.push_back(c.slope(layer, head));
    }
    for (int32_t j = 0; j < c.rotary_dim / 2; ++j) inv_freq.push_back(c.inv_freq(j));
    plain = {.vocab_rows = c.vocab_rows,
             .hidden = c.hidden,
             .layers = c.layers,
             .group = c.group,
             .heads = c.heads,
             .kv_heads = c.kv_heads,
             .head_dim = c.head_dim,
             .rotary_dim = c.rotary_dim,
             .dense_width = c.dense_width,
             .expert_width = c.expert_width,
             .shared_width = c.shared_width,
             .experts = c.experts,
             .experts_per_token = c.experts_per_token,
             .expert_groups = c.expert_groups,
             .groups_per_token = c.groups_per_token,
             .dense_layers = c.dense_layers,
             .norm_groups = c.norm_groups,
             .context_tokens = c.context_tokens,
             .rms_eps = c.rms_eps,
             .routed_scale = c.routed_scale,
             .linear_silu = c.linear_silu ? 1 : 0,
             .expert_bias = c.expert_bias ? 1 : 0,
             .slope_form = static_cast<int32_t>(c.slope_form),
             .slopes = slopes.data(),
             .inv_freq = inv_freq.data()};
  }
  BackendConfig(const BackendConfig&) = delete;
  BackendConfig& operator=(const BackendConfig&) = delete;

  std::vector<float> slopes, inv_freq;
  rs_config plain;
};

// Lends the tensors of a checkpoint to a backend. Keeps the first failure whole: the table's error cuts long paths.
class WeightLender {
 public:
  explicit WeightLender(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  rs_weight_source source() { return {this, read_matrix, release, read_vector}; }
  const Error* failure() const { return failed_ ? &failure_ : nullptr; }

 private:
  static int32_t read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                             rs_error* error) {
    return static_cast<WeightLender*>(context)->guarded(base, error, [&](const Checkpoint& checkpoint) -> Status {
      RS_TRY(Matrix matrix, checkpoint.read_matrix(base, rows, cols));
      auto* owner = new Matrix(std::move(matrix));
      *out = {static_cast<int32_t>(owner->format),
              owner->rows,
              owner->cols,
              owner->group_columns,
              owner->data.data(),
              owner->scales.data(),
              owner};
      return Unit{};
    });
  }

  static void release(void*, rs_matrix* matrix) {
    delete static_cast<Matrix*>(matrix->owner);
    *matrix = {};
  }

  static int32_t read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error) {
    return static_cast<WeightLender*>(context)->guarded(name, error, [&](const Checkpoint& checkpoint) -> Status {
      RS_TRY(const std::vector<float> values, checkpoint.read_vector(name, length));
      std::copy(values.begin(), values.end(), out);
      return Unit{};
    });
  }

  // No exception crosses the table.
  template <class Read>
  int32_t guarded(const char* name, rs_error* out, Read read) {
    try {
      const Status status = read(checkpoint_);
      if (status.ok()) return 0;
      failure_ = status.error();
    } catch (const std::bad_alloc&) {
      failure_ = Error{ErrorKind::kOutOfMemory, name, "", ""};
    } catch (...) {
      failure_ = Error{ErrorKind::kInternal, name, "", ""};
    }
    failed_ = true;
    out->kind = static_cast<int32_t>(failure_.kind);
    std::snprintf(out->subject, sizeof out->subject, "%s", failure_.subject.c_str());
    std::snprintf(out->expected, sizeof out->expected, "%s", failure_.expected.c_str());
    std::snprintf(out->actual, sizeof out->actual, "%s", failure_.actual.c_str());
    return -1;
  }

  const Checkpoint& checkpoint_;
  Error failure_;
  bool failed_ = false;
};

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

// Stop tokens are compared with sampled ids, so one beyond the vocabulary would be silently useless.
Status check_vocabulary(const Config& config, const Tokenizer* tokenizer, const std::string& folder) {
  const std::string rows = std::to_string(config.vocab_rows);
  if (tokenizer != nullptr && tokenizer->size() > config.vocab_rows) {
    return Error{ErrorKind::kTokenizerInvalid, folder + "/tokenizer.json", "at most " + rows + " ids (vocab_size)",
                 std::to_string(tokenizer->size())};
  }
  return Unit{};
}

}  // namespace

Error to_error(const rs_error& error) {
  return {static_cast<ErrorKind>(error.kind), error.subject, error.expected, error.actual};
}

Result<std::shared_ptr<Model>> Model::load(const LoadOptions& options) {
  try {
    return LoadedModel::load(options);
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, options.folder, "", ""};
  }
}

Result<std::shared_ptr<Model>> LoadedModel::load(const LoadOptions& options) {
  RS_CHECK(check_options(options));
  RS_TRY(const rs_backend* backend, choose_backend(options.backend));
  RS_TRY(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(options.folder));
  Config config = checkpoint->config();
  config.slope_form = options.slope_form;
  std::shared_ptr<LoadedModel> model(new LoadedModel(*backend, std::move(config)));
  RS_TRY(model->tokenizer_, read_tokenizer(options.folder));
  RS_CHECK(check_vocabulary(model->config_, model->tokenizer_.get(), options.folder));

  const BackendConfig plain(model->config_);
  rs_error error{};
  rs_memory_plan plan{};
  if (backend->plan_memory(&plain.plain, RS_WEIGHT_F32, 0, &plan, &error) != 0) return to_error(error);
  WeightLender lender(*checkpoint);
  const rs_weight_source source = lender.source();
  rs_load_options load_options{options.threads, options.isa.c_str(), nullptr, nullptr};
  if (options.progress) {
    load_options.progress_context = const_cast<std::function<bool(float)>*>(&options.progress);
    load_options.progress = report_progress;
  }
  if (backend->load(&plain.plain, &source, &load_options, &model->handle_, &error) != 0) {
    model->handle_ = nullptr;
    return lender.failure() != nullptr ? *lender.failure() : to_error(error);
  }

  const Config& held = model->config_;
  rs_model* handle = model->handle_;
  model->info_ = {.folder = options.folder,
                  .layout = checkpoint->layout_name(),
                  .backend = backend->name,
                  .device = backend->device(handle),
                  .isa = backend->isa(handle),
                  .threads = backend->threads(handle),
                  .vocab = model->tokenizer_ ? model->tokenizer_->size() : held.vocab_rows,
                  .vocab_rows = held.vocab_rows,
                  .layers = held.layers,
                  .linear_layers = held.linear_layers(),
                  .heads = held.heads,
                  .context_tokens = held.context_tokens,
                  .weight_file_bytes = checkpoint->weight_bytes(),
                  .weight_resident_bytes = backend->weight_bytes(handle),
                  .state_bytes = plan.state_bytes,
                  .kv_bytes_per_token = plan.kv_bytes_per_token,
                  .stop_tokens = held.stop_tokens};
  return std::shared_ptr<Model>(std::move(model));
}

LoadedModel::~LoadedModel() {
  if (handle_ != nullptr) backend_.unload(handle_);
}

}  // namespace ringside
