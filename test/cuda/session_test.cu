// Owns: what becomes of a session's state on the GPU: that only what was read is saved and reused (house rule 3a), that
// saving and restoring lose no bit and hold nobody up, that ids chosen on the device are those of the sampler, and that
// no failing call of the runtime leaves a wrong state or memory behind.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "backend_model.h"
#include "check.h"
#include "cuda/cuda_call.h"
#include "cuda/kernels/greedy.h"
#include "device_data.h"
#include "mini_model.h"
#include "model/backend.h"
#include "model/sampler.h"
#include "small_model.h"

namespace {

using backend_model::Bits;
using backend_model::Model;
using backend_model::same_bits;
using backend_model::Session;
using ringside::ErrorKind;
using Ids = std::vector<int32_t>;

constexpr int64_t kVocab = 160;

const rs_backend* cuda() { return rs_cuda_backend(); }

// A model on the device and its weights.
struct Small {
  random_model::Shape shape = small_model::shape();
  random_model::Source random{11, RS_WEIGHT_Q8, 128};
  small_model::Source source{random};
  rs_error error{};
  std::unique_ptr<Model> model;

  Small() { CHECK_EQ(load(), 0); }
  int32_t load() {
    const rs_load_options options{2, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
    rs_model* handle = nullptr;
    if (cuda()->load(shape.ready(), &source.table, &options, &handle, &error) != 0) return error.kind;
    model = std::make_unique<Model>(cuda(), shape, handle);
    return 0;
  }
};

Ids ids_of(int64_t count, uint64_t seed) { return random_model::tokens(seed, count, static_cast<int32_t>(kVocab)); }

void read(Session& session, const Ids& ids, int64_t begin, int64_t end) {
  if (begin == end) return;
  CHECK_EQ(session.extend(ids.data() + begin, end - begin, RS_LOGITS_NONE, nullptr, nullptr), 0);
}

Bits read_all(Session& session, const Ids& ids, int64_t begin) {
  return session.feed(Ids(ids.begin() + begin, ids.end()), {static_cast<int64_t>(ids.size())});
}

int32_t step(Model& model, Session& session, const int32_t* ids, int64_t count, float* logits = nullptr) {
  const rs_step step{session.get(), ids, count, logits == nullptr ? RS_LOGITS_NONE : RS_LOGITS_LAST, logits};
  session.error = {};
  return cuda()->step(model.get(), &step, 1, nullptr, &session.error);
}

Bits tail(const Bits& logits, int64_t position) { return Bits(logits.begin() + position * kVocab, logits.end()); }

// Goes on from a snapshot as an uninterrupted reader does.
void check_restores(Model& model, const rs_snapshot* snapshot, const Ids& ids, const Bits& logits, const Bits& norms) {
  Session restored = model.restore(snapshot);
  const int64_t position = restored.position();
  CHECK_EQ(position, cuda()->snapshot_position(snapshot));
  CHECK_EQ(cuda()->read_position(restored.get()), position);
  CHECK(same_bits(read_all(restored, ids, position), tail(logits, position)));
  CHECK(same_bits(restored.norms(model.norm_count()), norms));
}

TEST("only what was read is saved, and going back to it undoes the steps") {
  Small small;
  if (small.model == nullptr) return;
  Model& model = *small.model;
  const Ids ids = ids_of(400, 3);
  const Ids generated = ids_of(150, 4);
  Session whole = model.open();
  const Bits logits = read_all(whole, ids, 0);
  const Bits norms = whole.norms(model.norm_count());
  Session session = model.open();
  read(session, ids, 0, 200);
  for (int64_t done = 0; done < 150; done += 30) CHECK_EQ(step(model, session, generated.data() + done, 30), 0);
  CHECK_EQ(session.position(), 350);
  CHECK_EQ(cuda()->read_position(session.get()), 200);
  const int64_t bytes = session.bytes();
  rs_snapshot* const snapshot = model.save(session);
  CHECK_EQ(cuda()->snapshot_position(snapshot), 192);
  check_restores(model, snapshot, ids, logits, norms);
  // Reading on behind steps changes nothing of what may be saved.
  read(session, ids, 350, 400);
  CHECK_EQ(cuda()->read_position(session.get()), 200);
  CHECK(session.accept(201) != 0);
  CHECK(session.accept(191) != 0);
  CHECK_EQ(session.accept(197), 0);
  CHECK_EQ(session.position(), 197);
  CHECK_EQ(cuda()->read_position(session.get()), 197);
  CHECK(session.bytes() < bytes);
  CHECK(same_bits(read_all(session, ids, 197), tail(logits, 197)));
  CHECK(same_bits(session.norms(model.norm_count()), norms));
  CHECK_EQ(cuda()->read_position(session.get()), 400);
  cuda()->drop(snapshot);
}

// Reads, steps, drafts that are cut off, goes back, saves and restores in any order; what was read is always the same
// line of tokens, what was generated is always others.
void wander(Small& small, uint64_t seed, const Ids& ids, const Bits& logits, const Bits& norms) {
  Model& model = *small.model;
  random_model::Random random(seed);
  const auto end = static_cast<int64_t>(ids.size());
  std::vector<rs_snapshot*> snapshots;
  auto session_now = std::make_unique<Session>(model.open());
  Session other = model.open();
  int64_t reached = 0;
  for (int turn = 0; turn < 12 && reached < end; ++turn) {
    Session& session = *session_now;
    const int64_t more = std::min(end - reached, 1 + random.below(random.below(2) == 0 ? 20 : 150));
    read(session, ids, reached, reached + more);
    reached += more;
    if (random.below(2) == 0) snapshots.push_back(model.save(session));
    int64_t held = reached;
    for (int64_t steps = random.below(5); steps > 0; --steps) {
      const Ids drafts = ids_of(1 + random.below(40), seed + static_cast<uint64_t>(held));
      CHECK_EQ(step(model, session, drafts.data(), static_cast<int64_t>(drafts.size())), 0);
      const int64_t boundary = session.position() / 64 * 64;
      held = session.position();
      if (random.below(2) == 0) {
        const int64_t least = std::max(boundary, reached);
        held = least + random.below(held - least + 1);
        CHECK_EQ(session.accept(held), 0);
      }
      if (random.below(3) == 0) snapshots.push_back(model.save(session));
      // Neighbours write to the spare state that is exchanged with sessions.
      if (random.below(2) == 0) read(other, ids_of(70, seed), 0, 70);
    }
    CHECK_EQ(session.position(), held);
    CHECK_EQ(cuda()->read_position(session.get()), reached);
    reached = std::max(reached / 64 * 64, reached - random.below(30));
    CHECK_EQ(session.accept(reached), 0);
    if (!snapshots.empty() && random.below(4) == 0) {
      const rs_snapshot* const chosen =
          snapshots[static_cast<size_t>(random.below(static_cast<int64_t>(snapshots.size())))];
      session_now = std::make_unique<Session>(model.restore(chosen));
      reached = session_now->position();
    }
  }
  Session& session = *session_now;
  CHECK(same_bits(read_all(session, ids, reached), tail(logits, reached)));
  CHECK(same_bits(session.norms(model.norm_count()), norms));
  for (rs_snapshot* const snapshot : snapshots) {
    if (cuda()->snapshot_position(snapshot) < end) check_restores(model, snapshot, ids, logits, norms);
    cuda()->drop(snapshot);
  }
}

TEST("wherever steps, drafts, cuts and restores fall, what is read has the bits of an uninterrupted read") {
  Small small;
  if (small.model == nullptr) return;
  const Ids ids = ids_of(600, 5);
  Session whole = small.model->open();
  const Bits logits = read_all(whole, ids, 0);
  const Bits norms = whole.norms(small.model->norm_count());
  for (uint64_t seed = 1; seed <= 25; ++seed) wander(small, seed, ids, logits, norms);
}

TEST("copies under way are disturbed by nothing: going on, closing and dropping at once") {
  Small small;
  if (small.model == nullptr) return;
  Model& model = *small.model;
  const Ids ids = ids_of(500, 6);
  Session whole = model.open();
  const Bits logits = read_all(whole, ids, 0);
  const Bits norms = whole.norms(model.norm_count());
  std::vector<rs_snapshot*> snapshots;
  {
    Session session = model.open();
    for (int64_t done = 0; done < 448; done += 64) {
      read(session, ids, done, done + 64);
      snapshots.push_back(model.save(session));
      cuda()->drop(model.save(session));
      model.restore(snapshots.back());
    }
  }
  for (rs_snapshot* const snapshot : snapshots) {
    check_restores(model, snapshot, ids, logits, norms);
    cuda()->drop(snapshot);
  }
  // The model goes while a copy may be under way.
  Small gone;
  Session session = gone.model->open();
  read(session, ids, 0, 128);
  cuda()->drop(gone.model->save(session));
}

// A snapshot as bytes: S, and its pages.
struct Parts {
  std::vector<uint8_t> state;
  std::vector<std::vector<uint8_t>> pages;
  std::vector<const void*> addresses;
};

Parts parts_of(Model& model, const rs_snapshot* snapshot) {
  Parts parts;
  rs_error error{};
  parts.state.resize(static_cast<size_t>(cuda()->state_part_bytes(model.get())));
  CHECK_EQ(cuda()->export_state(snapshot, parts.state.data(), &error), 0);
  const int64_t pages = (cuda()->snapshot_position(snapshot) + 255) / 256;
  for (int64_t page = 0; page < pages; ++page) {
    parts.pages.emplace_back(static_cast<size_t>(cuda()->page_part_bytes(model.get())));
    CHECK_EQ(cuda()->export_page(snapshot, page, parts.pages.back().data(), &error), 0);
    parts.addresses.push_back(parts.pages.back().data());
  }
  CHECK(cuda()->export_page(snapshot, pages, parts.state.data(), &error) != 0);
  CHECK(cuda()->export_page(snapshot, -1, parts.state.data(), &error) != 0);
  return parts;
}

TEST(
    "a snapshot that went out as bytes and came back restores the same bits, and bytes that are no numbers are "
    "refused") {
  Small small;
  if (small.model == nullptr) return;
  Model& model = *small.model;
  const Ids ids = ids_of(700, 13);
  Session whole = model.open();
  const Bits logits = read_all(whole, ids, 0);
  const Bits norms = whole.norms(model.norm_count());
  for (const int64_t length : {10, 64, 300, 512, 650}) {
    Parts parts;
    int64_t position = 0;
    {
      Session session = model.open();
      read(session, ids, 0, length);
      rs_snapshot* const snapshot = model.save(session);
      read(session, ids, length, 700);
      position = cuda()->snapshot_position(snapshot);
      parts = parts_of(model, snapshot);
      cuda()->drop(snapshot);
    }
    rs_snapshot* back = nullptr;
    rs_error error{};
    const auto import = [&](int64_t at) {
      return cuda()->import_snapshot(model.get(), at, parts.state.data(), parts.addresses.data(), &back, &error);
    };
    CHECK_EQ(import(position), 0);
    check_restores(model, back, ids, logits, norms);
    cuda()->drop(back);
    CHECK(import(position + 1) != 0);
    std::fill_n(parts.state.begin() + 4, 4, uint8_t{0xff});
    CHECK(import(position) != 0);
    CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kFileMalformed));
    std::fill_n(parts.state.begin() + 4, 4, uint8_t{0});
    if (parts.pages.empty()) continue;
    std::fill_n(parts.pages.back().begin() + 8, 2, uint8_t{0xff});
    CHECK(import(position) != 0);
    CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kFileMalformed));
  }
}

