// Owns: the ways a slab's work is shared out: by rows, by tiles of matrix products, by anything numbered; and the one
// place where a running slab notices that it should stop.
#pragma once

#include <algorithm>
#include <atomic>
#include <span>

#include "cpu/model.h"

namespace ringside::cpu {

class Interrupt {
 public:
  explicit Interrupt(const rs_poll* poll) : poll_(poll) {}
  // The poll is asked on the calling thread only (worker 0); the others see what it found.
  bool stopped(int worker) {
    if (stop_.load(std::memory_order_relaxed)) return true;
    if (worker != 0 || poll_ == nullptr || poll_->cancelled == nullptr) return false;
    if (poll_->cancelled(poll_->context) == 0) return false;
    stop_.store(true, std::memory_order_relaxed);
    return true;
  }

 private:
  const rs_poll* poll_;
  std::atomic<bool> stop_{false};
};

// y[r] = x[r] · wᵀ for `rows` rows. Coded weights multiply the codes of x, which Parallel::quantize fills.
struct Product {
  const PackedMatrix* w;
  const float* x;
  int64_t x_stride;
  int64_t rows;
  float* y;
  int64_t y_stride;
  const QuantizedInput* codes = nullptr;  // null: w is never coded
  int64_t codes_row = 0;                  // of x[0] among them

  int64_t row_blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }
  int64_t jobs() const { return w->tile_count() * row_blocks(); }
};

// The outputs one job computes.
struct ProductPart {
  int64_t tile;
  int64_t first_row;
  int64_t rows;
  int64_t first_column;
  int64_t columns;
};

class Parallel {
 public:
  Parallel(Model& model, Interrupt& interrupt) : model_(model), interrupt_(interrupt) {}

  bool stopped() { return interrupt_.stopped(0); }
  bool stopped(int worker) { return interrupt_.stopped(worker); }
  WorkerSpace& space(int worker) { return model_.workspace.workers[static_cast<size_t>(worker)]; }

  // body(job, worker)
  template <class Body>
  void jobs(int64_t count, const Body& body) {
    model_.pool.run(count, [&](int64_t job, int worker) {
      if (!interrupt_.stopped(worker)) body(job, worker);
    });
  }

  // body(row, worker) for cheap work on single rows; a decode step stays on the calling thread.
  template <class Body>
  void rows(int64_t count, const Body& body) {
    constexpr int64_t kRowsPerJob = 16;
    jobs((count + kRowsPerJob - 1) / kRowsPerJob, [&](int64_t job, int worker) {
      const int64_t end = std::min(count, (job + 1) * kRowsPerJob);
      for (int64_t row = job * kRowsPerJob; row < end; ++row) body(row, worker);
    });
  }

  // The codes of the inputs of all products with coded weights. Rows that several products share are done once if these
  // follow each other.
  void quantize(std::span<const Product> list) {
    const Product* before = nullptr;
    for (const Product& product : list) {
      if (!product.w->is_coded()) continue;
      const bool is_done = before != nullptr && before->codes == product.codes &&
                           before->codes_row == product.codes_row && before->rows == product.rows &&
                           before->w->group_columns == product.w->group_columns;
      if (!is_done) {
        const QuantizedRows out = product.codes->rows_for(*product.w);
        rows(product.rows, [&](int64_t row, int) {
          model_.kernels->quantize_rows(product.x + row * product.x_stride, product.x_stride, product.codes_row + row,
                                        1, out);
        });
      }
      before = &product;
    }
  }

  // Computes all products in one region; after(product, part, worker) runs on each part when it is there.
  template <class After>
  void products(std::span<const Product> list, const After& after) {
    int64_t count = 0;
    for (const Product& product : list) count += product.jobs();
    jobs(count, [&](int64_t job, int worker) {
      size_t index = 0;
      while (job >= list[index].jobs()) job -= list[index++].jobs();
      const ProductPart part = part_of(list[index], job);
      compute(list[index], part, worker);
      after(index, part, worker);
    });
  }
  void products(std::span<const Product> list) {
    products(list, [](size_t, const ProductPart&, int) {});
  }

  void compute(const Product& product, const ProductPart& part, int worker) {
    float* y = product.y + part.first_row * product.y_stride + part.first_column;
    WorkerSpace& scratch = space(worker);
    if (part.columns == kTileRows) {
      compute_tile(product, part, y, product.y_stride, scratch);
      return;
    }
    compute_tile(product, part, scratch.edge, kTileRows, scratch);
    for (int64_t row = 0; row < part.rows; ++row) {
      std::copy_n(scratch.edge + row * kTileRows, part.columns, y + row * product.y_stride);
    }
  }

 private:
  void compute_tile(const Product& product, const ProductPart& part, float* y, int64_t y_stride, WorkerSpace& scratch) {
    const PackedMatrix& w = *product.w;
    if (w.is_coded()) {
      model_.kernels->matmul_coded(w, part.tile, product.codes->rows_for(w), product.codes_row + part.first_row,
                                   part.rows, y, y_stride, scratch.coded);
    } else {
      model_.kernels->matmul_tile(w, part.tile, product.x + part.first_row * product.x_stride, product.x_stride,
                                  part.rows, y, y_stride, scratch.panel);
    }
  }

  static ProductPart part_of(const Product& product, int64_t job) {
    // Row blocks of one tile follow each other, so that its weights are still near when the second block wants them.
    const int64_t blocks = product.row_blocks();
    ProductPart part;
    part.tile = job / blocks;
    part.first_row = job % blocks * kBlockRows;
    part.rows = std::min(kBlockRows, product.rows - part.first_row);
    part.first_column = part.tile * kTileRows;
    part.columns = std::min(kTileRows, product.w->rows - part.first_column);
    return part;
  }

  Model& model_;
  Interrupt& interrupt_;
};

}  // namespace ringside::cpu
