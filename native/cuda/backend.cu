// Owns: the CUDA backend's table: checks arguments, runs slabs and steps, saves and restores.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "cuda/device.h"
#include "cuda/forward.h"
#include "cuda/memory_plan.h"
#include "cuda/snapshot_parts.h"
#include "model/backend.h"
#include "model/backend_errors.h"
#include "model/slabs.h"

namespace ringside::cuda {
namespace {

// The table's handles stay incomplete types: a definition of rs_session here would clash with another backend's.
Loaded& of(rs_model* model) { return *reinterpret_cast<Loaded*>(model); }
const Loaded& of(const rs_model* model) { return *reinterpret_cast<const Loaded*>(model); }
Session& of(rs_session* session) { return *reinterpret_cast<Session*>(session); }
const Session& of(const rs_session* session) { return *reinterpret_cast<const Session*>(session); }
const Snapshot& of(const rs_snapshot* snapshot) { return *reinterpret_cast<const Snapshot*>(snapshot); }
// A session's `model` is its Loaded, of which others only compare the address.
Loaded& loaded_of(const Session& session) { return *static_cast<Loaded*>(const_cast<void*>(session.model)); }

constexpr int kLoaderThreads = 16;  // more than a bus can be fed by

Status check_kv_format(int32_t format) {
  if (format == RS_KV_BF16 || format == RS_KV_Q8) return Unit{};
  return Error{ErrorKind::kArgumentInvalid, "key-value format", "0 (bf16) or 2 (8 bits) on a GPU",
               std::to_string(format)};
}

int32_t plan(const rs_config* config, int32_t format, int64_t group_columns, int32_t kv_format, rs_memory_plan* out,
             rs_error* error) {
  return guarded(error, "memory plan", [&]() -> Status {
    if (format < RS_WEIGHT_F32 || format > RS_WEIGHT_FP8) {
      return Error{ErrorKind::kArgumentInvalid, "format", "0..4", std::to_string(format)};
    }
    if (format >= RS_WEIGHT_Q8 && group_columns < 1) {
      return Error{ErrorKind::kArgumentInvalid, "group columns", ">= 1", std::to_string(group_columns)};
    }
    RS_CHECK(check_kv_format(kv_format));
    RS_CHECK(check_shape(*config));
    Weights weights;
    describe_model(*config, weights);
    weights.model.kv_format = static_cast<rs_kv_format>(kv_format);
    RS_CHECK(check_step_shape(weights.model));
    const MemoryPlan sessions = plan_sessions(weights.model);
    out->weight_bytes = planned_weight_bytes(weights.model, format, group_columns);
    out->state_bytes = sessions.state_bytes + sessions.open_rows_bytes;
    out->kv_bytes_per_token = sessions.page_bytes / kPageTokens;
    out->scratch_bytes = workspace_bytes(weights.model, kSlabRows) + out->state_bytes;
    return Unit{};
  });
}

Status name_device(Loaded& loaded) {
  cudaDeviceProp properties{};
  RS_CUDA(cudaGetDeviceProperties(&properties, loaded.device_index));
  loaded.isa = "sm_" + std::to_string(properties.major * 10 + properties.minor);
  loaded.device = std::string(properties.name) + ", " + loaded.isa;
  if (properties.major >= 8) return Unit{};
  return Error{ErrorKind::kBackendUnavailable, properties.name, "compute capability 8.0 or more",
               std::to_string(properties.major) + "." + std::to_string(properties.minor)};
}

Status load_model(const rs_config& config, const rs_weight_source& source, const rs_load_options& options,
                  Loaded& loaded) {
  if (options.threads < 0 || options.threads > RS_MAX_THREADS) {
    return Error{ErrorKind::kArgumentInvalid, "threads", "0.." + std::to_string(RS_MAX_THREADS),
                 std::to_string(options.threads)};
  }
  RS_CHECK(check_kv_format(options.kv_format));
  RS_CHECK(check_shape(config));
  RS_TRY(loaded.device_index, choose_device(options.device_index));
  RS_CHECK(name_device(loaded));
  RS_CHECK(use_device(loaded.device_index));
  RS_CHECK(loaded.stream.create());
  for (Event& event : loaded.layer_ends) RS_CHECK(event.create());
  const int available = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kLoaderThreads);
  loaded.threads = options.threads == 0 ? available : options.threads;
  describe_model(config, loaded.weights);
  loaded.weights.model.kv_format = static_cast<rs_kv_format>(options.kv_format);
  RS_CHECK(check_step_shape(loaded.model()));
  MemoryPlan plan;
  const auto choose = [&](const WeightBytes& bytes) -> Result<std::vector<size_t>> {
    RS_TRY(const MemoryLimits limits, memory_limits(loaded.device_index, options.device_memory_bytes));
    RS_TRY(plan, plan_memory(loaded.model(), bytes, limits));
    return plan.host_layers;
  };
  RS_CHECK(load_weights(source, options, loaded.threads, loaded.device_index, choose, loaded.weights));
  if (!plan.host_layers.empty()) {
    loaded.experts = std::make_unique<ExpertStream>();
    RS_CHECK(loaded.experts->create(loaded.model(), plan));
    loaded.device += ", " + gigabytes(plan.host_bytes) + " of experts in memory of the host";
  }
  RS_CHECK(Workspace::allocate(loaded.model(), plan.slab_rows, loaded.workspace));
  loaded.pools = std::make_unique<SessionPools>(loaded.model(), plan);
  RS_TRY(loaded.spare, LinearState::take(*loaded.pools, loaded.stream));
  RS_CHECK(loaded.copies.create(plan.state_bytes));
  RS_CHECK(loaded.likeliest.allocate());
  RS_TRY(StepPath* const step_path, make_step_path(loaded.model(), loaded.stream.get()));
  loaded.step_path.reset(step_path);
  return loaded.stream.wait();
}

int32_t load(const rs_config* config, const rs_weight_source* source, const rs_load_options* options, rs_model** out,
             rs_error* error) {
  return guarded(error, "model", [&]() -> Status {
    auto loaded = std::make_unique<Loaded>();
    RS_CHECK(load_model(*config, *source, *options, *loaded));
    *out = reinterpret_cast<rs_model*>(loaded.release());
    return Unit{};
  });
}

void unload(rs_model* model) {
  (void)use_device(of(model).device_index);
  delete &of(model);
}
const char* device(const rs_model* model) { return of(model).device.c_str(); }
const char* isa(const rs_model* model) { return of(model).isa.c_str(); }
int32_t threads(const rs_model* model) { return of(model).threads; }
int64_t weight_bytes(const rs_model* model) { return of(model).weights.bytes(); }

int32_t open(rs_model* model, rs_session** out, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Loaded& loaded = of(model);
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    auto session = std::make_unique<Session>(&loaded, *loaded.pools);
    RS_CHECK(open_session(*session, loaded.stream));
    *out = reinterpret_cast<rs_session*>(session.release());
    return Unit{};
  });
}