TEST("where device memory is short, pages that only snapshots hold go to the host, and come back with the same bits") {
  Small small;
  if (small.model == nullptr) return;
  Model& model = *small.model;
  const auto context = static_cast<int64_t>(small.shape.config.context_tokens);
  const Ids ids = ids_of(context - 64, 14);
  const Ids more = ids_of(300, 15);
  std::vector<rs_snapshot*> snapshots;
  Bits logits;
  Bits norms;
  {
    // Takes as many pages as are allocated at once.
    Session whole = model.open();
    for (const int64_t end : {640, 1000, 5000}) {
      read(whole, ids, whole.position(), end);
      snapshots.push_back(model.save(whole));
    }
    logits = read_all(whole, ids, 5000);
    norms = whole.norms(model.norm_count());
  }
  Session straight = model.open();
  const Bits expected = read_all(straight, more, 0);
  const auto goes_on = [&](rs_snapshot* snapshot) {
    Session restored = model.restore(snapshot);
    read(restored, ids, restored.position(), 5000);
    CHECK(same_bits(read_all(restored, ids, 5000), logits));
    CHECK(same_bits(restored.norms(model.norm_count()), norms));
  };
  // What is taken here leaves no page free.
  std::vector<Session> others;
  int64_t refused = 0;
  for (int i = 0; i < 12; ++i) {
    others.push_back(model.open());
    Bits found(more.size() * kVocab);
    const auto count = static_cast<int64_t>(more.size());
    // One of the first calls is for a page.
    ringside::cuda::fail_call(1 + i % 4, cudaErrorMemoryAllocation);
    const bool is_read = others.back().extend(more.data(), count, RS_LOGITS_ALL, found.data(), nullptr) == 0;
    ringside::cuda::fail_call(0, cudaSuccess);
    refused += is_read ? 0 : 1;
    if (is_read) CHECK(same_bits(found, expected));
  }
  std::printf("     %lld of 12 failures were not for want of a page, or there was none to move\n",
              static_cast<long long>(refused));
  CHECK(refused < 12);
  const Parts parts = parts_of(model, snapshots[2]);
  CHECK_EQ(parts.pages.size(), size_t{20});
  for (rs_snapshot* const snapshot : snapshots) goes_on(snapshot);
  for (rs_snapshot* const snapshot : snapshots) cuda()->drop(snapshot);
}

