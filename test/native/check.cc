// Runs the tests whose names contain the first argument, if one is given; the last line counts them.
#include "check.h"

#include <cstring>
#include <utility>
#include <vector>

namespace check {
namespace {
std::vector<std::pair<std::string, std::function<void()>>>& tests() {
  static std::vector<std::pair<std::string, std::function<void()>>> list;
  return list;
}
int failures_in_test = 0;
}  // namespace

void add(const char* name, std::function<void()> body) { tests().emplace_back(name, std::move(body)); }

void fail(const char* file, int line, const std::string& text) {
  // A broken loop must not print a million lines.
  if (++failures_in_test <= 10) std::printf("  %s:%d: %s\n", file, line, text.c_str());
}

}  // namespace check

int main(int argc, char** argv) {
  int passed = 0;
  int failed = 0;
  for (auto& [name, body] : check::tests()) {
    if (argc > 1 && name.find(argv[1]) == std::string::npos) continue;
    check::failures_in_test = 0;
    body();
    std::printf("%s %s\n", check::failures_in_test == 0 ? "ok  " : "FAIL", name.c_str());
    std::fflush(stdout);
    (check::failures_in_test == 0 ? passed : failed)++;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
