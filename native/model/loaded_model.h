// Owns: a checkpoint's weights inside one backend, and the tokenizer that belongs to them.
// Must never: be reached from outside model/; engine.h is the boundary.
#pragma once

#include <memory>
#include <string>

#include "../engine.h"
#include "backend_errors.h"
#include "checkpoint.h"
#include "config.h"
#include "draft_plan.h"
#include "tokenizer.h"

namespace ringside {

class LoadedModel final : public Model {
 public:
  static Result<std::shared_ptr<Model>> load(const LoadOptions& options);
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;
  ~LoadedModel() override;

  const ModelInfo& info() const override { return info_; }
  const Tokenizer* tokenizer() const override { return tokenizer_.get(); }
  SnapshotParts snapshot_parts() const override {
    if (backend_.import_snapshot == nullptr) return {};
    return {backend_.state_part_bytes(handle_), backend_.page_part_bytes(handle_)};
  }
  const Config& config() const { return config_; }
  const rs_backend& backend() const { return backend_; }
  rs_model* handle() const { return handle_; }
  // Shared by all sessions, which have one caller thread. No result depends on it.
  PassCosts& pass_costs() const { return pass_costs_; }

 private:
  static Result<std::shared_ptr<LoadedModel>> load(const LoadOptions& options, const rs_backend& backend,
                                                   const Checkpoint& checkpoint);
  LoadedModel(const rs_backend& backend, Config config) : backend_(backend), config_(std::move(config)) {}

  const rs_backend& backend_;
  Config config_;
  ModelInfo info_;
  std::unique_ptr<Tokenizer> tokenizer_;
  rs_model* handle_ = nullptr;
  mutable PassCosts pass_costs_;
};

}  // namespace ringside
