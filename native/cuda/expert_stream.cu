#include <algorithm>

#include "cuda/expert_stream.h"

namespace ringside::cuda {
namespace {

// Blocks, scales and offsets lie behind one another (WeightTarget::cut).
int64_t stack_bytes(const DeviceStack& stack) {
  const DeviceMatrix& first = stack.first;
  const float* const floats = first.offsets != nullptr ? first.offsets : first.scales;
  if (floats == nullptr) return stack.count * first.block_bytes();
  return reinterpret_cast<const uint8_t*>(floats + stack.count * first.scale_count()) - first.blocks;
}

// The same stack where its bytes were copied to.
DeviceStack moved(const DeviceStack& stack, const uint8_t* to) {
  DeviceStack at = stack;
  const auto move = [&](const float* floats) {
    return reinterpret_cast<const float*>(to + (reinterpret_cast<const uint8_t*>(floats) - stack.first.blocks));
  };
  at.first.blocks = to;
  if (at.first.scales != nullptr) at.first.scales = move(stack.first.scales);
  if (at.first.offsets != nullptr) at.first.offsets = move(stack.first.offsets);
  return at;
}

}  // namespace

ExpertStream::~ExpertStream() {
  // A copy may still be on its way into the buffers.
  if (stream_.get() != nullptr) cudaStreamSynchronize(stream_.get());
}

Status ExpertStream::create(const DeviceModel& model, const MemoryPlan& plan) {
  model_ = &model;
  layers_ = plan.host_layers;
  RS_CHECK(stream_.create());
  RS_TRY(buffers_[kGateUp].memory, DeviceMemory::allocate(plan.gate_up_buffer_bytes));
  RS_TRY(buffers_[kDown].memory, DeviceMemory::allocate(plan.down_buffer_bytes));
  for (Buffer& buffer : buffers_) {
    RS_CHECK(buffer.arrived.create());
    RS_CHECK(buffer.read.create());
  }
  return Unit{};
}

Status ExpertStream::begin(int64_t rows, bool is_last, cudaStream_t stream) {
  is_last_slab_ = is_last;
  reads_in_place_ = rows * model_->config.experts_per_token <= model_->config.experts / 2;
  if (reads_in_place_) return Unit{};
  for (const Part part : {kGateUp, kDown}) {
    // A slab that failed may have left products behind that read the buffer and never said so.
    RS_CUDA(cudaEventRecord(buffers_[part].read.get(), stream));
    RS_CHECK(bring(part, 0));
  }
  return Unit{};
}

Result<DeviceStack> ExpertStream::take(Part part, const DeviceLayer& layer, cudaStream_t stream) {
  if (layer.is_on_host == 0 || reads_in_place_) return part == kGateUp ? layer.mlp.gate_up : layer.mlp.down;
  const size_t index = index_of(layer);
  RS_CHECK(bring(part, index));
  const Buffer& buffer = buffers_[part];
  RS_CUDA(cudaStreamWaitEvent(stream, buffer.arrived.get(), 0));
  return moved(this->stack(part, index), buffer.memory.data());
}

Status ExpertStream::give_back(Part part, const DeviceLayer& layer, cudaStream_t stream) {
  if (layer.is_on_host == 0 || reads_in_place_) return Unit{};
  RS_CUDA(cudaEventRecord(buffers_[part].read.get(), stream));
  const size_t next = index_of(layer) + 1;
  if (next < layers_.size()) return bring(part, next);
  return is_last_slab_ ? Status(Unit{}) : bring(part, 0);
}

// Queues the copy, unless the buffer holds that stack already or will.
Status ExpertStream::bring(Part part, size_t index) {
  Buffer& buffer = buffers_[part];
  if (buffer.holds == index) return Unit{};
  buffer.holds = kNone;
  const DeviceStack& from = stack(part, index);
  // Products that read what is in the buffer now end first. An event that was never recorded has happened.
  RS_CUDA(cudaStreamWaitEvent(stream_.get(), buffer.read.get(), 0));
  RS_CUDA(cudaMemcpyAsync(buffer.memory.data(), from.first.blocks, static_cast<size_t>(stack_bytes(from)),
                          cudaMemcpyHostToDevice, stream_.get()));
  RS_CHECK(buffer.arrived.record(stream_));
  buffer.holds = index;
  return Unit{};
}

const DeviceStack& ExpertStream::stack(Part part, size_t index) const {
  const DeviceMlp& mlp = model_->layers[layers_[index]].mlp;
  return part == kGateUp ? mlp.gate_up : mlp.down;
}

size_t ExpertStream::index_of(const DeviceLayer& layer) const {
  const auto at = static_cast<size_t>(&layer - model_->layers.data());
  return static_cast<size_t>(std::ranges::lower_bound(layers_, at) - layers_.begin());
}

}  // namespace ringside::cuda