// The table's ids beside those of the sampler on the logits that the same rows give.
TEST("ids chosen on the device are the sampler's, over passes, chunks and sessions") {
  Small small;
  if (small.model == nullptr) return;
  Model& model = *small.model;
  random_model::Random random(9);
  for (int round = 0; round < 20; ++round) {
    const auto sessions = static_cast<size_t>(1 + random.below(5));
    const auto usable = static_cast<int32_t>(1 + random.below(kVocab));
    std::vector<Session> choosing;
    std::vector<Session> plain;
    std::vector<rs_step> steps;
    std::vector<rs_step> plain_steps;
    std::vector<Ids> tokens(sessions);
    std::vector<Ids> chosen(sessions);
    std::vector<Bits> logits(sessions);
    std::vector<int32_t*> to;
    for (size_t i = 0; i < sessions; ++i) {
      const Ids prompt = ids_of(1 + random.below(130), i);
      tokens[i] = ids_of(1 + random.below(i == 0 ? 44 : 5), 100 + i);
      const auto count = static_cast<int64_t>(tokens[i].size());
      chosen[i].assign(tokens[i].size(), -7);
      logits[i].assign(tokens[i].size() * kVocab, NAN);
      for (std::vector<Session>* list : {&choosing, &plain}) {
        list->push_back(model.open());
        read(list->back(), prompt, 0, static_cast<int64_t>(prompt.size()));
      }
      to.push_back(i % 3 == 2 ? nullptr : chosen[i].data());
      steps.push_back({choosing[i].get(), tokens[i].data(), count, RS_LOGITS_NONE, nullptr});
      plain_steps.push_back({plain[i].get(), tokens[i].data(), count, RS_LOGITS_ALL, logits[i].data()});
    }
    rs_error error{};
    const auto count = static_cast<int64_t>(sessions);
    CHECK_EQ(cuda()->step(model.get(), plain_steps.data(), count, nullptr, &error), 0);
    CHECK_EQ(cuda()->step_likeliest(model.get(), steps.data(), to.data(), count, usable, nullptr, &error), 0);
    int64_t row = 0;
    for (size_t i = 0; i < sessions; ++i) {
      for (size_t j = 0; j < tokens[i].size(); ++j, ++row) {
        Bits of_row(logits[i].begin() + static_cast<int64_t>(j) * kVocab,
                    logits[i].begin() + static_cast<int64_t>(j + 1) * kVocab);
        Bits behind(kVocab, NAN);
        if (to[i] == nullptr) {
          CHECK(cuda()->likeliest_logits(model.get(), row, behind.data(), &error) != 0);
          continue;
        }
        CHECK_EQ(cuda()->likeliest_logits(model.get(), row, behind.data(), &error), 0);
        CHECK(same_bits(behind, of_row));
        of_row.resize(static_cast<size_t>(usable));
        CHECK_EQ(chosen[i][j], ringside::sample(of_row, {}, nullptr, 0, {}));
      }
    }
    Bits behind(kVocab);
    CHECK(cuda()->likeliest_logits(model.get(), row, behind.data(), &error) != 0);
    CHECK(cuda()->likeliest_logits(model.get(), -1, behind.data(), &error) != 0);
    read(choosing[0], tokens[0], 0, 1);
    CHECK(cuda()->likeliest_logits(model.get(), 0, behind.data(), &error) != 0);
    CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kStateInvalid));
  }
}

