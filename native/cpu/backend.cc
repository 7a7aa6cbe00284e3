// Owns: the CPU backend's table: checks arguments, runs slabs, commits them to sessions, saves and restores.
#include "model/backend.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cpu/forward.h"
#include "cpu/model.h"
#include "cpu/snapshot_parts.h"
#include "model/backend_errors.h"
#include "model/slabs.h"

namespace ringside::cpu {
namespace {

// The table's handles stay incomplete types: a definition of rs_session here would clash with another backend's.
Model& of(rs_model* model) { return *reinterpret_cast<Model*>(model); }
const Model& of(const rs_model* model) { return *reinterpret_cast<const Model*>(model); }
Session& of(rs_session* session) { return *reinterpret_cast<Session*>(session); }
const Session& of(const rs_session* session) { return *reinterpret_cast<const Session*>(session); }
const Snapshot& of(const rs_snapshot* snapshot) { return *reinterpret_cast<const Snapshot*>(snapshot); }

Status check_kv_format(int32_t format) {
  if (format >= RS_KV_BF16 && format <= RS_KV_Q8) return Unit{};
  return Error{ErrorKind::kArgumentInvalid, "key-value format", "0..2", std::to_string(format)};
}

// Of a model whose matrices come in this format, in groups of so many columns where these divide a matrix.
InputForms planned_forms(const Shape& shape, int32_t format, int64_t group_columns) {
  InputForms forms;
  const rs_config& config = shape.config;
  for (const int64_t columns : {int64_t{config.hidden}, shape.attention_width, int64_t{config.expert_width},
                                int64_t{config.shared_width}, int64_t{config.dense_width}}) {
    rs_matrix stored{};
    stored.format = format;
    stored.rows = kTileRows;
    stored.cols = columns;
    stored.group_columns = group_columns > 0 && columns % group_columns == 0 ? group_columns : columns;
    const Result<PackedMatrix> packed = packed_shape("", stored);
    if (columns > 0 && packed.ok()) forms.add(packed.value());
  }
  return forms;
}

int32_t plan_memory(const rs_config* config, int32_t format, int64_t group_columns, int32_t kv_format,
                    rs_memory_plan* out, rs_error* error) {
  return guarded(error, "memory plan", [&]() -> Status {
    if (format < RS_WEIGHT_F32 || format > RS_WEIGHT_FP8) {
      return Error{ErrorKind::kArgumentInvalid, "format", "0..4", std::to_string(format)};
    }
    if (format >= RS_WEIGHT_Q8 && group_columns < 1) {
      return Error{ErrorKind::kArgumentInvalid, "group columns", ">= 1", std::to_string(group_columns)};
    }
    RS_CHECK(check_kv_format(kv_format));
    const Shape shape(*config);
    out->weight_bytes = planned_weight_bytes(shape, static_cast<rs_weight_format>(format), group_columns);
    out->state_bytes = LinearState::planned_bytes(shape);
    out->kv_bytes_per_token = Page::planned_bytes(shape, static_cast<rs_kv_format>(kv_format)) / kPageTokens;
    const InputForms forms = planned_forms(shape, format, group_columns);
    out->scratch_bytes = Workspace::planned_bytes(shape, physical_cores(), forms) + LinearState::planned_bytes(shape);
    return Unit{};
  });
}

Status grow_spares(Model& model, size_t count) {
  while (model.spares.size() < count) {
    RS_TRY(LinearState spare, LinearState::allocate(model.shape));
    model.spares.push_back(std::move(spare));
  }
  return Unit{};
}

Status load_model(const rs_config& config, const rs_weight_source& source, const rs_load_options& options,
                  std::unique_ptr<Model>& out) {
  if (options.threads < 0 || options.threads > RS_MAX_THREADS) {
    return Error{ErrorKind::kArgumentInvalid, "threads", "0.." + std::to_string(RS_MAX_THREADS),
                 std::to_string(options.threads)};
  }
  RS_CHECK(check_kv_format(options.kv_format));
  auto model = std::make_unique<Model>(config);
  model->kv_format = static_cast<rs_kv_format>(options.kv_format);
  RS_TRY(model->kernels, choose_kernels(options.isa == nullptr ? "" : options.isa));
  RS_CHECK(model->pool.start(options.threads == 0 ? physical_cores() : options.threads));
  RS_CHECK(load_weights(model->shape, source, options, model->pool, model->weights));
  const int threads = model->pool.threads();
  InputForms forms = InputForms::of(model->weights.lm_head);
  forms.floats = false;             // of the head's input there always are
  forms.has_8_bit_weights = false;  // its input has two bytes a code anyway
  for (const Layer& layer : model->weights.layers) forms.add(model->layer_forms.emplace_back(layer).buffers());
  RS_CHECK(Workspace::allocate(model->shape, threads, forms, model->workspace));
  RS_CHECK(grow_spares(*model, 1));
  model->device = processor_name() + ", " + model->kernels->isa + ", " + std::to_string(threads) +
                  (threads == 1 ? " thread" : " threads");
  out = std::move(model);
  return Unit{};
}

int32_t load(const rs_config* config, const rs_weight_source* source, const rs_load_options* options, rs_model** out,
             rs_error* error) {
  return guarded(error, "model", [&]() -> Status {
    std::unique_ptr<Model> model;
    RS_CHECK(load_model(*config, *source, *options, model));
    *out = reinterpret_cast<rs_model*>(model.release());
    return Unit{};
  });
}

void unload(rs_model* model) { delete &of(model); }
const char* device(const rs_model* model) { return of(model).device.c_str(); }
const char* isa(const rs_model* model) { return of(model).kernels->isa; }
int32_t threads(const rs_model* model) { return of(model).pool.threads(); }
int64_t weight_bytes(const rs_model* model) { return of(model).weights.arena.used_bytes(); }

int32_t open(rs_model* model, rs_session** out, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    auto session = std::make_unique<Session>();
    session->model = &of(model);
    RS_TRY(session->state, LinearState::allocate(of(model).shape));
    *out = reinterpret_cast<rs_session*>(session.release());
    return Unit{};
  });
}

