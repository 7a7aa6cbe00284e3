// Owns: the few functions that the headers of a newer glibc make calls to and that glibc 2.28 does not have, in terms
// of what it has. They stay inside the addon. Must never be compiled where the addon is linked against the machine's
// own glibc.
#ifdef RINGSIDE_GLIBC_FLOOR

#include <pthread.h>

#include <cstdint>
#include <ctime>

#ifndef __x86_64__
#error "The layout number below is the one of x86-64."
#endif

// The header that declares stat is left out on purpose: with some settings it renames the functions.
struct stat;
extern "C" {
int __xstat(int layout, const char* path, struct stat* out);
int __lxstat(int layout, const char* path, struct stat* out);
int __fxstat(int layout, int file, struct stat* out);
int getentropy(void* bytes, size_t length);

// Since 2.33 these are functions of libc; before, each program had its own copy that called the numbered one. Offsets
// have 64 bits on x86-64, so the names with 64 are the same.
constexpr int kStatLayout = 1;
int stat(const char* path, struct stat* out) { return __xstat(kStatLayout, path, out); }
int lstat(const char* path, struct stat* out) { return __lxstat(kStatLayout, path, out); }
int fstat(int file, struct stat* out) { return __fxstat(kStatLayout, file, out); }
int stat64(const char* path, struct stat* out) { return __xstat(kStatLayout, path, out); }
int lstat64(const char* path, struct stat* out) { return __lxstat(kStatLayout, path, out); }
int fstat64(int file, struct stat* out) { return __fxstat(kStatLayout, file, out); }

// 2.32: lets std::shared_ptr count without atomics while there is one thread. Node always has several.
char __libc_single_threaded = 0;

// 2.36: what std::random_device reads. getentropy cannot fail for four bytes on Linux 3.17 and later unless a sandbox
// forbids the call; then the clock must do, for the names of temporary files that this is used for.
uint32_t arc4random() {
  uint32_t value = 0;
  if (getentropy(&value, sizeof value) == 0) return value;
  struct timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint32_t>(now.tv_nsec) * 0x9E3779B9u ^ static_cast<uint32_t>(now.tv_sec);
}

// 2.30: what std::condition_variable waits with until a time of the steady clock. Its own clock is the real-time one,
// so the time that is left is counted from there; a waiter looks at its steady clock again when it wakes.
int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const struct timespec* until) {
  constexpr int64_t kSecond_ns = 1000000000;
  struct timespec steady = {};
  struct timespec real = {};
  clock_gettime(clock, &steady);
  clock_gettime(CLOCK_REALTIME, &real);
  const int64_t nanoseconds = real.tv_nsec + until->tv_nsec - steady.tv_nsec;  // from -1 to 2 seconds
  struct timespec deadline = {};
  deadline.tv_sec = real.tv_sec + until->tv_sec - steady.tv_sec + (nanoseconds + kSecond_ns) / kSecond_ns - 1;
  deadline.tv_nsec = (nanoseconds + kSecond_ns) % kSecond_ns;
  return pthread_cond_timedwait(condition, mutex, &deadline);
}
}

#endif
