// Owns: the host's side of the step path: its workspace, and one cooperative launch a step.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "cuda/cuda_call.h"
#include "cuda/device_memory.h"
#include "cuda/kernels/step_kernel.cuh"

namespace ringside::cuda {
namespace {

// With a smaller ring the inputs of products had better lie in L2. They then want the rest as L1: a longer ring than
// this would gain less than their rows coming from there.
constexpr int64_t kMinRingBytes = 80 * 1024;
constexpr int64_t kLargestPieceBytes = 2 * kStageCodeBytes;  // codes, scales and offsets

int32_t inner_columns(const DeviceModel& model) {
  const rs_config& c = model.config;
  const int32_t experts = (c.experts_per_token + model.has_shared) * c.expert_width;
  return std::max(c.experts > 0 ? experts : 0, c.dense_width);
}

int32_t input_columns(const DeviceModel& model) {
  const rs_config& c = model.config;
  return std::max({c.experts > 0 ? 2 * c.hidden : c.hidden, model.width, inner_columns(model)});
}

// Pointers of the workspace, and its bytes when `base` is null.
int64_t place(const DeviceModel& model, uint8_t* base, StepShape& shape, DeviceLayer*& layers) {
  const rs_config& c = model.config;
  Carver carver(base);
  carver.take(layers, static_cast<int64_t>(model.layers.size()));
  carver.take(shape.arrivals, 2);
  carver.take(shape.residual, kStepRows * c.hidden);
  carver.take(shape.qkv, kStepRows * 3 * model.width);
  carver.take(shape.gate, kStepRows * model.width);
  carver.take(shape.mixed, kStepRows * model.width);
  carver.take(shape.router_sums, 3 * kRouterPieces * kStepRows * c.experts);
  carver.take(shape.inner, kStepRows * inner_columns(model));
  carver.take(shape.x, kStepRows * input_columns(model));
  carver.take(shape.rotation, kStepRows * (c.rotary_dim / 2));
  return carver.bytes();
}

Error refused(const char* what, const std::string& limit, int64_t value) {
  return Error{ErrorKind::kArgumentInvalid, what, limit, std::to_string(value)};
}

bool is_power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

// What the kernel's layout of lanes cannot do.
Status check_model(const DeviceModel& model) {
  const rs_config& c = model.config;
  if (c.heads % c.kv_heads != 0 || c.heads / c.kv_heads > kMaxHeadsOfKv) {
    return refused("heads of a key-value head", "at most " + std::to_string(kMaxHeadsOfKv), c.heads / c.kv_heads);
  }
  if (c.norm_groups > 32) return refused("norm groups", "at most 32", c.norm_groups);
  if (c.experts == 0) return Unit{};
  if (c.experts > kMaxStepExperts || (c.experts > 32 && c.experts % 32 != 0) || c.experts % 16 != 0) {
    return refused("experts", "16, or a multiple of 32 up to " + std::to_string(kMaxStepExperts), c.experts);
  }
  if (c.experts_per_token > kMaxStepChosen) {
    return refused("experts of a token", "at most " + std::to_string(kMaxStepChosen), c.experts_per_token);
  }
  const int32_t per_lane = std::max(c.experts / 32, 1), group = c.experts / c.expert_groups;
  if (group % per_lane != 0 || !is_power_of_two(group / per_lane)) {
    return refused("experts of a group", std::to_string(per_lane) + " times a power of two", group);
  }
  return Unit{};
}

void describe(const DeviceModel& model, StepShape& shape) {
  const rs_config& c = model.config;
  shape.hidden = c.hidden, shape.width = model.width, shape.kv_width = model.kv_width;
  shape.heads = c.heads, shape.kv_heads = c.kv_heads, shape.layers = static_cast<int32_t>(model.layers.size());
  shape.experts = c.experts, shape.chosen = c.experts_per_token, shape.expert_groups = c.expert_groups;
  shape.groups_kept = c.groups_per_token, shape.expert_width = c.expert_width, shape.dense_width = c.dense_width;
  shape.has_shared = model.has_shared, shape.vocab_rows = c.vocab_rows, shape.norm_groups = c.norm_groups;
  shape.rotary_half = c.rotary_dim / 2, shape.linear_silu = c.linear_silu;
  shape.inner_columns = inner_columns(model), shape.x_columns = input_columns(model);
  shape.kv_format = model.kv_format;
  shape.eps = c.rms_eps, shape.routed_scale = c.routed_scale;
  shape.embedding = model.embedding, shape.lm_head = model.lm_head;
  shape.final_norm = model.final_norm, shape.inv_freq = model.inv_freq;
}

const void* kernel_of(int64_t rows, bool shared) {
  if (shared && rows == 1) return reinterpret_cast<const void*>(&step_kernel<1, true, 1>);
  if (shared) return reinterpret_cast<const void*>(&step_kernel<1, true, 8>);
  if (rows <= 8) return reinterpret_cast<const void*>(&step_kernel<1, false, 1>);
  if (rows <= 16) return reinterpret_cast<const void*>(&step_kernel<2, false, 1>);
  return reinterpret_cast<const void*>(&step_kernel<4, false, 1>);
}

}  // namespace

class StepPath {
 public:
  explicit StepPath(const DeviceModel& model) : model_(model) {}

