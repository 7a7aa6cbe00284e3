#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

#include "cuda/session.h"

namespace ringside::cuda {
namespace {

// Long enough that a context of a large model takes a few hundred allocations at most.
constexpr int64_t kPageBlockBytes = int64_t{32} << 20;
constexpr int64_t kSmallBlockBytes = int64_t{1} << 16;

int64_t open_values(const DeviceModel& model) {
  return int64_t{model.linear_layers} * model.config.heads * kChunkTokens * kHeadDim;
}

Status copy_on_device(const Piece& to, const Piece& from, int64_t bytes, const Stream& stream) {
  if (bytes == 0) return Unit{};
  RS_CUDA(cudaMemcpyAsync(to.get(), from.get(), static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream.get()));
  return Unit{};
}

Status copy_to_host(std::vector<float>& to, const Piece& from, const Stream& stream) {
  if (to.empty()) return Unit{};
  RS_CUDA(cudaMemcpyAsync(to.data(), from.get(), to.size() * sizeof(float), cudaMemcpyDeviceToHost, stream.get()));
  return Unit{};
}

// S after the last token is the chunk's state, decayed, and the open rows added.
double state_norm(const float* s, const float* k, const float* v, double slope, int64_t open_rows) {
  std::array<double, kChunkTokens> decay{};  // exp(-s n), n = 0..open_rows
  for (int64_t n = 0; n <= open_rows; ++n) {
    decay[static_cast<size_t>(n)] = std::exp(-slope * static_cast<double>(n));
  }
  double squares = 0.0;
  for (int64_t a = 0; a < kHeadDim; ++a) {
    std::array<double, kHeadDim> row;
    for (int64_t b = 0; b < kHeadDim; ++b) {
      row[static_cast<size_t>(b)] = decay[static_cast<size_t>(open_rows)] * s[a * kHeadDim + b];
    }
    for (int64_t j = 0; j < open_rows; ++j) {
      const double factor = decay[static_cast<size_t>(open_rows - 1 - j)] * k[j * kHeadDim + a];
      for (int64_t b = 0; b < kHeadDim; ++b) row[static_cast<size_t>(b)] += factor * v[j * kHeadDim + b];
    }
    for (const double value : row) squares += value * value;
  }
  return std::sqrt(squares);
}

}  // namespace

SessionPools::SessionPools(const DeviceModel& of, const MemoryPlan& plan)
    : model(of),
      states(plan.state_bytes, 0),
      open_rows(plan.open_rows_bytes, 0),
      pages(plan.page_bytes, std::min(kPageBlockBytes, plan.context_pages * plan.page_bytes)),
      tables(plan.context_pages * static_cast<int64_t>(sizeof(uint8_t*)), kSmallBlockBytes) {}

Result<std::shared_ptr<Page>> SessionPools::take_page(const Stream& stream) {
  auto page = std::make_shared<Page>();
  Result<Piece> device = pages.take(stream.get());
  if (!device.ok()) {
    if (device.error().kind != ErrorKind::kOutOfMemory) return device.error();
    RS_TRY(const bool has_room, make_room(stream));
    if (!has_room) return device.error();
    device = pages.take(stream.get());
    if (!device.ok()) return device.error();
  }
  page->device = std::move(device).value();
  return page;
}

// A few pages at a time, of the oldest snapshots first. False: there are none.
Result<bool> SessionPools::make_room(const Stream& stream) {
  constexpr size_t kPagesAtOnce = 16;
  const std::lock_guard lock(saved_mutex);
  std::unordered_map<const Page*, int64_t> holders;  // among snapshots
  for (const Snapshot* const snapshot : saved) {
    for (const std::shared_ptr<Page>& page : snapshot->pages) ++holders[page.get()];
  }
  const auto bytes = static_cast<size_t>(pages.piece_bytes());
  size_t moved = 0;
  for (const Snapshot* const snapshot : saved) {
    for (const std::shared_ptr<Page>& page : snapshot->pages) {
      if (moved == kPagesAtOnce) return true;
      if (page->device == nullptr || page.use_count() != holders[page.get()]) continue;
      RS_TRY(PinnedMemory host, PinnedMemory::allocate(pages.piece_bytes()));
      RS_CUDA(cudaMemcpyAsync(host.data(), page->device.get(), bytes, cudaMemcpyDeviceToHost, stream.get()));
      RS_CHECK(stream.wait());
      page->host = std::move(host);
      page->device.reset();
      ++moved;
    }
  }
  return moved > 0;
}

Status SessionPools::bring_back(const std::vector<std::shared_ptr<Page>>& saved_pages, const Stream& stream) {
  for (const std::shared_ptr<Page>& page : saved_pages) {
    if (page->device != nullptr) continue;
    RS_TRY(const std::shared_ptr<Page> room, take_page(stream));
    const std::lock_guard lock(saved_mutex);
    RS_CUDA(cudaMemcpyAsync(room->device.get(), page->host.data(), static_cast<size_t>(pages.piece_bytes()),
                            cudaMemcpyHostToDevice, stream.get()));
    RS_CHECK(stream.wait());
    page->device = std::move(room->device);
    page->host = PinnedMemory();
  }
  return Unit{};
}

void Snapshot::enlist(SessionPools& of) {
  const std::lock_guard lock(of.saved_mutex);
  of.saved.push_back(this);
  pools = &of;
}

Snapshot::~Snapshot() {
  if (pools == nullptr) return;
  const std::lock_guard lock(pools->saved_mutex);
  std::erase(pools->saved, this);
  pages.clear();  // so that nobody sees them held by one that is not on the list
}

Result<LinearState> LinearState::take(SessionPools& pools, const Stream& stream) {
  LinearState state;
  RS_TRY(state.s, pools.states.take(stream.get()));
  RS_TRY(state.open_rows, pools.open_rows.take(stream.get()));
  return state;
}

SessionView Session::view(const LinearState& of) const {
  auto* const open = reinterpret_cast<float*>(of.open_rows.get());
  SessionView view{};
  view.s = reinterpret_cast<float*>(of.s.get());
  view.open_k = open;
  view.open_v = open == nullptr ? nullptr : open + open_values(pools->model);
  view.pages = reinterpret_cast<uint8_t* const*>(table.get());
  view.position = position;
  return view;
}

int64_t Session::bytes() const {
  const int64_t states = state.s == read_state.s ? 1 : 2;
  const int64_t open_chunks = state.open_rows == read_state.open_rows ? 1 : 2;
  return states * pools->states.piece_bytes() + open_chunks * pools->open_rows.piece_bytes() +
         static_cast<int64_t>(pages.size()) * pools->pages.piece_bytes();
}

void Session::advance(int64_t rows, LinearState& slab_state) {
  const bool is_behind_steps = position != read_position;
  std::swap(state, slab_state);
  position += rows;
  if (is_behind_steps) return;
  read_state = state;
  read_position = position;
}

// Rows past the position are never read.
void Session::cut(int64_t keep_position) {
  position = keep_position;
  if (position > read_position) return;
  state = read_state;
  read_position = position;
}

Status Session::await(const Stream& stream) {
  if (arrival != nullptr) RS_CHECK(arrival->hold_back(stream));
  arrival.reset();
  return Unit{};
}

Status Session::prepare_pages(int64_t rows, const Stream& stream) {
  if (pools->pages.piece_bytes() == 0) return Unit{};  // no softmax layers
  const auto begin = static_cast<size_t>(position / kPageTokens);
  const auto end = static_cast<size_t>((position + rows - 1) / kPageTokens + 1);
  for (size_t index = begin; index < end; ++index) {
    if (index < pages.size() && pages[index].use_count() == 1) continue;
    RS_TRY(std::shared_ptr<Page> page, pools->take_page(stream));
    if (index < pages.size()) {
      RS_CHECK(copy_on_device(page->device, pages[index]->device, pools->pages.piece_bytes(), stream));
      pages[index] = std::move(page);
    } else {
      pages.push_back(std::move(page));
    }
    table_end = std::min(table_end, index);
  }
  if (table_end == pages.size()) return Unit{};
  std::vector<uint8_t*> pointers;
  for (size_t index = table_end; index < pages.size(); ++index) pointers.push_back(pages[index]->device.get());
  // So short a copy from ordinary memory has read its source when the call returns.
  RS_CUDA(cudaMemcpyAsync(table.get() + table_end * sizeof(uint8_t*), pointers.data(),
                          pointers.size() * sizeof(uint8_t*), cudaMemcpyHostToDevice, stream.get()));
  table_end = pages.size();
  return Unit{};
}

Status open_session(Session& session, const Stream& stream) {
  RS_TRY(session.state, LinearState::take(*session.pools, stream));
  session.read_state = session.state;
  RS_TRY(session.table, session.pools->tables.take(stream.get()));
  return Unit{};
}

Status save_session(const Session& session, StateCopies& copies, const Stream& stream, Snapshot& out) {
  out.model = session.model;
  out.position = session.read_position / kChunkTokens * kChunkTokens;
  out.state_bytes = session.pools->states.piece_bytes();
  out.page_bytes = session.pools->pages.piece_bytes();
  RS_TRY(out.s, copies.save(session.read_state.s, stream));
  const auto pages = static_cast<size_t>((out.position + kPageTokens - 1) / kPageTokens);
  out.pages.assign(session.pages.begin(),
                   session.pages.begin() + static_cast<int64_t>(std::min(pages, session.pages.size())));
  out.enlist(*session.pools);
  return Unit{};
}

Status restore_session(const Snapshot& snapshot, StateCopies& copies, const Stream& stream, Session& out) {
  RS_CHECK(open_session(out, stream));
  out.position = out.read_position = snapshot.position;
  out.pages = snapshot.pages;
  RS_CHECK(out.pools->bring_back(out.pages, stream));
  RS_TRY(out.arrival, copies.restore(snapshot.s, out.state.s, stream));
  return Unit{};
}

Status state_norms(Session& session, const Stream& stream, float* out) {
  RS_CHECK(session.await(stream));
  const DeviceModel& model = session.pools->model;
  const int64_t heads = model.config.heads;
  constexpr int64_t kStateValues = kHeadDim * kHeadDim;
  constexpr int64_t kOpenValues = kChunkTokens * kHeadDim;
  std::vector<float> s(static_cast<size_t>(model.linear_layers * heads * kStateValues));
  std::vector<float> open(static_cast<size_t>(2 * open_values(model)));
  RS_CHECK(copy_to_host(s, session.state.s, stream));
  RS_CHECK(copy_to_host(open, session.state.open_rows, stream));
  RS_CHECK(stream.wait());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (model.layers[i].is_softmax != 0) continue;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t at = model.layers[i].kind_index * heads + head;
      const float* k = open.data() + at * kOpenValues;
      const double slope = model.config.slopes[static_cast<int64_t>(i) * heads + head];
      out[at] = static_cast<float>(
          state_norm(s.data() + at * kStateValues, k, k + open_values(model), slope, session.position % kChunkTokens));
    }
  }
  return Unit{};
}

}  // namespace ringside::cuda
