// Owns: the ways a slab's work is shared out: by rows, by tiles of matrix products, by anything numbered; and the one
// place where a running slab notices that it should stop.
#pragma once

#include <algorithm>
#include <atomic>
#include <span>
#include <tuple>
#include <utility>

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

// The outputs that one job of a product computes.
struct ProductPart {
  const PackedMatrix* w;
  int64_t tile;
  int64_t first_row;
  int64_t rows;
  int64_t first_column;
  int64_t columns;      // 64, or less in the last tile
  const uint8_t* next;  // the weights that the thread reads afterwards; null: not known
};

class Parallel {
 public:
  Parallel(Model& model, Interrupt& interrupt) : model_(model), interrupt_(interrupt) {}

  bool stopped() { return interrupt_.stopped(0); }
  bool stopped(int worker) { return interrupt_.stopped(worker); }
  int threads() const { return model_.pool.threads(); }
  WorkerSpace& space(int worker) { return model_.workspace.workers[static_cast<size_t>(worker)]; }

  // body(job, worker)
  template <class Body>
  void jobs(int64_t count, const Body& body) {
    model_.pool.run(count, [&](int64_t job, int worker) {
      if (!interrupt_.stopped(worker)) body(job, worker);
    });
  }

  // Whether `worker` will do the job after this one too, as far as can be said.
  bool goes_on(int64_t job, int64_t count, int worker) const {
    return job + 1 < count && job + 1 != model_.pool.share_begin(count, worker + 1);
  }

  // body(row, worker) for work of a few microseconds on single rows. Two rows or one stay on the calling thread: waking
  // another one's cache costs as much.
  template <class Body>
  void rows(int64_t count, const Body& body) {
    const int64_t rows_per_job = std::clamp<int64_t>(count / (2 * threads()), 2, 16);
    jobs((count + rows_per_job - 1) / rows_per_job, [&](int64_t job, int worker) {
      const int64_t end = std::min(count, (job + 1) * rows_per_job);
      for (int64_t row = job * rows_per_job; row < end; ++row) body(row, worker);
    });
  }

  // body(part, worker) for each tile and block of rows of products that share their `rows` inputs. All tiles of a block
  // follow each other: the weights pass by while the inputs stay in the core's cache.
  template <class Body>
  void products(std::span<const PackedMatrix* const> matrices, int64_t rows, const Body& body) {
    int64_t tiles = 0;
    for (const PackedMatrix* w : matrices) tiles += w->tile_count();
    const int64_t block = block_rows(matrices.front()->columns);
    const auto tile_of = [&](int64_t job) {
      int64_t tile = job % tiles;
      size_t index = 0;
      while (tile >= matrices[index]->tile_count()) tile -= matrices[index++]->tile_count();
      return std::pair(matrices[index], tile);
    };
    const int64_t count = tiles * ((rows + block - 1) / block);
    jobs(count, [&](int64_t job, int worker) {
      ProductPart part{};
      part.first_row = job / tiles * block;
      part.rows = std::min(block, rows - part.first_row);
      std::tie(part.w, part.tile) = tile_of(job);
      if (goes_on(job, count, worker)) {
        const auto [w, tile] = tile_of(job + 1);
        part.next = w->tile_at(tile);
      }
      part.first_column = part.tile * kTileRows;
      part.columns = std::min(kTileRows, part.w->rows - part.first_column);
      body(part, worker);
    });
  }

  // y[r][0..64) = rows [first_row, first_row + rows) of x · one tile of w, transposed. `next`: as in ProductPart.
  void multiply(const PackedMatrix& w, int64_t tile, const Activations& x, int64_t first_row, int64_t rows, float* y,
                int64_t y_stride, int worker, const uint8_t* next) {
    const WorkerSpace& scratch = space(worker);
    if (w.is_coded()) {
      model_.kernels->matmul_coded(w, tile, x.codes.rows_for(w), first_row, rows, y, y_stride, scratch.coded, next);
    } else {
      model_.kernels->matmul_tile(w, tile, x.values + first_row * x.stride, x.stride, rows, y, y_stride, scratch.panel);
    }
  }

  // The same into place in y [rows of x, y_stride]; a tile that is not full leaves the columns past it alone.
  void multiply(const ProductPart& part, const Activations& x, float* y, int64_t y_stride, int worker) {
    float* to = y + part.first_row * y_stride + part.first_column;
    if (part.columns == kTileRows) {
      multiply(*part.w, part.tile, x, part.first_row, part.rows, to, y_stride, worker, part.next);
      return;
    }
    float* tile = space(worker).tile;
    multiply(*part.w, part.tile, x, part.first_row, part.rows, tile, kTileRows, worker, part.next);
    for (int64_t row = 0; row < part.rows; ++row) {
      std::copy_n(tile + row * kTileRows, part.columns, to + row * y_stride);
    }
  }

 private:
  Model& model_;
  Interrupt& interrupt_;
};

}  // namespace ringside::cpu