TEST("the likeliest id of any row of numbers is the sampler's: ties, zeros of both signs, NaN and infinities") {
  using namespace ringside::cuda;
  random_model::Random random(12);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::array<float, 8> odd = {NAN, kInfinity, -kInfinity, 0.0f, -0.0f, 1e-42f, -3.4e38f, 3.4e38f};
  for (const int64_t stride : {int64_t{1}, int64_t{160}, int64_t{4097}, int64_t{157184}}) {
    const int64_t rows = stride > 100000 ? 7 : 33;
    std::vector<float> logits(static_cast<size_t>(stride * rows));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t kind = random.below(6);
      for (int64_t i = 0; i < stride; ++i) {
        float& value = logits[static_cast<size_t>(row * stride + i)];
        value = random.uniform(-20.0f, 20.0f);
        if (kind == 1) value = std::round(value);  // ties
        if (kind == 2 || random.below(50) == 0) value = odd[static_cast<size_t>(random.below(8))];
        if (kind == 3) value = odd[static_cast<size_t>(3 + random.below(2))];  // zeros
        if (kind == 4) value = odd[static_cast<size_t>(random.below(3))];      // nothing to choose
        if (kind == 5) value = -std::abs(value);
      }
    }
    const test::DeviceBuffer<float> device(logits);
    for (const int64_t ids : {int64_t{1}, (stride + 1) / 2, stride}) {
      test::DeviceBuffer<uint64_t> keys(std::vector<uint64_t>(static_cast<size_t>(rows), 0));
      CHECK(find_likeliest(device.get(), stride, rows, static_cast<int32_t>(ids), keys.get(), nullptr).ok());
      const std::vector<uint64_t> found = keys.download();
      for (int64_t row = 0; row < rows; ++row) {
        Bits of_row(logits.begin() + row * stride, logits.begin() + row * stride + ids);
        CHECK_EQ(likeliest_of(found[static_cast<size_t>(row)]), ringside::sample(of_row, {}, nullptr, 0, {}));
      }
    }
  }
}