  Status create(cudaStream_t stream);
  Status run(const StepPart* parts, int64_t part_count, const int32_t* tokens, const uint8_t* wanted, float* logits,
             uint64_t* stamps, cudaStream_t stream);

 private:
  Result<int64_t> describe_call(const StepPart* parts, int64_t part_count, StepCall& call) const;
  Status make_room(int64_t rows, int64_t splits, cudaStream_t stream);
  int64_t scratch_bytes(const StepCall& call, bool shared) const;

  const DeviceModel& model_;
  StepShape shape_{};
  DeviceMemory workspace_, partials_;
  int64_t partial_slots_ = 0;
  int blocks_ = 0, shared_bytes_ = 0;
};

Status StepPath::create(cudaStream_t stream) {
  RS_CHECK(check_model(model_));
  int device = 0;
  RS_CUDA(cudaGetDevice(&device));
  RS_CUDA(cudaDeviceGetAttribute(&blocks_, cudaDevAttrMultiProcessorCount, device));
  RS_CUDA(cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  describe(model_, shape_);
  DeviceLayer* layers = nullptr;
  RS_TRY(workspace_, DeviceMemory::allocate(place(model_, nullptr, shape_, layers)));
  place(model_, workspace_.data(), shape_, layers);
  shape_.layer = layers;
  RS_CUDA(cudaMemcpyAsync(layers, model_.layers.data(), model_.layers.size() * sizeof(DeviceLayer),
                          cudaMemcpyHostToDevice, stream));
  RS_CUDA(cudaMemsetAsync(shape_.arrivals, 0, 2 * sizeof(uint32_t), stream));
  for (const bool shared : {true, false}) {
    for (const int64_t rows : {1, 8, 16, 32}) {
      RS_CUDA(
          cudaFuncSetAttribute(kernel_of(rows, shared), cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes_));
    }
  }
  RS_CUDA(cudaStreamSynchronize(stream));  // the layers were read from the caller's memory
  return Unit{};
}

// Rows of the step, after checking that its parts are what the kernel expects.
Result<int64_t> StepPath::describe_call(const StepPart* parts, int64_t part_count, StepCall& call) const {
  if (part_count < 1 || part_count > kStepRows) {
    return refused("parts of a step", "1.." + std::to_string(kStepRows), part_count);
  }
  int64_t rows = 0;
  for (int64_t p = 0; p < part_count; ++p) {
    const StepPart& part = parts[p];
    if (part.first_row != rows) return refused("first row of a part", std::to_string(rows), part.first_row);
    const int64_t left = kChunkTokens - part.session.position % kChunkTokens;
    if (part.rows < 1 || part.rows > left) {
      return refused("rows of a part", "1.." + std::to_string(left) + ", to the end of the chunk", part.rows);
    }
    rows += part.rows;
    call.splits = std::max(call.splits, split_count(part.session.position));
    call.parts[p] = part;
  }
  if (rows > kStepRows) return refused("rows of a step", "at most " + std::to_string(kStepRows), rows);
  call.rows = static_cast<int32_t>(rows);
  call.part_count = static_cast<int32_t>(part_count);
  return rows;
}

// Partial results of splits grow with the longest context; twice what is needed, so that this is rare.
Status StepPath::make_room(int64_t rows, int64_t splits, cudaStream_t stream) {
  const int64_t slots = rows * model_.config.heads * splits;
  if (slots <= partial_slots_) return Unit{};
  RS_CUDA(cudaStreamSynchronize(stream));  // a step under way may use the old ones
  partial_slots_ = 0;
  partials_ = DeviceMemory();
  const int64_t wanted = 2 * slots;
  RS_TRY(partials_, DeviceMemory::allocate(wanted * (kHeadDim * 4 + 8)));
  shape_.partial_o = reinterpret_cast<float*>(partials_.data());
  shape_.partial_ml = reinterpret_cast<float2*>(partials_.data() + wanted * kHeadDim * 4);
  partial_slots_ = wanted;
  return Unit{};
}

int64_t StepPath::scratch_bytes(const StepCall& call, bool shared) const {
  int64_t part_rows = 0;
  for (int32_t p = 0; p < call.part_count; ++p) part_rows = std::max<int64_t>(part_rows, call.parts[p].rows);
  const int64_t inputs = shared ? call.rows * (shape_.x_columns + 32) * int64_t{2} : 0;
  const int64_t bytes =
      std::max({kReductionBytes + inputs, linear_scratch_floats(part_rows) * 4, kSoftmaxScratchBytes});
  return (bytes + 127) / 128 * 128;
}

Status StepPath::run(const StepPart* parts, int64_t part_count, const int32_t* tokens, const uint8_t* wanted,
                     float* logits, uint64_t* stamps, cudaStream_t stream) {
  StepCall call{};
  RS_TRY(const int64_t rows, describe_call(parts, part_count, call));
  if (model_.softmax_layers > 0) RS_CHECK(make_room(rows, call.splits, stream));
  std::copy(tokens, tokens + rows, call.tokens);
  for (int64_t r = 0; r < rows; ++r) call.wanted |= wanted[r] != 0 ? 1u << r : 0u;
  call.logits = logits;
  call.stamps = stamps;
  const int64_t room = shared_bytes_ - step_control_bytes();
  const bool shared = rows <= 8 && room - scratch_bytes(call, true) >= kMinRingBytes;
  call.scratch_bytes = static_cast<int32_t>(scratch_bytes(call, shared));
  const int64_t ring = (room - call.scratch_bytes) / 128 * 128;
  if (ring < kLargestPieceBytes) {
    return refused("shared memory of a block for this step", std::to_string(kLargestPieceBytes), ring);
  }
  call.ring_bytes = static_cast<int32_t>(shared ? ring : std::min(ring, kMinRingBytes));
  void* arguments[] = {&shape_, &call};
  RS_CUDA(cudaLaunchCooperativeKernel(
      kernel_of(rows, shared), dim3(static_cast<unsigned>(blocks_)), dim3(kStepBlockThreads), arguments,
      static_cast<size_t>(step_control_bytes() + call.scratch_bytes + call.ring_bytes), stream));
  return Unit{};
}

void StepPathDeleter::operator()(StepPath* path) const { delete path; }

int64_t step_scratch_bytes(const DeviceModel& model) {
  StepShape shape{};
  DeviceLayer* layers = nullptr;
  // The most splits are not always those of the last position.
  const int64_t splits = std::min<int64_t>(model.config.context_tokens / kChunkTokens + 1, kMaxSplits);
  return place(model, nullptr, shape, layers) +
         (model.softmax_layers > 0 ? 2 * model.config.heads * splits * (kHeadDim * 4 + 8) : 0);
}

Status check_step_shape(const DeviceModel& model) { return check_model(model); }

Result<StepPath*> make_step_path(const DeviceModel& model, cudaStream_t stream) {
  auto path = std::make_unique<StepPath>(model);
  RS_CHECK(path->create(stream));
  return path.release();
}

Status run_step(StepPath& path, const StepPart* parts, int64_t part_count, const int32_t* tokens, const uint8_t* wanted,
                float* logits, cudaStream_t stream) {
  return path.run(parts, part_count, tokens, wanted, logits, nullptr, stream);
}

Status run_step_with_stamps(StepPath& path, const StepPart* parts, int64_t part_count, const int32_t* tokens,
                            const uint8_t* wanted, float* logits, uint64_t* stamps, cudaStream_t stream) {
  return path.run(parts, part_count, tokens, wanted, logits, stamps, stream);
}

}  // namespace ringside::cuda