void close(rs_session* session) { delete &of(session); }
int64_t position(const rs_session* session) { return of(session).position; }
int64_t read_position(const rs_session* session) { return of(session).read_position; }
int64_t session_bytes(const rs_session* session) { return of(session).bytes(); }

Status check_tokens(const Session& session, const int32_t* tokens, int64_t count) {
  return ringside::check_tokens(session.pools->model.config, session.position, tokens, count);
}

int32_t extend(rs_session* handle, const int32_t* tokens, int64_t count, rs_logits want, float* logits,
               const rs_poll* poll, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Session& session = of(handle);
    RS_CHECK(check_tokens(session, tokens, count));
    Loaded& loaded = loaded_of(session);
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    loaded.likeliest.row_of.clear();
    Forward forward(loaded, poll);
    const auto read = [&](const SlabCut& slab) {
      return forward.read({&session, slab.tokens, slab.rows, slab.wanted, slab.logits, slab.is_last});
    };
    return read_in_slabs(
        tokens, count, want, logits, loaded.model().config.vocab_rows, poll,
        [&](int64_t) { return loaded.workspace.rows; }, read, [&] { return session.position; });
  });
}

int32_t step_likeliest(rs_model* handle, const rs_step* steps, int32_t* const* chosen, int64_t count, int32_t ids,
                       const rs_poll* poll, rs_error* error) {
  return guarded(error, "step", [&]() -> Status {
    Loaded& loaded = of(handle);
    if (ids < 1 || ids > loaded.model().config.vocab_rows) {
      return Error{ErrorKind::kArgumentInvalid, "ids", "1.." + std::to_string(loaded.model().config.vocab_rows),
                   std::to_string(ids)};
    }
    RS_CHECK(check_steps(steps, count, [&](const rs_step& part, const std::string& name) -> Status {
      const Session& session = of(part.session);
      if (session.model != &loaded) return another_models_session(name);
      return check_tokens(session, part.tokens, part.count);
    }));
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    return run_steps(loaded, steps, chosen, count, ids, poll);
  });
}

int32_t step(rs_model* handle, const rs_step* steps, int64_t count, const rs_poll* poll, rs_error* error) {
  return step_likeliest(handle, steps, nullptr, count, 1, poll, error);
}

