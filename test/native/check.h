// A test is a named function; a check that fails prints where and what and lets the test go on. No framework is needed
// for that.
#pragma once

#include <cstdio>
#include <functional>
#include <sstream>
#include <string>

namespace check {

// The sanitizers make everything about ten times slower: loops over seeds are shorter there, and reach the same code.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

void add(const char* name, std::function<void()> body);
void fail(const char* file, int line, const std::string& text);

struct Adder {
  Adder(const char* name, std::function<void()> body) { add(name, std::move(body)); }
};

template <class A, class B>
void equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream out;
  out << text << ": " << a << " is not " << b;
  fail(file, line, out.str());
}

}  // namespace check

#define CHECK_CONCAT_(a, b) a##b
#define CHECK_CONCAT(a, b) CHECK_CONCAT_(a, b)
#define TEST(name)                                                                         \
  static void CHECK_CONCAT(test_, __LINE__)();                                             \
  static check::Adder CHECK_CONCAT(adder_, __LINE__)(name, CHECK_CONCAT(test_, __LINE__)); \
  static void CHECK_CONCAT(test_, __LINE__)()
#define CHECK(condition) ((condition) ? (void)0 : check::fail(__FILE__, __LINE__, #condition))
#define CHECK_EQ(a, b) check::equal((a), (b), #a " == " #b, __FILE__, __LINE__)