int64_t free_bytes() {
  size_t free_now = 0;
  size_t total = 0;
  CHECK_EQ(static_cast<int>(cudaMemGetInfo(&free_now, &total)), 0);
  return static_cast<int64_t>(free_now);
}

// A call of the runtime that fails, between begin() and end().
class Fault {
 public:
  Fault(int64_t call, cudaError_t code) : call_(call), code_(code) {}
  void begin() {
    made_ = ringside::cuda::calls_made();
    ringside::cuda::fail_call(call_, code_);
  }
  void end() {
    ringside::cuda::fail_call(0, cudaSuccess);
    was_reached_ = ringside::cuda::calls_made() - made_ >= call_;
  }
  bool was_reached() const { return was_reached_; }

 private:
  int64_t call_;
  cudaError_t code_;
  int64_t made_ = 0;
  bool was_reached_ = false;
};

struct Failing {
  cudaError_t code;
  ErrorKind kind;
  int64_t stride;  // of the calls that fail
};
constexpr std::array kFailing = {Failing{cudaErrorUnknown, ErrorKind::kInternal, 1},
                                 Failing{cudaErrorMemoryAllocation, ErrorKind::kOutOfMemory, 9},
                                 Failing{cudaErrorLaunchFailure, ErrorKind::kDeviceLost, 9}};

// Repeats `phase`, which returns an error's kind or -1, with its first, second, third … call failing, until none is
// left to fail. Returns how many calls there were, in whole strides.
int64_t fail_each_call(const char* name, const Failing& failing, const std::function<int32_t(Fault&)>& phase) {
  for (int64_t n = 1;; n += failing.stride) {
    Fault fault(n, failing.code);
    const int32_t got = phase(fault);
    CHECK_EQ(got, fault.was_reached() ? static_cast<int32_t>(failing.kind) : -1);
    if (fault.was_reached()) continue;
    std::printf("     %s: %lld calls\n", name, static_cast<long long>(n - 1));
    return n - 1;
  }
}

