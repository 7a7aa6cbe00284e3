// Owns: dense MLPs and mixtures of experts (specification section 5): residual += MLP(rmsnorm(residual)).
//
// Rows that chose an expert lie together, experts ascending and tokens ascending within one; the slots of a token
// ascend by expert too. So an output column sums the experts of its token in the order in which all experts are walked,
// and one row gets the same bits as many.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "cpu/forward.h"
#include "cpu/kernels/router.h"

namespace ringside::cpu {
namespace {

// Up to here the jobs are as small as possible, because a step has few of them; above, a job keeps what it has brought
// near: an expert's inputs, or a block's row of sums.
constexpr int64_t kFewRows = 16;

}  // namespace

void Forward::feed_forward(const Layer& layer, const LayerForms& forms) {
  experts_.clear();
  if (layer.experts.empty()) {
    parallel_.rows(rows_, [&](int64_t row, int) { norm_row(layer.post_attention_norm, forms.mlp, row, row); });
  } else {
    route(layer, forms.mlp);
    if (parallel_.stopped()) return;  // the choices of a stopped router are not to be followed
    gather(layer);
  }
  gate_and_up(layer, forms);
  down(layer);
}

// normed = rmsnorm(residual); chosen, expert_weights: [rows, experts_per_token]
void Forward::route(const Layer& layer, const InputForms& forms) {
  const std::array<const PackedMatrix*, 1> router = {&layer.router};
  if (rows_ <= kFewRows) {
    parallel_.rows(rows_, [&](int64_t row, int) { norm_row(layer.post_attention_norm, forms, row, row); });
    parallel_.products(router, rows_, [&](const ProductPart& part, int worker) {
      parallel_.multiply(part, normed(), work_.router_logits, config_.experts, worker);
    });
    parallel_.rows(rows_, [&](int64_t row, int worker) { choose_experts_of(layer, row, worker); });
  } else {
    constexpr int64_t kRowsPerJob = 64;
    parallel_.jobs((rows_ + kRowsPerJob - 1) / kRowsPerJob, [&](int64_t job, int worker) {
      const int64_t first = job * kRowsPerJob;
      const int64_t rows = std::min(kRowsPerJob, rows_ - first);
      for (int64_t r = 0; r < rows; ++r) norm_row(layer.post_attention_norm, forms, first + r, first + r);
      for (int64_t tile = 0; tile < layer.router.tile_count(); ++tile) {
        const int64_t column = tile * kTileRows;
        const ProductPart part{
            &layer.router, tile, first, rows, column, std::min(kTileRows, layer.router.rows - column), nullptr};
        parallel_.multiply(part, normed(), work_.router_logits, config_.experts, worker);
      }
      for (int64_t r = 0; r < rows; ++r) choose_experts_of(layer, first + r, worker);
    });
  }
  if (model_.tap == nullptr || model_.tap->routed == nullptr || parallel_.stopped()) return;
  const auto index = static_cast<int32_t>(&layer - model_.weights.layers.data());
  model_.tap->routed(model_.tap->context, index, work_.chosen, rows_, config_.experts_per_token);
}

void Forward::choose_experts_of(const Layer& layer, int64_t row, int worker) {
  const RouterShape shape{config_.experts, config_.experts_per_token, config_.expert_groups, config_.groups_per_token,
                          config_.routed_scale};
  float* scores = parallel_.space(worker).router;
  std::fill_n(scores, config_.experts, 1.0f);
  kernels_.sigmoid_gate(scores, work_.router_logits + row * config_.experts, config_.experts);
  choose_experts(shape, scores, layer.expert_bias.data(), scores + config_.experts,
                 work_.chosen + row * config_.experts_per_token,
                 work_.expert_weights + row * config_.experts_per_token);
}

// Sorts the (token, slot) pairs by expert, tokens ascending: experts_, gathered_token, gathered_weight.
void Forward::gather(const Layer& layer) {
  const int64_t slots = config_.experts_per_token;
  std::fill(expert_ends_.begin(), expert_ends_.end(), 0);
  for (int64_t i = 0; i < rows_ * slots; ++i) ++expert_ends_[static_cast<size_t>(work_.chosen[i])];
  int64_t start = 0;
  for (size_t e = 0; e < expert_ends_.size(); ++e) {
    const int64_t rows = expert_ends_[e];
    if (rows > 0) experts_.push_back({&layer.experts[e], start, rows});
    expert_ends_[e] = start;
    start += rows;
  }
  for (int64_t i = 0; i < rows_ * slots; ++i) {
    const int64_t row = expert_ends_[static_cast<size_t>(work_.chosen[i])]++;
    work_.gathered_token[row] = static_cast<int32_t>(i / slots);
    work_.gathered_weight[row] = work_.expert_weights[i];
  }
}

// expert_inner, always_inner = silu(x · W_gateᵀ) · (x · W_upᵀ), in the forms that the downs read
void Forward::gate_and_up(const Layer& layer, const LayerForms& forms) {
  struct Piece {  // a block of rows of one MLP, in jobs of `parts` times 128 columns
    MlpRows of;
    bool is_expert;
    int64_t parts;
    int64_t first_job;
  };
  std::vector<Piece> pieces;
  const int64_t block = block_rows(config_.hidden);
  const auto add = [&](const MlpRows& of, bool is_expert) {
    for (int64_t first = 0; first < of.rows; first += block) {
      pieces.push_back({{of.mlp, of.first_row + first, std::min(block, of.rows - first)}, is_expert, 1, 0});
    }
  };
  for (const MlpRows& expert : experts_) add(expert, true);
  if (layer.always.gate.rows > 0) add({&layer.always, 0, rows_}, false);

  const bool has_many = static_cast<int64_t>(pieces.size()) >= 4 * parallel_.threads();
  int64_t jobs = 0;
  for (Piece& piece : pieces) {
    const int64_t parts = (piece.of.mlp->gate.rows + kInnerColumns - 1) / kInnerColumns;
    if (has_many && piece.is_expert && piece.of.rows > kFewRows) piece.parts = parts;
    piece.first_job = jobs;
    jobs += (parts + piece.parts - 1) / piece.parts;
  }
  const auto gate_at = [](const Piece& piece, int64_t part) {
    return piece.of.mlp->gate.tile_at(part * kInnerColumns / kTileRows);
  };
  parallel_.jobs(jobs, [&](int64_t job, int worker) {
    const auto after = std::upper_bound(pieces.begin(), pieces.end(), job,
                                        [](int64_t number, const Piece& piece) { return number < piece.first_job; });
    const Piece& piece = *(after - 1);
    const int64_t first_part = (job - piece.first_job) * piece.parts;
    const uint8_t* next_job = nullptr;
    if (parallel_.goes_on(job, jobs, worker)) {
      const Piece& following = after != pieces.end() && after->first_job == job + 1 ? *after : piece;
      next_job = gate_at(following, (job + 1 - following.first_job) * following.parts);
    }
    if (!piece.is_expert) {
      inner_columns(piece.of, forms.inner, work_.always_inner, normed(), piece.of.first_row, first_part, worker,
                    next_job);
      return;
    }
    const int64_t token = work_.gathered_token[piece.of.first_row];
    const bool is_one = piece.of.rows == 1;  // lies where it is
    const Activations x = is_one ? normed() : gather_inputs(piece.of, forms.mlp, worker);
    const int64_t end = first_part + piece.parts;
    for (int64_t part = first_part; part < end; ++part) {
      if (parallel_.stopped(worker)) return;
      const uint8_t* next = part + 1 < end ? gate_at(piece, part + 1) : next_job;
      inner_columns(piece.of, forms.inner, work_.expert_inner, x, is_one ? token : 0, part, worker, next);
    }
  });
}

// The inputs of an expert's rows, side by side.
const Activations& Forward::gather_inputs(const MlpRows& of, const InputForms& forms, int worker) {
  const Activations& to = parallel_.space(worker).gathered;
  const Activations from = normed();
  const int32_t* tokens = work_.gathered_token + of.first_row;
  const auto copy_codes = [&](bool is_read, int64_t group_columns) {
    if (!is_read) return;
    const QuantizedRows in = from.codes.rows_for(group_columns, config_.hidden);
    const QuantizedRows out = to.codes.rows_for(group_columns, config_.hidden);
    for (int64_t r = 0; r < of.rows; ++r) {
      std::copy_n(in.values + tokens[r] * in.stride, out.stride, out.values + r * out.stride);
      std::copy_n(in.scales + tokens[r] * in.groups, in.groups, out.scales + r * in.groups);
      std::copy_n(in.sums + tokens[r] * in.groups, in.groups, out.sums + r * in.groups);
    }
  };
  copy_codes(forms.groups_of_32, 32);
  copy_codes(forms.groups_of_64, 64);
  copy_codes(forms.groups_of_128, 128);
  for (int64_t r = 0; forms.floats && r < of.rows; ++r) {
    std::copy_n(from.values + tokens[r] * from.stride, to.stride, to.values + r * to.stride);
  }
  return to;
}

// 128 columns of the inner activations of `of`, whose inputs begin at row `x_row` of x. `next`: as in ProductPart.
void Forward::inner_columns(const MlpRows& of, const InputForms& forms, const Activations& to, const Activations& x,
                            int64_t x_row, int64_t part, int worker, const uint8_t* next) {
  WorkerSpace& space = parallel_.space(worker);
  const int64_t width = of.mlp->gate.rows;
  const int64_t first_column = part * kInnerColumns;
  const int64_t columns = std::min(kInnerColumns, width - first_column);
  const int64_t first_tile = first_column / kTileRows;
  for (int64_t tile = 0; tile * kTileRows < columns; ++tile) {
    const int64_t at = tile * kTileRows;
    const PackedMatrix& gate = of.mlp->gate;
    const PackedMatrix& up = of.mlp->up;
    parallel_.multiply(gate, first_tile + tile, x, x_row, of.rows, space.gate + at, kInnerColumns, worker,
                       up.tile_at(first_tile + tile));
    parallel_.multiply(up, first_tile + tile, x, x_row, of.rows, space.up + at, kInnerColumns, worker,
                       at + kTileRows < columns ? gate.tile_at(first_tile + tile + 1) : next);
  }
  for (int64_t r = 0; r < of.rows; ++r) {
    float* gate = space.gate + r * kInnerColumns;
    const int64_t row = of.first_row + r;
    kernels_.silu_multiply(gate, space.up + r * kInnerColumns, columns);
    to.quantize(kernels_, forms, row, width, gate, first_column, columns);
    if (forms.floats) std::copy_n(gate, columns, to.values + row * to.stride + first_column);
  }
}

// residual += Σ weight · expert_inner · W_downᵀ, experts ascending, + always_inner · W_downᵀ
void Forward::down(const Layer& layer) {
  const int64_t tiles = (config_.hidden + kTileRows - 1) / kTileRows;
  // Neighbouring tiles of an expert lie together in memory; a step reads a few at once, to run longer streams.
  const int64_t together = rows_ <= kFewRows ? std::clamp<int64_t>(tiles / (8 * parallel_.threads()), 1, 4) : 1;
  parallel_.jobs((tiles + together - 1) / together, [&](int64_t job, int worker) {
    down_tiles(layer, job * together, std::min(together, tiles - job * together), worker);
  });
}

void Forward::down_tiles(const Layer& layer, int64_t first_tile, int64_t tiles, int worker) {
  WorkerSpace& space = parallel_.space(worker);
  const int64_t tile_values = rows_ * kTileRows;
  std::memset(space.mlp_sum, 0, static_cast<size_t>(tiles * tile_values) * sizeof(float));
  const auto for_each_block = [&](const MlpRows& of, const Activations& inner, const uint8_t* next, const auto& add) {
    const PackedMatrix& w = of.mlp->down;
    const int64_t block = block_rows(w.columns);
    for (int64_t first = of.first_row; first < of.first_row + of.rows; first += block) {
      const int64_t rows = std::min(block, of.first_row + of.rows - first);
      for (int64_t t = 0; t < tiles; ++t) {
        const uint8_t* follows = t + 1 < tiles ? w.tile_at(first_tile + t + 1) : next;
        parallel_.multiply(w, first_tile + t, inner, first, rows, space.tile, kTileRows, worker, follows);
        add(first, rows, space.mlp_sum + t * tile_values);
      }
    }
  };
  const bool has_always = layer.always.gate.rows > 0;
  for (size_t i = 0; i < experts_.size(); ++i) {
    if (parallel_.stopped(worker)) return;
    const bool is_last = i + 1 == experts_.size();
    const Mlp& following = is_last ? layer.always : *experts_[i + 1].mlp;
    const uint8_t* next = is_last && !has_always ? nullptr : following.down.tile_at(first_tile);
    for_each_block(experts_[i], work_.expert_inner, next, [&](int64_t first, int64_t rows, float* sum) {
      kernels_.add_weighted_rows(space.tile, work_.gathered_token + first, work_.gathered_weight + first, rows, sum);
    });
  }
  if (has_always) {
    for_each_block({&layer.always, 0, rows_}, work_.always_inner, nullptr,
                   [&](int64_t first, int64_t rows, float* sum) {
                     kernels_.add(space.tile, rows * kTileRows, sum + first * kTileRows);
                   });
  }
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t column = (first_tile + t) * kTileRows;
    const int64_t columns = std::min(kTileRows, config_.hidden - column);
    for (int64_t r = 0; r < rows_; ++r) {
      kernels_.add(space.mlp_sum + t * tile_values + r * kTileRows, columns,
                   work_.residual + r * config_.hidden + column);
    }
  }
}

}  // namespace ringside::cpu
