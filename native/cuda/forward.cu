#include <algorithm>
#include <cstring>
#include <utility>

#include "cuda/forward.h"
#include "cuda/kernels/read_attention.h"
#include "cuda/kernels/read_mixture.h"
#include "cuda/kernels/read_rows.h"

namespace ringside::cuda {

Status Forward::read(const Slab& slab) {
  Session& session = *slab.session;
  RS_CHECK(session.await(loaded_.stream));
  RS_CHECK(session.prepare_pages(slab.rows, loaded_.stream));
  // What was exchanged for it last may be what another session goes back to, or what is being saved.
  if (loaded_.spare.is_shared()) {
    RS_TRY(loaded_.spare, LinearState::take(*loaded_.pools, loaded_.stream));
  }
  RS_CHECK(queue_layers(slab));
  RS_CHECK(head(slab));
  RS_CHECK(loaded_.stream.wait());
  session.advance(slab.rows, loaded_.spare);
  return Unit{};
}

Status Forward::queue_layers(const Slab& slab) {
  RS_CHECK(check_cancelled());
  // So short a copy from ordinary memory has read its source when the call returns.
  RS_CUDA(cudaMemcpyAsync(work_.tokens, slab.tokens, static_cast<size_t>(slab.rows) * sizeof(int32_t),
                          cudaMemcpyHostToDevice, stream()));
  RS_CHECK(embed_rows(model_, work_.tokens, slab.rows, work_.residual, stream()));
  if (loaded_.experts != nullptr) RS_CHECK(loaded_.experts->begin(slab.rows, slab.is_last, stream()));
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    RS_CHECK(attend(model_.layers[i], slab));
    RS_CHECK(feed_forward(model_.layers[i], slab.rows));
    RS_CHECK(pace(i));
  }
  return Unit{};
}

// residual += W_dense · attention(rmsnorm(residual))
Status Forward::attend(const DeviceLayer& layer, const Slab& slab) {
  const rs_config& config = model_.config;
  const int64_t width = model_.width;
  RS_CHECK(norm_rows(work_.residual, layer.input_norm, config.rms_eps, config.hidden, slab.rows, work_.normed,
                     config.hidden, stream()));
  RS_CHECK(multiply_rows(layer.qkv, normed(slab.rows), work_.qkv, work_.qkv_stride, stream()));
  const ReadAttention call{.model = &model_,
                           .layer = &layer,
                           .qkv = work_.qkv,
                           .qkv_stride = work_.qkv_stride,
                           .rows = slab.rows,
                           .session = slab.session->view(),
                           .scratch = work_.scratch};
  if (layer.is_softmax != 0) {
    RS_CHECK(read_softmax_attention(call, work_.gated, stream()));
  } else {
    RS_CHECK(multiply_rows(layer.output_gate, normed(slab.rows), work_.output_gate, width, stream()));
    RS_CHECK(read_linear_attention(call, slab.session->view(loaded_.spare), work_.mixed, stream()));
    RS_CHECK(gate_rows(work_.mixed, work_.output_gate, width, layer.output_norm, config.rms_eps, config.norm_groups,
                       width, slab.rows, work_.gated, width, stream()));
  }
  return add_product(layer.dense, {work_.gated, width, slab.rows}, work_.residual, config.hidden, stream());
}

// residual += mlp(rmsnorm(residual))
Status Forward::feed_forward(const DeviceLayer& layer, int64_t rows) {
  const rs_config& config = model_.config;
  const int64_t hidden = config.hidden;
  if (layer.is_dense == 0) {
    RS_CHECK(norm_rows_split(work_.residual, layer.post_attention_norm, config.rms_eps, hidden, rows, work_.normed,
                             3 * hidden, stream()));
    return read_mixture(model_, layer, {work_.normed, 3 * hidden, rows}, work_.residual, nullptr, nullptr,
                        work_.scratch, stream(), loaded_.experts.get());
  }
  const int64_t width = layer.mlp.width;
  RS_CHECK(norm_rows(work_.residual, layer.post_attention_norm, config.rms_eps, hidden, rows, work_.normed, hidden,
                     stream()));
  RS_CHECK(multiply_inner(layer.mlp.gate_up.at(0), normed(rows), work_.inner, width, stream()));
  return add_product(layer.mlp.down.at(0), {work_.inner, width, rows}, work_.residual, hidden, stream());
}

// logits = W_head · rmsnorm(residual) of the wanted rows, some at a time
Status Forward::head(const Slab& slab) {
  const rs_config& config = model_.config;
  for (int64_t done = 0; done < slab.wanted; done += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, slab.wanted - done);
    const float* residual = work_.residual + (slab.rows - slab.wanted + done) * config.hidden;
    RS_CHECK(norm_rows(residual, model_.final_norm, config.rms_eps, config.hidden, rows, work_.normed, config.hidden,
                       stream()));
    RS_CHECK(multiply_rows(model_.lm_head, normed(rows), work_.logits, config.vocab_rows, stream()));
    RS_CHECK(copy_logits(loaded_, work_.logits, rows, slab.logits + done * config.vocab_rows));
    RS_CHECK(check_cancelled());
  }
  return Unit{};
}

// Keeps the host a few layers ahead of the device, and asks between them whether to go on.
Status Forward::pace(size_t layer) {
  const Event& end = loaded_.layer_ends[layer % kLayersAhead];
  RS_CHECK(end.wait());  // of the layer kLayersAhead before this one
  RS_CHECK(end.record(loaded_.stream));
  return check_cancelled();
}

Status Forward::check_cancelled() const {
  if (poll_ == nullptr || poll_->cancelled == nullptr || poll_->cancelled(poll_->context) == 0) return Unit{};
  return Error{ErrorKind::kCancelled, "extend", "", ""};
}

Status copy_logits(const Loaded& loaded, const float* from, int64_t rows, float* to) {
  const int64_t vocab = loaded.model().config.vocab_rows;
  for (int64_t done = 0; done < rows; done += kStepRows) {
    const auto bytes = static_cast<size_t>(std::min(kStepRows, rows - done) * vocab) * sizeof(float);
    RS_CUDA(cudaMemcpyAsync(loaded.workspace.host_logits.data(), from + done * vocab, bytes, cudaMemcpyDeviceToHost,
                            loaded.stream.get()));
    RS_CHECK(loaded.stream.wait());
    std::memcpy(to + done * vocab, loaded.workspace.host_logits.data(), bytes);
  }
  return Unit{};
}

}  // namespace ringside::cuda
