// Makes the Nth call of the file room fail, whichever call that is. Restores the real calls when it goes.
#pragma once

#include <sys/stat.h>

#include <cerrno>

#include "io/file.h"

class FailingCalls {
 public:
  FailingCalls(int nth, int code) : real_(ringside::file_calls()) {
    state() = State{nth, code, real_};
    ringside::FileCalls& calls = ringside::file_calls();
    calls.open = [](const char* path, int flags, mode_t mode) {
      return fails() ? -1 : state().real.open(path, flags, mode);
    };
    calls.fstat = [](int descriptor, struct stat* out) { return fails() ? -1 : state().real.fstat(descriptor, out); };
    calls.pread = [](int descriptor, void* out, size_t count, off_t offset) {
      return fails() ? -1 : state().real.pread(descriptor, out, count, offset);
    };
    calls.pwrite = [](int descriptor, const void* data, size_t count, off_t offset) {
      return fails() ? -1 : state().real.pwrite(descriptor, data, count, offset);
    };
    calls.fsync = [](int descriptor) { return fails() ? -1 : state().real.fsync(descriptor); };
    calls.rename = [](const char* from, const char* to) { return fails() ? -1 : state().real.rename(from, to); };
    calls.mkdir = [](const char* path, mode_t mode) { return fails() ? -1 : state().real.mkdir(path, mode); };
    calls.close = [](int descriptor) {
      // As on Linux: the descriptor is gone even when close reports an error.
      const int closed = state().real.close(descriptor);
      return fails() ? -1 : closed;
    };
  }
  FailingCalls(const FailingCalls&) = delete;
  FailingCalls& operator=(const FailingCalls&) = delete;
  ~FailingCalls() { ringside::file_calls() = real_; }

  bool has_failed() const { return state().countdown <= 0; }

 private:
  struct State {
    int countdown = 0;
    int code = 0;
    ringside::FileCalls real{};
  };
  static State& state() {
    static State held;
    return held;
  }
  static bool fails() {
    if (--state().countdown != 0) return false;
    errno = state().code;
    return true;
  }
  ringside::FileCalls real_;
};