void close(rs_session* session) { delete &of(session); }
int64_t position(const rs_session* session) { return of(session).position; }

int64_t session_bytes(const rs_session* handle) {
  const Session& session = of(handle);
  return session.state.bytes() + block_bytes(session.pages);
}

Status check_tokens(const Session& session, const int32_t* tokens, int64_t count) {
  return ringside::check_tokens(session.model->shape.config, session.position, tokens, count);
}

bool completes_chunk(const Session& session, int64_t rows) {
  return session.position / kChunkTokens != (session.position + rows) / kChunkTokens;
}

// A segment that is through becomes part of its session; until here the session was only appended to.
void commit(const Segment& segment) {
  Session& session = *segment.session;
  if (segment.spare != nullptr) std::swap(session.state, *segment.spare);
  session.position += segment.rows;
}

int32_t extend(rs_session* handle, const int32_t* tokens, int64_t count, rs_logits want, float* logits,
               const rs_poll* poll, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Session& session = of(handle);
    RS_CHECK(check_tokens(session, tokens, count));
    Model& model = *session.model;
    const std::lock_guard lock(model.running);
    const ThreadPool::Awake awake(model.pool);
    Interrupt interrupt(poll);
    Forward forward(model, interrupt);
    const auto read = [&](const SlabCut& slab) -> Status {
      LinearState* spare = completes_chunk(session, slab.rows) ? &model.spares.front() : nullptr;
      RS_CHECK(prepare_pages(model.shape, model.kv_format, session.position, slab.rows, session.pages));
      const Segment segment{&session, slab.tokens, session.position, 0, slab.rows, spare, slab.wanted, slab.logits};
      const auto start = std::chrono::steady_clock::now();
      if (!forward.slab(std::span(&segment, 1))) return Error{ErrorKind::kCancelled, "extend", "", ""};
      model.pace.took(slab.rows, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      commit(segment);
      return Unit{};
    };
    return read_in_slabs(
        tokens, count, want, logits, model.shape.config.vocab_rows, poll,
        [&](int64_t left) { return model.pace.rows(left); }, read, [&] { return session.position; });
  });
}

