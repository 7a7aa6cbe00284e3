#include "tools/bench_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "model/backend_library.h"
#include "model/checkpoint.h"
#include "model/checkpoint_lending.h"
#include "model/loaded_model.h"
#include "tools/bench_weights.h"

namespace ringside::tools {
namespace {

class RandomModel final : public BenchModel {
 public:
  RandomModel(Config config, StoredWeights weights, const rs_backend& backend, rs_model* handle)
      : config_(std::move(config)), weights_(weights), backend_(backend), handle_(handle) {}
  ~RandomModel() override { backend_.unload(handle_); }
  const Config& config() const override { return config_; }
  const rs_backend& backend() const override { return backend_; }
  rs_model* handle() const override { return handle_; }
  const StoredWeights& weights() const override { return weights_; }

 private:
  Config config_;
  StoredWeights weights_;
  const rs_backend& backend_;
  rs_model* handle_;
};

class CheckpointModel final : public BenchModel {
 public:
  CheckpointModel(std::shared_ptr<LoadedModel> model, StoredWeights weights)
      : model_(std::move(model)), weights_(weights) {}
  const Config& config() const override { return model_->config(); }
  const rs_backend& backend() const override { return model_->backend(); }
  rs_model* handle() const override { return model_->handle(); }
  const StoredWeights& weights() const override { return weights_; }

 private:
  std::shared_ptr<LoadedModel> model_;
  StoredWeights weights_;
};

Result<std::unique_ptr<BenchModel>> load_checkpoint(const BenchOptions& options) {
  LoadOptions load;
  load.folder = options.model;
  load.backend = options.backend;
  load.threads = static_cast<int>(options.threads);
  load.isa = options.isa;
  load.kv_format = static_cast<KvFormat>(options.kv_format);
  RS_TRY(std::shared_ptr<Model> model, LoadedModel::load(load));
  RS_TRY(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(options.model));
  WeightLender lender(*checkpoint);
  const rs_weight_source source = lender.source();
  RS_TRY(const StoredWeights weights, stored_weights(checkpoint->config(), source));
  return std::unique_ptr<BenchModel>(
      std::make_unique<CheckpointModel>(std::static_pointer_cast<LoadedModel>(std::move(model)), weights));
}

// Positions that the rows take, so that a shape's own context is no limit to what is measured.
int32_t needed_context(const BenchOptions& options) {
  const int64_t deepest = *std::ranges::max_element(options.depths);
  const int64_t longest = std::max(*std::ranges::max_element(options.prompts), options.generate);
  return static_cast<int32_t>(deepest + longest);
}

Result<const rs_backend*> choose_backend(const std::string& name) {
  if (name == "cuda") return open_cuda_backend();
  return rs_cpu_backend();
}

}  // namespace

Result<std::unique_ptr<BenchModel>> load_bench_model(const BenchOptions& options) {
  if (!options.model.empty()) return load_checkpoint(options);
  RS_TRY(const rs_backend* const backend, choose_backend(options.backend));
  std::optional<Config> config = shape_by_name(options.shape);
  if (!config) return Error{ErrorKind::kArgumentInvalid, "shape", "nano, nano8, mini or flash", options.shape};
  config->context_tokens = std::max(config->context_tokens, needed_context(options));
  const PlainConfig plain(*config);
  RandomWeights random(*config, options.format, options.head_bits, options.group_columns);
  const rs_weight_source source = random.source();
  RS_TRY(const StoredWeights weights, stored_weights(*config, source));
  rs_load_options load{};
  load.threads = static_cast<int32_t>(options.threads);
  load.isa = options.isa.c_str();
  load.kv_format = options.kv_format;
  load.device_index = -1;
  rs_model* handle = nullptr;
  rs_error error{};
  if (backend->load(plain.get(), &source, &load, &handle, &error) != 0) return to_error(error);
  return std::unique_ptr<BenchModel>(std::make_unique<RandomModel>(*config, weights, *backend, handle));
}

}  // namespace ringside::tools