TEST("load: whichever call fails, the error is ours and no memory stays behind") {
  Small small;
  if (small.model == nullptr) return;
  small.model.reset();
  const int64_t baseline = free_bytes();
  for (const Failing& failing : kFailing) {
    if (failing.kind == ErrorKind::kOutOfMemory) continue;  // a shorter slab is tried then, see load_test
    const int64_t calls = fail_each_call("load", failing, [&](Fault& fault) -> int32_t {
      fault.begin();
      const int32_t kind = small.load();
      fault.end();
      const bool is_loaded = small.model != nullptr;
      small.model.reset();
      CHECK_EQ(free_bytes(), baseline);
      return is_loaded ? -1 : kind;
    });
    CHECK(calls > 50);
  }
}

// What the phases below must leave: the state they found, or the one they promise.
struct Line {
  Model& model;
  Ids ids = ids_of(420, 7);
  Bits logits, norms, stepped;

  explicit Line(Model& of) : model(of), stepped(kVocab) {
    Session whole = model.open();
    logits = read_all(whole, ids, 0);
    norms = whole.norms(model.norm_count());
    Session session = at(120);
    CHECK_EQ(step(model, session, ids.data() + 120, 12, stepped.data()), 0);
  }
  Session at(int64_t position) {
    Session session = model.open();
    read(session, ids, 0, position);
    return session;
  }
  void check_read(Session& session) {
    const int64_t position = session.position();
    CHECK(same_bits(read_all(session, ids, position), tail(logits, position)));
    CHECK(same_bits(session.norms(model.norm_count()), norms));
  }
};

int32_t fail_prefill(Line& line, Fault& fault) {
  Session session = line.at(70);
  fault.begin();
  const int32_t code = session.extend(line.ids.data() + 70, 150, RS_LOGITS_NONE, nullptr, nullptr);
  const int32_t kind = code == 0 ? -1 : session.error.kind;
  fault.end();
  CHECK_EQ(session.position(), kind == -1 ? 220 : 70);
  line.check_read(session);
  return kind;
}

int32_t fail_decode(Line& line, Fault& fault) {
  Session session = line.at(120);
  Bits logits(kVocab);
  fault.begin();
  const int32_t code = step(line.model, session, line.ids.data() + 120, 12, logits.data());
  const int32_t kind = code == 0 ? -1 : session.error.kind;
  fault.end();
  CHECK_EQ(session.position(), kind == -1 ? 132 : 120);
  if (kind != -1) CHECK_EQ(step(line.model, session, line.ids.data() + 120, 12, logits.data()), 0);
  CHECK(same_bits(logits, line.stepped));
  CHECK_EQ(session.accept(120), 0);
  line.check_read(session);
  return kind;
}

int32_t fail_choice(Line& line, Fault& fault) {
  Session session = line.at(120);
  int32_t id = -7;
  rs_error error{};
  const auto choose = [&](int64_t token) {
    const rs_step step{session.get(), line.ids.data() + token, 1, RS_LOGITS_NONE, nullptr};
    int32_t* const to = &id;
    return cuda()->step_likeliest(line.model.get(), &step, &to, 1, kVocab, nullptr, &error);
  };
  Bits logits(kVocab);
  fault.begin();
  int32_t kind = choose(120) == 0 ? -1 : error.kind;
  if (kind == -1 && cuda()->likeliest_logits(line.model.get(), 0, logits.data(), &error) != 0) kind = error.kind;
  fault.end();
  const int64_t position = session.position();
  CHECK(position == 120 || position == 121);
  CHECK_EQ(session.accept(120), 0);
  line.check_read(session);
  return kind;
}

int32_t fail_snapshot(Line& line, Fault& fault) {
  Session session = line.at(200);
  rs_snapshot* snapshot = nullptr;
  rs_session* restored = nullptr;
  rs_error error{};
  fault.begin();
  int32_t kind = cuda()->save(session.get(), &snapshot, &error) == 0 ? -1 : error.kind;
  if (kind == -1 && cuda()->restore(line.model.get(), snapshot, &restored, &error) != 0) kind = error.kind;
  if (kind == -1 && cuda()->extend(restored, line.ids.data() + 192, 8, RS_LOGITS_NONE, nullptr, nullptr, &error) != 0) {
    kind = error.kind;
  }
  fault.end();
  if (restored != nullptr) {
    Session owned(cuda(), restored, kVocab);
    line.check_read(owned);
  }
  line.check_read(session);
  if (snapshot != nullptr) check_restores(line.model, snapshot, line.ids, line.logits, line.norms);
  if (snapshot != nullptr) cuda()->drop(snapshot);
  return kind;
}