int32_t step(rs_model* handle, const rs_step* steps, int64_t count, const rs_poll* poll, rs_error* error) {
  return guarded(error, "step", [&]() -> Status {
    Model& model = of(handle);
    RS_CHECK(check_steps(steps, count, [&](const rs_step& part, const std::string& name) -> Status {
      const Session& session = of(part.session);
      if (session.model != &model) return another_models_session(name);
      return check_tokens(session, part.tokens, part.count);
    }));
    const std::lock_guard lock(model.running);
    const ThreadPool::Awake awake(model.pool);
    std::vector<Segment> segments;
    size_t chunks = 0;
    for (const rs_step& part : std::span(steps, static_cast<size_t>(count))) {
      chunks += completes_chunk(of(part.session), part.count) ? 1 : 0;
    }
    RS_CHECK(grow_spares(model, chunks));
    int64_t rows = 0;
    for (const rs_step& part : std::span(steps, static_cast<size_t>(count))) {
      Session& session = of(part.session);
      RS_CHECK(prepare_pages(model.shape, model.kv_format, session.position, part.count, session.pages));
      LinearState* spare = completes_chunk(session, part.count) ? &model.spares[--chunks] : nullptr;
      const int64_t wanted = part.want == RS_LOGITS_ALL ? part.count : part.want == RS_LOGITS_LAST ? 1 : 0;
      segments.push_back({&session, part.tokens, session.position, rows, part.count, spare, wanted, part.logits});
      rows += part.count;
    }
    Interrupt interrupt(poll);
    Forward forward(model, interrupt);
    if (!forward.slab(segments)) return Error{ErrorKind::kCancelled, "step", "", ""};
    for (const Segment& segment : segments) commit(segment);
    return Unit{};
  });
}

int32_t accept(rs_session* handle, int64_t keep_position, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Session& session = of(handle);
    RS_CHECK(check_keep_position(session.position, keep_position));
    session.position = keep_position;  // rows past the position are never read
    return Unit{};
  });
}

int32_t save(rs_session* handle, rs_snapshot** out, rs_error* error) {
  return guarded(error, "snapshot", [&]() -> Status {
    const Session& session = of(handle);
    auto snapshot = std::make_unique<Snapshot>();
    snapshot->model = session.model;
    snapshot->position = session.position / kChunkTokens * kChunkTokens;
    const int64_t bytes = session.state.s_count() * static_cast<int64_t>(sizeof(float));
    RS_TRY(snapshot->s, MappedMemory::allocate(bytes, "snapshot"));
    if (bytes > 0) std::memcpy(snapshot->s.data(), session.state.all_s(), static_cast<size_t>(bytes));
    const int64_t pages = (snapshot->position + kPageTokens - 1) / kPageTokens;
    snapshot->pages.assign(session.pages.begin(), session.pages.begin() + pages);
    *out = reinterpret_cast<rs_snapshot*>(snapshot.release());
    return Unit{};
  });
}

int32_t restore(rs_model* handle, const rs_snapshot* from, rs_session** out, rs_error* error) {
  return guarded(error, "session", [&]() -> Status {
    Model& model = of(handle);
    const Snapshot& snapshot = of(from);
    if (snapshot.model != &model) return Error{ErrorKind::kStateInvalid, "snapshot", "the model it was saved from", ""};
    auto session = std::make_unique<Session>();
    session->model = &model;
    session->position = snapshot.position;
    session->pages = snapshot.pages;
    RS_TRY(session->state, LinearState::allocate(model.shape));
    if (snapshot.s.bytes() > 0) {
      std::memcpy(session->state.all_s(), snapshot.s.data(), static_cast<size_t>(snapshot.s.bytes()));
    }
    *out = reinterpret_cast<rs_session*>(session.release());
    return Unit{};
  });
}

int64_t snapshot_position(const rs_snapshot* snapshot) { return of(snapshot).position; }
int64_t snapshot_bytes(const rs_snapshot* handle) {
  const Snapshot& snapshot = of(handle);
  return snapshot.s.bytes() + block_bytes(snapshot.pages);
}
void drop(rs_snapshot* snapshot) { delete &of(snapshot); }

int64_t model_state_part_bytes(const rs_model* model) { return state_part_bytes(of(model).shape); }
int64_t model_page_part_bytes(const rs_model* model) {
  return Page::planned_bytes(of(model).shape, of(model).kv_format);
}

int32_t export_state(const rs_snapshot* snapshot, void* out, rs_error* error) {
  const MappedMemory& s = of(snapshot).s;
  if (s.bytes() > 0) std::memcpy(out, s.data(), static_cast<size_t>(s.bytes()));
  return 0;
}

