// Owns: what becomes of a session's state on the GPU: that only what was read is saved and reused (house rule 3a), that
// saving and restoring lose no bit and hold nobody up, and that ids chosen on the device are those of the sampler.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "cuda/cuda_call.h"
#include "cuda/kernels/greedy.h"
#include "device_data.h"
#include "mini_model.h"
#include "model/sampler.h"
#include "session_cases.h"

namespace {

using namespace session_cases;
using ringside::ErrorKind;

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