TEST("prefill, decode, snapshots: whichever call fails, the session is where it was, and nothing leaks on closing") {
  Small small;
  if (small.model == nullptr) return;
  using Phase = std::pair<const char*, int32_t (*)(Line&, Fault&)>;
  const std::array<Phase, 4> phases = {
      {{"prefill", fail_prefill}, {"decode", fail_decode}, {"ids", fail_choice}, {"snapshot", fail_snapshot}}};
  {
    // Kernels take memory when they are first used.
    Line line(*small.model);
    for (const auto& [name, run] : phases) {
      Fault none(0, cudaSuccess);
      CHECK_EQ(run(line, none), -1);
    }
  }
  small.model.reset();
  const int64_t baseline = free_bytes();
  for (const Failing& failing : kFailing) {
    CHECK_EQ(small.load(), 0);
    {
      Line line(*small.model);
      for (const auto& [name, run] : phases) {
        CHECK(fail_each_call(name, failing, [&](Fault& fault) { return run(line, fault); }) > 3);
      }
    }
    small.model.reset();
    CHECK_EQ(free_bytes(), baseline);
  }
}

TEST("closing, dropping and unloading give all memory back, copies under way or not, whichever call fails") {
  const Ids ids = ids_of(100, 8);
  int64_t baseline = -1;
  for (const int64_t failing : {0, 1, 2, 3}) {
    Small small;
    if (small.model == nullptr) return;
    auto session = std::make_unique<Session>(small.model->open());
    read(*session, ids, 0, 100);
    rs_snapshot* const snapshot = small.model->save(*session);
    auto restored = std::make_unique<Session>(small.model->restore(snapshot));
    ringside::cuda::fail_call(failing, cudaErrorUnknown);
    restored.reset();
    session.reset();
    cuda()->drop(snapshot);
    small.model.reset();
    ringside::cuda::fail_call(0, cudaSuccess);
    if (failing == 0) baseline = free_bytes();
    CHECK_EQ(free_bytes(), baseline);
  }
}

__global__ void trap() { asm("trap;"); }

// In a process of its own, for its device is lost. 0: as it has to be.
int lose_device() {
  Small small;
  if (small.model == nullptr) return 1;
  const Ids ids = ids_of(80, 2);
  Session session = small.model->open();
  read(session, ids, 0, 40);
  trap<<<1, 1>>>();
  const int64_t before = session.position();
  const auto lost = static_cast<int32_t>(ErrorKind::kDeviceLost);
  if (session.extend(ids.data() + 40, 40, RS_LOGITS_NONE, nullptr, nullptr) == 0) return 2;
  if (session.error.kind != lost || session.position() != before) return 3;
  if (step(*small.model, session, ids.data(), 1) == 0 || session.error.kind != lost) return 4;
  rs_snapshot* snapshot = nullptr;
  if (cuda()->save(session.get(), &snapshot, &session.error) == 0 || session.error.kind != lost) return 5;
  return small.load() == lost ? 0 : 6;
}

constexpr const char* kLoseDevice = "RINGSIDE_TEST_LOSE_DEVICE";

TEST("a kernel that traps loses the device: every call says so by its own kind, and closing is still possible") {
  if (std::getenv(kLoseDevice) != nullptr) std::exit(100 + lose_device());
  setenv(kLoseDevice, "1", 1);
  std::array<char*, 3> arguments = {const_cast<char*>("session_test"), const_cast<char*>("a kernel that traps"),
                                    nullptr};
  pid_t child = 0;
  CHECK_EQ(posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ), 0);
  unsetenv(kLoseDevice);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 100);
}

// Microseconds of a call, the median of several.
template <class Call>
double microseconds(int times, const Call& call) {
  std::vector<double> all;
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    all.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(all);
  return all[all.size() / 2];
}

