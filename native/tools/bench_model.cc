#include "tools/bench_model.h"

#include <optional>
#include <utility>

#include "model/checkpoint_lending.h"
#include "model/loaded_model.h"
#include "tools/bench_weights.h"

namespace ringside::tools {
namespace {

class RandomModel final : public BenchModel {
 public:
  RandomModel(Config config, rs_model* handle) : config_(std::move(config)), handle_(handle) {}
  ~RandomModel() override { rs_cpu_backend()->unload(handle_); }
  const Config& config() const override { return config_; }
  const rs_backend& backend() const override { return *rs_cpu_backend(); }
  rs_model* handle() const override { return handle_; }

 private:
  Config config_;
  rs_model* handle_;
};

class CheckpointModel final : public BenchModel {
 public:
  explicit CheckpointModel(std::shared_ptr<LoadedModel> model) : model_(std::move(model)) {}
  const Config& config() const override { return model_->config(); }
  const rs_backend& backend() const override { return model_->backend(); }
  rs_model* handle() const override { return model_->handle(); }

 private:
  std::shared_ptr<LoadedModel> model_;
};

}  // namespace

Result<std::unique_ptr<BenchModel>> load_bench_model(const BenchOptions& options) {
  if (!options.model.empty()) {
    LoadOptions load;
    load.folder = options.model;
    load.backend = "cpu";
    load.threads = static_cast<int>(options.threads);
    load.isa = options.isa;
    load.kv_format = static_cast<KvFormat>(options.kv_format);
    RS_TRY(std::shared_ptr<Model> model, LoadedModel::load(load));
    return std::unique_ptr<BenchModel>(
        std::make_unique<CheckpointModel>(std::static_pointer_cast<LoadedModel>(std::move(model))));
  }
  const std::optional<Config> config = shape_by_name(options.shape);
  if (!config) return Error{ErrorKind::kArgumentInvalid, "shape", "nano, nano8, mini or flash", options.shape};
  const PlainConfig plain(*config);
  RandomWeights weights(*config, options.format, options.head_bits, options.group_columns);
  const rs_weight_source source = weights.source();
  const rs_load_options load{
      static_cast<int32_t>(options.threads), options.isa.c_str(), options.kv_format, nullptr, nullptr, 0, -1};
  rs_model* handle = nullptr;
  rs_error error{};
  if (rs_cpu_backend()->load(plain.get(), &source, &load, &handle, &error) != 0) return to_error(error);
  return std::unique_ptr<BenchModel>(std::make_unique<RandomModel>(*config, handle));
}

}  // namespace ringside::tools