int32_t logits_behind(rs_model* handle, int64_t row, float* logits, rs_error* error) {
  return guarded(error, "logits", [&]() -> Status {
    Loaded& loaded = of(handle);
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    return likeliest_logits(loaded, row, logits);
  });
}

int32_t accept(rs_session* handle, int64_t keep_position, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Session& session = of(handle);
    if (!check_keep_position(session.read_position, keep_position).ok()) {
      RS_CHECK(check_keep_position(session.position, keep_position));
    }
    session.cut(keep_position);
    return Unit{};
  });
}

int32_t save(rs_session* handle, rs_snapshot** out, rs_error* error) {
  return guarded(error, "snapshot", [&]() -> Status {
    const Session& session = of(handle);
    Loaded& loaded = loaded_of(session);
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    auto snapshot = std::make_unique<Snapshot>();
    RS_CHECK(save_session(session, loaded.copies, loaded.stream, *snapshot));
    *out = reinterpret_cast<rs_snapshot*>(snapshot.release());
    return Unit{};
  });
}

int32_t restore(rs_model* handle, const rs_snapshot* from, rs_session** out, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Loaded& loaded = of(handle);
    const Snapshot& snapshot = of(from);
    if (snapshot.model != &loaded) {
      return Error{ErrorKind::kStateInvalid, "snapshot", "the model it was saved from", ""};
    }
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    auto session = std::make_unique<Session>(&loaded, *loaded.pools);
    RS_CHECK(restore_session(snapshot, loaded.copies, loaded.stream, *session));
    *out = reinterpret_cast<rs_session*>(session.release());
    return Unit{};
  });
}

int64_t snapshot_position(const rs_snapshot* snapshot) { return of(snapshot).position; }
int64_t snapshot_bytes(const rs_snapshot* snapshot) { return of(snapshot).bytes(); }
void drop(rs_snapshot* snapshot) { delete &of(snapshot); }

int64_t state_part_bytes(const rs_model* model) { return of(model).pools->states.piece_bytes(); }
int64_t page_part_bytes_of(const rs_model* model) { return of(model).pools->pages.piece_bytes(); }

int32_t write_state(const rs_snapshot* snapshot, void* out, rs_error* error) {
  return guarded(error, "snapshot", [&] { return export_state(of(snapshot), out); });
}

int32_t write_page(const rs_snapshot* snapshot, int64_t page, void* out, rs_error* error) {
  return guarded(error, "page", [&] { return export_page(of(snapshot), page, out); });
}

int32_t read_snapshot(rs_model* handle, int64_t position, const void* state, const void* const* pages,
                      rs_snapshot** out, rs_error* error) {
  return guarded(error, "snapshot", [&]() -> Status {
    Loaded& loaded = of(handle);
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    auto snapshot = std::make_unique<Snapshot>();
    RS_CHECK(import_snapshot(loaded, position, state, pages, *snapshot));
    *out = reinterpret_cast<rs_snapshot*>(snapshot.release());
    return Unit{};
  });
}

int32_t norms(const rs_session* handle, float* out, rs_error* error) {
  return guarded(error, "state norms", [&]() -> Status {
    // What may still be on its way is awaited; nothing that can be seen changes.
    auto& session = const_cast<Session&>(of(handle));
    Loaded& loaded = loaded_of(session);
    const std::lock_guard lock(loaded.running);
    RS_CHECK(use_device(loaded.device_index));
    return state_norms(session, loaded.stream, out);
  });
}

}  // namespace
}  // namespace ringside::cuda

extern "C" __attribute__((visibility("default"))) const rs_backend* rs_cuda_backend(void) {
  namespace cuda = ringside::cuda;
  static constexpr rs_backend kBackend = {
      RS_BACKEND_VERSION,
      "cuda",
      cuda::plan,
      cuda::load,
      cuda::unload,
      cuda::device,
      cuda::isa,
      cuda::threads,
      cuda::weight_bytes,
      cuda::open,
      cuda::close,
      cuda::position,
      cuda::session_bytes,
      cuda::extend,
      cuda::step,
      cuda::accept,
      cuda::save,
      cuda::restore,
      cuda::snapshot_position,
      cuda::snapshot_bytes,
      cuda::drop,
      cuda::norms,
      cuda::read_position,
      cuda::step_likeliest,
      cuda::logits_behind,
      cuda::state_part_bytes,
      cuda::page_part_bytes_of,
      cuda::write_state,
      cuda::write_page,
      cuda::read_snapshot,
  };
  return &kBackend;
}
