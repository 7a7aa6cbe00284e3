// Owns: that no failing call of the CUDA runtime leaves a wrong state or memory behind, whether sessions load, read,
// step, save, restore or close; and that a lost device is told by a kind of its own.
#include <cuda_runtime.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/cuda_call.h"
#include "session_cases.h"

namespace {

using namespace session_cases;
using ringside::ErrorKind;

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
  std::array<char*, 3> arguments = {const_cast<char*>("session_failure_test"), const_cast<char*>("a kernel that traps"),
                                    nullptr};
  pid_t child = 0;
  CHECK_EQ(posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ), 0);
  unsetenv(kLoseDevice);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 100);
}

}  // namespace