TEST("--bench what choosing on the device saves, and what snapshots cost, on the mini shape") {
  if (!ringside::cuda::test::bench_asked()) return;
  constexpr int32_t kRows = 157184;
  random_model::Shape shape = mini_model::shape();
  const mini_model::Source source(RS_WEIGHT_Q8);
  const rs_load_options options{0, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
  rs_error error{};
  rs_model* model = nullptr;
  CHECK_EQ(cuda()->load(shape.ready(), &source.table, &options, &model, &error), 0);
  if (model == nullptr) return;
  const Ids ids = random_model::tokens(1, 8192, kRows);
  rs_session* session = nullptr;
  CHECK_EQ(cuda()->open(model, &session, &error), 0);
  CHECK_EQ(cuda()->extend(session, ids.data(), 4096, RS_LOGITS_NONE, nullptr, nullptr, &error), 0);
  Bits logits(kRows);
  Bits copy;
  const auto next = [&] { return ids.data() + cuda()->position(session); };
  const auto decode = [&](rs_logits want) {
    const rs_step step{session, next(), 1, want, logits.data()};
    CHECK_EQ(cuda()->step(model, &step, 1, nullptr, &error), 0);
  };
  const auto sample = [&](const ringside::SamplerOptions& sampler) {
    copy.assign(logits.begin(), logits.end());
    return ringside::sample(copy, {}, nullptr, cuda()->position(session), sampler);
  };
  const auto choose = [&] {
    const rs_step step{session, next(), 1, RS_LOGITS_NONE, nullptr};
    int32_t id = -1;
    int32_t* const to = &id;
    CHECK_EQ(cuda()->step_likeliest(model, &step, &to, 1, kRows, nullptr, &error), 0);
    CHECK(id >= 0);
  };
  for (int round = 0; round < 3; ++round) {
    std::printf("     step without the head: %.1f us\n", microseconds(100, [&] { decode(RS_LOGITS_NONE); }));
    std::printf("     with logits copied: %.1f us\n", microseconds(100, [&] { decode(RS_LOGITS_LAST); }));
    std::printf("     with logits copied and the likeliest found on the host: %.1f us\n", microseconds(100, [&] {
                  decode(RS_LOGITS_LAST);
                  CHECK(ringside::likeliest(logits) >= 0);
                }));
    std::printf("     with the id chosen on the device: %.1f us\n", microseconds(100, choose));
    std::printf("     sampling at temperature 0.6, top-p 0.95 on the host: %.1f us\n", microseconds(20, [&] {
                  sample({0.6f, 0.95f, 1.0f, 1});
                }));
  }
  std::vector<rs_snapshot*> snapshots;
  const auto save = [&] {
    rs_snapshot* snapshot = nullptr;
    CHECK_EQ(cuda()->save(session, &snapshot, &error), 0);
    snapshots.push_back(snapshot);
  };
  const double first_us = microseconds(1, save);
  std::printf("     first save: %.1f us, %.1f MB\n", first_us,
              static_cast<double>(cuda()->snapshot_bytes(snapshots[0])) * 1e-6);
  std::printf("     further saves with new host memory: %.1f us\n", microseconds(5, save));
  for (rs_snapshot* const snapshot : snapshots) cuda()->drop(snapshot);
  snapshots.clear();
  std::printf("     saves into memory that was given back: %.1f us\n", microseconds(5, save));
  std::printf("     a step just after a save: %.1f us\n", microseconds(20, [&] { choose(); }));
  rs_session* restored = nullptr;
  std::printf("     restore: %.1f us\n",
              microseconds(1, [&] { CHECK_EQ(cuda()->restore(model, snapshots.back(), &restored, &error), 0); }));
  std::vector<double> beside;
  for (int i = 0; i < 40; ++i) {
    save();
    beside.push_back(microseconds(1, choose));
    cuda()->drop(snapshots.back());
    snapshots.pop_back();
  }
  std::ranges::sort(beside);
  std::printf("     step while a state is copied out: median %.1f us, worst %.1f us\n", beside[20], beside[39]);
  for (rs_snapshot* const snapshot : snapshots) cuda()->drop(snapshot);
  if (restored != nullptr) cuda()->close(restored);
  cuda()->close(session);
  cuda()->unload(model);
}

}  // namespace