int32_t export_page(const rs_snapshot* snapshot, int64_t page, void* out, rs_error* error) {
  return guarded(error, "page", [&]() -> Status {
    const std::vector<std::shared_ptr<Page>>& pages = of(snapshot).pages;
    if (page < 0 || page >= static_cast<int64_t>(pages.size())) {
      return Error{ErrorKind::kArgumentInvalid, "page", "below " + std::to_string(pages.size()), std::to_string(page)};
    }
    const Page& from = *pages[static_cast<size_t>(page)];
    if (from.bytes() > 0) std::memcpy(out, from.data(), static_cast<size_t>(from.bytes()));
    return Unit{};
  });
}

int32_t import_parts(rs_model* handle, int64_t position, const void* state, const void* const* pages, rs_snapshot** out,
                     rs_error* error) {
  return guarded(error, "snapshot", [&]() -> Status {
    const Model& model = of(handle);
    RS_TRY(std::unique_ptr<Snapshot> snapshot,
           import_snapshot(&model, model.shape, model.kv_format, position, state, pages));
    *out = reinterpret_cast<rs_snapshot*>(snapshot.release());
    return Unit{};
  });
}

// S after the last token is the chunk's state, decayed, and the open rows added; in double, for it is only looked at.
double state_norm(const Session& session, const Layer& layer, int64_t layer_index, int64_t head) {
  const Shape& shape = session.model->shape;
  const int64_t d = shape.config.head_dim;
  const int64_t open_rows = session.position % kChunkTokens;
  const double slope = shape.slopes[static_cast<size_t>(layer_index * shape.config.heads + head)];
  const float* s = session.state.s(layer.kind_index, head);
  const float* k_columns = session.state.k_columns(layer.kind_index, head);
  const float* v = session.state.v(layer.kind_index, head);
  std::array<double, kChunkTokens> decay;  // exp(-s n), n = 0..open_rows
  for (int64_t n = 0; n <= open_rows; ++n) {
    decay[static_cast<size_t>(n)] = std::exp(-slope * static_cast<double>(n));
  }
  double squares = 0.0;
  for (int64_t a = 0; a < d; ++a) {
    for (int64_t b = 0; b < d; ++b) {
      double value = decay[static_cast<size_t>(open_rows)] * s[a * d + b];
      for (int64_t j = 0; j < open_rows; ++j) {
        value += decay[static_cast<size_t>(open_rows - 1 - j)] * k_columns[a * kChunkTokens + j] * v[j * d + b];
      }
      squares += value * value;
    }
  }
  return std::sqrt(squares);
}

int32_t state_norms(const rs_session* handle, float* out, rs_error* error) {
  return guarded(error, "state norms", [&]() -> Status {
    const Session& session = of(handle);
    const std::vector<Layer>& layers = session.model->weights.layers;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].is_softmax) continue;
      for (int64_t head = 0; head < session.model->shape.config.heads; ++head) {
        *out++ = static_cast<float>(state_norm(session, layers[i], static_cast<int64_t>(i), head));
      }
    }
    return Unit{};
  });
}

}  // namespace
}  // namespace ringside::cpu

extern "C" const rs_backend* rs_cpu_backend(void) {
  namespace cpu = ringside::cpu;
  static constexpr rs_backend kBackend = {
      RS_BACKEND_VERSION,
      "cpu",
      cpu::plan_memory,
      cpu::load,
      cpu::unload,
      cpu::device,
      cpu::isa,
      cpu::threads,
      cpu::weight_bytes,
      cpu::open,
      cpu::close,
      cpu::position,
      cpu::session_bytes,
      cpu::extend,
      cpu::step,
      cpu::accept,
      cpu::save,
      cpu::restore,
      cpu::snapshot_position,
      cpu::snapshot_bytes,
      cpu::drop,
      cpu::state_norms,
      cpu::position,  // read_position: steps are read like all else
      nullptr,        // step_likeliest
      nullptr,        // likeliest_logits
      cpu::model_state_part_bytes,
      cpu::model_page_part_bytes,
      cpu::export_state,
      cpu::export_page,
      cpu::import_parts,
  };
  return &kBackend;
}
